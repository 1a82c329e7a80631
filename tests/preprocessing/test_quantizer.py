import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from skecg.datasets import fetch_mitdb, make_ecg
from skecg.preprocessing import ECGQuantizer
from skecg.preprocessing._quantizer import lloyd_max_edges, quantize

METHODS = ("quantile", "lloyd-max", "uniform")
X = make_ecg(6, duration=4.0, random_state=0)[0]


def upstream_levels(x, fit, n_levels):
    """The published rule, sample by sample: the first breakpoint above x; the last one is above everything."""
    fit, breakpoints, share = sorted(fit), [], 0.0
    for _ in range(n_levels):
        share += 1 / n_levels
        breakpoints.append(fit[max(0, int(share * len(fit) - 1))])
    breakpoints[-1] = 1e100
    return [next(i for i, b in enumerate(breakpoints) if b > value) for value in x]


@pytest.mark.parametrize("n_levels", [2, 7, 100])
@pytest.mark.parametrize("bits", [4, 11, None])
def test_quantile_is_the_published_rule(n_levels, bits):
    rng = np.random.default_rng(0)
    fit, new = rng.laplace(size=500), rng.laplace(size=80)
    if bits is not None:
        fit, new = (np.round(v * 2**(bits - 4)) / 2**(bits - 4) for v in (fit, new))
    quantizer = ECGQuantizer(n_levels).fit(fit[None])
    assert_array_equal(quantizer.transform(fit[None])[0], upstream_levels(fit, fit, n_levels))
    assert_array_equal(quantize(new, quantizer.edges_), upstream_levels(new, fit, n_levels))


def test_levels_are_equally_frequent():
    x = np.random.default_rng(0).normal(size=(10, 1, 1000))
    counts = np.bincount(ECGQuantizer(100).fit_transform(x).ravel(), minlength=100)
    assert_allclose(counts, 100, atol=1)


FLOATS = {
    np.float32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    np.float64: st.floats(width=64, allow_nan=False, allow_infinity=False),
}


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_quantize_is_searchsorted(dtype, data):
    """Whatever the thresholds are: equal ones, of all magnitudes, and values exactly at them."""
    edges = np.sort(data.draw(arrays(np.float64, st.integers(1, 40), elements=FLOATS[np.float64])))
    x = data.draw(arrays(dtype, (1, 30), elements=FLOATS[dtype]))
    with np.errstate(over="ignore"):
        at = edges.astype(dtype)
    at = at[np.isfinite(at)]
    x[0, : len(at[:20])] = at[:20]
    x[0, 20:] = np.nextafter(x[0, :10], dtype(0))
    assert_array_equal(quantize(x, edges), np.searchsorted(edges, x, side="right"))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantize_is_searchsorted_on_signals(method, dtype, offset):
    x = (X + offset).astype(dtype)
    quantizer = ECGQuantizer(method=method).fit(x)
    extreme = x * dtype(1.5)
    for values in (x, extreme, -extreme):
        assert_array_equal(quantizer.transform(values), np.searchsorted(quantizer.edges_, values, side="right"))


def test_thresholds_that_are_close_together_take_the_search():
    edges = np.concatenate([[-1e6], 1 + np.arange(50) * 1e-9, [1e6]])
    x = 1 + np.random.default_rng(0).uniform(-1e-8, 6e-8, size=(1, 2000))
    assert_array_equal(quantize(x, edges), np.searchsorted(edges, x, side="right"))


def mean_squared_error(x, edges, n_levels):
    level = np.searchsorted(edges, x, side="right")
    return sum(((x[level == k] - x[level == k].mean()) ** 2).sum() for k in range(n_levels) if (level == k).any()) / len(x)


@pytest.mark.parametrize(("law", "n_levels", "optimum"), [  # of the continuous laws, of unit variance
    ("normal", 8, 0.0345477608), ("normal", 100, 0.000266712219),
    ("laplace", 8, 0.0544759879), ("laplace", 100, 0.000440010479),
])
def test_lloyd_max_is_near_the_optimum_of_the_density(law, n_levels, optimum):
    x = getattr(np.random.default_rng(0), law)(size=400_000)
    x /= x.std()
    edges = ECGQuantizer(n_levels, method="lloyd-max").fit(x[None]).edges_
    assert_allclose(mean_squared_error(x, edges, n_levels), optimum, rtol=0.03)


def test_lloyd_max_is_the_fixed_point_of_the_density():
    """Thresholds in the middle of the centroids, centroids at the mean of their levels."""
    grid = np.linspace(-8, 8, 2**18 + 1)
    edges = lloyd_max_edges(grid, norm.pdf(grid), 8, tol=1e-12)
    inner = np.concatenate([[-8], edges, [8]])
    centroids = -np.diff(norm.pdf(inner)) / np.diff(norm.cdf(inner))
    assert_allclose((centroids[1:] + centroids[:-1]) / 2, edges, atol=5e-4)
    assert_allclose(edges, -edges[::-1], atol=1e-3)


def test_lloyd_max_of_few_values_has_no_error():
    x = np.repeat([0.0, 0.5, 2.0], [5, 1, 3])[None]
    quantizer = ECGQuantizer(8, method="lloyd-max").fit(x)
    assert_array_equal(quantizer.inverse_transform(quantizer.transform(x)), x.astype(np.float32))
    assert quantizer.snr_db_ == np.inf
    assert np.isfinite(quantizer.centroids_).all()


