"""States of unfinished fits: resuming within an epoch, damage, faults of the disk, signals, kills."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from skorch.callbacks import Callback
from torch import nn

import skecg._checkpoints
import skecg._files
from skecg import ECGSelfSupervisedEmbedder, TrainingInterrupted
from skecg._checkpoints import HeldSignals
from skecg._training import module_state
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d
from skecg.objectives import MaskedReconstruction, Objective, Wav2Vec2CMSC

RNG = np.random.default_rng(0)
X = np.cumsum(RNG.normal(size=(20, 2, 60)), axis=2).astype(np.float32)
X[3, 1] = np.nan
GROUPS = np.arange(20) // 4
N_UPDATES = 9  # three epochs of three batches


@pytest.fixture(autouse=True)
def usual_handlers():
    """The handlers of a program that a person started; a shell has its background jobs ignore Ctrl-C."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Noisy(Objective):
    """Draws from torch's global generator, as layers of torch do, and from the batch's."""

    def build(self, network):
        return NoisyModule(network)


class NoisyModule(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.encoder, self.dropout, self.target = network, nn.Dropout(0.3), nn.Linear(network.n_features, 3)

    def forward(self, batch):
        h = self.target(self.dropout(self.encoder(batch.x, batch.lead_valid)))
        error = (h - torch.randn(h.shape, generator=batch.generator)).square()
        return {"loss": error.mean(), "first": error[:, 0].mean(), "second": error[:, 1].mean()}


SETTINGS = {
    "masked": (PatchTransformer(10, 8, 1, n_heads=2, dropout=0.2), MaskedReconstruction(), {}),
    "crops": (PatchTransformer(10, 8, 1, n_heads=2, dropout=0.2), MaskedReconstruction(), {"crop_size": 40}),
    "noisy, batch norm": (ResNet1d(4, (1, 1), kernel_size=3), Noisy(), {"crop_size": 50}),
    "contrastive": (
        ConvTransformer(8, 1, n_heads=2, mlp_ratio=1.0, conv_dim=8, conv_strides=(2, 2), position_kernel=4,
                        position_groups=2, dropout=0.1, attention_dropout=0.1),
        Wav2Vec2CMSC(mask_length=2, n_negatives=3, codebook_size=4, target_dim=8), {}),
}


class Act(Callback):
    """Counts updates, and does something at the end of one."""

    def __init__(self, at=None, action=None):
        self.at, self.action, self.n_updates = at, action, 0

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        self.n_updates += 1
        if batch.step + 1 == self.at:
            self.action()


class PowerFailure(Exception):
    pass


def fail():
    raise PowerFailure


def make(name="masked", **params):
    encoder, objective, more = SETTINGS[name]
    return ECGSelfSupervisedEmbedder(encoder, objective, **{
        "max_epochs": 3, "batch_size": 7, "learning_rate": 0.01, "random_state": 0, **more, **params})


def outcome(embedder):
    """Weights as bytes, and the history without times."""
    return {name: value.tobytes() for name, value in module_state(embedder.network_).items()}, [
        {key: value for key, value in row.items() if key != "seconds"} for row in embedder.history_]


@pytest.fixture(scope="module")
def whole():
    """Outcomes of fits without a break, by setting."""
    return {name: outcome(make(name).fit(X, groups=GROUPS)) for name in SETTINGS}


@pytest.fixture
def after_every_update(monkeypatch):
    monkeypatch.setattr(skecg._checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


def states(folder):
    """Files of saved states, the latest first."""
    return sorted(Path(folder).glob("*.safetensors"), reverse=True)


def n_updates(path):
    return int(path.stem.split("-")[1])


def interrupt(folder, at, name="masked", action=fail, error=PowerFailure):
    with pytest.raises(error):
        make(name, checkpoint_dir=folder, callbacks=[Act(at, action)]).fit(X, groups=GROUPS)


# --- resuming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(2, N_UPDATES + 1))
@pytest.mark.parametrize("name", SETTINGS)
def test_resumes_within_an_epoch_bit_for_bit(whole, tmp_path, after_every_update, name, at):
    interrupt(tmp_path, at, name)  # before the state of this update is saved
    assert n_updates(states(tmp_path)[0]) == at - 1
    count = Act()
    torch.manual_seed(99)  # no matter
    resumed = make(name, checkpoint_dir=tmp_path, callbacks=[count]).fit(X, groups=GROUPS)
    assert count.n_updates == N_UPDATES - (at - 1)
    assert outcome(resumed) == whole[name]


def test_several_interruptions(whole, tmp_path, after_every_update):
    for at in (2, 3, 5, 8):
        interrupt(tmp_path, at, "contrastive")
    assert outcome(make("contrastive", checkpoint_dir=tmp_path).fit(X, groups=GROUPS)) == whole["contrastive"]


def test_saving_changes_nothing(whole, tmp_path, after_every_update):
    for name in SETTINGS:
        assert outcome(make(name, checkpoint_dir=tmp_path).fit(X, groups=GROUPS)) == whole[name]


def test_seconds_of_an_interrupted_epoch_count(tmp_path, after_every_update):
    interrupt(tmp_path, 3)
    with safetensors.safe_open(states(tmp_path)[0], "pt") as file:
        import json

        seconds = json.loads(file.metadata()["values"])["middle"]["record"]["seconds"]
    assert seconds > 0
    assert make(checkpoint_dir=tmp_path).fit(X, groups=GROUPS).history_[0]["seconds"] > seconds


def test_short_epochs_are_saved_at_their_end_only(tmp_path):
    seen = []

    class Watch(Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            seen.append([n_updates(path) for path in states(tmp_path)])

    make(checkpoint_dir=tmp_path, callbacks=[Watch()]).fit(X)
    assert seen == [[]] * 3 + [[3]] * 3 + [[6, 3]] * 3
    assert [n_updates(path) for path in states(tmp_path)] == [9, 6]


# --- files -----------------------------------------------------------------------------------------------------


def test_the_last_two_are_kept(tmp_path, after_every_update):
    make(checkpoint_dir=tmp_path).fit(X)
    make(checkpoint_dir=tmp_path, random_state=1).fit(X)  # another fit in the same folder
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in states(tmp_path)}
    assert sorted(n_updates(path) for path in states(tmp_path)) == [8, 8, 9, 9]
    assert len({name.split("-")[0] for name in names}) == 2


def flip(data):
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


DAMAGE = {
    "one bit": flip, "garbage": lambda data: b"garbage", "empty": lambda data: b"",
    "half": lambda data: data[:len(data) // 2],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("at", [6, 8])
def test_damaged_state_is_replaced_by_the_one_before(whole, tmp_path, after_every_update, damage, at):
    interrupt(tmp_path, at, "contrastive")
    latest, before = states(tmp_path)
    latest.write_bytes(DAMAGE[damage](latest.read_bytes()))
    count = Act()
    with pytest.warns(UserWarning, match=f"Checkpoint .*{latest.name} cannot be read.*takes up at .*{before.name}"):
        resumed = make("contrastive", checkpoint_dir=tmp_path, callbacks=[count]).fit(X, groups=GROUPS)
    assert count.n_updates == N_UPDATES - (at - 2)
    assert outcome(resumed) == whole["contrastive"]
    assert latest not in states(tmp_path)
    make("contrastive", checkpoint_dir=tmp_path).fit(X, groups=GROUPS)  # without a warning


def test_damaged_state_does_not_outlive_the_next_one(tmp_path, after_every_update):
    """It has the higher number, but it is the sound ones that are kept."""
    interrupt(tmp_path, 8)
    states(tmp_path)[0].write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be read"):
        interrupt(tmp_path, 8)
    assert [n_updates(path) for path in states(tmp_path)] == [7, 6]
    assert all(path.stat().st_size for path in states(tmp_path))


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_sound_state_the_fit_does_not_start(tmp_path, damage):
    interrupt(tmp_path, 8)
    for path in states(tmp_path):
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=r"(?s)cannot be read .*; .* cannot be read .*Delete it to start afresh"):
        make(checkpoint_dir=tmp_path).fit(X, groups=GROUPS)


def test_state_of_another_fit_is_refused(tmp_path):
    other = tmp_path / "other"
    interrupt(tmp_path, 5)
    with pytest.raises(PowerFailure):
        make(checkpoint_dir=other, callbacks=[Act(5, fail)], weight_decay=0.5).fit(X[:-1], groups=GROUPS[:-1])
    (own,), (foreign,) = states(tmp_path), states(other)
    own.unlink()
    foreign.rename(tmp_path / "-".join([own.name.split("-")[0], *foreign.name.split("-")[1:]]))
    with pytest.raises(ValueError, match="is of a fit with other X, groups, weight_decay: it was renamed or copied"):
        make(checkpoint_dir=tmp_path).fit(X, groups=GROUPS)


def test_reading_runs_no_code(tmp_path):
    interrupt(tmp_path, 4)
    (path,) = states(tmp_path)
    flag = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return (open, (str(flag), "w"))

    torch.save({"module": Payload()}, path)
    path.rename(path.with_stem(path.stem.rpartition("-")[0] + "-" + skecg._checkpoints._digest(path.read_bytes())))
    with pytest.raises(ValueError, match="cannot be read"):
        make(checkpoint_dir=tmp_path).fit(X, groups=GROUPS)
    assert not flag.exists()


def test_remains_of_a_killed_writer_are_removed(tmp_path):
    interrupt(tmp_path, 4)
    (path,) = states(tmp_path)
    old, fresh = (path.with_name(f"{path.name}.{name}.part") for name in ("old", "fresh"))
    old.touch()
    os.utime(old, (0, 0))
    fresh.touch()  # perhaps of a writer that is at work
    make(checkpoint_dir=tmp_path).fit(X, groups=GROUPS)
    assert fresh.exists()
    assert not old.exists()


# --- faults of the disk ----------------------------------------------------------------------------------------


class Disk:
    """Fails at the n-th call by which something is written. A failing write leaves half of its bytes."""

    def __init__(self, monkeypatch, at, number=errno.ENOSPC):
        self.at, self.number, self.calls = at, number, []
        for name in ("fsync", "replace", "open"):
            monkeypatch.setattr(skecg._files.os, name, self._failing(name, getattr(os, name)))
        for name in ("mkdir", "unlink"):
            monkeypatch.setattr(Path, name, self._failing(name, getattr(Path, name)))
        monkeypatch.setattr(skecg._files, "open", self._open, raising=False)

    def _fails(self, name):
        self.calls.append(name)
        if len(self.calls) == self.at:
            return OSError(self.number, os.strerror(self.number))

    def _failing(self, name, function):
        def call(*args, **kwargs):
            error = self._fails(name)
            if error is not None:
                raise error
            return function(*args, **kwargs)

        return call

    def _open(self, path, mode):
        error = self._fails("open file")
        if error is not None:
            raise error
        file = open(path, mode, buffering=0)
        disk = self

        class File:
            def write(self, data):
                error = disk._fails("write")
                file.write(data if error is None else data[:len(data) // 2])
                if error is not None:
                    raise error

            flush, fileno = file.flush, file.fileno

            def __enter__(self):
                return self

            def __exit__(self, *exception):
                file.close()

        return File()


def test_a_fault_at_any_write_raises_and_costs_nothing(tmp_path, after_every_update):
    expected = outcome(make(max_epochs=1).fit(X))
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, None)
        make(max_epochs=1, checkpoint_dir=tmp_path / "none").fit(X)
    assert {"open file", "write", "fsync", "replace", "unlink"} <= set(disk.calls)
    n_calls = len(disk.calls)
    assert disk.calls.count("replace") == 3
    for at in range(1, n_calls + 1):
        folder = tmp_path / str(at)
        number = (errno.ENOSPC, errno.EIO)[at % 2]
        embedder = make(max_epochs=1, checkpoint_dir=folder)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, at, number)
            with pytest.raises(OSError, match=r"after update \d could not be saved in .*Make room there") as caught:
                embedder.fit(X)
        assert caught.value.errno == number
        assert not hasattr(embedder, "network_")
        saved = max((n_updates(path) for path in states(folder)), default=0)
        assert saved == disk.calls[:at - 1].count("replace")
        assert not list(folder.glob("*.part")) or disk.calls[at - 1] == "unlink"
        assert outcome(make(max_epochs=1, checkpoint_dir=folder).fit(X)) == expected


def test_write_atomically_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    skecg._files.write_atomically(path, lambda file: file.write(b"old"))
    for at in range(1, 20):
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, at)
            try:
                skecg._files.write_atomically(path, lambda file: file.write(b"new one"))
            except OSError:
                assert path.read_bytes() == (b"new one" if "replace" in disk.calls[:at - 1] else b"old")
            else:
                assert at > len(disk.calls)
                break
        skecg._files.write_atomically(path, lambda file: file.write(b"old"))
    else:
        pytest.fail("more calls than expected: a fault was not tried at each of them")


# --- signals ---------------------------------------------------------------------------------------------------


def handlers():
    return {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}


@pytest.mark.parametrize(("number", "error"), [
    (signal.SIGTERM, TrainingInterrupted), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize("at", [1, 3, 5, N_UPDATES])
def test_signal_saves_the_running_update(whole, tmp_path, number, error, at):
    before = handlers()
    act = Act(at, lambda: signal.raise_signal(number))
    embedder = make(checkpoint_dir=tmp_path, callbacks=[act])
    with pytest.raises(error, match=rf"Stopped after update {at}; the state is saved in"):
        embedder.fit(X, groups=GROUPS)
    assert handlers() == before
    assert act.n_updates == at
    assert not hasattr(embedder, "network_")
    assert n_updates(states(tmp_path)[0]) == at
    assert outcome(make(checkpoint_dir=tmp_path).fit(X, groups=GROUPS)) == whole["masked"]


def test_second_ctrl_c_does_not_wait(tmp_path):
    act = Act(2, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        make(checkpoint_dir=tmp_path, callbacks=[act]).fit(X)
    assert handlers() == before
    assert states(tmp_path) == []


def test_handlers_of_the_program_stay(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        act = Act(2, lambda: signal.raise_signal(signal.SIGTERM))
        make(checkpoint_dir=tmp_path, callbacks=[act]).fit(X)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_handlers_are_held_only_with_checkpoints_in_the_main_thread(tmp_path):
    before, seen = handlers(), {}

    def fit(name, **params):
        make(callbacks=[Act(1, lambda: seen.update({name: handlers()}))], **params).fit(X)

    fit("without")
    fit("with", checkpoint_dir=tmp_path / "with")
    thread = threading.Thread(target=fit, args=("thread",), kwargs={"checkpoint_dir": tmp_path / "thread"})
    thread.start()
    thread.join()
    assert seen["without"] == seen["thread"] == before
    assert not set(seen["with"].values()) & set(before.values())
    assert handlers() == before


def test_handlers_are_given_back_after_a_failure(tmp_path):
    before = handlers()
    interrupt(tmp_path, 2)
    assert handlers() == before


def test_a_signal_is_never_lost():
    with pytest.raises(KeyboardInterrupt), HeldSignals() as held:
        signal.raise_signal(signal.SIGINT)
        assert held.received == signal.SIGINT
    seen = []
    with pytest.raises(KeyboardInterrupt), HeldSignals():  # a handler that was set meanwhile is not taken away
        signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGTERM, lambda *args: seen.append(args))
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert len(seen) == 1


def test_interruption_passes_except_exception():
    import pickle

    error = pickle.loads(pickle.dumps(TrainingInterrupted("stopped")))
    assert not isinstance(error, Exception)
    assert (str(error), error.code) == ("stopped", 143)


# --- kills -----------------------------------------------------------------------------------------------------

# Children of a process that has imported everything are killed at chosen places; what they leave behind is resumed.
SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_checkpoints as t
import skecg._checkpoints, skecg._files
skecg._checkpoints.SECONDS_BETWEEN_CHECKPOINTS = -1.0
folder, whole = Path(sys.argv[1]), t.outcome(t.make().fit(t.X, groups=t.GROUPS))

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def fit(name, **params):
    return t.make(checkpoint_dir=folder / name, **params).fit(t.X, groups=t.GROUPS)

def in_an_update():
    fit("in_an_update", callbacks=[t.Act(5, kill)])

def in_a_write():
    class Half:
        def __init__(self, file): self.file = file
        def write(self, data):
            self.file.write(data[:len(data) // 2])
            self.file.flush()
            if len(list((folder / "in_a_write").glob("*.safetensors"))) == 2: kill()
            self.file.write(data[len(data) // 2:])
    plain = skecg._checkpoints.write_atomically
    skecg._checkpoints.write_atomically = lambda path, write: plain(path, lambda file: write(Half(file)))
    fit("in_a_write")

def before_the_rename():
    replace, calls = os.replace, []
    def last(*args):
        calls.append(args)
        kill() if len(calls) == 6 else replace(*args)
    os.replace = last
    fit("before_the_rename")

def after_the_rename():
    unlink, calls = Path.unlink, []
    def last(path, missing_ok=False):
        calls.append(path)
        kill() if len(calls) == 12 else unlink(path, missing_ok)
    Path.unlink = last
    fit("after_the_rename")

def terminated():
    fit("terminated", callbacks=[t.Act(5, lambda: os.kill(os.getpid(), signal.SIGTERM))])

def file_too_large():
    size = max(p.stat().st_size for p in (folder / "in_an_update").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        fit("file_too_large")
    except OSError as error:
        sys.exit(42)

for case, expected in [(in_an_update, -9), (in_a_write, -9), (before_the_rename, -9), (after_the_rename, -9),
                       (terminated, 143), (file_too_large, 42)]:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            case()
        except SystemExit as error:
            os._exit(error.code)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == expected, (case.__name__, code)
    saved = [t.n_updates(path) for path in t.states(folder / case.__name__)]
    count = t.Act()
    assert t.outcome(fit(case.__name__, callbacks=[count])) == whole, case.__name__
    assert count.n_updates == t.N_UPDATES - max(saved, default=0)
    print(case.__name__, saved, flush=True)
fit("uncaught", callbacks=[t.Act(4, lambda: os.kill(os.getpid(), signal.SIGTERM))])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_fits_resume_bit_for_bit(tmp_path):
    code = textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parent)))
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(skecg.__file__).parents[1])})
    assert result.returncode == 143, result.stderr
    assert n_updates(states(tmp_path / "uncaught")[0]) == 4
    assert result.stdout.splitlines() == [
        "in_an_update [4, 3]", "in_a_write [2, 1]", "before_the_rename [5, 4]", "after_the_rename [7, 6, 5]",
        "terminated [5, 4]", "file_too_large []",
    ]
