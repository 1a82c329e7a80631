"""Recipes and checkpoints of lead-agnostic pretraining."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

import skecg
from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg._fairseq import describe_encoder, describe_objective, rename_tensors
from skecg.datasets import make_ecg
from skecg.preprocessing import LeadSelector
from skecg.recipes import from_fairseq, w2v_cmsc_rlm


def unit(n_leads, n_times):
    """Signals of mean 0 and deviation 1."""
    return np.tile(np.where(np.arange(n_times) % 2, -1, 1).astype(np.float32), (2, n_leads, 1))


@pytest.fixture(scope="module")
def folder(reference):
    return reference / "w2v_cmsc_rlm_tiny"


@pytest.fixture(scope="module")
def arrays(folder):
    return load_file(folder / "arrays.safetensors")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return torch.load(folder / "checkpoint_tiny.pt", weights_only=True)


@pytest.fixture
def write(tmp_path):
    def write(model, cfg):
        torch.save({"model": model, "cfg": cfg}, tmp_path / "checkpoint.pt")
        return tmp_path / "checkpoint.pt"

    return write


# --- recipes


@pytest.mark.parametrize("variant", ["paper-2022", "upstream"])
def test_base_is_the_published_model(variant):
    embedder = w2v_cmsc_rlm(variant)
    assert isinstance(embedder, ECGSelfSupervisedEmbedder)
    encoder = clone(embedder.encoder).fit(unit(12, 2500))
    with torch.device("meta"):
        module = clone(embedder.objective).build(encoder.build())
    assert len(list(module.parameters())) == 215
    assert sum(p.numel() for p in module.parameters()) == 90_883_072
    assert module.encoder.n_frames(2500) == 156
    block, old = module.encoder.blocks[0], variant == "paper-2022"
    assert block.norm1.eps == block.norm2.eps == (1e-6 if old else 1e-5)
    assert module.encoder.norm.eps == 1e-5
    assert block.dropout1.p == (0.19 if old else 0.1)
    assert block.dropout2.p == block.attention_dropout.p == module.target_dropout.p == 0.1
    assert embedder.objective.contrast_size == (32 if old else 64)
    assert (embedder.learning_rate, embedder.schedule, embedder.warmup) == (5e-5, "constant", 0.0)
    assert (embedder.gradient_clip, embedder.weight_decay, embedder.max_epochs) == (None, 0.01, 200)


@pytest.mark.parametrize(("fs", "n_convolutions"), [(500, 4), (360, 4), (250, 3), (125, 2), (100, 2), (50, 1), (20, 1)])
def test_frames_last_about_as_long_at_any_rate(fs, n_convolutions):
    assert w2v_cmsc_rlm(fs=fs).encoder.conv_strides == (2,) * n_convolutions


def test_small_trains_and_embeds_any_leads_and_lengths():
    X, _, groups = make_ecg(6, duration=4.0, random_state=0)
    params = {"encoder__depth": 1, "encoder__embed_dim": 32, "objective__codebook_size": 10}
    embedder = w2v_cmsc_rlm(size="small", fs=100, max_epochs=1, batch_size=6, random_state=0)
    assert sum(p.numel() for p in clone(embedder).set_params(max_epochs=0).fit(X).network_.parameters()) < 4.5e6
    embedder.set_params(**params).fit(X, groups=groups)
    assert {"contrastive", "cmsc", "diversity", "feature_penalty"} <= embedder.history_[0].keys()
    for leads in (["I", "II", "III", "aVR", "aVL", "aVF"], ["I", "II", "V2"], ["I", "II"], ["I"]):
        fewer = LeadSelector(leads).fit_transform(X)
        alone = LeadSelector(skecg._validation.STANDARD_LEADS, input_lead_names=leads).fit_transform(fewer)
        assert np.isnan(alone[:, :, 0]).sum() == 6 * (12 - len(leads))
        assert np.isfinite(embedder.transform(alone)).all()
        assert np.isfinite(embedder.transform(alone[..., :200])).all()
    with pytest.raises(ValueError, match=r"X has none of the leads I, .*; it has X9"):
        LeadSelector(skecg._validation.STANDARD_LEADS, input_lead_names=["X9"]).fit_transform(X[:, :1])
    classifier = ECGClassifier(FrozenEstimator(embedder), max_epochs=1, random_state=0)
    assert np.isfinite(classifier.fit(alone[..., :200], [0, 1] * 3).predict_proba(alone[..., :200])).all()


@pytest.fixture(scope="module")
def small():
    """A pretrained embedder of 12 leads at 100 Hz, and signals."""
    X = make_ecg(6, duration=4.0, random_state=0)[0].astype(float)
    embedder = w2v_cmsc_rlm(size="small", fs=100, max_epochs=1, batch_size=6, random_state=0)
    return embedder.set_params(encoder__depth=1, encoder__embed_dim=32).fit(X), X


@settings(max_examples=8, deadline=None)
@given(
    leads=st.sets(st.integers(0, 11), min_size=1), gain=st.floats(0.2, 50), seed=st.integers(0, 99),
    n_times=st.sampled_from([400, 200, 317]))
def test_embedding_of_any_leads_depends_on_neither_gain_nor_offset(small, leads, gain, seed, n_times):
    embedder, X = small
    X = 30 * X[..., :n_times]  # far above what the normalisation adds to variances
    X[:, sorted(set(range(12)) - leads)] = np.nan
    expected = embedder.transform(X)
    offset = np.random.default_rng(seed).normal(scale=10, size=(1, 12, 1))
    assert_allclose(embedder.transform(gain * X + offset), expected, rtol=0, atol=1e-2 * np.abs(expected).max())


def test_leads_that_pretraining_did_not_know_are_refused(small):
    embedder, X = small
    with pytest.raises(ValueError, match=r"X has 15 lead\(s\), but .* was fitted on 12 \(I, II, .*LeadSelector"):
        embedder.transform(np.concatenate([X, X[:, :3]], axis=1))
    with pytest.raises(ValueError, match=r"X has none of the leads I, .*; it has X, Y, Z"):
        LeadSelector(embedder.lead_names_in_, input_lead_names=["X", "Y", "Z"]).fit(X[:, :3])


@pytest.mark.parametrize("ablation", [{"local_weight": 0}, {"global_weight": 0}, {"lead_mask_prob": 0}])
def test_ablations_are_parameters(ablation):
    X = make_ecg(4, duration=2.0, random_state=0)[0]
    embedder = w2v_cmsc_rlm(size="small", fs=100, max_epochs=1, random_state=0).set_params(
        encoder__depth=1, encoder__embed_dim=32, **{f"objective__{name}": value for name, value in ablation.items()})
    row = embedder.fit(X).history_[0]
    assert ("contrastive" in row) == ("local_weight" not in ablation)
    assert ("cmsc" in row) == ("global_weight" not in ablation)


@pytest.mark.parametrize(("args", "message"), [
    ({"variant": "2022"}, "variant"), ({"size": "large"}, "size"), ({"fs": 0}, "fs"),
])
def test_bad_arguments_are_refused(args, message):
    with pytest.raises(ValueError, match=f"The '{message}' parameter"):
        w2v_cmsc_rlm(**args)


# --- checkpoints


@pytest.mark.parametrize("name", ["checkpoint_tiny.pt", "checkpoint_tiny_oldweightnorm.pt"])
def test_embeddings_of_a_checkpoint_are_the_published_ones(name, folder, arrays):
    X = arrays["source"].numpy()
    embedder = from_fairseq(folder / name)
    assert embedder.lead_names_in_ == skecg._validation.STANDARD_LEADS
    assert_allclose(embedder.transform(X), arrays["pooled_nomask"], rtol=0, atol=1e-5)
    embedder.set_params(output="tokens")
    assert_allclose(embedder.transform(X), arrays["layer1_nomask"], rtol=0, atol=5e-5)
    # ten seconds are two pieces of five
    pairs = X.reshape(4, 2, 12, 2500).transpose(0, 2, 1, 3).reshape(4, 12, 5000)
    embedder.set_params(output="embedding")
    assert_allclose(embedder.transform(pairs), arrays["pooled_nomask"].unflatten(0, (4, 2)).mean(dim=1), rtol=0, atol=1e-5)


def test_a_missing_lead_is_zero(folder, arrays):
    X = arrays["source"].numpy().copy()
    kept = arrays["lead_kept"].numpy().astype(bool)
    X[~kept] = np.nan
    assert_allclose(from_fairseq(folder / "checkpoint_tiny.pt").transform(X), arrays["pooled_nomask"], rtol=0, atol=1e-5)


def test_fine_tuned_checkpoint(checkpoint, arrays, write):
    model = {
        f"encoder.{name}": value for name, value in checkpoint["model"].items()
        if not name.startswith(("mask_emb", "quantizer", "project_q", "final_proj"))}
    model |= {"proj.weight": torch.zeros(26, 48), "proj.bias": torch.zeros(26)}
    path = write(model, checkpoint["cfg"])
    embedder = from_fairseq(str(path))
    assert_allclose(embedder.transform(arrays["source"].numpy()), arrays["pooled_nomask"], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="holds a fine-tuned model without its task"):
        from_fairseq(path, warm_start=True)


def test_heads_are_asked_for_where_nothing_tells(checkpoint, arrays, write):
    path = write(checkpoint["model"], {"model": {"encoder_embed_dim": 1024, "encoder_attention_heads": 16}})
    with pytest.raises(ValueError, match="pass n_heads, which no tensor tells"):  # a configuration of another model
        from_fairseq(path)
    embedder = from_fairseq(path, n_heads=4)
    assert_allclose(embedder.transform(arrays["source"].numpy()), arrays["pooled_nomask"], rtol=0, atol=1e-5)


def test_loaded_embedder_is_like_any_other(folder, arrays, tmp_path):
    X = arrays["source"].numpy()
    embedder = from_fairseq(folder / "checkpoint_tiny.pt", random_state=0, batch_size=3)
    assert embedder.batch_size == 3
    expected = embedder.transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(embedder)).transform(X), expected)
    skecg.save(embedder, tmp_path / "model")
    np.testing.assert_array_equal(skecg.load(tmp_path / "model").transform(X), expected)
    classifier = ECGClassifier(FrozenEstimator(embedder), max_epochs=1, random_state=0).fit(X, [0, 1] * 4)
    assert not np.allclose(classifier.embedder_.transform(X), expected)
    np.testing.assert_array_equal(embedder.transform(X), expected)


def test_windows_shorter_than_the_pieces_stay_whole(folder, arrays):
    X, y = arrays["source"].numpy()[..., :1600], np.arange(8) % 2
    embedder, expected = (
        from_fairseq(folder / "checkpoint_tiny.pt", random_state=0, **params) for params in ({}, {"crop_size": None}))
    assert embedder.crop_size == 2500
    np.testing.assert_array_equal(embedder.transform(X), expected.transform(X))
    fits = [
        ECGClassifier(FrozenEstimator(one), max_epochs=2, early_stopping=True, validation_fraction=0.3, random_state=0)
        .fit(X, y) for one in (embedder, expected)]
    assert fits[0].history_[-1]["valid_loss"] == fits[1].history_[-1]["valid_loss"]
    np.testing.assert_array_equal(*(fit.predict_proba(X) for fit in fits))


def test_pretraining_continues_from_a_checkpoint(folder, checkpoint, arrays):
    X = arrays["source"].numpy()
    embedder = from_fairseq(folder / "checkpoint_tiny.pt", warm_start=True, crop_size=None, random_state=0)
    task = embedder.pretrainer_
    assert torch.equal(task.mask_embedding, checkpoint["model"]["mask_emb"])
    assert torch.equal(task.quantizer.codebook.flatten(0, 1), checkpoint["model"]["quantizer.vars"][0])
    before = embedder.transform(X)
    assert_allclose(before, arrays["pooled_nomask"], rtol=0, atol=1e-5)
    embedder.partial_fit(X)
    assert len(embedder.history_) == 1
    assert not np.allclose(embedder.transform(X), before)


@pytest.mark.parametrize("kind", ["pretrained_base", "finetuned_base"])
def test_base_size_tensors_fit(kind, folder):
    """Every tensor of a model of ECG-FM's size has a place of its shape, and no place is left."""
    keys = json.loads((folder / "base_size_keys.json").read_text())
    name = next(name for name in keys if name.startswith(kind.split("_")[0]))
    model = {key: torch.empty(shape, device="meta") for key, shape in keys[name].items()}
    network, task = rename_tensors(model, {})
    assert len(model) == (215 if task else 209)
    with torch.device("meta"):
        module = describe_encoder(network, {}).fit(unit(12, 2500)).build()
        state = dict(network)
        if task:
            module = describe_objective(task, {}).build(module)
            state = {f"encoder.{key}": value for key, value in network.items()} | task
    ours = {key: value.shape for key, value in module.named_parameters()}
    assert {key: value.shape for key, value in state.items()} == ours


