"""A simulator of 12-lead electrocardiograms: a moving heart dipole seen by nine electrodes."""

from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
from scipy.fft import irfft, rfft, rfftfreq
from scipy.spatial.transform import Rotation
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from .._validation import STANDARD_LEADS

# What a dipole of 1 mV along x (to the left), y (to the feet), z (to the back) gives in eight leads [2]_.
_DOWER = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}

# Leads are differences of electrodes RA, LA, LL, V1-V6, for the heart and for the noise alike: so the
# identities of Einthoven (I + III = II) and Goldberger (aVR + aVL + aVF = 0) hold with noise, as on skin.
_MONTAGE = np.zeros((12, 9))
_MONTAGE[:6, :3] = [[-1, 1, 0], [-1, 0, 1], [0, -1, 1], [1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]]
_MONTAGE[6:, :3] = -1 / 3  # Wilson's central terminal
_MONTAGE[6:, 3:] = np.eye(6)


def _electrode_field():
    """Potential of each electrode against Wilson's terminal, per mV of dipole: shape (9, 3)."""
    field = {name: np.array(row) for name, row in _DOWER.items()}
    right_arm = -(field["I"] + field["II"]) / 3
    limbs = [right_arm, right_arm + field["I"], right_arm + field["II"]]
    return np.stack(limbs + [field[f"V{i}"] for i in range(1, 7)])


# One beat is a sum of Gaussian lobes of the dipole [3]_, tuned by eye to textbook tracings. Lobes of P are
# timed from the onset of P, the others from the R peak; ST and T stretch with the RR interval.
#             centre, width (ms, one standard deviation), left, down, back (mV)
_SINUS_BEAT = {
    "P right": (36, 16, 0.045, 0.070, -0.055),  # the right atrium lies in front and fires first
    "P left": (68, 17, 0.065, 0.065, 0.050),
    "Q": (-27, 8, -0.14, -0.06, -0.24),  # the septum, from left to right
    "R apex": (-3, 10, 0.75, 0.60, -0.30),
    "R wall": (13, 11, 0.70, 0.50, 0.55),
    "S": (35, 10, -0.12, -0.12, 0.32),  # the base of the heart, last
    "late": (70, 14, 0.0, 0.0, 0.0),
    "ST": (120, 40, 0.02, 0.015, -0.03),
    "T rise": (235, 48, 0.19, 0.13, -0.13),
    "T fall": (285, 32, 0.26, 0.19, -0.15),
}
_WAVES = tuple(_SINUS_BEAT)
_N_ATRIAL = 2
_FIRST_REPOLARISATION = _WAVES.index("ST")
_QRS_ONSET = 0.045  # s before the R peak


@dataclass(frozen=True)
class _Condition:
    """What sets a class apart from the normal ECG."""

    rate: tuple = (60, 99)  # beats per minute
    pr: tuple = (0.12, 0.20)  # s, onset of P to onset of QRS
    rhythm: str = "sinus"  # or "fibrillation", "ectopy"
    severity: tuple = (0.25, 1.05)  # share of the way from the normal beat to `waves`
    waves: dict = field(default_factory=dict)  # lobes that replace those of _SINUS_BEAT


