"""Windows to records, against naive loops."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit

from skecg.metrics import aggregate_windows

POOLS = {
    "mean": np.mean, "median": np.median, "max": np.max,
    "logit-mean": lambda p, axis: expit(np.mean(logit(p), axis=axis)),
}


@pytest.mark.parametrize("how", POOLS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40), k=st.integers(0, 3), sort=st.booleans())
def test_equals_a_naive_loop(how, seed, n, k, sort):
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.01, 0.99, (n, k) if k else n)
    score[rng.random(score.shape) < 0.2] = np.nan
    ids = rng.choice(["r10", "r2", "r7", "r1"], n)
    ids = np.sort(ids)[::-1] if sort else ids
    got = aggregate_windows(score, ids, how=how)
    assert got.record_ids.tolist() == list(dict.fromkeys(ids.tolist()))
    for i, record in enumerate(got.record_ids):
        windows = score[ids == record]
        windows = windows[[not np.isnan(window).any() for window in windows]]
        assert got.counts[i] == len(windows)
        if len(windows):
            assert_allclose(got.scores[i], POOLS[how](windows, axis=0), rtol=1e-12)
            assert_allclose(got.spread[i], np.std(windows, axis=0), atol=1e-12)
        else:
            assert np.isnan(got.scores[i]).all() and np.isnan(got.spread[i]).all()
    assert got.scores.shape == got.spread.shape == (len(got.record_ids), *score.shape[1:])


@pytest.mark.parametrize("how", ["mean", "median", "max"])
def test_regression_and_classes_never_seen(how):
    assert_array_equal(aggregate_windows([60, 80, 72], [5, 5, 4], how=how).scores, [80 if how == "max" else 70, 72])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, scores, spread, _ = aggregate_windows([[-np.inf, 1.0], [-np.inf, 3.0]], ["a", "a"], how=how)
    assert_array_equal(scores, [[-np.inf, 3.0 if how == "max" else 2.0]])
    assert_array_equal(spread, [[0.0, 1.0]])


def test_float32_is_averaged_in_float64():
    score = np.full(3_000, 0.1, np.float32)
    _, scores, _, _ = aggregate_windows(score, np.zeros(3_000))
    assert scores.dtype == float
    assert_allclose(scores, np.float32(0.1), rtol=1e-13)


def test_one_certain_window_does_not_decide_alone():
    _, scores, _, _ = aggregate_windows([0.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], ["a"] * 10, how="logit-mean")
    assert 0.5 < scores[0] < 0.9
    assert aggregate_windows([1.0, 1.0], ["a", "a"], how="logit-mean").scores[0] == pytest.approx(1.0, abs=1e-6)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="how='mode' is unknown; expected one of mean, median, max, logit-mean"):
        aggregate_windows([0.1], ["a"], how="mode")
    with pytest.raises(ValueError, match=r"takes probabilities, but y_score holds values from -1 to 2"):
        aggregate_windows([-1.0, 2.0], ["a", "a"], how="logit-mean")
    with pytest.raises(ValueError, match="inconsistent numbers"):
        aggregate_windows([0.1], ["a", "b"])
    with pytest.raises(ValueError, match=r"y_score has shape \(1, 1, 1\)"):
        aggregate_windows([[[0.1]]], ["a"])
    with pytest.raises(ValueError, match=r"record_ids has shape \(1, 1\)"):
        aggregate_windows([0.1], [["a"]])
