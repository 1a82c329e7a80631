"""ECGRegressor and HeadRegressor: targets, their units, losses, and the same ways of training as the classifiers."""

import copy
import json
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback

import skecg
from skecg import ECGRegressor, ECGSelfSupervisedEmbedder, HeadRegressor
from skecg._training import module_state
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.heads import Head, LinearHead

ENCODERS = {
    "patches": PatchTransformer(25, embed_dim=16, depth=2, n_heads=2),
    "resnet": ResNet1d(4, (1, 1), kernel_size=3),
}


@pytest.fixture(scope="module")
def data():
    """Signals of two leads, three positions in mm that they show, and patients."""
    X, _, groups = make_ecg(
        48, n_patients=24, classes=("normal",), duration=2.0, lead_names=("I", "V1"), random_state=0)
    rng = np.random.default_rng(0)
    sites = rng.uniform(-40, 40, size=(48, 3))
    sites[:, 0] += 120
    waves = np.sin(2 * np.pi * np.arange(200) / np.array([[100], [40], [25]]))
    X = (X + np.einsum("ij,jt->it", (sites - [120, 0, 0]) / 20, waves)[:, None] * [[1], [-1]]).astype(np.float32)
    for array in (X, sites, groups):
        array.setflags(write=False)
    return X, sites, groups


def make_embedder(encoder="patches", **params):
    return ECGSelfSupervisedEmbedder(clone(ENCODERS[encoder]), **{"max_epochs": 1, "random_state": 0, **params})


@pytest.fixture(scope="module", params=ENCODERS)
def pretrained(request, data):
    return make_embedder(request.param).fit(data[0])


@pytest.fixture(scope="module")
def patches(data):
    return make_embedder().fit(data[0])


def make(embedder, **params):
    if hasattr(embedder, "network_"):
        embedder = FrozenEstimator(embedder)
    return ECGRegressor(embedder, **{"max_epochs": 2, "batch_size": 16, "random_state": 0, **params})


def head_regressor(**params):
    return HeadRegressor(**{"max_epochs": 5, "random_state": 0, **params})


@pytest.fixture(params=["signals", "embeddings"])
def case(request, data, patches):
    """A function that makes a regressor, and what it is fitted on."""
    X, sites, groups = data
    if request.param == "signals":
        return lambda **params: make(patches, **params), X, sites, groups
    return head_regressor, X[:, 0], sites, groups


def state_bytes(regressor):
    modules = [regressor.head_network_]
    if hasattr(regressor, "embedder_"):
        modules.append(regressor.embedder_.network_)
    return b"".join(value.tobytes() for module in modules for value in module_state(module).values())


# --- targets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda y: None, "requires y to be passed, but the target y is None"),
    (lambda y: y[:-1], "inconsistent numbers of samples"),
    (lambda y: np.where(np.arange(48)[:, None] == 3, np.nan, y),
     "Input y contains NaN: 1 of 48 samples lack a value, first sample 3. Leave them out; .*X_unlabeled"),
    (lambda y: np.where(np.arange(48)[:, None] == 3, np.inf, y), "Input y contains infinity"),
    (lambda y: y[:, :, None], "dim 3"),
    (lambda y: y[:, :0], "0 feature|n_targets"),
    (lambda y: np.full(48, "apex"), "y holds text; expected numbers"),
    (lambda y: y.astype(str), "y holds text; expected numbers"),
    (lambda y: y.astype(str).astype(object), "y holds text; expected numbers"),
    (lambda y: y + 1j, "(?i)complex"),
], ids=["none", "shorter", "nan", "inf", "three dimensions", "no target", "text", "numbers as text",
        "numbers as text in objects", "complex"])
def test_bad_targets(case, spoil, message):
    estimator, X, y, _ = case
    with pytest.raises(ValueError, match=message):
        estimator().fit(X, spoil(y))


