"""The heart of the simulator: patients, rhythms, and the dipole that they move."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, rfft, rfftfreq
from scipy.spatial.transform import Rotation

from ._synthetic_classes import FIRST_REPOLARISATION, MEASURED_BEAT, N_ATRIAL, SINUS_BEAT, Condition
from ._synthetic_torso import MEASURED_PLACES, electrode_field, field_change


@dataclass(frozen=True)
class Patient:
    """What the recordings of one patient share."""

    condition: Condition
    p_waves: dict  # by origin, (2, 5): centre, width (s), dipole (mV)
    beats: dict  # by origin, (n, 5), with the lobes of repolarisation last
    pr: float  # s
    rate: float  # beats per minute
    f_waves: tuple  # fibrillatory waves: frequency (Hz), dipoles (3, 2) of two phases (mV)
    flutter: tuple  # period (s), dipole (mV), beats conducted: one in so many, 0 for now these, now those
    breathing: float  # least respiratory share of the RR interval
    variation: tuple  # of the RR interval: a factor on its depth, and a limit to it
    coupling: tuple  # of ventricular premature beats, as a share of the RR interval
    group: int  # P waves from one that is not conducted to the next
    escape: str  # origin of the beats that stand in when none is conducted
    spike: np.ndarray  # (3,), dipole of the pacemaker's impulse (mV)
    electrodes: np.ndarray  # (9, 3), the patient's own lead field
    age: float  # years, NaN unless ages were asked for
    sex: str  # "F", "M", or "" unless ages were asked for


def draw_patient(rng, extra, condition, ages=None):
    """A patient of this condition. With ``ages``, two numbers of years, what age and sex change is changed.

    ``extra`` is a second generator, for what not all classes have: it leaves alone what `rng` draws for the others.
    """
    normal = np.array(list(SINUS_BEAT.values()))
    typical = np.array([condition.waves.get(name, lobe) for name, lobe in SINUS_BEAT.items()])
    healthy = normal
    if ages is not None:
        healthy = np.array(list(MEASURED_BEAT.values()))
        for name, dipole in condition.measured.items():
            typical[list(SINUS_BEAT).index(name), 2:] += dipole
    beat = healthy + rng.uniform(*condition.severity) * (typical - normal)
    beat[:, :2] *= 1e-3 * rng.lognormal(0, 0.07, (len(beat), 2))
    tilt = Rotation.from_rotvec(rng.normal(0, 0.15, (len(beat), 3)))  # rad, each wave by itself
    spread = 1.0 if ages is None else 0.8  # age and sex have their part
    axis = Rotation.from_rotvec(spread * rng.normal(0, (0.12, 0.18, 0.32)))  # rad, most of all in the frontal plane
    size = rng.lognormal(0, 0.20) * rng.lognormal(0, 0.15, (len(beat), 1))
    beat[:, 2:] = (axis * tilt).apply(beat[:, 2:]) * size
    beat[FIRST_REPOLARISATION:, 2:] *= rng.lognormal(0, 0.25)
    beat[FIRST_REPOLARISATION:, :2] *= rng.lognormal(0, 0.05)  # QT corrected for rate

    # An ectopic focus, in either ventricle: its beats go slowly through muscle, T opposes QRS.
    focus = rng.standard_normal(3)
    focus *= rng.uniform(0.9, 1.6) / np.linalg.norm(focus)
    turned = Rotation.from_rotvec(rng.normal(0, 0.4, 3)).apply(focus)
    ectopic_dipoles = [0.8 * focus, 0.7 * turned, -0.15 * focus, -0.4 * turned]
    ectopic_shape = [(0.0, 0.024), (0.048, 0.024), (0.15, 0.045), (0.29, 0.055)]  # s

    coarse = rng.lognormal(np.log(0.05), 0.5)  # mV, strongest in V1, near the right atrium
    f_dipoles = rng.normal([(-0.3, 0.1), (0.3, 0.4), (-0.9, 0.2)], 0.25) * coarse

    electrodes = electrode_field()
    if ages is not None:
        electrodes += field_change(MEASURED_PLACES)
    shift = rng.normal(0, 0.20, (6, 1))  # along the chest, in distances between neighbours
    electrodes[3:] += shift * np.gradient(electrodes[3:], axis=0)
    electrodes[3:] *= rng.lognormal(0, 0.08, (6, 1))
    pr, rate = rng.uniform(*condition.pr), rng.uniform(*condition.rate)
    f_frequency = rng.uniform(4.5, 8.0)

    years, sex = extra.uniform(), "FM"[extra.integers(2)]
    age, variation = np.nan, (1.0, np.inf)
    if ages is None:
        sex = ""
    else:
        age = ages[0] + years * (ages[1] - ages[0])
        pr, rate, variation = _mature(beat, pr, rate, condition, age, sex)

    p_wave = beat[:N_ATRIAL]
    ectopic_p, retrograde_p = p_wave.copy(), p_wave.copy()
    ectopic_p[:, 2:] = Rotation.from_rotvec(extra.normal(0, 0.9, 3)).apply(p_wave[:, 2:])
    retrograde_p[:, 2:] *= (0.5, -1.0, 1.0)  # from the AV node upwards
    # Counterclockwise around the right atrium: down its wall in front, up the septum; seen from the feet mostly.
    flutter_dipole = extra.normal((0.01, 0.12, -0.05), (0.015, 0.02, 0.015)) * extra.lognormal(0, 0.25)
    return Patient(
        condition=condition,
        p_waves={"sinus": p_wave, "ectopic": ectopic_p, "retrograde": retrograde_p},
        beats={"own": beat[N_ATRIAL:], "ectopic": np.hstack([ectopic_shape, ectopic_dipoles])},
        pr=pr,
        rate=rate,
        f_waves=(f_frequency, f_dipoles),
        flutter=(extra.uniform(0.19, 0.24), flutter_dipole, extra.choice([0, 2, 3, 4], p=[0.3, 0.3, 0.1, 0.3])),
        breathing=extra.uniform(*condition.breathing),
        variation=variation,
        coupling=(0.52, 0.68) if ages is None else (0.58, 0.80),
        group=extra.integers(3, 6),
        escape=extra.choice(["own", "ectopic"]),
        spike=extra.normal((0.10, 0.45, -0.15), 0.1) * extra.lognormal(0, 0.4),
        electrodes=electrodes,
        age=age,
        sex=sex,
    )


def _mature(beat, pr, rate, condition, age, sex):
    """What age and sex change, relative to the mean of both sexes at 50: of `beat` in place; PR, rate, variation."""
    decades, woman = (age - 50) / 10, 0.5 if sex == "F" else -0.5
    qrs, repolarisation = slice(N_ATRIAL, FIRST_REPOLARISATION), slice(FIRST_REPOLARISATION, None)
    downward = Rotation.from_rotvec([0, 0, np.radians(6 * woman - 4.5 * decades)])  # to the feet from the left
    beat[N_ATRIAL:, 2:] = downward.apply(beat[N_ATRIAL:, 2:])
    beat[qrs, 2:] *= (1 - 0.02 * decades) * (1 - 0.17 * woman)
    beat[qrs, :2] *= 1 - 0.07 * woman
    beat[repolarisation, 2:] *= (1 - 0.04 * decades) * (1 - 0.2 * woman)
    beat[repolarisation, :2] *= (1 + 0.01 * decades) * (1 + 0.03 * woman)
    pr = max(condition.pr[0], pr + 0.004 * decades - 0.010 * woman)
    # Rates crowd towards that of rest, from whichever side of it the class lies.
    rest = np.clip(64, *condition.rate)
    span = (condition.rate[1] if rate > rest else condition.rate[0]) - rest
    rate = rest + span * ((rate - rest) / span if span else 0) ** 2.2
    return pr, np.clip(rate + 4 * woman, *condition.rate), (2.3 * np.exp(-0.1 * decades), 0.09)


def _pink_noise(rng, n):
    """n values of 1/f noise with unit variance, zero mean."""
    frequency = rfftfreq(n)
    frequency[0] = np.inf
    pink = irfft(rfft(rng.standard_normal(n)) / np.sqrt(frequency), n)
    return pink / pink.std()


def _spread(rng, n, probability):
    """Indices of events among n chances: at least one, never two in a row."""
    chosen = rng.random(n) < probability
    if n:
        chosen[rng.integers(n)] |= not chosen.any()
    for i in range(1, n):
        chosen[i] &= not chosen[i - 1]
    return np.flatnonzero(chosen)


class _Cycle(NamedTuple):
    """One beat of the atria, of the ventricles, or of both. Times in s, None for what does not fire."""

    p_onset: float | None
    r_peak: float | None
    symbol: str = ""
    p_wave: str = "sinus"
    beat: str = "own"


class _Rhythm(NamedTuple):
    """What fires in one recording."""

    cycles: list
    notes: tuple = ()  # (s, text) of each change of rhythm after the first
    fibrillation: float | None = None  # s, from when on the atria fibrillate
    flutter: tuple | None = None  # s, when a flutter wave begins, and the period


class _Breath(NamedTuple):
    rate: float  # Hz
    phase: float  # rad


def _sinus_times(rng, patient, duration, breath):
    """When the sinus node would have the ventricles fire, in s."""
    mean_rr = _mean_rr(rng, patient)
    n_beats = _enough(duration, mean_rr)
    swing = np.sin(2 * np.pi * breath.rate * mean_rr * np.arange(n_beats) + breath.phase)
    depth = rng.lognormal(np.log(0.025), 0.7) * min(1, mean_rr) ** 2  # less so at high rates
    factor, limit = patient.variation
    depth = max(min(depth * factor, limit), patient.breathing)
    rr = mean_rr * (1 + depth * (swing + 0.6 * _pink_noise(rng, n_beats))).clip(0.7, 1.4)
    return _from_before(rng, rr, mean_rr, duration)


def _fibrillation_times(rng, patient, duration):
    mean_rr = _mean_rr(rng, patient)
    irregular = rng.lognormal(-0.02, rng.uniform(0.10, 0.26), _enough(duration, mean_rr))
    rr = np.maximum(mean_rr * irregular, 0.32)  # s, while the AV node is refractory
    return _from_before(rng, rr, mean_rr, duration)


def _mean_rr(rng, patient):
    return 60 / np.clip(patient.rate * rng.lognormal(0, 0.05), *patient.condition.rate)


def _enough(duration, mean_rr):
    return int(np.ceil(1.5 * (duration + 3) / mean_rr)) + 4


def _from_before(rng, rr, mean_rr, duration):
    """Times of the beats, the first two before the recording begins."""
    times = np.cumsum(rr) - rr[0] - mean_rr * rng.uniform(1.5, 2.5)
    return times[times < duration + 1]


def _stretch(r_peaks):
    """Factor on the QT interval of each beat, by Fridericia's rule."""
    return np.cbrt(np.diff(r_peaks, prepend=2 * r_peaks[0] - r_peaks[1]))


