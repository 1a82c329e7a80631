import copy
import math
import pickle
import threading

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.utils.fixes import parse_version
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier
from skecg._torch import build_seeded, preserved_torch_state, resolve_device, resolve_precision
from skecg._training import (
    INFERENCE_BLOCK,
    Plan,
    Signals,
    apply_network,
    crop_starts,
    fit_network,
    load_module_state,
    module_state,
)
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.objectives import Objective

RNG = np.random.default_rng(0)
X = np.cumsum(RNG.normal(size=(22, 2, 100)), axis=2).astype(np.float32)
Y = np.arange(22) % 2
CPU = torch.device("cpu")

needs_sklearn_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"), reason="scikit-learn has callbacks since 1.9")


def make(**params):
    return ECGSelfSupervisedEmbedder(
        PatchTransformer(10, 16, 1, n_heads=2), **{"max_epochs": 3, "batch_size": 8, "random_state": 0, **params})


def make_classifier(**params):
    return ECGClassifier(make(max_epochs=0), **{"max_epochs": 3, "batch_size": 8, "random_state": 0, **params})


ESTIMATORS = {
    "embedder": lambda **params: make(**params),
    "classifier": lambda **params: make_classifier(**params),
    "head": lambda **params: HeadClassifier(**{"max_epochs": 3, "batch_size": 8, "random_state": 0, **params}),
}


def fit(name, **params):
    return ESTIMATORS[name](**params).fit(X[:, 0] if name == "head" else X, Y)


class Line(nn.Module):
    """y = a x on batches whose x is (B, 1)."""

    def __init__(self, a=0.0):
        super().__init__()
        self.matrix = nn.Parameter(torch.full((1, 1), a))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        error = batch.x @ self.matrix + self.bias - batch.y
        return {"loss": error.square().mean(), "absolute": error.detach().abs().mean(), "raw": error, "note": "text"}


def plan(**params):
    return Plan(**{"max_epochs": 3, "batch_size": 4, "learning_rate": 0.1, "weight_decay": 0.0, "seed": 0,
                   "precision": "float32", "device": "cpu", **params})


def line_data(n=10):
    x = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    return Signals(x, y=3 * x)


# --- schedule and optimizer ------------------------------------------------------------------------------------


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    factors = [plan(warmup=0.2).factor(step, 50) for step in range(50)]
    assert_allclose(factors[:10], np.arange(1, 11) / 11)
    assert_allclose(factors[10:], [0.5 * (1 + math.cos(math.pi * k / 40)) for k in range(40)])
    assert factors[10] == 1.0 and 0 < factors[-1] < 0.01
    assert all(type(factor) is float for factor in factors)
    assert [plan(schedule="constant").factor(step, 7) for step in range(7)] == [1.0] * 7


def test_each_update_uses_the_scheduled_rate():
    class Rates(Callback):
        seen = []

        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            self.seen.append((batch.step, net.optimizer_.param_groups[0]["lr"]))

    rates = Rates()
    p = plan(warmup=0.1, callbacks=[rates])
    fit_network(Line(), line_data(), p)
    assert [step for step, _ in rates.seen] == list(range(9))  # 3 epochs of 3 batches
    assert_allclose([rate for _, rate in rates.seen], [0.1 * p.factor(step, 9) for step in range(9)])


def test_first_update_is_that_of_adamw():
    """Matrices decay, vectors do not; the gradient is the mean over the batch."""
    module, reference = Line(2.0), Line(2.0)
    module.bias.data += 1
    reference.bias.data += 1
    data = line_data(4)
    fit_network(module, data, plan(max_epochs=1, weight_decay=0.5, schedule="constant"))
    optimizer = torch.optim.AdamW([
        {"params": [reference.matrix], "weight_decay": 0.5}, {"params": [reference.bias], "weight_decay": 0.0}], lr=0.1)
    reference(data.batch(np.arange(4)))["loss"].backward()
    optimizer.step()
    assert_allclose(module.matrix.detach(), reference.matrix.detach(), rtol=1e-6)
    assert_allclose(module.bias.detach(), reference.bias.detach(), rtol=1e-6)


def test_gradient_is_clipped():
    class Norms(Callback):
        def __init__(self):
            self.seen = []

        def on_grad_computed(self, net, **kwargs):
            self.seen.append(math.sqrt(sum(float(p.grad.square().sum()) for p in net.module_.parameters())))

    clipped, free = Norms(), Norms()
    fit_network(Line(50.0), line_data(), plan(gradient_clip=0.5, callbacks=[clipped]))
    fit_network(Line(50.0), line_data(), plan(callbacks=[free]))
    assert max(clipped.seen) <= 0.5001
    assert min(free.seen) > 1


