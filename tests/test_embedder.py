import copy
import json
import pickle
import random
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

import skecg._embedder
from skecg import ECGSelfSupervisedEmbedder, HeadClassifier
from skecg._training import crop_starts, module_state
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.heads import BiLSTMHead
from skecg.objectives import MaskedReconstruction, Objective

LEADS = ("I", "II", "V5")
ENCODERS = {
    "patches": PatchTransformer(25, embed_dim=16, depth=1, n_heads=2),
    "resnet": ResNet1d(4, (1, 1), kernel_size=3),
}


@pytest.fixture(scope="module")
def X():
    X = make_ecg(20, duration=2.0, lead_names=LEADS, random_state=0)[0]
    X.setflags(write=False)
    return X


def make(encoder="patches", **params):
    params = {"max_epochs": 2, "batch_size": 8, "random_state": 0, **params}
    return ECGSelfSupervisedEmbedder(clone(ENCODERS[encoder]), **params)


@pytest.fixture(scope="module", params=ENCODERS)
def fitted(request, X):
    return make(request.param).fit(X)


@pytest.fixture(scope="module")
def patches(X):
    return make().fit(X)


class Count(Callback):
    """Epochs and batches seen; may raise when an epoch ends."""

    def __init__(self, fail_after=None, error=RuntimeError):
        self.fail_after, self.error = fail_after, error
        self.epochs = self.batches = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        self.batches += training

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1
        if self.epochs == self.fail_after:
            raise self.error("power failure")


# --- bad input -------------------------------------------------------------------------------------------------


def with_value(X, index, value):
    X = X.copy()
    X[index] = value
    return X


BAD_IN_TRANSFORM = {
    "fewer leads": (lambda X: X[:, :2], r"X has 2 lead\(s\), but .* fitted on 3 \(lead0, lead1, lead2\).*LeadSelector"),
    "more leads": (lambda X: X.repeat(2, axis=1), r"X has 6 lead\(s\), but .* fitted on 3.*LeadSelector"),
    "shorter": (lambda X: X[..., :150], r"X has 150 samples in time, but .* fitted on 200.*make_windows"),
    "longer": (lambda X: X.repeat(2, axis=2), "X has 400 samples in time, but .* fitted on 200"),
    "swapped": (lambda X: X.transpose(0, 2, 1), r"axes are swapped.*expects \(n_samples, 3, 200\).*transpose\(0, 2, 1\)"),
    "two-dimensional": (lambda X: X[:, 0], r"X has shape \(20, 200\).*expected \(n_samples, 3, 200\)"),
    "four-dimensional": (lambda X: X[None], "4 dimensions"),
    "scalar samples": (lambda X: X[0, 0], "(?i)reshape your data|1D array"),
    "list of another length": (lambda X: X[..., :150].tolist(), "X has 150 samples in time"),
    "list of fewer leads": (lambda X: X[:, :2].tolist(), "X has 2 (lead|features)"),
}
BAD_VALUES = {
    "NaN inside a lead": (
        lambda X: with_value(X, np.s_[4, 1, 10:13], np.nan), "NaN inside a lead: sample 4, lead 1 has 3 of 200 values"),
    "NaN at one end": (lambda X: with_value(X, np.s_[4, 1, 0], np.nan), "sample 4, lead 1 has 1 of 200"),
    "all leads missing": (lambda X: with_value(X, 7, np.nan), "every lead of sample 7 is missing"),
    "infinite": (lambda X: with_value(X, np.s_[2, 1, 50], np.inf), "infinity.*sample 2, lead 1"),
    "minus infinity": (lambda X: with_value(X, np.s_[2, 1, 50], -np.inf), "infinity.*sample 2, lead 1"),
    "both infinities": (lambda X: with_value(X, np.s_[2, 1, 50:52], [np.inf, -np.inf]), "infinity.*sample 2, lead 1"),
    "infinite beside a missing lead": (
        lambda X: with_value(with_value(X, np.s_[2, 0], np.nan), np.s_[5, 1, 50], np.inf), "infinity.*sample 5, lead 1"),
    "beyond float32": (lambda X: X.astype(np.float64) * 1e40, "(?i)infinity|too large"),
    "empty": (lambda X: X[:0], r"0 sample\(s\)"),
    "no leads": (lambda X: X[:, :0], "n_leads=0|0 lead|0 feature"),
    "complex": (lambda X: X.astype(complex), "Complex data not supported"),
    "text": (lambda X: np.full(X.shape, "a"), "(?i)could not convert string|dtype"),
    "ragged": (lambda X: [X[0, 0].tolist(), X[0, 0, :10].tolist()], "inhomogeneous"),
}


