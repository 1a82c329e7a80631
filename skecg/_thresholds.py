"""MultilabelThresholdClassifier: a threshold per label, tuned on patients that the classifier has not seen."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, check_is_fitted, column_or_1d

from ._record_classifier import _advice, _estimator_has, _groups_for
from .metrics import class_scores
from .metrics._common import as_target, once
from .metrics._table import METRICS, metric_named
from .model_selection import MultilabelStratifiedGroupKFold, MultilabelStratifiedGroupShuffleSplit

_MAX_SWEEPS = 10
_SAME = 1e-12  # values of a metric that differ by less are equal


class MultilabelThresholdClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Decide each label by its own threshold, tuned on data that the classifier was not trained on.

    A threshold of 0.5 maximises accuracy; F1 and the scores of challenges want rare labels to be answered at lower
    probabilities. Probabilities stay what they are.

    Parameters
    ----------
    estimator : estimator
        Classifier with ``predict_proba``, of two classes or of labels: a Pipeline, :class:`~skecg.ECGClassifier`,
        :class:`~skecg.RecordClassifier` (the thresholds are then those of records), a search. ``fit`` fits a clone. One that
        is fitted already is kept as it is inside :class:`~sklearn.frozen.FrozenEstimator`: all of X then tunes thresholds,
        and should be data that it was not trained on.
    metric : str or callable, default="f1"
        What the thresholds maximise: a metric of decisions that :func:`~skecg.metrics.get_scorer` knows, such as
        ``"cinc_2021"``, or ``metric(y_true, y_pred) -> float``, larger is better. "f1" is the mean of the labels' own F1,
        so that each label is tuned alone; for any other one, label after label is tuned until no threshold changes.
    cv : int, float, splitter, iterable of (train, test) or None, default=None
        Where the data comes from that tunes the thresholds, unless ``fit`` is given ``X_val``. An integer: that many folds,
        stratified by label, patients apart; thresholds are tuned on the predictions of all folds, then the estimator is
        fitted once more on everything. A float between 0 and 1: that share of the samples, of patients of their own, is
        held out, and the estimator is fitted once, on the others, which is what networks can afford. None: 5 folds, or as
        many as there are patients. Splits of your own that have a sample or a patient on both sides are refused.
    n_candidates : int, default=50
        Thresholds tried per label: those halfway between neighbouring probabilities, or, if these are more, a choice of
        them at quantiles of the probabilities of all samples, and of the samples that have the label.
    min_positives : int, default=5
        A label that fewer samples have (or lack) in the data that tunes keeps the common threshold, which is 0.5 if there
        are no others.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds or of the part that is held out.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier.
    thresholds_ : ndarray of shape (n_labels,), float64
        A label is answered where its probability is greater. With two classes there is one, for the second class.
    common_threshold_ : float
        The best single threshold for all labels, from which tuning started.
    n_positives_ : ndarray of shape (n_labels,), int
        Samples with each label in the data that tuned the thresholds.
    validation_score_ : float
        The metric on the data that tuned the thresholds, with these thresholds: an optimistic estimate. NaN where undefined.
    classes_ : ndarray
        The two class labels; label indices for multi-label targets.
    n_features_in_ : int
        If the estimator has it.
    feature_names_in_ : ndarray of str
        If the estimator has it.

    See Also
    --------
    sklearn.model_selection.TunedThresholdClassifierCV : Two classes only.
    skecg.metrics.cinc_score : A metric that thresholds are often tuned for.

    Notes
    -----
    - Of thresholds with equal values of the metric, the one nearest to the common threshold is taken, and the common one is
      the nearest to 0.5. A label that nothing is gained by, or that has few positives, gets no threshold of its own.
    - With folds, thresholds are tuned on probabilities of estimators that were trained on less data than the final one. If
      those are much less sure of themselves, hold out a part instead.
    - ``cross_validate`` and its kind give ``groups`` to their splitter alone, and each sample is then a patient of its own
      here. Pass ``groups=groups, params={"groups": groups}``; or, with metadata routing, ``set_fit_request(groups=True)``,
      which is the only way in a search.
    - The estimator is told the groups wherever its ``fit`` takes them, steps of a Pipeline included; with metadata routing,
      only if it asks for them itself, as in :class:`~skecg.RecordClassifier`.
    - Tuning label by label finds a maximum that no change of a single threshold improves, not the best of all combinations.

    References
    ----------
    Lipton ZC, Elkan C, Naryanaswamy B. Optimal thresholding of classifiers to maximize F1 measure. ECML PKDD 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.multiclass import OneVsRestClassifier
    >>> from skecg import MultilabelThresholdClassifier
    >>> from skecg.metrics import macro_f1
    >>> rng = np.random.default_rng(0)
    >>> y = (rng.random((600, 3)) < [0.5, 0.1, 0.05]).astype(int)
    >>> X, patients = y + rng.normal(size=y.shape), np.arange(600) // 2
    >>> model = OneVsRestClassifier(LogisticRegression())
    >>> tuned = MultilabelThresholdClassifier(model, random_state=0).fit(X[:400], y[:400], groups=patients[:400])
    >>> tuned.thresholds_.round(2)
    array([0.34, 0.18, 0.06])
    >>> plain = model.fit(X[:400], y[:400])
    >>> bool(macro_f1(y[400:], tuned.predict(X[400:])) > macro_f1(y[400:], plain.predict(X[400:])))
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"])],
        "metric": [str, callable],
        "cv": [
            Interval(Integral, 2, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither"), HasMethods(["split"]),
            "array-like", None,
        ],
        "n_candidates": [Interval(Integral, 1, None, closed="left")],
        "min_positives": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator, *, metric="f1", cv=None, n_candidates=50, min_positives=5, random_state=None):
        self.estimator = estimator
        self.metric = metric
        self.cv = cv
        self.n_candidates = n_candidates
        self.min_positives = min_positives
        self.random_state = random_state

    def fit(self, X, y=None, groups=None, X_val=None, y_val=None):
        """Fit the estimator, and tune the thresholds on data that it has not seen.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or sequence of records or of paths
            What the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Two classes, or a multi-label indicator matrix.
        groups : array-like of shape (n_samples,), default=None
            Patient of each sample. None: each sample is a patient of its own.
        X_val, y_val : as X and y, default=None
            Data of other patients that tunes the thresholds; ``cv`` is then not used. Samples that are in X as well (equal
            values, or the same path) are refused.

        Returns
        -------
        self : MultilabelThresholdClassifier

        Raises
        ------
        ValueError
            More than two classes; an estimator without ``predict_proba``; a metric of scores, or one that these targets do
            not fit; ``X_val`` without ``y_val``; fewer patients than folds; samples, or where ``groups`` are given patients,
            that both train and tune.
        """
        self._validate_params()
        if y is None:
            raise ValueError("MultilabelThresholdClassifier requires y to be passed, but the target y is None.")
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: pass both, or neither.")
        X, y, groups = indexable(X, self._check_target(y), None if groups is None else np.asarray(groups))
        kernel = self._kernel(y)
        if not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"{self.estimator!r} has no predict_proba, and thresholds are of probabilities. {_advice(self.estimator)}"
            )
        if X_val is not None:
            X_val, y_val = indexable(X_val, self._check_target(y_val, fitted=True))
            _check_others(X, X_val)
            self.estimator_ = self._fit_part(X, y, groups)
            parts = [(y_val, self._scores(self.estimator_, X_val))]
        elif isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator.fit(X, y)
            parts = [(y, self._scores(self.estimator_, X))]
        else:
            parts = []
            for train, valid in self._splits(y, groups):
                part = self._fit_part(_safe_indexing(X, train), y[train], None if groups is None else groups[train])
                parts.append((y[valid], self._scores(part, _safe_indexing(X, valid))))
            held_out = isinstance(self.cv, Real) and not isinstance(self.cv, Integral)
            self.estimator_ = part if held_out else self._fit_part(X, y, groups)

        true = self._indicator(np.concatenate([labels for labels, _ in parts]))
        scores = np.concatenate([scores for _, scores in parts])
        self.n_positives_ = true.sum(axis=0)
        self.thresholds_, self.common_threshold_ = tune_thresholds(
            true, scores, kernel, one_by_one=isinstance(self.metric, str) and self.metric == "f1" and y.ndim == 2,
            n_candidates=self.n_candidates, min_positives=self.min_positives,
        )
        self.validation_score_ = once(kernel, true, scores > self.thresholds_)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Probabilities, as the estimator gives them.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or sequence of records or of paths
            What the estimator takes.

        Returns
        -------
        ndarray of shape (n_samples, 2) or (n_samples, n_labels)
            Or whatever else the estimator's own ``predict_proba`` returns.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict(self, X):
        """The labels whose probabilities are above their thresholds.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or sequence of records or of paths
            What the estimator takes.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        check_is_fitted(self)
        return self._labels(self._scores(self.estimator_, X) > self.thresholds_)

    @available_if(_estimator_has("predict_records"))
    def predict_records(self, X, groups=None):
        """Predictions of a :class:`~skecg.RecordClassifier`, decided by the thresholds.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            What the estimator takes.
        groups : array-like of shape (n_records,), default=None
            Patients, which travel along.

        Returns
        -------
        predictions : RecordPredictions
            Names, probabilities, how much the windows disagree and how many there are, as the estimator gives them; the
            ``labels`` are those of :meth:`predict`, None for a record without a usable window.
        """
        check_is_fitted(self)
        predictions = self.estimator_.predict_records(X, groups)
        scores = predictions.scores if self._ndim == 2 else predictions.scores[:, predictions.classes == self.classes_[1]]
        labels, unusable = self._labels(scores > self.thresholds_), predictions.n_windows == 0
        if unusable.any():
            labels = labels.astype(object)
            labels[unusable] = None
        return predictions._replace(labels=labels)

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        if inner.classifier_tags is not None:
            tags.classifier_tags = inner.classifier_tags
        tags.classifier_tags.multi_class = False
        return tags

    # ------------------------------------------------------------------------------------------------ targets

    def _check_target(self, y, fitted=False):
        """y as an array, after learning its classes; or after comparing with them."""
        y = as_target(y)
        if not len(y):
            raise ValueError("Found array with 0 sample(s): y is empty. Expected two classes, or an indicator matrix.")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind.startswith("multiclass"):
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}: of classes that exclude each "
                "other the most probable one is answered, without thresholds. Multi-label targets are indicator matrices."
            )
        y = y if kind == "multilabel-indicator" else column_or_1d(y, warn=True)
        classes = np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
        if fitted:
            if y.ndim != self._ndim or not np.isin(classes, self.classes_).all() or (
                    y.ndim == 2 and len(classes) != len(self.classes_)):
                raise ValueError(f"y_val holds {classes}, y {self.classes_}: expected the same classes or number of labels.")
            return y
        if y.ndim == 1 and len(classes) < 2:
            raise ValueError(f"y holds one class ({classes[0]!r}); expected two, or an indicator matrix of labels.")
        self.classes_, self._ndim = classes, y.ndim
        return y

    def _indicator(self, y):
        """(n_samples, n_labels), bool; one column for two classes."""
        return (y == 1) if self._ndim == 2 else (y == self.classes_[1])[:, np.newaxis]

    def _labels(self, decided):
        """Decisions (n_samples, n_labels) as ``predict`` returns them."""
        return decided.astype(int) if self._ndim == 2 else self.classes_[decided[:, 0].astype(int)]

    def _kernel(self, y):
        """The metric as ``kernel(true, decided, weights)``, of matrices of shape (n_samples, n_labels)."""
        if not isinstance(self.metric, str):
            return lambda true, decided, weights: np.array(
                [self.metric(self._labels(true[rows]), self._labels(decided[rows])) for rows in weights.astype(bool)], float)
        metric = metric_named(self.metric)
        if metric.response != "labels":
            known = ", ".join(name for name in METRICS if METRICS[name].response == "labels")
            raise ValueError(
                f"metric={self.metric!r} is a metric of {metric.response}, which no threshold changes; expected one of "
                f"{known}, or a function."
            )
        metric.prepare(y, y, None)  # says if the targets do not fit
        if self._ndim == 2:
            return metric.kernel
        return lambda true, decided, weights: metric.kernel(
            np.hstack([~true, true]), np.hstack([~decided, decided]), weights)

    # ------------------------------------------------------------------------------------------------ parts

    def _splits(self, y, groups):
        cv = self.cv
        if cv is None:
            n_patients = len(np.unique(groups)) if groups is not None else len(y)
            if n_patients < 2:
                raise ValueError(f"There is 1 patient (n_samples={len(y)}): nobody is left to tune thresholds on. Pass "
                                 "X_val, or data of several patients.")
            cv = min(5, n_patients)
        if isinstance(cv, Real):
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            if isinstance(cv, Integral):
                cv = MultilabelStratifiedGroupKFold(cv, shuffle=True, random_state=seed)
            else:
                cv = MultilabelStratifiedGroupShuffleSplit(test_size=cv, random_state=seed)
        splits = list(check_cv(cv).split(np.zeros(len(y)), y, groups))
        owners, unit = (np.arange(len(y)), "sample") if groups is None else (groups, "patient")
        for i, (train, valid) in enumerate(splits):
            shared = np.intersect1d(owners[train], owners[valid]).tolist()
            if shared:
                raise ValueError(
                    f"Split {i} of cv has {len(shared)} {unit}(s) on both sides, such as {shared[0]!r}: thresholds are to "
                    "be tuned on others than the estimator is trained on. Use a splitter that keeps them apart, such as "
                    "GroupKFold, or leave cv at a number."
                )
        return splits

    def _fit_part(self, X, y, groups):
        parameters = {} if groups is None else _groups_for(self.estimator, groups)
        return clone(self.estimator).fit(X, y, **parameters)

    def _scores(self, estimator, X):
        """Probabilities of the labels, or of the second class: (n_samples, n_labels)."""
        return class_scores(estimator, X) if self._ndim == 2 else class_scores(estimator, X, self.classes_)[:, 1:]


