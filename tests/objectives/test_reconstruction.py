import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._torch import build_seeded
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.objectives import Batch, MaskedReconstruction
from skecg.objectives._masking import sample_time_mask

N_LEADS, N_TIMES, PATCH = 3, 64, 10  # six patches and a remainder of four samples
N_PATCHES = 7
ENCODERS = {
    "patches": PatchTransformer(PATCH, embed_dim=16, depth=2, n_heads=2),
    "resnet": ResNet1d(4, (1, 1), kernel_size=3),
}


def signals(n=4, seed=0):
    return np.random.default_rng(seed).normal(0.3, 2.0, size=(n, N_LEADS, N_TIMES)).astype(np.float32)


def build(name, X=None, **params):
    encoder = clone(ENCODERS[name]).fit(signals(64) if X is None else X)
    objective = MaskedReconstruction(**{"patch_size": PATCH, "decoder_dim": 8, "decoder_heads": 2, **params})
    objective.check_encoder(encoder)
    module = build_seeded(lambda: objective.build(encoder.build()), 0)
    with torch.no_grad():  # make every part matter
        for block in module.encoder.blocks if name == "resnet" else ():
            block[0].conv2[1].weight.fill_(1.0)
    return encoder, module


def make_batch(encoder, X, mask=None, seed=0):
    valid = ~np.isnan(X[:, :, 0])
    return Batch(
        x=torch.from_numpy(encoder.encode_inputs(X)), lead_valid=None if valid.all() else torch.from_numpy(valid),
        generator=torch.Generator().manual_seed(seed), given={} if mask is None else {"mask": mask})


@pytest.fixture
def mask():
    return sample_time_mask(4, N_PATCHES, 0.5, torch.Generator().manual_seed(3))


def prediction_of(module, batch):
    """What the decoder says, before the loss."""
    kept = []
    hook = module.predict.register_forward_hook(lambda _, args, output: kept.append(output.detach()))
    loss = module(batch)["loss"]
    hook.remove()
    return kept[0], loss


def naive_patch_loss(module, encoder, X, mask, leads=range(N_LEADS)):
    """One sample, one patch at a time; tokens of missing leads do not exist."""
    network, total, count = module.encoder, 0.0, 0
    positions = network.positions(N_PATCHES).unflatten(0, (N_LEADS, N_PATCHES))
    for sample, hidden in zip(X, mask, strict=True):
        present = [lead for lead in leads if not np.isnan(sample[lead, 0])]
        padded = np.zeros((N_LEADS, N_PATCHES * PATCH), np.float32)
        padded[:, :N_TIMES] = (sample - np.float32(encoder.center_)) / np.float32(encoder.scale_)
        places = [(lead, p) for lead in present for p in range(N_PATCHES)]
        visible = [(lead, p) for lead, p in places if not hidden[p]]
        h = torch.stack([
            network.project(torch.from_numpy(padded[lead, p * PATCH:(p + 1) * PATCH])) + positions[lead, p]
            for lead, p in visible])
        h = network.contextualize(h[None])[0]
        z = torch.stack([
            module.place(positions[lead, p])
            + (module.mask_token if hidden[p] else module.narrow(h[visible.index((lead, p))]))
            for lead, p in places]).unflatten(0, (len(present), N_PATCHES))
        for block in module.blocks:
            z = torch.cat([block(z[[i]]) for i in range(len(present))])  # the decoder sees one lead at a time
        predicted = module.predict(module.norm(z)).flatten(0, 1)
        for (lead, p), values in zip(places, predicted, strict=True):
            if not hidden[p] or np.ptp(sample[lead]) == 0:
                continue
            for i in range(PATCH):
                if p * PATCH + i < N_TIMES:
                    total = total + (values[i] - padded[lead, p * PATCH + i]) ** 2
                    count += 1
    return total / count


