"""The papers' values as plain functions that return estimators."""

from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._embedder import ECGSelfSupervisedEmbedder
from ._heartbert import from_heartbert, heartbert
from ._lead_agnostic import from_fairseq, w2v_cmsc_rlm
from .encoders import PatchTransformer
from .objectives import MaskedReconstruction

__all__ = ["from_fairseq", "from_heartbert", "heartbert", "joint_spatiotemporal", "w2v_cmsc_rlm"]


@validate_params(
    {"size": [StrOptions({"base", "small"})], "fs": [Interval(Real, 0, None, closed="neither")]},
    prefer_skip_nested_validation=True,
)
def joint_spatiotemporal(size="base", *, fs, **embedder_params):
    """Embedder with joint spatio-temporal pretraining: hidden stretches of time, leads that changed places.

    Reconstructed from the abstract of Ran and Liu (2023); the full text was not known. Of the values below the abstract
    states none.

    ========================= =============================== =====================================
    value                     base                            small
    ========================= =============================== =====================================
    network                   ViT-S: 12 blocks of width 384,  5 blocks of width 128, 4 heads, each
                              6 heads, 22 M parameters        lead pooled, 1 M parameters
    patch                     0.3 s                           0.25 s
    hidden, in all leads      75 %                            60 %
    windows shuffled, leads   50 %, all                       50 %, all
    reconstruction            in the original order           in the original order
    decoder                   4 blocks of width 256           1 block of width 64
    losses                    1 : 1, each starting near 1     1 : 1, each starting near 1
    an update sees            64 whole windows                64 pieces of 2.5 s, half of the leads
    training                  AdamW, 1.5e-4, weight decay     AdamW, 1.5e-3, weight decay 0.05, 200
                              0.05, 100 epochs                epochs
    ========================= =============================== =====================================

    The network and decoder of "base" and the length of its patches are those of ST-MEM (Na et al., 2024); it wants a GPU
    and tens of thousands of recordings. "small" was made for two CPU cores and a few thousand recordings.

    Parameters
    ----------
    size : {"base", "small"}, default="base"
    fs : float
        Sampling rate of the windows in Hz, from which lengths in samples follow.
    **embedder_params
        Parameters of :class:`~skecg.ECGSelfSupervisedEmbedder` that replace those above, such as ``max_epochs`` or
        ``random_state``.

    Returns
    -------
    embedder : ECGSelfSupervisedEmbedder
        Not fitted. Takes windows of several leads, in millivolt and normalised per record at most: a z-score per lead
        deletes the amplitudes that tell leads apart.

    References
    ----------
    Ran A, Liu H. Joint spatio-temporal features constrained self-supervised electrocardiogram representation learning.
    Biomed Eng Lett 14(2):209-220, 2024. doi:10.1007/s13534-023-00329-0

    Na Y, Park M, Tae Y, Joo S. Guiding masked representation learning to capture spatio-temporal relationship of
    electrocardiogram. ICLR 2024.

    Examples
    --------
    >>> from skecg.datasets import make_ecg
    >>> from skecg.recipes import joint_spatiotemporal
    >>> X, y, groups = make_ecg(8, duration=2.5, random_state=0)
    >>> embedder = joint_spatiotemporal("small", fs=100, max_epochs=1, random_state=0).fit(X)
    >>> embedder.transform(X).shape
    (8, 1536)
    """
    if size == "base":
        params = {
            "encoder": PatchTransformer(_samples(0.3, fs), embed_dim=384, depth=12, n_heads=6),
            "objective": MaskedReconstruction(0.75, lead_shuffle=0.5, decoder_dim=256, decoder_depth=4),
            "learning_rate": 1.5e-4, "max_epochs": 100,
        }
    else:
        params = {
            "encoder": PatchTransformer(_samples(0.25, fs), embed_dim=128, depth=5, pooling="lead"),
            "objective": MaskedReconstruction(0.6, lead_shuffle=0.5, lead_fraction=0.5),
            "crop_size": _samples(2.5, fs), "learning_rate": 1.5e-3, "max_epochs": 200,
        }
    return ECGSelfSupervisedEmbedder(**{**params, **embedder_params})


def _samples(seconds, fs):
    return max(1, round(seconds * fs))
