"""HeartBERT's values, and models that were trained by its notebooks."""

from numbers import Integral
from os import PathLike
from pathlib import Path

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._embedder import ECGSelfSupervisedEmbedder
from ._huggingface import load_strictly, read_roberta, rename
from .encoders import TokenTransformer
from .objectives import MaskedLanguageModeling
from .preprocessing import ECGQuantizer, ECGTokenizer


@validate_params(
    {"variant": [StrOptions({"paper", "fixed"})], "size": [StrOptions({"base", "small"})]},
    prefer_skip_nested_validation=True,
)
def heartbert(variant="fixed", size="base", **embedder_params):
    """Embedder with masked language modelling on byte-pair tokens of the quantised signal.

    The system of Tahery et al. (2024), from the authors' public notebooks.

    ========================= =============================== =====================================
    value                     base                            small
    ========================= =============================== =====================================
    levels                    100                             32
    vocabulary                52,000 tokens                   4,096 tokens
    network                   6 blocks of width 768, 12       4 blocks of width 256, 4 heads, 4.3 M
                              heads, 82.9 M parameters        parameters
    tokens read together      512                             512
    hidden                    15 % of the tokens: 80 %        the same
                              masked, 10 % random, 10 % kept
    dropout                   0.1                             0.1
    training                  64 windows, 5e-5, no weight     64 windows, 5e-4, no weight decay, 100
                              decay, 1,000 epochs             epochs
    ========================= =============================== =====================================

    "base" wants a GPU; "small" was not published, and fits two CPU cores. Windows of one lead at 360 Hz were up to 4,000
    samples long. Embeddings are the mean over the tokens; ``output="tokens"`` gives the sequence that the authors feed to a
    BiLSTM (:class:`~skecg.heads.BiLSTMHead`).

    Parameters
    ----------
    variant : {"paper", "fixed"}, default="fixed"
        What is put right beyond the notes below. ``"paper"``: levels of equal frequency (called "Lloyd-Max" there), tokens
        of any length, dropout of attention weights too, a constant learning rate from the first update on. ``"fixed"``:
        levels of the smallest error, that is Lloyd-Max, which keeps the R peaks (a signal-to-noise ratio 17 dB higher on
        record 100 of MIT-BIH); tokens of 64 levels at most; no dropout of attention weights, which lets fast kernels
        work; warm-up and cosine.
    size : {"base", "small"}, default="base"
    **embedder_params
        Parameters of :class:`~skecg.ECGSelfSupervisedEmbedder` that replace those above, such as ``max_epochs`` or
        ``random_state``.

    Returns
    -------
    embedder : ECGSelfSupervisedEmbedder
        Not fitted. Needs the package ``tokenizers``: ``pip install "skecg[heartbert]"``.

    Notes
    -----
    Departures from the authors' code, in both variants:

    * Thresholds and tokens are learned from the training signals only, and kept. Their thresholds are learned again from
      every split, the test part too, so that a token means another amplitude there and no single ECG can be encoded.
    * All tokens of a window are read, in pieces of 512. Theirs are the first 128 in pretraining, a tenth of the window;
      positions beyond were never trained, but are used afterwards.
    * Padding is not attended to. Theirs is, so that results depend on its length.
    * Levels are characters without meaning; one of theirs is a space (see :class:`~skecg.preprocessing.ECGTokenizer`).
    * No min-max scaling before the quantiser, on which it has no effect.
    * The constant learning rate of ``"paper"`` is theirs at the start; they let it fall linearly over the 1,000 epochs, and
      stop early.

    References
    ----------
    Tahery S, Akhlaghi FH, Amirsoleimani T. HeartBERT: a self-supervised ECG embedding model for efficient and effective
    medical signal analysis. arXiv:2411.11896, 2024.

    Examples
    --------
    >>> from skecg.datasets import make_ecg
    >>> from skecg.recipes import heartbert
    >>> X, y, groups = make_ecg(8, duration=2.0, random_state=0)
    >>> embedder = heartbert(size="small", max_epochs=1, random_state=0).fit(X[:, :1])
    >>> embedder.transform(X[:, :1]).shape
    (8, 256)
    """
    base, paper = size == "base", variant == "paper"
    quantizer = ECGQuantizer(100 if base else 32, method="quantile" if paper else "lloyd-max")
    tokenizer = ECGTokenizer(52_000 if base else 4096, **({"max_token_length": 2**16} if paper else {}))
    shape = {"embed_dim": 768, "depth": 6, "n_heads": 12} if base else {"embed_dim": 256, "depth": 4, "n_heads": 4}
    params = {
        "encoder": TokenTransformer(
            quantizer, tokenizer, **shape, dropout=0.1, attention_dropout=0.1 if paper else 0.0, max_tokens=512
        ),
        "objective": MaskedLanguageModeling(0.15),
        "batch_size": 64, "learning_rate": 5e-5 if base else 5e-4, "weight_decay": 0.0,
        "max_epochs": 1000 if base else 100,
    }
    if paper:
        params |= {"warmup": 0.0, "schedule": "constant"}
    return ECGSelfSupervisedEmbedder(**{**params, **embedder_params})


