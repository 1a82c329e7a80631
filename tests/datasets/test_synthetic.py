"""What a cardiologist, and a splitter by patient, may rely on in `make_ecg`."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import find_peaks
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg.datasets import make_ecg

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
CLASSES = (
    "normal",
    "sinus bradycardia",
    "sinus tachycardia",
    "atrial fibrillation",
    "premature ventricular contractions",
    "first-degree AV block",
    "left bundle branch block",
    "right bundle branch block",
    "anterior myocardial infarction",
    "inferior myocardial infarction",
    "left ventricular hypertrophy",
)
FS = 250


@pytest.fixture(scope="module")
def clean():
    """Twenty patients of each class without noise, by class."""
    X, y, _ = make_ecg(220, n_patients=220, fs=FS, noise=0, random_state=0)
    return {name: X[y == name] for name in CLASSES}


def activity(x):
    """How fast the potential changes over all leads, smoothed over 50 ms: shape (n_times,)."""
    speed = np.abs(np.gradient(x, axis=-1)).sum(axis=0)
    return np.convolve(speed, np.ones(FS // 20) / (FS // 20), mode="same")


def r_peaks(x):
    """A detector that knows nothing of the simulator: bursts of activity, at least 0.25 s apart."""
    level = activity(x)
    return find_peaks(level, height=0.4 * np.percentile(level, 98), distance=FS // 4)[0]


def rr_intervals(x):
    return np.diff(r_peaks(x)) / FS


def median_beat(x, before=0.4, after=0.5):
    before, after = int(before * FS), int(after * FS)
    beats = [x[:, i - before : i + after] for i in r_peaks(x) if before <= i < x.shape[1] - after]
    return np.median(beats, axis=0)


def qrs_width(x):
    """Time around the R peak with more than a tenth of the peak's activity, in s."""
    level = activity(median_beat(x, 0.12, 0.2))
    return np.mean(level > 0.1 * level.max()) * 0.32


def lead(X, name):
    return X[..., LEADS.index(name), :]


def test_shapes_types_and_units():
    X, y, groups = make_ecg(random_state=0)
    assert X.shape == (200, 12, 1000) and X.dtype == np.float32
    assert y.shape == groups.shape == (200,)
    assert set(y) == set(CLASSES) and y.dtype.kind == "U"
    assert groups.dtype.kind == "i" and np.isfinite(X).all()


@pytest.mark.parametrize(
    ("fs", "duration", "n_times"),
    [(50, 10, 500), (128.5, 2, 257), (1000, 1, 1000), (360, 0.4, 144), (100, 90, 9000)],
)
def test_any_rate_and_duration(fs, duration, n_times):
    X, _, _ = make_ecg(11, fs=fs, duration=duration, random_state=0)
    assert X.shape == (11, 12, n_times)
    assert np.isfinite(X).all()


