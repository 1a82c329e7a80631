import json
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch.testing import assert_close

from skecg import ECGSelfSupervisedEmbedder
from skecg._huggingface import load_strictly, rename
from skecg._torch import build_seeded
from skecg.datasets import make_ecg
from skecg.encoders import TokenTransformer
from skecg.encoders._token import PAD, TokenNetwork
from skecg.preprocessing import ECGQuantizer, ECGTokenizer

X = make_ecg(8, duration=3.0, random_state=0)[0][:, :3]


def encoder(**params):
    return TokenTransformer(ECGQuantizer(16, method="lloyd-max"), ECGTokenizer(150), **{
        "embed_dim": 16, "depth": 2, "n_heads": 2, **params})


@pytest.fixture(scope="module")
def fitted():
    return encoder().fit(X)


@pytest.fixture(scope="module")
def network(fitted):
    return build_seeded(fitted.build, 0).eval()


# --- RoBERTa's numbers


@pytest.fixture(scope="module")
def roberta(reference):
    folder = reference / "roberta_mlm_tiny"
    config = json.loads((folder / "meta.json").read_text())["config"]
    network = TokenNetwork(config["vocab_size"], 1, 128, config["hidden_size"], config["num_hidden_layers"],
                           config["num_attention_heads"], 2.0, 0.1, 0.1, config["max_position_embeddings"] - 2)
    load_strictly(network, rename(load_file(folder / "state_dict.safetensors"))[0], "the network")
    return network.eval(), load_file(folder / "arrays.safetensors")


@pytest.mark.parametrize("training_path", [False, True])
def test_hidden_states_are_those_of_roberta(roberta, training_path, monkeypatch):
    """Both ways of computing: each sequence by itself, and all in one padded batch."""
    network, arrays = roberta
    if training_path:
        monkeypatch.setattr(network, "_one_by_one", lambda h: False)
    ids, there = arrays["input_ids"], arrays["attention_mask"].bool()
    with torch.no_grad():
        h = network.embed(ids)
        assert_close(h[there], arrays["hidden_0"][there], rtol=0, atol=2e-5)
        for depth in (1, 2):
            blocks, network.blocks = network.blocks, network.blocks[:depth]
            result = network.contextualize(h, ~there)
            network.blocks = blocks
            assert_close(result[there], arrays[f"hidden_{depth}"][there], rtol=0, atol=2e-5)
        # as HeartBERT's notebooks call it, padding and all
        assert_close(network.contextualize(h), arrays["last_hidden_without_attention_mask"], rtol=0, atol=2e-5)


def test_base_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = TokenNetwork(52_000, 1, 512, 768, 6, 12, 4.0, 0.1, 0.1, 512)
    assert sum(p.numel() for p in network.parameters()) == 82_860_288
    assert sum(p.numel() for block in network.top(3) for p in block.parameters()) == 3 * 7_087_872


# --- ids


def test_ids_are_those_of_the_lead(fitted):
    ids = fitted.encode_inputs(X)
    assert ids.shape[:2] == (8, 3)
    assert ids.dtype == np.int32
    levels = fitted.quantizer_.transform(X)
    for i in range(8):
        for lead in range(3):
            tokens = ids[i, lead][ids[i, lead] != PAD]
            assert_array_equal(fitted.tokenizer_.decode(tokens), levels[i, lead])
            assert (ids[i, lead, len(tokens):] == PAD).all()


def test_ids_do_not_depend_on_unit_and_offset(fitted):
    counts = np.round(X * 1000).astype(np.float64)
    other = encoder().fit(counts)
    assert_array_equal(other.encode_inputs(counts), other.encode_inputs(counts.astype(np.float32)))
    shifted = encoder().fit(counts * 4 + 512)
    assert_array_equal(shifted.encode_inputs(counts * 4 + 512), other.encode_inputs(counts))


