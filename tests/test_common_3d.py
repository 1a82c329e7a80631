"""What scikit-learn's checks ask for, on signals of several leads: its own checks where they can be fed with three
dimensions, and twins of the others."""

import copy
import pickle
from unittest import SkipTest

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks as checks

from skecg import ECGClassifier, ECGRegressor, ECGSelfSupervisedEmbedder, HeadClassifier, HeadRegressor
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d, TokenTransformer
from skecg.objectives import MaskedLanguageModeling, MaskedReconstruction, Wav2Vec2CMSC
from skecg.preprocessing import (
    BandpassFilter,
    ECGQuantizer,
    ECGTokenizer,
    LeadScaler,
    LeadSelector,
    QRSIntegral,
    QualityGate,
)


def embedder(encoder, **params):
    return ECGSelfSupervisedEmbedder(
        encoder, MaskedReconstruction(decoder_dim=8), **{"max_epochs": 2, "batch_size": 16, "random_state": 0, **params})


def supervised(kind, encoder):
    return kind(embedder(encoder, max_epochs=0), max_epochs=10, batch_size=16, learning_rate=2e-2, random_state=0)


def patches():
    return PatchTransformer(1, embed_dim=16, depth=1, n_heads=2)


def resnet():
    return ResNet1d(8, (1, 1), kernel_size=3)


def tokens():
    return TokenTransformer(ECGQuantizer(20), ECGTokenizer(40), embed_dim=16, depth=1, n_heads=2)


def frames():
    return ConvTransformer(16, 1, n_heads=2, conv_dim=8, conv_strides=(1,), position_kernel=3, position_groups=4)


EMBEDDERS = {
    "embedder-patches": embedder(patches()),
    "embedder-patches-tokens": embedder(patches(), output="tokens"),
    "embedder-patches-crops": embedder(patches(), crop_size=2),
    "embedder-resnet": embedder(resnet()),
    "embedder-frames": embedder(frames()).set_params(
        objective=Wav2Vec2CMSC(global_weight=0, halve=False, codebook_size=4, target_dim=8, n_negatives=4)),
    "embedder-tokens": embedder(tokens()).set_params(objective=MaskedLanguageModeling()),
}
PREPROCESSING = {
    "bandpass": BandpassFilter(fs=100), "scaler": LeadScaler(), "scaler-record": LeadScaler(scope="record"),
    "scaler-lead": LeadScaler(scope="lead"), "selector": LeadSelector(["II", "I"], input_lead_names=["I", "II"]),
    "gate": QualityGate(fs=100),
    "integral": QRSIntegral(fs=10, onset=0.0, baseline=0.0),
    "quantizer": ECGQuantizer(16, method="lloyd-max"),
}
CLASSIFIERS = {
    "classifier-patches": supervised(ECGClassifier, patches()),
    "classifier-resnet": supervised(ECGClassifier, resnet()),
    "head-classifier": HeadClassifier(random_state=0),
}
REGRESSORS = {
    "regressor-resnet": supervised(ECGRegressor, resnet()),
    "head-regressor": HeadRegressor(random_state=0),
}
ESTIMATORS = {**EMBEDDERS, **PREPROCESSING, **CLASSIFIERS, **REGRESSORS}

RNG = np.random.default_rng(0)
Y = np.arange(20) % 2
X = (RNG.normal(size=(20, 2, 30)) + np.sin(np.arange(30) / (2 + Y[:, None, None]))).astype(np.float32)
X.setflags(write=False)
Y.setflags(write=False)


# --- scikit-learn's checks, fed with two leads -----------------------------------------------------------------

# These take X apart themselves, or make X without the hook; twins are below.
NOT_IN_3D = {
    "check_estimator_sparse_array", "check_estimator_sparse_matrix", "check_estimator_sparse_tag", "check_complex_data",
    "check_fit1d", "check_fit2d_predict1d", "check_fit2d_1feature", "check_n_features_in_after_fitting",
    "check_transformer_general", "check_transformer_data_not_an_array", "check_classifier_data_not_an_array",
    "check_regressor_data_not_an_array", "check_array_api_input", "check_estimators_nan_inf",
    "check_f_contiguous_array_estimator",
    "check_classifiers_multilabel_representation_invariance", "check_classifiers_multilabel_output_format_predict",
    "check_classifiers_multilabel_output_format_predict_proba",
    "check_classifiers_multilabel_output_format_decision_function",
}
# Of classifiers and regressors, these take labels out of X.
LABELS_FROM_X = {
    "check_dict_unchanged", "check_dont_overwrite_parameters", "check_methods_subset_invariance",
    "check_methods_sample_order_invariance",
}