@pytest.mark.parametrize("shape", [(48,), (48, 1), (48, 2), (48, 3)])
def test_predictions_have_the_shape_of_y(case, shape):
    estimator, X, y, _ = case
    y = y[:, :shape[-1]].reshape(shape) if len(shape) == 2 else y[:, 0]
    regressor = estimator().fit(X, y)
    predicted = regressor.predict(X)
    assert predicted.shape == shape and predicted.dtype == np.float64
    assert regressor.target_mean_.shape == regressor.target_scale_.shape == (y.reshape(48, -1).shape[1],)
    assert regressor.predict(X[:1]).shape == (1, *shape[1:])
    assert not hasattr(regressor, "predict_proba") and not hasattr(regressor, "decision_function")


def test_a_column_is_the_same_as_a_vector(case):
    estimator, X, y, _ = case
    one, other = (estimator().fit(X, target).predict(X) for target in (y[:, 0], y[:, :1]))
    assert_array_equal(one, other[:, 0])


def test_targets_of_any_numeric_kind(case):
    estimator, X, y, _ = case
    whole = np.round(y)
    expected = estimator().fit(X, whole).predict(X)
    for same in (whole.astype(int), whole.tolist(), pd.DataFrame(whole, columns=["x", "y", "z"]), np.asfortranarray(whole)):
        assert_array_equal(estimator().fit(X, same).predict(X), expected)
    assert_array_equal(
        estimator().fit(X, pd.Series(whole[:, 0])).predict(X), estimator().fit(X, whole[:, 0]).predict(X))


def test_untrained_head_predicts_the_mean(case):
    estimator, X, y, _ = case
    assert_allclose(estimator(max_epochs=0).fit(X, y).predict(X), np.tile(y.mean(axis=0), (48, 1)), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e8, 1e-30])
def test_constant_targets_are_predicted_and_harm_no_others(case, value):
    estimator, X, y, _ = case
    mixed = np.column_stack([y[:, 0], np.full(48, value)])
    regressor = estimator().fit(X, mixed)
    predicted = regressor.predict(X)
    assert_allclose(predicted[:, 1], value, rtol=1e-12)  # although the mean of 48 times 0.1 is not 0.1
    assert regressor.target_scale_[1] == 1
    assert predicted[:, 0].std() > 0
    assert_allclose(estimator().fit(X, mixed[:, 1]).predict(X), value, rtol=1e-12)


@given(exponent=st.integers(-9, 9), shift=st.integers(-50, 50))
@settings(max_examples=10, deadline=None)
def test_the_unit_of_y_does_not_matter(exponent, shift):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4))
    y = X[:, :2] + rng.normal(size=(30, 2))
    scale = 10.0**exponent
    one, other = (head_regressor(max_epochs=10).fit(X, target) for target in (y, scale * (y + shift)))
    assert_allclose(other.predict(X), scale * (one.predict(X) + shift), rtol=1e-4, atol=1e-4 * scale)
    assert_allclose(other.target_scale_, scale * y.std(axis=0))


def test_small_differences_of_large_values_are_learned(data):
    _, y, _ = data
    X = y / 20
    regressor = head_regressor(max_epochs=100).fit(X, y[:, 0] + 1e9)  # float32 knows these to 64 only
    assert regressor.score(X, y[:, 0] + 1e9) > 0.9


# --- losses ----------------------------------------------------------------------------------------------------


def naive_loss(name, true, predicted, scale):
    total = 0.0
    for row, guess in zip(true, predicted, strict=True):
        for error in (guess - row) / scale:
            if name == "squared_error":
                total += error**2
            else:
                total += error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5
    return total / true.size


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_loss_is_that_of_standardised_targets(data, pretrained, loss):
    X, y, _ = data
    regressor = make(pretrained, loss=loss, precision="float32").fit(X[:30], y[:30], X_val=X[30:], y_val=y[30:])
    assert_allclose(regressor.target_mean_, y[:30].mean(axis=0))
    assert_allclose(regressor.target_scale_, y[:30].std(axis=0))
    expected = naive_loss(loss, y[30:], regressor.predict(X[30:]), regressor.target_scale_)
    assert_allclose(regressor.history_[-1]["valid_loss"], expected, rtol=1e-4)


