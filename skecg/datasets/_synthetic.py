"""A simulator of 12-lead electrocardiograms: a moving heart dipole seen by nine electrodes."""

from inspect import signature
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from .._validation import STANDARD_LEADS
from ._records import ECGRecord
from ._synthetic_classes import CONDITIONS, N_DEFAULT_CLASSES
from ._synthetic_heart import annotate, draw_dipole, draw_patient
from ._synthetic_torso import ELECTRODES, MONTAGE, draw_noise, field_change

# Noise of the normal recordings of PTB-XL against that of `draw_noise`, in amplitude.
_MEASURED_NOISE = 0.45

_CONSTRAINTS = {
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "n_patients": [Interval(Integral, 1, None, closed="left"), None],
    "classes": ["array-like", str, None],
    "weights": ["array-like", None],
    "duration": [Interval(Real, 0, None, closed="neither")],
    "fs": [Interval(Real, 50, None, closed="left")],
    "lead_names": ["array-like", str],
    "noise": [Interval(Real, 0, None, closed="left")],
    "mains": [Interval(Real, 0, None, closed="neither")],
    "ages": ["array-like", None],
    "electrode_shift": [Interval(Real, 0, 5, closed="both")],
    "swap": ["array-like", None],
    "random_state": ["random_state"],
}


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
    ages=None,
    electrode_shift=0.0,
    swap=None,
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

    classes : sequence of str or "all", default=None
        Classes to draw from, of those listed in the notes; by default the first eleven.

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
        The hearts do not depend on it. With `ages`, 1 is the level of clinical recordings, about half as much.

    mains : float, default=50.0
        Frequency of the mains in Hz (60 in the Americas). It leaves no trace unless it is below `fs / 2`.

    ages : pair of float, default=None
        Draws each patient's age evenly between these years, both from 16 to 100, and a sex, and changes the
        heart accordingly. Such hearts resemble those of real recordings more than the default ones do (see
        Notes), which have neither age nor sex.

    electrode_shift : float, default=0.0
        Standard deviation in cm, at most 5, of the displacement of V1 to V6, sideways and upwards, drawn for
        each recording. Technicians reach about 2 [5]_. The hearts and the noise do not depend on it.

    swap : pair of str, default=None
        Two electrodes of RA, LA, LL, V1, ..., V6 that are exchanged in every recording, e.g. ``("RA", "LA")``.

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
        If a parameter is out of range, a lead, class or electrode is unknown or named twice, `weights` do not
        fit `classes`, or there are more patients than recordings.

    See Also
    --------
    make_ecg_records : The same recordings with annotated beats, ages and sexes.

    Notes
    -----
    **Classes.** By default: "normal", "sinus bradycardia", "sinus tachycardia", "atrial fibrillation"
    (irregular, no P waves), "premature ventricular contractions" (early wide beats, then a pause),
    "first-degree AV block" (long PR), "left bundle branch block", "right bundle branch block", "anterior
    myocardial infarction", "inferior myocardial infarction", "left ventricular hypertrophy". On request:
    "sinus arrhythmia" (RR follows breathing), "premature atrial contractions" (early, with a P wave of another
    shape), "paroxysmal atrial fibrillation" (begins during the recording), "atrial flutter" (a sawtooth of 250
    to 315 a minute; one in two, three or four conducted, or now these, now those), "supraventricular
    tachycardia" (regular, 150 to 210), "ventricular tachycardia" (regular and wide, 135 to 195, P waves apart),
    "second-degree AV block" (Wenckebach: PR grows until a beat drops out), "third-degree AV block" (P waves
    and slow beats, narrow or wide, apart from each other), "ventricular paced rhythm", "Wolff-Parkinson-White
    pattern" (short PR, delta wave), "left anterior fascicular block", "right ventricular hypertrophy",
    "myocardial ischaemia" (ST depressed, T flat or inverted).

    **Lead field.** The limb leads and V1-V6 are Dower's vectors [2]_ times the dipole. The chest is an elliptic
    cylinder of 30 by 22 cm. Moving an electrode over it adds what the field of a dipole in a homogeneous
    conductor changes on the way; its place and strength are fitted to Dower's vectors, of whose squared length
    it accounts for 92 %. Limb electrodes do not move: on a limb, centimetres matter little.

    **Hearts.** Without `ages`, the normal beat and its variation are those of textbook tracings. With `ages`,
    they are those of normal recordings: QRS, ST and T fitted to PTB-XL [9]_, V1-V5 where its technicians seem
    to have put them, heart rate, its variation and the noise at its level. Diseases add to either what they
    add in the textbook, and do not depend on age. Relative to 50 years, each decade turns the dipole of QRS
    and T 4.5 degrees to the left, lowers QRS by 2 % and T by 4 %, the variation of sinus rhythm by 10 %, and
    adds 4 ms to PR and 1 % to QT. Women have, against men, QRS 17 % lower and 7 % shorter, T 20 % lower, QT 3
    % longer, PR 10 ms shorter, a dipole 6 degrees further down, and 4 beats more per minute. The directions
    are those of [6]_, [7]_ and [8]_, the sizes rounded from PTB-XL. ``benchmarks/simulator.py`` compares the
    result with real recordings.

    - Patients are independent of each other and of `n_samples`: with the same `random_state`, `classes` and
      `weights`, patient 3 is the same heart in a larger data set, in other leads, at another `fs`, and with
      electrodes moved or exchanged.
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
    .. [5] Wenger, Kligfield. Variability of precordial electrode placement during routine electrocardiography.
       J. Electrocardiol. 29 (1996), 179-184.
    .. [6] Rijnbeek, van Herpen, Bots, Man, Verweij, Hofman, Hillege, Numans, Swenne, Witteman, Kors. Normal
       values of the electrocardiogram for ages 16-90 years. J. Electrocardiol. 47 (2014), 914-921.
    .. [7] Mason, Ramseth, Chanter, Moon, Goodman, Mendzelevski. Electrocardiographic reference ranges derived
       from 79,743 ambulatory subjects. J. Electrocardiol. 40 (2007), 228-234.
    .. [8] Umetani, Singer, McCraty, Atkinson. Twenty-four hour time domain heart rate variability and heart
       rate: relations to age and gender over nine decades. J. Am. Coll. Cardiol. 31 (1998), 593-601.
    .. [9] Wagner, Strodthoff, Bousseljot, Kreiseler, Lunze, Samek, Schaeffter. PTB-XL, a large publicly available
       electrocardiography dataset. Sci. Data 7 (2020), 154.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.datasets import make_ecg
    >>> X, y, groups = make_ecg(30, n_patients=11, fs=100, random_state=0)
    >>> X.shape
    (30, 12, 1000)
    >>> len(set(y)), len(set(groups))
    (11, 11)
    >>> X, y, groups = make_ecg(4, classes=["normal", "atrial flutter"], fs=250, lead_names=["II", "V1"])
    >>> X.shape
    (4, 2, 2500)

    The same hearts with the electrodes 2 cm off, and with the cables of the arms exchanged:

    >>> X, y, groups = make_ecg(4, random_state=0)
    >>> X_moved, _, _ = make_ecg(4, electrode_shift=2.0, random_state=0)
    >>> X_swapped, _, _ = make_ecg(4, swap=("RA", "LA"), random_state=0)
    >>> np.allclose(X_swapped[:, 0], -X[:, 0], atol=1e-6)  # lead I
    True
    """
    setup = _check("make_ecg", dict(locals()))
    X = np.empty((n_samples, len(setup.leads), setup.n_times), dtype=np.float32)
    labels = []
    for row, (_, name, signal, _, _) in enumerate(_recordings(setup)):
        X[row] = signal
        labels.append(name)
    return X, np.array(labels, dtype=setup.names.dtype), setup.groups


def make_ecg_records(n_records=200, *, fiducials=False, **options):
    """Simulate 12-lead electrocardiograms as annotated records, with the ages and sexes of the patients.

    Parameters
    ----------
    n_records : int, default=200
        Number of records.

    fiducials : bool, default=False
        Whether to annotate P and T waves too, and where P, QRS and T begin and end.

    **options
        Passed on to :func:`make_ecg`: with the same options and an int as `random_state`, the signals are
        the same.

    Returns
    -------
    data : Bunch
        As a ``fetch_*`` function returns it, so that :func:`~skecg.preprocessing.make_windows`,
        :func:`~skecg.preprocessing.make_beats` and :func:`write_records` take it:

        - ``records`` : list of ECGRecord, ``signal`` of shape (n_leads, n_times) in mV, with annotations;
        - ``target`` : ndarray of shape (n_records,), str, the classes;
        - ``patient_id`` : ndarray of shape (n_records,), int, ascending from 0;
        - ``age`` : ndarray of shape (n_records,), float, years; NaN unless `ages` were asked for;
        - ``sex`` : ndarray of shape (n_records,), str, "F" or "M"; "" unless `ages` were asked for;
        - ``fs`` in Hz, ``lead_names``, and ``DESCR``.

    Raises
    ------
    TypeError
        An option that `make_ecg` does not have.
    ValueError
        As :func:`make_ecg`.

    Notes
    -----
    Annotations are WFDB's. Beats, at the moment when the dipole of QRS is longest: ``N``, ``L`` and ``R`` (bundle
    branch block), ``A`` (atrial premature), ``V`` (ventricular), ``S`` (supraventricular tachycardia), ``j`` and
    ``E`` (escape of the AV junction, of the ventricles), ``/`` (paced). Rhythms, with the symbol ``+`` at the
    start and at each change: ``(N``, ``(SBR``, ``(AFIB``, ``(AFL``, ``(SVTA``, ``(VT``, ``(BI``, ``(BII``, ``(B3``,
    ``(P``, ``(PREX``. Fiducials: ``p`` and ``t`` at the peaks, ``(`` and ``)`` where the dipole of a wave begins and
    ceases to exceed a twentieth of its peak (QRS: a fiftieth). Fibrillatory and flutter waves have none.

    Examples
    --------
    >>> from skecg.datasets import make_ecg_records
    >>> data = make_ecg_records(2, classes=["second-degree AV block"], ages=(40, 80), random_state=0)
    >>> record = data.records[0]
    >>> record.n_leads, record.duration
    (12, 10.0)
    >>> print(*record.annotations.symbol[:4], record.annotations.aux_note[0])
    + N N N (BII
    """
    given = signature(make_ecg).bind(n_records, **options)
    given.apply_defaults()
    setup = _check("make_ecg_records", given.arguments)
    lead_names = tuple(STANDARD_LEADS[i] for i in setup.leads)
    records, labels, patients = [], [], []
    for row, (patient, name, signal, waves, notes) in enumerate(_recordings(setup)):
        events = annotate(waves, notes, setup.n_times, setup.fs, fiducials)
        sample, symbol, aux_note = zip(*events, strict=True)
        comments = ("Simulated", f"Class: {name}")
        if patient.sex:
            comments += (f"Age: {patient.age:.0f}", f"Sex: {patient.sex}")
        records.append(ECGRecord(
            signal.astype(np.float32), setup.fs, lead_names, name=f"sim{row:05d}", comments=comments,
            annotations=Bunch(sample=np.array(sample, np.int64), symbol=np.array(symbol), aux_note=np.array(aux_note)),
        ))
        labels.append(name)
        patients.append(patient)
    return Bunch(
        records=records,
        target=np.array(labels, dtype=setup.names.dtype),
        patient_id=setup.groups,
        age=np.array([patient.age for patient in patients]),
        sex=np.array([patient.sex for patient in patients]),
        fs=setup.fs,
        lead_names=lead_names,
        DESCR="Simulated 12-lead electrocardiograms: see skecg.datasets.make_ecg.",
    )


def _check(caller, given):
    """The parameters of `make_ecg`, checked, with what follows from them."""
    validate_parameter_constraints(_CONSTRAINTS, given, caller)
    given = Bunch(**given)
    given.leads = _match(given.lead_names, STANDARD_LEADS, "lead_names")
    given.names = np.array(list(CONDITIONS))
    if given.classes is None:
        given.names = given.names[:N_DEFAULT_CLASSES]
    elif not (isinstance(given.classes, str) and given.classes == "all"):
        given.names = given.names[_match(given.classes, list(CONDITIONS), "classes")]
    n_classes = len(given.names)
    shares = np.ones(n_classes) if given.weights is None else np.asarray(given.weights, dtype=float)
    if shares.shape != (n_classes,) or not np.all(np.isfinite(shares) & (shares >= 0)) or shares.sum() == 0:
        raise ValueError(
            f"weights must hold one finite number >= 0 for each of the {n_classes} classes, not all zero. "
            f"Got {given.weights!r} instead; give one proportion per class, in the order of `classes`."
        )
    given.shares = shares / shares.sum()
    n_samples, n_patients = given.n_samples, given.n_patients
    if n_patients is None:
        n_patients = min(n_samples, max(-(-n_samples // 3), n_classes))
    if n_patients > n_samples:
        raise ValueError(
            f"n_patients={n_patients} is more than n_samples={n_samples}, but each patient has at least one "
            "recording; give fewer patients or more samples."
        )
    given.groups = np.sort(np.arange(n_samples) % n_patients)
    given.n_times = round(given.duration * given.fs)
    if given.n_times < 1:
        raise ValueError(
            f"duration={given.duration} s at fs={given.fs} Hz is less than one sample; give a longer one."
        )
    if given.ages is not None:
        ages = np.asarray(given.ages, dtype=float)
        if ages.shape != (2,) or not 16 <= ages[0] <= ages[1] <= 100:
            raise ValueError(
                f"ages must be a youngest and an oldest age from 16 to 100 years, e.g. (18, 90). Got {given.ages!r}."
            )
    if given.swap is not None:
        given.swap = _match(given.swap, ELECTRODES, "swap")
        if len(given.swap) != 2:
            raise ValueError(f"swap must name two electrodes of {ELECTRODES}. Got {len(given.swap)} instead.")
    return given


def _recordings(setup):
    """Patient, class, signal (n_leads, n_times), waves and notes of one recording after the other."""
    seed = check_random_state(setup.random_state).randint(np.iinfo(np.int32).max)
    counts = np.zeros(len(setup.names))
    for patient_id, n_records in enumerate(np.bincount(setup.groups)):
        rng, extra = np.random.default_rng([seed, patient_id]), np.random.default_rng([seed, patient_id, 1])
        label = _allot(rng, setup.shares, counts)
        counts[label] += 1
        patient = draw_patient(rng, extra, CONDITIONS[setup.names[label]], setup.ages)
        for record_rng in rng.spawn(int(n_records)):
            dipole, waves, notes = draw_dipole(record_rng, patient, setup.n_times, setup.fs)
            field = patient.electrodes
            if setup.electrode_shift:
                shift = setup.electrode_shift * record_rng.spawn(1)[0].standard_normal((6, 2))
                field = field + field_change(shift)
            potential = field @ dipole
            if setup.noise:
                level = setup.noise * (1 if setup.ages is None else _MEASURED_NOISE)
                potential += level * draw_noise(record_rng, setup.n_times, setup.fs, setup.mains)
            if setup.swap:
                potential[setup.swap] = potential[setup.swap[::-1]]
            yield patient, str(setup.names[label]), (MONTAGE @ potential)[setup.leads], waves, notes
