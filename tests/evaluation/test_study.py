"""label_efficiency_curve: who sees what, fairness, resuming, and the result."""

import json
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from itertools import chain

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, mean_absolute_error, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, RecordClassifier
from skecg.datasets import make_ecg, make_ecg_records, read_records, write_records
from skecg.encoders import PatchTransformer
from skecg.evaluation import LabelEfficiencyCurve, LabelEfficiencyDisplay, label_efficiency_curve
from skecg.evaluation._pretraining import Pretraining, find_pretraining, freeze
from skecg.metrics import get_scorer, macro_roc_auc
from skecg.preprocessing import LeadScaler


class Recording(ECGSelfSupervisedEmbedder):
    """Notes every fit: the signals it saw, and whose they were."""

    fits = []

    def fit(self, X, y=None, groups=None):
        if self.max_epochs:
            self.fits.append((np.array(X), y, groups))
        return super().fit(X, y, groups)


class Spy(ClassifierMixin, BaseEstimator):
    """A classifier that notes what it is fitted on."""

    fits = []

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y, groups=None):
        self.fits.append((np.array(X), np.array(y), None if groups is None else np.array(groups), self.random_state))
        self.classes_ = np.unique(y)
        self.model_ = DummyClassifier(strategy="prior").fit(X, y)
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)

    def predict(self, X):
        return self.model_.predict(X)


class Fails(Spy):
    def fit(self, X, y, groups=None):
        raise ZeroDivisionError("nothing to divide by")


@pytest.fixture(autouse=True)
def forget():
    Recording.fits.clear()
    Spy.fits.clear()


def small(cls=ECGSelfSupervisedEmbedder, **params):
    return cls(PatchTransformer(patch_size=25, embed_dim=8, depth=1, n_heads=2), **{"max_epochs": 1, **params})


@pytest.fixture(scope="module")
def data():
    X, y, groups = make_ecg(48, classes=("normal", "atrial fibrillation", "left bundle branch block"), duration=1.0,
                            random_state=0)
    return X, y, np.repeat(np.arange(24), 2)[np.argsort(np.argsort(groups, kind="stable"))]


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=120)
    return rng.normal(size=(120, 5)) + np.eye(5)[y], np.array(["a", "b", "c"])[y], np.repeat(np.arange(60), 2)


