"""Errors of predicted positions: their quantiles, and the share that is small enough."""

from numbers import Real

import numpy as np
from sklearn.utils.validation import check_consistent_length

from ._common import ratio, weight_blocks
from ._records import aggregate_windows, constant_per_record

_RADIUS = 10.0  # mm


def localization_error(y_true, y_pred, *, quantile=0.5, record_ids=None):
    """Quantile of the distance between true and predicted positions; the median by default.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples, n_coordinates) or (n_samples,)
        Positions, in millimetres or any unit of length; with one coordinate the distance is the absolute difference.
    quantile : float or sequence of float, default=0.5
        Between 0 and 1; ``(0.25, 0.5, 0.75)`` is the median with its interquartile range. Interpolated linearly between
        neighbouring distances, as in :func:`numpy.quantile`.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, the predicted positions of a record's samples (the beats of one pacing site) are
        averaged first, and records are what is counted; samples that are predicted as NaN are ignored.

    Returns
    -------
    float, or ndarray of the shape of ``quantile``
        In the unit of ``y_true``. NaN if there is no sample.

    Raises
    ------
    ValueError
        Arrays of different shapes, values that are not finite, a quantile outside of [0, 1], or a record with several
        true positions.

    See Also
    --------
    share_localized : Share of the samples within a radius.
    get_scorer : "neg_localization_error" is the median with its sign changed, for which larger is better.

    Examples
    --------
    >>> from skecg.metrics import localization_error
    >>> true = [[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 10.0, 0.0]]
    >>> predicted = [[3.0, 4.0, 0.0], [10.0, 0.0, 1.0], [0.0, 10.0, 20.0]]
    >>> localization_error(true, predicted)
    5.0
    >>> localization_error(true, predicted, quantile=(0.25, 0.75))
    array([ 3. , 12.5])
    """
    quantiles = np.asarray(quantile, dtype=float)
    if not ((quantiles >= 0) & (quantiles <= 1)).all():
        raise ValueError(f"quantile is {quantile!r}; expected a number from 0 to 1, or several, such as (0.25, 0.5, 0.75).")
    distances = _distances(*positions(y_true, y_pred, record_ids=record_ids))
    if not len(distances):
        return np.full(quantiles.shape, np.nan)[()]
    found = np.quantile(distances, quantiles)
    return float(found) if isinstance(quantile, Real) else found


def share_localized(y_true, y_pred, *, radius=_RADIUS, record_ids=None):
    """Share of the samples of which the predicted position lies within a radius of the true one.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples, n_coordinates) or (n_samples,)
        Positions, in millimetres or any unit of length.
    radius : float or sequence of float, default=10.0
        Largest distance, itself included, in the unit of ``y_true``; several, such as ``(5, 10)``, have a share each.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample; as in :func:`localization_error`.

    Returns
    -------
    float, or ndarray of the shape of ``radius``
        NaN if there is no sample.

    Raises
    ------
    ValueError
        A radius that is negative or NaN; and as :func:`localization_error`.

    Examples
    --------
    >>> from skecg.metrics import share_localized
    >>> share_localized([[0.0, 0.0], [0.0, 10.0]], [[6.0, 8.0], [0.0, 30.0]])
    0.5
    """
    radii = np.asarray(radius, dtype=float)
    if not (radii >= 0).all():
        raise ValueError(f"radius is {radius!r}; expected a distance of at least 0, or several, such as (5, 10).")
    distances = _distances(*positions(y_true, y_pred, record_ids=record_ids))
    if not len(distances):
        return np.full(radii.shape, np.nan)[()]
    found = np.mean(distances <= radii[..., np.newaxis], axis=-1)
    return float(found) if isinstance(radius, Real) else found


def neg_localization_error(y_true, y_pred, *, record_ids=None):
    """The median distance with its sign changed: the larger the better."""
    return -localization_error(y_true, y_pred, record_ids=record_ids)


def positions(y_true, y_pred, labels=None, record_ids=None):
    """True and predicted positions, both (n_samples, n_coordinates), of samples or of records; ``labels`` are of classes."""
    true, predicted = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    # of one coordinate, some regressors return a column and others do not, whatever they were fitted on
    true, predicted = (values[:, np.newaxis] if values.ndim == 1 else values for values in (true, predicted))
    if true.shape != predicted.shape or true.ndim != 2:
        raise ValueError(
            f"y_true has shape {np.shape(y_true)} and y_pred {np.shape(y_pred)}; expected both (n_samples, n_coordinates), "
            "or (n_samples,)."
        )
    check_consistent_length(true, record_ids)
    names, unit = np.arange(len(true)), "sample"
    if record_ids is not None:
        true = constant_per_record(true, record_ids)
        (names, predicted, _, _), unit = aggregate_windows(predicted, record_ids), "record"
    for name, values in (("y_true", true), ("y_pred", predicted)):
        wrong = ~np.isfinite(values).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"{name} is not finite for {wrong.sum()} of {len(wrong)} {unit}s, first for {unit} {names[wrong.argmax()]}. "
                f"Give a position for every {unit}, or leave those out of y_true and y_pred."
            )
    return true, predicted


def negative_median(true, predicted, weights):
    """Of each resample, the median distance with its sign changed; NaN where nothing was drawn."""
    distances = _distances(true, predicted)
    order = np.argsort(distances)
    median = np.empty(len(weights))
    ascending = np.append(distances[order], np.nan)
    for rows, block in weight_blocks(weights[:, order]):
        seen = np.cumsum(block, axis=0)  # (n_samples, n_block): how many are drawn up to each distance
        total = block.sum(axis=0)
        # the distance of rank k comes after all up to which no more than k are drawn
        lower, upper = (ascending[(seen <= rank // 2).sum(axis=0)] for rank in (total - 1, total))
        median[rows] = (lower + upper) / 2
    return -median


def share_near(true, predicted, weights):
    """Of each resample, the share within 10 mm."""
    near = (_distances(true, predicted) <= _RADIUS).astype(float)
    share = np.empty(len(weights))
    for rows, block in weight_blocks(weights):
        share[rows] = ratio(near @ block, block.sum(axis=0))
    return share


def _distances(true, predicted):
    return np.linalg.norm(true - predicted, axis=1)
