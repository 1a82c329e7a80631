"""Resampled patients and repeats, tables, and saved labels."""

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import t as student
from scipy.stats import ttest_ind, ttest_rel
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from skecg.evaluation import LabelEfficiencyCurve, Run, _statistics, label_efficiency_curve
from skecg.evaluation._statistics import (
    compare,
    holm,
    isotonic,
    label_saving,
    reaching_fraction,
    resampled_values,
    summary,
)
from skecg.metrics import macro_roc_auc

FRACTIONS = (0.1, 0.3, 1.0)
CLASSES = np.array([0, 1])


def mean_score(y, scores):
    return float(np.mean(scores[:, 1]))


def study(scores_of, *, arms=("a", "b"), fractions=FRACTIONS, repeats=(3, 2, 1), splits=None, y=None, groups=None,
          metric="roc_auc"):
    """A curve whose runs have the scores ``scores_of(arm, fraction, split, repeat, test)``."""
    runs = []
    for arm, (fraction, n_repeats), split in product(arms, zip(fractions, repeats, strict=True), range(len(splits))):
        for repeat in range(n_repeats):
            own = np.asarray(scores_of(arm, fraction, split, repeat, splits[split][1]), dtype=float)
            runs.append(Run(
                arm=arm, fraction=fraction, repeat=repeat, split=split, n_labels=round(100 * fraction),
                n_patients=round(50 * fraction), absent=(), seconds=0.0, n_updates=None, best_params=None,
                scores=np.stack([-own, own], axis=1), predictions=None,
            ))
    return LabelEfficiencyCurve(
        arms=arms, label_fractions=fractions, metrics={"m": metric}, runs=runs, pretraining=[], budgets=[], splits=splits,
        y=y, groups=groups, classes=CLASSES, transductive=False, settings={},
    )


def noisy_study(seed=0, *, n_patients=24, n_splits=2, arms=("a", "b", "c"), **options):
    """Random scores; three splits' worth of patients with one to three samples each."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients)))
    y = rng.integers(2, size=len(groups))
    part = rng.integers(n_splits, size=n_patients)[groups]
    splits = [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in range(n_splits)]
    return study(lambda arm, fraction, split, repeat, test: y[test] * fraction + rng.normal(size=len(test)),
                 arms=arms, splits=splits, y=y, groups=groups, **options)


def constant_study(value_of, fractions=FRACTIONS, repeats=1, **options):
    """Every run's metric is ``value_of(arm, fraction, repeat)``, whatever the patients."""
    test = np.arange(10)
    return study(
        lambda arm, fraction, split, repeat, test: np.full(len(test), value_of(arm, fraction, repeat)), fractions=fractions,
        repeats=(repeats,) * len(fractions), splits=[(test + 10, test)], y=np.zeros(20), groups=np.arange(20),
        metric=mean_score, **options,
    )


def same(left, right):
    """Equal tables, NaN included."""
    np.testing.assert_equal(left, right)


def test_resampled_values_equal_a_naive_loop():
    curve, n_resamples = noisy_study(), 15
    values = resampled_values(curve, n_resamples=n_resamples, random_state=7)
    rng = np.random.RandomState(7)
    counts = {
        (fraction, split): rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        for (fraction, n), split in product(zip(FRACTIONS, (3, 2, 1), strict=True), range(2))
    }
    patients = np.unique(curve.groups)
    for b in range(1 + n_resamples):
        drawn = patients[rng.randint(len(patients), size=len(patients))] if b else patients
        for (i, arm), (j, fraction) in product(enumerate(curve.arms), enumerate(FRACTIONS)):
            of_splits = []
            for split, (_, test) in enumerate(curve.splits):
                rows = [row for patient in drawn for row in range(len(test)) if curve.groups[test][row] == patient]
                runs = curve.select(arm=arm, fraction=fraction, split=split)
                on = [macro_roc_auc(curve.y[test][rows], run.scores[rows], labels=CLASSES) for run in runs]
                value = np.mean(on)
                if b and len(runs) > 1:
                    own = np.array([curve.evaluate(run) for run in runs])
                    chosen = np.repeat(np.arange(len(runs)), counts[fraction, split][b - 1])
                    assert len(chosen) == len(runs)
                    value += math.sqrt(len(runs) / (len(runs) - 1)) * (own[chosen].mean() - own.mean())
                of_splits.append(value)
            assert values[i, j, b] == pytest.approx(np.mean(of_splits), abs=1e-12, nan_ok=True)


