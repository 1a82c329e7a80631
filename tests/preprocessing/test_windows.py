"""Cutting records into windows and beats, against naive loops."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.utils import Bunch

from skecg._validation import canonical_lead_name
from skecg.datasets import ECGRecord, read_records
from skecg.preprocessing import make_beats, make_windows


def record(n_times, lead_names=("II",), *, fs=100, seed=0, name="", beats=None):
    signal = np.random.default_rng(seed).normal(size=(len(lead_names), n_times)).astype(np.float32)
    if beats is not None:
        sample, symbol = zip(*beats, strict=True)
        beats = Bunch(sample=np.array(sample, dtype=int), symbol=np.array(symbol, dtype=str))
    return ECGRecord(signal, fs=fs, lead_names=lead_names, name=name, annotations=beats)


@given(
    lengths=st.lists(st.integers(10, 120), min_size=1, max_size=6),
    n_times=st.integers(1, 10),
    step=st.integers(1, 15),
)
@settings(max_examples=50, deadline=None)
def test_windows_equal_a_naive_loop(lengths, n_times, step):
    records = [record(n, ("I", "II"), seed=n) for n in lengths]
    expected = [
        (r.signal[:, start:start + n_times], i)
        for i, r in enumerate(records) for start in range(0, r.n_times - n_times + 1, step)
    ]
    X, y, groups = make_windows(records, n_times / 100, step=step / 100, y=np.array(lengths) * 10)
    assert X.dtype == np.float32
    assert_array_equal(X, [window for window, _ in expected])
    assert_array_equal(groups, [i for _, i in expected])
    assert_array_equal(y, [lengths[i] * 10 for _, i in expected])


def test_labels_and_groups_come_from_the_bunch():
    records = [record(250, ("I", "V1"), seed=i) for i in range(3)]
    patients = np.array(["a", "b", "a"])
    data = Bunch(records=records, target=np.eye(3, dtype=int), patient_id=patients, lead_names=("V1",))
    X, y, groups = make_windows(data, 1.0)
    assert X.shape == (6, 1, 100)
    assert_array_equal(X[2, 0], records[1].signal[1, :100])
    assert_array_equal(y, np.repeat(np.eye(3), 2, axis=0))
    assert groups.tolist() == ["a", "a", "b", "b", "a", "a"]
    X, y, groups = make_windows(data, 1.0, lead_names=["I", "V1"], y=[7, 8, 9], groups=[3, 4, 5])
    assert X.shape == (6, 2, 100)
    assert y.tolist() == [7, 7, 8, 8, 9, 9] and groups.tolist() == [3, 3, 4, 4, 5, 5]
    assert make_windows(records, 1.0)[1] is None


def test_leads_go_by_name():
    X, _, _ = make_windows([record(100, ("MLII", "V1"), seed=1), record(100, ("V5", "II"), seed=2)], 1.0,
                           lead_names=["II", "V5"])
    assert_array_equal(X[0, 0], record(100, ("MLII", "V1"), seed=1).signal[0])
    assert np.isnan(X[0, 1]).all()
    assert_array_equal(X[1], record(100, ("V5", "II"), seed=2).signal[::-1])
    with pytest.raises(ValueError, match="Record b has no lead II"):
        make_windows([record(100, ("II",), name="a"), record(100, ("V5",), name="b")], 1.0)


def test_out_is_the_same_in_a_file(tmp_path):
    records = [record(n, ("I", "II"), seed=n) for n in (350, 100, 1200, 30)]
    with pytest.warns(UserWarning, match=r"1 of 4 records give no window of 1 s"):
        X, _, groups = make_windows(records, 1.0, step=0.5)
    with pytest.warns(UserWarning, match="give no window"):
        mapped, _, same = make_windows(records, 1.0, step=0.5, out=tmp_path / "X.npy")
    assert isinstance(mapped, np.memmap) and mapped.dtype == np.float32
    assert_array_equal(mapped, X)
    assert_array_equal(groups, same)
    assert_array_equal(np.load(tmp_path / "X.npy"), X)
    with pytest.raises(ValueError, match="No record has a usable window"):
        make_windows(records, 100.0, out=tmp_path / "none.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.npy", "X.npy.index.npz"]


def test_gaps_make_a_lead_missing():
    one = record(400, ("I", "II"))
    one.signal[0, 150] = one.signal[:, 250] = np.nan
    X, y, _ = make_windows([one], 1.0, y=["sick"])
    assert X.shape == (3, 2, 100) and y.tolist() == ["sick"] * 3
    assert_array_equal(np.isnan(X).sum(axis=2), [[0, 0], [100, 0], [0, 0]])
    assert_array_equal(X[2], one.signal[:, 300:])


@pytest.mark.parametrize(("args", "match"), [
    (([record(100, name="a"), record(200, fs=250, name="b")], 1.0),
     r"Record 'b' has fs=250 Hz, the first one \('a'\) 100 Hz"),
    (([record(100), record(200, fs=250)], 1.0), "Record number 1 has fs=250 Hz"),
    (([record(100)], 0.333), r"length=0.333 s is 33.3 samples at fs=100 Hz.*length=0.33 \(33 samples\)"),
    (([record(100)], 0.0), "length must be a positive number of seconds; got 0.0"),
    (([record(100)], -1), "length must be a positive number of seconds; got -1"),
    (([record(100)], "10"), "length must be a positive number of seconds; got '10'"),
    (([record(100)], np.inf), "length must be a positive number of seconds; got inf"),
    (([record(100)], 1e-9), r"length=1e-09 s is 1e-07 samples .* length=0.01 \(1 samples\)"),
    (([], 1.0), "holds no record"),
    ((record(100), 1.0), "got ECGRecord"),
    ((["a/101"], 1.0), r"got list of str\. Read a folder or paths by read_records\(\.\.\.\)"),
    (([record(100), "a/101"], 1.0), "got list of str"),
    (("folder", 1.0), r"got str\. Read a folder"),
    ((Path("folder"), 1.0), "got .*Path"),
    ((np.zeros((3, 2, 100)), 1.0), r"got ndarray of ndarray.*ECGRecord\(signal, fs=\.\.\., lead_names=\.\.\.\) of each"),
    ((Bunch(data=1), 1.0), r"got Bunch\."),
])
def test_window_messages(args, match):
    with pytest.raises(ValueError, match=match):
        make_windows(*args)


@pytest.mark.parametrize("step", [0, -0.5, "1"])
def test_step_is_positive(step):
    with pytest.raises(ValueError, match=f"step must be a positive number of seconds; got {step!r}"):
        make_windows([record(100)], 0.5, step=step)


@pytest.mark.parametrize("name", ["y", "groups"])
def test_one_label_per_record(name):
    with pytest.raises(ValueError, match=rf"{name} must have one entry .* 2 records; got shape \(3,\)"):
        make_windows([record(100)] * 2, 1.0, **{name: [1, 2, 3]})


def test_beats_equal_a_naive_loop():
    rng = np.random.default_rng(0)
    symbols = list("NLRejAaJSVEF/fQ+~|")
    aami = dict(zip("NLRejAaJSVEF/fQ", "NNNNNSSSSVVFQQQ", strict=True))
    records, expected = [], []
    for i in range(4):
        beats = [(s, symbols[rng.integers(len(symbols))]) for s in np.sort(rng.integers(0, 1000, 60))]
        one = record(1000, ("MLII", "V1"), fs=200, seed=i, beats=beats)
        records.append(one)
        for sample, symbol in beats:
            if symbol in aami and sample - 50 >= 0 and sample + 90 <= 1000:
                expected.append((one.signal[:, sample - 50:sample + 90], aami[symbol], f"p{i}"))
    data = Bunch(records=records, patient_id=np.array(["p0", "p1", "p2", "p3"]), target=None)
    X, y, groups = make_beats(data)
    assert X.dtype == np.float32 and X.shape[1:] == (2, 140)
    assert_array_equal(X, [window for window, _, _ in expected])
    assert y.tolist() == [label for _, label, _ in expected]
    assert groups.tolist() == [group for _, _, group in expected]


def test_beats_by_own_classes_leads_and_lengths(tmp_path):
    one = record(1000, ("V5", "MLII"), beats=[(100, "N"), (300, "V"), (500, "V"), (999, "V")])
    X, y, groups = make_beats(
        [one], before=0.1, after=0.0, classes={"V": "ectopic"}, lead_names=["II"], groups=["p"],
        out=tmp_path / "beats.npy",
    )
    assert y.tolist() == ["ectopic"] * 3 and groups.tolist() == ["p"] * 3
    assert_array_equal(X, [one.signal[1:, s - 10:s] for s in (300, 500, 999)])


def test_beat_messages():
    with pytest.raises(ValueError, match=r"Record 'x' has no annotations.*annotations='atr'"):
        make_beats([record(1000, name="x")])
    with pytest.raises(ValueError, match="no annotated beat"):
        make_beats([record(1000, beats=[(500, "+")])])
    with pytest.raises(ValueError, match="leave no sample"):
        make_beats([record(1000, beats=[(500, "N")])], before=0, after=0)
    with pytest.raises(ValueError, match=r"classes must be a dict from symbol to label.*got \['N', 'V'\]"):
        make_beats([record(1000, beats=[(500, "N")])], classes=["N", "V"])


@given(
    beats=st.lists(st.tuples(st.integers(0, 999), st.sampled_from("NVA?+~")), max_size=30),
    context=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_context_equals_a_naive_loop(beats, context):
    beats = sorted([(500, "V"), (505, "N"), *beats])
    one = record(1000, ("II", "V1"), fs=100, beats=beats)
    there = [(sample, symbol) for sample, symbol in beats if symbol in "NVA?"]
    expected, labels, dropped = [], [], 0
    for i, (_, symbol) in enumerate(there):
        if symbol not in "NV":
            continue
        around = there[max(0, i - context):i + context + 1]
        if len(around) == 2 * context + 1 and all(s >= 20 and s + 30 <= 1000 for s, _ in around):
            expected.append(np.concatenate([one.signal[:, s - 20:s + 30] for s, _ in around], axis=1))
            labels.append({"N": "n", "V": "v"}[symbol])
        else:
            dropped += 1
    arguments = {"before": 0.2, "after": 0.3, "context": context, "classes": {"N": "n", "V": "v"}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not expected:
            with pytest.raises(ValueError, match="no annotated beat"):
                make_beats([one], **arguments)
            return
        X, y, _ = make_beats([one], **arguments)
    assert_array_equal(X, expected)
    assert y.tolist() == labels
    assert len(caught) == bool(context and dropped)
    if caught:
        message = f"{dropped} of {dropped + len(expected)} beats are left out: {dropped} for they have fewer than {context}"
        assert str(caught[0].message).startswith(message)


def test_context_on_real_beats(real_data):
    records = read_records([real_data / "mitdb" / "208"], annotations="atr", lead_names=["II"])
    X, y, _ = make_beats(records)
    with pytest.warns(UserWarning, match="beats are left out"):
        around, middle, _ = make_beats(records, context=1)
    assert around.shape == (len(X) - 2, 1, 3 * 252)
    assert_array_equal(middle, y[1:-1])
    for k in range(3):  # 208 holds no beat that is not in a class of AAMI
        assert_array_equal(around[:, :, 252 * k:252 * (k + 1)], X[k:len(X) - 2 + k])


@pytest.mark.parametrize("context", [-1, 1.0, True, "1"])
def test_context_is_a_number(context):
    with pytest.raises(ValueError, match="context must be a whole number of neighbours"):
        make_beats([record(1000, beats=[(500, "N")])], context=context)


def test_windows_in_many_blocks(monkeypatch):
    one = record(500, ("I", "II"))
    one.signal[:, 120] = one.signal[0, 333] = np.nan
    expected = make_windows([one], 0.5, step=0.1)[0]
    monkeypatch.setattr("skecg.preprocessing._cutting._BLOCK_BYTES", 1)
    assert_array_equal(make_windows([one], 0.5, step=0.1)[0], expected)


# Names as they are in headers on PhysioNet.
@pytest.mark.parametrize(("name", "lead"), [
    ("MLI", "I"), ("MLII", "II"), ("ML2", "II"), ("MLIII", "III"), ("mod.V1", "V1"), ("MCL1", "V1"), ("MV2", "V2"),
    ("i", "I"), ("avr", "aVR"), ("AVL", "aVL"), ("v6", "V6"), ("lead II", "II"), ("ECG I", "I"), ("ECG AVF", "aVF"),
    ("ECG lead III", "III"), ("ECG Lead V5", "V5"), ("ECG lead AVL", "aVL"),
])
def test_other_names_of_a_lead(name, lead):
    assert canonical_lead_name(name) == lead
    one = record(100, (name, "ECG"))
    X, _, _ = make_windows([one], 1.0, lead_names=[lead])
    assert_array_equal(X[0, 0], one.signal[0])


@pytest.mark.parametrize("name", [
    "ECG", "ECG1", "ECG 2", "ECG lead 1", "ECG I filtered", "V", "V1-V2", "CM5", "CC5", "D3", "II+", "A-I", "vx", "MCL",
    "-aVR",
])
def test_names_that_are_no_standard_lead(name):
    assert canonical_lead_name(name) == name
    one = record(100, (name, "V6"))
    X, _, _ = make_windows([one], 1.0, lead_names=[name])
    assert_array_equal(X[0, 0], one.signal[0])
    X, _, _ = make_windows([one], 1.0, lead_names=["I", "V6"])
    assert np.isnan(X[0, 0]).all()
