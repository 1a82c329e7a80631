import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from skorch.callbacks import Callback

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier
from skecg._training import _drop_leads, module_state
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.heads import Head, LinearHead

ENCODERS = {
    "patches": PatchTransformer(25, embed_dim=16, depth=2, n_heads=2),
    "resnet": ResNet1d(4, (1, 1), kernel_size=3),
}
CLASSES = ("normal", "left bundle branch block", "inferior myocardial infarction")


def read_only(*arrays):
    for array in arrays:
        array.setflags(write=False)
    return arrays


@pytest.fixture(scope="module")
def data():
    return read_only(*make_ecg(
        48, n_patients=24, classes=CLASSES[:2], duration=2.0, lead_names=("I", "V1"), random_state=0))


@pytest.fixture(scope="module")
def three():
    return read_only(*make_ecg(
        48, n_patients=24, classes=CLASSES, duration=2.0, lead_names=("I", "V1"), random_state=0))


def make_embedder(encoder="patches", **params):
    return ECGSelfSupervisedEmbedder(clone(ENCODERS[encoder]), **{"max_epochs": 1, "random_state": 0, **params})


@pytest.fixture(scope="module", params=ENCODERS)
def pretrained(request, data):
    return make_embedder(request.param, max_epochs=2).fit(data[0])


@pytest.fixture(scope="module")
def patches(data):
    return make_embedder(max_epochs=2).fit(data[0])


def make(embedder, **params):
    if hasattr(embedder, "network_"):
        embedder = FrozenEstimator(embedder)
    return ECGClassifier(embedder, **{"max_epochs": 2, "batch_size": 16, "random_state": 0, **params})


def head_classifier(**params):
    return HeadClassifier(**{"max_epochs": 5, "random_state": 0, **params})


def state_bytes(classifier):
    modules = [classifier.head_network_]
    if hasattr(classifier, "embedder_"):
        modules.append(classifier.embedder_.network_)
    return b"".join(value.tobytes() for module in modules for value in module_state(module).values())


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda y: None, "requires y to be passed, but the target y is None"),
    (lambda y: np.zeros(len(y), int), "at least 2 classes; y holds 1 class"),
    (lambda y: np.linspace(0, 1, len(y)), "(?i)unknown label type: continuous"),
    (lambda y: y[:-1], "inconsistent numbers of samples"),
    (lambda y: np.where(y == y[0], np.nan, 1.0), "(?i)nan"),
    (lambda y: np.where(y == y[0], np.inf, 1.0), "(?i)infinity"),
    (lambda y: np.stack([np.arange(len(y)) % 3] * 2, axis=1), r"(?i)should be a 1d array|multioutput"),
], ids=["none", "one class", "continuous", "shorter", "nan", "inf", "several multi-class columns"])
@pytest.mark.parametrize("kind", ["signals", "embeddings"])
def test_bad_labels(data, patches, kind, spoil, message):
    X, y, _ = data
    estimator, X = (make(patches), X) if kind == "signals" else (head_classifier(), X[:, 0])
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, spoil(y))


@pytest.mark.parametrize(("params", "fit", "message"), [
    ({"trainable": "some"}, {}, "'trainable' parameter of ECGClassifier must be"),
    ({"trainable": 0}, {}, "'trainable' parameter of ECGClassifier must be"),
    ({"trainable": 3}, {}, "trainable=3, but the network has 2 blocks"),
    ({"class_weight": "fair"}, {}, "'class_weight' parameter of ECGClassifier must be"),
    ({"head": "linear"}, {}, "'head' parameter of ECGClassifier must be"),
    ({}, {"X_val": np.zeros((2, 2, 200))}, "X_val and y_val belong together"),
    ({}, {"y_val": [0, 1]}, "X_val and y_val belong together"),
    ({}, {"X_val": np.ones((2, 2, 200)), "y_val": ["normal", "unheard of"]}, "y_val holds classes.*: unheard of"),
    ({}, {"X_val": np.ones((2, 2, 200)), "y_val": ["normal"]}, "inconsistent numbers of samples"),
    ({}, {"X_val": np.ones((2, 3, 200)), "y_val": ["normal"] * 2}, "X has 3 lead"),
    ({}, {"X_unlabeled": np.ones((4, 2, 200))}, "the embedder is frozen and would not see it"),
    ({}, {"groups": [0, 1]}, "inconsistent numbers of samples"),
    ({"early_stopping": True}, {"groups": np.zeros(48)}, "groups names a single one"),
])
def test_bad_arguments(data, patches, params, fit, message):
    X, y, _ = data
    with pytest.raises(ValueError, match=message):
        make(patches, **params).fit(X, np.array(["normal", "other"])[(y == y[0]).astype(int)], **fit)