_CONDITIONS = {
    "normal": _Condition(),
    "sinus bradycardia": _Condition(rate=(40, 59)),
    "sinus tachycardia": _Condition(rate=(101, 150)),
    "atrial fibrillation": _Condition(rate=(60, 130), rhythm="fibrillation"),
    "premature ventricular contractions": _Condition(rhythm="ectopy"),
    "first-degree AV block": _Condition(rate=(55, 90), pr=(0.205, 0.32)),
    "left bundle branch block": _Condition(
        severity=(0.6, 1.1),
        waves={  # no septal q; the left ventricle is reached late, through muscle; discordant ST and T
            "Q": (-28, 13, 0.20, 0.10, -0.08),
            "R apex": (2, 16, 0.65, 0.35, 0.55),
            "R wall": (36, 17, 0.35, 0.15, 1.00),
            "S": (68, 16, 0.75, 0.10, 0.75),
            "late": (98, 13, 0.15, 0.0, 0.25),
            "ST": (150, 42, -0.10, -0.03, -0.22),
            "T rise": (270, 48, -0.22, -0.08, -0.25),
            "T fall": (318, 34, -0.22, -0.06, -0.22),
        },
    ),
    "right bundle branch block": _Condition(
        severity=(0.6, 1.1),
        waves={  # a normal start; the right ventricle, right and in front, comes late
            "R wall": (12, 11, 0.75, 0.45, 0.45),
            "S": (44, 13, -0.20, 0.0, -0.25),
            "late": (76, 18, -0.52, -0.02, -0.62),
            "ST": (140, 40, 0.05, 0.0, 0.08),
            "T rise": (250, 48, 0.20, 0.11, 0.08),
            "T fall": (300, 32, 0.26, 0.14, 0.10),
        },
    ),
    "anterior myocardial infarction": _Condition(
        waves={  # the front wall is silent: the first forces go back; ST lifted in front; T inverted
            "Q": (-26, 10, -0.10, 0.05, 0.30),
            "R apex": (-3, 11, 0.30, 0.45, 0.45),
            "ST": (125, 45, 0.08, 0.02, -0.24),
            "T rise": (235, 45, 0.02, 0.08, -0.10),
            "T fall": (295, 34, -0.08, 0.12, 0.24),
        },
    ),
    "inferior myocardial infarction": _Condition(
        waves={  # the lower wall is silent: the first forces go up; ST lifted below; T inverted
            "Q": (-26, 12, -0.02, -0.60, -0.15),
            "R apex": (0, 10, 0.80, 0.15, -0.25),
            "R wall": (14, 11, 0.70, 0.42, 0.55),
            "ST": (125, 45, -0.06, 0.17, 0.05),
            "T rise": (240, 45, 0.14, 0.05, -0.10),
            "T fall": (295, 34, 0.20, -0.26, -0.12),
        },
    ),
    "left ventricular hypertrophy": _Condition(
        waves={  # more muscle, left and behind; ST and T strained the other way
            "R apex": (-3, 11, 1.15, 0.65, -0.20),
            "R wall": (15, 13, 1.25, 0.55, 1.05),
            "S": (40, 11, -0.05, -0.12, 0.45),
            "ST": (125, 42, -0.09, -0.04, -0.08),
            "T rise": (240, 48, -0.06, -0.03, -0.14),
            "T fall": (290, 32, -0.18, -0.08, -0.14),
        },
    ),
}


@dataclass(frozen=True)
class _Patient:
    """What the recordings of one patient share."""

    condition: _Condition
    beat: np.ndarray  # (n_waves, 5): centre, width (s), dipole (mV)
    ectopic_beat: np.ndarray  # (4, 5), with the last two lobes for repolarisation
    pr: float  # s
    rate: float  # beats per minute
    f_waves: tuple  # fibrillatory waves: frequency (Hz), dipoles (3, 2) of two phases (mV)
    electrodes: np.ndarray  # (9, 3), the patient's own lead field


