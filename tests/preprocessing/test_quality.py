"""check_ecg and QualityGate: faults put into simulated and real recordings, naive counterparts, scikit-learn's checks."""

import json
import pickle
from itertools import combinations, pairwise
from unittest import SkipTest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks as checks

import skecg._validation
from skecg.datasets import fetch_mitdb, fetch_ptbxl, make_ecg
from skecg.preprocessing import BandpassFilter, LeadScaler, make_beats, make_windows
from skecg.preprocessing._faults import _heart_rates
from skecg.preprocessing._quality import FAULTS, QualityGate, check_ecg

LEADS = skecg._validation.STANDARD_LEADS
LIMB = LEADS[:6]
FS = 100


def simulate(n_samples=8, **options):
    return make_ecg(n_samples, n_patients=n_samples, classes=["normal"], random_state=1, fs=FS, **options)[0]


@pytest.fixture
def X():
    return simulate()


@pytest.fixture(scope="module")
def ptbxl(real_data):
    with pytest.warns(UserWarning, match="holds"):
        data = fetch_ptbxl(real_data / "ptbxl", download_if_missing=False)
    return make_windows(data, 10.0)[0][:60]


def found(report):
    return [(issue.sample, issue.leads, issue.fault) for issue in report.issues]


def inject(X, sample, lead, change):
    X = X.copy()
    X[sample, lead] = change(X[sample, lead].copy())
    return X


def part(start, stop, value):
    def change(x):
        x[start:stop] = value
        return x
    return change


# What is no fault


def test_clean_simulations_pass(X):
    report = check_ecg(X, fs=FS)
    assert report.ok and report.issues == [] and not any(found.any() for found in report.mask.values())
    assert set(report.mask) == set(FAULTS) and report.mask["flat"].shape == (8, 12)
    assert "No fault" in str(report)


@pytest.mark.parametrize("change", [
    BandpassFilter(0.5, 40, fs=FS), LeadScaler(), LeadScaler("record"), LeadScaler("lead"),
], ids=repr)
def test_real_recordings_pass_also_filtered_and_scaled(ptbxl, change):
    assert check_ecg(ptbxl, fs=FS).ok
    assert check_ecg(clone(change).fit_transform(ptbxl), fs=FS).ok


@pytest.mark.parametrize("leads", [LIMB, ("I", "II", "III"), ("II", "V1"), ("aVF",), ("V3",)])
def test_real_recordings_pass_with_fewer_leads_and_missing_ones(ptbxl, leads):
    positions = [LEADS.index(lead) for lead in leads]
    assert check_ecg(ptbxl[:, positions], fs=FS, lead_names=leads).ok
    others = np.setdiff1d(np.arange(12), positions)
    missing = ptbxl.copy()
    missing[:, others] = np.nan
    assert check_ecg(missing, fs=FS).ok
    if len(leads) == 1:
        assert check_ecg(ptbxl[:, positions[0]], fs=FS, lead_names=leads).ok  # two dimensions


def test_beats_and_ambulatory_windows_pass(real_data):
    with pytest.warns(UserWarning, match="holds"):
        mitdb = fetch_mitdb(real_data / "mitdb", download_if_missing=False)
    records = mitdb.records[:2]
    assert check_ecg(make_windows(records, 10.0)[0][::6], fs=360, lead_names=records[0].lead_names).ok
    assert check_ecg(make_beats(records)[0][::50], fs=360).ok


def test_short_windows_are_judged_for_gaps_only():
    X = np.zeros((3, 12, 40))  # flat, all the same
    X[1, 2, 3] = np.nan
    assert found(check_ecg(X, fs=100)) == [(1, ("III",), "gap")]
    assert {"flat"} == {fault for _, _, fault in found(check_ecg(X[:1], fs=60))}


# Faults of one lead