def two_leads(estimator, X, X_test=None, kernel=None):
    """The hook through which most checks pass their data: (n, f) to (n, 2, f), the second lead a mirror image."""
    def widen(X):
        X = np.asarray(X)
        return np.stack([X, X[:, ::-1]], axis=1) if X.ndim == 2 else X

    return widen(X) if X_test is None else (widen(X), widen(X_test))


def on_subsets(function, X):
    """As scikit-learn's, for samples of any shape."""
    whole, parts = function(X), [function(sample[None]) for sample in X]
    if isinstance(whole, tuple):
        whole, parts = whole[0], [part[0] for part in parts]
    return np.ravel(whole), np.ravel(np.concatenate(parts))


def feedable(name, original):
    for estimator, check in checks.estimator_checks_generator(original):
        function, keywords = getattr(check, "func", check), getattr(check, "keywords", {})
        trains = function.__name__ in ("check_classifiers_train", "check_regressors_train")
        if trains and (name.startswith("head") or keywords):
            continue  # the mean of a token and its mirror image knows nothing of y; memmaps have their twin
        if function.__name__ not in NOT_IN_3D | (LABELS_FROM_X if name in CLASSIFIERS | REGRESSORS else set()):
            options = "".join(f"-{k}={v}" for k, v in keywords.items())
            yield pytest.param(estimator, check, id=f"{name}-{function.__name__}{options}")


@pytest.mark.parametrize(
    ("estimator", "check"), [param for name, original in ESTIMATORS.items() for param in feedable(name, original)])
def test_estimator_check_on_two_leads(estimator, check, monkeypatch):
    monkeypatch.setattr(checks, "_enforce_estimator_tags_X", two_leads)
    monkeypatch.setattr(checks, "_apply_on_subsets", on_subsets)
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"skipped: {skipped}")


def test_the_hooks_are_still_there():
    """They are private: if scikit-learn drops them, the checks above silently run on one lead."""
    seen = []

    class Spy(LeadScaler):
        def fit(self, X, y=None):
            seen.append(np.ndim(X))
            return super().fit(X)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_enforce_estimator_tags_X", two_leads)
        patch.setattr(checks, "_apply_on_subsets", on_subsets)
        checks.check_methods_subset_invariance("Spy", Spy())
    assert seen == [3]


# --- twins -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request):
    estimator = clone(ESTIMATORS[request.param])
    return estimator.fit(X, Y)


def methods(estimator):
    return [m for m in ("transform", "predict", "predict_proba", "decision_function") if hasattr(estimator, m)]


def outputs(estimator, X):
    return [getattr(estimator, method)(X) for method in methods(estimator)]


def assert_same_outputs(estimator, X, expected):
    for result, other in zip(outputs(estimator, X), expected, strict=True):
        assert_array_equal(result, other)
        assert result.dtype == other.dtype


def test_subsets_and_orders_are_exact(fitted):
    expected = outputs(fitted, X)
    rng = np.random.default_rng(1)
    for rows in ([0], [7], [3, 4], rng.permutation(20), rng.permutation(20)[:13]):
        assert_same_outputs(fitted, X[rows], [value[rows] for value in expected])


def test_fit_is_idempotent(fitted):
    expected = outputs(fitted, X)
    assert_same_outputs(clone(fitted).fit(X, Y), X, expected)
    assert_same_outputs(copy.deepcopy(fitted).fit(X, Y), X, expected)


def test_dict_is_unchanged_by_prediction(fitted):
    before = {name: id(value) for name, value in vars(fitted).items()}
    digest = joblib.hash(fitted)
    outputs(fitted, X)
    assert {name: id(value) for name, value in vars(fitted).items()} == before
    assert joblib.hash(fitted) == digest


def test_fit_sets_only_learned_attributes(fitted):
    new = set(vars(fitted)) - set(vars(clone(fitted)))
    assert all(name.startswith("_") or name.endswith("_") for name in new)
    assert vars(clone(fitted)).keys() <= vars(fitted).keys()


