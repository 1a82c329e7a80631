"""What fits and transforms leave alone, and where they give the same bits: threads, processes, repeats."""

import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_predict
from skorch.callbacks import Callback

import skecg
from skecg import ECGClassifier, ECGRegressor, ECGSelfSupervisedEmbedder, HeadClassifier, HeadRegressor
from skecg._training import module_state
from skecg.encoders import PatchTransformer

RNG = np.random.default_rng(0)
X = np.cumsum(RNG.normal(size=(40, 2, 60)), axis=2).astype(np.float32)
Y = np.arange(40) % 2
GROUPS = np.arange(40) // 4
COMMON = {"max_epochs": 2, "batch_size": 16, "random_state": 0}


def embedder(**params):
    return ECGSelfSupervisedEmbedder(PatchTransformer(10, 16, 1, n_heads=2, dropout=0.1), **{**COMMON, **params})


ESTIMATORS = {
    "embedder": embedder,
    "classifier": lambda **params: ECGClassifier(embedder(max_epochs=1), **{**COMMON, **params}),
    "regressor": lambda **params: ECGRegressor(embedder(max_epochs=1), **{**COMMON, **params}),
    "head classifier": lambda **params: HeadClassifier(**{**COMMON, **params}),
    "head regressor": lambda **params: HeadRegressor(**{**COMMON, **params}),
}


def signals(name, X=X):
    return X[:, 0] if name.startswith("head") else X


def fit(name, estimator, X=X):
    return estimator.fit(signals(name, X), X[:, 0, 0].astype(float) if "regressor" in name else Y)


def results(name, fitted):
    if name == "embedder":
        return fitted.transform(X)
    return (fitted.predict if "regressor" in name else fitted.predict_proba)(signals(name))


# --- the process -----------------------------------------------------------------------------------------------


def process_state():
    """Everything that a library could change behind its user's back."""
    return {
        "torch generator": torch.get_rng_state().tolist(), "numpy generator": repr(np.random.get_state()),  # noqa: NPY002
        "python generator": random.getstate(), "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(), "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(), "inference mode": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matrix products": torch.get_float32_matmul_precision(),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warning filters": list(warnings.filters), "numpy errors": np.geterr(), "print options": np.get_printoptions(),
        # torch notes a folder of its own there at the first step of an optimizer
        "environment": {key: value for key, value in os.environ.items() if key != "TORCHINDUCTOR_CACHE_DIR"},
        "folder": os.getcwd(), "log level": logging.root.level,
        "log handlers": list(logging.root.handlers), "exception hook": sys.excepthook,
        "recursion limit": sys.getrecursionlimit(),
    }


class Fail(Callback):
    def __init__(self, error):
        self.error = error

    def on_batch_end(self, net, **kwargs):
        raise self.error


@pytest.fixture
def unusual():
    """A process whose settings are not the usual ones, so that resetting to these would show."""
    before, errors, n_threads = torch.get_rng_state(), np.geterr(), torch.get_num_threads()
    torch.manual_seed(12345)
    torch.set_num_threads(2)
    np.seterr(divide="ignore")
    yield
    np.seterr(**errors)
    torch.set_num_threads(n_threads)
    torch.set_rng_state(before)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_fit_and_transform_leave_the_process_as_it_was(unusual, tmp_path, name, deterministic):
    params = {"deterministic": deterministic}
    if name == "embedder":
        params["checkpoint_dir"] = tmp_path
    before = process_state()
    fitted = fit(name, ESTIMATORS[name](**params))
    assert process_state() == before
    results(name, fitted)
    assert process_state() == before


@pytest.mark.parametrize("failure", [RuntimeError("stop here"), KeyboardInterrupt(), SystemExit(), "divergence", "input"],
                         ids=lambda failure: failure if isinstance(failure, str) else type(failure).__name__)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_failed_fit_leaves_the_process_as_it_was(unusual, tmp_path, name, failure):
    params = {"checkpoint_dir": tmp_path} if name == "embedder" else {}
    bad, error = X, type(failure)
    if failure == "input":
        bad, error = np.where(X == X.max(), np.nan, X), ValueError
    elif failure == "divergence":
        bad, error = np.where(np.arange(40)[:, None, None] == 7, np.float32(3e38), X), FloatingPointError
        params["precision"] = "float32"
    else:
        params["callbacks"] = [Fail(failure)]
    estimator = ESTIMATORS[name](deterministic=True, **params)
    before = process_state()
    with pytest.raises(error):
        fit(name, estimator, bad)
    assert process_state() == before


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_failed_transform_leaves_the_process_as_it_was(unusual, name):
    fitted = fit(name, ESTIMATORS[name]())
    before = process_state()
    with pytest.raises(ValueError, match="NaN"):
        (fitted.transform if name == "embedder" else fitted.predict)(signals(name, np.where(X == X.max(), np.nan, X)))
    assert process_state() == before


# --- the same bits ---------------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_repeats_and_threads_give_the_same_bits(threads, name):
    expected = {}
    for deterministic in (True, False):
        for n_threads in (1, 2, 1, 2):
            threads(n_threads)
            torch.manual_seed(random.randrange(1000))  # no matter
            found = results(name, fit(name, ESTIMATORS[name](deterministic=deterministic)))
            # without deterministic=True for each number of threads
            assert_array_equal(found, expected.setdefault(deterministic or n_threads, found))


