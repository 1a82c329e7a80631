"""The study of heartbeats, in small, on simulated recordings in the layout of Icentia11k."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from skecg.datasets import ECGRecord, make_ecg_records, write_record

PATH = Path(__file__).parents[1] / "benchmarks" / "heartbeats.py"
if not PATH.exists():
    pytest.skip("the benchmarks belong to the source tree, not to an installed package", allow_module_level=True)
spec = importlib.util.spec_from_file_location("heartbeats", PATH)
heartbeats = importlib.util.module_from_spec(spec)
spec.loader.exec_module(heartbeats)

TINY = ("--per-class 8 --tested 30 --unlabelled 10 --folds 2 --fractions 0.5 1 --repeats 1 1 --levels 8 --vocabulary 60 "
        "--width 8 --depth 1 --trainable 1 --epochs 1 --labelled-epochs 1 --updates 2").split()


@pytest.fixture(scope="module")
def icentia(tmp_path_factory):
    """Six patients in the layout of Icentia11k, sinus beats and two kinds of premature ones."""
    folder = tmp_path_factory.mktemp("data") / "icentia11k"
    kinds = ("premature ventricular contractions", "premature atrial contractions")
    for patient in range(6):
        record = make_ecg_records(1, classes=(kinds[patient % 2],), duration=60.0, fs=250, random_state=patient).records[0]
        notes = record.annotations
        notes.symbol = np.array([{"A": "S", "+": "+"}.get(symbol, symbol) for symbol in notes.symbol.tolist()])
        where = folder / "p00" / f"p{patient:05d}"
        where.mkdir(parents=True)
        write_record(where / f"p{patient:05d}_s00", ECGRecord(record.signal[1:2], 250, ["ECG"], annotations=notes))
    return folder


def test_the_papers_own_task_from_files_to_report(icentia, tmp_path, capsys):
    command = ["icentia11k", str(icentia), *TINY, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path)]
    heartbeats.main(command)
    found = json.loads((tmp_path / "heartbeats_icentia11k.json").read_text())
    assert set(found["results"]["data"]["tested"]) == {"N", "S", "V"}
    assert max(found["results"]["data"]["tested"].values()) > 60  # natural prevalence
    gap = next(row for row in found["results"]["gaps"] if row["class"] == "macro")
    assert gap["gap"]["value"] == pytest.approx(gap["paper"]["value"] - gap["patient"]["value"])
    report = (tmp_path / "heartbeats_icentia11k.md").read_text()
    assert "6 patients" in report and "split by beat (paper)" in report
    assert (tmp_path / "heartbeats_icentia11k.png").stat().st_size > 10_000
    finished = sorted((tmp_path / "cache").rglob("*.npz"))
    times = [file.stat().st_mtime_ns for file in finished]
    heartbeats.main(command)  # again: nothing is computed twice
    assert [file.stat().st_mtime_ns for file in finished] == times
    assert sorted((tmp_path / "cache").rglob("*.npz")) == finished
    capsys.readouterr()


def test_roles_of_beats():
    rng = np.random.default_rng(0)
    y, groups = rng.choice(["N", "V"], 300, p=[0.9, 0.1]), np.repeat([1, 2, 3], 100)

    class Options:
        per_class, tested, unlabelled = 5, 40, 20

    labelled, tested, rest = heartbeats.select(y, groups, Options, rng)
    for patient in (1, 2, 3):
        own = groups == patient
        assert own[tested].sum() == 40 and own[rest].sum() == 20
        assert all(((y == name) & own)[labelled].sum() == min(5, ((y == name) & own).sum()) for name in "NV")
    assert not np.isin(rest, np.union1d(labelled, tested)).any()


def test_rates_against_scikit_learn():
    rng = np.random.default_rng(0)
    true, called = rng.integers(3, size=200), rng.integers(3, size=200)
    counts = np.zeros((3, 3))
    np.add.at(counts, (true, called), 1)
    found = heartbeats.rates(counts)
    for name, score in (("f1", f1_score), ("sensitivity", recall_score), ("ppv", precision_score)):
        np.testing.assert_allclose(found[name], score(true, called, average=None))
