"""What the classifiers share: labels, class weights, the validation split, training and predictions."""

from abc import ABCMeta, abstractmethod
from math import ceil
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import check_array
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)
from torch import nn

from ._embedder import TRAINING_CONSTRAINTS
from ._training import (
    CallbackSupportMixin,
    Plan,
    build_seeded,
    fit_network,
    load_module_state,
    module_state,
)
from .heads import Head


class NetworkClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Labels, class weights, validation split and predictions, shared by the classifiers."""

    _parameter_constraints = {
        "head": [Head, HasMethods(["build"]), None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "min_updates": [Interval(Integral, 0, None, closed="left")],
        **TRAINING_CONSTRAINTS,
    }

    @abstractmethod
    def _logits(self, X):
        """(n_samples, n_outputs) of validated X."""

    @abstractmethod
    def _validate(self, X, reset):
        """X as the estimator works on it."""

    def _encode_labels(self, X, y):
        """Learn the classes; y as what the loss takes."""
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
        return self._encode_known_labels(y)

    def _encode_known_labels(self, y):
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

    def _prior_logits(self, target, weights):
        """Logits of the weighted class frequencies, at which an untrained head starts."""
        if target.ndim == 1:
            frequency = np.bincount(target, minlength=len(self.classes_)) * (1 if weights is None else weights.numpy())
            return torch.tensor(np.log(np.maximum(frequency / frequency.sum(), 1e-4)), dtype=torch.float32)
        negative, positive = (1, 1) if weights is None else weights.double().numpy()
        positive = positive * target.sum(axis=0, dtype=np.float64)
        share = positive / (positive + negative * (len(target) - target.sum(axis=0)))
        return torch.tensor(logit(np.clip(share, 1e-4, 1 - 1e-4)), dtype=torch.float32)

    def _n_outputs(self):
        return 1 if len(self.classes_) == 2 and not self._multilabel else len(self.classes_)

    def _split(self, target, groups, rng):
        """Row indices to train on and to watch; patients stay together."""
        n, rows, codes = len(target), np.arange(len(target)), None
        if not self.early_stopping:
            return rows, None
        if groups is not None:
            if len(np.unique(groups)) < 2:
                raise ValueError(
                    "early_stopping=True sets patients apart, but groups names a single one. Pass X_val and y_val."
                )
            splitter = GroupShuffleSplit(1, test_size=self.validation_fraction, random_state=rng)
        else:
            codes = target if target.ndim == 1 else target[:, 0]
            counts = np.unique(codes, return_counts=True)[1]
            n_valid = int(np.ceil(self.validation_fraction * n))
            stratify = not self._multilabel and counts.min() >= 2 and len(counts) <= min(n_valid, n - n_valid)
            splitter = (StratifiedShuffleSplit if stratify else ShuffleSplit)(
                1, test_size=self.validation_fraction, random_state=rng
            )
        return next(splitter.split(rows, codes, groups))

    def _start_head(self, target, weights, seed):
        """The head's module, starting at the class frequencies if it can."""
        head = build_seeded(self._build_head, seed)
        if hasattr(head, "start_at"):
            head.start_at(self._prior_logits(target, weights))
        return head

    def _n_epochs(self, n_samples):
        """Passes over the samples to make; no fewer than ``min_updates`` asks for."""
        n_batches = ceil(n_samples / self.batch_size)
        return max(self.max_epochs, ceil(self.min_updates / n_batches))

    def _n_updates(self, n_samples):
        return len(self.history_) * ceil(n_samples / self.batch_size)

    def _fit_head(self, module, data, valid, seed, context, X, y, max_epochs, n_past=0):
        """Train ``module``; its history, counting on from ``n_past`` epochs."""
        plan = Plan(
            max_epochs=max_epochs, batch_size=self.batch_size, learning_rate=self.learning_rate,
            weight_decay=self.weight_decay, warmup=self.warmup, gradient_clip=self.gradient_clip,
            precision=self.precision, device=self.device, deterministic=self.deterministic, seed=seed,
            n_iter_no_change=self.n_iter_no_change if self.early_stopping else None,
            callbacks=self.callbacks, verbose=self.verbose, label="train",
        )
        history = fit_network(
            module, data, plan, valid=valid, context=context, estimator=self, hook_data={"X": X, "y": y}
        )
        return [{**row, "epoch": row["epoch"] + n_past} for row in history]

    def _begin_callbacks(self, X, y, n_epochs):
        if not hasattr(self, "_init_callback_context"):
            return None
        context = self._init_callback_context(max_subtasks=n_epochs)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        return context

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
        check_is_fitted(self)
        logits = self._logits(self._validate(X, reset=False))
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

    def __sklearn_is_fitted__(self):
        return hasattr(self, "head_network_")  # not after a fit that was broken off

    def __getstate__(self):
        state = super().__getstate__().copy()
        if "head_network_" in state:
            state["head_network_"] = module_state(state["head_network_"])
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if "head_network_" in state:
            head = build_seeded(self._build_head, 0)
            self.head_network_ = load_module_state(head, state["head_network_"])

    @abstractmethod
    def _n_head_inputs(self):
        """Width of the vectors that the head takes."""

    def _build_head(self):
        """A freshly initialised module of ``head_``."""
        module = self.head_.build(self._n_head_inputs(), self._n_outputs())
        module.input = self.head_.input
        return module

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags


