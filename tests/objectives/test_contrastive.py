import json
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._fairseq import describe_encoder, read_fairseq, rename_tensors
from skecg._torch import build_seeded
from skecg.datasets import make_ecg
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d
from skecg.objectives import Batch, Wav2Vec2CMSC
from skecg.objectives._contrastive_module import agreement_logits, agreement_loss, contrastive_logits

N_LEADS, N_TIMES = 3, 96
TINY = {"embed_dim": 16, "depth": 1, "n_heads": 2, "conv_dim": 8, "conv_strides": (2, 2), "position_kernel": 4,
        "position_groups": 4}
LOCAL = {"codebook_size": 6, "target_dim": 8, "n_negatives": 5, "mask_length": 3}


def unit(n_leads, n_times):
    """Signals of mean 0 and deviation 1."""
    return np.tile(np.where(np.arange(n_times) % 2, -1, 1).astype(np.float32), (2, n_leads, 1))


def signals(n=6, n_leads=N_LEADS, n_times=N_TIMES, seed=0):
    return np.random.default_rng(seed).normal(0.3, 2.0, size=(n, n_leads, n_times)).astype(np.float32)


def build(encoder=None, X=None, **params):
    encoder = (ConvTransformer(**TINY) if encoder is None else encoder).fit(signals() if X is None else X)
    objective = Wav2Vec2CMSC(**{**LOCAL, **params})
    objective.check_encoder(encoder)
    return encoder, build_seeded(lambda: objective.build(encoder.build()), 0)


def make_batch(X, seed=0, **fields):
    valid = ~np.isnan(X[:, :, 0])
    return Batch(
        x=torch.from_numpy(np.nan_to_num(X, nan=0.5)), lead_valid=None if valid.all() else torch.from_numpy(valid),
        generator=torch.Generator().manual_seed(seed), **fields)


# --- numbers of the published implementation


@pytest.fixture(scope="module")
def published(reference):
    folder = reference / "w2v_cmsc_rlm_tiny"
    return (load_file(folder / "arrays.safetensors"), load_file(folder / "grads.safetensors"),
            json.loads((folder / "meta.json").read_text()), read_fairseq(folder / "checkpoint_tiny.pt"))


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def replayed(request, published):
    """The published module with its weights and signals, without dropout."""
    arrays, _, _, (model, config) = published
    network, task = rename_tensors(model, config)
    encoder = describe_encoder(network, config).set_params(dropout=0.0, attention_dropout=0.0)
    encoder.fit(unit(12, 2500))
    objective = Wav2Vec2CMSC(lead_mask_prob=0.0, codebook_size=16, target_dim=16, target_dropout=0.0)
    module = objective.build(encoder.build())
    module.load_state_dict({
        **{f"encoder.{name}": value for name, value in network.items()}, **task,
        "encoder.center": torch.tensor(0.0), "encoder.scale": torch.tensor(1.0)})
    assert len(list(module.parameters())) == 55
    assert sum(p.numel() for p in module.parameters()) == 58_336
    return module.to(request.param).eval(), arrays["source"].to(request.param)


def atol(x, single=5e-5):
    return single if x.dtype == torch.float32 else 2e-5


