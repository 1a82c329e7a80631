"""What a pretrained network has to beat: random convolutions, intervals and the median beat, and a linear model.

No pretraining and no accelerator: about a minute for 2,000 twelve-lead records of 10 s on one core.
"""

from itertools import combinations
from numbers import Integral, Real

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skecg._validation import as_3d, validate_ecg

# Each kernel has length 9, weight 2 at three places and -1 at the six others, so that it sums to zero: (84, 9)
_KERNELS = np.array([[2 if j in places else -1 for j in range(9)] for places in combinations(range(9), 3)], np.float32)
_MAX_DILATIONS = 32
_MAX_LEADS = 9  # of one kernel


class MiniRocket(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Shares of positive values after fixed, dilated convolutions of random leads.

    The 84 kernels are convolved at several dilations with sums of leads drawn at random. A feature is the share of
    time at which a convolution exceeds a bias, and the biases are quantiles of the convolutions of training samples.

    Parameters
    ----------
    n_features : int, default=9996
        Rounded down to a multiple of 84, the number of kernels; 84 at least.
    random_state : int, RandomState instance or None, default=None
        Draws the leads of each kernel and the samples that the biases are taken from.

    Attributes
    ----------
    dilations_ : ndarray of shape (n_dilations,)
        Samples between neighbouring weights of a kernel.
    leads_ : ndarray of shape (n_dilations, 84, n_leads), bool
        The leads that are summed before each convolution.
    biases_ : list of n_dilations ndarrays of shape (84, n_biases)
        n_biases differs between dilations and adds up to ``n_features / 84``.
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``.

    Notes
    -----
    - Missing leads (NaN) count as zero. A kernel with nothing but missing leads has features 0 or 1.
    - Samples are transformed one by one: a feature does not depend on which others are in X.
    - The paper treats single leads. Here a kernel sums the integer part of ``2**u`` leads, u uniform between 0 and
      ``log2(m + 1)``, m the number of leads but 9 at most: as often one lead as two or three.

    References
    ----------
    A. Dempster, D. F. Schmidt and G. I. Webb, MiniRocket: a very fast (almost) deterministic transform for time series
    classification, KDD 2021.
    """

    _parameter_constraints = {
        "n_features": [Interval(Integral, len(_KERNELS), None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, n_features=9996, random_state=None):
        self.n_features = n_features
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = False  # a missing lead is NaN from end to end; NaN anywhere is refused
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X, y=None):
        """Draw leads, and biases from the convolutions of samples of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Any unit; 9 samples in time at least.
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        X = as_3d(validate_ecg(self, X, reset=True, min_times=_KERNELS.shape[1]))
        rng = check_random_state(self.random_state)
        self.dilations_, n_biases = self._layout()
        shape = len(self.dilations_), len(_KERNELS)

        n_summed = np.floor(2 ** rng.uniform(0, np.log2(min(self.n_leads_in_, _MAX_LEADS) + 1), size=shape))
        order = rng.random((*shape, self.n_leads_in_)).argsort(axis=-1)
        self.leads_ = order < n_summed[..., None]

        # multiples of the golden ratio, modulo 1: any run of them covers (0, 1) evenly
        quantiles = iter(np.arange(1, self.n_features + 1) * ((5**0.5 + 1) / 2) % 1)
        sources = rng.randint(len(X), size=shape)
        self.biases_ = []
        for i, count in enumerate(n_biases):
            biases = np.empty((len(_KERNELS), count), np.float32)
            for k in range(len(_KERNELS)):
                convolved = self._convolve(X[sources[i, k]], i, slice(k, k + 1))
                biases[k] = np.quantile(convolved, [next(quantiles) for _ in range(count)])
            self.biases_.append(biases)
        self._n_features_out = sum(biases.size for biases in self.biases_)
        return self

    def transform(self, X):
        """Share of time at which each convolution exceeds its bias.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            Between 0 and 1.
        """
        check_is_fitted(self)
        X = as_3d(validate_ecg(self, X, reset=False))
        out = np.empty((len(X), self._n_features_out), np.float32)
        for sample, features in zip(X, out, strict=True):
            start = 0
            for i, biases in enumerate(self.biases_):
                block = features[start : start + biases.size].reshape(biases.shape)  # (84, n_biases), a view
                convolved, reach = self._convolve(sample, i), 4 * self.dilations_[i]
                # Every second kernel sees zeros beyond the ends, the others stay inside.
                for first, part in ((i % 2, convolved), (1 - i % 2, convolved[:, reach : convolved.shape[1] - reach])):
                    ones = np.ones(part.shape[1], np.float32)  # a product with ones counts faster than a sum of bools
                    for j in range(biases.shape[1]):
                        block[first::2, j] = (part[first::2] > biases[first::2, j, None]) @ ones / len(ones)
                start += biases.size
        return out

    def _layout(self):
        """The dilations and how many biases each kernel has at each of them."""
        per_kernel = self.n_features // len(_KERNELS)
        n_exponents = min(per_kernel, _MAX_DILATIONS)
        longest = np.log2((self.n_times_in_ - 1) / (_KERNELS.shape[1] - 1))  # from end to end
        dilations, repeats = np.unique(
            np.floor(np.logspace(0, longest, n_exponents, base=2)).astype(int), return_counts=True
        )
        n_biases = repeats * per_kernel // n_exponents
        n_biases[: per_kernel - n_biases.sum()] += 1  # what rounding down left, to the shortest dilations
        return dilations, n_biases

    def _convolve(self, sample, i, kernels=slice(None)):
        """Convolutions at dilation ``i`` with zeros beyond the ends: (n_kernels, n_times)."""
        dilation, n_times = self.dilations_[i], sample.shape[-1]
        padded = np.pad(np.nan_to_num(np.asarray(sample, np.float32)), ((0, 0), (4 * dilation, 4 * dilation)))
        shifted = sliding_window_view(padded, n_times, axis=1)[:, ::dilation]  # (n_leads, 9, n_times)
        weights = self.leads_[i, kernels, :, None] * _KERNELS[kernels, None]  # (n_kernels, n_leads, 9)
        return weights.reshape(len(weights), -1) @ shifted.reshape(-1, n_times)


class IntervalMorphology(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Intervals between beats, the median beat of every lead, and amplitudes of its waves.

    Nothing is learned from the data.

    Parameters
    ----------
    fs : float
        Sampling rate of ``X`` in Hz, above 20.
    beat : float or None, default=None
        Seconds from the start of the window to its one labelled beat (``before`` of ``make_beats``): the waveform is
        that beat's and the intervals are those around it. ``None``: all beats of the window, and their median.
    n_points : int, default=40
        Samples to which a beat is resampled, from 0.35 s before to 0.5 s after its QRS complex.

    Attributes
    ----------
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``.

    Notes
    -----
    - Beats are peaks of the energy of the slope between 5 and 20 Hz, summed over the leads and smoothed over 0.1 s;
      at least 0.35 times as high as the window's 98 % quantile, at least 0.25 s apart.
    - Missing leads (NaN) count as zero. A window with fewer than two beats is treated as if it had two, at a third
      and at two thirds.
    """

    _parameter_constraints = {
        "fs": [Interval(Real, 20, None, closed="neither")],
        "beat": [Interval(Real, 0, None, closed="left"), None],
        "n_points": [Interval(Integral, 2, None, closed="left")],
    }
    _before, _after = 0.35, 0.5  # seconds

    def __init__(self, fs, beat=None, n_points=40):
        self.fs = fs
        self.beat = beat
        self.n_points = n_points

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X, y=None):
        """Learn the shape of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        X = validate_ecg(self, X, reset=True)
        duration = self.n_times_in_ / self.fs
        needed = self._before + self._after if self.beat is None else self.beat + 0.4  # a T wave
        if duration < needed:
            raise ValueError(f"X has {self.n_times_in_} samples in time, that is {duration:g} s at fs={self.fs:g}; "
                             f"expected {needed:g} s or more. Pass longer windows, or correct fs or beat.")
        self._n_features_out = len(self._features(np.zeros(as_3d(X).shape[1:], np.float32)))
        return self

    def transform(self, X):
        """Intervals, beat and amplitudes of each window.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
        """
        check_is_fitted(self)
        X = as_3d(validate_ecg(self, X, reset=False))
        out = np.empty((len(X), self._n_features_out), np.float32)
        for sample, features in zip(X, out, strict=True):
            features[:] = self._features(np.nan_to_num(np.asarray(sample, float)))
        return out

    def _peaks(self, signal):
        """Samples at which QRS complexes are."""
        sos = butter(2, (5, min(20, 0.4 * self.fs)), btype="bandpass", fs=self.fs, output="sos")
        slope = np.gradient(sosfiltfilt(sos, signal, axis=-1), axis=-1)
        energy = np.sqrt(np.maximum(0, uniform_filter1d((slope**2).sum(axis=0), max(1, round(0.1 * self.fs)))))
        height = 0.35 * np.quantile(energy, 0.98)
        return find_peaks(energy, height=max(height, 1e-9), distance=max(1, round(0.25 * self.fs)))[0]

    def _features(self, signal):
        """Everything of one window, signal of shape (n_leads, n_times)."""
        peaks = self._peaks(signal)
        before, after = round(self._before * self.fs), round(self._after * self.fs)
        if self.beat is None:
            intervals, beat = self._all_beats(signal, peaks, before, after)
        else:
            at = round(self.beat * self.fs)
            intervals, before = self._around(peaks, at, signal.shape[1]), min(before, at)
            beat = signal[:, at - before : at + after]
        t = (np.arange(beat.shape[1]) - before) / self.fs  # seconds from the QRS complex
        grid = np.linspace(t[0], t[-1], self.n_points)
        waveform = [np.interp(grid, t, lead) for lead in beat]
        return np.concatenate([intervals, *waveform, self._waves(beat, t)])

    def _all_beats(self, signal, peaks, before, after):
        """Rate and irregularity of a window; its median beat of shape (n_leads, n_beat_times)."""
        n_times = signal.shape[1]
        found = len(peaks)
        if found < 2:
            peaks = np.array([n_times // 3, 2 * n_times // 3])
        rr = np.diff(peaks) / self.fs
        change = np.abs(np.diff(rr)) if len(rr) > 1 else np.zeros(1)
        whole = peaks[(peaks >= before) & (peaks + after <= n_times)]
        if len(whole) == 0:
            whole = np.clip(peaks[:1], before, n_times - after)
        beats = np.stack([signal[:, at - before : at + after] for at in whole])
        beat = np.median(beats, axis=0)
        difference = np.abs(beats - beat).mean(axis=(1, 2))  # large for an ectopic beat
        typical = np.median(rr)
        return [
            found, 60 / typical, typical, rr.std(), rr.std() / typical, np.sqrt((change**2).mean()),
            change.mean() / typical, np.median(change) / typical, rr.min() / typical, rr.max() / typical,
            (change > 0.1 * typical).mean(), difference.mean(), difference.max(),
        ], beat

    def _around(self, peaks, at, n_times):
        """Intervals before and after the beat at sample ``at``; one that leaves the window counts up to its end."""
        previous, following = peaks[peaks < at - 0.2 * self.fs], peaks[peaks > at + 0.2 * self.fs]
        last = (at - previous[-1] if len(previous) else at) / self.fs
        last_but_one = (previous[-1] - previous[-2] if len(previous) > 1 else at) / self.fs
        following = ((following[0] if len(following) else n_times) - at) / self.fs
        ratio = last / last_but_one if last_but_one else 1.0
        return [last, last_but_one, following, len(peaks), ratio, len(previous) > 1]

    @staticmethod
    def _waves(beat, t):
        """Amplitudes per lead from the level before the QRS complex, and the duration of steep slopes."""
        part = {"level": (-0.3, -0.06), "P": (-0.3, -0.08), "QRS": (-0.08, 0.08), "ST": (0.08, 0.14), "T": (0.14, 0.42)}
        part = {name: beat[:, (t >= first) & (t <= last)] for name, (first, last) in part.items()}
        level = np.median(part["level"], axis=1, keepdims=True) if part["level"].size else np.zeros((len(beat), 1))
        P, QRS, ST, T = (part[name] - level if part[name].size else -level for name in ("P", "QRS", "ST", "T"))
        slope = np.abs(np.gradient(beat, axis=1)).sum(axis=0)
        central = slope[np.abs(t) < 0.15]
        steep = [(central > share * slope.max()).sum() * (t[1] - t[0]) for share in (0.1, 0.2, 0.4)]
        ratio = np.ptp(T, axis=1) / (np.ptp(QRS, axis=1) + 1e-3)
        extremes = [f(wave, axis=1) for wave in (P, QRS, T) for f in (np.max, np.min)]
        return np.concatenate([
            *extremes, np.abs(QRS).mean(axis=1), np.abs(QRS).max(axis=1), ST.mean(axis=1), np.abs(ST.mean(axis=1)),
            ratio, steep,
        ])


class BlockScaler(StandardScaler):
    """Standardise, then divide by the square root of the number of features.

    A block of features has total variance 1, whatever its width: in a union, 10,000 features do not outweigh 600.
    """

    def fit(self, X, y=None, sample_weight=None):
        """Learn mean and scale; as StandardScaler."""
        super().fit(X, y, sample_weight)
        self.scale_ = self.scale_ * np.sqrt(self.n_features_in_)
        return self


def baseline(fs, beat=None, *, n_features=9996, C=1.0, random_state=None):
    """Random convolutions, intervals and morphology, and logistic regression, for labels of any kind.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz.
    beat : float or None, default=None
        Seconds from the start of a window to its one labelled beat; ``None`` for windows with a label as a whole.
    n_features : int, default=9996
        Of the random convolutions.
    C : float, default=1.0
        Inverse strength of the ridge penalty, on blocks of total variance 1.
    random_state : int, RandomState instance or None, default=None
        Of the random convolutions.

    Returns
    -------
    pipeline : Pipeline
        Unfitted; takes X of shape (n_samples, n_leads, n_times) and two classes, several, or an indicator matrix. Gives
        ``predict_proba``.
    """
    features = FeatureUnion([
        ("convolutions", make_pipeline(MiniRocket(n_features, random_state), BlockScaler())),
        ("morphology", make_pipeline(IntervalMorphology(fs, beat), BlockScaler())),
    ])
    return make_pipeline(features, OneVsRestClassifier(LogisticRegression(C=C, max_iter=1000)))