def test_gap_empty_and_infinite(X):
    X[1, 3, 100:130] = np.nan
    X[2, 4, 7] = np.inf
    X[3] = np.nan
    X[4, 5] = np.nan
    report = check_ecg(X, fs=FS)
    assert found(report) == [(3, (), "empty"), (1, ("aVR",), "gap"), (2, ("aVL",), "gap")]
    assert report.issues[1].value == 30 and "from 1.00 s" in report.issues[1].message
    assert report.mask["empty"][3].all() and report.mask["gap"].sum() == 2


@pytest.mark.parametrize(("start", "stop"), [(0, 1000), (0, 110), (400, 505), (890, 1000)])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_flat(X, start, stop, noise):
    values = 0.3 + noise * np.random.default_rng(0).random(stop - start)
    report = check_ecg(inject(X, 2, 7, part(start, stop, values)), fs=FS)
    assert found(report) == [(2, ("V2",), "flat")]
    assert report.issues[0].value <= report.issues[0].threshold < 0.1
    assert check_ecg(inject(X, 2, 7, part(start, min(stop, start + 90), 0.3)), fs=FS).ok or start == 890


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(60, 400), st.integers(0, 130), st.floats(0, 0.03))
def test_flat_is_what_a_naive_search_finds(seed, n_times, length, noise):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_times)
    start = rng.integers(n_times)
    x[start:start + length] = 0.1 + noise * rng.random(len(x[start:start + length]))
    width = min(100, n_times)
    seconds = [x[i:i + width // 2] for i in range(0, n_times - width // 2 + 1, width // 2)]
    both = [np.concatenate(pair) for pair in pairwise(seconds)] or seconds
    limit = 0.01 * np.median([np.ptp(piece) for piece in both])
    naive = min(np.ptp(x[i:i + width]) for i in range(n_times - width + 1)) <= limit
    assert check_ecg(x[None], fs=FS).mask["flat"][0, 0] == naive


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_saturated(ptbxl, share, sign):
    X = inject(sign * ptbxl, 5, 1, lambda x: np.clip(x, -share * np.abs(x).max(), share * np.abs(x).max()))
    assert (5, ("II",), "saturated") in found(check_ecg(X, fs=FS))
    assert check_ecg(X, fs=FS).mask["saturated"].sum() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3.0), st.integers(1, 12))
def test_saturated_is_what_a_naive_count_finds(seed, limit, smooth):
    rng = np.random.default_rng(seed)
    x = np.convolve(rng.normal(size=600), np.ones(smooth) / np.sqrt(smooth), "same").clip(-limit, limit)
    naive = False
    for extreme in (x.max(), x.min()):
        lengths, i = [], 0
        while i < len(x):
            j = i
            while j < len(x) and x[j] == extreme:
                j += 1
            if j > i and i > 0 and j < len(x):
                lengths.append(j - i)
            i = max(j, i + 1)
        lengths = [length for length in lengths if length >= 2]
        naive |= len(lengths) >= 4 or max(lengths, default=0) >= 10
    assert check_ecg(x[None], fs=FS).mask["saturated"][0, 0] == naive


def test_padding_at_the_end_is_not_clipping(X):
    low = X[3, 8].min() - 0.1
    assert check_ecg(inject(X, 3, 8, part(960, 1000, low)), fs=FS).mask["saturated"].sum() == 0


@pytest.mark.parametrize(("copy", "original"), [(7, 8), (0, 11)])
@pytest.mark.parametrize("change", [lambda x: x, lambda x: -2 * x + 1])
def test_repeated_lead(X, copy, original, change):
    X[4, copy] = change(X[4, original])
    report = check_ecg(X, fs=FS)
    pair = tuple(LEADS[j] for j in sorted((copy, original)))
    assert [(i, leads) for i, leads, fault in found(report) if fault == "repeated_lead"] == [(4, pair)]
    assert report.mask["repeated_lead"][4].sum() == 2 and not report.mask["repeated_lead"][:4].any()


# Limb leads


def scaled(X, how):
    return X if how is None else LeadScaler(how).fit_transform(X)