def test_hidden_states_are_the_published_ones(replayed, published):
    (module, x), arrays = replayed, published[0]
    network = module.encoder

    def check(ours, name, tolerance=None):
        assert_close(ours.double(), arrays[name].double(), rtol=0, atol=tolerance or atol(x))

    with torch.no_grad():
        latents = network.tokenize(x)
        check(latents.transpose(1, 2), "conv_features")
        check(network.normalize(latents), "features_ln")
        h = network.embed(latents)
        check(h, "features_proj")
        hidden = arrays["mask_indices"].bool()
        for mask, name in ((None, "nomask"), (hidden, "mask")):
            g = h if mask is None else torch.where(mask.unsqueeze(-1), module.mask_embedding, h)
            context = network.contextualize(g)
            g = network.norm(g + network.positions(g))
            check(g, f"encoder_in_{name}")
            for i, block in enumerate(network.blocks):
                g = block(g)
                check(g, f"layer{i}_{name}")
            assert torch.equal(g, context)
            check(network.pool(context), f"pooled_{name}", 1e-5)
        check(network(x), "pooled_nomask", 1e-5)
        check(module.project_context(context[hidden]).unflatten(0, (8, -1)), "final_proj_masked")
        quantized, codes, logits = module.quantizer(network.normalize(latents).flatten(0, 1), 2.0)
        assert torch.equal(codes.unflatten(0, (8, -1)), arrays["codes_allframes"].long())
        check(quantized.unflatten(0, (8, -1)), "quantized_allframes")
        check(logits[:156], "quantizer_logits_item0")
        check(module.project_target(quantized).unflatten(0, (8, -1))[hidden].unflatten(0, (8, -1)), "quantized_masked_proj")
        zero = torch.zeros(1, 12, 2500, dtype=x.dtype)
        check(network.contextualize(network.embed(network.tokenize(zero))), "zero_input_encoder_out")
        padded, padding = x[:3].clone(), arrays["pad_frame_mask"].bool()
        for row, length in zip(padded, arrays["pad_lengths"].tolist(), strict=True):
            row[:, length:] = 0
        h = network.contextualize(network.embed(network.tokenize(padded)), padding)
        check(h, "pad_encoder_out")
        check(network.pool(h, padding), "pad_pooled", 1e-5)
        if x.dtype == torch.float64:
            h = network.encode_tokens(x)[0]
            check(h[0], "plain64_last_layer_nomask_item0", 1e-9)
            check(h.mean(dim=1), "plain64_pooled_nomask", 1e-9)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses_and_gradients_are_the_published_ones(mode, replayed, published):
    (module, x), (arrays, gradients, meta, (_, config)) = replayed, published
    scalars = meta["scalars"]["eval" if mode == "eval" else "train_dropout0_gumbel"]
    offsets = 71 * torch.arange(8)[:, None, None]  # theirs count through the batch
    negatives = arrays["negative_indices"].long().reshape(8, 71, 100) - offsets
    windows = x.unflatten(0, (4, 2)).transpose(1, 2).flatten(2)  # each pair is one window
    kept = []
    module.train(mode == "train").zero_grad()
    recognise = F.cross_entropy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "cross_entropy", lambda logits, *args: kept.append(logits) or recognise(logits, *args))
        terms = module(Batch(
            windows, group=arrays["patient_id"][::2].long(), step=1000 if mode == "train" else 0,
            given={"mask": arrays["mask_indices"].bool(), "negatives": negatives,
                   "gumbel": arrays["train_gumbel_noise"].flatten(0, 1).to(x.dtype)}))
    logits = kept[0].detach().unflatten(0, (8, 71)).transpose(0, 1).flatten(0, 1)
    expected = arrays["logits" if mode == "eval" else "train_logits"]
    assert torch.equal(torch.isinf(logits), torch.isinf(expected))
    assert torch.isinf(logits).sum() == scalars["n_neg_inf"]
    assert_close(logits.double(), expected.double(), rtol=0, atol=atol(x))
    for ours, theirs in {
        "loss": "loss_total_mean", "contrastive": "contrastive_ce_mean", "diversity": "diversity_loss",
        "feature_penalty": "features_pen", "cmsc": "cmsc_loss", "probability_perplexity": "prob_perplexity",
        "code_perplexity": "code_perplexity", "gumbel_temperature": "gumbel_temp",
    }.items():
        assert terms[ours].item() == pytest.approx(scalars[theirs], abs=1e-5), ours
    assert terms["contrastive_accuracy"].item() * 568 == pytest.approx(scalars["correct"], abs=1e-3)
    assert terms["hidden_fraction"].item() == pytest.approx(71 / 156)
    if mode == "eval" and x.dtype == torch.float64:
        for ours, theirs in {"loss": "total", "contrastive": "ce", "diversity": "div", "feature_penalty": "pen",
                             "cmsc": "cmsc"}.items():
            assert terms[ours].item() == pytest.approx(meta["scalars"]["plain_float64"][theirs], abs=1e-9)
    terms["loss"].backward()
    network, task = rename_tensors(
        {name.removeprefix(f"{mode}."): g for name, g in gradients.items() if name.startswith(mode)}, config)
    theirs = {**{f"encoder.{name}": g for name, g in network.items()}, **task}
    assert theirs.keys() == dict(module.named_parameters()).keys()
    for name, p in module.named_parameters():
        largest = theirs[name].abs().max().item()
        tolerance = 1e-6 if name.endswith("key.bias") else 1e-4 * largest  # that one is rounding around zero
        assert_close(p.grad.double(), theirs[name].double(), rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def test_base_size():
    encoder = ConvTransformer(768, 12, n_heads=12, conv_dim=256, conv_strides=(2,) * 4, position_kernel=128)
    encoder.fit(unit(12, 5000))
    with torch.device("meta"):
        module = Wav2Vec2CMSC().build(encoder.build())
    assert len(list(module.parameters())) == 215
    assert sum(p.numel() for p in module.parameters()) == 90_883_072


# --- the losses against naive loops


@pytest.mark.parametrize("equal", [True, False])
def test_recognition_against_a_naive_loop(equal):
    rng = torch.Generator().manual_seed(0)
    context, target = (torch.randn(3, 7, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    codes = torch.randint(0, 2 if equal else 99, (3, 7, 2), generator=rng)
    negatives = torch.randint(0, 7, (3, 7, 9), generator=rng)
    logits = contrastive_logits(context, target, codes, negatives, 0.2)
    n_excluded = 0

    def similarity(s, t, other):
        return F.cosine_similarity(context[s, t], target[s, other], dim=0).item() / 0.2

    for s in range(3):
        for t in range(7):
            assert logits[s, t, 0].item() == pytest.approx(similarity(s, t, t))
            for k, other in enumerate(negatives[s, t].tolist()):
                same = torch.equal(codes[s, t], codes[s, other])
                n_excluded += same
                expected = -math.inf if same else similarity(s, t, other)
                assert logits[s, t, 1 + k].item() == pytest.approx(expected)
    assert n_excluded > (30 if equal else 0)


@pytest.mark.parametrize("group", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 2], [7, 7, 7, 7, 7]])
def test_agreement_against_a_naive_loop(group):
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    group = torch.tensor(group)
    loss = agreement_loss(agreement_logits(first, second, 0.1), group[:, None] == group)
    total = [0.0, 0.0]
    n_positive = 0
    for i in range(5):
        for j in range(5):
            if group[i] != group[j]:
                continue
            n_positive += 1
            cosine = [[F.cosine_similarity(a, b, dim=0).item() / 0.1 for b in second] for a in first]
            total[0] -= cosine[i][j] - math.log(sum(math.exp(c) for c in cosine[i]))
            total[1] -= cosine[i][j] - math.log(sum(math.exp(row[j]) for row in cosine))
    assert loss.item() == pytest.approx(0.5 * sum(total) / n_positive)


def test_norms_of_embeddings_have_no_gradient():
    h = torch.randn(4, 6, requires_grad=True)
    agreement_loss(agreement_logits(h, torch.randn(4, 6), 0.1), torch.eye(4, dtype=torch.bool)).backward()
    along = (h.grad * h).sum(dim=1)  # zero if the norm had one
    assert (along.abs() > 1e-3).any()


def test_one_patient_of_a_batch_of_whole_windows():
    _, module = build(local_weight=0, lead_mask_prob=0, halve=False)
    X, group = signals(5), torch.tensor([3, 1, 3, 0, 1])
    module.eval()
    terms = module(make_batch(X, group=group))
    h = module.encoder(torch.from_numpy(X)).detach()
    expected = 0.0
    for i, j in ((0, 2), (2, 0), (1, 4), (4, 1)):
        cosine = F.cosine_similarity(h[i], h, dim=1) / 0.1
        others = [k for k in range(5) if k != i]
        expected += (cosine[others].logsumexp(0) - cosine[j]).item() / 4
    assert terms["cmsc"].item() == pytest.approx(expected, rel=1e-4)
    alone = module(make_batch(X, group=torch.arange(5)))
    assert alone["cmsc"] == 0
    alone["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    with pytest.raises(ValueError, match="halve=False compares windows of one patient"):
        module(make_batch(X))


# --- views


def test_halves_are_what_the_network_sees():
    _, module = build(local_weight=0, lead_mask_prob=0)
    X = signals(4, n_times=N_TIMES + 1)  # the last sample is left over
    seen = []
    module.encoder.register_forward_hook(lambda network, args, output: seen.append(args))
    terms = module(make_batch(X))
    x, lead_valid = seen[0]
    assert lead_valid is None
    assert torch.equal(x[::2], torch.from_numpy(X[..., :48]))
    assert torch.equal(x[1::2], torch.from_numpy(X[..., 48:96]))
    h = module.encoder(x)
    logits = torch.stack([F.cosine_similarity(a, h[1::2], dim=1) for a in h[::2]]) / 0.1
    expected = 0.5 * (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4)))
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["cmsc_accuracy"].item() == pytest.approx((logits.argmax(1) == torch.arange(4)).float().mean().item())