def test_embedder_of_another_kind(data, patches):
    X, y, _ = data
    with pytest.raises(ValueError, match="'embedder' parameter of ECGClassifier must be"):
        make(PCA()).fit(X, y)
    with pytest.raises(ValueError, match=r"The frozen estimator is a PCA.*HeadClassifier"):
        make(FrozenEstimator(PCA().fit(X[:, 0]))).fit(X, y)
    with pytest.raises(NotFittedError, match="FrozenEstimator holds an ECGSelfSupervisedEmbedder that is not fitted"):
        make(FrozenEstimator(make_embedder())).fit(X, y)
    with pytest.raises(ValueError, match="X has 1 lead"):
        make(patches).fit(X[:, :1], y)
    with pytest.raises(ValueError, match="X has 100 samples in time"):
        make(patches).fit(X[..., :100], y)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda X: X[:, :1], r"X has 1 lead\(s\)"),
    (lambda X: X[..., :150], "X has 150 samples in time"),
    (lambda X: X.transpose(0, 2, 1), "axes are swapped"),
    (lambda X: np.where(np.arange(200) < 3, np.nan, X), "NaN inside a lead"),
    (lambda X: np.full_like(X, np.nan), "every lead of sample 0 is missing"),
])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_bad_signals_in_prediction(data, patches, spoil, message, method):
    X, y, _ = data
    classifier = make(patches, max_epochs=0).fit(X, y)
    with pytest.raises(ValueError, match=message):
        getattr(classifier, method)(spoil(X))


def test_failed_fit_is_not_fitted(data, patches):
    X, y, _ = data
    for estimator, signals in ((make(patches, trainable=5), X), (head_classifier(max_epochs=-1), X[:, 0])):
        with pytest.raises(ValueError):
            estimator.fit(signals, y)
        with pytest.raises(NotFittedError):
            estimator.predict(signals)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda T: T[:, :3], "X has 3 features, but HeadClassifier is expecting 6|was fitted on"),
    (lambda T: np.where(np.arange(4) == 1, np.nan, T), "NaN inside a token"),
    (lambda T: np.full_like(T, np.nan), "without any token"),
    (lambda T: np.where(np.arange(4) == 1, np.inf, T), "infinity"),
    (lambda T: T[..., :3], r"samples of shape \(6, 3\), but HeadClassifier was fitted on \(6, 4\)"),
    (lambda T: T[None], "expect"),
])
def test_bad_sequences(spoil, message):
    T, y = np.random.default_rng(0).normal(size=(12, 6, 4)).astype(np.float32), np.arange(12) % 2
    with pytest.raises(ValueError, match=message):
        head_classifier().fit(T, y).predict(spoil(T))


# --- labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [
    np.array(["sinus", "AFIB", "flutter"]), np.array([10, -3, 7]), np.array([0.0, 2.0, 1.0]),
    np.array(["b", "a", "c"], dtype=object),
], ids=["str", "int", "float", "object"])
def test_labels_of_any_kind(three, patches, labels):
    X, y, _ = three
    codes = np.unique(y, return_inverse=True)[1]
    classifier = make(patches, max_epochs=25, learning_rate=5e-3).fit(X, labels[codes])
    assert_array_equal(classifier.classes_, np.sort(labels))
    assert classifier.classes_.dtype == labels.dtype
    assert classifier.score(X, labels[codes]) > 0.8
    proba = classifier.predict_proba(X)
    assert proba.shape == (48, 3)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert_array_equal(classifier.predict(X), classifier.classes_[proba.argmax(axis=1)])
    assert classifier.decision_function(X).shape == (48, 3)


def test_two_classes(data, patches):
    X, y, _ = data
    classifier = make(patches).fit(X, y)
    logits, proba = classifier.decision_function(X), classifier.predict_proba(X)
    assert logits.shape == (48,) and proba.shape == (48, 2)
    assert_allclose(np.log(proba[:, 1] / proba[:, 0]), logits, rtol=1e-4, atol=1e-5)
    assert_array_equal(classifier.predict(X), classifier.classes_[(logits > 0).astype(int)])