def _draw_patient(rng, condition):
    normal = np.array(list(_SINUS_BEAT.values()))
    typical = np.array([condition.waves.get(name, lobe) for name, lobe in _SINUS_BEAT.items()])
    beat = normal + rng.uniform(*condition.severity) * (typical - normal)
    beat[:, :2] *= 1e-3 * rng.lognormal(0, 0.07, (len(beat), 2))
    tilt = Rotation.from_rotvec(rng.normal(0, 0.15, (len(beat), 3)))  # rad, each wave by itself
    axis = Rotation.from_rotvec(rng.normal(0, (0.12, 0.18, 0.32)))  # rad, most of all in the frontal plane
    size = rng.lognormal(0, 0.20) * rng.lognormal(0, 0.15, (len(beat), 1))
    beat[:, 2:] = (axis * tilt).apply(beat[:, 2:]) * size
    beat[_FIRST_REPOLARISATION:, 2:] *= rng.lognormal(0, 0.25)
    beat[_FIRST_REPOLARISATION:, :2] *= rng.lognormal(0, 0.05)  # QT corrected for rate

    # An ectopic focus, in either ventricle: its beats go slowly through muscle, T opposes QRS.
    focus = rng.standard_normal(3)
    focus *= rng.uniform(0.9, 1.6) / np.linalg.norm(focus)
    turned = Rotation.from_rotvec(rng.normal(0, 0.4, 3)).apply(focus)
    ectopic_dipoles = [0.8 * focus, 0.7 * turned, -0.15 * focus, -0.4 * turned]
    ectopic_shape = [(0.0, 0.024), (0.048, 0.024), (0.15, 0.045), (0.29, 0.055)]  # s

    coarse = rng.lognormal(np.log(0.05), 0.5)  # mV, strongest in V1, near the right atrium
    f_dipoles = rng.normal([(-0.3, 0.1), (0.3, 0.4), (-0.9, 0.2)], 0.25) * coarse

    electrodes = _electrode_field()
    shift = rng.normal(0, 0.20, (6, 1))  # along the chest, in distances between neighbours
    electrodes[3:] += shift * np.gradient(electrodes[3:], axis=0)
    electrodes[3:] *= rng.lognormal(0, 0.08, (6, 1))
    return _Patient(
        condition=condition,
        beat=beat,
        ectopic_beat=np.hstack([ectopic_shape, ectopic_dipoles]),
        pr=rng.uniform(*condition.pr),
        rate=rng.uniform(*condition.rate),
        f_waves=(rng.uniform(4.5, 8.0), f_dipoles),
        electrodes=electrodes,
    )


def _pink_noise(rng, n):
    """n values of 1/f noise with unit variance, zero mean."""
    frequency = rfftfreq(n)
    frequency[0] = np.inf
    pink = irfft(rfft(rng.standard_normal(n)) / np.sqrt(frequency), n)
    return pink / pink.std()


def _beat_times(rng, patient, duration, breath_rate, breath_phase):
    """When the sinus node and the ventricles fire, in s, and which ventricular beats are premature."""
    low, high = patient.condition.rate
    mean_rr = 60 / np.clip(patient.rate * rng.lognormal(0, 0.05), low, high)
    n_beats = int(np.ceil(1.5 * (duration + 3) / mean_rr)) + 4
    if patient.condition.rhythm == "fibrillation":
        irregular = rng.lognormal(-0.02, rng.uniform(0.10, 0.26), n_beats)
        rr = np.maximum(mean_rr * irregular, 0.32)  # s, while the AV node is refractory
    else:
        breath = np.sin(2 * np.pi * breath_rate * mean_rr * np.arange(n_beats) + breath_phase)
        depth = rng.lognormal(np.log(0.025), 0.7) * min(1, mean_rr) ** 2  # less so at high rates
        rr = mean_rr * (1 + depth * (breath + 0.6 * _pink_noise(rng, n_beats))).clip(0.7, 1.4)
    sinus = np.cumsum(rr) - rr[0] - mean_rr * rng.uniform(1.5, 2.5)
    sinus = sinus[sinus < duration + 1]
    ventricles, premature = sinus.copy(), np.zeros(len(sinus), bool)
    if patient.condition.rhythm == "ectopy":
        early = sinus[:-1] + rng.uniform(0.52, 0.68) * np.diff(sinus)
        chosen = 1 + np.flatnonzero((early > 0.1) & (early < duration - 0.2))
        chosen = chosen[_spread(rng, len(chosen), rng.uniform(0.05, 0.35))]
        # The sinus node keeps its time, its next beat finds the ventricles refractory: a compensatory pause.
        ventricles[chosen], premature[chosen] = early[chosen - 1], True
    return sinus, ventricles, premature


def _spread(rng, n, probability):
    """Indices of events among n chances: at least one, never two in a row."""
    chosen = rng.random(n) < probability
    if n:
        chosen[rng.integers(n)] |= not chosen.any()
    for i in range(1, n):
        chosen[i] &= not chosen[i - 1]
    return np.flatnonzero(chosen)


