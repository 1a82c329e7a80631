"""Heads: parameter objects for what turns embeddings into predictions, and their modules."""

from numbers import Real

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from torch import nn

from .encoders._layers import Dropout


class Head(BaseEstimator):
    """Base class of heads: parameters from which a module is built.

    Attributes
    ----------
    input : {"embedding", "tokens"}
        What the module's ``forward(h, padding_mask=None)`` takes: (B, D) vectors, or (B, N, D) sequences with a
        (B, N) mask that is True at absent tokens.
    """

    input = "embedding"

    def build(self, n_features, n_outputs):
        """The module, mapping to (B, n_outputs) logits, or standardised values of a regressor.

        If it has a method ``start_at(outputs)``, that is called before training with the outputs of the best constant
        prediction: the logits of the class frequencies, or zeros for the means of a regressor's targets.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement build(n_features, n_outputs).")


class LinearHead(Head):
    """One linear layer on the embedding, standardised over each batch of training samples.

    Parameters
    ----------
    dropout : float, default=0.0
        Dropout probability on the embedding.

    Notes
    -----
    The standardisation is a batch normalisation without gain and shift: embeddings of a pretrained network may have any
    scale, and a linear layer on them would learn at a rate that depends on it. After training it is a fixed shift and
    scale.

    Examples
    --------
    >>> import torch
    >>> from skecg.heads import LinearHead
    >>> LinearHead().build(n_features=8, n_outputs=3)(torch.zeros(2, 8)).shape
    torch.Size([2, 3])
    """

    _parameter_constraints = {"dropout": [Interval(Real, 0, 1, closed="left")]}

    def __init__(self, dropout=0.0):
        self.dropout = dropout

    def build(self, n_features, n_outputs):
        self._validate_params()
        return _LinearModule(n_features, n_outputs, self.dropout)


class _LinearModule(nn.Module):
    def __init__(self, n_features, n_outputs, dropout):
        super().__init__()
        # the default eps would be a variance of its own beside that of small embeddings
        self.norm = nn.BatchNorm1d(n_features, affine=False, eps=1e-10)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(n_features, n_outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def start_at(self, outputs):
        """Give ``outputs`` until trained."""
        with torch.no_grad():
            self.linear.bias.copy_(outputs)

    def forward(self, h, padding_mask=None):
        h = h.float()
        if self.training and len(h) < 2:  # a variance needs two samples
            h = (h - self.norm.running_mean) / torch.sqrt(self.norm.running_var + self.norm.eps)
        else:
            h = self.norm(h)
        return self.linear(self.dropout(h))  # (B, n_outputs)
