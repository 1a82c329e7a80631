import pickle
import warnings
import weakref
from collections.abc import Sequence

import joblib
import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_validate
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils import Bunch, get_tags

import skecg
from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, _record_classifier
from skecg._record_classifier import RecordClassifier
from skecg.datasets import ECGFormatError, ECGRecord, read_records, write_records
from skecg.encoders import PatchTransformer
from skecg.evaluation import label_efficiency_curve
from skecg.preprocessing import LeadScaler, make_windows

FS = 50.0
LEADS = ("I", "V1")


def record(seconds, seed=0, *, fs=FS, lead_names=LEADS, name="", scale=1.0):
    signal = np.random.default_rng(seed).normal(scale=scale, size=(len(lead_names), round(seconds * fs)))
    return ECGRecord(signal.astype(np.float32), fs, lead_names, name=name)


RECORDS = [record(3 + i % 4, i, name=f"r{i}", scale=1 + i % 3) for i in range(12)]
Y = np.array(["a", "b", "c"])[np.arange(12) % 3]
BINARY = np.array(["a", "b"])[np.arange(12) % 2]
LABELS = np.stack([np.arange(12) % 3 == 2, np.arange(12) % 2], axis=1).astype(int)
PATIENTS = np.repeat(np.arange(6), 2)


class Features(TransformerMixin, BaseEstimator):
    """Mean and standard deviation of each lead; a missing lead is 0."""

    def fit(self, X, y=None):
        self.n_leads_ = X.shape[1]
        return self

    def transform(self, X):
        assert X.shape[1] == self.n_leads_
        return np.nan_to_num(np.concatenate([X.mean(axis=2), X.std(axis=2)], axis=1))


class Spy(ClassifierMixin, BaseEstimator):
    """Keeps what it was fitted and asked with; predicts that every window is of the first class."""

    def fit(self, X, y, groups=None):
        self.X_, self.y_, self.groups_, self.classes_, self.sizes_ = X, y, groups, np.unique(y), []
        return self

    def predict_proba(self, X):
        self.sizes_.append(len(X))
        return np.eye(len(self.classes_))[np.zeros(len(X), int)]


def pipeline():
    return make_pipeline(Features(), LogisticRegression())


def tiny(**params):
    encoder = PatchTransformer(25, embed_dim=8, depth=1, n_heads=1)
    return ECGSelfSupervisedEmbedder(encoder, **{"max_epochs": 1, "random_state": 0, **params})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, RECORDS)
    return folder


# --- against a naive loop


def combined(windows, how):
    """Probabilities of one record from those of its windows, by the definition of each way."""
    two = windows.shape[1] == 2
    if how == "mean":
        return windows.mean(axis=0)
    if how == "logit-mean":
        result = expit(logit(windows).mean(axis=0))
    elif how == "median":
        result = np.median(windows, axis=0)
    elif two:
        return np.array([1 - windows[:, 1].max(), windows[:, 1].max()])
    else:
        result = windows.max(axis=0)
    return result / result.sum()