def _draw_dipole(rng, patient, n_times, fs):
    """The heart vector of one recording, shape (3, n_times), in mV."""
    duration = n_times / fs
    breath_rate, breath_phase = rng.uniform(0.15, 0.35), rng.uniform(0, 2 * np.pi)  # Hz, rad
    sinus, ventricles, premature = _beat_times(rng, patient, duration, breath_rate, breath_phase)
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

    rr = np.diff(ventricles, prepend=2 * ventricles[0] - ventricles[1])
    stretch = np.cbrt(rr)  # of QT, by Fridericia's rule
    fluctuation = 1 + 0.03 * rng.standard_normal((len(ventricles), len(_WAVES), 1))
    for i, start in enumerate(ventricles):
        if patient.condition.rhythm != "fibrillation":
            p_wave = patient.beat[:_N_ATRIAL].copy()
            p_wave[:, 0] += sinus[i] - _QRS_ONSET - patient.pr * stretch[i] ** 0.5
            p_wave[:, 2:] *= fluctuation[i, :_N_ATRIAL]
            add(p_wave)
        beat = patient.ectopic_beat if premature[i] else patient.beat[_N_ATRIAL:]
        repolarisation = slice(2 if premature[i] else _FIRST_REPOLARISATION - _N_ATRIAL, None)
        beat = beat.copy()
        beat[repolarisation, :2] *= stretch[i]
        beat[:, 0] += start
        beat[:, 2:] *= fluctuation[i, : len(beat)]
        add(beat)

    if patient.condition.rhythm == "fibrillation":  # a sawtooth whose frequency and size drift [4]_
        frequency, directions = patient.f_waves
        drift = np.sin(2 * np.pi * rng.uniform(0.1, 0.3) * times + rng.uniform(0, 2 * np.pi))
        phase = 2 * np.pi * np.cumsum(frequency + 0.6 * drift) / fs + rng.uniform(0, 2 * np.pi)
        harmonics = np.arange(1, 4)[:, None]
        for direction, wave in zip(directions.T, (np.sin, np.cos), strict=True):
            sawtooth = (wave(harmonics * phase) / harmonics).sum(axis=0)
            dipole += direction[:, None] * (1 + 0.3 * drift) * sawtooth

    # Breathing turns the heart (a small angle, hence the cross product) and fills the chest with air.
    breath = np.sin(2 * np.pi * breath_rate * times + breath_phase)
    turn = np.cross(rng.normal(0, 0.05, 3), dipole, axisb=0).T  # rad
    return dipole * (1 + 0.03 * breath) + turn * breath


def _draw_noise(rng, n_times, fs, mains):
    """Noise of nine electrodes, shape (9, n_times), in mV; its levels vary from one recording to the next."""
    times = np.arange(n_times) / fs
    frequency = rng.uniform(0.03, 0.45, 6)  # Hz, baseline wander: breathing, drift of the electrodes
    wander = np.sin(2 * np.pi * frequency[:, None] * times + rng.uniform(0, 2 * np.pi, (6, 1)))
    noise = rng.lognormal(np.log(0.04), 0.6) * rng.standard_normal((9, 6)) @ wander

    # Muscle: 20-150 Hz, of a given power per Hz, so that a lower `fs` records less of it.
    band = rfftfreq(n_times, 1 / fs)
    spectrum = rfft(rng.standard_normal((9, n_times))) * ((band >= 20) & (band <= 150))
    strength = rng.lognormal(np.log(0.025), 0.6, (9, 1)) * np.sqrt(fs / 2 / 130)
    effort = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * times + rng.uniform(0, 2 * np.pi))
    noise += strength * irfft(spectrum, n_times) * effort

    if mains < fs / 2:  # otherwise the recorder's filter has removed it: never an alias
        hum = np.sin(2 * np.pi * (mains + rng.normal(0, 0.02)) * times + rng.uniform(0, 2 * np.pi))
        noise += rng.lognormal(np.log(0.008), 0.6) * rng.standard_normal((9, 1)) * hum
    return noise


