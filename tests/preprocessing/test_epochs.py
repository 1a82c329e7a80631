"""Cutting nights into scored epochs: real stages of the MIT-BIH Polysomnographic Database on signals that count."""

import shutil
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.utils import Bunch

from skecg.datasets import ECGRecord, fetch_slpdb, read_annotations, read_records
from skecg.datasets._records import RecordSequence
from skecg.preprocessing import make_epochs

EPOCH = 7_500  # samples
NIGHTS = {"slp02b": 270, "slp67x": 154}  # epochs; the shortest ones, all of them scored
MERGED = {"W": "W", "1": "N1", "2": "N2", "3": "N3", "4": "N3", "R": "R"}
NREM = {"W": "W", "1": "NREM", "2": "NREM", "3": "NREM", "4": "NREM", "R": "R"}
LIGHT = {"W": "W", "1": "light", "2": "light", "3": "deep", "4": "deep", "R": "R"}


@pytest.fixture(scope="module")
def slpdb(real_data, tmp_path_factory):
    """Nights with the real stages, and a signal that is the number of the epoch in microvolt."""
    folder = tmp_path_factory.mktemp("slpdb")
    for name, n_epochs in NIGHTS.items():
        np.repeat(np.arange(n_epochs, dtype="<i2"), EPOCH).tofile(folder / f"{name}.dat")
        header = f"{name} 1 250 {n_epochs * EPOCH}\n{name}.dat 16 1000/mV 16 0 0 {checksum(n_epochs)} 0 ECG\n"
        (folder / f"{name}.hea").write_text(header)
        for extension in ("st", "ecg"):
            shutil.copy(real_data / "slpdb_rr" / f"{name}.{extension}", folder)
    return folder


