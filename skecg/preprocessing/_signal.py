"""Filtering, scaling and choosing leads: scikit-learn transformers that work in blocks."""

from numbers import Integral, Real

import numpy as np
from scipy.signal import butter, sosfiltfilt
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._validation import STANDARD_LEADS, as_3d, check_lead_names, match_leads, row_blocks, validate_ecg


class _SignalTransformer(TransformerMixin, BaseEstimator):
    """What the transformers share: input tags."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = False  # a missing lead is NaN from end to end; NaN anywhere is refused
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class BandpassFilter(OneToOneFeatureMixin, _SignalTransformer):
    """Zero-phase Butterworth band-pass, so that no wave is shifted in time.

    Nothing is learned from the data; ``fit`` designs the filter.

    Parameters
    ----------
    low : float or None, default=0.5
        Lower cut-off in Hz; ``None`` keeps everything below ``high``.
    high : float or None, default=40.0
        Upper cut-off in Hz, below ``fs / 2``; ``None`` keeps everything above ``low``.
    fs : float
        Sampling rate of ``X`` in Hz. It has no default, because a wrong one is not noticed.
    order : int, default=4
        Order of the Butterworth design. It is applied forwards and backwards, which doubles the attenuation:
        a cut-off is at -6 dB.

    Attributes
    ----------
    sos_ : ndarray of shape (n_sections, 6)
        Second-order sections.
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``. ``transform`` takes any length of three-dimensional input.

    Notes
    -----
    - Missing leads (NaN) stay missing.
    - The ends are extended by odd reflection over one period of the lower cut-off (2 s at 0.5 Hz), or less
      where a signal is shorter. scipy's default of 27 samples left 50 times the error at the ends of a sine.
      What is within about a second of either end still depends on that extension.
    - Arithmetic is float64 in blocks of about 4 MiB; the result has the dtype of ``X``.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.preprocessing import BandpassFilter
    >>> t = np.arange(2500) / 250
    >>> X = np.float32(np.sin(2 * np.pi * 5 * t) + 3 + 0.5 * np.sin(2 * np.pi * 100 * t))[None, None]
    >>> filtered = BandpassFilter(0.5, 40.0, fs=250).fit_transform(X)
    >>> filtered.shape, filtered.dtype
    ((1, 1, 2500), dtype('float32'))
    >>> bool(np.abs(filtered[0, 0, 500:-500] - np.sin(2 * np.pi * 5 * t)[500:-500]).max() < 0.02)
    True
    """

    _parameter_constraints = {
        "low": [Interval(Real, 0, None, closed="neither"), None],
        "high": [Interval(Real, 0, None, closed="neither"), None],
        "fs": [Interval(Real, 0, None, closed="neither")],
        "order": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, low=0.5, high=40.0, *, fs, order=4):
        self.low = low
        self.high = high
        self.fs = fs
        self.order = order

    def fit(self, X, y=None):
        """Design the filter and learn the shape of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        validate_ecg(self, X, reset=True)
        nyquist = self.fs / 2
        for name, value in (("low", self.low), ("high", self.high)):
            if value is not None and value >= nyquist:
                raise ValueError(
                    f"{name}={value:g} Hz must be below half the sampling rate, {nyquist:g} Hz at "
                    f"fs={self.fs:g}. Lower it (or pass {name}=None), or correct fs."
                )
        if self.low is None and self.high is None:
            raise ValueError("low and high are both None: nothing to filter. Give at least one cut-off in "
                             "Hz.")
        if self.low is None or self.high is None:
            kind, edges = ("lowpass", self.high) if self.low is None else ("highpass", self.low)
        elif self.low < self.high:
            kind, edges = "bandpass", (self.low, self.high)
        else:
            raise ValueError(f"low={self.low:g} Hz must be below high={self.high:g} Hz.")
        self.sos_ = butter(self.order, edges, btype=kind, fs=self.fs, output="sos")
        slowest = self.low if self.low is not None else self.high
        self._n_extra = max(3 * (2 * len(self.sos_) + 1), round(self.fs / slowest))
        return self

    def transform(self, X):
        """Filter each lead.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        X : ndarray of the same shape and dtype
        """
        check_is_fitted(self)
        X = validate_ecg(self, X, reset=False, any_length=True)
        sos = np.array(self.sos_)  # scipy wants it writeable; after joblib.load(..., mmap_mode="r") it is not
        padlen = min(self._n_extra, X.shape[-1] - 1)
        out = np.empty(X.shape, dtype=X.dtype)
        for rows in row_blocks(X):
            out[rows] = sosfiltfilt(sos, np.asarray(X[rows]), axis=-1, padlen=padlen)
        return out


