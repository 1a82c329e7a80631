"""Splits that keep patients together and the shares of labels equal."""

from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from ._targets import encode_groups, encode_labels

_REFINEMENT_PASSES = 3


class MultilabelStratifiedGroupKFold(GroupKFold):
    """K-fold cross-validation by patient, with the shares of every label as equal as possible.

    Each patient is in exactly one test fold, with all samples. Takes single-label and multi-label targets.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to draw one of the many good assignments at random. False: the assignment depends on the data only.
    random_state : int, RandomState or None, default=None
        Seed of the draw; only with ``shuffle=True``.

    See Also
    --------
    MultilabelStratifiedGroupShuffleSplit : One validation part instead of folds.
    sklearn.model_selection.StratifiedGroupKFold : Single-label targets only.

    Notes
    -----
    - Iterative stratification [1]_ over patients: the label with the fewest samples left comes first, of its patients
      the one with the most samples of it. The number of samples counts as one more label, which everybody has.
    - Departure: a patient does not go to the fold that lacks most of that one label, but to the fold where the sum over
      all labels and folds of (count - wanted count)^2 / wanted count (the chi-square statistic) falls most. Then
      patients move to another fold where that lowers the sum, in at most three passes over all patients.
    - A label with fewer patients than folds is missing in some test folds: no split of whole patients avoids that.

    References
    ----------
    .. [1] Sechidis K, Tsoumakas G, Vlahavas I. On the stratification of multi-label data. ECML PKDD 2011, LNCS 6913,
       145-158.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.model_selection import MultilabelStratifiedGroupKFold
    >>> y = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    >>> patients = np.array([7, 7, 8, 8, 9, 9, 10, 10])
    >>> cv = MultilabelStratifiedGroupKFold(n_splits=2)
    >>> for train, test in cv.split(np.zeros((8, 1)), y, groups=patients):
    ...     print(np.unique(patients[test]), y[test].sum(axis=0))
    [7 8] [2 2]
    [ 9 10] [2 2]
    """

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None):
        super().__init__(n_splits, shuffle=shuffle, random_state=random_state)

    def _iter_test_indices(self, X, y, groups):
        labels, sizes, codes = _count_labels(y, groups, _num_samples(X))
        if len(sizes) < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits} is more than the {len(sizes)} patient(s) in groups: each fold needs at least "
                "one. Ask for fewer folds."
            )
        shares = np.full(self.n_splits, 1 / self.n_splits)
        if self.shuffle:
            rng = check_random_state(self.random_state)
            names = rng.permutation(self.n_splits)  # otherwise the rarest label would mostly be in the first fold
            fold = names[assign_groups(labels, sizes, shares, rng.permutation(len(sizes)))]
        else:
            fold = assign_groups(labels, sizes, shares, np.arange(len(sizes)))
        for number in range(self.n_splits):
            yield np.flatnonzero(fold[codes] == number)

    def split(self, X, y=None, groups=None):
        """Generate the rows of each training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Only its length is used.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or a multi-label indicator matrix.
        groups : array-like of shape (n_samples,), default=None
            Patient ids. ``None``: each sample is a patient.

        Yields
        ------
        train, test : ndarray of int
            Sorted rows.

        Raises
        ------
        ValueError
            Continuous targets, missing patient ids, fewer patients than folds, inputs of different lengths.
        """
        return super().split(X, y, groups)


