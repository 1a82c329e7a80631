"""MaskedReconstruction: hide stretches of time, disrupt the order of the leads; predict the signal and the lead numbers."""

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

from ._base import Objective
from ._detection import PatchReconstruction, SignalReconstruction


class MaskedReconstruction(Objective):
    """Masked autoencoding in time, and recognition of leads that changed places.

    *Temporal detection*: a fresh random part of each window is hidden in all leads at once (a mask per lead would leave
    the limb leads to linear algebra), and the original signal is predicted there. With an encoder of patches
    (:class:`~skecg.encoders.PatchTransformer`) only the visible patches pass through the encoder and a light transformer
    decoder predicts the hidden ones, each lead on its own: what the leads have in common is left for the encoder to
    find. With an encoder of the signal (:class:`~skecg.encoders.ResNet1d`) the hidden time steps are replaced by a learned
    value per lead and a linear decoder predicts the signal. The loss is the squared error over hidden samples, in units
    of the training signals' variance.

    *Spatial detection* (``lead_shuffle`` above 0): in some of the windows leads change places before anything else
    happens, and one linear classifier, shared by all places, predicts which lead stands in each. The loss is the
    cross-entropy over the shuffled windows, divided by the logarithm of the number of leads.

    Both losses start near 1 and are added. Missing leads, flat leads and padding are left out of both. The second is a sum
    over the leads of shuffled windows, divided by the number to be expected: 0 in a batch without shuffled windows.

    Parameters
    ----------
    mask_ratio : float or tuple of two floats, default=0.5
        Share of the time patches to hide, rounded to whole patches: one at least is hidden, and one seen. A tuple is a
        schedule: from the first to the second value, linearly over the updates of a ``fit`` (or of a call of
        ``partial_fit``). 0 hides nothing: spatial detection alone.
    patch_size : int, default=None
        Samples that are hidden together (signal encoders only; an encoder of patches hides its own). None cuts a window
        into about 40 patches.
    mask_per_lead : bool, default=False
        Hide other stretches in each lead.
    lead_shuffle : float, default=0.0
        Share of the windows in which leads change places. 0: temporal detection alone.
    shuffle_fraction : float, default=1.0
        Share of the leads of a shuffled window that may change places; two at least.
    reconstruction_order : {"original", "input"}, default="original"
        In which order the leads of a shuffled window are reconstructed: in the original one, or as they stand.
    lead_loss_weight : float, default=1.0
        Weight of the loss of spatial detection.
    lead_fraction : float, default=1.0
        Share of the leads that an update works with, drawn for each batch (encoders of patches only). Fewer leads make
        an update cheaper.
    decoder_dim : int, default=64
        Width of the transformer decoder (patches only).
    decoder_depth : int, default=1
        Blocks of the transformer decoder (patches only).
    decoder_heads : int, default=4
        Its attention heads; divides ``decoder_dim``.

    Notes
    -----
    With ``lead_shuffle`` the objective is that of Ran and Liu (2023), reconstructed from the abstract: no more was known.
    The abstract states that signals are masked dynamically and at random, that the order of leads is disrupted, and that
    the original signal and the lead numbers are predicted. It does not state, and these defaults are ours:

    * mask ratio, length of what is hidden together, whether the ratio changes, whether all leads are hidden at once;
    * how often and how many leads are shuffled, and in which order the signal is reconstructed;
    * weights of the losses, and that the first one is taken over hidden samples and the second over shuffled windows
      only (where nothing is shuffled, a lead's number can be read off its place);
    * encoder, decoder, and every parameter of the optimisation.

    ``history_`` of the embedder then holds ``reconstruction`` (unless ``mask_ratio`` is 0), ``lead_cross_entropy`` (natural
    logarithm; chance is the logarithm of the number of leads), ``lead_accuracy`` (chance is one over the number of leads),
    ``chest_lead_accuracy`` over V1 to V6 where ``lead_names`` has them, and ``reconstruction_gradient`` and
    ``lead_gradient``, the norms of both terms' gradients at the encoder's output. What an epoch without shuffled windows
    says nothing about is NaN. A schedule adds ``mask_ratio``. Without ``lead_shuffle`` there is ``loss`` alone.

    Six of the twelve leads are sums of others, so that linear algebra alone names 7 of 12 leads: judge spatial detection
    by ``chest_lead_accuracy``. Recognising exchanged leads is not recognising exchanged electrodes, which also invert
    leads.

    References
    ----------
    He K, Chen X, Xie S, Li Y, Dollar P, Girshick R. Masked autoencoders are scalable vision learners. CVPR 2022.

    Zhang H, et al. MaeFE: masked autoencoders family of electrocardiogram for self-supervised pretraining and transfer
    learning. IEEE Trans Instrum Meas 72, 2023.

    Ran A, Liu H. Joint spatio-temporal features constrained self-supervised electrocardiogram representation learning.
    Biomed Eng Lett 14(2):209-220, 2024. doi:10.1007/s13534-023-00329-0

    See Also
    --------
    skecg.recipes.joint_spatiotemporal : Embedder with this objective.
    skecg.evaluation.ReconstructionDisplay : Plots what was hidden and what was predicted.

    Examples
    --------
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.objectives import MaskedReconstruction
    >>> X, y, groups = make_ecg(8, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(
    ...     objective=MaskedReconstruction(mask_ratio=0.75, lead_shuffle=0.5), max_epochs=2, random_state=0)
    >>> embedder.fit_transform(X).shape
    (8, 128)
    >>> sorted(embedder.history_[0])  # doctest: +NORMALIZE_WHITESPACE
    ['chest_lead_accuracy', 'epoch', 'lead_accuracy', 'lead_cross_entropy', 'lead_gradient', 'learning_rate', 'loss',
     'reconstruction', 'reconstruction_gradient', 'seconds']
    """

    requires = ("patches", "signal")

    _parameter_constraints = {
        "mask_ratio": [Interval(Real, 0, 1, closed="left"), tuple, list],
        "patch_size": [Interval(Integral, 1, None, closed="left"), None],
        "mask_per_lead": ["boolean"],
        "lead_shuffle": [Interval(Real, 0, 1, closed="both")],
        "shuffle_fraction": [Interval(Real, 0, 1, closed="right")],
        "reconstruction_order": [StrOptions({"original", "input"})],
        "lead_loss_weight": [Interval(Real, 0, None, closed="neither")],
        "lead_fraction": [Interval(Real, 0, 1, closed="right")],
        "decoder_dim": [Interval(Integral, 1, None, closed="left")],
        "decoder_depth": [Interval(Integral, 1, None, closed="left")],
        "decoder_heads": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, mask_ratio=0.5, *, patch_size=None, mask_per_lead=False, lead_shuffle=0.0, shuffle_fraction=1.0,
                 reconstruction_order="original", lead_loss_weight=1.0, lead_fraction=1.0, decoder_dim=64,
                 decoder_depth=1, decoder_heads=4):
        self.mask_ratio = mask_ratio
        self.patch_size = patch_size
        self.mask_per_lead = mask_per_lead
        self.lead_shuffle = lead_shuffle
        self.shuffle_fraction = shuffle_fraction
        self.reconstruction_order = reconstruction_order
        self.lead_loss_weight = lead_loss_weight
        self.lead_fraction = lead_fraction
        self.decoder_dim = decoder_dim
        self.decoder_depth = decoder_depth
        self.decoder_heads = decoder_heads

    def build(self, network):
        self._validate_params()
        ratio = self.mask_ratio
        if isinstance(ratio, (tuple, list)) and (
            len(ratio) != 2 or not all(isinstance(r, Real) and 0 < r < 1 for r in ratio)
        ):
            raise ValueError(
                f"mask_ratio={ratio!r} is no schedule; expected a number, or a pair of the first and the last value, both "
                "above 0 and below 1, such as (0.3, 0.8)."
            )
        if ratio == 0 and not self.lead_shuffle:
            raise ValueError(
                "mask_ratio=0 hides nothing and lead_shuffle=0 moves nothing: there is nothing to learn. Set one of them."
            )
        return (PatchReconstruction if hasattr(network, "patch_size") else SignalReconstruction)(network, self)