def test_booleans_and_series(data, patches):
    X, y, _ = data
    y = y == y[0]
    classifier = make(patches).fit(X, pd.Series(y))
    assert classifier.classes_.dtype == bool
    assert state_bytes(classifier) == state_bytes(make(patches).fit(X, y.tolist()))


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("kind", ["signals", "embeddings"])
def test_multilabel(three, patches, kind, class_weight):
    X, y, _ = three
    codes = np.unique(y, return_inverse=True)[1]
    Y = np.stack([codes == 0, codes >= 1, codes < 0, codes >= 0], axis=1).astype(int)  # the last two never vary
    if kind == "signals":
        classifier = make(patches, max_epochs=25, learning_rate=5e-3, class_weight=class_weight)
    else:
        classifier = head_classifier(max_epochs=30, class_weight=class_weight)
        X = 3 * np.eye(3)[codes] + np.random.default_rng(0).normal(size=(48, 3))
    classifier.fit(X, Y)
    proba = classifier.predict_proba(X)
    assert proba.shape == (48, 4)
    assert_array_equal(classifier.predict(X), proba > 0.5)
    assert_array_equal(classifier.classes_, np.arange(4))
    assert (classifier.predict(X)[:, :2] == Y[:, :2]).mean() > 0.8
    assert (proba[:, 2] < 0.05).all() and (proba[:, 3] > 0.95).all()


def test_multilabel_refuses_a_dictionary_of_weights(three, patches):
    X, y, _ = three
    Y = (np.unique(y)[:, None] == y).T.astype(int)
    with pytest.raises(ValueError, match="multi-label targets take class_weight='balanced' or None"):
        make(patches, class_weight={0: 1.0, 1: 2.0}).fit(X, Y)


def test_untrained_head_predicts_class_frequencies(three, patches):
    X, y, _ = three
    rows = np.r_[np.flatnonzero(y == np.unique(y)[0])[:3], np.flatnonzero(y != np.unique(y)[0])]
    classifier = make(patches, max_epochs=0).fit(X[rows], y[rows])
    frequency = [np.mean(y[rows] == label) for label in classifier.classes_]
    assert_allclose(classifier.predict_proba(X), np.tile(frequency, (48, 1)), rtol=1e-5)
    binary = make(patches, max_epochs=0).fit(X[rows], y[rows] == classifier.classes_[0])
    assert_allclose(binary.predict_proba(X)[:, 1], frequency[0], rtol=1e-5)


# --- class weights ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overlapping():
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 == 0).astype(int)
    return rng.normal(size=(300, 3)) + y[:, None], y


def test_balanced_weights_find_the_rare_class(overlapping):
    X, y = overlapping
    plain, balanced = (head_classifier(max_epochs=20, class_weight=w).fit(X, y) for w in (None, "balanced"))
    assert balanced.predict(X)[y == 1].mean() > plain.predict(X)[y == 1].mean() + 0.2
    assert balanced.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_balanced_weights_are_those_of_scikit_learn(overlapping, n_classes):
    X, y = overlapping
    y = y if n_classes == 2 else y + 2 * (np.arange(300) % 7 == 0)
    y = np.minimum(y, 2)
    explicit = dict(zip(np.unique(y), compute_class_weight("balanced", classes=np.unique(y), y=y), strict=True))
    one, other = (head_classifier(class_weight=w).fit(X, y) for w in (explicit, "balanced"))
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-5)


def test_equal_weights_change_nothing(overlapping):
    X, y = overlapping
    one, other = (head_classifier(class_weight=w).fit(X, y) for w in ({0: 3.0, 1: 3.0}, None))
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-5)


def test_weights_of_string_labels(overlapping):
    X, y = overlapping
    names = np.array(["N", "V"])[y]
    one = head_classifier(class_weight={"N": 1, "V": 20}).fit(X, names)
    other = head_classifier(class_weight={0: 1, 1: 20}).fit(X, y)
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))


# --- what trains -----------------------------------------------------------------------------------------------


