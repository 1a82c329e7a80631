"""The contract between an encoder (parameters, scikit-learn side) and its network (torch side)."""

import warnings

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from .._validation import as_3d, row_blocks


class Encoder(BaseEstimator):
    """Base class of encoders: parameters from which a network is built.

    An encoder allocates nothing in ``__init__``. The embedder clones it, calls ``fit`` on the training signals and
    ``build`` for the network. Subclasses set ``tokens`` and implement ``build``.

    Attributes
    ----------
    tokens : {"patches", "latents", "ids", "signal"}
        What the network's ``tokenize`` returns; an objective names the kinds that it can predict.
    any_length : bool
        Whether the network takes windows of another length than it was fitted on.
    padding_value : float
        What :meth:`encode_inputs` would give in place of samples that are not there.
    n_leads_, n_times_ : int
        Shape of one sample seen in ``fit``.
    center_, scale_ : float
        Mean and standard deviation of the training signals (millivolt), missing and flat leads left out; the network
        divides by them, so that millivolt, microvolt and ADC counts train alike.
    """

    tokens = None
    any_length = False
    padding_value = 0

    def fit(self, X):
        """Learn the shape and the overall scale of the training signals, in blocks.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt; missing leads are NaN from end to end.

        Returns
        -------
        self : Encoder
        """
        self._validate_params()
        self.n_leads_, self.n_times_ = as_3d(X).shape[1:]
        count, mean, squares = 0, 0.0, 0.0
        for rows in row_blocks(X):
            block = as_3d(np.asarray(X[rows]))
            # a lead of zeros would make all others look large; comparisons with NaN are False
            block = block[block.max(axis=-1) > block.min(axis=-1)].ravel().astype(np.float64)
            if not len(block):
                continue
            # Chan's update of mean and sum of squares
            delta, total = block.mean() - mean, count + len(block)
            squares += np.square(block - block.mean()).sum() + delta**2 * count * len(block) / total
            mean += delta * len(block) / total
            count = total
        if not count:
            warnings.warn("No lead of X changes over time: there is nothing to learn from these signals.", UserWarning,
                          stacklevel=3)
            mean = float(np.nanmean(as_3d(X)[:, :, 0]))
        self.center_ = float(mean)
        scale = float(np.sqrt(squares / max(1, count)))
        self.scale_ = scale if scale > 1e-8 * max(1.0, abs(mean)) else 1.0
        return self

    def encode_inputs(self, X):
        """What the network is fed for some rows of X.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_leads, n_times)

        Returns
        -------
        ndarray with one row per sample
            Here: X as float32, missing leads filled with ``center_``.
        """
        X = np.asarray(X, dtype=np.float32)
        missing = np.isnan(X[..., :1])  # a lead is missing from end to end
        return np.where(missing, np.float32(self.center_), X) if missing.any() else X

    def build(self):
        """A freshly initialised network for the shape seen in ``fit``.

        Returns
        -------
        network : Network
        """
        raise NotImplementedError(f"{type(self).__name__} must implement build() and return a skecg Network.")


class Network(nn.Module):
    """Base class of the networks that are kept.

    ``forward`` is ``pool(contextualize(embed(tokenize(x))))``. Objectives use the four steps one by one: they hide
    something between two of them.

    Parameters
    ----------
    n_features : int
        Width of the embedding.
    center, scale : float
        Subtracted from and divided out of the signal, in its unit.

    Attributes
    ----------
    embed_dim : int
        Width of the contextualised tokens; ``n_features`` unless a subclass pools to another width.
    lead_names : tuple of str or None
        Names of the leads, set by the embedder; objectives may report by them.
    blocks : nn.ModuleList
        Set by subclasses: the stages of ``contextualize`` from input to output; fine-tuning the top ``k`` trains the last
        ``k``.
    """

    def __init__(self, n_features, center=0.0, scale=1.0):
        super().__init__()
        self.n_features = self.embed_dim = n_features
        self.lead_names = None
        self.register_buffer("center", torch.tensor(float(center)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def standardize(self, x):
        """Signals in units of the training part's standard deviation; shape kept."""
        return (x - self.center) / self.scale

    def tokenize(self, x):
        """(B, n_leads, n_times) to what ``embed`` takes and objectives predict."""
        raise NotImplementedError(f"{type(self).__name__} must implement tokenize(x).")

    def embed(self, tokens):
        """Tokens to vectors, (B, N, D)."""
        raise NotImplementedError(f"{type(self).__name__} must implement embed(tokens).")

    def contextualize(self, h, padding_mask=None):
        """(B, N, D) to (B, N', D); ``padding_mask`` (B, N) is True where a token belongs to a missing lead."""
        raise NotImplementedError(f"{type(self).__name__} must implement contextualize(h, padding_mask=None).")

    def padding_mask(self, lead_valid, n_times):
        """Which tokens come from missing leads, (B, N) bool, or None if tokens mix the leads.

        ``lead_valid`` is (B, n_leads) bool, or None when no lead is missing.
        """
        return None

    def pool(self, h, padding_mask=None):
        """Mean over the valid tokens: (B, N, D) to (B, D)."""
        if padding_mask is None:
            return h.mean(dim=1)
        keep = (~padding_mask).unsqueeze(-1).to(h.dtype)  # (B, N, 1)
        return (h * keep).sum(dim=1) / keep.sum(dim=1)

    def align(self, h, padding_mask):
        """Tokens (B, N, D) and their padding mask (B, N) or None, with the same N for every batch."""
        return h, padding_mask

    def top(self, k):
        """The modules that train when only the top ``k`` blocks do."""
        return list(self.blocks[len(self.blocks) - k:])

    def encode_tokens(self, x, lead_valid=None):
        """Contextualised tokens (B, N, D) and their padding mask (B, N) or None."""
        padding = self.padding_mask(lead_valid, x.shape[-1])
        return self.contextualize(self.embed(self.tokenize(x)), padding), padding

    def forward(self, x, lead_valid=None):
        """Embeddings.

        Parameters
        ----------
        x : Tensor of shape (B, ...)
            What ``encode_inputs`` returns for the rows of X.
        lead_valid : Tensor of shape (B, n_leads), optional
            False for a missing lead. None: all are present.

        Returns
        -------
        Tensor of shape (B, n_features)
        """
        return self.pool(*self.encode_tokens(x, lead_valid))
