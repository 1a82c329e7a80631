"""The guard around wfdb: equal to it on good files, an ECGFormatError on bad ones, never a hang or a wrong value."""

import importlib
import os
import re
import struct
import warnings
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skecg.datasets import ECGFormatError, _wfdb, read_annotations, read_record, read_records

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def damage():
    """The benchmark that damages records, as a module."""
    if not (BENCHMARKS / "records.py").is_file():
        pytest.skip("the benchmarks are not here; they come with the source distribution")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("records")


@pytest.fixture(scope="module")
def written(damage):
    """Small records of every storage format and layout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return damage.written_bases()


@pytest.fixture
def place(written, tmp_path):
    """Writes the files of a small record and gives its path."""

    def place(name):
        record, _, files = written[name]
        for file, content in files.items():
            (tmp_path / file).write_bytes(content)
        return tmp_path / record

    return place


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def assert_equal_to_wfdb(wfdb, path, extensions=()):
    """Every sample, name and annotation of a record as wfdb has it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*which is not a voltage", category=UserWarning)
        record = read_record(path, comments=True)
    expected = wfdb.rdrecord(str(path))
    assert record.fs == expected.fs and record.lead_names == tuple(expected.sig_name)
    assert record.comments == tuple(comment.lstrip("# \t") for comment in expected.comments)
    assert_array_equal(record.signal, expected.p_signal.T.astype(np.float32))
    for extension in extensions:
        assert_same_annotations(wfdb, path, extension, read_annotations(path, extension))


def assert_same_annotations(wfdb, path, extension, found):
    expected = wfdb.rdann(str(path), extension)
    assert_array_equal(found.sample, expected.sample)
    assert found.symbol.tolist() == expected.symbol
    assert found.aux_note.tolist() == [note.rstrip("\x00") for note in expected.aux_note]


# --- good files


def real_records(folder):
    """Paths of all records with samples, and the extensions of their annotation files."""
    for header in sorted(folder.rglob("*.hea")):
        if header.parent.name != "slpdb_rr":
            path = header.with_suffix("")
            yield path, ["atr"] if path.with_suffix(".atr").exists() else []


def test_equal_to_bare_wfdb_on_some_real_records(real_data, wfdb):
    databases = {}
    for path, extensions in real_records(real_data):
        databases.setdefault(path.relative_to(real_data).parts[0], []).append((path, extensions))
    assert set(databases) == {"mitdb", "ptbxl", "ptbxl_bp100", "ecgid", "cinc2021"}
    for records in databases.values():
        for path, extensions in records[:: len(records) // 7]:
            assert_equal_to_wfdb(wfdb, path, extensions)


@pytest.mark.slow
def test_equal_to_bare_wfdb_on_every_real_record(real_data, wfdb):
    records = list(real_records(real_data))
    assert len(records) > 2800
    for path, extensions in records:
        assert_equal_to_wfdb(wfdb, path, extensions)
    for header in sorted((real_data / "slpdb_rr").glob("*.hea")):
        path = header.with_suffix("")
        assert_same_annotations(wfdb, path, "ecg", read_annotations(path, "ecg"))


def test_annotations_without_a_signal(real_data, wfdb):
    headers = sorted((real_data / "slpdb_rr").glob("*.hea"))
    assert len(headers) == 12
    stages = []
    for header in headers:
        path = header.with_suffix("")
        for extension in ("st", "ecg") if path.name == "slp02b" else ("st",):  # wfdb takes its time
            found = read_annotations(header, f".{extension}")
            assert found.fs == 250 and len(found.sample) > 100
            assert_same_annotations(wfdb, path, extension, found)
        stages += [note.split()[0] for note in read_annotations(path, "st").aux_note]
    assert set(stages) == {"W", "1", "2", "3", "4", "R", "M", "MT"}
    with pytest.raises(ECGFormatError, match=r"names the signal file slp02a\.dat, which is not in") as caught:
        read_record(headers[0])
    assert caught.value.field == "signal file"


def test_a_date_that_wfdb_rejects(real_data, wfdb, tmp_path):
    with pytest.raises(ValueError, match=r"does not match format"):
        wfdb.rdheader(str(real_data / "slpdb_rr" / "slp32"))
    assert len(read_annotations(real_data / "slpdb_rr" / "slp32", "st").sample) == 640
    first, *_ = (real_data / "slpdb_rr" / "slp32.hea").read_text().splitlines()
    (tmp_path / "slp32.hea").write_text(first.replace(" 7 ", " 1 ").replace("4800000", "9") + "\nslp32.dat 16 -500\n")
    np.arange(9, dtype="<i2").tofile(tmp_path / "slp32.dat")
    record = read_record(tmp_path / "slp32")
    assert record.fs == 250
    assert_array_equal(record.signal, [(np.arange(9) / -500).astype(np.float32)])


def test_challenge_headers(real_data):
    for source, n in (("georgia", 20), ("ptb-xl", 8)):
        records = read_records(real_data / "cinc2021" / source, comments=True)
        assert len(records) == n
        for record in records:
            said = dict(comment.split(": ", 1) for comment in record.comments)
            assert re.fullmatch(r"\d+(,\d+)*", said["Dx"]) and said["Sex"] in ("Male", "Female")
            assert record.fs == 500 and record.n_leads == 12 and record.units == ("mV",) * 12


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "160", "212", "310", "311", "508", "516", "524", "8", "61"])
def test_every_storage_format(place, damage, wfdb, fmt):
    path = place(f"format {fmt}")
    assert_array_equal(read_record(path).signal, (damage.WALK.T / 200).astype(np.float32))
    if fmt != "61":  # wfdb converts it in place, where big-endian cannot hold float64
        assert_equal_to_wfdb(wfdb, path)