def naive_signal_loss(module, encoder, X, mask):
    network, total, count = module.encoder, 0.0, 0
    filled = np.where(np.isnan(X), np.float32(encoder.center_), X)
    target = torch.from_numpy((filled - np.float32(encoder.center_)) / np.float32(encoder.scale_))
    hidden = np.array([[row[t // PATCH] for t in range(N_TIMES)] for row in mask.numpy()])
    x = target.clone()
    for b, t in zip(*np.nonzero(hidden), strict=True):
        x[b, :, t] = module.mask_value[:, 0]
    tokens = network.contextualize(network.embed(x))
    for b, t in zip(*np.nonzero(hidden), strict=True):
        token, offset = divmod(t, network.stride)
        predicted = module.predict(tokens[b, token]).reshape(N_LEADS, network.stride)[:, offset]
        for lead in range(N_LEADS):
            if not np.isnan(X[b, lead, 0]) and np.ptp(X[b, lead]) > 0:
                total = total + (predicted[lead] - target[b, lead, t]) ** 2
                count += 1
    return total / count


NAIVE = {"patches": naive_patch_loss, "resnet": naive_signal_loss}


@pytest.mark.parametrize("mask_ratio", [0.15, 0.5, 0.8])
@pytest.mark.parametrize("damage", ["none", "missing", "flat", "both"])
@pytest.mark.parametrize("name", ENCODERS)
def test_loss_is_that_of_a_naive_loop(name, damage, mask_ratio):
    X = signals()
    if damage in ("missing", "both"):
        X[1, 0] = X[2, 1:] = np.nan
    if damage in ("flat", "both"):
        X[3, 2] = 0.7
    encoder, module = build(name)
    mask = sample_time_mask(4, N_PATCHES, mask_ratio, torch.Generator().manual_seed(1))
    mask[0, -1], mask[0, 0] = True, False  # the padded patch is hidden in one sample
    counts = mask.sum(dim=1)
    mask[0, 1:-1] = torch.arange(N_PATCHES - 2) < counts[1] - 1  # as many as elsewhere
    expected = NAIVE[name](module, encoder, X, mask)
    assert_close(module(make_batch(encoder, X, mask))["loss"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("missing", [False, True])
def test_loss_on_some_leads_is_that_of_a_naive_loop(mask, missing):
    X = signals()
    if missing:
        X[1, 0] = np.nan
        X[2, [0, 2]] = np.nan  # nothing of what is drawn is left
    encoder, module = build("patches", lead_fraction=0.67)
    module._draw_places = lambda batch: torch.tensor([0, 2])
    rows = [0, 1, 3] if missing else [0, 1, 2, 3]
    expected = naive_patch_loss(module, encoder, X[rows], mask[rows], leads=[0, 2])
    assert_close(module(make_batch(encoder, X, mask))["loss"], expected, rtol=1e-4, atol=1e-6)


def test_drawn_leads():
    encoder, module = build("patches", lead_fraction=0.67)
    batch = make_batch(encoder, signals())
    draws = [tuple(module._draw_places(batch).tolist()) for _ in range(200)]
    assert set(draws) == {(0, 1), (0, 2), (1, 2)}
    assert build("patches", lead_fraction=0.01)[1]._draw_places(batch).shape == (1,)
    assert build("patches")[1]._draw_places(batch).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ENCODERS)
def test_mask_is_drawn_from_the_batch_generator(name):
    encoder, module = build(name)
    X, generator = signals(), torch.Generator().manual_seed(9)
    before = torch.get_rng_state()
    drawn = module(make_batch(encoder, X, seed=9))["loss"]
    mask = sample_time_mask(4, N_PATCHES, 0.5, generator)
    assert_close(drawn, module(make_batch(encoder, X, mask))["loss"])
    assert not torch.equal(drawn, module(make_batch(encoder, X, seed=10))["loss"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("training", [True, False])
def test_predictions_do_not_see_what_is_hidden(name, training, mask):
    encoder, module = build(name)
    module.train(training)
    X = signals()
    hidden = np.repeat(mask.numpy(), PATCH, axis=1)[:, :N_TIMES]
    other = np.where(hidden[:, None], signals(seed=5), X)
    one, loss_one = prediction_of(module, make_batch(encoder, X, mask))
    two, loss_two = prediction_of(module, make_batch(encoder, other, mask))
    assert torch.equal(one, two)
    assert not torch.equal(loss_one, loss_two)  # the targets did change
    seen = np.where(hidden[:, None], X, signals(seed=5))
    assert not torch.allclose(prediction_of(module, make_batch(encoder, seen, mask))[0], one, atol=1e-3)


def test_the_same_times_are_hidden_in_every_lead():
    """The limb leads are linear combinations of each other: a mask per lead would be undone by algebra."""
    encoder, module = build("patches")
    X = signals(1)
    mask = torch.zeros(1, N_PATCHES, dtype=torch.bool)
    mask[0, 2] = True
    expected, _ = prediction_of(module, make_batch(encoder, X, mask))
    for lead in range(N_LEADS):
        other = X.copy()
        other[0, lead, 20:30] += 5
        assert torch.equal(prediction_of(module, make_batch(encoder, other, mask))[0], expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_of_the_last_patch_is_never_scored(name):
    encoder, module = build(name)
    X = signals()
    mask = torch.zeros(4, N_PATCHES, dtype=torch.bool)
    mask[:, -1] = True  # 4 of 10 samples are signal
    with torch.no_grad():
        module.predict.weight.zero_()
        module.predict.bias.fill_(3.0)
    loss = module(make_batch(encoder, X, mask))["loss"].item()
    target = (X[..., 60:] - encoder.center_) / encoder.scale_
    np.testing.assert_allclose(loss, np.square(3.0 - target).mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_only_flat_or_missing_leads_give_no_loss(name, mask):
    encoder, module = build(name)
    X = signals()
    X[:] = 1.5
    X[1, 0] = np.nan
    loss = module(make_batch(encoder, X, mask))["loss"]
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_loss_is_that_of_the_mean_if_nothing_is_known(name):
    """On standardised noise, predicting zero has a loss of one; an untrained module starts near it."""
    X = signals(256, seed=2)
    encoder, module = build(name, X)
    with torch.no_grad():
        module.predict.weight.zero_()
        module.predict.bias.zero_()
    assert abs(module(make_batch(encoder, X))["loss"].item() - 1) < 0.03
    fresh = build_seeded(lambda: MaskedReconstruction(patch_size=PATCH).build(clone(encoder).fit(X).build()), 0)
    assert 0.95 < fresh(make_batch(encoder, X))["loss"].item() < 1.4


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter(name, missing, mask):
    X = signals()
    if missing:
        X[1, 0] = X[2, 1] = np.nan
    encoder, module = build(name)
    module(make_batch(encoder, X, mask))["loss"].backward()
    silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1000.0])
@pytest.mark.parametrize("name", ENCODERS)
def test_loss_does_not_depend_on_the_unit(name, unit, mask):
    X = signals(16)
    expected = module_loss(name, X, mask)
    np.testing.assert_allclose(module_loss(name, X * np.float32(unit), mask), expected, rtol=1e-4)


def module_loss(name, X, mask):
    encoder, module = build(name, X)
    return module(make_batch(encoder, X[:4], mask))["loss"].item()


@pytest.mark.parametrize("name", ENCODERS)
def test_it_learns_to_reconstruct(name):
    X = make_ecg(60, classes=["normal"], duration=2.0, lead_names=("I", "II", "V5"), noise=0.2, random_state=0)[0]
    encoder = {"patches": PatchTransformer(10, 32, 2), "resnet": ResNet1d(16, (1, 1))}[name]
    embedder = ECGSelfSupervisedEmbedder(
        encoder, MaskedReconstruction(0.3, patch_size=10), max_epochs=40, batch_size=10, learning_rate=3e-3,
        precision="float32", random_state=0).fit(X)
    losses = [row["loss"] for row in embedder.history_]
    assert np.mean(losses[-5:]) < 0.97  # better than predicting the mean of the signals, whose loss is one
    assert np.mean(losses[-5:]) < 0.97 * losses[0]


@pytest.mark.parametrize("name", ENCODERS)
def test_bfloat16_agrees(name, mask):
    encoder, module = build(name)
    batch = make_batch(encoder, signals(), mask)
    exact = module(batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rough = module(batch)["loss"]
    assert rough.dtype == torch.float32
    assert_close(rough, exact, rtol=0.05, atol=0.05)
