"""The campaigns of benchmarks/reliability on model files, in small: forgery and damage, formats in fresh processes."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import skecg
from skecg._array_file import Allowance, ArrayFile, Refused, json_cost

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "reliability"
needs_scripts = pytest.mark.skipif(not SCRIPTS.exists(), reason="the benchmarks belong to the source tree")


def results_of(script, tmp_path, *options):
    env = {**os.environ, "PYTHONPATH": str(Path(skecg.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(SCRIPTS / script), "--output", str(tmp_path / "results.json"), *options], env=env,
        capture_output=True, text=True, timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads((tmp_path / "results.json").read_text()), result.stdout


@needs_scripts
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_damaged_and_malicious_models_are_refused(tmp_path):
    results, text = results_of("model_files.py", tmp_path, "--cases", "120", "--free", "30", "--seed", "7")
    assert "look at" not in text
    part = results["damaged and malicious"]
    assert part["cases"] == 120
    assert set(part["outcomes"]) <= {"ValueError", "FileNotFoundError"}
    assert len(part["kinds"]) == 3
    for part in (results["damaged and malicious"], results["values exchanged"]):
        assert part["executed, imported, written or opened elsewhere"] == 0
        assert part["above twice the files plus 16 MiB"] == 0
    ratios = results["large"]["growth less 16 MiB, over the size"]
    assert all(ratio <= 2 for name, ratio in ratios.items() if name != "size, MiB")


@needs_scripts
def test_four_formats_in_fresh_processes(tmp_path):
    pytest.importorskip("skops")
    names = ["embedder-patches-joint", "embedder-frames", "embedder-resnet", "embedder-tokens", "classifier-tokens-bilstm",
             "classifier-resnet-arcface", "regressor-resnet", "head-classifier-bilstm", "record-classifier", "thresholds",
             "whole-pipeline", "quantizer"]
    results, _ = results_of("persistence.py", tmp_path, "--models", *names)
    assert results["not equal"] == []
    assert results["equal to the last bit"] == dict.fromkeys(("pickle", "joblib", "skops", "skecg.save"), "24 of 24")
    assert all(excess <= 1 for excess in results["largest size minus 1.05 of the arrays, MiB"].values())
    assert all(ratio <= 1.05 for ratio in results["size over the arrays, PatchTransformer of default size"].values())
    assert results["untrusted types of skops"]["of others"] == []
    assert results["skecg.save: all bytes are JSON or numbers, none read as a pickle"]


def test_arrays_are_read_as_safetensors_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{dtype} {shape}": rng.integers(0, 2, size=shape).astype(dtype)
        for dtype in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
        for shape in ((), (0, 3), (3, 2), (7,))
    }
    save_file(arrays, tmp_path / "arrays")
    with open(tmp_path / "arrays", "rb") as stream, safe_open(tmp_path / "arrays", framework="np") as other:
        file = ArrayFile(stream, Allowance(2**20))
        assert len(file) == len(arrays) == len(other.keys())
        for name in arrays:
            ours, theirs = file.get_tensor(name), other.get_tensor(name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs, strict=True)
            assert ours.flags.writeable
            assert not ours.size or ours.ctypes.data % 64 == 0
        with pytest.raises(Refused, match="far more memory"):
            ArrayFile(stream, Allowance(100))


@pytest.mark.parametrize("item", [[], {}, {"a": 0}, 0.5, "x", "abcdefgh", 1000, None, [[], []]], ids=str)
def test_estimated_memory_is_not_less_than_the_real_one(item):
    tree = [item] * 5000
    text = json.dumps(tree, separators=(",", ":")).encode()
    tracemalloc.start()
    parsed = json.loads(text.decode())
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert parsed == tree
    assert used <= json_cost(text) + len(text) + 1000
