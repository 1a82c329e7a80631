"""Golden models: files of a release that later ones must load, with what they gave when they were written.

    python benchmarks/reliability/golden.py

writes `tests/golden/VERSION` (once, with the release, on a CPU) for every small model of `_zoo.py`: a directory by
`skecg.save`, and `expected.npz` with inputs and outputs. `tests/test_golden.py` loads the models of all versions and
compares.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import _zoo

import skecg

ROOT = Path(__file__).parents[2] / "tests" / "golden"


def write(folder):
    """All models and one file of inputs and outputs; the number of bytes."""
    folder.mkdir(parents=True)
    expected, inputs = {}, {}
    for name in _zoo.MODELS:
        model, X = _zoo.fitted(name)
        X = X[:4].astype(np.float32)
        key = next((key for key, known in inputs.items() if np.array_equal(known, X, equal_nan=True)), None)
        if key is None:
            key = f"X{len(inputs)}"
            inputs[key] = X
        skecg.save(model, folder / name)
        expected[f"{name}/input"] = np.array(key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected |= {f"{name}/{method}": value for method, value in _zoo.outputs(model, X).items()}
    np.savez_compressed(folder / "expected.npz", **inputs, **expected)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main():
    folder = ROOT / skecg.__version__
    if folder.exists():
        sys.exit(f"{folder} exists: the files of a version are written once. Raise the version first.")
    n_bytes = write(folder)
    print(f"{folder}: {len(_zoo.MODELS)} models, {n_bytes / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
