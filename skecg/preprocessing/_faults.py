"""The checks behind check_ecg: each looks at some samples and adds what it finds."""

import warnings
from itertools import combinations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.ndimage import maximum_filter1d, median_filter, minimum_filter1d, uniform_filter1d
from scipy.signal import find_peaks

from .._validation import canonical_lead_name

# Limits: round numbers between what real recordings show and what faults do to them. How often each one fails is in
# benchmarks/results/quality.json.
MIN_SECONDS, MIN_TIMES = 0.5, 25  # windows shorter than either are judged for gaps only
FLAT_SECONDS, FLAT_RANGE = 1.0, 0.01  # range within that time, as a share of the record's amplitude
PLATEAUS, PLATEAU_SECONDS, LONG_PLATEAU_SECONDS = 4, 0.01, 0.1  # so many plateaus at the very extreme, or a long one
AMPLITUDE = (0.02, 50.0)  # peak to peak within a second, in X's unit; a z-score is at 4 to 11
HEART_RATE, MIN_BEATS, MIN_HEART_SECONDS = (25.0, 240.0), 5, 1.5  # beats per minute of one record
UNSTEADY = 0.25  # median deviation of the RR intervals, relative; above, what was counted need not be beats
MEDIAN_HEART_RATE, MIN_RECORDS = (50.0, 115.0), 20  # of all records, where there are so many
MAINS_LINE, MAINS_TOLERANCE, MIN_LINE_SECONDS = 6.0, 0.02, 5.0  # dB above its surroundings; relative to 50 or 60 Hz
LIMB_RESIDUAL, LIMB_PLANE = 0.02, 0.1  # relative; what is not a rounding error, and how far from collinear
GAIN_ERROR, GAIN_AGREEMENT = 0.05, 0.02
ARMS_CORRELATION = -0.5
REPEATED_CORRELATION, SAME_VALUES = 0.9999, 1e-4
_DIFFERENCE_SECONDS = 0.02

