"""Records to windows and beats: functions, because they change the number of samples."""

import os
import warnings
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

AAMI_CLASSES = {symbol: name for name, symbols in (
    ("N", "NLRej"), ("S", "AaJS"), ("V", "VE"), ("F", "F"), ("Q", "/fQ"),
) for symbol in symbols}


def make_windows(data, length, *, step=None, lead_names=None, y=None, groups=None, out=None):
    """Cut records into windows of one length.

    Parameters
    ----------
    data : Bunch or sequence of ECGRecord
        What a ``load_*`` function returns, or records of one sampling rate.
    length : float
        Seconds; a whole number of samples.
    step : float, default=None
        Seconds from the start of one window to the start of the next; ``None`` is ``length`` (no overlap).
    lead_names : sequence of str, default=None
        Leads of the result, in this order. ``None`` takes those of the Bunch, or of the first record. A lead
        that a record does not have is NaN.
    y : array-like of shape (n_records, ...), default=None
        A label per record, which its windows inherit; ``None`` takes ``target`` of a Bunch.
    groups : array-like of shape (n_records,), default=None
        A patient per record; ``None`` takes ``patient_id`` of a Bunch, else the number of the record. Any
        other property of the records travels in the same way, e.g. ``groups=ptbxl.folds``.
    out : str or Path, default=None
        Write the windows to this ``.npy`` file, one record at a time, for sets that do not fit into memory.

    Returns
    -------
    X : ndarray of shape (n_windows, n_leads, n_times), float32
        Millivolt, in the order of the records and of time. With ``out``, a read-only memmap of that file.
    y : ndarray of shape (n_windows, ...) or None
        None where there are no labels.
    groups : ndarray of shape (n_windows,)

    Warns
    -----
    UserWarning
        Records shorter than ``length``, or without one usable window.

    Raises
    ------
    ValueError
        A record of another sampling rate (nothing is resampled silently), without any of the leads; a length
        that is no whole number of samples; labels or groups of another length than the records; no window at
        all.

    Notes
    -----
    - What remains at the end of a record is dropped: no sample is made up.
    - A gap (invalid samples) inside a window makes that lead missing in that window, NaN from end to end; a
      window without any lead left is dropped.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.datasets import ECGRecord
    >>> from skecg.preprocessing import make_windows
    >>> records = [ECGRecord(np.zeros((1, n), np.float32), fs=100, lead_names=["II"]) for n in (1000, 2500)]
    >>> X, y, groups = make_windows(records, length=10.0, y=["healthy", "ill"])
    >>> X.shape, y, groups
    ((3, 1, 1000), array(['healthy', 'ill', 'ill'], dtype='<U7'), array([0, 1, 1]))
    """
    records, lead_names, y, groups = _unpack(data, lead_names, y, groups)
    rows, empty = [], 0
    with _Windows(out, len(records)) as windows:
        for number, (record, signal) in enumerate(_same_leads(records, lead_names)):
            n_times = _n_samples(length, record.fs, "length")
            n_step = n_times if step is None else _n_samples(step, record.fs, "step")
            kept = windows.add(signal, np.arange(0, signal.shape[1] - n_times + 1, n_step), n_times)
            rows += [number] * len(kept)
            empty += not len(kept)
        X = windows.finish(f"No record has a usable window of {length:g} s.")
    if empty:
        warnings.warn(f"{empty} of {len(records)} records give no window of {length:g} s: they are shorter, "
                      "or have gaps in every lead.", UserWarning, stacklevel=2)
    return X, None if y is None else y[rows], groups[rows]


