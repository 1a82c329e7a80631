import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.testing import assert_close

import skecg
from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier
from skecg._predictor import SupervisedModule
from skecg._torch import build_seeded
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, TokenTransformer
from skecg.encoders._token import TokenNetwork
from skecg.heads import BiLSTMHead
from skecg.preprocessing import ECGQuantizer, ECGTokenizer


def build(n_features=6, n_outputs=3, hidden_dim=5):
    module = build_seeded(lambda: BiLSTMHead(hidden_dim).build(n_features, n_outputs), 0)
    with torch.no_grad():
        module.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    return module.eval()


def by_hand(module, sequence):
    """Both directions step by step, by the equations of the LSTM."""
    states = []
    for lstm, steps in ((module.onwards, sequence), (module.backwards, sequence.flip(0))):
        w_in, w_state, b_in, b_state = (
            getattr(lstm, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = c = torch.zeros(lstm.hidden_size)
        for x in steps:
            i, f, g, o = (w_in @ x + b_in + w_state @ h + b_state).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        states.append(h)
    return module.linear(torch.cat(states))


def test_head_reads_the_tokens_that_are_there():
    h = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0))
    absent = torch.zeros(4, 9, dtype=torch.bool)
    absent[1, 5:] = True
    absent[2, :3] = absent[2, 6] = True  # a missing lead in front, padding in the middle
    absent[3, 1:] = True
    module = build()
    with torch.no_grad():
        found = module(h, absent)
        for row, gone, result in zip(h, absent, found, strict=True):
            assert_close(result, by_hand(module, row[~gone]))
        assert_close(module(h), torch.stack([by_hand(module, row) for row in h]))
        longer = torch.nn.functional.pad(h, (0, 0, 0, 4), value=7.0)
        assert_close(module(longer, torch.nn.functional.pad(absent, (0, 4), value=True)), found)


def test_nothing_at_all_gives_something_finite():
    assert torch.isfinite(build()(torch.zeros(2, 3, 6), torch.ones(2, 3, dtype=torch.bool))).all()


def test_untrained_head_predicts_where_it_starts():
    module = BiLSTMHead(4).build(6, 3)
    module.start_at(torch.tensor([0.5, -1.0, 2.0]))
    assert_close(module(torch.randn(4, 7, 6)), torch.tensor([[0.5, -1.0, 2.0]] * 4))


def test_published_numbers_of_trained_parameters():
    with torch.device("meta"):
        network = TokenNetwork(52_000, 1, 512, 768, 6, 12, 4.0, 0.1, 0.1, 512)
        head = BiLSTMHead(128).build(768, 5)

    def count(trainable):
        module = SupervisedModule(network, head, trainable, nn.CrossEntropyLoss())
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    assert count("head") == 920_837
    assert count(3) == 22_184_453
    assert count("all") == 82_860_288 + 920_837


def order_of_beats(n_samples=80, n_tokens=12):
    """Two kinds of events, in one order or the other: the mean over the tokens says nothing."""
    rng = np.random.default_rng(0)
    X = rng.normal(scale=0.1, size=(n_samples, n_tokens, 4)).astype(np.float32)
    y = np.arange(n_samples) % 2
    for row, label in zip(X, y, strict=True):
        first, second = np.sort(rng.choice(8, 2, replace=False))
        row[[first, second], [label, 1 - label]] += 3
        row[rng.integers(9, n_tokens + 1):] = np.nan
    return X, y


def test_order_is_learned_where_the_mean_knows_nothing():
    X, y = order_of_beats()
    params = {"max_epochs": 40, "batch_size": 20, "learning_rate": 2e-2, "random_state": 0}
    assert HeadClassifier(BiLSTMHead(8), **params).fit(X[:60], y[:60]).score(X[60:], y[60:]) > 0.9
    assert HeadClassifier(**params).fit(X[:60], y[:60]).score(X[60:], y[60:]) < 0.75


@pytest.fixture(scope="module")
def signals():
    X, y, _ = make_ecg(24, duration=2.0, random_state=0)
    X = X[:, :2].copy()
    X[3, 1] = np.nan
    return X, y


@pytest.fixture(scope="module")
def pretrained(signals):
    encoder = TokenTransformer(ECGQuantizer(16), ECGTokenizer(80), embed_dim=16, depth=2, n_heads=2)
    return ECGSelfSupervisedEmbedder(encoder, max_epochs=1, batch_size=8, random_state=0).fit(signals[0])


def test_fine_tuning_the_top_blocks(signals, pretrained, tmp_path):
    X, y = signals
    before = copy.deepcopy(pretrained.network_.state_dict())
    clf = ECGClassifier(
        FrozenEstimator(pretrained), BiLSTMHead(6), trainable=1, max_epochs=2, batch_size=8, random_state=0).fit(X, y)
    after = clf.embedder_.network_.state_dict()
    for name, value in before.items():
        assert torch.equal(value, pretrained.network_.state_dict()[name])
        moved = not torch.equal(value, after[name])
        assert moved == name.startswith("blocks.1.") or "key.bias" in name, name
    expected = clf.predict_proba(X)
    np.testing.assert_allclose(clf.predict_proba(X[3:5]), expected[3:5], atol=1e-5)
    skecg.save(clf, tmp_path / "model")
    np.testing.assert_array_equal(skecg.load(tmp_path / "model").predict_proba(X), expected)


def test_in_a_pipeline_on_tokens(signals, pretrained):
    X, y = signals
    tokens = clone(pretrained).set_params(output="tokens", max_epochs=0)
    pipe = make_pipeline(tokens, HeadClassifier(BiLSTMHead(6), max_epochs=2, random_state=0)).fit(X, y)
    assert pipe.predict_proba(X).shape == (24, len(np.unique(y)))


def test_on_any_encoder(signals):
    X, y = signals
    scratch = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=8, depth=1), max_epochs=0)
    clf = ECGClassifier(scratch, BiLSTMHead(4), max_epochs=1, batch_size=8, random_state=0).fit(X, y)
    assert np.isfinite(clf.predict_proba(X)).all()