def test_groups_add_pairs():
    _, module = build(local_weight=0, lead_mask_prob=0)
    X = signals(4)
    plain = module(make_batch(X))["cmsc"]
    assert_close(module(make_batch(X, group=torch.tensor([5, 1, 2, 9])))["cmsc"], plain)
    assert not torch.isclose(module(make_batch(X, group=torch.tensor([5, 1, 5, 9])))["cmsc"], plain)


@pytest.mark.parametrize("encoder", [ConvTransformer(**TINY), ResNet1d(4, (1, 1), kernel_size=3), PatchTransformer(
    6, embed_dim=16, depth=1, n_heads=2)], ids=lambda encoder: type(encoder).__name__)
def test_leads_are_taken_away_as_if_they_were_missing(encoder):
    X = signals(4)
    encoder, module = build(encoder, X, local_weight=0)
    module.eval()
    taken = torch.rand(8, N_LEADS, generator=torch.Generator().manual_seed(2)) < 0.5
    taken[:, 1] = False
    masked = module(make_batch(X, given={"lead_mask": taken}))
    halves = X.reshape(4, N_LEADS, 2, -1).transpose(0, 2, 1, 3).reshape(8, N_LEADS, -1).copy()
    halves[taken.numpy()] = np.nan
    valid = torch.from_numpy(~np.isnan(halves[:, :, 0]))
    h = module.encoder(torch.from_numpy(encoder.encode_inputs(halves)), valid)
    expected = agreement_loss(agreement_logits(h[::2], h[1::2], 0.1), torch.eye(4, dtype=torch.bool))
    assert_close(masked["cmsc"], expected.detach(), rtol=1e-4, atol=1e-5)
    assert not torch.isclose(masked["cmsc"], module(make_batch(X))["cmsc"])