@validate_params(
    {"folder": [str, PathLike], "edges": ["array-like"], "n_times": [Interval(Integral, 2, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def from_heartbert(folder, edges, *, n_times=1080, **embedder_params):
    """Pretrained embedder from a model that HeartBERT's notebooks saved.

    The weights are read as plain tensors: no code in the files runs.

    Parameters
    ----------
    folder : str or path-like
        With ``config.json``, ``tokenizer.json``, and ``model.safetensors`` or ``pytorch_model.bin``, as by
        ``save_pretrained``.
    edges : array-like of shape (n_levels - 1,) or (n_levels,)
        Thresholds between the levels, ascending, in the unit of the signals that will be embedded. The breakpoints of the
        notebooks may be passed as they are (the last one is 1e100 and no threshold). They are not part of a published model:
        learn them from signals like those of the pretraining, ``ECGQuantizer(100).fit(X).edges_``.
    n_times : int, default=1080
        Samples of a window; 3 s at 360 Hz. Other lengths are embedded too: only the room for tokens follows from it.
    **embedder_params
        Parameters of :class:`~skecg.ECGSelfSupervisedEmbedder`, such as ``device`` or ``output``. With
        ``warm_start=True`` the pretraining task is kept too, and ``fit`` and ``partial_fit`` continue it.

    Returns
    -------
    embedder : ECGSelfSupervisedEmbedder
        Fitted, for one lead. Wrap it in :class:`~sklearn.frozen.FrozenEstimator` to keep the weights in a Pipeline or
        classifier.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        Not such a model, another arithmetic, a tensor missing, unknown or of another shape, a tokenizer with another number
        of tokens, thresholds that are not ascending.

    Examples
    --------
    >>> from sklearn.frozen import FrozenEstimator
    >>> from skecg import ECGClassifier
    >>> from skecg.heads import BiLSTMHead
    >>> from skecg.preprocessing import ECGQuantizer
    >>> from skecg.recipes import from_heartbert
    >>> edges = ECGQuantizer(100).fit(X).edges_                                                      # doctest: +SKIP
    >>> embedder = from_heartbert("HeartBERT", edges)                                                # doctest: +SKIP
    >>> clf = ECGClassifier(FrozenEstimator(embedder), BiLSTMHead(128), trainable=3).fit(X, y)       # doctest: +SKIP
    """
    folder = Path(folder)
    config, state = read_roberta(folder)
    network, task = rename(state)
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim == 1 and len(edges) > 1 and edges[-1] >= 1e99:
        edges = edges[:-1]
    quantizer = ECGQuantizer.from_edges(edges)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}: without the tokenizer, signals cannot be encoded.")
    tokenizer = ECGTokenizer.from_file(file, n_levels=quantizer.n_levels)
    if tokenizer.vocab_size_ != config["vocab_size"]:
        raise ValueError(
            f"{file} has {tokenizer.vocab_size_} tokens, but the network was made for {config['vocab_size']}: they do not "
            "belong together."
        )
    params = {
        "encoder": TokenTransformer(
            FrozenEstimator(quantizer), FrozenEstimator(tokenizer), embed_dim=config["hidden_size"],
            depth=config["num_hidden_layers"], n_heads=config["num_attention_heads"],
            mlp_ratio=config["intermediate_size"] / config["hidden_size"], dropout=config.get("hidden_dropout_prob", 0.1),
            attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
            max_tokens=config["max_position_embeddings"] - 2, any_length=True,
        ),
        "objective": MaskedLanguageModeling(0.15),
    }
    embedder = ECGSelfSupervisedEmbedder(**{**params, **embedder_params})
    if embedder.warm_start and not task:
        raise ValueError(f"warm_start=True continues pretraining, but {folder} holds an encoder without its task.")
    max_epochs = embedder.max_epochs
    # a fit on anything builds everything
    some = np.tile(np.arange(n_times, dtype=np.float32) % 2, (2, 1, 1))
    embedder.set_params(max_epochs=0).fit(some).set_params(max_epochs=max_epochs)
    # two samples a token are usual, and never as few as one and a half
    embedder.encoder_.n_tokens_ = embedder.network_.n_tokens = -(-n_times * 2 // 3)
    load_strictly(embedder.network_, network, f"the network that {folder / 'config.json'} describes")
    if embedder.warm_start:
        own = {name: value for name, value in embedder.pretrainer_.state_dict().items() if not name.startswith("encoder.")}
        if own.keys() != task.keys():
            lacking = ", ".join(sorted(own.keys() - task.keys()))
            raise ValueError(f"The head of the language model in {folder} lacks {lacking}.")
        embedder.pretrainer_.load_state_dict(task, strict=False)
    return embedder