def test_definitions_in_annotations(place, wfdb):
    path = place("annotations with definitions")
    found = read_annotations(path, "atr")
    assert found.fs == 500 and found.symbol.tolist() == ["N", "z", "+"] and found.aux_note[2] == "(AFIB"
    assert_same_annotations(wfdb, path, "atr", found)
    assert_array_equal(read_record(path, annotations="atr").annotations.sample, [5, 45, 200])


# --- segments


def test_segments_of_a_fixed_layout(place, wfdb):
    path = place("segments, fixed layout")
    record = read_record(path, annotations="atr")
    one, two = (read_record(path.parent / name) for name in ("one", "two"))
    assert record.n_times == 902 and record.annotations.sample.tolist() == [5, 700]
    assert_array_equal(record.signal[:, :401], one.signal)
    assert_array_equal(record.signal[:, 401:601], two.signal)
    assert np.isnan(record.signal[:, 601:702]).all()
    assert_array_equal(record.signal[:, 702:], two.signal)
    assert_array_equal(read_record(path, lead_names=["V1"]).signal, record.signal[2:])
    edit(path.parent / "all.hea", "all/4 3 250 902", "all/3 3 250 801")
    edit(path.parent / "all.hea", "~ 101\n", "")  # wfdb knows gaps in a variable layout only
    assert_equal_to_wfdb(wfdb, path, ["atr"])


def test_segments_of_a_variable_layout(place, wfdb):
    path = place("segments, variable layout")
    assert_equal_to_wfdb(wfdb, path)
    record = read_record(path)
    assert record.lead_names == ("I", "II", "V1") and record.units == ("mV",) * 3
    assert_array_equal(np.isnan(record.signal).sum(axis=1), [250, 250, 451])
    alone = read_record(path, lead_names=["V1", "V6"], missing="nan")
    assert_array_equal(alone.signal[0], record.signal[2])
    (path.parent / "one.dat").unlink()  # holds none of V1
    assert_array_equal(read_record(path, lead_names=["V1"]).signal[0], record.signal[2])


def test_units_and_gains_of_segments(place):
    path = place("segments, fixed layout")
    expected = read_record(path).signal
    edit(path.parent / "two.hea", "200.0(0)/mV", "0.2(0)/uV")
    np.testing.assert_allclose(read_record(path).signal, expected, rtol=1e-6)
    edit(path.parent / "two.hea", "0.2(0)/uV", "0.2(0)/mmHg")
    with pytest.raises(ECGFormatError, match="lead I is in mmHg"):
        read_record(path)
    edit(path.parent / "two.hea", "0.2(0)/mmHg", "0(0)/mV")
    with pytest.raises(ECGFormatError, match="no gain for lead I"):
        read_record(path)
    np.testing.assert_allclose(read_record(path, default_gain=200).signal, expected, rtol=1e-6)


