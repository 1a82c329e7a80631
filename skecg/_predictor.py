"""What all classifiers and regressors share: the validation split, training of the head, outputs, pickling."""

from abc import ABCMeta, abstractmethod
from math import ceil
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d
from torch import nn

from ._embedder import TRAINING_CONSTRAINTS
from ._rebuild import rebuild
from ._torch import build_seeded
from ._training import (
    CallbackSupportMixin,
    Plan,
    draw_seed,
    fit_network,
    module_state,
)
from .heads import Head, LinearHead


class NetworkPredictor(CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """A head that is trained with targets, on a network or on embeddings.

    What the targets are is said by one subclass (``NetworkClassifier``, ``NetworkRegressor``), and what X is by another
    (``SignalPredictor``, ``EmbeddingPredictor``); a public estimator is one of each.
    """

    _parameter_constraints = {
        "head": [Head, HasMethods(["build"]), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "min_updates": [Interval(Integral, 0, None, closed="left")],
        **TRAINING_CONSTRAINTS,
    }

    # --- what X is

    @abstractmethod
    def _validate(self, X, reset):
        """X as the estimator works on it."""

    @abstractmethod
    def _outputs(self, X):
        """(n_samples, n_outputs) of validated X."""

    @abstractmethod
    def _n_head_inputs(self):
        """Width of the vectors that the head takes."""

    # --- what y is

    @abstractmethod
    def _encode_target(self, X, y):
        """Check y and learn of what kind it is; y as :meth:`_encode_known_target` gives it."""

    @abstractmethod
    def _encode_known_target(self, y):
        """Further targets of the same kind, in a form that can be indexed by row."""

    @abstractmethod
    def _learn_target(self, target):
        """Learn from the encoded targets that are trained on; the module ``loss(outputs, target)`` of a batch."""

    def _as_trained(self, target):
        """Encoded targets as the loss takes them, once :meth:`_learn_target` was called."""
        return target

    @abstractmethod
    def _starting_outputs(self, target, loss):
        """(n_outputs,) at which an untrained head starts."""

    @abstractmethod
    def _n_outputs(self):
        """Number of outputs of the head."""

    def _strata(self, target):
        """(n_samples,) codes by which the validation split is stratified; None: not at all."""
        return None

    # --- training

    def _begin(self, groups, X):
        """Checked groups, and the generator and the seed of this fit."""
        if groups is not None:
            groups = column_or_1d(groups)
            check_consistent_length(X, groups)
        rng = check_random_state(self.random_state)
        return groups, rng, draw_seed(rng)

    def _split(self, target, groups, rng):
        """Row indices to train on and to watch; patients stay together."""
        n, rows, codes = len(target), np.arange(len(target)), None
        if not self.early_stopping:
            return rows, None
        if groups is not None:
            if len(np.unique(groups)) < 2:
                raise ValueError(
                    "early_stopping=True sets patients apart, but groups names a single one. Give several patients, or "
                    "X_val and y_val where fit takes them."
                )
            splitter = GroupShuffleSplit(1, test_size=self.validation_fraction, random_state=rng)
        else:
            codes, stratify = self._strata(target), False
            if codes is not None:
                counts = np.unique(codes, return_counts=True)[1]
                n_valid = int(np.ceil(self.validation_fraction * n))
                stratify = counts.min() >= 2 and len(counts) <= min(n_valid, n - n_valid)
            splitter = (StratifiedShuffleSplit if stratify else ShuffleSplit)(
                1, test_size=self.validation_fraction, random_state=rng
            )
        return next(splitter.split(rows, codes, groups))

    def _start_head(self, target, loss, seed):
        """The head's module, starting at the best constant if it can."""
        self.head_ = LinearHead() if self.head is None else clone(self.head)
        head = build_seeded(self._build_head, seed)
        if hasattr(head, "start_at"):
            head.start_at(self._starting_outputs(target, loss))
        return head

    def _build_head(self):
        """A freshly initialised module of ``head_``."""
        module = self.head_.build(self._n_head_inputs(), self._n_outputs())
        module.input = self.head_.input
        return module

    def _n_epochs(self, n_samples):
        """Passes over the samples to make; no fewer than ``min_updates`` asks for."""
        n_batches = ceil(n_samples / self.batch_size)
        return max(self.max_epochs, ceil(self.min_updates / n_batches))

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

    def _finish(self, head, n_samples, context, X, y):
        self.n_updates_ = len(self.history_) * ceil(n_samples / self.batch_size)
        self.head_network_ = head.eval()
        if context is not None:
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _predicted_outputs(self, X):
        check_is_fitted(self)
        return self._outputs(self._validate(X, reset=False))

    # --- state

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
            self.head_network_ = rebuild(self._build_head, state["head_network_"], self.head_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
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

    def __init__(self, network, head, trainable, loss):
        super().__init__()
        self.network, self.head, self.loss = network, head, loss
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
        given = {"target": batch.y} if getattr(self.head, "takes_target", False) else {}
        return {"loss": self.loss(apply_head(self.network, self.head, batch, **given).float(), batch.y)}


def apply_head(network, head, batch, **given):
    """Outputs for a batch of signals, of vectors, or of sequences with NaN where a token is absent.

    What is ``given`` goes to the head as it is.
    """
    wants_tokens = head.input == "tokens"
    if network is not None:
        if wants_tokens:
            return head(*network.encode_tokens(batch.x, batch.lead_valid), **given)
        return head(network(batch.x, batch.lead_valid), **given)
    h = batch.x
    if h.ndim == 2:
        return head(h.unsqueeze(1) if wants_tokens else h, **given)
    padding = torch.isnan(h[..., 0])  # (B, N)
    h = h.nan_to_num()
    if wants_tokens:
        return head(h, padding, **given)
    keep = (~padding).unsqueeze(-1).to(h.dtype)
    return head((h * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1), **given)
