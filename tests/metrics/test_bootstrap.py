"""Resampled patients: intervals, and metrics of many resamples against repeated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skecg.metrics import _common, bootstrap_interval, bootstrap_weights, resample_metric
from skecg.metrics._table import METRICS as EVERY

METRICS = {  # those of any classes
    name: metric for name, metric in EVERY.items() if metric.response != "values" and not name.startswith("cinc")
}
SINGLE = ("kappa", "balanced_accuracy")


def test_interval_covers_the_mean_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for i in range(200):
        sample = rng.normal(size=40)
        low, high = bootstrap_interval(lambda rows, s=sample: s[rows].mean(), np.arange(40), n_resamples=200,
                                       random_state=i)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_draws_whole_patients():
    groups = np.repeat([1, 2, 3], [1, 5, 2])

    def whole(rows):
        counts = np.bincount(rows, minlength=len(groups))
        assert all(len(set(counts[groups == g])) == 1 for g in (1, 2, 3))
        return float(len(rows))

    low, high = bootstrap_interval(whole, groups, n_resamples=200, random_state=0)
    assert 3 <= low < high <= 15


def test_interval_is_reproducible_and_leaves_nan_out():
    values = np.array([1.0, np.nan, 3.0])

    def statistic(rows):
        return values[rows].mean()

    first = bootstrap_interval(statistic, [0, 1, 2], random_state=3)
    assert first == bootstrap_interval(statistic, [0, 1, 2], random_state=3)
    assert 1.0 <= first[0] <= first[1] <= 3.0
    assert np.isnan(bootstrap_interval(lambda rows: np.nan, [0, 1, 2], n_resamples=5, random_state=0)).all()
    assert np.isnan(bootstrap_interval(lambda rows: 0.5, ["only", "only"])).all()  # no interval of width zero


def test_refuses_what_does_not_fit():
    for function in (bootstrap_weights, lambda groups, **params: bootstrap_interval(len, groups, **params)):
        with pytest.raises(ValueError, match=r"groups has shape \(0,\)"):
            function([])
        with pytest.raises(ValueError, match="n_resamples is 0"):
            function([1, 2], n_resamples=0)
    with pytest.raises(ValueError, match="confidence_level is 95"):
        bootstrap_interval(len, [1, 2], confidence_level=95)
    with pytest.raises(ValueError, match=r"weights has shape \(2,\); expected \(n_resamples, 2\)"):
        resample_metric("accuracy", [0, 1], [0, 1], [1, 1])
    with pytest.raises(ValueError, match="negative"):
        resample_metric("roc_auc", [0, 1], [0, 1], [[1, -1]])
    with pytest.raises(ValueError, match="'auc' is no metric of skecg; expected one of roc_auc, average_precision, f1"):
        resample_metric("auc", [0, 1], [0, 1], [[1, 1]])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), k=st.integers(1, 4), multilabel=st.booleans(),
       block=st.sampled_from([1, 2**20]))
def test_resamples_equal_repeated_rows(seed, n, k, multilabel, block):
    rng = np.random.default_rng(seed)
    if multilabel:
        labels, y = None, rng.random((n, k)) < 0.3
        decided = rng.random((n, k)) < 0.4
    else:
        labels = np.array(["a", "b", "c", "d"])[:k]
        y, decided = rng.choice(labels, n), rng.choice(labels, n)
    score = rng.integers(0, 5, (n, k)) / 4
    weights = rng.poisson(rng.uniform(0.1, 2), (7, n))
    rows = [np.repeat(np.arange(n), w) for w in weights]
    whole, _common._BLOCK_BYTES = _common._BLOCK_BYTES, block
    try:
        for name, metric in METRICS.items():
            if multilabel and name in SINGLE:
                continue
            predicted = score if metric.response == "scores" else decided
            got = resample_metric(name, y, predicted, weights, labels=labels)
            expected = [metric.function(y[r], predicted[r], labels=labels) for r in rows]
            assert_allclose(got, expected, rtol=0, atol=1e-12, err_msg=name)
    finally:
        _common._BLOCK_BYTES = whole


def test_weights_are_the_draws_of_the_interval():
    groups, drawn = np.array(["x", "z", "x", "y", "z", "z"]), []

    def counting(rows):
        drawn.append(np.bincount(rows, minlength=6))
        return 0.0

    bootstrap_interval(counting, groups, n_resamples=20, random_state=5)
    assert_array_equal(bootstrap_weights(groups, n_resamples=20, random_state=5), drawn)


def test_fast_interval_equals_the_loop():
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(30, size=90))
    y = rng.random((90, 3)) < [0.5, 0.2, 0.02]
    score = y + rng.normal(size=y.shape)
    metric = METRICS["roc_auc"].function
    slow = bootstrap_interval(lambda rows: metric(y[rows], score[rows]), patients, n_resamples=100, random_state=1)
    weights = bootstrap_weights(patients, n_resamples=100, random_state=1)
    assert_allclose(np.nanquantile(resample_metric("roc_auc", y, score, weights), [0.025, 0.975]), slow, atol=1e-12)
