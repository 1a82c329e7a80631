"""Scorers in scikit-learn's cross-validation and searches, where classes are missing."""

import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from skecg.metrics import accuracy, class_scores, get_scorer, macro_f1, macro_roc_auc
from skecg.metrics._table import METRICS as EVERY

METRICS = {  # those of any classes
    name: metric for name, metric in EVERY.items() if metric.response != "values" and not name.startswith("cinc")
}
CLASSES = np.array(["a", "b", "c"])
rng = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(12), 6)
Y = rng.choice(CLASSES[:2], 72)
Y[:4] = "c"  # one patient alone has it
X = rng.normal(size=(72, 3)) + 2 * (Y[:, None] == CLASSES)
LABELS = (rng.random((72, 3)) < 0.4).astype(int)
LABELS[:, 2] = np.arange(72) < 4  # absent from all patients but one
X_LABELS = rng.normal(size=(72, 3)) + 2 * LABELS
FOLDS = GroupKFold(4)
MULTILABEL = {
    "forest": RandomForestClassifier(5, random_state=0), "neighbours": KNeighborsClassifier(),
    "one against the rest": OneVsRestClassifier(GaussianNB()), "outputs": MultiOutputClassifier(GaussianNB()),
    "ridge": RidgeClassifier(), "svc": OneVsRestClassifier(LinearSVC()), "dummy": DummyClassifier(),
    "pipeline": make_pipeline(StandardScaler(), KNeighborsClassifier(3)),
}


@pytest.mark.parametrize("model", [
    LogisticRegression(), LinearSVC(), RidgeClassifier(), SVC(), GaussianNB(), GridSearchCV(SVC(), {"C": [1.0]}, cv=3),
])
def test_class_scores_of_classes_never_seen(model):
    for known in (Y != "", Y != "c", Y != "b"):
        model = clone(model).fit(X[known], Y[known])
        scores = class_scores(model, X, ["d", "c", "b", "a"])
        probabilities = hasattr(model, "predict_proba")
        assert scores.shape == (72, 4) and scores.dtype == float
        assert_array_equal(np.array(["d", "c", "b", "a"])[scores.argmax(axis=1)], model.predict(X))
        unseen = ~np.isin(["d", "c", "b", "a"], model.classes_)
        assert (scores[:, unseen] == (0.0 if probabilities else -np.inf)).all()
        assert np.isfinite(scores[:, ~unseen]).all()
    with pytest.raises(ValueError, match="fitted on classes that classes lacks: c"):
        class_scores(model, X, ["a", "b"])


def test_class_scores_of_one_class():
    model = GaussianNB().fit(X[Y == "a"], Y[Y == "a"])
    assert_array_equal(class_scores(model, X, CLASSES), np.tile([1.0, 0.0, 0.0], (72, 1)))


@pytest.mark.filterwarnings("ignore:Label .* is present in all:UserWarning")
@pytest.mark.parametrize("name", MULTILABEL)
def test_class_scores_of_labels(name):
    model = clone(MULTILABEL[name]).fit(X_LABELS, LABELS)
    scores, positive = class_scores(model, X_LABELS), np.asarray(model.predict(X_LABELS)) == 1
    assert scores.shape == (72, 3)
    for j in range(3):  # what is predicted to be there never scores below what is not
        if positive[:, j].any() and not positive[:, j].all():
            assert scores[positive[:, j], j].min() >= scores[~positive[:, j], j].max()
    constant = np.tile([1, 0, 0], (72, 1))
    constant[:, 2] = LABELS[:, 0]
    if name not in ("svc", "outputs"):
        scores = class_scores(clone(MULTILABEL[name]).fit(X_LABELS, constant), X_LABELS)
        assert (scores[:, 0] > scores[:, 1]).all()


def test_class_scores_refuses_what_has_none():
    class Decides(ClassifierMixin, BaseEstimator):
        def predict(self, X):
            return np.full(len(X), "a")

    class Nameless(Decides):
        def predict_proba(self, X):
            return np.ones((len(X), 1))

    with pytest.raises(ValueError, match="Decides has neither predict_proba nor decision_function"):
        class_scores(Decides(), X, CLASSES)
    with pytest.raises(ValueError, match="Nameless has no classes_"):
        class_scores(Nameless(), X, CLASSES)
    assert get_scorer("accuracy")(Decides(), X, Y) == np.mean(Y == "a")
    more = np.where(np.arange(72) % 9, Y, "d")
    with pytest.raises(ValueError, match=r"scores of shape \(72, 6\) for 4 classes"):
        class_scores(SVC(decision_function_shape="ovo").fit(X, more), X, [*CLASSES, "d"])