def _p_onsets(patient, times, stretch):
    """Onset of the P waves of beats that the sinus node would have at ``times``."""
    return [t - patient.condition.onset - patient.pr * s**0.5 for t, s in zip(times, stretch, strict=True)]


def _sinus(rng, patient, duration, breath):
    return sinus_beats(patient, _sinus_times(rng, patient, duration, breath))


def sinus_beats(patient, times):
    """The rhythm of beats at these times of the R peak, in s, ascending, each with its P wave."""
    onsets = _p_onsets(patient, times, _stretch(times))
    return _Rhythm([_Cycle(p, r, patient.condition.symbol) for p, r in zip(onsets, times, strict=True)])


def _fibrillation(rng, patient, duration, breath):
    times = _fibrillation_times(rng, patient, duration)
    return _Rhythm([_Cycle(None, r, "N") for r in times], fibrillation=-np.inf)


def _paroxysm(rng, patient, duration, breath):
    """Sinus rhythm that gives way to fibrillation."""
    start = duration * rng.uniform(0.3, 0.6)
    before = _sinus(rng, patient, duration, breath).cycles
    before = [cycle for cycle in before if cycle.r_peak < start]
    after = _fibrillation_times(rng, patient, duration)
    after = after - after[0] + before[-1].r_peak + 60 / patient.rate * rng.uniform(0.6, 0.9)
    cycles = before + [_Cycle(None, r, "N") for r in after if r < duration + 1]
    start = before[-1].r_peak + 0.2
    return _Rhythm(cycles, notes=((start, "(AFIB"),), fibrillation=start)


