"""Metrics against scikit-learn and against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from skecg.metrics import bootstrap_interval, macro_roc_auc


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 60), k=st.integers(1, 5), ties=st.booleans())
def test_macro_roc_auc_is_the_mean_of_scikit_learns(seed, n, k, ties):
    rng = np.random.default_rng(seed)
    y = rng.random((n, k)) < 0.4
    score = rng.integers(0, 4, (n, k)).astype(float) if ties else rng.normal(size=(n, k))
    defined = [j for j in range(k) if 0 < y[:, j].sum() < n]
    if not defined:
        assert np.isnan(macro_roc_auc(y, score))
    else:
        expected = np.mean([roc_auc_score(y[:, j], score[:, j]) for j in defined])
        assert macro_roc_auc(y, score) == pytest.approx(expected, abs=1e-12)


def test_macro_roc_auc_of_class_labels():
    rng = np.random.default_rng(0)
    y, score = rng.choice(["a", "b", "c"], 80), rng.dirichlet(np.ones(3), 80)
    assert macro_roc_auc(y, score) == pytest.approx(roc_auc_score(y, score, multi_class="ovr"), abs=1e-12)
    absent = np.insert(score, 1, 0.0, axis=1)  # a class that no sample has changes nothing
    assert macro_roc_auc(y, absent, labels=["a", "aa", "b", "c"]) == pytest.approx(macro_roc_auc(y, score))
    two = y[y != "c"]
    assert macro_roc_auc(two, score[y != "c", 1]) == pytest.approx(roc_auc_score(two == "b", score[y != "c", 1]))


def test_macro_roc_auc_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="one column per class"):
        macro_roc_auc(["a", "b"], [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    with pytest.raises(ValueError, match="labels lacks: z"):
        macro_roc_auc(["a", "z"], [[0.1, 0.9], [0.3, 0.7]], labels=["a", "b"])


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for i in range(200):
        sample = rng.normal(size=40)
        low, high = bootstrap_interval(lambda rows, s=sample: s[rows].mean(), np.arange(40), n_resamples=200,
                                       random_state=i)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_interval_draws_whole_patients():
    groups = np.repeat([1, 2, 3], [1, 5, 2])

    def whole(rows):
        counts = np.bincount(rows, minlength=len(groups))
        assert all(len(set(counts[groups == g])) == 1 for g in (1, 2, 3))
        return float(len(rows))

    low, high = bootstrap_interval(whole, groups, n_resamples=200, random_state=0)
    assert 3 <= low < high <= 15


def test_bootstrap_interval_is_reproducible_and_leaves_nan_out():
    values = np.array([1.0, np.nan, 3.0])

    def statistic(rows):
        return values[rows].mean()

    first = bootstrap_interval(statistic, [0, 1, 2], random_state=3)
    assert first == bootstrap_interval(statistic, [0, 1, 2], random_state=3)
    assert 1.0 <= first[0] <= first[1] <= 3.0
    assert np.isnan(bootstrap_interval(lambda rows: np.nan, [0, 1, 2], n_resamples=5, random_state=0)).all()