def test_repeats_add_their_variance():
    # nothing depends on patients here, so the spread is that of a mean of R repeats; R draws alone understate it
    for n in (2, 3, 5):
        own = np.random.default_rng(n).normal(size=n)
        curve = constant_study(lambda arm, fraction, repeat, own=own: own[repeat], (1.0,), arms=("a",), repeats=n)
        values = resampled_values(curve, n_resamples=4000)
        assert values[0, 0, 1:].var() == pytest.approx(own.var(ddof=1) / n, rel=0.1)
        assert values[0, 0, 1:].mean() == pytest.approx(own.mean(), abs=0.1 * own.std())


def test_patients_are_drawn_with_all_their_samples():
    # 5 patients of 100 equal samples: the spread is that of 5, not of 500
    groups = np.repeat(np.arange(5), 100)
    level = np.random.default_rng(0).normal(size=5)
    curve = study(lambda arm, fraction, split, repeat, test: level[groups[test]], arms=("a",), fractions=(1.0,),
                  repeats=(1,), splits=[(np.array([]), np.arange(500))], y=np.zeros(500), groups=groups, metric=mean_score)
    assert resampled_values(curve, n_resamples=4000)[0, 0, 1:].var() == pytest.approx(level.var() / 5, rel=0.1)


def test_blocks_change_nothing(monkeypatch):
    whole = resampled_values(noisy_study(), n_resamples=50)
    monkeypatch.setattr(_statistics, "_BLOCK", 200)
    np.testing.assert_allclose(resampled_values(noisy_study(), n_resamples=50), whole, rtol=0, atol=1e-12)


def test_seeds_and_what_is_kept(monkeypatch):
    curve, calls = noisy_study(), []
    first = resampled_values(curve, n_resamples=20, random_state=3)
    evaluate = LabelEfficiencyCurve.evaluate

    def count(curve, run, metric=None, weights=None):
        if weights is not None:
            calls.append(run)
        return evaluate(curve, run, metric, weights)

    monkeypatch.setattr(LabelEfficiencyCurve, "evaluate", count)
    assert resampled_values(curve, "m", n_resamples=20, random_state=3) is first
    compare(curve, "a", "b", n_resamples=20, random_state=3)
    label_saving(curve, "a", "b", n_resamples=20, random_state=3)
    assert not calls
    other = resampled_values(curve, n_resamples=20, random_state=4)
    assert calls and (other[..., 0] == first[..., 0]).all() and not np.allclose(other[..., 1:], first[..., 1:])
    generator = np.random.RandomState(3)
    np.testing.assert_array_equal(resampled_values(curve, n_resamples=20, random_state=generator), first)
    assert not np.array_equal(resampled_values(curve, n_resamples=20, random_state=generator), first)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 0


def test_undefined_resamples_are_left_out():
    # 4 patients, one of them the only positive: a resample lacks it or has nothing else with probability 0.32
    y, groups = np.array([1, 0, 0, 0]), np.arange(4)
    rng = np.random.default_rng(0)
    curve = study(lambda arm, fraction, split, repeat, test: rng.normal(size=4), repeats=(2, 2, 2),
                  splits=[(np.array([]), np.arange(4))], y=y, groups=groups)
    values = resampled_values(curve, n_resamples=1000)
    assert 0.2 < np.isnan(values).mean() < 0.45
    for row in (*summary(curve), *compare(curve, "a", "b")):
        assert np.isfinite([row["low"], row["high"]]).all() and row["low"] <= row["high"]
    assert label_saving(curve, "a", "a").share_reached == 1


def test_one_patient_has_no_interval():
    curve = study(lambda arm, fraction, split, repeat, test: np.arange(4.0), repeats=(2, 2, 2),
                  splits=[(np.array([]), np.arange(4))], y=np.array([0, 1, 0, 1]), groups=np.zeros(4))
    assert all(np.isnan([row["low"], row["high"]]).all() and row["value"] == 0.75 for row in summary(curve))
    assert all(np.isnan(row["low"]) and row["claim"] == "undecided" for row in compare(curve, "a", "b"))
    found = label_saving(curve, "a", "b")
    assert found.fraction == 0.1 and np.isnan([found.low, found.high, found.share_reached]).all()
    assert "nan to nan" in str(found) and found.to_dict()["low"] is None