def _match(given, known, parameter):
    """Indices of the `given` names among the `known`, without regard to case."""
    given = [given] if isinstance(given, str) else list(given)
    index = {name.lower(): i for i, name in enumerate(known)}
    unknown = [name for name in given if str(name).lower() not in index]
    if unknown:
        raise ValueError(f"{parameter} has unknown names {unknown}. Choose from {list(known)}, in any case.")
    matched = [index[str(name).lower()] for name in given]
    if not matched or len(set(matched)) < len(matched):
        raise ValueError(f"{parameter} must give at least one name, and each name once. Got {given} instead.")
    return matched


def _allot(rng, shares, counts):
    """The class furthest behind its share, ties broken at random: quotas hold for any number of patients."""
    lag = shares * (counts.sum() + 1) - counts
    return np.argmax(lag + 1e-6 * rng.random(len(shares)) - 1e9 * (shares == 0))


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_patients": [Interval(Integral, 1, None, closed="left"), None],
        "classes": ["array-like", str, None],
        "weights": ["array-like", None],
        "duration": [Interval(Real, 0, None, closed="neither")],
        "fs": [Interval(Real, 50, None, closed="left")],
        "lead_names": ["array-like", str],
        "noise": [Interval(Real, 0, None, closed="left")],
        "mains": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_ecg(
    n_samples=200,
    *,
    n_patients=None,
    classes=None,
    weights=None,
    duration=10.0,
    fs=100.0,
    lead_names=STANDARD_LEADS,
    noise=1.0,
    mains=50.0,
    random_state=None,
):
    """Simulate 12-lead electrocardiograms of patients with normal and diseased hearts.

    The heart is a dipole that moves in three dimensions [1]_: each wave of each beat is a sum of Gaussian
    lobes [3]_, seen by nine electrodes through the lead field of Dower et al. [2]_. Patients differ in the
    shape, size and axis of their waves, in heart rate, PR and QT interval, and in where the electrodes sit.
    A patient's recordings differ in rate, breathing and noise. Each patient has one class.

    Parameters
    ----------
    n_samples : int, default=200
        Number of recordings.

    n_patients : int, default=None
        Number of patients, at most `n_samples`; the recordings are shared out evenly. By default a patient
        has three recordings, or fewer where that would leave classes without a patient.

    classes : sequence of str, default=None
        Classes to draw from, by default all: "normal", "sinus bradycardia", "sinus tachycardia", "atrial
        fibrillation" (irregular, no P waves), "premature ventricular contractions" (early wide beats, then a
        pause), "first-degree AV block" (long PR), "left bundle branch block", "right bundle branch block",
        "anterior myocardial infarction", "inferior myocardial infarction", "left ventricular hypertrophy".

    weights : array-like of shape (n_classes,), default=None
        Proportions of patients per class, scaled to a sum of one. By default classes are balanced.

    duration : float, default=10.0
        Length of a recording in s. Recordings under some 3 s may not show what is rare or a matter of rhythm.

    fs : float, default=100.0
        Sampling rate in Hz, at least 50.

    lead_names : sequence of str, default=the 12 standard leads
        Leads to return, in this order, matched without regard to case.

    noise : float, default=1.0
        Factor on the noise (baseline wander below 0.5 Hz, muscle noise from 20 to 150 Hz, mains); 0 for none.
        The hearts do not depend on it.

    mains : float, default=50.0
        Frequency of the mains in Hz (60 in the Americas). It leaves no trace unless it is below `fs / 2`.

    random_state : int, RandomState instance or None, default=None
        Determines all randomness. Pass an int for reproducible output across multiple function calls.

    Returns
    -------
    X : ndarray of shape (n_samples, n_leads, n_times), dtype float32
        Electrocardiograms in mV, with `n_times = round(duration * fs)`.

    y : ndarray of shape (n_samples,), dtype str
        Class of each recording.

    groups : ndarray of shape (n_samples,), dtype int
        Patient of each recording, ascending from 0.

    Raises
    ------
    ValueError
        If a parameter is out of range, a lead or class is unknown or named twice, `weights` do not fit
        `classes`, or there are more patients than recordings.

    Notes
    -----
    - Patients are independent of each other and of `n_samples`: with the same `random_state`, `classes` and
      `weights`, patient 3 is the same heart in a larger data set, in other leads, and at another `fs`.
    - Fibrillatory waves are a sawtooth of 4 to 9 Hz whose frequency and size drift [4]_.
    - Classes overlap on purpose: patients have a disease more or less severely, and a wide normal variation.
    - It is a phantom to test and to teach with. Performance on it says nothing about performance on patients.

    References
    ----------
    .. [1] Sameni, Clifford, Jutten, Shamsollahi. Multichannel ECG and noise modeling: application to maternal
       and fetal ECG signals. EURASIP J. Adv. Signal Process. 2007, 043407.
    .. [2] Dower, Machado, Osborne. On deriving the electrocardiogram from vectorcardiographic leads.
       Clin. Cardiol. 3 (1980), 87-95.
    .. [3] McSharry, Clifford, Tarassenko, Smith. A dynamical model for generating synthetic electrocardiogram
       signals. IEEE Trans. Biomed. Eng. 50 (2003), 289-294.
    .. [4] Stridh, Sörnmo. Spatiotemporal QRST cancellation techniques for analysis of atrial fibrillation.
       IEEE Trans. Biomed. Eng. 48 (2001), 105-111.

    Examples
    --------
    >>> from skecg.datasets import make_ecg
    >>> X, y, groups = make_ecg(30, n_patients=11, fs=100, random_state=0)
    >>> X.shape
    (30, 12, 1000)
    >>> len(set(y)), len(set(groups))
    (11, 11)
    >>> X, y, groups = make_ecg(4, classes=["normal", "atrial fibrillation"], fs=250, lead_names=["II", "V1"])
    >>> X.shape
    (4, 2, 2500)
    """
    leads = _match(lead_names, STANDARD_LEADS, "lead_names")
    names = np.array(list(_CONDITIONS))
    if classes is not None:
        names = names[_match(classes, list(_CONDITIONS), "classes")]
    shares = np.ones(len(names)) if weights is None else np.asarray(weights, dtype=float)
    if shares.shape != names.shape or not np.all(np.isfinite(shares) & (shares >= 0)) or shares.sum() == 0:
        raise ValueError(
            f"weights must hold one finite number >= 0 for each of the {len(names)} classes, not all zero. "
            f"Got {weights!r} instead; give one proportion per class, in the order of `classes`."
        )
    if n_patients is None:
        n_patients = min(n_samples, max(-(-n_samples // 3), len(names)))
    if n_patients > n_samples:
        raise ValueError(
            f"n_patients={n_patients} is more than n_samples={n_samples}, but each patient has at least one "
            "recording; give fewer patients or more samples."
        )
    n_times = round(duration * fs)
    if n_times < 1:
        raise ValueError(f"duration={duration} s at fs={fs} Hz is less than one sample; give a longer one.")

    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    groups = np.sort(np.arange(n_samples) % n_patients)
    labels, counts = np.empty(n_patients, dtype=int), np.zeros(len(names))
    X = np.empty((n_samples, len(leads), n_times), dtype=np.float32)
    for patient_id, n_records in enumerate(np.bincount(groups)):
        rng = np.random.default_rng([seed, patient_id])
        labels[patient_id] = label = _allot(rng, shares / shares.sum(), counts)
        counts[label] += 1
        patient = _draw_patient(rng, _CONDITIONS[names[label]])
        rows = np.flatnonzero(groups == patient_id)
        for row, record_rng in zip(rows, rng.spawn(int(n_records)), strict=True):
            potential = patient.electrodes @ _draw_dipole(record_rng, patient, n_times, fs)
            if noise:
                potential += noise * _draw_noise(record_rng, n_times, fs, mains)
            X[row] = (_MONTAGE @ potential)[leads]
    return X, names[labels[groups]], groups
