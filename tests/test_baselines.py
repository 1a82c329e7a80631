"""The baseline of the benchmarks: convolutions against a naive loop, intervals of known rhythms, the pipeline on ECGs."""

import importlib.util
import pickle
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skecg.datasets import make_ecg
from skecg.metrics import macro_roc_auc

PATH = Path(__file__).parents[1] / "benchmarks" / "_baselines.py"
if not PATH.exists():
    pytest.skip("the benchmarks belong to the source tree, not to an installed package", allow_module_level=True)
spec = importlib.util.spec_from_file_location("_baselines", PATH)
baselines = importlib.util.module_from_spec(spec)
spec.loader.exec_module(baselines)
MiniRocket, IntervalMorphology = baselines.MiniRocket, baselines.IntervalMorphology
BlockScaler, baseline = baselines.BlockScaler, baselines.baseline


def signals(n_samples=5, n_leads=3, n_times=40, seed=0):
    """Whole numbers: sums of them are exact in any order, so that comparisons are, too."""
    return np.random.default_rng(seed).integers(-50, 51, (n_samples, n_leads, n_times)).astype(np.float32)


def convolve(signal, dilation, places):
    """One kernel over one signal with zeros beyond its ends, point by point."""
    out = np.zeros(len(signal))
    for t in range(len(signal)):
        for j in range(9):
            at = t + (j - 4) * dilation
            if 0 <= at < len(signal):
                out[t] += (2 if j in places else -1) * signal[at]
    return out


def naive_transform(rocket, X):
    """The features one by one, of (n_samples, n_leads, n_times)."""
    rows = []
    for sample in X:
        row = []
        for i, dilation in enumerate(rocket.dilations_):
            for k, places in enumerate(combinations(range(9), 3)):
                convolved = convolve(sample[rocket.leads_[i, k]].sum(axis=0), dilation, places)
                if (i + k) % 2:  # every second combination only where the kernel lies inside the signal
                    convolved = convolved[4 * dilation : len(convolved) - 4 * dilation]
                row += [np.mean(convolved > bias) for bias in rocket.biases_[i][k]]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("n_leads", "n_times", "n_features"), [(3, 40, 300), (1, 25, 84), (12, 33, 700), (2, 9, 200)])
