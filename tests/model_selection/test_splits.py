"""Grouped, stratified splits against what they promise, and against the published algorithm."""

import csv

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_validate

from skecg.model_selection import MultilabelStratifiedGroupKFold, MultilabelStratifiedGroupShuffleSplit


@pytest.fixture(scope="module")
def ptbxl(real_data):
    """Labels (superclasses, and with subclasses and rhythm) and patients of real recordings."""
    with open(real_data / "ptbxl_bp100" / "labels.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = ("NORM", "MI", "STTC", "CD", "HYP")
    statements = [{*row["sub_class"].split(";"), *row["rhythm"].split(";")} - {""} for row in rows]
    all_statements = sorted(set().union(*statements))
    superclasses = np.array([[int(row[name]) for name in names] for row in rows])
    further = np.array([[name in found for name in all_statements] for found in statements], dtype=int)
    return superclasses, np.hstack([superclasses, further]), np.array([row["patient_id"] for row in rows])


def random_labels(rng, n, n_labels):
    return (rng.random((n, n_labels)) < rng.uniform(0.01, 0.5, n_labels)).astype(int)


def deviations(y, tests):
    """Mean and largest difference of the label shares of test parts from those of all samples."""
    difference = np.abs(np.array([y[test].mean(axis=0) for test in tests]) - y.mean(axis=0))
    return difference.mean(), difference.max()


def held_out(cv, y, groups=None):
    return [test for _, test in cv.split(np.zeros((len(y), 1)), y, groups)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(6, 80), n_splits=st.integers(2, 6), multilabel=st.booleans(),
       shuffle=st.booleans())
def test_folds_partition_the_groups(seed, n, n_splits, multilabel, shuffle):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.r_[np.arange(n_splits), rng.integers(0, n, n - n_splits)])  # at least n_splits of them
    y = random_labels(rng, n, 4) if multilabel else rng.choice(["N", "S", "V"], n)
    cv = MultilabelStratifiedGroupKFold(n_splits, shuffle=shuffle, random_state=seed if shuffle else None)
    folds = list(cv.split(np.zeros((n, 2)), y, groups))
    assert len(folds) == n_splits == cv.get_n_splits()
    for train, test in folds:
        assert len(train) and len(test)
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(n))
        assert not set(groups[train]) & set(groups[test])
    assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(n))
    for (_, test), again in zip(folds, held_out(cv, y, groups), strict=True):
        assert np.array_equal(test, again)


@pytest.mark.parametrize("n_splits", [2, 5, 10])
@pytest.mark.parametrize("table", [0, 1])
def test_real_labels_deviate_no_more_than_with_the_published_algorithm(ptbxl, table, n_splits):
    y = ptbxl[table]
    ours = deviations(y, held_out(MultilabelStratifiedGroupKFold(n_splits), y))
    for seed in range(3):
        oracle = MultilabelStratifiedKFold(n_splits, shuffle=True, random_state=seed)
        assert (np.array(ours) <= np.array(deviations(y, held_out(oracle, y))) + 1e-12).all()


def test_random_labels_deviate_no_more_than_with_the_published_algorithm():
    ours, oracles = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y = random_labels(rng, rng.integers(40, 400), 8)
        n_splits = int(rng.choice([2, 3, 5, 10]))
        ours.append(deviations(y, held_out(MultilabelStratifiedGroupKFold(n_splits), y)))
        oracle = MultilabelStratifiedKFold(n_splits, shuffle=True, random_state=seed)
        oracles.append(deviations(y, held_out(oracle, y)))
    ours, oracles = np.array(ours), np.array(oracles)
    assert (ours.mean(axis=0) < 0.9 * oracles.mean(axis=0)).all()
    assert (ours - oracles).max() < 0.01  # on no table noticeably worse


def test_real_patients_are_stratified(ptbxl):
    _, y, patients = ptbxl
    tests = held_out(MultilabelStratifiedGroupKFold(5), y, patients)
    counts = np.array([y[test].sum(axis=0) for test in tests])
    # one patient may have most samples of a rare label
    largest = np.array([np.bincount(np.unique(patients, return_inverse=True)[1], column).max() for column in y.T])
    assert (np.abs(counts - y.sum(axis=0) / 5) < np.maximum(2, largest)).all()
    assert np.ptp([len(test) for test in tests]) <= 3
    assert sum(len(set(patients[test])) for test in tests) == len(set(patients))


