import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from skecg._torch import build_seeded
from skecg.encoders import PatchTransformer
from skecg.encoders._layers import Dropout, TransformerBlock, _attention, default_patch_size, sincos_positions

RNG = np.random.default_rng(0)
X = RNG.normal(0.5, 2.0, size=(6, 3, 64)).astype(np.float32)


def build(**params):
    encoder = PatchTransformer(**{"patch_size": 10, "embed_dim": 16, "depth": 2, "n_heads": 2, **params}).fit(X)
    return encoder, build_seeded(encoder.build, 0).eval()


def test_tokens_are_patches_lead_by_lead():
    encoder, network = build()
    tokens = network.tokenize(torch.from_numpy(X))
    assert tokens.shape == (6, 3 * 7, 10)
    standard = (X - encoder.center_) / encoder.scale_
    for lead in range(3):
        for p in range(7):
            piece = standard[:, lead, 10 * p:10 * (p + 1)]
            piece = np.pad(piece, ((0, 0), (0, 10 - piece.shape[1])))  # the remainder, with zeros
            np.testing.assert_allclose(tokens[:, lead * 7 + p], piece, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tokens[:, [0, 1, 2]].std(), 1, atol=0.1)
    valid = network.target_valid(64)
    assert valid.shape == (7, 10)
    assert valid.sum() == 64 and valid[-1].tolist() == [True] * 4 + [False] * 6


@pytest.mark.parametrize(("n_times", "n_patches"), [(60, 6), (61, 7), (64, 7), (70, 7), (9, 1), (10, 1)])
def test_number_of_patches(n_times, n_patches):
    _, network = build()
    assert network.n_patches(n_times) == n_patches
    assert network.tokenize(torch.zeros(2, 3, n_times)).shape == (2, 3 * n_patches, 10)


def test_tokens_know_their_time_and_lead():
    _, network = build()
    h = network.embed(torch.zeros(1, 21, 10))[0]
    time, place = sincos_positions(7, 16), network.lead_embedding
    for lead in range(3):
        for p in range(7):
            assert_close(h[lead * 7 + p], network.project.bias + time[p] + place[lead])
    assert len(torch.unique(h.detach().round(decimals=4), dim=0)) == 21
    # a shorter window keeps the codes of the times that it has
    assert_close(network.embed(torch.zeros(1, 9, 10))[0, :3], h[:3])


@pytest.mark.parametrize("dim", [1, 2, 7, 16])
def test_position_codes(dim):
    codes = sincos_positions(9, dim)
    assert codes.shape == (9, dim)
    half = (dim + 1) // 2
    for p in range(9):
        for k in range(dim):
            angle = p * 10000.0 ** (-(k % half) / half)
            assert abs(codes[p, k].item() - (math.sin(angle) if k < half else math.cos(angle))) < 1e-5


@pytest.mark.parametrize(("n_times", "size"), [(1000, 25), (5000, 125), (2, 1), (1, 1), (60, 2)])
def test_default_patch_size(n_times, size):
    assert default_patch_size(n_times) == size
    if n_times > 1:  # of one sample no lead changes over time, which is told
        X = np.random.default_rng(0).normal(size=(2, 1, n_times)).astype(np.float32)
        assert PatchTransformer().fit(X).patch_size_ == size


def torch_layer(block, dim, n_heads):
    """The same block out of torch's own parts."""
    layer = nn.TransformerEncoderLayer(
        dim, n_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    layer.load_state_dict({
        "self_attn.in_proj_weight": block.qkv.weight, "self_attn.in_proj_bias": block.qkv.bias,
        "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.mlp[0].weight, "linear1.bias": block.mlp[0].bias,
        "linear2.weight": block.mlp[2].weight, "linear2.bias": block.mlp[2].bias,
        "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
        "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias,
    })
    return layer


@pytest.mark.parametrize("n_tokens", [1, 20, 300])
@pytest.mark.parametrize("masked", [False, True])
def test_block_is_torchs_pre_norm_layer(n_tokens, masked):
    torch.manual_seed(0)
    block = TransformerBlock(16, 4)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    h, mask = torch.randn(3, n_tokens, 16), None
    if masked:
        mask = torch.rand(3, n_tokens) < 0.4
        mask[:, 0] = False
    expected = torch_layer(block, 16, 4).train()(h, src_key_padding_mask=mask)  # training takes the plain path
    keep = torch.ones(3, n_tokens, dtype=torch.bool) if mask is None else ~mask
    assert_close(block(h, mask)[keep], expected[keep], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_tokens", [1, 7, 256, 257, 400])  # both sides of the switch to the fused kernel
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_agrees_with_torch(n_tokens, masked, dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n_tokens, 8, generator=generator) for _ in range(3))
    mask = None
    if masked:
        mask = torch.rand(2, n_tokens, generator=generator) < 0.5
        mask[:, 0] = False
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else ~mask[:, None, None, :])
    result = _attention(q.to(dtype), k.to(dtype), v.to(dtype), mask)
    assert result.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    assert_close(result.float(), expected, rtol=tolerance, atol=tolerance)


