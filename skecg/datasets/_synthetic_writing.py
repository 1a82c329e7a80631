"""Records to WFDB files, and folders of them with their labels."""

import csv
import os
import re

import numpy as np

from ._records import ECGRecord, RecordSequence, local_path
from ._wfdb import _wfdb

_NAME = re.compile(r"[-\w]+", re.ASCII)
_LISTS = ("RECORDS", "labels.csv")
_LIMIT = 2**15 - 1  # of 16 bits; the lowest value marks an invalid sample


def write_record(path, record, *, gain=1000.0, extension="atr"):
    """Write a record in WFDB format: ``.hea``, ``.dat`` (16 bits) and, with annotations, ``.atr``.

    Parameters
    ----------
    path : str or Path
        Where the header goes, with or without ``.hea``. Its folder must exist; files of that name are replaced,
        and the annotation file is removed where this record has no annotations.
    record : ECGRecord
        Signal, annotations and comments are written. NaN becomes an invalid sample, which is read as NaN.
    gain : float, default=1000.0
        ADC units per millivolt (or per unit that ``record.units`` gives). :func:`read_record` gives back each
        value to within half of ``1 / gain``.
    extension : str, default="atr"
        Of the annotation file; letters. Annotation files of another extension are left as they are.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        A name or an extension that WFDB does not allow, a signal that is empty, infinite, or beyond 16 bits at this gain, or
        annotations that are out of order, outside the record, or of a symbol that WFDB does not know.

    See Also
    --------
    read_record : Reads it back.

    Examples
    --------
    >>> import tempfile
    >>> from skecg.datasets import make_ecg_records, read_record, write_record
    >>> record = make_ecg_records(1, random_state=0).records[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_record(f"{folder}/demo", record)
    ...     again = read_record(f"{folder}/demo", annotations="atr")
    >>> bool(abs(again.signal - record.signal).max() <= 0.00051)  # mV
    True
    >>> list(again.annotations.symbol) == list(record.annotations.symbol)
    True
    """
    path = local_path(path)
    path = path.with_name(path.name.removesuffix(".hea"))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}. Create it first.")
    _check_name(path.name)
    extension = extension.removeprefix(".")
    if not re.fullmatch("[A-Za-z]+", extension) or extension in ("hea", "dat"):
        raise ValueError(f"{extension!r} is no extension of an annotation file: use letters, e.g. 'atr', and neither "
                         "'hea' nor 'dat'.")
    digital = _digitise(record, path.name, gain)
    notes = _check_annotations(record, path.name)
    header = {
        "fs": record.fs, "units": list(record.units), "sig_name": list(record.lead_names),
        "fmt": ["16"] * len(digital), "adc_gain": [float(gain)] * len(digital), "baseline": [0] * len(digital),
        "comments": list(record.comments),
    }
    path.with_name(f"{path.name}.{extension}").unlink(missing_ok=True)  # those of another signal
    with _wfdb() as wfdb:
        wfdb.wrsamp(path.name, d_signal=digital.T, write_dir=str(path.parent), **header)
        if notes is not None:
            wfdb.wrann(path.name, extension, notes.sample, list(notes.symbol),
                       aux_note=list(notes.aux_note), write_dir=str(path.parent))


def write_records(folder, data, *, y=None, groups=None, target_names=None, gain=1000.0, overwrite=False):
    """Write records to a folder, in WFDB format, with a list of them and a table of their labels.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there.
    data : Bunch or sequence of ECGRecord
        What a ``fetch_*`` function, :func:`read_records` or :func:`make_ecg_records` returns, or records. One
        without a name is called by its number; where files in several folders share a name, each is called by
        folder and name, as in ``Person_01_rec_1``.
    y : array-like of shape (n_records,) or (n_records, n_labels), default=None
        Labels, or 0 and 1 for each label; ``data.target`` by default.
    groups : array-like of shape (n_records,), default=None
        Patient of each record; ``data.patient_id`` by default, else each record is a patient of its own.
    target_names : sequence of str, default=None
        Names of the columns of a two-dimensional `y`; ``data.target_names`` by default.
    gain : float, default=1000.0
        As in :func:`write_record`.
    overwrite : bool, default=False
        Whether to write to a folder that holds records or their labels already. Its ``RECORDS`` and
        ``labels.csv`` are replaced, or removed, and so are records of the same names with their ``.atr``; other
        files stay, and are not listed.

    Returns
    -------
    paths : list of Path
        The records, as :func:`read_records` takes them.

    Raises
    ------
    FileExistsError
        The folder holds records or labels, and `overwrite` is off.
    ValueError
        Two records of one name, a name that WFDB does not allow, labels or patients of another number than the
        records, columns of other values than 0 and 1, names of columns that occur twice, or records that are
        to replace the files they are read from. Nothing is written then.
        A record that :func:`write_record` refuses; what was written before stays.

    Notes
    -----
    ``RECORDS`` lists the records. With labels or patients, ``labels.csv`` has the columns ``filename``,
    ``patient_id``, and for labels either ``label`` or one column of 0 and 1 per label.

    Examples
    --------
    >>> import tempfile
    >>> from skecg.datasets import make_ecg_records, read_records, write_records
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = write_records(folder, make_ecg_records(3, duration=2.0, random_state=0))
    ...     [record.name for record in read_records(folder)]
    ['sim00000', 'sim00001', 'sim00002']
    """
    records = data
    if hasattr(data, "records"):
        records = data.records
        y = data.get("target") if y is None else y
        groups = data.get("patient_id") if groups is None else groups
        target_names = data.get("target_names") if target_names is None else target_names
    names = _names(records)
    n_records = len(records)
    with_table = y is not None or groups is not None
    groups = np.arange(n_records) if groups is None else np.asarray(groups)
    columns, labels = [], np.empty((n_records, 0))
    if y is not None:
        labels = np.asarray(y)
        columns = ["label"]
        if labels.ndim == 2:
            columns = list(range(labels.shape[1])) if target_names is None else list(target_names)
        labels = labels.reshape(len(labels), -1)
    if len(labels) != n_records or len(groups) != n_records or labels.shape[1] != len(columns):
        raise ValueError(
            f"y of shape {np.shape(y)}, {len(groups)} groups and {len(columns)} names of labels do not fit "
            f"{n_records} records: give one row, one patient per record and one name per column."
        )

    if y is not None and np.ndim(y) == 2:
        labels = _indicator(labels, columns)

    folder = local_path(folder)
    paths = [folder / name for name in names]
    _check_folder(folder, paths, records, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _LISTS:  # first: what they say of the old records is not true of the new ones
        (folder / name).unlink(missing_ok=True)
    for path, record in zip(paths, records, strict=True):
        write_record(path, record, gain=gain)
    (folder / "RECORDS").write_text("".join(f"{path.name}\n" for path in paths), encoding="utf-8")
    if with_table:
        with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["filename", "patient_id", *columns])
            for path, patient, row in zip(paths, groups, labels, strict=True):
                table.writerow([path.name, patient, *row])
    return paths


