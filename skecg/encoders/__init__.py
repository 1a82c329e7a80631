"""Networks that are kept: parameter objects from which the embedder builds them."""

from ._base import Encoder, Network
from ._patch import PatchTransformer
from ._resnet import ResNet1d

__all__ = ["Encoder", "Network", "PatchTransformer", "ResNet1d"]