@pytest.mark.parametrize("how", [None, "lead", "dataset"])
@pytest.mark.parametrize("pair", list(combinations(range(6), 2)), ids=lambda pair: "-".join(LIMB[lead] for lead in pair))
def test_two_limb_leads_swapped(X, pair, how):
    X = scaled(X, how)
    X[3, list(pair)] = X[3, list(pair[::-1])]
    report = check_ecg(X, fs=FS)
    assert found(report) == [(3, tuple(LIMB[lead] for lead in pair), "swapped")]
    assert_array_equal(np.argwhere(report.mask["swapped"]), [(3, lead) for lead in pair])


@pytest.mark.parametrize("how", [None, "lead"])
@pytest.mark.parametrize("lead", range(6), ids=LIMB)
def test_limb_lead_inverted_of_another_gain_or_from_elsewhere(X, lead, how):
    X = scaled(X, how)
    name = (LIMB[lead],)
    assert found(check_ecg(inject(X, 2, lead, lambda x: -x), fs=FS)) == [(2, name, "inverted")]
    foreign = inject(X, 2, lead, lambda x: X[2, 8])
    mislabelled = [issue.leads for issue in check_ecg(foreign, fs=FS).issues if issue.fault == "mislabelled"]
    # without I, scaled leads may be too close to one line to tell which of them is wrong
    assert mislabelled == [name] or (mislabelled == [LIMB] and name == ("I",) and how == "lead")
    if how is None:
        report = check_ecg(inject(X, 2, lead, lambda x: 2 * x), fs=FS)
        assert found(report) == [(2, name, "gain")] and "2 times" in report.issues[0].message


def test_leads_in_an_unexpected_order_contradict_each_other(X):
    order = [5, 2, 3, 0, 1, 4, *range(6, 12)]
    report = check_ecg(X[:, order], fs=FS)
    assert report.mask["mislabelled"][:, :6].all()
    assert check_ecg(X[:, order], fs=FS, lead_names=[LEADS[lead] for lead in order]).ok


@pytest.mark.parametrize("pair", list(combinations(range(3), 2)))
def test_of_three_leads_every_repair_is_named(X, pair):
    """Exchanging I and II is the same as inverting III; exchanging I and III changes nothing in I + III = II."""
    X = X[:, :3]
    X[1, list(pair)] = X[1, list(pair[::-1])]
    report = check_ecg(X, fs=FS, lead_names=LIMB[:3])
    if pair == (0, 2):
        assert report.ok
    else:
        third = LIMB[3 - sum(pair)]
        assert len(report.issues) == 1 and report.issues[0].leads == LIMB[:3]
        assert f"{third} inverted" in report.issues[0].message
        assert f"{LIMB[pair[0]]} and {LIMB[pair[1]]} swapped" in report.issues[0].message


PAIR = simulate(2)[:, :6]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.3, 3), min_size=6, max_size=6), st.sets(st.integers(0, 5), max_size=2))
def test_any_scale_per_lead_is_no_contradiction(scales, missing):
    """Unless all but one agree, when that one has another gain. (Among three leads, some scales look like an exchange.)"""
    X = PAIR * np.array(scales, np.float32)[:, None]
    X[:, list(missing)] = np.nan
    report = check_ecg(X, fs=FS, lead_names=LIMB)
    assert {fault for _, _, fault in found(report)} <= {"gain"}
    if len(np.unique(np.round(np.log(scales), 1))) == 6:
        assert report.ok


def test_limb_repairs_leave_no_residual(ptbxl):
    """What is named can be undone: after the repair, the report is clean."""
    rng = np.random.default_rng(0)
    X, repaired = ptbxl.copy(), ptbxl.copy()
    for i in range(len(X)):
        a, b = rng.choice(6, 2, replace=False)
        if i % 2:
            X[i, [a, b]] = X[i, [b, a]]
        else:
            X[i, a] *= -1
    for issue in check_ecg(X, fs=FS).issues:
        lead = [LEADS.index(name) for name in issue.leads]
        repaired[issue.sample] = X[issue.sample]
        repaired[issue.sample, lead] = X[issue.sample, lead[::-1]] if issue.fault == "swapped" else -X[issue.sample, lead]
    assert_array_equal(repaired, ptbxl)
    assert len(check_ecg(X, fs=FS).issues) == len(X)