def _names(records):
    """A name for each record, no two the same; nothing is read from disk for them."""
    if isinstance(records, RecordSequence):
        names = records.names
        if len(set(names)) < len(names):
            paths = [os.path.abspath(path.with_name(name)) for path, name in zip(records.paths, names, strict=True)]
            above = os.path.commonpath([os.path.dirname(path) for path in paths])
            names = [os.path.relpath(path, above).replace(os.sep, "_") for path in paths]
    else:
        several = not isinstance(records, (ECGRecord, str, os.PathLike)) and hasattr(records, "__len__")
        wrong = next((type(one) for one in records if not isinstance(one, ECGRecord)), None) if several else type(records)
        if wrong is not None:
            raise ValueError("data must be what a fetch_* function, read_records or make_ecg_records returns, or a list "
                             f"of ECGRecord; got {'a list with ' if several else ''}{wrong.__name__}.")
        names = [record.name or f"{number:05d}" for number, record in enumerate(records)]
    seen = set()
    for name in names:
        _check_name(name)
        if name in seen:
            raise ValueError(f"Two records are called {name!r}; give each a name of its own.")
        seen.add(name)
    return names


def _check_name(name):
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a WFDB record: use letters, digits, hyphens and underscores.")


def _indicator(labels, columns):
    """Labels of several columns as 0 and 1."""
    names = ["filename", "patient_id", *map(str, columns)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"labels.csv would have two columns called {', '.join(twice)}: give each label a name of its "
                         "own, other than filename and patient_id.")
    wrong = [value for value in labels.ravel().tolist() if value not in (0, 1)]
    if wrong:
        raise ValueError(f"y of two dimensions must hold 0 and 1 alone; it has {wrong[0]!r}. Decide which records have "
                         "which label, or give one label per record.")
    return labels.astype(np.int64)


def _check_folder(folder, paths, records, overwrite):
    """Nothing of other records is in the folder, or it may be replaced."""
    there = [file.name for file in folder.glob("*.hea")][:1] + [name for name in _LISTS if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(f"{folder} holds records or labels already ({', '.join(there)}). Choose another folder, "
                              "or pass overwrite=True to replace the lists and the records of the same names.")
    if isinstance(records, RecordSequence):
        sources = {os.path.realpath(path.with_name(name))
                   for path, name in zip(records.paths, records.names, strict=True)}
        if not sources.isdisjoint(map(os.path.realpath, paths)):
            raise ValueError(f"The records are read from {folder} while they are written. Choose another folder.")


def _digitise(record, name, gain):
    """ADC values of a record, shape (n_leads, n_times)."""
    signal = np.asarray(record.signal, dtype=np.float64)
    if not np.isfinite(gain) or gain <= 0:
        raise ValueError(f"gain must be a finite number of ADC units per millivolt, above 0; got {gain!r}.")
    if signal.size == 0 or np.isinf(signal).any():
        raise ValueError(f"The signal of record {name!r} is {'infinite in places' if signal.size else 'empty'}.")
    digital = np.rint(signal * gain)
    largest = np.nanmax(np.abs(digital), initial=0)
    if largest > _LIMIT:
        raise ValueError(
            f"Record {name!r} reaches {largest / gain:g}, which is beyond 16 bits at gain={gain:g}: give a gain "
            f"of at most {_LIMIT * gain / largest:.4g}."
        )
    return np.where(np.isnan(digital), -_LIMIT - 1, digital).astype(np.int64)


def _check_annotations(record, name):
    notes = record.annotations
    if notes is None or len(notes.sample) == 0:
        return None
    sample = np.asarray(notes.sample)
    if (np.diff(sample) < 0).any() or sample[0] < 0 or sample[-1] > record.n_times:
        raise ValueError(
            f"The annotations of record {name!r} must be in order of time, from sample 0 to {record.n_times}."
        )
    with _wfdb() as wfdb:
        known = set(wfdb.io.annotation.ann_label_table["symbol"])
    unknown = sorted(set(map(str, notes.symbol)) - known)
    if unknown:
        raise ValueError(f"WFDB has no symbols {unknown}; record {name!r} has annotations of these.")
    return notes
