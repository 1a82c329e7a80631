"""Training and inference of networks on arrays. The only module that imports skorch."""

import functools
import math
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from torch import nn
from tqdm.auto import tqdm

from . import _checkpoints
from ._checkpoints import Checkpoints, Draws, HeldSignals, capture, put_back
from ._torch import load_optimizers, preserved_torch_state, resolve_device, resolve_precision, seed_torch
from ._validation import as_3d
from .encoders._layers import Dropout
from .objectives._base import Batch

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9 has no callbacks of its own

    class CallbackSupportMixin:
        """Stands in for scikit-learn's mixin where the version has none."""

    def with_callbacks(method):
        """Stands in for scikit-learn's decorator where the version has none."""
        return method


def all_or_nothing(fit):
    """Decorates ``fit``: an estimator whose ``fit`` raises stays what it was, fitted before or not."""

    @functools.wraps(fit)
    def fit_or_restore(estimator, *args, **kwargs):
        before = vars(estimator).copy()
        try:
            return fit(estimator, *args, **kwargs)
        except BaseException:
            now = vars(estimator)
            for name in now.keys() - before.keys():
                if "callback" not in name:  # scikit-learn still has to tear its callbacks down
                    del now[name]
            now.update(before)
            raise

    return fit_or_restore


# Rows that pass a network together at inference. Always exactly so many (zero-padded): float32 results of another
# batch size differ in the last bits, and transform must not depend on what else is transformed.
INFERENCE_BLOCK = 32

def draw_seed(rng):
    """One seed for everything that happens in a ``fit``."""
    return int(rng.randint(np.iinfo(np.int32).max))


class Signals(torch.utils.data.Dataset):
    """Rows of X with their labels and groups, assembled a batch at a time (a memmap stays on disk)."""

    def __init__(self, X, encoder=None, y=None, group=None, crop_size=None, lead_dropout=0.0, once=False):
        self.X, self.encoder, self.y, self.group = X, encoder, y, group
        self.crop_size, self.lead_dropout = crop_size, lead_dropout
        self.corpus = None  # of encoders that keep on disk what they made of whole windows; not worth it for one pass
        if crop_size is None and not lead_dropout and not once and hasattr(encoder, "open_corpus"):
            self.corpus = encoder.open_corpus(X)

    def __len__(self):
        return len(self.X)

    def batch(self, rows, rng=None):
        """:class:`Batch` of the given rows (an index array).

        With ``rng``, at random crops and without random leads; else at central crops and with all leads.
        """
        X = self.X[rows]
        if self.crop_size is not None:
            X = _crop(X, self.crop_size, rng)
        lead_valid = None
        if self.encoder is not None:
            X = as_3d(X)
            if self.lead_dropout and rng is not None:
                X = _drop_leads(X, self.lead_dropout, rng)
            lead_valid = _lead_valid(X)
            if self.corpus is None:
                X = self.encoder.encode_inputs(X)
            else:
                X = self.encoder.pad(self.corpus.leads(rows), *X.shape[:2])
        return Batch(
            x=_tensor(X),
            lead_valid=None if lead_valid is None else torch.from_numpy(lead_valid),
            y=None if self.y is None else torch.from_numpy(self.y[rows]),
            group=None if self.group is None else torch.from_numpy(self.group[rows]),
        )


def _crop(X, size, rng):
    """One piece of ``size`` samples in time from each row: random with ``rng``, else the central one; all if shorter."""
    room = X.shape[-1] - size
    if room <= 0:
        return X
    if rng is None:
        return X[..., room // 2: room // 2 + size]
    starts = rng.integers(room + 1, size=len(X))
    return np.stack([row[..., start:start + size] for row, start in zip(X, starts, strict=True)])


def _drop_leads(X, probability, rng):
    """X with each lead missing at the given probability; a sample that would lose all keeps them."""
    drop = rng.random(X.shape[:2]) < probability
    drop[(drop | np.isnan(X[:, :, 0])).all(axis=1)] = False
    return np.where(drop[:, :, None], X.dtype.type(np.nan), X)


def crop_starts(n_times, size):
    """Where the consecutive crops start that together cover a window; the last one ends with it."""
    n_crops = -(-n_times // size)
    return np.round(np.linspace(0, n_times - size, n_crops)).astype(int)


def _lead_valid(X):
    """(n, n_leads) bool, False where a lead is missing; None when none is (X is validated: NaN means all NaN)."""
    missing = np.isnan(X[:, :, 0])
    return ~missing if missing.any() else None


def _tensor(X):
    X = np.ascontiguousarray(X, dtype=np.float32 if X.dtype.kind == "f" else None)
    return torch.from_numpy(X if X.flags.writeable else X.copy())


@dataclass
class Plan:
    """How to train: what estimators pass through from their parameters (documented there)."""

    max_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    warmup: float = 0.0
    schedule: str = "cosine"
    gradient_clip: float | None = None
    precision: str = "auto"
    device: str = "auto"
    deterministic: bool = False
    n_iter_no_change: int | None = None
    callbacks: list | None = None
    verbose: int = 0
    checkpoints: Checkpoints | None = None
    label: str = "fit"

    def factor(self, step, n_steps):
        """Learning rate at an update, over ``learning_rate``: linear warm-up, then a cosine to zero or constant."""
        n_warm = self.warmup * n_steps
        if step < n_warm:
            return (step + 1) / (n_warm + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1.0, n_steps - n_warm)))


