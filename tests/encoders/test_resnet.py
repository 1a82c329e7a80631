import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._torch import build_seeded
from skecg.encoders import ResNet1d
from skecg.encoders._resnet import _ResidualBlock

X = np.random.default_rng(0).normal(0.5, 2.0, size=(6, 3, 128)).astype(np.float32)


def build(**params):
    encoder = ResNet1d(**{"width": 4, "depths": (1, 2), "kernel_size": 3, **params}).fit(X)
    return encoder, build_seeded(encoder.build, 0).eval()


@pytest.mark.parametrize("depths", [(1,), (1, 1), (2, 1, 1), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("n_times", [2, 3, 31, 127, 128])
def test_a_token_stands_for_stride_samples(depths, n_times):
    _, network = build(depths=depths)
    h, padding = network.encode_tokens(torch.zeros(2, 3, n_times))
    assert h.shape == (2, -(-n_times // network.stride), network.embed_dim)
    assert padding is None
    assert network(torch.zeros(2, 3, n_times)).shape == (2, network.n_features)


def test_widths_double_up_to_eightfold():
    _, network = build(depths=(1, 1, 1, 1, 1))
    assert [stage[-1].conv2[0].out_channels for stage in network.blocks] == [4, 8, 16, 32, 32]
    assert network.embed_dim == 32
    assert len(network.blocks) == 5
    assert network.top(2) == list(network.blocks[3:])


def test_a_token_sits_where_its_samples_are():
    """The change that one sample makes is centred on it."""
    _, network = build(depths=(1, 1))
    base = torch.zeros(1, 3, 512)
    for t in (100, 257, 400):
        x = base.clone()
        x[0, 1, t] = 50.0
        with torch.no_grad():
            change = (network.encode_tokens(x)[0] - network.encode_tokens(base)[0]).abs().sum(dim=2)[0]
        places = torch.nonzero(change > 1e-4)[:, 0]
        assert places.min() <= t // network.stride <= places.max()
        centre = (places.min() + places.max() + 1).item() / 2 * network.stride
        assert abs(centre - t) <= 1.5 * network.stride


def test_blocks_start_as_their_shortcut():
    block = _ResidualBlock(4, 4, 3, 1, 0.0).eval()
    x = torch.randn(2, 4, 20)
    assert_close(block(x), torch.relu(x))
    wider = _ResidualBlock(4, 8, 3, 2, 0.0).eval()
    assert_close(wider(x), torch.relu(wider.shortcut(x)))
    assert wider(torch.randn(2, 4, 21)).shape == (2, 8, 11)


def test_block_is_two_convolutions_and_a_shortcut():
    block = _ResidualBlock(4, 8, 3, 2, 0.0).train()
    nn.init.ones_(block.conv2[1].weight)
    x = torch.randn(5, 4, 16)

    def norm(h):
        return (h - h.mean(dim=(0, 2), keepdim=True)) / torch.sqrt(h.var(dim=(0, 2), keepdim=True, correction=0) + 1e-5)

    def conv(h, layer, stride=1):
        return nn.functional.conv1d(h, layer.weight, stride=stride, padding=layer.weight.shape[-1] // 2)

    inner = norm(conv(torch.relu(norm(conv(x, block.conv1[0], 2))), block.conv2[0]))
    shortcut = norm(conv(nn.functional.avg_pool1d(x, 2), block.shortcut[1][0]))
    assert_close(block(x), torch.relu(inner + shortcut), rtol=1e-4, atol=1e-5)


def test_missing_leads_enter_as_the_mean():
    encoder, network = build()
    missing, filled = X.copy(), X.copy()
    missing[:, 1] = np.nan
    filled[:, 1] = encoder.center_
    fed = encoder.encode_inputs(missing)
    np.testing.assert_array_equal(fed, filled)
    assert np.isnan(missing[:, 1]).all()  # a copy was filled
    assert (network.tokenize(torch.from_numpy(fed))[:, 1].abs() < 1e-6).all()
    embedder = ECGSelfSupervisedEmbedder(ResNet1d(4, (1,)), max_epochs=0, random_state=0).fit(X)
    np.testing.assert_array_equal(embedder.transform(missing), embedder.transform(filled))


def test_scale_is_that_of_the_training_signals():
    encoder, network = build()
    np.testing.assert_allclose([encoder.center_, encoder.scale_], [X.mean(dtype=float), X.std(dtype=float)], rtol=1e-6)
    assert_close(network.standardize(torch.from_numpy(X)).std(correction=0), torch.tensor(1.0), rtol=1e-4, atol=1e-4)


def test_every_parameter_matters():
    _, network = build()
    network.train()
    for stage in network.blocks:
        for block in stage:
            nn.init.ones_(block.conv2[1].weight)
    network(torch.from_numpy(X)).square().mul(torch.arange(float(network.n_features))).sum().backward()
    assert [n for n, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_inference_uses_statistics_of_training():
    _, network = build()
    x = torch.from_numpy(X)
    alone = torch.cat([network(x[i:i + 1]) for i in range(6)])
    assert_close(network(x), alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network.train()(x), alone, atol=1e-3)