@pytest.mark.parametrize("case", BAD_IN_TRANSFORM | BAD_VALUES)
def test_bad_input_of_transform(fitted, X, case):
    spoil, message = (BAD_IN_TRANSFORM | BAD_VALUES)[case]
    with pytest.raises(ValueError, match=message):
        fitted.transform(spoil(X))


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_input_of_fit(X, case):
    spoil, message = BAD_VALUES[case]
    with pytest.raises(ValueError, match=message):
        make(max_epochs=0).fit(spoil(X))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda X: X.transpose(0, 2, 1), r"n_leads=200 and n_times=3: the axes look swapped.*transpose\(0, 2, 1\)"),
    (lambda X: X[:1], "(?i)1 sample"),
    (lambda X: X[:, 0, :1], "n_times=1"),
    (lambda X: X[..., :0], "(?i)n_times=0|0 feature"),
    (lambda X: np.stack([X, X]), "4 dimensions"),
], ids=["swapped", "one sample", "one sample in time", "no time", "four dimensions"])
def test_bad_shape_in_fit(X, spoil, message):
    with pytest.raises(ValueError, match=message):
        make().fit(spoil(X))


@pytest.mark.parametrize(("lead_names", "message"), [
    (["I", "II"], "lead_names has 2 names .* but X has 3 leads"),
    (["I", "II", "ECG II"], "more than once: (ECG II, II|II, ECG II)"),
    ("I, II, V5", "'lead_names' parameter of ECGSelfSupervisedEmbedder must be an array-like"),
    ([1, 2, 3], "must be a sequence of strings"),
])
def test_bad_lead_names(X, lead_names, message):
    with pytest.raises(ValueError, match=message):
        make(lead_names=lead_names).fit(X)


@pytest.mark.parametrize(("params", "message"), [
    ({"crop_size": 201}, "crop_size=201 is longer than the windows, n_times=200"),
    ({"output": "vector"}, "'output' parameter of ECGSelfSupervisedEmbedder must be"),
    ({"encoder": ECGSelfSupervisedEmbedder}, "'encoder' parameter of ECGSelfSupervisedEmbedder must be"),
    ({"objective": "masking"}, "'objective' parameter of ECGSelfSupervisedEmbedder must be"),
    ({"encoder": PatchTransformer(embed_dim=10, n_heads=4)}, "embed_dim=10 is not a multiple of n_heads=4"),
    ({"encoder": ResNet1d(kernel_size=4)}, "kernel_size=4 is even"),
    ({"encoder": ResNet1d(depths=())}, r"depths=\(\) must hold one positive integer"),
    ({"encoder": ResNet1d(depths=(1, 0))}, r"depths=\(1, 0\) must hold one positive integer"),
    ({"objective": MaskedReconstruction(decoder_dim=10)}, "decoder_dim=10 is not a multiple of decoder_heads=4"),
    ({"encoder": PatchTransformer(150, 16, 1)}, None),  # two patches still can be masked
    ({"encoder": PatchTransformer(200, 16, 1)}, r"Only 1 position\(s\) in time to mask.*smaller patches"),
])
def test_bad_parameters(X, params, message):
    embedder = make().set_params(**params)
    if message is None:
        embedder.fit(X)
        return
    with pytest.raises(ValueError, match=message):
        embedder.fit(X)
    with pytest.raises(NotFittedError):  # a failed fit leaves nothing that looks fitted
        embedder.transform(X)


def test_objective_refuses_tokens_that_it_cannot_predict(X):
    class OnlyIds(Objective):
        requires = ("ids",)

    with pytest.raises(ValueError, match="OnlyIds predicts 'ids' tokens, but PatchTransformer makes 'patches' tokens"):
        make(objective=OnlyIds()).fit(X)


def test_groups_of_another_length(X):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make().fit(X, groups=[0, 1])


# --- good input ------------------------------------------------------------------------------------------------


def test_equal_values_in_other_containers_give_equal_embeddings(fitted, X):
    expected = fitted.transform(X)
    assert expected.dtype == np.float32
    assert expected.shape == (20, fitted.network_.n_features)
    assert np.isfinite(expected).all()
    fortran = np.asfortranarray(X)
    for same in (X.astype(np.float64), X.tolist(), fortran, X[::-1][::-1], np.lib.stride_tricks.as_strided(
            X.repeat(2, axis=2), X.shape, (X.strides[0] * 2, X.strides[1] * 2, X.strides[2] * 2), writeable=False)):
        assert_array_equal(fitted.transform(same), expected)


