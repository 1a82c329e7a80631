"""Networks that are kept: parameter objects from which the embedder builds them."""

from ._base import Encoder, Network
from ._conv import ConvTransformer
from ._patch import PatchTransformer
from ._resnet import ResNet1d
from ._token import TokenTransformer

__all__ = ["ConvTransformer", "Encoder", "Network", "PatchTransformer", "ResNet1d", "TokenTransformer"]
