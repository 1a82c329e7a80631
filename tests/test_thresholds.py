"""Thresholds per label: against search by force, on data apart, for records, inside everything else."""

import pickle
from dataclasses import replace
from itertools import pairwise
from unittest import SkipTest

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneGroupOut, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks as checks

import skecg
from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, MultilabelThresholdClassifier, RecordClassifier
from skecg._thresholds import _candidates, _fingerprint, tune_thresholds
from skecg.datasets import make_ecg_records, read_records, write_records
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.evaluation import label_efficiency_curve
from skecg.metrics import cinc_classes, cinc_score, get_scorer, macro_f1
from skecg.metrics._common import once
from skecg.metrics._decisions import mean_f1, share_correct
from skecg.preprocessing import LeadScaler

RNG = np.random.default_rng(0)
PATIENTS = np.arange(600) // 2
Y = (RNG.random((600, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(int)
X = Y + RNG.normal(size=Y.shape)
LINEAR = OneVsRestClassifier(LogisticRegression())


class Spy(ClassifierMixin, BaseEstimator):
    """Its probabilities are X; notes which rows (first column) each fit and each prediction saw."""

    log = []

    def fit(self, X, y, groups=None):
        self.classes_ = np.arange(y.shape[1])
        self.log.append(("fit", X[:, 0].astype(int), groups))
        return self

    def predict_proba(self, X):
        self.log.append(("predict", X[:, 0].astype(int), None))
        return X[:, 1:]


# --- what is tuned


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 25), levels=st.sampled_from([3, 1000]))
def test_f1_is_the_best_of_all_thresholds(seed, n, levels):
    """Of every label, over all thresholds there are."""
    rng = np.random.default_rng(seed)
    true, scores = rng.random((n, 3)) < 0.4, rng.integers(0, levels + 1, (n, 3)) / levels
    thresholds, common = tune_thresholds(
        true, scores, mean_f1, one_by_one=True, n_candidates=1000, min_positives=1)
    for k in range(3):
        if not 0 < true[:, k].sum() < n:
            assert thresholds[k] == common
            continue
        every = [-1, *np.unique(scores[:, k])]  # flags everything, ..., nothing
        best = max(f1_score(true[:, k], scores[:, k] > t, zero_division=0) for t in [*every, common])
        everything = f1_score(true[:, k], np.ones(n))
        reached = f1_score(true[:, k], scores[:, k] > thresholds[k], zero_division=0)
        assert reached == pytest.approx(best) or best == pytest.approx(everything)  # which is no candidate
        assert abs(scores[:, k] - thresholds[k]).min() > 0 or thresholds[k] == common == 0.5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_single_threshold_improves_a_joint_metric(seed):
    rng = np.random.default_rng(seed)
    true = rng.random((30, 4)) < 0.4
    scores = np.clip(0.3 * true + 0.7 * rng.random((30, 4)), 0, 1)

    def value(true, decided):
        return once(share_correct, true, decided)

    thresholds, common = tune_thresholds(true, scores, share_correct, one_by_one=False, n_candidates=1000, min_positives=1)
    reached = value(true, scores > thresholds)
    assert reached >= value(true, scores > common) >= value(true, scores > 0.5)
    for k in range(4):
        for t in _candidates(scores[:, k], true[:, k], 1000):
            other = thresholds.copy()
            other[k] = t
            assert value(true, scores > other) <= reached + 1e-12


def test_candidates_lie_between_scores():
    scores, true = RNG.random(5000), RNG.random(5000) < 0.01
    for n in (1, 2, 7, 50):
        found = _candidates(scores, true, n)
        assert 1 <= len(found) <= n + 1 and (np.diff(found) > 0).all()
    assert not np.isin(found, scores).any()
    flagged = [(scores[true] > t).sum() for t in found]
    assert max(-np.diff(flagged)) <= 4  # of 50 or so: rare labels have a fine grid where their samples are
    few = _candidates(np.array([0.1, 0.1, 0.4, 0.8]), np.array([True, False, True, False]), 50)
    assert_allclose(few, [0.25, 0.6])
    assert len(_candidates(np.full(5, 0.3), np.zeros(5, bool), 50)) == 0


def test_ties_go_to_the_common_threshold_and_rare_labels_have_it():
    true = np.zeros((100, 3), dtype=bool)
    true[:50, 0] = true[:3, 1] = true[:50, 2] = True
    scores = np.where(true, 0.9, 0.1)
    scores[:3, 1] = 0.2
    value = {"one_by_one": True, "n_candidates": 50}
    thresholds, common = tune_thresholds(true, scores, mean_f1, min_positives=5, **value)
    assert common == pytest.approx(0.15)  # one for all three
    assert_array_equal(thresholds, common)
    thresholds, common = tune_thresholds(true[:, :2], scores[:, :2] * 0.5, mean_f1,
                                         min_positives=3, **value)
    assert thresholds[1] < 0.1 and common == pytest.approx(0.075)
    thresholds, common = tune_thresholds(true, scores, mean_f1, min_positives=51, **value)
    assert common == 0.5 and (thresholds == 0.5).all()


def test_the_score_of_the_challenge():
    """The score wants other thresholds than F1, and gets them."""
    rng = np.random.default_rng(1)
    y = (rng.random((800, 26)) < rng.uniform(0.02, 0.3, 26)).astype(int)
    Z = y + rng.normal(size=y.shape)
    model = LINEAR.fit(Z[:300], y[:300])
    test, scores = y[500:], {}
    for metric in ("f1", "cinc_2021", lambda true, predicted: cinc_score(true, predicted)):
        tuned = MultilabelThresholdClassifier(FrozenEstimator(model), metric=metric).fit(Z[300:500], y[300:500])
        predicted = tuned.predict(Z[500:])
        scores[metric if isinstance(metric, str) else "function"] = cinc_score(test, predicted)
        if metric == "cinc_2021":
            named = tuned.thresholds_
            assert tuned.validation_score_ == pytest.approx(cinc_score(y[300:500], tuned.predict(Z[300:500])))
    assert_array_equal(tuned.thresholds_, named)
    assert scores["function"] == scores["cinc_2021"] > max(scores["f1"], cinc_score(test, model.predict(Z[500:])))


# --- where the data comes from


@pytest.mark.parametrize(("cv", "groups"), [
    (GroupKFold(5), PATIENTS),
    *((cv, groups) for cv in (None, 3, 0.25, "list", "X_val", "frozen") for groups in (PATIENTS, None)),
])
def test_thresholds_see_nobody_that_trained(cv, groups):
    Spy.log = []
    Z = np.column_stack([np.arange(600), RNG.random((600, 4))])
    own, estimator, arguments = cv, Spy(), {}
    if cv == "list":
        own = [(np.arange(400), np.arange(400, 600))]
    if cv == "X_val":
        own, arguments = None, {"X_val": Z[400:], "y_val": Y[400:]}
    if cv == "frozen":
        own, estimator = None, FrozenEstimator(Spy().fit(Z, Y))
        Spy.log.clear()
    rows = 400 if cv == "X_val" else 600
    own_groups = None if groups is None else groups[:rows]
    tuned = MultilabelThresholdClassifier(estimator, cv=own, random_state=0)
    tuned.fit(Z[:rows], Y[:rows], groups=own_groups, **arguments)
    fits = [entry for entry in Spy.log if entry[0] == "fit"]
    assert len(fits) == {None: 6, 3: 4, 0.25: 1, "list": 2, "X_val": 1, "frozen": 0}.get(cv, 6)
    validated = [entry[1] for entry in Spy.log if entry[0] == "predict"]
    assert_array_equal(tuned.n_positives_, Y[np.concatenate(validated)].sum(axis=0))
    for (kind, train, told), (after, valid, _) in pairwise(Spy.log):
        if kind == "fit" and groups is not None:
            assert_array_equal(told, groups[train])
        if (kind, after) == ("fit", "predict"):
            units = np.arange(600) if groups is None else groups
            assert not np.intersect1d(units[train], units[valid]).size
    if cv in (None, 3):
        assert_array_equal(np.sort(np.concatenate(validated)), np.arange(600))
        assert len(Spy.log[-1][1]) == 600 and Spy.log[-1][0] == "fit"
    if cv == 0.25:
        assert len(validated[0]) == pytest.approx(150, abs=4)
    again = clone(tuned).fit(Z[:rows], Y[:rows], groups=own_groups, **arguments)
    assert_array_equal(again.thresholds_, tuned.thresholds_)


def test_tuning_records_are_compared_without_reading(tmp_path):
    data = make_ecg_records(12, classes=["normal", "left bundle branch block"], duration=2.0, random_state=0)
    y = np.stack([data.target == name for name in np.unique(data.target)], axis=1).astype(int)
    tuned = MultilabelThresholdClassifier(RecordClassifier(make_pipeline(_Flat(), LINEAR)), min_positives=1)
    paths = write_records(tmp_path, data)
    for forms in (data.records, paths, list(map(str, paths)), np.array(list(map(str, paths))), read_records(paths)):
        assert tuned.fit(forms[:8], y[:8], X_val=forms[8:], y_val=y[8:]).n_positives_.sum() == 4
        with pytest.raises(ValueError, match=r"1 sample\(s\) of X_val, such as number 0, are in X as well"):
            tuned.fit(forms[:9], y[:9], X_val=forms[8:], y_val=y[8:])
    missing = [RNG.normal(size=(2, 8)).astype(np.float32) for _ in range(2)]
    missing[0][0] = np.nan  # a lead that is not there
    assert _fingerprint(missing[0]) == _fingerprint(missing[0].astype(float)) != _fingerprint(missing[1])


@pytest.mark.parametrize(("routing", "here", "inside"), [
    (False, False, True), (False, True, True), (True, False, True), (True, True, False), (True, True, True),
])
def test_groups_in_cross_validation(routing, here, inside):
    """They keep patients apart where they arrive: by params, or with routing by requests, here and inside."""
    Z = np.column_stack([np.arange(600), RNG.random((600, 4))])
    given = {"params": {"groups": PATIENTS}} if here or routing else {}
    given |= {} if routing else {"groups": PATIENTS}  # for the splitter
    Spy.log = []
    with sklearn.config_context(enable_metadata_routing=routing):
        tuned = MultilabelThresholdClassifier(Spy().set_fit_request(groups=inside) if routing else Spy(), cv=0.3)
        if routing:
            tuned.set_fit_request(groups=here)
        cross_validate(tuned, Z, Y, cv=GroupKFold(2), scoring=get_scorer("f1"), **given)
    assert [kind for kind, _, _ in Spy.log] == ["fit", "predict", "predict"] * 2  # the thresholds, the score
    for (_, train, told), (_, tuning, _) in zip(Spy.log[::3], Spy.log[1::3], strict=True):
        assert bool(np.intersect1d(PATIENTS[train], PATIENTS[tuning]).size) == (not here)
        assert (told is not None) == (here and inside)


def test_probabilities_and_decisions():
    tuned = MultilabelThresholdClassifier(LINEAR, random_state=0).fit(X, Y, groups=PATIENTS)
    plain = clone(LINEAR).fit(X, Y)
    assert_array_equal(tuned.predict_proba(X), plain.predict_proba(X))
    assert_array_equal(tuned.predict(X), plain.predict_proba(X) > tuned.thresholds_)
    assert (tuned.thresholds_[1:] < 0.45).all()
    assert tuned.n_features_in_ == 4 and tuned.thresholds_.dtype == float
    assert macro_f1(Y, tuned.predict(X)) > macro_f1(Y, plain.predict(X)) + 0.05
    signals = np.repeat(X[:, None], 2, axis=1)  # three dimensions
    flat = MultilabelThresholdClassifier(make_pipeline(_Flat(), LINEAR), random_state=0).fit(signals, Y, groups=PATIENTS)
    assert_allclose(flat.thresholds_, tuned.thresholds_, atol=0.02)
    forest = MultilabelThresholdClassifier(RandomForestClassifier(20, random_state=0), cv=3, random_state=0).fit(X, Y)
    assert isinstance(forest.predict_proba(X), list) and forest.predict(X).shape == Y.shape  # of multi-output classifiers


def test_two_classes():
    y = np.where(Y[:, 2] == 1, "sick", "healthy")
    tuned = MultilabelThresholdClassifier(LogisticRegression(), metric="balanced_accuracy", random_state=0).fit(X, y)
    assert tuned.thresholds_.shape == (1,) and tuned.thresholds_[0] < 0.3
    assert list(tuned.classes_) == ["healthy", "sick"]
    assert_array_equal(tuned.predict(X) == "sick", tuned.predict_proba(X)[:, 1] > tuned.thresholds_[0])
    named = []
    own = MultilabelThresholdClassifier(
        LogisticRegression(), metric=lambda a, b: named.append((a[0], b[0])) or (a == b).mean(), random_state=0)
    own.fit(X, y)
    assert set(np.ravel(named)) <= {"healthy", "sick"}
    kappa = MultilabelThresholdClassifier(LogisticRegression(), metric="kappa", random_state=0).fit(X, y)
    assert kappa.validation_score_ > 0


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored by KFold")
@pytest.mark.parametrize(("estimator", "arguments", "message"), [
    (LINEAR, {"y": np.arange(600) % 3}, "Only binary classification is supported. The type of the target is multiclass"),
    (LINEAR, {"y": np.zeros(600)}, "y holds one class"),
    (LINEAR, {"y": None}, "requires y to be passed"),
    (OneVsRestClassifier(RidgeClassifier()), {}, "has no predict_proba, and thresholds are of probabilities"),
    (LINEAR, {"metric": "roc_auc"}, "'roc_auc' is a metric of scores, which no threshold changes; expected one of f1"),
    (LINEAR, {"metric": "auc"}, "'auc' is no metric of skecg"),
    (LINEAR, {"metric": "cinc_2021"}, r"y_true has shape \(600, 4\); .* each of the 26 classes"),
    (LINEAR, {"metric": "kappa"}, "take one label for each sample"),
    (LINEAR, {"X_val": X}, "X_val and y_val belong together"),
    (LINEAR, {"X_val": X, "y_val": Y[:, :2]}, "expected the same classes or number of labels"),
    (LINEAR, {"X_val": X, "y_val": Y[:, 0]}, "expected the same classes or number of labels"),
    (LINEAR, {"X_val": X, "y_val": Y[:5]}, "inconsistent numbers of samples"),
    (LINEAR, {"groups": np.zeros(600)}, "1 patient .* nobody is left"),
    (LINEAR, {"groups": PATIENTS // 100, "cv": 5}, r"n_splits=5 is more than the 3 patient\(s\)"),
    (LINEAR, {"cv": 1.5}, "The 'cv' parameter of MultilabelThresholdClassifier must be"),
    (Ridge(), {}, r"Ridge\(\) has no predict_proba, .* It is a regressor; take a classifier\.$"),
    (LINEAR, {"cv": [(np.arange(600), np.arange(600))]}, r"Split 0 of cv has 600 sample\(s\) on both sides, such as "),
    (LINEAR, {"cv": [(np.arange(300), np.arange(300, 600)), (np.arange(400), np.arange(399, 600))]},
     r"Split 1 of cv has 1 sample\(s\) on both sides, such as 399:"),
    (LINEAR, {"cv": [(np.arange(600) < 301, np.arange(600) >= 300)]}, r"Split 0 of cv has 1 sample\(s\) on both sides"),
    (LINEAR, {"cv": [(np.arange(301), np.arange(301, 600))], "groups": PATIENTS}, r"1 patient\(s\) .* such as 150:"),
    (LINEAR, {"cv": KFold(2, shuffle=True, random_state=0), "groups": PATIENTS}, r"patient\(s\) on both sides"),
    (LINEAR, {"X_val": X, "y_val": Y}, r"600 sample\(s\) of X_val, such as number 0, are in X as well"),
    (LINEAR, {"X_val": np.vstack([X[:20] + 9, X[5:7]]), "y_val": Y[:22]}, r"2 sample\(s\) of X_val, such as number 20, are"),
    (LINEAR, {"X_val": X[5:7].tolist(), "y_val": Y[5:7]}, r"2 sample\(s\) of X_val"),
])
def test_what_is_refused(estimator, arguments, message):
    parameters = {name: arguments[name] for name in ("metric", "cv") if name in arguments}
    arguments = {name: value for name, value in arguments.items() if name not in parameters}
    with pytest.raises(ValueError, match=message):
        MultilabelThresholdClassifier(estimator, **parameters).fit(X, **{"y": Y, **arguments})


# --- inside everything else

INNER = {"linear": LogisticRegression(), "labels": KNeighborsClassifier()}


@pytest.mark.parametrize("name", INNER)
def test_scikit_learns_checks(name):
    """All of them on tuned thresholds, but for the one that asks for 0.5 (passed in test_common.py)."""
    n_checks = 0
    for estimator, check in checks.estimator_checks_generator(MultilabelThresholdClassifier(INNER[name])):
        kind = getattr(check, "func", check).__name__
        if kind in ("check_classifiers_train", "check_classifiers_multilabel_output_format_decision_function"):
            continue  # the latter skips itself: there is no decision_function
        try:
            check(estimator)
        except SkipTest as skipped:
            pytest.fail(f"{kind} was skipped: {skipped}")
        n_checks += 1
    assert n_checks >= 50


def test_pickled_saved_searched(tmp_path):
    model = MultilabelThresholdClassifier(make_pipeline(StandardScaler(), LINEAR), cv=3, random_state=0)
    tuned = model.fit(X, Y, groups=PATIENTS)
    skecg.save(tuned, tmp_path / "model")
    for copied in (pickle.loads(pickle.dumps(tuned)), skecg.load(tmp_path / "model")):
        assert_array_equal(copied.predict(X), tuned.predict(X))
        assert_array_equal(copied.thresholds_, tuned.thresholds_)
        assert copied.get_params().keys() == tuned.get_params().keys()
    grid = {"metric": ["f1", "accuracy"], "estimator__onevsrestclassifier__estimator__C": [1e-4, 1.0]}
    search = GridSearchCV(model, grid, scoring=get_scorer("f1"), cv=GroupKFold(2)).fit(X, Y, groups=PATIENTS)
    assert search.best_params_["metric"] == "f1"
    result = cross_validate(model, X, Y, groups=PATIENTS // 75, cv=LeaveOneGroupOut(), scoring=get_scorer("f1"),
                            return_estimator=True)
    assert len({tuple(fitted.thresholds_) for fitted in result["estimator"]}) == 4


def test_label_efficiency():
    arms = {"0.5": LINEAR, "tuned": MultilabelThresholdClassifier(LINEAR, cv=3)}
    curve = label_efficiency_curve(arms, X, Y, groups=PATIENTS, label_fractions=(0.5, 1.0), cv=2, n_repeats=1,
                                   scoring=["f1", "roc_auc"], verbose=0, random_state=0)
    mean = {(arm, metric): np.mean([r["value"] for r in curve.table if (r["arm"], r["metric"]) == (arm, metric)])
            for arm in arms for metric in ("f1", "roc_auc")}
    assert mean["tuned", "f1"] > mean["0.5", "f1"] + 0.05
    assert mean["tuned", "roc_auc"] == pytest.approx(mean["0.5", "roc_auc"])


def test_pretraining_of_an_arm_is_shared():
    data = make_ecg_records(40, classes=["normal", "atrial fibrillation"], duration=2.0, random_state=0)
    signals = np.stack([record.signal for record in data.records])
    y = np.stack([data.target == name for name in np.unique(data.target)], axis=1).astype(int)
    embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=16, depth=1), max_epochs=1)
    probe = make_pipeline(embedder, StandardScaler(), LINEAR)
    curve = label_efficiency_curve(
        {"0.5": probe, "tuned": MultilabelThresholdClassifier(probe, cv=0.5, min_positives=2)}, signals, y,
        groups=data.patient_id, label_fractions=(1.0,), cv=2, n_repeats=1, scoring="f1", verbose=0, random_state=0)
    assert [entry["arms"] for entry in curve.pretraining] == [["0.5", "tuned"]] * 2


def test_records():
    """Thresholds are those of the records' combined probabilities; networks, held-out patients, saving."""
    data = make_ecg_records(24, classes=["normal", "atrial fibrillation"], duration=4.0, random_state=0)
    y = np.stack([data.target == "normal", data.target == "atrial fibrillation"], axis=1).astype(int)
    network = ECGClassifier(ECGSelfSupervisedEmbedder(ResNet1d(8, (1, 1)), max_epochs=0), max_epochs=3, random_state=0)
    inner = RecordClassifier(make_pipeline(LeadScaler(), network), length=2.0, how="max")
    tuned = MultilabelThresholdClassifier(inner, cv=0.4, min_positives=2, random_state=0)
    tuned.fit(data.records, y, groups=data.patient_id)
    proba = tuned.predict_proba(data.records)
    assert proba.shape == (24, 2)
    assert_array_equal(tuned.predict(data.records), proba > tuned.thresholds_)
    assert_array_equal(proba, tuned.estimator_.predict_records(data.records).scores)
    assert tuned.n_positives_.sum() == pytest.approx(0.4 * 24, abs=2)
    frozen = MultilabelThresholdClassifier(FrozenEstimator(tuned.estimator_), min_positives=2)
    assert_array_equal(frozen.fit(data.records, y).predict_proba(data.records), proba)


@pytest.mark.parametrize("two_classes", [False, True])
def test_predictions_of_records(two_classes):
    data = make_ecg_records(20, classes=["normal", "left bundle branch block"], duration=4.0, random_state=0)
    y = np.stack([data.target == name for name in np.unique(data.target)], axis=1).astype(int)
    inner, y = (LINEAR, y) if not two_classes else (LogisticRegression(), data.target)
    records = RecordClassifier(make_pipeline(_Flat(), inner), length=2.0)
    tuned = MultilabelThresholdClassifier(records, cv=2, min_positives=1, random_state=0)
    tuned.fit(data.records, y, groups=data.patient_id)
    probabilities = tuned.predict_proba(data.records)[:, -len(tuned.thresholds_):]
    tuned.thresholds_ = np.quantile(probabilities, 0.9, axis=0)  # other decisions than those at 0.5
    short = replace(data.records[0], signal=data.records[0].signal[:, :50])
    found = tuned.predict_records([*data.records, short], groups=[*data.patient_id, "somebody"])
    plain = tuned.estimator_.predict_records([*data.records, short])
    assert_array_equal(found.labels[:-1], tuned.predict(data.records))
    assert not np.array_equal(found.labels[:-1], plain.labels[:-1])
    assert np.all(found.labels[-1] == None)  # noqa: E711
    assert list(found.n_windows) == [2] * 20 + [0] and found.groups[-1] == "somebody"
    for name in ("names", "scores", "spread", "n_windows", "classes"):
        assert_array_equal(getattr(found, name), getattr(plain, name))
    assert tuned.predict_records(data.records).labels.dtype == tuned.predict(data.records).dtype
    frozen = MultilabelThresholdClassifier(FrozenEstimator(tuned.estimator_)).fit(data.records, y)
    assert_array_equal(frozen.predict_records(data.records).scores, found.scores[:-1])
    assert not hasattr(MultilabelThresholdClassifier(LINEAR), "predict_records")


def test_saved_records(tmp_path):
    data = make_ecg_records(20, classes=["normal", "left bundle branch block"], duration=2.0, random_state=0)
    y = np.stack([data.target == name for name in np.unique(data.target)], axis=1).astype(int)
    inner = RecordClassifier(make_pipeline(_Flat(), LINEAR))
    tuned = MultilabelThresholdClassifier(inner, cv=2, random_state=0).fit(data.records, y, groups=data.patient_id)
    skecg.save(tuned, tmp_path / "model", trusted=[_Flat])
    loaded = skecg.load(tmp_path / "model", trusted=[_Flat])
    assert_array_equal(loaded.predict(data.records), tuned.predict(data.records))


class _Flat(BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.reshape(len(X), -1)

    def __sklearn_is_fitted__(self):
        return True


def test_classes_of_the_challenge_that_nobody_has():
    """Constant columns, as in every part of real data: no threshold, no failure."""
    y = np.zeros((600, 26), dtype=int)
    columns = [cinc_classes(2021).column(name) for name in ("NSR", "AF", "RBBB", "LBBB")]
    y[:, columns] = Y
    tuned = MultilabelThresholdClassifier(KNeighborsClassifier(15), metric="cinc_2021", cv=3, random_state=0).fit(X, y)
    unknown = np.setdiff1d(np.arange(26), columns)
    assert_array_equal(tuned.thresholds_[unknown], tuned.common_threshold_)
    assert not tuned.predict(X)[:, unknown].any()
    plain = KNeighborsClassifier(15).fit(X[:300], y[:300]).predict(X[300:])
    assert tuned.validation_score_ > cinc_score(y[300:], plain)