def test_huber_is_robust_against_wrong_values():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    clean = X @ [10.0, -5.0, 3.0]
    spoiled = clean.copy()
    spoiled[::20] += 300  # one in twenty
    error = {
        loss: np.abs(head_regressor(max_epochs=200, loss=loss).fit(X, spoiled).predict(X) - clean)[1::20].mean()
        for loss in ("squared_error", "huber")
    }
    assert error["huber"] < 0.7 * error["squared_error"]


@pytest.mark.parametrize("loss", ["absolute", "mse", None])
def test_other_losses_are_refused(case, loss):
    estimator, X, y, _ = case
    with pytest.raises(ValueError, match=r"'loss' parameter of \w+Regressor must be a str among"):
        estimator(loss=loss).fit(X, y)


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_learns(data, encoder, loss):
    X, y, _ = data
    regressor = make(make_embedder(encoder, max_epochs=0), max_epochs=50, learning_rate=1e-2, loss=loss).fit(X, y)
    assert regressor.score(X, y) > 0.8
    assert regressor.history_[-1]["loss"] < 0.5 * regressor.history_[0]["loss"]
    for target in range(3):
        assert np.corrcoef(regressor.predict(X)[:, target], y[:, target])[0, 1] > 0.8


# --- validation ------------------------------------------------------------------------------------------------


class Seen(Callback):
    """Ids, kept in the signals' first value, of the samples that train and that validate."""

    def __init__(self):
        self.train, self.valid = set(), set()

    def on_batch_end(self, net, batch, training=False, **kwargs):
        (self.train if training else self.valid).update(batch.x.flatten(1)[:, 0].round().int().tolist())


@pytest.mark.parametrize("grouped", [True, False])
def test_early_stopping_keeps_patients_apart_and_scales_by_the_training_part(case, grouped):
    estimator, X, y, groups = case
    X = X.copy()
    X[(slice(None), *[0] * (X.ndim - 1))] = np.arange(48)
    seen = Seen()
    regressor = estimator(early_stopping=True, validation_fraction=0.25, callbacks=[seen], random_state=3)
    regressor.fit(X, y, groups=groups if grouped else None)
    assert seen.train | seen.valid == set(range(48)) and not seen.train & seen.valid
    assert len(seen.valid) == 12
    if grouped:
        assert not set(groups[list(seen.train)]) & set(groups[list(seen.valid)])
    assert_allclose(regressor.target_mean_, y[sorted(seen.train)].mean(axis=0))
    assert_allclose(regressor.target_scale_, y[sorted(seen.train)].std(axis=0))
    assert all("valid_loss" in row for row in regressor.history_)


def test_early_stopping_restores_the_best_weights(data, pretrained):
    X, y, _ = data
    wrong = 2 * y.mean(axis=0) - y  # learning makes this worse
    regressor = make(pretrained, early_stopping=True, n_iter_no_change=3, max_epochs=40, learning_rate=1e-2)
    regressor.fit(X, y, X_val=X, y_val=wrong)
    losses = [row["valid_loss"] for row in regressor.history_]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 40
    expected = naive_loss("squared_error", wrong, regressor.predict(X), regressor.target_scale_)
    assert_allclose(expected, losses[best], rtol=1e-4)


def test_x_val_without_early_stopping_is_only_watched(data, patches):
    X, y, _ = data
    watched = make(patches).fit(X, y, X_val=X[:7], y_val=y[:7])
    assert state_bytes(watched) == state_bytes(make(patches).fit(X, y))


def test_a_column_of_validation_targets_is_the_same_as_a_vector(data, patches):
    X, y, _ = data
    vector, column = y[:, 0], y[:, :1]
    losses = [
        make(patches).fit(X, target, X_val=X, y_val=other).history_[-1]["valid_loss"]
        for target in (vector, column) for other in (vector, column)
    ]
    assert len(set(losses)) == 1