def test_an_undefined_study_says_so():
    curve = study(lambda arm, fraction, split, repeat, test: np.arange(4.0), repeats=(1, 1, 1),
                  splits=[(np.array([]), np.arange(4))], y=np.zeros(4), groups=np.arange(4))
    found = label_saving(curve, "a", "b", n_resamples=10)
    assert np.isnan([found.fraction, found.saving, found.factor]).all() and str(found).startswith("Undefined")
    assert found.to_dict()["fraction"] is None
    assert compare(curve, "a", "b", n_resamples=10)[0]["p_value"] == 1


def test_summary():
    curve = noisy_study()
    rows = summary(curve, n_resamples=200)
    assert [(row["arm"], row["fraction"]) for row in rows] == list(product(curve.arms, FRACTIONS))
    values = resampled_values(curve, n_resamples=200)
    for row in rows:
        runs = curve.select(arm=row["arm"], fraction=row["fraction"])
        of_splits = [[curve.evaluate(run) for run in runs if run.split == split] for split in range(2)]
        assert row["value"] == pytest.approx(np.mean([np.mean(own) for own in of_splits]))
        if row["fraction"] == 1.0:
            assert np.isnan(row["sd"]) and row["n_runs"] == 2
        else:
            assert row["sd"] == pytest.approx(np.sqrt(np.mean([np.var(own, ddof=1) for own in of_splits])))
        assert (row["n_labels"], row["n_patients"]) == (round(100 * row["fraction"]), round(50 * row["fraction"]))
        drawn = values[curve.arms.index(row["arm"]), FRACTIONS.index(row["fraction"]), 1:]
        assert ((drawn < row["low"]).sum(), (drawn > row["high"]).sum()) == (4, 4)  # 2 % of 200 and less
    narrow = summary(curve, n_resamples=200, confidence_level=0.5)
    assert all(wide["low"] < row["low"] < row["high"] < wide["high"] for wide, row in zip(rows, narrow, strict=True))


def test_compare():
    curve = noisy_study(1, n_patients=60)
    rows = compare(curve, "a", "b", n_resamples=400, margin=0.1)
    values = resampled_values(curve, n_resamples=400)
    for row, (own, *drawn) in zip(rows, values[0] - values[1], strict=True):
        error = np.std(drawn, ddof=1)
        between, n = 0.0, 0
        for split in range(2):
            pairs = zip(*(curve.select(arm=arm, fraction=row["fraction"], split=split) for arm in "ab"), strict=True)
            differences = [curve.evaluate(one) - curve.evaluate(other) for one, other in pairs]
            n += len(differences) - 1
            between += np.var(differences, ddof=1) / len(differences) / 4 if len(differences) > 1 else 0
        freedom = 59.0
        if n:  # Welch and Satterthwaite: repeats, and patients as the rest
            freedom = error**4 / (between**2 / n + max(0, error**2 - between) ** 2 / 59)
        half = student.ppf(0.975, freedom) * error
        assert row["difference"] == own
        assert (row["low"], row["high"]) == pytest.approx((own - half, own + half))
        assert row["non_inferior"] == (row["low"] > -0.1)
        assert row["p_value"] == pytest.approx(2 * student.sf(abs(own) / error, freedom))
        # Bonferroni over three fractions: 5 % / 3, two-sided; and 80 % power
        wanted = (student.ppf(1 - 0.025 / 3, freedom) + student.ppf(0.8, freedom)) * error
        assert row["detectable_effect"] == pytest.approx(wanted)
    assert [row["p_holm"] for row in rows] == holm([row["p_value"] for row in rows])
    for row, fraction in zip(rows, FRACTIONS, strict=True):
        names = [row[name] for name in ("arm", "reference", "metric", "fraction", "reference_fraction")]
        assert names == ["a", "b", curve.metrics[0], fraction, fraction]
    turned = compare(curve, "b", "a", n_resamples=400)
    for row, other in zip(rows, turned, strict=True):
        assert (row["low"], row["high"], row["p_value"]) == pytest.approx((-other["high"], -other["low"], other["p_value"]))


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_compare_is_the_paired_t_test_where_that_holds(shift):
    rng = np.random.default_rng(5)
    own = {arm: rng.normal(size=4) + shift * (arm == "a") for arm in "ab"}
    only_repeats = constant_study(lambda arm, fraction, repeat: own[arm][repeat], (1.0,), repeats=4)
    groups, scores = np.arange(40), {arm: rng.normal(size=40) + 0.3 * shift * (arm == "a") for arm in "ab"}
    only_patients = study(lambda arm, fraction, split, repeat, test: scores[arm], fractions=(1.0,), repeats=(1,),
                          splits=[(np.array([]), groups)], y=np.zeros(40), groups=groups, metric=mean_score)
    for curve, values in ((only_repeats, own), (only_patients, scores)):
        expected = ttest_rel(values["a"], values["b"])
        row = compare(curve, "a", "b", n_resamples=2000)[0]
        low, high = expected.confidence_interval()
        assert row["difference"] == pytest.approx((low + high) / 2)
        assert row["high"] - row["low"] == pytest.approx(high - low, rel=0.1)
        assert math.log(row["p_value"]) == pytest.approx(math.log(expected.pvalue), rel=0.15, abs=0.05)