def test_same_seed_same_bits():
    first, again, other = (make_ecg(22, random_state=seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    assert_array_equal(make_ecg(5, random_state=np.random.RandomState(3))[0], make_ecg(5, random_state=3)[0])


def test_randomstate_advances_and_the_global_generator_does_not():
    rng = np.random.RandomState(0)
    assert not np.array_equal(make_ecg(1, random_state=rng)[0], make_ecg(1, random_state=rng)[0])
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_ecg(2, random_state=0)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_patients_do_not_depend_on_the_number_of_samples():
    few = make_ecg(24, n_patients=12, random_state=0)
    many = make_ecg(60, n_patients=20, random_state=0)
    for patient in range(12):
        a, b = few[2] == patient, np.flatnonzero(many[2] == patient)[:2]
        assert_array_equal(few[0][a], many[0][b])
        assert_array_equal(few[1][a], many[1][b])


def test_same_hearts_at_any_sampling_rate():
    X = {fs: make_ecg(22, fs=fs, noise=0, random_state=0)[0] for fs in (250, 500)}
    assert np.abs(X[500][:, :, ::2] - X[250]).max() < 0.1 * np.abs(X[500]).max()
    assert np.corrcoef(X[500][:, :, ::2].ravel(), X[250].ravel())[0, 1] > 0.999


def test_limb_and_augmented_leads_are_algebra_even_in_noise():
    X, _, _ = make_ecg(22, noise=3, fs=500, random_state=0)
    X = dict(zip(LEADS, np.moveaxis(X.astype(float), 1, 0), strict=True))
    for given, expected in [
        (X["III"], X["II"] - X["I"]),
        (X["aVR"], -(X["I"] + X["II"]) / 2),
        (X["aVL"], X["I"] - X["II"] / 2),
        (X["aVF"], X["II"] - X["I"] / 2),
    ]:
        assert_allclose(given, expected, atol=2e-6)


def test_leads_are_rows_of_the_full_set():
    X, y, groups = make_ecg(12, random_state=0)
    part, y_part, groups_part = make_ecg(12, lead_names=["v5", "AVR", "II"], random_state=0)
    assert_array_equal(part, X[:, [10, 3, 1]])
    assert_array_equal(y_part, y)
    assert_array_equal(groups_part, groups)
    assert_array_equal(make_ecg(12, lead_names="II", random_state=0)[0], X[:, [1]])


def test_groups_and_classes():
    X, y, groups = make_ecg(100, n_patients=30, random_state=0)
    assert_array_equal(np.unique(groups), np.arange(30))
    assert set(np.bincount(groups)) == {3, 4}
    assert all(len(set(y[groups == patient])) == 1 for patient in range(30))
    per_class = np.unique(y[np.unique(groups, return_index=True)[1]], return_counts=True)[1]
    assert per_class.max() - per_class.min() <= 1
    assert len(np.unique(X.reshape(100, -1), axis=0)) == 100  # no recording twice


@pytest.mark.parametrize(("n_samples", "n_patients"), [(1, 1), (5, 5), (12, 11), (20, 11), (90, 30)])
def test_default_number_of_patients(n_samples, n_patients):
    _, y, groups = make_ecg(n_samples, duration=1, random_state=0)
    assert len(set(groups)) == n_patients
    assert len(set(y)) == min(n_samples, 11)


def test_weights_and_choice_of_classes():
    classes = ["Normal", "LEFT bundle branch block", "atrial fibrillation"]
    _, y, _ = make_ecg(40, n_patients=40, classes=classes, weights=[3, 1, 0], duration=1, random_state=0)
    assert {name: np.sum(y == name) for name in set(y)} == {"normal": 30, "left bundle branch block": 10}


def test_recordings_of_a_patient_resemble_each_other():
    X, _, groups = make_ecg(40, n_patients=20, classes=["normal"], fs=FS, noise=0.3, random_state=0)
    beats = np.array([median_beat(x, 0.06, 0.35).ravel() for x in X])
    alike = np.corrcoef(beats)
    same = groups[:, None] == groups
    nearest = np.where(np.eye(40, dtype=bool), -1, alike).argmax(axis=1)
    assert alike[same].mean() > 0.95 > alike[~same].mean()
    assert np.mean(groups[nearest] == groups) > 0.9


def test_amplitudes_are_physiological(clean):
    X = clean["normal"]
    for name in ("II", "V5"):
        assert 0.7 < np.median(lead(X, name).max(axis=-1)) < 1.8  # mV
    assert np.abs(np.concatenate(list(clean.values()))).max() < 6
    noise = make_ecg(33, random_state=0)[0] - make_ecg(33, noise=0, random_state=0)[0]
    assert 0.03 < np.median(noise.std(axis=-1)) < 0.2


def test_waves_of_the_normal_ecg(clean):
    beat = np.median([median_beat(x) for x in clean["normal"]], axis=0)  # R peak near 0.4 s
    baseline = beat[:, int(0.1 * FS)][:, None]
    beat = beat - baseline
    p, qrs, t = (beat[:, int(a * FS) : int(b * FS)] for a, b in [(0.17, 0.34), (0.34, 0.47), (0.52, 0.8)])
    assert 0.04 < lead(p, "II").max() < 0.25  # mV
    assert lead(p, "II").argmax() > 0  # a wave, not a slope
    net = {name: lead(qrs, name).max() + lead(qrs, name).min() for name in LEADS}
    assert net["aVR"] < -0.4 and net["V1"] < -0.2 and net["V5"] > 0.5 and net["II"] > 0.5
    ratio = [lead(qrs, f"V{i}").max() / -lead(qrs, f"V{i}").min() for i in range(1, 6)]
    assert all(np.diff(ratio) > 0)  # R progression
    for name in ("I", "II", "V4", "V5", "V6"):
        assert lead(t, name).max() > 0.1 > 0.05 > -lead(t, name).min()  # concordant
    assert lead(t, "aVR").min() < -0.1


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("normal", 60, 99),
        ("sinus bradycardia", 40, 59),
        ("sinus tachycardia", 101, 150),
        ("atrial fibrillation", 60, 130),
    ],
)
def test_heart_rate(clean, name, low, high):
    rate = np.array([60 / rr_intervals(x).mean() for x in clean[name]])
    assert np.all((rate > 0.9 * low) & (rate < 1.1 * high))
    assert np.ptp(rate) > 0.3 * (high - low)