# The six limb leads as linear forms of I and II.
_LIMB = {"I": (1, 0), "II": (0, 1), "III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}

_CHEST = tuple(f"V{i}" for i in range(1, 7))


def is_long(n_times, fs):
    """Whether a window is long enough to be judged for more than gaps."""
    return n_times >= max(MIN_TIMES, MIN_SECONDS * fs)


def not_checked(n_times, fs, lead_names, whole_set):
    """What cannot be looked for, and the faults concerned; ``whole_set`` is None where samples are not compared."""
    if not is_long(n_times, fs):
        return {f"anything but gaps (windows below {MIN_SECONDS:g} s or {MIN_TIMES} samples)": (
            "flat", "saturated", "unit", "fs", "swapped", "inverted", "gain", "mislabelled", "reversed_arms",
            "repeated_lead", "duplicate")}
    leads, texts = [canonical_lead_name(name) for name in lead_names], {}
    if sum(lead in _LIMB for lead in leads) < 3:
        texts["limb leads (fewer than 3 among lead_names)"] = "swapped", "inverted", "gain", "mislabelled"
    if not {"I", "V5", "V6"} <= set(leads):
        texts["exchanged arms (need I, V5 and V6)"] = ("reversed_arms",)
    if sum(lead in _CHEST for lead in leads) > 1:
        texts["order of chest leads"] = "swapped", "mislabelled"
    if n_times < MIN_HEART_SECONDS * fs:
        texts[f"heart rates (windows below {MIN_HEART_SECONDS:g} s)"] = ("fs",)
    if whole_set is None:
        texts["samples with each other"] = "fs", "duplicate"
    else:
        texts |= dict.fromkeys(whole_set.not_checked(), ("fs",))
    return texts


def judge_samples(x, fs, lead_names, findings, offset):
    """Judge some samples, each by itself; ``x`` is overwritten where it is not usable.

    Gives the heart rate of each sample (NaN where it cannot be told) and which leads are usable.
    """
    n_times = x.shape[2]
    finite = np.isfinite(x)
    missing = np.isnan(x).all(axis=2)
    whole = finite.all(axis=2)
    for i in np.flatnonzero(missing.all(axis=1)):
        findings.add("empty", offset + i, range(x.shape[1]), 0, 1, "every lead is missing", whole=True)
    for i, j in np.argwhere(~whole & ~missing):
        n_bad = n_times - np.count_nonzero(finite[i, j])
        findings.add("gap", offset + i, [j], n_bad, 0, f"{n_bad} of {n_times} values are NaN or infinite, "
                     f"from {np.argmin(finite[i, j]) / fs:.2f} s on")
    x[~whole] = 0
    if not is_long(n_times, fs):
        return np.full(len(x), np.nan), whole
    lows, highs = _half_second_extremes(x, fs)
    amplitude = _amplitude(lows, highs, whole)
    flat = _check_flat(x, fs, whole, (highs - lows).min(axis=2), amplitude, findings, offset)
    usable = whole & ~flat
    _check_saturated(x, fs, usable, findings, offset)
    for i in np.flatnonzero((amplitude > AMPLITUDE[1]) | ((amplitude < AMPLITUDE[0]) & (amplitude > 0))):
        large = amplitude[i] > AMPLITUDE[1]
        findings.add("unit", offset + i, np.flatnonzero(whole[i]), amplitude[i], AMPLITUDE[int(large)],
                     f"amplitude {amplitude[i]:.3g}, "
                     + ("too large for millivolt: ADC counts or microvolts?" if large
                        else "too small for millivolt: volts?"), whole=True)

    # Differences over 20 ms hold the beats, and neither offset nor wander; the identities hold for them as well.
    lag = max(1, round(_DIFFERENCE_SECONDS * fs))
    steps = x[:, :, lag:] - x[:, :, :-lag]
    steps -= steps.mean(axis=2, keepdims=True)
    scale = np.sqrt(np.einsum("nlt,nlt->nl", steps, steps) / steps.shape[2])
    steps /= np.where(scale > 0, scale, 1)[..., np.newaxis]
    usable &= scale > 0
    correlation = steps @ steps.transpose(0, 2, 1) / steps.shape[2]
    _check_repeated(correlation, usable, findings, offset)
    contradicting = _check_limb(correlation, scale, usable, lead_names, findings, offset)
    _check_arms(correlation, usable & ~contradicting[:, np.newaxis], lead_names, findings, offset)
    rate = _heart_rates(steps * usable[..., np.newaxis], fs)
    for i in np.flatnonzero((rate < HEART_RATE[0]) | (rate > HEART_RATE[1])):
        fast = rate[i] > HEART_RATE[1]
        findings.add("fs", offset + i, np.flatnonzero(whole[i]), rate[i], HEART_RATE[int(fast)],
                     f"heart rate {rate[i]:.0f} per minute at fs={fs:g} Hz: fs too {'high' if fast else 'low'}?", whole=True)
    return rate, usable


def _half_second_extremes(x, fs):
    """Lowest and highest value of each half second, (n_samples, n_leads, n) each."""
    length = max(1, min(x.shape[2], round(fs)) // 2)
    pieces = x[:, :, :x.shape[2] // length * length].reshape(*x.shape[:2], -1, length)
    return pieces.min(axis=3), pieces.max(axis=3)


def _amplitude(lows, highs, whole):
    """Median over leads of the median range within a second, (n_samples,); leads that never vary do not count."""
    if lows.shape[2] > 1:
        lows, highs = np.minimum(lows[:, :, :-1], lows[:, :, 1:]), np.maximum(highs[:, :, :-1], highs[:, :, 1:])
    ranges = np.median(highs - lows, axis=2)
    ranges[~whole | (ranges == 0)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no lead at all
        return np.nan_to_num(np.nanmedian(ranges, axis=1))


def _check_flat(x, fs, whole, smallest, amplitude, findings, offset):
    """``smallest``: least range within half a second, for each second holds a whole half of those looked at."""
    length = min(x.shape[2], round(FLAT_SECONDS * fs) or 1)
    inside = slice(length // 2, x.shape[2] - (length - 1) // 2)  # the filters centre their windows
    limit = FLAT_RANGE * amplitude
    flat = np.zeros(whole.shape, dtype=bool)
    for i, j in np.argwhere(whole & (smallest <= limit[:, np.newaxis])):
        ranges = (maximum_filter1d(x[i, j], length) - minimum_filter1d(x[i, j], length))[inside]
        start = ranges.argmin()
        flat[i, j] = ranges[start] <= limit[i]
        if flat[i, j]:
            findings.add("flat", offset + i, [j], ranges[start], limit[i],
                         f"varies by {ranges[start]:.3g} within {length / fs:.2g} s from {start / fs:.2f} s on")
    return flat


def _check_saturated(x, fs, usable, findings, offset):
    shortest, long = max(2, round(PLATEAU_SECONDS * fs)), max(3, round(LONG_PLATEAU_SECONDS * fs))
    found = {}
    for end in (x.max(axis=2), x.min(axis=2)):
        at = x == end[..., np.newaxis]
        for i, j in np.argwhere(usable & (at.sum(axis=2) >= min(PLATEAUS * shortest, long))):
            edges = np.flatnonzero(np.diff(at[i, j], prepend=False, append=False)).reshape(-1, 2)
            edges = edges[(edges[:, 0] > 0) & (edges[:, 1] < x.shape[2])]
            lengths = edges[:, 1] - edges[:, 0]
            lengths = lengths[lengths >= shortest]
            if len(lengths) >= PLATEAUS or lengths.max(initial=0) >= long:
                found.setdefault((i, j), (lengths.sum(), len(lengths), end[i, j]))
    for (i, j), (n_samples, n_plateaus, value) in sorted(found.items()):
        findings.add("saturated", offset + i, [j], n_samples / fs, PLATEAUS * PLATEAU_SECONDS,
                     f"clipped at {value:.3g}: {n_plateaus} plateau(s) of {1000 * n_samples / fs:.0f} ms together")


def _check_repeated(correlation, usable, findings, offset):
    alike = np.triu(np.abs(correlation), 1) >= REPEATED_CORRELATION
    alike &= usable[:, :, np.newaxis] & usable[:, np.newaxis]
    for i, a, b in np.argwhere(alike):
        findings.add("repeated_lead", offset + i, [a, b], abs(correlation[i, a, b]), REPEATED_CORRELATION,
                     "one signal, up to scale and offset")


def _check_limb(correlation, scale, usable, lead_names, findings, offset):
    """Judge the limb leads, samples with the same leads together; gives the samples with a fault."""
    contradicting = np.zeros(len(scale), dtype=bool)
    canonical = [canonical_lead_name(name) for name in lead_names]
    columns = [j for j, name in enumerate(canonical) if name in _LIMB]
    if len(columns) < 3:
        return contradicting
    for pattern in np.unique(usable[:, columns], axis=0):
        here = [column for column, used in zip(columns, pattern, strict=True) if used]
        if len(here) < 3:
            continue
        rows = np.flatnonzero((usable[:, columns] == pattern).all(axis=1))
        fit = _LimbFit(correlation[np.ix_(rows, here, here)], scale[np.ix_(rows, here)], [canonical[j] for j in here])
        for row, fault, leads, value, text in fit.faults():
            findings.add(fault, offset + rows[row], [here[lead] for lead in leads], value, LIMB_RESIDUAL, text)
            contradicting[rows[row]] = True
    return contradicting


class _LimbFit:
    """How well k leads fit their linear forms of two leads (I and II), as they are and after a repair.

    With P the projection onto the plane of the forms, Q = 1 - P, and leads x_j = s_j u_j with u_j of unit variance
    and correlation matrix R, the squared residual of the leads d_j u_j is d' (Q o R) d, where o multiplies entry
    by entry. The leads as given have d = s. The smallest eigenvalue is the residual for the best d, that is where
    each lead may have a scale of its own, and its eigenvector holds these scales with their signs.
    """

    def __init__(self, correlation, scale, names):
        self.names = names
        self.correlation, self.forms = correlation, np.array([_LIMB[name] for name in names], dtype=float)
        self.scale = scale / np.linalg.norm(scale, axis=1, keepdims=True)
        everyone = np.arange(len(names))
        self.repairs = [("inverted", (lead,), everyone, np.where(everyone == lead, -1, 1)) for lead in everyone]
        for a, b in combinations(everyone, 2):
            order = everyone.copy()
            order[[a, b]] = b, a
            self.repairs.append(("swapped", (a, b), order, np.ones(len(everyone))))
        self.unchanged = everyone, np.ones(len(everyone))

    def faults(self):
        """Tuples (row, fault, leads, relative residual, text)."""
        residual = self._residual(np.arange(len(self.scale)), *self.unchanged)
        rows = np.flatnonzero(residual > LIMB_RESIDUAL)
        if not len(rows):
            return
        as_given = np.array([self._residual(rows, *repair[2:]) < LIMB_RESIDUAL for repair in self.repairs])
        free, best, collinear = self._free(rows, *self.unchanged)
        rest = ~as_given.any(axis=0) & ~free & ~collinear
        scaled = np.zeros_like(as_given)
        scaled[:, rest] = [self._free(rows[rest], *repair[2:])[0] for repair in self.repairs]
        for n, row in enumerate(rows):
            possible = as_given[:, n] if as_given[:, n].any() else scaled[:, n]
            if possible.any():
                found = [self._name([repair for repair, ok in zip(self.repairs, possible, strict=True) if ok])]
            elif free[n]:
                found = self._gain(row, best[n])
            else:
                found = [self._stranger(row)] if rest[n] else []
            for fault, leads, text in found:
                yield row, fault, leads, residual[row], text

    def _form(self, rows, order, leads):
        """Q o R of the ``leads``, where each has the form of its counterpart in ``order``."""
        forms = self.forms[order]
        outside = np.eye(len(order)) - forms @ np.linalg.pinv(forms)
        return outside * self.correlation[np.ix_(rows, leads, leads)]

    def _residual(self, rows, order, signs, leads=None):
        """Relative residual with the scales as given."""
        leads = self.unchanged[0] if leads is None else leads
        d = self.scale[np.ix_(rows, leads)] * signs
        square = np.einsum("ni,nij,nj->n", d, self._form(rows, order, leads), d)
        return np.sqrt(np.maximum(0, square) / np.einsum("ni,ni->n", d, d))

    def _free(self, rows, order, signs, leads=None):
        """Whether positive scales satisfy the identities, which, and whether the leads are too collinear to tell."""
        leads = self.unchanged[0] if leads is None else leads
        values, vectors = np.linalg.eigh(self._form(rows, order, leads) * np.outer(signs, signs))
        best = vectors[:, :, 0] * np.sign(vectors[:, :1, 0])
        collinear = values[:, 1] < LIMB_PLANE**2
        return (values[:, 0] < LIMB_RESIDUAL**2) & (best > 0).all(axis=1) & ~collinear, best, collinear

    def _name(self, repairs):
        """Fault, leads and text, from the repairs that restore the identities."""
        texts = [f"{' and '.join(self.names[lead] for lead in leads)} {fault}" for fault, leads, _, _ in repairs]
        leads = sorted({lead for repair in repairs for lead in repair[1]})
        return repairs[0][0], leads, f"limb leads agree once {', or '.join(texts)}"

    def _gain(self, row, best):
        """One lead whose scale differs from that of all others. If several do, each lead was scaled by itself."""
        gains = self.scale[row] / best
        gains /= np.median(gains)
        off = np.abs(np.log(gains)) > GAIN_ERROR
        if len(gains) > 3 and off.sum() == 1 and np.abs(np.log(gains[~off])).max() < GAIN_AGREEMENT:
            lead = int(np.argmax(off))
            yield "gain", [lead], f"{gains[lead]:.3g} times what the other limb leads say"

    def _stranger(self, row):
        """The lead without which the others agree, else all."""
        everyone, signs = self.unchanged
        if len(everyone) > 3:
            for lead in everyone:
                others, row_alone = np.delete(everyone, lead), np.array([row])
                if (self._residual(row_alone, others, signs[1:], others)[0] < LIMB_RESIDUAL
                        or self._free(row_alone, others, signs[1:], others)[0][0]):
                    return "mislabelled", [lead], "the other limb leads agree, and not with this one"
        return "mislabelled", everyone, "the limb leads contradict each other"


def _check_arms(correlation, usable, lead_names, findings, offset):
    """Lead I against the left chest leads: they see the heart from one side."""
    column = {canonical_lead_name(name): j for j, name in enumerate(lead_names)}
    if not {"I", "V5", "V6"} <= set(column):
        return
    first, v5, v6 = (column[name] for name in ("I", "V5", "V6"))
    found = (correlation[:, first, v6] < ARMS_CORRELATION) & (correlation[:, first, v5] < ARMS_CORRELATION / 2)
    found &= usable[:, [first, v5, v6]].all(axis=1)
    moved = [column[name] for name in ("I", "II", "III", "aVR", "aVL") if name in column]
    for i in np.flatnonzero(found):
        findings.add("reversed_arms", offset + i, moved, correlation[i, first, v6], ARMS_CORRELATION,
                     "lead I runs against V5 and V6: arm electrodes exchanged?")


def _heart_rates(steps, fs):
    """Beats per minute, (n_samples,); NaN where there are not five beats in a steady sequence.

    ``steps`` are differences of unit variance per lead. Their norm over leads, the spatial velocity, stands out
    within a QRS complex, whose width is that of the velocity's autocorrelation. All times come from it, none from
    ``fs``: the count of beats stays right where ``fs`` is wrong.
    """
    n_samples, _, n_times = steps.shape
    rates = np.full(n_samples, np.nan)
    if n_times < MIN_HEART_SECONDS * fs:
        return rates
    velocity = np.sqrt(np.einsum("nlt,nlt->nt", steps, steps))
    centred = velocity - velocity.mean(axis=1, keepdims=True)
    spectrum = rfft(centred, next_fast_len(2 * n_times, real=True))
    lags = irfft(spectrum.real**2 + spectrum.imag**2)[:, :n_times // 60]
    widths = (lags < 0.5 * lags[:, 1:2]).argmax(axis=1)
    for i in np.flatnonzero(widths > 0):
        smooth = uniform_filter1d(velocity[i], 6 * int(widths[i]))
        floor, top = np.quantile(smooth, [0.5, 0.98])
        peaks, _ = find_peaks(smooth, height=floor + 0.4 * (top - floor), distance=2 * 6 * int(widths[i]),
                              prominence=0.3 * (top - floor))
        if len(peaks) >= MIN_BEATS:
            intervals = np.diff(peaks)
            typical = np.median(intervals)
            if np.median(np.abs(intervals - typical)) <= UNSTEADY * typical:
                rates[i] = 60 * fs / typical
    return rates


class WholeSet:
    """What the samples tell together: duplicates, and whether their heart rates and mains line fit ``fs``."""

    def __init__(self, n_times, fs):
        self.fs = fs
        self.taper = np.hanning(n_times)
        self.frequencies = rfftfreq(n_times, 1 / fs)
        self.directions = np.random.default_rng(0).normal(size=(n_times, 4)) / np.sqrt(n_times)
        self.log_spectrum, self.n_spectra, self.rates, self.prints = 0, 0, [], []

    def add(self, x, usable, rates):
        x = x - x.mean(axis=2, keepdims=True)
        power = np.square(np.abs(rfft(x * self.taper))) * usable[..., np.newaxis]
        power = power.sum(axis=1)
        power = power[power.sum(axis=1) > 0]
        self.n_spectra += len(power)
        self.log_spectrum += 10 * np.log10(power / power.sum(axis=1, keepdims=True) + 1e-15).sum(axis=0)
        scale = np.sqrt(np.einsum("nlt,nlt->nl", x, x) / x.shape[2])
        scale[~usable] = np.inf
        self.prints.append((x @ self.directions) / scale[..., np.newaxis])
        self.rates.append(rates)

    def check(self, findings):
        self._check_duplicates(np.concatenate(self.prints), findings)
        self._check_rates(np.concatenate(self.rates), findings)
        self._check_mains(findings)

    def not_checked(self):
        """What too few samples, or too short ones, do not tell about the sampling rate."""
        n_rates = sum(int(np.count_nonzero(~np.isnan(rates))) for rates in self.rates)
        if n_rates < MIN_RECORDS:
            yield f"heart rate of all samples together (known of {n_rates}, needs {MIN_RECORDS})"
        if self.n_spectra < MIN_RECORDS:
            yield f"mains line ({self.n_spectra} samples, needs {MIN_RECORDS})"
        elif len(self.taper) < MIN_LINE_SECONDS * self.fs:
            yield f"mains line (windows below {MIN_LINE_SECONDS:g} s)"

    def _check_rates(self, rates, findings):
        rates = rates[~np.isnan(rates)]
        if len(rates) < MIN_RECORDS:
            return
        rate = np.median(rates)
        if not MEDIAN_HEART_RATE[0] <= rate <= MEDIAN_HEART_RATE[1]:
            fast = rate > MEDIAN_HEART_RATE[1]
            findings.add("fs", None, [], rate, MEDIAN_HEART_RATE[int(fast)],
                         f"the median heart rate of {len(rates):,} samples is {rate:.0f} per minute at "
                         f"fs={self.fs:g} Hz: fs too {'high' if fast else 'low'}, or patients of such rates?")

    def _check_mains(self, findings):
        if self.n_spectra < MIN_RECORDS or len(self.taper) < MIN_LINE_SECONDS * self.fs:
            return
        width = round(4 / self.frequencies[1]) | 1  # 4 Hz around a line
        height = self.log_spectrum / self.n_spectra
        height = height - median_filter(height, width, mode="nearest")
        height[(self.frequencies < 20) | (self.frequencies > 0.95 * self.fs / 2)] = 0
        line, peak = self.frequencies[height.argmax()], height.max()
        # 30 and 90 Hz as well: tape played at twice its speed for digitisation leaves half the mains frequency.
        known = any(abs(line - step * max(1, round(line / step))) <= MAINS_TOLERANCE * line for step in (50, 30))
        if peak >= MAINS_LINE and not known:
            findings.add("fs", None, [], peak, MAINS_LINE,
                         f"a line at {line:.1f} Hz (at fs={self.fs:g} Hz), {peak:.0f} dB above its surroundings, "
                         "is at no multiple of the mains' 50 or 60 Hz")

    def _check_duplicates(self, prints, findings):
        """Copies have the same projections; sorted by one number, they are neighbours."""
        prints = prints.reshape(len(prints), -1)
        rows = np.flatnonzero(prints.any(axis=1))
        rows = rows[np.argsort(prints[rows].sum(axis=1), kind="stable")]
        same = (np.abs(np.diff(prints[rows], axis=0)) < SAME_VALUES).all(axis=1)
        for copies in np.split(rows, np.flatnonzero(~same) + 1):
            first = copies.min(initial=len(prints))
            for copy in np.sort(copies)[1:]:
                findings.add("duplicate", copy, range(len(findings.lead_names)), first, 0,
                             f"the values of sample {first}", whole=True)
