"""The challenge's classes and score against official numbers, and against the definition in loops."""

import csv
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB

from skecg.datasets import cinc_targets
from skecg.evaluation import label_efficiency_curve, summary
from skecg.metrics import (
    accuracy,
    bootstrap_interval,
    bootstrap_weights,
    cinc_classes,
    cinc_score,
    get_scorer,
    macro_average_precision,
    macro_f1,
    macro_roc_auc,
    resample_metric,
)

YEARS = (2020, 2021)


def naive(true, predicted, classes):
    """The definition: credit of each pair, divided among the union of a record's classes."""
    def total(answers):
        credit = 0.0
        for t, p in zip(true, answers, strict=True):
            union = max(1, np.count_nonzero(t | p))
            credit += sum(classes.weights[j, k] / union for j in np.flatnonzero(t) for k in np.flatnonzero(p))
        return credit

    inactive = np.zeros_like(true)
    inactive[:, classes.sinus_rhythm] = True
    nothing, everything = total(inactive), total(true)
    return 0.0 if everything == nothing else (total(predicted) - nothing) / (everything - nothing)


@pytest.mark.parametrize(("year", "n_classes", "n_diagnoses", "sinus"), [(2020, 24, 27, 20), (2021, 26, 30, 14)])
def test_classes(year, n_classes, n_diagnoses, sinus):
    classes = cinc_classes(year)
    codes = [code for same in classes.codes for code in same]
    assert (len(classes.codes), len(codes), classes.sinus_rhythm) == (n_classes, n_diagnoses, sinus)
    assert len(set(codes)) == n_diagnoses
    assert len(classes.names) == len(classes.abbreviations) == n_classes
    assert classes.abbreviations[sinus] == "NSR"
    assert_array_equal(classes.weights, classes.weights.T)
    assert_array_equal(np.diag(classes.weights), 1)
    off = classes.weights[~np.eye(n_classes, dtype=bool)]
    assert off.min() == 0.15 and off.max() == 0.5  # nothing else is scored as the same
    with pytest.raises(ValueError, match="read-only"):
        classes.weights[0, 0] = 2
    for i, same in enumerate(classes.codes):
        assert [classes.column(code) for code in same] == [i] * len(same)
        assert {classes.column(a) for a in classes.abbreviations[i].split("|")} == {i}
    assert classes.column("59118001") == classes.column("713427006") == classes.column("CRBBB")
    assert classes.column(59118001) == classes.column("RBBB")
    for i in range(n_classes):
        of_class = [*classes.abbreviations[i].split("|"), *classes.names[i].split("|")]
        for name in (*of_class, classes.abbreviations[i], classes.names[i]):
            assert {classes.column(form) for form in (name, name.upper(), name.lower(), f" {name}")} == {i}
        assert classes.column(classes.codes[i]) == i
    for name in ("164951009", "nsr2", "", "CRBBB|AF", ("713427006", "164889003"), None):  # the first: abnormal QRS
        with pytest.raises(KeyError, match=r"is not scored; expected a SNOMED CT code, .* \w+, PAC\|SVPB, "):
            classes.column(name)


def test_tables_are_the_challenges(real_data):
    for year in YEARS:
        folder, classes = real_data / "cinc_scoring" / str(year), cinc_classes(year)
        with open(folder / "dx_mapping_scored.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            code = row.get("SNOMED CT Code") or row["SNOMEDCTCode"]
            column = classes.column(code)
            assert column is not None and column == classes.column(row["Abbreviation"])
            position = classes.codes[column].index(code)
            assert classes.names[column].split("|")[position] == row["Dx"]
        assert sum(map(len, classes.codes)) == len(rows)
        with open(folder / "weights.csv", newline="") as file:
            header, *rows = csv.reader(file)
        columns = [classes.column(name.split("|")[0]) for name in header[1:]]
        assert list(dict.fromkeys(columns)) == list(range(len(classes.codes)))  # in this order, merged ones once
        for row in rows:
            weights = classes.weights[classes.column(row[0].split("|")[0]), columns]
            assert_array_equal(weights, [float(value) for value in row[1:]])


@pytest.mark.parametrize("year", YEARS)
def test_official_numbers(reference, year):
    """Labels, outputs and scores were drawn at random; the numbers are those of the challenges' own programs."""
    folder = reference / "cinc2021_score"
    arrays, cases = np.load(folder / "arrays.npz"), json.loads((folder / "meta.json").read_text())["cases"]
    classes = cinc_classes(year)
    assert_array_equal(classes.weights, arrays[f"weights_{year}"])
    cases = {name: expected for name, expected in cases.items() if name.startswith(f"{year}.")}
    assert len(cases) == 13
    for name, expected in cases.items():
        labels, outputs, scores = (arrays[f"{name}.{key}"] for key in ("labels", "outputs", "scores"))
        assert cinc_score(labels, outputs, year) == pytest.approx(expected["challenge_metric"], abs=1e-12), name
        assert accuracy(labels, outputs) == pytest.approx(expected["accuracy"], abs=1e-12), name
        # the means here leave out classes of one value; the official precision needs a positive only, its F any answer
        both = labels.any(axis=0) & ~labels.all(axis=0)
        for metric, theirs in ((macro_roc_auc, "auroc"), (macro_average_precision, "auprc")):
            if both.any():
                value = metric(labels[:, both], scores[:, both])
                assert value == pytest.approx(arrays[f"{name}.{theirs}"][both].mean(), abs=1e-12), (name, theirs)
        there = labels.any(axis=0)
        if there.any():
            assert macro_f1(labels, outputs) == pytest.approx(arrays[f"{name}.f"][there].mean(), abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 12), year=st.sampled_from(YEARS), sparse=st.booleans())