@pytest.mark.parametrize(("params", "fit", "message"), [
    ({"trainable": 3}, {}, "trainable=3, but the network has 2 blocks"),
    ({"head": "linear"}, {}, "'head' parameter of ECGRegressor must be"),
    ({}, {"X_val": np.zeros((2, 2, 200))}, "X_val and y_val belong together"),
    ({}, {"X_val": np.ones((2, 2, 200)), "y_val": np.ones((2, 2))}, r"shape \(2, 2\), but y has 3 value.*\(2, 3\)"),
    ({}, {"X_val": np.ones((2, 2, 200)), "y_val": np.ones(2)}, r"y_val has shape \(2,\), but y has 3 value"),
    ({}, {"X_val": np.ones((2, 2, 200)), "y_val": np.full((2, 3), np.nan)}, "Input y_val contains NaN"),
    ({}, {"X_val": np.ones((2, 2, 200)), "y_val": np.ones((3, 3))}, "inconsistent numbers of samples"),
    ({}, {"X_unlabeled": np.ones((4, 2, 200))}, "the embedder is frozen and would not see it"),
    ({}, {"groups": [0, 1]}, "inconsistent numbers of samples"),
    ({"early_stopping": True}, {"groups": np.zeros(48)}, "groups names a single one"),
])
def test_bad_arguments(data, patches, params, fit, message):
    X, y, _ = data
    with pytest.raises(ValueError, match=message):
        make(patches, **params).fit(X, y, **fit)


def test_embedder_of_another_kind(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"The frozen estimator is a PCA; ECGRegressor needs an .*HeadRegressor"):
        make(FrozenEstimator(PCA().fit(X[:, 0]))).fit(X, y)


@pytest.mark.parametrize(("params", "fit"), [
    ({}, lambda X, y: {"X_val": X, "y_val": y[:, :2]}),
    ({"early_stopping": True}, lambda X, y: {"groups": np.zeros(len(X))}),
    ({"device": "nowhere"}, lambda X, y: {}),
], ids=["shape of y_val", "one patient", "device"])
def test_wrong_arguments_are_found_before_pretraining(data, monkeypatch, params, fit):
    X, y, _ = data
    monkeypatch.setattr(ECGSelfSupervisedEmbedder, "fit", lambda *args, **kwargs: pytest.fail("pretrained first"))
    with pytest.raises(ValueError):
        make(make_embedder(), **params).fit(X, y, **fit(X, y))


def test_failed_fit_is_not_fitted(data, patches):
    X, y, _ = data
    for estimator, signals in ((make(patches, trainable=5), X), (head_regressor(max_epochs=-1), X[:, 0])):
        with pytest.raises(ValueError):
            estimator.fit(signals, y)
        with pytest.raises(NotFittedError):
            estimator.predict(signals)


# --- what trains -----------------------------------------------------------------------------------------------


class LastTokenHead(Head):
    """Reads tokens, and starts at no particular output; a user's own head."""

    input = "tokens"

    def build(self, n_features, n_outputs):
        return LastToken(n_features, n_outputs)


