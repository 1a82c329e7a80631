"""What the regressors share: targets in their unit and as trained, the loss and predictions."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import RegressorMixin
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_consistent_length
from torch import nn

from ._predictor import NetworkPredictor

_LOSSES = {"squared_error": F.mse_loss, "huber": F.huber_loss}


class NetworkRegressor(RegressorMixin, NetworkPredictor):
    """Targets are one or several values per sample, standardised for training."""

    _parameter_constraints = {
        **NetworkPredictor._parameter_constraints,
        "loss": [StrOptions(set(_LOSSES))],
    }

    def _encode_target(self, X, y):
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None. Pretraining without targets is "
                "ECGSelfSupervisedEmbedder's."
            )
        y = _as_values(y, "y")
        check_consistent_length(X, y)
        self._sample_shape_out = y.shape[1:]
        return y.reshape(len(y), -1)

    def _encode_known_target(self, y):
        y = _as_values(y, "y_val")
        shape = (len(y), self._n_outputs())  # a column is as good as a vector
        if y.size != np.prod(shape):
            raise ValueError(
                f"y_val has shape {y.shape}, but y has {shape[1]} value(s) per sample; expected {shape}."
            )
        return y.reshape(shape)

    def _learn_target(self, target):
        self.target_mean_ = target.mean(axis=0)
        scale = np.sqrt(np.mean(self._deviations(target) ** 2, axis=0))
        self.target_scale_ = np.where(scale > 0, scale, 1.0)
        return RegressionLoss(self.loss)

    def _as_trained(self, target):
        return (self._deviations(target) / self.target_scale_).astype(np.float32)

    def _deviations(self, target):
        """From the mean; exactly 0 for what equals it but for rounding, since AdamW steps as far for the least gradient."""
        deviations = target - self.target_mean_
        deviations[np.abs(deviations) <= 16 * np.finfo(float).eps * np.abs(self.target_mean_)] = 0.0
        return deviations

    def _starting_outputs(self, target, loss):
        """The mean of each target."""
        return torch.zeros(self._n_outputs())

    def _n_outputs(self):
        return len(self.target_mean_)

    def predict(self, X):
        """Predicted values.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets), float64
            In the unit of y, and of the shape of y.
        """
        outputs = self._predicted_outputs(X).astype(np.float64)  # (n_samples, n_targets)
        values = self.target_mean_ + self.target_scale_ * outputs
        return values.reshape(len(values), *self._sample_shape_out)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class RegressionLoss(nn.Module):
    """Mean over samples and targets of a loss of standardised values."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, outputs, target):
        return _LOSSES[self.name](outputs, target)


def _as_values(y, name):
    given = np.asarray(y)
    if given.dtype.kind in "OSU" and any(isinstance(value, (str, bytes)) for value in given.flat):
        raise ValueError(
            f"{name} holds text; expected numbers. Numbers that were read as text are converted by {name}.astype(float)."
        )
    y = check_array(y, dtype=np.float64, ensure_2d=False, ensure_min_samples=0, ensure_all_finite=False, input_name=name)
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise ValueError(f"{name} has shape {y.shape}; expected (n_samples,) or (n_samples, n_targets).")
    missing = np.isnan(y).reshape(len(y), -1).any(axis=1)
    if missing.any():
        raise ValueError(
            f"Input {name} contains NaN: {missing.sum()} of {len(y)} samples lack a value, first sample {missing.argmax()}. "
            "Leave them out; ECGRegressor.fit(X, y, X_unlabeled=...) can pretrain on their signals."
        )
    assert_all_finite(y, input_name=name)
    return y
