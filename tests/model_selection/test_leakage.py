"""The audit against a search over all pairs and shifts, and on real recordings."""

import csv
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.model_selection import GroupKFold

from skecg.datasets import read_record
from skecg.model_selection import MultilabelStratifiedGroupKFold, audit_leakage


def read_split(X, groups, train, test, **options):
    (split,) = audit_leakage(X, groups, [(train, test)], **options).splits
    return split


def overlaps_at(a, b, shift, min_overlap):
    """The rule, in words: a stretch equal in all leads that both have, with changes in a quarter of the steps of one."""
    n_times = a.shape[1]
    a, b = a[:, max(shift, 0): n_times + min(shift, 0)], b[:, max(-shift, 0): n_times - max(shift, 0)]
    present = ~np.isnan(a).all(axis=1) & ~np.isnan(b).all(axis=1)
    a, b = a[present], b[present]
    equal = sliding_window_view(same(a, b).all(axis=0), min_overlap).all(axis=1)
    n_changes = sliding_window_view(~same(a[:, 1:], a[:, :-1]), min_overlap - 1, axis=1).sum(axis=2)
    return bool((equal & (4 * n_changes >= min_overlap - 1).any(axis=0)).any())


def same(a, b):
    return (a == b) | (np.isnan(a) & np.isnan(b))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), min_overlap=st.integers(16, 40), n_leads=st.integers(1, 3),
       dtype=st.sampled_from(["float32", "float64", "float16"]), calm=st.floats(0.0, 0.95))
def test_audit_finds_what_a_search_over_all_pairs_finds(seed, min_overlap, n_leads, dtype, calm):
    rng = np.random.default_rng(seed)
    # a coarse signal that mostly stays where it is, so that stretches lie on both sides of the rule
    signal = np.cumsum(rng.integers(-1, 2, (n_leads, 220)) * (rng.random((n_leads, 220)) > calm), axis=1).astype(dtype)
    signal[:, 150:190] = signal[:, 150:151]
    starts = rng.integers(0, 220 - 48, 9)
    X = np.stack([signal[:, start: start + 48] for start in starts])
    X[rng.random((9, n_leads)) < 0.15] = np.nan
    X[rng.random(X.shape) < 0.003] += 1
    X[rng.random(X.shape) < 0.003] = np.nan
    train, test = np.arange(6), np.arange(6, 9)
    found = read_split(X, None, train, test, min_overlap=min_overlap)
    duplicated = {b for b in test if varies(X[b]) and any(same(X[a], X[b]).all() for a in train)}
    assert set(found.duplicates[:, 1]) == duplicated
    shifts = range(min_overlap - 48, 48 - min_overlap + 1)
    expected = {b for b in test if any(overlaps_at(X[a], X[b], s, min_overlap) for a in train for s in shifts)}
    assert set(found.overlaps[:, 1]) == expected - duplicated
    for a, b, shift, length in found.overlaps:
        assert a in train and length >= min_overlap and overlaps_at(X[a], X[b], shift, min_overlap)


def varies(window):
    return not same(window[:, 1:], window[:, :-1]).all()


