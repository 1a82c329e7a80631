import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from torch import nn
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._torch import build_seeded
from skecg.encoders import ConvTransformer
from skecg.encoders._conv import PositionalConvolution
from skecg.encoders._layers import PostNormBlock

RNG = np.random.default_rng(0)
X = RNG.normal(0.5, 2.0, size=(6, 3, 67)).astype(np.float32)
SMALL = {"embed_dim": 16, "depth": 2, "n_heads": 2, "conv_dim": 8, "position_kernel": 4, "position_groups": 4}


def unit(n_leads, n_times):
    """Signals of mean 0 and deviation 1."""
    return np.tile(np.where(np.arange(n_times) % 2, -1, 1).astype(np.float32), (2, n_leads, 1))


def build(**params):
    encoder = ConvTransformer(**{**SMALL, **params}).fit(X)
    network = build_seeded(encoder.build, 0).eval()
    with torch.no_grad():  # gains and biases that matter
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return encoder, network


def test_latents_are_those_of_plain_convolutions():
    encoder, network = build(conv_strides=(2, 3, 2))
    x = torch.from_numpy((X - encoder.center_) / encoder.scale_).float()
    h = F.conv1d(x, network.convolutions[0].weight, stride=2)
    mean, variance = h.mean(dim=2, keepdim=True), h.var(dim=2, keepdim=True, unbiased=False)
    h = (h - mean) / torch.sqrt(variance + 1e-5) * network.time_norm.weight[:, None] + network.time_norm.bias[:, None]
    h = F.gelu(h)
    for conv, stride in zip(network.convolutions[1:], (3, 2), strict=True):
        h = F.gelu(F.conv1d(h, conv.weight, stride=stride))
    latents = network.tokenize(torch.from_numpy(X))
    assert latents.shape == (6, 67 // 12, 8) == (6, network.n_frames(67), network.latent_dim)
    assert_close(latents, h.transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n_times", "n_frames"), [(2500, 156), (5000, 312), (16, 1), (31, 1)])
def test_number_of_frames(n_times, n_frames):
    encoder = ConvTransformer(**SMALL, conv_strides=(2, 2, 2, 2)).fit(unit(1, n_times))
    network = encoder.build()
    assert network.n_frames(n_times) == n_frames
    assert network.tokenize(torch.zeros(2, 1, n_times)).shape == (2, n_frames, 8)


def test_base_size():
    encoder = ConvTransformer(768, 12, n_heads=12, conv_dim=256, conv_strides=(2,) * 4, position_kernel=128)
    encoder.fit(unit(12, 2500))
    with torch.device("meta"):
        network = encoder.build()
    assert len(list(network.parameters())) == 207
    assert sum(p.numel() for p in network.parameters()) == 90_373_248


@pytest.mark.parametrize("kernel_size", [1, 4, 5, 32, 33])
def test_positions_are_a_grouped_convolution_of_unit_taps(kernel_size):
    layer = build_seeded(lambda: PositionalConvolution(16, kernel_size, 4), 0).double()
    h = torch.randn(9, 21, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = layer.gain * layer.direction / layer.direction.norm(dim=(0, 1))
    assert_close(start, layer.direction)  # starts as the kernel that was drawn
    with torch.no_grad():
        layer.gain.uniform_(0.5, 2.0)
        layer.bias.normal_()
    padded = F.pad(h, (0, 0, kernel_size // 2, kernel_size // 2))
    expected = torch.empty_like(h)
    for t in range(21):
        for out in range(16):
            group = slice(out // 4 * 4, out // 4 * 4 + 4)
            taps = layer.gain[0, 0] * layer.direction[out] / layer.direction.norm(dim=(0, 1))  # (I, K)
            expected[:, t, out] = (padded[:, t:t + kernel_size, group] * taps.T).sum(dim=(1, 2)) + layer.bias[out]
    expected = F.gelu(expected)
    assert_close(layer(h), expected)  # through the frequencies from 32 taps on
    assert_close(layer(h[:7]), expected[:7])  # few windows: never


@pytest.mark.parametrize("n_frames", [1, 33, 34, 97])  # with 32 taps: transforms of up to 32, 64, and more numbers
def test_positions_have_the_same_bits_on_any_number_of_threads(n_frames):
    positions = build_seeded(lambda: PositionalConvolution(64, 32, 16), 0)
    h = torch.randn(32, n_frames, 64, generator=torch.Generator().manual_seed(0))
    n_threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with torch.inference_mode():
                found.append(positions(h).clone())
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(*found)


def test_both_ways_to_the_positions_have_the_same_gradients():
    layer = build_seeded(lambda: PositionalConvolution(16, 32, 4), 0)
    h = torch.randn(8, 40, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for parts in ((h,), (h[:4], h[4:])):
        layer.zero_grad()
        sum(layer(part).square().sum() for part in parts).backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4 * one.abs().max().item())


@pytest.mark.parametrize("masked", [False, True])
def test_block_is_torchs_post_norm_layer(masked):
    block = build_seeded(lambda: PostNormBlock(16, 2, 4.0, norm_eps=1e-3), 0)
    layer = nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, layer_norm_eps=1e-3)
    parts = (block.query, block.key, block.value)
    layer.load_state_dict({
        "self_attn.in_proj_weight": torch.cat([p.weight for p in parts]),
        "self_attn.in_proj_bias": torch.cat([p.bias for p in parts]),
        "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.mlp[0].weight, "linear1.bias": block.mlp[0].bias,
        "linear2.weight": block.mlp[2].weight, "linear2.bias": block.mlp[2].bias,
        "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
        "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias,
    })
    h = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(0))
    padding = (torch.arange(9) >= torch.tensor([[9], [5], [3]])) if masked else None
    assert_close(block(h, padding), layer(h, src_key_padding_mask=padding), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", ["dropout", "attention_dropout", "attention_output_dropout"])
def test_dropout_acts_in_training_and_from_the_given_generator(place):
    _, network = build(**{place: 0.5})
    x = torch.from_numpy(X)
    quiet = network(x)
    assert torch.equal(quiet, network(x))

    def dropped(seed):
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "generator"):
                module.generator = generator
        return network.train()(x)

    assert not torch.allclose(dropped(0), quiet, atol=1e-3)
    assert torch.equal(dropped(0), dropped(0))
    assert not torch.equal(dropped(0), dropped(1))


def test_padded_frames_change_nothing():
    _, network = build(position_kernel=1)  # a longer one looks across
    h = torch.randn(2, 12, 16)
    padding = torch.zeros(2, 12, dtype=torch.bool)
    padding[:, 8:] = True
    with_padding = network.contextualize(h, padding)
    assert_close(with_padding[:, :8], network.contextualize(h[:, :8]), rtol=1e-4, atol=1e-5)
    assert_close(network.pool(with_padding, padding), network.contextualize(h[:, :8]).mean(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0])
def test_gradient_of_the_convolutions(factor):
    gradients = []
    for conv_gradient in (1.0, factor):
        _, network = build(conv_gradient=conv_gradient)
        network(torch.from_numpy(X)).square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    plain, scaled = gradients
    for name, gradient in plain.items():
        if not name.startswith(("convolutions", "time_norm")):
            assert_close(scaled[name], gradient)
        elif factor == 0:
            assert scaled[name] is None
        else:
            assert_close(scaled[name], factor * gradient)


@pytest.mark.parametrize("gain", [1e-3, 7.0, 1e3])
def test_gain_and_offset_do_not_matter(gain):
    encoder, network = build()
    network = network.double()
    x = torch.from_numpy(X).double()
    offset = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)[:, None]
    expected = network(x)
    assert_close(network(x + offset), expected, rtol=1e-5, atol=1e-7)  # of each lead by itself
    # all but the small number that the normalisation adds to variances; fitting the encoder on such signals removes it
    other = clone(encoder).fit(gain * X + 1.0)
    rescaled = other.build().double()
    rescaled.load_state_dict({**network.state_dict(), "center": torch.tensor(other.center_), "scale": torch.tensor(
        other.scale_)})
    assert_close(rescaled(gain * x + 1.0), expected, rtol=1e-4, atol=1e-5)
    per_lead = network(x * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None])
    assert not torch.allclose(per_lead, expected, atol=1e-2)


def test_missing_lead_is_a_constant_one():
    encoder, network = build()
    missing, flat = X.copy(), X.copy()
    missing[:, 1] = np.nan
    flat[:, 1] = 3.0
    expected = network(torch.from_numpy(encoder.encode_inputs(missing)))
    assert_close(network(torch.from_numpy(flat)), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(torch.from_numpy(X)), expected, atol=1e-3)


@pytest.mark.parametrize("n_leads", [1, 2, 6])
def test_leads_are_missing_by_name_and_lengths_differ(n_leads):
    signals = RNG.normal(size=(5, 6, 80)).astype(np.float32)
    embedder = ECGSelfSupervisedEmbedder(
        ConvTransformer(**SMALL, any_length=True), lead_names=("I", "II", "III", "aVR", "aVL", "aVF"), max_epochs=0,
        random_state=0).fit(signals)
    fewer = signals.copy()
    fewer[:, n_leads:] = np.nan
    for n_times in (80, 40, 160):
        piece = np.tile(fewer, 2)[..., :n_times]
        assert np.isfinite(embedder.transform(piece)).all()
        tokens = embedder.set_params(output="tokens").transform(piece)
        assert tokens.shape == (5, n_times // 8, 16)
        assert_close(tokens.mean(axis=1), embedder.set_params(output="embedding").transform(piece), rtol=1e-4, atol=1e-5)


def test_all_zero_and_single_window_are_finite():
    _, network = build()
    for x in (torch.zeros(1, 3, 67), torch.from_numpy(X[:1]), torch.zeros(1, 3, 8)):
        for training in (False, True):
            if training and x.shape[-1] < 16:
                continue
            assert torch.isfinite(network.train(training)(x)).all()
    one_lead = ConvTransformer(**SMALL).fit(X[:, :1])
    assert torch.isfinite(one_lead.build()(torch.from_numpy(X[:1, :1]))).all()


def test_top_blocks():
    _, network = build()
    assert network.top(1) == [network.blocks[1]]
    everything = {p for module in network.top(2) for p in module.parameters()}
    kept = {name for name, p in network.named_parameters() if p not in everything}
    assert kept == {"convolutions.0.weight", "convolutions.1.weight", "convolutions.2.weight", "time_norm.weight",
                    "time_norm.bias"}


@pytest.mark.parametrize(("params", "message"), [
    ({"n_heads": 3}, "embed_dim=16 is not a multiple of n_heads=3"),
    ({"position_groups": 5}, "embed_dim=16 is not a multiple of position_groups=5"),
    ({"conv_strides": ()}, "must hold one positive integer per convolution"),
    ({"conv_strides": (2, 0)}, "must hold one positive integer per convolution"),
    ({"conv_strides": (2, 1.5)}, "must hold one positive integer per convolution"),
    ({"conv_strides": (8, 9)}, "n_times=67 is shorter than one frame of 72 samples"),
])
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        ConvTransformer(**{**SMALL, **params}).fit(X)


def test_too_short_a_window_is_refused():
    _, network = build()
    with pytest.raises(ValueError, match="window of 7 samples is shorter than one frame of 8"):
        network(torch.zeros(2, 3, 7))


def test_starting_scale():
    """Weights start as published: He-normal convolutions, 0.02 in the blocks, unit gains."""
    network = ConvTransformer(64, 2, conv_dim=64, position_groups=4).fit(unit(12, 80)).build()
    assert abs(network.blocks[0].mlp[0].weight.std().item() - 0.02) < 1e-3
    assert abs(network.convolutions[1].weight.std().item() - math.sqrt(2 / 128)) < 0.01
    assert abs(network.positions.direction.std().item() - math.sqrt(4 / (32 * 64))) < 2e-3
    for name, p in network.blocks.named_parameters():
        if p.ndim == 1:
            assert (p == (1 if "norm" in name and name.endswith("weight") else 0)).all()
