"""PTB-XL."""

import ast
import csv
from dataclasses import replace
from numbers import Integral, Real

import numpy as np

from .._validation import STANDARD_LEADS
from ._physionet import CC_BY, Database
from ._wfdb import ECGFormatError

_SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
_TASKS = {  # column that says whether a statement counts, column that says as what
    "superclass": ("diagnostic", "diagnostic_class"),
    "subclass": ("diagnostic", "diagnostic_subclass"),
    "diagnostic": ("diagnostic", ""),
    "form": ("form", ""),
    "rhythm": ("rhythm", ""),
    "all": (None, ""),
}
PTBXL = Database(
    name="ptbxl",
    title="PTB-XL",
    slug="ptb-xl",
    version="1.0.3",
    headers=("records100/*/*_lr.hea", "records500/*/*_hr.hea"),
    extensions=("hea", "dat"),
    n_records=21_799,
    record_bytes=0.0,
    tables=("ptbxl_database.csv", "scp_statements.csv"),
    license=CC_BY,
    citation="Wagner P, Strodthoff N, Bousseljot RD, Kreiseler D, Lunze FI, Samek W, Schaeffter T. PTB-XL, a large "
             "publicly available electrocardiography dataset. Sci Data 7:154, 2020.\n"
             "Wagner P, Strodthoff N, Bousseljot R, Samek W, Schaeffter T. PTB-XL, a large publicly available "
             "electrocardiography dataset (version 1.0.3). PhysioNet, 2022. https://doi.org/10.13026/kfzx-aw45",
    descr="""PTB-XL

Clinical 12-lead recordings of 10 seconds, at 100 and 500 Hz, each with SCP-ECG statements by cardiologists.
By default `target` holds the five diagnostic superclasses: NORM (normal), MI (myocardial infarction), STTC
(ST/T change), CD (conduction disturbance), HYP (hypertrophy). A record may have several, or none. `folds` are
exclusive for patients: train on 1-8, validate on 9, test on 10.""",
)


