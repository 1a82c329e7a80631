"""Disks that fail while states of training are saved, and states that are damaged on disk.

    python benchmarks/reliability/faults.py [--flips 2000] [--output FILE]

About two minutes on one core. Parts that are in the output already are kept, so that a call goes on where an earlier one
stopped; each runs in a child process of its own.

- ``a call fails``: every call by which a fit with 12 updates and 12 saved states creates, writes, syncs, renames or deletes
  a file fails once, with ENOSPC and with EIO (a failing write leaves half of its bytes). ``fit`` must raise that error, the
  latest state must be the last one that was renamed, and a second ``fit`` must end with the bits of a fit without a break.
- ``killed in a write``: SIGKILL after a share of the bytes of a state.
- ``files may not grow`` (RLIMIT_FSIZE) and ``a full file system`` (a tmpfs, if this user may mount one): the system's own
  errors.
- ``damaged files``: the latest state with one bit flipped, or cut off, must be refused with a warning that names it, and the
  one before taken.
"""

import argparse
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from _common import machine, write_json
from _fits import FITS, data, embedder, finish, outcome, saved_states, start

import skecg._checkpoints
import skecg._files
from skecg._checkpoints import Checkpoints

X, GROUPS = data()
NAME = next(iter(FITS))
EPOCHS, STATES = 3, 12


def fit(folder=None):
    """A fit that saves its state after every update: the hash of its outcome."""
    skecg._checkpoints.SECONDS_BETWEEN_CHECKPOINTS = -1.0
    return outcome(embedder(NAME, max_epochs=EPOCHS, checkpoint_dir=folder).fit(X, groups=GROUPS), X)


class Disk:
    """Counts the calls that change a file system, and lets one of them fail. For the life of this process."""

    def __init__(self, at=None, number=errno.ENOSPC, kill_after=None):
        self.at, self.number, self.kill_after, self.calls = at, number, kill_after, []
        for name in ("fsync", "replace", "open"):
            setattr(os, name, self._failing(name, getattr(os, name)))
        for name in ("mkdir", "unlink"):
            setattr(Path, name, self._failing(name, getattr(Path, name)))
        skecg._files.open = self._open

    def _failing(self, name, function):
        def call(*args, **kwargs):
            self.count(name)
            return function(*args, **kwargs)

        return call

    def count(self, name):
        self.calls.append(name)
        if len(self.calls) == self.at:
            raise OSError(self.number, os.strerror(self.number))

    def _open(self, path, mode):
        self.count("create")
        return File(open(path, mode, buffering=0), self)