def test_attention_gradients_agree():
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(2, 2, 9, 4, generator=generator) for _ in range(3)]
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 4:] = True
    grads = []
    for function in (
        lambda q, k, v: _attention(q, k, v, mask),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=~mask[:, None, None, :]),
    ):
        leaves = [x.clone().requires_grad_() for x in data]
        function(*leaves).square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for one, other in zip(*grads, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_padding_mask_is_dropping_the_tokens():
    _, network = build()
    x = torch.from_numpy(X)
    valid = torch.tensor([[True, False, True]] * 6)
    padding = network.padding_mask(valid, 64)
    assert padding.shape == (6, 21)
    assert padding[0].tolist() == [False] * 7 + [True] * 7 + [False] * 7
    h = network.embed(network.tokenize(x))
    keep = ~padding[0]
    dropped = network.contextualize(h[:, keep])
    assert_close(network.contextualize(h, padding)[:, keep], dropped, rtol=1e-4, atol=1e-5)
    assert_close(network(x, valid), dropped.mean(dim=1), rtol=1e-4, atol=1e-5)
    other = x.clone()
    other[:, 1] = 100.0
    assert_close(network(other, valid), network(x, valid))
    assert network.padding_mask(None, 64) is None


def test_pooling_by_lead():
    _, network = build(pooling="lead")
    assert network.n_features == 48
    x, valid = torch.from_numpy(X), torch.tensor([[True, False, True]] * 6)
    h, _ = network.encode_tokens(x, valid)
    pooled = network(x, valid).unflatten(1, (3, 16))
    assert_close(pooled[:, 0], h[:, :7].mean(dim=1))
    assert_close(pooled[:, 2], h[:, 14:].mean(dim=1))
    assert (pooled[:, 1] == 0).all()
    assert_close(network(x, torch.ones(6, 3, dtype=torch.bool)), network(x))


def test_top_blocks():
    _, network = build(depth=3)
    assert network.top(2) == [network.blocks[1], network.blocks[2], network.norm]
    assert network.top(3) == [*network.blocks, network.norm]


def test_without_blocks():
    _, network = build(depth=0)
    assert len(network.blocks) == 0
    assert network(torch.from_numpy(X)).shape == (6, 16)


def test_scale_is_that_of_the_training_signals():
    encoder, network = build()
    np.testing.assert_allclose([encoder.center_, encoder.scale_], [X.mean(dtype=float), X.std(dtype=float)], rtol=1e-6)
    assert_close(network.standardize(torch.from_numpy(X)).std(correction=0), torch.tensor(1.0), rtol=1e-4, atol=1e-4)
    assert {"center", "scale"} <= set(network.state_dict())  # travel with the weights


def test_every_parameter_matters():
    _, network = build()
    network(torch.from_numpy(X)).square().mul(torch.arange(16.0)).sum().backward()
    assert [n for n, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_dropout_draws_from_its_own_generator():
    layer = Dropout(0.25).train()
    layer.generator = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    out = layer(torch.ones(200, 200))
    assert torch.equal(torch.get_rng_state(), before)
    assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(out.mean().item() - 1) < 0.02
    assert not torch.equal(layer(torch.ones(200, 200)), out)
    layer.generator.manual_seed(0)
    assert torch.equal(layer(torch.ones(200, 200)), out)
    assert torch.equal(layer.eval()(out), out)
    assert torch.equal(Dropout(0.0).train()(out), out)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 1 - 1e-6])
def test_dropout_has_its_probability_everywhere(p):
    layer = Dropout(p).train()
    layer.generator = torch.Generator().manual_seed(0)
    kept = torch.stack([layer(torch.ones(3, 333)) > 0 for _ in range(300)]).float()
    error = 4 * math.sqrt(max(p * (1 - p), 1e-5) / 300)
    assert abs(kept.mean().item() - (1 - p)) < error / math.sqrt(999) + 2e-5
    for lane in range(4):  # four draws come from one
        assert abs(kept.flatten(1)[:, lane::4].mean().item() - (1 - p)) < error / math.sqrt(250) + 2e-5
    if 0.1 < p < 0.99:  # and are independent
        neighbours = np.corrcoef(kept.flatten(1)[:, :996].reshape(-1, 4).T.numpy())
        np.testing.assert_allclose(neighbours, np.eye(4), atol=4 / math.sqrt(300 * 249))
    assert torch.isfinite(layer(torch.ones(5))).all()


def test_dropout_is_used_in_training_only():
    _, network = build(dropout=0.5)
    x = torch.from_numpy(X)
    assert_close(network(x), build(dropout=0.0)[1](x))
    assert not torch.allclose(network.train()(x), network(x))