@pytest.mark.parametrize(("file", "old", "new", "field"), [
    ("all", "two 200", "two 199", "number of samples"),
    ("all", "902", "903", "number of samples"),
    ("all", "one 401", "one 1000000000000", "number of samples"),
    ("all", "all/4 3 250 902\none 401", "all/4 3 250 1000000000501\n~ 1000000000000", "number of samples"),
    ("all", "one 401", "one", "number of samples"),
    ("all", "one 401", "../one 401", "segment name"),
    ("all", "one 401", "/etc/one 401", "segment name"),
    ("all", "one 401", "three 401", "segment name"),
    ("all", "one 401", "all 401", "segment name"),
    ("all", "all/4", "all/5", "record name"),
    ("all", "all/4", "all/99999999", "record name"),
    ("all", "all/4 3", "all/4 2", "number of signals"),
    ("all", " 250 ", " 360 ", "sampling rate"),
    ("two", " 250 ", " 360 ", "sampling rate"),
    ("two", "two 3 250 200", "two 3 250 199", "number of samples"),
    ("two", " V1", " V2", "lead name"),
    ("two", "two.dat 16 ", "two.dat 16x2 ", "format"),
])
def test_segments_that_contradict_each_other(place, file, old, new, field):
    path = place("segments, fixed layout")
    edit(path.parent / f"{file}.hea", old, new)
    with pytest.raises(ECGFormatError) as caught:
        read_record(path)
    assert caught.value.field == field and caught.value.file.startswith(str(path.parent))


@pytest.mark.parametrize(("file", "old", "new", "field"), [
    ("all", "lay 0", "~ 0", "segment name"),
    ("all", "all/4 3 250 651\nlay 0\none 401\n~ 50\ntwo 200", "all/2 3 250 50\nlay 0\n~ 50", "segment name"),
    ("all", "one 401", "one 0", "number of samples"),
    ("lay", " I\n", " aVL\n", "lead name"),
    ("lay", " I\n", " II\n", "number of signals"),
    ("one", " I\n", " II\n", "lead name"),
])
def test_layouts_that_contradict_their_segments(place, file, old, new, field):
    path = place("segments, variable layout")
    edit(path.parent / f"{file}.hea", old, new)
    with pytest.raises(ECGFormatError) as caught:
        read_record(path)
    assert caught.value.field == field


def test_many_short_segments_take_no_time(place):
    path = place("segments, fixed layout")
    (path.parent / "all.hea").write_text("all/16000 3 250\n" + "one 401\n" * 16_000)
    with pytest.raises(ECGFormatError, match="of which 1,203 are stored"):
        read_record(path)
    (path.parent / "all.hea").write_text("all/16000 3 250\n" + "two 200\n~ 1\n" * 8000)
    record = read_record(path)
    assert record.n_times == 201 * 8000
    assert_array_equal(record.signal[:, -201:-1], read_record(path.parent / "two").signal)


# --- signals


def test_the_initial_value_is_verified(place):
    path = place("format 16")
    first = re.search(r"a\.dat 16 200\.0\(0\)/mV \d+ 0 (-?\d+) ", (path.parent / "a.hea").read_text())
    edit(path.parent / "a.hea", first[0], first[0].replace(f" {first[1]} ", f" {int(first[1]) + 1} "))
    with pytest.raises(ECGFormatError, match=r"lead I in a\.dat start with .* verify=False") as caught:
        read_record(path)
    assert (caught.value.line, caught.value.field) == (2, "initial value")
    assert read_record(path, verify=False).n_times == 401


@pytest.mark.parametrize(("old", "new", "field"), [
    ("a.dat 16 ", "a::b.dat 16 ", "signal file"),
    ("a.dat 16 ", "C:a.dat 16 ", "signal file"),
    ("a.dat 16 ", "* 16 ", "signal file"),
    ("a.dat 16 ", ".. 16 ", "signal file"),
    ("a.dat 16 ", "b" * 300 + " 16 ", "signal file"),
    ("a.dat 16 ", "\U0001f493" * 200 + " 16 ", "signal file"),
    ("a.dat 16 ", "~ 0 ", "format"),
    ("a 3 250 401", "a 3 250 " + "9" * 5000, "number of samples"),
    ("a 3 250 401", "a 3 \u0662\u0665\u0660 401", "sampling rate"),
    ("a 3 250 401", "a 3 1e-300 401", "sampling rate"),
    ("200.0(0)/mV", "1e-300(0)/mV", "gain"),
    ("200.0(0)/mV", "200.0(99999999999)/mV", "gain"),
])
def test_values_that_no_recording_has(place, old, new, field):
    path = place("format 16")
    edit(path.parent / "a.hea", old, new)
    with pytest.raises(ECGFormatError) as caught:
        read_record(path)
    assert caught.value.field == field and len(str(caught.value)) < 1000