@pytest.mark.parametrize("how", ["mean", "median", "max", "logit-mean"])
@pytest.mark.parametrize("y", [BINARY, Y], ids=["two", "three"])
def test_records_are_predicted_as_a_loop_over_windows_does(how, y):
    clf = RecordClassifier(pipeline(), 2.0, step=0.5, how=how).fit(RECORDS, y)
    X, labels, _ = make_windows(RECORDS, 2.0, step=0.5, y=y)
    by_hand = pipeline().fit(X, labels)
    probabilities, spread, decisions = [], [], []
    for each in RECORDS:
        X = make_windows([each], 2.0, step=0.5)[0]
        of_windows = by_hand.predict_proba(X)
        probabilities.append(combined(of_windows, how))
        spread.append(of_windows.std(axis=0))
        combine = {"mean": np.mean, "median": np.median, "max": np.max, "logit-mean": np.mean}[how]
        decisions.append(combine(by_hand.decision_function(X), axis=0))
    assert_allclose(clf.predict_proba(RECORDS), probabilities, rtol=1e-6)
    assert_allclose(clf.predict_proba(RECORDS).sum(axis=1), 1, rtol=1e-6)
    assert_allclose(clf.decision_function(RECORDS), decisions, rtol=1e-5, atol=1e-6)
    assert_array_equal(clf.predict(RECORDS), by_hand.classes_[np.argmax(probabilities, axis=1)])
    predicted = clf.predict_records(RECORDS, groups=PATIENTS)
    assert_allclose(predicted.spread, spread, rtol=1e-4, atol=1e-7)
    assert predicted.names.tolist() == [f"r{i}" for i in range(12)]
    assert_array_equal(predicted.groups, PATIENTS)
    assert_array_equal(predicted.labels, clf.predict(RECORDS), strict=True)
    assert_array_equal(predicted.scores, clf.predict_proba(RECORDS), strict=True)
    assert predicted.n_windows.tolist() == [(each.n_times - 100) // 25 + 1 for each in RECORDS]


def test_a_median_that_leaves_no_class_is_undecided():
    scores = _record_classifier._sum_to_one(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), "median")
    assert_allclose(scores, [[1 / 3] * 3, [0.5, 0.0, 0.5]])


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(10, 90), min_size=1, max_size=5), step=st.integers(1, 30), n_block=st.integers(1, 9),
    gap=st.booleans(),
)
def test_blocks_do_not_matter(lengths, step, n_block, gap):
    """However windows are divided into blocks, each of them is predicted once, and blocks are as small as asked."""
    records = [record(n / FS, i, lead_names=["I"]) for i, n in enumerate(lengths)]
    if gap:
        records[0].signal[0, 5:] = np.nan
    model = FrozenEstimator(Spy().fit(np.zeros((2, 1, 10)), ["a", "b"]))
    clf = RecordClassifier(model, 10 / FS, step=step / FS, lead_names=["I"], fs=FS).fit(records, ["a"] * len(records))
    expected = [(n - 10) // step + 1 for n in lengths]
    if gap:
        expected[0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_record_classifier, "_BLOCK_BYTES", 4 * 10 * n_block)
        if not sum(expected):
            with pytest.raises(ValueError, match="no usable window"):
                clf.predict_records(records)
            return
        predicted = clf.predict_records(records)
    assert predicted.n_windows.tolist() == expected
    sizes = model.estimator.sizes_
    assert sum(sizes) == sum(expected) and max(sizes) <= n_block


# --- what X may be


def test_paths_records_and_arrays_agree(folder):
    records = read_records(folder)
    clf = RecordClassifier(pipeline(), 1.0).fit(records, Y)
    expected = clf.predict_proba(records)
    as_text = [str(path) for path in records.paths]
    for X in (list(records), records.paths, np.array(as_text), np.array(records.paths, dtype=object), tuple(as_text)):
        assert_array_equal(clf.predict_proba(X), expected)
        assert_array_equal(clone(clf).fit(X, Y).predict_proba(records), expected)
    assert clf.predict_records(records.paths).names.tolist() == records.names
    pandas = pytest.importorskip("pandas")
    assert_array_equal(clf.predict_proba(pandas.Series(as_text, index=range(5, 17))), expected)


@pytest.mark.parametrize("n_leads", [1, 2])
def test_arrays_are_records_too(n_leads):
    lead_names = LEADS[:n_leads]
    records = [record(4, i, lead_names=lead_names) for i in range(12)]
    X = np.stack([each.signal for each in records])
    clf = RecordClassifier(pipeline(), 1.0, fs=FS, lead_names=lead_names).fit(X, Y)
    expected = clf.predict_proba(records)
    assert_array_equal(clf.predict_proba(X), expected)
    assert_array_equal(clone(clf).fit(records, Y).predict_proba(X), expected)
    longer = np.concatenate([X, X], axis=2)
    assert clf.predict_records(longer).n_windows.tolist() == [8] * 12  # any length
    assert clf.predict_records(X).names.tolist() == [str(i) for i in range(12)]
    assert (clf.n_leads_in_, clf.n_times_in_, clf.fs_, clf.lead_names_in_) == (n_leads, 50, FS, lead_names)


def test_two_dimensions_reach_the_estimator_as_two():
    X = np.stack([record(4, i, lead_names=["I"]).signal[0] for i in range(12)])
    clf = RecordClassifier(Spy(), 1.0, fs=FS).fit(X, Y)
    assert clf.estimator_.X_.shape == (48, 50)
    clf.predict(X)
    clf.predict(X[:, np.newaxis])
    clf.set_params(lead_names=["I"]).fit(X, Y).predict([record(5, lead_names=["I"])])
    whole = RecordClassifier(Spy()).fit(X, Y)
    assert whole.estimator_.X_ is X and whole.estimator_.groups_ is None


def test_whole_records_are_windows_without_a_length():
    records = [record(2, i, name=f"r{i}") for i in range(6)]
    clf = RecordClassifier(pipeline()).fit(records, Y[:6])
    assert clf.n_times_in_ == 100
    X = np.stack([each.signal for each in records])
    assert_array_equal(clf.predict_proba(records), pipeline().fit(X, Y[:6]).predict_proba(X))
    with pytest.raises(ValueError, match=r"Record 'long' has 150 samples in time, others 100\. Pass length="):
        clf.predict([*records, record(3, name="long")])


def test_leads_are_found_by_name():
    first = [record(2, i, lead_names=("I", "MLII", "V1")) for i in range(6)]
    clf = RecordClassifier(Spy(), 1.0, lead_names=["V1", "II", "V6"]).fit(first, Y[:6])
    X = clf.estimator_.X_
    assert_array_equal(X[0], [first[0].signal[2, :50], first[0].signal[1, :50], np.full(50, np.nan)])
    assert clf.lead_names_in_ == ("V1", "II", "V6")
    other = ECGRecord(np.stack([first[0].signal[1], first[0].signal[2]]), FS, ("lead II", "v1"))
    fitted = RecordClassifier(pipeline(), 1.0, lead_names=["V1", "II", "V6"]).fit(first, Y[:6])
    assert_array_equal(fitted.predict_proba([other]), fitted.predict_proba(first[:1]))


def test_one_record_is_in_memory_at_a_time(monkeypatch):
    alive, most = weakref.WeakSet(), []

    class OnDisk(Sequence):
        def __len__(self):
            return 40

        def __getitem__(self, number):
            each = record(4, number, name=f"r{number}")
            alive.add(each)
            most.append(len(alive))
            return each

    monkeypatch.setattr(_record_classifier, "_BLOCK_BYTES", 4 * 2 * 50 * 8)  # two records of four windows
    clf = RecordClassifier(pipeline(), 1.0).fit(OnDisk(), np.arange(40) % 2)
    assert max(most) <= 3  # the first one, the one that was cut, the next
    most.clear()
    assert clf.predict(OnDisk()).shape == (40,)
    assert max(most) <= 4


def test_real_recordings(real_data):
    records = read_records(sorted((real_data / "mitdb").glob("*.hea"))[:3])
    y = np.arange(len(records)) % 2
    clf = RecordClassifier(pipeline(), 10.0, lead_names=["II", "V1"]).fit(records, y)
    predicted = clf.predict_records(records)
    assert predicted.names.tolist() == records.names
    assert predicted.n_windows.tolist() == [int(each.duration // 10) for each in records]
    X, _, numbers = make_windows(records, 10.0, lead_names=["II", "V1"])
    expected = [clf.estimator_.predict_proba(X[numbers == i]).mean(axis=0) for i in range(len(records))]
    assert_allclose(predicted.scores, expected, rtol=1e-6)


# --- what cannot be used


def test_record_without_a_window():
    gaps = record(4, name="gaps")
    gaps.signal[:, ::20] = np.nan
    records = [*RECORDS, record(0.5, name="short"), gaps]
    clf = RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y)
    message = r"2 of 14 records have no usable window of 1 s, .*: 'short', 'gaps'\. Leave them out"
    with pytest.raises(ValueError, match=message):
        clone(clf).fit(records, [*Y, "a", "b"])
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(ValueError, match=message):
            getattr(clf, method)(records)
    predicted = clf.predict_records(records)
    assert predicted.n_windows[-2:].tolist() == [0, 0]
    assert np.isnan(predicted.scores[-2:]).all() and np.isnan(predicted.spread[-2:]).all()
    assert predicted.labels[-2:].tolist() == [None, None]
    assert_array_equal(predicted.scores[:12], clf.predict_proba(RECORDS))
    assert_array_equal(predicted.labels[:12], clf.predict(RECORDS))
    with pytest.raises(ValueError, match="2 of 2 records have no usable window"):
        clf.predict_records(records[12:])


@pytest.mark.parametrize(("odd", "message"), [
    (record(4, fs=100.0, name="odd"), r"Record 'odd' has fs=100 Hz, but RecordClassifier works at 50 Hz\. Resample"),
    (record(4, lead_names=("V5", "V6"), name="odd"), r"Record number 12 \(odd\) cannot be used: .*has no lead I, V1"),
    (record(4, fs=100.0), r"Record number 12 has fs=100 Hz, but"),
    (3.5, r"Record number 12 cannot be used: it is a float; expected an ECGRecord or the path of one"),
], ids=["fs", "leads", "nameless", "float"])
def test_the_message_names_the_record(odd, message):
    clf = RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y)
    for call in (lambda: clf.predict([*RECORDS, odd]), lambda: clone(clf).fit([*RECORDS, odd], [*Y, "a"])):
        with pytest.raises(ValueError, match=message):
            call()


def test_file_that_cannot_be_read(folder, tmp_path):
    clf = RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        clf.predict([folder / "r0", tmp_path / "nowhere"])
    (tmp_path / "bad.hea").write_text("bad one 250")
    with pytest.raises(ECGFormatError, match=r"bad\.hea"):
        clf.predict([folder / "r0", tmp_path / "bad"])


@pytest.mark.parametrize(("X", "kind"), [
    ("folder", "str"), (RECORDS[0], "ECGRecord"), (Bunch(records=RECORDS, target=Y), "Bunch"),
], ids=["folder", "record", "bunch"])
def test_what_is_no_sequence_of_records(X, kind):
    with pytest.raises(ValueError, match=rf"X is a {kind}; expected a sequence of records or paths.*read_records\(folder\)"):
        RecordClassifier(pipeline(), 1.0).fit(X, Y)


def test_arguments_are_checked():
    array = np.zeros((6, 2, 200), np.float32)
    for clf, X, message in (
        (RecordClassifier(pipeline(), step=1.0), RECORDS, r"step=1\.0 without length"),
        (RecordClassifier(pipeline(), 1.0), array, r"length is in seconds: pass fs="),
        (RecordClassifier(pipeline(), 1.03), RECORDS, r"length=1\.03 s is 51\.5 samples at fs=50 Hz"),
        (RecordClassifier(pipeline(), 1.0, step=0.33), RECORDS, r"step=0\.33 s is 16\.5 samples"),
        (RecordClassifier(FrozenEstimator(pipeline().fit(array, Y[:6])), 1.0), RECORDS, "pass lead_names= and fs="),
    ):
        with pytest.raises(ValueError, match=message):
            clf.fit(X, Y[:len(X)])
    with pytest.raises(ValueError, match="requires y to be passed"):
        RecordClassifier(pipeline(), 1.0).fit(RECORDS)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y[:5])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y, groups=PATIENTS[:5])
    with pytest.raises(NotFittedError):
        RecordClassifier(pipeline(), 1.0).predict(RECORDS)
    with pytest.raises(ValueError, match=r"cannot be checked\. Pass fs="):
        RecordClassifier(pipeline()).fit(array, Y[:6]).predict(RECORDS)
    ovo = RecordClassifier(make_pipeline(Features(), SVC(decision_function_shape="ovo")), 1.0)
    four = np.arange(12) % 4
    with pytest.raises(ValueError, match="6 scores for 4 classes"):
        ovo.fit(RECORDS, four).predict(RECORDS)


