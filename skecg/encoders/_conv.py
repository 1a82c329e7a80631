"""ConvTransformer: convolutions turn all leads into latent frames, a transformer relates the frames."""

import math
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from sklearn.utils._param_validation import Interval
from torch import nn

from ._base import Encoder, Network
from ._layers import Dropout, PostNormBlock


class ConvTransformer(Encoder):
    """Convolutional feature extractor and transformer, as in wav2vec 2.0.

    Strided convolutions without overlap mix all leads into one latent vector per frame; the frames are normalised and
    projected, get their place from a grouped convolution over time, and pass through post-norm transformer blocks.
    The embedding is the mean over the frames. A missing lead enters as zeros in its place, so that any subset of the
    leads seen in ``fit`` is embedded.

    Parameters
    ----------
    embed_dim : int, default=128
        Width of the transformer.
    depth : int, default=4
        Number of transformer blocks.
    n_heads : int, default=4
        Attention heads; divides ``embed_dim``.
    mlp_ratio : float, default=4.0
        Hidden width of a block's network over ``embed_dim``.
    conv_dim : int, default=64
        Width of the convolutions, and of the latents that an objective predicts.
    conv_strides : tuple of int, default=(2, 2, 2)
        Stride of each convolution, which is its kernel size too. Their product is the samples in a frame; what remains
        at the end of a window is dropped. Frames of about 30 ms are usual: ``(2, 2)`` at 100 Hz, ``(2, 2, 2, 2)`` at 500 Hz.
    position_kernel : int, default=32
        Frames that the convolution of positions sees.
    position_groups : int, default=16
        Its groups; divides ``embed_dim``.
    dropout : float, default=0.0
        Dropout probability of the frames before the transformer and of the output of every branch in it.
    attention_dropout : float, default=0.0
        Dropout probability of attention weights.
    attention_output_dropout : float, default=None
        Dropout probability of the output of attention branches, in place of ``dropout``. None: ``dropout``.
    norm_eps : float, default=1e-5
        Added to the variances in the normalisations of transformer blocks.
    conv_gradient : float, default=1.0
        Factor on the gradients of the convolutions. 0: they are not trained.
    any_length : bool, default=False
        Accept windows of another length than in ``fit``. Off, another length is an error: it usually is another
        sampling rate.

    Attributes
    ----------
    n_leads_, n_times_ : int
        Shape of one sample seen in ``fit``.
    center_, scale_ : float
        Mean and standard deviation of the training signals.

    Notes
    -----
    * The first convolution has no bias and each of its channels is normalised over the time of a window: a gain that all
      leads share and a constant offset of any lead change nothing. The relative gain of the leads matters.
    * Fine-tuning with ``trainable`` equal to ``depth`` trains everything but the convolutions.
    * Four convolutions of width 256 and stride 2, 12 blocks of width 768 with 12 heads, and a kernel of 128 frames are the
      network of Oh et al. (2022) and of ECG-FM.

    References
    ----------
    Baevski A, Zhou H, Mohamed A, Auli M. wav2vec 2.0: a framework for self-supervised learning of speech
    representations. NeurIPS 2020.

    Oh J, Chung H, Kwon J, Hong D, Choi E. Lead-agnostic self-supervised learning for local and global representations of
    electrocardiogram. CHIL 2022.

    See Also
    --------
    skecg.objectives.Wav2Vec2CMSC : The pretraining task made for this network.

    Examples
    --------
    >>> import torch
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import ConvTransformer
    >>> X, y, groups = make_ecg(4, duration=2.0, random_state=0)
    >>> network = ConvTransformer(embed_dim=32, depth=1, conv_dim=16).fit(X).build()
    >>> network(torch.from_numpy(X)).shape
    torch.Size([4, 32])
    """

    tokens = "latents"

    _parameter_constraints = {
        "embed_dim": [Interval(Integral, 1, None, closed="left")],
        "depth": [Interval(Integral, 0, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "mlp_ratio": [Interval(Real, 0, None, closed="neither")],
        "conv_dim": [Interval(Integral, 1, None, closed="left")],
        "conv_strides": [tuple, list],
        "position_kernel": [Interval(Integral, 1, None, closed="left")],
        "position_groups": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "attention_output_dropout": [Interval(Real, 0, 1, closed="left"), None],
        "norm_eps": [Interval(Real, 0, None, closed="neither")],
        "conv_gradient": [Interval(Real, 0, None, closed="left")],
        "any_length": ["boolean"],
    }

    def __init__(self, embed_dim=128, depth=4, *, n_heads=4, mlp_ratio=4.0, conv_dim=64, conv_strides=(2, 2, 2),
                 position_kernel=32, position_groups=16, dropout=0.0, attention_dropout=0.0,
                 attention_output_dropout=None, norm_eps=1e-5, conv_gradient=1.0, any_length=False):
        self.embed_dim = embed_dim
        self.depth = depth
        self.n_heads = n_heads
        self.mlp_ratio = mlp_ratio
        self.conv_dim = conv_dim
        self.conv_strides = conv_strides
        self.position_kernel = position_kernel
        self.position_groups = position_groups
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.attention_output_dropout = attention_output_dropout
        self.norm_eps = norm_eps
        self.conv_gradient = conv_gradient
        self.any_length = any_length

    def fit(self, X):
        super().fit(X)
        if not self.conv_strides or any(not isinstance(s, Integral) or s < 1 for s in self.conv_strides):
            raise ValueError(
                f"conv_strides={self.conv_strides!r} must hold one positive integer per convolution, such as (2, 2, 2)."
            )
        for name in ("n_heads", "position_groups"):
            if self.embed_dim % getattr(self, name):
                raise ValueError(
                    f"embed_dim={self.embed_dim} is not a multiple of {name}={getattr(self, name)}; choose it so that each "
                    "gets the same width."
                )
        if self.n_times_ < math.prod(self.conv_strides):
            raise ValueError(
                f"n_times={self.n_times_} is shorter than one frame of {math.prod(self.conv_strides)} samples, the product "
                f"of conv_strides={self.conv_strides!r}. Use longer windows or smaller strides."
            )
        return self

    def build(self):
        return ConvNetwork(self)


class ConvNetwork(Network):
    """Network of a fitted :class:`ConvTransformer`; a token is a frame of the convolutions' output.

    Attributes
    ----------
    stride : int
        Samples per frame.
    latent_dim : int
        Width of what ``tokenize`` returns.
    """

    def __init__(self, encoder):
        super().__init__(encoder.embed_dim, encoder.center_, encoder.scale_)
        self.n_leads, self.latent_dim = encoder.n_leads_, encoder.conv_dim
        self.stride, self.conv_gradient = math.prod(encoder.conv_strides), encoder.conv_gradient
        self.convolutions = nn.ModuleList()
        n_in = encoder.n_leads_
        for stride in encoder.conv_strides:
            self.convolutions.append(nn.Conv1d(n_in, encoder.conv_dim, stride, stride=stride, bias=False))
            nn.init.kaiming_normal_(self.convolutions[-1].weight)
            n_in = encoder.conv_dim
        self.time_norm = nn.GroupNorm(encoder.conv_dim, encoder.conv_dim)
        self.latent_norm = nn.LayerNorm(encoder.conv_dim)
        self.project = nn.Linear(encoder.conv_dim, encoder.embed_dim)
        self.positions = PositionalConvolution(encoder.embed_dim, encoder.position_kernel, encoder.position_groups)
        self.norm = nn.LayerNorm(encoder.embed_dim)
        self.dropout = Dropout(encoder.dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(
                encoder.embed_dim, encoder.n_heads, encoder.mlp_ratio, encoder.dropout, encoder.attention_dropout,
                encoder.attention_output_dropout, encoder.norm_eps,
            ) for _ in range(encoder.depth)
        )
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def n_frames(self, n_times):
        """Frames of a window of ``n_times`` samples."""
        return n_times // self.stride

    def tokenize(self, x):
        if not self.n_frames(x.shape[-1]):
            raise ValueError(
                f"A window of {x.shape[-1]} samples is shorter than one frame of {self.stride} samples. Use longer windows "
                "or smaller conv_strides."
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.conv_gradient > 0):
            latents = self._extract(x)
        if latents.requires_grad and self.conv_gradient != 1:
            latents.register_hook(lambda gradient: gradient * self.conv_gradient)
        return latents  # (B, N, C)

    def _extract(self, x):
        first, *others = self.convolutions
        h = F.gelu(self.time_norm(first(self.standardize(x)))).transpose(1, 2)  # (B, T / s, C)
        for conv in others:
            # a convolution without overlap is a linear map of stretches, and the faster one that way
            stride = conv.stride[0]
            n_frames = h.shape[1] // stride
            h = h[:, :n_frames * stride].reshape(len(h), n_frames, -1)  # (B, N, s * C)
            h = F.gelu(F.linear(h, conv.weight.transpose(1, 2).flatten(1)))  # (B, N, C)
        return h

    def normalize(self, latents):
        """Latents as they are projected, and as the targets of an objective see them; shape kept."""
        return self.latent_norm(latents)

    def embed(self, tokens):
        return self.dropout(self.project(self.normalize(tokens)))

    def contextualize(self, h, padding_mask=None):
        h = h + self.positions(h)
        if padding_mask is not None:
            h = h.masked_fill(padding_mask.unsqueeze(-1), 0.0)
        h = self.dropout(self.norm(h))
        for block in self.blocks:
            h = block(h, padding_mask)
        return h

    def top(self, k):
        """As in the base class; all blocks come with everything between the convolutions and them."""
        rest = [self.latent_norm, self.project, self.positions, self.norm, self.dropout]
        return super().top(k) + (rest if k == len(self.blocks) else [])


class PositionalConvolution(nn.Module):
    """Grouped convolution over time and GELU, weight-normalised per tap: what is added to tell frames their place.

    Parameters
    ----------
    dim : int
        Width of the frames.
    kernel_size : int
        Frames it sees. Of an even kernel the last output is dropped, so that the length is kept.
    groups : int
        Divides ``dim``.
    """

    def __init__(self, dim, kernel_size, groups):
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel_size))
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel_size * dim)))
        self.gain = nn.Parameter(self.direction.detach().norm(dim=(0, 1), keepdim=True))  # (1, 1, K)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, h):
        """(B, N, D) to (B, N, D)."""
        weight = self.gain * self.direction / self.direction.norm(dim=(0, 1), keepdim=True)
        kernel_size, n_frames = weight.shape[-1], h.shape[1]
        # On CPUs the grouped convolution runs at half of the processor's speed and at a fraction of that for its gradient;
        # the transform costs the same for each weight whatever the batch: measured faster from about 8 windows.
        if h.device.type == "cpu" and len(h) >= 8 and kernel_size >= 32:
            h = self._by_transform(h, weight)
        else:
            h = F.conv1d(h.transpose(1, 2), weight, self.bias, padding=kernel_size // 2, groups=self.groups)
            h = h[..., :n_frames].transpose(1, 2)
        return F.gelu(h)

    def _by_transform(self, h, weight):
        """The convolution as a product over frequencies."""
        n_frames, kernel_size = h.shape[1], weight.shape[-1]
        # MKL's transforms of 32 and 64 numbers, alone of all up to 1,100, give other last bits to other numbers of threads
        length = next_fast_len(max(65, n_frames + kernel_size - 1), real=True)
        with torch.autocast(h.device.type, enabled=False):
            signal = F.pad(h.to(weight.dtype), (0, 0, kernel_size // 2, 0)).unflatten(-1, (self.groups, -1))
            signal = torch.fft.rfft(signal, length, dim=1).permute(1, 2, 0, 3)  # (F, G, B, D/G)
            response = torch.fft.rfft(weight.unflatten(0, (self.groups, -1)), length).conj()  # (G, O, I, F)
            product = signal @ response.permute(3, 0, 2, 1)  # (F, G, B, D/G)
            out = torch.fft.irfft(product.permute(2, 0, 1, 3), length, dim=1)[:, :n_frames]  # (B, N, G, D/G)
            return (out.flatten(2) + self.bias).to(h.dtype)