def test_leads_of_one_file_belong_together(tmp_path):
    lines = ["a 3 100 4", "a.dat 16 1", "b.dat 16 1", "a.dat 16 1"]
    for name, shape in (("a", 8), ("b", 4)):
        np.zeros(shape, "<i2").tofile(tmp_path / f"{name}.dat")
    (tmp_path / "a.hea").write_text("\n".join(lines))
    with pytest.raises(ECGFormatError, match=r"leads of a\.dat do not follow") as caught:
        read_record(tmp_path / "a")
    assert caught.value.line == 4
    (tmp_path / "a.hea").write_text("\n".join([lines[0], lines[1], "a.dat 61 1", lines[2]]))
    with pytest.raises(ECGFormatError, match="different formats"):
        read_record(tmp_path / "a")
    (tmp_path / "a.hea").write_text("\n".join([lines[0], lines[1], lines[1], lines[2]]))
    assert read_record(tmp_path / "a").signal.shape == (3, 4)


def test_a_length_that_only_the_file_knows(place):
    for fmt in ("16", "212", "516"):
        path = place(f"format {fmt}")
        expected = read_record(path).signal
        edit(path.parent / "a.hea", "a 3 250 401", "a 3 250 0")
        assert_array_equal(read_record(path).signal, expected)


def test_comments_with_strange_line_separators(place):
    path = place("format 16")
    with open(path.parent / "a.hea", "ab") as file:
        file.write("# Dx: 1\x85 2\u2028 3\x0b 4\n".encode())
    assert read_record(path, comments=True).comments[-1] == "Dx: 1\x85 2\u2028 3\x0b 4"


def flac(length, n_leads=3, bits=16):
    """The first block of a FLAC file that claims so many samples."""
    packed = 250 << 44 | (n_leads - 1) << 41 | (bits - 1) << 36 | length
    return b"fLaC\x80\x00\x00\x22" + bytes(10) + packed.to_bytes(8, "big") + bytes(16)


@pytest.mark.parametrize(("content", "field", "message"), [
    (flac(2**36 - 1), "number of samples", "no recording"),
    (flac(400), "number of samples", "has 400 samples, but a.hea claims 401"),
    (flac(401, n_leads=2), "format", "holds 2 signal"),
    (flac(401, bits=24), "format", "of 24 bits"),
    (flac(401), "signal file", "wfdb cannot decode"),
    (b"RIFF" + bytes(100), "format", "not a FLAC file"),
    (b"", "format", "not a FLAC file"),
])
def test_flac_is_checked_before_it_is_decompressed(place, content, field, message):
    path = place("format 516")
    (path.parent / "a.dat").write_bytes(content)
    with pytest.raises(ECGFormatError, match=message) as caught:
        read_record(path)
    assert caught.value.field == field


def test_a_header_cannot_ask_flac_for_more(place):
    path = place("format 516")
    edit(path.parent / "a.hea", "a 3 250 401", "a 3 250 100000000000")
    with pytest.raises(ECGFormatError, match=r"has 401 samples, but a\.hea claims 100,000,000,000"):
        read_record(path)


@pytest.mark.parametrize("seed", range(10))
def test_millivolt_in_float32_are_those_of_float64(seed):
    rng = np.random.default_rng(seed)
    digital = np.arange(-(2**15), 2**15).astype(np.int16)
    baseline = int(rng.integers(-(2**22), 2**22)) >> int(rng.integers(22))
    gain = float(np.float32(rng.normal() * 10.0 ** rng.integers(-3, 6)))
    lead = SimpleNamespace(baseline=baseline, gain=gain, factor=1.0, format="16", skew=0, per_frame=1)
    out = np.empty(len(digital), np.float32)
    _wfdb.to_physical(digital, lead, out)
    expected = ((digital.astype(np.float64) - baseline) / gain).astype(np.float32)
    assert np.isnan(out[0])
    assert_array_equal(out[1:], expected[1:])


