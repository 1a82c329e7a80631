"""The search for what a test part shares with its training part."""

import hashlib
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.utils.validation import _num_samples, check_consistent_length

from .._validation import as_3d, row_blocks
from ._targets import encode_groups

_SHORTEST_OVERLAP = 16
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class SplitLeakage:
    """What one test part shares with its training part.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        Samples on both sides.
    patients : tuple
        Ids of the patients on both sides; empty if there are no groups.
    duplicates : ndarray of shape (n, 2), int
        Each sample of the test part with the same values as one of the training part: row in training, row in test.
    overlaps : ndarray of shape (n, 4), int
        Each window of the test part that shares a stretch with one of the training part: row in training, row in test,
        shift (sample j of the test window is sample j + shift of the training window) and number of shared samples in
        time of the longest stretch.
    """

    rows: np.ndarray
    patients: tuple
    duplicates: np.ndarray
    overlaps: np.ndarray

    @property
    def ok(self):
        """Whether nothing is shared."""
        return not any(len(found) for found in (self.rows, self.patients, self.duplicates, self.overlaps))

    def __str__(self):
        parts = []
        if len(self.rows):
            parts.append(f"{len(self.rows)} samples on both sides ({_first(self.rows.tolist())})")
        if self.patients:
            parts.append(f"{len(self.patients)} patients on both sides ({_first(self.patients)})")
        if len(self.duplicates):
            pairs = [f"train {a} = test {b}" for a, b in self.duplicates]
            parts.append(f"{len(self.duplicates)} test windows also in training ({_first(pairs)})")
        if len(self.overlaps):
            pairs = [f"train {a}, test {b}, shift {s}, {n} samples" for a, b, s, n in self.overlaps]
            parts.append(f"{len(self.overlaps)} test windows overlap training windows ({_first(pairs, '; ')})")
        return "; ".join(parts) if parts else "nothing shared"


def _first(values, separator=", "):
    return separator.join(str(value) for value in values[:_SHOWN]) + ("" if len(values) <= _SHOWN else f"{separator}...")


@dataclass(frozen=True, eq=False)
class LeakageReport:
    """What :func:`audit_leakage` found; true in a condition if nothing is shared.

    Attributes
    ----------
    splits : tuple of SplitLeakage
        One per split.
    min_overlap : int or None
        Samples in time from which on an overlap counts; None: overlaps were not searched.
    patients_checked : bool
        Whether there were patient ids to compare.
    """

    splits: tuple
    min_overlap: int | None
    patients_checked: bool

    @property
    def ok(self):
        """Whether no split shares anything."""
        return all(split.ok for split in self.splits)

    def __bool__(self):
        return self.ok

    def __repr__(self):
        return f"<{self}>"

    def __str__(self):
        leaky = [f"\n  split {number}: {split}" for number, split in enumerate(self.splits) if not split.ok]
        skipped = [] if self.patients_checked else ["patients (groups is None)"]
        skipped += [] if self.min_overlap is not None else ["overlaps (min_overlap is None, or windows are short)"]
        note = f"\n  not checked: {', '.join(skipped)}" if skipped else ""
        return f"LeakageReport: {len(leaky)} of {len(self.splits)} splits leak{''.join(leaky)}{note}"

    def raise_if_leaky(self):
        """Raise a ValueError that lists the leaks, if there are any."""
        if not self.ok:
            raise ValueError(f"{self}\nPut everything of one patient on one side, and drop duplicated windows.")