def fetch_ptbxl(
    data_home=None, *, fs=100, task="superclass", records=None, lead_names=None, min_likelihood=0.0,
    download_if_missing=True, verify=False,
):
    """PTB-XL: 21,799 clinical 12-lead recordings of 10 s (0.5 GB at 100 Hz, 2.7 GB at 500 Hz).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``ptbxl``; or the folder of a copy of this
        one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    fs : {100, 500}, default=100
        Sampling rate in Hz of the files to use, and to download.
    task : {"superclass", "subclass", "diagnostic", "form", "rhythm", "all"}, default="superclass"
        Labels: the 5 diagnostic superclasses, the 23 subclasses, the 44 diagnostic statements, the 19 on
        form, the 12 on rhythm, or all 71 statements, as in the published benchmark [1]_.
    records : str or sequence of str, default=None
        Only these: names of records such as ``"00001_lr"``, or patterns such as ``"records100/00000/*"``.
        ``None`` is all of them.
    lead_names : sequence of str, default=None
        Leads to read, in this order; ``None`` reads all 12.
    min_likelihood : float, default=0.0
        A statement counts from this likelihood on, in percent. At 0 every statement counts, as in the
        published benchmark: PTB-XL writes 0 where the likelihood is not known. From 0 to 100; a share such as
        0.5 is refused.
    download_if_missing : bool, default=True
        Whether to download the files that are missing, from PhysioNet or from the mirror in the environment
        variable ``SKECG_PHYSIONET_URL``. Nothing else ever downloads anything. Each file is checked against
        the SHA-256 that PhysioNet publishes; what broke off is continued by the next call. Without it, what
        is there is used, and a warning counts the records.
    verify : bool, default=False
        Whether to check the SHA-256 of the files that are there already, too.

    Returns
    -------
    data : Bunch
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence, read on access;
        ``target`` : ndarray of shape (n_records, n_labels), int64, 1 where a record has a statement of that
        label; ``target_names`` : the labels, tuple of str; ``record_names`` : ndarray of shape (n_records,),
        str; ``patient_id`` and ``folds`` : ndarray of shape (n_records,), int64; ``fs``; ``lead_names``;
        ``DESCR``, ``license`` (CC BY 4.0), ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, a table missing in it, or no record, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ECGFormatError
        A table that cannot be used.
    ValueError
        Another ``fs`` or ``task``, a ``min_likelihood`` that is no percentage, no record of that name.

    References
    ----------
    .. [1] Strodthoff N, Wagner P, Schaeffter T, Samek W. Deep learning for ECG analysis: benchmarks and insights
           from PTB-XL. IEEE J Biomed Health Inform 25(5):1519-1528, 2021.
    .. [2] Wagner P, et al. PTB-XL, a large publicly available electrocardiography dataset. Sci Data 7:154, 2020.

    Examples
    --------
    >>> from skecg.datasets import fetch_ptbxl
    >>> from skecg.preprocessing import make_windows
    >>> ptbxl = fetch_ptbxl(fs=500)                                  # doctest: +SKIP
    >>> X, y, groups = make_windows(ptbxl, length=10.0)              # doctest: +SKIP
    """
    if fs not in (100, 500):
        raise ValueError(f"PTB-XL is stored at fs=100 and fs=500 Hz; got fs={fs!r}.")
    if task not in _TASKS:
        raise ValueError(f"task must be one of {', '.join(_TASKS)}; got {task!r}.")
    if not isinstance(min_likelihood, Real) or not (min_likelihood == 0 or 1 <= min_likelihood <= 100):
        raise ValueError("min_likelihood is in percent: 0, or a number from 1 to 100 (50, not 0.5, for one half); got "
                         f"{min_likelihood!r}.")
    fs = int(fs)
    if records is not None:
        records = [str(records)] if isinstance(records, (str, Integral)) else [*map(str, records)]
        foreign = [name for name in records if name.endswith("_hr" if fs == 100 else "_lr")]
        if foreign:
            raise ValueError(f"{foreign[0]} is no record at fs={fs} Hz: pass fs={600 - fs}, or the name that ends in "
                             f"{'_lr' if fs == 100 else '_hr'}.")
    database = replace(PTBXL, title=f"PTB-XL at {fs} Hz", record_bytes=1000 + 240 * fs,
                       headers=PTBXL.headers[:1] if fs == 100 else PTBXL.headers[1:])
    folder, paths = database.provide(data_home, records, download_if_missing, verify)
    label = _read_statements(folder / "scp_statements.csv", *_TASKS[task])
    names = _SUPERCLASSES if task == "superclass" else tuple(dict.fromkeys(label.values()))
    rows = _read_rows(folder / "ptbxl_database.csv", "filename_lr" if fs == 100 else "filename_hr")
    paths = [path for path in paths if path in rows]
    if not paths:
        raise ECGFormatError(f"none of the records in {folder} is in the table. Copy both again, of one version.",
                             file=folder / "ptbxl_database.csv")
    target = np.zeros((len(paths), len(names)), dtype=np.int64)
    for number, path in enumerate(paths):
        for code, likelihood in rows[path][0].items():
            if code in label and likelihood >= min_likelihood:
                target[number, names.index(label[code])] = 1
    return database.bunch(
        folder, paths, {} if lead_names is None else {"lead_names": tuple(lead_names)},
        target=target,
        target_names=names,
        patient_id=np.array([rows[path][1] for path in paths], dtype=np.int64),
        folds=np.array([rows[path][2] for path in paths], dtype=np.int64),
        fs=fs,
        lead_names=STANDARD_LEADS if lead_names is None else tuple(lead_names),
    )


def _read_table(file):
    """Pairs of line number and row."""
    with open(file, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            yield reader.line_num, row


def _read_rows(file, column):
    """Statements with their likelihood, patient and fold, by path of the record."""
    rows = {}
    for line, row in _read_table(file):
        try:
            codes = ast.literal_eval(row["scp_codes"])
            if not all(isinstance(likelihood, (int, float)) for likelihood in codes.values()):
                raise TypeError(f"the statements {codes} have no likelihood")
            rows[row[column]] = codes, int(float(row["patient_id"])), int(row["strat_fold"])
        except (KeyError, ValueError, SyntaxError, TypeError, AttributeError) as error:
            raise ECGFormatError(f"the row cannot be used ({type(error).__name__}: {error}). Copy the file again.",
                                 file=file, line=line) from error
    return rows


def _read_statements(file, kind, column):
    """The label of each statement of a kind (None: of any), in the order of the table."""
    label = {}
    for line, row in _read_table(file):
        for name in ("", "diagnostic_class", kind, column):
            if name is not None and name not in row:
                raise ECGFormatError(f"the table has no column {name!r}, or no first column of codes. Copy the file "
                                     "again.", file=file, line=line, field=name)
        if row[""] and (kind is None or row[kind]) and row[column]:
            label[row[""]] = row[column]
    return label
