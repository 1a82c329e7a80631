"""PhysioNet databases from local folders in PhysioNet's own layout."""

import ast
import csv
import warnings
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from .._validation import STANDARD_LEADS
from ._records import RecordSequence, local_path
from ._wfdb import ECGFormatError, header_path

_PHYSIONET = (
    "Goldberger A, Amaral L, Glass L, Hausdorff J, Ivanov PC, Mark R, et al. PhysioBank, PhysioToolkit, and "
    "PhysioNet. Circulation 101(23):e215-e220, 2000."
)

_MITDB_RECORDS = tuple(str(number) for number in (
    *range(100, 110), *range(111, 120), *range(121, 125), *range(200, 204), 205, *range(207, 211),
    *range(212, 216), 217, *range(219, 224), 228, *range(230, 235),
))
_MITDB_PACED = ("102", "104", "107", "217")
_MITDB_DESCR = """MIT-BIH Arrhythmia Database

48 two-lead ambulatory recordings of 30 minutes from 47 subjects (records 201 and 202 are one subject), 360
Hz, with every beat annotated by cardiologists. The first lead is MLII in all but a few records; the second is
mostly V1. Labels belong to beats, not to records: see skecg.preprocessing.make_beats."""

_PTBXL_SIZE = 21_799
_PTBXL_CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
_PTBXL_DESCR = """PTB-XL

Clinical 12-lead recordings of 10 seconds, at 100 and 500 Hz, each with SCP-ECG statements by cardiologists.
`target` holds the five diagnostic superclasses: NORM (normal), MI (myocardial infarction), STTC (ST/T
change), CD (conduction disturbance), HYP (hypertrophy). A record may have several, or none. `folds` are
exclusive for patients: train on 1-8, validate on 9, test on 10."""


def load_mitdb(folder, *, lead_names=None, include_paced=False):
    """The MIT-BIH Arrhythmia Database from a local folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``100.hea``, ``100.dat``, ``100.atr``, ... Partial copies are welcome; a warning counts the
        records.
    lead_names : sequence of str, default=None
        Leads to read from each record; ``None`` reads both. A lead that a record does not have is NaN.
    include_paced : bool, default=False
        Whether to keep records 102, 104, 107 and 217, whose beats are paced. The usual protocol (AAMI EC57)
        leaves them out; 102 and 104 have no lead MLII.

    Returns
    -------
    data : Bunch
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence with annotations, read on access;
        ``record_names`` and ``patient_id`` : ndarray of shape (n_records,), str, where 201 and 202 are one
        subject; ``target`` : None, for labels belong to beats; ``fs`` : 360; ``lead_names`` : the lead(s)
        that windows and beats are cut from unless others are asked for, ``("MLII",)``; ``DESCR``,
        ``license``, ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it.

    See Also
    --------
    skecg.preprocessing.make_beats : Cut labelled beats from it.

    Examples
    --------
    >>> from skecg.datasets import load_mitdb
    >>> from skecg.preprocessing import make_beats
    >>> mitdb = load_mitdb("mitdb")                                  # doctest: +SKIP
    >>> X, y, groups = make_beats(mitdb)                             # doctest: +SKIP
    """
    folder = _existing_folder(folder)
    names = [name for name in _MITDB_RECORDS if (folder / f"{name}.hea").is_file()]
    _report(folder, len(names), len(_MITDB_RECORDS), "the MIT-BIH Arrhythmia Database", "100.hea, ...")
    names = [name for name in names if include_paced or name not in _MITDB_PACED]
    options = {"annotations": "atr"}
    if lead_names is not None:
        options |= {"lead_names": tuple(lead_names), "missing": "nan"}
    return Bunch(
        records=RecordSequence([folder / name for name in names], options),
        record_names=np.array(names, dtype=str),
        target=None,
        patient_id=np.array(["201" if name == "202" else name for name in names], dtype=str),
        fs=360,
        lead_names=("MLII",) if lead_names is None else tuple(lead_names),
        DESCR=_MITDB_DESCR,
        license="Open Data Commons Attribution License v1.0 (ODC-BY 1.0)",
        citation="Moody GB, Mark RG. The impact of the MIT-BIH Arrhythmia Database. IEEE Eng Med Biol "
                 f"20(3):45-50, 2001.\n{_PHYSIONET}",
    )


