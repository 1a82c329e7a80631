"""Diagnoses as scored classes: codes merged, nothing lost unsaid, and the chain from real files to a score."""

import csv

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skecg import MultilabelThresholdClassifier, RecordClassifier
from skecg.datasets import cinc_targets, fetch_cinc2021
from skecg.metrics import cinc_classes, cinc_score

SINUS, RBBB, COMPLETE_RBBB, LBBB, COMPLETE_LBBB = "426783006", "59118001", "713427006", "164909002", "733534002"
DIAGNOSES = [[SINUS, RBBB], [RBBB, COMPLETE_RBBB], [COMPLETE_LBBB, "164951009"], [], {"164951009", "111"}]


@pytest.mark.parametrize("year", [2020, 2021])
def test_merged_and_unscored(year):
    targets, classes = cinc_targets(DIAGNOSES, year=year), cinc_classes(year)
    assert targets.target.shape == (5, len(classes.codes)) and targets.target.dtype == np.int64
    assert targets.names == classes.abbreviations
    expected = np.zeros((5, len(classes.codes)), dtype=int)
    expected[0, [classes.sinus_rhythm, classes.column(RBBB)]] = expected[1, classes.column(COMPLETE_RBBB)] = 1
    unscored = {"164951009": 2, "111": 1}
    if year == 2021:
        expected[2, classes.column(LBBB)] = 1
    else:  # complete left bundle branch block was not scored
        unscored = {"164951009": 2, "111": 1, COMPLETE_LBBB: 1}
    assert_array_equal(targets.target, expected)
    assert list(targets.unscored.items()) == list(unscored.items())


def test_all_forms_agree():
    codes = [SINUS, RBBB, COMPLETE_RBBB, COMPLETE_LBBB, "164951009", "111", "nobody has it"]  # nor warns about it
    matrix = np.array([[code in own for code in codes] for own in DIAGNOSES])
    expected = cinc_targets(DIAGNOSES)
    forms = [
        (matrix, codes), (matrix.astype(float), np.array(codes)), (sparse.csr_matrix(matrix.astype(int)), codes),
        (matrix.tolist(), codes), ([",".join(own) for own in DIAGNOSES],), ([" , ".join(own) for own in DIAGNOSES],),
        ([[int(code) for code in own] for own in DIAGNOSES],),
    ]
    for form in forms:
        found = cinc_targets(*form)
        assert_array_equal(found.target, expected.target)
        assert found.unscored == expected.unscored
    names = [["NSR", "RBBB"], ["CRBBB"]], [["nsr", "rbbb"], {"crbbb"}], ["Sinus Rhythm, right bundle branch block", "Crbbb"]
    for form in names:
        assert_array_equal(cinc_targets(form).target, expected.target[:2])
    order = np.random.default_rng(0).permutation(len(codes))
    assert_array_equal(cinc_targets(matrix[:, order], np.array(codes)[order]).target, expected.target)


@pytest.mark.parametrize(("arguments", "message"), [
    (([[1, 0]], ["1", "2", "3"]), r"diagnoses has shape \(1, 2\); expected \(n_records, 3\)"),
    (([[2, 0]], ["1", "2"]), "values other than 0 and 1"),
    ((SINUS,), "one string or a matrix"),
    ((np.eye(3),), r"together with codes="),
    (([["AF"], None],), r"The diagnoses of record 1 are None; expected a collection of codes.* has \[\]"),
    ((np.array(["AF", np.nan], dtype=object),), "The diagnoses of record 1 are nan; expected a collection"),
    (([426783006],), "The diagnoses of record 0 are 426783006; expected a collection"),
    ((DIAGNOSES, 2020), "codes is 2020; expected the codes of the columns of diagnoses. .* year=2020"),
    ((np.eye(2), "AF"), "codes is 'AF'; expected the codes of the columns"),
])
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cinc_targets(*arguments)
    with pytest.raises(ValueError, match="year is 2017"):
        cinc_targets(DIAGNOSES, year=2017)


def test_unknown_spellings_are_told():
    with pytest.warns(UserWarning, match=r"2 diagnoses are neither .* become no class: 'A-Fib', '426783006;59118001'"):
        targets = cinc_targets([["A-Fib", "AF"], ["A-Fib"], [f"{SINUS};{RBBB}"], ["164951009"]])
    assert targets.target.sum() == 1
    assert targets.unscored == {"A-Fib": 2, "164951009": 1, f"{SINUS};{RBBB}": 1}
    with pytest.warns(UserWarning, match="neither SNOMED CT codes nor"):
        assert cinc_targets([[1]], ["Afib"]).unscored == {"Afib": 1}


def spread(X):
    """Two values per lead, so that 28 recordings are enough to run."""
    return np.concatenate([X.std(axis=2), np.abs(np.diff(X)).max(axis=2)], axis=1)


@pytest.mark.filterwarnings("ignore:.* holds 28 of .* records of the PhysioNet/CinC Challenge")
@pytest.mark.filterwarnings("ignore:Label .* is present in all training:UserWarning")
def test_real_records_from_files_to_a_score(real_data):
    data = fetch_cinc2021(real_data, download_if_missing=False)
    targets = cinc_targets(data.target, data.target_names)
    with open(real_data / "cinc_scoring/2021/dx_mapping_scored.csv", newline="") as file:
        scored = {row["SNOMEDCTCode"] for row in csv.DictReader(file)}
    assert set(targets.unscored) == set(data.target_names) - scored
    for row, own in zip(targets.target, data.target, strict=True):  # each record, from its own codes
        codes = [code for code, has in zip(data.target_names, own, strict=True) if has]
        columns = {cinc_classes(2021).column(code) for code in codes if code in scored}
        assert set(np.flatnonzero(row)) == columns
    y = targets.target
    assert (y.sum(), y[:, 14].sum()) == (32, 13)

    windows = make_pipeline(
        FunctionTransformer(spread), VarianceThreshold(), StandardScaler(), OneVsRestClassifier(LogisticRegression()))
    model = MultilabelThresholdClassifier(
        RecordClassifier(windows, length=5.0), metric="cinc_2021", cv=0.3, min_positives=2, random_state=0)
    for test in ("georgia", "ptb-xl"):  # trained on the other source
        train = np.flatnonzero(data.source != test)
        model.fit(data.records[train], y[train], groups=data.patient_id[train])
        predicted = model.predict(data.records[data.source == test])
        assert predicted.shape == (np.sum(data.source == test), 26)
        score = cinc_score(y[data.source == test], predicted)
        assert np.isfinite(score) and score < 1
    assert cinc_score(y, y) == 1
