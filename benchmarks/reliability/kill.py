"""Fits that are killed at random moments, and taken up again: are the results those of fits without a break?

    python benchmarks/reliability/kill.py [--kills 200] [--terminations 50] [--output FILE]

About five minutes on one core. What is in the output already is kept, so that a call goes on where an earlier one stopped.

Three small fits of 32 updates in eight epochs take turns, in which dropout, masks, negatives, random crops, the order of
batches, torch's global generator, a cosine schedule, batch normalisation and a missing lead all matter. A child process
fits with ``checkpoint_dir`` and gets SIGKILL at a moment drawn uniformly over the time that such a fit takes; a second child
fits again with the same folder. States are saved after every epoch and, in half of the trials, within epochs after 10 ms too
(300 s in the library, which such a short fit would never reach). A trial counts as equal if the hash of all weights, of the
history (without times) and of the embeddings is that of a fit without a break and without checkpoints. Fits that ended
before their moment came are counted apart.

The same with SIGTERM: the process has to exit with code 143 after saving the update that was running.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from _common import machine, write_json
from _fits import FITS, N_UPDATES, data, embedder, finish, outcome, saved_states, start

import skecg._checkpoints

X, GROUPS = data()


def fit(name, folder=None, seconds=300.0):
    """A fit to the end: its outcome and the seconds it took."""
    skecg._checkpoints.SECONDS_BETWEEN_CHECKPOINTS = seconds
    started = time.perf_counter()
    fitted = embedder(name, checkpoint_dir=folder).fit(X, groups=GROUPS)
    return {"outcome": outcome(fitted, X), "seconds": time.perf_counter() - started}


def trial(number, seed, kind, duration, expected):
    """One child that is stopped by a signal, and one that takes up its fit."""
    rng = np.random.default_rng([seed, kind, number])
    name = list(FITS)[number % len(FITS)]
    within = bool(number // len(FITS) % 2)
    moment = rng.uniform(0, duration[name][within])
    folder = Path(tempfile.mkdtemp(prefix="skecg-kill-"))
    child, file = start(lambda: fit(name, folder, 0.01 if within else 300.0))
    file.readline()
    time.sleep(moment)
    sent = time.perf_counter()
    os.kill(child, kind)
    code, answer = finish(child, file)
    seconds = time.perf_counter() - sent
    states, parts = saved_states(folder), len(list(folder.glob("*.part")))
    resumed = finish(*start(lambda: fit(name, folder)))[1]
    shutil.rmtree(folder)
    return {
        "fit": name, "within epochs": within, "moment": round(moment, 4), "exit code": code, "states": states,
        "half-written files": parts, "seconds to exit": round(seconds, 4),
        "equal": resumed is not None and resumed["outcome"] == expected[name]
        and (answer is None or answer["outcome"] == expected[name]),
    }


def summary(trials, wanted):
    """Counts over the trials in which the signal came in time."""
    hit = [t for t in trials if t["exit code"] in wanted]
    return {
        "stopped by the signal": len(hit),
        "of these equal after resuming": sum(t["equal"] for t in hit),
        "with a state on disk": sum(bool(t["states"]) for t in hit),
        "with a state within an epoch as the latest": sum(bool(t["states"]) and t["states"][0] % 4 > 0 for t in hit),
        "with a half-written file": sum(t["half-written files"] > 0 for t in hit),
        "ended before the signal": sum(t["exit code"] == 0 for t in trials),
        "of these equal": sum(t["equal"] for t in trials if t["exit code"] == 0),
        "other exit codes": sum(t["exit code"] not in (0, *wanted) for t in trials),
        "by fit": {name: f"{sum(t['equal'] for t in hit if t['fit'] == name)} of {sum(t['fit'] == name for t in hit)}"
                   for name in FITS},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--terminations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parents[1] / "results" / "reliability_kill.json")
    args = parser.parse_args()

    trials = {"SIGKILL": [], "SIGTERM": []}
    if args.output.exists():
        trials |= json.loads(args.output.read_text())["trials"]
    # in this process, so that what torch loads at the first use is there already in every child
    expected = {name: fit(name)["outcome"] for name in FITS}
    duration = {name: [] for name in FITS}
    for name in FITS:
        for within in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                runs = [finish(*start(lambda n=name, w=within, f=Path(folder, str(i)): fit(n, f, 0.01 if w else 300.0)))[1]
                        for i in range(3)]
            assert {run["outcome"] for run in runs} == {expected[name]}, f"saving states changed {name}"
            duration[name].append(float(np.median([run["seconds"] for run in runs])))

    def write():
        write_json(args.output, {
            "updates": N_UPDATES, "seed": args.seed,
            "SIGKILL": summary(trials["SIGKILL"], (-signal.SIGKILL,)),
            "SIGTERM": {
                **summary(trials["SIGTERM"], (143,)),
                "before training began (ended by the signal itself)":
                    Counter(t["exit code"] for t in trials["SIGTERM"])[-signal.SIGTERM],
                "longest seconds to exit": max((t["seconds to exit"] for t in trials["SIGTERM"]), default=None),
            },
            "machine": machine(), "trials": trials,
        })

    for kind, code, wanted in (("SIGKILL", -signal.SIGKILL, args.kills), ("SIGTERM", 143, args.terminations)):
        done = trials[kind]
        while sum(t["exit code"] == code for t in done) < wanted:
            done.append(trial(len(done), args.seed, getattr(signal, kind), duration, expected))
            if len(done) % 10 == 0:
                write()
    write()
    for kind in ("SIGKILL", "SIGTERM"):
        print(kind, json.dumps(summary(trials[kind], (-signal.SIGKILL, 143)), indent=1))


if __name__ == "__main__":
    main()