def load_ptbxl(folder, *, fs=100, lead_names=None, min_likelihood=0.0):
    """PTB-XL with its five diagnostic superclasses, from a local folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``ptbxl_database.csv``, ``scp_statements.csv`` and ``records100`` or ``records500``. Partial
        copies are welcome: rows without a file are left out, and a warning counts the records.
    fs : {100, 500}, default=100
        Sampling rate in Hz of the files to use.
    lead_names : sequence of str, default=None
        Leads to read, in this order; ``None`` reads all 12.
    min_likelihood : float, default=0.0
        A statement counts from this likelihood on, in percent. At 0 every statement counts, as in the
        published benchmark: PTB-XL writes 0 where the likelihood is not known.

    Returns
    -------
    data : Bunch
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence, read on access;
        ``target`` : ndarray of shape (n_records, 5), int64, 1 where a record has a statement of that
        superclass; ``target_names`` : the superclasses; ``record_names`` : ndarray of shape (n_records,),
        str; ``patient_id`` and ``folds`` : ndarray of shape (n_records,), int64; ``fs``; ``lead_names``;
        ``DESCR``, ``license``, ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, a table missing in it, or no record.
    ECGFormatError
        A table that cannot be used.

    Examples
    --------
    >>> from skecg.datasets import load_ptbxl
    >>> from skecg.preprocessing import make_windows
    >>> ptbxl = load_ptbxl("ptb-xl", fs=500)                         # doctest: +SKIP
    >>> X, y, groups = make_windows(ptbxl, length=10.0)              # doctest: +SKIP
    """
    folder = _existing_folder(folder)
    if fs not in (100, 500):
        raise ValueError(f"PTB-XL is stored at fs=100 and fs=500 Hz; got fs={fs!r}.")
    superclass = _read_superclasses(folder / "scp_statements.csv")
    database = folder / "ptbxl_database.csv"
    paths, patients, folds, target = [], [], [], []
    for line, row in _read_table(database):
        try:
            path = folder / row["filename_lr" if fs == 100 else "filename_hr"]
            codes = ast.literal_eval(row["scp_codes"])
            found = {superclass[code] for code, likelihood in codes.items()
                     if code in superclass and likelihood >= min_likelihood}
            patient, fold = int(float(row["patient_id"])), int(row["strat_fold"])
        except (KeyError, ValueError, SyntaxError, TypeError, AttributeError) as error:
            raise ECGFormatError(f"the row cannot be used ({type(error).__name__}: {error}). Copy the file "
                                 "again.",
                                 file=database, line=line) from error
        if header_path(path).is_file():
            paths.append(path)
            patients.append(patient)
            folds.append(fold)
            target.append([name in found for name in _PTBXL_CLASSES])
    _report(folder, len(paths), _PTBXL_SIZE, f"PTB-XL at {fs} Hz", f"records{fs}/00000/...")
    options = {} if lead_names is None else {"lead_names": tuple(lead_names)}
    records = RecordSequence(paths, options)
    return Bunch(
        records=records,
        record_names=np.array(records.names, dtype=str),
        target=np.array(target, dtype=np.int64),
        target_names=_PTBXL_CLASSES,
        patient_id=np.array(patients, dtype=np.int64),
        folds=np.array(folds, dtype=np.int64),
        fs=fs,
        lead_names=STANDARD_LEADS if lead_names is None else tuple(lead_names),
        DESCR=_PTBXL_DESCR,
        license="Creative Commons Attribution 4.0 International (CC BY 4.0)",
        citation="Wagner P, Strodthoff N, Bousseljot RD, Kreiseler D, Lunze FI, Samek W, Schaeffter T. "
                 "PTB-XL, a large publicly available electrocardiography dataset. Sci Data 7:154, "
                 f"2020.\n{_PHYSIONET}",
    )


def _existing_folder(folder):
    folder = local_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Download the database from PhysioNet into it "
                                "first.")
    return folder


def _report(folder, n_found, n_expected, what, example):
    if n_found == 0:
        raise FileNotFoundError(f"{folder} holds no record of {what}; expected PhysioNet's layout "
                                f"({example}).")
    if n_found < n_expected:
        warnings.warn(f"{folder} holds {n_found:,} of {n_expected:,} records of {what}.",
                      UserWarning, stacklevel=3)


def _read_table(file):
    """Pairs of line number and row."""
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file.name} in {Path(file).parent}; PhysioNet publishes it "
                                "with the records.")
    with open(file, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            yield reader.line_num, row


def _read_superclasses(file):
    """The diagnostic superclass of each diagnostic SCP code."""
    superclass = {}
    for line, row in _read_table(file):
        if "diagnostic_class" not in row or "" not in row:
            raise ECGFormatError("the table has no column 'diagnostic_class', or no first column of codes. "
                                 "Copy the file again.", file=file, line=line, field="diagnostic_class")
        if row["diagnostic_class"]:
            superclass[row[""]] = row["diagnostic_class"]
    return superclass