class File:
    """A file whose writes count."""

    def __init__(self, file, disk):
        self.file, self.disk = file, disk
        self.flush, self.fileno = file.flush, file.fileno

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, data):
        disk = self.disk
        if disk.kill_after is not None and disk.calls.count("write") == 5:
            self.file.write(data[:int(disk.kill_after * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
        half = len(data) // 2
        self.file.write(data[:half])
        disk.count("write")
        self.file.write(data[half:])


def in_child(function):
    return finish(*start(function))


def attempt(folder):
    """Fit on a disk that may fail: what was raised, and the calls before."""
    try:
        fit(folder)
    except OSError as error:
        return {"errno": error.errno, "raised": type(error).__name__, "message": "could not be saved" in str(error)}
    return {"errno": None}


def failing_calls(expected):
    def count():
        disk = Disk()
        with tempfile.TemporaryDirectory() as folder:
            fit(folder)
            return [*disk.calls]

    calls = in_child(count)[1]
    calls = calls[:len(calls) - calls[::-1].index("fsync")]  # what follows is the removal of this folder
    assert calls.count("replace") == STATES
    failures, checked = [], Counter()
    for number in (errno.ENOSPC, errno.EIO):
        for at in range(1, len(calls) + 1):
            folder = Path(tempfile.mkdtemp(prefix="skecg-faults-"))

            def broken(at=at, number=number, folder=folder):
                Disk(at, number)
                return attempt(folder / "states")

            answer = in_child(broken)[1]
            states = saved_states(folder / "states")
            renamed = calls[:at - 1].count("replace")
            good = {
                "raised": answer["errno"] == number and answer["message"],
                "latest": max(states, default=0) == renamed,
                "equal": in_child(lambda f=folder: fit(f / "states"))[1] == expected,
            }
            shutil.rmtree(folder)
            checked[calls[at - 1]] += 1
            if not all(good.values()):
                failures.append({"call": calls[at - 1], "number": at, "errno": number, **good})
    return {"faults": sum(checked.values()), "by call": dict(checked), "failures": failures}


def killed_writes(expected, n_shares=50):
    failures = []
    for share in np.linspace(0, 1, n_shares):
        folder = Path(tempfile.mkdtemp(prefix="skecg-faults-"))

        def broken(share=share, folder=folder):
            Disk(kill_after=share)
            return fit(folder)

        code, _ = in_child(broken)
        states, parts = saved_states(folder), len(list(folder.glob("*.part")))
        equal = in_child(lambda f=folder: fit(f))[1] == expected
        if (code, states, parts, equal) != (-signal.SIGKILL, [5, 4], 1, True):
            failures.append({"share": share, "code": code, "states": states, "parts": parts, "equal": equal})
        shutil.rmtree(folder)
    return {"kills": n_shares, "failures": failures}


def limited_files(expected):
    folder = Path(tempfile.mkdtemp(prefix="skecg-faults-"))
    fit(folder)
    size = min(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    results = {"bytes of a state": size, "limits": 0, "failures": []}
    for share in (0.01, 0.5, 0.99):
        def broken(share=share):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), resource.RLIM_INFINITY))
            return attempt(folder)

        answer = in_child(broken)[1]
        equal = in_child(lambda: fit(folder))[1] == expected
        if answer["errno"] != errno.EFBIG or not answer["message"] or not equal:
            results["failures"].append({"share": share, "answer": answer, "equal": equal})
        results["limits"] += 1
        shutil.rmtree(folder)
    return results


def full_file_system(expected):
    root = Path(tempfile.mkdtemp(prefix="skecg-faults-"))
    results = {"sizes": [], "failures": []}
    with tempfile.TemporaryDirectory() as folder:
        fit(folder)
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    for n_states in (0.5, 1.5, 2.5):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={int(n_states * size)}", "tmpfs", str(root)]
        mounted = subprocess.run(mount, capture_output=True, text=True)
        if mounted.returncode:
            return {"not run": mounted.stderr.strip()}
        try:
            answer = in_child(lambda: attempt(root / "states"))[1]
            copy = Path(tempfile.mkdtemp(prefix="skecg-faults-"))
            if (root / "states").exists():
                shutil.copytree(root / "states", copy, dirs_exist_ok=True)
        finally:
            subprocess.run(["umount", str(root)], check=True)
        states = saved_states(copy)
        equal = in_child(lambda c=copy: fit(c))[1] == expected
        results["sizes"].append({"states that fit in": n_states, "errno": answer["errno"], "saved": states})
        if answer["errno"] != errno.ENOSPC or not answer["message"] or not equal or len(states) != int(n_states):
            results["failures"].append({"answer": answer, "states": states, "equal": equal})
        shutil.rmtree(copy)
    root.rmdir()
    return results


def damaged_files(n_flips, seed=0):
    """The latest of two states, damaged in every way; read as ``fit`` reads it."""
    folder = Path(tempfile.mkdtemp(prefix="skecg-faults-"))
    opened = []
    skecg._embedder.Checkpoints = lambda *args: opened.append(args) or Checkpoints(*args)
    fit(folder)
    latest, before = sorted(folder.glob("*.safetensors"), reverse=True)
    sound, rng = latest.read_bytes(), np.random.default_rng(seed)

    def taken():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = Checkpoints(*opened[0]).latest
        named = len(caught) == 1 and latest.name in str(caught[0].message) and before.name in str(caught[0].message)
        return state.values["n_updates"], named

    assert taken() == (STATES, False)
    accepted = 0
    for bit in rng.choice(8 * len(sound), n_flips, replace=False):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << (bit % 8)
        latest.write_bytes(changed)
        accepted += taken() != (STATES - 1, True)
    lengths = range(0, len(sound), 256)
    for length in lengths:
        latest.write_bytes(sound[:length])
        accepted += taken() != (STATES - 1, True)
    shutil.rmtree(folder)
    return {"bits flipped": n_flips, "cut off": len(lengths), "not refused, or not named": accepted}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "reliability_faults.json")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    expected = fit()
    for name, function in {
        "a call fails": lambda: failing_calls(expected),
        "killed in a write": lambda: killed_writes(expected),
        "files may not grow": lambda: limited_files(expected),
        "a full file system": lambda: full_file_system(expected),
        "damaged files": lambda: damaged_files(args.flips),
    }.items():
        if name not in results:
            code, results[name] = in_child(function)
            if code:
                raise SystemExit(f"{name} ended with code {code}.")
            results["machine"] = machine()
            write_json(args.output, results)
            print(name, results[name])


if __name__ == "__main__":
    main()