def test_transform_against_naive_loop(n_leads, n_times, n_features):
    X = signals(4, n_leads, n_times)
    rocket = MiniRocket(n_features, random_state=0).fit(X[:3])
    features = rocket.transform(X)
    assert features.dtype == np.float32
    assert features.shape == (4, 84 * (n_features // 84)) == (4, len(rocket.get_feature_names_out()))
    assert_allclose(features, naive_transform(rocket, X), rtol=1e-6)
    assert len(np.unique(features)) > 2  # neither all 0 nor all 1


def test_biases_are_quantiles_at_multiples_of_the_golden_ratio():
    X = signals(1, 2, 60)  # one sample, so that it is known where biases come from
    rocket = MiniRocket(84 * 7, random_state=3).fit(X)
    number = 0
    for i, dilation in enumerate(rocket.dilations_):
        for k, places in enumerate(combinations(range(9), 3)):
            convolved = convolve(X[0][rocket.leads_[i, k]].sum(axis=0), dilation, places)
            for bias in rocket.biases_[i][k]:
                number += 1
                assert bias == pytest.approx(np.quantile(convolved, number * (1 + 5**0.5) / 2 % 1), rel=1e-5, abs=1e-4)
    assert number == 84 * 7


def test_every_training_sample_and_every_lead_is_used():
    X = np.zeros((3, 4, 50), np.float32)
    X[1] = signals(1, 4, 50)[0]
    rocket = MiniRocket(84 * 8, random_state=0).fit(X)
    share = np.mean([np.any(biases != 0, axis=1).mean() for biases in rocket.biases_])
    assert 0.2 < share < 0.45  # a third of the biases come from the sample that is not flat
    assert rocket.leads_.any(axis=-1).all()
    assert (rocket.leads_.mean(axis=(0, 1)) > 0.3).all()  # of 1 to 4 leads, 1.9 on average, each is in nearly half
    assert set(rocket.leads_.sum(axis=-1).ravel()) == {1, 2, 3, 4}


@settings(deadline=None, max_examples=30)
@given(st.integers(9, 3000), st.integers(84, 12_000))
def test_layout(n_times, n_features):
    rocket = MiniRocket(n_features)
    rocket.n_times_in_ = n_times
    dilations, n_biases = rocket._layout()
    assert n_biases.sum() == n_features // 84 and n_biases.min() >= 1
    assert dilations[0] == 1 and (np.diff(dilations) > 0).all() and len(dilations) <= 32
    assert 8 * dilations[-1] < n_times  # the longest kernel fits into the window


def test_samples_do_not_depend_on_each_other_and_units_do_not_matter():
    X = np.random.default_rng(0).standard_normal((6, 12, 100)).astype(np.float32)
    rocket = MiniRocket(504, random_state=0).fit(X)
    features = rocket.transform(X)
    assert_array_equal(rocket.transform(X[[4, 1]]), features[[4, 1]])
    assert_array_equal(clone(rocket).fit(X / 1024).transform(X / 1024), features)


def test_missing_leads_count_as_zeros():
    X = signals()
    zeros, missing = X.copy(), X.copy()
    zeros[1, 2], missing[1, 2] = 0, np.nan
    zeros[3, :2], missing[3, :2] = 0, np.nan
    one, other = (MiniRocket(168, random_state=1).fit(Z) for Z in (zeros, missing))
    assert_array_equal(one.transform(zeros), other.transform(missing))
    assert not np.array_equal(one.transform(zeros), one.transform(X))


def test_two_dimensions_are_one_lead():
    X = signals(n_leads=1)
    rocket = MiniRocket(168, random_state=0)
    assert_array_equal(rocket.fit_transform(X[:, 0]), clone(rocket).fit_transform(X))


def test_seed_clone_and_pickle(monkeypatch):
    X = signals()
    rocket = MiniRocket(168, random_state=0).fit(X)
    features = rocket.transform(X)
    assert_array_equal(clone(rocket).fit_transform(X), features)
    monkeypatch.setitem(sys.modules, spec.name, baselines)  # where pickle looks for the class
    assert_array_equal(pickle.loads(pickle.dumps(rocket)).transform(X), features)
    assert not np.array_equal(MiniRocket(168, random_state=1).fit_transform(X), features)
    assert not hasattr(clone(rocket), "biases_")


def test_errors():
    with pytest.raises(ValueError, match="at least 9"):
        MiniRocket().fit(signals(n_times=8))
    with pytest.raises(ValueError, match="'n_features' parameter of MiniRocket"):
        MiniRocket(83).fit(signals())
    with pytest.raises(NotFittedError):
        MiniRocket().transform(signals())
    rocket = MiniRocket(84).fit(signals())
    with pytest.raises(ValueError, match="lead"):
        rocket.transform(signals(n_leads=2))
    with pytest.raises(ValueError, match="41"):
        rocket.transform(signals(n_times=41))


def pulses(times, duration=10.0, fs=100.0, n_leads=2, height=1.0):
    """Beats at given seconds: a narrow QRS complex and a T wave 0.3 s later, a fifth as high."""
    t = np.arange(round(duration * fs)) / fs
    lead = sum(height * (np.exp(-((t - at) / 0.015) ** 2) + 0.2 * np.exp(-((t - at - 0.3) / 0.05) ** 2)) for at in times)
    return np.stack([lead * (1 + i) for i in range(n_leads)]).astype(np.float32)


@pytest.mark.parametrize("fs", [100.0, 360.0])
def test_intervals_of_known_rhythms(fs):
    regular = np.arange(0.5, 9.9, 0.8)
    alternating = 0.5 + np.cumsum(np.tile([0.7, 0.9], 5))
    X = np.stack([pulses(times, fs=fs) for times in (regular, alternating)])
    number, rate, typical, deviation = IntervalMorphology(fs).fit_transform(X)[:, :4].T
    assert_array_equal(number, [len(regular), len(alternating)])
    assert_allclose(rate[0], 75, rtol=0.02)
    assert_allclose(typical[0], 0.8, rtol=0.02)
    assert deviation[0] < 0.01
    assert_allclose(deviation[1], 0.1, atol=0.01)


def test_median_beat_and_amplitudes():
    fs, n_points = 200.0, 170  # as many points as the beat has samples
    X = pulses(np.arange(0.6, 9.5, 0.9), fs=fs)[None]
    X[0, :, 880:960] += 3  # one beat disturbed
    n_leads = X.shape[1]
    features = IntervalMorphology(fs, n_points=n_points).fit_transform(X)[0]
    beats = features[13 : 13 + n_leads * n_points].reshape(n_leads, n_points)
    assert_allclose(beats.max(axis=1), [1, 2], rtol=0.02)
    assert_allclose(beats[1], 2 * beats[0], atol=1e-5)
    seconds = np.linspace(-0.35, 0.5 - 1 / fs, n_points)
    assert abs(seconds[beats[0].argmax()]) < 0.02
    assert_allclose(beats[0][np.abs(seconds - 0.3).argmin()], 0.2, atol=0.02)
    p_max, p_min, qrs_max, qrs_min, t_max, _ = features[13 + n_leads * n_points :][: 6 * n_leads].reshape(6, n_leads)
    assert_allclose(qrs_max, [1, 2], rtol=0.02)
    assert_allclose(t_max, [0.2, 0.4], rtol=0.05)
    assert_allclose([p_max, p_min, qrs_min], 0, atol=0.03)


def test_intervals_around_a_known_beat():
    X = np.stack([pulses(times, 1.8, n_leads=1) for times in ([0.3, 0.8, 1.2, 1.65], [0.2, 1.2], [1.2])])
    last, last_but_one, following, number, ratio, enough = IntervalMorphology(100, beat=1.2).fit_transform(X)[:, :6].T
    assert_allclose(last, [0.4, 1.0, 1.2], atol=0.02)  # up to the start of the window where there is none before
    assert_allclose(last_but_one[0], 0.5, atol=0.02)
    assert_allclose(following, [0.45, 0.6, 0.6], atol=0.02)
    assert_array_equal(number, [4, 2, 1])
    assert_array_equal(enough, [1, 0, 0])
    assert_allclose(ratio, last / last_but_one, rtol=1e-5)


@pytest.mark.parametrize("beat", [None, 0.0, 1.2])
def test_morphology_of_flat_short_or_missing_signals_is_finite(beat):
    X = signals(4, 3, 200)
    X[0] = 0
    X[1, 1:] = np.nan
    X[2, :, 40:] = 0
    morphology = IntervalMorphology(100, beat)
    features = morphology.fit_transform(X)
    assert np.isfinite(features).all()
    assert features.shape[1] == len(morphology.get_feature_names_out())
    assert_array_equal(features, clone(morphology).fit_transform(np.nan_to_num(X)))
    assert_array_equal(features[[2, 1]], morphology.transform(X[[2, 1]]))


def test_morphology_errors():
    with pytest.raises(ValueError, match=r"0.4 s at fs=100; expected 0.85 s or more"):
        IntervalMorphology(100).fit(signals())
    with pytest.raises(ValueError, match=r"expected 1\.6 s"):
        IntervalMorphology(100, beat=1.2).fit(signals(n_times=150))
    with pytest.raises(ValueError, match="'fs' parameter"):
        IntervalMorphology(20).fit(signals())


def test_block_scaler_gives_every_block_variance_one():
    X = np.random.default_rng(0).normal(3, [1, 2, 5], (50, 3))
    X[:, 1] = 4  # constant
    Z = BlockScaler().fit_transform(X)
    assert_allclose(Z.var(axis=0).sum(), 2 / 3)
    assert_allclose(BlockScaler().fit(X).inverse_transform(Z), X)


@pytest.mark.parametrize("kind", ["two classes", "classes", "indicator"])
def test_baseline_tells_patients_apart(kind):
    classes = ("normal", "left bundle branch block", "right bundle branch block")
    X, y, _ = make_ecg(80, n_patients=80, classes=classes, lead_names=("I", "V1", "V6"), random_state=0)
    if kind == "two classes":
        y = np.where(y == "normal", "normal", "block")
    if kind == "indicator":
        y = (y[:, None] == np.unique(y)).astype(int)
    test = np.arange(80) % 4 == 0
    model = baseline(100, n_features=252, random_state=0).fit(X[~test], y[~test])
    scores = model.predict_proba(X[test])
    assert scores.shape == (test.sum(), 2 if kind == "two classes" else 3)
    assert scores.min() >= 0 and scores.max() <= 1
    assert macro_roc_auc(y[test], scores, labels=None if kind == "indicator" else model.classes_) > 0.9