def study(arms, data, **options):
    X, y, groups = data
    options = {"label_fractions": (0.3, 1.0), "cv": 2, "n_repeats": 2, "verbose": 0, "random_state": 0, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Networks made different|Budgets without any|The test part of split")
        return label_efficiency_curve(arms, X, y, groups=groups, **options)


def test_pretraining_sees_the_training_part_without_labels_once_per_split(data):
    X, _, groups = data
    embedder = small(Recording)
    arms = {
        "probe": make_pipeline(LeadScaler(), embedder, StandardScaler(), LogisticRegression()),
        "fine-tuned": make_pipeline(LeadScaler(), ECGClassifier(embedder, max_epochs=1)),
        "searched": GridSearchCV(ECGClassifier(small(Recording, batch_size=16), max_epochs=1),
                                 {"learning_rate": [1e-3, 1e-2]}, cv=2),
    }
    curve = study(arms, data, label_fractions=(0.3, 0.6, 1.0), n_repeats=3)
    assert len(curve.runs) == 3 * 3 * 3 * 2
    # the first two arms pretrain in the same way, and share it
    assert len(Recording.fits) == len(curve.pretraining) == 2 * 2
    assert sorted(tuple(entry["arms"]) for entry in curve.pretraining) == 2 * [("fine-tuned", "probe")] + 2 * [("searched",)]
    for train, test in curve.splits:
        scaler = LeadScaler().fit(X[train])
        seen = [np.array_equal(signals, expected) for signals, _, _ in Recording.fits
                for expected in (X[train], scaler.transform(X[train]))]
        assert sum(seen) == 2
        assert not set(groups[train]) & set(groups[test])
    assert all(y is None for _, y, _ in Recording.fits)
    assert all(len(set(patients)) == 12 for *_, patients in Recording.fits)


def test_transductive_pretraining_must_be_asked_for_and_shows(data):
    arms = {"probe": make_pipeline(small(Recording), LogisticRegression())}
    curve = study(arms, data, transductive=True)
    assert curve.transductive and "TRANSDUCTIVE" in repr(curve) and json.loads(curve.to_json())["transductive"]
    assert [len(X) for X, *_ in Recording.fits] == [48, 48]
    display = LabelEfficiencyDisplay(curve).plot(n_resamples=20)
    assert "transductive" in " ".join(text.get_text() for text in display.ax_.texts)


def test_further_unlabelled_signals(data):
    X, _, groups = data
    extra = make_ecg(10, duration=1.0, random_state=7)[0]
    names = np.array([groups[0]] * 4 + [1000 + i for i in range(6)])
    arms = {"probe": make_pipeline(small(Recording), LogisticRegression())}
    curve = study(arms, data, X_unlabeled=extra, groups_unlabeled=names)
    for (signals, _, patients), (train, test) in zip(Recording.fits, curve.splits, strict=True):
        kept = extra[4:] if groups[0] in groups[test] else extra  # signals of a test patient are left out
        np.testing.assert_array_equal(signals, np.concatenate([X[train], kept]))
        assert len(patients) == len(signals)


def test_unlabelled_signals_may_not_be_test_signals(data):
    arms = {"probe": make_pipeline(small(), LogisticRegression())}
    with pytest.raises(ValueError, match="3 samples of X, such as number 2, are in X_unlabeled"):
        study(arms, data, X_unlabeled=data[0][2:5])
    with pytest.raises(ValueError, match="same leads and length"):
        study(arms, data, X_unlabeled=data[0][:, :3])


def test_arms_share_budgets_and_seeds(features):
    groups = features[2]
    arms = {"one": Spy(), "two": make_pipeline(StandardScaler(), Spy()), "fixed": Spy(random_state=5)}
    curve = study(arms, features, label_fractions=(0.1, 0.5), n_repeats=3)
    fits = [Spy.fits[i::3] for i in range(3)]
    for (_, y1, g1, seed1), (_, y2, g2, seed2), (_, y3, g3, seed3) in zip(*fits, strict=True):
        np.testing.assert_array_equal(y1, y2)
        np.testing.assert_array_equal(y1, y3)
        np.testing.assert_array_equal(g1, g2)
        np.testing.assert_array_equal(g1, g3)
        assert seed1 == seed2 and isinstance(seed1, int) and seed3 == 5
    assert len({seed for *_, seed in fits[0]}) == 6  # one for each split and repeat, whatever the fraction
    for run in curve.runs:
        train, test = curve.splits[run.split]
        budget = next(b for b in curve.budgets[run.split] if (b.fraction, b.repeat) == (run.fraction, run.repeat))
        assert run.n_labels == len(budget.rows) and run.n_patients == len(set(groups[train][budget.rows]))
        assert run.scores.shape == (len(test), 3)


def test_budgets_do_not_depend_on_the_arms(features):
    one = study({"a": Spy()}, features, label_fractions=(0.1, 0.5))
    two = study({"b": LogisticRegression(), "a": Spy()}, features, label_fractions=(0.1, 0.5))
    for first, second in zip(one.budgets, two.budgets, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.rows, b.rows)
    for (train1, test1), (train2, test2) in zip(one.splits, two.splits, strict=True):
        np.testing.assert_array_equal(train1, train2)
        np.testing.assert_array_equal(test1, test2)


def test_budgets_of_an_earlier_study(features, tmp_path):
    first = study({"a": Spy()}, features, cache_dir=tmp_path, label_fractions=(0.2, 0.5))
    again = study({"b": LogisticRegression()}, features, budgets=tmp_path / "budgets.json", label_fractions=(0.9,))
    assert again.label_fractions == (0.2, 0.5)
    for a, b in zip(chain(*first.budgets), chain(*again.budgets), strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
    in_memory = study({"b": LogisticRegression()}, features, budgets=first.budgets)
    np.testing.assert_array_equal([r.scores for r in in_memory.runs], [r.scores for r in again.runs])
    X, y, groups = features
    with pytest.raises(ValueError):
        study({"b": LogisticRegression()}, (X[::-1], y[::-1], groups), budgets=tmp_path / "budgets.json")
    with pytest.raises(ValueError, match="2 splits"):
        study({"b": LogisticRegression()}, features, budgets=first.budgets, cv=3)


def test_values_are_those_of_a_plain_loop(features):
    X, y, groups = features
    curve = study({"lda": LinearDiscriminantAnalysis()}, features, cv=GroupKFold(3), label_fractions=(0.5, 1.0),
                  scoring=["roc_auc", "accuracy"])
    table = {(row["split"], row["fraction"], row["repeat"], row["metric"]): row["value"] for row in curve.table}
    for split, (train, test) in enumerate(GroupKFold(3).split(X, y, groups)):
        for budget in curve.budgets[split]:
            rows = train[budget.rows]
            model = LinearDiscriminantAnalysis().fit(X[rows], y[rows])
            place = split, budget.fraction, budget.repeat
            expected = roc_auc_score(y[test], model.predict_proba(X[test]), multi_class="ovr")
            assert table[*place, "roc_auc"] == pytest.approx(expected, abs=1e-6)  # kept in float32
            assert table[*place, "accuracy"] == pytest.approx(model.score(X[test], y[test]))


def test_a_search_tunes_inside_each_budget_with_patients_apart(features):
    X, _, groups = features
    seen = []

    class Model(LogisticRegression):
        def fit(self, X, y):
            seen.append(X)
            return super().fit(X, y)

    curve = study({"search": GridSearchCV(Model(), {"C": [1e-6, 1.0]}, cv=3)}, features, n_repeats=1)
    patient = {row.tobytes(): group for row, group in zip(X, groups, strict=True)}
    fits = [seen[i:i + 7] for i in range(0, len(seen), 7)]  # 2 candidates x 3 folds, and the refit
    assert len(fits) == len(curve.runs)
    for *inner, refit in fits:
        budget = {patient[row.tobytes()] for row in refit}
        inside = [[patient[row.tobytes()] for row in part] for part in inner]
        assert all(set(part) < budget for part in inside)
        for part in inside:  # a patient has two samples: both are in, or none
            assert all(part.count(p) == 2 for p in part)
    assert all(run.best_params["C"] in (1e-6, 1.0) for run in curve.runs)


def test_network_arms_start_from_the_same_head(data):
    class Head(ECGClassifier):
        starts = []

        def _start_head(self, target, weights, seed):
            head = super()._start_head(target, weights, seed)
            self.starts.append({k: v.clone() for k, v in head.state_dict().items()})
            return head

    arms = {"pretrained": Head(small(), max_epochs=1), "scratch": Head(small(max_epochs=0), max_epochs=1)}
    curve = study(arms, data, n_repeats=1)
    pairs = [Head.starts[i:i + 2] for i in range(0, len(Head.starts), 2)]
    assert len(pairs) == 4
    for one, other in pairs:
        assert all(torch.equal(one[name], other[name]) for name in one)
    updates = {(r.split, r.fraction, r.arm): r.n_updates for r in curve.runs}
    assert all(updates[s, f, "pretrained"] == updates[s, f, "scratch"] for s, f, _ in updates)


def test_unequal_numbers_of_updates_are_told(data):
    X, y, groups = data
    arms = {"a": ECGClassifier(small(max_epochs=0), max_epochs=1), "b": ECGClassifier(small(max_epochs=0), max_epochs=2)}
    with pytest.warns(UserWarning, match=r"different numbers of updates on the same budget \(a 1, b 2\)"):
        label_efficiency_curve(arms, X, y, groups=groups, label_fractions=(1.0,), n_repeats=1, cv=2, verbose=0)


def test_absent_classes_are_told_and_kept():
    rng = np.random.default_rng(0)
    y = np.zeros((80, 2), int)
    y[::2, 0] = 1
    y[[3, 50], 1] = 1
    X = rng.normal(size=(80, 3)) + y[:, :1]
    arms = {"linear": OneVsRestClassifier(LogisticRegression())}
    with pytest.warns(UserWarning) as told:
        curve = label_efficiency_curve(arms, X, y, label_fractions=(0.05, 1.0), n_repeats=4, cv=2, verbose=0, random_state=0)
    lacking = [run for run in curve.runs if 1 in run.absent]
    assert lacking and all(np.isfinite(row["value"]) for row in curve.table)
    assert any("without any label of a class: 1 in" in str(w.message) for w in told)
    assert any("Arm 'linear'" in str(w.message) and "Label not 1" in str(w.message) for w in told)  # the arm's own warning


def test_a_budget_of_one_class_predicts_that_class():
    y = np.array(["a"] * 20 + ["b"] * 20)
    groups = np.repeat(np.arange(4), 10)  # every patient has one class
    X = np.random.default_rng(0).normal(size=(40, 2))
    splits = [(np.arange(10, 40), np.arange(10)), (np.r_[0:10, 20:40], np.arange(10, 20))]
    curve = study({"lda": LinearDiscriminantAnalysis(), "search": GridSearchCV(LogisticRegression(), {"C": [1, 2]})},
                  (X, y, groups), cv=splits, label_fractions=(0.01, 1.0), scoring=["accuracy", "roc_auc"], n_repeats=3)
    alone = [run for run in curve.runs if run.absent]
    for run in alone:
        assert len(set(run.predictions)) == 1 and set(run.predictions) & set(run.absent) == set()
        assert (run.scores.max(axis=1) == 1).all()


def test_a_class_of_one_patient_is_told_where_it_is_missing():
    rng = np.random.default_rng(0)
    groups = np.arange(36) // 2
    y = np.where(groups == 0, "ill", np.where(groups % 2, "a", "b"))
    X = rng.normal(size=(36, 3))
    with pytest.warns(UserWarning) as told:
        curve = label_efficiency_curve(
            {"lda": LinearDiscriminantAnalysis()}, X, y, groups=groups, label_fractions=(0.5, 1.0), cv=2, n_repeats=2,
            verbose=0, random_state=0)
    without = next(i for i, (train, _) in enumerate(curve.splits) if "ill" not in y[train])
    assert all(run.absent == ("ill",) for run in curve.select(split=without))
    assert not any(run.absent for run in curve.select(split=1 - without))
    texts = " ".join(str(w.message) for w in told)
    assert "ill in 2 of 4 at 1" in texts and f"test part of split {1 - without} has no sample of ill" in texts
    with pytest.raises(ValueError, match="one class"):
        study({"lda": LinearDiscriminantAnalysis()}, (X, np.full(36, "a"), groups))


def test_whole_numbers_are_values_where_all_arms_are_regressors():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    age = np.rint(50 + 10 * X[:, 0]).astype(int)

    def negative_error(y_true, y_pred):
        return -mean_absolute_error(y_true, y_pred)

    curve = study({"ridge": Ridge()}, (X, age, np.arange(90)), scoring=negative_error)
    assert curve.classes is None and curve.evaluate(curve.select(fraction=1.0)[0]) > -1.0
    again = study({"ridge": Ridge()}, (X, age, np.arange(90)), scoring=negative_error, budgets=curve.budgets)
    assert again.table[0]["value"] == curve.table[0]["value"]


def test_a_splitter_inside_a_search_is_told_the_patients(features):
    curve = study({"s": GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=GroupKFold(2))}, features, n_repeats=1)
    assert len(curve.runs) == 4


def test_one_pair_of_indices_is_a_split(features):
    train, test = np.arange(80), np.arange(80, 120)
    curve = study({"a": Spy()}, features, cv=(train, test), n_repeats=1)
    assert len(curve.splits) == 1
    np.testing.assert_array_equal(curve.splits[0][1], test)


def test_a_metric_that_cannot_be_computed_is_known_after_the_first_run(features):
    with pytest.raises(ValueError, match=r"cannot be computed on the first run .*get_scorer"):
        study({"a": Spy()}, features, scoring=f1_score)
    assert len(Spy.fits) == 1
    curve = study({"a": Spy()}, features, scoring=get_scorer("f1"))
    assert curve.metrics == ("f1",) and np.isfinite(curve.table[0]["value"])


def test_values_to_predict():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    y = X @ [1.0, 2.0, 0, 0] + 0.1 * rng.normal(size=90)

    def negative_error(y_true, y_pred):
        return -mean_absolute_error(y_true, y_pred)

    arms = {"ridge": Ridge(), "search": GridSearchCV(Ridge(), {"alpha": [1.0, 1e6]})}
    curve = study(arms, (X, y, np.arange(90)), scoring={"error": negative_error}, cv=3)
    full = [run for run in curve.select(arm="ridge", fraction=1.0)]
    for run in full:
        train, test = curve.splits[run.split]
        expected = -mean_absolute_error(y[test], Ridge().fit(X[train], y[train]).predict(X[test]))
        assert curve.evaluate(run) == pytest.approx(expected)
    assert all(run.best_params == {"alpha": 1.0} for run in curve.select(arm="search"))
    with pytest.raises(ValueError, match="y is continuous"):
        study(arms, (X, y, np.arange(90)))


def test_cached_runs_are_not_made_again(features, tmp_path):
    arms = {"spy": Spy()}
    first = study(arms, features, cache_dir=tmp_path)
    n = len(Spy.fits)
    again = study(arms, features, cache_dir=tmp_path)
    assert len(Spy.fits) == n == len(first.runs)
    assert [r["value"] for r in again.table] == [r["value"] for r in first.table]
    study({**arms, "more": Spy(random_state=3)}, features, cache_dir=tmp_path)
    assert len(Spy.fits) == 2 * n  # only the new arm
    X, y, groups = features
    study(arms, (X + 1, y, groups), cache_dir=tmp_path)
    assert len(Spy.fits) == 3 * n  # other data
    with pytest.raises(ValueError, match="Pass an integer"):
        study(arms, features, cache_dir=tmp_path, random_state=None)


def test_cached_pretraining_is_not_that_of_other_signals(data, tmp_path):
    X, _, groups = data
    arms = {"probe": make_pipeline(small(Recording), LogisticRegression())}
    names = np.array([groups[0]] * 4)
    for n_fits, options in enumerate([
        {}, {"transductive": True}, {"X_unlabeled": -X[:4]}, {"X_unlabeled": -X[:4], "groups_unlabeled": names},
    ], start=1):
        curve = study(arms, data, cache_dir=tmp_path, **options)
        assert len(Recording.fits) == 2 * n_fits
        assert len(list((tmp_path / "runs").iterdir())) == n_fits * len(curve.runs)


def test_a_damaged_cache_file_is_computed_again(data, tmp_path):
    arms = {"probe": make_pipeline(small(Recording), LogisticRegression())}
    first = study(arms, data, cache_dir=tmp_path)
    for file in [next((tmp_path / "runs").iterdir()), next((tmp_path / "pretrained").iterdir())]:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="cannot be read"):
        again = study(arms, data, cache_dir=tmp_path)
    np.testing.assert_array_equal([r.scores for r in again.runs], [r.scores for r in first.runs])


