"""ResNet1d: the convolutional network that a practitioner would train from scratch."""

from numbers import Integral, Real

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval
from torch import nn

from ._base import Encoder, Network
from ._layers import Dropout


class ResNet1d(Encoder):
    """One-dimensional residual network with the xresnet stem, mixing all leads from the first layer on.

    The embedding joins mean and maximum over time. Missing leads enter as the mean of the training signals.

    Parameters
    ----------
    width : int, default=32
        Channels of the first stage; each further stage doubles them, up to ``8 * width``.
    depths : tuple of int, default=(1, 1, 1)
        Residual blocks in each stage. The stem reduces the time resolution by four, each stage after the first by
        two.
    kernel_size : int, default=7
        Kernel of the residual blocks' convolutions; odd.
    dropout : float, default=0.0
        Dropout probability inside the residual blocks.
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
    Departures from the two-dimensional original: one dimension, basic blocks, wider kernels, and by default three stages
    of one block, for sets of thousands rather than millions of recordings. Kept: three-convolution stem with pooling,
    average pooling before the 1x1 shortcut, last normalisation of a block started at zero.

    References
    ----------
    He T, et al. Bag of tricks for image classification with convolutional neural networks. CVPR 2019.

    Strodthoff N, Wagner P, Schaeffter T, Samek W. Deep learning for ECG analysis: benchmarks and insights from PTB-XL.
    IEEE J Biomed Health Inform 25(5):1519-1528, 2021.

    Examples
    --------
    >>> import torch
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import ResNet1d
    >>> X, y, groups = make_ecg(4, duration=2.0, random_state=0)
    >>> network = ResNet1d(width=8, depths=(1, 1)).fit(X).build()
    >>> network(torch.from_numpy(X)).shape
    torch.Size([4, 32])
    """

    tokens = "signal"

    _parameter_constraints = {
        "width": [Interval(Integral, 1, None, closed="left")],
        "depths": [tuple, list],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "any_length": ["boolean"],
    }

    def __init__(self, width=32, depths=(1, 1, 1), *, kernel_size=7, dropout=0.0, any_length=False):
        self.width = width
        self.depths = depths
        self.kernel_size = kernel_size
        self.dropout = dropout
        self.any_length = any_length

    def fit(self, X):
        super().fit(X)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size} is even; an odd kernel keeps time points aligned.")
        if not self.depths or any(not isinstance(d, Integral) or d < 1 for d in self.depths):
            raise ValueError(f"depths={self.depths!r} must hold one positive integer per stage, such as (1, 1, 1).")
        return self

    def build(self):
        return ResNetNetwork(
            self.n_leads_, self.width, self.depths, self.kernel_size, self.dropout, self.center_, self.scale_
        )


class ResNetNetwork(Network):
    """Network of :class:`ResNet1d`; a token is a time step of the last stage."""

    def __init__(self, n_leads, width, depths, kernel_size, dropout, center, scale):
        widths = [width * min(2**stage, 8) for stage in range(len(depths))]
        super().__init__(2 * widths[-1], center, scale)
        self.n_leads, self.embed_dim = n_leads, widths[-1]
        self.stride = 4 * 2 ** (len(depths) - 1)  # samples per token
        self.stem = nn.Sequential(
            _conv_norm(n_leads, width, 5, stride=2), nn.ReLU(),
            _conv_norm(width, width, 5), nn.ReLU(),
            _conv_norm(width, width, 5), nn.ReLU(),
            nn.MaxPool1d(3, stride=2, padding=1),
        )
        self.blocks = nn.ModuleList()
        n_in = width
        for stage, (n_out, depth) in enumerate(zip(widths, depths, strict=True)):
            layers = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 0 else 1
                layers.append(_ResidualBlock(n_in, n_out, kernel_size, stride, dropout))
                n_in = n_out
            self.blocks.append(nn.Sequential(*layers))

    def tokenize(self, x):
        return self.standardize(x)  # (B, L, T)

    def embed(self, tokens):
        return self.stem(tokens).transpose(1, 2)  # (B, T / 4, C)

    def contextualize(self, h, padding_mask=None):
        h = h.transpose(1, 2)
        for stage in self.blocks:
            h = stage(h)
        return h.transpose(1, 2)  # (B, N, D)

    def pool(self, h, padding_mask=None):
        return torch.cat([h.mean(dim=1), h.amax(dim=1)], dim=1)  # (B, 2 D)


class _ResidualBlock(nn.Module):
    """Two convolutions and a shortcut: (B, n_in, N) to (B, n_out, ceil(N / stride))."""

    def __init__(self, n_in, n_out, kernel_size, stride, dropout):
        super().__init__()
        self.conv1 = _conv_norm(n_in, n_out, kernel_size, stride=stride)
        self.conv2 = _conv_norm(n_out, n_out, kernel_size)
        nn.init.zeros_(self.conv2[1].weight)  # the block starts as its shortcut
        self.dropout = Dropout(dropout)
        self.shortcut = nn.Identity()
        if stride > 1 or n_in != n_out:
            pool = nn.AvgPool1d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, _conv_norm(n_in, n_out, 1))

    def forward(self, x):
        return F.relu(self.conv2(self.dropout(F.relu(self.conv1(x)))) + self.shortcut(x))


def _conv_norm(n_in, n_out, kernel_size, stride=1):
    conv = nn.Conv1d(n_in, n_out, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.BatchNorm1d(n_out))