class Votes(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))


def test_an_estimator_needs_scores():
    with pytest.raises(ValueError, match="neither predict_proba nor decision_function"):
        RecordClassifier(Votes(), 1.0).fit(RECORDS, Y)
    with pytest.raises(ValueError, match=r"cannot be combined. It is a regressor; take a classifier\.$"):
        RecordClassifier(make_pipeline(Features(), Ridge()), 1.0).fit(RECORDS, Y)
    clf = RecordClassifier(make_pipeline(Features(), Perceptron(random_state=0)), 1.0).fit(RECORDS, BINARY)
    assert not hasattr(clf, "predict_proba")
    predicted = clf.predict_records(RECORDS)
    assert_array_equal(predicted.scores, clf.decision_function(RECORDS))
    assert_array_equal(predicted.labels, np.where(predicted.scores > 0, "b", "a"))
    assert clf.predict_records(RECORDS, groups=PATIENTS).to_frame().columns.tolist() == [
        "group", "label", "n_windows", "score b", "spread b"]


# --- labels


@pytest.mark.parametrize("model", [
    make_pipeline(Features(), MultiOutputClassifier(LogisticRegression())),
    ECGClassifier(tiny(max_epochs=0), max_epochs=1, random_state=0),
], ids=["list", "array"])
def test_multilabel(model):
    clf = RecordClassifier(model, 1.0).fit(RECORDS, LABELS)
    probabilities = clf.predict_proba(RECORDS)
    X, _, numbers = make_windows(RECORDS, 1.0)
    of_windows = clf.estimator_.predict_proba(X)
    if isinstance(of_windows, list):
        of_windows = np.stack([label[:, 1] for label in of_windows], axis=1)
    assert_allclose(probabilities, [of_windows[numbers == i].mean(axis=0) for i in range(12)], rtol=1e-6)
    assert_array_equal(clf.predict(RECORDS), (probabilities > 0.5).astype(int))
    assert clf.classes_.tolist() == [0, 1]
    assert get_tags(clf).classifier_tags == get_tags(model).classifier_tags
    frame = clf.predict_records([*RECORDS, record(0.5)]).to_frame()
    assert frame.columns.tolist() == [
        "label 0", "label 1", "n_windows", "score 0", "score 1", "spread 0", "spread 1"]
    assert frame["label 0"].tolist()[-1] is None and frame.index[-1] == "12"
    frozen = RecordClassifier(FrozenEstimator(clf.estimator_), 1.0, lead_names=LEADS, fs=FS).fit(RECORDS)
    assert_array_equal(frozen.predict(RECORDS), clf.predict(RECORDS), strict=True)