KILLED = textwrap.dedent("""
    import sys, time
    import numpy as np
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from skecg.evaluation import label_efficiency_curve

    class Slow(LinearDiscriminantAnalysis):
        def fit(self, X, y):
            time.sleep(float(sys.argv[2]))
            return super().fit(X, y)

    rng = np.random.default_rng(0)
    y = rng.integers(2, size=100)
    X = rng.normal(size=(100, 3)) + y[:, None]
    curve = label_efficiency_curve({"slow": Slow()}, X, y, label_fractions=(0.2, 0.5, 1.0), cv=2, n_repeats=4, verbose=0,
                                   cache_dir=sys.argv[1], random_state=0)
    curve.save(sys.argv[3])
""")


def test_a_killed_study_is_taken_up(tmp_path, monkeypatch):
    script = tmp_path / "study.py"
    script.write_text(KILLED)

    def start(cache, pause, result):
        return subprocess.Popen([sys.executable, script, tmp_path / cache, str(pause), tmp_path / result])

    process = start("killed", 0.3, "never.npz")
    while len(list((tmp_path / "killed" / "runs").glob("*.npz") if (tmp_path / "killed" / "runs").exists() else [])) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "runs").glob("*.npz")}
    assert 5 <= len(kept) < 24 and not (tmp_path / "never.npz").exists()
    assert start("killed", 0, "resumed.npz").wait() == 0
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())
    monkeypatch.setattr(sys, "argv", ["study.py", tmp_path / "whole", 0, tmp_path / "whole.npz"])
    runpy.run_path(script)
    resumed, whole = (LabelEfficiencyCurve.load(tmp_path / name) for name in ("resumed.npz", "whole.npz"))
    np.testing.assert_array_equal([r.scores for r in resumed.runs], [r.scores for r in whole.runs])