def test_loss_falls_and_terms_are_recorded():
    history = fit_network(Line(), line_data(), plan(max_epochs=60), valid=line_data(5))
    assert history[-1]["loss"] < 1e-2 * history[0]["loss"]
    assert [row["epoch"] for row in history] == list(range(1, 61))
    # scalars only, in training and validation
    assert set(history[0]) == {
        "epoch", "loss", "absolute", "valid_loss", "valid_absolute", "learning_rate", "seconds"}
    assert all(type(value) in (int, float) for row in history for value in row.values())


def test_means_are_over_samples_not_over_batches():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return {"loss": batch.x.mean() + 0 * self.unused.sum()}

    x = np.arange(10, dtype=np.float32)[:, None]
    (row,) = fit_network(Fixed(), Signals(x), plan(max_epochs=1), valid=Signals(x[:7]))
    assert_allclose(row["loss"], 4.5, rtol=1e-6)
    assert_allclose(row["valid_loss"], 3.0, rtol=1e-6)


# --- batches ---------------------------------------------------------------------------------------------------


class Orders(Callback):
    def __init__(self):
        self.train, self.valid, self.sizes = [], [], []

    def on_epoch_begin(self, net, **kwargs):
        self.train.append([])
        self.valid.append([])

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        (self.train if training else self.valid)[-1].extend(batch.x[:, 0].tolist())
        self.sizes.append(len(batch))


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [
    (10, 4, [4, 3, 3]), (9, 4, [3, 3, 3]), (8, 4, [4, 4]), (5, 4, [3, 2]), (3, 4, [3]), (2, 1, [1, 1]), (33, 32, [17, 16]),
])
def test_batches_have_nearly_equal_sizes(n, batch_size, sizes):
    orders = Orders()
    fit_network(Line(), line_data(n), plan(max_epochs=1, batch_size=batch_size, callbacks=[orders]))
    assert orders.sizes == sizes


def test_every_sample_once_per_epoch_in_an_order_of_its_own():
    orders = Orders()
    fit_network(Line(), line_data(), plan(callbacks=[orders]), valid=line_data(6))
    x = line_data().X[:, 0].tolist()
    assert all(sorted(epoch) == x for epoch in orders.train)
    assert len({tuple(epoch) for epoch in orders.train}) == 3
    assert all(epoch == line_data(6).X[:, 0].tolist() for epoch in orders.valid)  # validation is not shuffled


def test_validation_draws_the_same_in_every_epoch():
    class Noisy(Line):
        def forward(self, batch):
            noise = torch.randn(len(batch), generator=batch.generator)
            return {"loss": noise.square().mean() + 0 * self.matrix.sum() + 0 * self.bias.sum()}

    history = fit_network(Noisy(), line_data(), plan(), valid=line_data())
    assert len({row["valid_loss"] for row in history}) == 1
    assert len({row["loss"] for row in history}) == 3