def _ventricular_ectopy(rng, patient, duration, breath):
    sinus = _sinus_times(rng, patient, duration, breath)
    ventricles, premature = sinus.copy(), np.zeros(len(sinus), bool)
    early = sinus[:-1] + rng.uniform(*patient.coupling) * np.diff(sinus)
    chosen = 1 + np.flatnonzero((early > 0.1) & (early < duration - 0.2))
    chosen = chosen[_spread(rng, len(chosen), rng.uniform(0.05, 0.35))]
    # The sinus node keeps its time, its next beat finds the ventricles refractory: a compensatory pause.
    ventricles[chosen], premature[chosen] = early[chosen - 1], True
    onsets = _p_onsets(patient, sinus, _stretch(ventricles))
    return _Rhythm([
        _Cycle(p, r, "V", beat="ectopic") if early else _Cycle(p, r, "N")
        for p, r, early in zip(onsets, ventricles, premature, strict=True)
    ])


def _atrial_ectopy(rng, patient, duration, breath):
    times = _sinus_times(rng, patient, duration, breath)
    shares = np.ones(len(times) - 1)
    # The early beat resets the sinus node: the pause after it does not make up for it.
    within = np.flatnonzero((times[1:] > 0.5) & (times[1:] < duration - 0.3))
    chosen = within[_spread(rng, len(within), rng.uniform(0.08, 0.3))]
    shares[chosen] = rng.uniform(0.62, 0.82)
    shares[chosen[chosen + 1 < len(shares)] + 1] = rng.uniform(1.08, 1.28)
    premature = np.concatenate([[False], shares < 1])
    times = np.concatenate([times[:1], times[0] + np.cumsum(shares * np.diff(times))])
    onsets = _p_onsets(patient, times, _stretch(times))
    return _Rhythm([
        _Cycle(p, r, "A", p_wave="ectopic") if early else _Cycle(p, r, "N")
        for p, r, early in zip(onsets, times, premature, strict=True)
    ])


