"""Local copies of PhysioNet databases: small made-up ones, and real ones. Nothing is downloaded."""

import csv
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skecg.datasets import (
    ECGFormatError,
    fetch_cinc2020,
    fetch_cinc2021,
    fetch_ecgid,
    fetch_mitdb,
    fetch_ptbxl,
    fetch_slpdb,
)
from skecg.preprocessing import make_beats, make_windows

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a download")

    monkeypatch.setattr("socket.socket.connect", refuse)


def write_record(path, lead_names, *, fs, n_times):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{path.name} {len(lead_names)} {fs} {n_times}"]
    lines += [f"{path.name}.dat 16 1000/mV 16 0 0 0 0 {name}" for name in lead_names]
    path.with_name(path.name + ".hea").write_text("\n".join(lines))
    np.zeros((n_times, len(lead_names)), dtype="<i2").tofile(path.with_name(path.name + ".dat"))


@pytest.fixture
def ptbxl_folder(tmp_path):
    codes = ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 0.0, 'NDT': 50.0}", "{'SR': 0.0}", "{'NORM': 80.0}"]
    rows = ["ecg_id,patient_id,report,scp_codes,strat_fold,filename_lr,filename_hr"]
    for i, code in enumerate(codes, start=1):
        low, high = (f"records{fs}/00000/0000{i}_{tag}" for fs, tag in ((100, "lr"), (500, "hr")))
        rows.append(f'{i},{float(i // 2)},"two\nlines, quoted","{code}",{i},{low},{high}')
        if i < 4:
            write_record(tmp_path / low, [name.upper() for name in STANDARD], fs=100, n_times=1000)
    write_record(tmp_path / "records500/00000/00002_hr", STANDARD, fs=500, n_times=5000)
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "scp_statements.csv").write_text(
        ",description,diagnostic,diagnostic_class\nNORM,normal,1.0,NORM\nIMI,inferior,1.0,MI\nNDT,T,1.0,STTC\nSR,,,\n"
    )
    return tmp_path