def audit_leakage(X, groups, splits, *, min_overlap="auto"):
    """Find patients, duplicated windows and overlapping windows on both sides of a split.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_leads, n_times), (n_samples, n_times) or (n_samples, n_features)
        Windows, one lead or several; or features, with ``min_overlap=None``. Read once, in blocks; a memmap is never
        loaded as a whole. Missing leads are NaN.
    groups : array-like of shape (n_samples,) or None
        Patient ids. ``None``: patients are not compared, and the report says so.
    splits : iterable of (train, test)
        Rows (or boolean masks) of each side: a list, or what a splitter's ``split`` returns.
    min_overlap : int, "auto" or None, default="auto"
        Samples in time that two windows must share to count as overlapping, at least 16. ``"auto"`` is a tenth of the
        window, at least 32; windows below 64 samples are then not searched. ``None``: no search.

    Returns
    -------
    LeakageReport

    Raises
    ------
    ValueError
        Rows out of range, an empty side, no split, ``min_overlap`` longer than the windows, groups of another length.

    Notes
    -----
    - Duplicates are samples with equal values throughout (a missing value equals a missing value), whoever the patient
      is. Samples of which every lead is constant or missing carry no signal and do not count.
    - Two windows overlap if, at some shift, there is a stretch of ``min_overlap`` samples in time in which they are equal
      in every lead that both have there, and in which at least one lead changes its value in a quarter of the steps.
      Flat or missing leads alone are no overlap. The shift may be zero, e.g. for the same window without one lead.
      Each test window is reported with one training window.
    - Equal means the same numbers: windows that were rescaled, filtered or resampled one by one do not equal their
      source. Audit the windows as they were cut.
    - The search misses nothing by this rule: of every stretch of ``min_overlap`` samples of a lead, the run of a few
      samples with the smallest hash is kept (winnowing [1]_), windows that share one are candidates, and candidates are
      compared value by value.

    References
    ----------
    .. [1] Schleimer S, Wilkerson DS, Aiken A. Winnowing: local algorithms for document fingerprinting. SIGMOD 2003,
       76-85.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.model_selection import audit_leakage
    >>> signal = np.random.default_rng(0).normal(size=2000)
    >>> X = np.stack([signal[start:start + 400] for start in range(0, 1600, 200)])  # cut with 50 % overlap
    >>> patients = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> report = audit_leakage(X, patients, [([0, 1, 2, 3], [4, 5, 6, 7])])
    >>> print(report)
    LeakageReport: 1 of 1 splits leak
      split 0: 1 test windows overlap training windows (train 3, test 4, shift 200, 200 samples)
    >>> report.ok
    False
    """
    X = X if hasattr(X, "ndim") and hasattr(X, "dtype") else np.asarray(X)
    if X.ndim not in (2, 3) or X.dtype.kind not in "biuf":
        raise ValueError(
            f"X has shape {X.shape} and type {X.dtype}; expected numbers of shape (n_samples, n_leads, n_times), "
            "(n_samples, n_times) or (n_samples, n_features)."
        )
    n_samples = len(X)
    if groups is not None:
        check_consistent_length(X, groups)
        patients, codes = encode_groups(groups, n_samples)
    if isinstance(splits, Integral) or hasattr(splits, "split"):
        raise ValueError(f"splits is {splits!r}; expected pairs of rows, such as list(splitter.split(X, y, groups)).")
    splits = [_check_split(split, n_samples) for split in splits]
    if not splits:
        raise ValueError("splits is empty: give pairs of rows, [(train, test), ...].")
    min_overlap = _check_min_overlap(min_overlap, X.shape[-1])

    contents, prints = _read(X, min_overlap)
    found = []
    for train, test in splits:
        in_train = np.zeros(n_samples, dtype=bool)
        in_train[train] = True
        rows = test[in_train[test]]
        others = test[~in_train[test]]
        shared = () if groups is None else tuple(patients[np.intersect1d(codes[train], codes[test])].tolist())
        duplicates = _find_duplicates(contents, train, others)
        others = np.setdiff1d(others, duplicates[:, 1])
        overlaps = np.zeros((0, 4), dtype=np.int64)
        if min_overlap is not None:
            overlaps = _find_overlaps(as_3d(X), prints, in_train, others, min_overlap)
        found.append(SplitLeakage(rows=rows, patients=shared, duplicates=duplicates, overlaps=overlaps))
    return LeakageReport(splits=tuple(found), min_overlap=min_overlap, patients_checked=groups is not None)


def _check_split(split, n_samples):
    """Sorted unique rows of both sides."""
    if not isinstance(split, (tuple, list)) or len(split) != 2 or any(np.ndim(side) != 1 for side in split):
        raise ValueError("Each of splits must be a pair of rows, (train, test). For one split pass [(train, test)].")
    sides = []
    for name, side in zip(("train", "test"), split, strict=True):
        side = np.asarray(side)
        if side.dtype == bool and len(side) == n_samples:
            side = np.flatnonzero(side)
        if _num_samples(side) == 0:
            raise ValueError(f"The {name} side of a split is empty.")
        if side.dtype.kind not in "iu" or side.min() < 0 or side.max() >= n_samples:
            raise ValueError(f"The {name} side of a split must hold rows from 0 to {n_samples - 1}; got {side!r}.")
        sides.append(np.unique(side))
    return sides


