"""What is embedded together does not change an embedding, with any encoder: benchmarks/reliability/batches.py in small."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "reliability"
if not SCRIPTS.exists():
    pytest.skip("the benchmarks belong to the source tree, not to an installed package", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))

import batches  # noqa: E402


@pytest.fixture(scope="module")
def X():
    return batches.signals(33, 200, n_leads=3)  # more than a block, and a rest


@pytest.mark.parametrize("name", batches.CASES)
def test_results_do_not_depend_on_the_batch(name, X, monkeypatch):
    encoder, parameters, head = batches.CASES[name]
    if parameters:
        monkeypatch.setitem(batches.CASES, name, (encoder, {"crop_size": 90}, head))
    for what, function in batches.functions(name, X).items():
        assert batches.largest_difference(function, X, n_rounds=2) == 0, what


def test_a_difference_would_be_seen(X):
    assert batches.largest_difference(lambda X: X[:, :, 0] - len(X) * 1e-9, X[:, :, 1:], n_rounds=3) > 0