def test_compare_with_another_fraction_of_the_reference():
    curve = noisy_study(1, n_patients=60)
    values = resampled_values(curve, n_resamples=400)
    rows = compare(curve, "a", "b", reference_fraction=0.1, n_resamples=400)
    for row, of_arm in zip(rows, values[0], strict=True):
        own, *drawn = of_arm - values[1, 0]
        assert row["difference"] == own
        assert (row["low"] + row["high"]) / 2 == pytest.approx(own)
        error = np.std(drawn, ddof=1)
        assert (row["high"] - row["low"]) / 2 >= 1.9 * error
    same_fraction = compare(curve, "a", "b", n_resamples=400)[0]
    assert [row["reference_fraction"] for row in rows] == [0.1] * len(FRACTIONS)
    assert rows[0] == same_fraction | {"p_holm": rows[0]["p_holm"], "claim": rows[0]["claim"]}


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_across_fractions_it_is_welchs_test_where_that_holds(shift):
    """Repeats of different budgets are no pairs; their numbers may differ."""
    rng = np.random.default_rng(3)
    own = {(arm, fraction): rng.normal(size=6) + shift * (arm == "a") for arm in "ab" for fraction in (0.5, 1.0)}
    curve = constant_study(lambda arm, fraction, repeat: own[arm, fraction][repeat], (0.5, 1.0), repeats=6)
    expected = ttest_ind(own["a", 0.5], own["b", 1.0], equal_var=False)
    row = compare(curve, "a", "b", reference_fraction=1.0, n_resamples=4000)[0]
    low, high = expected.confidence_interval()
    assert row["difference"] == pytest.approx((low + high) / 2)
    assert row["high"] - row["low"] == pytest.approx(high - low, rel=0.1)


def test_claims_and_non_inferiority():
    rng = np.random.default_rng(0)
    groups = np.arange(200)
    noise = rng.normal(size=200)
    level = {"better": 1.0, "same": 0.0, "worse": -1.0}
    own = {arm: level[arm] + noise + 0.1 * rng.normal(size=200) for arm in level}
    curve = study(lambda arm, fraction, split, repeat, test: own[arm], arms=tuple(level), repeats=(2, 2, 2),
                  splits=[(np.array([]), groups)], y=np.zeros(200), groups=groups, metric=mean_score)
    for arm, claim, non_inferior in (("better", "higher", True), ("worse", "lower", False), ("same", "undecided", True)):
        for row in compare(curve, arm, "same", n_resamples=300):
            assert (row["claim"], row["non_inferior"]) == (claim, non_inferior)
            # the pairs leave 0.1 of each arm's noise
            assert row["detectable_effect"] < 0.06


def test_a_p_value_is_never_0():
    curve = constant_study(lambda arm, fraction, repeat: {"a": 1.0, "b": 0.0}[arm], repeats=2)
    for row in compare(curve, "a", "b", n_resamples=10):
        assert row["low"] == row["high"] == 1 and 0 < row["p_value"] < 1e-300 and row["claim"] == "higher"


