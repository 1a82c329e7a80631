"""Intervals over resampled patients."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state


def bootstrap_interval(statistic, groups, *, confidence_level=0.95, n_resamples=1000, random_state=None):
    """Percentile interval of a statistic over resampled patients.

    For the metrics of this module, :func:`bootstrap_weights` and :func:`resample_metric` give the same intervals faster.

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
        NaN if the statistic was never defined, or if there is one patient only: nothing varies between resamples then.

    Raises
    ------
    ValueError
        No sample, no resample, or a confidence level that is not between 0 and 1.

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
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level is {confidence_level!r}; expected a number between 0 and 1, such as 0.95.")
    codes, draws = _draws(groups, n_resamples, random_state)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    if len(members) == 1:
        return float("nan"), float("nan")
    values = np.array([statistic(np.concatenate([members[i] for i in drawn])) for drawn in draws], dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_weights(groups, *, n_resamples=1000, random_state=None):
    """How often each sample occurs in bootstrap samples of patients.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        Patient of each sample; a patient is drawn with all samples or not at all.
    n_resamples : int, default=1000
        Bootstrap samples.
    random_state : int, RandomState or None, default=None
        Seed of the draws; the same seed draws the same patients as in :func:`bootstrap_interval`.

    Returns
    -------
    ndarray of shape (n_resamples, n_samples), int32
        For :func:`resample_metric`.

    Raises
    ------
    ValueError
        No sample, or no resample.

    Examples
    --------
    >>> from skecg.metrics import bootstrap_weights
    >>> weights = bootstrap_weights(["anna", "anna", "bert"], n_resamples=100, random_state=0)
    >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all()), bool((weights[:, 0] + weights[:, 2] == 2).all())
    ((100, 3), True, True)
    """
    codes, draws = _draws(groups, n_resamples, random_state)
    counts = np.empty((n_resamples, codes.max() + 1), dtype=np.int32)
    for i, drawn in enumerate(draws):
        counts[i] = np.bincount(drawn, minlength=counts.shape[1])
    return np.take(counts, codes, axis=1)


def _draws(groups, n_resamples, random_state):
    """The number of each sample's patient, and a generator of drawn patients."""
    groups, rng = np.asarray(groups), check_random_state(random_state)
    if groups.ndim != 1 or not len(groups):
        raise ValueError(f"groups has shape {groups.shape}; expected the patient of each sample, (n_samples,).")
    if not isinstance(n_resamples, Integral) or n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples!r}; expected a whole number of at least 1.")
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = codes.max() + 1
    return codes, (rng.randint(n_groups, size=n_groups) for _ in range(n_resamples))