OWN_OBJECTIVE = textwrap.dedent("""
    import sys
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from skecg import ECGSelfSupervisedEmbedder
    from skecg.datasets import make_ecg
    from skecg.encoders import PatchTransformer
    from skecg.evaluation import label_efficiency_curve
    from skecg.objectives import MaskedReconstruction

    class Mine(MaskedReconstruction):
        pass

    if __name__ == "__main__":
        X, y, groups = make_ecg(24, classes=("normal", "atrial fibrillation"), duration=1.0, random_state=0)
        embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=8, depth=1), Mine(), max_epochs=1)
        label_efficiency_curve({"probe": make_pipeline(embedder, LogisticRegression())}, X, y, groups=groups,
                               label_fractions=(1.0,), cv=2, n_repeats=1, n_jobs=2, verbose=0, cache_dir=sys.argv[1],
                               random_state=0)
""")


def test_an_objective_of_the_script_itself_is_cached_by_several_processes(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(OWN_OBJECTIVE)
    written = []
    for _ in range(2):  # the second time from the cache
        subprocess.run([sys.executable, script, tmp_path / "cache"], check=True)
        written.append({file: file.stat().st_mtime_ns for file in (tmp_path / "cache" / "pretrained").iterdir()})
    assert len(written[0]) == 2 and written[0] == written[1]


def test_two_processes_give_what_one_gives_and_share_the_threads(features):
    class Threads(DummyClassifier):
        def predict_proba(self, X):
            scores = super().predict_proba(X)
            scores[0, :2] = torch.get_num_threads(), os.getpid()
            return scores

    arms = {"lda": LinearDiscriminantAnalysis(), "threads": Threads()}
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = study(arms, features, n_jobs=2)
    finally:
        torch.set_num_threads(n_threads)
    one = study(arms, features)
    np.testing.assert_array_equal([r.scores for r in one.select(arm="lda")], [r.scores for r in two.select(arm="lda")])
    told = [run.scores[0, :2] for run in two.select(arm="threads")]
    assert {threads for threads, _ in told} == {1}
    assert os.getpid() not in {pid for _, pid in told}


def test_networks_in_two_processes(data):
    arms = {"fine-tuned": ECGClassifier(small(), max_epochs=1), "probe": make_pipeline(small(), LogisticRegression())}
    one, two = study(arms, data, n_repeats=1), study(arms, data, n_repeats=1, n_jobs=2)
    np.testing.assert_allclose([r.scores for r in one.runs], [r.scores for r in two.runs], atol=1e-5)


def test_an_arm_that_fails_is_named_and_the_rest_is_kept(features, tmp_path):
    with pytest.raises(RuntimeError, match=r"Arm 'bad' failed at label fraction 1, split 0, repeat 0 .*ZeroDivisionError"):
        study({"good": Spy(), "bad": Fails()}, features, cache_dir=tmp_path)
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("arms, message", [
    ({}, "expected a dict of name to estimator"),
    ({1: Spy()}, "expected a str"),
    ({"a": Spy}, "not an estimator"),
    ({"a": StandardScaler()}, "predicts nothing"),
    ({"a": GridSearchCV(ECGClassifier(small()), {"embedder__batch_size": [8, 16]})}, "pretrained and frozen"),
    ({"a": GridSearchCV(ECGClassifier(small()), {"embedder": [small(), small(batch_size=8)]})}, "arm of its own"),
    ({"a": make_pipeline(small(), FunctionTransformer(), small(), LogisticRegression())}, "several steps"),
])
def test_arms_that_cannot_be_compared(data, arms, message):
    with pytest.raises(ValueError, match=message):
        study(arms, data)


def test_patients_on_both_sides_are_refused(data):
    with pytest.raises(ValueError, match=r"Split 0 has .* patient"):
        study({"a": Spy()}, data, cv=[(np.arange(47), np.array([46, 47]))])


def test_unknown_metrics(features):
    with pytest.raises(ValueError, match="expected one of"):
        study({"a": Spy()}, features, scoring="auroc")
    with pytest.raises(ValueError, match="name of a metric or a function"):
        study({"a": Spy()}, features, scoring={"x": 3})


def test_functions_as_metrics(features):
    def own(y_true, y_score):
        return macro_roc_auc(y_true, y_score, labels=["a", "b", "c"])

    curve = study({"lda": LinearDiscriminantAnalysis()}, features, scoring={"own": own, "roc_auc": "roc_auc"})
    values = {name: [row["value"] for row in curve.table if row["metric"] == name] for name in ("own", "roc_auc")}
    assert values["own"] == values["roc_auc"]


def test_saving_and_loading(features, tmp_path):
    arms = {"lda": LinearDiscriminantAnalysis(), "search": GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)}
    curve = study(arms, features, scoring=["roc_auc", "accuracy"])
    curve.save(tmp_path / "curve.npz")
    loaded = LabelEfficiencyCurve.load(tmp_path / "curve.npz")
    assert loaded.table == curve.table and loaded.arms == curve.arms and loaded.settings == curve.settings
    assert loaded.label_fractions == curve.label_fractions and loaded.pretraining == curve.pretraining
    for a, b in zip(chain(*loaded.budgets), chain(*curve.budgets), strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        assert a.class_counts == b.class_counts and a.absent == b.absent
    curve.to_json(tmp_path / "curve.json")
    document = json.loads((tmp_path / "curve.json").read_text())
    assert len(document["runs"]) == len(curve.table) == len(curve.to_frame())
    assert document["runs"][0]["value"] == curve.table[0]["value"]
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("nothing")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="is not what LabelEfficiencyCurve"):
            LabelEfficiencyCurve.load(tmp_path / name)
    own = study({"a": Spy()}, features, scoring={"f": lambda y, s: 0.5})
    own.save(tmp_path / "own.npz")
    with pytest.raises(ValueError, match="functions as metrics"):
        LabelEfficiencyCurve.load(tmp_path / "own.npz")
    assert LabelEfficiencyCurve.load(tmp_path / "own.npz", metrics={"f": lambda y, s: 0.25}).table[0]["value"] == 0.25


