"""Loaders of local PhysioNet folders: small made-up copies, and real ones."""

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skecg.datasets import ECGFormatError, load_mitdb, load_ptbxl
from skecg.preprocessing import make_beats, make_windows

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


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
        data = load_ptbxl(ptbxl_folder)
    assert data.target_names == ("NORM", "MI", "STTC", "CD", "HYP")
    assert_array_equal(data.target, [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert_array_equal(data.patient_id, [0, 1, 1])
    assert_array_equal(data.folds, [1, 2, 3])
    assert data.record_names.tolist() == ["00001_lr", "00002_lr", "00003_lr"]
    assert data.fs == 100 and data.lead_names == STANDARD and len(data.records) == 3
    assert data.records[1].signal.shape == (12, 1000)
    assert all(data[key] for key in ("DESCR", "license", "citation"))

    with pytest.warns(UserWarning, match="holds 1 of 21,799 records of PTB-XL at 500 Hz"):
        data = load_ptbxl(ptbxl_folder, fs=500, lead_names=["V6", "aVR"], min_likelihood=1)
    assert_array_equal(data.target, [[0, 0, 1, 0, 0]])
    assert data.records[0].lead_names == ("V6", "aVR") and data.lead_names == ("V6", "aVR")


def test_ptbxl_messages(ptbxl_folder, tmp_path):
    with pytest.raises(ValueError, match="fs=100 and fs=500 Hz; got fs=250"):
        load_ptbxl(ptbxl_folder, fs=250)
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_ptbxl(tmp_path / "nowhere")
    database = ptbxl_folder / "ptbxl_database.csv"
    content = database.read_text(encoding="utf-8")
    database.write_text(content.replace("{'NORM': 80.0}", "__import__('os')"), encoding="utf-8")
    with pytest.raises(ECGFormatError, match=r"ptbxl_database\.csv, line 9"):
        load_ptbxl(ptbxl_folder)
    database.write_text(content.replace("records100", "elsewhere"), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"holds no record of PTB-XL at 100 Hz"):
        load_ptbxl(ptbxl_folder)
    database.unlink()
    with pytest.raises(FileNotFoundError, match=r"no ptbxl_database\.csv"):
        load_ptbxl(ptbxl_folder)


def test_mitdb_from_a_partial_copy(wfdb, tmp_path):
    leads = {"102": ["V5", "V2"], "114": ["V5", "MLII"], "201": ["MLII", "V1"], "202": ["MLII", "V1"]}
    for name, lead_names in leads.items():
        write_record(tmp_path / name, lead_names, fs=360, n_times=3600)
        wfdb.wrann(name, "atr", np.array([500, 1000]), ["N", "V"], write_dir=str(tmp_path))
    with pytest.warns(UserWarning, match="holds 4 of 48 records"):
        data = load_mitdb(tmp_path)
    assert data.record_names.tolist() == ["114", "201", "202"]
    assert data.patient_id.tolist() == ["114", "201", "201"]
    assert data.target is None and data.fs == 360 and data.lead_names == ("MLII",)
    X, y, groups = make_beats(data)
    assert X.shape == (6, 1, 252) and y.tolist() == ["N", "V"] * 3
    assert groups.tolist() == ["114"] * 2 + ["201"] * 4
    with pytest.warns(UserWarning, match="holds 4 of 48 records"):
        data = load_mitdb(tmp_path, include_paced=True, lead_names=["V1", "V5"])
    assert data.record_names.tolist() == ["102", "114", "201", "202"]
    missing = [np.isnan(record.signal[:, 0]).tolist() for record in data.records]
    assert missing == [[True, False]] * 2 + [[False, True]] * 2
    with pytest.raises(FileNotFoundError, match="holds no record"):
        load_mitdb(tmp_path.parent)


def test_real_mitdb(real_data):
    with pytest.warns(UserWarning, match="holds 23 of 48 records"):
        data = load_mitdb(real_data / "mitdb")
    assert len(data.records) == 23 and len(set(data.patient_id)) == 22
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
        data = load_ptbxl(real_data / "ptbxl", fs=fs)
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