def _check_others(X, X_val):
    """Refuse samples of X_val that are in X."""
    known = {_fingerprint(sample) for sample in _samples(X)}
    shared = [i for i, sample in enumerate(_samples(X_val)) if _fingerprint(sample) in known]
    if shared:
        raise ValueError(
            f"{len(shared)} sample(s) of X_val, such as number {shared[0]}, are in X as well: thresholds are to be tuned on "
            "others than the estimator is trained on. Take them out of one of both."
        )


def _samples(X):
    """Something to iterate over samples by, without reading records from disk."""
    X = getattr(X, "paths", X)
    return X if isinstance(X, (list, tuple)) else as_target(X)


def _fingerprint(sample):
    """Equal for equal values, and for equal paths."""
    values = np.asarray(getattr(sample, "signal", sample))
    is_number = values.dtype.kind in "biuf"
    return hash(np.ascontiguousarray(values, dtype=float).tobytes() if is_number else str(values.tolist()))


def tune_thresholds(true, scores, kernel, *, one_by_one, n_candidates, min_positives):
    """Thresholds per label, and the common one that they start from.

    Parameters
    ----------
    true : ndarray of shape (n_samples, n_labels), bool
    scores : ndarray of shape (n_samples, n_labels), float
    kernel : callable
        ``kernel(true, decided, weights) -> (n_resamples,)``, larger is better; NaN if undefined. The weights are 0 and 1.
    one_by_one : bool
        Whether the metric is a mean over labels of values of single labels.
    n_candidates, min_positives : int
        See :class:`MultilabelThresholdClassifier`.

    Returns
    -------
    thresholds : ndarray of shape (n_labels,), float64
    common : float
    """
    counts = np.minimum(true.sum(axis=0), (~true).sum(axis=0))
    tunable = np.flatnonzero(counts >= min_positives)
    if not len(tunable):
        return np.full(scores.shape[1], 0.5), 0.5
    of_any = np.append(0.5, _candidates(scores.ravel(), true.ravel(), n_candidates))
    common = _best(of_any, [once(kernel, true, scores > t) for t in of_any], 0.5)
    thresholds = np.full(scores.shape[1], common)
    candidates = {k: _candidates(scores[:, k], true[:, k], n_candidates) for k in tunable}
    for _ in range(1 if one_by_one else _MAX_SWEEPS):
        before = thresholds.copy()
        for k in tunable:
            tried = np.append(thresholds[k], candidates[k])
            columns, i = ([k], 0) if one_by_one else (slice(None), k)
            values = _scan(true[:, columns], scores[:, columns] > thresholds[columns], i, scores[:, k], tried, kernel)
            thresholds[k] = _best(tried, values, common)
        if (thresholds == before).all():
            break
    return thresholds, float(common)