def test_select(features):
    curve = study({"a": Spy(), "b": Spy()}, features)
    assert {run.arm for run in curve.select(arm="b")} == {"b"} and len(curve.select(fraction=1.0, split=0)) == 4
    with pytest.raises(ValueError, match="no arm 'c'"):
        curve.select(arm="c")
    with pytest.raises(ValueError, match="no metric"):
        curve.evaluate(curve.runs[0], "x")


def test_what_is_pretrained_inside_an_arm(data):
    X = data[0]
    scaler, embedder = LeadScaler(), small(random_state=0)
    union = FeatureUnion([("one", embedder), ("two", small(batch_size=8, random_state=0))])
    arms = [
        make_pipeline(scaler, embedder, LogisticRegression()),
        make_pipeline(scaler, union, LogisticRegression()),
        make_pipeline(FunctionTransformer(), make_pipeline(scaler, "passthrough", embedder), LogisticRegression()),
        ECGClassifier(), ECGClassifier(embedder), OneVsRestClassifier(make_pipeline(embedder, LogisticRegression())),
    ]
    found = [find_pretraining(arm) for arm in arms]
    assert [[len(p.steps) for p in of_arm] for of_arm in found] == [[1], [1, 1], [2], [0], [0], [0]]
    assert found[0][0].key == found[1][0].key != found[1][1].key
    assert found[4][0].key == found[5][0].key != found[0][0].key
    assert find_pretraining(ECGClassifier(small(max_epochs=0))) == []
    assert find_pretraining(ECGClassifier(FrozenEstimator(embedder))) == []
    pretrained = {p.key: p.fit(X, None, 0) for of_arm in found[:3] for p in of_arm}
    for arm in arms[:3]:
        before = joblib.hash(clone(arm))
        frozen = freeze(arm, pretrained)
        assert joblib.hash(clone(arm)) == before  # what was given is not changed
        assert find_pretraining(frozen) == []
        frozen.fit(X[:12], data[1][:12])
        direct = clone(arm)
        direct[:-1].fit(X)
        np.testing.assert_allclose(frozen[:-1].transform(X), direct[:-1].transform(X), atol=1e-6)


