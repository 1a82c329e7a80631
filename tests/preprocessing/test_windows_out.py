"""Windows in a memmap: found again without reading a record, cut again whenever anything differs."""

import json
import os
import shutil
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.utils import Bunch

from skecg.datasets import ECGRecord, make_ecg_records, read_records, write_record
from skecg.datasets._records import RecordSequence
from skecg.preprocessing import make_beats, make_epochs, make_windows


@pytest.fixture
def folder(tmp_path):
    """Three annotated records on disk, 4 to 6 s."""
    (tmp_path / "data").mkdir()
    for i, record in enumerate(make_ecg_records(3, duration=6.0, fs=100, lead_names=("I", "II"), random_state=0).records):
        signal = record.signal[:, :600 - 100 * i]
        inside = record.annotations.sample < signal.shape[1]
        notes = Bunch(**{name: values[inside] for name, values in record.annotations.items()})
        write_record(tmp_path / "data" / f"r{i}", replace(record, signal=signal, annotations=notes))
    return tmp_path / "data"


@pytest.fixture
def read(monkeypatch):
    """The names of the records that were read."""
    names, original = [], RecordSequence.__getitem__

    def getitem(self, key):
        item = original(self, key)
        if isinstance(item, ECGRecord):
            names.append(item.name)
        return item

    monkeypatch.setattr(RecordSequence, "__getitem__", getitem)
    return names


CALLS = {
    "windows": lambda records, out: make_windows(records, 1.0, step=0.5, y=["a", "b", "c"], groups=[7, 8, 7], out=out),
    "beats": lambda records, out: make_beats(records, before=0.1, after=0.2, groups=["p", "q", "p"], out=out),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_second_call_reads_no_record(folder, tmp_path, read, call):
    records = read_records(folder, annotations="atr")
    expected = call(records, None)
    first = call(records, tmp_path / "X.npy")
    assert read == ["r0", "r1", "r2"] * 2
    read.clear()
    second = call(read_records(folder, annotations="atr"), str(tmp_path / "X.npy"))
    assert read == []
    assert isinstance(second[0], np.memmap) and second[0].dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        second[0][0] = 0
    for a, b, c in zip(expected, first, second, strict=True):
        assert_array_equal(a, b)
        assert_array_equal(b, c)
        assert a.dtype == b.dtype == c.dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.npy", "X.npy.index.npz", "data"]


def test_labels_and_groups_are_those_of_the_call(folder, tmp_path, read):
    records = read_records(folder)
    make_windows(records, 1.0, y=[0, 1, 2], out=tmp_path / "X.npy")
    read.clear()
    _, y, groups = make_windows(records, 1.0, y=np.eye(3), groups=list("uvw"), out=tmp_path / "X.npy")
    assert read == []
    rows = np.repeat([0, 1, 2], [6, 5, 4])
    assert_array_equal(y, np.eye(3)[rows])
    assert_array_equal(groups, np.array(list("uvw"))[rows])


def test_warnings_come_again(folder, tmp_path):
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 3 records give no window of 5 s"):
            make_windows(read_records(folder), 5.0, out=tmp_path / "X.npy")
    messages = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="beats are left out") as caught:
            make_beats(read_records(folder, annotations="atr"), context=1, out=tmp_path / "X.npy")
        messages.append(str(caught[0].message))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(("options", "reason"), [
    ({"length": 1.5}, "another length, step"),
    ({"step": 0.5}, "another step"),
    ({"lead_names": ["II"]}, "another lead_names"),
])
def test_other_arguments_cut_again(folder, tmp_path, read, capsys, options, reason):
    records, out = read_records(folder), tmp_path / "X.npy"
    make_windows(records, 1.0, out=out)
    arguments = {"length": 1.0} | options
    expected = make_windows(records, **arguments)[0]
    read.clear()
    X, _, _ = make_windows(records, **arguments, out=out, verbose=1)
    assert len(read) == 3
    assert_array_equal(X, expected)
    assert capsys.readouterr().out == f"[make_windows] {out}: cut again, for it was made with {reason}.\n"
    make_windows(records, **arguments, out=out, verbose=1)
    assert capsys.readouterr().out == f"[make_windows] {out}: {len(X)} windows, cut earlier.\n"
    assert len(read) == 3