def test_workers_give_the_same_bits(threads):
    """Workers have one thread each: the default gives their bits where the process has one thread too."""
    found = {}
    for n_jobs in (1, 2, 4):
        for deterministic, n_threads in [(True, 2), (False, 1)]:
            threads(n_threads)
            classifier = ECGClassifier(embedder(), early_stopping=True, deterministic=deterministic, **COMMON)
            probabilities = cross_val_predict(
                classifier, X, Y, groups=GROUPS, cv=GroupKFold(4), method="predict_proba", n_jobs=n_jobs)
            assert_array_equal(probabilities, found.setdefault(deterministic, probabilities))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_eight_threads_with_one_object_agree(name):
    fitted = fit(name, ESTIMATORS[name]())
    expected = results(name, fitted)
    start = threading.Barrier(8)

    def work(_):
        start.wait(60)
        return [results(name, fitted) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            for one in found:
                assert_array_equal(one, expected)


def test_fits_in_threads_do_not_disturb_each_other():
    def work(seed):
        return module_state(embedder(random_state=seed, deterministic=True).fit(X).network_)

    expected = [work(seed) for seed in range(4)]
    before = process_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert process_state() == before
    for one, other in zip(found, expected, strict=True):
        for key, value in other.items():
            assert_array_equal(one[key], value)


def test_threads_get_their_own_number_of_threads_back(threads):
    """torch counts threads for each thread of Python apart; a fit that ends later must not decide for others."""
    threads(2)
    inside, leave = threading.Event(), threading.Event()

    class Wait(Callback):
        def on_train_begin(self, net, **kwargs):
            inside.set()
            assert leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(embedder(callbacks=[Wait()], deterministic=True).fit, X)
        assert inside.wait(60)
        embedder(deterministic=True).fit(X)
        assert torch.get_num_threads() == 2
        leave.set()
        other.result()
    assert torch.get_num_threads() == 2


# --- processes -------------------------------------------------------------------------------------------------

PROCESSES = """
import multiprocessing, os, sys, threading, warnings
import numpy as np, torch
sys.path.insert(0, {tests!r})
import test_manners as t

LIMIT = 200

def work(path):
    large = torch.ones(3000, 300)
    (large @ large.T).exp().sum()  # would be shared among threads
    model = t.embedder(deterministic=True)
    np.save(path, np.stack([fitted.transform(t.X), model.fit(t.X).transform(t.X)]))

if __name__ != "__mp_main__":
    torch.set_num_threads(2)
    filters = list(warnings.filters)
    fitted = t.embedder(deterministic=True).fit(t.X)  # the first one of a process: torch loads more of itself
    assert warnings.filters == filters
    expected = fitted.transform(t.X)
    t.embedder().fit(t.X)  # with two threads
    large = torch.ones(3000, 300)
    (large @ large.T).exp().sum()
    if os.path.exists("/proc/self/task"):
        assert len(os.listdir("/proc/self/task")) > 1, "torch has started no threads: nothing is tested"
else:
    fitted = t.embedder(deterministic=True).fit(t.X)

def finish(process, what):
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        sys.exit(f"{{what}} hangs")
    if process.exitcode:
        sys.exit(f"{{what}} ended with {{process.exitcode}}")
    print(what, flush=True)

def locked():
    from skecg._torch import build_seeded
    assert torch.get_num_threads() == 1
    build_seeded(lambda: torch.rand(3), 0)
    t.embedder().fit(t.X)

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        path = os.path.join({folder!r}, method + ".npy")
        process = multiprocessing.get_context(method).Process(target=work, args=(path,))
        process.start()
        finish(process, method)
        for found in np.load(path):
            np.testing.assert_array_equal(found, expected)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map_async(fitted.transform, [t.X, t.X]).get(LIMIT):
            np.testing.assert_array_equal(found, expected)
    print("pool", flush=True)

    # a child that is forked while another thread initialises a network and has the lock
    from skecg._torch import build_seeded
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=build_seeded, args=(lambda: [inside.set(), leave.wait(LIMIT)], 0))
    thread.start()
    inside.wait(LIMIT)
    process = multiprocessing.get_context("fork").Process(target=locked)
    process.start()
    leave.set()
    finish(process, "locked")
    assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_processes_work_and_never_hang(tmp_path):
    """Without care, a child forked after torch has used its threads waits for them forever."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PROCESSES).format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=900,
        env={**os.environ, "PYTHONPATH": str(Path(skecg.__file__).parents[1]), "OMP_NUM_THREADS": "2"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == ["fork", "spawn", "forkserver", "pool", "locked"]


def test_clones_in_loky_workers_work(threads):
    from joblib import Parallel, delayed

    threads(2)
    model = embedder(deterministic=True).fit(X)
    expected = model.transform(X)
    calls = [delayed(model.transform)(X), delayed(clone(model).fit_transform)(X)]
    for found in Parallel(n_jobs=2, timeout=300)(calls):
        assert_array_equal(found, expected)
