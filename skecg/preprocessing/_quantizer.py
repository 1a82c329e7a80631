"""ECGQuantizer: amplitudes to a small number of levels."""

import sys
from functools import lru_cache
from numbers import Integral

import numpy as np
from sklearn.base import OneToOneFeatureMixin, clone
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._validation import as_3d, row_blocks, validate_ecg
from ._signal import _SignalTransformer

N_BINS = 2**20  # of the histogram that stands for more samples than are sorted
_BLOCK = 2**15  # samples quantised together: their buffers stay in the cache
_UPPER_HALF = int(sys.byteorder == "little")  # of the two halves of a float32


class ECGQuantizer(OneToOneFeatureMixin, _SignalTransformer):
    """Map every sample to one of ``n_levels`` levels of amplitude, by thresholds learned from training signals.

    Parameters
    ----------
    n_levels : int, default=100
    method : {"quantile", "lloyd-max", "uniform"}, default="quantile"
        How the thresholds are placed. ``"quantile"``: each level gets the same number of training samples. An ECG is near
        its baseline most of the time, so that most levels describe the baseline and one swallows the R peaks.
        ``"lloyd-max"``: such that the mean squared error is smallest (Lloyd, 1982; Max, 1960). ``"uniform"``: at equal
        distances from the smallest to the largest training sample.
    exact_samples : int, default=5_000_000
        Up to so many training values (over all samples, leads and times) are held in memory and sorted. Of more, a histogram
        of 2**20 bins is made in two passes, so that memory does not grow with the data; a threshold is then off by one bin
        at most, 1e-6 of the range of the training signals.

    Attributes
    ----------
    edges_ : ndarray of shape (n_levels - 1,), float64
        Thresholds in millivolt, ascending. The level of x is the number of thresholds that are not above x.
    centroids_ : ndarray of shape (n_levels,), float64
        Mean of the training samples of each level; of a level without any, the nearest threshold.
    snr_db_ : float
        Signal-to-noise ratio on the training signals in decibel: their variance over the mean squared difference between
        them and the centroids of their levels; infinite if there is no difference.
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``. ``transform`` takes any length of three-dimensional input.

    Notes
    -----
    - All leads share the thresholds.
    - With ties (recordings of few bits), several quantiles may coincide: some levels then never occur.
    - Threshold i of ``"quantile"`` is the training value of rank ``int(s * n - 1)``, where s is the sum of i times
      ``1 / n_levels`` in float64, added up one by one: the rule of HeartBERT, whose "Lloyd-Max" quantiser it is.
    - ``"lloyd-max"`` starts from the law of companding (levels as dense as the cube root of the distribution's density),
      which matters more than the iterations: from quantiles they end in an optimum several times as bad.
    - Levels are found in a table over small cells of amplitude and corrected by the thresholds inside the cell: the result
      is that of ``np.searchsorted``, at many times its speed.

    References
    ----------
    Lloyd SP. Least squares quantization in PCM. IEEE Trans Inf Theory 28(2):129-137, 1982.

    Max J. Quantizing for minimum distortion. IRE Trans Inf Theory 6(1):7-12, 1960.

    Panter PF, Dite W. Quantization distortion in pulse-count modulation with nonuniform spacing of levels. Proc IRE
    39(1):44-48, 1951.

    Examples
    --------
    >>> from skecg.datasets import make_ecg
    >>> from skecg.preprocessing import ECGQuantizer
    >>> X, y, groups = make_ecg(8, duration=5.0, random_state=0)
    >>> quantizer = ECGQuantizer(n_levels=64, method="lloyd-max").fit(X)
    >>> levels = quantizer.transform(X)
    >>> levels.dtype, levels.shape == X.shape, int(levels.min()), int(levels.max())
    (dtype('int16'), True, 0, 63)
    >>> quantizer.snr_db_ > ECGQuantizer(n_levels=64).fit(X).snr_db_ + 6
    True
    >>> bool(abs(quantizer.inverse_transform(levels) - X).mean() < 0.01)
    True
    """

    _parameter_constraints = {
        "n_levels": [Interval(Integral, 2, 2**15 - 1, closed="both")],
        "method": [StrOptions({"quantile", "lloyd-max", "uniform"})],
        "exact_samples": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, n_levels=100, *, method="quantile", exact_samples=5_000_000):
        self.n_levels = n_levels
        self.method = method
        self.exact_samples = exact_samples

    @classmethod
    def from_edges(cls, edges):
        """A fitted quantizer with known thresholds, such as those of somebody else's model.

        Parameters
        ----------
        edges : array-like of shape (n_levels - 1,)
            Ascending, in the unit of the signals. ``centroids_`` is the middle of each level (the threshold itself for the
            first and the last one); ``snr_db_`` is not known.

        Returns
        -------
        quantizer : ECGQuantizer
            Put it into a :class:`~sklearn.frozen.FrozenEstimator` to have it survive ``fit``.

        Raises
        ------
        ValueError
            Not one-dimensional, not ascending, or NaN.
        """
        edges = np.array(edges, dtype=np.float64)
        if edges.ndim != 1 or not len(edges) or not (edges[1:] >= edges[:-1]).all() or np.isnan(edges).any():
            raise ValueError(
                "edges must be one-dimensional, ascending and without NaN: the thresholds between neighbouring levels. "
                f"Got an array of shape {edges.shape}."
            )
        quantizer = cls(n_levels=len(edges) + 1)
        quantizer.edges_ = edges
        quantizer.centroids_ = np.concatenate([edges[:1], edges[:-1] / 2 + edges[1:] / 2, edges[-1:]])
        return quantizer

    def fit(self, X, y=None):
        """Learn thresholds and centroids.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt; memmaps are read in blocks. Missing leads are NaN from end to end, and left out.
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        X = validate_ecg(self, X, reset=True)
        values, counts = _sorted_values(X, self.exact_samples)
        place = {"quantile": quantile_edges, "lloyd-max": lloyd_max_edges, "uniform": _uniform_edges}[self.method]
        self.edges_ = place(values, counts, self.n_levels)
        self.centroids_, error, variance = _describe(values, counts, self.edges_)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.snr_db_ = float(10 * np.log10(variance / error)) if error else np.inf
        return self

    def transform(self, X):
        """Level of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        levels : ndarray of the same shape, int16
            From 0 to ``n_levels - 1``; -1 in a missing lead.
        """
        check_is_fitted(self, "edges_")
        if hasattr(self, "n_leads_in_"):
            X = validate_ecg(self, X, reset=False, any_length=True)
        else:  # of known thresholds: any shape
            X = validate_ecg(clone(self), X, reset=True)
        return quantize(X, self.edges_)

    def inverse_transform(self, levels):
        """The centroid of each level.

        Parameters
        ----------
        levels : array-like of int
            As from ``transform``, of any shape.

        Returns
        -------
        X : ndarray of the same shape, float32
            Millivolt; NaN where the level is -1.

        Raises
        ------
        ValueError
            Levels that are not integers, or none of this quantizer.
        """
        check_is_fitted(self, "edges_")
        levels = np.asarray(levels)
        if levels.dtype.kind not in "iu" or (levels.size and not -1 <= levels.min() <= levels.max() < self.n_levels):
            raise ValueError(
                f"levels must be integers from -1 (a missing lead) to {self.n_levels - 1}, as transform returns them; got "
                f"dtype {levels.dtype}" + (f" from {levels.min()} to {levels.max()}." if levels.size else ".")
            )
        return np.append(self.centroids_, np.nan).astype(np.float32)[levels]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def quantize(X, edges):
    """Number of ``edges`` (ascending) that are not above each value of X; -1 for leads of NaN.

    Parameters
    ----------
    X : ndarray of float, shape (..., n_times)
        NaN from end to end of the last axis, or not at all.
    edges : ndarray of shape (n_levels - 1,), float64

    Returns
    -------
    levels : ndarray of the same shape, int16
        Equal to ``np.searchsorted(edges, X, side="right")``.
    """
    dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    look_up = _table(np.asarray(edges, np.float64).tobytes(), dtype)
    levels = np.empty(X.shape, np.int16)
    for rows in row_blocks(X) if X.size else []:
        block = np.asarray(X[rows], dtype=dtype)
        out = levels[rows]
        look_up(np.ascontiguousarray(block).reshape(-1), out.reshape(-1))
        missing = np.isnan(block[..., 0])
        if missing.any():
            out[missing] = -1
    return levels


class _Table:
    """``np.searchsorted(edges, x, side="right")`` through a table.

    The distance of a value from the middle edge, as float32, falls into one of 2**16 cells by the upper half of its bits:
    sign, exponent, seven bits more. Cells are narrow near the middle, where edges are dense. Subtraction and rounding are
    monotone and the same for values and edges, so that all edges in lower cells are below a value, and only those in its own
    cell need a comparison.
    """

    @np.errstate(over="ignore", invalid="ignore")
    def __init__(self, edges, dtype):
        self.dtype = dtype
        # x >= edge in float64 is x >= (edge rounded up) in float32
        rounded = edges.astype(dtype)
        self.edges = np.where(rounded < edges, np.nextafter(rounded, dtype.type(np.inf)), rounded)
        distinct, first = np.unique(self.edges, return_index=True)
        finite = distinct[np.isfinite(distinct)]
        self.middle = finite[len(finite) // 2] if len(finite) else dtype.type(0)
        if self.middle == 0:
            self.middle = dtype.type(-0.0)  # a difference of -0.0 would have a cell of its own, below that of 0.0
        cells = self._cells(distinct, np.empty(len(distinct), np.float32))
        order = _ascending(cells)
        most = np.bincount(order).max()
        self.inside = None
        if most > 4:  # edges far closer together than their distances from the middle: a search costs less
            return
        of_cell = _ascending(np.arange(2**16))
        below, up_to = (np.searchsorted(order, of_cell, side=side) for side in ("left", "right"))
        padded = np.append(distinct, np.full(most, np.nan, dtype))
        # NaN where there is no edge: no value is above it
        self.inside = [np.where(below + k < up_to, padded[below + k], dtype.type(np.nan)) for k in range(most)]
        # of the distinct edges, a number of all edges
        n_all = np.append(first, len(edges)).astype(np.int16)
        self.n_below = n_all[below]
        self.n_all = None
        if len(distinct) < len(edges):  # several edges may be passed at once
            self.n_all = n_all[np.minimum(below[:, None] + np.arange(most + 1), up_to[:, None])].reshape(-1)

    def _cells(self, x, distance):
        np.subtract(x, self.middle, out=distance, casting="same_kind")
        return distance.view(np.uint16)[_UPPER_HALF::2]

    def __call__(self, x, out):
        """Levels of ``x`` (n,) into ``out`` (n,) int16; those of NaN mean nothing."""
        if self.inside is None:
            out[:] = np.searchsorted(self.edges, x, side="right")
            return
        size = min(_BLOCK, len(x))
        distance, edge = np.empty(size, np.float32), np.empty(size, self.dtype)
        cells, counts, above = np.empty(size, np.intp), np.empty(size, np.int8), np.empty(size, bool)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            for start in range(0, len(x), _BLOCK):
                part, level = x[start:start + _BLOCK], out[start:start + _BLOCK]
                n = len(part)
                cell, count = cells[:n], counts[:n]
                cell[:] = self._cells(part, distance[:n])
                count[:] = 0
                for inside in self.inside:
                    np.greater_equal(part, np.take(inside, cell, out=edge[:n], mode="clip"), out=above[:n])
                    np.add(count, above[:n].view(np.int8), out=count)
                if self.n_all is None:
                    np.take(self.n_below, cell, out=level, mode="clip")
                    np.add(level, count, out=level)
                else:
                    np.multiply(cell, len(self.inside) + 1, out=cell)
                    np.add(cell, count, out=cell)
                    np.take(self.n_all, cell, out=level, mode="clip")


@lru_cache(maxsize=8)
def _table(edges, dtype):
    """The table of some edges, as bytes; kept, because batches are many and quantisers few."""
    return _Table(np.frombuffer(edges), dtype)


def _ascending(cells):
    """The order of cells among all: floats are stored as sign and magnitude."""
    cells = cells.astype(np.intp)
    return np.where(cells < 2**15, cells + 2**15, 2**16 - 1 - cells)


# --- where to put the thresholds: of ascending values and how often each occurs


def _sorted_values(X, exact_samples):
    """Ascending values of X and how often each occurs; means of the bins of a histogram if there are many."""
    X = as_3d(X)
    blocks = [np.asarray(X[rows]) for rows in row_blocks(X)] if X.size <= exact_samples else None
    if blocks is not None:
        values, counts = np.unique(np.concatenate([block[~np.isnan(block)] for block in blocks]), return_counts=True)
        return values.astype(np.float64), counts
    low, high = np.inf, -np.inf
    for rows in row_blocks(X):
        low, high = np.fmin(low, np.nanmin(X[rows])), np.fmax(high, np.nanmax(X[rows]))
    low, high = float(low), float(high)
    if low == high:
        return np.array([low]), np.array([int(np.isfinite(X).sum())])
    counts, sums = np.zeros(N_BINS, np.int64), np.zeros(N_BINS)
    for rows in row_blocks(X):
        block = np.asarray(X[rows])
        block = block[~np.isnan(block)].astype(np.float64)
        bins = np.minimum((block - low) * (N_BINS / (high - low)), N_BINS - 1).astype(np.intp)
        counts += np.bincount(bins, minlength=N_BINS)
        sums += np.bincount(bins, weights=block, minlength=N_BINS)
    here = counts > 0
    return np.maximum.accumulate(sums[here] / counts[here]), counts[here]


def quantile_edges(values, counts, n_levels):
    """Thresholds between levels of equal frequency: those of HeartBERT, rank by rank."""
    up_to = np.cumsum(counts)
    share = np.cumsum(np.full(n_levels, 1 / n_levels))[:-1]
    ranks = (share * up_to[-1] - 1).astype(np.int64)  # truncated towards zero
    return values[np.searchsorted(up_to, ranks, side="right")].astype(np.float64)


def _uniform_edges(values, counts, n_levels):
    return np.linspace(values[0], values[-1], n_levels + 1)[1:-1]


def lloyd_max_edges(values, counts, n_levels, max_iter=10_000, tol=1e-9):
    """Thresholds of a (locally) smallest mean squared error, by Lloyd's iteration on the distribution.

    ``counts`` may be any positive weights. The iteration ends when no centroid moves by more than ``tol`` times the range.
    """
    if len(values) <= n_levels:  # no error at all
        return np.append((values[1:] + values[:-1]) / 2, np.full(n_levels - len(values), np.inf))
    middle = np.average(values, weights=counts)  # sums from there lose no digits to an offset
    v = values - middle
    weight = np.concatenate([[0], np.cumsum(counts, dtype=np.float64)])
    moment = np.concatenate([[0], np.cumsum(counts * v)])
    centroids = _companding(v, counts, n_levels)
    for _ in range(max_iter):
        edges = (centroids[1:] + centroids[:-1]) / 2
        bounds = np.concatenate([[0], np.searchsorted(v, edges), [len(v)]])
        mass = np.diff(weight[bounds])
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.where(mass > 0, np.diff(moment[bounds]) / mass, centroids)
        moved = np.maximum.accumulate(moved)  # rounding
        done = np.abs(moved - centroids).max() <= tol * (v[-1] - v[0])
        centroids = moved
        if done:
            break
    return (centroids[1:] + centroids[:-1]) / 2 + middle


def _companding(v, counts, n_levels):
    """Centroids as dense as the cube root of the density, optimal for many levels (Panter and Dite, 1951)."""
    n_bins = int(np.clip(len(v) // 8, 4 * n_levels, 2**12))
    density, borders = np.histogram(v, n_bins, weights=counts)
    smooth = np.convolve(density, np.ones(3) / 3, mode="same")  # a bin without samples is not one without density
    share = np.concatenate([[0], np.cumsum(np.cbrt(smooth))])
    return np.interp((np.arange(n_levels) + 0.5) / n_levels * share[-1], share, borders)


def _describe(values, counts, edges):
    """Mean of each level, mean squared difference to it, and variance."""
    n_levels = len(edges) + 1
    level = np.searchsorted(edges, values, side="right")
    mass = np.bincount(level, weights=counts, minlength=n_levels)
    middle = np.average(values, weights=counts)
    with np.errstate(invalid="ignore"):
        centroids = np.bincount(level, weights=counts * (values - middle), minlength=n_levels) / mass + middle
    finite = np.minimum(edges, values[-1])
    nearest = np.concatenate([finite[:1], finite])  # the threshold below a level; for the first one, above
    centroids = np.where(mass > 0, centroids, nearest)
    error = np.average((values - centroids[level]) ** 2, weights=counts)
    return centroids, error, np.average((values - middle) ** 2, weights=counts)