def test_frozen_parts_are_taken_as_they_are(fitted):
    frozen = TokenTransformer(FrozenEstimator(fitted.quantizer_), FrozenEstimator(fitted.tokenizer_), embed_dim=16)
    again = clone(frozen).fit(2 * X[:3])
    assert again.quantizer_.estimator is fitted.quantizer_
    assert_array_equal(again.encode_inputs(X), fitted.encode_inputs(X))


def test_parts_must_fit_each_other(fitted):
    with pytest.raises(ValueError, match="knows 16 levels, but the quantizer gives 20"):
        TokenTransformer(ECGQuantizer(20), FrozenEstimator(fitted.tokenizer_)).fit(X)
    with pytest.raises(ValueError, match="frozen estimator is a ECGTokenizer; expected an ECGQuantizer"):
        TokenTransformer(FrozenEstimator(fitted.tokenizer_)).fit(X)
    with pytest.raises(ValueError, match="not a multiple of n_heads=3"):
        encoder(n_heads=3).fit(X)


# --- leads, lengths, padding


def test_padding_changes_nothing(fitted, network):
    ids = torch.from_numpy(fitted.encode_inputs(X))
    longer = torch.nn.functional.pad(ids, (0, 57), value=PAD)
    with torch.no_grad():
        assert torch.equal(network(ids), network(longer))
        short, h = network.encode_tokens(ids), network.encode_tokens(longer)
        network.train()  # no dropout: the other way of computing
        assert_close(network(longer), network.eval()(ids), rtol=1e-4, atol=1e-5)
    n_tokens = ids.shape[2]
    assert torch.equal(h[0].unflatten(1, (3, -1))[:, :, :n_tokens], short[0].unflatten(1, (3, -1)))


def test_embedding_is_the_mean_over_leads_each_read_by_itself(fitted, network):
    alone = []
    for lead in range(3):
        single = TokenNetwork(150, 1, 99, 16, 2, 2, 4.0, 0.0, 0.0, 512).eval()
        single.load_state_dict(network.state_dict())
        with torch.no_grad():
            alone.append(single(torch.from_numpy(fitted.encode_inputs(X[:, lead:lead + 1]))))
    with torch.no_grad():
        together = network(torch.from_numpy(fitted.encode_inputs(X)))
        assert_close(together, sum(alone) / 3, rtol=1e-5, atol=1e-6)
        gappy = X.copy()
        gappy[:, 1] = np.nan
        without = network(torch.from_numpy(fitted.encode_inputs(gappy)))
    assert_close(without, (alone[0] + alone[2]) / 2, rtol=1e-5, atol=1e-6)


def test_nothing_is_cut_off(fitted):
    """A lead of more than max_tokens is read in pieces: the mean over pieces, weighted by their tokens."""
    short = encoder(max_tokens=32).fit(X)
    small = build_seeded(short.build, 0).eval()
    ids = torch.from_numpy(short.encode_inputs(X[:, :1]))
    assert ids.shape[2] % 32 == 0 and ids.shape[2] > 32
    single = TokenNetwork(150, 1, 99, 16, 2, 2, 4.0, 0.0, 0.0, 32).eval()
    single.load_state_dict(small.state_dict())
    with torch.no_grad():
        for row in ids:
            pieces = [piece for piece in row[0].split(32) if (piece != PAD).any()]
            counts = torch.tensor([(piece != PAD).sum() for piece in pieces])
            parts = torch.stack([single(piece[None, None])[0] for piece in pieces])
            expected = (parts * counts[:, None]).sum(0) / counts.sum()
            assert_close(single(row[None])[0], expected, rtol=1e-5, atol=1e-6)
            assert_close(single.train()(row[None])[0], expected, rtol=1e-4, atol=1e-5)
            single.eval()
    with pytest.raises(ValueError, match="pad them to a multiple"):
        single(ids[:, :, :40])


