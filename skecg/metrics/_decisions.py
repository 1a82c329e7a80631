"""Metrics of hard decisions, of many resamples at once."""

import numpy as np

from ._common import decided_classes, mean_of_defined, once, one_decided_class, ratio, weight_blocks


def macro_f1(y_true, y_pred, *, labels=None, record_ids=None):
    """Mean over classes of F1, the harmonic mean of precision and recall.

    Classes of which ``y_true`` has no positive are left out; predictions of such a class count as misses of the others.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_pred : array-like of the shape of y_true
        Decisions, as ``predict`` gives them.
    labels : array-like of shape (n_classes,), default=None
        The classes that may occur; another one in ``y_true`` or ``y_pred`` is an error. None: those that do. Not used
        for an indicator matrix.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, records are what is counted. A record is decided by most of its windows: the
        most frequent class, the first of those in a tie; a label that more than half of the windows have.

    Returns
    -------
    float
        NaN if no class has a positive.

    Raises
    ------
    ValueError
        Decisions of another shape than ``y_true``, an unknown label, or a record with several labels.

    Examples
    --------
    >>> from skecg.metrics import macro_f1
    >>> round(macro_f1(["a", "a", "b", "b"], ["a", "c", "b", "b"]), 4)  # 2/3 and 1; c is not averaged
    0.8333
    """
    return once(mean_f1, *decided_classes(y_true, y_pred, labels, record_ids))


def macro_recall(y_true, y_pred, *, labels=None, record_ids=None):
    """Mean over classes of recall (sensitivity): the share of a class that was recognised.

    Classes of which ``y_true`` has no positive are left out. With one label for each sample this is
    :func:`balanced_accuracy`; in multi-label targets it says nothing of false alarms, look at :func:`macro_f1` too.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_pred : array-like of the shape of y_true
        Decisions, as ``predict`` gives them.
    labels : array-like of shape (n_classes,), default=None
        The classes that may occur; another one is an error. None: those that do. Not used for an indicator matrix.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, records are what is counted, decided by most of their windows as in
        :func:`macro_f1`.

    Returns
    -------
    float
        NaN if no class has a positive.

    Raises
    ------
    ValueError
        As :func:`macro_f1`.

    Examples
    --------
    >>> from skecg.metrics import macro_recall
    >>> macro_recall(["a", "a", "b", "b"], ["a", "c", "b", "b"])  # 1/2 and 1
    0.75
    """
    return once(mean_recall, *decided_classes(y_true, y_pred, labels, record_ids))


def balanced_accuracy(y_true, y_pred, *, labels=None, record_ids=None):
    """Mean over classes of the share that was recognised, for one label for each sample.

    Classes that ``y_true`` lacks are left out.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        Class labels and decisions.
    labels : array-like of shape (n_classes,), default=None
        The classes that may occur; another one is an error. None: those that do.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, records are what is counted, decided by most of their windows as in
        :func:`macro_f1`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        Multi-label targets, which take :func:`macro_recall`; and as :func:`macro_f1`.

    Examples
    --------
    >>> from skecg.metrics import balanced_accuracy
    >>> balanced_accuracy(["a", "a", "b", "b"], ["a", "c", "b", "b"])
    0.75
    """
    return once(mean_recall, *one_decided_class(y_true, y_pred, labels, record_ids))


def cohen_kappa(y_true, y_pred, *, labels=None, record_ids=None):
    """Agreement beyond that expected by chance, for one label for each sample.

    Nothing has to be left out when ``y_true`` lacks a class: such a class adds nothing to the agreement expected by
    chance, and predictions of it count as disagreement.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        Class labels and decisions.
    labels : array-like of shape (n_classes,), default=None
        The classes that may occur; another one is an error. None: those that do.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, records are what is counted, decided by most of their windows as in
        :func:`macro_f1`.

    Returns
    -------
    float
        1 is full agreement, 0 that of chance. NaN if ``y_true`` and ``y_pred`` are one and the same class throughout.

    Raises
    ------
    ValueError
        Multi-label targets, and as :func:`macro_f1`.

    References
    ----------
    Cohen J. A coefficient of agreement for nominal scales. Educational and Psychological Measurement 20 (1960) 37-46.

    Examples
    --------
    >>> from skecg.metrics import cohen_kappa
    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    0.5
    """
    return once(kappa, *one_decided_class(y_true, y_pred, labels, record_ids))


def accuracy(y_true, y_pred, *, labels=None, record_ids=None):
    """Share of the samples of which every label was predicted.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multi-label indicator matrix.
    y_pred : array-like of the shape of y_true
        Decisions, as ``predict`` gives them.
    labels : array-like of shape (n_classes,), default=None
        The classes that may occur; another one is an error. None: those that do. Not used for an indicator matrix.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, records are what is counted, decided by most of their windows as in
        :func:`macro_f1`.

    Returns
    -------
    float
        NaN if there is no sample.

    Raises
    ------
    ValueError
        As :func:`macro_f1`.

    Examples
    --------
    >>> from skecg.metrics import accuracy
    >>> accuracy([[1, 0], [0, 1]], [[1, 0], [1, 1]])
    0.5
    """
    return once(share_correct, *decided_classes(y_true, y_pred, labels, record_ids))


def mean_f1(true, predicted, weights):
    hits, positives, flagged = _sums(weights, true & predicted, true, predicted)
    return mean_of_defined(np.where(positives > 0, ratio(2 * hits, positives + flagged), np.nan))


def mean_recall(true, predicted, weights):
    return mean_of_defined(ratio(*_sums(weights, true & predicted, true)))


def kappa(true, predicted, weights):
    hits, positives, flagged = _sums(weights, true & predicted, true, predicted)
    total, by_chance = positives.sum(axis=1), (positives * flagged).sum(axis=1)
    return ratio(total * hits.sum(axis=1) - by_chance, total**2 - by_chance)


def share_correct(true, predicted, weights):
    correct = (true == predicted).all(axis=1, keepdims=True)
    return ratio(*_sums(weights, correct, np.ones_like(correct)))[:, 0]


def _sums(weights, *flags):
    """How often each column of each matrix is true, (n_resamples, n_columns) for each matrix."""
    widths = np.cumsum([matrix.shape[1] for matrix in flags])
    joined = np.concatenate(flags, axis=1).astype(float)
    sums = np.empty((len(weights), widths[-1]))
    for rows, block in weight_blocks(weights):
        sums[rows] = block.T @ joined
    return np.split(sums, widths[:-1], axis=1)
