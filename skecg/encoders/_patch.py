"""PatchTransformer: one token per lead and time patch."""

from numbers import Integral, Real

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from ._base import Encoder, Network
from ._layers import TransformerBlock, default_patch_size, init_transformer_weights, sincos_positions


class PatchTransformer(Encoder):
    """Transformer over patches of each lead.

    Every lead is cut into patches of ``patch_size`` samples; a patch is projected linearly to a token, which gets the
    code of its time and the embedding of its lead. Missing leads give no tokens, so that any subset of the leads
    seen in ``fit`` is embedded without imputation.

    Parameters
    ----------
    patch_size : int, default=None
        Samples in a patch. None cuts a window into about 40 patches (25 samples of a 10-s window at 100 Hz). A
        remainder at the end is padded with zeros; objectives never score the padding.
    embed_dim : int, default=128
        Width of the tokens.
    depth : int, default=4
        Number of transformer blocks.
    n_heads : int, default=4
        Attention heads; divides ``embed_dim``.
    mlp_ratio : float, default=4.0
        Hidden width of a block's network over ``embed_dim``.
    dropout : float, default=0.0
        Dropout probability in the blocks.
    pooling : {"mean", "lead"}, default="mean"
        The embedding is the mean over all tokens (``embed_dim`` features), or the mean over each lead's tokens, one
        lead after the other (``n_leads * embed_dim`` features, zeros for a missing lead).
    any_length : bool, default=False
        Accept windows of another length than in ``fit``. Off, another length is an error: it usually is another
        sampling rate.

    Attributes
    ----------
    patch_size_ : int
        Samples in a patch.
    n_leads_, n_times_ : int
        Shape of one sample seen in ``fit``.
    center_, scale_ : float
        Mean and standard deviation of the training signals.

    Notes
    -----
    Patches of single leads follow ST-MEM and the MAE family; blocks are pre-norm.

    References
    ----------
    Dosovitskiy A, et al. An image is worth 16x16 words. ICLR 2021.

    Na Y, Park M, Tae Y, Joo S. Guiding masked representation learning to capture spatio-temporal relationship of
    electrocardiogram. ICLR 2024.

    Examples
    --------
    >>> import torch
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import PatchTransformer
    >>> X, y, groups = make_ecg(4, duration=2.0, random_state=0)
    >>> network = PatchTransformer(patch_size=25, embed_dim=32, depth=1).fit(X).build()
    >>> network(torch.from_numpy(X)).shape
    torch.Size([4, 32])
    """

    tokens = "patches"

    _parameter_constraints = {
        "patch_size": [Interval(Integral, 1, None, closed="left"), None],
        "embed_dim": [Interval(Integral, 1, None, closed="left")],
        "depth": [Interval(Integral, 0, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "mlp_ratio": [Interval(Real, 0, None, closed="neither")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "pooling": [StrOptions({"mean", "lead"})],
        "any_length": ["boolean"],
    }

    def __init__(self, patch_size=None, embed_dim=128, depth=4, *, n_heads=4, mlp_ratio=4.0, dropout=0.0,
                 pooling="mean", any_length=False):
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.depth = depth
        self.n_heads = n_heads
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout
        self.pooling = pooling
        self.any_length = any_length

    def fit(self, X):
        super().fit(X)
        if self.embed_dim % self.n_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} is not a multiple of n_heads={self.n_heads}; choose it so that each head "
                "gets the same width."
            )
        self.patch_size_ = self.patch_size or default_patch_size(self.n_times_)
        return self

    def build(self):
        return PatchNetwork(
            self.n_leads_, self.patch_size_, self.embed_dim, self.depth, self.n_heads, self.mlp_ratio, self.dropout,
            self.pooling, self.center_, self.scale_,
        )


class PatchNetwork(Network):
    """Network of :class:`PatchTransformer`; tokens are ordered lead by lead."""

    def __init__(self, n_leads, patch_size, embed_dim, depth, n_heads, mlp_ratio, dropout, pooling, center,
                 scale):
        super().__init__(embed_dim * (n_leads if pooling == "lead" else 1), center, scale)
        self.n_leads, self.patch_size, self.embed_dim, self.pooling = n_leads, patch_size, embed_dim, pooling
        self.project = nn.Linear(patch_size, embed_dim)
        self.lead_embedding = nn.Parameter(torch.empty(n_leads, embed_dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, n_heads, mlp_ratio, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        init_transformer_weights(self)
        nn.init.normal_(self.lead_embedding, std=0.02)

    def n_patches(self, n_times):
        """Patches per lead of a window of ``n_times`` samples."""
        return -(-n_times // self.patch_size)

    def tokenize(self, x):
        batch, n_leads, n_times = x.shape
        n_patches = self.n_patches(n_times)
        x = F.pad(self.standardize(x), (0, n_patches * self.patch_size - n_times))
        return x.reshape(batch, n_leads * n_patches, self.patch_size)  # (B, L * P, S)

    def target_valid(self, n_times, device=None):
        """Which values of a lead's patches are signal rather than padding, (P, S) bool."""
        n_patches = self.n_patches(n_times)
        return (torch.arange(n_patches * self.patch_size, device=device) < n_times).reshape(n_patches, -1)

    def positions(self, n_patches):
        """What is added to the tokens of one window, (L * P, D)."""
        time = sincos_positions(n_patches, self.embed_dim, self.lead_embedding.device)  # (P, D)
        return (self.lead_embedding[:, None] + time).flatten(0, 1)

    def embed(self, tokens):
        return self.project(tokens) + self.positions(tokens.shape[1] // self.n_leads)

    def contextualize(self, h, padding_mask=None):
        for block in self.blocks:
            h = block(h, padding_mask)
        return self.norm(h)

    def padding_mask(self, lead_valid, n_times):
        return None if lead_valid is None else (~lead_valid).repeat_interleave(self.n_patches(n_times), dim=1)

    def pool(self, h, padding_mask=None):
        if self.pooling == "mean":
            return super().pool(h, padding_mask)
        h = h.unflatten(1, (self.n_leads, -1)).mean(dim=2)  # (B, L, D)
        if padding_mask is not None:
            missing = padding_mask.unflatten(1, (self.n_leads, -1))[:, :, :1]  # (B, L, 1)
            h = h.masked_fill(missing, 0.0)
        return h.flatten(1)  # (B, L * D)

    def top(self, k):
        return [*super().top(k), self.norm]
