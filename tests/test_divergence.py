"""Training that diverges raises with the batch named, before the weights are ruined; what was fitted before stays."""

import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback
from torch import nn

from skecg import ECGClassifier, ECGRegressor, ECGSelfSupervisedEmbedder, HeadClassifier, HeadRegressor
from skecg._training import Plan, Signals, fit_network, module_state
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.objectives import MaskedReconstruction, Objective

RNG = np.random.default_rng(0)
X = np.cumsum(RNG.normal(size=(20, 2, 60)), axis=2).astype(np.float32)
Y = np.arange(20) % 2
VALUES = X[:, 0, 0].astype(float)


def embedder(encoder=None, **params):
    return ECGSelfSupervisedEmbedder(encoder or PatchTransformer(10, 8, 1, n_heads=2), **{
        "max_epochs": 3, "batch_size": 7, "random_state": 0, **params})


COMMON = {"max_epochs": 3, "batch_size": 7, "random_state": 0}
ESTIMATORS = {
    "embedder": embedder,
    "classifier": lambda **params: ECGClassifier(embedder(max_epochs=0), **{**COMMON, **params}),
    "regressor": lambda **params: ECGRegressor(embedder(max_epochs=0), **{**COMMON, **params}),
    "head classifier": lambda **params: HeadClassifier(**{**COMMON, **params}),
    "head regressor": lambda **params: HeadRegressor(**{**COMMON, **params}),
}


def fit(name, estimator, X=X):
    return estimator.fit(X[:, 0] if name.startswith("head") else X, VALUES if "regressor" in name else Y)


def networks(estimator):
    found = [getattr(estimator, name) for name in ("network_", "pretrainer_", "head_network_") if hasattr(estimator, name)]
    return found + ([estimator.embedder_.network_] if hasattr(estimator, "embedder_") else [])


def all_finite(estimator):
    return all(np.isfinite(value).all() for network in networks(estimator) for value in module_state(network).values())


class Poison(Callback):
    """Makes the values of some row extreme, or the gradient of a certain update not finite."""

    def __init__(self, row=None, value=np.nan, update=None):
        self.row, self.value, self.update = row, value, update
        self.weights, self.rows = None, None

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if not training:
            return
        self.weights = [p.detach().clone() for p in net.module_.parameters()]
        self.rows = list(net.batch_rows)
        if self.row in self.rows:
            batch.x[self.rows.index(self.row)] = self.value
        if self.update == batch.step + 1:
            parameter = next(p for p in net.module_.parameters() if p.requires_grad)
            parameter.register_hook(lambda gradient: gradient * self.value)

    def unchanged(self, parameters):
        return all(torch.equal(a, b) for a, b in zip(self.weights, parameters, strict=True))


# --- the batch is named ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_batch_with_extreme_values_is_named(name, value):
    poison = Poison(13, value)
    estimator = ESTIMATORS[name](callbacks=[poison], precision="float32")
    with pytest.raises(FloatingPointError, match=r"became (nan|inf) in update [123] \(epoch 1\), at rows") as caught:
        fit(name, estimator)
    listed = re.search(r"at rows ([\d, ]+)\.", str(caught.value)).group(1)
    assert [int(row) for row in listed.split(", ")] == poison.rows
    assert 13 in poison.rows
    assert "learning_rate" in str(caught.value)
    if value == 3e38:
        assert "The largest absolute value there is 3e+38, in row 13." in str(caught.value)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)


@pytest.mark.parametrize("update", [1, 5])
@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradient_that_is_not_finite_changes_no_weights(update, clip, value):
    """The loss is finite, its gradient is not."""
    kept = []

    class Line(nn.Linear):
        def forward(self, batch):
            kept.append(self)
            return {"loss": super().forward(batch.x).square().mean()}

    poison = Poison(value=value, update=update)
    plan = Plan(3, 5, 0.1, 0.0, 0, gradient_clip=clip, callbacks=[poison], device="cpu", precision="float32")
    with pytest.raises(FloatingPointError, match=rf"norm of the gradient became (nan|inf) in update {update} \(epoch"):
        fit_network(Line(3, 2), Signals(np.ones((10, 3), np.float32)), plan)
    assert poison.unchanged(kept[0].parameters())


class Broken(Objective):
    """A user's objective that goes wrong from some update on."""

    def __init__(self, update=1, value=np.nan, term="loss"):
        self.update = update
        self.value = value
        self.term = term

    def build(self, network):
        return BrokenModule(network, self)


class BrokenModule(nn.Module):
    def __init__(self, network, objective):
        super().__init__()
        self.encoder, self.settings = network, objective

    def forward(self, batch):
        loss = self.encoder(batch.x, batch.lead_valid).square().mean()
        terms = {"loss": loss, "other": loss.detach()}
        if batch.step + 1 >= self.settings.update:
            terms[self.settings.term] = terms[self.settings.term] + self.settings.value
        return terms


@pytest.mark.parametrize("update", [1, 2, 9])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_objective_that_returns_nan(update, value):
    """A constant that is not finite has no effect on the gradient."""
    poison = Poison()
    kept = []

    class Keep(Callback):
        def on_train_begin(self, net, **kwargs):
            kept.extend(net.module_.parameters())

    with pytest.raises(FloatingPointError, match=rf"training loss became {value} in update {update} \(epoch"):
        embedder(objective=Broken(update, value), callbacks=[poison, Keep()]).fit(X)
    assert poison.unchanged(kept)


def test_a_term_that_is_only_reported_may_be_nan():
    assert np.isnan(embedder(objective=Broken(1, np.nan, "other")).fit(X).history_[0]["other"])