def fit_network(module, data, plan, *, valid=None, context=None, estimator=None, hook_data=None):
    """Train ``module``, whose ``forward(batch)`` returns ``{"loss": ..., further terms}``.

    Parameters
    ----------
    module : nn.Module
        Trained in place; ends on the plan's device, in eval mode.
    data, valid : Signals
        What to train on, and what to watch.
    plan : Plan
    context : sklearn.callback.CallbackContext, optional
        Root context of ``estimator``'s fit, where scikit-learn has callbacks.
    estimator : BaseEstimator, optional
    hook_data : dict, optional
        X and y as passed to ``fit``, for scikit-learn's callbacks.

    Returns
    -------
    history : list of dict
        One per epoch: ``epoch``, ``loss``, the further terms, the same with ``valid_`` before them, ``learning_rate``
        and ``seconds``.

    Raises
    ------
    FloatingPointError
        A loss, a gradient or a weight is no longer finite. No update was made with it.
    OSError
        A checkpoint could not be written.
    TrainingInterrupted, KeyboardInterrupt
        The process was told to stop; the state is saved if the plan has checkpoints.
    """
    device = resolve_device(plan.device)
    load_optimizers()
    module.to(device)
    history = []
    trainer = _Trainer(
        module, criterion=nn.Identity, max_epochs=plan.max_epochs, device=device, verbose=0, compile=False,
        train_split=None if valid is None else predefined_split(valid),
        callbacks=_callbacks(plan, context, estimator, hook_data or {}),
    )
    trainer.plan, trainer.rows, trainer.middle, trainer.n_updates = plan, history, None, 0
    trainer.watched = _finite(module)
    trainer.held = nullcontext() if plan.checkpoints is None else HeldSignals()
    try:
        with preserved_torch_state(plan.deterministic), trainer.held:
            trainer.initialize()
            if plan.checkpoints is not None:
                trainer.resume(plan.checkpoints)
            trainer.start = len(history)
            trainer.notify("on_train_begin", X=None, y=None)
            try:
                trainer.fit_loop(data, epochs=plan.max_epochs - trainer.start)
            except _Stop:
                pass
            trainer.notify("on_train_end", X=None, y=None)
            trainer.check_weights()
    finally:
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.generator = None
    module.eval()
    return history


def _finite(module):
    """Names of a module's floating-point tensors without NaN and infinity."""
    return {
        name for name, value in module.state_dict().items() if value.is_floating_point() and bool(value.isfinite().all())
    }


class _Stop(Exception):
    """Training ends early and successfully."""