class LastToken(torch.nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = torch.nn.Linear(n_features, n_outputs)

    def forward(self, h, padding_mask=None):
        if padding_mask is None:
            return self.linear(h[:, -1])
        last = (~padding_mask).to(torch.int64).cumsum(dim=1).argmax(dim=1)
        return self.linear(h[torch.arange(len(h)), last])


@pytest.mark.parametrize("head", [LinearHead(), LastTokenHead()], ids=["vectors", "tokens"])
def test_frozen_network_is_head_regressor_on_embeddings(data, patches, head):
    X, y, _ = data
    X = X.copy()
    X[::3, 1] = np.nan
    params = {"head": head, "max_epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "random_state": 0,
              "precision": "float32"}
    output = "tokens" if head.input == "tokens" else "embedding"
    T = copy.deepcopy(patches).set_params(output=output).transform(X)
    before = joblib.hash(patches)
    one, other = make(patches, trainable="head", **params).fit(X, y), HeadRegressor(**params).fit(T, y)
    assert joblib.hash(patches) == before
    assert_allclose(one.predict(X), other.predict(T), rtol=1e-3, atol=1e-2)
    assert_array_equal(one.predict(X)[:3], one.predict(X[:3]))


@pytest.mark.parametrize("trainable", ["all", "head", 1])
def test_trainable(data, patches, trainable):
    X, y, _ = data
    regressor = make(patches, trainable=trainable).fit(X, y)
    before, after = module_state(patches.network_), module_state(regressor.embedder_.network_)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    if trainable == "head":
        assert not changed
    elif trainable == 1:
        assert changed and all(name.startswith(("blocks.1.", "norm.")) for name in changed)
    else:
        assert changed == set(before) - {"center", "scale"}


def test_head_epochs_and_updates(data, patches):
    X, y, _ = data
    alone = make(patches, head_epochs=3, max_epochs=0).fit(X, y)
    assert_array_equal(alone.predict(X), make(patches, trainable="head", max_epochs=3).fit(X, y).predict(X))
    both = make(patches, head_epochs=2, max_epochs=1, min_updates=7, lead_dropout=0.3).fit(X, y)  # 3 batches
    assert [row["epoch"] for row in both.history_] == [1, 2, 3, 4, 5] and both.n_updates_ == 15
    head = head_regressor(max_epochs=1, min_updates=7, batch_size=16).fit(X[:, 0], y)
    assert len(head.history_) == 3 and head.n_updates_ == 9


def test_pretraining_on_unlabeled_signals(data):
    X, y, _ = data
    more = make_ecg(20, duration=2.0, lead_names=("I", "V1"), random_state=1)[0]
    regressor = make(make_embedder(), max_epochs=0).fit(X, y, X_unlabeled=more)
    assert_array_equal(regressor.embedder_.transform(X), make_embedder().fit(more).transform(X))


def test_crops(data):
    X, y, _ = data
    regressor = make(make_embedder(crop_size=100)).fit(X, y)
    halves = copy.deepcopy(regressor)
    halves.embedder_.set_params(crop_size=None)
    halves.embedder_.encoder_.any_length = True
    halves.n_times_in_ = 100
    parts = [halves.predict(X[..., half]) for half in (np.s_[:100], np.s_[100:])]
    assert_allclose(regressor.predict(X), np.mean(parts, axis=0), rtol=1e-4)


# --- state -----------------------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_pickle(case):
    estimator, X, y, _ = case
    torch_state = torch.get_rng_state()
    regressor = estimator().fit(X, y)
    predicted = regressor.predict(X)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert state_bytes(clone(regressor).fit(X, y)) == state_bytes(regressor)
    assert state_bytes(clone(regressor).set_params(random_state=1).fit(X, y)) != state_bytes(regressor)
    before = joblib.hash(regressor)
    copied = pickle.loads(pickle.dumps(regressor))
    assert_array_equal(copied.predict(X), predicted)
    assert joblib.hash(regressor) == before == joblib.hash(copied)
    assert b"torch" not in pickle.dumps(regressor)


def test_save_and_load(case, tmp_path):
    estimator, X, y, _ = case
    regressor = estimator().fit(X, y)
    skecg.save(regressor, tmp_path / "model")
    loaded = skecg.load(tmp_path / "model")
    assert type(loaded) is type(regressor)
    assert_array_equal(loaded.predict(X), regressor.predict(X))
    skecg.save(loaded, tmp_path / "again")
    for name in ("config.json", "arrays.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_history_is_plain(data, patches):
    X, y, _ = data
    history = make(patches).fit(X, y, X_val=X, y_val=y).history_
    assert [row["epoch"] for row in history] == [1, 2]
    assert set(history[0]) == {"epoch", "loss", "valid_loss", "learning_rate", "seconds"}
    assert json.loads(json.dumps(history)) == history


def test_prediction_does_not_depend_on_other_samples(data, pretrained):
    X, y, _ = data
    X = X.copy()
    X[::3, 0] = np.nan
    regressor = make(pretrained).fit(X, y)
    predicted = regressor.predict(X)
    for rows in ([3], range(47, -1, -1), range(5, 40)):
        assert_array_equal(regressor.predict(X[list(rows)]), predicted[list(rows)])


def test_default_embedder_and_refit_on_another_number_of_targets(data):
    X, y, _ = data
    regressor = ECGRegressor(max_epochs=0, random_state=0)
    regressor.set_params(embedder=make_embedder(max_epochs=0))
    assert regressor.fit(X, y).predict(X).shape == (48, 3)
    assert regressor.fit(X, y[:, 0]).predict(X).shape == (48,)