def test_signal_to_noise_ratio():
    ratios = []
    for method in METHODS:
        quantizer = ECGQuantizer(64, method=method).fit(X)
        error = quantizer.inverse_transform(quantizer.transform(X)) - X
        expected = 10 * np.log10(X.astype(np.float64).var() / np.square(error.astype(np.float64)).mean())
        assert_allclose(quantizer.snr_db_, expected, atol=1e-3)
        ratios.append(quantizer.snr_db_)
    assert ratios[1] > ratios[2] > ratios[0]


@pytest.mark.parametrize("method", METHODS)
def test_histogram_is_as_good_as_stated(method):
    exact, streamed = (ECGQuantizer(50, method=method, exact_samples=n).fit(X) for n in (X.size, 1))
    bound = (X.max() - X.min()) * 2.0**-20
    # Lloyd's iteration stops at another step of it
    assert_allclose(streamed.edges_, exact.edges_, atol=bound if method != "lloyd-max" else 2e-2, rtol=1e-12)
    assert_allclose(streamed.snr_db_, exact.snr_db_, atol=0.1)


@pytest.mark.parametrize("exact_samples", [1, 10**7])
def test_missing_leads_are_left_out(exact_samples):
    gappy = X.copy()
    gappy[::2, 3] = np.nan
    quantizer = ECGQuantizer(20, exact_samples=exact_samples).fit(gappy)
    present = np.delete(X, 3, axis=1).ravel(), X[1::2, 3].ravel()
    alone = ECGQuantizer(20, exact_samples=exact_samples).fit(np.concatenate(present)[None])
    assert_allclose(quantizer.edges_, alone.edges_, atol=1e-12)
    levels = quantizer.transform(gappy)
    assert (levels[::2, 3] == -1).all()
    assert (np.delete(levels, 3, axis=1) >= 0).all()
    assert_array_equal(np.isnan(quantizer.inverse_transform(levels)), np.isnan(gappy))


@pytest.mark.parametrize("exact_samples", [1, 10**7])
@pytest.mark.parametrize("method", METHODS)
def test_flat_signals(method, exact_samples):
    flat = np.full((2, 1, 30), 0.25)
    quantizer = ECGQuantizer(method=method, exact_samples=exact_samples).fit(flat)
    assert_array_equal(quantizer.inverse_transform(quantizer.transform(flat)), flat)


def test_known_thresholds():
    fitted = ECGQuantizer(30).fit(X)
    known = ECGQuantizer.from_edges(fitted.edges_)
    assert known.n_levels == 30
    assert_array_equal(known.transform(X), fitted.transform(X))
    assert_array_equal(known.transform(X[:, :2, :17]), fitted.transform(X)[:, :2, :17])
    assert_allclose(known.inverse_transform(np.arange(30))[1:-1], (fitted.edges_[1:] + fitted.edges_[:-1]) / 2, rtol=1e-5)


@pytest.mark.parametrize("edges", [[], [1.0, 0.0], [[0.0]], [0.0, np.nan]])
def test_bad_thresholds_are_refused(edges):
    with pytest.raises(ValueError, match="ascending and without NaN"):
        ECGQuantizer.from_edges(edges)


@pytest.mark.parametrize("levels", [[0.5], [-2], [100]])
def test_bad_levels_are_refused(levels):
    with pytest.raises(ValueError, match=r"levels must be integers from -1 \(a missing lead\) to 99"):
        ECGQuantizer().fit(X).inverse_transform(levels)


def test_a_real_recording_loses_little(real_data):
    """Ten minutes of a Holter recording: quantiles flatten the R peaks, and spend their levels on the baseline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part of the data set
        record = fetch_mitdb(real_data, records="101", download_if_missing=False).records[0]
    x = record.signal[None, :1, : 600 * record.fs]
    snr = {method: ECGQuantizer(method=method).fit(x).snr_db_ for method in METHODS}
    assert snr["lloyd-max"] > snr["uniform"] + 5 > snr["quantile"] + 15


@pytest.mark.parametrize(
    "case", ["continuous", "ties_adc", "heavy_ties", "few_levels", "fewer_samples_than_levels", "constant"])
def test_levels_are_those_of_the_published_class(reference, case):
    known = np.load(reference / "quantiser/arrays.npz")
    known = {name.split(".")[2]: value for name, value in known.items() if name.startswith(f"q.{case}.")}
    quantizer = ECGQuantizer(len(known["breakpoints"])).fit(known["x"][None])
    assert_array_equal(quantizer.edges_, known["breakpoints"][:-1])
    assert_array_equal(quantizer.transform(known["x"][None])[0], known["levels"])
    assert_array_equal(quantize(known["x_new"], quantizer.edges_), known["levels_new"])


@pytest.mark.parametrize("n_levels", [8, 100])
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_lloyd_max_lies_between_the_optimum_and_a_start_from_quantiles(reference, law, n_levels):
    known = np.load(reference / "quantiser/arrays.npz")
    x = known[f"lm.{law}.sample"]
    error = mean_squared_error(x, ECGQuantizer(n_levels, method="lloyd-max").fit(x[None]).edges_, n_levels)

    def error_of(name):
        centroids = known[f"lm.{law}.{n_levels}.{name}"]
        return mean_squared_error(x, (centroids[1:] + centroids[:-1]) / 2, n_levels)

    assert error_of("sample_optimal_centroids") - 1e-12 <= error <= error_of("lloyd_from_quantile_init")
    assert error < 1.6 * error_of("sample_optimal_centroids")  # 20 values a level; 1.001 and 1.005 times at 8 levels
