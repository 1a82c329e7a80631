"""What the classifiers share: labels, class weights, the loss and probabilities."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, logit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d
from torch import nn

from ._predictor import NetworkPredictor


class NetworkClassifier(ClassifierMixin, NetworkPredictor):
    """Targets are classes, or labels of which a sample may have several."""

    _parameter_constraints = {
        **NetworkPredictor._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def _encode_target(self, X, y):
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None. Pretraining without labels is "
                "ECGSelfSupervisedEmbedder's."
            )
        assert_all_finite(np.asarray(y), input_name="y")
        self._multilabel = type_of_target(y, input_name="y") == "multilabel-indicator"
        if self._multilabel:
            y = check_array(y, dtype=None, input_name="y")
            self.classes_ = np.arange(y.shape[1])
        else:
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            self.classes_ = np.unique(y)
            if len(self.classes_) < 2:
                raise ValueError(
                    f"{type(self).__name__} needs samples of at least 2 classes; y holds 1 class ({self.classes_[0]})."
                )
        check_consistent_length(X, y)
        return self._encode_known_target(y)

    def _encode_known_target(self, y):
        if self._multilabel:
            y = check_array(y, dtype=np.float32, input_name="y")
            if y.shape[1] != len(self.classes_):
                raise ValueError(f"y_val has {y.shape[1]} labels, but y has {len(self.classes_)}.")
            return y
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y_val holds classes that y does not: {', '.join(map(str, unknown))}.")
        codes = np.searchsorted(self.classes_, y)
        return codes.astype(np.float32)[:, None] if len(self.classes_) == 2 else codes.astype(np.int64)

    def _learn_target(self, target):
        return ClassificationLoss(self._loss_weights(target))

    def _loss_weights(self, target):
        """Weights of negatives and positives per output (2, n_outputs), or of classes (n_classes,); mean 1."""
        n = len(target)
        if self.class_weight is None:
            return None
        if target.ndim == 1:
            weight = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[target])
            return torch.tensor(weight / weight[target].mean(), dtype=torch.float32)
        if self._multilabel and self.class_weight != "balanced":
            raise ValueError(
                f"class_weight={self.class_weight!r}: multi-label targets take class_weight='balanced' or None."
            )
        n_positive = target.sum(axis=0)
        if self.class_weight == "balanced":
            weight = n / (2 * np.maximum(1, np.stack([n - n_positive, n_positive])))
        else:
            codes = target[:, 0].astype(int)
            weight = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[codes])[:, None]
        mean = (weight[0] * (n - n_positive) + weight[1] * n_positive) / n
        return torch.tensor(weight / np.maximum(mean, 1e-12), dtype=torch.float32)

    def _starting_outputs(self, target, loss):
        """Logits of the weighted class frequencies."""
        weights = loss.weights
        if target.ndim == 1:
            frequency = np.bincount(target, minlength=len(self.classes_)) * (1 if weights is None else weights.numpy())
            return torch.tensor(np.log(np.maximum(frequency / frequency.sum(), 1e-4)), dtype=torch.float32)
        negative, positive = (1, 1) if weights is None else weights.double().numpy()
        positive = positive * target.sum(axis=0, dtype=np.float64)
        share = positive / (positive + negative * (len(target) - target.sum(axis=0)))
        return torch.tensor(logit(np.clip(share, 1e-4, 1 - 1e-4)), dtype=torch.float32)

    def _n_outputs(self):
        return 1 if len(self.classes_) == 2 and not self._multilabel else len(self.classes_)

    def _strata(self, target):
        if self._multilabel:
            return None
        return target if target.ndim == 1 else target[:, 0]

    def decision_function(self, X):
        """Logits.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), (n_samples, n_labels), or (n_samples,) for two classes
        """
        logits = self._predicted_outputs(X)
        return logits[:, 0] if self._n_outputs() == 1 and not self._multilabel else logits

    def predict_proba(self, X):
        """Probabilities.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Rows sum to one for classes; for multi-label targets, each label's own probability.
        """
        logits = self.decision_function(X).astype(np.float64)
        if self._multilabel:
            return expit(logits)
        if logits.ndim == 1:
            positive = expit(logits)
            return np.stack([1 - positive, positive], axis=1)
        return softmax(logits, axis=1)

    def predict(self, X):
        """Most probable class; for multi-label targets, labels of probability above 0.5.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        logits = self.decision_function(X)
        if self._multilabel:
            return (logits > 0).astype(int)
        codes = (logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)
        return self.classes_[codes]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class ClassificationLoss(nn.Module):
    """Cross-entropy over classes (codes as targets), or of each output by itself (indicators); weighted."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, logits, target):
        if target.dtype == torch.int64:
            loss = F.cross_entropy(logits, target, reduction="none")
            weight = None if self.weights is None else self.weights[target]
        else:
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            weight = None if self.weights is None else torch.where(target > 0, self.weights[1], self.weights[0])
        return (loss if weight is None else loss * weight).mean()
