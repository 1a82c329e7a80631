"""Areas under ROC and precision-recall curves, of many resamples at once."""

from typing import NamedTuple

import numpy as np

from ._common import mean_of_defined, once, ratio, scored_classes, weight_blocks


def macro_roc_auc(y_true, y_score, *, labels=None, record_ids=None):
    """Mean over classes of the area under the ROC curve, one class against the rest.

    Classes of which ``y_true`` has no positive or no negative have no ROC curve and are left out.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_score : array-like of shape (n_samples, n_classes), or (n_samples,) for two classes
        Probabilities or other scores, columns in the order of ``labels``. One column is the score of the second class.
    labels : array-like of shape (n_classes,), default=None
        Classes of the columns of ``y_score`` (``classes_`` of a classifier). None: the sorted values of ``y_true``.
        Not used for an indicator matrix.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, the scores of a record's windows are averaged first, and records are what is
        counted (see :func:`aggregate_windows`); windows whose score is NaN are ignored.

    Returns
    -------
    float
        NaN if no class has a ROC curve.

    Raises
    ------
    ValueError
        Another number of columns than of classes, labels in ``y_true`` that ``labels`` lacks, scores of NaN, or a
        record with several labels.

    Examples
    --------
    >>> from skecg.metrics import macro_roc_auc
    >>> macro_roc_auc(["a", "b", "b"], [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]], labels=["a", "b", "c"])
    1.0

    By record, in a cross-validation of multi-label targets:

    >>> import numpy as np, sklearn
    >>> from sklearn.metrics import make_scorer
    >>> from sklearn.model_selection import GroupKFold, cross_validate
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> rng = np.random.default_rng(0)
    >>> records = np.repeat(np.arange(20), 5)
    >>> y = (rng.random((20, 2)) < 0.5).astype(int)[records]
    >>> X = y + rng.normal(scale=0.7, size=y.shape)
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     scorer = make_scorer(macro_roc_auc, response_method="predict_proba").set_score_request(record_ids=True)
    ...     result = cross_validate(KNeighborsClassifier(), X, y, cv=GroupKFold(2), scoring=scorer,
    ...                             params={"groups": records, "record_ids": records})
    >>> bool((result["test_score"] > 0.7).all())
    True
    """
    return once(mean_roc_auc, *scored_classes(y_true, y_score, labels, record_ids))


def macro_average_precision(y_true, y_score, *, labels=None, record_ids=None):
    """Mean over classes of the average precision, one class against the rest.

    Classes of which ``y_true`` has no positive or no negative are left out: precision is 0 or 1 there, whatever the scores.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_score : array-like of shape (n_samples, n_classes), or (n_samples,) for two classes
        Probabilities or other scores, columns in the order of ``labels``. One column is the score of the second class.
    labels : array-like of shape (n_classes,), default=None
        Classes of the columns of ``y_score`` (``classes_`` of a classifier). None: the sorted values of ``y_true``.
        Not used for an indicator matrix.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, the scores of a record's windows are averaged first, and records are what is
        counted.

    Returns
    -------
    float
        NaN if no class has both positives and negatives.

    Raises
    ------
    ValueError
        As :func:`macro_roc_auc`.

    Notes
    -----
    - The sum over thresholds of precision times the step of recall, not interpolated; samples of one score share one
      threshold.
    - Two classes are averaged like any other number. scikit-learn's ``average_precision`` is that of the second alone.

    Examples
    --------
    >>> from skecg.metrics import macro_average_precision
    >>> round(macro_average_precision([[1, 0], [0, 0], [1, 0]], [[0.9, 0.2], [0.6, 0.1], [0.4, 0.3]]), 4)  # 1 and 2/3
    0.8333
    """
    return once(mean_average_precision, *scored_classes(y_true, y_score, labels, record_ids))


def roc_auc_per_class(y_true, y_score, *, labels=None, record_ids=None):
    """Area under the ROC curve of each class against the rest.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_score : array-like of shape (n_samples, n_classes), or (n_samples,) for two classes
        Probabilities or other scores, columns in the order of ``labels``. One column is the score of the second class.
    labels : array-like of shape (n_classes,), default=None
        Classes of the columns of ``y_score``. None: the sorted values of ``y_true``. Not used for an indicator matrix.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, the scores of a record's windows are averaged first.

    Returns
    -------
    ndarray of shape (n_classes,)
        NaN where ``y_true`` has no positive or no negative of a class.

    Raises
    ------
    ValueError
        As :func:`macro_roc_auc`.

    Examples
    --------
    >>> from skecg.metrics import roc_auc_per_class
    >>> roc_auc_per_class([[1, 0], [0, 0], [1, 0]], [[0.9, 0.2], [0.6, 0.1], [0.4, 0.3]])
    array([0.5, nan])
    """
    true, score = scored_classes(y_true, y_score, labels, record_ids)
    return _per_class(_roc_area, true, score, np.ones((1, len(true))))[0]


def mean_roc_auc(true, score, weights):
    return mean_of_defined(_per_class(_roc_area, true, score, weights))


def mean_average_precision(true, score, weights):
    return mean_of_defined(_per_class(_precision_area, true, score, weights))


class _Ranking(NamedTuple):
    """The order of one class's samples, which no resample changes."""

    positives: np.ndarray  # indices in ascending order of score
    negatives: np.ndarray
    below: np.ndarray      # per positive: the number of negatives with a lower score,
    not_above: np.ndarray  # with a lower or the same score,
    rank: np.ndarray       # and the number of positives with a lower score

    @classmethod
    def of(cls, true, score):
        order = np.argsort(score, kind="stable")
        positives, negatives = order[true[order]], order[~true[order]]
        high, low = score[positives], score[negatives]
        return cls(positives, negatives, np.searchsorted(low, high), np.searchsorted(low, high, "right"),
                   np.searchsorted(high, high))


def _per_class(area, true, score, weights):
    """The area of each resample and class, (n_resamples, n_classes); NaN without positives or without negatives."""
    value, scale = np.zeros((2, len(weights), true.shape[1]))
    rankings = {j: _Ranking.of(true[:, j], score[:, j]) for j in np.flatnonzero(true.any(axis=0) & ~true.all(axis=0))}
    for rows, block in weight_blocks(weights):
        for j, ranking in rankings.items():
            value[rows, j], scale[rows, j] = area(ranking, block)
    return ratio(value, scale)


def _roc_area(ranking, weights):
    """The Mann-Whitney statistic: pairs in which the positive is above, ties counted half, of all pairs; both doubled."""
    drawn, negatives = weights[ranking.positives], _cumulated(weights[ranking.negatives])
    above = np.einsum("ij,ij->j", drawn, negatives[ranking.below])
    above += np.einsum("ij,ij->j", drawn, negatives[ranking.not_above])
    return above, 2 * drawn.sum(axis=0) * negatives[-1]


def _precision_area(ranking, weights):
    """The precision among everything that scores as high as a positive or higher, summed over positives; their number."""
    drawn, negatives = weights[ranking.positives], _cumulated(weights[ranking.negatives])
    positives = _cumulated(drawn)
    hits = (positives[-1] - positives)[ranking.rank]
    flagged = hits + (negatives[-1] - negatives)[ranking.below]
    precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
    return np.einsum("ij,ij->j", drawn, precision), np.where(negatives[-1] > 0, positives[-1], 0.0)


def _cumulated(weights):
    """Sums over the first 0, 1, ..., n rows, (n + 1, n_block)."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