def _flutter(rng, patient, duration, breath):
    period, _, conducted = patient.flutter
    period *= rng.lognormal(0, 0.01)
    n_beats = _enough(duration, 2 * period)
    ratios = np.full(n_beats, conducted) if conducted else rng.choice([2, 3, 4], n_beats, p=[0.4, 0.2, 0.4])
    times = np.cumsum(ratios) * period + rng.normal(0, 0.004, n_beats)
    times -= 2 * period * rng.uniform(2, 4)
    cycles = [_Cycle(None, r, "N") for r in times if r < duration + 1]
    return _Rhythm(cycles, flutter=(times[0] - rng.uniform(0.3, 0.5) * period, period))


def _reentry(rng, patient, duration, breath):
    """Round the AV node: regular and fast, the atria fired from below, as QRS ends."""
    rr = _mean_rr(rng, patient) * (1 + rng.normal(0, 0.006, _enough(duration, 0.3)))
    times = _from_before(rng, rr, rr[0], duration)
    return _Rhythm([_Cycle(r + 0.04, r, patient.condition.symbol, p_wave="retrograde") for r in times])


def _ventricular_tachycardia(rng, patient, duration, breath):
    """A ventricular focus, and a sinus node of which the ventricles know nothing."""
    rr = 60 / rng.uniform(135, 195) * (1 + rng.normal(0, 0.01, _enough(duration, 0.3)))
    ventricles = _from_before(rng, rr, rr[0], duration)
    atria = _sinus_times(rng, patient, duration, breath)
    return _Rhythm(
        [_Cycle(p, None) for p in atria] + [_Cycle(None, r, "V", beat="ectopic") for r in ventricles]
    )