def test_the_trap_in_scikit_learn():
    """With a label that the training part lacks, its own scorer takes the probability of absence for that of presence."""
    labels = np.where(np.arange(72)[:, None] < 36, LABELS * [1, 1, 0], LABELS)
    model = KNeighborsClassifier().fit(X_LABELS[:36], labels[:36])
    assert_array_equal(model.predict_proba(X_LABELS)[2], np.ones((72, 1)))
    assert_array_equal(class_scores(model, X_LABELS)[:, 2], np.zeros(72))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("model", [GaussianNB(), LinearSVC(), make_pipeline(StandardScaler(), KNeighborsClassifier())],
                         ids=["probabilities", "decisions", "pipeline"])
def test_cross_validate_with_missing_classes(model, name):
    result = cross_validate(model, X, Y, groups=GROUPS, cv=FOLDS, scoring=get_scorer(name), error_score="raise",
                            return_estimator=True, return_indices=True)
    for value, fitted, test in zip(result["test_score"], result["estimator"], result["indices"]["test"], strict=True):
        metric, y = METRICS[name], Y[test]
        if metric.response == "labels":
            expected = metric.function(y, fitted.predict(X[test]))
        else:
            expected = metric.function(y, class_scores(fitted, X[test], CLASSES), labels=CLASSES)
        assert value == expected and np.isfinite(value)
    assert min(len(fitted.classes_) for fitted in result["estimator"]) == 2  # the case was there


@pytest.mark.filterwarnings("ignore:Label .* is present in all:UserWarning")
@pytest.mark.parametrize("name", MULTILABEL)
def test_cross_validate_of_labels_with_missing_classes(name):
    scoring = {metric: get_scorer(metric) for metric in METRICS if metric not in ("kappa", "balanced_accuracy")}
    if name == "svc":  # refuses a label of one value
        scoring = {"f1": get_scorer("f1")}
    result = cross_validate(MULTILABEL[name], X_LABELS, LABELS, groups=GROUPS, cv=FOLDS, scoring=scoring,
                            error_score="raise", return_estimator=True, return_indices=True)
    for i, (fitted, test) in enumerate(zip(result["estimator"], result["indices"]["test"], strict=True)):
        assert all(np.isfinite(result[f"test_{metric}"][i]) for metric in scoring)
        assert result["test_f1"][i] == macro_f1(LABELS[test], fitted.predict(X_LABELS[test]))
        if "roc_auc" in scoring:
            scores = class_scores(fitted, X_LABELS[test])
            there = [j for j in range(3) if LABELS[test, j].any()]
            expected = np.mean([roc_auc_score(LABELS[test, j], scores[:, j]) for j in there])
            assert result["test_roc_auc"][i] == pytest.approx(expected, abs=1e-12)
    assert any(not LABELS[test, 2].any() for test in result["indices"]["test"])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("model", [ClassifierChain(GaussianNB()), MLPClassifier(4, max_iter=5, random_state=0)])
def test_array_probabilities_of_labels(model):
    model.fit(X_LABELS, LABELS)
    assert_array_equal(class_scores(model, X_LABELS), model.predict_proba(X_LABELS))


@pytest.mark.parametrize("model", [LogisticRegression(), LinearSVC()])
def test_equals_scikit_learns_scorers_where_nothing_is_missing(model):
    theirs = {"roc_auc": "roc_auc", "f1": "f1_macro", "balanced_accuracy": "balanced_accuracy", "accuracy": "accuracy"}
    rows = np.flatnonzero(Y != "c")
    model.fit(X[rows], Y[rows])
    for name, other in theirs.items():
        assert get_scorer(name)(model, X, np.where(Y == "c", "a", Y)) == pytest.approx(
            sklearn.metrics.get_scorer(other)(model, X, np.where(Y == "c", "a", Y)), abs=1e-12)
    theirs = {"roc_auc": "roc_auc", "average_precision": "average_precision", "f1": "f1_macro", "recall": "recall_macro"}
    model = OneVsRestClassifier(model).fit(X_LABELS, LABELS)
    for name, other in theirs.items():
        value = sklearn.metrics.get_scorer(other)(model, X_LABELS, LABELS)
        assert get_scorer(name)(model, X_LABELS, LABELS) == pytest.approx(value, abs=1e-12)
    model = GaussianNB().fit(X, Y)
    assert get_scorer("roc_auc")(model, X, Y) == pytest.approx(sklearn.metrics.get_scorer("roc_auc_ovr")(model, X, Y))