def test_leads_are_taken_away_in_training_only():
    _, module = build(local_weight=0)
    X, seen = signals(64), []
    module.encoder.register_forward_hook(lambda network, args, output: seen.append(args))
    module.train()(make_batch(X))
    module.eval()(make_batch(X))
    (x, valid), (whole, none) = seen
    assert none is None and torch.equal(whole[::2], torch.from_numpy(X[..., :48]))
    assert 0.45 < valid.float().mean() < 0.65  # a half, and what is spared
    assert valid.any(dim=1).all()
    assert (x[~valid] == module.encoder.center).all()
    assert torch.equal(x[valid], whole[valid])
    assert not torch.equal(valid[::2], valid[1::2])  # another draw for each half


def test_missing_leads_stay_missing_and_one_stays():
    _, module = build(local_weight=0, lead_mask_prob=0.9)
    X = signals(32)
    X[:, 0] = np.nan
    seen = []
    module.encoder.register_forward_hook(lambda network, args, output: seen.append(args))
    module.train()(make_batch(X))
    valid = seen[0][1]
    assert not valid[:, 0].any()
    assert valid.any(dim=1).all()


# --- the whole


def test_weights_and_terms():
    X = signals(6)
    terms = {}
    for name, params in {
        "both": {}, "local": {"global_weight": 0}, "global": {"local_weight": 0},
        "weighted": {"local_weight": 0.5, "global_weight": 3.0, "diversity_weight": 2.0, "feature_penalty": 0.3},
    }.items():
        module = build(lead_mask_prob=0, target_dropout=0, **params)[1].eval()
        terms[name] = {k: v.item() for k, v in module(make_batch(X)).items()}
    both, weighted = terms["both"], terms["weighted"]
    assert set(both) == {
        "loss", "contrastive", "contrastive_accuracy", "diversity", "feature_penalty", "cmsc", "cmsc_accuracy",
        "code_perplexity", "probability_perplexity", "gumbel_temperature", "hidden_fraction"}
    assert set(terms["local"]) == set(both) - {"cmsc", "cmsc_accuracy"}
    assert set(terms["global"]) == {"loss", "cmsc", "cmsc_accuracy"}
    local = both["contrastive"] + 0.1 * both["diversity"] + 10 * both["feature_penalty"]
    assert both["loss"] == pytest.approx(local + both["cmsc"], rel=1e-5)
    assert terms["local"]["loss"] == pytest.approx(local, rel=1e-5)
    assert terms["global"]["loss"] == pytest.approx(terms["global"]["cmsc"], rel=1e-5)
    assert weighted["loss"] == pytest.approx(
        0.5 * (both["contrastive"] + 2 * both["diversity"] + 0.3 * both["feature_penalty"]) + 3 * both["cmsc"], rel=1e-5)