@pytest.mark.parametrize(("p_values", "adjusted"), [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 3 x 0.01; 1 x 0.04 raised to 2 x 0.03; 4 x 0.005
    ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ([0.6, 0.5], [1.0, 1.0]),
    ([0.04], [0.04]),
])
def test_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@given(st.integers(0, 2**16), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_identical_arms_do_not_differ(seed, n_splits):
    curve = noisy_study(seed, n_splits=n_splits, arms=("a",))
    twin = [Run(**{**vars(run), "arm": "twin"}) for run in curve.runs]
    curve = LabelEfficiencyCurve(**{**vars_of(curve), "arms": ("a", "twin"), "runs": curve.runs + twin})
    for row in compare(curve, "a", "twin", n_resamples=30):
        if not np.isnan(row["difference"]):
            assert (row["difference"], row["p_value"], row["p_holm"], row["claim"]) == (0, 1, 1, "undecided")
        if not np.isnan(row["low"]):
            assert (row["low"], row["high"], row["detectable_effect"]) == (0, 0, 0)
    found = label_saving(curve, "a", "twin", n_resamples=30)
    if not np.isnan(found.fraction):
        assert found.fraction <= 1 and found.high <= 1 and found.share_reached == 1


@given(st.integers(0, 2**16), st.floats(-10, 10))
@settings(max_examples=15, deadline=None)
def test_a_constant_shifts_the_difference(seed, constant):
    curve = noisy_study(seed, metric=mean_score)
    moved = [Run(**{**vars(run), "scores": run.scores + constant * (run.arm == "a")}) for run in curve.runs]
    other = LabelEfficiencyCurve(**{**vars_of(curve), "runs": moved})
    tables = (compare(each, "a", "b", n_resamples=20) for each in (curve, other))
    for before, after in zip(*tables, strict=True):
        for name in ("difference", "low", "high"):
            assert after[name] == pytest.approx(before[name] + constant, abs=1e-9, nan_ok=True)
        assert after["detectable_effect"] == pytest.approx(before["detectable_effect"], abs=1e-9, nan_ok=True)


@given(st.randoms(use_true_random=False))
@settings(max_examples=5, deadline=None)
def test_the_order_of_runs_does_not_matter(random):
    curve = noisy_study()
    runs = list(curve.runs)
    random.shuffle(runs)
    other = LabelEfficiencyCurve(**{**vars_of(curve), "runs": runs})
    random.shuffle(other.runs)
    same(summary(other, n_resamples=20), summary(curve, n_resamples=20))
    same(compare(other, "a", "b", n_resamples=20), compare(curve, "a", "b", n_resamples=20))
    assert label_saving(other, "a", "b", n_resamples=20) == label_saving(curve, "a", "b", n_resamples=20)


def vars_of(curve):
    names = ("arms", "label_fractions", "runs", "pretraining", "budgets", "splits", "y", "groups", "classes", "transductive",
             "settings")
    return {name: getattr(curve, name) for name in names} | {"metrics": curve._functions}


@given(st.lists(st.lists(st.floats(-5, 5), min_size=5, max_size=5), min_size=1, max_size=6))
@settings(deadline=None)
def test_isotonic_is_the_regression_of_sklearn(rows):
    for row, found in zip(rows, isotonic(np.array(rows)), strict=True):
        np.testing.assert_allclose(found, IsotonicRegression().fit_transform(np.arange(5), row), atol=1e-9)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.integers(0, 1000))
@settings(deadline=None)
def test_reaching_fraction_solves_the_curve(values, target):
    fractions, values, target = (0.02, 0.1, 0.4, 1.0), np.sort(values) / 1000, target / 1000
    found = reaching_fraction(fractions, values[None], np.array([target]))[0]
    curve = PchipInterpolator(np.log(fractions), values)
    if target > values[-1]:
        assert found == math.inf
    elif target <= values[0]:
        assert found == 0.02
    elif target in values:
        assert found == pytest.approx(fractions[np.searchsorted(values, target)], rel=1e-3)
    else:
        i = np.searchsorted(values, target)
        root = brentq(lambda x: curve(x) - target, *np.log(fractions[i - 1:i + 1]), xtol=1e-13)
        assert found == pytest.approx(math.exp(root), rel=1e-3) and curve(math.log(found)) == pytest.approx(target, abs=1e-9)


