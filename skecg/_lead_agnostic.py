"""Lead-agnostic pretraining with the paper's values, and checkpoints of its authors and of ECG-FM."""

import math
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._embedder import ECGSelfSupervisedEmbedder
from ._fairseq import describe_encoder, describe_objective, read_fairseq, rename_tensors
from .encoders import ConvTransformer
from .objectives import Wav2Vec2CMSC

N_TIMES = 2500  # 5 s at 500 Hz, the pieces that all published models were trained on


@validate_params(
    {"variant": [StrOptions({"paper-2022", "upstream"})], "size": [StrOptions({"base", "small"})],
     "fs": [Interval(Real, 0, None, closed="neither")]},
    prefer_skip_nested_validation=True,
)
def w2v_cmsc_rlm(variant="paper-2022", size="base", *, fs=500, **embedder_params):
    """Embedder with lead-agnostic pretraining: wav2vec 2.0, contrast between records, random lead masking.

    The system of Oh et al. (2022), the objective of ECG-FM. Windows of 10 s are seen as their halves of 5 s.

    ========================= ================================ =====================================
    value                     base                             small
    ========================= ================================ =====================================
    convolutions              width 256, frames of 32 ms       the same
    transformer               12 blocks of width 768, 12       4 blocks of width 256, 4 heads, 4.5 M
                              heads, 90.9 M parameters in all  parameters in all
    positions                 128 frames, 16 groups            the same
    dropout                   0.1, of attention weights too    0.1, not of attention weights
    gradient of convolutions  0.1 of the rest                  the same
    hidden frames             spans of 10, probability 0.65    the same
    quantiser                 2 groups of 320 codes            the same
    leads taken away          each with probability 0.5        the same
    contrast between records  32 or 64 windows at a time       the batch
    training                  AdamW, constant 5e-5, weight     AdamW, 5e-4, warm-up and cosine,
                              decay 0.01, 512 windows in a     weight decay 0.01, gradients
                              batch, 200 epochs, no clipping   clipped, 64 windows, 100 epochs
    ========================= ================================ =====================================

    "base" wants a GPU; if its memory does not hold 512 windows, lower ``batch_size``. "small" was not published: it keeps
    the task and fits two CPU cores.

    Parameters
    ----------
    variant : {"paper-2022", "upstream"}, default="paper-2022"
        How the authors' code was when the paper appeared, or how it is now, and ECG-FM with it. They differ in what is
        added to the variances in transformer blocks (1e-6, 1e-5), in a second dropout of the attention's output (0.1,
        none; both together drop 0.19), and in the windows that are contrasted with each other at a time (32, 64).
    size : {"base", "small"}, default="base"
    fs : float, default=500
        Sampling rate of the windows in Hz. The number of convolutions follows from it: 4 at 500 Hz, 2 at 100 Hz.
    **embedder_params
        Parameters of :class:`~skecg.ECGSelfSupervisedEmbedder` that replace those above, such as ``max_epochs`` or
        ``random_state``.

    Returns
    -------
    embedder : ECGSelfSupervisedEmbedder
        Not fitted. Takes windows of any leads in millivolt, and windows of other lengths once it is fitted. The paper's
        ablations are parameters: ``objective__local_weight=0`` (CMSC alone), ``objective__global_weight=0`` (wav2vec 2.0
        alone), ``objective__lead_mask_prob=0``.

    Notes
    -----
    Departures from the authors' code, in both variants:

    * Adam's second moment decays by 0.999 rather than 0.98, epsilon is 1e-8 rather than 1e-6, and vectors (biases, gains)
      are not decayed.
    * Batches are drawn anew in every epoch; theirs are put together once.
    * 512 windows make one batch in blocks of 32 or 64, where theirs are steps of several processes.
    * Random lead masking leaves one lead at least.
    * If patients have several windows in a block, the 2022 code took means per window first; here, as in today's
      code, all positive pairs count the same.

    References
    ----------
    Oh J, Chung H, Kwon J, Hong D, Choi E. Lead-agnostic self-supervised learning for local and global representations of
    electrocardiogram. CHIL 2022. arXiv:2203.06889

    McKeen K, Masood S, Toma A, Rubin B, Wang B. ECG-FM: an open electrocardiogram foundation model. JAMIA Open, 2025.

    Examples
    --------
    >>> from skecg.datasets import make_ecg
    >>> from skecg.recipes import w2v_cmsc_rlm
    >>> X, y, groups = make_ecg(4, duration=2.0, random_state=0)
    >>> embedder = w2v_cmsc_rlm(size="small", fs=100, max_epochs=1, random_state=0).fit(X, groups=groups)
    >>> embedder.transform(X).shape
    (4, 256)
    """
    old = variant == "paper-2022"
    n_convolutions = max(1, round(math.log2(max(2.0, 0.032 * fs))))  # frames of about 32 ms
    network = {
        "conv_dim": 256, "conv_strides": (2,) * n_convolutions, "position_kernel": 128, "dropout": 0.1,
        "attention_output_dropout": 0.19 if old else None, "norm_eps": 1e-6 if old else 1e-5, "conv_gradient": 0.1,
        "any_length": True,
    }
    if size == "base":
        params = {
            "encoder": ConvTransformer(768, 12, n_heads=12, attention_dropout=0.1, **network),
            "objective": Wav2Vec2CMSC(contrast_size=32 if old else 64),
            "learning_rate": 5e-5, "weight_decay": 0.01, "warmup": 0.0, "schedule": "constant", "gradient_clip": None,
            "batch_size": 512, "max_epochs": 200,
        }
    else:
        params = {
            "encoder": ConvTransformer(256, 4, n_heads=4, **network), "objective": Wav2Vec2CMSC(),
            "learning_rate": 5e-4, "weight_decay": 0.01, "max_epochs": 100,
        }
    return ECGSelfSupervisedEmbedder(**{**params, **embedder_params})


