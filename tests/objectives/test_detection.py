"""Spatial detection, masks per lead and schedules of MaskedReconstruction; test_reconstruction.py has the rest."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._torch import build_seeded
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.objectives import Batch, MaskedReconstruction
from skecg.objectives._masking import sample_lead_order, sample_time_mask

N_LEADS, N_TIMES, PATCH = 4, 64, 10  # six patches and a remainder of four samples
N_PATCHES = 7
ENCODERS = {
    "patches": PatchTransformer(PATCH, embed_dim=16, depth=2, n_heads=2),
    "resnet": ResNet1d(4, (1, 1), kernel_size=3),
}


def signals(n=4, n_leads=N_LEADS, seed=0):
    return np.random.default_rng(seed).normal(0.3, 2.0, size=(n, n_leads, N_TIMES)).astype(np.float32)


def build(name, X=None, lead_names=None, **params):
    """A fitted encoder and a module every part of which matters."""
    encoder = clone(ENCODERS[name]).fit(signals(64) if X is None else X)
    params = {"patch_size": PATCH, "decoder_dim": 8, "decoder_heads": 2, "lead_shuffle": 1.0, **params}
    torch.manual_seed(0)
    network = encoder.build()
    network.lead_names = lead_names
    module = MaskedReconstruction(**params).build(network)
    with torch.no_grad():
        module.name_lead.weight.normal_(std=0.3)
        for block in network.blocks if name == "resnet" else ():
            block[0].conv2[1].weight.fill_(1.0)
        if name == "patches":
            network.lead_embedding.normal_()
    return encoder, module.eval()


def make_batch(encoder, X, seed=0, **given):
    valid = ~np.isnan(X[:, :, 0])
    return Batch(
        x=torch.from_numpy(encoder.encode_inputs(X)), lead_valid=None if valid.all() else torch.from_numpy(valid),
        generator=torch.Generator().manual_seed(seed), given=given)


def draw(n=4, ratio=0.5, per_lead=False, seed=1):
    generator = torch.Generator().manual_seed(seed)
    order, _ = sample_lead_order(n, N_LEADS, 1.0, generator=generator)
    n_masks = n * N_LEADS if per_lead else n
    mask = sample_time_mask(n_masks, N_PATCHES, ratio, generator)
    return {"order": order, "mask": mask.unflatten(0, (n, N_LEADS)) if per_lead else mask}


@settings(deadline=None, max_examples=150)
@given(
    n_samples=st.integers(0, 12), n_leads=st.integers(2, 12), probability=st.floats(0, 1), fraction=st.floats(0.01, 1),
    seed=st.integers(0, 2**31),
)
def test_orders_are_permutations_of_as_many_leads_as_asked(n_samples, n_leads, probability, fraction, seed):
    order, shuffled = sample_lead_order(
        n_samples, n_leads, probability, fraction, torch.Generator().manual_seed(seed))
    assert order.shape == (n_samples, n_leads)
    assert torch.equal(order.sort(dim=1).values, torch.arange(n_leads).expand(n_samples, -1))
    moved = (order != torch.arange(n_leads)).sum(dim=1)
    assert (moved <= max(2, round(fraction * n_leads))).all()
    assert (moved[~shuffled] == 0).all()
    assert math.floor(probability * n_samples) <= int(shuffled.sum()) <= math.ceil(probability * n_samples)
    again = sample_lead_order(n_samples, n_leads, probability, fraction, torch.Generator().manual_seed(seed))
    assert torch.equal(order, again[0])


def test_all_orders_are_equally_likely():
    n = 24000
    order, _ = sample_lead_order(n, 4, 1.0, generator=torch.Generator().manual_seed(0))
    counts = Counter(map(tuple, order.tolist()))
    assert len(counts) == 24
    assert max(abs(count - n / 24) for count in counts.values()) < 5 * math.sqrt(n / 24)
    half, _ = sample_lead_order(n, 4, 1.0, 0.5, torch.Generator().manual_seed(0))
    counts = Counter(map(tuple, half.tolist()))
    assert len(counts) == 7  # six exchanges of two, or nothing
    assert abs(counts.pop((0, 1, 2, 3)) - n / 2) < 5 * math.sqrt(n / 4)
    assert max(abs(count - n / 12) for count in counts.values()) < 5 * math.sqrt(n / 12)


def test_the_share_of_shuffled_samples_is_right_on_average():
    generator = torch.Generator().manual_seed(0)
    shares = [sample_lead_order(3, 4, 0.4, generator=generator)[1].float() for _ in range(3000)]
    assert torch.stack(shares).mean(dim=0).sub(0.4).abs().max() < 5 * math.sqrt(0.24 / 3000)


def naive_patch_losses(module, encoder, X, order, mask):
    """Both losses, one sample, one patch, one place at a time; tokens of missing leads do not exist."""
    network, squares, surprises = module.encoder, [], []
    positions = network.positions(N_PATCHES).unflatten(0, (N_LEADS, N_PATCHES))
    original = module.settings.reconstruction_order == "original"
    for sample, leads, hidden in zip(X, order.tolist(), mask, strict=True):
        padded = np.zeros((N_LEADS, N_PATCHES * PATCH), np.float32)
        padded[:, :N_TIMES] = (sample - np.float32(encoder.center_)) / np.float32(encoder.scale_)
        tokens = [(i, p) for i in range(N_LEADS) if not np.isnan(sample[leads[i], 0]) for p in range(N_PATCHES)]
        visible = [(i, p) for i, p in tokens if not hidden[i, p]]
        h = network.contextualize(torch.stack([
            network.project(torch.from_numpy(padded[leads[i], p * PATCH:(p + 1) * PATCH])) + positions[i, p]
            for i, p in visible])[None])[0]
        for i in range(N_LEADS):
            if not np.ptp(sample[leads[i]]) > 0:
                continue
            mean = torch.stack([h[visible.index((j, p))] for j, p in visible if j == i]).mean(dim=0)
            surprises.append(-module.name_lead(mean).log_softmax(dim=0)[leads[i]])
        for i in range(N_LEADS):  # the place whose prediction is looked at
            lead = i if original else leads[i]
            if not np.ptp(sample[lead]) > 0:
                continue
            z = torch.stack([
                module.place(positions[i, p])
                + (module.mask_token if hidden[i, p] else module.narrow(h[visible.index((i, p))]))
                for p in range(N_PATCHES)])[None]
            for block in module.blocks:
                z = block(z)
            predicted = module.predict(module.norm(z))[0]  # (P, S)
            for p in range(N_PATCHES):
                if hidden[leads.index(lead), p]:  # where that lead could not be seen
                    inside = min(PATCH, N_TIMES - p * PATCH)
                    target = torch.from_numpy(padded[lead, p * PATCH:p * PATCH + inside])
                    squares += list((predicted[p, :inside] - target) ** 2)
    return torch.stack(squares).mean(), torch.stack(surprises).mean()


def naive_signal_losses(module, encoder, X, order, mask):
    network, squares, surprises = module.encoder, [], []
    original = module.settings.reconstruction_order == "original"
    filled = np.where(np.isnan(X), np.float32(encoder.center_), X)
    target = torch.from_numpy((filled - np.float32(encoder.center_)) / np.float32(encoder.scale_))
    x = torch.stack([sample[leads] for sample, leads in zip(target, order, strict=True)])
    for b, i, t in np.ndindex(*x.shape):
        if mask[b, i, t // PATCH]:
            x[b, i, t] = module.mask_value[i, 0]
    h = network.contextualize(network.embed(x))
    logits = module.name_lead(network.pool(h)).reshape(len(X), N_LEADS, N_LEADS)
    for b, leads in enumerate(order.tolist()):
        for i in range(N_LEADS):
            if np.ptp(X[b, leads[i]]) > 0:
                surprises.append(-logits[b, i].log_softmax(dim=0)[leads[i]])
            lead = i if original else leads[i]
            for t in range(N_TIMES if np.ptp(X[b, lead]) > 0 else 0):
                if mask[b, leads.index(lead), t // PATCH]:
                    token, offset = divmod(t, network.stride)
                    predicted = module.predict(h[b, token]).reshape(N_LEADS, network.stride)[i, offset]
                    squares.append((predicted - target[b, lead, t]) ** 2)
    return torch.stack(squares).mean(), torch.stack(surprises).mean()


NAIVE = {"patches": naive_patch_losses, "resnet": naive_signal_losses}


@pytest.mark.parametrize("per_lead", [False, True])
@pytest.mark.parametrize("reconstruction_order", ["original", "input"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_losses_are_those_of_naive_loops(name, flat, reconstruction_order, per_lead):
    X = signals()
    if flat:
        X[3, 2] = 0.7
    encoder, module = build(name, reconstruction_order=reconstruction_order, lead_loss_weight=0.7)
    given = draw(per_lead=per_lead)
    mask = given["mask"] if per_lead else given["mask"][:, None].expand(-1, N_LEADS, -1)
    reconstruction, cross_entropy = NAIVE[name](module, encoder, X, given["order"], mask)
    terms = module(make_batch(encoder, X, **given))
    assert_close(terms["reconstruction"], reconstruction, rtol=1e-4, atol=1e-6)
    assert_close(terms["lead_cross_entropy"], cross_entropy, rtol=1e-4, atol=1e-6)
    assert_close(terms["loss"], reconstruction + 0.7 * cross_entropy / math.log(N_LEADS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_losses_with_missing_leads(name):
    """In the order of the input, where a missing lead has no place that could be asked."""
    X = signals()
    X[1, 0] = X[2, 1:3] = np.nan
    encoder, module = build(name, reconstruction_order="input")
    given = draw()
    mask = given["mask"][:, None].expand(-1, N_LEADS, -1)
    reconstruction, cross_entropy = NAIVE[name](module, encoder, X, given["order"], mask)
    terms = module(make_batch(encoder, X, **given))
    assert_close(terms["reconstruction"], reconstruction, rtol=1e-4, atol=1e-6)
    assert_close(terms["lead_cross_entropy"], cross_entropy, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reconstruction_order", ["original", "input"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_missing_lead_is_in_neither_loss(name, reconstruction_order):
    X = signals()
    X[:, 1] = np.nan
    encoder, module = build(name, reconstruction_order=reconstruction_order)
    given = draw()
    found = module.detect(make_batch(encoder, X, **given), given["order"])
    holder = given["order"].argsort(dim=1)[:, 1]
    for b in range(len(X)):
        scored = found.varying.expand(found.target.shape)[b]
        place = 1 if reconstruction_order == "original" else int(holder[b])
        assert [bool(scored[i].any()) for i in range(N_LEADS)] == [i != place for i in range(N_LEADS)]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_encoder_sees_the_shuffled_signal_and_the_places_only(name):
    """Which lead stands where reaches the encoder in no other way: shuffling beforehand is the same to the last bit."""
    encoder, module = build(name)
    X, given = signals(), draw()
    seen = []
    original = module.encoder.contextualize
    module.encoder.contextualize = lambda h, *args: (seen.append(h.detach()), original(h, *args))[1]
    shuffled = np.take_along_axis(X, given["order"].numpy()[:, :, None], axis=1)
    there = module.detect(make_batch(encoder, X, **given), given["order"])
    inside = torch.arange(N_LEADS).expand(4, -1)
    here = module.detect(make_batch(encoder, shuffled, mask=given["mask"]), inside)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(there.logits, here.logits)
    assert torch.equal(there.prediction, here.prediction)
    other = module.detect(make_batch(encoder, X, mask=given["mask"]), inside)
    assert not torch.allclose(other.logits, here.logits, atol=1e-3)  # the order does matter


@pytest.mark.parametrize("name", ENCODERS)
def test_renaming_the_leads_consistently_changes_nothing_but_the_names(name):
    encoder, module = build(name, reconstruction_order="input")
    X, given = signals(), draw()
    renaming = torch.tensor([2, 0, 3, 1])
    renamed = renaming.argsort()[given["order"]]  # the same signals in the same places
    one = module(make_batch(encoder, X, **given))
    two = module(make_batch(encoder, X[:, renaming.numpy()], mask=given["mask"], order=renamed))
    assert torch.equal(one["reconstruction"], two["reconstruction"])
    logits = [module.detect(make_batch(encoder, x, mask=given["mask"]), order).logits
              for x, order in ((X, given["order"]), (X[:, renaming.numpy()], renamed))]
    assert torch.equal(*logits)


@pytest.mark.parametrize("leak", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_on_noise_the_cross_entropy_stays_at_chance_over_training(name, leak):
    """Fresh noise says nothing about the lead; if half of the leads are louder, which is a leak, it falls at once."""
    X = signals(64, n_leads=12)
    encoder = (ResNet1d() if name == "resnet" else clone(ENCODERS[name])).fit(X)  # a narrow one learns too slowly
    module = build_seeded(lambda: MaskedReconstruction(
        patch_size=PATCH, decoder_dim=8, decoder_heads=2, lead_shuffle=1.0).build(encoder.build()), 0)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    gain = np.repeat([0.05, 3.0], 6)[:, None] if leak else 1.0
    values = []
    for step in range(250):
        x = (rng.normal(size=(32, 12, N_TIMES)) * gain).astype(np.float32)
        terms = module(make_batch(encoder, x, seed=step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        values.append(terms["lead_cross_entropy"].item())
    assert abs(values[0] - math.log(12)) < 1e-5  # the classifier starts without an opinion
    last = np.mean(values[-50:])
    assert last < math.log(12) - 0.1 if leak else abs(last - math.log(12)) < 0.03


@pytest.mark.parametrize("name", ENCODERS)
def test_both_terms_start_near_one(name):
    X = signals(256, n_leads=12, seed=2)
    encoder = clone(ENCODERS[name]).fit(X)
    module = build_seeded(
        lambda: MaskedReconstruction(patch_size=PATCH, lead_shuffle=0.5).build(encoder.build()), 0)
    terms = module(make_batch(encoder, X))
    assert 0.95 < terms["reconstruction"].item() < 1.4
    assert_close(terms["loss"] - terms["reconstruction"], torch.tensor(1.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_norms_are_those_of_the_terms_at_the_encoders_output(name):
    encoder, module = build(name, lead_loss_weight=0.3)
    batch = make_batch(encoder, signals(), **draw())
    outputs = []
    original = module.encoder.contextualize
    module.encoder.contextualize = lambda h, *args: outputs.append(original(h, *args)) or outputs[-1]
    terms = module(batch)
    leads = 0.3 * terms["lead_cross_entropy"] / math.log(N_LEADS)
    expected = [
        torch.autograd.grad(term, outputs[0], retain_graph=True)[0].norm() for term in (terms["reconstruction"], leads)
    ]
    terms["loss"].backward()
    assert_close([terms["reconstruction_gradient"], terms["lead_gradient"]], expected)
    with torch.no_grad():
        assert "lead_gradient" not in module(batch)


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter(name):
    X = signals()
    X[1, 0] = X[2, 1] = np.nan
    encoder, module = build(name)
    module(make_batch(encoder, X, **draw()))["loss"].backward()
    silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_accuracy_is_reported_for_chest_leads_too():
    names = ("I", "v1", "aVF", "V6")
    encoder, module = build("resnet", lead_names=names)
    given = {"order": torch.tensor([[1, 0, 2, 3]] * 4)}
    with torch.no_grad():  # says that leads 1, 0, 2, 0 stand there
        module.name_lead.weight.zero_()
        module.name_lead.bias.copy_(torch.nn.functional.one_hot(torch.tensor([1, 0, 2, 0]), 4).flatten())
    terms = module(make_batch(encoder, signals(), **given))
    assert terms["lead_accuracy"] == 0.75
    assert terms["chest_lead_accuracy"] == 0.5
    assert "chest_lead_accuracy" not in build("resnet")[1](make_batch(encoder, signals(), **given))


def test_windows_that_are_not_shuffled_are_not_asked():
    """Their lead numbers could be read off the places."""
    encoder, module = build("resnet", lead_shuffle=0.5)
    with torch.no_grad():
        module.name_lead.weight.zero_()
        module.name_lead.bias.copy_(10 * torch.eye(N_LEADS).flatten())  # every lead in its place
    accuracy = np.mean([
        module(make_batch(encoder, signals(8), seed=seed))["lead_accuracy"].item() for seed in range(100)])
    assert abs(accuracy - 1 / N_LEADS) < 0.06


@pytest.mark.parametrize("name", ENCODERS)
def test_spatial_detection_alone_hides_nothing(name):
    encoder = clone(ENCODERS[name]).fit(signals())
    module = build_seeded(
        lambda: MaskedReconstruction(0, lead_shuffle=1.0).build(encoder.build()), 0)
    assert {n.split(".")[0] for n, _ in module.named_parameters()} == {"encoder", "name_lead"}
    kept = []
    module.name_lead.register_forward_hook(lambda _, args, output: kept.append(args[0].detach()))
    terms = module.eval()(make_batch(encoder, signals(), order=torch.tensor([[1, 0, 2, 3]] * 4)))
    assert_close(terms["loss"], terms["lead_cross_entropy"] / math.log(N_LEADS))
    assert "reconstruction" not in terms
    x = torch.from_numpy(signals()[:, [1, 0, 2, 3]])
    h = module.encoder.encode_tokens(x)[0]
    expected = module.encoder.pool(h) if name == "resnet" else h.unflatten(1, (N_LEADS, -1)).mean(dim=2)
    assert_close(kept[0], expected)


def test_a_subset_of_places_may_hold_any_lead():
    encoder, module = build("patches", lead_fraction=0.5)
    batch = make_batch(encoder, signals(64))
    order, _ = module.draw_order(batch)
    found = module.detect(batch, order)
    assert found.logits.shape == (64, 2, N_LEADS)
    assert set(order[:, found.places].flatten().tolist()) == set(range(N_LEADS))
    terms = module(make_batch(encoder, signals(64)))
    terms["loss"].backward()
    assert terms["lead_gradient"] > 0


def test_a_schedule_raises_the_ratio_over_training():
    X = signals(24)
    embedder = ECGSelfSupervisedEmbedder(
        ENCODERS["patches"], MaskedReconstruction((0.2, 0.8), decoder_dim=8), max_epochs=7, batch_size=24, random_state=0
    ).fit(X)
    np.testing.assert_allclose([row["mask_ratio"] for row in embedder.history_], np.linspace(0.2, 0.8, 7), rtol=1e-6)
    encoder, module = build("patches", mask_ratio=(0.2, 0.8), lead_shuffle=1.0)
    batch = make_batch(encoder, X)
    counts = []
    for batch.step, batch.n_steps in ((0, 11), (5, 11), (10, 11), (0, 1)):
        counts.append(int(module.draw_hidden(batch, 100)[0, 0].sum()))
    assert counts == [20, 50, 80, 20]


def test_masks_are_shared_by_the_leads_unless_asked_otherwise():
    encoder, module = build("patches")
    hidden = module.draw_hidden(make_batch(encoder, signals(30)), 40)
    assert torch.equal(hidden, hidden[:, :1].expand(-1, N_LEADS, -1))
    encoder, module = build("patches", mask_per_lead=True)
    hidden = module.draw_hidden(make_batch(encoder, signals(30)), 40)
    assert (hidden.sum(dim=2) == 20).all()
    assert not (hidden == hidden[:, :1]).all(dim=2)[:, 1:].any()


class NoPlaces(PatchTransformer):
    """A network that treats all leads alike."""

    def build(self):
        network = super().build()
        with torch.no_grad():
            network.lead_embedding.zero_()
        return network


def test_shuffling_that_the_network_cannot_see_is_refused():
    for depth in (0, 2):
        encoder = NoPlaces(PATCH, embed_dim=16, depth=depth).fit(signals())
        with pytest.raises(ValueError, match="same tokens in whatever order the leads stand"):
            MaskedReconstruction(lead_shuffle=0.5).build(encoder.build())
        MaskedReconstruction().build(encoder.build())
        MaskedReconstruction(lead_shuffle=0.5).build(PatchTransformer(PATCH, 16, depth).fit(signals()).build())


@pytest.mark.parametrize(("params", "message"), [
    ({"mask_ratio": (0.3,)}, r"mask_ratio=\(0.3,\) is no schedule"),
    ({"mask_ratio": (0.0, 0.5)}, "is no schedule"),
    ({"mask_ratio": (0.3, "0.5")}, "is no schedule"),
    ({"mask_ratio": 0}, "there is nothing to learn"),
    ({"mask_ratio": 1.0}, "mask_ratio"),
    ({"lead_shuffle": 1.5}, "lead_shuffle"),
    ({"shuffle_fraction": 0.0}, "shuffle_fraction"),
    ({"reconstruction_order": "both"}, "reconstruction_order"),
])
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        ECGSelfSupervisedEmbedder(ENCODERS["patches"], MaskedReconstruction(**params), max_epochs=1).fit(signals())


def test_one_lead_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2 leads"):
        ECGSelfSupervisedEmbedder(
            ENCODERS["patches"], MaskedReconstruction(lead_shuffle=0.5), max_epochs=1).fit(signals(n_leads=1)[:, 0])


def test_it_learns_which_lead_is_which():
    X = make_ecg(80, classes=["normal"], duration=2.0, noise=0.2, random_state=0)[0]
    embedder = ECGSelfSupervisedEmbedder(
        PatchTransformer(20, 32, 2), MaskedReconstruction(0.3, lead_shuffle=1.0), max_epochs=25, batch_size=20,
        learning_rate=3e-3, precision="float32", random_state=0).fit(X)
    last = embedder.history_[-1]
    assert last["lead_accuracy"] > 0.2
    assert last["chest_lead_accuracy"] > 0.25
    assert embedder.history_[0]["lead_accuracy"] < 0.15


def test_training_goes_on_after_a_pickle():
    X = make_ecg(12, duration=2.0, random_state=0)[0]
    embedder = ECGSelfSupervisedEmbedder(
        ResNet1d(4, (1,)), MaskedReconstruction(lead_shuffle=1.0), max_epochs=1, warm_start=True, random_state=0).fit(X)
    copy = pickle.loads(pickle.dumps(embedder))
    assert copy.pretrainer_.chest_leads == embedder.pretrainer_.chest_leads == [6, 7, 8, 9, 10, 11]
    assert torch.equal(
        torch.from_numpy(copy.fit(X).transform(X)), torch.from_numpy(embedder.fit(X).transform(X)))
    assert len(copy.history_) == 2


def test_history_has_the_same_terms_in_every_epoch():
    """Also where no window of an epoch was shuffled; the mean of the loss is that of its terms all the same."""
    X = signals(16)
    for batch_size in (1, 16):
        embedder = ECGSelfSupervisedEmbedder(
            ENCODERS["patches"], MaskedReconstruction(0, lead_shuffle=0.04), max_epochs=30, batch_size=batch_size,
            learning_rate=1e-9, random_state=0).fit(X)
        assert len({tuple(row) for row in embedder.history_}) == 1
        empty = [row for row in embedder.history_ if np.isnan(row["lead_accuracy"])]
        assert 0 < len(empty) < 30
        assert all(row["loss"] == 0 and np.isnan(row["lead_cross_entropy"]) for row in empty)
        # 0.04 * 16 windows are expected in each epoch, and untrained the loss is 1
        assert np.mean([row["loss"] for row in embedder.history_]) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_loss_is_the_sum_of_its_terms_on_average(batch_size):
    encoder, module = build("resnet", lead_shuffle=0.5)
    X, rows = signals(8), []
    with torch.no_grad():
        for seed in range(300):
            terms = module(make_batch(encoder, X[:batch_size], seed=seed))
            rows.append([terms["loss"] - terms["reconstruction"], terms["lead_cross_entropy"]])
    loss, cross_entropy = np.array(rows, dtype=float).T
    assert loss.mean() == pytest.approx(np.nanmean(cross_entropy) / math.log(N_LEADS), rel=0.12)


def test_flat_leads_do_not_change_the_scale_of_the_loss():
    X = signals(32, n_leads=12)
    zeros = X.copy()
    zeros[:, 4:] = 0
    missing = X.copy()
    missing[:, 4:] = np.nan
    scales = [PatchTransformer(PATCH).fit(x).scale_ for x in (zeros, missing)]
    assert scales[0] == scales[1] == pytest.approx(X[:, :4].std(), rel=1e-5)
    encoder, module = build("patches", zeros, lead_shuffle=0.5)
    with torch.no_grad():
        module.predict.weight.zero_()
        module.predict.bias.zero_()
    assert 0.8 < module(make_batch(encoder, zeros))["reconstruction"].item() < 1.2


def test_bfloat16_agrees():
    for name in ENCODERS:
        encoder, module = build(name)
        batch = make_batch(encoder, signals(), **draw())
        exact = module(batch)["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = module(batch)["loss"]
        assert_close(rough, exact, rtol=0.05, atol=0.05)
