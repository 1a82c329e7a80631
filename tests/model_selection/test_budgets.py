"""Label budgets: nested, whole patients, stratified, unbiased, and read back as they were."""

import csv
import json
import os
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.model_selection import GroupKFold

from skecg.model_selection import label_budgets, load_budgets, save_budgets

FRACTIONS = (0.02, 0.05, 0.1, 0.3, 1.0)


def make_targets(kind, rng, n):
    """Targets, and patients of about three samples each."""
    groups = rng.integers(0, max(1, n // 3), n)
    if kind == "one class":
        return rng.choice(["N", "S", "V"], n, p=[0.7, 0.2, 0.1])[groups], groups
    if kind == "several classes":
        return rng.choice(["N", "S", "V"], n, p=[0.7, 0.2, 0.1]), groups
    if kind == "multi-label":
        return (rng.random((n, 5)) < rng.uniform(0.02, 0.5, 5)).astype(int), groups
    return rng.normal(size=(n, 2)), groups


KINDS = ("one class", "several classes", "multi-label", "continuous")
pytestmark = pytest.mark.filterwarnings("ignore:The number of unique classes")  # few samples, as many classes


@settings(max_examples=80, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1), n=st.integers(1, 120),
       fractions=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5, unique=True))
def test_budgets_are_nested_whole_and_reproducible(kind, seed, n, fractions):
    y, groups = make_targets(kind, np.random.default_rng(seed), n)
    budgets = label_budgets(y, groups, label_fractions=[*fractions, 1.0] if 1.0 not in fractions else fractions,
                            n_repeats=2, random_state=seed)
    for repeat in range(2):
        chain = sorted((b for b in budgets if b.repeat == repeat), key=lambda b: b.fraction)
        for smaller, larger in pairwise(chain):
            assert set(smaller.rows) <= set(larger.rows)
        assert np.array_equal(chain[-1].rows, np.arange(n)) and chain[-1].patients == tuple(np.unique(groups))
    for budget in budgets:
        assert 1 <= budget.n_patients <= budget.n_labels == len(budget.rows)
        assert np.array_equal(budget.rows, np.flatnonzero(np.isin(groups, budget.patients)))  # whole patients
        assert budget.absent == tuple(c for c, count in budget.class_counts.items() if count == 0)
        if kind == "multi-label":
            assert budget.class_counts == dict(enumerate(y[budget.rows].sum(axis=0)))
        elif kind == "continuous":
            assert budget.class_counts == {}
        else:
            assert budget.class_counts == {c: (y[budget.rows] == c).sum() for c in np.unique(y)}
    # neither other fractions nor the number of repeats matter
    for fraction in fractions:
        assert label_budgets(y, groups, label_fractions=fraction, random_state=seed) == [
            b for b in budgets if b.fraction == fraction and b.repeat == 0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
       fraction=st.floats(0.001, 1.0), one_hot=st.booleans())
def test_patients_of_one_class_are_shared_out_to_within_rounding(seed, sizes, fraction, one_hot):
    rng = np.random.default_rng(seed)
    of_patient = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups = np.repeat(np.arange(len(of_patient)), rng.integers(1, 4, len(of_patient)))
    y = np.eye(len(sizes), dtype=int)[of_patient[groups]] if one_hot else of_patient[groups]
    for budget in label_budgets(y, groups, label_fractions=[fraction], n_repeats=3, random_state=seed):
        chosen = np.bincount(of_patient[list(budget.patients)], minlength=len(sizes))
        for n_chosen, size in zip(chosen, sizes, strict=True):
            assert n_chosen >= 1
            assert np.floor(fraction * size - 1e-9) <= n_chosen <= np.ceil(fraction * size + 1e-9)


@pytest.fixture(scope="module")
def ptbxl(real_data):
    """Superclasses, subclasses and rhythms of real recordings; their patients."""
    with open(real_data / "ptbxl_bp100" / "labels.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = [{name for name in ("NORM", "MI", "STTC", "CD", "HYP") if row[name] == "1"}
             | ({*row["sub_class"].split(";"), *row["rhythm"].split(";")} - {""}) for row in rows]
    names = sorted(set().union(*found))
    y = pd.DataFrame([[int(name in labels) for name in names] for labels in found], columns=names)
    return y, np.array([int(row["patient_id"]) for row in rows])