@validate_params(
    {"path": [str, PathLike], "n_heads": [Interval(Integral, 1, None, closed="left"), None]},
    prefer_skip_nested_validation=True,
)
def from_fairseq(path, *, n_heads=None, **embedder_params):
    """Pretrained embedder from a checkpoint of fairseq-signals, such as those of ECG-FM.

    The checkpoint is read as plain weights: no code in it runs. Pretrained and fine-tuned models are both taken, the
    latter without their output layer.

    Parameters
    ----------
    path : str or path-like
        A ``.pt`` file with ``"model"`` and ``"cfg"``.
    n_heads : int, default=None
        Attention heads, which no tensor tells. None: as the checkpoint's configuration says, if it fits the tensors, else
        one per 64 of the width.
    **embedder_params
        Parameters of :class:`~skecg.ECGSelfSupervisedEmbedder`, such as ``device`` or ``output``. With
        ``warm_start=True`` the pretraining task is kept too, and ``fit`` and ``partial_fit`` continue it; set
        ``crop_size=5000`` for that, since the task halves windows.

    Returns
    -------
    embedder : ECGSelfSupervisedEmbedder
        Fitted, for the 12 standard leads at 500 Hz; missing leads are NaN. Longer recordings are embedded in pieces of 5 s
        (``crop_size=2500``), the length of the pretraining. Wrap it in :class:`~sklearn.frozen.FrozenEstimator` to keep the
        weights in a Pipeline or classifier.

    Raises
    ------
    ValueError
        Not such a checkpoint, another architecture, a tensor missing, unknown or of another shape.

    Notes
    -----
    ECG-FM was trained on recordings at 500 Hz of which each lead had been normalised over the whole recording to mean 0
    and deviation 1, before pieces of 5 s were cut: ``LeadScaler(scope="lead")``. Models of the 2022 paper were trained
    on millivolt.

    Examples
    --------
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.pipeline import make_pipeline
    >>> from skecg.preprocessing import LeadScaler
    >>> from skecg.recipes import from_fairseq
    >>> embedder = from_fairseq("mimic_iv_ecg_physionet_pretrained.pt")              # doctest: +SKIP
    >>> ecg_fm = make_pipeline(LeadScaler(scope="lead"), FrozenEstimator(embedder))  # doctest: +SKIP
    >>> ecg_fm.fit_transform(X).shape                                                # doctest: +SKIP
    (100, 768)
    """
    model, config = read_fairseq(path)
    network, task = rename_tensors(model, config)
    params = {"encoder": describe_encoder(network, config, n_heads), "objective": describe_objective(task, config),
              "crop_size": N_TIMES}
    embedder = ECGSelfSupervisedEmbedder(**{**params, **embedder_params})
    if embedder.warm_start and not task:
        raise ValueError(f"warm_start=True continues pretraining, but {path} holds a fine-tuned model without its task.")
    # a fit without training builds everything; on a mean of 0 and a deviation of 1, so that signals go in as they are
    unit = np.where(np.arange(N_TIMES) % 2, np.float32(-1), np.float32(1))
    asked = {"max_epochs": embedder.max_epochs, "crop_size": embedder.crop_size}
    embedder.set_params(max_epochs=0, crop_size=None).fit(np.tile(unit, (2, 12, 1))).set_params(**asked)
    constants = {name: torch.as_tensor(value) for name, value in embedder.network_.named_buffers()}
    module, state = embedder.network_, {**network, **constants}
    if embedder.warm_start:
        module, state = embedder.pretrainer_, {**{f"encoder.{name}": value for name, value in state.items()}, **task}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network that its tensors describe: {error}") from error
    return embedder