@pytest.mark.parametrize("options", [
    {"before": 0.2}, {"after": 0.3}, {"context": 1}, {"classes": {"N": "N"}}, {"classes": {"N": "normal"}},
])
@pytest.mark.filterwarnings("ignore:.*beats are left out")
def test_other_arguments_cut_beats_again(folder, tmp_path, read, options):
    records, out = read_records(folder, annotations="atr"), tmp_path / "X.npy"
    arguments = {"before": 0.1, "after": 0.2, "classes": {"N": "N", "V": "V"}}
    make_beats(records, **arguments, out=out)
    expected = make_beats(records, **(arguments | options))
    read.clear()
    for a, b in zip(expected, make_beats(records, **(arguments | options), out=out), strict=True):
        assert_array_equal(a, b)
    assert len(read) == 3


def touch(path):
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


@pytest.mark.parametrize("change", [
    lambda folder: touch(folder / "r1.dat"),
    lambda folder: touch(folder / "r2.atr"),
    lambda folder: touch(folder / "r0.hea"),
    lambda folder: (folder / "r0_0001.dat").write_bytes(b"segment"),
    lambda folder: shutil.copy(folder / "r0.atr", folder / "r0.qrs"),
    lambda folder: (folder / "r0.atr").unlink(),
], ids=["signal", "annotations", "header", "segment", "more", "less"])
def test_other_files_cut_again(folder, tmp_path, read, capsys, change):
    make_windows(read_records(folder), 1.0, out=tmp_path / "X.npy")
    read.clear()
    change(folder)
    make_windows(read_records(folder), 1.0, out=tmp_path / "X.npy", verbose=1)
    assert len(read) == 3
    assert "made of other records, or these have changed" in capsys.readouterr().out


@pytest.mark.parametrize("select", [
    lambda folder: read_records(folder)[:2],
    lambda folder: read_records(folder)[::-1],
    lambda folder: read_records(folder, lead_names=["II", "I"]),
    lambda folder: list(read_records(folder)[1:]),
], ids=["fewer", "order", "options", "memory"])
def test_other_records_cut_again(folder, tmp_path, select):
    make_windows(read_records(folder), 1.0, out=tmp_path / "X.npy")
    X, _, groups = make_windows(select(folder), 1.0, out=tmp_path / "X.npy")
    expected, _, same = make_windows(select(folder), 1.0)
    assert_array_equal(X, expected)
    assert_array_equal(groups, same)


def test_unrelated_files_do_not_matter(folder, tmp_path, read):
    make_windows(read_records(folder)[:2], 1.0, out=folder / "r0.npy")  # among the files of the record itself
    read.clear()
    (folder / "r10.dat").write_bytes(b"of record r10")
    (folder / "notes.txt").write_text("later")
    touch(folder / "r2.dat")
    make_windows(read_records([folder / "r0", folder / "r1"]), 1, out=folder / "r0.npy")
    assert read == []


def signals(seed=0):
    rng = np.random.default_rng(seed)
    beats = Bunch(sample=np.array([100, 200, 290]), symbol=np.array(["N", "V", "N"]))
    return [ECGRecord(rng.normal(size=(2, n)).astype(np.float32), 100, ("I", "II"), annotations=beats) for n in (300, 400)]


def flip(records):
    records[1].signal[1, 17] *= -1
    return records


def notes(records, **changed):
    return [replace(record, annotations=Bunch(**(record.annotations | changed))) for record in records]


@pytest.mark.parametrize("change", [
    flip,
    lambda records: records[::-1],
    lambda records: [replace(record, fs=50) for record in records],
    lambda records: [replace(record, lead_names=("II", "I")) for record in records],
    lambda records: notes(records, sample=np.array([100, 201, 290])),
    lambda records: notes(records, symbol=np.array(["N", "A", "N"])),
], ids=["sample", "order", "fs", "leads", "beats", "symbols"])
def test_records_in_memory_are_known_by_what_they_hold(tmp_path, monkeypatch, change):
    out = tmp_path / "X.npy"
    make_beats(signals(), before=0.1, after=0.1, out=out)
    before = out.stat().st_ino
    make_beats(signals(), before=0.1, after=0.1, out=out)
    assert out.stat().st_ino == before
    changed = change(signals())
    for a, b in zip(make_beats(changed, before=0.1, after=0.1), make_beats(changed, before=0.1, after=0.1, out=out),
                    strict=True):
        assert_array_equal(a, b)
    assert out.stat().st_ino != before  # both were there at once


def shorten(path):
    path.write_bytes(path.read_bytes()[:-4])


def overwrite(path):
    X = np.load(path, mmap_mode="r+")
    X[2, 0, 5] = 17
    X.flush()
    touch(path)  # the clock of a file system may be coarser than this test is fast