@pytest.mark.parametrize("shuffle", [False, True])
def test_single_labels_without_groups_are_exact(shuffle):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        k, n_splits = int(rng.integers(2, 6)), int(rng.integers(2, 8))
        y = rng.choice(k, rng.integers(30, 300), p=rng.dirichlet(np.ones(k)))
        cv = MultilabelStratifiedGroupKFold(n_splits, shuffle=shuffle, random_state=seed if shuffle else None)
        counts = np.array([np.bincount(y[test], minlength=k) for test in held_out(cv, y)])
        assert np.abs(counts - np.bincount(y, minlength=k) / n_splits).max() < 1


def test_single_labels_in_groups_deviate_less_than_scikit_learns():
    ours, theirs = [], []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, rng.integers(20, 200), 400)
        y = rng.choice(4, 400, p=[0.6, 0.25, 0.1, 0.05])
        indicator = np.eye(4)[y]
        ours.append(deviations(indicator, held_out(MultilabelStratifiedGroupKFold(5), y, groups)))
        theirs.append(deviations(indicator, held_out(StratifiedGroupKFold(5), y, groups)))
    assert (np.mean(ours, axis=0) < np.mean(theirs, axis=0)).all()


def test_samples_without_labels_are_spread():
    y = np.zeros((103, 3), dtype=int)
    y[:7, 0] = 1
    sizes = [np.count_nonzero(~y[test].any(axis=1)) for test in held_out(MultilabelStratifiedGroupKFold(5), y)]
    assert sum(sizes) == 96 and np.ptp(sizes) <= 2
    sizes = [len(test) for test in held_out(MultilabelStratifiedGroupKFold(5), np.zeros((103, 3), dtype=int))]
    assert sorted(sizes) == [20, 20, 21, 21, 21]


def test_no_fold_is_empty():
    groups = np.repeat(np.arange(4), [200, 1, 1, 1])
    y = np.repeat([0, 1, 1, 1], [200, 1, 1, 1])
    assert sorted(map(len, held_out(MultilabelStratifiedGroupKFold(4), y, groups))) == [1, 1, 1, 200]
    groups = np.repeat(["a", "b"], [99, 1])
    assert len(held_out(MultilabelStratifiedGroupShuffleSplit(test_size=0.05), np.zeros(100, dtype=int), groups)[0])


def test_kinds_of_targets_are_interchangeable():
    rng = np.random.default_rng(0)
    indicator, groups = random_labels(rng, 90, 5), rng.integers(0, 30, 90)
    expected = held_out(MultilabelStratifiedGroupKFold(3), indicator, groups)
    for y in (indicator.astype(bool), indicator.astype(float), csr_array(indicator), pd.DataFrame(indicator),
              indicator.tolist()):
        cv = MultilabelStratifiedGroupKFold(3)
        for (_, test), reference in zip(cv.split(np.zeros((90, 1)), y, groups.tolist()), expected, strict=True):
            assert np.array_equal(test, reference)
    codes = rng.integers(0, 3, 90)
    for y in (np.array(["N", "S", "V"])[codes], np.array(["N", "S", "V"], dtype=object)[codes], codes[:, None]):
        for test, reference in zip(held_out(MultilabelStratifiedGroupKFold(3), y, groups.astype(str).astype(object)),
                                   held_out(MultilabelStratifiedGroupKFold(3), codes, groups.astype(str)), strict=True):
            assert np.array_equal(test, reference)


def test_shuffling_draws_other_folds():
    y = np.zeros((60, 2), dtype=int)
    y[0, 0], y[:20, 1] = 1, 1
    folds, where = set(), []
    for seed in range(40):
        tests = held_out(MultilabelStratifiedGroupKFold(4, shuffle=True, random_state=seed), y)
        folds.add(tuple(map(tuple, tests)))
        where.append(next(i for i, test in enumerate(tests) if 0 in test))
    assert len(folds) == 40
    assert set(where) == {0, 1, 2, 3}  # the only sample of a label is not always in the first fold