@pytest.fixture(scope="module")
def ptbxl(real_data):
    """400 recordings of 10 s at 100 Hz, (400, 12, 1000), the superclasses and the patients."""
    folder = real_data / "ptbxl_bp100"
    with open(folder / "labels.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[:400]
    X = np.stack([np.fromfile(folder / f"{row['filename']}.dat", "<i2").reshape(-1, 12).T for row in rows])
    y = np.array([[int(row[name]) for name in ("NORM", "MI", "STTC", "CD", "HYP")] for row in rows])
    return (X / 1000).astype(np.float32), y, np.array([row["patient_id"] for row in rows])


@pytest.fixture(scope="module")
def mitdb(real_data):
    """Two leads of 5 minutes of 6 patients, at 360 Hz."""
    names = ("101", "106", "108", "201", "202", "223")
    signals = [np.asarray(read_record(real_data / "mitdb" / name).signal[:, :108_000]) for name in names]
    return signals, np.array(["201" if name == "202" else name for name in names])


def cut(signals, patients, length, step):
    windows = [(signal[:, start: start + length], patient) for signal, patient in zip(signals, patients, strict=True)
               for start in range(0, signal.shape[1] - length + 1, step)]
    return np.stack([window for window, _ in windows]), np.array([patient for _, patient in windows])


@pytest.mark.parametrize("min_overlap", ["auto", 32])
def test_no_false_alarm_on_real_recordings(ptbxl, mitdb, min_overlap):
    X, y, patients = ptbxl
    report = audit_leakage(X, patients, MultilabelStratifiedGroupKFold(3).split(X, y, patients), min_overlap=min_overlap)
    assert report and report.ok and len(report.splits) == 3
    assert "0 of 3 splits leak" in str(report)
    half = np.arange(400) % 2 == 0
    alone = audit_leakage(X, None, [(half, ~half)], min_overlap=min_overlap)
    assert alone.ok and "not checked: patients" in str(alone)
    X, patients = cut(*mitdb, length=1800, step=900)
    assert audit_leakage(X, patients, GroupKFold(5).split(X, groups=patients), min_overlap=min_overlap).ok


@pytest.mark.parametrize(("min_overlap", "leads"), [(16, [1]), (100, [0, 6, 11])])
def test_every_shift_of_a_real_recording_is_found(ptbxl, min_overlap, leads):
    signal = np.concatenate(ptbxl[0][[3, 77, 300]][:, leads], axis=1)
    X = np.stack([signal[:, 1000:2000]] + [signal[:, 1000 + s: 2000 + s] for s in range(-999, 1000) if s])
    shifts = np.array([0] + [s for s in range(-999, 1000) if s])
    split = read_split(X, None, [0], np.arange(1, len(X)), min_overlap=min_overlap)
    reachable = np.abs(shifts) <= 1000 - min_overlap
    assert set(split.overlaps[:, 1]) == set(np.flatnonzero(reachable & (shifts != 0)))
    assert np.array_equal(split.overlaps[:, 2], shifts[split.overlaps[:, 1]])
    assert np.array_equal(split.overlaps[:, 3], 1000 - np.abs(split.overlaps[:, 2]))


def test_windows_cut_with_overlap_and_split_at_random(mitdb):
    X, patients = cut(*mitdb, length=1800, step=900)
    in_test = np.random.default_rng(0).random(len(X)) < 0.2
    split = read_split(X, patients, ~in_test, in_test)
    expected = [b for b in np.flatnonzero(in_test)
                if any(0 <= a < len(X) and a // 119 == b // 119 and not in_test[a] for a in (b - 1, b + 1))]
    assert len(X) == 6 * 119
    assert split.overlaps[:, 1].tolist() == expected
    assert set(np.abs(split.overlaps[:, 2])) == {900} and set(split.overlaps[:, 3]) == {900}
    assert split.patients == ("101", "106", "108", "201", "223")


def test_copies_under_another_patient_id(ptbxl):
    X, _, patients = ptbxl
    X, patients = X[:40].copy(), patients[:40].copy()
    X[31], patients[31] = X[2], "someone else"
    X[32] = X[3]
    X[32, 4] = np.nan  # the same window, one lead missing
    X[4, 0, 10:20] = 0.0
    X[33] = X[4]
    X[33, 0, 10:20] = -0.0
    train = np.arange(20)
    split = read_split(X, patients, train, np.arange(20, 40))
    assert split.duplicates.tolist() == [[2, 31], [4, 33]]
    assert split.overlaps.tolist() == [[3, 32, 0, 1000]]
    with pytest.raises(ValueError, match=r"train 2 = test 31, train 4 = test 33.*\n.*drop duplicated windows"):
        audit_leakage(X, patients, [(train, np.arange(20, 40))]).raise_if_leaky()
    audit_leakage(X, None, [(train, np.arange(20, 30))]).raise_if_leaky()


def test_windows_without_signal_are_no_leak():
    X = np.zeros((6, 2, 200), dtype=np.float32)
    X[1], X[3, 0], X[4] = 1.5, np.nan, np.nan
    X[2, 0, :100], X[5, 0, 100:] = -5, -5  # a step
    assert audit_leakage(X, None, [([0, 1, 2], [3, 4, 5])]).ok
    one_lead = np.random.default_rng(0).normal(size=(2, 2, 200))
    one_lead[:, 1] = 0  # equal where it is flat, and only there
    assert audit_leakage(one_lead, None, [([0], [1])]).ok


def test_patients_and_rows_on_both_sides():
    X = np.random.default_rng(0).normal(size=(6, 100))
    report = audit_leakage(X, ["a", "a", "b", "b", "c", "c"], [([0, 1, 2], [2, 3, 4]), ([0, 1], [2, 3, 4, 5])])
    first, second = report.splits
    assert first.rows.tolist() == [2] and first.patients == ("b",) and not first.ok
    assert not len(first.duplicates) and not len(first.overlaps)
    assert second.ok and not report
    assert "1 samples on both sides (2); 1 patients on both sides (b)" in str(report)
    assert "1 of 2 splits leak" in repr(report)


def test_features():
    features = np.random.default_rng(0).normal(size=(50, 20))
    features[45] = features[7]
    groups = np.arange(50)
    for options in ({}, {"min_overlap": None}):
        report = audit_leakage(features, groups, [(np.arange(40), np.arange(40, 50))], **options)
        assert report.splits[0].duplicates.tolist() == [[7, 45]]
        assert report.min_overlap is None and "not checked: overlaps" in str(report)
    integers = np.arange(40).reshape(8, 5) % 15
    assert read_split(integers, None, [0, 1, 2], [3, 4]).duplicates.tolist() == [[0, 3], [1, 4]]


def test_a_memmap_is_read_in_blocks(tmp_path):
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(2000, 4, 1000))
    for start in range(0, 2000, 500):
        X[start: start + 500] = rng.normal(size=(500, 4, 1000))
    X[1999, :, :700] = X[0, :, 300:]
    X.flush()
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    tracemalloc.start()
    split = read_split(X, None, np.arange(1500), np.arange(1500, 2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert split.overlaps.tolist() == [[0, 1999, 300, 700]]
    assert peak < 0.8 * X.nbytes


def test_errors():
    X = np.random.default_rng(0).normal(size=(6, 100))
    with pytest.raises(ValueError, match=r"For one split pass \[\(train, test\)\]"):
        audit_leakage(X, None, ([0, 1, 2], [3, 4, 5]))
    with pytest.raises(ValueError, match="splits is empty"):
        audit_leakage(X, None, [])
    with pytest.raises(ValueError, match="test side of a split is empty"):
        audit_leakage(X, None, [([0, 1], [])])
    for side in ([6], [-1], [0.5], [True, False]):
        with pytest.raises(ValueError, match="train side of a split must hold rows from 0 to 5"):
            audit_leakage(X, None, [(side, [1])])
    for min_overlap in (15, 101, 20.0, "all"):
        with pytest.raises(ValueError, match="an int from 16 to the 100 samples"):
            audit_leakage(X, None, [([0], [1])], min_overlap=min_overlap)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        audit_leakage(X, [1, 2], [([0], [1])])
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        audit_leakage(X[:, 0], None, [([0], [1])])
    with pytest.raises(ValueError, match="type <U1"):
        audit_leakage(np.full((6, 3), "N"), None, [([0], [1])])


@pytest.mark.parametrize("splits", [5, GroupKFold(5)])
def test_a_splitter_is_not_a_list_of_splits(splits):
    with pytest.raises(ValueError, match=r"list\(splitter\.split\(X, y, groups\)\)"):
        audit_leakage(np.zeros((10, 50)), np.arange(10), splits)