class MultilabelStratifiedGroupShuffleSplit(GroupShuffleSplit):
    """Random training and validation parts by patient, with the share of every label as equal as possible.

    Parameters
    ----------
    n_splits : int, default=1
        Number of draws, each from all patients.
    test_size : float, default=0.2
        Share of the samples, and of the samples of each label, in the test part; between 0 and 1.
    random_state : int, RandomState or None, default=None
        Seed of the draws.

    See Also
    --------
    MultilabelStratifiedGroupKFold : Folds that together cover all patients; how patients are assigned.

    Notes
    -----
    - A label too rare for the test part (``test_size`` times its count is below about a half) stays in the training part.
    - So not every patient is equally likely in the test part. For an estimate of performance use folds.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.model_selection import MultilabelStratifiedGroupShuffleSplit
    >>> y = np.tile(["N", "N", "N", "V"], 25)
    >>> patients = np.arange(100) // 2
    >>> split = MultilabelStratifiedGroupShuffleSplit(test_size=0.2, random_state=0)
    >>> train, test = next(split.split(np.zeros((100, 1)), y, groups=patients))
    >>> len(test), int((y[test] == "V").sum()), np.intersect1d(patients[train], patients[test]).tolist()
    (20, 5, [])
    """

    def __init__(self, n_splits=1, *, test_size=0.2, random_state=None):
        if not isinstance(n_splits, Integral) or n_splits < 1:
            raise ValueError(f"n_splits must be an int of at least 1; got {n_splits!r}.")
        if not isinstance(test_size, Real) or not 0 < test_size < 1:
            raise ValueError(f"test_size must be a share between 0 and 1, e.g. 0.2; got {test_size!r}.")
        super().__init__(n_splits, test_size=test_size, random_state=random_state)

    def _iter_indices(self, X, y=None, groups=None):
        labels, sizes, codes = _count_labels(y, groups, _num_samples(X))
        if len(sizes) < 2:
            raise ValueError("groups holds one patient only: a split needs at least two.")
        shares = np.array([1 - self.test_size, self.test_size])
        rng = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            part = assign_groups(labels, sizes, shares, rng.permutation(len(sizes)))[codes]
            yield np.flatnonzero(part == 0), np.flatnonzero(part == 1)

    def split(self, X, y=None, groups=None):
        """Generate the rows of each training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Only its length is used.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or a multi-label indicator matrix.
        groups : array-like of shape (n_samples,), default=None
            Patient ids. ``None``: each sample is a patient.

        Yields
        ------
        train, test : ndarray of int
            Sorted rows.

        Raises
        ------
        ValueError
            Continuous targets, missing patient ids, fewer than two patients, inputs of different lengths.
        """
        return super().split(X, y, groups)


def _count_labels(y, groups, n_samples):
    """Samples of each label per patient (n_patients, n_labels), samples per patient, patient of each sample."""
    if y is None:
        raise ValueError("y is None: labels are needed to stratify by them. Without labels use GroupKFold.")
    classes, indicator = encode_labels(y)
    if not classes:
        raise ValueError("y is continuous: there are no labels to stratify by. Use GroupKFold, or bin y first.")
    patients, codes = encode_groups(groups, n_samples)
    sizes = np.bincount(codes, minlength=len(patients))
    labels = np.empty((len(patients), len(classes)), dtype=np.int64)
    for label in range(len(classes)):
        labels[:, label] = np.bincount(codes[indicator[:, label]], minlength=len(patients))
    return labels, sizes, codes


def assign_groups(labels, sizes, shares, order):
    """The fold of each group, such that every fold has its share of every label and of the samples.

    Parameters
    ----------
    labels : ndarray of shape (n_groups, n_labels), int
        Samples of each label.
    sizes : ndarray of shape (n_groups,), int
        Samples.
    shares : ndarray of shape (n_folds,)
        Wanted shares, with sum 1.
    order : ndarray of shape (n_groups,), int
        A permutation: who comes first among groups that are equal otherwise.

    Returns
    -------
    fold : ndarray of shape (n_groups,), int
        Every fold occurs; there must be at least as many groups as folds.
    """
    counts = np.column_stack([labels, sizes]).astype(float)  # (n_groups, n_labels + 1)
    totals = counts.sum(axis=0)
    weighted = counts / np.maximum(totals, 1)
    half_square = (weighted * counts).sum(axis=1) / 2
    wanted = np.outer(shares, totals)  # (n_folds, n_labels + 1), what each fold still lacks
    members = np.zeros(len(shares), dtype=int)
    fold = np.empty(len(counts), dtype=int)

    # Adding a group with counts v to a fold of share r that lacks d takes (v d - v^2 / 2) / (r total), summed over the
    # labels, off half of the statistic. Rounded below, so that ties do not depend on how a machine adds up.
    def gains(group, lacks):
        return (lacks @ weighted[group] - half_square[group]) / shares

    waiting = np.asarray(order)
    while len(waiting):
        left = counts[waiting].sum(axis=0)
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        amount = counts[waiting, label]
        have = waiting[np.argsort(-amount, kind="stable")[: np.count_nonzero(amount)]]
        for done, group in enumerate(have):
            gain = np.round(gains(group, wanted), 10)
            if len(waiting) - done == np.count_nonzero(members == 0):
                gain[members > 0] = -np.inf  # no fold stays empty
            best = int(gain.argmax())
            fold[group] = best
            wanted[best] -= counts[group]
            members[best] += 1
        waiting = waiting[amount == 0]

    for _ in range(_REFINEMENT_PASSES):
        moved = False
        for group in order:
            here = fold[group]
            if members[here] == 1:
                continue
            wanted[here] += counts[group]  # take it out, and ask again
            gain = np.round(gains(group, wanted), 10)
            best = int(gain.argmax())
            if gain[best] > gain[here]:
                fold[group], moved = best, True
                members[here] -= 1
                members[best] += 1
            wanted[fold[group]] -= counts[group]
        if not moved:
            break
    return fold