@pytest.mark.filterwarnings("ignore:.*does not support sample_weight:UserWarning")
def test_grid_search_of_labels_with_missing_classes():
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5]}, cv=FOLDS, scoring=get_scorer("roc_auc"),
                          error_score="raise").fit(X_LABELS, LABELS, groups=GROUPS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    scoring = {name: get_scorer(name) for name in ("average_precision", "accuracy")}
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1.0]}, cv=FOLDS, scoring=scoring, refit="accuracy",
                          error_score="raise")
    search.fit(X, Y, groups=GROUPS, sample_weight=np.ones(72))
    assert search.score(X, Y) == accuracy(Y, search.predict(X))


def test_permutation_importance():
    model = LogisticRegression().fit(X, Y)
    result = permutation_importance(model, X, Y, scoring=get_scorer("roc_auc"), n_repeats=2, random_state=0)
    assert (result.importances_mean > 0).all()


def test_scorers_are_pickled_and_cloned():
    model = LogisticRegression().fit(X, Y)
    for name in METRICS:
        scorer = get_scorer(name)
        value = scorer(model, X, Y)
        assert pickle.loads(pickle.dumps(scorer))(model, X, Y) == clone(scorer)(model, X, Y) == value
        assert name in repr(scorer)
    with pytest.raises(ValueError, match="'auroc' is no metric of skecg; expected one of roc_auc, average_precision, f1"):
        get_scorer("auroc")


RECORDS = np.array([f"record {i}" for i in range(24)]).repeat(3)  # two a patient
RECORD_LABELS = (rng.random((24, 3)) < 0.5).astype(int).repeat(3, axis=0)
WINDOWS = rng.normal(size=(72, 3)) + RECORD_LABELS


@pytest.mark.parametrize("which", ["make_scorer", "get_scorer"])
def test_cross_validate_by_record(which):
    with sklearn.config_context(enable_metadata_routing=True):
        if which == "make_scorer":
            scorer = make_scorer(macro_roc_auc, response_method="predict_proba").set_score_request(record_ids=True)
        else:
            scorer = clone(pickle.loads(pickle.dumps(get_scorer("roc_auc").set_score_request(record_ids=True))))
        params = {"record_ids": RECORDS, "groups": GROUPS}
        result = cross_validate(KNeighborsClassifier(), WINDOWS, RECORD_LABELS, cv=FOLDS, scoring=scorer, params=params,
                                return_estimator=True, return_indices=True, error_score="raise")
        several = {"records": scorer, "windows": get_scorer("roc_auc").set_score_request(record_ids=False)}
        both = cross_validate(KNeighborsClassifier(), WINDOWS, RECORD_LABELS, cv=FOLDS, scoring=several, params=params,
                              error_score="raise")
        search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [5]}, cv=FOLDS, scoring=scorer)
        search.fit(WINDOWS, RECORD_LABELS, **params)
        with pytest.raises(UnsetMetadataPassedError, match="record_ids"):
            cross_validate(KNeighborsClassifier(), WINDOWS, RECORD_LABELS, cv=FOLDS, scoring=get_scorer("roc_auc"),
                           params=params)
    expected = []
    for fitted, test in zip(result["estimator"], result["indices"]["test"], strict=True):
        first = np.unique(RECORDS[test], return_index=True)[1]
        means = [class_scores(fitted, WINDOWS[test])[RECORDS[test] == r].mean(axis=0) for r in RECORDS[test][first]]
        expected.append(macro_roc_auc(RECORD_LABELS[test][first], means))
    assert_allclose(result["test_score"], expected, atol=1e-12)
    assert_array_equal(both["test_records"], result["test_score"])
    assert (both["test_windows"] != result["test_score"]).any()
    assert search.best_score_ == pytest.approx(np.mean(expected))


def test_decisions_by_record():
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = get_scorer("f1").set_score_request(record_ids="which")
        result = cross_validate(KNeighborsClassifier(), WINDOWS, RECORD_LABELS[:, 0], cv=FOLDS, scoring=scorer,
                                params={"which": RECORDS, "groups": GROUPS}, return_estimator=True, return_indices=True)
    for value, fitted, test in zip(result["test_score"], result["estimator"], result["indices"]["test"], strict=True):
        votes = fitted.predict(WINDOWS[test]).reshape(-1, 3).mean(axis=1) > 0.5  # three windows a record
        assert value == macro_f1(RECORD_LABELS[test, 0].reshape(-1, 3)[:, 0], votes.astype(int))
