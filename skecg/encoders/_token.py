"""TokenTransformer: a language model's encoder over byte-pair tokens of the quantised signal."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval
from torch import nn

from .._validation import as_3d
from ..preprocessing import ECGQuantizer, ECGTokenizer
from ..preprocessing._corpus import open_corpus
from ..preprocessing._quantizer import quantize
from ..preprocessing._tokenizer import SPECIAL_TOKENS
from ._base import Encoder, Network
from ._layers import Dropout, PostNormBlock

PAD = SPECIAL_TOKENS.index("<pad>")
MASK = SPECIAL_TOKENS.index("<mask>")
_TOGETHER = 1024  # tokens of pieces of similar length, in training on a CPU: of 256 to 4,096 measured best
# Matrices of 5 to 11 rows, whatever their width, are multiplied to other last bits by other numbers of threads (MKL).
_LEAST_ROWS = 12


class TokenTransformer(Encoder):
    """Transformer over the byte-pair tokens of each lead, with the arithmetic of RoBERTa.

    Every lead is quantised to levels, its levels are joined to tokens, and the tokens pass through post-norm transformer
    blocks with learned positions. A lead is read on its own; several leads are read with the same weights, and the
    embedding is the mean over the leads that are there, of the mean over each lead's tokens. A frequent shape of the signal
    is one token, so that the number of tokens differs between windows of equal length.

    Needs the package ``tokenizers``: ``pip install "skecg[heartbert]"``.

    Parameters
    ----------
    quantizer : ECGQuantizer, default=None
        Fitted on the training signals. None: 32 levels by ``"lloyd-max"``. In a
        :class:`~sklearn.frozen.FrozenEstimator`, it is taken as it is.
    tokenizer : ECGTokenizer, default=None
        Likewise. None: 4,096 tokens.
    embed_dim : int, default=128
        Width of the tokens.
    depth : int, default=4
        Number of transformer blocks.
    n_heads : int, default=4
        Attention heads; divides ``embed_dim``.
    mlp_ratio : float, default=4.0
        Hidden width of a block's network over ``embed_dim``.
    dropout : float, default=0.0
        Dropout probability of the embedded tokens and of the output of every branch.
    attention_dropout : float, default=0.0
        Dropout probability of the attention weights; costs the fused kernels.
    max_tokens : int, default=512
        Tokens that are read together. A lead of more is read in consecutive pieces of so many, each on its own: nothing
        is cut off.
    any_length : bool, default=False
        Accept windows of another length than in ``fit``. Off, another length is an error: it usually is another
        sampling rate.
    cache : str or path, default=None
        Folder where the tokens of whole data sets are kept, two bytes for each, so that later epochs and fits read them
        in place of encoding the signals again. Not used by ``transform``, and not where signals are cropped or leads are
        left out at random.

    Attributes
    ----------
    quantizer_ : ECGQuantizer
        Fitted clone of ``quantizer`` (or the frozen one).
    tokenizer_ : ECGTokenizer
        Fitted clone of ``tokenizer`` (or the frozen one).
    n_tokens_ : int
        Tokens of a lead that ``transform`` has room for under ``output="tokens"``: a quarter more than the training windows
        had at most. Embeddings do not depend on it.
    n_leads_, n_times_ : int
        Shape of one sample seen in ``fit``.

    Notes
    -----
    - Token ids do not depend on the unit of the signals, because the thresholds move with it; ``center_`` and ``scale_`` of
      other encoders mean nothing here.
    - Padding is never attended to, has no position and is left out of the mean. On a CPU, training reads pieces of similar
      length together, which leaves next to none; ``transform`` reads each piece by itself and without any: results do not
      depend on what else is transformed.
    - Positions start at 2 and padding has number 1, as in RoBERTa; GELU is exact; LayerNorm adds 1e-12.

    References
    ----------
    Liu Y, et al. RoBERTa: a robustly optimized BERT pretraining approach. arXiv:1907.11692, 2019.

    Tahery S, Akhlaghi FH, Amirsoleimani T. HeartBERT: a self-supervised ECG embedding model for efficient and effective
    medical signal analysis. arXiv:2411.11896, 2024.

    Examples
    --------
    >>> import torch
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import TokenTransformer
    >>> from skecg.preprocessing import ECGQuantizer, ECGTokenizer
    >>> X, y, groups = make_ecg(4, duration=2.0, random_state=0)
    >>> encoder = TokenTransformer(ECGQuantizer(16), ECGTokenizer(200), embed_dim=32, depth=1).fit(X)
    >>> ids = encoder.encode_inputs(X)
    >>> ids.shape[:2], ids.dtype
    ((4, 12), dtype('int32'))
    >>> encoder.build()(torch.from_numpy(ids)).shape
    torch.Size([4, 32])
    """

    tokens = "ids"
    padding_value = PAD

    _parameter_constraints = {
        "quantizer": [ECGQuantizer, FrozenEstimator, None],
        "tokenizer": [ECGTokenizer, FrozenEstimator, None],
        "embed_dim": [Interval(Integral, 1, None, closed="left")],
        "depth": [Interval(Integral, 0, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "mlp_ratio": [Interval(Real, 0, None, closed="neither")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "max_tokens": [Interval(Integral, 1, None, closed="left")],
        "any_length": ["boolean"],
        "cache": [str, HasMethods(["__fspath__"]), None],
    }

    def __init__(self, quantizer=None, tokenizer=None, *, embed_dim=128, depth=4, n_heads=4, mlp_ratio=4.0, dropout=0.0,
                 attention_dropout=0.0, max_tokens=512, any_length=False, cache=None):
        self.quantizer = quantizer
        self.tokenizer = tokenizer
        self.embed_dim = embed_dim
        self.depth = depth
        self.n_heads = n_heads
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.max_tokens = max_tokens
        self.any_length = any_length
        self.cache = cache

    def fit(self, X):
        """Learn the thresholds of the levels and the tokens.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt; missing leads are NaN from end to end. Read in blocks; the tokens are learned from as many rows as
            the tokenizer's ``max_samples`` says.

        Returns
        -------
        self : TokenTransformer
        """
        super().fit(X)
        if self.embed_dim % self.n_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} is not a multiple of n_heads={self.n_heads}; choose it so that each head "
                "gets the same width."
            )
        quantizer = ECGQuantizer(32, method="lloyd-max") if self.quantizer is None else clone(self.quantizer)
        tokenizer = ECGTokenizer() if self.tokenizer is None else clone(self.tokenizer)
        for part, kind in ((quantizer, ECGQuantizer), (tokenizer, ECGTokenizer)):
            if isinstance(part, FrozenEstimator) and not isinstance(part.estimator, kind):
                raise ValueError(f"The frozen estimator is a {type(part.estimator).__name__}; expected an {kind.__name__}.")
        self.quantizer_ = quantizer.fit(X, None)
        X = as_3d(X)
        rows = tokenizer.rows_to_learn(len(X), self.n_leads_ * self.n_times_)
        levels = quantize(np.asarray(X[rows]), quantizer.edges_)
        self.tokenizer_ = tokenizer.fit(levels, quantizer.n_levels)
        if tokenizer.n_levels_ < quantizer.n_levels:
            raise ValueError(
                f"The tokenizer knows {tokenizer.n_levels_} levels, but the quantizer gives {quantizer.n_levels}. Use the "
                "tokenizer that was trained on its levels."
            )
        most = max(map(len, tokenizer.encode(levels)))
        self.n_tokens_ = min(-(-most * 5 // 4), self.n_times_ + 1)
        return self

    def encode_inputs(self, X):
        """Token ids of some rows of X.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_leads, n_times)

        Returns
        -------
        ids : ndarray of shape (n_samples, n_leads, n_tokens), int32
            Padded with 1 at the end to the longest lead, or to a multiple of ``max_tokens`` if that has more.
        """
        n_samples, n_leads = X.shape[:2]
        return self.pad(self.tokenizer_.encode(quantize(np.asarray(X), self.quantizer_.edges_)), n_samples, n_leads)

    def open_corpus(self, X):
        """The tokens of all of X in ``cache``, encoded if they are not there; None without a cache."""
        return None if self.cache is None else open_corpus(X, self.quantizer_, self.tokenizer_, self.cache)

    def pad(self, ids, n_samples, n_leads):
        """A list of ids of leads, sample by sample, as one array (n_samples, n_leads, n_tokens)."""
        longest = max(1, *map(len, ids)) if ids else 1
        if longest > self.max_tokens:
            longest = -(-longest // self.max_tokens) * self.max_tokens
        out = np.full((len(ids), longest), PAD, np.int32)
        for row, lead in zip(out, ids, strict=True):
            row[: len(lead)] = lead
        return out.reshape(n_samples, n_leads, longest)

    def build(self):
        return TokenNetwork(
            self.tokenizer_.vocab_size_, self.n_leads_, self.n_tokens_, self.embed_dim, self.depth, self.n_heads,
            self.mlp_ratio, self.dropout, self.attention_dropout, self.max_tokens,
        )


class TokenNetwork(Network):
    """Network of :class:`TokenTransformer`; tokens are ordered lead by lead, each with its padding at the end."""

    def __init__(self, vocab_size, n_leads, n_tokens, embed_dim, depth, n_heads, mlp_ratio, dropout, attention_dropout,
                 max_tokens):
        super().__init__(embed_dim)
        self.vocab_size, self.n_leads, self.n_tokens, self.max_tokens = vocab_size, n_leads, n_tokens, max_tokens
        self.word = nn.Embedding(vocab_size, embed_dim, padding_idx=PAD)
        self.position = nn.Embedding(max_tokens + PAD + 1, embed_dim, padding_idx=PAD)
        self.segment = nn.Parameter(torch.empty(1, embed_dim))  # RoBERTa's token type, of which there is one
        self.norm = nn.LayerNorm(embed_dim, eps=1e-12)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(embed_dim, n_heads, mlp_ratio, dropout, attention_dropout, norm_eps=1e-12) for _ in range(depth)
        )
        init_language_weights(self)
        nn.init.normal_(self.segment, std=0.02)

    def tokenize(self, x):
        return x.flatten(1)  # (B, L * N)

    def embed(self, tokens):
        pieces = tokens.reshape(-1, self._piece(tokens.shape[1]))
        there = pieces != PAD
        position = there.cumsum(dim=1) * there + PAD
        h = self.word(pieces) + self.position(position) + self.segment
        return self.dropout(self.norm(h)).reshape(*tokens.shape, -1)  # (B, L * N, D)

    def contextualize(self, h, padding_mask=None):
        pieces = h.reshape(-1, self._piece(h.shape[1]), h.shape[2])  # (B * L * pieces, N, D)
        if padding_mask is None:
            return self._read(pieces, None).reshape(h.shape)
        padding = padding_mask.reshape(pieces.shape[:2])
        lengths, order = (~padding).sum(dim=1).sort(descending=True, stable=True)
        lengths, n_there, start, read = lengths.tolist(), int(lengths.count_nonzero()), 0, []
        while start < n_there:
            rows = order[start:min(start + self._n_together(h, lengths[start:]), n_there)]
            mask = padding[rows, : lengths[start]]
            part = self._read(pieces[rows, : lengths[start]], mask if mask.any() else None)
            read.append(F.pad(part, (0, 0, 0, pieces.shape[1] - lengths[start])))
            start += len(rows)
        read.append(torch.zeros_like(pieces[n_there:]))
        return torch.cat(read)[order.argsort()].reshape(h.shape)

    def encode_tokens(self, x, lead_valid=None):
        tokens = self.tokenize(x)
        padding = tokens == PAD  # missing leads have no other tokens
        return self.contextualize(self.embed(tokens), padding), padding

    def pool(self, h, padding_mask=None):
        leads = h.unflatten(1, (self.n_leads, -1))  # (B, L, N, D)
        if padding_mask is None:
            return leads.mean(dim=2).mean(dim=1)
        keep = ~padding_mask.unflatten(1, (self.n_leads, -1))  # (B, L, N)
        count = keep.sum(dim=2)  # (B, L)
        if self._one_by_one(h):  # a sum over padding may round otherwise than one without
            flat = zip(leads.flatten(0, 1), count.flatten().tolist(), strict=True)
            mean = torch.stack([lead[:n].mean(dim=0) if n else torch.zeros_like(lead[0]) for lead, n in flat])
            mean = mean.unflatten(0, count.shape)  # (B, L, D)
        else:
            mean = (leads * keep.unsqueeze(-1)).sum(dim=2) / count.clamp(min=1).unsqueeze(-1)
        return mean.sum(dim=1) / (count > 0).sum(dim=1).clamp(min=1).unsqueeze(-1)

    def align(self, h, padding_mask):
        h, padding = (value.unflatten(1, (self.n_leads, -1)) for value in (h, padding_mask))  # (B, L, N, ...)
        if not padding[:, :, self.n_tokens:].all():
            warnings.warn(
                f"A lead has {int((~padding).sum(dim=2).max())} tokens, but output='tokens' has room for n_tokens_="
                f"{self.n_tokens}, a quarter more than any training window had; the rest is left out there. Is this the "
                "sampling rate, and the filter, of the training signals?", stacklevel=2,
            )
        room = self.n_tokens - h.shape[2]  # crops if negative
        h, padding = F.pad(h, (0, 0, 0, room)), F.pad(padding, (0, room), value=True)
        return h.flatten(1, 2), padding.flatten(1)

    def _read(self, h, padding):
        n = len(h)
        if self._one_by_one(h) and n * h.shape[1] < _LEAST_ROWS:
            h = h.repeat(-(-_LEAST_ROWS // (n * h.shape[1])), 1, 1)
        for block in self.blocks:
            h = block(h, padding)
        return h[:n]

    def _piece(self, n_all):
        """Tokens that are read together, of the ``n_all`` tokens of all leads."""
        n_tokens = n_all // self.n_leads
        if n_tokens > self.max_tokens and n_tokens % self.max_tokens:
            raise ValueError(
                f"Leads of {n_tokens} tokens cannot be read in pieces of max_tokens={self.max_tokens}; pad them to a "
                "multiple, as TokenTransformer.encode_inputs does."
            )
        return min(n_tokens, self.max_tokens)

    def _n_together(self, h, lengths):
        """How many of the pieces of these lengths, the longest first, are read together."""
        if h.device.type != "cpu":
            return len(lengths)
        return 1 if self._one_by_one(h) else max(_TOGETHER // lengths[0], lengths.count(lengths[0]))

    def _one_by_one(self, h):
        # padding costs more than batching gains on a CPU: measured up to 3.3 times as much
        return not torch.is_grad_enabled() and h.device.type == "cpu"


def init_language_weights(module):
    """Normal linear layers and embeddings of standard deviation 0.02, zero biases and padding (as in BERT)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.Embedding):
            with torch.no_grad():
                layer.weight[layer.padding_idx].zero_()
