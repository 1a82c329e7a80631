"""pickle, joblib, skops and `skecg.save`: what comes back in a fresh process is the same to the last bit.

    python benchmarks/reliability/persistence.py        (needs skops: the extra `test`)

Every model of `_zoo.py` is written in four formats and loaded by new processes, in another directory, with one and with two
threads; what it says there is compared bit by bit. Further figures: the size of the files over the weights, at the sizes of
`_zoo.py` and for one network of the default size; the types that skops asks to trust; whether each byte that `skecg.save`
wrote is JSON or number.
"""

import argparse
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import joblib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _zoo
from _common import machine, write_json

import skecg
from skecg._array_file import Allowance, ArrayFile

LOAD = """
import json, pickle, sys, warnings
from pathlib import Path
import joblib, numpy as np, skops.io, torch, skecg
warnings.simplefilter("ignore")
folder, names = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
read = {
    "pickle": lambda name: pickle.loads((folder / f"{name}.pickle").read_bytes()),
    "joblib": lambda name: joblib.load(folder / f"{name}.joblib"),
    "skops": lambda name: skops.io.load(
        folder / f"{name}.skops", trusted=skops.io.get_untrusted_types(file=folder / f"{name}.skops")),
    "skecg.save": lambda name: skecg.load(folder / name),
}
for name in names:
    file = np.load(folder / f"{name}.npz")
    for kind, load in read.items():
        model, equal, problem = None, True, ""
        try:
            model = load(name)
            for method in file.files:
                if method != "X":
                    found = np.asarray(getattr(model, method)(file["X"]))
                    equal &= found.dtype == file[method].dtype and found.tobytes() == file[method].tobytes()
        except Exception as error:
            equal, problem = False, f"{type(error).__name__}: {error}"[:200]
        print(json.dumps([name, kind, bool(equal), problem]))
"""


def write(model, X, folder, name):
    """Four formats and what to expect; their sizes in bytes, and the types that skops does not know."""
    import skops.io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(folder / f"{name}.npz", X=X, **_zoo.outputs(model, X))
    data = {"pickle": pickle.dumps(model), "skops": skops.io.dumps(model)}
    for kind, content in data.items():
        (folder / f"{name}.{kind}").write_bytes(content)
    joblib.dump(model, folder / f"{name}.joblib")
    skecg.save(model, folder / name)
    sizes = {kind: len(content) for kind, content in data.items()}
    sizes["joblib"] = (folder / f"{name}.joblib").stat().st_size
    sizes["skecg.save"] = sum(file.stat().st_size for file in (folder / name).iterdir())
    return sizes, skops.io.get_untrusted_types(data=data["skops"])


def is_pickle(content):
    """Whether the bytes read as a pickle, from its first opcode to its last."""
    try:
        return bool(list(pickletools.genops(io.BytesIO(content))))
    except (ValueError, UnicodeDecodeError):
        return False


def only_json_and_numbers(folder):
    """Whether each byte of a saved model is JSON or belongs to a numeric array."""
    json.loads((folder / "config.json").read_bytes())
    with open(folder / "arrays.safetensors", "rb") as stream:
        ArrayFile(stream, Allowance(2**30))  # raises unless the arrays fill the file
    return not any(is_pickle(file.read_bytes()) for file in folder.iterdir())


def compare(folder, names, n_threads):
    """Rows (model, format, equal, problem) of a fresh process in a directory of its own."""
    with tempfile.TemporaryDirectory() as elsewhere:
        env = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "PYTHONPATH": str(Path(skecg.__file__).parents[1])}
        result = subprocess.run(
            [sys.executable, "-c", LOAD, str(folder), json.dumps(names), str(n_threads)], cwd=elsewhere, env=env,
            capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return [json.loads(line) for line in result.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="*", default=list(_zoo.MODELS))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reliability_persistence.json"))
    args = parser.parse_args()
    rows, sizes, types, clean = [], {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in args.models:
            model, X = _zoo.fitted(name)
            sizes[name], types[name] = write(model, X, folder, name)
            sizes[name]["weights"] = _zoo.weight_bytes(model)
            clean[name] = only_json_and_numbers(folder / name)
        X = _zoo.signals()[0]
        large, _ = write(_zoo.embedder(skecg.encoders.PatchTransformer()).fit(X), X, folder, "default-size")
        large["weights"] = _zoo.weight_bytes(skecg.load(folder / "default-size"))
        for n_threads in (1, 2):
            rows += [(n_threads, *row) for row in compare(folder, args.models, n_threads)]
    formats = ("pickle", "joblib", "skops", "skecg.save")
    foreign = sorted({name for found in types.values() for name in found if not name.startswith("skecg.")})
    write_json(args.output, {
        "models": len(args.models), "threads of the new process": [1, 2],
        "equal to the last bit": {
            kind: f"{sum(row[3] for row in rows if row[2] == kind)} of {sum(row[2] == kind for row in rows)}"
            for kind in formats},
        "not equal": [row for row in rows if not row[3]],
        "largest size minus 1.05 of the arrays, MiB": {
            kind: round(max(s[kind] - 1.05 * s["weights"] for s in sizes.values()) / 2**20, 3) for kind in formats},
        "size over the arrays, PatchTransformer of default size": {
            kind: round(large[kind] / large["weights"], 4) for kind in formats},
        "untrusted types of skops": {"of skecg": max(map(len, types.values())), "of others": foreign},
        "skecg.save: all bytes are JSON or numbers, none read as a pickle": all(clean.values()),
        "sizes": sizes, "types": types, "machine": machine(),
    })


if __name__ == "__main__":
    main()