def test_integers_are_accepted(X):
    counts = np.round(X * 200).astype(np.int16)
    embedder = make().fit(counts)
    assert_array_equal(embedder.transform(counts), make().fit(counts.astype(np.float32)).transform(counts * 1.0))


def test_unit_of_the_signal_does_not_matter(fitted, X):
    microvolt = clone(fitted).fit(X * np.float32(1024))
    assert_allclose(microvolt.transform(X * np.float32(1024)), fitted.transform(X), rtol=1e-3, atol=1e-4)


def test_y_is_ignored(X, patches):
    assert_array_equal(make().fit(X, np.arange(len(X))).transform(X), patches.transform(X))


def test_one_lead_in_two_or_three_dimensions(X):
    flat, nested = make().fit(X[:, 0]), make().fit(X[:, :1])
    assert (flat.n_features_in_, flat.n_leads_in_, flat.n_times_in_) == (200, 1, 200)
    assert (nested.n_features_in_, nested.n_leads_in_, nested.n_times_in_) == (1, 1, 200)
    expected = flat.transform(X[:, 0])
    for embedder in (flat, nested):
        assert_array_equal(embedder.transform(X[:, 0]), expected)
        assert_array_equal(embedder.transform(X[:, :1]), expected)


def test_data_frame_of_one_lead(X):
    frame = pd.DataFrame(X[:, 0], columns=[f"t{i}" for i in range(200)])
    embedder = make(max_epochs=1).fit(frame)
    assert list(embedder.feature_names_in_) == list(frame.columns)
    assert_array_equal(embedder.transform(frame), make(max_epochs=1).fit(X[:, 0]).transform(X[:, 0]))


def test_lead_names_are_learned(X, patches):
    assert patches.lead_names_in_ == ("lead0", "lead1", "lead2")
    embedder = make(lead_names=LEADS, max_epochs=0).fit(X)
    assert embedder.lead_names_in_ == LEADS
    with pytest.raises(ValueError, match="was fitted on 3 \\(I, II, V5\\)"):
        embedder.transform(X[:, :1])
    twelve = make_ecg(2, duration=1.0, random_state=0)[0]
    assert make(max_epochs=0).fit(twelve).lead_names_in_[3:6] == ("aVR", "aVL", "aVF")


def test_flat_lead_is_signal(fitted, X):
    flat, missing = with_value(X, np.s_[:, 1], 0.0), with_value(X, np.s_[:, 1], np.nan)
    assert np.isfinite(clone(fitted).fit(flat).transform(flat)).all()
    if isinstance(fitted.encoder_, PatchTransformer):
        assert np.abs(fitted.transform(flat) - fitted.transform(missing)).max() > 1e-4


def test_all_flat_signals(fitted):
    X = np.full((8, 2, 200), 0.3, np.float32)
    with pytest.warns(UserWarning, match="No lead of X changes over time"):
        embedder = clone(fitted).fit(X)
    assert (embedder.encoder_.center_, embedder.encoder_.scale_) == (np.float32(0.3), 1.0)
    assert np.isfinite(embedder.transform(X)).all()


@pytest.mark.parametrize("n_times", [120, 205, 400])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_length(X, encoder, n_times):
    embedder = make(encoder).set_params(encoder__any_length=True).fit(X)
    other = np.tile(X, 3)[..., :n_times]
    assert embedder.transform(other).shape == embedder.transform(X).shape
    assert np.isfinite(embedder.transform(other)).all()
    with pytest.raises(ValueError, match="fitted on 3"):
        embedder.transform(other[:, :2])


@pytest.mark.parametrize("n_times", [2, 3, 7, 26, 51])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_short_windows(X, encoder, n_times):
    patch = {"encoder__patch_size": None} if encoder == "patches" else {}
    X = X[:, :2, :n_times]
    embedder = make(encoder).set_params(**patch).fit(X)
    assert np.isfinite(embedder.transform(X)).all()


def test_input_is_left_alone(fitted, X):
    mine = with_value(X, np.s_[3, 1], np.nan)
    before = mine.copy()
    clone(fitted).fit(mine).transform(mine)
    assert_array_equal(mine, before)


# --- missing leads ---------------------------------------------------------------------------------------------


def restricted(network, x, leads):
    """Embedding of one complete sample (L, T) from the tokens of some leads only, one step at a time."""
    tokens = network.embed(network.tokenize(x[None])).unflatten(1, (network.n_leads, -1))[0, leads]  # (l, P, D)
    h = tokens.flatten(0, 1)[None]
    for block in network.blocks:
        n, d = h.shape[1], h.shape[2] // block.n_heads
        q, k, v = block.qkv(block.norm1(h)).reshape(n, 3, block.n_heads, d).permute(1, 2, 0, 3)
        heads = torch.softmax(q @ k.transpose(1, 2) / d**0.5, dim=-1) @ v
        h = h + block.out(heads.transpose(0, 1).reshape(1, n, -1))
        h = h + block.mlp(block.norm2(h))
    return network.norm(h)[0].unflatten(0, (len(leads), -1))  # (l, P, D)


