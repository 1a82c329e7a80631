import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from tokenizers import SentencePieceBPETokenizer, Tokenizer

import skecg
from skecg import ECGClassifier
from skecg.datasets import make_ecg
from skecg.heads import BiLSTMHead
from skecg.preprocessing import ECGQuantizer
from skecg.preprocessing._tokenizer import SPECIAL_TOKENS
from skecg.recipes import from_heartbert, heartbert

X = make_ecg(20, duration=3.0, random_state=0)[0][:, 1:2]
EDGES = ECGQuantizer(100).fit(X).edges_


@pytest.fixture
def folder(reference, tmp_path):
    """A model as save_pretrained writes it, with a tokenizer as HeartBERT's notebook makes it."""
    source, folder = reference / "roberta_mlm_tiny", tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "roberta", **json.loads((source / "meta.json").read_text())["config"]}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copyfile(source / "state_dict.safetensors", folder / "model.safetensors")
    lines = ["".join(chr(65 + level) for level in row) for row in ECGQuantizer.from_edges(EDGES).transform(X)[:, 0]]
    tokenizer = SentencePieceBPETokenizer()
    tokenizer.train_from_iterator(
        lines, vocab_size=300, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), limit_alphabet=100, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def change(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_base_is_the_network_that_is_documented():
    for variant in ("paper", "fixed"):
        encoder = heartbert(variant).encoder
        assert (encoder.embed_dim, encoder.depth, encoder.n_heads, encoder.max_tokens) == (768, 6, 12, 512)
        assert (encoder.quantizer.n_levels, encoder.tokenizer.vocab_size) == (100, 52_000)
        encoder.quantizer_, encoder.n_leads_, encoder.n_tokens_ = None, 1, 100  # what fit would have set

        class Tokenizer:
            vocab_size_ = 52_000

        encoder.tokenizer_ = Tokenizer()
        with torch.device("meta"):
            network = encoder.build()
        assert sum(p.numel() for p in network.parameters()) == 82_860_288


def test_small_runs_in_both_variants():
    results = []
    for variant in ("paper", "fixed"):
        embedder = heartbert(variant, "small", max_epochs=1, batch_size=10, random_state=0).fit(X[:, :, :150])
        assert embedder.encoder_.quantizer_.method == {"paper": "quantile", "fixed": "lloyd-max"}[variant]
        results.append(embedder.encoder_.quantizer_.snr_db_)
        assert embedder.transform(X[:3, :, :150]).shape == (3, 256)
    assert results[1] > results[0] + 5


@pytest.mark.parametrize("arguments", [{"variant": "old"}, {"size": "large"}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=f"The '{next(iter(arguments))}' parameter"):
        heartbert(**arguments)


# --- models of others


def test_embedding_is_the_mean_of_roberta_over_its_tokens(folder, reference):
    embedder = from_heartbert(folder, EDGES, n_times=X.shape[2])
    state = load_file(folder / "model.safetensors")
    assert torch.equal(embedder.network_.word.weight, state["roberta.embeddings.word_embeddings.weight"])
    arrays = load_file(reference / "roberta_mlm_tiny/arrays.safetensors")
    there = arrays["attention_mask"].bool()
    expected = torch.stack([h[row].mean(dim=0) for h, row in zip(arrays["hidden_2"], there, strict=True)])
    with torch.no_grad():
        torch.testing.assert_close(embedder.network_(arrays["input_ids"][:, None]), expected, rtol=0, atol=2e-5)
    tokenizer = embedder.encoder_.tokenizer_
    assert tokenizer.first_character_ == 65
    text = "".join(chr(65 + level) for level in np.searchsorted(EDGES, X[4, 0], side="right"))
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    ids = embedder.encoder_.encode_inputs(X[4:5])[0, 0]  # in pieces of 128
    assert_array_equal(ids[:len(expected)], expected)
    assert (ids[len(expected):] == 1).all() and len(ids) == 256
    assert embedder.transform(X).shape == (20, 48)
    assert embedder.transform(X[:, :, :100]).shape == (20, 48)


def test_edges_may_be_the_breakpoints_of_the_notebook(folder):
    first, second = from_heartbert(folder, EDGES), from_heartbert(folder, [*EDGES, 1e100])
    assert_array_equal(first.transform(X), second.transform(X))


def test_other_layouts_of_the_same_weights(folder):
    expected = from_heartbert(folder, EDGES).transform(X)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state["roberta.pooler.dense.weight"] = torch.ones(48, 48)
    torch.save(state, folder / "pytorch_model.bin")
    assert_array_equal(from_heartbert(folder, EDGES).transform(X), expected)
    bare = {name.removeprefix("roberta."): value for name, value in state.items() if name.startswith("roberta.")}
    torch.save(bare, folder / "pytorch_model.bin")
    assert_array_equal(from_heartbert(folder, EDGES).transform(X), expected)
    with pytest.raises(ValueError, match="an encoder without its task"):
        from_heartbert(folder, EDGES, warm_start=True)


def test_pretraining_goes_on(folder):
    embedder = from_heartbert(folder, EDGES, warm_start=True, n_times=X.shape[2], batch_size=10, learning_rate=1e-3,
                              max_epochs=2, random_state=0)
    state = load_file(folder / "model.safetensors")
    assert torch.equal(embedder.pretrainer_.bias, state["lm_head.bias"])
    assert torch.equal(embedder.pretrainer_.dense.weight, state["lm_head.dense.weight"])
    embedder.fit(X)
    assert embedder.history_[1]["loss"] < embedder.history_[0]["loss"]


def test_pickle_save_and_fine_tuning(folder, tmp_path):
    embedder = from_heartbert(folder, EDGES, n_times=X.shape[2])
    expected = embedder.transform(X)
    skecg.save(embedder, tmp_path / "saved")
    for copy in (pickle.loads(pickle.dumps(embedder)), skecg.load(tmp_path / "saved")):
        assert_array_equal(copy.transform(X), expected)
        assert copy.encoder_.n_tokens_ == embedder.encoder_.n_tokens_
    clf = ECGClassifier(FrozenEstimator(embedder), BiLSTMHead(4), trainable=1, max_epochs=1, random_state=0)
    assert clone(clf).fit(X, np.arange(20) % 2).predict(X).shape == (20,)


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize(("spoil", "error", "message"), [
    (lambda f: (f / "config.json").unlink(), FileNotFoundError, "config.json"),
    (lambda f: (f / "tokenizer.json").unlink(), FileNotFoundError, "without the tokenizer"),
    (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "neither model.safetensors nor pytorch_model.bin"),
    (lambda f: change(f, hidden_act="relu"), ValueError, "hidden_act='relu'"),
    (lambda f: change(f, model_type="bert"), ValueError, "model_type='bert'"),
    (lambda f: change(f, layer_norm_eps=1e-5), ValueError, "layer_norm_eps=1e-05"),
    (lambda f: change(f, vocab_size=301), ValueError, "has 300 tokens, but the network was made for 301"),
    (lambda f: change(f, num_hidden_layers=3), ValueError, "blocks.2.key.bias is missing"),
    (lambda f: change(f, num_hidden_layers=1), ValueError, "blocks.1.key.bias is not known"),
    (lambda f: change(f, intermediate_size=48), ValueError, r"has the shape \(96,\) instead of \(48,\)"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_fit_is_refused(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message):
        from_heartbert(folder, EDGES)


def test_strange_tensors_are_refused(folder, capsys):
    state = load_file(folder / "model.safetensors")
    save_file({**state, "roberta.extra": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"a tensor 'roberta\.extra'"):
        from_heartbert(folder, EDGES)
    untied = {**state, "lm_head.decoder.weight": state["lm_head.decoder.weight"] + 1}
    save_file(untied, folder / "model.safetensors")
    with pytest.raises(ValueError, match="tied weights only"):
        from_heartbert(folder, EDGES)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds more than tensors"):
        from_heartbert(folder, EDGES)
    assert "must not run" not in capsys.readouterr().out