def _wenckebach(rng, patient, duration, breath):
    """PR grows by less and less until a P wave is not conducted."""
    atria = _sinus_times(rng, patient, duration, breath) - patient.condition.onset - patient.pr
    growth, place = rng.uniform(0.07, 0.12), rng.integers(patient.group)
    cycles = []
    for p in atria:
        blocked = place == patient.group - 1
        pr = patient.pr + growth * (2 - 2.0 ** (1 - place))
        cycles.append(_Cycle(p, None if blocked else p + pr + patient.condition.onset, "N"))
        place = (place + 1) % patient.group
    return _Rhythm(cycles)


def _dissociation(rng, patient, duration, breath):
    """No P wave is conducted: the AV node or the ventricles beat by themselves, slowly."""
    junction = patient.escape == "own"
    mean_rr = 60 / rng.uniform(*((40, 54) if junction else (28, 42)))
    rr = mean_rr * (1 + rng.normal(0, 0.012, _enough(duration, mean_rr)))
    ventricles = _from_before(rng, rr, mean_rr, duration)
    atria = _sinus_times(rng, patient, duration, breath)
    symbol = "j" if junction else "E"
    return _Rhythm(
        [_Cycle(p, None) for p in atria] + [_Cycle(None, r, symbol, beat=patient.escape) for r in ventricles]
    )


RHYTHMS = {
    "sinus": _sinus,
    "fibrillation": _fibrillation,
    "ectopy": _ventricular_ectopy,
    "paroxysm": _paroxysm,
    "atrial ectopy": _atrial_ectopy,
    "flutter": _flutter,
    "reentry": _reentry,
    "ventricular tachycardia": _ventricular_tachycardia,
    "Wenckebach": _wenckebach,
    "dissociation": _dissociation,
}


