"""Which of scikit-learn's meta-estimators and tools take three-dimensional X, and that they work."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.fixes import parse_version

from skecg import ECGClassifier, ECGRegressor, ECGSelfSupervisedEmbedder, HeadClassifier, HeadRegressor
from skecg._training import module_state
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.metrics import get_scorer, localization_error
from skecg.objectives import MaskedReconstruction
from skecg.preprocessing import BandpassFilter, LeadScaler, LeadSelector

X, y, groups = make_ecg(
    30, n_patients=15, classes=("normal", "left bundle branch block", "sinus tachycardia"), duration=1.0,
    lead_names=("I", "V1"), random_state=0)
for array in (X, y, groups):
    array.setflags(write=False)
codes = np.unique(y, return_inverse=True)[1]
indicator = np.eye(3, dtype=int)[codes]
binary = (codes == 0).astype(int)
sites = X.max(axis=2) * 20.0  # two coordinates
grouped = GroupKFold(2)


def embedder(**params):
    return ECGSelfSupervisedEmbedder(
        PatchTransformer(10, embed_dim=8, depth=1, n_heads=1), MaskedReconstruction(decoder_dim=8),
        **{"max_epochs": 1, "random_state": 0, **params})


def classifier(**params):
    return ECGClassifier(embedder(max_epochs=0), **{"max_epochs": 1, "random_state": 0, **params})


def regressor(**params):
    return ECGRegressor(embedder(max_epochs=0), **{"max_epochs": 1, "random_state": 0, **params})


def pipeline():
    return make_pipeline(LeadScaler(), embedder(), StandardScaler(), LogisticRegression())


def predictions(model, target=y):
    return model.fit(X, target).predict(X)


def searched(search, **fit_params):
    search.fit(X, y, **fit_params)
    assert len(search.cv_results_["params"]) == 2
    return search.predict(X)


MASKS = {"ecgselfsupervisedembedder__objective__mask_ratio": [0.3, 0.6]}
RATES = {"learning_rate": [1e-3, 1e-2]}

#: What takes X of shape (n_samples, n_leads, n_times). Each entry returns one prediction, score or embedding per sample
#: or fold.
WORKS = {
    "Pipeline": lambda: predictions(pipeline()),
    "GridSearchCV": lambda: searched(GridSearchCV(pipeline(), MASKS, cv=grouped), groups=groups),
    "RandomizedSearchCV": lambda: searched(RandomizedSearchCV(classifier(), RATES, n_iter=2, cv=grouped), groups=groups),
    "HalvingGridSearchCV": lambda: HalvingGridSearchCV(
        classifier(), RATES, cv=2, factor=2, min_resources=15, random_state=0).fit(X, y).predict(X),
    "cross_validate": lambda: cross_validate(pipeline(), X, y, groups=groups, cv=grouped)["test_score"],
    "cross_val_score": lambda: cross_val_score(classifier(), X, y, groups=groups, cv=grouped),
    "cross_val_predict": lambda: cross_val_predict(classifier(), X, y, groups=groups, cv=grouped, method="predict_proba"),
    "learning_curve": lambda: learning_curve(
        classifier(), X, y, groups=groups, cv=grouped, train_sizes=[8, 14], shuffle=True, random_state=0)[2],
    "validation_curve": lambda: validation_curve(
        classifier(), X, y, groups=groups, cv=grouped, param_name="learning_rate", param_range=[1e-3, 1e-2])[1],
    "permutation_test_score": lambda: permutation_test_score(
        classifier(), X, y, groups=groups, cv=grouped, n_permutations=2)[1],
    "OneVsRestClassifier": lambda: predictions(OneVsRestClassifier(classifier())),
    "MultiOutputClassifier": lambda: predictions(MultiOutputClassifier(classifier()), indicator),
    "CalibratedClassifierCV": lambda: predictions(CalibratedClassifierCV(classifier(), cv=2)),
    "CalibratedClassifierCV(FrozenEstimator)": lambda: predictions(
        CalibratedClassifierCV(FrozenEstimator(classifier().fit(X, y)))),
    "VotingClassifier": lambda: predictions(VotingClassifier([("a", classifier()), ("b", pipeline())], voting="soft")),
    "StackingClassifier": lambda: predictions(StackingClassifier([("a", classifier()), ("b", pipeline())], cv=2)),
    "TunedThresholdClassifierCV": lambda: predictions(TunedThresholdClassifierCV(classifier(), cv=2), binary),
    "FixedThresholdClassifier": lambda: predictions(FixedThresholdClassifier(classifier(), threshold=0.3), binary),
    "FeatureUnion": lambda: make_union(embedder(), embedder(random_state=1)).fit(X).transform(X),
    "FrozenEstimator": lambda: predictions(
        make_pipeline(FrozenEstimator(embedder().fit(X)), StandardScaler(), LogisticRegression())),
    "FunctionTransformer": lambda: predictions(make_pipeline(FunctionTransformer(np.negative), classifier())),
    "TransformedTargetRegressor": lambda: predictions(
        TransformedTargetRegressor(regressor(), func=np.log1p, inverse_func=np.expm1), codes),
    "MultiOutputRegressor": lambda: predictions(MultiOutputRegressor(regressor()), sites),
    "VotingRegressor": lambda: predictions(
        VotingRegressor([("a", regressor()), ("b", make_pipeline(embedder(), Ridge()))]), sites[:, 0]),
    "StackingRegressor": lambda: predictions(
        StackingRegressor([("a", regressor()), ("b", make_pipeline(embedder(), Ridge()))], cv=2), sites[:, 0]),
}

#: What does not, because it validates X as a table itself, and the error.
FAILS = {
    "BaggingClassifier": lambda: predictions(BaggingClassifier(classifier(), n_estimators=2)),
    "BaggingRegressor": lambda: predictions(BaggingRegressor(regressor(), n_estimators=2), sites[:, 0]),
    "OneVsOneClassifier": lambda: predictions(OneVsOneClassifier(classifier())),
    "ClassifierChain": lambda: predictions(ClassifierChain(classifier()), indicator),
    "RegressorChain": lambda: predictions(RegressorChain(regressor()), sites),
    "SelfTrainingClassifier": lambda: predictions(SelfTrainingClassifier(classifier()), np.where(codes == 2, -1, codes)),
    "ColumnTransformer": lambda: ColumnTransformer([("embed", embedder(), [0, 1])]).fit_transform(X),
    "permutation_importance": lambda: permutation_importance(classifier().fit(X, y), X, y, n_repeats=2),
    "SelectFromModel": lambda: SelectFromModel(classifier()).fit(X, y).transform(X),
    "StackingClassifier(passthrough=True)": lambda: predictions(
        StackingClassifier([("a", classifier())], cv=2, passthrough=True)),
}


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("name", WORKS)
def test_works(name):
    result = np.asarray(WORKS[name]())
    assert len(result) in (2, len(X))  # folds or samples
    if result.dtype.kind == "f":
        assert np.isfinite(result).all()
    elif result.dtype.kind in "OU":
        assert set(result) <= set(y)


@pytest.mark.parametrize("name", FAILS)
def test_fails(name):
    """If one of these starts to work, move it to WORKS and say so in the documentation."""
    with pytest.raises((ValueError, TypeError, IndexError), match=r"(?i)dim 3|dimension|2D|import"):
        FAILS[name]()


def test_tables_do_not_overlap():
    assert not set(WORKS) & set(FAILS)


# --- searches --------------------------------------------------------------------------------------------------


def test_nested_parameters_reach_the_network():
    search = GridSearchCV(
        Pipeline([("embedder", embedder()), ("head", LogisticRegression())]),
        {"embedder__objective__mask_ratio": [0.25, 0.75], "embedder__encoder__embed_dim": [4, 12]}, cv=grouped,
    ).fit(X, y, groups=groups)
    assert len(search.cv_results_["params"]) == 4
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    best = search.best_estimator_["embedder"]
    assert best.transform(X).shape == (30, search.best_params_["embedder__encoder__embed_dim"])
    assert best.get_params()["objective__mask_ratio"] == search.best_params_["embedder__objective__mask_ratio"]


def test_whole_methods_are_parameters():
    pipe = Pipeline([("embedder", embedder()), ("head", LogisticRegression())])
    encoders = [PatchTransformer(10, 8, 1, n_heads=1), ResNet1d(4, (1, 1), kernel_size=3)]
    search = GridSearchCV(pipe, [
        {"embedder__encoder": encoders, "embedder__objective": [MaskedReconstruction(decoder_dim=8), None]},
        {"embedder__encoder": encoders[1:], "embedder__encoder__width": [2, 8]},
    ], cv=grouped).fit(X, y, groups=groups)
    assert len(search.cv_results_["params"]) == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert isinstance(search.best_estimator_["embedder"].encoder_, tuple(map(type, encoders)))
    assert not hasattr(encoders[0], "n_times_") and encoders[1].width == 4  # candidates are cloned


def test_workers_do_not_change_results():
    def search(n_jobs):
        return GridSearchCV(
            Pipeline([("scale", LeadScaler()), ("embedder", embedder(deterministic=True)), ("head", LogisticRegression())]),
            {"embedder__objective__mask_ratio": [0.3, 0.6]}, cv=grouped, n_jobs=n_jobs, scoring="neg_log_loss",
        ).fit(X, y, groups=groups)

    one, two = search(1), search(2)
    for key, value in one.cv_results_.items():
        if "test_score" in key:
            assert_array_equal(two.cv_results_[key], value)
    for name, value in module_state(one.best_estimator_["embedder"].network_).items():
        assert_array_equal(module_state(two.best_estimator_["embedder"].network_)[name], value)


# --- regressors ------------------------------------------------------------------------------------------------


def test_coordinates_in_searches_and_cross_validation():
    scorer = get_scorer("neg_localization_error")
    search = GridSearchCV(regressor(), {"loss": ["squared_error", "huber"], "embedder__encoder__embed_dim": [8, 12]},
                          cv=grouped, scoring=scorer).fit(X, sites, groups=groups)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ == search.cv_results_["mean_test_score"].max() < 0
    assert search.predict(X).shape == sites.shape
    predicted = cross_val_predict(regressor(), X, sites, groups=groups, cv=grouped)
    assert predicted.shape == sites.shape
    scores = cross_val_score(regressor(), X, sites, groups=groups, cv=grouped, scoring=scorer)
    for (_, test), score in zip(grouped.split(X, sites, groups), scores, strict=True):
        assert_allclose(score, -localization_error(sites[test], predicted[test]))


def test_coordinates_behind_an_embedder():
    for output in ("embedding", "tokens"):
        pipe = make_pipeline(LeadScaler(), embedder(output=output), HeadRegressor(max_epochs=2, random_state=0))
        assert pipe.fit(X, sites).predict(X).shape == sites.shape
        assert np.isfinite(cross_val_score(pipe, X, sites, groups=groups, cv=grouped)).all()


def test_a_transformed_target_is_predicted_in_its_own_unit():
    inner = regressor(max_epochs=3)
    model = TransformedTargetRegressor(inner, transformer=StandardScaler()).fit(X, sites)
    assert_allclose(model.predict(X), clone(inner).fit(X, sites).predict(X), rtol=1e-4)  # standardised twice is once


# --- frozen embedders ------------------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch):
    """Counts fits of embedders."""
    calls = []
    original = ECGSelfSupervisedEmbedder.fit

    def counting(self, X, y=None, **params):
        calls.append(len(X))
        return original(self, X, y, **params)

    monkeypatch.setattr(ECGSelfSupervisedEmbedder, "fit", counting)
    return calls


def test_frozen_embedder_is_never_refitted(fits):
    pretrained = embedder().fit(X)
    expected = pretrained.transform(X)
    assert fits == [30]
    frozen = FrozenEstimator(pretrained)
    models = {
        "pipeline": make_pipeline(frozen, StandardScaler(), LogisticRegression()),
        "classifier": ECGClassifier(frozen, max_epochs=1, random_state=0),
    }
    for model in models.values():
        cross_validate(model, X, y, groups=groups, cv=grouped)
        GridSearchCV(clone(model), {}, cv=grouped).fit(X, y, groups=groups)
    assert fits == [30]
    assert_array_equal(pretrained.transform(X), expected)


def test_plain_embedder_is_refitted_on_each_training_fold(fits):
    sizes = [len(train) for train, _ in grouped.split(X, y, groups)]
    cross_validate(pipeline(), X, y, groups=groups, cv=grouped)
    cross_validate(classifier(), X, y, groups=groups, cv=grouped)
    assert fits == 2 * sizes


def test_clone_of_frozen_embedder_keeps_its_weights():
    pretrained = embedder().fit(X)
    pipe = clone(make_pipeline(FrozenEstimator(pretrained), LogisticRegression()))
    assert_array_equal(pipe[0].transform(X), pretrained.transform(X))
    with pytest.raises(sklearn.exceptions.NotFittedError):
        clone(pretrained).transform(X)


def test_pipeline_memory_does_not_refit(tmp_path, fits):
    pipe = Pipeline([("embedder", embedder()), ("head", LogisticRegression())], memory=str(tmp_path))
    GridSearchCV(pipe, {"head__C": [0.1, 1.0, 10.0]}, cv=grouped).fit(X, y, groups=groups)
    assert len(fits) == 3  # two folds and the refit, not one per candidate


# --- pandas and names ------------------------------------------------------------------------------------------


def test_set_output_and_feature_names():
    pipe = make_pipeline(LeadScaler(), embedder(), StandardScaler())
    frame = pipe.set_output(transform="pandas")[1:].fit_transform(X)
    names = [f"ecgselfsupervisedembedder{i}" for i in range(8)]
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == names
    assert_allclose(frame.to_numpy(), make_pipeline(embedder(), StandardScaler()).fit_transform(X), rtol=1e-6)
    assert list(pipe[1:].get_feature_names_out()) == names


def test_set_output_in_a_union():
    union = FeatureUnion([("one", embedder()), ("two", embedder(random_state=1))]).set_output(transform="pandas")
    frame = union.fit_transform(X)
    assert list(frame.columns) == [f"{part}__ecgselfsupervisedembedder{i}" for part in ("one", "two") for i in range(8)]
    assert list(union.get_feature_names_out()) == list(frame.columns)


# --- whole pipelines -------------------------------------------------------------------------------------------


def test_preprocessing_embedding_and_head():
    pipe = Pipeline([
        ("leads", LeadSelector(["V1", "I"], input_lead_names=["I", "V1"])), ("filter", BandpassFilter(0.5, 40.0, fs=100)),
        ("scale", LeadScaler()), ("embedder", embedder()), ("head", HeadClassifier(max_epochs=2, random_state=0)),
    ])
    assert_allclose(pipe.fit(X, y).predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    assert cross_val_score(pipe, X, y, groups=groups, cv=grouped).shape == (2,)


def test_tokens_pass_through_a_pipeline():
    pipe = Pipeline([("embedder", embedder(output="tokens")), ("head", HeadClassifier(max_epochs=2, random_state=0))])
    incomplete = X.copy()
    incomplete[::4, 1] = np.nan
    proba = pipe.fit(incomplete, y).predict_proba(incomplete)
    assert np.isfinite(proba).all()
    assert_array_equal(pipe.predict_proba(incomplete[4:7]), proba[4:7])


# --- metadata routing ------------------------------------------------------------------------------------------


@pytest.fixture
def seen_groups(monkeypatch):
    """The patients that each pretraining saw."""
    seen = []
    original = ECGSelfSupervisedEmbedder._pretrain

    def recording(self, X, group, **params):
        seen.append(None if group is None else len(np.unique(group)))
        return original(self, X, group, **params)

    monkeypatch.setattr(ECGSelfSupervisedEmbedder, "_pretrain", recording)
    return seen


def named(**params):
    return Pipeline([("scale", LeadScaler()), ("embedder", embedder()), ("head", LogisticRegression())], **params)


def test_groups_without_routing(seen_groups):
    named().fit(X, y, embedder__groups=groups)
    cross_validate(named(), X, y, groups=groups, cv=grouped, params={"embedder__groups": groups})
    assert seen_groups == [15, *(len(np.unique(groups[train])) for train, _ in grouped.split(X, y, groups))]


def test_groups_are_not_passed_unasked(seen_groups):
    cross_validate(named(), X, y, groups=groups, cv=grouped)
    assert seen_groups == [None, None]


def test_groups_with_routing(seen_groups):
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = named()
        pipe.set_params(embedder=embedder().set_fit_request(groups=True))
        pipe.fit(X, y, groups=groups)
        cross_validate(pipe, X, y, cv=grouped, params={"groups": groups})
        GridSearchCV(pipe, {"head__C": [1.0]}, cv=grouped, refit=False).fit(X, y, groups=groups)
    folds = [len(np.unique(groups[train])) for train, _ in grouped.split(X, y, groups)]
    assert seen_groups == [15, *folds, *folds]


def test_groups_with_routing_for_a_classifier(seen_groups):
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier(early_stopping=True, validation_fraction=0.3).set_fit_request(groups=True)
        cross_validate(model, X, y, cv=grouped, params={"groups": groups})
        cross_validate(model.set_fit_request(groups=False), X, y, cv=grouped, params={"groups": groups})
    assert [value is None for value in seen_groups] == [False, False, True, True]


def test_routing_asks_for_a_decision():
    with sklearn.config_context(enable_metadata_routing=True):
        with pytest.raises(UnsetMetadataPassedError, match="groups"):
            named().fit(X, y, groups=groups)


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.6"), reason="Pipeline has transform_input since 1.6")
def test_x_val_passes_through_the_steps_before():
    def fit(**params):
        model = classifier(max_epochs=2).set_fit_request(X_val=True, y_val=True)
        pipe = Pipeline([("scale", LeadScaler()), ("classifier", model)], **params)
        return pipe.fit(X[:20], y[:20], X_val=X[20:], y_val=y[20:])

    with sklearn.config_context(enable_metadata_routing=True):
        pipe, naive = fit(transform_input=["X_val"]), fit()
    loss = log_loss(y[20:], pipe.predict_proba(X[20:]), labels=pipe.classes_)
    assert_allclose(pipe["classifier"].history_[-1]["valid_loss"], loss, rtol=1e-2)
    assert abs(naive["classifier"].history_[-1]["valid_loss"] - pipe["classifier"].history_[-1]["valid_loss"]) > 1e-6