# --- groups


def test_windows_of_a_record_share_a_group():
    clf = RecordClassifier(Spy(), 1.0).fit(RECORDS, Y)
    n_windows = [int(each.duration) for each in RECORDS]
    assert_array_equal(clf.estimator_.groups_, np.repeat(np.arange(12), n_windows))
    assert_array_equal(clf.estimator_.y_, np.repeat(Y, n_windows))
    clf.fit(RECORDS, Y, groups=PATIENTS)
    assert_array_equal(clf.estimator_.groups_, np.repeat(PATIENTS, n_windows))


def test_groups_reach_steps_and_searches():
    groups = make_windows(RECORDS, 1.0, groups=PATIENTS)[2]
    clf = RecordClassifier(make_pipeline(LeadScaler(), make_pipeline(Spy())), 1.0).fit(RECORDS, Y, groups=PATIENTS)
    assert_array_equal(clf.estimator_[-1][-1].groups_, groups)
    search = GridSearchCV(pipeline(), {"logisticregression__C": [1.0, 10.0]}, cv=GroupKFold(3))
    clf = RecordClassifier(search, 1.0).fit(RECORDS, Y, groups=PATIENTS)  # GroupKFold fails without groups
    assert clf.predict_proba(RECORDS).shape == (12, 3)


def test_with_routing_groups_are_passed_if_asked_for():
    with sklearn.config_context(enable_metadata_routing=True):
        unasked = RecordClassifier(make_pipeline(LeadScaler(), Spy()), 1.0).fit(RECORDS, Y, groups=PATIENTS)
        asked = make_pipeline(LeadScaler(), Spy().set_fit_request(groups=True))
        asked = RecordClassifier(asked, 1.0).set_fit_request(groups=True)
        folds = cross_validate(asked, RECORDS, BINARY, cv=GroupKFold(2), params={"groups": PATIENTS}, return_estimator=True,
                               scoring="roc_auc")
    assert unasked.estimator_[-1].groups_ is None
    for fold, (train, _) in zip(folds["estimator"], GroupKFold(2).split(RECORDS, Y, PATIENTS), strict=True):
        assert set(fold.estimator_[-1].groups_) == set(PATIENTS[train])


