"""The study of sleep stages, in small, on beats and stages in the layout of the Polysomnographic Database."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score
from sklearn.utils import Bunch

from skecg.datasets import ECGRecord, fetch_slpdb, write_record

PATH = Path(__file__).parents[1] / "benchmarks" / "sleep_stages.py"
if not PATH.exists():
    pytest.skip("the benchmarks belong to the source tree, not to an installed package", allow_module_level=True)
sys.path.insert(0, str(PATH.parent))
spec = importlib.util.spec_from_file_location("sleep_stages", PATH)
sleep_stages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sleep_stages)

TINY = ("--folds 2 --fragments 2 --levels 8 --vocabulary 60 --width 8 --depth 1 --epochs 1 --labelled-epochs 3").split()


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    """Four nights of five minutes, three subjects; the heart beats slowly in deep sleep."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    stages = ["W", "W", "1", "2", "3", "4", "R", "W", "2", "R"]
    seconds_a_beat = {"3": 1.1, "4": 1.1}
    for name in ("slp01", "slp02a", "slp02b", "slp03"):
        sample, now = [], 0.5
        while now < 299:
            sample.append(round(250 * now))
            now += seconds_a_beat.get(stages[int(now // 30)], 0.8) * rng.lognormal(0, 0.02)
        sample = np.array(sample)
        record = ECGRecord(np.zeros((1, 75_000), np.float32), 250, ["ECG"])
        for extension, notes in (
            ("ecg", Bunch(sample=sample, symbol=np.repeat("N", len(sample)), aux_note=np.repeat("", len(sample)))),
            ("st", Bunch(sample=np.maximum(1, 7500 * np.arange(10)), symbol=np.repeat('"', 10), aux_note=np.array(stages))),
        ):
            write_record(folder / name, ECGRecord(record.signal, 250, ["ECG"], annotations=notes), extension=extension)
        (folder / f"{name}.dat").unlink()  # the waveforms are what is not there
    return folder


@pytest.fixture(scope="module")
def nights(beats, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights") / "slpdb"
    sleep_stages.simulate(beats, folder, seed=0)
    return folder


@pytest.mark.filterwarnings("ignore:.* of 18 records of the MIT-BIH Polysomnographic Database")
def test_nights_have_their_beats_where_they_were(nights):
    data = fetch_slpdb(nights, download_if_missing=False)
    assert data.patient_id.tolist() == ["slp01", "slp02", "slp02", "slp03"]
    for record in data.records:
        signal, beats = record.signal[0], record.annotations.sample
        high = np.array([np.ptp(signal[max(0, beat - 10):beat + 11]) for beat in beats])
        between = np.array([np.ptp(signal[m - 10:m + 11]) for m in (beats[:-1] + 0.75 * np.diff(beats)).astype(int)])
        assert np.median(high) > 3 * np.median(between)
    first, second, third = (data.records[i].signal[0, :5000] for i in (0, 1, 2))
    assert not np.allclose(first, second) and not np.allclose(second, third)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_features_and_sequences(nights):
    X, y, _, places, features = sleep_stages.read(nights)
    assert X.shape == (40, 1, 1500) and y.tolist()[:7] == ["W", "W", "N1", "N2", "N3", "N3", "R"]
    np.testing.assert_allclose(features[y == "N3", 0], 1.1, rtol=0.1)
    np.testing.assert_allclose(features[y == "R", 0], 0.8, rtol=0.1)
    neighbours = sleep_stages.with_neighbours(places, 1)
    assert neighbours[:3].tolist() == [[-1, 0, 1], [0, 1, 2], [1, 2, 3]] and neighbours[9].tolist() == [8, 9, -1]
    joined = sleep_stages.sequences(np.arange(40 * 2 * 3.0).reshape(40, 2, 3), neighbours)
    assert joined.shape == (40, 6, 3) and np.isnan(joined[0, :2]).all() and joined[1, :, 0].tolist() == [0, 3, 6, 9, 12, 15]


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_from_files_to_report(beats, tmp_path, capsys):
    command = [str(beats), *TINY, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path)]
    sleep_stages.main(command)
    found = json.loads((tmp_path / "sleep_stages.json").read_text())
    assert found["data"]["subjects"] == 3 and found["data"]["epochs"] == 40
    assert {(row["arm"], row["n_classes"]) for row in found["results"]["stages"]} == {
        (arm, n) for arm in ("pretrained", "random network", "heart rate, boosted trees") for n in (5, 4, 3)}
    for row in found["results"]["protocols"]:
        assert row["gap"]["value"] == pytest.approx(row["paper"]["value"] - row["subject"]["value"])
    assert "split at random (paper)" in (tmp_path / "sleep_stages.md").read_text()
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    sleep_stages.main(command)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*") if file.is_file()} == times
    capsys.readouterr()


def test_scores_against_scikit_learn():
    rng = np.random.default_rng(0)
    true, called = rng.choice(["N1", "N2", "W"], 300), rng.choice(["N1", "N2", "W"], 300)
    counts, names = sleep_stages.confusions(true, called, np.arange(300) % 7)
    assert names.tolist() == ["N1", "N2", "W"] and counts.shape == (7, 3, 3)
    found = sleep_stages.scores(counts.sum(axis=0)[None])
    assert found["kappa"] == pytest.approx(cohen_kappa_score(true, called))
    assert found["macro_f1"] == pytest.approx(f1_score(true, called, average="macro"))
    assert found["accuracy"] == pytest.approx(accuracy_score(true, called))