def test_sinus_rhythm_varies_and_fibrillation_is_irregular(clean):
    spread = {name: [np.std(rr) / rr.mean() for rr in map(rr_intervals, clean[name])] for name in CLASSES[:4]}
    assert 0.005 < np.median(spread["normal"]) < 0.06
    assert np.median(spread["atrial fibrillation"]) > 3 * np.median(spread["normal"])
    assert np.quantile(spread["atrial fibrillation"], 0.1) > np.median(spread["normal"])


def test_p_wave_is_absent_in_fibrillation_and_early_in_av_block(clean):
    peak, height = {}, {}
    for name in ("normal", "atrial fibrillation", "first-degree AV block"):
        before = np.array([lead(median_beat(x, 0.45), "II")[: int(0.38 * FS)] for x in clean[name]])
        after_t = before[:, int(0.1 * FS) :] - before[:, int(0.1 * FS), None]
        peak[name] = 0.45 - 0.1 - after_t.argmax(axis=1) / FS  # s before the R peak
        height[name] = np.median(after_t.max(axis=1))
    assert np.median(peak["first-degree AV block"]) > np.median(peak["normal"]) + 0.05
    assert height["atrial fibrillation"] < 0.5 * height["normal"]


def test_fibrillatory_waves_leave_no_rest(clean):
    """Before a late beat, after T and before P, the sinus rhythm is silent and the fibrillation is not."""
    swing = {}
    for name in ("sinus bradycardia", "atrial fibrillation"):
        swing[name] = [
            np.ptp(lead(x, "V1")[second - int(0.40 * FS) : second - int(0.28 * FS)])
            for x in clean[name]
            for first, second in pairwise(r_peaks(x))
            if second - first > 0.9 * FS
        ]
        assert len(swing[name]) > 10
    assert np.median(swing["atrial fibrillation"]) > 0.04  # mV
    assert np.median(swing["sinus bradycardia"]) < 0.01


def test_premature_beats_are_early_wide_and_followed_by_a_pause(clean):
    early = pause = 0
    for x in clean["premature ventricular contractions"]:
        rr = rr_intervals(x)
        usual = np.median(rr)
        for first, second in pairwise(rr):
            if first < 0.8 * usual and second > 1.15 * usual:
                early += 1
                pause += abs(first + second - 2 * usual) < 0.2 * usual  # the sinus node keeps its time
    assert early >= 20 and pause > 0.8 * early


def test_conduction_widens_the_qrs(clean):
    width = {name: np.median([qrs_width(x) for x in clean[name]]) for name in CLASSES}
    assert 0.05 < width["normal"] < 0.13
    for name in ("left bundle branch block", "right bundle branch block"):
        assert width[name] > width["normal"] + 0.03


def test_bundle_branch_blocks_and_infarctions_look_like_themselves(clean):
    beat = {name: np.median([median_beat(x, 0.1, 0.4) for x in clean[name]], axis=0) for name in CLASSES}
    beat = {name: b - b[:, :5].mean(axis=1, keepdims=True) for name, b in beat.items()}

    def extreme(name, lead_name, a, b):
        part = lead(beat[name], lead_name)[int((0.1 + a) * FS) : int((0.1 + b) * FS)]
        return part.min(), part.max()

    lbbb, rbbb, normal = "left bundle branch block", "right bundle branch block", "normal"
    assert extreme(lbbb, "V1", -0.1, 0.12)[0] < -0.7 and extreme(lbbb, "V1", 0.17, 0.35)[1] > 0.1
    assert extreme(lbbb, "V6", -0.1, 0.12)[1] > 0.5 and extreme(lbbb, "V6", 0.17, 0.35)[0] < -0.1
    assert extreme(rbbb, "V1", 0.03, 0.12)[1] > 0.25 > extreme(normal, "V1", 0.03, 0.12)[1]
    assert extreme(rbbb, "V6", 0.03, 0.12)[0] < extreme(normal, "V6", 0.03, 0.12)[0] - 0.1
    # elevation of ST, measured 90 ms after the R peak, where the infarction is
    for wall, lead_name in [("anterior", "V2"), ("inferior", "III")]:
        elevated = extreme(f"{wall} myocardial infarction", lead_name, 0.09, 0.12)[0]
        assert elevated > extreme(normal, lead_name, 0.09, 0.12)[0] + 0.05
    sokolow = {n: lead(beat[n], "V5").max() - lead(beat[n], "V1").min() for n in (normal, CLASSES[-1])}
    assert sokolow[CLASSES[-1]] > 1.15 * sokolow[normal]