def test_few_tokens_have_the_same_bits_on_any_number_of_threads():
    network = build_seeded(lambda: TokenNetwork(50, 1, 64, 32, 1, 2, 4.0, 0.0, 0.0, 64), 0).eval()
    ids = torch.randint(7, 50, (16, 16), generator=torch.Generator().manual_seed(0))
    there = torch.arange(16) <= torch.arange(16)[:, None]  # 1 to 16 tokens
    n_threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with torch.inference_mode():
                found.append(network.contextualize(network.embed(ids), ~there)[there])
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(*found)


def test_positions_count_tokens_within_a_piece(network):
    ids = torch.full((1, 3, 4), PAD)
    ids[0, 0, :3], ids[0, 2, :1] = 9, 9
    with torch.no_grad():
        h = network.embed(network.tokenize(ids)).unflatten(1, (3, 4))[0]
        expected = network.norm(network.word.weight[9] + network.position.weight[2:5] + network.segment)
    assert_close(h[0, :3], expected)
    assert_close(h[2, 0], expected[0])


def test_embedder_with_missing_leads_other_lengths_and_tokens(fitted):
    gappy = X.copy()
    gappy[3, 1] = np.nan
    embedder = ECGSelfSupervisedEmbedder(encoder(any_length=True), max_epochs=1, batch_size=4, random_state=0).fit(gappy)
    whole = embedder.transform(gappy)
    assert_array_equal(embedder.transform(gappy[[3]]), whole[[3]])
    assert_array_equal(embedder.transform(gappy[::-1]), whole[::-1])
    assert embedder.transform(gappy[:, :, :150]).shape == (8, 16)
    tokens = embedder.set_params(output="tokens").transform(gappy)
    n_tokens = embedder.encoder_.n_tokens_
    assert tokens.shape == (8, 3 * n_tokens, 16)
    leads = np.nanmean(tokens[[0, 5]].reshape(2, 3, n_tokens, 16), axis=2).mean(axis=1)
    np.testing.assert_allclose(leads, whole[[0, 5]], rtol=1e-4, atol=1e-5)
    assert np.isnan(tokens[3, n_tokens: 2 * n_tokens]).all()
    noise = np.random.default_rng(0).normal(size=X.shape)
    with pytest.warns(UserWarning, match="has room for n_tokens_="):
        assert embedder.transform(noise).shape == tokens.shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(embedder.set_params(output="embedding").transform(noise)).all()


def test_tokens_of_whole_data_sets_are_kept(tmp_path, monkeypatch):
    gappy = X.copy()
    gappy[3, 1] = np.nan
    params = {"max_epochs": 2, "batch_size": 3, "random_state": 0}
    plain = ECGSelfSupervisedEmbedder(encoder(), **params).fit(gappy)
    np.save(tmp_path / "x.npy", gappy)
    for signals in (gappy, np.load(tmp_path / "x.npy", mmap_mode="r")):
        cached = ECGSelfSupervisedEmbedder(encoder(cache=tmp_path / "tokens"), **params).fit(signals)
        assert [row["loss"] for row in cached.history_] == [row["loss"] for row in plain.history_]
        assert_array_equal(cached.transform(signals), plain.transform(gappy))
    ids, offsets = sorted((tmp_path / "tokens").iterdir(), key=lambda file: file.suffix, reverse=True)
    expected = [lead[lead != PAD] for lead in cached.encoder_.encode_inputs(gappy).reshape(24, -1)]
    assert_array_equal(np.fromfile(ids, "<u2"), np.concatenate(expected))
    assert_array_equal(np.diff(np.load(offsets)), [len(lead) for lead in expected])
    again = clone(cached)
    with monkeypatch.context() as patch:
        patch.setattr(TokenTransformer, "encode_inputs", lambda *args: pytest.fail("encoded again"))
        again.fit(gappy)
    again.fit(2 * X)  # other signals: other files
    assert len(list((tmp_path / "tokens").iterdir())) == 4
    cropped = ECGSelfSupervisedEmbedder(encoder(cache=tmp_path / "none"), crop_size=200, **params).fit(X)
    assert not (tmp_path / "none").exists()
    assert cropped.transform(X).shape == (8, 16)