@pytest.mark.parametrize("leads", [[0], [2], [0, 2], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("pooling", ["mean", "lead"])
def test_missing_leads_are_as_if_they_had_never_been(X, leads, pooling):
    embedder = make().set_params(encoder__depth=2, encoder__pooling=pooling).fit(X)
    absent = [lead for lead in range(3) if lead not in leads]
    incomplete = with_value(X, np.s_[:, absent], np.nan)
    with torch.no_grad():
        parts = [restricted(embedder.network_, torch.tensor(x), leads) for x in X[:5]]
    if pooling == "mean":
        expected = torch.stack([part.mean(dim=(0, 1)) for part in parts]).numpy()
    else:
        expected = np.zeros((5, 3, 16), np.float32)
        expected[:, leads] = torch.stack([part.mean(dim=1) for part in parts]).numpy()
        expected = expected.reshape(5, 48)
    assert_allclose(embedder.transform(incomplete)[:5], expected, atol=2e-6)


def test_embedding_does_not_depend_on_other_samples(fitted, X):
    mixed = with_value(np.concatenate([X, X, X]), np.s_[::3, 1], np.nan)
    mixed[6:9, 2] = np.nan
    expected = fitted.transform(mixed)
    for rows in ([6], [0, 6], [1, 2], list(range(59, -1, -1)), list(range(3, 40))):
        assert_array_equal(fitted.transform(mixed[rows]), expected[rows])


def test_tokens_of_missing_leads_are_nan(X):
    embedder = make(output="tokens").fit(X)
    complete, incomplete = embedder.transform(X), embedder.transform(with_value(X, np.s_[1::2, 1], np.nan))
    assert complete.shape == incomplete.shape == (20, 3 * 8, 16)
    assert np.isfinite(complete).all()
    assert np.isnan(incomplete[1::2, 8:16]).all()
    assert np.isfinite(np.delete(incomplete[1::2], np.s_[8:16], axis=1)).all()
    assert_array_equal(incomplete[::2], complete[::2])
    embedder.set_params(output="embedding")
    assert_allclose(embedder.transform(X), complete.mean(axis=1), atol=1e-6)
    assert_allclose(
        embedder.transform(with_value(X, np.s_[1::2, 1], np.nan)), np.nanmean(incomplete, axis=1), atol=1e-6)


def test_training_with_missing_leads(fitted, X):
    incomplete = with_value(X, np.s_[::2, 0], np.nan)
    incomplete[3, 1:] = np.nan
    embedder = clone(fitted).fit(incomplete)
    assert np.isfinite([row["loss"] for row in embedder.history_]).all()
    assert np.isfinite(embedder.transform(incomplete)).all()


def test_a_lead_that_training_never_saw(fitted, X):
    embedder = clone(fitted).fit(with_value(X, np.s_[:, 0], np.nan))
    assert np.isfinite(embedder.transform(X)).all()


def test_scale_ignores_missing_leads(X, patches):
    incomplete = with_value(X, np.s_[::2, 0], np.nan).astype(np.float64)
    encoder = clone(patches.encoder).fit(incomplete)
    assert_allclose([encoder.center_, encoder.scale_], [np.nanmean(incomplete), np.nanstd(incomplete)], rtol=1e-9)


# --- reproducibility -------------------------------------------------------------------------------------------


def state_bytes(embedder):
    return b"".join(value.tobytes() for value in module_state(embedder.network_).values())


def test_same_seed_same_bits(fitted, X):
    again, other = clone(fitted).fit(X), clone(fitted).set_params(random_state=1).fit(X)
    assert state_bytes(again) == state_bytes(fitted)
    assert_array_equal(again.transform(X), fitted.transform(X))
    assert [row["loss"] for row in again.history_] == [row["loss"] for row in fitted.history_]
    assert state_bytes(other) != state_bytes(fitted)


def test_refit_starts_cold(fitted, X):
    again = copy.deepcopy(fitted).fit(X)
    assert state_bytes(again) == state_bytes(fitted)
    assert [row["epoch"] for row in again.history_] == [1, 2]


def test_random_state_object_is_consumed(X):
    rng = np.random.RandomState(0)
    first, second = make(random_state=rng).fit(X), make(random_state=rng).fit(X)
    assert state_bytes(first) != state_bytes(second)
    assert state_bytes(first) == state_bytes(make(random_state=np.random.RandomState(0)).fit(X))


def test_global_generators_do_not_matter_and_stay(fitted, X):
    torch.manual_seed(11)
    np.random.seed(12)  # noqa: NPY002
    random.seed(13)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    embedder = clone(fitted).set_params(**({"encoder__dropout": 0.2})).fit(X)
    embedder.transform(X)
    pickle.loads(pickle.dumps(embedder))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    torch.manual_seed(99)
    assert state_bytes(clone(embedder).fit(X)) == state_bytes(embedder)


def test_global_settings_stay(fitted, X):
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.is_inference_mode_enabled()
    clone(fitted).fit(X).transform(X)
    assert before == (
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.is_inference_mode_enabled())


def test_fits_in_parallel_threads_are_reproducible(fitted, X):
    def fit(seed):
        embedder = clone(template).set_params(random_state=seed)
        barrier.wait()
        return state_bytes(embedder.fit(X))

    template = clone(fitted).set_params(encoder__dropout=0.3, max_epochs=4)
    expected = [state_bytes(clone(template).set_params(random_state=seed).fit(X)) for seed in range(4)]
    barrier = threading.Barrier(4)
    torch_state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, range(4))) == expected
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_transform_in_parallel_threads(fitted, X):
    expected = fitted.transform(X)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: fitted.transform(X), range(16)):
            assert_array_equal(result, expected)


