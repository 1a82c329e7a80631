"""Errors of positions, against loops over samples and against repeated rows."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import special_ortho_group
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg.metrics import (
    _common,
    aggregate_windows,
    bootstrap_interval,
    bootstrap_weights,
    get_scorer,
    localization_error,
    resample_metric,
    share_localized,
)

NAMES = {
    "neg_localization_error": lambda true, predicted: -localization_error(true, predicted),
    "localized_within_10_mm": share_localized,
}


def draw(n, n_coordinates=3, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.normal(scale=30.0, size=(n, n_coordinates))
    return true, true + rng.normal(scale=8.0, size=true.shape)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("n_coordinates", [1, 2, 3])
def test_is_the_middle_of_the_distances(n, n_coordinates):
    true, predicted = draw(n, n_coordinates)
    distances = sorted(math.dist(a, b) for a, b in zip(true, predicted, strict=True))
    assert_allclose(localization_error(true, predicted), (distances[(n - 1) // 2] + distances[n // 2]) / 2)
    assert_allclose(localization_error(true, predicted, quantile=0), distances[0])
    assert_allclose(localization_error(true, predicted, quantile=1), distances[-1])
    assert share_localized(true, predicted) == np.mean([distance <= 10 for distance in distances])
    assert share_localized(true, predicted, radius=5) <= share_localized(true, predicted, radius=20)
    if n_coordinates == 1:
        for a, b in ((true[:, 0], predicted[:, 0]), (true, predicted[:, 0]), (true[:, 0], predicted)):
            assert localization_error(a, b) == localization_error(true, predicted)


def test_the_interquartile_range_at_once():
    true, predicted = draw(50)
    low, middle, high = localization_error(true, predicted, quantile=(0.25, 0.5, 0.75))
    assert low < middle < high
    for quantile, value in ((0.25, low), (0.5, middle), (0.75, high)):
        assert localization_error(true, predicted, quantile=quantile) == value
    assert isinstance(localization_error(true, predicted), float)


@given(seed=st.integers(0, 2**31), shift=st.floats(-1e3, 1e3), scale=st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_depends_on_distances_only(seed, shift, scale):
    true, predicted = draw(15, seed=seed)
    turn = special_ortho_group.rvs(3, random_state=seed)
    moved = [scale * points @ turn + shift for points in (true, predicted)]
    assert_allclose(localization_error(*moved), scale * localization_error(true, predicted), rtol=1e-8)
    assert_allclose(share_localized(*moved, radius=9.7 * scale), share_localized(true, predicted, radius=9.7))
    assert localization_error(true, true) == 0 and share_localized(true, true) == 1


@pytest.mark.parametrize("metric", [localization_error, share_localized])
def test_records_are_counted_once(metric):
    true, _ = draw(4)
    record_ids = np.repeat(["d", "b", "a", "c"], [1, 5, 2, 3])
    windows, predicted = np.repeat(true, [1, 5, 2, 3], axis=0), np.zeros((11, 3))
    rng = np.random.default_rng(1)
    for i in range(11):
        predicted[i] = windows[i] + rng.normal(scale=10.0, size=3)
    predicted[3] = np.nan  # an unusable window of record b
    means = np.array([np.nanmean(predicted[record_ids == name], axis=0) for name in "dbac"])
    assert_allclose(metric(windows, predicted, record_ids=record_ids), metric(true, means))
    assert_allclose(aggregate_windows(predicted, record_ids).scores, means)
    with pytest.raises(ValueError, match="differs between windows of record b"):
        metric(windows + np.arange(11)[:, None], predicted, record_ids=record_ids)


@pytest.mark.parametrize(("true", "predicted", "options", "message"), [
    (np.zeros((3, 2)), np.zeros((3, 3)), {}, r"shape \(3, 2\) and y_pred \(3, 3\)"),
    (np.zeros(3), np.zeros((3, 2)), {}, "shape"),
    (np.zeros(3), 0.0, {}, "shape"),
    (np.zeros((3, 2, 1)), np.zeros((3, 2, 1)), {}, "shape"),
    (np.zeros((3, 2)), [[0, 0], [0, np.nan], [0, 0]], {}, "y_pred is not finite for 1 of 3 samples, first for sample 1"),
    ([[0, np.inf]], [[0, 0]], {}, "y_true is not finite for 1 of 1 samples"),
    (np.zeros(2), [np.nan, 0.0], {"record_ids": ["a", "b"]}, "y_pred is not finite for 1 of 2 records, first for record a"),
    (np.zeros(2), np.zeros(2), {"record_ids": ["a"]}, "inconsistent"),
])
def test_bad_positions(true, predicted, options, message):
    for metric in (localization_error, share_localized):
        with pytest.raises(ValueError, match=message):
            metric(true, predicted, **options)


@pytest.mark.parametrize("quantile", [-0.1, 1.5, float("nan"), (0.5, 2)])
def test_bad_quantile(quantile):
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        localization_error([0.0], [0.0], quantile=quantile)


@pytest.mark.parametrize("radius", [-1, float("nan"), (5, -1), None])
def test_bad_radius(radius):
    with pytest.raises(ValueError, match="expected a distance of at least 0"):
        share_localized([0.0], [0.0], radius=radius)


def test_several_radii_at_once():
    true, predicted = draw(50)
    shares = share_localized(true, predicted, radius=(0, 10, 20, np.inf))
    assert shares.tolist() == [share_localized(true, predicted, radius=radius) for radius in (0, 10, 20, np.inf)]
    assert 0 == shares[0] < shares[1] < shares[2] < shares[3] == 1
    assert isinstance(share_localized(true, predicted), float)


def test_nothing_has_no_error():
    nothing = np.zeros((0, 3))
    assert np.isnan(localization_error(nothing, nothing)) and np.isnan(share_localized(nothing, nothing))
    assert np.isnan(localization_error(nothing, nothing, quantile=(0.25, 0.75))).tolist() == [True, True]
    assert np.isnan(share_localized(nothing, nothing, radius=(5, 10))).tolist() == [True, True]


# --- resampled -------------------------------------------------------------------------------------------------


@given(data=st.data(), n=st.integers(1, 12), block=st.sampled_from([8, 200, 2**20]))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", NAMES)
def test_resamples_equal_repeated_rows(name, data, n, block):
    rows = st.lists(st.lists(st.integers(-12, 12), min_size=2, max_size=2), min_size=n, max_size=n)  # with ties
    true, predicted = (np.array(data.draw(rows), dtype=float) for _ in range(2))
    weights = np.array(data.draw(st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1, max_size=8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_common, "_BLOCK_BYTES", block)
        got = resample_metric(name, true, predicted, weights)
    for value, weight in zip(got, weights, strict=True):
        drawn = np.repeat(np.arange(n), weight)
        assert_allclose(value, NAMES[name](true[drawn], predicted[drawn]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_interval_over_patients(name):
    true, predicted = draw(60)
    patients = np.arange(60) // 3
    slow = bootstrap_interval(
        lambda rows: NAMES[name](true[rows], predicted[rows]), patients, n_resamples=200, random_state=0)
    weights = bootstrap_weights(patients, n_resamples=200, random_state=0)
    assert_allclose(np.quantile(resample_metric(name, true, predicted, weights), [0.025, 0.975]), slow)


# --- scorers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_scorer_in_cross_validation(name):
    true, _ = draw(60)
    X, groups = true + np.random.default_rng(1).normal(scale=6.0, size=true.shape), np.arange(60) // 3
    scorer = pickle.loads(pickle.dumps(get_scorer(name)))
    found = cross_validate(
        LinearRegression(), X, true, groups=groups, cv=GroupKFold(3), scoring=scorer, return_estimator=True)
    for value, model, (_, test) in zip(
            found["test_score"], found["estimator"], GroupKFold(3).split(X, true, groups), strict=True):
        assert_allclose(value, NAMES[name](true[test], model.predict(X[test])))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", [
    LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [1]}),
], ids=["classifier", "pipeline", "search"])
def test_scorer_refuses_classifiers_of_segments(name, model):
    segment = np.repeat(np.arange(1, 4), 10)
    X = np.eye(4)[segment]
    with pytest.raises(ValueError, match=f"'{name}' is for positions.* is a classifier"):
        cross_val_score(model, X, segment, scoring=get_scorer(name), cv=3, error_score="raise")


def test_a_search_takes_the_smallest_error():
    true, _ = draw(80)
    X = true + np.random.default_rng(1).normal(scale=3.0, size=true.shape)
    search = GridSearchCV(Ridge(), {"alpha": [1e-3, 1e6]}, scoring=get_scorer("neg_localization_error")).fit(X, true)
    assert search.best_params_ == {"alpha": 1e-3}
    assert -10 < search.best_score_ < 0


def test_scorer_of_records():
    true, predicted = draw(4)

    class Fixed:
        def predict(self, X):
            return X

    record_ids = np.repeat([3, 1, 2, 0], 2)
    windows = np.repeat(true, 2, axis=0)
    spread = np.tile([[5.0], [-5.0]], (4, 1))
    scorer = get_scorer("neg_localization_error")
    got = scorer(Fixed(), np.repeat(predicted, 2, axis=0) + spread, windows, record_ids=record_ids)
    assert_allclose(got, -localization_error(true, predicted))