def patients_with(y, groups):
    """(n_patients, n_labels): whether any sample of the patient has the label."""
    return pd.DataFrame(np.asarray(y)).groupby(groups).max().to_numpy()


def test_real_labels_are_close_to_their_share(ptbxl):
    y, groups = ptbxl
    of_patient, ids = patients_with(y, groups), np.unique(groups)
    budgets = label_budgets(y, groups, label_fractions=FRACTIONS, n_repeats=4, random_state=0)
    for budget in budgets:
        counts = of_patient[np.isin(ids, budget.patients)].sum(axis=0)
        assert abs(budget.n_patients - budget.fraction * len(ids)) <= 0.5
        assert np.abs(counts - budget.fraction * of_patient.sum(axis=0)).max() < 3
        assert set(budget.class_counts) == set(y.columns)
    assert budgets[0].absent and not budgets[4].absent  # rare labels are reported, not dropped


@pytest.mark.parametrize("seed", range(4))
def test_random_labels_are_close_to_their_share(seed):
    rng = np.random.default_rng(seed)
    y = (rng.random((400, 12)) < rng.uniform(0.005, 0.5, 12)).astype(int)
    groups = rng.integers(0, 250, 400)
    of_patient, ids = patients_with(y, groups), np.unique(groups)
    for budget in label_budgets(y, groups, label_fractions=FRACTIONS, n_repeats=5, random_state=seed):
        counts = of_patient[np.isin(ids, budget.patients)].sum(axis=0)
        assert np.abs(counts - budget.fraction * of_patient.sum(axis=0)).max() < 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_patient_is_equally_likely(kind):
    y, groups = make_targets(kind, np.random.default_rng(3), 90)
    n_repeats, ids = 600, np.unique(groups)
    budgets = label_budgets(y, groups, label_fractions=[0.3], n_repeats=n_repeats, random_state=0)
    often = np.sum([np.isin(ids, budget.patients) for budget in budgets], axis=0)
    expected = n_repeats * np.mean([budget.n_patients for budget in budgets]) / len(ids)
    share = expected / n_repeats
    if kind == "one class":  # the rarest class has at least one patient
        _, first = np.unique(groups, return_index=True)
        sizes = {c: np.count_nonzero(y[first] == c) for c in np.unique(y)}
        expected = np.array([n_repeats * max(0.3, 1 / sizes[c]) for c in y[first]])
    statistic = ((often - expected) ** 2 / (expected * (1 - share))).sum()
    assert statistic < chi2.ppf(0.9999, len(ids))
    assert len({budget.patients for budget in budgets}) > n_repeats // 2


def test_repeats_per_fraction_and_order():
    y, groups = make_targets("multi-label", np.random.default_rng(0), 90)
    some = label_budgets(y, groups, label_fractions=[0.5, 0.1, 1.0], n_repeats=[2, 3, 1], random_state=7)
    assert [(b.repeat, b.fraction) for b in some] == [(0, 0.5), (0, 0.1), (0, 1.0), (1, 0.5), (1, 0.1), (2, 0.1)]
    every = label_budgets(y, groups, label_fractions=[0.1, 0.5, 1.0], n_repeats=5, random_state=7)
    assert all(budget in every for budget in some)
    assert label_budgets(y, groups, label_fractions=[0.1], random_state=8) != every[:1]


def test_without_groups_each_sample_is_a_patient():
    y = np.repeat(["N", "V"], [80, 20])
    (budget,) = label_budgets(y, label_fractions=[0.1], random_state=0)
    assert budget.class_counts == {"N": 8, "V": 2} and budget.patients == tuple(budget.rows)
    assert "absent=()" in repr(budget) and "rows" not in repr(budget)
    assert len({budget, *label_budgets(y, label_fractions=[0.1], random_state=0)}) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", ["int", "str", "none"])
