"""Predictors of signals: pretraining, then training of network and head with targets, end to end."""

import copy
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ._embedder import ECGSelfSupervisedEmbedder
from ._predictor import NetworkPredictor, Rows, SupervisedModule, apply_head
from ._torch import resolve_device
from ._training import Signals, all_or_nothing, apply_network, with_callbacks
from ._validation import validate_ecg


class SignalPredictor(NetworkPredictor):
    """X is signals; the network of an embedder is trained together with the head."""

    _parameter_constraints = {
        **NetworkPredictor._parameter_constraints,
        "embedder": [ECGSelfSupervisedEmbedder, FrozenEstimator, None],
        "head_epochs": [Interval(Integral, 0, None, closed="left")],
        "lead_dropout": [Interval(Real, 0, 1, closed="left")],
        "trainable": [StrOptions({"all", "head"}), Interval(Integral, 1, None, closed="left")],
    }

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y, groups=None, X_unlabeled=None, X_val=None, y_val=None):
        """Pretrain, then train with labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Labelled signals in millivolt.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classifier: labels of any type, or a multi-label indicator matrix. Regressor: values, in any unit.
        groups : array-like of shape (n_samples,), default=None
            Patients; those of the validation samples are not trained on. Also passed to pretraining, unless
            that is on ``X_unlabeled``.
        X_unlabeled : array-like of shape (n_unlabeled, n_leads, n_times), default=None
            What to pretrain on in place of X; put X's signals in as well if pretraining should see them.
        X_val, y_val : array-like, default=None
            Validation samples, for ``early_stopping`` and the ``valid_loss`` of ``history_``. In a Pipeline, earlier steps
            transform X_val only under ``Pipeline(transform_input=["X_val"])``.

        Returns
        -------
        self : estimator

        Raises
        ------
        FloatingPointError
            The loss, its gradient or the weights are no longer finite; the message names the samples of the batch.
        """
        self._validate_params()
        X = validate_ecg(self, X, reset=True, min_samples=2, min_times=2)
        target = self._encode_target(X, y)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together; only one of them was given.")
        groups, rng, seed = self._begin(groups, X)
        # whatever can be wrong with the arguments is found before hours of pretraining
        resolve_device(self.device)
        rows, valid_rows = self._split(target, groups, rng) if X_val is None else (np.arange(len(X)), None)
        loss = self._learn_target(target[rows])
        if X_val is not None:
            X_val = self._validate(X_val, reset=False)
            check_consistent_length(X_val, y_val)
            target_val = self._as_trained(self._encode_known_target(np.asarray(y_val)))
        target = self._as_trained(target)

        n_epochs = self._n_epochs(len(rows))
        context = self._begin_callbacks(X, y, self.head_epochs + n_epochs)
        self.embedder_ = self._fit_embedder(X, groups, X_unlabeled, seed)
        network = self.embedder_.network_
        head = self._start_head(target[rows], loss, seed)

        self.history_ = []
        stages = (("head", self.head_epochs, 0.0), (self.trainable, n_epochs, self.lead_dropout))
        for trainable, max_epochs, lead_dropout in stages:
            if not max_epochs:
                continue
            # a head on fixed embeddings need not pass the signals through the network in every epoch
            fixed = trainable == "head" and head.input == "embedding" and not lead_dropout

            def signals(X, target, fixed=fixed, lead_dropout=lead_dropout):
                if fixed:
                    return Signals(self.embedder_.transform(X), y=target)
                return Signals(X, self.embedder_.encoder_, target, None, self.embedder_.crop_size, lead_dropout)

            module = SupervisedModule(None if fixed else network, head, trainable, loss)
            data, valid = signals(X, target), None
            if X_val is not None:
                valid = signals(X_val, target_val)
            elif valid_rows is not None:
                data, valid = Rows(data, rows), Rows(data, valid_rows)
            self.history_ += self._fit_head(module, data, valid, seed, context, X, y, max_epochs, len(self.history_))
        network.requires_grad_(True).eval()
        return self._finish(head, len(rows), context, X, y)

    def _fit_embedder(self, X, groups, X_unlabeled, seed):
        """A fitted embedder of this estimator's own."""
        if isinstance(self.embedder, FrozenEstimator):
            if X_unlabeled is not None:
                raise ValueError(
                    "X_unlabeled was given, but the embedder is frozen and would not see it. Pass the embedder itself to "
                    "pretrain, or leave X_unlabeled out."
                )
            embedder = self.embedder.estimator
            if not isinstance(embedder, ECGSelfSupervisedEmbedder):
                raise ValueError(
                    f"The frozen estimator is a {type(embedder).__name__}; {type(self).__name__} needs an "
                    "ECGSelfSupervisedEmbedder. Other transformers go into a Pipeline before a HeadClassifier or a "
                    "HeadRegressor."
                )
            check_is_fitted(embedder, msg=(
                "FrozenEstimator holds an %(name)s that is not fitted. Fit it first, or pass it without FrozenEstimator."
            ))
            validate_ecg(embedder, X, reset=False, any_length=embedder.encoder_.any_length)
            embedder = copy.deepcopy(embedder)  # its network is about to be trained
            embedder.n_times_in_, embedder.n_features_in_, embedder._ndim_in = (
                self.n_times_in_, self.n_features_in_, self._ndim_in
            )
            return embedder.set_params(output="embedding")
        embedder = ECGSelfSupervisedEmbedder() if self.embedder is None else clone(self.embedder)
        embedder.set_params(output="embedding")
        if embedder.random_state is None:
            embedder.set_params(random_state=seed)
        if self.deterministic:
            embedder.set_params(deterministic=True)
        if X_unlabeled is None:
            return embedder.fit(X, groups=groups)
        embedder.fit(X_unlabeled)
        validate_ecg(embedder, X, reset=False, any_length=embedder.encoder_.any_length)
        return embedder

    def _validate(self, X, reset):
        return validate_ecg(self, X, reset=reset)

    def _n_head_inputs(self):
        network = self.embedder_.network_
        return network.embed_dim if self.head_.input == "tokens" else network.n_features

    def _outputs(self, X):
        device = resolve_device(self.device)
        network, head = self.embedder_.network_.to(device), self.head_network_.to(device)
        return apply_network(
            lambda batch: apply_head(network, head, batch), X, self.embedder_.encoder_, device=device,
            crop_size=self.embedder_.crop_size,
        )
