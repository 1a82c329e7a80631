"""From windows to records."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from sklearn.utils.validation import check_consistent_length


class RecordScores(NamedTuple):
    """What :func:`aggregate_windows` returns: a row per record, in order of first appearance.

    Parameters
    ----------
    record_ids : ndarray of shape (n_records,)
        The records.
    scores : ndarray of shape (n_records,) or (n_records, n_classes)
        Their predictions; NaN for a record without a usable window.
    spread : ndarray of the shape of ``scores``
        Standard deviation over the usable windows of a record.
    counts : ndarray of shape (n_records,), int
        Number of usable windows.
    """

    record_ids: np.ndarray
    scores: np.ndarray
    spread: np.ndarray
    counts: np.ndarray


def aggregate_windows(y_score, record_ids, *, how="mean"):
    """Predictions per record from predictions per window.

    Parameters
    ----------
    y_score : array-like of shape (n_windows,) or (n_windows, n_classes)
        Probabilities, decision values, or predictions of a regressor. A window with NaN among its values is unusable
        and ignored.
    record_ids : array-like of shape (n_windows,)
        Record of each window, in any order.
    how : {"mean", "median", "max", "logit-mean"}, default="mean"
        For each column, over the usable windows of a record: the mean; the median; the greatest, for what shows in a
        single window, such as an ectopic beat; or :math:`1 / (1 + e^{-m})` with :math:`m` the mean of
        :math:`\\log(p / (1 - p))`, in which confident windows weigh more. With the last one and with the median, rows of
        class probabilities need not sum to one.

    Returns
    -------
    record_ids : ndarray of shape (n_records,)
        In order of first appearance. The four arrays are a named tuple, :class:`RecordScores`.
    scores : ndarray of shape (n_records,) or (n_records, n_classes)
        NaN for a record without a usable window.
    spread : ndarray of the shape of ``scores``
        Standard deviation of ``y_score`` (divided by the number of windows) over the usable windows of a record: how
        much a record's windows disagree. 0 for a single window, NaN as in ``scores``.
    counts : ndarray of shape (n_records,), int
        Usable windows.

    Raises
    ------
    ValueError
        An unknown ``how``, values outside [0, 1] with "logit-mean", or scores of neither one nor two dimensions.

    Notes
    -----
    "logit-mean" moves probabilities closer to 0 or 1 than 1.2e-7, the resolution of float32, to that distance: a
    single window at exactly 0 would decide the record alone.

    Examples
    --------
    >>> from skecg.metrics import aggregate_windows
    >>> records, scores, spread, counts = aggregate_windows([0.5, 0.25, 1.0, float("nan")], ["b", "a", "b", "a"])
    >>> records, scores, spread, counts
    (array(['b', 'a'], dtype='<U1'), array([0.75, 0.25]), array([0.25, 0.  ]), array([2, 1]))
    """
    if how not in _POOLS:
        raise ValueError(f"how={how!r} is unknown; expected one of {', '.join(_POOLS)}.")
    y_score = np.asarray(y_score, dtype=float)
    if y_score.ndim not in (1, 2):
        raise ValueError(f"y_score has shape {y_score.shape}; expected (n_windows,) or (n_windows, n_classes).")
    check_consistent_length(y_score, record_ids)
    record_ids, codes, _ = records_of(record_ids)

    values = y_score if y_score.ndim == 2 else y_score[:, np.newaxis]
    usable = ~np.isnan(values).any(axis=1)
    counts = np.bincount(codes[usable], minlength=len(record_ids))
    order = np.flatnonzero(usable)
    order = order[np.argsort(codes[order], kind="stable")]
    values = values[order]
    seen = counts > 0  # a record without windows has no place in what reduceat cuts
    starts = np.cumsum(counts[seen]) - counts[seen]

    scores, spread = np.full((2, len(record_ids), values.shape[1]), np.nan)
    if len(starts):
        scores[seen] = _POOLS[how](values, starts, counts[seen])
        spread[seen] = _deviation(values, starts, counts[seen])
    shape = (len(record_ids), *y_score.shape[1:])
    return RecordScores(record_ids, scores.reshape(shape), spread.reshape(shape), counts)


def records_of(record_ids):
    """Records in order of first appearance, the number of each window's record, and each record's first window."""
    record_ids = np.asarray(record_ids)
    if record_ids.ndim != 1:
        raise ValueError(f"record_ids has shape {record_ids.shape}; expected one record per window, (n_windows,).")
    if not len(record_ids):
        return record_ids, np.zeros(0, int), np.zeros(0, int)
    # windows of a record mostly follow one another, and sorting their ids is what takes time
    starts = np.flatnonzero(np.concatenate([[True], record_ids[1:] != record_ids[:-1]]))
    unique, first, inverse = np.unique(record_ids[starts], return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(unique), int)
    number[order] = np.arange(len(unique))
    codes = np.repeat(number[inverse], np.diff(starts, append=len(record_ids)))
    return unique[order], codes, starts[first[order]]


def constant_per_record(y, record_ids):
    """The rows of ``y`` (n_windows, n_classes) per record, which must be the same in all windows of a record."""
    record_ids, codes, first = records_of(record_ids)
    differs = (y != y[first][codes]).any(axis=1)
    if differs.any():
        raise ValueError(
            f"y_true differs between windows of record {record_ids[codes[differs.argmax()]]}: a record is scored by one "
            "label. Give labels per record, or leave record_ids out to score windows."
        )
    return y[first]


def _mean(values, starts, counts):
    return np.add.reduceat(values, starts, axis=0) / counts[:, np.newaxis]


def _median(values, starts, counts):
    medians = np.empty((len(counts), values.shape[1]))
    for count in np.unique(counts):  # few: m different counts take at least m (m + 1) / 2 windows
        rows = np.flatnonzero(counts == count)
        ordered = np.sort(values[starts[rows, np.newaxis] + np.arange(count)], axis=1)  # (n_rows, count, n_columns)
        medians[rows] = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return medians


def _max(values, starts, counts):
    return np.maximum.reduceat(values, starts, axis=0)


def _logit_mean(values, starts, counts):
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"how='logit-mean' takes probabilities, but y_score holds values from {values.min():g} to {values.max():g}. "
            "Use how='mean' for decision values: the mean of logits is what it gives."
        )
    smallest = np.finfo(np.float32).eps
    return expit(_mean(logit(np.clip(values, smallest, 1 - smallest)), starts, counts))


def _deviation(values, starts, counts):
    centre = np.repeat(_mean(values, starts, counts), counts, axis=0)
    same = values == centre  # also where both are infinite, as the decision value of a class never seen is
    return np.sqrt(_mean(np.subtract(values, centre, out=np.zeros_like(values), where=~same) ** 2, starts, counts))


_POOLS = {"mean": _mean, "median": _median, "max": _max, "logit-mean": _logit_mean}