def test_signals_keep_memmaps_on_disk(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    encoder = PatchTransformer(10).fit(mapped)
    data = Signals(mapped, encoder)
    batch = data.batch(np.array([3, 1]))
    assert data.X is mapped
    assert_array_equal(batch.x, X[[3, 1]])
    assert batch.x.dtype == torch.float32


def test_signals_mark_missing_leads():
    incomplete = X.copy()
    incomplete[2, 1] = np.nan
    encoder = PatchTransformer(10).fit(incomplete)
    data = Signals(incomplete, encoder)
    batch = data.batch(np.array([1, 2]))
    assert_array_equal(batch.lead_valid, [[True, True], [True, False]])
    assert_array_equal(batch.x[1, 1], np.full(100, encoder.center_, np.float32))
    assert data.batch(np.array([0, 1])).lead_valid is None
    assert np.isnan(incomplete[2, 1]).all()


# --- inference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [PatchTransformer(10, 16, 1, n_heads=2), ResNet1d(4, (1, 1))], ids=["patch", "resnet"])
def test_inference_is_exact_over_subsets_orders_and_threads(encoder):
    many = np.cumsum(RNG.normal(size=(3 * INFERENCE_BLOCK + 5, 3, 120)), axis=2).astype(np.float32)
    many[::5, 1] = np.nan
    encoder = copy.deepcopy(encoder).fit(many)
    network = build_seeded(encoder.build, 0).eval()

    def embed(X):
        return apply_network(lambda b: network(b.x, b.lead_valid), X, encoder, device=CPU)

    expected = embed(many)
    rng = np.random.default_rng(1)
    for size in (1, 2, INFERENCE_BLOCK - 1, INFERENCE_BLOCK, INFERENCE_BLOCK + 1, len(many)):
        rows = rng.permutation(len(many))[:size]
        assert_array_equal(embed(many[rows]), expected[rows])
    n_threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            assert_array_equal(embed(many), expected)
    finally:
        torch.set_num_threads(n_threads)


def test_blocks_have_one_shape():
    shapes = []

    def function(batch):
        shapes.append(tuple(batch.x.shape))
        return batch.x.sum(dim=1)

    x = RNG.normal(size=(INFERENCE_BLOCK + 3, 4)).astype(np.float32)
    assert_allclose(apply_network(function, x, device=CPU), x.sum(axis=1), rtol=1e-5)
    assert set(shapes) == {(INFERENCE_BLOCK, 4)}


@pytest.mark.parametrize(("n_times", "size", "expected"), [
    (100, 50, [0, 50]), (100, 40, [0, 30, 60]), (100, 99, [0, 1]), (100, 100, [0]), (7, 3, [0, 2, 4]),
])
def test_crops_cover_the_window(n_times, size, expected):
    assert crop_starts(n_times, size).tolist() == expected


def test_module_state_is_a_copy_and_comes_back_read_only():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = module_state(module)
    assert all(type(value) is np.ndarray for value in state.values())
    before = {name: value.copy() for name, value in state.items()}
    module(torch.randn(4, 2))
    with torch.no_grad():
        module[0].weight.zero_()
    for name, value in state.items():
        assert_array_equal(value, before[name])
        value.setflags(write=False)
    other = load_module_state(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), state)
    assert not other.training
    other[0].weight.data.add_(1)  # its own memory
    assert_array_equal(state["0.weight"], before["0.weight"])
    with pytest.raises(RuntimeError, match=r"(?i)missing key"):
        load_module_state(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), {"0.weight": before["0.weight"]})


# --- global state ----------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Threads(Callback):
    def __init__(self):
        self.seen = set()

    def on_batch_begin(self, net, **kwargs):
        self.seen.add(torch.get_num_threads())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_deterministic_fit_uses_one_thread_and_gives_them_back(two_threads, name):
    one, two = Threads(), Threads()
    fit(name, deterministic=True, callbacks=[one], max_epochs=1, batch_size=22)
    fit(name, callbacks=[two], max_epochs=1, batch_size=22)
    assert one.seen == {1}
    assert two.seen == {2}
    assert torch.get_num_threads() == 2


def test_deterministic_fit_gives_threads_back_after_a_failure(two_threads):
    with pytest.raises(RuntimeError, match="stop here"):
        fit("embedder", deterministic=True, callbacks=[Fail(RuntimeError("stop here"))])
    assert torch.get_num_threads() == 2


def test_deterministic_results_do_not_depend_on_threads(two_threads):
    two = make(deterministic=True).fit(X)
    torch.set_num_threads(1)
    one = make(deterministic=True).fit(X)
    for name, value in module_state(one.network_).items():
        assert_array_equal(module_state(two.network_)[name], value)


def test_overlapping_fits_restore_the_state_of_before():
    torch.manual_seed(5)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    first_in, second_out = threading.Event(), threading.Event()

    def first():
        with preserved_torch_state(single_thread=True):
            first_in.set()
            second_out.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert first_in.wait(60)
    with preserved_torch_state():
        torch.manual_seed(77)
    second_out.set()
    thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == n_threads


def test_build_seeded_ignores_and_keeps_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build_seeded(lambda: torch.rand(3), 7)
    torch.rand(5)
    assert torch.equal(build_seeded(lambda: torch.rand(3), 7), one)
    assert not torch.equal(build_seeded(lambda: torch.rand(3), 8), one)
    torch.set_rng_state(before)
    build_seeded(lambda: torch.rand(3), 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_that_draw_from_the_global_generator_are_reproducible():
    class WithDropout(Line):
        def forward(self, batch):
            return {"loss": super().forward(batch)["loss"] * nn.functional.dropout(torch.ones(8)).mean()}

    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append([row["loss"] for row in fit_network(WithDropout(), line_data(), plan())])
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]


# --- devices and precision -------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows the error of a machine without a GPU")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_absent_gpu_is_named(name):
    with pytest.raises(ValueError, match=r"device='cuda' cannot be used: .*device='auto' or 'cpu'"):
        fit(name, device="cuda")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", ""])
