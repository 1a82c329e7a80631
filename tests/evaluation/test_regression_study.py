"""Label-efficiency studies of regressors: positions in mm, where the metric is negative and larger is better."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg import ECGRegressor, ECGSelfSupervisedEmbedder, HeadRegressor
from skecg.encoders import PatchTransformer
from skecg.evaluation import (
    LabelEfficiencyCurve,
    LabelEfficiencyDisplay,
    compare,
    label_efficiency_curve,
    label_saving,
    summary,
)
from skecg.metrics import localization_error, share_localized

BOTH = ["neg_localization_error", "localized_within_10_mm"]


def study(arms, X, y, groups, **options):
    options = {"label_fractions": (0.1, 0.3, 1.0), "cv": 2, "n_repeats": 2, "verbose": 0, "random_state": 0,
               "scoring": BOTH, **options}
    return label_efficiency_curve(arms, X, y, groups=groups, **options)


@pytest.fixture(scope="module")
def sites():
    """Features of beats that are paced from sites in mm, three beats of each of 40 patients."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 3)
    y = rng.uniform(-40, 40, size=(40, 3))[patients]
    return np.hstack([y / 20, rng.normal(size=(120, 3))]) + 0.1 * rng.normal(size=(120, 6)), y, patients


@pytest.fixture(scope="module")
def curve(sites):
    arms = {"good": Ridge(1e-3), "poor": Ridge(100.0), "mean": DummyRegressor()}
    return study(arms, *sites)


def test_values_are_those_of_the_metrics(curve, sites):
    X, y, patients = sites
    assert curve.classes is None and curve.metrics == tuple(BOTH)
    for run in curve.select(arm="good", fraction=1.0):
        train, test = curve.splits[run.split]
        assert not set(patients[train]) & set(patients[test])
        predicted = Ridge(1e-3).fit(X[train], y[train]).predict(X[test])
        assert_allclose(run.predictions, predicted, rtol=1e-6)
        assert_allclose(curve.evaluate(run), -localization_error(y[test], predicted), rtol=1e-6)
        assert curve.evaluate(run, BOTH[1]) == share_localized(y[test], predicted)
        weights = np.random.default_rng(0).integers(0, 3, size=(5, len(test)))
        for value, weight in zip(curve.evaluate(run, weights=weights), weights, strict=True):
            drawn = np.repeat(np.arange(len(test)), weight)
            assert_allclose(value, -localization_error(y[test][drawn], run.predictions[drawn]))


def test_budgets_are_nested_whole_patients(curve, sites):
    for (train, _), budgets in zip(curve.splits, curve.budgets, strict=True):
        patients = sites[2][train]
        assert [budget.n_patients for budget in budgets] == [2, 6, 20] * 2
        for small, large in pairwise(budgets):
            if small.repeat == large.repeat:
                assert set(small.patients) < set(large.patients)
        for budget in budgets:
            assert budget.class_counts == {}
            assert_array_equal(np.flatnonzero(np.isin(patients, budget.patients)), budget.rows)


def test_tables_and_claims(curve):
    rows = {(row["arm"], row["fraction"]): row for row in summary(curve, n_resamples=200)}
    assert all(row["low"] <= row["value"] <= row["high"] < 0 for row in rows.values())
    assert rows["good", 1.0]["value"] > rows["good", 0.1]["value"] > rows["mean", 1.0]["value"]
    full = compare(curve, "good", "mean", margin=1.0, n_resamples=200)[-1]
    assert full["claim"] == "higher" and full["low"] > 0 and full["non_inferior"]
    assert full["difference"] > 20  # mm
    assert compare(curve, "mean", "good", margin=1.0, n_resamples=200)[-1]["claim"] == "lower"


def test_labels_that_are_saved(curve):
    found = label_saving(curve, "good", "poor", n_resamples=200)
    assert 0 < found.fraction < 1 and found.reference_value < 0 and found.saving > 0
    assert "good reaches what poor reaches at label fraction 1 (neg_localization_error -" in str(found)
    never = label_saving(curve, "mean", "good", n_resamples=200)
    assert np.isinf(never.fraction) and "mean does not reach what good reaches" in str(never)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib's own dependencies
def test_the_axis_says_millimetres(curve):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    assert [curve.unit(metric) for metric in (None, *BOTH)] == ["mm", "mm", ""]
    display = LabelEfficiencyDisplay(curve).plot(saving=("good", "poor"), n_resamples=50)
    assert display.ax_.get_ylabel() == "neg localization error (mm)"
    assert (display.lines_["good"].get_ydata() < 0).all()
    low, high = display.ax_.get_ylim()
    assert low < display.lines_["mean"].get_ydata().min() and high > display.lines_["good"].get_ydata().max()
    assert LabelEfficiencyDisplay(curve).plot(BOTH[1], n_resamples=50).ax_.get_ylabel() == "localized within 10 mm"
    plt.close("all")


