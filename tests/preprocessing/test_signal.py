"""Filters, scaling and lead selection against naive computations."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import butter, sosfiltfilt
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import skecg._validation
from skecg.preprocessing import BandpassFilter, LeadScaler, LeadSelector

ESTIMATORS = [
    BandpassFilter(fs=500), BandpassFilter(None, 40, fs=500), BandpassFilter(0.5, None, fs=500, order=2),
    LeadScaler(), LeadScaler("record"), LeadScaler("lead"), LeadSelector(), LeadSelector(["lead0"]),
]


@pytest.fixture
def X():
    X = np.random.default_rng(0).normal(0.3, 0.5, (7, 3, 400)).astype(np.float32)
    X[2, 1] = X[5, 0] = X[5, 2] = np.nan
    return X


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_dtype_missing_leads_and_blocks(estimator, dtype, X, monkeypatch):
    X = X.astype(dtype)
    before = X.copy()
    fitted = clone(estimator).fit(X)
    out = fitted.transform(X)
    assert out.dtype == dtype and out.ndim == 3
    if not isinstance(estimator, LeadSelector):
        assert out.shape == X.shape
        assert_array_equal(np.isnan(out), np.isnan(X))
    assert_array_equal(X, before)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), out)
    monkeypatch.setattr(skecg._validation, "_BLOCK_BYTES", 2 * X[0].nbytes)
    assert_allclose(clone(estimator).fit(X).transform(X), out, rtol=1e-6, atol=1e-6)
    tags = estimator.__sklearn_tags__().input_tags
    assert tags.two_d_array and tags.three_d_array and not tags.allow_nan


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_two_dimensions_are_one_lead(estimator, X):
    flat = X[:2, 0]
    two, three = clone(estimator).fit(flat), clone(estimator).fit(flat[:, None])
    assert two.transform(flat).shape == flat.shape
    assert_array_equal(two.transform(flat), three.transform(flat[:, None])[:, 0])
    names = two.get_feature_names_out()
    assert len(names) == 400 and names[0] == "x0"
    assert two.set_output(transform="pandas").transform(flat).shape == flat.shape


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_any_length_but_not_other_leads_nor_before_fit(estimator, X):
    estimator = clone(estimator)
    with pytest.raises(NotFittedError):
        estimator.transform(X)
    estimator.fit(X)
    assert estimator.transform(X[..., :150]).shape[2] == 150
    with pytest.raises(ValueError, match="LeadSelector"):
        estimator.transform(X[:2, :2])


def test_memmap_in_and_a_plain_array_out(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for estimator in ESTIMATORS:
        out = clone(estimator).fit(mapped).transform(mapped)
        assert type(out) is np.ndarray and out.flags.writeable
        assert_array_equal(out, clone(estimator).fit(X).transform(X))


@pytest.mark.parametrize(("low", "high", "kind", "edges", "extra"), [
    (0.5, 40.0, "bandpass", [0.5, 40.0], 500),
    (None, 40.0, "lowpass", 40.0, 15),
    (5.0, None, "highpass", 5.0, 50),
])
def test_filter_equals_scipy_lead_by_lead(low, high, kind, edges, extra):
    X = np.random.default_rng(1).normal(size=(3, 2, 2000))
    sos = butter(4, edges, btype=kind, fs=250, output="sos")
    fitted = BandpassFilter(low, high, fs=250).fit(X)
    expected = [[sosfiltfilt(sos, lead, padlen=extra) for lead in sample] for sample in X]
    assert_allclose(fitted.transform(X), expected, rtol=1e-10, atol=1e-12)
    single = fitted.transform(X.astype(np.float32))
    assert_allclose(single, expected, rtol=1e-3, atol=1e-6)


def test_filter_passes_and_stops_without_delay():
    t = np.arange(10_000) / 500
    passed = np.sin(2 * np.pi * 10 * t)
    stopped = 2 + np.sin(2 * np.pi * 100 * t) + np.sin(2 * np.pi * 0.1 * t)
    out = BandpassFilter(0.5, 40.0, fs=500).fit_transform((passed + stopped)[None, None])[0, 0]
    assert np.abs(out - passed)[3000:-3000].max() < 0.01
    at_edge = BandpassFilter(None, 40.0, fs=500).fit_transform(np.sin(2 * np.pi * 40 * t)[None])[0]
    assert_allclose(np.abs(at_edge[1000:-1000]).max(), 0.5, atol=0.01)  # -3 dB twice


@pytest.mark.parametrize("n_times", [1, 2, 5, 30])
def test_filter_on_short_signals(n_times):
    X = np.full((2, 1, n_times), 1.5)
    assert_allclose(BandpassFilter(fs=500).fit_transform(X), 0, atol=1e-6)
    assert_allclose(BandpassFilter(None, 40, fs=500).fit_transform(X), 1.5, atol=1e-6)


@pytest.mark.parametrize(("params", "match"), [
    ({"high": 50.0, "fs": 100}, r"high=50 Hz must be below half the sampling rate, 50 Hz .*high=None"),
    ({"low": 60.0, "high": None, "fs": 100}, "low=60 Hz must be below half"),
    ({"low": 40.0, "high": 30.0, "fs": 100}, "low=40 Hz must be below high=30 Hz"),
    ({"low": None, "high": None, "fs": 100}, "nothing to filter"),
    ({"low": 0.0, "fs": 100}, "'low' parameter"),
    ({"fs": -100}, "'fs' parameter"),
    ({"fs": None}, "'fs' parameter"),
    ({"fs": 100, "order": 0}, "'order' parameter"),
])
def test_filter_messages(params, match):
    with pytest.raises(ValueError, match=match):
        BandpassFilter(**params).fit(np.zeros((2, 1, 100)))


def test_sampling_rate_is_required():
    with pytest.raises(TypeError, match="fs"):
        BandpassFilter(0.5, 40.0)


@pytest.mark.parametrize(("scope", "axes"), [("dataset", (0, 2)), ("record", (1, 2)), ("lead", (2,))])
def test_scaler_equals_numpy(X, scope, axes):
    out = LeadScaler(scope).fit_transform(X)
    double = X.astype(np.float64)
    mean, std = (np.mean, np.std) if scope == "lead" else (np.nanmean, np.nanstd)
    expected = (double - mean(double, axes, keepdims=True)) / std(double, axes, keepdims=True)
    assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@given(
    X=arrays(np.float64, (4, 2, 6), elements=st.floats(-1e6, 1e6)), block=st.integers(1, 5),
    offset=st.sampled_from([0.0, 1e3]),
)
@settings(max_examples=60, deadline=None)
def test_scaler_statistics_do_not_depend_on_blocks(X, block, offset):
    X = X + offset
    saved, skecg._validation._BLOCK_BYTES = skecg._validation._BLOCK_BYTES, block * X[0].nbytes
    try:
        scaler = LeadScaler().fit(X)
    finally:
        skecg._validation._BLOCK_BYTES = saved
    assert_allclose(scaler.mean_, X.mean((0, 2)), rtol=1e-9, atol=1e-6)
    spread = X.std((0, 2))
    assert_allclose(scaler.scale_[scaler.scale_ != 1], spread[scaler.scale_ != 1], rtol=1e-6)
    assert np.isfinite(scaler.transform(X)).all()


@pytest.mark.parametrize("scope", ["dataset", "record", "lead"])
@pytest.mark.parametrize("level", [0.0, 0.1, 1e6, 1e-30])
def test_flat_leads_become_zero(scope, level):
    X = np.random.default_rng(0).normal(size=(3, 2, 50)).astype(np.float32)
    X[:, 1] = level
    out = LeadScaler(scope).fit_transform(X)
    assert np.isfinite(out).all()
    if scope != "record":
        assert_array_equal(out[:, 1], 0)
    assert_array_equal(LeadScaler(scope).fit_transform(np.full((2, 1, 9), level, np.float32)), 0)


def test_scaler_back_to_millivolt(X):
    scaler = LeadScaler().fit(X)
    back = scaler.inverse_transform(scaler.transform(X))
    assert back.dtype == np.float32
    assert_allclose(back, X, rtol=1e-4, atol=1e-6)
    for scope in ("record", "lead"):
        assert not hasattr(LeadScaler(scope).fit(X), "inverse_transform")


def test_scaler_of_a_lead_never_seen(X):
    X[5] = 1.0
    X[:, 1] = np.nan
    scaler = LeadScaler().fit(X)
    assert np.isnan(scaler.mean_[1]) and np.isnan(scaler.scale_[1])
    assert np.isnan(scaler.transform(np.ones_like(X))[:, 1]).all()
    scaler.set_params(scope="lead").fit(X)
    assert not hasattr(scaler, "mean_")


def test_scaler_wants_a_known_scope(X):
    with pytest.raises(ValueError, match="'scope' parameter"):
        LeadScaler("patient").fit(X)


def test_selector_reorders_and_fills(X):
    selector = LeadSelector(["V5", "lead AVR", "II"], input_lead_names=["MLII", "V1", "v5"]).fit(X)
    out = selector.transform(X)
    assert selector.lead_names_in_ == ("MLII", "V1", "v5")
    assert selector.lead_names_out_ == ("V5", "lead AVR", "II")
    assert_array_equal(out[:5, [0, 2]], X[:5, [2, 0]])
    assert np.isnan(out[:5, 1]).all()
    assert selector.get_feature_names_out().tolist() == ["V5", "lead AVR", "II"]
    out[:] = 0
    assert X[0, 0, 0] != 0


def test_selector_defaults():
    X = np.random.default_rng(0).normal(size=(2, 12, 20))
    assert_array_equal(LeadSelector(["V6", "aVR"]).fit_transform(X), X[:, [11, 3]])
    assert_array_equal(LeadSelector().fit_transform(X), X)
    one = LeadSelector(["II", "V1"], input_lead_names=["II"]).fit(X[:, 1])
    assert one.transform(X[:, 1]).shape == (2, 2, 20)
    pipe = make_pipeline(LeadSelector(["II"]), LeadScaler("lead")).fit(X)
    assert_allclose(pipe.transform(X).std(axis=2), 1)


@pytest.mark.parametrize(("params", "match"), [
    ({"lead_names": ["aVx"]}, r"Unknown lead 'aVx'.*Did you mean 'aV.'"),
    ({"lead_names": ["V1", "V2"]}, r"none of the leads V1, V2; it has lead0, lead1.*input_lead_names="),
    ({"lead_names": []}, "lead_names is empty"),
    ({"lead_names": ["II", "MLII"]}, "more than once"),
    ({"lead_names": "II"}, "'lead_names' parameter"),
    ({"lead_names": ["II"], "input_lead_names": ["I", "II"]}, "2 names .* but X has 3 leads"),
])
def test_selector_messages(X, params, match):
    with pytest.raises(ValueError, match=match):
        LeadSelector(**params).fit(X)