def test_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=f"device={device!r} cannot be used"):
        fit("embedder", device=device)


def test_auto_device_and_precision():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_precision("auto", CPU) in ("float32", "bfloat16")
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
    assert resolve_precision("float32", torch.device("cuda")) == "float32"


@pytest.mark.parametrize("encoder", [PatchTransformer(10, 16, 1), ResNet1d(8, (1, 1))], ids=["patch", "resnet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_precision_learns(encoder, precision):
    class Dtypes(Callback):
        seen = None

        def on_train_begin(self, net, **kwargs):
            first = next(m for m in net.module_.modules() if isinstance(m, (nn.Linear, nn.Conv1d)))
            first.register_forward_hook(lambda module, args, out: setattr(self, "seen", out.dtype))

    dtypes = Dtypes()
    embedder = ECGSelfSupervisedEmbedder(
        copy.deepcopy(encoder), max_epochs=20, batch_size=8, learning_rate=3e-3, precision=precision, random_state=0,
        callbacks=[dtypes]).fit(X)
    losses = [row["loss"] for row in embedder.history_]
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])
    assert dtypes.seen == getattr(torch, precision)
    assert {p.dtype for p in embedder.network_.parameters()} == {torch.float32}
    assert embedder.transform(X).dtype == np.float32


# --- failures --------------------------------------------------------------------------------------------------


class Fail(Callback):
    def __init__(self, error, hook="on_batch_end", at=2):
        self.error, self.hook, self.at, self.count = error, hook, at, 0

    def _maybe(self, hook):
        if hook == self.hook:
            self.count += 1
            if self.count == self.at:
                raise self.error

    def on_batch_begin(self, net, **kwargs):
        self._maybe("on_batch_begin")

    def on_batch_end(self, net, **kwargs):
        self._maybe("on_batch_end")

    def on_epoch_begin(self, net, **kwargs):
        self._maybe("on_epoch_begin")

    def on_epoch_end(self, net, **kwargs):
        self._maybe("on_epoch_end")


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_batch_end", "on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_keyboard_interrupt_leaves_fit(name, hook):
    """skorch swallows it; here a half-trained model never looks like a finished one."""
    estimator = ESTIMATORS[name](callbacks=[Fail(KeyboardInterrupt(), hook)])
    signals = X[:, 0] if name == "head" else X
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(signals, Y)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(NotFittedError):
        (estimator.transform if name == "embedder" else estimator.predict)(signals)


def test_keyboard_interrupt_beside_early_stopping_leaves_fit():
    with pytest.raises(KeyboardInterrupt):
        fit("embedder", callbacks=[EarlyStopping("train_loss"), Fail(KeyboardInterrupt(), "on_batch_end")])


@pytest.mark.parametrize("first", [True, False])
def test_keyboard_interrupt_at_the_end_of_an_epoch_is_not_early_stopping(first):
    """skorch's EarlyStopping stops by the same exception; the user's Ctrl-C must still leave fit."""
    callbacks = [EarlyStopping("train_loss"), Fail(KeyboardInterrupt(), "on_epoch_end")]
    with pytest.raises(KeyboardInterrupt):
        fit("embedder", callbacks=callbacks[::-1] if first else callbacks)


class Diverging(Objective):
    def __init__(self, value=float("nan"), after=0):
        self.value = value
        self.after = after

    def build(self, network):
        return DivergingModule(network, self.value, self.after)


class DivergingModule(nn.Module):
    def __init__(self, network, value, after):
        super().__init__()
        self.encoder, self.value, self.after = network, value, after

    def forward(self, batch):
        loss = self.encoder(batch.x, batch.lead_valid).square().mean()
        return {"loss": loss * self.value if batch.step >= self.after else loss}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("after", [0, 4])
def test_loss_that_is_not_finite(value, after):
    embedder = make(objective=Diverging(value, after))
    with pytest.raises(FloatingPointError, match=rf"training loss became (nan|inf) in update {after + 1} .*learning_rate"):
        embedder.fit(X)
    assert not hasattr(embedder, "network_")


def test_divergence_by_learning_rate_never_gives_weights_that_are_not_finite():
    try:
        embedder = make(learning_rate=1e9, gradient_clip=None, max_epochs=20).fit(X)
    except FloatingPointError:
        return
    assert all(np.isfinite(value).all() for value in module_state(embedder.network_).values())


def test_validation_loss_that_is_not_finite():
    x = np.ones((6, 1), np.float32)
    with pytest.raises(FloatingPointError, match="validation loss became nan"):
        fit_network(Line(), Signals(x, y=x), plan(), valid=Signals(x, y=np.full_like(x, np.nan)))