def draw_dipole(rng, patient, n_times, fs, rhythm=None):
    """The heart vector of one recording, shape (3, n_times), in mV; its waves and notes, as `annotate` takes them.

    The rhythm is drawn too, unless one is given (of :func:`sinus_beats`).
    """
    duration = n_times / fs
    breath = _Breath(rng.uniform(0.15, 0.35), rng.uniform(0, 2 * np.pi))
    if rhythm is None:
        rhythm = RHYTHMS[patient.condition.rhythm](rng, patient, duration, breath)
    times = np.arange(n_times) / fs
    # A recorder filters before it samples. A Gaussian blurred by a Gaussian is a Gaussian, so this is exact.
    blur = 0.35 / fs  # s
    dipole = np.zeros((3, n_times))

    def add(lobes):
        width = np.hypot(lobes[:, 1], blur)
        first = max(0, int((lobes[:, 0] - 5 * width).min() * fs))
        last = min(n_times, int((lobes[:, 0] + 5 * width).max() * fs) + 1)
        if first < last:
            shape = np.exp(-0.5 * ((times[first:last] - lobes[:, :1]) / width[:, None]) ** 2)
            dipole[:, first:last] += (lobes[:, 2:] * (lobes[:, 1] / width)[:, None]).T @ shape

    stretch = iter(_stretch(np.array([cycle.r_peak for cycle in rhythm.cycles if cycle.r_peak is not None])))
    fluctuation = 1 + 0.03 * rng.standard_normal((len(rhythm.cycles), len(SINUS_BEAT), 1))
    waves = []
    for cycle, change in zip(rhythm.cycles, fluctuation, strict=True):
        if cycle.p_onset is not None:
            p_wave = patient.p_waves[cycle.p_wave].copy()
            p_wave[:, 0] += cycle.p_onset
            p_wave[:, 2:] *= change[:N_ATRIAL]
            add(p_wave)
            waves.append(("p", p_wave))
        if cycle.r_peak is not None:
            beat = patient.beats[cycle.beat].copy()
            n_qrs = 2 if cycle.beat == "ectopic" else FIRST_REPOLARISATION - N_ATRIAL
            beat[n_qrs:, :2] *= next(stretch)
            beat[:, 0] += cycle.r_peak
            beat[:, 2:] *= change[: len(beat)]
            add(beat)
            waves += [(cycle.symbol, beat[:n_qrs]), ("t", beat[n_qrs + 1 :])]
            if cycle.symbol == "/":
                add(np.array([[cycle.r_peak - patient.condition.onset, 0.0004, *patient.spike]]))

    if rhythm.fibrillation is not None:  # a sawtooth whose frequency and size drift
        frequency, directions = patient.f_waves
        drift = np.sin(2 * np.pi * rng.uniform(0.1, 0.3) * times + rng.uniform(0, 2 * np.pi))
        phase = 2 * np.pi * np.cumsum(frequency + 0.6 * drift) / fs + rng.uniform(0, 2 * np.pi)
        harmonics = np.arange(1, 4)[:, None]
        for direction, wave in zip(directions.T, (np.sin, np.cos), strict=True):
            sawtooth = (wave(harmonics * phase) / harmonics).sum(axis=0)
            begun = ((times - rhythm.fibrillation) / 0.2).clip(0, 1)
            dipole += direction[:, None] * (1 + 0.3 * drift) * sawtooth * begun
    if rhythm.flutter is not None:  # regular: falls slowly, rises at once
        start, period = rhythm.flutter
        harmonics = np.arange(1, 7)[:, None]
        smooth = np.exp(-0.5 * (harmonics * 2 * np.pi * 0.016 / period) ** 2)  # the rise takes some 40 ms
        flutter = (smooth * np.sin(harmonics * 2 * np.pi * (times - start) / period) / harmonics).sum(axis=0)
        dipole += patient.flutter[1][:, None] * flutter

    # Breathing turns the heart (a small angle, hence the cross product) and fills the chest with air.
    swing = np.sin(2 * np.pi * breath.rate * times + breath.phase)
    turn = np.cross(rng.normal(0, 0.05, 3), dipole, axisb=0).T  # rad
    notes = [(0.0, patient.condition.note), *rhythm.notes]
    return dipole * (1 + 0.03 * swing) + turn * swing, waves, notes


def annotate(waves, notes, n_times, fs, fiducials):
    """Events of one recording in order of time: sample, WFDB symbol, note.

    A beat is where its dipole is longest. With ``fiducials``, so is a P or T wave, and brackets hold what exceeds
    a twentieth of that, of QRS a fiftieth. Brackets never cross: what runs into QRS ends there.
    """
    spans = []  # onset, peak, end, symbol
    for symbol, lobes in waves:
        if symbol in "pt" and not fiducials:
            continue
        centre, width = lobes[:, :1], lobes[:, 1:2]
        times = np.arange((centre - 4 * width).min(), (centre + 4 * width).max(), 0.001)  # s
        size = np.linalg.norm(lobes[:, 2:].T @ np.exp(-0.5 * ((times - centre) / width) ** 2), axis=0)
        seen = times[size > (0.05 if symbol in "pt" else 0.02) * size.max()]
        spans.append([seen[0], times[size.argmax()], seen[-1], symbol])
    spans.sort(key=lambda span: span[1])
    for first, second in pairwise(spans):
        cut = first[2] if first[3] not in "pt" else second[0]
        if "".join((first[3], second[3])) in ("pt", "tp"):
            cut = min(max(cut, first[1]), second[1])
        if first[3] in "pt":
            first[2] = min(first[2], cut)
        if second[3] in "pt":
            second[0] = max(second[0], cut)
    events = [(t, "+", note) for t, note in notes]
    for onset, peak, end, symbol in spans:
        bracketed = int(fiducials and onset < peak < end)  # not where QRS hides it
        events += [(onset, "(", "")] * bracketed + [(peak, symbol, "")] + [(end, ")", "")] * bracketed
    events = [(round(t * fs), symbol, note) for t, symbol, note in events]
    return sorted((e for e in events if 0 <= e[0] < n_times), key=lambda e: (e[0], e[1] != "+"))
