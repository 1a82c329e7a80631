"""QRSIntegral against naive sums."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import skecg._validation
from skecg.preprocessing import QRSIntegral

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 12, 100)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("baseline", [0.0, 0.04])
def test_naive_sums(dtype, baseline, monkeypatch):
    signals = X.astype(dtype)
    signals[2, 3] = np.nan
    before = signals.copy()
    integral = QRSIntegral(fs=250, onset=0.1, baseline=baseline).fit(signals)
    areas = integral.transform(signals)
    assert areas.shape == (6, 12) and areas.dtype == dtype
    for sample, row in zip(signals, areas, strict=True):
        for lead, area in zip(sample, row, strict=True):
            level = sum(map(float, lead[15:25])) / 10 if baseline else 0.0
            assert_allclose(area, sum(4.0 * (float(value) - level) for value in lead[25:55]), rtol=2e-6, atol=1e-4)
    assert_array_equal(np.isnan(areas), np.isnan(signals).all(axis=2))
    assert_array_equal(signals, before)
    assert_array_equal(pickle.loads(pickle.dumps(integral)).transform(signals), areas)
    monkeypatch.setattr(skecg._validation, "_BLOCK_BYTES", 2 * signals[0].nbytes)
    assert_array_equal(clone(integral).fit_transform(signals), areas)


@given(st.floats(-3, 3), st.floats(0.1, 5))
@settings(deadline=None)
def test_level_does_not_count_and_amplitude_does(level, factor):
    integral = QRSIntegral(fs=250, onset=0.1).fit(X)
    signals = X.astype(np.float64)
    assert_allclose(integral.transform(signals * factor + level), factor * integral.transform(signals), atol=1e-8)


def test_rectangle_at_two_sampling_rates():
    """1 mV from the onset on is 120 mV ms."""
    for fs in (250, 500):
        step = np.zeros((1, 2, fs))
        step[..., round(0.2 * fs) :] = 1.0
        assert_allclose(QRSIntegral(fs=fs, onset=0.2).fit_transform(step), 120)
        assert_allclose(QRSIntegral(fs=fs, onset=0.2, window=0.04).fit_transform(step), 40)


def test_names_dimensions_and_lengths():
    integral = QRSIntegral(fs=250, onset=0.1).fit(X)
    assert list(integral.get_feature_names_out()[:7]) == ["I", "II", "III", "aVR", "aVL", "aVF", "V1"]
    frame = clone(integral).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == list(integral.get_feature_names_out())
    one, flat = (clone(integral).fit(part) for part in (X[:, :1], X[:, 0]))
    assert list(flat.get_feature_names_out()) == ["lead0"]
    assert_array_equal(one.transform(X[:, :1]), flat.transform(X[:, 0]))
    assert_array_equal(one.transform(X[:, :1]), integral.transform(X)[:, :1])
    assert_array_equal(integral.transform(X[..., :60]), integral.transform(X))
    named = QRSIntegral(fs=250, onset=0.1, lead_names=["V1", "V2"]).fit(X[:, 6:8])
    assert list(named.get_feature_names_out()) == ["V1", "V2"] and named.lead_names_in_ == ("V1", "V2")
    assert_array_equal(named.transform(X[:, 6:8]), integral.transform(X)[:, 6:8])
    with pytest.raises(ValueError, match=r"50 samples in time.*reach to sample 55"):
        integral.transform(X[..., :50])


@pytest.mark.parametrize(("params", "message"), [
    ({"onset": 0.35}, "reach to sample"), ({"window": 0.001}, "less than one sample"), ({"baseline": 0.2}, "baseline=0.2 s"),
    ({"onset": 0.0}, "baseline=0.04 s before onset=0 s"), ({"baseline": 0.001}, "baseline=0.001"), ({"fs": -1}, "fs"),
    ({"onset": -0.1}, "onset"), ({"lead_names": ["V1", "V2"]}, "lead_names has 2 names .* but X has 12 leads"),
])
def test_errors(params, message):
    with pytest.raises(ValueError, match=message):
        QRSIntegral(**{"fs": 250, "onset": 0.1, **params}).fit(X)


def test_memmap(tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    areas = QRSIntegral(fs=250, onset=0.1).fit_transform(mapped)
    assert type(areas) is np.ndarray
    assert_array_equal(areas, QRSIntegral(fs=250, onset=0.1).fit_transform(X))
