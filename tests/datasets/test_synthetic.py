"""What a cardiologist, and a splitter by patient, may rely on in `make_ecg`."""

import csv
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import find_peaks
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg.datasets import (
    ECGRecord,
    fetch_ptbxl,
    make_ecg,
    make_ecg_records,
    read_record,
    read_records,
    write_record,
    write_records,
)
from skecg.datasets._synthetic_torso import _CHEST, _DOWER, _HALF_WIDTH, _homogeneous_field, field_change
from skecg.preprocessing import make_beats, make_windows

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
MORE_CLASSES = (
    "sinus arrhythmia",
    "premature atrial contractions",
    "paroxysmal atrial fibrillation",
    "atrial flutter",
    "supraventricular tachycardia",
    "ventricular tachycardia",
    "second-degree AV block",
    "third-degree AV block",
    "ventricular paced rhythm",
    "Wolff-Parkinson-White pattern",
    "left anterior fascicular block",
    "right ventricular hypertrophy",
    "myocardial ischaemia",
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
    for derived, expected in [
        (X["III"], X["II"] - X["I"]),
        (X["aVR"], -(X["I"] + X["II"]) / 2),
        (X["aVL"], X["I"] - X["II"] / 2),
        (X["aVF"], X["II"] - X["I"] / 2),
    ]:
        assert_allclose(derived, expected, atol=2e-6)


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
        ({"ages": (10, 50)}, r"ages must be a youngest and an oldest age from 16 to 100.*Got \(10, 50\)"),
        ({"ages": (60, 50)}, "ages must be"),
        ({"ages": 50}, "'ages' parameter"),
        ({"electrode_shift": -1}, "'electrode_shift' parameter"),
        ({"electrode_shift": 6}, "'electrode_shift' parameter"),
        ({"swap": ("RA", "RL")}, r"swap has unknown names \['RL'\]. Choose from .*'LL'"),
        ({"swap": ("RA", "LA", "LL")}, "swap must name two electrodes.*Got 3"),
        ({"swap": ("RA", "ra")}, "each name once"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ecg(**arguments)


def test_the_default_hearts_stay_what_they_were():
    """Numbers in the documentation and in benchmarks/results were made with them."""
    X, y, _ = make_ecg(22, random_state=0)
    assert list(y[[0, 5, 21]]) == ["sinus tachycardia", "left bundle branch block", "normal"]
    expected = [
        0.1796, 0.1042, -0.0051, 1.0134,
        0.084, -0.0561, -0.0003, 0.3083,
        0.6301, -0.0138, -0.1185, -0.0323,
        -0.0961, 0.1873, 0.3923, -0.0556,
    ]
    assert_allclose(X[[0, 7, 14, 21], 1, ::300].ravel(), expected, atol=1e-4)


# Records and their annotations


@pytest.fixture(scope="module")
def annotated():
    """Eight patients of each class without noise, with fiducials, by class."""
    data = make_ecg_records(
        8 * 24, n_patients=8 * 24, classes="all", fs=FS, noise=0, fiducials=True, ages=(20, 85), random_state=1
    )
    return {name: [r for r, y in zip(data.records, data.target, strict=True) if y == name]
            for name in CLASSES + MORE_CLASSES}


BEATS = list("NLRASVjE/")


def beats_of(record, symbols=BEATS):
    notes = record.annotations
    return notes.sample[np.isin(notes.symbol, symbols)] / record.fs


def waves_of(record):
    """(symbol, onset, peak, end) in s of each wave, from brackets that belong together."""
    notes, found = record.annotations, []
    for i in range(1, len(notes.symbol) - 1):
        if notes.symbol[i - 1] == "(" and notes.symbol[i + 1] == ")" and notes.symbol[i] not in "()+":
            found.append((str(notes.symbol[i]), *(notes.sample[i - 1 : i + 2] / record.fs)))
    return found


def pr_intervals(record):
    """From the onset of each P wave to that of the beat that follows, in s."""
    waves = waves_of(record)
    return np.array([b[1] - a[1] for a, b in pairwise(waves) if a[0] == "p" and b[0] in BEATS])


def qrs_durations(records):
    return np.array([end - onset for r in records for symbol, onset, _, end in waves_of(r) if symbol in BEATS])


def test_all_classes_on_request():
    _, y, groups = make_ecg(24, classes="all", duration=3, random_state=0)
    assert set(y) == set(CLASSES + MORE_CLASSES)
    assert len(set(groups)) == 24


def test_records_are_the_same_signals_with_metadata():
    options = dict(n_patients=11, duration=4, ages=(30, 60), electrode_shift=1.5, swap=("V1", "V2"), random_state=3)
    X, y, groups = make_ecg(20, **options)
    data = make_ecg_records(20, **options)
    assert_array_equal(np.stack([record.signal for record in data.records]), X)
    assert_array_equal(data.target, y)
    assert_array_equal(data.patient_id, groups)
    assert data.records[0].lead_names == data.lead_names == LEADS
    assert np.all((data.age >= 30) & (data.age <= 60)) and set(data.sex) == {"F", "M"}
    for patient in range(11):
        assert len(set(data.age[groups == patient])) == len(set(data.sex[groups == patient])) == 1
    assert data.records[0].comments == (
        "Simulated", f"Class: {y[0]}", f"Age: {data.age[0]:.0f}", f"Sex: {data.sex[0]}",
    )
    ageless = make_ecg_records(3, duration=1, random_state=0)
    assert np.isnan(ageless.age).all() and set(ageless.sex) == {""}
    with pytest.raises(TypeError, match="colour"):
        make_ecg_records(3, colour="red")
    with pytest.raises(ValueError, match="make_ecg_records"):
        make_ecg_records(3, fs=10)


def test_preprocessing_takes_the_records():
    data = make_ecg_records(12, classes=["normal", "premature ventricular contractions"], fs=100, random_state=0)
    X, y, groups = make_windows(data, 5.0)
    assert X.shape == (24, 12, 500) and len(y) == len(groups) == 24
    X, y, _ = make_beats(data, before=0.2, after=0.3, lead_names=["II"])
    assert set(y) == {"N", "V"} and X.shape[1:] == (1, 50)


@pytest.mark.parametrize("name", CLASSES + MORE_CLASSES)
def test_beats_are_annotated_where_a_detector_finds_them(annotated, name):
    hits = total = 0
    for record in annotated[name]:
        beats = beats_of(record)
        found = r_peaks(record.signal) / FS
        inside = found[(found > 0.3) & (found < record.duration - 0.3)]
        total += len(inside)
        hits += np.sum(np.abs(inside[:, None] - beats).min(axis=1) < 0.08)
    assert total > 30 and hits > 0.93 * total


def test_symbols_and_rhythms(annotated):
    def symbols(name):
        return {symbol for record in annotated[name] for symbol in record.annotations.symbol if symbol in BEATS}

    def rhythms(name):
        return {note for record in annotated[name] for note in record.annotations.aux_note if note}

    assert symbols("normal") == symbols("atrial flutter") == {"N"} and rhythms("normal") == {"(N"}
    assert symbols("left bundle branch block") == {"L"} and symbols("right bundle branch block") == {"R"}
    assert symbols("premature ventricular contractions") == {"N", "V"}
    assert symbols("premature atrial contractions") == {"N", "A"}
    assert symbols("ventricular tachycardia") == {"V"} and rhythms("ventricular tachycardia") == {"(VT"}
    assert symbols("third-degree AV block") == {"j", "E"} and rhythms("third-degree AV block") == {"(B3"}
    assert symbols("ventricular paced rhythm") == {"/"} and rhythms("ventricular paced rhythm") == {"(P"}
    assert rhythms("paroxysmal atrial fibrillation") == {"(N", "(AFIB"}
    for records in annotated.values():
        for record in records:
            notes = record.annotations
            assert notes.symbol[notes.sample == 0][0] == "+" and np.all(np.diff(notes.sample) >= 0)
            assert notes.sample[-1] < record.n_times


def test_fiducials_enclose_the_waves(annotated):
    record = annotated["normal"][0]
    waves = waves_of(record)
    assert {wave[0] for wave in waves} == {"p", "N", "t"}
    size = np.linalg.norm(record.signal, axis=0)
    for symbol, onset, peak, end in waves:
        assert onset < peak < end
        inside = slice(round(onset * FS), round(end * FS) + 1)
        assert abs(size[inside].argmax() + inside.start - peak * FS) <= (0.04 if symbol == "t" else 0.012) * FS + 1
    assert "p" not in make_ecg_records(1, random_state=0).records[0].annotations.symbol
    without_p = [r for name in ("atrial fibrillation", "atrial flutter") for r in annotated[name]]
    assert not any("p" in record.annotations.symbol for record in without_p)


def test_intervals_of_the_normal_heart(annotated):
    pr = np.concatenate([pr_intervals(record) for record in annotated["normal"]])
    assert 0.10 < pr.min() and pr.max() < 0.23 and 0.13 < np.median(pr) < 0.19
    assert 0.07 < np.median(qrs_durations(annotated["normal"])) < 0.105
    long_pr = np.concatenate([pr_intervals(record) for record in annotated["first-degree AV block"]])
    assert long_pr.min() > 0.19
    for name in ("left bundle branch block", "right bundle branch block", "ventricular paced rhythm"):
        assert np.median(qrs_durations(annotated[name])) > 0.115
    for name in ("supraventricular tachycardia", "left anterior fascicular block"):
        assert np.median(qrs_durations(annotated[name])) < 0.125


def test_wenckebach_periods(annotated):
    dropped = 0
    for record in annotated["second-degree AV block"]:
        p, beats = beats_of(record, ["p"]), beats_of(record)
        pr = np.array([np.append(beats[beats > t], np.inf)[0] - t for t in p])
        pr[:-1][beats_before(p[1:], beats) == beats_before(p[:-1], beats)] = np.inf  # not conducted
        pr = pr[:-1]
        for before, after in pairwise(pr):
            assert after > before if np.isfinite(before) else after <= pr.min() + 0.03  # growing, then short again
        dropped += np.isinf(pr).sum()
    assert dropped > 12


def beats_before(times, beats):
    return np.searchsorted(beats, times)


def test_atria_and_ventricles_apart_in_third_degree_block(annotated):
    for record in annotated["third-degree AV block"]:
        p = beats_of(record, ["p"])
        rate, atrial_rate = 60 / np.diff(beats_of(record)).mean(), 60 / np.diff(p).mean()
        assert 25 < rate < 56 < 60 < atrial_rate
        assert np.std(np.diff(p)) < 0.15 * np.mean(np.diff(p))  # unmoved by the ventricles
        after = beats_of(record)[:, None] - p
        assert np.ptp(np.where(after > 0, after, np.inf).min(axis=1)) > 0.15


def test_premature_atrial_beats(annotated):
    pause = []
    for record in annotated["premature atrial contractions"]:
        times, kinds = beats_of(record), record.annotations.symbol[np.isin(record.annotations.symbol, BEATS)]
        rr = np.diff(times)
        usual = np.median(rr)
        for i in 1 + np.flatnonzero(kinds[1:-1] == "A"):
            assert rr[i - 1] < 0.92 * usual
            pause.append((rr[i - 1] + rr[i]) / usual)
        assert np.sum(np.isin(record.annotations.symbol, ["p"])) >= len(times) - 2
    assert len(pause) > 8 and np.median(pause) < 1.95  # less than compensatory
    early = qrs_durations(annotated["premature atrial contractions"])
    assert np.median(early) < 0.115


def test_flutter_waves_and_conduction(annotated):
    for record in annotated["atrial flutter"]:
        x = lead(record.signal, "aVF") - np.median(lead(record.signal, "aVF"))
        x = np.clip(x, *np.quantile(x, (0.05, 0.95)))  # less of QRS
        spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
        frequency = np.fft.rfftfreq(len(x), 1 / FS)
        band = (frequency > 3.8) & (frequency < 5.8)
        flutter = frequency[band][spectrum[band].argmax()]
        assert 4.0 < flutter < 5.5
        ratio = np.diff(beats_of(record)) * flutter
        assert np.abs(ratio - np.rint(ratio)).mean() < 0.15 and set(np.rint(ratio)) <= {2, 3, 4}


def test_fibrillation_begins_during_the_recording(annotated):
    irregular = []
    for record in annotated["paroxysmal atrial fibrillation"]:
        notes = record.annotations
        start = notes.sample[notes.aux_note == "(AFIB"][0] / FS
        p, beats = beats_of(record, ["p"]), beats_of(record)
        assert 2 < start < 8 and p.max() < start
        before, after = (np.diff(beats[side]) for side in (beats < start, beats > start))
        irregular.append((before.std() / before.mean(), after.std() / after.mean()))
    before, after = np.median(irregular, axis=0)
    assert after > 2.5 * before


def test_tachycardias(annotated):
    for name, low, high in (("supraventricular tachycardia", 140, 215), ("ventricular tachycardia", 130, 200)):
        for record in annotated[name]:
            rr = np.diff(beats_of(record))
            assert low < 60 / rr.mean() < high and rr.std() < 0.03 * rr.mean()
    assert np.median(qrs_durations(annotated["ventricular tachycardia"])) > 0.12
    record = annotated["ventricular tachycardia"][0]
    after = beats_of(record, ["p"])[:, None] - beats_of(record)
    assert np.ptp(np.where(after > 0, after, np.inf).min(axis=1)) > 0.1  # P waves at any phase


def test_respiratory_sinus_arrhythmia(annotated):
    for record in annotated["sinus arrhythmia"]:
        rr = np.diff(beats_of(record))
        assert np.ptp(rr) > 0.12  # s, the usual criterion
    spread = {name: np.median([np.std(np.diff(beats_of(r))) for r in annotated[name]]) for name in
              ("sinus arrhythmia", "normal")}
    assert spread["sinus arrhythmia"] > 2 * spread["normal"]


def typical_beats(annotated, name):
    """Median over patients of the median beat, from 0.15 s before to 0.4 s after the annotated peak, from baseline."""
    beats = []
    for record in annotated[name]:
        at = np.rint(beats_of(record) * FS).astype(int)
        cut = [record.signal[:, i - 38 : i + 100] for i in at if 38 <= i < record.n_times - 100]
        beat = np.median(cut, axis=0)
        beats.append(beat - np.median(beat[:, 12:18], axis=1, keepdims=True))
    return np.array(beats)


def axis_of(beats):
    """Frontal QRS axis in degrees."""
    net = {name: lead(beats, name)[..., 15:60] for name in ("I", "aVF")}
    net = {name: x.max(axis=-1) + x.min(axis=-1) for name, x in net.items()}
    return np.degrees(np.arctan2(net["aVF"] * 2 / np.sqrt(3), net["I"]))


def test_morphology_of_the_further_classes(annotated):
    beats = {name: typical_beats(annotated, name) for name in ("normal", *MORE_CLASSES[8:])}
    axis = {name: np.median(axis_of(b)) for name, b in beats.items()}
    assert 20 < axis["normal"] < 75
    assert axis["left anterior fascicular block"] < -30 and axis["ventricular paced rhythm"] < -30
    assert axis["right ventricular hypertrophy"] > 85
    qrs = {name: np.median(b[..., 20:56], axis=0) for name, b in beats.items()}
    hypertrophy, normal = qrs["right ventricular hypertrophy"], qrs["normal"]
    assert lead(hypertrophy, "V1").max() > -lead(hypertrophy, "V1").min()
    assert lead(normal, "V1").max() < -0.5 * lead(normal, "V1").min()
    left = qrs["left anterior fascicular block"]
    assert lead(left, "aVL").max() > 0.4 and lead(left, "III").max() < -0.5 * lead(left, "III").min()
    st = {name: np.median(lead(b, "V5")[:, 38 + 20]) for name, b in beats.items()}  # 80 ms after the peak
    assert st["myocardial ischaemia"] < -0.04 < st["normal"]
    pr = {name: np.median([np.median(q[q > p[0]][0] - p[0]) for r in annotated[name]
                           for p, q in [(beats_of(r, ["p"]), beats_of(r))]])
          for name in ("normal", "Wolff-Parkinson-White pattern")}  # from peak to peak
    assert pr["Wolff-Parkinson-White pattern"] < pr["normal"] - 0.01
    width = {name: np.median(qrs_durations(annotated[name])) for name in beats}
    assert width["Wolff-Parkinson-White pattern"] > width["normal"] + 0.02


def test_the_pacemaker_fires_before_qrs():
    record = make_ecg_records(1, classes=["ventricular paced rhythm"], fs=1000, noise=0, random_state=0).records[0]
    sharp = np.abs(np.diff(lead(record.signal, "II"), n=2))
    spikes = find_peaks(sharp, height=0.5 * sharp.max(), distance=200)[0] / 1000
    beats = beats_of(record)
    beats = beats[beats > 0.2]
    delay = [beat - spikes[spikes < beat].max() for beat in beats]
    assert 0.03 < min(delay) and max(delay) < 0.15 and np.ptp(delay) < 0.02


# Ages, electrodes


def test_age_and_sex_change_the_heart():
    def measured(low, high):
        data = make_ecg_records(80, n_patients=80, classes=["normal"], fs=FS, noise=0, ages=(low, high), fiducials=True,
                                random_state=0)
        beats = typical_beats({"normal": data.records}, "normal")
        rr = [np.diff(beats_of(record)) for record in data.records]
        qt = [np.median([t[3] - q[1] for q, t in pairwise(waves_of(r)) if (q[0], t[0]) == ("N", "t")]) for r in data.records]
        values = {
            "axis": axis_of(beats), "T": lead(beats, "V5")[:, 70:].max(axis=1), "R": lead(beats, "V5")[:, 30:50].max(axis=1),
            "QTc": np.array(qt) / np.cbrt([x.mean() for x in rr]),
            "PR": np.array([np.median(pr_intervals(r)) for r in data.records]),
            "variation": np.array([x.std() / x.mean() for x in rr]),
        }
        return values, data.sex

    (young, sex), (old, sex_old) = measured(18, 25), measured(80, 87)
    change = {name: np.median(old[name]) - np.median(young[name]) for name in young}
    assert -70 < change["axis"] < -25  # degrees
    assert change["T"] < -0.05 and change["QTc"] > 0.01 and change["PR"] > 0.01
    assert np.median(old["variation"]) < 0.75 * np.median(young["variation"])
    women, men = ({name: np.mean(v[sex == s]) + np.mean(old[name][sex_old == s]) for name, v in young.items()} for s in "FM")
    assert women["R"] < 0.95 * men["R"] and women["T"] < 0.95 * men["T"] and women["QTc"] > men["QTc"]


def test_an_age_leaves_rhythm_classes_their_rates():
    for name, low, high in (("sinus bradycardia", 40, 59), ("sinus tachycardia", 101, 150)):
        records = make_ecg_records(20, classes=[name], ages=(18, 90), random_state=0).records
        rate = [60 / np.diff(beats_of(record)).mean() for record in records]
        assert 0.93 * low < min(rate) and max(rate) < 1.05 * high


def test_the_homogeneous_conductor_resembles_dower():
    dower = np.array([_DOWER[f"V{i}"] for i in range(1, 7)])
    rest = dower - _homogeneous_field(np.arcsin(_CHEST[:, 0] / _HALF_WIDTH), _CHEST[:, 1])
    assert 1 - np.sum(rest**2) / np.sum(dower**2) == pytest.approx(0.92, abs=0.01)
    assert_array_equal(field_change(np.zeros((6, 2))), 0)
    neighbour = np.zeros((6, 2))
    neighbour[1] = (3.0, 1.7)  # from V2 to where V3 sits, and a little further
    assert np.linalg.norm(dower[1] + field_change(neighbour)[4] - dower[2]) < np.linalg.norm(dower[1] - dower[2])


def test_moved_electrodes():
    options = dict(n_samples=60, n_patients=60, classes=["normal"], ages=(20, 80), noise=0, random_state=0)
    X = make_ecg(**options)[0]
    change = {}
    for shift in (0.0, 1.0, 2.0):
        moved = make_ecg(electrode_shift=shift, **options)[0]
        assert_allclose(moved[:, :6], X[:, :6], atol=1e-6)  # limb leads
        change[shift] = np.sqrt(((moved - X) ** 2).mean(axis=(0, 2)) / (X**2).mean(axis=(0, 2)))[6:]
    assert_array_equal(change[0.0], 0)
    assert np.all(change[2.0] > 1.5 * change[1.0]) and 0.02 < change[1.0].min() < change[1.0].max() < 0.25
    assert change[1.0][[0, 1, 2]].min() > 1.5 * change[1.0][[4, 5]].max()  # near the heart it matters most
    with_noise = options | {"noise": 1}
    moved = make_ecg(electrode_shift=1.0, **with_noise)[0] - make_ecg(electrode_shift=1.0, **options)[0]
    assert_allclose(moved, make_ecg(**with_noise)[0] - X, atol=1e-5)  # the noise stays
    two = make_ecg(2, n_patients=1, noise=0, electrode_shift=2.0, random_state=0)[0]
    ratio = np.ptp(two[:, 6:], axis=-1) / np.ptp(two[:, [1]], axis=-1)
    assert np.abs(ratio[0] / ratio[1] - 1).max() > 0.1  # each recording has its own


def test_exchanged_electrodes():
    X = make_ecg(11, random_state=0)[0]
    arms = make_ecg(11, swap=("RA", "LA"), random_state=0)[0]
    assert_allclose(lead(arms, "I"), -lead(X, "I"), atol=2e-6)
    assert_allclose(lead(arms, "II"), lead(X, "III"), atol=2e-6)
    assert_allclose(lead(arms, "aVR"), lead(X, "aVL"), atol=2e-6)
    assert_allclose(arms[:, 6:], X[:, 6:], atol=2e-6)
    chest = make_ecg(11, swap=["v1", "V6"], random_state=0)[0]
    assert_array_equal(chest[:, [11, 7, 8, 9, 10, 6]], X[:, 6:])
    mixed = make_ecg(11, swap=("LL", "V2"), random_state=0)[0]
    assert_allclose(lead(mixed, "I"), lead(X, "I"), atol=2e-6)
    assert np.abs(lead(mixed, "V1") - lead(X, "V1")).max() > 0.05  # Wilson's terminal is another one
    assert_allclose(lead(mixed, "III"), lead(mixed, "II") - lead(mixed, "I"), atol=2e-6)


def test_normal_hearts_with_an_age_are_as_high_as_real_ones(real_data, recwarn):
    data = fetch_ptbxl(real_data / "ptbxl", fs=100, download_if_missing=False)
    normal = (data.target == (np.array(data.target_names) == "NORM")).all(axis=1)
    real = np.array([record.signal for record in data.records[normal]])
    simulated = make_ecg(len(real), n_patients=len(real), classes=["normal"], ages=(18, 80), random_state=0)[0]

    def extremes(X):
        low, middle, high = np.quantile(X, (0.002, 0.5, 0.998), axis=2)
        return np.median(high - middle, axis=0), np.median(middle - low, axis=0)

    for name, mine, theirs in zip(("R", "S"), extremes(simulated), extremes(real), strict=True):
        for lead_name in ("II", "V2", "V4", "V5", "V6", "aVR"):
            ratio = lead(mine[:, None], lead_name) / lead(theirs[:, None], lead_name)
            if lead(theirs[:, None], lead_name) > 0.35:  # mV
                assert 0.65 < ratio < 1.5, (name, lead_name, ratio)


# Writing


def test_a_folder_reads_back(tmp_path):
    data = make_ecg_records(22, classes="all", fs=250, duration=4, ages=(20, 80), fiducials=True, random_state=0)
    paths = write_records(tmp_path / "new" / "folder", data)
    folder = tmp_path / "new" / "folder"
    records = read_records(folder, annotations="atr", comments=True)
    assert [path.name for path in paths] == records.names == [record.name for record in data.records]
    for mine, theirs in zip(records, data.records, strict=True):
        assert np.abs(mine.signal - theirs.signal).max() <= 0.0005 + 1e-6  # mV, half of a unit
        assert (mine.fs, mine.lead_names, mine.units) == (250, LEADS, ("mV",) * 12)
        assert mine.comments == theirs.comments
        for key in ("sample", "symbol", "aux_note"):
            assert_array_equal(mine.annotations[key], theirs.annotations[key])
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == list(data.target)
    assert [int(row["patient_id"]) for row in rows] == list(data.patient_id)
    X, _, _ = make_windows([read_record(folder / row["filename"]) for row in rows], 4.0)
    assert X.shape == (22, 12, 1000)


def test_labels_of_several_columns_and_names_by_number(tmp_path):
    records = [ECGRecord(np.zeros((1, 10), np.float32), fs=100, lead_names=["II"])] * 2
    write_records(tmp_path, records, y=[[0, 1], [1, 1]], groups=["a", "b"], target_names=["MI", "HYP"])
    assert (tmp_path / "labels.csv").read_text().split() == ["filename,patient_id,MI,HYP", "00000,a,0,1", "00001,b,1,1"]
    assert (tmp_path / "RECORDS").read_text().split() == ["00000", "00001"]
    write_records(tmp_path / "unlabelled", records)
    assert not (tmp_path / "unlabelled" / "labels.csv").exists()
    write_records(tmp_path / "patients", records, groups=["a", "a"])
    assert (tmp_path / "patients" / "labels.csv").read_text().split() == ["filename,patient_id", "00000,a", "00001,a"]
    with pytest.raises(ValueError, match=r"3 groups .* do not fit 2 records"):
        write_records(tmp_path, records, groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"1 names of labels do not fit"):
        write_records(tmp_path, records, y=[[0, 1], [1, 1]], target_names=["MI"])
    named = ECGRecord(np.zeros((1, 10), np.float32), fs=100, lead_names=["II"], name="same")
    with pytest.raises(ValueError, match="Two records are called 'same'"):
        write_records(tmp_path, [named, named])
    for y in ([[0.9, 0], [0, 1]], [[2, 0], [0, 1]], [[np.nan, 0], [0, 1]]):
        with pytest.raises(ValueError, match="must hold 0 and 1 alone; it has"):
            write_records(tmp_path / "no", records, y=y)
    for names in (["patient_id", "filename"], ["MI", "MI"]):
        with pytest.raises(ValueError, match="two columns called"):
            write_records(tmp_path / "no", records, y=[[0, 1], [1, 1]], target_names=names)
    for data, found in ((named, "ECGRecord"), ("folder", "str"), (["a/101"], "a list with str")):
        with pytest.raises(ValueError, match=f"data must be .* got {found}"):
            write_records(tmp_path / "no", data)
    for name in ("../evil", "below/it"):
        with pytest.raises(ValueError, match="is no name of a WFDB record"):
            write_records(tmp_path / "no", [named, replace(named, name=name)])
    assert not (tmp_path / "no").exists() and not list(tmp_path.glob("evil*"))
    write_records(tmp_path / "whole", records, y=np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert (tmp_path / "whole" / "labels.csv").read_text().split()[1:] == ["00000,0,1,0", "00001,1,0,1"]


def test_nothing_old_stays_beside_new_records(tmp_path):
    old = make_ecg_records(2, classes=["normal"], duration=2.0, random_state=0)
    new = [replace(record, annotations=None)
           for record in make_ecg_records(2, classes=["atrial flutter"], duration=2.0, random_state=1).records]
    write_records(tmp_path, old)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"RECORDS, labels\.csv.*overwrite=True"):
        write_records(tmp_path, new)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="are read from"):
        write_records(tmp_path, read_records(tmp_path), overwrite=True)
    write_records(tmp_path, new, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "RECORDS", "sim00000.dat", "sim00000.hea", "sim00001.dat", "sim00001.hea"]
    for mine, theirs in zip(read_records(tmp_path), new, strict=True):
        assert_allclose(mine.signal, theirs.signal, atol=0.00051)
    for name in ("RECORDS", "labels.csv", "other.hea"):
        (tmp_path / name[:3]).mkdir()
        (tmp_path / name[:3] / name).write_text("precious")
        with pytest.raises(FileExistsError, match=name):
            write_records(tmp_path / name[:3], new)
    write_record(tmp_path / "one", old.records[0])
    write_record(tmp_path / "one", new[0])
    assert not (tmp_path / "one.atr").exists()
    for extension in ("hea", "dat", "../x", ""):
        with pytest.raises(ValueError, match="no extension of an annotation file"):
            write_record(tmp_path / "one", old.records[0], extension=extension)


def test_files_of_one_name_in_several_folders(tmp_path):
    record = ECGRecord(np.zeros((1, 10), np.float32), fs=100, lead_names=["II"])
    sources = []
    for person in ("Person_01", "Person_03"):
        (tmp_path / person).mkdir()
        sources.append(tmp_path / person / "rec_1")
        write_record(sources[-1], replace(record, signal=record.signal + len(sources)))
    paths = write_records(tmp_path / "all", read_records(sources))
    assert [path.name for path in paths] == ["Person_01_rec_1", "Person_03_rec_1"]
    assert [record.signal[0, 0] for record in read_records(tmp_path / "all")] == [1, 2]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31), n_leads=st.integers(1, 15), n_times=st.integers(1, 400),
    fs=st.sampled_from([50, 128.5, 360, 1000]), gain=st.sampled_from([200.0, 1000.0, 4096.0]),
    missing=st.floats(0, 0.5),
)
def test_any_record_reads_back(tmp_path_factory, seed, n_leads, n_times, fs, gain, missing):
    rng = np.random.default_rng(seed)
    signal = rng.uniform(-7, 7, (n_leads, n_times)).astype(np.float32)
    signal[rng.random(signal.shape) < missing] = np.nan
    record = ECGRecord(signal, fs=fs, lead_names=[f"lead {i}" for i in range(n_leads)])
    path = tmp_path_factory.mktemp("any") / "r-1_x"
    write_record(path, record, gain=gain)
    again = read_record(path)
    assert_array_equal(np.isnan(again.signal), np.isnan(signal))
    assert_allclose(again.signal, signal, atol=0.5 / gain + 1e-6)
    assert (again.fs, again.lead_names) == (fs, record.lead_names)


