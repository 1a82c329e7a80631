"""States of an unfinished fit on disk, and the signals at which one is saved."""

import hashlib
import json
import signal
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import joblib
import safetensors.torch

from ._files import write_atomically
from ._torch import generator_states, set_generator_states

# Part of each fit's name: files of another format are not found, and the fit starts afresh.
FORMAT = 1
# An epoch may take hours: no more than about so much work is lost.
SECONDS_BETWEEN_CHECKPOINTS = 300.0
_STALE_SECONDS = 3600.0  # no file takes as long to write


class TrainingInterrupted(SystemExit):
    """``fit`` was stopped by SIGTERM and saved its state in ``checkpoint_dir``: the same ``fit`` takes up there.

    Where nothing catches it, the process exits with code 143 (its ``code``, 128 + SIGTERM), as if SIGTERM had ended it. As
    a ``SystemExit`` it is not caught by ``except Exception``, so that a search or a study ends too.

    Examples
    --------
    >>> from skecg import TrainingInterrupted
    >>> try:
    ...     raise TrainingInterrupted("stopped in update 12")
    ... except TrainingInterrupted as stopped:
    ...     stopped.code
    143
    """

    def __init__(self, message=""):
        super().__init__(message)
        self.code = 128 + signal.SIGTERM


class State(NamedTuple):
    """What is saved: tensors by name, and whatever JSON can hold."""

    tensors: dict
    values: dict


class Checkpoints:
    """The saved states of one fit: files of a folder, of which the last two are kept.

    A file is named by the fit, the number of updates that were done, and the hash of its contents. It is a safetensors
    file, so that reading it runs no code.

    Parameters
    ----------
    folder : str or path
        Fits may share it.
    fit : dict
        Everything that determines the fit (parameters, data), by name. Kept as hashes.

    Attributes
    ----------
    latest : State or None
        What was found there. A damaged state is warned of, and the one before it is taken.

    Raises
    ------
    ValueError
        All are damaged, or one belongs to another fit.
    """

    def __init__(self, folder, fit):
        self.folder = Path(folder)
        self.fit = {name: joblib.hash(value) for name, value in fit.items()}
        self.name = _digest(json.dumps([FORMAT, self.fit]).encode())
        self.kept = []
        self.latest = self._load()

    def _load(self):
        for part in self.folder.glob(f"{self.name}-*.part"):  # of writers that were killed
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                    part.unlink()
        damaged = []
        for path in sorted(self.folder.glob(f"{self.name}-*.safetensors"), reverse=True):
            try:
                state = self._read(path)
            except FileNotFoundError:  # the same fit runs elsewhere as well, and went on
                continue
            except _Damaged as error:
                damaged.append(f"{path} cannot be read ({error})")
                continue
            if damaged:
                warnings.warn(
                    f"Checkpoint {'; '.join(damaged)}. The fit takes up at the one before, {path.name}.", stacklevel=5)
            self.kept = [path]
            return state
        if damaged:
            raise ValueError(
                f"Checkpoint {'; '.join(damaged)}, and there is none before it. Delete it to start afresh.")
        return None

    def save(self, state, update):
        """Write a :class:`State` that was reached after so many updates; all but the last two are deleted.

        Raises
        ------
        OSError
            Something could not be written. The states before can still be read.
        """
        data = safetensors.torch.save(
            state.tensors, {"fit": json.dumps(self.fit), "values": json.dumps(state.values)})
        path = self.folder / f"{self.name}-{update:010d}-{_digest(data)}.safetensors"
        try:
            write_atomically(path, lambda file: file.write(data))
            self.kept = [*self.kept[-1:], path]
            for other in self.folder.glob(f"{self.name}-*.safetensors"):
                if other not in self.kept:
                    other.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The state after update {update} could not be saved in {self.folder}, and training stopped: "
                f"{error.strerror or error}. Make room there or choose another checkpoint_dir; the same fit takes up at the "
                "last state that was saved.",
            ) from error

    def _read(self, path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _Damaged(error.strerror or error) from error
        if path.stem.rpartition("-")[2] != _digest(data):
            raise _Damaged("its contents do not have the hash in its name")
        try:
            tensors = safetensors.torch.load(data)
            metadata = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            fit, values = json.loads(metadata["fit"]), json.loads(metadata["values"])
        except Exception as error:  # written by somebody else, with the right hash
            raise _Damaged(error) from error
        if fit != self.fit:
            other = sorted(name for name in {*fit, *self.fit} if fit.get(name) != self.fit.get(name))
            raise ValueError(
                f"Checkpoint {path} is of a fit with other {', '.join(other)}: it was renamed or copied from one fit to "
                "another. Delete it to start afresh."
            )
        return State(tensors, values)


class _Damaged(Exception):
    """A file that is not a whole checkpoint."""


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


class Draws:
    """The sources of an epoch's random draws: numpy's for batches, torch's for networks."""

    def __init__(self, rng, generator):
        self.rng, self.generator = rng, generator

    def states(self):
        """Tensors by name, and numpy's state."""
        return {"own": self.generator.get_state(), **generator_states()}, self.rng.bit_generator.state

    def restore(self, state):
        """Go on from where :func:`capture` left a :class:`State`; on another kind of device, from the epoch's seed."""
        self.rng.bit_generator.state = state.values["numpy"]
        states = _part(state.tensors, "draws")
        own = states.pop("own")
        if state.values["device"] == self.generator.device.type:
            self.generator.set_state(own)
        set_generator_states(states)


def capture(module, optimizer, draws, values):
    """The :class:`State` of training between two updates; ``draws`` is None between two epochs."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    if draws is not None:
        states, numpy = draws.states()
        tensors |= {f"draws.{name}": value for name, value in states.items()}
        values = {**values, "numpy": numpy, "device": draws.generator.device.type}
    # tied weights are saved twice: tensors of a safetensors file share no memory
    return State({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, values)


def put_back(state, module, optimizer):
    """Weights and moments of a :class:`State`. The optimizer's parameters are those of the fit already."""
    module.load_state_dict(_part(state.tensors, "module"))
    moments = {}
    for name, value in _part(state.tensors, "optimizer").items():
        i, _, name = name.partition(".")
        moments.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _part(tensors, name):
    """The tensors whose names start with ``name.``, without that."""
    return {key[len(name) + 1:]: value for key, value in tensors.items() if key.startswith(name + ".")}


class HeldSignals:
    """Context in which SIGTERM and Ctrl-C wait until :meth:`raise_received` is called. A second one does not wait.

    Nothing is held in threads other than the main one, and no signal for which the program has a handler of its own.
    A signal that nobody asked for by the end takes its effect then.
    """

    def __init__(self):
        self.received, self._before = None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number, usual in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
                if signal.getsignal(number) == usual:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception):
        self._release()
        if self.received is not None:
            number, self.received = self.received, None
            signal.raise_signal(number)

    def raise_received(self, message):
        """End the fit if a signal has come: KeyboardInterrupt after Ctrl-C, :class:`TrainingInterrupted` after SIGTERM."""
        number, self.received = self.received, None
        if number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if number is not None:
            raise TrainingInterrupted(message)

    def _receive(self, number, frame):
        if self.received is None:
            self.received = number
            return
        self.received = None
        self._release()
        signal.raise_signal(number)

    def _release(self):
        for number, before in self._before.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, before)
        self._before = {}
