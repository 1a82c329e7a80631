"""Scores that stay defined when a class is missing, and their intervals."""

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length


def macro_roc_auc(y_true, y_score, *, labels=None):
    """Mean over classes of the area under the ROC curve, one class against the rest.

    Classes of which ``y_true`` has no positive or no negative have no ROC curve and are left out.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_score : array-like of shape (n_samples, n_classes), or (n_samples,) for two classes
        Probabilities or other scores, columns in the order of ``labels``.
    labels : array-like of shape (n_classes,), default=None
        Classes of the columns of ``y_score`` (``classes_`` of a classifier). None: the sorted values of ``y_true``.
        Not used for an indicator matrix.

    Returns
    -------
    float
        NaN if no class has a ROC curve.

    Raises
    ------
    ValueError
        Another number of columns than of classes, or labels in ``y_true`` that ``labels`` lacks.

    Examples
    --------
    >>> from skecg.metrics import macro_roc_auc
    >>> macro_roc_auc(["a", "b", "b"], [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]], labels=["a", "b", "c"])
    1.0
    """
    y_true, y_score = np.asarray(y_true), np.asarray(y_score)
    check_consistent_length(y_true, y_score)
    if y_true.ndim == 1:
        labels = np.unique(y_true) if labels is None else np.asarray(labels)
        unknown = np.setdiff1d(y_true, labels)
        if len(unknown):
            raise ValueError(f"y_true holds labels that labels lacks: {', '.join(map(str, unknown))}.")
        y_true = y_true[:, None] == labels
        if y_score.ndim == 1 and len(labels) == 2:
            y_score = np.stack([-y_score, y_score], axis=1)
    if y_score.shape != y_true.shape:
        raise ValueError(
            f"y_score has shape {y_score.shape}, expected one column per class, {y_true.shape}. Pass labels=classes_ if "
            "y_true may lack a class."
        )
    y_true = y_true.astype(bool)
    positives = y_true.sum(axis=0)
    defined = (positives > 0) & (positives < len(y_true))
    if not defined.any():
        return float("nan")
    y_true, y_score, positives = y_true[:, defined], y_score[:, defined], positives[defined]
    # the area is the Mann-Whitney statistic: all classes at once, and fast enough for a bootstrap
    rank_sums = np.where(y_true, rankdata(y_score, axis=0), 0.0).sum(axis=0)
    areas = (rank_sums - positives * (positives + 1) / 2) / (positives * (len(y_true) - positives))
    return float(areas.mean())


def bootstrap_interval(statistic, groups, *, confidence_level=0.95, n_resamples=1000, random_state=None):
    """Percentile interval of a statistic over resampled patients.

    Parameters
    ----------
    statistic : callable
        Takes an index array of samples, in which a sample may occur several times; returns a float.
    groups : array-like of shape (n_samples,)
        Patient of each sample; a patient is drawn with all samples or not at all.
    confidence_level : float, default=0.95
        Probability covered by the interval.
    n_resamples : int, default=1000
        Bootstrap samples. Those of which the statistic is NaN are left out.
    random_state : int, RandomState or None, default=None
        Seed of the draws.

    Returns
    -------
    low, high : float
        NaN if the statistic was never defined.

    References
    ----------
    Efron B, Tibshirani RJ. An introduction to the bootstrap. Chapman & Hall, 1993, chapter 13.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.metrics import bootstrap_interval
    >>> correct = np.array([1, 1, 0, 1, 1, 1, 0, 1])
    >>> patients = np.array([1, 1, 2, 2, 3, 3, 4, 4])
    >>> low, high = bootstrap_interval(lambda rows: correct[rows].mean(), patients, random_state=0)
    >>> 0 <= low <= 0.75 <= high <= 1
    True
    """
    rng = check_random_state(random_state)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    values = []
    for _ in range(n_resamples):
        drawn = rng.randint(len(members), size=len(members))
        values.append(statistic(np.concatenate([members[i] for i in drawn])))
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
