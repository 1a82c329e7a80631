"""Metrics of decisions against scikit-learn and naive loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, f1_score, recall_score

from skecg.metrics import accuracy, balanced_accuracy, cohen_kappa, macro_f1, macro_recall

EVERY = (accuracy, balanced_accuracy, cohen_kappa, macro_f1, macro_recall)
cases = given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50), k=st.integers(1, 5))


def naive(metric, true, predicted):
    """The mean over the classes that have positives, from the definition."""
    values = []
    for t, p in zip(true.T, predicted.T, strict=True):
        if t.any():
            hits, false, missed = (t & p).sum(), (~t & p).sum(), (t & ~p).sum()
            values.append(2 * hits / (2 * hits + false + missed) if metric is macro_f1 else hits / (hits + missed))
    return np.mean(values) if values else np.nan


@settings(max_examples=60, deadline=None)
@cases
def test_one_label(seed, n, k):
    rng = np.random.default_rng(seed)
    names = np.array(["N", "S", "V", "F", "Q"])[:k]
    y, p = rng.choice(names, n), rng.choice(names, n)
    true, predicted = y[:, None] == names, p[:, None] == names
    for metric in (macro_f1, macro_recall):
        assert metric(y, p) == pytest.approx(naive(metric, true, predicted), abs=1e-12)
        assert metric(y, p, labels=names) == pytest.approx(metric(y, p), abs=1e-12)
    present = np.unique(y)
    assert macro_f1(y, p) == pytest.approx(f1_score(y, p, labels=present, average="macro"), abs=1e-12)
    assert balanced_accuracy(y, p) == macro_recall(y, p)
    assert macro_recall(y, p) == pytest.approx(recall_score(y, p, labels=present, average="macro"), abs=1e-12)
    assert accuracy(y, p) == pytest.approx(accuracy_score(y, p), abs=1e-12)
    if len(np.unique([y, p])) == 1:
        assert np.isnan(cohen_kappa(y, p))
    else:
        assert cohen_kappa(y, p) == pytest.approx(cohen_kappa_score(y, p), abs=1e-12)
    if len(np.unique(p)) > 1 and set(p) <= set(y):
        assert balanced_accuracy(y, p) == pytest.approx(balanced_accuracy_score(y, p), abs=1e-12)


@settings(max_examples=40, deadline=None)
@cases
def test_multi_label(seed, n, k):
    rng = np.random.default_rng(seed)
    true, predicted = rng.random((2, n, k)) < rng.uniform(0.1, 0.9)
    for metric in (macro_f1, macro_recall):
        assert_allclose(metric(true, predicted), naive(metric, true, predicted), atol=1e-12)
    if k > 1:  # scikit-learn takes a single column for something else
        assert accuracy(true.astype(int), predicted) == pytest.approx(accuracy_score(true, predicted), abs=1e-12)


@settings(max_examples=30, deadline=None)
@cases
def test_order_and_names_do_not_count(seed, n, k):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(k, size=(2, n))
    rows, names = rng.permutation(n), rng.permutation(["a", "b", "c", "d", "e"])
    for metric in EVERY:
        value = metric(y, p)
        assert_allclose([metric(y[rows], p[rows]), metric(names[y], names[p])], value, atol=1e-12)
        if np.isfinite(value):
            assert value <= 1


@pytest.mark.parametrize("metric", EVERY)
def test_a_record_is_decided_by_most_windows(metric):
    records = [3, 3, 3, 1, 1, 2, 2, 2]
    y = ["a", "a", "a", "b", "b", "b", "b", "b"]
    p = ["a", "b", "a", "b", "a", "b", "b", "c"]  # a; a tie, to the first class; b
    assert metric(y, p, record_ids=records) == metric(["a", "b", "b"], ["a", "a", "b"])
    if metric not in (cohen_kappa, balanced_accuracy):
        true = np.eye(3, dtype=int)[[0, 0, 0, 1, 1, 1, 1, 1]]
        windows = [[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]]
        expected = metric(np.eye(3, dtype=int)[[0, 1, 1]], [[1, 1, 0], [0, 1, 0], [0, 1, 0]])  # half is not enough
        assert metric(true, windows, record_ids=records) == expected
    with pytest.raises(ValueError, match="differs between windows of record 1"):
        metric(["a", "a", "a", "b", "c", "b", "b", "b"], p, record_ids=records)


@pytest.mark.parametrize("metric", EVERY)
def test_refuses_what_does_not_fit(metric):
    with pytest.raises(ValueError, match="y_pred holds labels that labels lacks: c"):
        metric(["a", "b"], ["a", "c"], labels=["a", "b"])
    with pytest.raises(ValueError, match="labels lacks: 1, 2"):
        metric([1, 2], ["1", "2"])
    with pytest.raises(ValueError, match="decisions as predict gives them"):
        metric(["a", "b"], [[0.1, 0.9], [0.3, 0.7]])
    if metric in (cohen_kappa, balanced_accuracy):
        with pytest.raises(ValueError, match="one label for each sample"):
            metric([[0, 1]], [[0, 1]])
    else:
        with pytest.raises(ValueError, match="y_pred is two-dimensional, but no indicator"):
            metric([[0, 1]], [[0.1, 0.9]])