def test_another_wfdb_is_named(place, monkeypatch):
    with _wfdb._wfdb():
        from wfdb.io import _signal
    _wfdb._reader.cache_clear()
    monkeypatch.setattr(_signal, "_rd_segment", lambda path: None)
    with pytest.raises(ImportError, match=r"wfdb \d.* has no reader of signal files that skecg knows"):
        read_record(place("format 16"))


# --- annotations


def annotations(*fields):
    """An annotation file: pairs of code and value, notes as bytes, long intervals as ("skip", n); and the end mark."""
    content = b""
    for code, value in (*fields, (0, 0)):
        if code == "skip":
            content += struct.pack("<HHH", 59 << 10, value >> 16 & 0xFFFF, value & 0xFFFF)
        elif isinstance(value, bytes):
            content += struct.pack("<H", code << 10 | len(value)) + value + bytes(len(value) % 2)
        else:
            content += struct.pack("<H", code << 10 | value)
    return content


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "a.hea").write_text("a 1 250 100000\na.dat 16")
        (tmp_path / "a.atr").write_bytes(content)
        return read_annotations(tmp_path / "a", "atr")

    return read


def test_annotations_word_by_word(read, wfdb, tmp_path):
    first, second = ((1, 10), (61, 1), (63, b"odd")), (("skip", 70_000), (5, 3), (62, 1), (60, 2))
    found = read(annotations(*first, *second, (28, 0), (63, b"(N")))
    assert found.sample.tolist() == [10, 70_013, 70_013] and found.symbol.tolist() == ["N", "V", "+"]
    assert found.aux_note.tolist() == ["odd", "", "(N"] and found.fs == 250
    assert_same_annotations(wfdb, tmp_path / "a", "atr", found)
    nothing = read(annotations())
    assert nothing.sample.shape == nothing.symbol.shape == nothing.aux_note.shape == (0,)
    assert nothing.sample.dtype == np.int64 and nothing.symbol.dtype.kind == "U"
    padded = read(annotations((1, 10)) + bytes(64))
    assert padded.sample.tolist() == [10]


CLOCK, TYPES = b"## time resolution: 500", b"## annotation type definitions"


@pytest.mark.parametrize(("content", "field", "message"), [
    (b"", "sample", "made of pairs"),
    (b"\x00", "sample", "made of pairs"),
    (annotations((1, 10))[:-2], "sample", "without its end mark"),
    (annotations((1, 10)) + annotations((1, 10)), "sample", "goes on after its end mark"),
    (annotations(("skip", 10))[:-4], "sample", "ends inside an interval"),
    (annotations((61, 1)), "symbol", "belongs to no annotation"),
    (annotations((1, 5), ("skip", 10), (61, 1)), "symbol", "belongs to no annotation"),
    (annotations((1, 5), (61, 1), (61, 1)), "symbol", "field twice"),
    (annotations((1, 5), (63, b"a"), (63, b"b")), "aux_note", "field twice"),
    (annotations((1, 5), (63, 200)), "aux_note", "a note of 200"),
    (annotations((1, 5), (63, 300)) + bytes(400), "aux_note", "a note of 300"),
    (annotations((15, 5)), "symbol", "15 is not the code"),
    (annotations((50, 5)), "symbol", "50 is not the code"),
    (annotations((1, 50), ("skip", -20), (1, 0)), "sample", "not in order"),
    (annotations(("skip", -20), (1, 0)), "sample", "not in order"),
    (annotations((1, 5), ("skip", 2**31 - 1), (1, 0)), "sample", "outside the record of 100,000"),
    # everything below makes wfdb 4.3 loop for ever, or take the wrong clock
    (annotations((22, 0), (63, b"## reviewed by cardiologist")), "aux_note", "not a definition"),
    (annotations((22, 0), (63, CLOCK), (22, 0), (63, CLOCK)), "aux_note", "not a definition"),
    (annotations((22, 0), (63, b"## annotation type definitions\x00")), "aux_note", "not a definition"),
    (annotations((22, 0), (63, b"## end of definitions")), "aux_note", "not a definition"),
    (annotations((1, 0), (63, b"## x"), (22, 0), (63, b"")), "aux_note", "not a definition"),
    (annotations((1, 0), (22, 0), (63, CLOCK)), "aux_note", "not a definition"),
    (annotations((22, 0), (63, TYPES), (22, 0), (63, b"rubbish")), "aux_note", "defines no type"),
    (annotations((22, 0), (63, TYPES), (22, 0), (63, b"99 x y")), "aux_note", "defines no type"),
    (annotations((22, 0), (63, TYPES)), "aux_note", "do not end"),
    (annotations((22, 0), (63, b"## time resolution: 0")), "aux_note", "not one of a recording"),
    (annotations((22, 0), (63, b"## time resolution: " + b"9" * 200)), "aux_note", "not a definition"),
])
def test_annotation_files_that_are_wrong(read, content, field, message):
    with pytest.raises(ECGFormatError, match=message) as caught:
        read(content)
    assert caught.value.field == field and caught.value.file.endswith("a.atr")


