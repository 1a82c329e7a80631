"""A simulator of paced ventricular beats: where in the left ventricle did the beat begin?"""

from numbers import Integral, Real

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from .._validation import STANDARD_LEADS
from ._synthetic import _match
from ._synthetic_torso import _HEART, MONTAGE, draw_noise
from ._synthetic_vt_heart import N_LAYERS, N_LEFT, N_RIGHT, Anatomy, chest_field, source_weights, surface_triangles

_CONSTRAINTS = {
    "n_anatomies": [Interval(Integral, 1, None, closed="left")],
    "n_sites": [Interval(Integral, 1, None, closed="left")],
    "fs": [Interval(Real, 50, None, closed="left")],
    "before": [Interval(Real, 0, None, closed="left")],
    "after": [Interval(Real, 0.12, None, closed="left")],
    "lead_names": ["array-like", str],
    "noise": [Interval(Real, 0, None, closed="left")],
    "onset_jitter": [Interval(Real, 0, 0.05, closed="both")],
    "electrode_shift": [Interval(Real, 0, 5, closed="both")],
    "variation": [Interval(Real, 0, 1.5, closed="both")],
    "scar": [Interval(Real, 0, 1, closed="both")],
    "random_state": ["random_state"],
}

# Of the left ventricle in the torso, whose axes are left, down, back. The septum faces right and front.
_APICAL = np.array([0.75, 0.42, -0.51])
_ANTERIOR = np.array([0.0, -1.0, 0.0]) + 0.42 * _APICAL / (_APICAL @ _APICAL)
_APICAL, _ANTERIOR = (v / np.linalg.norm(v) for v in (_APICAL, _ANTERIOR))
_AXES = np.stack([np.cross(_ANTERIOR, _APICAL), _ANTERIOR, _APICAL])

# Standard deviations between patients, as shares.
_SHARES = {
    "length": 0.08, "diameter": 0.10, "wall": 0.12, "rv_depth": 0.15, "rv_wall": 0.10, "speed": 0.10, "anisotropy": 0.10,
    "endocardial": 0.10,
}
_LAST_ANGLE = np.radians(105)  # from the apex; the valves begin at 110
_STRENGTH = 7e-4  # mV of dipole per mm² of the excitation front: gives the amplitudes of paced beats
_FRONT, _RECOVERY = 4.0, 35.0  # ms, standard deviations: of the front's passage over the mesh, of repolarisation
_SHORTENING = 0.1  # of excitation, in ms per ms of later arrival

# Of the 17-segment model of the American Heart Association: first segments of the levels, and where levels end.
_LEVELS = (0.3, 0.6, 0.9)  # shares of the long axis from the base
_BASAL = (6, 1, 2, 3, 4, 5)  # sectors of 60 degrees, from lateral (0) over anterior (90) to septal (180)
_APICAL_SEGMENTS = (16, 13, 14, 15)  # sectors of 90 degrees around lateral, anterior, septal, inferior