def test_reaching_fraction_of_curves_that_hardly_rise():
    curves = np.array([[0, 0, 5e-324], [0, 1e-300, 1]])
    found = reaching_fraction(FRACTIONS, curves, np.array([5e-324, 1]))
    assert 0.3 <= found[0] <= 1 and found[1] == pytest.approx(1)


def test_reaching_fraction_leaves_out_what_is_undefined():
    curves = np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 0.3], [0.1, 0.2, 0.3]])
    found = reaching_fraction(FRACTIONS, curves, np.array([0.2, 0.2, np.nan]))
    np.testing.assert_allclose(found, [0.3, np.nan, np.nan])
    assert np.isnan(reaching_fraction(FRACTIONS, curves[1:2], np.zeros(1))).all()


@pytest.mark.parametrize("k", [1, 1.5, 2, 4, 8])
def test_label_saving_without_noise(k):
    fractions = (0.02, 0.1, 0.3, 1.0)
    curve = constant_study(lambda arm, fraction, repeat: math.log((k if arm == "a" else 1) * fraction), fractions)
    found = label_saving(curve, "a", "b", n_resamples=50)
    for value in (found.fraction, found.low, found.high):
        assert value == pytest.approx(1 / k)
    assert found.factor == pytest.approx(k) and found.saving == pytest.approx(1 - 1 / k)
    assert (found.share_reached, found.reference_value, found.reference_fraction) == (1, 0, 1)
    assert f"(m 0.000) at label fraction {found.fraction:.3g} (95 %" in str(found)
    assert str(found).endswith(f": b needs {k:.3g} times as many labels.")
    back = label_saving(curve, "b", "a", n_resamples=50)
    assert (back.fraction == math.inf) is (k > 1)


def test_label_saving_is_relative_to_the_largest_fraction():
    curve = constant_study(lambda arm, fraction, repeat: math.log((2 if arm == "a" else 1) * fraction), (0.1, 0.25, 0.5))
    found = label_saving(curve, "a", "b", n_resamples=10)
    assert (found.fraction, found.reference_fraction) == (pytest.approx(0.25), 0.5)
    assert found.factor == pytest.approx(2) and found.saving == pytest.approx(0.5)


def test_what_is_not_reached_and_what_is_reached_at_once():
    curve = constant_study(lambda arm, fraction, repeat: {"a": 5.0, "b": 1.0}[arm] + fraction)
    at_once = label_saving(curve, "a", "b", n_resamples=20)
    assert (at_once.fraction, at_once.low, at_once.high, at_once.factor) == (0.1, 0.1, 0.1, 10)
    assert "at label fraction <= 0.1 (95 % interval <= 0.1 to <= 0.1): b needs at least 10 times" in str(at_once)
    never = label_saving(curve, "b", "a", n_resamples=20)
    assert (never.fraction, never.low, never.high, never.share_reached) == (math.inf, math.inf, math.inf, 0)
    assert np.isnan([never.saving, never.factor]).all()
    assert "does not reach" in str(never) and "(95 % interval not reached to not reached); it does in 0 %" in str(never)
    for found in (at_once, never):
        back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert back["fraction"] == (None if found is never else 0.1)
        assert set(back) == {*type(found).__dataclass_fields__, "saving", "factor"}


def test_a_chance_peak_is_not_enough():
    value = {("a", 0.1): 0.9, ("a", 0.3): 0.5, ("a", 1.0): 0.6, ("b", 0.1): 0.5, ("b", 0.3): 0.6, ("b", 1.0): 0.8}
    curve = constant_study(lambda arm, fraction, repeat: value[arm, fraction])
    assert label_saving(curve, "a", "b", n_resamples=20).fraction == math.inf


def test_ends_of_the_interval_can_be_open():
    # repeats differ by much more than the curve rises
    sign = {"a": 1, "b": -1}
    curve = constant_study(lambda arm, fraction, repeat: fraction + 5 * sign[arm] * (-1) ** repeat, repeats=6)
    found = label_saving(curve, "a", "b", n_resamples=400)
    assert (found.low, found.high) == (0.1, math.inf) and 0 < found.share_reached < 1
    assert "95 % interval <= 0.1 to not reached" in str(found)
    assert found.to_dict()["high"] is None