def test_equal_pretraining_may_be_used_differently(data):
    """One pretraining serves arms that take vectors and arms that take tokens."""
    one, other = Pretraining((), small()), Pretraining((), small(output="tokens", verbose=1))
    assert one.key == other.key
    pretrained = {one.key: one.fit(data[0], None, 0)}
    assert freeze(small(output="tokens"), pretrained).estimator.output == "tokens"
    assert freeze(small(), pretrained).estimator.output == "embedding"


def test_a_step_that_needs_labels_before_the_embedder_is_refused(data):
    class NeedsLabels(TransformerMixin, BaseEstimator):
        def fit(self, X, y):
            return self

        def transform(self, X):
            return X

    with pytest.raises(ValueError, match="belongs after the embedder"):
        study({"a": make_pipeline(NeedsLabels(), small(), LogisticRegression())}, data)


def test_pretrained_elsewhere_is_marked(data):
    outside = FrozenEstimator(small().fit(data[0]))
    curve = study({"probe": make_pipeline(outside, LogisticRegression())}, data)
    assert curve.pretraining == [{"split": None, "arms": ["probe"], "outside": True}]
    display = LabelEfficiencyDisplay(curve).plot(n_resamples=20)
    assert "pretrained outside the study: probe" in " ".join(text.get_text() for text in display.ax_.texts)