@pytest.mark.parametrize("damage", [
    lambda out, index: shorten(out),
    lambda out, index: overwrite(out),
    lambda out, index: touch(out),
    lambda out, index: out.unlink(),
    lambda out, index: shorten(index),
    lambda out, index: index.write_bytes(b""),
    lambda out, index: index.write_text("{}"),
    lambda out, index: np.savez(str(index), made=np.array("{}")),
    lambda out, index: np.savez(str(index), made=np.array({}, dtype=object)),
], ids=["short", "written", "touched", "gone", "short index", "empty index", "text", "other index", "pickle"])
def test_what_is_damaged_is_cut_again(tmp_path, damage):
    expected = make_windows(signals(), 1.0)[0]
    out = tmp_path / "X.npy"
    make_windows(signals(), 1.0, out=out)
    damage(out, tmp_path / "X.npy.index.npz")
    assert_array_equal(make_windows(signals(), 1.0, out=out)[0], expected)
    assert_array_equal(np.load(out), expected)


def test_another_version_cuts_again(tmp_path, monkeypatch, capsys):
    make_windows(signals(), 1.0, out=tmp_path / "X.npy")
    monkeypatch.setattr("skecg.preprocessing._cutting.__version__", "99.0")
    make_windows(signals(), 1.0, out=tmp_path / "X.npy", verbose=1)
    assert "cut again, for it was made by version" in capsys.readouterr().out
    make_beats(signals(), out=tmp_path / "X.npy", before=0.1, after=0.1, verbose=1)
    assert "cut again, for it was made by make_windows." in capsys.readouterr().out


class Interrupted:
    """Records, of which the last cannot be had."""

    def __init__(self, records):
        self.there = records
        self.paths, self.options = (), {}

    def __len__(self):
        return len(self.there) + 1

    def __getitem__(self, i):
        if i == len(self.there):
            raise KeyboardInterrupt
        return self.there[i]