def test_exchanged_arm_electrodes(ptbxl):
    X = ptbxl[:, [0, 2, 1, 4, 3, *range(5, 12)]]
    X[:, 0] *= -1
    report = check_ecg(X, fs=FS)
    assert {fault for _, _, fault in found(report)} == {"reversed_arms"}  # the identities hold
    assert report.mask["reversed_arms"].any(axis=1).mean() > 0.8
    assert check_ecg(X[:, :6], fs=FS, lead_names=LIMB).ok


# Faults of whole samples


@pytest.mark.parametrize("factor", [1000, 200, 0.001])
def test_units(ptbxl, factor):
    report = check_ecg(ptbxl * np.float32(factor), fs=FS)
    assert found(report) == [(i, (), "unit") for i in range(len(ptbxl))]
    assert report.mask["unit"].all()
    counts = (ptbxl[:5] * 1000 + 1024).astype(np.int16)  # integers with an offset
    assert found(check_ecg(counts, fs=FS)) == [(i, (), "unit") for i in range(5)]


@pytest.mark.parametrize("factor", [5, 0.2])
def test_sampling_rate_far_off_shows_in_each_sample(ptbxl, factor):
    report = check_ecg(ptbxl, fs=factor * FS)
    assert report.mask["fs"].any(axis=1).mean() > 0.8
    assert [issue.fault for issue in report.issues if issue.sample is None] == ["fs"] or factor == 5


@pytest.mark.parametrize("factor", [2, 0.5])
def test_sampling_rate_off_by_two_shows_in_all_samples_together(ptbxl, factor):
    report = check_ecg(ptbxl, fs=factor * FS)
    assert [issue.sample for issue in report.issues if "median heart rate" in issue.message] == [None]
    assert not [issue for issue in check_ecg(ptbxl[:19], fs=factor * FS).issues if issue.sample is None]


def test_sampling_rate_of_the_whole_set_is_told_first(ptbxl):
    report = check_ecg(ptbxl, fs=2 * FS)
    first, second, third = str(report).splitlines()[:3]
    assert first == "All of X looks wrong: fs. To do first: check the sampling rate in the header, and pass that one."
    assert "X: the median heart rate of" in second and "at fs=200 Hz: fs too high" in second
    assert third.startswith("Faults in 2 of 60 samples of 12 lead(s) at 200 Hz")
    assert str(report.together()).splitlines()[2] == "No other fault found in 60 samples of 12 lead(s) at 200 Hz."
    with pytest.raises(ValueError, match=r"(?s)^All of X looks wrong: fs\..*leave 'fs' out of checks"):
        QualityGate("mask", fs=2 * FS).fit_transform(ptbxl)
    assert QualityGate("mask", fs=2 * FS, checks=["gap"]).fit_transform(ptbxl) is ptbxl
    with pytest.warns(UserWarning, match=r"^All of X looks wrong: fs\."):
        QualityGate("warn", fs=2 * FS).fit(ptbxl)


def test_report_says_what_was_not_checked():
    def told(X, fs=FS, **options):
        report = check_ecg(X, fs=fs, **options)
        last = str(report).splitlines()[-1]
        assert not report.not_checked or last == f"Not checked: {'; '.join(report.not_checked)}."
        return list(report.not_checked)

    X = simulate(24)
    chest = "order of chest leads"
    assert told(X) == [chest]
    assert told(X, lead_names=[f"ch{i}" for i in range(12)]) == [
        "limb leads (fewer than 3 among lead_names)", "exchanged arms (need I, V5 and V6)"]
    assert told(X[:, :6], lead_names=LIMB) == ["exchanged arms (need I, V5 and V6)"]
    assert told(X[:6]) == [chest, "heart rate of all samples together (known of 6, needs 20)",
                           "mains line (6 samples, needs 20)"]
    assert told(X[:, :, :400])[-1] == "mains line (windows below 5 s)"
    assert "heart rates (windows below 1.5 s)" in told(X[:, :, :100])
    assert told(X[:, :, :40]) == ["anything but gaps (windows below 0.5 s or 25 samples)"]
    report = check_ecg(X[:6], fs=FS)
    assert list(report.select({"swapped"}).not_checked) == [chest] and not report.select({"gap"}).not_checked
    assert "Not checked" not in str(report.select({"gap"}))