def test_real_records_survive(real_data, tmp_path):
    record = read_record(real_data / "mitdb" / "119", annotations="atr")
    write_record(tmp_path / "119.hea", record, gain=200)
    again = read_record(tmp_path / "119", annotations="atr")
    assert_array_equal(again.signal, record.signal)
    for key in ("sample", "symbol", "aux_note"):
        assert_array_equal(again.annotations[key], record.annotations[key])


def test_what_cannot_be_written(tmp_path):
    def record(signal, **more):
        return ECGRecord(np.atleast_2d(np.float32(signal)), fs=100, lead_names=["II"], **more)

    def notes(sample, symbol):
        return {"annotations": type(make_ecg_records(1, duration=1).records[0].annotations)(
            sample=np.array(sample), symbol=np.array(symbol), aux_note=np.array([""] * len(sample)))}

    with pytest.raises(FileNotFoundError, match="Create it first"):
        write_record(tmp_path / "nowhere" / "x", record([0, 1]))
    with pytest.raises(ValueError, match="'a b' is no name of a WFDB record"):
        write_record(tmp_path / "a b", record([0, 1]))
    with pytest.raises(ValueError, match=r"reaches 40, which is beyond 16 bits at gain=1000: give a gain of at most 819"):
        write_record(tmp_path / "x", record([0, 40]))
    with pytest.raises(ValueError, match="infinite"):
        write_record(tmp_path / "x", record([0, np.inf]))
    with pytest.raises(ValueError, match="empty"):
        write_record(tmp_path / "x", record(np.zeros((1, 0))))
    with pytest.raises(ValueError, match="gain must be a finite number"):
        write_record(tmp_path / "x", record([0, 1]), gain=0)
    with pytest.raises(ValueError, match="in order of time, from sample 0 to 2"):
        write_record(tmp_path / "x", record([0, 1], **notes([1, 0], ["N", "N"])))
    with pytest.raises(ValueError, match=r"WFDB has no symbols \['§'\]"):
        write_record(tmp_path / "x", record([0, 1], **notes([0, 1], ["N", "§"])))
    assert not list(tmp_path.iterdir())  # nothing is left half written