def test_an_interrupted_pass_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_windows(Interrupted(signals()), 1.0, out=tmp_path / "X.npy")
    assert list(tmp_path.iterdir()) == []
    X = np.array(make_windows(signals(), 1.0, out=tmp_path / "X.npy")[0])
    with pytest.raises(KeyboardInterrupt):
        make_windows(Interrupted(signals(1)), 1.0, out=tmp_path / "X.npy")
    with pytest.raises(ValueError, match="No record has a usable window"):
        make_windows(signals(), 100.0, out=tmp_path / "X.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.npy", "X.npy.index.npz"]
    before = (tmp_path / "X.npy").stat().st_ino
    assert_array_equal(make_windows(signals(), 1.0, out=tmp_path / "X.npy")[0], X)
    assert (tmp_path / "X.npy").stat().st_ino == before


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("where", ["savez", "first", "second"])
def test_a_crash_while_the_files_take_their_places(tmp_path, monkeypatch, where, earlier):
    """Before, or between the index and the windows: there is then no file without its index, nor is a wrong one trusted."""
    replaced, original = [], os.replace

    def crash(*args, **kwargs):
        raise OSError("disk full")

    def replace_once(*paths):
        replaced.append(paths)
        return original(*paths) if len(replaced) == 1 else crash()

    out = tmp_path / "X.npy"
    if earlier:
        make_windows(signals(), 1.0, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(*{"savez": (np, "savez", crash), "first": (os, "replace", crash),
                        "second": (os, "replace", replace_once)}[where])
        with pytest.raises(OSError, match="disk full"):
            make_windows(signals(1), 1.0, out=out)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == ({"X.npy"} if earlier else set()) | ({"X.npy.index.npz"} if earlier or where == "second" else set())
    for seed in (0, 1):
        assert_array_equal(make_windows(signals(seed), 1.0, out=out)[0], make_windows(signals(seed), 1.0)[0])


@pytest.mark.parametrize("function", [make_windows, make_beats, make_epochs])
def test_a_file_of_others_is_never_replaced(tmp_path, function):
    out = tmp_path / "mine.npy"
    np.save(out, np.arange(3))
    notes = Bunch(sample=np.array([0, 100]), symbol=np.array(['"', "N"]), aux_note=np.array(["W", ""]))
    records = [replace(record, annotations=notes) for record in signals()]
    arguments = {make_windows: {"length": 1.0}, make_beats: {"before": 0.1, "after": 0.1}, make_epochs: {"length": 1.0}}
    with pytest.raises(FileExistsError, match=r"no mine.npy.index.npz beside it.*Delete it, or choose another name"):
        function(records, **arguments[function], out=out)
    assert_array_equal(np.load(out), np.arange(3))
    (tmp_path / "labels.csv").write_text("precious")
    for name in ("labels.csv", "windows"):
        with pytest.raises(ValueError, match=f"out must be a .npy file; got .*{name}"):
            function(records, **arguments[function], out=tmp_path / name)
    assert (tmp_path / "labels.csv").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"mine.npy", "labels.csv"}


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    class Slow(Interrupted):
        def __getitem__(self, i):
            np.save(tmp_path / "X.npy", np.arange(3))
            return self.there[i]  # IndexError ends the pass

    with pytest.raises(FileExistsError, match=r"no X.npy.index.npz beside it"):
        make_windows(Slow(signals()), 1.0, out=tmp_path / "X.npy")
    assert_array_equal(np.load(tmp_path / "X.npy"), np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["X.npy"]


def test_where_out_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*no'\. Make it first"):
        make_windows(signals(), 1.0, out=tmp_path / "no" / "X.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(IsADirectoryError, match=r"is a folder; expected the name of a \.npy file"):
        make_windows(signals(), 1.0, out=tmp_path / "folder.npy")

    def refuse(*args, **kwargs):  # as a read-only folder does, which is none to an administrator
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("skecg.preprocessing._cutting.open", refuse, raising=False)
    with pytest.raises(PermissionError, match=r"X\.npy': the folder .* cannot be written to"):
        make_windows(signals(), 1.0, out=tmp_path / "X.npy")


def test_two_at_a_time(tmp_path):
    """Threads that fight for one file: whoever is last, nobody gets the windows of another."""
    out, wrong, done = tmp_path / "X.npy", [], []

    def work(seed):
        expected = make_windows(signals(seed), 1.0)[0]
        for _ in range(20):
            try:
                X = make_windows(signals(seed), 1.0, out=out)[0]
            except OSError as error:  # replaced by the other thread between two looks
                assert "by another call with the same out=" in str(error) or isinstance(error, FileNotFoundError)
                continue
            done.append(seed)
            if not np.array_equal(X, expected):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done and wrong == []
    assert not list(tmp_path.glob("*.part"))


def test_memory_stays_small(tmp_path):
    """80 MB of overlapping windows from 0.4 MB of signal."""
    record = ECGRecord(np.random.default_rng(0).normal(size=(1, 100_000)).astype(np.float32), 100, ["II"])
    tracemalloc.start()
    try:
        X, _, _ = make_windows([record], 20.0, step=0.1, out=tmp_path / "X.npy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert X.nbytes > 75e6 and peak < 25e6
    for i in (0, 1, 4_321, len(X) - 1):
        assert_array_equal(X[i], record.signal[:, 10 * i:10 * i + 2_000])


@pytest.mark.parametrize("function", [make_windows, make_beats, make_epochs])
def test_progress(tmp_path, capsys, function):
    notes = Bunch(sample=np.array([0, 100]), symbol=np.array(['"', "N"]), aux_note=np.array(["W", ""]))
    records = [replace(record, annotations=notes) for record in signals()]
    arguments = {make_windows: {"length": 1.0}, make_beats: {"before": 0.1, "after": 0.1}, make_epochs: {"length": 1.0}}
    function(records, **arguments[function])
    assert capsys.readouterr() == ("", "")
    function(records, **arguments[function], out=tmp_path / "X.npy", verbose=1)
    shown = capsys.readouterr().err
    assert function.__name__ in shown and "2/2" in shown and "record" in shown


def test_real_records(real_data, tmp_path, read):
    paths = sorted((real_data / "ptbxl" / "records100").rglob("*.hea"))[:5]
    expected, _, _ = make_windows(read_records(paths), 2.5, lead_names=["V5", "II"])
    X, _, _ = make_windows(read_records(paths), 2.5, lead_names=["V5", "II"], out=tmp_path / "X.npy")
    assert X.shape == (20, 2, 250)
    assert_array_equal(X, expected)
    read.clear()
    again, _, groups = make_windows(read_records(paths), 2.5, lead_names=["V5", "II"], out=tmp_path / "X.npy")
    assert read == []
    assert_array_equal(again, expected)
    assert_array_equal(groups, np.repeat(np.arange(5), 4))
    with np.load(tmp_path / "X.npy.index.npz") as index:
        made = json.loads(str(index["made"]))
    assert made["parameters"] == {"length": 2.5, "step": 2.5, "lead_names": ["V5", "II"]}