def test_noise_scales_and_hearts_stay():
    X = {noise: make_ecg(22, noise=noise, random_state=0)[0] for noise in (0, 1, 2)}
    assert_allclose(X[2] - X[0], 2 * (X[1] - X[0]), atol=1e-5)


def test_spectrum_of_the_noise():
    def power(fs, mains):
        kwargs = dict(n_samples=22, fs=fs, random_state=0)
        noise = make_ecg(noise=1, mains=mains, **kwargs)[0] - make_ecg(noise=0, **kwargs)[0]
        return np.fft.rfftfreq(noise.shape[-1], 1 / fs), (np.abs(np.fft.rfft(noise)) ** 2).mean(axis=(0, 1))

    for mains in (50, 60):
        frequency, spectrum = power(500, mains)
        floor = np.median(spectrum[(frequency > 30) & (frequency < 140)])
        peak = (frequency > 30) & (spectrum > 20 * floor)
        assert peak.any() and np.all(np.abs(frequency[peak] - mains) < 0.5)
    frequency, spectrum = power(500, 50)
    muscle = (frequency > 25) & (frequency < 145) & (np.abs(frequency - 50) > 2)
    assert spectrum[frequency < 0.5].mean() > 20 * spectrum[muscle].mean()
    assert spectrum[muscle].mean() > 100 * spectrum[frequency > 155].mean()
    for fs in (80, 100):  # an alias would be at 30 Hz (50 Hz at 80 Hz)
        assert_array_equal(power(fs, 50)[1], power(fs, 5000)[1])


def test_classes_can_be_learned_but_not_at_a_glance():
    X, y, groups = make_ecg(330, random_state=0)
    cv = GroupKFold(3)
    raw = make_pipeline(PCA(50, random_state=0), StandardScaler(), LogisticRegression(max_iter=300))
    assert cross_val_score(raw, X.reshape(len(X), -1), y, groups=groups, cv=cv).mean() < 0.35
    rr = [60 / np.diff(find_peaks(np.abs(np.gradient(x, axis=-1)).sum(0), distance=30)[0]) for x in X]
    features = np.hstack([X.std(-1), X.min(-1), X.max(-1), [[r.mean(), r.std(), np.median(r)] for r in rr]])
    simple = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    assert 0.35 < cross_val_score(simple, features, y, groups=groups, cv=cv).mean() < 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lead_names": ["II", "V9"]}, r"lead_names has unknown names \['V9'\]. Choose from .*'aVR'"),
        ({"lead_names": ["II", "ii"]}, "each name once"),
        ({"lead_names": []}, "at least one"),
        ({"classes": ["flutter"]}, r"classes has unknown names \['flutter'\]. Choose from .*'normal'"),
        ({"classes": ["normal"], "weights": [1, 2]}, "one finite number >= 0 for each of the 1 classes"),
        ({"classes": ["normal"], "weights": [-1]}, "one finite number >= 0"),
        ({"classes": ["normal"], "weights": [np.nan]}, "one finite number >= 0"),
        ({"n_samples": 3, "n_patients": 4}, "n_patients=4 is more than n_samples=3"),
        ({"duration": 0.001}, "less than one sample"),
        ({"duration": 0}, "'duration' parameter"),
        ({"duration": np.inf}, "'duration' parameter"),
        ({"fs": 10}, "'fs' parameter"),
        ({"noise": -1}, "'noise' parameter"),
        ({"n_samples": 0}, "'n_samples' parameter"),
        ({"n_samples": 2.5}, "'n_samples' parameter"),
        ({"random_state": "seed"}, "'random_state' parameter"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ecg(**arguments)