def test_initialisation_does_not_depend_on_the_objective(X):
    """Arms of a comparison that differ in the objective start from the same network."""
    states = [state_bytes(make(max_epochs=0, objective=objective).fit(X))
              for objective in (None, MaskedReconstruction(decoder_dim=16))]
    assert states[0] == states[1]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_epochs_is_the_initialisation_of_the_same_seed(X, encoder):
    class Spy(Callback):
        def on_train_begin(self, net, **kwargs):
            self.state = module_state(net.module_.encoder)

    spy = Spy()
    trained = make(encoder, callbacks=[spy]).fit(X)
    untrained = make(encoder, max_epochs=0).fit(X)
    assert untrained.history_ == []
    for name, value in module_state(untrained.network_).items():
        assert_array_equal(value, spy.state[name])
    assert state_bytes(trained) != state_bytes(untrained)


# --- continuing ------------------------------------------------------------------------------------------------


def test_warm_start_continues(X):
    embedder = make(max_epochs=15, learning_rate=3e-3, warm_start=True).fit(X)
    first = state_bytes(embedder)
    embedder.fit(X)
    assert [row["epoch"] for row in embedder.history_] == list(range(1, 31))
    losses = [row["loss"] for row in embedder.history_]
    assert np.mean(losses[15:]) < 0.97 * np.mean(losses[:15])
    assert state_bytes(embedder) != first
    cold = make(max_epochs=15, learning_rate=3e-3).fit(X)
    assert state_bytes(cold) == first


def test_warm_start_survives_a_pickle(X):
    embedder = make(warm_start=True).fit(X)
    copied = pickle.loads(pickle.dumps(embedder))
    assert state_bytes(copied.fit(X)) == state_bytes(embedder.fit(X))


def test_warm_start_refuses_other_shapes(X):
    embedder = make(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="fitted on 3"):
        embedder.fit(X[:, :2])


def test_partial_fit_continues(X):
    embedder = make(learning_rate=3e-3)
    for _ in range(40):
        assert embedder.partial_fit(X) is embedder
    assert [row["epoch"] for row in embedder.history_] == list(range(1, 41))
    assert {row["learning_rate"] for row in embedder.history_} == {3e-3}
    losses = [row["loss"] for row in embedder.history_]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    assert state_bytes(embedder.fit(X)) == state_bytes(make(learning_rate=3e-3).fit(X))  # fit starts cold


def test_partial_fit_draws_new_masks_in_each_call(X):
    class Masks(Callback):
        def __init__(self):
            self.orders = []

        def on_batch_begin(self, net, batch, **kwargs):
            self.orders.append(batch.generator.initial_seed())

    masks = Masks()
    embedder = make(callbacks=[masks], batch_size=32)
    for _ in range(3):
        embedder.partial_fit(X)
    assert len(set(masks.orders)) == 3


def test_objective_is_thrown_away(X, patches):
    assert {name for name in vars(patches) if name.endswith("_") and not name.startswith("_")} == {
        "encoder_", "network_", "history_", "lead_names_in_", "n_leads_in_", "n_times_in_", "n_features_in_"}
    assert not hasattr(patches, "pretrainer_")
    warm = make(warm_start=True).fit(X)
    assert hasattr(warm, "pretrainer_")
    assert not hasattr(warm.set_params(warm_start=False).fit(X), "pretrainer_")