def test_ptbxl_from_a_partial_copy(ptbxl_folder):
    with pytest.warns(UserWarning, match="holds 3 of 21,799 records of PTB-XL at 100 Hz"):
        data = fetch_ptbxl(ptbxl_folder, download_if_missing=False)
    assert data.target_names == ("NORM", "MI", "STTC", "CD", "HYP")
    assert_array_equal(data.target, [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert_array_equal(data.patient_id, [0, 1, 1])
    assert_array_equal(data.folds, [1, 2, 3])
    assert data.record_names.tolist() == ["00001_lr", "00002_lr", "00003_lr"]
    assert data.fs == 100 and data.lead_names == STANDARD and len(data.records) == 3
    assert data.records[1].signal.shape == (12, 1000)
    assert all(data[key] for key in ("DESCR", "license", "citation"))

    with pytest.warns(UserWarning, match="holds 1 of 21,799 records of PTB-XL at 500 Hz"):
        data = fetch_ptbxl(ptbxl_folder, fs=500, lead_names=["V6", "aVR"], min_likelihood=1, download_if_missing=False)
    assert_array_equal(data.target, [[0, 0, 1, 0, 0]])
    assert data.records[0].lead_names == ("V6", "aVR") and data.lead_names == ("V6", "aVR")


def test_ptbxl_messages(ptbxl_folder, tmp_path):
    with pytest.raises(ValueError, match="fs=100 and fs=500 Hz; got fs=250"):
        fetch_ptbxl(ptbxl_folder, fs=250, download_if_missing=False)
    with pytest.raises(ValueError, match=r"task must be one of superclass, subclass, .*; got 'sex'"):
        fetch_ptbxl(ptbxl_folder, task="sex", download_if_missing=False)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.ptbxl\. Pass download_if_missing=True .*/ptb-xl/1"):
        fetch_ptbxl(tmp_path / "nowhere", download_if_missing=False)
    database = ptbxl_folder / "ptbxl_database.csv"
    content = database.read_text(encoding="utf-8")
    for found, wrong, message in [
        ("{'NORM': 80.0}", "__import__('os')", r"ptbxl_database\.csv, line 9: the row cannot be used \(ValueError"),
        ("{'NORM': 80.0}", "{'NORM'}", r"ptbxl_database\.csv, line 9: the row cannot be used \(AttributeError"),
        ("{'NORM': 80.0}", "{'NORM': 'x'}", r"ptbxl_database\.csv, line 9: the row cannot be used \(TypeError"),
        ("strat_fold", "fold", r"ptbxl_database\.csv, line 3: the row cannot be used \(KeyError: 'strat_fold'"),
        ("records100", "elsewhere", r"ptbxl_database\.csv: none of the records in .* is in the table"),
    ]:
        database.write_text(content.replace(found, wrong), encoding="utf-8")
        with pytest.raises(ECGFormatError, match=message), pytest.warns(UserWarning, match="holds 3 of"):
            fetch_ptbxl(ptbxl_folder, download_if_missing=False)
    statements = ptbxl_folder / "scp_statements.csv"
    statements.write_text(statements.read_text().replace("diagnostic_class", "class"))
    with pytest.raises(ECGFormatError, match=r"scp_statements\.csv, line 2: .*no column 'diagnostic_class'"), \
            pytest.warns(UserWarning, match="holds 3 of"):
        fetch_ptbxl(ptbxl_folder, download_if_missing=False)
    database.unlink()
    with pytest.raises(FileNotFoundError, match=r"no ptbxl_database\.csv in"):
        fetch_ptbxl(ptbxl_folder, download_if_missing=False)


def test_a_folder_that_is_no_copy(tmp_path):
    with pytest.raises(FileNotFoundError, match=(
        rf"no folder {tmp_path}.ptbxl, and {tmp_path} itself is no copy of PTB-XL at 100 Hz: it holds none of "
        r"ptbxl_database\.csv, scp_statements\.csv, records100/\*/\*_lr\.hea\. Pass"
    )):
        fetch_ptbxl(tmp_path, download_if_missing=False)


def test_names_that_cannot_be(tmp_path, ptbxl_folder):
    write_record(tmp_path / "mitdb/101", ["MLII"], fs=360, n_times=10)
    write_record(tmp_path / "ecgid/Person_01/rec_1", ["ECG I"], fs=500, n_times=10)
    for fetch, records, message in [
        (fetch_mitdb, "999", r"Arrhythmia Database has no record 999; its records are called \[12\]\[0-9\]\[0-9\]\.$"),
        (fetch_mitdb, [], "records is empty"),
        (fetch_ecgid, "Person_01", r"has no record Person_01; .* For all records of this folder, give 'Person_01/\*'"),
        (fetch_ptbxl, "00001_hr", "00001_hr is no record at fs=100 Hz: pass fs=500, or the name that ends in _lr"),
    ]:
        with pytest.raises(ValueError, match=message):
            fetch(tmp_path, records=records, download_if_missing=False)
    with pytest.warns(UserWarning, match=r"lack a file, such as 101\.atr"):
        assert fetch_mitdb(tmp_path, records=101, download_if_missing=False).record_names.tolist() == ["101"]
    with pytest.warns(UserWarning, match=r"mitdb holds no record 102, 2\*: 1 record\(s\) are used\. 1 of these 1 lack"):
        data = fetch_mitdb(tmp_path, records=[101, "102", "2*"], download_if_missing=False)
    assert data.record_names.tolist() == ["101"]


@pytest.mark.parametrize("likelihood", [150, -1, 0.5, "50", float("nan"), None])
def test_a_likelihood_is_a_percentage(ptbxl_folder, likelihood):
    with pytest.raises(ValueError, match=r"min_likelihood is in percent: .*; got "):
        fetch_ptbxl(ptbxl_folder, min_likelihood=likelihood, download_if_missing=False)


@pytest.mark.filterwarnings("ignore:.* holds 3 of 21,799")
def test_a_sampling_rate_is_an_int(ptbxl_folder):
    assert type(fetch_ptbxl(ptbxl_folder, fs=100.0, download_if_missing=False).fs) is int


def test_mitdb_from_a_partial_copy(wfdb, tmp_path):
    leads = {"102": ["V5", "V2"], "114": ["V5", "MLII"], "201": ["MLII", "V1"], "202": ["MLII", "V1"]}
    for name, lead_names in leads.items():
        write_record(tmp_path / name, lead_names, fs=360, n_times=3600)
        wfdb.wrann(name, "atr", np.array([500, 1000]), ["N", "V"], write_dir=str(tmp_path))
    with pytest.warns(UserWarning, match="holds 4 of 48 records"):
        data = fetch_mitdb(tmp_path, download_if_missing=False)
    assert data.record_names.tolist() == ["114", "201", "202"]
    assert data.patient_id.tolist() == ["114", "201", "201"]
    assert data.target is None and data.fs == 360 and data.lead_names == ("MLII",)
    X, y, groups = make_beats(data)
    assert X.shape == (6, 1, 252) and y.tolist() == ["N", "V"] * 3
    assert groups.tolist() == ["114"] * 2 + ["201"] * 4
    with pytest.warns(UserWarning, match="holds 4 of 48 records"):
        data = fetch_mitdb(tmp_path, include_paced=True, lead_names=["V1", "V5"], download_if_missing=False)
    assert data.record_names.tolist() == ["102", "114", "201", "202"]
    missing = [np.isnan(record.signal[:, 0]).tolist() for record in data.records]
    assert missing == [[True, False]] * 2 + [[False, True]] * 2
    (tmp_path / "mitdb").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no record of the MIT-BIH"):
        fetch_mitdb(tmp_path, download_if_missing=False)


def test_real_mitdb(real_data):
    with pytest.warns(UserWarning, match="holds 23 of 48 records"):
        data = fetch_mitdb(real_data, download_if_missing=False)
    assert len(data.records) == 23 and len(set(data.patient_id)) == 22
    assert Counter(data.folds.tolist()) == {"DS1": 22, "DS2": 1}
    # Windows of a single sample never leave the record, so that no beat is dropped.
    X, y, groups = make_beats(data, before=0.0, after=1 / 360)
    assert Counter(y.tolist()) == {"N": 47_927, "S": 999, "V": 3_807, "F": 416, "Q": 8}
    assert X.shape == (53_157, 1, 1) and np.isfinite(X).all()
    X, y, groups = make_beats(data)
    assert X.shape[1:] == (1, 252) and 53_157 - 2 * 23 <= len(X) < 53_157 and np.isfinite(X).all()
    assert set(groups) == set(data.patient_id)


@pytest.mark.parametrize(("fs", "n_records"), [(100, 422), (500, 200)])
def test_real_ptbxl(real_data, fs, n_records):
    with pytest.warns(UserWarning, match=f"holds {n_records} of 21,799"):
        data = fetch_ptbxl(real_data, fs=fs, download_if_missing=False)
    assert len(data.records) == len(data.target) == len(data.patient_id) == n_records
    if fs == 100:
        counts = dict(zip(data.target_names, data.target.sum(axis=0).tolist(), strict=True))
        assert counts == {"NORM": 257, "MI": 63, "STTC": 77, "HYP": 31, "CD": 65}
    for patient in np.unique(data.patient_id):
        assert len(set(data.folds[data.patient_id == patient])) == 1
    X, y, groups = make_windows(
        data.records[:20], length=5.0, y=data.target[:20], groups=data.patient_id[:20],
        lead_names=data.lead_names,
    )
    assert X.shape == (40, 12, 5 * fs) and X.dtype == np.float32
    assert_array_equal(y, np.repeat(data.target[:20], 2, axis=0))
    assert_array_equal(groups, np.repeat(data.patient_id[:20], 2))
    assert 0.01 < np.abs(X).mean() < 1  # millivolt


@pytest.mark.filterwarnings("ignore:.* holds 422 of 21,799 records of PTB-XL")
def test_real_ptbxl_tasks(real_data):
    n_labels = {"superclass": 5, "subclass": 23, "diagnostic": 44, "form": 19, "rhythm": 12, "all": 71}
    data = {task: fetch_ptbxl(real_data, task=task, download_if_missing=False) for task in n_labels}
    assert {task: len(data[task].target_names) for task in data} == n_labels
    column = {name: data["all"].target[:, i] for i, name in enumerate(data["all"].target_names)}
    for task in ("diagnostic", "form", "rhythm"):  # each is a part of all statements
        assert_array_equal(data[task].target, np.stack([column[name] for name in data[task].target_names], axis=1))
    assert data["rhythm"].target.any(axis=1).mean() > 0.9
    # a record with a diagnostic statement has a superclass, and a subclass
    has_diagnosis = data["diagnostic"].target.any(axis=1)
    assert_array_equal(data["superclass"].target.any(axis=1), has_diagnosis)
    assert_array_equal(data["subclass"].target.any(axis=1), has_diagnosis)
    normal = data["superclass"].target[:, 0]
    assert_array_equal(column["NORM"], normal)
    with pytest.warns(UserWarning, match="holds 422 of"):
        again = fetch_ptbxl(real_data / "ptbxl", download_if_missing=False)
    assert_array_equal(again.target, data["superclass"].target)


def test_real_ecgid(real_data):
    with pytest.warns(UserWarning, match="holds 192 of 310 records of the ECG-ID Database"):
        data = fetch_ecgid(real_data, download_if_missing=False)
    with open(real_data / "ecgid/records.csv", newline="") as stream:
        rows = {row["record"]: row for row in csv.DictReader(stream)}
    assert set(data.record_names) == set(rows) and len(data.target_names) == 62
    for name, person, date, age, sex in zip(data.record_names, data.target, data.date, data.age, data.sex, strict=True):
        day, month, year = str(date).split("-")[::-1]
        expected = {"record": name, "person": person, "date": f"{day}.{month}.{year}", "age": f"{age:.0f}", "sex": sex}
        assert rows[name] == expected
    record = data.records[1]
    assert record.lead_names == ("ECG I", "ECG I filtered") and record.fs == data.fs == 500
    assert Counter(record.annotations.symbol.tolist()) == {"N": 10, "t": 10}
    X, y, _ = make_windows(data.records[:3], length=10.0, y=data.target[:3], lead_names=data.lead_names)
    assert X.shape == (6, 1, 5000) and y.tolist() == ["Person_01"] * 6
    assert X.std(axis=2).min() > 0.05  # millivolt


def test_real_slpdb(real_data):
    with pytest.warns(UserWarning, match=r"holds 12 of 18 records .* 12 of these 12 lack a file, such as slp02a\.dat"):
        data = fetch_slpdb(real_data / "slpdb_rr", download_if_missing=False)
    assert len(set(data.patient_id)) == 11 and data.fs == 250
    counts = Counter(np.concatenate(data.stages).tolist())
    assert {stage: counts[stage] for stage in counts if stage} == {
        "W": 2200, "1": 1168, "2": 2396, "3": 285, "4": 115, "R": 439, "MT": 14}
    assert [len(stages) for stages in data.stages] == [len(events) for events in data.events]
    slp14 = data.stages[data.record_names.tolist().index("slp14")]
    assert set(slp14[:6]) == {""} and "" not in slp14[6:]  # scored from second 180 on
    with pytest.raises(ECGFormatError, match=r"slp02a\.dat"):
        data.records[0]


@pytest.mark.filterwarnings("ignore:.* holds 28 of .* records of the PhysioNet/CinC Challenge")
def test_real_challenge(real_data):
    data = fetch_cinc2021(real_data, download_if_missing=False)
    assert Counter(data.source.tolist()) == {"georgia": 20, "ptb-xl": 8}
    assert set(data.fs) == {500.0} and set(data.sex) == {"female", "male"}
    with open(real_data / "cinc_scoring/2021/dx_mapping_scored.csv", newline="") as stream:
        known = {row["SNOMEDCTCode"] for row in csv.DictReader(stream)}
    with open(real_data / "cinc_scoring/2021/dx_mapping_unscored.csv", newline="") as stream:
        known |= {row["SNOMEDCTCode"] for row in csv.DictReader(stream)}
    assert set(data.target_names) <= known
    row = data.record_names.tolist().index("E07500")
    codes = [name for name, is_there in zip(data.target_names, data.target[row], strict=True) if is_there]
    assert codes == ["426177001", "67741000119109"] and data.age[row] == 78 and data.sex[row] == "male"
    X, y, groups = make_windows(data, length=10.0)
    assert X.shape == (28, 12, 5000) and np.isfinite(X).all()
    assert_array_equal(y, data.target)
    assert_array_equal(groups, data.record_names)
    assert_array_equal(fetch_cinc2020(real_data / "cinc2021", download_if_missing=False).target, data.target)