def test_manifests_come_back_as_they_were(tmp_path, kind, ids):
    y, groups = make_targets(kind, np.random.default_rng(1), 150)
    groups = {"int": groups, "str": np.array([f"p{g}" for g in groups]), "none": None}[ids]
    splits = list(GroupKFold(3).split(y, y, np.arange(150) if groups is None else groups))

    def parts():
        for train, _ in splits:
            yield y[train], None if groups is None else groups[train]

    budgets = [label_budgets(*part, label_fractions=FRACTIONS, n_repeats=2, random_state=0) for part in parts()]
    save_budgets(tmp_path / "budgets.json", [budget for split in budgets for budget in split])
    for part, expected in zip(parts(), budgets, strict=True):
        loaded = load_budgets(str(tmp_path / "budgets.json"), *part)
        assert loaded == expected
        assert all(type(a.fraction) is float and type(a.repeat) is int for a in loaded)
        assert [a.rows.dtype for a in loaded] == [b.rows.dtype for b in expected]
    assert os.listdir(tmp_path) == ["budgets.json"]


def test_manifests_refuse_other_data(tmp_path):
    y, groups = make_targets("several classes", np.random.default_rng(2), 60)
    path = tmp_path / "budgets.json"
    save_budgets(path, label_budgets(y, groups, label_fractions=[0.2], random_state=0))
    relabelled, regrouped = y.copy(), groups.copy()
    relabelled[0] = "S" if y[0] == "N" else "N"
    regrouped[0] = groups[0] + 1
    for other in ((relabelled, groups), (y, regrouped), (y[::-1], groups[::-1]), (y[:-1], groups[:-1]), (y, None),
                  (y, groups.astype(str))):
        with pytest.raises(ValueError, match=r"holds no budget drawn from these data .*of 60 samples"):
            load_budgets(path, *other)
    # the storage type is not the data
    assert load_budgets(path, y.astype(object), groups.astype(np.int32)) == load_budgets(path, list(y), groups.tolist())


def test_manifest_is_readable_and_written_whole(tmp_path, monkeypatch):
    y, groups = make_targets("one class", np.random.default_rng(2), 60)
    path = tmp_path / "budgets.json"
    budgets = label_budgets(y, groups, label_fractions=[0.2], random_state=0)
    save_budgets(path, budgets * 2)  # the same budget twice is one
    (manifest,) = json.loads(path.read_text())["manifests"]
    (stored,) = manifest["budgets"]
    assert stored["patients"] == list(budgets[0].patients) and stored["class_counts"] == budgets[0].class_counts
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"two different budgets of repeat 0 and fraction 0\.2"):
        save_budgets(path, budgets + label_budgets(y, groups, label_fractions=[0.2], random_state=1))

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)  # the temporary file is written by then, and not yet in its place
    with pytest.raises(OSError, match="disk full"):
        save_budgets(path, label_budgets(y, groups, label_fractions=[0.9], random_state=0))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["budgets.json"]


def test_errors(tmp_path):
    y = np.array([0, 1] * 10)
    for fractions in ([], [0.0], [1.5], [0.1, "all"], [float("nan")]):
        with pytest.raises(ValueError, match="shares above 0 and up to 1"):
            label_budgets(y, label_fractions=fractions)
    with pytest.raises(ValueError, match="more than once"):
        label_budgets(y, label_fractions=[0.1, 0.1])
    for n_repeats in (0, [1], [1, 0], [1, 2, 3], [1.0, 2.0]):
        with pytest.raises(ValueError, match="one for each of the 2 fractions"):
            label_budgets(y, label_fractions=[0.1, 0.2], n_repeats=n_repeats)
    with pytest.raises(ValueError, match="one patient id for each of the 20 samples"):
        label_budgets(y, [1, 2], label_fractions=[0.1])
    with pytest.raises(ValueError, match="nothing to save"):
        save_budgets(tmp_path / "budgets.json", [])
    budgets = label_budgets(y, np.repeat(np.arange("2020-01-01", "2020-01-11", dtype="M8[D]"), 2), label_fractions=[0.1])
    with pytest.raises(ValueError, match="must be str or int"):
        save_budgets(tmp_path / "budgets.json", budgets)
    for content, message in (("not json", "no manifest"), ("[]", "no manifest"), ('{"format": "2"}', "the format '2'")):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_budgets(tmp_path / "other.json", y)
    with pytest.raises(FileNotFoundError):
        load_budgets(tmp_path / "missing.json", y)