def test_fit_leaves_parameters_alone(fitted, X):
    before = fitted.encoder.get_params()
    assert fitted.encoder_ is not fitted.encoder
    assert not hasattr(fitted.encoder, "n_times_")
    assert fitted.encoder.get_params() == before


# --- checkpoints (their files, faults and signals: test_checkpoints.py) -----------------------------------------


def n_fits(folder):
    """Number of fits of which states are saved."""
    return len({path.name.split("-")[0] for path in folder.iterdir()})


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fail_after", [1, 2, 3, 5])
def test_interrupted_fit_resumes_bit_for_bit(X, tmp_path, encoder, fail_after):
    params = {"encoder__dropout": 0.1, "max_epochs": 5}
    whole = make(encoder).set_params(**params).fit(X)
    broken = make(encoder, checkpoint_dir=tmp_path, callbacks=[Count(fail_after)]).set_params(**params)
    with pytest.raises(RuntimeError, match="power failure"):
        broken.fit(X)
    count = Count()
    resumed = make(encoder, checkpoint_dir=tmp_path, callbacks=[count]).set_params(**params).fit(X)
    assert count.epochs == 5 - (fail_after - 1)  # the epoch that failed is not in the checkpoint
    assert state_bytes(resumed) == state_bytes(whole)
    assert [row["epoch"] for row in resumed.history_] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in resumed.history_] == [row["loss"] for row in whole.history_]
    assert [row["learning_rate"] for row in resumed.history_] == [row["learning_rate"] for row in whole.history_]


def test_resume_with_crops(X, tmp_path):
    whole = make(crop_size=100, max_epochs=4).fit(X)
    with pytest.raises(KeyboardInterrupt):
        make(crop_size=100, max_epochs=4, checkpoint_dir=tmp_path, callbacks=[Count(3, KeyboardInterrupt)]).fit(X)
    assert state_bytes(make(crop_size=100, max_epochs=4, checkpoint_dir=tmp_path).fit(X)) == state_bytes(whole)


def test_finished_fit_returns_at_once(X, tmp_path):
    first = make(checkpoint_dir=tmp_path).fit(X)
    count = Count()
    again = make(checkpoint_dir=tmp_path, callbacks=[count]).fit(X)
    assert count.batches == 0
    assert state_bytes(again) == state_bytes(first)
    assert again.history_ == first.history_


def test_interrupted_fit_without_a_seed_takes_up_its_own(X, tmp_path):
    params = {"checkpoint_dir": tmp_path, "random_state": None, "max_epochs": 4}
    losses = []

    class Losses(Callback):
        def on_epoch_end(self, net, **kwargs):
            losses.append(net.rows[-1]["loss"])

    with pytest.raises(RuntimeError, match="power failure"):
        make(callbacks=[Losses(), Count(3)], **params).fit(X)
    resumed = make(**params).fit(X)
    assert [row["loss"] for row in resumed.history_][:2] == losses[:2]
    assert len(resumed.history_) == 4
    assert n_fits(tmp_path) == 1


@pytest.mark.parametrize("change", [
    {"learning_rate": 2e-3}, {"batch_size": 7}, {"random_state": 1}, {"max_epochs": 3}, {"crop_size": 100},
    {"objective": MaskedReconstruction(0.75)}, {"encoder__embed_dim": 32}, {"weight_decay": 0.0}, {"warmup": 0.5},
    {"schedule": "constant"}, {"gradient_clip": None}, {"precision": "bfloat16"},
], ids=lambda change: next(iter(change)))
def test_other_parameters_start_afresh(X, tmp_path, change):
    make(checkpoint_dir=tmp_path).fit(X)
    count = Count()
    make(checkpoint_dir=tmp_path, callbacks=[count]).set_params(**change).fit(X)
    assert count.epochs == change.get("max_epochs", 2)
    assert n_fits(tmp_path) == 2


def test_constant_schedule(X):
    rates = [row["learning_rate"] for row in make(schedule="constant", warmup=0.0, max_epochs=3).fit(X).history_]
    assert rates == [make().learning_rate] * 3