@pytest.mark.parametrize(("change", "message"), [
    (lambda model, cfg: model.update({"encoder.layers.0.self_attn.rel_pos": torch.zeros(3)}), "does not have: .*rel_pos"),
    (lambda model, cfg: model.pop("layer_norm.bias"), "does not fit .*latent_norm.bias"),
    (lambda model, cfg: model.pop("post_extract_proj.weight"), "lacks a part of the network"),
    (lambda model, cfg: model.update({"layer_norm.bias": torch.zeros(5)}), "does not fit .*latent_norm.bias"),
    (lambda model, cfg: cfg.update(layer_norm_first=True), "layer_norm_first=True; only False"),
    (lambda model, cfg: cfg.update(conv_feature_layers="[(32, 10, 5)] + [(32, 2, 2)] * 3"), "kernel 10 and stride 5"),
])
def test_what_does_not_fit_is_refused(change, message, checkpoint, write):
    model, cfg = dict(checkpoint["model"]), dict(checkpoint["cfg"]["model"])
    change(model, cfg)
    with pytest.raises(ValueError, match=message.replace(" .*", "(.|\n)*")):
        from_fairseq(write(model, {"model": cfg}))


def test_files_that_are_no_checkpoints(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"is no checkpoint of fairseq-signals: .* got \['weights'\]"):
        from_fairseq(tmp_path / "other.pt")
    torch.save({"model": {}, "cfg": print}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="cannot be read as plain weights"):
        from_fairseq(tmp_path / "code.pt")
    with pytest.raises(FileNotFoundError):
        from_fairseq(tmp_path / "nothing.pt")