def test_mains_line_tells_a_small_error_of_the_sampling_rate():
    X, _, _ = make_ecg(24, n_patients=24, classes=["normal"], random_state=0, fs=360, lead_names=["II"])
    X += 0.05 * np.sin(2 * np.pi * 60 * np.arange(3600) / 360, dtype=np.float32)
    assert check_ecg(X, fs=360).ok
    issue, = check_ecg(X, fs=500).issues
    assert issue.sample is None and issue.fault == "fs" and "83.3 Hz" in issue.message


def test_heart_rate_is_that_of_the_annotated_beats(real_data):
    with pytest.warns(UserWarning, match="holds"):
        mitdb = fetch_mitdb(real_data / "mitdb", download_if_missing=False)
    record = mitdb.records[0]
    beats = record.annotations.sample[np.isin(record.annotations.symbol, list("NLRAV"))]
    windows = record.signal[:, :60 * 3600].reshape(2, 60, 3600).transpose(1, 0, 2).astype(float)
    steps = windows[:, :, 7:] - windows[:, :, :-7]
    steps /= steps.std(axis=2, keepdims=True)
    expected = np.array([60 * 360 / np.median(np.diff(beats[(beats >= 3600 * i) & (beats < 3600 * (i + 1))]))
                         for i in range(60)])
    for wrong in (1, 3, 1 / 3):  # counts do not depend on fs
        rates = _heart_rates(steps, 360 * wrong)
        told = ~np.isnan(rates)
        assert told.mean() > 0.9
        assert np.mean(np.abs(rates[told] / (wrong * expected[told]) - 1) < 0.05) > 0.95


def test_duplicates(X):
    X = np.concatenate([X, X[[5, 2, 2]]])
    X[9] = 1.5 * X[9] + 0.25
    X[10, 1] = np.nan  # another set of leads
    report = check_ecg(X, fs=FS)
    assert [(i.sample, i.fault, i.value) for i in report.issues] == [(8, "duplicate", 5), (9, "duplicate", 2)]
    assert report.mask["duplicate"][[8, 9]].all() and report.mask["duplicate"].sum() == 24
    shifted = np.concatenate([X[:8, :, :800], X[:8, :, 200:]])
    assert not check_ecg(shifted, fs=FS).mask["duplicate"].any()


# Blocks, inputs, report


def everything(X):
    X = inject(X, 0, 3, part(200, 210, np.nan))
    X = inject(X, 1, 9, part(200, 500, 0.0))
    X = inject(X, 2, 7, lambda x: x.clip(-0.1, 0.1))
    X[3] *= 1000
    X[4, [0, 4]] = X[4, [4, 0]]
    X[6] = X[5]
    return X


def test_blocks_memmaps_and_types_do_not_matter(X, monkeypatch, tmp_path):
    X = everything(X)
    report = check_ecg(X, fs=FS)
    assert {fault for _, _, fault in found(report)} >= {"gap", "flat", "saturated", "unit", "swapped", "duplicate"}
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(skecg._validation, "_BLOCK_BYTES", X[0].nbytes)
    for same in (np.load(tmp_path / "X.npy", mmap_mode="r"), X.astype(np.float64), X.tolist()):
        assert found(check_ecg(same, fs=FS)) == found(report)
    for i in range(8):  # each sample by itself, but for what concerns them together
        alone = check_ecg(X[[i]], fs=FS)
        for fault in set(FAULTS) - {"duplicate"}:
            assert_array_equal(alone.mask[fault][0], report.mask[fault][i])