def test_a_note_in_the_middle_may_say_anything(read):
    assert read(annotations((22, 9), (63, b"## reviewed"))).aux_note.tolist() == ["## reviewed"]


def test_annotation_files_of_no_size_and_of_any(read, tmp_path):
    with pytest.raises(ECGFormatError, match="8,388,608 at most"):
        read(bytes(2**23 + 2))
    with pytest.raises(ValueError, match="not the extension"):
        read_annotations(tmp_path / "a", "../atr")
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*a\.qrs"):
        read_annotations(tmp_path / "a", "qrs")


def test_the_clock_of_annotations_is_never_guessed(read, tmp_path):
    read(annotations((1, 10)))
    (tmp_path / "a.hea").write_text("a 1\na.dat 16")
    with pytest.raises(ECGFormatError, match="default_fs="):
        read_annotations(tmp_path / "a", "atr")
    assert read_annotations(tmp_path / "a", "atr", default_fs=360).fs == 360
    (tmp_path / "a.atr").write_bytes(annotations((22, 0), (63, CLOCK), (1, 10)))
    assert read_annotations(tmp_path / "a", "atr", default_fs=360).fs == 500
    assert read_annotations(tmp_path / "a", "atr").sample.tolist() == [10]


# --- the folder


@pytest.mark.parametrize("entry", ["./", "sub/", "/", "a/../../b", "C:a"])
def test_lists_of_records_that_never_end(tmp_path, entry):
    (tmp_path / "RECORDS").write_text(f"{entry}\n")
    (tmp_path / "sub").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ECGFormatError, match="leads out of the folder, or to itself"):
        read_records(tmp_path)


# --- damage


def test_damaged_files_raise_one_error_and_never_hang(damage, written, real_data):
    bases = written | damage.real_bases(real_data)
    outcomes, failures, _, (peak, _) = damage.fuzz(bases, range(20_000, 20_300))
    assert not failures  # a case that computes for more than 3 s is one
    assert 0 < peak < 1024
    kinds = {kind for kind, _ in outcomes}
    assert kinds == {"header", "signal", "annotations"} and sum(outcomes.values()) == 300
    assert not any(kind == "signal" and outcome.startswith("read, other") for kind, outcome in outcomes)


def test_the_watchdog_notices(damage, written, tmp_path, monkeypatch):
    """What the test above relies on: wrong classes, missing files and other values are told apart."""
    name = "format 16"
    for file, content in written[name][2].items():
        (tmp_path / file).write_bytes(content)
    expected = {name: damage.read_base(tmp_path, *written[name])}
    bases = {name: written[name]}
    case = next(case for case in range(100) if damage.damaged(bases, 0, case)[1] == "signal")
    _, outcome, _ = damage.outcome_of(tmp_path, bases, expected, 0, case)
    assert outcome == "ECGFormatError"

    def careless(folder, *_):
        raise KeyError("val")

    monkeypatch.setattr(damage, "read_base", careless)
    assert damage.outcome_of(tmp_path, bases, expected, 0, case)[1:] == (
        "failure", f"{name}, a.dat: KeyError: 'val'")
    monkeypatch.setattr(damage, "read_base", lambda *_: {**expected[name], "signal": [np.zeros((3, 401))]})
    assert damage.outcome_of(tmp_path, bases, expected, 0, case)[1] == "read, other signal"

    monkeypatch.setattr(damage, "TIMEOUT", 0.02)
    here, _there = Pipe()
    assert not damage.answers(here, os.getpid())
    monkeypatch.setattr(damage, "answers", lambda *_: False)
    assert damage.fuzz(bases, [case])[1] == [f"case {case}: hang, {name} "]