def test_read_only_memmap(fitted, tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = outputs(fitted, X)
    assert_same_outputs(fitted, mapped, expected)
    assert_same_outputs(clone(fitted).fit(mapped, Y), mapped, expected)


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_pickle(fitted, tmp_path, mmap_mode):
    expected = outputs(fitted, X)
    assert_same_outputs(pickle.loads(pickle.dumps(fitted)), X, expected)
    joblib.dump(fitted, tmp_path / "estimator")
    assert_same_outputs(joblib.load(tmp_path / "estimator", mmap_mode=mmap_mode), X, expected)


@pytest.mark.parametrize("kind", ["float64", "list", "fortran", "strided", "object", "big-endian"])
def test_equal_values_in_other_containers(fitted, kind):
    same = {
        "float64": lambda: X.astype(np.float64), "list": lambda: X.tolist(), "fortran": lambda: np.asfortranarray(X),
        "strided": lambda: np.repeat(X, 2, axis=2)[..., ::2], "object": lambda: X.astype(object),
        "big-endian": lambda: X.astype(">f4"),
    }[kind]()
    for estimator in (fitted, clone(fitted).fit(same, Y)):
        for result, expected in zip(outputs(estimator, same), outputs(fitted, X), strict=True):
            assert_allclose(result, expected, rtol=1e-4, atol=1e-5) if expected.dtype.kind == "f" else (
                assert_array_equal(result, expected))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint8, bool])
def test_integers(fitted, dtype):
    counts = X > 0 if dtype is bool else np.round(X * 50 + 100).astype(np.uint8).astype(dtype)
    for result in outputs(clone(fitted).fit(counts, Y), counts):
        assert result.dtype.kind != "f" or np.isfinite(result).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_of_the_result(fitted, dtype):
    if not hasattr(fitted, "transform"):
        assert fitted.predict(X.astype(dtype)).dtype == (np.float64 if is_regressor(fitted) else Y.dtype)
        if is_classifier(fitted):
            assert fitted.predict_proba(X.astype(dtype)).dtype == np.float64
        return
    result = fitted.transform(X.astype(dtype))
    own = {ECGSelfSupervisedEmbedder: np.float32, ECGQuantizer: np.int16}
    assert result.dtype == own.get(type(fitted), dtype)


def test_shape_attributes(fitted):
    assert fitted.n_features_in_ == 2
    if not isinstance(fitted, (HeadClassifier, HeadRegressor)):
        assert (fitted.n_leads_in_, fitted.n_times_in_) == (2, 30)
    for result in outputs(fitted, X):
        assert len(result) == 20


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda X: X[:, :1], r"1 lead|1 features|shape \(1, 30\)"),
    (lambda X: X.repeat(2, axis=1), r"4 lead|4 features|shape \(4, 30\)"),
    (lambda X: X[0], "(?i)shape|features"),
    (lambda X: X[0, 0], "(?i)reshape your data|1d array"),
    (lambda X: np.where(np.arange(30) == 4, np.inf, X), "(?i)infinit"),
    (lambda X: np.where(np.arange(30) == 4, np.nan, X), "(?i)nan"),
    (lambda X: X[:0], "(?i)0 sample"),
    (lambda X: X.astype(complex), "(?i)complex data not supported"),
    (lambda X: X.astype(str)[..., :0].repeat(2), "(?i)reshape|1d array|feature"),
], ids=["fewer leads", "more leads", "one sample unwrapped", "one lead unwrapped", "inf", "nan", "empty", "complex", "text"])
def test_bad_input_is_refused(fitted, spoil, message):
    for method in methods(fitted):
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(spoil(X))


def test_other_lengths(fitted):
    """Filters and scalers take any length; networks only what they were fitted on."""
    if any(type(fitted) is type(estimator) for estimator in PREPROCESSING.values()):
        shape = (20, 2) if isinstance(fitted, QRSIntegral) else (20, 2, 20)
        assert fitted.transform(X[..., :20]).shape == shape
        return
    for method in methods(fitted):
        with pytest.raises(ValueError, match=r"20 samples in time|shape \(2, 20\)"):
            getattr(fitted, method)(X[..., :20])


def test_sparse_input_is_refused(fitted):
    matrix = sparse.csr_array(X[:, 0])
    with pytest.raises(TypeError, match=r"(?i)sparse"):
        clone(fitted).fit(matrix, Y)


def test_unfitted(fitted):
    for method in methods(fitted):
        with pytest.raises(NotFittedError):
            getattr(clone(fitted), method)(X)


def test_input_is_left_alone(fitted):
    mine, target = X.copy(), Y.copy()
    outputs(clone(fitted).fit(mine, target), mine)
    assert_array_equal(mine, X)
    assert_array_equal(target, Y)


def test_predictors_learn(fitted):
    if hasattr(fitted, "score"):
        assert fitted.score(X, Y) > 0.8


def test_fit_transform_is_fit_then_transform(fitted):
    if hasattr(fitted, "transform"):
        assert_array_equal(clone(fitted).fit_transform(X, Y), fitted.transform(X))