def test_the_plot_shows_what_the_summary_says(features):
    import matplotlib.pyplot as plt

    from skecg.evaluation._statistics import summary

    curve = study({"lda": LinearDiscriminantAnalysis(), "spy": Spy()}, features, label_fractions=(0.1, 0.3, 1.0))
    display = LabelEfficiencyDisplay(curve).plot(saving=("lda", "spy"), n_resamples=50)
    for arm in curve.arms:
        values = [row["value"] for row in summary(curve, n_resamples=50) if row["arm"] == arm]
        np.testing.assert_allclose(display.lines_[arm].get_ydata(), values)
    assert display.figure_ is display.ax_.figure and "lda" in display.ax_.get_title()
    only = LabelEfficiencyDisplay(curve).plot(arms=["spy"], n_resamples=50)
    assert list(only.lines_) == [text.get_text() for text in only.ax_.get_legend().get_texts()] == ["spy"]
    for options, message in (({"arms": ["svm"]}, "no arm 'svm'"), ({"arms": ["spy"], "saving": ("lda", "spy")}, "be drawn")):
        with pytest.raises(ValueError, match=message):
            LabelEfficiencyDisplay(curve).plot(n_resamples=50, **options)
    plt.close("all")


def test_the_names_of_many_arms_hide_no_curve(features):
    import matplotlib.pyplot as plt

    curve = study({f"arm {i}": LinearDiscriminantAnalysis() for i in range(11)}, features, n_repeats=1)
    display = LabelEfficiencyDisplay(curve).plot(n_resamples=20)
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.x0 >= display.ax_.get_window_extent().x1 and legend.x1 <= display.figure_.bbox.x1
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in display.lines_.values()}
    assert len(looks) == 11
    plt.close("all")


def test_arms_on_whole_records(tmp_path):
    data = make_ecg_records(24, n_patients=12, classes=["normal", "left bundle branch block"], duration=5.0, random_state=0)
    window = make_pipeline(LeadScaler(), small(Recording, random_state=0), LogisticRegression())
    arms = {"mean": RecordClassifier(window, length=2.0), "max": RecordClassifier(window, length=2.0, how="max")}
    curve = study(arms, (data.records, data.target, data.patient_id), n_repeats=1)
    assert len(Recording.fits) == len(curve.pretraining) == 2  # how windows are combined does not change pretraining
    for (signals, y, patients), (train, _) in zip(Recording.fits, curve.splits, strict=True):
        assert y is None and signals.shape == (2 * len(train), 12, 200) and len(patients) == 2 * len(train)
        assert set(patients) == set(data.patient_id[train].astype(str))
    assert [run.scores.shape for run in curve.runs] == [(len(curve.splits[run.split][1]), 2) for run in curve.runs]
    paths = write_records(tmp_path, data)
    from_disk = study(arms, (read_records(paths), data.target, data.patient_id), n_repeats=1)
    np.testing.assert_allclose([r.scores for r in from_disk.runs], [r.scores for r in curve.runs], atol=0.05)
