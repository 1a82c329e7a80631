"""What an electrophysiologist, a physicist and a splitter by patient may rely on in `make_vt_beats`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg.datasets import make_vt_beats
from skecg.datasets._synthetic_torso import _HEART, draw_noise, electrode_field, field_change
from skecg.datasets._synthetic_vt import _draw_sites, aha_segment
from skecg.datasets._synthetic_vt_heart import (
    BASE_ANGLE,
    N_COLUMNS,
    N_ROWS,
    Anatomy,
    chest_field,
    source_weights,
    surface_triangles,
)
from skecg.preprocessing import QRSIntegral

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
ONSET, FS = 25, 250
SEPTAL, LATERAL = (2, 3, 8, 9, 14), (5, 6, 11, 12, 16)


@pytest.fixture(scope="module")
def clean():
    """Beats without noise: X, segment, position, groups."""
    return make_vt_beats(24, 30, noise=0, onset_jitter=0, random_state=0)


@pytest.fixture(scope="module")
def qrs(clean):
    """Area of QRS, (n, 12), in mV ms, as a mapping of leads."""
    return dict(zip(LEADS, QRSIntegral(fs=FS, onset=0.1, window=0.2).fit_transform(clean[0]).T, strict=True))


def within(segment, segments):
    return np.isin(segment, segments)


# --- what comes back ---------------------------------------------------------------------------------------------

def test_shapes_types_and_sites(clean):
    X, segment, position, groups = clean
    assert X.shape == (720, 12, 150) and X.dtype == np.float32
    assert_array_equal(groups, np.repeat(np.arange(24), 30))
    assert set(segment) == set(range(1, 18))
    lateral, anterior, apical = position.T
    assert apical.min() > 0 and apical.max() < 85
    # on the spheroid whose axes are half of 48 mm, and such that the base at 110 degrees is 85 mm from the apex
    long = 85 / (1 - np.cos(BASE_ANGLE))
    centre = 85 - long
    assert_allclose((lateral**2 + anterior**2) / 24**2 + ((apical - centre) / long) ** 2, 1)


def test_sites_are_evenly_distributed():
    """Shares of the levels are those of their area, which is summed up over small triangles."""
    angles, turns = np.meshgrid(np.linspace(0, np.radians(105), 300), np.linspace(0, 2 * np.pi, 300), indexing="ij")
    points = Anatomy().surface(angles, turns)
    area = np.linalg.norm(np.cross(np.diff(points, axis=0)[:, :-1], np.diff(points, axis=1)[:-1]), axis=-1)
    expected = [area[(points[:-1, :-1, 2] >= low) & (points[:-1, :-1, 2] < low + 17)].sum() / area.sum()
                for low in range(0, 85, 17)]
    position = Anatomy().surface(*_draw_sites(np.random.default_rng(0), 4000).T)
    assert_allclose(np.histogram(position[:, 2], bins=np.arange(0, 86, 17))[0] / 4000, expected, atol=0.03)
    assert_allclose(np.histogram(np.arctan2(position[:, 1], position[:, 0]), bins=6)[0] / 4000, 1 / 6, atol=0.03)


@given(st.floats(0, 84.9), st.floats(-179.9, 180))
def test_segment_against_the_model(apical, turn):
    """Cerqueira et al.: names of the walls, counterclockwise as seen from the apex."""
    where = (np.cos(np.radians(turn)), np.sin(np.radians(turn)), apical)
    walls = ("anterolateral", "anterior", "anteroseptal", "inferoseptal", "inferior", "inferolateral")
    wall = walls[int(turn % 360 // 60) % 6]
    quarter = ("lateral", "anterior", "septal", "inferior")[int((turn + 45) % 360 // 90) % 4]
    number = {"anterior": 1, "anteroseptal": 2, "inferoseptal": 3, "inferior": 4, "inferolateral": 5, "anterolateral": 6}
    level = apical / 85
    expected = number[wall] if level < 0.3 else number[wall] + 6 if level < 0.6 else (
        {"anterior": 13, "septal": 14, "inferior": 15, "lateral": 16}[quarter] if level < 0.9 else 17)
    # at a border, rounding decides
    near = [abs(level - border) < 1e-6 for border in (0.3, 0.6, 0.9)] + [abs(turn - 15 * round(turn / 15)) < 1e-6]
    assert any(near) or aha_segment([where])[0] == expected


def test_limb_leads_add_up():
    X = make_vt_beats(3, 4, random_state=0)[0].astype(float)
    lead = dict(zip(LEADS, X.transpose(1, 0, 2), strict=True))
    for name, value in {
        "III": lead["II"] - lead["I"], "aVR": -(lead["I"] + lead["II"]) / 2,
        "aVL": lead["I"] - lead["II"] / 2, "aVF": lead["II"] - lead["I"] / 2,
    }.items():
        assert_allclose(lead[name], value, atol=1e-6)


def test_same_seed_same_bits_and_independence():
    options = {"n_anatomies": 3, "n_sites": 4, "random_state": 3}
    X, segment, position, groups = make_vt_beats(**options)
    again = make_vt_beats(**options)
    for a, b in zip((X, segment, position, groups), again, strict=True):
        assert_array_equal(a, b)
    assert not np.array_equal(make_vt_beats(3, 4, random_state=4)[2], position)
    more, _, more_position, more_groups = make_vt_beats(4, 6, random_state=3)
    kept = (more_groups < 3) & (np.tile(np.arange(6), 4) < 4)
    assert_array_equal(more[kept], X)
    assert_array_equal(more_position[kept], position)
    leads = make_vt_beats(**options, lead_names=["v2", "II"])[0]
    assert_array_equal(leads, X[:, [7, 1]])
    for other in ({"noise": 0}, {"variation": 0}, {"scar": 1}, {"onset_jitter": 0.02}, {"electrode_shift": 3}, {"fs": 500}):
        assert_array_equal(make_vt_beats(**options, **other)[2], position)


def test_sampling_rate_only_samples():
    fast = make_vt_beats(2, 3, fs=500, noise=0, random_state=0)[0]
    slow = make_vt_beats(2, 3, fs=250, noise=0, random_state=0)[0]
    assert_allclose(fast[..., ::2], slow, atol=1e-6)


def test_noise_is_what_was_asked_for():
    X = [make_vt_beats(6, 10, noise=noise, random_state=0)[0].astype(float) for noise in (0, 1, 2)]
    assert_allclose(X[2] - X[0], 2 * (X[1] - X[0]), atol=1e-5)
    rng = np.random.default_rng(0)
    expected = np.median([draw_noise(rng, 150, FS, np.inf)[0].std() for _ in range(300)])
    V1 = X[1][:, 6] - X[0][:, 6]
    assert 0.5 < np.median(V1.std(axis=1)) / expected < 2


def test_jitter_moves_the_onset_and_nothing_else():
    X = make_vt_beats(1, 40, noise=0, onset_jitter=0, fs=1000, random_state=0)[0]
    moved = make_vt_beats(1, 40, noise=0, onset_jitter=0.01, fs=1000, random_state=0)[0]
    shifts = range(-40, 41)
    best = [shifts[np.argmin([np.square(np.roll(b, s, axis=1) - a)[:, 60:-60].sum() for s in shifts])]
            for a, b in zip(X, moved, strict=True)]
    assert 5 < np.std(best) < 16  # ms
    aligned = np.stack([np.roll(b, s, axis=1) for b, s in zip(moved, best, strict=True)])
    assert np.abs(aligned - X)[..., 60:-60].max() < 0.1  # half a ms on the steepest slope


@pytest.mark.parametrize(("options", "message"), [
    ({"n_anatomies": 0}, "n_anatomies"), ({"fs": 10}, "fs"), ({"after": 0.1}, "after"), ({"noise": -1}, "noise"),
    ({"scar": 2}, "scar"), ({"onset_jitter": 0.1}, "onset_jitter"), ({"lead_names": ["V7"]}, "V7"),
    ({"variation": 2}, "variation"), ({"electrode_shift": 9}, "electrode_shift"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make_vt_beats(**options)


# --- physics -----------------------------------------------------------------------------------------------------

SPHERE = Anatomy(
    length=30 * (1 - np.cos(BASE_ANGLE)), diameter=60, wall=6, speed=1, anisotropy=1, endocardial=1,
)


def test_arrival_times_on_a_sphere():
    """Where all directions are alike, excitation takes the great circle: within 6 %, on the half that holds it."""
    rng = np.random.default_rng(0)
    sites = np.column_stack([rng.uniform(0, np.pi / 2, 60), rng.uniform(0, 2 * np.pi, 60)])
    inner = N_ROWS * N_COLUMNS
    points = (SPHERE.nodes()[0][:inner] - [0, 0, -30 * np.cos(BASE_ANGLE)]) / 30
    here = (SPHERE.surface(*sites.T) - [0, 0, -30 * np.cos(BASE_ANGLE)]) / 30
    exact = 30 * np.arccos(np.clip(here @ points.T, -1, 1))
    ratio = SPHERE.arrival_times(sites)[:, :inner] / np.maximum(exact, 1e-9)
    ratio = ratio[(exact > 5) & (points[:, 2] > 0)]
    assert 0.99 < ratio.min() and ratio.max() < 1.06
    assert abs(np.median(ratio) - 1) < 0.01


def test_arrival_times_scale_and_follow_the_fibres():
    sites = [(1.2, 0.3), (0.1, 2.0)]
    times = Anatomy().arrival_times(sites)
    assert_allclose(Anatomy(speed=1.3).arrival_times(sites), times / 2, rtol=1e-5)
    assert (Anatomy(anisotropy=3).arrival_times(sites) >= times - 1e-9).all()
    points, _ = Anatomy().nodes()
    straight = np.linalg.norm(points - Anatomy().surface(1.2, 0.3), axis=1)
    assert (times[0] >= straight / (0.65 * 1.8) - 1e-9).all()  # never faster than the fastest tissue
    scarred = Anatomy(scar=(1.2, 0.5, 25.0)).arrival_times(sites)
    assert (scarred >= times - 1e-9).all() and scarred[0].max() > times[0].max() + 10


def test_surface_is_closed_and_seen_from_outside():
    points, _ = Anatomy().nodes()
    a, b, c = points[surface_triangles()].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a) / 2
    assert_allclose(normals.sum(axis=0), 0, atol=1e-8)
    millilitres = np.einsum("ij,ij->", (a + b + c) / 3, normals) / 3e3
    assert 120 < millilitres < 180  # times 1.05 g/ml: the mass of normal ventricles


def test_source_weights_are_the_volume_integral():
    """For a potential that grows linearly and a uniform lead field, the integral of -L.grad v is known."""
    points, _ = Anatomy().nodes()
    triangles = surface_triangles()
    a, b, c = points[triangles].transpose(1, 0, 2)
    volume = np.einsum("ij,ij->", (a + b + c) / 3, np.cross(b - a, c - a) / 2) / 3
    lead, slope = np.array([0.3, -1.2, 0.5]), np.array([2.0, 1.0, -0.7])
    weights = source_weights(points, triangles, lambda places: np.broadcast_to(lead, (1, len(places), 3)))
    assert_allclose(weights @ (points @ slope), -volume * (lead @ slope), rtol=1e-9)


def test_muscle_in_one_state_is_silent():
    points, _ = Anatomy().nodes()
    weights = source_weights(points - points.mean(axis=0) + 10 * _HEART, surface_triangles(), chest_field())
    assert (np.abs(weights.sum(axis=1)) < 0.01 * np.abs(weights).sum(axis=1)).all()


def test_lead_field_is_that_of_make_ecg():
    here = 10 * _HEART[None]
    assert_allclose(chest_field()(here)[:, 0], electrode_field())
    shift = np.random.default_rng(0).normal(size=(6, 2))
    assert_allclose(chest_field(1.0, shift)(here)[:, 0], electrode_field() + field_change(shift))
    assert_allclose(chest_field(1.2)(1.2 * here)[:, 0], electrode_field() / 1.44)
    # the field has neither sources nor curl within the heart, on which `source_weights` relies
    field, step = chest_field(), 1e-2
    jacobian = np.stack([(field(here + e) - field(here - e))[:, 0] / (2 * step) for e in step * np.eye(3)], axis=-1)
    assert_allclose(np.trace(jacobian, axis1=1, axis2=2), 0, atol=1e-6)
    assert_allclose(jacobian, jacobian.transpose(0, 2, 1), atol=1e-6)


# --- physiology --------------------------------------------------------------------------------------------------

def test_duration_and_amplitude(clean):
    X, segment, _, _ = clean
    slope = np.abs(np.gradient(X, axis=2)).sum(axis=1)[:, ONSET : ONSET + 56]  # up to 224 ms, before T
    active = slope > 0.08 * slope.max(axis=1, keepdims=True)
    duration = 4 * (56 - active[:, ::-1].argmax(axis=1) - active.argmax(axis=1))  # ms
    assert 140 < np.median(duration) < 180
    assert 110 < np.percentile(duration, 5) and np.percentile(duration, 75) < 200
    assert np.median(duration[within(segment, LATERAL)]) > np.median(duration[within(segment, SEPTAL)]) + 15
    peak = np.abs(X).max(axis=(1, 2))
    assert 1 < np.percentile(peak, 5) and 1.5 < np.median(peak) < 3 and np.percentile(peak, 95) < 5
    assert np.abs(X[..., : ONSET - 5]).max() < 0.02  # silence before


def test_side(clean, qrs):
    """Free wall: right bundle branch block pattern, right axis. Septum: an S wave in V1, left axis."""
    X, segment, _, _ = clean
    septal, lateral = within(segment, SEPTAL), within(segment, LATERAL)
    assert (qrs["V1"][lateral] > 0).mean() > 0.95
    assert np.median(qrs["V1"][septal]) < 0.5 * np.median(qrs["V1"][lateral])
    S = X[:, 6, ONSET : ONSET + 50].min(axis=1)
    assert (S[septal] < -0.3).mean() > 0.8
    upper = segment <= 12
    assert (qrs["I"][septal & upper] > 0).mean() > 0.75
    for lead in ("I", "aVL"):
        assert np.median(qrs[lead][septal & upper]) - 15 > np.median(qrs[lead][lateral]) < 0


def test_axis(clean, qrs):
    segment = clean[1]
    inferior, anterior = within(segment, (4, 10, 15)), within(segment, (1, 7, 13))
    for lead, most in (("II", 0.8), ("III", 0.95), ("aVF", 0.9)):
        assert (qrs[lead][inferior] < 0).mean() > most
        assert (qrs[lead][anterior] > 0).mean() > most


def test_base_and_apex(clean, qrs):
    """Positive concordance from the base; from the apex V3 to V6 are negative, and the axis is superior."""
    segment = clean[1]
    basal, apical = segment <= 6, segment >= 13
    for lead in ("V1", "V2", "V3", "V4"):
        assert (qrs[lead][basal] > 0).mean() > 0.75
    for lead in ("V3", "V4", "V5", "V6"):
        assert (qrs[lead][apical] < 0).mean() > 0.75
    assert np.median(qrs["II"][segment == 17]) < 0
    transition = [(np.stack([qrs[f"V{i}"] for i in range(1, 7)])[:, rows] > 0).sum(axis=0).mean()
                  for rows in (basal, (segment > 6) & ~apical, apical)]
    assert transition[0] > transition[1] > transition[2]


def test_T_opposes_QRS(clean, qrs):
    X = clean[0]
    T = X[..., ONSET + 60 :].mean(axis=2).T
    for lead, wave in zip(LEADS, T, strict=True):
        assert np.corrcoef(wave, qrs[lead])[0, 1] < -0.8


def test_neighbouring_sites_look_alike():
    """In one heart, the more distant the sites, the more different the beats."""
    X, _, position, _ = make_vt_beats(1, 60, noise=0, onset_jitter=0, variation=0, random_state=0)
    first, second = np.triu_indices(60, 1)
    distance = np.linalg.norm(position[first] - position[second], axis=1)
    difference = np.sqrt(np.square(X[first] - X[second]).mean(axis=(1, 2)))
    assert np.corrcoef(distance, difference)[0, 1] > 0.6
    assert np.median(difference[distance < 8]) < 0.4 * np.median(difference[distance > 40])


# --- localisation ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "low", "high"), [
    ({}, 9, 20),
    ({"noise": 0, "variation": 0, "electrode_shift": 0, "onset_jitter": 0}, 1, 8),  # one heart
])
def test_linear_localisation(options, low, high):
    """Areas of QRS localise far better than chance, and not perfectly, in patients that were not trained on."""
    X, segment, position, groups = make_vt_beats(20, 24, **options, random_state=1)
    areas = QRSIntegral(fs=FS, onset=0.1).fit_transform(X)
    split = {"groups": groups, "cv": GroupKFold(4)}
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-4, 3, 8)))
    error = np.linalg.norm(cross_val_predict(ridge, areas, position, **split) - position, axis=1)
    chance = np.median(np.linalg.norm(position - position.mean(axis=0), axis=1))
    assert low < np.median(error) < high < chance
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    accuracy = (cross_val_predict(logistic, areas, segment, **split) == segment).mean()
    assert 0.3 < accuracy < 0.95