def test_input_is_left_alone(X):
    X = everything(X)
    before = X.copy()
    X.setflags(write=False)
    check_ecg(X, fs=FS)
    assert_array_equal(X, before)


@pytest.mark.parametrize(("X", "options", "message"), [
    (np.zeros(5), {}, "shape"), (np.zeros((0, 12, 1000)), {}, "nothing to check"),
    (np.zeros((1, 1, 1, 1)), {}, "shape"), (np.array([["a"]]), {}, "dtype"),
    (np.zeros((40, 1000, 12)), {}, r"n_leads=1000 and n_times=12: the axes look swapped.*X.transpose\(0, 2, 1\)"),
    (np.zeros((2, 3, 9)), {"lead_names": ["I"]}, "1 names"), (np.zeros((2, 9)), {"fs": 0}, "fs must be"),
    (np.zeros((2, 9)), {"fs": "fast"}, "fs must be"),
])
def test_unusable_arguments(X, options, message):
    with pytest.raises(ValueError, match=message):
        check_ecg(X, **{"fs": 100, **options})


def test_report_reads_and_converts(X):
    report = check_ecg(everything(X), fs=FS)
    text = str(report)
    assert text.startswith("Faults in 6 of 8 samples") and "To do: convert to millivolt" in text
    assert "sample 4, leads I, aVL: limb leads agree once I and aVL swapped" in text
    frame = report.to_frame()
    assert list(frame.columns) == ["sample", "leads", "fault", "value", "threshold", "message"]
    assert len(frame) == len(report.issues)
    only = report.select({"unit"})
    assert found(only) == [(3, (), "unit")] and only.mask["unit"].sum() == 12 and not only.mask["gap"].any()
    for faults in (["gaps"], "gap"):
        with pytest.raises(ValueError, match=r"faults has .*; known faults are empty, gap, flat"):
            report.select(faults)
    assert found(pickle.loads(pickle.dumps(report))) == found(report)
    assert all(json.dumps(issue) for issue in report.issues)


# QualityGate


def test_gate_lets_clean_signals_through_as_they_are(X):
    for policy in ("raise", "mask", "warn"):
        gate = QualityGate(policy, fs=FS)
        assert gate.fit_transform(X) is X and gate.transform(X) is X
        assert gate.report_.ok and gate.lead_names_in_ == LEADS


def test_gate_raises(X):
    X = everything(X)
    with pytest.raises(ValueError, match=r"(?s)Faults in 6 of 8 .*policy=.mask."):
        QualityGate(fs=FS).fit(X)
    gate = QualityGate(fs=FS).fit(X[[7]])
    with pytest.raises(ValueError, match="sample 1, leads I, aVL"):
        gate.transform(X[[7, 4]])
    gate.transform(X[5:7])  # each by itself: no duplicate in transform
    with pytest.raises(ValueError, match="duplicate"):
        gate.fit(X[5:7])


def test_gate_warns(X):
    gate = QualityGate("warn", fs=FS)
    X = everything(X)
    with pytest.warns(UserWarning, match="Faults in 6 of 8"):
        assert gate.fit(X) is gate
    with pytest.warns(UserWarning, match="Faults in 5 of 8"):
        assert gate.transform(X) is X


def test_gate_masks(X):
    clean, X = X, everything(X)
    before = X.copy()
    gate = QualityGate("mask", fs=FS)
    with pytest.warns(UserWarning) as caught:
        out = gate.fit_transform(X)
    messages = sorted(str(warning.message) for warning in caught)
    assert len(messages) == 2 and "1 of 8 samples keep no lead: 3." in messages[0]
    assert "duplicate" in messages[1] and "gap" not in messages[1]
    assert_array_equal(X, before)
    missing = np.isnan(out).all(axis=2)
    assert_array_equal(np.argwhere(missing), [(0, 3), (1, 9), (2, 7), *((3, j) for j in range(12)), (4, 0), (4, 4)])
    assert_array_equal(out[~missing], X[~missing])
    with pytest.warns(UserWarning, match="keep no lead"):
        assert_array_equal(gate.transform(X), out)
    for i in (0, 1, 2, 4, 5):
        assert_array_equal(gate.transform(X[[i]])[0], out[i])
    with pytest.raises(ValueError, match=r"(?s)1 of 1 samples keep no lead.*unit"):
        gate.transform(X[[3]])
    pipeline = make_pipeline(QualityGate("mask", fs=FS, checks=["gap"]), LeadScaler("lead"))
    assert np.isnan(pipeline.fit_transform(X)).all(axis=2).sum() == 1
    assert len(pipeline.transform(clean)) == 8