class _Trainer(NeuralNet):
    """skorch's loop over modules that compute their own loss from a :class:`Batch`."""

    @property
    def _default_callbacks(self):
        return []

    def notify(self, method_name, **kwargs):
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as error:
            # skorch's EarlyStopping stops with the same exception as the user does: look at who raised
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if isinstance(frame.f_locals.get("self"), EarlyStopping):
                raise _Stop from None
            raise

    def initialize_optimizer(self, *args, **kwargs):
        trainable = self.trainable = [p for p in self.module_.parameters() if p.requires_grad]
        groups = [  # no decay on biases, gains and other vectors
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.plan.weight_decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        buffers = dict(self.module_.named_buffers())
        self.statistics = [buffers[name] for name in self.watched & buffers.keys()]  # of batch normalisation, mostly
        self.optimizer_ = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.plan.learning_rate, fused=True
        )
        return self

    def get_iterator(self, dataset, training=False):
        return _Batches(self, dataset, training)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if iterator is not None:
            self._set_training(training)
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def _terms(self, batch):
        device = torch.device(self.device)
        if resolve_precision(self.plan.precision, device) == "bfloat16":
            with torch.autocast(device.type, torch.bfloat16):
                terms = self.module_(batch)
        else:
            terms = self.module_(batch)
        return terms

    def train_step_single(self, batch, **fit_params):
        terms = self._terms(batch)
        terms["loss"].backward()
        limit = self.plan.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.trainable, math.inf if limit is None else limit)
        # all three: one of them may be infinite while the others are not
        self.check_finite("training loss", terms["loss"], batch)
        self.check_finite("norm of the gradient", norm, batch)
        if self.statistics:
            self.check_finite("sum of the running statistics", torch.stack([s.sum() for s in self.statistics]).sum(), batch)
        return terms

    def validation_step(self, batch, **fit_params):
        with torch.no_grad():
            terms = self._terms(batch)
        self.check_finite("validation loss", terms["loss"], batch)
        return terms

    def resume(self, checkpoints):
        """Take up training at the latest state, if there is one."""
        state, checkpoints.latest = checkpoints.latest, None
        if state is None:
            return
        put_back(state, self.module_, self.optimizer_)
        self.rows.extend(state.values["history"])
        self.n_updates = state.values["n_updates"]
        if state.values["middle"] is not None:
            self.middle = state

    def check_finite(self, what, value, batch):
        """Refuse a step that would ruin the weights, and say which samples led to it."""
        value = value.item()
        if math.isfinite(value):
            return
        rows = self.batch_rows
        listed = ", ".join(map(str, rows[:64])) + (f", ... ({len(rows)} in all)" if len(rows) > 64 else "")
        message = f"The {what} became {value} in update {batch.step + 1} (epoch {self.epoch + 1}), at rows {listed}. "
        if batch.x.is_floating_point():
            largest = batch.x.detach().abs().nan_to_num(0.0).flatten(1).amax(1)
            row = int(largest.argmax())
            message += f"The largest absolute value there is {largest[row].item():.3g}, in row {rows[row]}. "
        raise FloatingPointError(
            f"{message}The update was not made. Lower learning_rate, set gradient_clip, or look for extreme values in these "
            "rows."
        )

    def check_weights(self):
        """Refuse weights and statistics that an update has ruined; what was not finite before training is no matter."""
        ruined = sorted(self.watched - _finite(self.module_))
        if ruined:
            raise FloatingPointError(
                f"After {self.n_updates} updates, {', '.join(ruined[:3])}{', ...' if len(ruined) > 3 else ''} are no longer "
                "finite. Lower learning_rate, set gradient_clip, or look for extreme values in X."
            )

    @property
    def epoch(self):
        """Number of the present epoch, from 0."""
        return self.start + len(self.history) - 1