def test_definition(seed, n, year, sparse):
    rng, classes = np.random.default_rng(seed), cinc_classes(year)
    shape = n, len(classes.codes)
    true, predicted = rng.random((2, *shape)) < (0.03 if sparse else 0.3)
    value = cinc_score(true, predicted, year)
    assert value == pytest.approx(naive(true, predicted, classes), abs=1e-12)
    assert value <= 1 + 1e-12
    assert cinc_score(true, true, year) in (pytest.approx(1, abs=1e-12), 0.0)
    order = rng.permutation(shape[1])
    for names in (
        [str(rng.choice(classes.codes[i])) for i in order], [classes.codes[i] for i in order],
        [classes.abbreviations[i].lower() for i in order], [classes.names[i] for i in order],
    ):
        assert cinc_score(true[:, order], predicted[:, order], year, labels=names) == pytest.approx(value, abs=1e-12)
    only = true[:, 3:9], predicted[:, 3:9]
    padded = [np.pad(part, ((0, 0), (3, shape[1] - 9))) for part in only]
    assert cinc_score(*only, year, labels=classes.abbreviations[3:9]) == cinc_score(*padded, year)


def test_trivial_answers():
    classes = cinc_classes(2021)
    true = np.eye(26, dtype=int)
    sinus = np.zeros_like(true)
    sinus[:, classes.sinus_rhythm] = 1
    assert cinc_score(true, true) == 1
    assert cinc_score(true, sinus) == 0
    assert cinc_score(sinus, true) == cinc_score(np.zeros_like(true), sinus) == 0  # nothing could be earned
    assert cinc_score(true, np.zeros_like(true)) < 0
    assert cinc_score(true, true) != cinc_score(true, true[::-1])


def test_windows_of_records():
    rng = np.random.default_rng(0)
    record = rng.integers(15, size=60)
    true = (rng.random((15, 26)) < 0.2)[record]
    predicted = rng.random((60, 26)) < 0.5
    ids = np.unique(record)
    votes = np.stack([predicted[record == i].mean(axis=0) > 0.5 for i in ids])
    labels = np.stack([true[record == i][0] for i in ids])
    assert cinc_score(true, predicted, record_ids=record) == pytest.approx(cinc_score(labels, votes), abs=1e-12)


@pytest.mark.parametrize(("arguments", "message"), [
    (([[1, 0]], [[1, 0]]), r"y_true has shape \(1, 2\); expected .* each of the 26 classes of cinc_classes\(2021\)"),
    (([1, 0], [1, 0]), r"y_true has shape \(2,\); expected an indicator matrix"),
    (([[1, 0]], [[1, 0]], 2021, ["AF", "XYZ"]), "labels holds XYZ, which the challenge of 2021 does not score"),
    (([[1, 0]], [[1, 0]], 2020, ["AF", "PRWP"]), "labels holds PRWP, which the challenge of 2020 does not score"),
    (([[1, 0]], [[1, 0]], 2021, ["RBBB", "713427006"]), "more than once: RBBB, 713427006. .*merge"),
    (([[1, 0]], [[1, 0]], 2021, ["AF"]), "each of the 1 labels"),
    (([[1, 0]], [[0.7, 0.2]], 2021, ["AF", "NSR"]), "y_pred .* no indicator matrix of 0 and 1"),
    ((cinc_targets([["AF"]]), [[0] * 26]), "y_true is a CincTargets; expected an indicator matrix. Pass its target"),
    (([[0] * 26], cinc_targets([["AF"]])), "y_pred is a CincTargets; expected an indicator matrix. Pass its target"),
    (([[1, 0]], [[1, 0]], 2019), "year is 2019; expected one of 2020, 2021"),
])
def test_what_is_refused(arguments, message):
    arguments, labels = arguments[:3], arguments[3] if len(arguments) > 3 else None
    with pytest.raises(ValueError, match=message):
        cinc_score(*arguments, labels=labels)