def checksum(n_epochs):
    return int(np.int64(EPOCH * n_epochs * (n_epochs - 1) // 2).astype(np.int16))


@pytest.fixture(scope="module")
def nights(slpdb):
    return list(read_records(slpdb, annotations="st"))


@pytest.fixture(scope="module")
def noted(slpdb, wfdb):
    """(record, epoch, stage) of every annotation, as wfdb reads them."""
    rows = []
    for number, name in enumerate(NIGHTS):
        notes = wfdb.rdann(str(slpdb / name), "st")
        rows += [(number, round(sample / EPOCH), note.strip("\x00").split()[0])
                 for sample, note in zip(notes.sample, notes.aux_note, strict=True)]
    return rows


@pytest.mark.parametrize(("classes", "names"), [
    (5, MERGED), (4, LIGHT), (3, NREM), ({"MT": "moves", "W": "wake"}, {"MT": "moves", "M": "moves", "W": "wake"}),
], ids=["5", "4", "3", "own"])
def test_every_scored_epoch_with_its_stage(nights, noted, classes, names):
    expected = [(number, epoch, names[stage]) for number, epoch, stage in noted if stage in names]
    X, y, groups, places = make_epochs(nights, classes=classes)
    assert X.shape == (len(expected), 1, EPOCH) and X.dtype == np.float32
    assert_array_equal(np.column_stack([places, y]), np.array(expected, dtype=str))
    assert_array_equal(groups, [number for number, _, _ in expected])
    # each window is that epoch, from its first sample to its last
    assert_array_equal(np.rint(1000 * X[:, 0, [0, -1]]), np.array([[epoch, epoch] for _, epoch, _ in expected]))


def test_stages_are_those_of_the_database(real_data):
    """All stages there are, on a signal of one sample per second: some nights were scored late, slp45 notes M for MT."""
    records, first = [], []
    for path in sorted((real_data / "slpdb_rr").glob("*.st")):
        notes = read_annotations(path.with_suffix(""), "st")
        first.append(round(notes.sample[0] / EPOCH))
        notes.sample = notes.sample // 250
        records.append(ECGRecord(np.zeros((1, notes.sample[-1] + 30), np.float32), 1, ["ECG"], annotations=notes))
    count = {"W": 2_200, "N1": 1_168, "N2": 2_396, "N3": 285 + 115, "R": 439}
    X, y, groups, places = make_epochs(records)
    assert Counter(y.tolist()) == count and X.shape == (6_603, 1, 30)
    assert set(groups) == set(range(12))
    start = np.flatnonzero(np.diff(groups, prepend=-1))
    assert max(first) == 26 and (places[start, 1] >= first).all() and (places[start, 1] == first).sum() >= 10
    _, y, _, _ = make_epochs(records, classes={"MT": "moves"})
    assert y.tolist() == ["moves"] * 14


@pytest.mark.parametrize("neighbours", [1, 3])
def test_neighbours(nights, noted, neighbours):
    last = list(NIGHTS.values())
    scored = [(number, epoch, MERGED[stage]) for number, epoch, stage in noted if stage in MERGED]
    expected = [row for row in scored if neighbours <= row[1] < last[row[0]] - neighbours]
    lost = len(scored) - len(expected)
    assert lost > 0
    message = rf"{lost} of {len(scored):,} scored epochs are left out: {lost} that leave the record with their neighbours"
    with pytest.warns(UserWarning, match=message):
        X, y, _, places = make_epochs(nights, neighbours=neighbours)
    assert_array_equal(np.column_stack([places, y]), np.array(expected, dtype=str))
    offsets = np.arange(-neighbours, neighbours + 1)
    assert X.shape == (len(expected), 1, EPOCH * len(offsets))
    for column in (0, EPOCH - 1):
        assert_array_equal(np.rint(1000 * X[:, 0, column::EPOCH]), places[:, 1:] + offsets)


def test_places_give_back_the_night(nights):
    X, _, _, places = make_epochs(nights)
    night = places[:, 0] == 0  # slp02b: scored throughout, but for one epoch of movement
    breaks = np.flatnonzero(np.diff(places[night, 1]) != 1)
    assert len(breaks) == 1
    whole = X[night][:breaks[0] + 1, 0].ravel()
    assert_array_equal(whole, nights[0].signal[0, :len(whole)])


def test_stages_of_the_bunch(slpdb, nights, tmp_path):
    with pytest.warns(UserWarning, match="holds 2 of 18 records"):
        data = fetch_slpdb(slpdb, download_if_missing=False)
    expected = make_epochs(nights, classes=3)
    X, y, groups, places = make_epochs(data, classes=3)
    assert_array_equal(groups, np.array(["slp02", "slp67"])[expected[2]])
    for a, b in zip((X, y, places), (expected[0], expected[1], expected[3]), strict=True):
        assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"epochs of 30 s; got length=15\.0"):
        make_epochs(data, 15.0)
    with pytest.raises(ValueError, match="one array for each of the 2 records; got 1"):
        make_epochs(Bunch(records=data.records, stages=data.stages[:1]))


def night(stages, *, n_times=1_000, at=None, fs=10, n_leads=1, name="", seed=0):
    """Epochs of 10 s, 100 samples."""
    at = 100 * np.arange(len(stages)) if at is None else np.array(at)
    notes = Bunch(sample=at, symbol=np.array(['"'] * len(stages)), aux_note=np.array(stages))
    signal = np.random.default_rng(seed).normal(size=(n_leads, n_times)).astype(np.float32)
    return ECGRecord(signal, fs, ["ECG", "EEG"][:n_leads], name=name, annotations=notes)


def test_epochs_that_the_signal_does_not_hold():
    one = night(["W", "1", "2", "3", "4", "R"], n_times=560, n_leads=2)
    one.signal[0, 150] = one.signal[:, 350] = np.nan
    with pytest.warns(UserWarning, match=r"2 of 6 scored epochs are left out: 1 that leave the record, 1 with gaps"):
        X, y, _, places = make_epochs([one], 10.0)
    assert y.tolist() == ["W", "N1", "N2", "N3"] and places[:, 1].tolist() == [0, 1, 2, 4]
    assert_array_equal(np.isnan(X).all(axis=2), [[0, 0], [1, 0], [0, 0], [0, 0]])
    assert_array_equal(np.isnan(X).any(axis=2), np.isnan(X).all(axis=2))


def test_epochs_begin_where_they_are_noted():
    one = night(["N1", "REM", "N2 H A", "", "N3", "N3"], at=[37, 137, 237, 337, 437, 537])
    X, y, _, places = make_epochs([one], 10.0)
    assert y.tolist() == ["N1", "N2", "N3", "N3"] and places[:, 1].tolist() == [0, 2, 4, 5]
    assert_array_equal(X[:, 0], [one.signal[0, s:s + 100] for s in (37, 237, 437, 537)])
    one.annotations.symbol[5] = "+"  # what is noted with another symbol is no stage
    with pytest.raises(ValueError, match="closest sleep stages of record number 0 are 20 s apart; expected length=10 s"):
        make_epochs([one], 10.0)
    one.annotations.symbol[:] = ["+", "+", '"', "+", "+", "+"]  # what was not scored may be a neighbour
    X, y, _, _ = make_epochs([one], 10.0, neighbours=1, classes={"N2": "two"})
    assert_array_equal(X[0, 0], one.signal[0, 137:437])


def test_a_second_call_reads_nothing(slpdb, tmp_path, monkeypatch):
    out = tmp_path / "X.npy"
    records = read_records(slpdb, annotations="st")[1:]
    first = make_epochs(records, classes=4, out=out)
    assert isinstance(first[0], np.memmap)
    monkeypatch.setattr(RecordSequence, "__getitem__", None)
    for a, b in zip(first, make_epochs(records, classes=4, out=out), strict=True):
        assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_other_stages_of_a_bunch_cut_again(tmp_path):
    records = [ECGRecord(np.zeros((1, 900), np.float32), 10, ["ECG"])]
    for stages in (["W", "1", "2"], ["W", "R", "2"]):
        _, y, _, _ = make_epochs(Bunch(records=records, stages=[np.array(stages)]), out=tmp_path / "X.npy")
        assert y.tolist() == [MERGED[stage] for stage in stages]


@pytest.mark.parametrize(("call", "match"), [
    (lambda: make_epochs([night(["W"]), ECGRecord(np.zeros((1, 500)), 10, ["ECG"], name="x")], 10.0),
     r"Record 'x' has no sleep stages .*annotations='st'"),
    (lambda: make_epochs([night(["(N", "+"], name="x")], 10.0), "Record 'x' has no sleep stages"),
    (lambda: make_epochs([night(["W", "1", "2"])], 5.0), "record number 0 are 10 s apart; expected length=5 s"),
    (lambda: make_epochs([night(["W", "1", "2"])], 20.0), "10 s apart; expected length=20 s"),
    (lambda: make_epochs([night(["W", "1", "2"], at=[0, 100, 150])], 10.0), "0 are 5 s apart"),
    (lambda: make_epochs([night(["W"]), night(["W"], fs=20, name="x")], 10.0), r"Record 'x' has fs=20 Hz, the first"),
    (lambda: make_epochs([night(["MT", "MT"])], 10.0), "no scored epoch .*stages W 1 N1 2"),
    (lambda: make_epochs([night(["W"])], 10.0, classes=2), r"classes must be 5, 4, 3, or a dict .*got 2"),
    (lambda: make_epochs([night(["W"])], 10.0, neighbours=-1), r"neighbours must be a whole number .*got -1"),
    (lambda: make_epochs([night(["W"])], 10.0, neighbours=0.5), r"neighbours must be a whole number .*got 0\.5"),
    (lambda: make_epochs([night(["W"])], 10.03), "whole number"),
])
def test_messages(call, match):
    with pytest.raises(ValueError, match=match):
        call()