class _Batches:
    """Batches of one epoch after another; sizes differ by one at most, so that no batch is a lone rest."""

    def __init__(self, trainer, data, training):
        self.trainer, self.data, self.training = trainer, data, training
        self.n_batches = -(-len(data) // trainer.plan.batch_size)
        self.generator = torch.Generator(device=trainer.device)
        self.rows = getattr(data, "rows", np.arange(len(data)))  # as they were numbered in X
        if training:
            for layer in trainer.module_.modules():
                if isinstance(layer, Dropout):
                    layer.generator = self.generator

    def __iter__(self):
        plan, trainer, n = self.trainer.plan, self.trainer, len(self.data)
        epoch = trainer.epoch
        # a stream per epoch, so that a resumed fit draws what the uninterrupted one would have; validation draws the
        # same in every epoch
        rng = np.random.default_rng([plan.seed, 1 + epoch if self.training else 0])
        self.generator.manual_seed(int(rng.integers(2**63 - 1)))
        if self.training:
            seed_torch(int(rng.integers(2**63 - 1)))  # for layers that draw from the global generator
        order = rng.permutation(n) if self.training else np.arange(n)
        n_steps, n_done = plan.max_epochs * self.n_batches, 0
        if self.training:
            trainer.draws = Draws(rng, self.generator)
            if trainer.middle is not None:
                trainer.draws.restore(trainer.middle)
                n_done, trainer.middle = trainer.middle.values["middle"]["n_done"], None
        for i, rows in enumerate(np.array_split(order, self.n_batches)):
            if i < n_done:
                continue
            batch = self.data.batch(rows, rng if self.training else None).to(trainer.device)
            batch.step, batch.n_steps, batch.generator = epoch * self.n_batches + i, n_steps, self.generator
            trainer.batch_rows = self.rows[rows]
            if self.training:
                trainer.n_updates, trainer.n_done, trainer.n_left = batch.step + 1, i + 1, self.n_batches - i - 1
                for group in trainer.optimizer_.param_groups:
                    group["lr"] = float(plan.learning_rate) * plan.factor(batch.step, n_steps)
            yield batch


def _callbacks(plan, context, estimator, hook_data):
    record = _Record()
    callbacks = [("record", record)]
    for i, callback in enumerate(plan.callbacks or []):
        callbacks.append(callback if isinstance(callback, tuple) else (f"callback{i}", callback))
    if plan.checkpoints is not None:
        callbacks.append(("checkpoint", _Checkpoint(record)))
    if plan.verbose:
        callbacks.append(("progress", _Progress()))
    if context is not None:
        callbacks.append(("sklearn", _SklearnCallbacks(context, estimator, hook_data)))
    if plan.n_iter_no_change is not None:  # last: it ends the epoch's notifications
        callbacks.append(("early_stopping", _KeepBest(plan.n_iter_no_change)))
    return callbacks


class _Record(Callback):
    """Means of the loss terms over an epoch, into skorch's history and ours."""

    def on_epoch_begin(self, net, **kwargs):
        self.started, self.sums, self.counts = time.perf_counter(), Counter(), Counter()
        if net.middle is not None:
            past = net.middle.values["middle"]["record"]
            self.started -= past["seconds"]
            self.sums.update(past["sums"])
            self.counts.update(past["counts"])

    def so_far(self):
        """What an epoch that is taken up in its middle starts from."""
        return {"sums": self.sums, "counts": self.counts, "seconds": time.perf_counter() - self.started}

    def on_batch_end(self, net, batch=None, training=False, **terms):
        for name, value in terms.items():
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                continue  # a module may return more than scalars
            key, value = ("" if training else "valid_") + name, value.item()
            known = len(batch) * (not np.isnan(value))  # a batch may have nothing to say about a term
            self.sums[key] += value * len(batch) if known else 0.0
            self.counts[key] += known

    def on_epoch_end(self, net, **kwargs):
        row = {"epoch": net.start + len(net.history)}
        for key, total in self.sums.items():
            row[key] = total / self.counts[key] if self.counts[key] else float("nan")
        row["learning_rate"] = net.optimizer_.param_groups[0]["lr"]
        row["seconds"] = time.perf_counter() - self.started
        for key, value in row.items():  # under the names that skorch's callbacks monitor
            net.history.record("train_loss" if key == "loss" else "dur" if key == "seconds" else key, value)
        for key in ("loss", "valid_loss"):
            if key in row:
                past = [r[key] for r in net.rows]
                name = "train_loss_best" if key == "loss" else "valid_loss_best"
                net.history.record(name, not past or row[key] < min(past))
        net.rows.append(row)


class _KeepBest(Callback):
    """Stop when the validation loss has not fallen for some epochs, and go back to the best weights."""

    def __init__(self, n_iter_no_change):
        self.n_iter_no_change = n_iter_no_change

    def on_train_begin(self, net, **kwargs):
        self.best_loss, self.best_epoch, self.best_state = np.inf, 0, None

    def on_epoch_end(self, net, **kwargs):
        row = net.rows[-1]
        if row["valid_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["valid_loss"], row["epoch"]
            self.best_state = {k: v.detach().clone() for k, v in net.module_.state_dict().items()}
        elif row["epoch"] - self.best_epoch >= self.n_iter_no_change:
            raise _Stop

    def on_train_end(self, net, **kwargs):
        if self.best_state is not None:
            net.module_.load_state_dict(self.best_state)


class _Progress(Callback):
    """A bar over the epochs (verbose=1), and a line for each (verbose=2)."""

    def on_train_begin(self, net, **kwargs):
        self.bar = tqdm(total=net.max_epochs, initial=net.start, desc=net.plan.label, unit="epoch")

    def on_epoch_end(self, net, **kwargs):
        terms = {k: f"{v:.4g}" for k, v in net.rows[-1].items() if k not in ("epoch", "seconds", "learning_rate")}
        self.bar.set_postfix(terms, refresh=False)
        self.bar.update()
        if net.plan.verbose > 1:
            self.bar.write(f"{net.plan.label} epoch {net.rows[-1]['epoch']}: " + ", ".join(
                f"{k} {v}" for k, v in terms.items()))

    def on_train_end(self, net, **kwargs):
        self.bar.close()


class _SklearnCallbacks(Callback):
    """One subtask per epoch for the callbacks that were set by scikit-learn's ``set_callbacks``."""

    def __init__(self, context, estimator, hook_data):
        self.context, self.estimator, self.hook_data = context, estimator, hook_data

    def on_epoch_begin(self, net, **kwargs):
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=self.estimator, **self.hook_data)

    def on_epoch_end(self, net, **kwargs):
        if self.epoch.call_on_fit_task_end(estimator=self.estimator, **self.hook_data):
            raise _Stop


class _Checkpoint(Callback):
    """Saves what a resumed fit needs: after every epoch, now and then within long ones, and before a signal ends it."""

    def __init__(self, record):
        self.record = record

    def on_train_begin(self, net, **kwargs):
        self.saved_at = time.perf_counter()

    def on_batch_end(self, net, training=False, **kwargs):
        waited = time.perf_counter() - self.saved_at
        due = net.held.received is not None or waited > _checkpoints.SECONDS_BETWEEN_CHECKPOINTS
        if training and due and net.n_left:  # after the last batch of an epoch, the epoch is completed first
            self._save(net, net.draws, {"n_done": net.n_done, "record": self.record.so_far()})

    def on_epoch_end(self, net, **kwargs):
        self._save(net)

    def _save(self, net, draws=None, middle=None):
        net.check_weights()
        values = {"history": net.rows, "n_updates": net.n_updates, "seed": net.plan.seed, "middle": middle}
        checkpoints = net.plan.checkpoints
        checkpoints.save(capture(net.module_, net.optimizer_, draws, values), net.n_updates)
        self.saved_at = time.perf_counter()
        net.held.raise_received(
            f"Stopped after update {net.n_updates}; the state is saved in {checkpoints.folder}, where the same fit takes up."
        )


def apply_network(function, X, encoder=None, *, device, crop_size=None, join="mean"):
    """``function(batch)`` for all rows of X, in blocks of one fixed, padded size.

    Complete samples and samples with missing leads never share a block, so that a sample's result does not depend on
    its neighbours.

    Parameters
    ----------
    function : callable
        :class:`Batch` to a Tensor with one row per sample.
    X : ndarray
        Validated; memmaps are read block by block.
    encoder : Encoder, optional
        Fitted, if X holds signals.
    device : torch.device
    crop_size : int, optional
        Apply to consecutive crops of so many samples in time, and join their results:
    join : {"mean", "concatenate"}
        by their mean, or along the second axis.

    Returns
    -------
    ndarray of shape (n_samples, ...)
        float32.
    """
    if crop_size is not None and X.shape[-1] > crop_size:
        starts = crop_starts(X.shape[-1], crop_size)
        parts = (apply_network(function, X[..., s:s + crop_size], encoder, device=device) for s in starts)
        if join == "concatenate":
            return np.concatenate(list(parts), axis=1)
        total = next(parts)
        for part in parts:
            total += part
        return total / np.float32(len(starts))
    data, n = Signals(X, encoder, once=True), len(X)
    fill = getattr(encoder, "padding_value", 0)
    missing = np.zeros(n, bool) if encoder is None else np.isnan(as_3d(X)[:, :, 0]).any(axis=1)
    out = None
    with torch.inference_mode():
        for part in (np.flatnonzero(~missing), np.flatnonzero(missing)):
            for start in range(0, len(part), INFERENCE_BLOCK):
                rows = part[start:start + INFERENCE_BLOCK]
                result = function(_pad(data.batch(rows), fill).to(device))[: len(rows)].float().cpu().numpy()
                if out is None:
                    out = np.empty((n, *result.shape[1:]), np.float32)
                out[rows] = result
    return out


def _pad(batch, fill):
    """The batch with rows of ``fill`` up to the fixed size."""
    n_more = INFERENCE_BLOCK - len(batch)
    if n_more:
        batch.x = torch.cat([batch.x, batch.x.new_full((n_more, *batch.x.shape[1:]), fill)])
        if batch.lead_valid is not None:
            batch.lead_valid = torch.cat([batch.lead_valid, batch.lead_valid.new_ones(n_more, batch.lead_valid.shape[1])])
    return batch


def module_state(module):
    """A module's parameters and buffers as ``{name: ndarray}``."""
    return {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}


def load_module_state(module, state):
    """Put ``{name: ndarray}`` (possibly read-only) back; strict names and shapes. Returns the module in eval mode."""
    module.load_state_dict({
        name: torch.from_numpy(value if value.flags.writeable else value.copy()) for name, value in state.items()
    })
    return module.eval()
