"""Areas under curves against scikit-learn, and against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.metrics import average_precision_score, roc_auc_score

from skecg.metrics import macro_average_precision, macro_roc_auc, roc_auc_per_class

MACRO = {macro_roc_auc: roc_auc_score, macro_average_precision: average_precision_score}
cases = given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60), k=st.integers(1, 5), ties=st.booleans())


def draw(seed, n, k, ties):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 4, (n, k)).astype(float) if ties else rng.normal(size=(n, k))
    return rng.random((n, k)) < rng.uniform(0.05, 0.95), score


@pytest.mark.parametrize("metric", MACRO)
@settings(max_examples=50, deadline=None)
@cases
def test_mean_of_scikit_learns(metric, seed, n, k, ties):
    y, score = draw(seed, n, k, ties)
    defined = [j for j in range(k) if 0 < y[:, j].sum() < n]
    if not defined:
        assert np.isnan(metric(y, score))
    else:
        expected = np.mean([MACRO[metric](y[:, j], score[:, j]) for j in defined])
        assert metric(y, score) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@cases
def test_each_class_counts_pairs(seed, n, k, ties):
    y, score = draw(seed, n, k, ties)
    areas = roc_auc_per_class(y, score)
    for j in range(k):
        pairs = [(a > b) + (a == b) / 2 for a in score[y[:, j], j] for b in score[~y[:, j], j]]
        if not pairs:
            assert np.isnan(areas[j])
        else:
            assert areas[j] == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("metric", MACRO)
@settings(max_examples=30, deadline=None)
@cases
def test_only_the_order_of_scores_counts(metric, seed, n, k, ties):
    y, score = draw(seed, n, k, ties)
    value = metric(y, score)
    rows, columns = np.random.default_rng(seed).permutation(n), np.random.default_rng(seed).permutation(k)
    assert_allclose(metric(y, np.arctan(score) * 3 - 7), value, atol=1e-12)
    assert_allclose(metric(y[rows], score[rows]), value, atol=1e-12)
    assert_allclose(metric(y[:, columns], score[:, columns]), value, atol=1e-12)


@pytest.mark.parametrize("metric", MACRO)
@pytest.mark.parametrize("names", [["a", "b", "c"], [3, 7, 9], np.array(["x", "y", "z"], dtype=object), [0.5, 1.5, 2.0]])
def test_labels_of_any_kind(metric, names):
    rng = np.random.default_rng(0)
    codes, score = rng.integers(3, size=80), rng.dirichlet(np.ones(3), 80)
    y = np.asarray(names)[codes]
    expected = np.mean([MACRO[metric](codes == j, score[:, j]) for j in range(3)])
    assert metric(y, score) == pytest.approx(expected, abs=1e-12)
    assert metric(y.tolist(), score.tolist(), labels=names) == pytest.approx(expected, abs=1e-12)
    order = [2, 0, 1]
    assert metric(y, score[:, order], labels=np.asarray(names)[order]) == pytest.approx(expected, abs=1e-12)
    assert metric(np.eye(3)[codes], score) == metric(csr_matrix(np.eye(3)[codes]), score) == pytest.approx(expected)


@pytest.mark.parametrize("metric", MACRO)
def test_missing_classes_and_two_classes(metric):
    rng = np.random.default_rng(0)
    y, score = rng.choice(["a", "b", "c"], 80), rng.dirichlet(np.ones(3), 80)
    absent = np.insert(score, 1, rng.random(80), axis=1)  # a class that no sample has changes nothing
    assert metric(y, absent, labels=["a", "aa", "b", "c"]) == pytest.approx(metric(y, score), abs=1e-12)
    two, second = y[y != "c"], score[y != "c", 1]
    both = np.mean([MACRO[metric](two == name, sign * second) for name, sign in (("a", -1), ("b", 1))])
    assert metric(two, second) == pytest.approx(both, abs=1e-12)
    assert np.isnan(metric(["a", "a"], [0.1, 0.2]))
    assert np.isnan(metric(["a", "a"], [0.1, 0.2], labels=["a", "b"]))


def test_a_class_never_seen_in_training_scores_as_chance():
    y = ["a", "b", "c", "c"]
    probabilities = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]]
    decisions = np.where(np.arange(3) == 2, -np.inf, probabilities)
    for score in (probabilities, decisions):
        assert_array_equal(roc_auc_per_class(y, score), [1.0, 1.0, 0.5])
        assert macro_average_precision(y, score) == pytest.approx((1 + 1 + 0.5) / 3)


def test_records_are_counted_once():
    records = np.array(["r2", "r1", "r2", "r3", "r1", "r4"])
    y = np.array([1, 0, 1, 0, 0, 1])
    score = np.array([0.9, 0.2, 0.1, 0.6, np.nan, 0.7])  # r2 has mean 0.5, r1 0.2
    assert macro_roc_auc(y, score, record_ids=records) == roc_auc_score([1, 0, 0, 1], [0.5, 0.2, 0.6, 0.7])
    both = np.stack([y, 1 - y], axis=1)
    assert macro_roc_auc(both, np.stack([score, -score], axis=1), record_ids=records) == 0.75
    with pytest.raises(ValueError, match=r"differs between windows of record r1"):
        macro_roc_auc([1, 0, 1, 0, 1, 1], score, record_ids=records)
    score[1] = np.nan
    with pytest.raises(ValueError, match=r"NaN for 1 of 4 records, first for record r1"):
        macro_roc_auc(y, score, record_ids=records)


@pytest.mark.parametrize("metric", [*MACRO, roc_auc_per_class])
def test_refuses_what_does_not_fit(metric):
    with pytest.raises(ValueError, match="one column per class"):
        metric(["a", "b"], [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    with pytest.raises(ValueError, match="labels lacks: z"):
        metric(["a", "z"], [[0.1, 0.9], [0.3, 0.7]], labels=["a", "b"])
    with pytest.raises(ValueError, match="labels lacks: 1, 2"):
        metric([1, 2], [[0.1, 0.9], [0.3, 0.7]], labels=["1", "2"])
    with pytest.raises(ValueError, match="each class once"):
        metric(["a", "a"], [[0.1, 0.9], [0.3, 0.7]], labels=["a", "a"])
    with pytest.raises(ValueError, match=r"NaN for 1 of 3 samples, first for sample 2"):
        metric(["a", "b", "b"], [0.1, 0.3, np.nan])
    with pytest.raises(ValueError, match="indicator matrix of 0 and 1"):
        metric([[0, 2], [1, 0]], [[0.1, 0.9], [0.3, 0.7]])
    with pytest.raises(ValueError, match="inconsistent numbers"):
        metric(["a", "b"], [0.1, 0.2, 0.3])
