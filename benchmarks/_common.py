"""What the benchmark scripts share: budgets of labels, the machine's name, results as JSON."""

import json
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np


def label_budget(y, groups, fraction, rng):
    """Rows of the patients whose labels are used, stratified: a share of the patients of every class, one at least.

    A patient counts for the rarest of its classes. Budgets of one ``rng`` seed are nested: the order of the patients
    does not depend on the fraction.
    """
    y, groups = np.asarray(y), np.asarray(groups)
    indicator = y.astype(bool) if y.ndim == 2 else y[:, None] == np.unique(y)
    patients, codes = np.unique(groups, return_inverse=True)
    has = np.zeros((len(patients), indicator.shape[1]), bool)
    np.logical_or.at(has, codes, indicator)
    frequency = has.sum(axis=0)
    stratum = np.where(has.any(axis=1), np.where(has, frequency, len(patients) + 1).argmin(axis=1), -1)
    chosen = np.zeros(len(patients), bool)
    for value in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == value))
        chosen[members[: max(1, round(fraction * len(members)))]] = True
    return np.flatnonzero(chosen[codes])


def epochs_for(n_updates, n_samples, batch_size):
    """Passes over the samples that make about so many updates."""
    return max(1, round(n_updates / -(-n_samples // batch_size)))


def machine():
    """Processor, cores and library versions, for the record."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = f"{len(names)} x {names[0]}" if names else processor
    packages = ("skecg", "torch", "scikit-learn", "numpy", "scipy", "skorch", "wfdb")
    return {
        "processor": processor, "python": platform.python_version(),
        **{name: version(name) for name in packages}, "date": date.today().isoformat(),
    }


def write_json(path, results):
    """Results in a stable, readable layout."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(results, indent=1) + "\n")
    print(f"Results: {path}")
