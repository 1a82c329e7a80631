"""The contract of pretraining objectives."""

from dataclasses import dataclass, field

import torch
from sklearn.base import BaseEstimator


@dataclass
class Batch:
    """One batch as modules see it.

    Attributes
    ----------
    x : Tensor of shape (B, ...)
        What the encoder's ``encode_inputs`` returned; signals in the unit of X, missing leads filled.
    lead_valid : Tensor of shape (B, n_leads) or None
        False for a missing lead; None when none is missing in this batch.
    group : Tensor of shape (B,) or None
        Integer code of each sample's patient.
    y : Tensor of shape (B,) or (B, n_labels) or None
        Encoded labels (supervised training only).
    step, n_steps : int
        Update that this batch leads to, and how many there will be.
    generator : torch.Generator or None
        Source of every random draw, on the device of ``x``.
    given : dict
        Draws to use in place of random ones, such as ``{"mask": mask}``: a test can replay somebody else's.
    """

    x: torch.Tensor
    lead_valid: torch.Tensor | None = None
    group: torch.Tensor | None = None
    y: torch.Tensor | None = None
    step: int = 0
    n_steps: int = 1
    generator: torch.Generator | None = None
    given: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.x)

    def to(self, device):
        """The same batch with its tensors on ``device``."""
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value := getattr(self, name), torch.Tensor) else value
            for name in self.__dataclass_fields__
        }
        return Batch(**moved)


class Objective(BaseEstimator):
    """Base class of pretraining objectives: parameters from which a training module is built.

    Subclasses set ``requires`` and implement ``build``. The module that ``build`` returns holds the network as
    ``.encoder`` and its ``forward(batch)`` returns ``{"loss": ..., further terms}``, scalar tensors each; every
    entry becomes a column of the embedder's ``history_``.

    Attributes
    ----------
    requires : tuple of str
        Kinds of encoder tokens ("patches", "latents", "ids", "signal") that the objective can predict. Empty: any,
        because it does not look at tokens.

    Examples
    --------
    A user's own objective: the embedding of a noisy view predicts the embedding of the clean one.

    >>> import torch
    >>> from torch import nn
    >>> from skecg.objectives import Objective
    >>> class DenoisingModule(nn.Module):
    ...     def __init__(self, network, noise_std):
    ...         super().__init__()
    ...         self.encoder, self.noise_std = network, noise_std
    ...         self.predict = nn.Linear(network.embed_dim, network.patch_size)
    ...     def forward(self, batch):
    ...         noise = torch.randn(batch.x.shape, generator=batch.generator, device=batch.x.device)
    ...         h, _ = self.encoder.encode_tokens(batch.x + self.noise_std * noise, batch.lead_valid)
    ...         return {"loss": nn.functional.mse_loss(self.predict(h), self.encoder.tokenize(batch.x))}
    >>> class Denoising(Objective):
    ...     requires = ("patches",)
    ...     def __init__(self, noise_std=0.1):
    ...         self.noise_std = noise_std
    ...     def build(self, network):
    ...         return DenoisingModule(network, self.noise_std)
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> X, y, groups = make_ecg(8, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(objective=Denoising(), max_epochs=1, random_state=0).fit(X)
    >>> sorted(embedder.history_[0])
    ['epoch', 'learning_rate', 'loss', 'seconds']
    """

    requires = ()

    def check_encoder(self, encoder):
        """Refuse an encoder whose tokens this objective cannot predict.

        Parameters
        ----------
        encoder : Encoder

        Raises
        ------
        ValueError
            ``encoder.tokens`` is not in ``requires``.
        """
        if self.requires and encoder.tokens not in self.requires:
            raise ValueError(
                f"{type(self).__name__} predicts {' or '.join(map(repr, self.requires))} tokens, but "
                f"{type(encoder).__name__} makes {encoder.tokens!r} tokens (trainable targets collapse). Choose another "
                "encoder or objective."
            )

    def build(self, network):
        """The module that is trained: an ``nn.Module`` with ``.encoder`` and ``forward(batch)``."""
        raise NotImplementedError(f"{type(self).__name__} must implement build(network).")