# --- as the other metrics are used

RNG = np.random.default_rng(0)
GROUPS = np.arange(240) // 2
Y = (RNG.random((240, 26)) < RNG.uniform(0.15, 0.4, 26)).astype(int)
X = RNG.normal(size=(240, 26)) + 2 * Y
MODEL = OneVsRestClassifier(GaussianNB())


@pytest.mark.parametrize("year", YEARS)
def test_resamples_equal_repeated_rows(year):
    n_classes = len(cinc_classes(year).codes)
    true, predicted = RNG.random((2, 40, n_classes)) < 0.15
    true[:10] = False
    weights = np.vstack([RNG.poisson(1, (30, 40)), np.zeros(40, int), [1] * 10 + [0] * 30])
    expected = [cinc_score(*(part[np.repeat(np.arange(40), w)] for part in (true, predicted)), year) for w in weights]
    assert_allclose(resample_metric(f"cinc_{year}", true, predicted, weights), expected, rtol=0, atol=1e-12)
    assert expected[-2:] == [0, 0]


def test_interval_and_scorer():
    predicted = MODEL.fit(X, Y).predict(X)
    slow = bootstrap_interval(lambda rows: cinc_score(Y[rows], predicted[rows]), GROUPS, n_resamples=50, random_state=0)
    fast = resample_metric("cinc_2021", Y, predicted, bootstrap_weights(GROUPS, n_resamples=50, random_state=0))
    assert_allclose(np.quantile(fast, [0.025, 0.975]), slow, atol=1e-12)
    scorer = get_scorer("cinc_2021")
    for copied in (scorer, clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copied(MODEL, X, Y) == cinc_score(Y, predicted)
    search = GridSearchCV(MODEL, {"estimator__var_smoothing": [1e-9, 1e9]}, scoring=scorer, cv=2).fit(X, Y)
    assert search.best_params_ == {"estimator__var_smoothing": 1e-9}
    with pytest.raises(ValueError, match="expected an indicator matrix"):
        scorer(DummyClassifier().fit(X, Y[:, 0]), X, Y[:, 0])


def test_label_efficiency():
    curve = label_efficiency_curve(
        {"bayes": MODEL}, X, Y, groups=GROUPS, label_fractions=(0.5, 1.0), cv=2, n_repeats=1, verbose=0, random_state=0,
        scoring=["cinc_2021", "roc_auc"],
    )
    rows = [row for row in curve.table if row["metric"] == "cinc_2021"]
    assert len(rows) == 4
    for row in rows:
        run = next(run for run in curve.runs if (run.fraction, run.split) == (row["fraction"], row["split"]))
        assert row["value"] == cinc_score(Y[curve.splits[run.split][1]], run.predictions)
    rows = summary(curve, n_resamples=50)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_what_a_study_warns_about_classes_that_nobody_has():
    """One line for 22 classes, and no word of them where budgets lack a class."""
    y = np.zeros((80, 26), dtype=int)
    y[:, [1, 14, 15]] = np.random.default_rng(0).random((80, 3)) < [0.5, 0.5, 0.05]
    with pytest.warns(UserWarning) as told:
        label_efficiency_curve({"one": MODEL, "two": OneVsRestClassifier(GaussianNB(var_smoothing=1e-3))}, X[:80], y,
                               label_fractions=(0.2, 1.0), cv=2, n_repeats=2, scoring="f1", verbose=0, random_state=0)
    told = [str(warning.message) for warning in told]
    for arm in ("one", "two"):
        own = [text for text in told if text.startswith(f"Arm '{arm}', in 8 run(s): UserWarning: Label not ")]
        assert len(own) == 1
        assert own[0].endswith("is present in all training examples. (and 23 more that differ in numbers only)")
    absent, = (text for text in told if text.startswith("Budgets without any label"))
    assert set(re.findall(r"(\d+) in \d+ of", absent)) == {"15"}
    assert len(told) == 3