# --- within scikit-learn


def test_fitted_pipeline_is_applied(folder):
    X, labels, _ = make_windows(RECORDS, 1.0, y=Y)
    fitted = pipeline().fit(X, labels)
    paths = [folder / "r3", folder / "does not exist"]
    clf = RecordClassifier(FrozenEstimator(fitted), 1.0, lead_names=LEADS, fs=FS).fit(paths)  # reads no more than the first
    assert clf.estimator_.estimator is fitted
    assert_array_equal(clf.predict_proba(RECORDS), RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y).predict_proba(RECORDS))
    with pytest.raises(ValueError, match="fs=50 Hz"):
        clf.set_params(fs=100.0).fit(RECORDS).predict(RECORDS)


def test_search_and_cross_validation_by_patient_on_paths(folder):
    records = read_records(folder)
    search = GridSearchCV(
        RecordClassifier(pipeline(), 1.0), {"step": [0.5, 1.0], "estimator__logisticregression__C": [0.1, 1.0]},
        cv=GroupKFold(3), scoring="neg_log_loss", error_score="raise",
    ).fit(records.paths, BINARY, groups=PATIENTS)
    assert len(set(search.cv_results_["mean_test_score"])) == 4  # each of them changes something
    probabilities = cross_val_predict(
        RecordClassifier(pipeline(), 1.0), records, BINARY, groups=PATIENTS, cv=GroupKFold(3), method="predict_proba")
    for train, test in GroupKFold(3).split(RECORDS, BINARY, PATIENTS):
        clf = RecordClassifier(pipeline(), 1.0).fit([records[i] for i in train], BINARY[train])
        assert_array_equal(clf.predict_proba([records[i] for i in test]), probabilities[test])