def test_blocks_are_contrasted_by_themselves():
    """A batch in blocks is the mean of its blocks as batches, by their hidden frames."""
    X = signals(5)
    _, module = build(lead_mask_prob=0, target_dropout=0, contrast_size=3)
    module.eval()
    given = {"mask": torch.rand(10, 12, generator=torch.Generator().manual_seed(0)) < 0.4}
    given["mask"][:, 0] = True
    n_hidden = given["mask"].sum(dim=1)
    given["negatives"] = torch.zeros(10, int(n_hidden.max()), 5, dtype=torch.long)
    whole = module(make_batch(X, given=given))
    expected = {}
    for windows in (slice(0, 3), slice(3, 5)):
        rows = slice(2 * windows.start, 2 * windows.stop)
        n_most = n_hidden[rows].max()
        part = module(make_batch(
            X[windows], given={"mask": given["mask"][rows], "negatives": given["negatives"][rows, :n_most]}))
        for name, value in part.items():
            expected[name] = expected.get(name, 0) + value * n_hidden[rows].sum() / n_hidden.sum()
    for name, value in whole.items():
        assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_draws_come_from_the_generator():
    X = signals(6)
    module = build()[1].train()
    for layer in module.modules():
        if hasattr(layer, "generator"):
            layer.generator = torch.Generator().manual_seed(9)
    module.target_dropout.p = 0.0
    first, same, other = (module(make_batch(X, seed))["loss"].item() for seed in (0, 0, 1))
    assert first == same != other