def test_many_rows_are_cut_short():
    with pytest.raises(FloatingPointError, match=r"at rows (\d+, ){64}\.\.\. \(200 in all\)\. The largest"):
        embedder(objective=Broken(), batch_size=200).fit(np.tile(X, (10, 1, 1)))


def test_rows_are_those_of_x_also_with_a_validation_split():
    parts = set()
    for row in range(8):
        signals = X.copy()
        signals[row] = 3e38
        estimator = ECGClassifier(
            embedder(max_epochs=0), early_stopping=True, validation_fraction=0.4, precision="float32", **COMMON)
        message = rf"The (training|validation) loss became .* is 3e\+38, in row {row}\."
        with pytest.raises(FloatingPointError, match=message) as caught:
            estimator.fit(signals, Y)
        parts.add(str(caught.value).split()[1])
    assert parts == {"training", "validation"}


# --- weights are always finite ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("params", [
    {"learning_rate": 1e9}, {"learning_rate": 1e9, "gradient_clip": None}, {"learning_rate": 1e30, "weight_decay": 1.0},
    {"learning_rate": 1e38, "warmup": 0.0, "max_epochs": 1, "batch_size": 20},
], ids=["large", "not clipped", "decay", "one update"])
def test_exploding_steps_never_give_weights_that_are_not_finite(name, params):
    estimator = ESTIMATORS[name](**params)
    try:
        fit(name, estimator)
    except FloatingPointError as error:
        assert "learning_rate" in str(error)
        with pytest.raises(NotFittedError):
            check_is_fitted(estimator)
    else:
        assert all_finite(estimator)


@pytest.mark.parametrize("encoder", [PatchTransformer(10, 8, 1, n_heads=2), ResNet1d(4, (1, 1), kernel_size=3)],
                         ids=["transformer", "batch norm"])
@pytest.mark.parametrize("scale", [1e10, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("objective", [None, Broken(99)], ids=["default", "own"])
def test_extreme_signals_never_give_weights_that_are_not_finite(encoder, scale, objective):
    signals = X.copy()
    signals[13] = scale * np.sign(X[13])
    if objective is None and isinstance(encoder, ResNet1d):
        objective = MaskedReconstruction()
    model = embedder(encoder, objective=objective)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            model.fit(signals)
    except (FloatingPointError, ValueError) as error:
        assert str(error)
        assert not hasattr(model, "network_")
    else:
        assert all_finite(model)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_statistics_that_are_not_finite_are_found(tmp_path, checkpoints):
    """Of whatever origin; a checkpoint never holds them either."""

    class Overflow(Callback):
        def on_batch_end(self, net, **kwargs):
            statistics = dict(net.module_.named_buffers())
            next(value for name, value in statistics.items() if name.endswith("running_var")).fill_(np.inf)

    model = embedder(ResNet1d(4, (1, 1), kernel_size=3), objective=Broken(99), callbacks=[Overflow()],
                     checkpoint_dir=tmp_path if checkpoints else None)
    with pytest.raises(FloatingPointError, match=r"running statistics became inf in update 2 \(epoch 1\), at rows"):
        model.fit(X)
    model.set_params(batch_size=20, max_epochs=1)
    with pytest.raises(FloatingPointError, match=r"After 1 updates, .*running_var are no longer finite"):
        model.fit(X)
    assert list(tmp_path.iterdir()) == []


def test_constants_of_a_module_may_be_infinite():
    class Masked(Broken):
        def build(self, network):
            module = super().build(network)
            module.register_buffer("mask", torch.tensor([0.0, -np.inf]))
            return module

    assert all_finite(embedder(objective=Masked(99)).fit(X))


# --- what was fitted before stays ------------------------------------------------------------------------------


def state(estimator):
    return {
        name: value if not isinstance(value, nn.Module) else
        {key: tensor.numpy().tobytes() for key, tensor in value.state_dict().items()}
        for name, value in vars(estimator).items() if name.endswith("_") and name != "callbacks"
    }


@pytest.mark.parametrize("error", [FloatingPointError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_failed_fit_leaves_the_fitted_state(name, error):
    class Fail(Callback):
        def on_batch_end(self, net, batch=None, **kwargs):
            if batch.step == 4:
                raise error

    estimator = fit(name, ESTIMATORS[name]())
    before = state(estimator)
    signals = X[:, 0] if name.startswith("head") else X
    predict = estimator.transform if name == "embedder" else estimator.predict
    expected = predict(signals)
    with pytest.raises(error):  # on other samples, of another shape, with other classes
        fit(name, estimator.set_params(callbacks=[Fail()]), np.concatenate([X[:, :, 20:]] * 2)[:20])
    after = state(estimator)
    assert after.keys() == before.keys()
    for key, value in before.items():
        if isinstance(value, dict):
            assert after[key] == value, key
        else:
            assert after[key] is value, key
    assert_array_equal(predict(signals), expected)
    assert estimator.n_features_in_ == signals.shape[1]


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_failed_continuation_leaves_the_fitted_state(method):
    """The pretrainer of a warm start is not trained in place."""
    model = embedder(warm_start=True).fit(X)
    expected, history = model.transform(X), list(model.history_)
    bad = np.where(np.arange(20)[:, None, None] == 13, np.float32(3e38), X)
    with pytest.raises(FloatingPointError, match="row 13"):
        getattr(model.set_params(precision="float32"), method)(bad)
    assert_array_equal(model.transform(X), expected)
    assert model.history_ == history
    twice = embedder(warm_start=True).fit(X).fit(X)
    assert_array_equal(model.set_params(precision="auto").fit(X).transform(X), twice.transform(X))
