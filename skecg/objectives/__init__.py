"""What is thrown away after pretraining: views, masks, extra heads and the loss."""

from ._base import Batch, Objective
from ._contrastive import Wav2Vec2CMSC
from ._language import MaskedLanguageModeling
from ._reconstruction import MaskedReconstruction

__all__ = ["Batch", "MaskedLanguageModeling", "MaskedReconstruction", "Objective", "Wav2Vec2CMSC"]
