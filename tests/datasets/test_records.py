"""WFDB records: units, gaps, leads, and files that contradict themselves."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skecg.datasets import ECGFormatError, ECGRecord, read_record, read_records

FORMATS = ["16", "24", "32", "80", "212", "516"]


@pytest.fixture
def write(wfdb, tmp_path):
    """Writes ADC values of shape (n_times, n_leads) as a record, and gives its path."""

    def write(name="demo", digital=None, *, fs=250, fmt="16", gain=200.0, baseline=0, units="mV",
              lead_names=("I", "MLII"), folder=tmp_path, **more):
        if digital is None:
            digital = np.random.default_rng(0).integers(-100, 100, (500, len(lead_names)))
        n = digital.shape[1]
        folder.mkdir(parents=True, exist_ok=True)
        wfdb.wrsamp(
            name, fs=fs, units=[units] * n, sig_name=list(lead_names), d_signal=digital.astype(np.int64),
            fmt=[fmt] * n, adc_gain=[gain] * n, baseline=[baseline] * n, write_dir=str(folder), **more,
        )
        return folder / name

    return write


def edit(path, old, new):
    header = path.with_name(path.name + ".hea")
    content = header.read_bytes()
    assert old.encode() in content
    new = new.encode() if isinstance(new, str) else new
    header.write_bytes(content.replace(old.encode(), new))


@pytest.mark.parametrize("fmt", FORMATS)
def test_samples_are_what_was_written(write, fmt):
    digital = np.random.default_rng(1).integers(-100, 100, (499, 3))  # odd: format 212 packs pairs
    path = write(digital=digital, fmt=fmt, gain=150.0, baseline=7, lead_names=("I", "II", "V1"))
    record = read_record(path)
    assert record.signal.dtype == np.float32 and record.signal.shape == (3, 499)
    assert record.fs == 250 and record.lead_names == ("I", "II", "V1") and record.units == ("mV",) * 3
    assert record.name == "demo" and record.annotations is None and record.duration == 499 / 250
    assert_array_equal(record.signal, ((digital.T - 7) / 150).astype(np.float32))


def test_offset_binary(tmp_path):
    values = np.arange(-3, 4)
    (tmp_path / "old.hea").write_text("old 1 100 7\nold.dat 160 1(0)/mV 16 0 -3 0 0 II\n")
    (values + 2**15).astype("<u2").tofile(tmp_path / "old.dat")
    assert_array_equal(read_record(tmp_path / "old").signal, [values])


@pytest.mark.parametrize("path", [str, lambda path: f"{path}.hea", lambda path: path])
def test_path_with_and_without_extension(write, path):
    assert read_record(path(write())).name == "demo"


@pytest.mark.parametrize(("unit", "factor"), [
    ("", 1), ("/mV", 1), ("/mv", 1), ("/uV", 1e-3), ("/µV", 1e-3), ("/μV", 1e-3), ("/V", 1e3),
])
def test_voltages_become_millivolt(write, unit, factor):
    path = write()
    expected = read_record(path).signal * factor
    edit(path, "200.0(0)/mV", f"200.0(0){unit}")
    record = read_record(path)
    assert record.units == ("mV", "mV")
    assert_allclose(record.signal, expected, rtol=1e-6)


def test_micro_sign_in_latin_1(write):
    path = write()
    edit(path, "/mV", "/µV".encode("latin-1"))
    assert np.abs(read_record(path).signal).max() <= 100 / 200 / 1000 * 1.0001


def test_other_units_are_kept_named_and_warned_about(write):
    path = write(units="NU")
    with pytest.warns(UserWarning, match="I, MLII are in NU, which is not a voltage"):
        record = read_record(path)
    assert record.units == ("NU", "NU")
    assert np.abs(record.signal).max() > 0.4


def test_baseline_defaults_to_adc_zero(tmp_path):
    (tmp_path / "old.hea").write_text("old 1 360 3\nold.dat 16 200 11 1024 995 0 0 MLII\n")
    np.array([1024, 1224, 824], dtype="<i2").tofile(tmp_path / "old.dat")
    assert_array_equal(read_record(tmp_path / "old", verify=False).signal, [[0, 1, -1]])


@pytest.mark.parametrize("line", ["old.dat 16", "old.dat 16 0 16 0 1 6 0 II", "old.dat 16 0(0)/mV"])
def test_gain_is_never_guessed(tmp_path, line):
    (tmp_path / "old.hea").write_text(f"old 1 360 3\n{line}\n")
    np.array([1, 2, 3], dtype="<i2").tofile(tmp_path / "old.dat")
    with pytest.raises(ECGFormatError, match=r"no gain for lead .* default_gain=") as caught:
        read_record(tmp_path / "old")
    assert (caught.value.line, caught.value.field) == (2, "gain")
    assert_array_equal(read_record(tmp_path / "old", default_gain=2).signal, [[0.5, 1, 1.5]])
    with pytest.raises(ValueError, match="default_gain must be a number of ADC units per millivolt; got nan"):
        read_record(tmp_path / "old", default_gain=float("nan"))


def test_default_gain_is_per_millivolt_whatever_the_unit(tmp_path):
    (tmp_path / "old.hea").write_text("old 1 360 3\nold.dat 16 0/uV\n")
    np.array([1, 2, 3], dtype="<i2").tofile(tmp_path / "old.dat")
    assert_array_equal(read_record(tmp_path / "old", default_gain=2).signal, [[0.5, 1, 1.5]])


@pytest.mark.parametrize("start", ["old 1", "old 1 0 3"])
def test_sampling_rate_is_never_guessed(tmp_path, start):
    (tmp_path / "old.hea").write_text(f"{start}\nold.dat 16 1000\n")
    np.array([1, 2, 3], dtype="<i2").tofile(tmp_path / "old.dat")
    with pytest.raises(ECGFormatError, match=r"no sampling rate.*default_fs=") as caught:
        read_record(tmp_path / "old")
    assert (caught.value.line, caught.value.field) == (1, "sampling rate")
    record = read_record(tmp_path / "old", default_fs=360)
    assert record.fs == 360 and record.n_times == 3
    with pytest.raises(ValueError, match="default_fs must be a positive number of Hz; got -1"):
        read_record(tmp_path / "old", default_fs=-1)


@pytest.mark.parametrize(
    ("fmt", "invalid"), [("16", -(2**15)), ("212", -(2**11)), ("24", -(2**23)), ("80", -(2**7))]
)
def test_invalid_samples_are_nan(write, fmt, invalid):
    digital = np.ones((20, 2))
    digital[3:5, 1] = invalid
    signal = read_record(write(digital=digital, fmt=fmt)).signal
    assert_array_equal(np.argwhere(np.isnan(signal)), [[1, 3], [1, 4]])


def test_leads_by_name(write):
    path = write(lead_names=("ECG I", "MLII", "V1"))
    everything = read_record(path)
    record = read_record(path, lead_names=["v1", "II"])
    assert record.lead_names == ("V1", "MLII")
    assert_array_equal(record.signal, everything.signal[[2, 1]])
    assert_array_equal(record.signal, everything.select_leads(["V1", "II"]).signal)

    with pytest.raises(ValueError, match=r"no lead V6; it has ECG I, MLII, V1.*missing='nan'"):
        read_record(path, lead_names=["I", "V6"])
    with pytest.raises(ValueError, match=r"Unknown lead 'aVX'.*Did you mean 'aV.'"):
        read_record(path, lead_names=["aVX"], missing="nan")
    with pytest.raises(ValueError, match="missing must be 'raise' or 'nan'"):
        read_record(path, lead_names=["I"], missing="zero")

    record = read_record(path, lead_names=["V6", "I"], missing="nan")
    assert record.lead_names == ("V6", "ECG I") and record.units == ("mV", "mV")
    assert np.isnan(record.signal[0]).all()
    assert_array_equal(record.signal[1], everything.signal[0])
    with pytest.raises(ValueError, match="no lead V5, V6"):
        read_record(path, lead_names=["V5", "V6"], missing="nan")


def test_an_exact_name_wins_and_an_ambiguous_one_is_refused(write):
    path = write(lead_names=("II", "MLII"))
    assert read_record(path, lead_names=["MLII"]).lead_names == ("MLII",)
    with pytest.raises(ValueError, match="fits 2 of the leads"):
        read_record(path, lead_names=["ECG II"])


def test_several_samples_per_frame(tmp_path):
    fast, slow = np.arange(40), np.arange(20)
    frames = np.column_stack([fast.reshape(20, 2), fast[::-1].reshape(20, 2), slow])
    frames.astype("<i2").tofile(tmp_path / "mixed.dat")
    lines = [f"mixed.dat 16{frame} 1/mV 16 0 {values[0]} {values.sum()} 0 {name}" for frame, values, name in
             (("x2", fast, "I"), ("x2", fast[::-1], "II"), ("", slow, "V1"))]
    (tmp_path / "mixed.hea").write_text("\n".join(["mixed 3 100 20", *lines]))
    with pytest.raises(ECGFormatError, match=r"different sampling rates \(I 200 Hz, II 200 Hz, V1 100 Hz\)"):
        read_record(tmp_path / "mixed")
    record = read_record(tmp_path / "mixed", lead_names=["I", "II"])
    assert record.fs == 200
    assert_array_equal(record.signal, [fast, fast[::-1]])
    record = read_record(tmp_path / "mixed", lead_names=["V1"])
    assert record.fs == 100
    assert_array_equal(record.signal, [slow])


def test_skew_aligns_leads(write):
    path = write()
    expected = read_record(path).signal
    edit(path, "demo.dat 16 200.0(0)/mV 16 0 ", "demo.dat 16:3 200.0(0)/mV 16 0 ")
    shifted = read_record(path).signal
    assert_array_equal(shifted[:, :-3], expected[:, 3:])
    assert np.isnan(shifted[:, -3:]).all()


def test_comments_stay_in_the_file_unless_asked_for(write):
    path = write(comments=["Age: 77"])
    assert read_record(path).comments == ()
    assert "77" not in repr(read_record(path))
    assert read_record(path, comments=True).comments == ("Age: 77",)


@pytest.mark.parametrize("seed", range(30))
def test_every_flipped_bit_is_noticed(write, tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = write(fmt=["16", "212"][seed % 2])
    data = tmp_path / "demo.dat"
    content = bytearray(data.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    data.write_bytes(content)
    with pytest.raises(ECGFormatError, match=r"checksum.*verify=False") as caught:
        read_record(path)
    assert caught.value.field == "checksum" and caught.value.file.endswith("demo.hea")
    assert read_record(path, verify=False).signal.shape == (2, 500)


def test_short_and_long_signal_files(write, tmp_path):
    path, data = write(), tmp_path / "demo.dat"
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    with pytest.raises(ECGFormatError, match=r"1,999 bytes.*500 samples.*take 2,000") as caught:
        read_record(path)
    assert caught.value.field == "number of samples"
    data.write_bytes(content + bytes(8))
    assert read_record(path).n_times == 500  # the checksums prove the header right
    with pytest.raises(ECGFormatError, match="accounts for 2,000"):
        read_record(path, verify=False)


@pytest.mark.parametrize(("old", "new", "field"), [
    ("demo 2 250 500", "demo 2 250 1000000000000", "number of samples"),
    ("demo 2 250 500", "demo 2 250 499", "checksum"),
    ("demo 2 250 500", "demo 2 -250 500", "sampling rate"),
    ("demo 2 250 500", "demo 2 1e999 500", "sampling rate"),
    ("demo 2 250 500", "demo 2 fast 500", "sampling rate"),
    ("demo 2 250 500", "demo 3 250 500", "number of signals"),
    ("demo 2 250 500", "demo 0 250 500", "number of signals"),
    ("demo 2 250 500", "demo 1000000000 250 500", "number of signals"),
    ("demo 2 250 500", "demo", "number of signals"),
    ("demo 2 250 500", "demo/3 2 250 500", "record name"),
    ("demo 2 250 500", "demo/2 2 250 500", "segment name"),
    ("demo.dat 16 ", "demo.dat 17 ", "format"),
    ("demo.dat 16 ", "demo.dat 212 ", "checksum"),
    ("demo.dat 16 ", "demo.dat 16x1000000 ", "number of samples"),
    ("demo.dat 16 ", "../demo.dat 16 ", "signal file"),
    ("demo.dat 16 ", "other.dat 16 ", "signal file"),
    ("200.0(0)/mV", "abc", "gain"),
    ("200.0(0)/mV", "nan", "gain"),
    ("200.0(0)/mV", "1e999", "gain"),
])
def test_headers_that_are_wrong(write, old, new, field):
    path = write()
    edit(path, old, new)
    with pytest.raises(ECGFormatError) as caught:
        read_record(path)
    assert caught.value.field == field
    assert caught.value.file in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))  # as joblib does it
    assert str(again) == str(caught.value) and again.field == field


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\x00", b"x" * 2_000_000])
def test_headers_that_are_none(tmp_path, content):
    (tmp_path / "demo.hea").write_bytes(content)
    with pytest.raises(ECGFormatError, match=r"demo\.hea"):
        read_record(tmp_path / "demo")


def test_missing_record(write, tmp_path):
    write("a"), write("b")
    with pytest.raises(FileNotFoundError, match=r"no record 'c' in .* \(no file c\.hea; there is a, b\)"):
        read_record(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match=r"is a folder.*read_records"):
        read_record(tmp_path)


@pytest.mark.parametrize("path", ["https://physionet.org/files/mitdb/100", "s3://bucket/100", "zip::http://x/100"])
def test_nothing_is_read_from_a_network(path):
    with pytest.raises(ValueError, match="local files only"):
        read_record(path)
    with pytest.raises(ValueError, match="local files only"):
        read_records(path)


def test_annotations(wfdb, write, tmp_path):
    path = write()
    wfdb.wrann("demo", "atr", np.array([10, 20, 400]), ["+", "N", "V"], aux_note=["(N", "", ""],
               write_dir=str(tmp_path))
    found = read_record(path, annotations="atr").annotations
    assert_array_equal(found.sample, [10, 20, 400])
    assert found.symbol.tolist() == ["+", "N", "V"] and found.aux_note.tolist() == ["(N", "", ""]
    with pytest.raises(FileNotFoundError, match=r"demo\.qrs; of this record there is demo\.atr, demo\.dat"):
        read_record(path, annotations="qrs")

    wfdb.wrann("demo", "atr", np.array([10, 500_000]), ["N", "N"], write_dir=str(tmp_path))
    with pytest.raises(ECGFormatError, match="outside the record of 500 samples"):
        read_record(path, annotations="atr")
    (tmp_path / "demo.atr").write_bytes(b"\x01\x02\x03")
    with pytest.raises(ECGFormatError, match="3 bytes are no annotation file"):
        read_record(path, annotations="atr")


def test_annotations_with_a_clock_of_their_own(write, tmp_path):
    path, note = write(fs=250), b"## time resolution: 500"
    content = [b"\x00\x58", bytes([len(note), 63 << 2]), note + b"\x00", b"\x64\x04", b"\x64\x04", b"\x00\x00"]
    (tmp_path / "demo.atr").write_bytes(b"".join(content))  # the note, N 100 later, N 100 later
    assert_array_equal(read_record(path, annotations="atr").annotations.sample, [50, 100])


def test_a_note_that_wfdb_never_returns_from(wfdb, write, tmp_path):
    path = write()
    wfdb.wrann("demo", "atr", np.array([0, 100]), ['"', "N"], aux_note=["## reviewed by cardiologist", ""],
               write_dir=str(tmp_path))
    with pytest.raises(ECGFormatError, match="starts with '## '"):
        read_record(path, annotations="atr")


def test_read_records_is_lazy_and_sorted(write, tmp_path):
    for name in ("b", "a", "c"):
        write(name, folder=tmp_path / "sub" if name == "c" else tmp_path)
    records = read_records(tmp_path, lead_names=["II"])
    (tmp_path / "b.dat").unlink()
    assert records.names == ["a", "b", "c"] and len(records) == 3 and "3 records" in repr(records)
    assert records[0].lead_names == ("MLII",) and records[-1].name == "c" and records[np.int64(2)].name == "c"
    assert records[1:].names == ["b", "c"] and records[[2, 0]].names == ["c", "a"]
    assert records[np.array([True, False, True])].names == ["a", "c"]
    assert [record.name for record in pickle.loads(pickle.dumps(records[::2]))] == ["a", "c"]
    with pytest.raises(ECGFormatError, match=r"b\.dat"):
        records[1]
    with pytest.raises(IndexError):
        records[3]
    assert read_records([tmp_path / "a", str(tmp_path / "sub" / "c")]).names == ["a", "c"]
    with pytest.raises(TypeError, match="lead_name"):
        read_records(tmp_path, lead_name=["II"])


def test_records_file_is_honoured(write, tmp_path):
    for name in ("a", "b"):
        write(name)
    write("c", folder=tmp_path / "sub")
    (tmp_path / "sub" / "RECORDS").write_text("c\n")
    (tmp_path / "RECORDS").write_text("b\nsub/\n")
    assert read_records(tmp_path).names == ["b", "c"]
    (tmp_path / "RECORDS").write_text("b\nmissing\na\n")
    with pytest.warns(UserWarning, match="holds 2 of the 3 records"):
        assert read_records(tmp_path).names == ["b", "a"]
    (tmp_path / "RECORDS").write_text("b\n../a\n")
    with pytest.raises(ECGFormatError, match="leads out of the folder") as caught:
        read_records(tmp_path)
    assert caught.value.line == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no WFDB record"):
        read_records(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_records(tmp_path / "nowhere")


def test_record_checks_its_shape():
    with pytest.raises(ValueError, match=r"one of lead_names=\('I', 'II'\) per lead; got shape \(1, 5\)"):
        ECGRecord(np.zeros((1, 5)), fs=100, lead_names=("I", "II"))