@pytest.mark.parametrize(("call", "message"), [
    (lambda c: summary(c, confidence_level=95), "confidence_level is 95; expected a number between 0 and 1"),
    (lambda c: summary(c, "x"), "no metric 'x'"),
    (lambda c: summary(c, n_resamples=0), "n_resamples"),
    (lambda c: compare(c, "a", "z"), "There is no arm 'z'; the study has 'a', 'b'"),
    (lambda c: compare(c, "a", "b", margin=-0.1), "margin is -0.1"),
    (lambda c: compare(c, "a", "b", confidence_level=0), "confidence_level"),
    (lambda c: compare(c, "a", "b", reference_fraction=0.7), "reference_fraction=0.7 is none of the study's"),
    (lambda c: label_saving(c, "z", "a"), "There is no arm 'z'"),
    (lambda c: label_saving(c, "a", "b", confidence_level=1), "confidence_level"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(constant_study(lambda arm, fraction, repeat: fraction))


def test_one_fraction_saves_nothing():
    curve = constant_study(lambda arm, fraction, repeat: fraction, (1.0,))
    assert len(compare(curve, "a", "b", n_resamples=10)) == 1
    with pytest.raises(ValueError, match=r"one label fraction, 1; .* more label_fractions"):
        label_saving(curve, "a", "b")


def test_a_real_study():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 3)
    y = np.repeat(rng.choice(["no", "yes", "maybe"], size=60), 3)
    X = rng.normal(size=(180, 8)) + 2 * (y == "yes")[:, None] * (np.arange(8) == 0)
    weak = LogisticRegression(C=1e-6)
    curve = label_efficiency_curve({"good": LogisticRegression(), "weak": weak}, X, y, groups=groups, cv=2,
                                   label_fractions=(0.2, 0.5, 1.0), n_repeats=(3, 2, 1), scoring=["roc_auc", "accuracy"],
                                   verbose=0, random_state=0)
    for metric in curve.metrics:
        for row in summary(curve, metric, n_resamples=100):
            own = [entry["value"] for entry in curve.table if (entry["arm"], entry["fraction"], entry["metric"]) == (
                row["arm"], row["fraction"], metric)]
            assert row["value"] == pytest.approx(np.mean(own)) and row["low"] < row["value"] < row["high"]
            assert row["n_runs"] == len(own)
    assert compare(curve, "good", "weak", "accuracy", n_resamples=100)[-1]["difference"] > 0
    assert label_saving(curve, "good", "weak", metric="accuracy", n_resamples=100).metric == "accuracy"


def mean_difference_study(k, seed, n_features=50, n_train=400, n_test=200, n_repeats=3):
    """One arm projects on the difference of class means of its labels, the other on that of k times as many."""
    rng, fractions = np.random.default_rng(seed), (0.02, 0.05, 0.1, 0.3, 1.0)
    n = n_train + n_test
    y = np.arange(n) % 2
    centre = np.zeros(n_features)
    centre[0] = 0.75
    X = rng.normal(size=(n, n_features)) + np.where(y[:, None] == 1, centre, -centre)
    orders = [[rng.permutation(np.flatnonzero(y[:n_train] == label)) for label in (0, 1)] for _ in range(n_repeats)]

    def scores_of(arm, fraction, split, repeat, test):
        means = []
        for label, order in enumerate(orders[repeat]):
            rows = order[:round(fraction * len(order))]
            further = round((k - 1) * len(rows)) if arm == "more" else 0
            drawn = np.sqrt(further) * rng.normal(size=n_features) + further * (2 * label - 1) * centre
            means.append((X[rows].sum(axis=0) + drawn) / (len(rows) + further))
        return X[test] @ (means[1] - means[0])

    return study(scores_of, arms=("more", "given"), fractions=fractions, repeats=(n_repeats,) * 5,
                 splits=[(np.arange(n_train), np.arange(n_train, n))], y=y, groups=np.arange(n))


def test_the_interval_covers_a_known_answer():
    # benchmarks/label_efficiency/coverage.py is the full version; here 30 replications, 0.95 of which are 28.5
    found = [
        label_saving(mean_difference_study(4, seed), "more", "given", n_resamples=200) for seed in range(30)
    ]
    assert sum(saving.low <= 1 / 4 <= saving.high for saving in found) >= 25
    assert 0.17 < np.median([saving.fraction for saving in found]) < 0.37
    assert sum(saving.low <= 1 / 40 for saving in found) <= 10     # and can tell it from another
    assert sum(saving.high >= 1 for saving in found) <= 22
