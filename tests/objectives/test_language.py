import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._huggingface import load_strictly, rename
from skecg._torch import build_seeded
from skecg.encoders import PatchTransformer, TokenTransformer
from skecg.encoders._token import MASK, PAD, TokenNetwork
from skecg.objectives import Batch, MaskedLanguageModeling
from skecg.preprocessing import ECGQuantizer, ECGTokenizer

V = 60


def build(n_leads=2, dropout=0.0, **params):
    def both():
        network = TokenNetwork(V, n_leads, 40, 16, 1, 2, 4.0, dropout, 0.0, 64)
        return MaskedLanguageModeling(**params).build(network)

    return build_seeded(both, 0)


def random_ids(n_samples=6, n_leads=2, n_tokens=40, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(7, V, size=(n_samples, n_leads, n_tokens)).astype(np.int32)
    ids[np.arange(n_tokens) >= rng.integers(5, n_tokens + 1, size=(n_samples, n_leads, 1))] = PAD
    ids[0, 1] = PAD  # a missing lead
    return torch.from_numpy(ids)


# --- RoBERTa's numbers


@pytest.fixture
def roberta(reference):
    folder = reference / "roberta_mlm_tiny"
    meta = json.loads((folder / "meta.json").read_text())
    c = meta["config"]
    network = TokenNetwork(c["vocab_size"], 1, 128, c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"],
                           2.0, 0.1, 0.1, c["max_position_embeddings"] - 2)
    module = MaskedLanguageModeling().build(network)
    ours, task = rename(load_file(folder / "state_dict.safetensors"))
    load_strictly(network, ours, "the network")
    missing, unknown = module.load_state_dict(task, strict=False)
    assert not unknown and all(name.startswith("encoder.") for name in missing)
    arrays = load_file(folder / "arrays.safetensors")
    chosen = arrays["labels"] != -100
    batch = Batch(
        torch.where(chosen, arrays["labels"], arrays["input_ids"])[:, None],
        given={"mask": chosen, "seen": arrays["input_ids"]},
    )
    return module.eval(), batch, arrays, meta, load_file(folder / "grads.safetensors")


def test_logits_and_loss_are_those_of_roberta(roberta):
    module, batch, arrays, meta, _ = roberta
    there = arrays["attention_mask"].bool()
    with torch.no_grad():
        h = module.encoder.contextualize(module.encoder.embed(arrays["input_ids"]), ~there)
        assert_close(module.logits(h)[there], arrays["logits"][there], rtol=0, atol=1e-4)
        assert module(batch)["loss"].item() == pytest.approx(meta["loss"], abs=1e-5)
        module.double()
        assert module(batch)["loss"].item() == pytest.approx(meta["loss_float64"], abs=1e-9)


@pytest.mark.parametrize("together", [1, 10**6])
def test_gradients_are_those_of_roberta(roberta, together, monkeypatch):
    """Read without any padding, and all in one padded batch."""
    module, batch, _, _, gradients = roberta
    monkeypatch.setattr("skecg.encoders._token._TOGETHER", together)
    module(batch)["loss"].backward()
    # the decoder's gradient is in that of the embedding
    network, task = rename({name: value for name, value in gradients.items() if "decoder" not in name})
    expected = {**{f"encoder.{name}": value for name, value in network.items()}, **task}
    found = {name: p.grad for name, p in module.named_parameters()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("key.bias"):  # zero but for rounding
            assert_close(found[name], value, rtol=0, atol=1e-6)
        else:
            assert_close(found[name], value, rtol=0, atol=1e-4 * value.abs().max().item())


def test_the_whole_model_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = TokenNetwork(52_000, 1, 512, 768, 6, 12, 4.0, 0.1, 0.1, 512)
        module = MaskedLanguageModeling().build(network)
    assert sum(p.numel() for p in module.parameters()) == 83_504_416


# --- what is hidden


def test_tokens_meet_their_fates():
    ids = torch.full((4, 2, 500), 9, dtype=torch.int32)
    batch = Batch(ids, generator=torch.Generator().manual_seed(0))
    module = build(mask_ratio=0.5)
    flat = module.encoder.tokenize(ids)
    mask, seen = module.hide(flat, batch)
    assert mask.reshape(8, 500).sum(dim=1).tolist() == [250] * 8
    assert (seen[~mask] == 9).all()
    chosen = seen[mask]
    assert abs((chosen == MASK).float().mean() - 0.8) < 0.03
    others = chosen[(chosen != MASK) & (chosen != 9)]
    assert abs(len(others) / len(chosen) - 0.1 * (V - 8) / (V - 7)) < 0.03
    assert others.min() >= 7 and others.max() == V - 1 and len(others.unique()) > 40


@pytest.mark.parametrize(("shares", "kinds"), [((1.0, 0.0), {MASK}), ((0.0, 0.0), {9}), ((0.0, 1.0), set(range(7, V)))])
def test_shares(shares, kinds):
    ids = torch.full((4, 2, 500), 9, dtype=torch.int32)
    module = build(mask_ratio=0.5, mask_share=shares[0], random_share=shares[1])
    mask, seen = module.hide(module.encoder.tokenize(ids), Batch(ids, generator=torch.Generator().manual_seed(0)))
    assert set(seen[mask].tolist()) == kinds


def test_padding_and_missing_leads_are_never_chosen():
    ids = random_ids()
    module = build()
    for seed in range(20):
        flat = module.encoder.tokenize(ids)
        mask, seen = module.hide(flat, Batch(ids, generator=torch.Generator().manual_seed(seed)))
        assert not mask[flat == PAD].any()
        assert (seen[flat == PAD] == PAD).all()
        counts = mask.reshape(12, 40).sum(dim=1)
        there = (flat != PAD).reshape(12, 40).sum(dim=1)
        assert torch.equal(counts, torch.where(there > 0, (0.15 * there).round().clamp(min=1), 0).long())


def test_masks_are_drawn_afresh_and_from_the_generator():
    ids, module = random_ids(), build()
    generator = torch.Generator().manual_seed(0)
    batch = Batch(ids, generator=generator)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = (module.hide(ids.flatten(1), batch)[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(module.hide(ids.flatten(1), Batch(ids, generator=generator.manual_seed(0)))[0], first)


# --- the loss


def test_loss_is_that_of_a_naive_loop():
    """Every lead by itself, every chosen token by itself, logits at all positions."""
    ids, module = random_ids(), build().eval()
    batch = Batch(ids, generator=torch.Generator().manual_seed(0))
    mask, seen = module.hide(ids.flatten(1), batch)
    batch.given = {"mask": mask, "seen": seen}
    with torch.no_grad():
        losses, right = [], []
        for i in range(6):
            for lead in range(2):
                target, chosen = ids[i, lead], mask.unflatten(1, (2, 40))[i, lead]
                n = int((target != PAD).sum())
                if not n:
                    continue
                single = TokenNetwork(V, 1, 40, 16, 1, 2, 4.0, 0.0, 0.0, 64).eval()
                single.load_state_dict(module.encoder.state_dict())
                h = single.encode_tokens(seen.unflatten(1, (2, 40))[i, lead, :n][None, None])[0]
                for k in range(n):
                    if chosen[k]:
                        logits = module.logits(h[0, k])
                        losses.append(F.cross_entropy(logits[None], target[k].long()[None]).item())
                        right.append(int(logits.argmax()) == target[k])
        found = module(batch)
    assert found["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["accuracy"].item() == pytest.approx(np.mean(right))


def test_reading_pieces_together_changes_nothing(monkeypatch):
    """Loss and gradients are those of every lead read alone, without any padding, however many are read together."""
    ids, module = random_ids(n_samples=12), build().train()
    batch = Batch(ids, generator=torch.Generator().manual_seed(0))
    mask, seen = module.hide(ids.flatten(1), batch)
    batch.given = {"mask": mask, "seen": seen}

    def read():
        module.zero_grad()
        loss = module(batch)["loss"]
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in module.parameters()]

    with monkeypatch.context() as patch:
        patch.setattr(module.encoder, "_n_together", lambda h, lengths: 1)
        expected = read()
    shapes = []
    module.encoder.blocks[0].register_forward_hook(lambda block, inputs, out: shapes.append(tuple(inputs[0].shape[:2])))
    for together in (1, 50, 200, 10**6):
        shapes.clear()
        monkeypatch.setattr("skecg.encoders._token._TOGETHER", together)
        found = read()
        assert_close(found[0], expected[0], rtol=1e-5, atol=0)
        for one, other in zip(found[1], expected[1], strict=True):
            assert_close(one, other, rtol=0, atol=1e-5 * max(1e-3, other.abs().max().item()))
        assert sum(n for n, _ in shapes) == 23  # the missing lead is not read
        assert (len(shapes) == 1) == (together == 10**6)
        n_read, n_there = sum(n * length for n, length in shapes), int((ids != PAD).sum())
        assert (n_read == n_there) == (together == 1)
        assert together == 10**6 or n_read <= 1.2 * n_there


def test_decoder_is_the_embedding():
    module = build()
    module(Batch(random_ids(), generator=torch.Generator().manual_seed(0)))["loss"].backward()
    gradient = module.encoder.word.weight.grad
    assert (gradient.abs().sum(dim=1) > 0).all()  # also of tokens that do not occur, of <s> and of padding
    assert sum(p.numel() for p in module.parameters()) == sum(
        p.numel() for p in module.encoder.parameters()) + 16 * 16 + 16 + 2 * 16 + V


def test_hidden_tokens_are_learned_from_their_neighbours():
    """Ten levels, equally frequent, and one of them in each window: known from its neighbours only."""
    X = np.repeat(np.arange(60)[:, None] % 10, 20, axis=1).astype(np.float32)
    X[:, 0] = (X[:, 0] + 1) % 10  # flat signals are warned about
    encoder = TokenTransformer(ECGQuantizer(10, method="uniform"), ECGTokenizer(17), embed_dim=32, depth=1)
    embedder = ECGSelfSupervisedEmbedder(encoder, max_epochs=30, batch_size=15, learning_rate=1e-2, random_state=0).fit(X)
    first, last = embedder.history_[0], embedder.history_[-1]
    assert abs(first["loss"] - math.log(17)) < 0.5
    assert last["accuracy"] > 0.9
    assert last["loss"] < 0.5


def test_other_tokens_are_refused():
    with pytest.raises(ValueError, match=r"MaskedLanguageModeling predicts 'ids' tokens, but PatchTransformer"):
        ECGSelfSupervisedEmbedder(PatchTransformer(), MaskedLanguageModeling()).fit(np.eye(4, 50))
    with pytest.raises(ValueError, match="more than 1 together"):
        build(mask_share=0.9, random_share=0.2)
