"""Predictors of embeddings: a head, trained with targets."""

import numpy as np
from sklearn.utils.validation import validate_data

from ._predictor import NetworkPredictor, Rows, SupervisedModule, apply_head
from ._torch import resolve_device
from ._training import Signals, all_or_nothing, apply_network, with_callbacks


class EmbeddingPredictor(NetworkPredictor):
    """X is vectors, or sequences of them."""

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y, groups=None):
        """Train the head.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_tokens, n_features)
            Embeddings. In sequences, absent tokens are rows of NaN.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classifier: labels of any type, or a multi-label indicator matrix. Regressor: values, in any unit.
        groups : array-like of shape (n_samples,), default=None
            Patients; ``early_stopping`` sets some of them apart.

        Returns
        -------
        self : estimator

        Raises
        ------
        FloatingPointError
            The loss, its gradient or the weights are no longer finite; the message names the samples of the batch.
        """
        self._validate_params()
        X = self._validate(X, reset=True)
        target = self._encode_target(X, y)
        groups, rng, seed = self._begin(groups, X)
        rows, valid_rows = self._split(target, groups, rng)
        loss = self._learn_target(target[rows])
        target = self._as_trained(target)

        n_epochs = self._n_epochs(len(rows))
        context = self._begin_callbacks(X, y, n_epochs)
        head = self._start_head(target[rows], loss, seed)
        module = SupervisedModule(None, head, "head", loss)
        data = Signals(X, y=target)
        self.history_ = self._fit_head(
            module, Rows(data, rows), None if valid_rows is None else Rows(data, valid_rows), seed, context, X, y,
            n_epochs,
        )
        return self._finish(head, len(rows), context, X, y)

    def _validate(self, X, reset):
        X = validate_data(
            self, X, reset=reset, dtype=[np.float32, np.float64], allow_nd=True, ensure_min_samples=2 if reset else 1,
            ensure_all_finite="allow-nan" if getattr(X, "ndim", 2) == 3 else True,
        )
        if X.ndim > 3:
            raise ValueError(
                f"X has shape {X.shape}; expected (n_samples, n_features) or (n_samples, n_tokens, n_features)."
            )
        if X.ndim == 3:
            missing = np.isnan(X)
            if (missing.any(axis=2) != missing.all(axis=2)).any() or missing.all(axis=(1, 2)).any():
                raise ValueError(
                    "Input X contains NaN inside a token, or a sample without any token. An absent token is a row of NaN; "
                    "every sample needs one token at least."
                )
        if reset:
            self._sample_shape_in = X.shape[1:]
        elif X.shape[1:] != self._sample_shape_in:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was fitted on {self._sample_shape_in}."
            )
        return X

    def _n_head_inputs(self):
        return self._sample_shape_in[-1]

    def _outputs(self, X):
        device = resolve_device(self.device)
        head = self.head_network_.to(device)
        return apply_network(lambda batch: apply_head(None, head, batch), X, device=device)