def make_beats(data, *, before=0.25, after=0.45, lead_names=None, classes=None, groups=None, out=None):
    """Cut one window around each annotated beat.

    Parameters
    ----------
    data : Bunch or sequence of ECGRecord
        Records with annotations: what :func:`~skecg.datasets.load_mitdb` returns, or a list.
    before, after : float, default=0.25, 0.45
        Seconds before and after the annotated sample, rounded to samples. The annotated sample is at
        ``round(before * fs)``.
    lead_names : sequence of str, default=None
        Leads of the result, in this order. ``None`` takes those of the Bunch (MLII for MIT-BIH), or of the
        first record. A lead that a record does not have is NaN.
    classes : dict of str to str, default=None
        The label of each annotation symbol; beats with other symbols are left out. ``None`` is the AAMI
        grouping: N = N L R e j; S = A a J S; V = V E; F = F; Q = / f Q.
    groups : array-like of shape (n_records,), default=None
        A patient per record; ``None`` takes ``patient_id`` of a Bunch, else the number of the record.
    out : str or Path, default=None
        Write the windows to this ``.npy`` file, one record at a time.

    Returns
    -------
    X : ndarray of shape (n_beats, n_leads, n_times), float32
        Millivolt, in the order of the records and of time. With ``out``, a read-only memmap of that file.
    y : ndarray of shape (n_beats,), str
    groups : ndarray of shape (n_beats,)

    Raises
    ------
    ValueError
        A record without annotations, of another sampling rate, or without any of the leads; no beat at all.

    Notes
    -----
    Beats whose window would leave the record are dropped (one or two per record), and so are beats with a gap
    in every lead.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from skecg.datasets import ECGRecord
    >>> from skecg.preprocessing import make_beats
    >>> beats = Bunch(sample=np.array([5, 400, 760, 900]), symbol=np.array(["N", "N", "+", "V"]))
    >>> record = ECGRecord(np.zeros((1, 1800), np.float32), fs=360, lead_names=["MLII"], annotations=beats)
    >>> X, y, groups = make_beats([record])
    >>> X.shape, y
    ((2, 1, 252), array(['N', 'V'], dtype='<U1'))
    """
    records, lead_names, _, groups = _unpack(data, lead_names, None, groups)
    classes = AAMI_CLASSES if classes is None else dict(classes)
    labels, rows = [], []
    with _Windows(out, len(records)) as windows:
        for number, (record, signal) in enumerate(_same_leads(records, lead_names)):
            if record.annotations is None:
                raise ValueError(f"Record {_label(record, number)} has no annotations: read it with "
                                 "read_record(..., annotations='atr').")
            n_before = round(before * record.fs)
            n_times = n_before + round(after * record.fs)
            if n_times < 1:
                raise ValueError(f"before={before!r} and after={after!r} s leave no sample at "
                                 f"fs={record.fs:g} Hz.")
            symbols = np.asarray(record.annotations.symbol, dtype=str)
            starts = np.asarray(record.annotations.sample, dtype=np.int64) - n_before
            inside = (starts >= 0) & (starts + n_times <= signal.shape[1])
            beats = np.flatnonzero(inside & np.isin(symbols, list(classes)))
            kept = beats[windows.add(signal, starts[beats], n_times)]
            labels += [classes[symbol] for symbol in symbols[kept].tolist()]
            rows += [number] * len(kept)
        X = windows.finish(f"There is no annotated beat; looked for the symbols {' '.join(classes)}.")
    return X, np.array(labels, dtype=str), groups[rows]


def _unpack(data, lead_names, y, groups):
    """Records, leads (None: those of the first record), labels (or None) and groups, one per record."""
    if hasattr(data, "records"):
        records, lead_names = data.records, data.get("lead_names") if lead_names is None else lead_names
        y = data.get("target") if y is None else y
        groups = data.get("patient_id") if groups is None else groups
    elif hasattr(data, "signal") or not hasattr(data, "__len__"):
        raise ValueError("data must be what a load_* function returns, or a list of ECGRecord; got "
                         f"{type(data).__name__}.")
    else:
        records = data
    if not len(records):
        raise ValueError("data holds no record.")
    groups = np.arange(len(records)) if groups is None else np.asarray(groups)
    y = None if y is None else np.asarray(y)
    for name, values in (("y", y), ("groups", groups)):
        if values is not None and (values.ndim == 0 or len(values) != len(records)):
            raise ValueError(f"{name} must have one entry for each of the {len(records)} records; got shape "
                             f"{values.shape}.")
    return records, lead_names, y, groups