def _check_min_overlap(min_overlap, n_times):
    if isinstance(min_overlap, str) and min_overlap == "auto":
        return max(32, n_times // 10) if n_times >= 64 else None
    if min_overlap is None:
        return None
    if not isinstance(min_overlap, (int, np.integer)) or not _SHORTEST_OVERLAP <= min_overlap <= n_times:
        raise ValueError(
            f"min_overlap must be 'auto', None, or an int from {_SHORTEST_OVERLAP} to the {n_times} samples of a window; "
            f"got {min_overlap!r}."
        )
    return int(min_overlap)


def _as_bits(block):
    """Unsigned integers that are equal where the values are: one NaN, one zero."""
    if block.dtype.kind == "f":
        block = block.astype(np.float64 if block.itemsize > 8 else block.dtype) + 0.0  # -0.0 becomes 0.0
        block[np.isnan(block)] = np.nan
    return np.ascontiguousarray(block).view(f"u{block.itemsize}")


def _read(X, min_overlap):
    """One pass: a code of each row's content (-1 where there is no signal), and the fingerprints of all windows."""
    digests, has_signal, prints = [], np.zeros(len(X), dtype=bool), []
    for rows in row_blocks(X):
        bits = _as_bits(np.asarray(as_3d(X[rows])))  # (n, n_leads, n_times)
        has_signal[rows] = (bits[..., 1:] != bits[..., :-1]).any(axis=(1, 2))
        digests += [hashlib.blake2b(row, digest_size=16).digest() for row in bits]
        if min_overlap is not None:
            for lead in range(bits.shape[1]):
                row, position, key = _winnow(bits[:, lead], min_overlap)
                prints.append((key + np.uint64(lead), row + rows.start, position))
    codes = np.unique(np.array(digests, dtype="S16").view("V16"), return_inverse=True)[1].ravel()
    codes[~has_signal] = -1
    if not prints:
        return codes, None
    key, row, position = (np.concatenate(column) for column in zip(*prints, strict=True))
    order = np.argsort(key, kind="stable")
    key, row, position = key[order], row[order], position[order]
    # a key that occurs once joins nothing, and nearly all do in data without leaks
    twice = np.zeros(len(key), dtype=bool)
    same = key[1:] == key[:-1]
    twice[1:] |= same
    twice[:-1] |= same
    return codes, (key[twice], row[twice], position[twice])


def _winnow(bits, min_overlap):
    """The runs of ``k`` samples with the smallest hash within ``min_overlap`` samples: row, position, hash.

    Two rows that share ``min_overlap`` consecutive samples, not nearly constant, share at least one of the runs.
    """
    k = 1 << (min(16, min_overlap // 2).bit_length() - 1)  # 8 or 16
    n_runs = bits.shape[1] - k + 1
    # A polynomial hash of runs of 1, 2, 4, ... samples, modulo 2**32, then mixed so that its size says nothing.
    folded = bits if bits.itemsize <= 4 else bits ^ (bits >> np.uint64(32))
    hashed = folded.astype(np.uint32) * np.uint32(0x9E3779B1)
    hashed ^= hashed >> np.uint32(15)
    length = 1
    while length < k:
        hashed = hashed[:, :-length] * np.uint32(pow(0x2C1B3C6D, length, 2**32)) + hashed[:, length:]
        length *= 2
    hashed ^= hashed >> np.uint32(16)
    hashed *= np.uint32(0x85EBCA6B)
    hashed ^= hashed >> np.uint32(13)
    # Runs with fewer than two changes are never kept. A stretch with changes in a quarter of its steps has others.
    changes = np.zeros(bits.shape, dtype=np.int32)
    np.cumsum(bits[:, 1:] != bits[:, :-1], axis=1, out=changes[:, 1:])
    nothing = np.iinfo(np.uint32).max
    hashed[changes[:, k - 1:] - changes[:, :n_runs] < 2] = nothing
    window = min_overlap - k + 1
    padded = np.zeros((len(bits), n_runs + window - 1), dtype=np.uint32)
    padded[:, window - 1: n_runs] = _sliding(np.minimum, hashed, window)
    kept = (_sliding(np.maximum, padded, window) == hashed) & (hashed != nothing)
    row, position = np.nonzero(kept)
    # 32 bits choose the runs; 64 bits compare them, so that chance brings few candidates
    key = hashed[kept].astype(np.uint64)
    for offset in range(k):
        key = (key ^ bits[row, position + offset]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(31)
    return row, position.astype(np.int32), key


def _sliding(extreme, values, width):
    """Smallest or largest of each ``width`` neighbours along the last axis."""
    length = 1
    while 2 * length <= width:
        values = extreme(values[:, :-length], values[:, length:])
        length *= 2
    rest = width - length
    return extreme(values[:, :-rest], values[:, rest:]) if rest else values


def _find_duplicates(contents, train, test):
    """(row in training, row in test) of equal content; the first row in training each."""
    codes, first = np.unique(contents[train], return_index=True)
    place = np.minimum(np.searchsorted(codes, contents[test]), len(codes) - 1)
    equal = (codes[place] == contents[test]) & (contents[test] >= 0)
    return np.column_stack([train[first[place[equal]]], test[equal]])


def _find_overlaps(X, prints, in_train, test, min_overlap):
    """(row in training, row in test, shift, length), for each test window with a partner."""
    key, row, position = prints
    open_ = np.zeros(len(X), dtype=bool)  # test windows without a partner so far
    open_[test] = True
    of_train, of_test = np.flatnonzero(in_train[row]), np.flatnonzero(open_[row])
    start = np.searchsorted(key[of_train], key[of_test], side="left")
    stop = np.searchsorted(key[of_train], key[of_test], side="right")
    tried, found = set(), []
    # First all test windows with the first training window of each fingerprint, then with the second, ...: where
    # windows overlap densely, nearly all have a partner after one round.
    while len(of_test):
        now = start < stop
        train_entry, test_entry = of_train[start[now]], of_test[now]
        shifts = position[train_entry] - position[test_entry]
        # one number per pair and shift, which sorts much faster than rows of three
        pairs = np.unique((row[test_entry] * len(X) + row[train_entry]) * (2 * X.shape[2]) + X.shape[2] + shifts)
        for pair in pairs.tolist():
            rows, shift = divmod(pair, 2 * X.shape[2])
            (test_row, train_row), shift = divmod(rows, len(X)), shift - X.shape[2]
            if open_[test_row] and pair not in tried:
                tried.add(pair)
                length = _shared_length(X, train_row, test_row, shift, min_overlap)
                if length:
                    open_[test_row] = False
                    found.append((train_row, test_row, shift, length))
        start += 1
        further = (start < stop) & open_[row[of_test]]
        start, stop, of_test = start[further], stop[further], of_test[further]
    found.sort(key=lambda pair: pair[1])
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def _shared_length(X, train_row, test_row, shift, min_overlap):
    """Length of the longest stretch equal in all common leads; 0 if none satisfies the rule of overlaps."""
    n_times = X.shape[2]
    a = np.asarray(X[train_row][:, max(shift, 0): n_times + min(shift, 0)])
    b = np.asarray(X[test_row][:, max(-shift, 0): n_times - max(shift, 0)])
    n_shared = a.shape[1]
    if n_shared < min_overlap:
        return 0
    if a.dtype.kind == "f":
        both = ~(np.isnan(a).all(axis=1) | np.isnan(b).all(axis=1))
        a, b = a[both], b[both]
    a, b = _as_bits(a), _as_bits(b)
    if not len(a):
        return 0
    edges = np.flatnonzero(np.diff((a == b).all(axis=0), prepend=False, append=False))
    changes = np.zeros(a.shape, dtype=np.int64)
    np.cumsum(a[:, 1:] != a[:, :-1], axis=1, out=changes[:, 1:])
    longest = 0
    for start, stop in edges.reshape(-1, 2):
        if stop - start >= min_overlap:
            first = changes[:, start: stop - min_overlap + 1]
            last = changes[:, start + min_overlap - 1: stop]
            if (4 * (last - first) >= min_overlap - 1).any():
                longest = max(longest, stop - start)
    return int(longest)