# --- callbacks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_skorch_early_stopping_stops(name):
    # nothing improves by 99 %: the first epoch is the best, two more are waited for
    stop = EarlyStopping("train_loss", patience=2, threshold=0.99)
    estimator = fit(name, max_epochs=10, callbacks=[stop])
    assert len(estimator.history_) == 3
    assert np.isfinite(estimator.transform(X) if name == "embedder" else estimator.predict_proba(
        X[:, 0] if name == "head" else X)).all()


def test_named_callbacks_and_clones():
    threads = Threads()
    make(callbacks=[("threads", threads), Orders()]).fit(X)
    assert threads.seen
    original = make(callbacks=[EarlyStopping("train_loss", patience=7)])
    copied = sklearn.base.clone(original).callbacks[0]
    assert copied is not original.callbacks[0]
    assert copied.patience == 7


@pytest.mark.parametrize("verbose", [0, 1, 2])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_progress(capsys, name, verbose):
    fit(name, verbose=verbose)
    out, err = capsys.readouterr()
    label = "pretrain" if name == "embedder" else "train"
    assert (f"{label}: 100%" in err) == (verbose > 0)
    assert all(f"{label} epoch {i}: loss" in out for i in (1, 2, 3)) == (verbose > 1)
    if not verbose:
        assert out == err == ""


def test_no_trace_of_training_is_kept():
    embedder = make(callbacks=[Orders()]).set_params(encoder__dropout=0.2).fit(X)
    assert not any("callback" in name or "trainer" in name for name in vars(embedder) if name != "callbacks")
    assert b"skorch" not in pickle.dumps(make().fit(X))
    assert not any(isinstance(value, torch.Generator) for m in embedder.network_.modules() for value in vars(m).values())


class Recorder:
    """A callback in the sense of scikit-learn >= 1.9."""

    def __init__(self, stop_after=None):
        self.log, self.stop_after = [], stop_after

    def setup(self, estimator, context):
        self.log.append(("setup", context.task_name, context.max_subtasks))

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.log.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.log.append(("end", context.task_name, context.task_id))
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_after

    def teardown(self, estimator, context):
        self.log.append(("teardown", context.task_name, context.max_subtasks))

    def epochs(self, hook):
        return [task for kind, name, task in self.log if kind == hook and name == "epoch"]


@needs_sklearn_callbacks
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learn_callbacks_see_every_epoch(name):
    recorder = Recorder()
    estimator = ESTIMATORS[name](max_epochs=4).set_callbacks(recorder)
    estimator.fit(X[:, 0] if name == "head" else X, Y)
    assert recorder.log[0] == ("setup", "fit", 4)
    assert recorder.log[1] == ("begin", "fit", 0)
    assert recorder.log[-2:] == [("end", "fit", 0), ("teardown", "fit", 4)]
    assert recorder.epochs("begin") == recorder.epochs("end") == [0, 1, 2, 3]
    assert len(recorder.log) == 2 * 4 + 4


@needs_sklearn_callbacks
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learn_callback_may_stop(name):
    recorder = Recorder(stop_after=2)
    estimator = ESTIMATORS[name](max_epochs=9).set_callbacks(recorder)
    estimator.fit(X[:, 0] if name == "head" else X, Y)
    assert len(estimator.history_) == 2
    assert recorder.log[-1][0] == "teardown"


@needs_sklearn_callbacks
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learn_callbacks_are_torn_down_after_a_failure(name):
    recorder = Recorder()
    estimator = ESTIMATORS[name](callbacks=[Fail(RuntimeError("stop here"))]).set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="stop here"):
        estimator.fit(X[:, 0] if name == "head" else X, Y)
    assert recorder.log[-1] == ("teardown", "fit", 3)


@needs_sklearn_callbacks
def test_scikit_learn_callbacks_and_partial_fit():
    recorder = Recorder()
    embedder = make().set_callbacks(recorder).partial_fit(X)
    assert [entry[0] for entry in recorder.log].count("setup") == [entry[0] for entry in recorder.log].count("teardown")
    assert not any(name.startswith("_callback") or name.endswith("_to_teardown") for name in vars(embedder))
    pickle.loads(pickle.dumps(embedder.set_callbacks()))


@needs_sklearn_callbacks
def test_scikit_learn_progress_bar():
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar is drawn by rich")
    from sklearn.callback import ProgressBar

    assert len(make().set_callbacks(ProgressBar()).fit(X).history_) == 3
