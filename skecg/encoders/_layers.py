"""Layers that encoders and decoders share."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Dropout(nn.Module):
    """Dropout that draws from ``generator`` (set by the training loop), never from torch's global generator.

    Fits that run in parallel threads stay reproducible this way.
    """

    generator = None

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.active:
            return x
        if x.device.type == "cpu":
            # four draws from every 64 random bits: measured twice as fast as random floats, which cost more than a
            # matrix product of small networks; the probability is right to 1/65536
            threshold = min(round(65536 * self.p), 65535)
            bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-2**63, None, generator=self.generator)
            keep = bits.view(torch.int16)[:x.numel()].view(x.shape) >= threshold - 32768
            return x * keep.to(x.dtype) * (65536 / (65536 - threshold))
        keep = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)

    @property
    def active(self):
        """Whether anything is dropped at present."""
        return self.training and self.p > 0


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: multi-head self-attention, then a GELU network (Vaswani et al., 2017).

    Parameters
    ----------
    dim : int
        Width of the tokens.
    n_heads : int
        Heads; divides ``dim``.
    mlp_ratio : float
        Hidden width of the network over ``dim``.
    dropout : float
        Applied to the output of both branches; none on attention weights (it disables the fused kernels).
    """

    def __init__(self, dim, n_heads, mlp_ratio=4.0, dropout=0.0):
        super().__init__()
        self.n_heads = n_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(mlp_ratio * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout = Dropout(dropout)

    def forward(self, h, padding_mask=None):
        """(B, N, D) to (B, N, D); tokens where ``padding_mask`` (B, N) is True are not attended to."""
        h = h + self.dropout(self._attend(self.norm1(h), padding_mask))
        return h + self.dropout(self.mlp(self.norm2(h)))

    def _attend(self, h, padding_mask):
        batch, n_tokens, dim = h.shape
        qkv = self.qkv(h).reshape(batch, n_tokens, 3, self.n_heads, dim // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N, D/H)
        h = _attention(q, k, v, padding_mask)  # (B, H, N, D/H)
        return self.out(h.transpose(1, 2).reshape(batch, n_tokens, dim))  # (B, N, D)


class PostNormBlock(nn.Module):
    """Transformer block as first published, with the normalisations after the sums (Vaswani et al., 2017; BERT).

    Parameters
    ----------
    dim : int
        Width of the tokens.
    n_heads : int
        Heads; divides ``dim``.
    mlp_ratio : float
        Hidden width of the network over ``dim``.
    dropout : float
        Applied to the output of both branches.
    attention_dropout : float
        Applied to attention weights; costs the fused kernels.
    attention_output_dropout : float, optional
        Applied to the output of the attention branch in place of ``dropout``.
    norm_eps : float
        Added to the variances.
    """

    def __init__(self, dim, n_heads, mlp_ratio=4.0, dropout=0.0, attention_dropout=0.0, attention_output_dropout=None,
                 norm_eps=1e-5):
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        hidden = int(mlp_ratio * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.attention_dropout = Dropout(attention_dropout)
        self.dropout1 = Dropout(dropout if attention_output_dropout is None else attention_output_dropout)
        self.dropout2 = Dropout(dropout)

    def forward(self, h, padding_mask=None):
        """(B, N, D) to (B, N, D); tokens where ``padding_mask`` (B, N) is True are not attended to."""
        h = self.norm1(h + self.dropout1(self._attend(h, padding_mask)))
        return self.norm2(h + self.dropout2(self.mlp(h)))

    def _attend(self, h, padding_mask):
        q, k, v = (
            project(h).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )  # each (B, H, N, D/H)
        h = _attention(q, k, v, padding_mask, self.attention_dropout)  # (B, H, N, D/H)
        return self.out(h.transpose(1, 2).flatten(2))  # (B, N, D)


def _attention(q, k, v, padding_mask, dropout=None):
    """Softmax attention over (B, H, N, D) without the keys where ``padding_mask`` (B, N) is True."""
    dropping = dropout is not None and dropout.active  # with our generator, which the fused kernel does not take
    mask = None if padding_mask is None else padding_mask[:, None, None, :]  # (B, 1, 1, N)
    # On CPUs two plain products beat the fused kernel for short sequences: measured 1.4 to 4 times faster in bfloat16
    # training up to 512 tokens; in float32 the kernel wins from about 384 tokens.
    if dropping or (q.device.type == "cpu" and q.shape[2] <= (512 if q.dtype == torch.bfloat16 else 256)):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, N, N)
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        weights = scores.softmax(dim=-1).to(v.dtype)
        return (dropout(weights) if dropping else weights) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else ~mask)


def default_patch_size(n_times):
    """Samples in a patch when nothing else is asked for: about 40 patches in a window."""
    return max(1, round(n_times / 40))


def sincos_positions(n_positions, dim, device=None):
    """Fixed sine and cosine position codes, (n_positions, dim) (Vaswani et al., 2017, section 3.5)."""
    half = (dim + 1) // 2
    frequency = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / max(1, half)))
    angle = torch.arange(n_positions, device=device)[:, None] * frequency  # (P, D/2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :dim]


def init_transformer_weights(module):
    """Xavier-uniform linear layers with zero biases, small normal embeddings (as in ViT and MAE)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
