"""scikit-learn's own checks on every public estimator: how many run, how many fail, and whether chance changes that.

    python benchmarks/reliability/checks.py [--repetitions 100] [--minutes 60] [--cache FILE]

runs what `tests/test_common.py` lists: the common checks, as many as scikit-learn runs on an estimator with the same
tags, and those that scikit-learn runs on its own estimators only. Every repetition seeds the global generators of numpy,
Python and torch anew before each check; some checks draw permutations and data from them. Stops after so many minutes of
processor time; with `--cache`, the next call goes on.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from unittest import SkipTest

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before scipy is imported: one check is skipped without it

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import estimator_checks

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import machine, write_json

TESTS = Path(__file__).parents[2] / "tests"


def load(name):
    """A module of tests, by its file."""
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def all_checks(common):
    """(name of the estimator, name of the check, callable) of everything that runs."""
    for name, original in common.ESTIMATORS.items():
        for estimator, check in common.generate(original):
            yield name, common.describe(check), lambda check=check, estimator=estimator: check(estimator)
    for check, estimators in common.EXTRA.items():
        for name, original in estimators.items():
            yield name, f"extra: {check}", lambda check=check, original=original: getattr(estimator_checks, check)(
                type(original).__name__, clone(original))


def outcome_of(run, seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that scikit-learn's checks draw from
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            run()
    except SkipTest:
        return "skipped"
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"[:300]
    return "passed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60, help="of processor time")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reliability_checks.json"))
    args = parser.parse_args()
    common = load("test_common")
    cache = json.loads(args.cache.read_text()) if args.cache and args.cache.exists() else {}
    checks = list(all_checks(common))
    for repetition in range(args.repetitions):
        if str(repetition) in cache:
            continue
        if time.process_time() > 60 * args.minutes:
            break
        found = Counter(), []
        for i, (name, check, run) in enumerate(checks):
            outcome = outcome_of(run, (1000 * repetition + i) % 2**32)
            found[0][outcome.partition(":")[0]] += 1
            if outcome != "passed":
                found[1].append([name, check, outcome])
        cache[str(repetition)] = {"outcomes": dict(found[0]), "not passed": found[1]}
        print(repetition, dict(found[0]), found[1][:3], f"{time.process_time():.0f} s", flush=True)
        if args.cache:
            args.cache.write_text(json.dumps(cache))
    per_estimator = Counter((name, check.startswith("extra")) for name, check, _ in checks)
    total = Counter()
    for part in cache.values():
        total.update(part["outcomes"])
    write_json(args.output, {
        "repetitions": len(cache), "checks in each": len(checks),
        "outcomes": {kind: total[kind] for kind in ("passed", "failed", "skipped")},
        "expected to fail": 0, "not passed": [row for part in cache.values() for row in part["not passed"]],
        "checks per estimator": {name: per_estimator[name, False] for name in common.ESTIMATORS},
        "of those that scikit-learn runs on itself": {name: per_estimator[name, True] for name in common.ESTIMATORS},
        "machine": machine(),
    })


if __name__ == "__main__":
    main()