def test_training_lowers_every_loss_and_cools():
    X = make_ecg(48, duration=4.0, random_state=0)[0]
    embedder = ECGSelfSupervisedEmbedder(
        ConvTransformer(embed_dim=32, depth=1, conv_dim=16),
        Wav2Vec2CMSC(
            gumbel_temperature=(2.0, 1.9, 0.99), codebook_size=20, target_dim=32, n_negatives=20, lead_mask_prob=0.0),
        max_epochs=14, batch_size=16, learning_rate=3e-3, random_state=0).fit(X)
    first, last = embedder.history_[0], embedder.history_[-1]
    for name in ("loss", "cmsc", "feature_penalty", "contrastive"):
        assert last[name] < first[name]
    assert first["gumbel_temperature"] == pytest.approx(2 * (1 + 0.99 + 0.99**2) / 3, rel=1e-3)
    assert last["gumbel_temperature"] == pytest.approx(1.9)
    assert last["cmsc_accuracy"] > 0.3  # chance is one of sixteen
    assert np.isfinite(embedder.transform(X)).all()
    again = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_array_equal(again.transform(X), embedder.transform(X))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_leads", [1, 3])
@pytest.mark.parametrize("params", [{}, {"local_weight": 0}, {"global_weight": 0, "halve": False},
                                    {"equal_mask_counts": False}, {"contrast_size": 1}], ids=str)
def test_finite_with_one_lead_and_one_window(precision, n_leads, params):
    X = signals(3, n_leads)
    X[0] = 0  # nothing at all
    X[1] = 5
    _, module = build(ConvTransformer(**TINY, dropout=0.1), X, **params)
    module.train()
    for rows in (slice(None), slice(0, 1)):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            terms = module(make_batch(X[rows]))
        terms["loss"].backward()
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_half_precision_is_near_full():
    X, given = signals(6), {}
    module = build(lead_mask_prob=0)[1].eval()
    given["mask"] = torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    given["negatives"] = torch.zeros(12, int(given["mask"].sum(dim=1).max()), 5, dtype=torch.long)
    full = module(make_batch(X, given=given))
    with torch.autocast("cpu", torch.bfloat16):
        half = module(make_batch(X, given=given))
    assert half["loss"].dtype == torch.float32
    assert half["contrastive"].item() == pytest.approx(full["contrastive"].item(), rel=0.2)
    assert half["cmsc"].item() == pytest.approx(full["cmsc"].item(), rel=0.1)


@pytest.mark.parametrize(("encoder", "params", "message"), [
    (PatchTransformer(), {}, "PatchTransformer makes 'patches' tokens. Use ConvTransformer, or set local_weight=0"),
    (ResNet1d(), {}, "ResNet1d makes 'signal' tokens. Use ConvTransformer, or set local_weight=0"),
    (ConvTransformer(**TINY), {"local_weight": 0, "global_weight": 0}, "leave nothing to learn"),
    (ConvTransformer(**TINY), {"codebook_groups": 3}, "codebook_dim=8 is not a multiple of codebook_groups=3"),
    (ConvTransformer(**TINY), {"gumbel_temperature": (2.0, 0.5)}, "is no schedule"),
    (ConvTransformer(**TINY), {"gumbel_temperature": (2.0, 0.5, 1.1)}, "is no schedule"),
    (ConvTransformer(**{**TINY, "conv_strides": (48,)}), {}, r"Only 1 frame\(s\) in time to mask"),
    (ConvTransformer(**{**TINY, "conv_strides": (64,)}), {}, "48 samples is shorter than one frame of 64"),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "")
def test_what_cannot_work_is_refused(encoder, params, message):
    with pytest.raises(ValueError, match=message):
        ECGSelfSupervisedEmbedder(encoder, Wav2Vec2CMSC(**{**LOCAL, **params}), max_epochs=1).fit(signals())


def test_default_objective_of_the_encoder():
    embedder = ECGSelfSupervisedEmbedder(ConvTransformer(**TINY), max_epochs=1, random_state=0).fit(signals())
    assert {"contrastive", "cmsc"} <= embedder.history_[0].keys()
    scratch = ECGSelfSupervisedEmbedder(ConvTransformer(**TINY), max_epochs=0, random_state=0).fit(signals())
    assert scratch.transform(signals()).shape == (6, 16)