class Rows(torch.utils.data.Dataset):
    """Some rows of :class:`Signals`, without copying them."""

    def __init__(self, data, rows):
        self.data, self.rows = data, rows

    def __len__(self):
        return len(self.rows)

    def batch(self, rows, rng=None):
        return self.data.batch(self.rows[rows], rng)


class SupervisedModule(nn.Module):
    """Network and head under the loss; the part that does not train stays in eval mode."""

    def __init__(self, network, head, trainable, weights):
        super().__init__()
        self.network, self.head = network, head
        self.register_buffer("weights", weights)
        self.frozen = []
        if network is None:
            return
        network.requires_grad_(True)
        if trainable != "all":
            k = 0 if trainable == "head" else trainable
            if k > len(network.blocks):
                raise ValueError(
                    f"trainable={k}, but the network has {len(network.blocks)} blocks. Use a smaller number or 'all'."
                )
            moving = {m for top in (network.top(k) if k else []) for m in top.modules()}
            network.requires_grad_(False)
            for module in moving:
                module.requires_grad_(True)
            self.frozen = [m for m in network.modules() if m not in moving]

    def train(self, mode=True):
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self

    def forward(self, batch):
        logits = apply_head(self.network, self.head, batch).float()
        if batch.y.dtype == torch.int64:
            loss = F.cross_entropy(logits, batch.y, reduction="none")
            weight = None if self.weights is None else self.weights[batch.y]
        else:
            loss = F.binary_cross_entropy_with_logits(logits, batch.y, reduction="none")
            weight = None if self.weights is None else torch.where(batch.y > 0, self.weights[1], self.weights[0])
        return {"loss": (loss if weight is None else loss * weight).mean()}


def apply_head(network, head, batch):
    """Logits of a batch of signals, of vectors, or of sequences with NaN where a token is absent."""
    wants_tokens = head.input == "tokens"
    if network is not None:
        if wants_tokens:
            return head(*network.encode_tokens(batch.x, batch.lead_valid))
        return head(network(batch.x, batch.lead_valid))
    h = batch.x
    if h.ndim == 2:
        return head(h.unsqueeze(1)) if wants_tokens else head(h)
    padding = torch.isnan(h[..., 0])  # (B, N)
    h = h.nan_to_num()
    if wants_tokens:
        return head(h, padding)
    keep = (~padding).unsqueeze(-1).to(h.dtype)
    return head((h * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1))
