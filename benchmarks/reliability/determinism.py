"""Where the same seed gives the same bits: repeats, threads, workers, concurrent use.

    python benchmarks/reliability/determinism.py [--output FILE]

About three minutes. Parts that are in the output already are kept, so that a call goes on where an earlier one stopped.

An ``ECGClassifier`` that pretrains, cross-validated by patient (``cross_val_predict``), and the fits of ``_fits.py``.
Each entry is the number of results, how many differ from the first of their kind in any bit, and the largest difference.
With ``deterministic=True`` the promise is that none differs; by default, that none differs at the same number of threads
(workers of loky have one thread each where there are as many workers as cores).
"""

import argparse
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# before torch is imported: so many threads at most, in workers too
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # changes no bits, and spares a machine that has other work
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from _common import machine, write_json
from _fits import FITS, data, embedder
from sklearn.model_selection import GroupKFold, cross_val_predict

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer

X, GROUPS = data()


def compare(results):
    """How many of the results differ from the first."""
    first = results[0]
    return {
        "results": len(results), "differ": sum(not np.array_equal(first, other, equal_nan=True) for other in results),
        "largest difference": float(max(np.nanmax(np.abs(first - other)) for other in results)),
    }


def fits(deterministic, thread_counts, repeats):
    found = {}
    for name in FITS:
        results = []
        for n_threads in thread_counts:
            torch.set_num_threads(n_threads)
            for _ in range(repeats):
                results.append(embedder(name, deterministic=deterministic).fit(X, groups=GROUPS).transform(X))
        found[name] = compare(results)
    return found


def workers(deterministic, n_threads):
    torch.set_num_threads(n_threads)
    signals, y, groups = make_ecg(
        48, classes=["normal", "left bundle branch block"], duration=4.0, n_patients=24, random_state=0)
    classifier = ECGClassifier(
        ECGSelfSupervisedEmbedder(PatchTransformer(25, 32, 2), max_epochs=2, batch_size=16), max_epochs=2, batch_size=16,
        deterministic=deterministic, random_state=0)
    return compare([
        cross_val_predict(classifier, signals, y, groups=groups, cv=GroupKFold(4), method="predict_proba", n_jobs=n_jobs)
        for n_jobs in (1, 2, 4)
    ])


def concurrent(n_threads=8, n_calls=125):
    torch.set_num_threads(2)
    found = {}
    for name in FITS:
        fitted = embedder(name).fit(X, groups=GROUPS)
        expected, start = fitted.transform(X), threading.Barrier(n_threads)

        def work(_, fitted=fitted, expected=expected, start=start):
            start.wait()
            return sum(not np.array_equal(fitted.transform(X), expected) for _ in range(n_calls))

        with ThreadPoolExecutor(n_threads) as pool:
            found[name] = {"calls": n_threads * n_calls, "differ": sum(pool.map(work, range(n_threads)))}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parents[1] / "results" / "reliability_determinism.json")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name, function in {
        "deterministic=True: 1 and 2 threads, 3 repeats each": lambda: fits(True, (1, 2), 3),
        "default: 1 thread, 6 repeats": lambda: fits(False, (1,), 6),
        "default: 2 threads, 3 repeats": lambda: fits(False, (2,), 3),
        "default: 1 and 2 threads (not promised)": lambda: fits(False, (1, 2), 1),
        "deterministic=True: n_jobs 1, 2, 4 in a process of 2 threads": lambda: workers(True, 2),
        "default: n_jobs 1, 2, 4 in a process of 1 thread": lambda: workers(False, 1),
        "default: n_jobs 1, 2, 4 in a process of 2 threads (not promised)": lambda: workers(False, 2),
        "8 threads transform with one object, 2 threads of torch": concurrent,
    }.items():
        if name not in results:
            results[name] = function()
            results["machine"] = machine()
            write_json(args.output, results)
            print(name, results[name])


if __name__ == "__main__":
    main()
