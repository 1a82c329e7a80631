"""Scorers for cross-validation and searches, and the scores of any classifier for all classes."""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED

from ._common import as_target
from ._table import metric_named


def get_scorer(name):
    """A scorer for ``cross_validate``, ``GridSearchCV`` and the like that stays defined when a class is missing.

    Takes class labels and multi-label targets, and classifiers with ``predict_proba`` (arrays, or the lists of
    multi-output classifiers) or only ``decision_function``. A class that the test part lacks is left out of the mean; a
    class that the training part lacked has the lowest score everywhere.

    Parameters
    ----------
    name : {"roc_auc", "average_precision", "f1", "recall", "balanced_accuracy", "kappa", "accuracy", "cinc_2020", \
            "cinc_2021", "neg_localization_error", "localized_within_10_mm"}
        The metric: :func:`macro_roc_auc`, :func:`macro_average_precision`, :func:`macro_f1`, :func:`macro_recall`,
        :func:`balanced_accuracy`, :func:`cohen_kappa`, :func:`accuracy`, or :func:`cinc_score` of that year. Balanced
        accuracy and kappa are for one label for each sample, :func:`cinc_score` for the classes of :func:`cinc_classes`.
        For regressors of positions in millimetres: the median of :func:`localization_error` with its sign changed, so that
        larger is better, and :func:`share_localized` within 10 mm.

    Returns
    -------
    callable
        ``scorer(estimator, X, y, *, record_ids=None) -> float``. It can be pickled and cloned. With scikit-learn's
        metadata routing, ``get_scorer(name).set_score_request(record_ids=True)`` scores records rather than windows.

    Raises
    ------
    ValueError
        An unknown name.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GroupKFold, cross_validate
    >>> from skecg.metrics import get_scorer
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(8), 10)
    >>> y = np.where(np.arange(80) < 5, "rare", rng.choice(["a", "b"], size=80))  # only one patient has the rare class
    >>> X = rng.normal(size=(80, 2)) + (y == "a")[:, None]
    >>> scoring = {name: get_scorer(name) for name in ("roc_auc", "f1")}
    >>> result = cross_validate(LogisticRegression(), X, y, groups=groups, cv=GroupKFold(4), scoring=scoring)
    >>> bool(np.isfinite(result["test_roc_auc"]).all())
    True
    """
    metric_named(name)
    return MetricScorer(name)


class MetricScorer(BaseEstimator):
    """``scorer(estimator, X, y)`` of a metric; its parameters and its ``set_score_request`` are scikit-learn's own."""

    __metadata_request__score = {"estimator": UNUSED}

    def __init__(self, metric):
        self.metric = metric

    def score(self, estimator, X, y, record_ids=None):
        """The metric of an estimator's predictions.

        Parameters
        ----------
        estimator : fitted classifier or regressor
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_coordinates)
        record_ids : array-like of shape (n_samples,), default=None
            Record of each sample, to score records.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            A metric of positions for a classifier; and as the metric itself.
        """
        metric, y = metric_named(self.metric), as_target(y)
        if metric.response == "values" and hasattr(estimator, "classes_"):
            raise ValueError(
                f"{self.metric!r} is for positions that regressors predict, but {type(estimator).__name__} is a classifier: "
                "the distance between two class labels means nothing. Use 'accuracy', say, or a regressor."
            )
        if metric.response != "scores":
            return metric.function(y, estimator.predict(X), record_ids=record_ids)
        classes = None if y.ndim == 2 else np.union1d(_classes(estimator), y)
        return metric.function(y, class_scores(estimator, X, classes), labels=classes, record_ids=record_ids)

    __call__ = score

    def _accept_sample_weight(self):
        return False  # a search that is fitted with sample_weight asks its scorers


def class_scores(estimator, X, classes=None):
    """Scores of a fitted classifier for all classes, those that its training part lacked included.

    Parameters
    ----------
    estimator : fitted classifier
        Anything with ``predict_proba``, which is preferred, or ``decision_function``; a Pipeline or a search too.
    X : array-like of shape (n_samples, ...)
        What the estimator takes.
    classes : array-like of shape (n_classes,), default=None
        All classes of the data, in the order wanted for the columns. None: multi-label targets, a column per label.

    Returns
    -------
    ndarray of shape (n_samples, n_classes), float64
        Probabilities, 0 for a class that is not among ``classes_``; or decision values, minus infinity for such a class.
        The decision values of two classes are those of ``decision_function`` and their negatives. With ``classes=None``,
        the probability or decision value of each label.

    Raises
    ------
    ValueError
        An estimator that has neither method or no ``classes_``, that knows a class which ``classes`` lacks, or whose
        scores do not have a column per class (one-vs-one decision values).

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skecg.metrics import class_scores
    >>> clf = GaussianNB().fit([[0.0], [1.0], [10.0], [11.0]], ["a", "a", "c", "c"])
    >>> class_scores(clf, [[0.5]], ["a", "b", "c"]).round(3)
    array([[1., 0., 0.]])
    """
    probabilities = hasattr(estimator, "predict_proba")
    if not probabilities and not hasattr(estimator, "decision_function"):
        raise ValueError(f"{type(estimator).__name__} has neither predict_proba nor decision_function: its classes have "
                         "no scores. Use a metric of decisions, such as 'f1' or 'accuracy'.")
    values = estimator.predict_proba(X) if probabilities else estimator.decision_function(X)
    if classes is None:
        if isinstance(values, list):
            return np.stack([_probability_of_1(*label) for label in zip(values, _classes(estimator), strict=True)], axis=1)
        return np.asarray(values, dtype=float)

    known, classes, values = np.asarray(_classes(estimator)), np.asarray(classes), np.asarray(values, dtype=float)
    if values.ndim == 1:
        values = np.stack([-values, values], axis=1) if len(known) == 2 else values[:, np.newaxis]
    if known.ndim != 1 or values.shape[1:] != (len(known),):
        raise ValueError(
            f"{type(estimator).__name__} gives scores of shape {values.shape} for {len(known)} classes; expected a column "
            "per class. Use decision_function_shape='ovr', and classes=None for multi-label targets."
        )
    match = known[:, np.newaxis] == classes
    if not match.any(axis=1).all():
        lacking = ", ".join(map(str, known[~match.any(axis=1)]))
        raise ValueError(f"{type(estimator).__name__} was fitted on classes that classes lacks: {lacking}.")
    scores = np.full((len(values), len(classes)), 0.0 if probabilities else -np.inf)
    scores[:, match.argmax(axis=1)] = values
    return scores


def _probability_of_1(probabilities, classes):
    """One label of a multi-output classifier, which may have seen the label only present or only absent."""
    return np.asarray(probabilities, dtype=float)[:, np.asarray(classes) == 1].sum(axis=1)


def _classes(estimator):
    if not hasattr(estimator, "classes_"):
        raise ValueError(f"{type(estimator).__name__} has no classes_: which class a column of its scores belongs to is "
                         "unknown. Fit a classifier, or set classes_ in its fit.")
    return estimator.classes_