def test_other_data_or_groups_start_afresh(X, tmp_path):
    make(checkpoint_dir=tmp_path).fit(X)
    for i, (signals, groups) in enumerate([(X[::-1], None), (X, np.arange(20) // 2)]):
        count = Count()
        make(checkpoint_dir=tmp_path, callbacks=[count]).fit(signals, groups=groups)
        assert count.epochs == 2
        assert n_fits(tmp_path) == 2 + i


def test_checkpoints_and_warm_start(X, tmp_path):
    expected = make(warm_start=True).fit(X).fit(X)
    for _ in range(2):  # written, then read
        embedder = make(warm_start=True, checkpoint_dir=tmp_path).fit(X).fit(X)
        assert state_bytes(embedder) == state_bytes(expected)
        assert [row["epoch"] for row in embedder.history_] == [1, 2, 3, 4]


# --- cache -----------------------------------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch):
    """Counts passes through a network."""
    calls = []
    original = skecg._embedder.apply_network

    def counting(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(skecg._embedder, "apply_network", counting)
    return calls


def test_cache_saves_transform(X, tmp_path, passes):
    embedder = make(cache=str(tmp_path)).fit(X)
    first = embedder.transform(X)
    assert len(passes) == 1
    again = clone(embedder).fit(X)  # other object, same weights
    assert_array_equal(again.transform(X), first)
    assert_array_equal(pickle.loads(pickle.dumps(embedder)).transform(X), first)
    assert_array_equal(embedder.set_params(verbose=1, batch_size=3).transform(X), first)
    assert len(passes) == 1
    embedder.transform(X[:5])  # other data
    assert len(passes) == 2
    other = make(cache=str(tmp_path), random_state=1).fit(X)  # other weights
    assert np.abs(other.transform(X) - first).max() > 1e-3
    assert len(passes) == 3
    assert embedder.set_params(output="tokens").transform(X).ndim == 3  # other output
    assert len(passes) == 4


def test_cache_takes_a_joblib_memory(X, tmp_path, passes):
    embedder = make(cache=joblib.Memory(tmp_path, verbose=0)).fit(X)
    assert_array_equal(embedder.transform(X), embedder.transform(X))
    assert len(passes) == 1


def test_without_cache_nothing_is_kept(X, passes, patches):
    assert_array_equal(patches.transform(X), patches.transform(X))
    assert len(passes) == 2


def test_cached_equals_uncached(X, tmp_path, patches):
    cached = make(cache=str(tmp_path)).fit(X)
    for _ in range(2):
        assert_array_equal(cached.transform(X), patches.transform(X))


# --- crops -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_size", [50, 80, 150, 200])
def test_crops_are_averaged(X, crop_size):
    embedder = make(crop_size=crop_size).fit(X)
    starts = crop_starts(200, crop_size)
    assert starts[0] == 0 and starts[-1] == 200 - crop_size
    assert (np.diff(starts) <= crop_size).all()
    whole = copy.deepcopy(embedder).set_params(crop_size=None, encoder__any_length=True)
    whole.encoder_.any_length = True
    parts = [whole.transform(X[..., s:s + crop_size]) for s in starts]
    assert_allclose(embedder.transform(X), np.mean(parts, axis=0), atol=1e-6)
    tokens = embedder.set_params(output="tokens").transform(X)
    assert tokens.shape[1] == len(starts) * 3 * -(-crop_size // 25)
    assert_array_equal(embedder.set_params(output="crops").transform(X), np.stack(parts, axis=1))


def test_crops_are_a_sequence_for_a_head(X):
    embedder = make(crop_size=50, output="crops")
    model = make_pipeline(embedder, HeadClassifier(BiLSTMHead(4), max_epochs=1, random_state=0))
    model.fit(X, np.arange(len(X)) % 2)
    assert model.predict(X[:3]).shape == (3,)
    assert make(output="crops").fit(X).transform(X[:3]).shape == (3, 1, 16)  # a window without crops is one
    with pytest.raises(ValueError, match="output='crops' gives three dimensions"):
        copy.deepcopy(model[0]).set_output(transform="pandas").transform(X)


def test_updates_see_crops(X):
    class Spy(Callback):
        pieces = []

        def on_batch_begin(self, net, batch, **kwargs):
            self.pieces.extend(batch.x[:, 0].numpy())

    spy = Spy()
    make(crop_size=60, callbacks=[spy]).fit(X)
    windows = np.lib.stride_tricks.sliding_window_view(X[:, 0], 60, axis=1)
    found = [np.argwhere((windows == piece).all(axis=2)) for piece in spy.pieces]
    assert len(found) == 40 and all(len(hit) == 1 for hit in found)
    samples, starts = np.concatenate(found).T
    assert_array_equal(np.bincount(samples), np.full(20, 2))
    assert len(set(starts)) > 10  # random, and other ones in every epoch
    assert starts.min() < 20 and starts.max() > 120


# --- what is kept ----------------------------------------------------------------------------------------------


def test_history_is_plain(fitted):
    for i, row in enumerate(fitted.history_):
        assert list(row) == ["epoch", "loss", "learning_rate", "seconds"]
        assert row["epoch"] == i + 1
        assert all(type(value) in (int, float) for value in row.values())
    assert json.loads(json.dumps(fitted.history_)) == fitted.history_


@pytest.mark.parametrize("encoder", ENCODERS)
def test_loss_falls(X, encoder):
    history = make(encoder, max_epochs=25, learning_rate=5e-3).fit(X).history_
    losses = [row["loss"] for row in history]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_pickle_is_about_the_size_of_the_weights(X):
    embedder = ECGSelfSupervisedEmbedder(PatchTransformer(25, 64, 2), max_epochs=1, random_state=0).fit(X)
    weights = sum(value.nbytes for value in module_state(embedder.network_).values())
    assert len(pickle.dumps(embedder)) < 1.05 * weights


def test_pickle_holds_no_torch_object(fitted):
    assert b"torch" not in pickle.dumps(fitted)


def test_pickled_embedder_is_equal(fitted, X):
    copied = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(copied.transform(X), fitted.transform(X))
    assert joblib.hash(copied) == joblib.hash(fitted)
    assert not copied.network_.training


def test_hash_does_not_change_by_use(X):
    embedder = make().fit(X)
    before = joblib.hash(embedder)
    embedder.transform(X)
    assert joblib.hash(embedder) == before
    embedder.network_.norm.bias.data += 1
    assert joblib.hash(embedder) != before


def test_transform_leaves_no_trace(fitted, X):
    before = {name: id(value) for name, value in vars(fitted).items()}
    fitted.transform(X)
    assert {name: id(value) for name, value in vars(fitted).items()} == before


def test_unfitted(X):
    with pytest.raises(NotFittedError):
        make().transform(X)


def test_feature_names(X, patches):
    names = patches.get_feature_names_out()
    assert list(names) == [f"ecgselfsupervisedembedder{i}" for i in range(16)]
    frame = copy.deepcopy(patches).set_output(transform="pandas").transform(X)
    assert list(frame.columns) == list(names)
    assert_array_equal(frame.to_numpy(), patches.transform(X))
    with pytest.raises(ValueError, match="output='tokens' gives three dimensions"):
        copy.deepcopy(patches).set_params(output="tokens").set_output(transform="pandas").transform(X)


# --- memory ----------------------------------------------------------------------------------------------------

MEMORY = """
    import sys, threading, time
    import numpy as np, psutil, torch
    torch.set_num_threads(1)
    from skecg import ECGSelfSupervisedEmbedder
    from skecg.encoders import PatchTransformer

    def anonymous():
        info = process.memory_info()
        return info.rss - info.shared  # without pages of mapped files

    def watch():
        while not done.is_set():
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.002)

    process, done = psutil.Process(), threading.Event()
    X = np.load(sys.argv[1], mmap_mode="r")
    embedder = ECGSelfSupervisedEmbedder(
        PatchTransformer(500, embed_dim=8, depth=0, n_heads=1), max_epochs=1, batch_size=32, random_state=0)
    embedder.fit(np.array(X[:64])).transform(X[:64])  # allocator and libraries are warm
    start = anonymous()
    peak = [start]
    watcher = threading.Thread(target=watch)
    watcher.start()
    getattr(embedder, sys.argv[2])(X)
    done.set()
    watcher.join()
    print((peak[0] - start) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the kernel's count of anonymous pages")
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_memmap_is_not_copied(tmp_path, method):
    grown = {}
    for megabytes in (40, 160):
        path = tmp_path / f"{megabytes}.npy"
        X = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=(megabytes * 2**20 // (4 * 12 * 2000), 12, 2000))
        X[::7, :, ::3] = 1.0  # sparse file, varying signal
        del X
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEMORY), path, method], capture_output=True, text=True, check=True,
            timeout=300)
        grown[megabytes] = float(result.stdout)
        path.unlink()
    # a copy would take 120 MiB more for the larger file, one in float64 twice as much
    assert grown[160] - grown[40] < 40, grown


def test_checkpoint_of_fit_is_not_one_of_partial_fit(X, tmp_path):
    make(max_epochs=1, checkpoint_dir=tmp_path).fit(X)  # one epoch too, at another learning rate
    expected = make(max_epochs=1).partial_fit(X)
    assert state_bytes(make(max_epochs=1, checkpoint_dir=tmp_path).partial_fit(X)) == state_bytes(expected)


def test_a_state_that_contradicts_itself_is_refused(patches):
    state = copy.deepcopy(patches.__getstate__())
    state["encoder_"].n_leads_ += 1
    with pytest.raises(ValueError, match="contradicts itself"):
        ECGSelfSupervisedEmbedder().__setstate__(state)