def changed(classifier, embedder):
    before, after = module_state(embedder.network_), module_state(classifier.embedder_.network_)
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.mark.parametrize("trainable", ["all", "head", 1, 2])
def test_trainable(data, pretrained, trainable):
    X, y, _ = data
    before = joblib.hash(pretrained)
    classifier = make(pretrained, trainable=trainable).fit(X, y)
    assert joblib.hash(pretrained) == before  # the frozen original is never touched
    names = set(module_state(pretrained.network_)) - {"center", "scale"}
    top = [] if trainable == "head" else list(range(2))[-trainable:] if trainable != "all" else [0, 1]
    expected = {name for name in names if any(name.startswith(f"blocks.{k}.") for k in top)}
    if trainable != "head":
        expected |= {name for name in names if name.startswith("norm.")}  # after the last block
    if trainable == "all":
        expected = names
    assert changed(classifier, pretrained) == expected  # buffers of batch normalisation included
    assert np.abs(classifier.head_network_.linear.weight.detach().numpy()).max() > 0
    assert all(p.requires_grad for p in classifier.embedder_.network_.parameters())
    assert not classifier.embedder_.network_.training and not classifier.head_network_.training


def test_head_of_tokens_leaves_the_network_alone(data, pretrained):
    X, y, _ = data
    classifier = make(pretrained, head=LastTokenHead(), trainable="head").fit(X, y)
    assert changed(classifier, pretrained) == set()


def test_head_of_tokens_gets_their_width(data):
    X, y, _ = data
    wide = make_embedder(max_epochs=0).set_params(encoder__pooling="lead").fit(X)  # n_features is twice embed_dim
    classifier = make(wide, head=LastTokenHead()).fit(X, y)
    assert classifier.head_network_.linear.in_features == 16
    assert classifier.predict_proba(X).shape == (48, 2)


class LastTokenHead(Head):
    """Reads tokens; a user's own head."""

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