def test_composes_with_scikit_learn():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    X, y = rng.normal(size=(80, 3)), rng.integers(0, 2, 80)
    cv = MultilabelStratifiedGroupKFold(4)
    scores = cross_validate(LogisticRegression(), X, y, groups=groups, cv=cv)["test_score"]
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=cv).fit(X, y, groups=groups)
    assert search.n_splits_ == 4
    with sklearn.config_context(enable_metadata_routing=True):
        routed = cross_validate(LogisticRegression(), X, y, params={"groups": groups}, cv=cv)["test_score"]
        single = MultilabelStratifiedGroupShuffleSplit(random_state=0)
        cross_validate(LogisticRegression(), X, y, params={"groups": groups}, cv=single)
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=cv).fit(X, y, groups=groups)
    assert np.array_equal(scores, routed)
    assert repr(cv) == "MultilabelStratifiedGroupKFold(n_splits=4, random_state=None, shuffle=False)"
    assert " ".join(repr(single).split()) == \
        "MultilabelStratifiedGroupShuffleSplit(n_splits=1, random_state=0, test_size=0.2)"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 80), test_size=st.floats(0.05, 0.95), multilabel=st.booleans())
def test_shuffle_split_keeps_patients_together(seed, n, test_size, multilabel):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.r_[0, 1, rng.integers(0, n, n - 2)])
    y = random_labels(rng, n, 4) if multilabel else rng.choice(["N", "S", "V"], n)
    cv = MultilabelStratifiedGroupShuffleSplit(3, test_size=test_size, random_state=seed)
    splits = list(cv.split(np.zeros(n), y, groups))
    assert len(splits) == 3 == cv.get_n_splits()
    for (train, test), (_, again) in zip(splits, cv.split(np.zeros(n), y, groups), strict=True):
        assert len(train) and len(test) and np.array_equal(test, again)
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(n))
        assert not set(groups[train]) & set(groups[test])


def test_shuffle_split_has_the_share_of_every_label(ptbxl):
    _, y, patients = ptbxl
    cv = MultilabelStratifiedGroupShuffleSplit(3, test_size=0.15, random_state=0)
    tests = held_out(cv, y, patients)
    assert len({tuple(test) for test in tests}) == 3
    for test in tests:
        assert abs(len(test) - 0.15 * len(y)) <= 2
        assert np.abs(y[test].sum(axis=0) - 0.15 * y.sum(axis=0)).max() < 3


def test_shuffle_split_leaves_rare_labels_in_training():
    y = np.array(["V"] * 2 + ["N"] * 98)
    for seed in range(10):
        train, test = next(MultilabelStratifiedGroupShuffleSplit(random_state=seed).split(y, y))
        assert (y[train] == "V").sum() == 2 and len(test) in (19, 20)


def test_errors():
    X = np.zeros((6, 1))
    with pytest.raises(ValueError, match=r"n_splits=5 is more than the 2 patient\(s\)"):
        held_out(MultilabelStratifiedGroupKFold(5), np.array([0, 1] * 3), [1, 1, 1, 2, 2, 2])
    with pytest.raises(ValueError, match="one patient only"):
        held_out(MultilabelStratifiedGroupShuffleSplit(), np.array([0, 1] * 3), ["a"] * 6)
    with pytest.raises(ValueError, match="y is continuous"):
        held_out(MultilabelStratifiedGroupKFold(2), np.linspace(0, 1, 6))
    with pytest.raises(ValueError, match="multiclass-multioutput"):
        held_out(MultilabelStratifiedGroupKFold(2), np.array([[1, 2], [3, 4], [5, 6]] * 2))
    with pytest.raises(ValueError, match="y is None"):
        next(MultilabelStratifiedGroupKFold(2).split(X))
    with pytest.raises(ValueError, match=r"missing values \(NaN\)"):
        held_out(MultilabelStratifiedGroupKFold(2), np.array([0, 1] * 3), [1, 1, np.nan, 2, 2, 2])
    with pytest.raises(ValueError, match="ids of one type"):
        held_out(MultilabelStratifiedGroupKFold(2), np.array([0, 1] * 3), np.array([1, 1, None, 2, 2, 2], dtype=object))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(MultilabelStratifiedGroupKFold(2).split(X, [0, 1, 0]))
    for test_size in (0, 1.0, "half"):
        with pytest.raises(ValueError, match="test_size must be a share"):
            MultilabelStratifiedGroupShuffleSplit(test_size=test_size)
    with pytest.raises(ValueError, match="n_splits must be an int"):
        MultilabelStratifiedGroupShuffleSplit(0)