def _same_leads(records, lead_names):
    """Each record with its signal in the wanted leads; all of one sampling rate."""
    first = None
    for number, record in enumerate(records):
        if first is None:
            first, lead_names = record, lead_names if lead_names is not None else record.lead_names
        if record.fs != first.fs:
            raise ValueError(
                f"Record {_label(record, number)} has fs={record.fs:g} Hz, the first one "
                f"({_label(first, 0)}) {first.fs:g} Hz. Resample it first, or cut each sampling rate "
                "separately."
            )
        same = tuple(record.lead_names) == tuple(lead_names)
        yield record, record.signal if same else record.select_leads(lead_names, missing="nan").signal


def _label(record, number):
    return f"{record.name!r}" if record.name else f"number {number}"


def _n_samples(seconds, fs, name):
    n = seconds * fs
    if not n > 0.5 or abs(n - round(n)) > 1e-6 * max(1, n):
        near = max(1, round(n)) if n > 0 else 1
        raise ValueError(f"{name}={seconds!r} s is {n:g} samples at fs={fs:g} Hz; expected a whole number "
                         f"of them, e.g. {name}={near / fs:g} ({near} samples).")
    return round(n)


class _Windows:
    """Grows an array of windows: in memory, or in a ``.npy`` file that appears when it is complete."""

    def __init__(self, out, n_records):
        self.n, self.n_records, self.array = 0, n_records, None
        self.path = None if out is None else Path(out)

    def __enter__(self):
        if self.path is not None:
            self.part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
            self.stream = open(self.part, "wb")
        return self

    def __exit__(self, *exception):
        if self.path is not None:
            self.stream.close()
            self.part.unlink(missing_ok=True)

    def add(self, signal, starts, n_times):
        """Append the windows that begin at ``starts``; gives the positions in ``starts`` of usable ones."""
        if self.n == 0:
            self.shape = (len(signal), n_times)
        if not len(starts):
            return np.arange(0)
        windows = sliding_window_view(np.asarray(signal, dtype=np.float32), n_times, axis=1)[:, starts]
        windows = windows.transpose(1, 0, 2)  # (n_windows, n_leads, n_times)
        missing = np.isnan(windows).any(axis=2)
        windows[missing] = np.nan
        kept = np.flatnonzero(~missing.all(axis=1))
        if len(kept) < len(windows):
            windows = windows[kept]
        self._append(windows)
        return kept

    def _append(self, windows):
        start, self.n = self.n, self.n + len(windows)
        if self.path is not None:
            if start == 0:
                self._write_header()
            self.stream.write(np.ascontiguousarray(windows).data)
            return
        if self.array is None:
            try:  # records are mostly of one length; what is never written takes no memory
                self.array = np.empty((len(windows) * self.n_records, *self.shape), dtype=np.float32)
            except MemoryError:
                self.array = np.empty((len(windows), *self.shape), dtype=np.float32)
        if self.n > len(self.array):
            grown = np.empty((max(self.n, len(self.array) * 3 // 2), *self.shape), dtype=np.float32)
            grown[:start] = self.array[:start]
            self.array = grown
        self.array[start:self.n] = windows

    def _write_header(self):
        # numpy pads the header, so that its length does not depend on the number of rows.
        self.stream.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.n, *self.shape)}
        np.lib.format.write_array_header_1_0(self.stream, header)

    def finish(self, message):
        """The array, or a ValueError with this message if it is empty."""
        if self.n == 0:
            raise ValueError(message)
        if self.path is None:
            return self.array[:self.n]
        self._write_header()
        self.stream.close()
        os.replace(self.part, self.path)
        return np.load(self.path, mmap_mode="r")