def test_saved_and_read(curve, tmp_path):
    curve.save(tmp_path / "study.npz")
    again = LabelEfficiencyCurve.load(tmp_path / "study.npz")
    assert again.table == curve.table and again.unit() == "mm"
    assert_array_equal(again.y, curve.y)


def test_networks_share_a_pretraining():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 2)
    y = rng.uniform(-40, 40, size=(20, 3))[patients]
    X = (0.1 * rng.normal(size=(40, 2, 50)) + (y / 40)[:, :2, None]).astype(np.float32)
    embedder = ECGSelfSupervisedEmbedder(PatchTransformer(10, embed_dim=8, depth=1, n_heads=2), max_epochs=1)
    options = {"max_epochs": 1, "min_updates": 4}
    arms = {
        "fine-tuned": ECGRegressor(embedder, **options), "probe": make_pipeline(embedder, HeadRegressor(**options)),
        "searched": GridSearchCV(ECGRegressor(embedder, **options), {"learning_rate": [1e-4, 1e-2]}, cv=2),
    }
    curve = study(arms, X, y, patients, label_fractions=(0.3, 1.0), n_repeats=1, scoring=BOTH[0])
    assert [entry["arms"] for entry in curve.pretraining] == [["fine-tuned", "probe", "searched"]] * 2
    assert all(run.predictions.shape == (20, 3) and run.n_updates == 4 for run in curve.runs)
    assert set(curve.select(arm="searched")[0].best_params) == {"learning_rate"}


def test_a_regressor_without_an_embedder_pretrains_the_default_one():
    from skecg.evaluation._pretraining import find_pretraining

    assert [job.embedder.max_epochs for job in find_pretraining(ECGRegressor())] == [100]


def test_a_budget_of_one_site_predicts_it(sites):
    X, y, patients = sites
    curve = study({"head": HeadRegressor(max_epochs=1)}, X, y, patients, label_fractions=(0.05, 1.0), n_repeats=1)
    for run in curve.select(fraction=0.05):
        train, _ = curve.splits[run.split]
        only = y[train][next(budget for budget in curve.budgets[run.split] if budget.fraction == 0.05).rows]
        assert run.n_patients == 1 and run.n_updates is None
        assert_array_equal(run.predictions, np.tile(only[0], (len(run.predictions), 1)))


def test_whole_millimetres_and_a_column(sites):
    X, y, patients = sites
    for target in (np.rint(y).astype(int), np.rint(y), y[:, :1], np.rint(y[:, 0]).astype(int)):
        curve = study({"ridge": Ridge()}, X, target, patients, n_repeats=1)
        assert curve.classes is None
        assert curve.evaluate(curve.select(fraction=1.0)[0]) > -10
        again = study({"ridge": Ridge()}, X, target, patients, budgets=curve.budgets)
        assert again.table[0]["value"] == curve.table[0]["value"]


def test_metrics_of_the_other_kind_are_refused(sites):
    X, y, patients = sites
    with pytest.raises(ValueError, match=r"scoring='roc_auc' is for classes, but y is continuous.*'neg_localization"):
        study({"ridge": Ridge()}, X, y, patients, scoring="roc_auc")
    with pytest.raises(ValueError, match="'neg_localization_error' is for positions that regressors predict, but y holds"):
        study({"a": LogisticRegression()}, X, patients % 2, patients, cv=GroupKFold(2), scoring="neg_localization_error")


@pytest.mark.parametrize("scoring", [
    localization_error, {"upper quartile": partial(localization_error, quantile=0.75)}, [BOTH[0], mean_absolute_error],
])
def test_errors_are_no_scores(sites, scoring):
    with pytest.raises(ValueError, match=r"smaller for better predictions.*Use 'neg_localization_error'"):
        study({"ridge": Ridge()}, *sites, scoring=scoring)


def test_a_share_within_another_radius_is_a_score(sites):
    curve = study({"ridge": Ridge()}, *sites, scoring={"within 5 mm": partial(share_localized, radius=5)}, n_repeats=1)
    assert 0 < curve.evaluate(curve.select(fraction=1.0)[0]) <= 1


def test_early_stopping_needs_two_patients_in_every_budget(sites):
    X, y, patients = sites
    y = y + np.random.default_rng(0).normal(size=y.shape)  # else a budget of one patient has one value, and trains nothing
    options = {"label_fractions": (0.05, 1.0), "n_repeats": 1, "cv": 2, "scoring": BOTH[0]}
    head = HeadRegressor(max_epochs=1, early_stopping=True)
    for arm in (head, make_pipeline(StandardScaler(), head)):
        with pytest.raises(ValueError, match=r"arm 'head' has early_stopping=True.* 0.05 in split 0 has a single one"):
            study({"ridge": Ridge(), "head": arm}, X, y, patients, **options)
        study({"head": arm}, X, y, patients, **{**options, "label_fractions": (0.1, 1.0)})
        study({"head": arm}, *sites, **options)