class LeadScaler(OneToOneFeatureMixin, _SignalTransformer):
    """Subtract the mean and divide by the standard deviation.

    Parameters
    ----------
    scope : {"dataset", "record", "lead"}, default="dataset"
        What one mean and one standard deviation belong to. ``"dataset"``: each lead, over all training
        samples; amplitudes stay comparable between patients and leads keep their proportions within a factor
        per lead. ``"record"``: each sample, over all its leads; proportions between leads stay. ``"lead"``:
        each lead of each sample; amplitudes are lost, voltage criteria with them.

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (n_leads,), float64
        Millivolt; only with ``scope="dataset"``. NaN for a lead that no training sample has: such a lead is
        NaN after ``transform``. ``scale_`` is 1 for a flat lead.
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``. ``transform`` takes any length of three-dimensional input.

    Notes
    -----
    - A flat lead becomes 0. A missing lead (NaN) stays missing and counts nowhere.
    - Sums are float64, over blocks of about 4 MiB; the result has the dtype of ``X``.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.preprocessing import LeadScaler
    >>> X = np.random.default_rng(0).normal(1.0, [[0.5], [2.0]], size=(50, 2, 200))
    >>> scaler = LeadScaler().fit(X)
    >>> scaler.scale_.round(1)
    array([0.5, 2. ])
    >>> scaler.transform(X).std(axis=(0, 2)).round(6)
    array([1., 1.])
    """

    _parameter_constraints = {"scope": [StrOptions({"dataset", "record", "lead"})]}

    def __init__(self, scope="dataset"):
        self.scope = scope

    def fit(self, X, y=None):
        """Learn mean and standard deviation per lead (``scope="dataset"``), and the shape of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        X = as_3d(validate_ecg(self, X, reset=True))
        for name in ("mean_", "scale_"):
            vars(self).pop(name, None)
        if self.scope == "dataset":
            blocks = [_lead_statistics(_block(X, rows)) for rows in row_blocks(X)]
            merged = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
            self.mean_, self.scale_ = (value[0] for value in _pool(merged, axis=0))
        return self

    def transform(self, X):
        """Scale each lead.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        X : ndarray of the same shape and dtype
        """
        check_is_fitted(self, "n_leads_in_")
        X = validate_ecg(self, X, reset=False, any_length=True)
        out = np.empty(X.shape, dtype=X.dtype)
        for rows in row_blocks(X):
            block = _block(as_3d(X), rows)
            if hasattr(self, "mean_"):
                mean, scale = self.mean_, self.scale_
            else:
                mean, scale = _pool(_lead_statistics(block), axis=1 if self.scope == "record" else None)
            block -= mean[..., np.newaxis]
            block /= scale[..., np.newaxis]
            as_3d(out)[rows] = block
        return out

    @available_if(lambda self: self.scope == "dataset")
    def inverse_transform(self, X):
        """Back to millivolt; only with ``scope="dataset"``, where it is known how.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        X : ndarray of the same shape and dtype
        """
        check_is_fitted(self, "mean_")
        X = validate_ecg(self, X, reset=False, any_length=True)
        out = np.empty(X.shape, dtype=X.dtype)
        for rows in row_blocks(X):
            as_3d(out)[rows] = _block(as_3d(X), rows) * self.scale_[:, np.newaxis] + self.mean_[:, np.newaxis]
        return out


def _block(X, rows):
    """A float64 copy of some rows."""
    return np.array(X[rows], dtype=np.float64, order="C")


def _lead_statistics(block):
    """Mean, variance, minimum and maximum of each lead, (n, n_leads) each; NaN for a missing lead."""
    mean = block.mean(axis=2)
    centred = block - mean[..., np.newaxis]
    variance = np.einsum("nlt,nlt->nl", centred, centred) / block.shape[2]
    return mean, variance, block.min(axis=2), block.max(axis=2)


def _pool(statistics, axis):
    """Mean and divisor over ``axis`` (kept, of length 1) of leads of equal length; 1 divides a flat one."""
    mean, variance, low, high = statistics
    if axis is not None:
        here = ~np.isnan(mean)
        count = here.sum(axis=axis, keepdims=True, dtype=np.float64)
        count[count == 0] = np.nan
        low = np.where(here, low, np.inf).min(axis=axis, keepdims=True)
        high = np.where(here, high, -np.inf).max(axis=axis, keepdims=True)
        pooled = np.where(here, mean, 0).sum(axis=axis, keepdims=True) / count
        variance = np.where(here, variance + (mean - pooled) ** 2, 0).sum(axis=axis, keepdims=True) / count
        mean = pooled
    scale = np.sqrt(variance)
    flat = low == high
    return np.where(flat, low, mean), np.where(flat | (scale == 0), 1.0, scale)


class LeadSelector(_SignalTransformer):
    """Choose and reorder leads by name; a lead that is not there becomes NaN.

    Parameters
    ----------
    lead_names : sequence of str or None, default=None
        Leads to give, in this order; ``None`` gives all leads of ``X``. Matched without regard to case;
        ``"MLII"``, ``"ECG II"`` and ``"II"`` are one lead, and so are ``"AVR"`` and ``"aVR"``.
    input_lead_names : sequence of str or None, default=None
        What the leads of ``X`` are, in order. ``None`` means the 12 standard leads where there are 12 (I, II,
        III, aVR, aVL, aVF, V1 to V6), else ``"lead0"``, ``"lead1"``, ...

    Attributes
    ----------
    lead_names_in_, lead_names_out_ : tuple of str
        Leads before and after.
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``. ``transform`` takes any length of three-dimensional input.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.preprocessing import LeadSelector
    >>> X = np.stack([np.zeros((1, 5)), np.ones((1, 5))], axis=1)
    >>> LeadSelector(["II", "V1", "V5"], input_lead_names=["V5", "MLII"]).fit_transform(X)[0]
    array([[ 1.,  1.,  1.,  1.,  1.],
           [nan, nan, nan, nan, nan],
           [ 0.,  0.,  0.,  0.,  0.]])
    """

    _parameter_constraints = {
        "lead_names": ["array-like", None],
        "input_lead_names": ["array-like", None],
    }

    def __init__(self, lead_names=None, *, input_lead_names=None):
        self.lead_names = lead_names
        self.input_lead_names = input_lead_names

    def fit(self, X, y=None):
        """Look up the leads, and learn the shape of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        validate_ecg(self, X, reset=True)
        self.lead_names_in_ = check_lead_names(self.input_lead_names, self.n_leads_in_)
        wanted = self.lead_names_in_ if self.lead_names is None else self.lead_names
        self.lead_names_out_ = check_lead_names(wanted)
        self._positions = match_leads(self.lead_names_out_, self.lead_names_in_)
        if all(position is None for position in self._positions):
            hint = "" if self.input_lead_names is not None or self.lead_names_in_ == STANDARD_LEADS else (
                " Pass input_lead_names= to say what the leads of X are."
            )
            raise ValueError(f"X has none of the leads {', '.join(self.lead_names_out_)}; "
                             f"it has {', '.join(self.lead_names_in_)}.{hint}")
        return self

    def transform(self, X):
        """Choose leads.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        X : ndarray of shape (n_samples, n_leads_out, n_times), of the same dtype
            (n_samples, n_times) if ``X`` has two dimensions and one lead is asked for.
        """
        check_is_fitted(self)
        X = validate_ecg(self, X, reset=False, any_length=True)
        leads = as_3d(X)
        out = np.empty((len(X), len(self._positions), X.shape[-1]), dtype=X.dtype)
        for slot, position in enumerate(self._positions):
            out[:, slot] = np.nan if position is None else leads[:, position]
        return out[:, 0] if X.ndim == 2 and len(self._positions) == 1 else out

    def get_feature_names_out(self, input_features=None):
        """Names along the second axis of the output: samples in time of a single lead, or leads.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Used for two-dimensional input only.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        if self._ndim_in == 2 and len(self._positions) == 1:
            return OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        return np.asarray(self.lead_names_out_, dtype=object)
