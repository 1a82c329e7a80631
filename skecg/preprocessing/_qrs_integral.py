"""The area under the beginning of a beat in each lead: the features of linear localisation."""

from numbers import Real

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from .._validation import as_3d, check_lead_names, row_blocks, validate_ecg
from ._signal import _SignalTransformer


class QRSIntegral(ClassNamePrefixFeaturesOutMixin, _SignalTransformer):
    """Area of each lead over the first part of the QRS complex: where a ventricular beat begins, in a dozen numbers.

    What excitation does in its first 120 ms, seen from each lead, tells where it set out from. A linear model on these areas
    is what localisation of ventricular tachycardia is measured against [1]_. Nothing is learned from the data.

    Parameters
    ----------
    fs : float
        Sampling rate of ``X`` in Hz. It has no default, because a wrong one is not noticed.
    onset : float
        Where in the window the QRS complex begins, in s from its start: ``before`` of
        :func:`~skecg.datasets.make_vt_beats`. The same for all samples.
    window : float, default=0.12
        Length in s of what is integrated, from the onset on.
    baseline : float, default=0.04
        The mean of this long a stretch before the onset, in s, is zero level: wander would count as area. 0 takes the
        signal as it is.
    lead_names : sequence of str, default=None
        Names of X's leads, in order. None: the 12 standard leads where X has 12, else ``"lead0"``, ``"lead1"``, ...

    Attributes
    ----------
    lead_names_in_ : tuple of str
        Names of the leads.
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``. ``transform`` takes any length of three-dimensional input.

    Notes
    -----
    - A missing lead (NaN) has a missing area. Linear models want it imputed, or the lead left out for all samples.
    - The area is the sum of the samples times their distance in time. Amplitude is what it measures: on signals that were
      scaled per lead or per record it says little.

    References
    ----------
    .. [1] Zhou, AbdelWahab, Horáček, MacInnis, Warren, Davis, Elsokkari, Lee, MacIntyre, Parkash, Gray, Gardner, Marcoux,
       Choudhury, Trayanova, Sapp. Prospective assessment of an automated intraprocedural 12-lead ECG-based system for
       localization of early left ventricular activation. Circ. Arrhythm. Electrophysiol. 13 (2020), e008262.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from skecg.datasets import make_vt_beats
    >>> from skecg.preprocessing import QRSIntegral
    >>> X, segment, position, groups = make_vt_beats(3, 10, random_state=0)
    >>> integrals = QRSIntegral(fs=250, onset=0.1)
    >>> integrals.fit_transform(X).shape
    (30, 12)
    >>> print(*integrals.get_feature_names_out())
    I II III aVR aVL aVF V1 V2 V3 V4 V5 V6
    >>> make_pipeline(integrals, Ridge()).fit(X, position).predict(X[:2]).shape
    (2, 3)
    """

    _parameter_constraints = {
        "fs": [Interval(Real, 0, None, closed="neither")],
        "onset": [Interval(Real, 0, None, closed="left")],
        "window": [Interval(Real, 0, None, closed="neither")],
        "baseline": [Interval(Real, 0, None, closed="left")],
        "lead_names": ["array-like", None],
    }

    def __init__(self, *, fs, onset, window=0.12, baseline=0.04, lead_names=None):
        self.fs = fs
        self.onset = onset
        self.window = window
        self.baseline = baseline
        self.lead_names = lead_names

    def fit(self, X, y=None):
        """Learn the shape of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt.
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        X = validate_ecg(self, X, reset=True)
        first, n_integrated, n_before = (round(t * self.fs) for t in (self.onset, self.window, self.baseline))
        if n_integrated < 1:
            raise ValueError(f"window={self.window:g} s is less than one sample at fs={self.fs:g} Hz; give a longer one.")
        if self.baseline > 0 and not 0 < n_before <= first:
            raise ValueError(
                f"baseline={self.baseline:g} s before onset={self.onset:g} s is {n_before} of the {first} samples there "
                f"are at fs={self.fs:g} Hz; pass windows that begin earlier, another baseline, or 0 for none."
            )
        self._parts = slice(first - n_before, first), slice(first, first + n_integrated)
        self._check_length(X)
        self.lead_names_in_ = check_lead_names(self.lead_names, self.n_leads_in_)
        self._n_features_out = self.n_leads_in_
        return self

    def _check_length(self, X):
        if X.shape[-1] < self._parts[1].stop:
            raise ValueError(
                f"X has {X.shape[-1]} samples in time, but onset={self.onset:g} s and window={self.window:g} s reach to "
                f"sample {self._parts[1].stop} at fs={self.fs:g} Hz. Pass longer windows, or correct fs or onset."
            )

    def transform(self, X):
        """Area of each lead.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt.

        Returns
        -------
        areas : ndarray of shape (n_samples, n_leads), of the same dtype
            In mV ms.
        """
        check_is_fitted(self)
        X = validate_ecg(self, X, reset=False, any_length=True)
        self._check_length(X)
        level, qrs = self._parts
        areas = np.empty((len(X), self.n_leads_in_), dtype=X.dtype)
        for rows in row_blocks(X):
            block = as_3d(X[rows])
            mean = np.mean(block[..., qrs], axis=-1, dtype=np.float64)
            if level.stop > level.start:
                mean -= np.mean(block[..., level], axis=-1, dtype=np.float64)
            areas[rows] = mean * (qrs.stop - qrs.start) * 1e3 / self.fs
        return areas

    def get_feature_names_out(self, input_features=None):
        """Names of the leads.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Not used, only checked.

        Returns
        -------
        names : ndarray of str
        """
        super().get_feature_names_out(input_features)
        return np.asarray(self.lead_names_in_, dtype=object)
