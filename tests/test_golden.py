"""Models that were saved by earlier versions load, and give what they gave."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator

import skecg
from skecg import encoders, heads, objectives, preprocessing

FOLDER = Path(__file__).parent / "golden"
MODELS = sorted(file.parent for file in FOLDER.glob("*/*/config.json"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.filterwarnings("ignore:After masking", "ignore:No lead of X")
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_golden_model(folder):
    model = skecg.load(folder)
    with np.load(folder.parent / "expected.npz") as file:
        X = file[str(file[f"{folder.name}/input"])]
        expected = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(folder.name + "/")}
    del expected["input"]
    assert expected
    for method, values in expected.items():
        result = getattr(model, method)(X)
        if values.dtype.kind == "f":  # another processor, or another version of torch, differs in the last bits
            assert_allclose(result, values, rtol=1e-4, atol=1e-5)
        else:
            assert_array_equal(result, values)


def test_every_public_estimator_is_golden():
    """Of each version; a new estimator joins with the next release."""
    texts = [file.read_text() for file in FOLDER.glob("*/*/config.json")]
    found = set()
    for text in texts:
        found |= {name.rpartition(".")[2] for name in _classes(json.loads(text)["estimator"])}
    public = [*(getattr(skecg, name) for name in skecg._PUBLIC)]
    for room in (encoders, objectives, heads, preprocessing):
        public += vars(room).values()
    names = {
        cls.__name__ for cls in public
        if isinstance(cls, type) and issubclass(cls, BaseEstimator) and cls.__module__.startswith("skecg.")
    }
    assert names - {"Encoder", "Objective", "Head"} - found == set()


def _classes(tree):
    if isinstance(tree, dict):
        if isinstance(tree.get("class"), str):
            yield tree["class"]
        tree = list(tree.values())
    for item in tree if isinstance(tree, list) else ():
        yield from _classes(item)


def test_golden_files_are_small():
    n_bytes = {
        version.name: sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
        for version in FOLDER.iterdir() if version.is_dir()
    }
    assert n_bytes
    assert all(size < 2**20 for size in n_bytes.values()), n_bytes