def _scan(true, decided, k, scores, thresholds, kernel):
    """The metric for each of some thresholds of label ``k``, the other labels staying as they are decided.

    Each sample stands there twice, with the label and without, and each threshold chooses one of both: so everything is
    computed once for all thresholds.
    """
    decided = np.repeat(decided, 2, axis=0)
    decided[::2, k], decided[1::2, k] = True, False
    chosen = np.empty((len(thresholds), len(decided)), dtype=bool)
    chosen[:, ::2] = scores > thresholds[:, np.newaxis]
    chosen[:, 1::2] = ~chosen[:, ::2]
    return kernel(np.repeat(true, 2, axis=0), decided, chosen)


def _best(thresholds, values, centre):
    """The threshold of the greatest value, the first unless another is better; of equal ones the nearest to ``centre``."""
    values = np.nan_to_num(values, nan=-np.inf)
    if not values.max() > values[0] + _SAME:
        return thresholds[0]
    best = np.flatnonzero(values >= values.max() - _SAME)
    return thresholds[best[np.abs(thresholds[best] - centre).argmin()]]


def _candidates(scores, true, n_candidates):
    """Thresholds halfway between neighbouring scores, so that rounding does not change decisions."""
    values = np.unique(scores)
    halfway = (values[1:] + values[:-1]) / 2
    if len(halfway) <= n_candidates:
        return halfway
    shares = np.linspace(0, 1, (n_candidates + 1) // 2)
    wanted = np.concatenate([np.quantile(some, shares) for some in (scores, scores[true]) if len(some)])
    below = np.searchsorted(values, wanted) - 1  # the place just below each wanted score
    return halfway[np.unique(np.clip(below, 0, len(halfway) - 1))]
