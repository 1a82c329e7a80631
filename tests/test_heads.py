import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close

from skecg import HeadClassifier
from skecg._torch import build_seeded
from skecg.heads import Head, LinearHead


def build(n_features=5, n_outputs=3, **params):
    module = build_seeded(lambda: LinearHead(**params).build(n_features, n_outputs), 0)
    with torch.no_grad():
        module.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    return module


def test_linear_head_is_a_linear_layer_on_standardised_embeddings():
    h = np.random.default_rng(0).normal(3.0, [0.1, 1.0, 10.0, 100.0, 1e-2], size=(64, 5)).astype(np.float32)
    module = build().train()
    standard = StandardScaler().fit_transform(h.astype(np.float64)).astype(np.float32)
    expected = module.linear(torch.from_numpy(standard))
    assert_close(module(torch.from_numpy(h)), expected, rtol=0.1, atol=0.1)  # of variance + 1e-5 in torch


def test_linear_head_uses_running_statistics_afterwards():
    h = torch.randn(64, 5) * 2 + 1
    module = build().train()
    for _ in range(200):
        module(h)
    module.eval()
    assert_close(module.norm.running_mean, h.mean(dim=0), rtol=1e-3, atol=1e-3)
    assert_close(torch.cat([module(row[None]) for row in h]), module(h), rtol=1e-5, atol=1e-5)


def test_untrained_linear_head_predicts_where_it_starts():
    module = LinearHead().build(5, 3)
    assert (module(torch.randn(4, 5)) == 0).all()
    module.start_at(torch.tensor([0.5, -1.0, 2.0]))
    assert_close(module(torch.randn(4, 5)), torch.tensor([[0.5, -1.0, 2.0]] * 4))


def test_single_sample_in_training():
    module = build().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    out = module(torch.ones(1, 5))
    assert torch.isfinite(out).all()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])  # statistics of one sample are not learned


def test_dropout():
    h = torch.randn(64, 5)
    plain, dropping = build().train(), build(dropout=0.5).train()
    assert not torch.allclose(plain(h), dropping(h))
    assert_close(plain.eval()(h), dropping.eval()(h))


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 10.0, 1e4])
def test_scale_of_the_embedding_does_not_matter(scale):
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.normal(size=(80, 4)) + 2 * y[:, None] * [1, 0, -1, 0]
    expected = HeadClassifier(random_state=0).fit(X, y).predict_proba(X)
    assert (expected.argmax(axis=1) == y).mean() > 0.9
    np.testing.assert_allclose(
        HeadClassifier(random_state=0).fit(scale * X, y).predict_proba(scale * X), expected, atol=0.02)


def test_a_head_must_build():
    class Empty(Head):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must implement build\(n_features, n_outputs\)"):
        HeadClassifier(Empty()).fit(np.eye(4), [0, 1, 0, 1])