def test_gate_masks_one_lead_in_two_dimensions(X):
    X = X[:, 1]
    X[2, 300:] = 0.5
    with pytest.warns(UserWarning, match="1 of 8 samples keep no lead: 2"):
        out = QualityGate("mask", fs=FS).fit_transform(X)
    assert out.shape == X.shape and np.isnan(out[2]).all()
    assert_array_equal(np.delete(out, 2, axis=0), np.delete(X, 2, axis=0))


def test_gate_acts_on_chosen_faults(X):
    X = everything(X)
    gate = QualityGate("mask", fs=FS, checks=["flat", "gap"]).fit(X)
    assert_array_equal(np.argwhere(np.isnan(gate.transform(X)).all(axis=2)), [(0, 3), (1, 9)])
    assert {issue.fault for issue in gate.report_.issues} == {"flat", "gap"}
    with pytest.raises(ValueError, match="checks has 'flatt'; known faults are empty, gap, flat"):
        QualityGate(fs=FS, checks=["flatt"]).fit(X)


def test_gate_checks_shapes_like_its_neighbours(X):
    gate = QualityGate(fs=FS).fit(X)
    assert gate.transform(X[:, :, :500]).shape == (8, 12, 500)
    with pytest.raises(ValueError, match="LeadSelector"):
        gate.transform(X[:, :3])
    with pytest.raises(ValueError, match="swapped"):
        gate.fit(X.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="dimensions"):
        gate.fit(X[None])
    one = QualityGate(fs=FS).fit(X[:, 0])
    assert one.transform(X[:, 0]) is not None and one.transform(X[:, :1]).shape == (8, 1000)
    assert clone(gate).fit(X).get_feature_names_out().shape == (12,)


ESTIMATORS = {policy: QualityGate(policy, fs=100) for policy in ("raise", "mask")}
EXTRA = (
    "check_param_validation", "check_dataframe_column_names_consistency", "check_inplace_ensure_writeable",
    "check_get_feature_names_out_error", "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas", "check_set_output_transform", "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
)


def per_check():
    for name, original in ESTIMATORS.items():
        for number, (estimator, check) in enumerate(checks.estimator_checks_generator(original)):
            yield pytest.param(estimator, check, id=f"{name}-{number}-{getattr(check, 'func', check).__name__}")


@pytest.mark.parametrize(("estimator", "check"), list(per_check()))
def test_estimator_check(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"{check} was skipped: {skipped}")


def test_no_check_is_switched_off():
    """All run where NaN is refused; where it is accepted, only the check that it is refused is left out."""
    names = {name: [getattr(check, "func", check).__name__ for _, check in checks.estimator_checks_generator(estimator)]
             for name, estimator in ESTIMATORS.items()}
    reference = [getattr(check, "func", check).__name__ for _, check in checks.estimator_checks_generator(LeadScaler())]
    assert names["raise"] == reference
    assert set(reference) - set(names["mask"]) == {"check_estimators_nan_inf"}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names", "ignore:X has feature names")
@pytest.mark.parametrize("check", EXTRA)
@pytest.mark.parametrize("policy", ESTIMATORS)
def test_check_that_scikit_learn_runs_on_itself(policy, check):
    try:
        getattr(checks, check)("QualityGate", clone(ESTIMATORS[policy]))
    except SkipTest as skipped:
        pytest.fail(f"{check} was skipped: {skipped}")