def test_heads_of_tokens_agree_on_signals_and_on_sequences(data, patches):
    """ECGClassifier with a frozen network is HeadClassifier on the embedder's tokens."""
    X, y, _ = data
    X = X.copy()
    X[::3, 1] = np.nan
    tokens = copy.deepcopy(patches).set_params(output="tokens").transform(X)
    params = {"head": LastTokenHead(), "max_epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "random_state": 0,
              "precision": "float32"}
    one = make(patches, trainable="head", **params).fit(X, y)
    other = HeadClassifier(**params).fit(tokens, y)
    assert_allclose(one.predict_proba(X), other.predict_proba(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", [False, True])
def test_frozen_network_is_head_classifier_on_embeddings(data, pretrained, missing):
    X, y, _ = data
    X = X.copy()
    X[::3, 1] = np.nan if missing else 0
    params = {"max_epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "random_state": 0, "precision": "float32"}
    one = make(pretrained, trainable="head", **params).fit(X, y)
    other = HeadClassifier(**params).fit(pretrained.transform(X), y)
    assert_allclose(one.predict_proba(X), other.predict_proba(pretrained.transform(X)), rtol=1e-4, atol=1e-6)


def test_fine_tuned_embedding(data, pretrained):
    X, y, _ = data
    classifier = make(pretrained, learning_rate=1e-2).fit(X, y)
    embedding = classifier.embedder_.transform(X)
    assert np.abs(embedding - pretrained.transform(X)).max() > 1e-2
    with torch.no_grad():
        logits = classifier.head_network_(torch.from_numpy(embedding))[:, 0].numpy()
    assert_allclose(logits, classifier.decision_function(X), rtol=1e-4, atol=1e-5)


def test_plain_embedder_is_pretrained_in_fit(data):
    X, y, _ = data
    embedder = make_embedder(max_epochs=2)
    classifier = make(embedder, max_epochs=0).fit(X, y)
    assert not hasattr(embedder, "network_")
    assert len(classifier.embedder_.history_) == 2
    assert_array_equal(classifier.embedder_.transform(X), clone(embedder).fit(X).transform(X))


def test_pretraining_on_unlabeled_signals(data):
    X, y, _ = data
    more = make_ecg(20, duration=2.0, lead_names=("I", "V1"), random_state=1)[0]
    classifier = make(make_embedder(), max_epochs=0).fit(X, y, X_unlabeled=more)
    assert_array_equal(classifier.embedder_.transform(X), make_embedder().fit(more).transform(X))
    with pytest.raises(ValueError, match="X has 2 lead"):
        make(make_embedder()).fit(X, y, X_unlabeled=more[:, :1])


def test_default_embedder_takes_the_classifiers_seed(data):
    X, y, _ = data
    first, second, other = (
        make(make_embedder(random_state=None, max_epochs=0), random_state=seed).fit(X, y) for seed in (0, 0, 1))
    assert state_bytes(first) == state_bytes(second) != state_bytes(other)


def test_output_of_the_embedder_does_not_matter(data, patches):
    X, y, _ = data
    tokens = copy.deepcopy(patches).set_params(output="tokens")
    assert state_bytes(make(tokens).fit(X, y)) == state_bytes(make(patches).fit(X, y))
    assert tokens.output == "tokens"


# --- validation ------------------------------------------------------------------------------------------------


class Seen(Callback):
    """Ids, kept in the signals' first value, of the samples that train and that validate."""

    def __init__(self):
        self.train, self.valid = set(), set()

    def on_batch_end(self, net, batch, training=False, **kwargs):
        (self.train if training else self.valid).update(batch.x.flatten(1)[:, 0].round().int().tolist())


@pytest.mark.parametrize("kind", ["signals", "embeddings"])
@pytest.mark.parametrize("grouped", [True, False])
def test_early_stopping_keeps_patients_apart(data, patches, kind, grouped):
    X, y, groups = data
    X = X.copy()
    X[:, 0, 0] = np.arange(48)
    seen, groups = Seen(), groups if grouped else None
    params = {"early_stopping": True, "validation_fraction": 0.25, "callbacks": [seen], "random_state": 3}
    if kind == "signals":
        classifier = make(patches, **params)
    else:
        classifier, X = head_classifier(**params), X[:, 0]
    classifier.fit(X, y, groups=groups)
    assert seen.train | seen.valid == set(range(48))
    assert not seen.train & seen.valid
    assert len(seen.valid) == 12
    if grouped:
        assert not set(groups[list(seen.train)]) & set(groups[list(seen.valid)])
    else:  # stratified
        assert_allclose(np.mean(y[list(seen.valid)] == y[0]), np.mean(y == y[0]), atol=0.05)
    assert all("valid_loss" in row for row in classifier.history_)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_early_stopping_restores_the_best_weights(data, pretrained, trainable):
    X, y, _ = data
    flipped = np.where(y == np.unique(y)[0], np.unique(y)[1], np.unique(y)[0])  # learning makes this worse
    classifier = make(
        pretrained, early_stopping=True, n_iter_no_change=3, max_epochs=30, learning_rate=1e-2, trainable=trainable,
    ).fit(X, y, X_val=X, y_val=flipped)
    losses = [row["valid_loss"] for row in classifier.history_]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 30
    assert_allclose(log_loss(flipped, classifier.predict_proba(X)), losses[best], rtol=1e-4)
    assert min(losses[best + 1:]) > losses[best]
    assert not classifier.embedder_.network_.training


def test_x_val_without_early_stopping_is_only_watched(data, patches):
    X, y, _ = data
    watched = make(patches).fit(X, y, X_val=X[:7], y_val=y[:7])
    assert state_bytes(watched) == state_bytes(make(patches).fit(X, y))
    assert "valid_loss" in watched.history_[0]
    assert_allclose(watched.history_[-1]["valid_loss"], log_loss(
        y[:7], watched.predict_proba(X[:7]), labels=watched.classes_), rtol=1e-4)


def test_x_val_may_hold_one_class_and_missing_leads(data, patches):
    X, y, _ = data
    rows = np.flatnonzero(y == y[0])[:5]
    X_val = X[rows].copy()
    X_val[:2, 0] = np.nan
    history = make(patches).fit(X, y, X_val=X_val, y_val=y[rows]).history_
    assert np.isfinite([row["valid_loss"] for row in history]).all()


def test_y_val_of_multilabel_has_as_many_labels(three, patches):
    X, y, _ = three
    Y = (np.unique(y)[:, None] == y).T.astype(int)
    assert "valid_loss" in make(patches).fit(X, Y, X_val=X, y_val=Y).history_[0]
    with pytest.raises(ValueError, match=r"(?i)y_val"):
        make(patches).fit(X, Y, X_val=X, y_val=Y[:, :2])


# --- learning, history, state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_learns_in_either_precision(data, encoder, precision):
    X, y, _ = data
    classifier = make(
        make_embedder(encoder, max_epochs=0), max_epochs=25, learning_rate=5e-3, precision=precision).fit(X, y)
    assert classifier.score(X, y) > 0.9
    assert classifier.history_[-1]["loss"] < 0.7 * classifier.history_[0]["loss"]
    assert all(p.dtype == torch.float32 for p in classifier.embedder_.network_.parameters())
    assert classifier.predict_proba(X).dtype == np.float64


def test_history_is_plain(data, patches):
    X, y, _ = data
    history = make(patches).fit(X, y, X_val=X, y_val=y).history_
    assert [row["epoch"] for row in history] == [1, 2]
    assert set(history[0]) == {"epoch", "loss", "valid_loss", "learning_rate", "seconds"}
    assert all(type(value) in (int, float) for row in history for value in row.values())
    assert json.loads(json.dumps(history)) == history


@pytest.mark.parametrize("kind", ["signals", "embeddings"])
def test_same_seed_same_bits_and_pickle(data, pretrained, kind):
    X, y, _ = data
    estimator, X = (make(pretrained), X) if kind == "signals" else (head_classifier(), pretrained.transform(X))
    torch_state = torch.get_rng_state()
    classifier = estimator.fit(X, y)
    proba = classifier.predict_proba(X)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert state_bytes(clone(estimator).fit(X, y)) == state_bytes(classifier)
    assert state_bytes(clone(estimator).set_params(random_state=1).fit(X, y)) != state_bytes(classifier)
    before = joblib.hash(classifier)
    copied = pickle.loads(pickle.dumps(classifier))
    assert_array_equal(copied.predict_proba(X), proba)
    assert_array_equal(copied.predict(X), classifier.predict(X))
    assert joblib.hash(classifier) == before == joblib.hash(copied)
    assert b"torch" not in pickle.dumps(classifier)


def test_prediction_does_not_depend_on_other_samples(data, pretrained):
    X, y, _ = data
    X = X.copy()
    X[::3, 0] = np.nan
    classifier = make(pretrained).fit(X, y)
    proba = classifier.predict_proba(X)
    for rows in ([3], [3, 4], range(47, -1, -1), range(5, 40)):
        assert_array_equal(classifier.predict_proba(X[list(rows)]), proba[list(rows)])


def test_fits_in_parallel_threads_are_reproducible(data, pretrained):
    X, y, _ = data

    def fit(seed):
        return state_bytes(make(pretrained, random_state=seed, head=LinearHead(dropout=0.3)).fit(X, y))

    expected = [fit(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(fit, range(3))) == expected


def test_batches_of_one_sample(data, patches):
    X, y, _ = data
    classifier = make(patches, batch_size=1).fit(X[:6], y[:6] if len(set(y[:6])) > 1 else np.arange(6) % 2)
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_crops(data):
    X, y, _ = data
    classifier = make(make_embedder(crop_size=100), max_epochs=20, learning_rate=5e-3).fit(X, y)
    assert classifier.score(X, y) > 0.8
    halves = copy.deepcopy(classifier)
    halves.embedder_.set_params(crop_size=None)
    halves.embedder_.encoder_.any_length = True
    logits = [halves._outputs(X[..., half])[:, 0] for half in (np.s_[:100], np.s_[100:])]
    assert_allclose(classifier.decision_function(X), np.mean(logits, axis=0), atol=1e-5)


def test_other_window_length_where_the_encoder_takes_any(data):
    X, y, _ = data
    embedder = make_embedder().set_params(encoder__any_length=True).fit(X)
    classifier = make(embedder).fit(X[..., :120], y)
    assert (classifier.n_times_in_, classifier.embedder_.n_times_in_, embedder.n_times_in_) == (120, 120, 200)
    assert classifier.embedder_.transform(X[..., :120]).shape == (48, 16)


def test_one_lead_in_two_or_three_dimensions(data):
    X, y, _ = data
    flat, nested = (make(make_embedder()).fit(signals, y) for signals in (X[:, 0], X[:, :1]))
    expected = flat.predict_proba(X[:, 0])
    for classifier in (flat, nested):
        assert_array_equal(classifier.predict_proba(X[:, 0]), expected)
        assert_array_equal(classifier.predict_proba(X[:, :1]), expected)


def test_padding_in_sequences_does_not_matter():
    rng = np.random.default_rng(0)
    T, y = rng.normal(size=(20, 4, 3)).astype(np.float32), np.arange(20) % 2
    padded = np.concatenate([T, np.full((20, 2, 3), np.nan, np.float32)], axis=1)
    assert_allclose(
        head_classifier().fit(padded, y).predict_proba(padded), head_classifier().fit(T, y).predict_proba(T), rtol=1e-5)


def test_input_is_left_alone(data, pretrained):
    X, y, groups = data  # read-only
    make(pretrained, early_stopping=True).fit(X, y, groups=groups).predict(X)


class Missing(Callback):
    """Share of leads that are missing, in training and in validation."""

    def __init__(self):
        self.train, self.valid = [], []

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        valid = torch.ones(len(batch), 2, dtype=torch.bool) if batch.lead_valid is None else batch.lead_valid
        assert valid.any(dim=1).all()
        (self.train if training else self.valid).append(1 - valid.float().mean().item())


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_lead_dropout_is_for_training_only(data, patches, trainable):
    X, y, _ = data
    missing = Missing()
    dropping = make(patches, lead_dropout=0.4, trainable=trainable, max_epochs=6, callbacks=[missing])
    dropping.fit(X, y, X_val=X, y_val=y)
    # of two leads, both would go in 0.16 of the samples, which keep both: 0.4 - 0.16 of the leads are missing
    assert abs(np.mean(missing.train) - 0.24) < 0.06
    assert set(missing.valid) == {0.0}
    assert state_bytes(dropping) != state_bytes(make(patches, trainable=trainable, max_epochs=6).fit(X, y))
    assert_array_equal(dropping.predict_proba(X)[:3], dropping.predict_proba(X[:3]))


def test_head_epochs_alone_are_training_the_head(data, pretrained):
    X, y, _ = data
    alone = make(pretrained, head_epochs=3, max_epochs=0).fit(X, y)
    head = make(pretrained, trainable="head", max_epochs=3).fit(X, y)
    assert not changed(alone, pretrained)
    assert_array_equal(alone.predict_proba(X), head.predict_proba(X))


@pytest.mark.parametrize("head", ["vectors", "tokens"])
def test_head_epochs_come_first_and_then_everything_trains(data, pretrained, head):
    X, y, _ = data
    classifier = make(
        pretrained, head=LinearHead() if head == "vectors" else LastTokenHead(), head_epochs=2, max_epochs=3
    ).fit(X, y)
    assert [row["epoch"] for row in classifier.history_] == [1, 2, 3, 4, 5]
    assert changed(classifier, pretrained)


@pytest.mark.parametrize("probability", [0.1, 0.6])
def test_dropped_leads(probability):
    X = np.ones((4000, 3, 5), np.float32)
    X[::2, 0] = np.nan  # missing before
    dropped = np.isnan(_drop_leads(X, probability, np.random.default_rng(0)))
    assert (dropped.any(axis=2) == dropped.all(axis=2)).all()
    assert dropped[::2, 0].all()
    assert not dropped.all(axis=(1, 2)).any()
    # of three leads, dropping is undone if all three were hit
    expected = probability * (1 - probability**2)
    assert abs(dropped[1::2, 0, 0].mean() - expected) < 4 * np.sqrt(expected / 2000)


@pytest.mark.parametrize(("params", "fit"), [
    ({}, lambda X, y: {"X_val": X[:, :1], "y_val": y}),
    ({}, lambda X, y: {"X_val": X, "y_val": np.full(len(X), "unknown")}),
    ({"early_stopping": True}, lambda X, y: {"groups": np.zeros(len(X))}),
    ({"device": "nowhere"}, lambda X, y: {}),
], ids=["leads of X_val", "labels of y_val", "one patient", "device"])
def test_wrong_arguments_are_found_before_pretraining(data, monkeypatch, params, fit):
    X, y, _ = data
    monkeypatch.setattr(ECGSelfSupervisedEmbedder, "fit", lambda *args, **kwargs: pytest.fail("pretrained first"))
    with pytest.raises(ValueError):
        make(make_embedder(), **params).fit(X, y, **fit(X, y))


@pytest.mark.parametrize("min_updates, n_epochs", [(0, 2), (4, 2), (5, 3), (9, 5)])
def test_a_least_number_of_updates(min_updates, n_epochs):
    X, y, _ = make_ecg(20, duration=1.0, random_state=0)
    embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=8, depth=1, n_heads=2), max_epochs=0)
    options = {"max_epochs": 2, "min_updates": min_updates, "batch_size": 10}  # two batches
    clf = ECGClassifier(embedder, head_epochs=3, **options).fit(X, y)
    assert len(clf.history_) == 3 + n_epochs and clf.n_updates_ == 2 * (3 + n_epochs)
    head = HeadClassifier(**options).fit(X[:, 0], y)
    assert len(head.history_) == n_epochs and head.n_updates_ == 2 * n_epochs
