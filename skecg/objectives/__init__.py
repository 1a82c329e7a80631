"""What is thrown away after pretraining: views, masks, extra heads and the loss."""

from ._base import Batch, Objective
from ._reconstruction import MaskedReconstruction

__all__ = ["Batch", "MaskedReconstruction", "Objective"]