def test_label_efficiency_of_arms_on_records(folder):
    arms = {"short": RecordClassifier(pipeline(), 1.0), "long": RecordClassifier(pipeline(), 2.0)}
    paths = read_records(folder).paths
    curve = label_efficiency_curve(
        arms, paths, BINARY, groups=PATIENTS, label_fractions=(0.5, 1.0), cv=2, n_repeats=1, verbose=0, random_state=0)
    assert len(curve.runs) == 8
    assert {run.scores.shape[1] for run in curve.runs} == {2}


def test_copies_predict_the_same(tmp_path):
    model = make_pipeline(LeadScaler(), tiny(), LogisticRegression())
    clf = RecordClassifier(model, 1.0, step=0.5, lead_names=["V1", "I"], how="median").fit(RECORDS, Y, groups=PATIENTS)
    expected = clf.predict_proba(RECORDS)
    skecg.save(clf, tmp_path / "model")
    joblib.dump(clf, tmp_path / "model.joblib")
    for copy in (
        pickle.loads(pickle.dumps(clf)), joblib.load(tmp_path / "model.joblib"), skecg.load(tmp_path / "model"),
        clone(clf).fit(RECORDS, Y, groups=PATIENTS),
    ):
        assert_array_equal(copy.predict_proba(RECORDS), expected)
        assert (copy.fs_, copy.lead_names_in_, copy.n_times_in_) == (FS, ("V1", "I"), 50)
    assert not hasattr(clone(clf), "estimator_")


def test_nothing_is_said_about_what_is_counted():
    clf = RecordClassifier(pipeline(), 1.0).fit(RECORDS, Y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.predict_records([*RECORDS, record(0.5)])
    assert not caught