def aha_segment(position, length=Anatomy.length):
    """Segment, 1 to 17, of places (n, 3) in mm: lateral, anterior, apical."""
    lateral, anterior, apical = np.asarray(position, dtype=float).T
    turn = np.degrees(np.arctan2(anterior, lateral)) % 360
    level = np.searchsorted(_LEVELS, apical / length, side="right")
    by_sixth = np.array(_BASAL)[(turn // 60).astype(int) % 6]
    by_quarter = np.array(_APICAL_SEGMENTS)[((turn + 45) // 90).astype(int) % 4]
    return np.select([level == 0, level == 1, level == 2], [by_sixth, by_sixth + 6, by_quarter], 17)


def make_vt_beats(
    n_anatomies=20,
    n_sites=20,
    *,
    fs=250.0,
    before=0.1,
    after=0.5,
    lead_names=STANDARD_LEADS,
    noise=1.0,
    onset_jitter=0.005,
    electrode_shift=1.0,
    variation=1.0,
    scar=0.0,
    random_state=None,
):
    """Simulate 12-lead beats that are paced from known places of the left ventricle, in many patients.

    Localisation in miniature: a catheter paces the inner surface of the left ventricle at many sites, and the
    electrocardiogram is to tell where. Each patient has ventricles of their own size and shape, in a position of their own.
    Excitation spreads from the site along the fibres of the muscle, and its front is the source that the electrodes see.

    Parameters
    ----------
    n_anatomies : int, default=20
        Number of patients.

    n_sites : int, default=20
        Sites per patient, spread evenly at random over the endocardium of the left ventricle. Each gives one beat.

    fs : float, default=250.0
        Sampling rate in Hz, at least 50.

    before, after : float, default=0.1 and 0.5
        Length of the window in s before and after the marked onset of the QRS complex; `after` at least 0.12.

    lead_names : sequence of str, default=the 12 standard leads
        Leads to return, in this order, matched without regard to case.

    noise : float, default=1.0
        Factor on the noise (baseline wander, muscle) of :func:`make_ecg`; 0 for none. There is no mains hum.

    onset_jitter : float, default=0.005
        Standard deviation in s, at most 0.05, of the error with which the onset is marked, drawn for each beat.

    electrode_shift : float, default=1.0
        Standard deviation in cm, at most 5, of the displacement of V1 to V6, sideways and upwards, drawn for each patient.

    variation : float, default=1.0
        Factor, at most 1.5, on the differences between patients that the notes list; 0 gives all of them the generic heart.

    scar : float, default=0.0
        Probability that a patient has a scar of the left ventricle, which conducts slowly.

    random_state : int, RandomState instance or None, default=None
        Determines all randomness. Pass an int for reproducible output across multiple function calls.

    Returns
    -------
    X : ndarray of shape (n_anatomies * n_sites, n_leads, n_times), dtype float32
        Beats in mV, with ``n_times = round(before * fs) + round(after * fs)``; the onset is sample ``round(before * fs)``.

    segment : ndarray of shape (n_anatomies * n_sites,), dtype int
        Segment of the site, 1 to 17, in the model of the American Heart Association [4]_. All of them occur.

    position : ndarray of shape (n_anatomies * n_sites, 3), dtype float
        Where the site lies on the generic ventricle, in mm: lateral (the septum is negative), anterior (the inferior wall is
        negative), apical (from 0 at the centre of the base to 85).

    groups : ndarray of shape (n_anatomies * n_sites,), dtype int
        Patient of each beat, ascending from 0.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a lead is unknown or named twice.

    See Also
    --------
    skecg.preprocessing.QRSIntegral : The features of the usual linear models.

    Notes
    -----
    **Ventricles.** The inner surface of the left ventricle is a spheroid, 48 mm wide, cut off at the base 85 mm from the
    apex. Its wall is 10 mm thick. Before its septal third bulges the free wall of the right ventricle, 3 mm thick and
    up to 24 mm away. Fibres turn from +60 to -60 degrees through the wall [6]_. Excitation travels along them with 0.65 m/s,
    across them with half of that, and 1.8 times as fast beneath the endocardium; it arrives by the fastest path over a mesh
    of 3444 nodes (on a sphere, within 6 % of the exact time).

    **Source.** The front is a uniform double layer. Muscle repolarises some 280 ms after it: 12 ms earlier at the epicardium
    than at the endocardium (6 ms in the right ventricle), and 0.1 ms earlier for each ms of later arrival. The potential of
    an electrode is then the sum over the surface of the muscle, of membrane potential times lead field [1]_ [2]_.

    **Lead field.** V1 to V6 see each piece of muscle as the field of a dipole in a homogeneous conductor, to which is added
    what Dower's measured vectors [3]_ differ from it in the middle of the heart; the limb leads are Dower's. The chest and
    electrodes are those of :func:`make_ecg`.

    **Patients** differ in length (standard deviation 8 %), diameter (10 %) and wall (12 %) of the left ventricle, depth
    (15 %) and wall (10 %) of the right one, speed (10 %), its ratio along and across fibres (10 %) and beneath the
    endocardium (10 %), duration of excitation (6 %), source strength (20 %), size of the torso (7 %), rotation (9 degrees
    about each axis) and place (6 mm sideways, to the front and back, 8 mm up and down) of the heart. These are plausible
    values, not fitted ones. A scar is 15 to 30 mm in radius, goes through the wall, and has a quarter of speed and strength.

    **What comes out.** QRS lasts about 160 ms, longest from the lateral wall. Rules of thumb of clinicians [7]_ hold: from
    the free wall V1 is positive, I and aVL are negative; from the septum V1 has an S wave and I is positive. Inferior sites
    have a superior axis, anterior ones an inferior axis. From base to apex, V3 to V6 turn from positive to negative.

    **Site and frame.** As in the clinic, where sites are transferred from the map of a patient to a generic ventricle, the
    position is that of the same point on the generic one: the same angles from the apex and around. Levels of segments are
    basal up to 30 % of the long axis, mid up to 60 %, apical up to 90 %; the rest is 17. The septum is in the
    sector from 120 to 240 degrees, seen with lateral at 0 and anterior at 90.

    - Patients, sites and noise are independent of each other and of `n_anatomies` and `n_sites`: with the same
      `random_state`, site 3 of patient 3 is the same beat in a larger data set, in other leads, at another `fs`; with more
      noise or another `variation` it is at the same place.
    - There are no P waves, no pacing artefacts, no fusion beats, no sites in the wall or outside of it.
    - It is a phantom to test and to teach with. Simulations of more detail have promised errors below 3 mm where patients
      then had 32 [5]_; performance on this one says nothing about performance on patients.

    References
    ----------
    .. [1] van Oosterom, Oostendorp. ECGSIM: an interactive tool for studying the genesis of QRST waveforms. Heart 90
       (2004), 165-168.
    .. [2] Geselowitz. Description of cardiac sources in anisotropic cardiac muscle. Application of bidomain model.
       J. Electrocardiol. 25 Suppl. (1992), 65-67.
    .. [3] Dower, Machado, Osborne. On deriving the electrocardiogram from vectorcardiographic leads.
       Clin. Cardiol. 3 (1980), 87-95.
    .. [4] Cerqueira, Weissman, Dilsizian, Jacobs, Kaul, Laskey, Pennell, Rumberger, Ryan, Verani. Standardized myocardial
       segmentation and nomenclature for tomographic imaging of the heart. Circulation 105 (2002), 539-542.
    .. [5] Pilia, Schuler, Rees, Moik, Potyagaylo, Dössel, Loewe. Non-invasive localization of the ventricular excitation
       origin without patient-specific geometries using deep learning. arXiv 2209.08095 (2022).
    .. [6] Streeter, Spotnitz, Patel, Ross, Sonnenblick. Fiber orientation in the canine left ventricle during diastole and
       systole. Circ. Res. 24 (1969), 339-347.
    .. [7] de Riva, Watanabe, Zeppenfeld. Twelve-lead ECG of ventricular tachycardia in structural heart disease.
       Circ. Arrhythm. Electrophysiol. 8 (2015), 951-962.

    Examples
    --------
    >>> from skecg.datasets import make_vt_beats
    >>> X, segment, position, groups = make_vt_beats(3, 10, random_state=0)
    >>> X.shape, position.shape, len(set(groups))
    ((30, 12, 150), (30, 3), 3)

    The polarity of V1 follows the side:

    >>> X, segment, position, groups = make_vt_beats(3, 10, noise=0, variation=0, random_state=0)
    >>> V1 = X[:, 6, 25:70].mean(axis=1)
    >>> lateral = position[:, 0]
    >>> bool(V1[lateral > 10].mean() > V1[lateral < -10].mean())
    True
    """
    setup = dict(locals())
    validate_parameter_constraints(_CONSTRAINTS, setup, "make_vt_beats")
    leads = _match(lead_names, STANDARD_LEADS, "lead_names")
    first, n_times = round(before * fs), round(before * fs) + round(after * fs)
    times = 1e3 * (np.arange(n_times) - first) / fs
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    X = np.empty((n_anatomies, n_sites, len(leads), n_times), dtype=np.float32)
    sites = np.empty((n_anatomies, n_sites, 2))
    for patient in range(n_anatomies):
        shape_rng, site_rng, torso_rng, beat_rng = (np.random.default_rng([seed, patient, i]) for i in range(4))
        anatomy, recovery = _draw_anatomy(shape_rng, variation, scar)
        sites[patient] = _draw_sites(site_rng, n_sites)
        weights = _draw_weights(torso_rng, anatomy, variation, electrode_shift)
        arrivals = anatomy.arrival_times(sites[patient])
        for site, (arrival, rng) in enumerate(zip(arrivals, beat_rng.spawn(n_sites), strict=True)):
            shift, noise_rng = rng.normal(0, 1e3 * onset_jitter), rng.spawn(1)[0]
            potential = _potentials(weights, arrival, recovery, times + shift)
            if noise:
                potential += noise * draw_noise(noise_rng, n_times, fs, mains=np.inf)
            X[patient, site] = (MONTAGE @ potential)[leads]
    position = Anatomy().surface(*sites.reshape(-1, 2).T)
    return X.reshape(-1, *X.shape[2:]), aha_segment(position), position, np.repeat(np.arange(n_anatomies), n_sites)


def _draw_anatomy(rng, variation, scar):
    """A patient's ventricles, and for how long nodes stay excited that excitation reaches at once, in ms."""
    def around(usual, share):
        return usual * np.exp(variation * share * np.clip(rng.standard_normal(), -2.5, 2.5))

    shape = {name: around(getattr(Anatomy, name), share) for name, share in _SHARES.items()}
    centre, radius = _draw_sites(rng, 1)[0], rng.uniform(15, 30)
    scarred = rng.uniform() < scar
    excited = around(280, 0.06) + np.concatenate([
        np.repeat(np.linspace(0, -12, N_LAYERS), N_LEFT // N_LAYERS), np.repeat([0, -6], N_RIGHT // 2),
    ])
    return Anatomy(**shape, scar=(*centre, radius) if scarred else None), excited


def _draw_sites(rng, n_sites):
    """Angles from the apex and around (rad), (n_sites, 2), evenly distributed over the generic endocardium."""
    angles = np.linspace(0, _LAST_ANGLE, 500)
    short, long = Anatomy().radii
    area = np.cumsum(np.sin(angles) * np.hypot(short * np.cos(angles), long * np.sin(angles)))
    place, turn = rng.uniform(size=(n_sites, 2)).T
    return np.column_stack([np.interp(place, area / area[-1], angles), 2 * np.pi * turn])


def _draw_weights(rng, anatomy, variation, electrode_shift):
    """What excitation of each node adds to each electrode, in mV: (n_electrodes, n_nodes)."""
    points, _ = anatomy.nodes()
    turn = Rotation.from_rotvec(np.radians(9) * variation * rng.standard_normal(3).clip(-2.5, 2.5))
    place = 10 * _HEART + variation * np.array([6, 8, 6]) * rng.standard_normal(3).clip(-2, 2)  # mm
    size, strength = np.exp(variation * np.array([0.07, 0.2]) * rng.standard_normal(2).clip(-2.5, 2.5))
    field = chest_field(size, electrode_shift * rng.standard_normal((6, 2)))
    torso = turn.apply((points - points.mean(axis=0)) @ _AXES) + place
    return _STRENGTH * strength * anatomy.health(points) * source_weights(torso, surface_triangles(), field)


def _potentials(weights, arrival, excited, times):
    """Potentials of the electrodes at times in ms after the site fires: (n_electrodes, n_times)."""
    recovery = arrival + excited - _SHORTENING * arrival
    begin = min(times[0], 0) - 5 * _RECOVERY
    grid = np.arange(begin, max(times[-1], recovery.max()) + 5 * _RECOVERY)
    potential = np.zeros((len(weights), len(grid)))
    for when, width, sign in ((arrival, _FRONT, 1), (recovery, _RECOVERY, -1)):
        step = np.floor(when - begin).astype(int)
        late = when - begin - step  # shared out between two steps of the grid
        for electrode, weight in enumerate(weights):
            change = np.bincount(step, weight * (1 - late), len(grid)) + np.bincount(step + 1, weight * late, len(grid))
            potential[electrode] += sign * np.cumsum(gaussian_filter1d(change, width))
    return np.stack([np.interp(times, grid, lead) for lead in potential])
