"""What make_windows, make_beats and make_epochs share: windows in memory, or in a memmap that knows its origin."""

import hashlib
import json
import os
from bisect import bisect_left
from contextlib import suppress
from numbers import Real
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.utils import Bunch
from tqdm.auto import tqdm

from .. import __version__

_BLOCK_BYTES = 2**23  # windows copied at once: what is resident does not grow with the length of a record
_INDEX = ".index.npz"  # beside the windows: the record of each, its label, and what all was made of


def unpack(data, lead_names, y, groups):
    """Records, leads (None: those of the first record), labels (or None) and groups, one per record."""
    if hasattr(data, "records"):
        records, lead_names = data.records, data.get("lead_names") if lead_names is None else lead_names
        y = data.get("target") if y is None else y
        groups = data.get("patient_id") if groups is None else groups
    else:
        records = data
    _check_records(records)
    groups = np.arange(len(records)) if groups is None else np.asarray(groups)
    y = None if y is None else np.asarray(y)
    for name, values in (("y", y), ("groups", groups)):
        if values is not None and (values.ndim == 0 or len(values) != len(records)):
            raise ValueError(f"{name} must have one entry for each of the {len(records)} records; got shape "
                             f"{values.shape}.")
    return records, lead_names, y, groups


def _check_records(records):
    """Whether these are records. What a reader gives is one by its paths: to look at a record would read it."""
    wrong = None
    if isinstance(records, (str, os.PathLike, dict)) or hasattr(records, "signal") or not hasattr(records, "__len__"):
        wrong = type(records).__name__
    elif not len(records):
        raise ValueError("data holds no record.")
    elif not hasattr(records, "paths"):
        several = records if isinstance(records, (list, tuple, np.ndarray)) else ()  # to look at others may read them
        strangers = [type(record).__name__ for record in several if not hasattr(record, "signal")]
        wrong = f"{type(records).__name__} of {strangers[0]}" if strangers else None
    if wrong:
        raise ValueError(
            f"data must be what a fetch_* function or read_records returns, or a list of ECGRecord; got {wrong}. Read a "
            "folder or paths by read_records(...); make an ECGRecord(signal, fs=..., lead_names=...) of each array."
        )


def label(record, number):
    """How messages call a record."""
    return f"{record.name!r}" if record.name else f"number {number}"


def check_seconds(seconds, name):
    """A length of time, whatever the sampling rate."""
    if not isinstance(seconds, Real) or isinstance(seconds, bool) or not 0 < seconds < np.inf:
        raise ValueError(f"{name} must be a positive number of seconds; got {seconds!r}.")


def n_samples(seconds, fs, name):
    """A length in samples, which must be a whole number of them."""
    check_seconds(seconds, name)
    n = seconds * fs
    if not n > 0.5 or abs(n - round(n)) > 1e-6 * max(1, n):
        near = max(1, round(n))
        raise ValueError(f"{name}={seconds!r} s is {n:g} samples at fs={fs:g} Hz; expected a whole number "
                         f"of them, e.g. {name}={near / fs:g} ({near} samples).")
    return round(n)


def count(value, name):
    """A number of neighbours."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number of neighbours on each side, 0 or more; got {value!r}.")
    return int(value)


def cut(function, records, lead_names, places, *, parameters, out, verbose, nothing, labels=()):
    """Cut windows from every record, or open those that an earlier call left in ``out``.

    Parameters
    ----------
    function : str
        Who asks.
    records, lead_names
        As :func:`unpack` gives them.
    places : callable
        ``places(record, number)`` gives the positions in samples where windows begin, of shape (n_windows,), or
        (n_windows, n_pieces) where a window is put together from several pieces; the samples of a window (or
        piece); and a dict of arrays with one entry per window.
    parameters : dict
        All that ``places`` depends on, besides the records.
    out : path or None
    verbose : int
    nothing : str
        What is said where there is no window at all.
    labels : sequence of ndarray of str
        What ``places`` takes from elsewhere than the records.

    Returns
    -------
    windows : Bunch
        ``X``; ``record`` (n_windows,), the number of its record, and the other arrays of ``places``; ``n_outside``
        and ``n_gaps``, how many windows were left out because they leave the record, or have no lead without a gap.
    """
    if out is not None:
        out = Path(out)
        _check_out(out)
        made = {
            "function": function, "skecg": __version__, "records": _fingerprint(records, labels, out),
            "parameters": parameters | {"lead_names": None if lead_names is None else list(lead_names)},
        }
        made = json.loads(json.dumps(made))
        windows, why = _open(out, made)
        if verbose and (windows or why):
            print(f"[{function}] {out}: {f'{len(windows.X):,} windows, cut earlier' if windows else why}.")
        if windows:
            return windows
    columns, n_outside, n_gaps = {"record": []}, 0, 0
    with _Windows(out, len(records)) as windows:
        with tqdm(records, desc=function, unit="record", disable=not verbose) as bar:
            for number, (record, signal) in enumerate(_same_leads(bar, lead_names)):
                starts, n_times, more = places(record, number)
                pieces = starts if starts.ndim == 2 else starts[:, None]
                inside = ((pieces >= 0) & (pieces + n_times <= signal.shape[1])).all(axis=1)
                kept = np.flatnonzero(inside)
                kept = kept[windows.add(signal, pieces[kept], n_times)]
                n_outside += int((~inside).sum())
                n_gaps += int(inside.sum()) - len(kept)
                for name, values in ({"record": np.full(len(starts), number)} | more).items():
                    columns.setdefault(name, []).append(values[kept])
        if not windows.n:
            raise ValueError(nothing)
        columns = {name: np.concatenate(values) for name, values in columns.items()}
        counts = {"n_outside": n_outside, "n_gaps": n_gaps}
        X = windows.array[:windows.n] if out is None else windows.save(columns, made | counts)
    return Bunch(X=X, **columns, **counts)


def _same_leads(records, lead_names):
    """Each record with its signal in the wanted leads; all of one sampling rate."""
    first = None
    for number, record in enumerate(records):
        if first is None:
            first, lead_names = record, lead_names if lead_names is not None else record.lead_names
        if record.fs != first.fs:
            raise ValueError(
                f"Record {label(record, number)} has fs={record.fs:g} Hz, the first one "
                f"({label(first, 0)}) {first.fs:g} Hz. Resample it first, or cut each sampling rate "
                "separately."
            )
        same = tuple(record.lead_names) == tuple(lead_names)
        yield record, record.signal if same else record.select_leads(lead_names, missing="nan").signal


# ------------------------------------------------------------------------------------- what was it cut from


def _fingerprint(records, labels, out):
    """SHA-256 of the records: of path, size and time of change of their files, or of what is in memory."""
    digest = hashlib.sha256()

    def add(*values):
        digest.update(json.dumps(values, sort_keys=True, default=str).encode())

    def add_array(values):
        add(values.dtype.str, values.shape)
        digest.update(values.tobytes())

    if hasattr(records, "paths") and hasattr(records, "options"):
        add(records.options)
        folders = {}
        for path in records.paths:
            if path.parent not in folders:
                folders[path.parent] = _names(path.parent)
            add(str(path), *_state(path, folders[path.parent], out))
    else:
        for record in records:
            add(record.fs, record.lead_names)
            add_array(np.asarray(record.signal))
            for name in ("sample", "symbol", "aux_note"):
                values = (record.annotations or {}).get(name)
                if values is not None:
                    add_array(np.asarray(values, dtype=None if name == "sample" else str))
    for values in labels:
        add_array(np.asarray(values, dtype=str))
    return digest.hexdigest()


def _names(folder):
    with suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def _state(path, names, out):
    """Name, size and time of change of the files of one record: ``100.hea``, ``100.dat``, also ``100_0001.dat``."""
    stem, folder, state = path.name.removesuffix(".hea"), str(path.parent), []
    for i in range(bisect_left(names, stem), len(names)):
        if not names[i].startswith(stem):
            break
        ours = names[i].startswith(out.name) and os.path.abspath(out.parent) == folder
        if names[i][len(stem):len(stem) + 1] in (".", "_") and not ours:
            status = os.stat(os.path.join(folder, names[i]))
            state.append((names[i], status.st_size, status.st_mtime_ns))
    return state


def _check_out(out):
    """Only what an earlier call wrote may be replaced. The index is there before the windows, and tells them."""
    if out.suffix != ".npy":
        raise ValueError(f"out must be a .npy file; got {str(out)!r}.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out={str(out)!r}: there is no folder {str(out.parent)!r}. Make it first.")
    if out.is_dir():
        raise IsADirectoryError(f"out={str(out)!r} is a folder; expected the name of a .npy file.")
    if out.exists() and not out.with_name(out.name + _INDEX).exists():
        raise FileExistsError(f"out={str(out)!r} holds something else: there is no {out.name}{_INDEX} beside it, which "
                              "make_windows, make_beats and make_epochs write. Delete it, or choose another name.")


def _open(out, made):
    """The windows in ``out`` if they are those of ``made``, else None and the reason, where there is one to tell."""
    if not out.is_file():
        return None, ""
    try:
        with (open(out.with_name(out.name + _INDEX), "rb") as stream,  # np.load leaves open what it cannot read
              np.load(stream, allow_pickle=False) as index):
            columns = dict(index)
        before = json.loads(str(columns.pop("made")))
        counts = {name: before[name] for name in ("n_outside", "n_gaps")}
        X = np.load(out, mmap_mode="r")
        if before["file"] == _identity(out):
            why = _difference(before, made)
            return (None, why) if why else (Bunch(X=X, **columns, **counts), "")
    except Exception:  # whatever is wrong with the index, the file cannot be trusted
        pass
    return None, f"cut again, for there is no {out.name}{_INDEX} that fits it"


def _identity(path):
    """Tells a file from those that replace it, and from itself once it is written to. Look after opening it."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _difference(before, made):
    other = [name for name in made["parameters"] if before["parameters"].get(name, ...) != made["parameters"][name]]
    for differs, what in (
        (before["function"] != made["function"], f"by {before['function']}"),
        (before["skecg"] != made["skecg"], f"by version {before['skecg']}"),
        (before["records"] != made["records"], "of other records, or these have changed"),
        (other, f"with another {', '.join(other)}"),
    ):
        if differs:
            return f"cut again, for it was made {what}"
    return ""


# ------------------------------------------------------------------------------------- where windows go


class _Windows:
    """Grows an array of windows: in memory, or in a ``.npy`` file that appears when it is complete."""

    def __init__(self, out, n_records):
        self.n, self.n_records, self.array, self.out = 0, n_records, None, out

    def __enter__(self):
        if self.out is not None:
            self.part = self.out.with_name(f"{self.out.name}.{uuid4().hex[:8]}.part")
            try:
                self.stream = open(self.part, "xb")
            except PermissionError as error:
                raise PermissionError(f"out={str(self.out)!r}: the folder {str(self.out.parent)!r} cannot be written "
                                      "to. Choose another one.") from error
        return self

    def __exit__(self, *exception):
        if self.out is not None:
            self.stream.close()
            self.part.unlink(missing_ok=True)

    def add(self, signal, starts, n_times):
        """Append the windows whose pieces begin at ``starts``, (n_windows, n_pieces); gives the rows of usable ones."""
        if self.n == 0:
            self.shape = (len(signal), starts.shape[1] * n_times)
        if not len(starts):
            return np.arange(0)
        view = sliding_window_view(np.asarray(signal, dtype=np.float32), n_times, axis=1).transpose(1, 0, 2)
        n_block = max(1, _BLOCK_BYTES // (4 * self.shape[0] * self.shape[1]))
        kept = [np.arange(0)]
        self._reserve(len(starts))
        for begin in range(0, len(starts), n_block):
            pieces = view[starts[begin:begin + n_block]]  # (n_windows, n_pieces, n_leads, n_times)
            windows = np.ascontiguousarray(pieces.transpose(0, 2, 1, 3)).reshape(len(pieces), *self.shape)
            missing = np.isnan(windows).any(axis=2)
            windows[missing] = np.nan
            usable = np.flatnonzero(~missing.all(axis=1))
            self._append(windows if len(usable) == len(windows) else windows[usable])
            kept.append(begin + usable)
        return np.concatenate(kept)

    def _reserve(self, n):
        if self.out is not None:
            return
        if self.array is None:
            try:  # records are mostly of one length; what is never written takes no memory
                self.array = np.empty((n * self.n_records, *self.shape), dtype=np.float32)
            except MemoryError:
                self.array = np.empty((n, *self.shape), dtype=np.float32)
        if self.n + n > len(self.array):
            grown = np.empty((max(self.n + n, len(self.array) * 3 // 2), *self.shape), dtype=np.float32)
            grown[:self.n] = self.array[:self.n]
            self.array = grown

    def _append(self, windows):
        start, self.n = self.n, self.n + len(windows)
        if self.out is None:
            self.array[start:self.n] = windows
            return
        if start == 0:
            self._write_header()
        self.stream.write(windows.data)

    def _write_header(self):
        # numpy pads the header, so that its length does not depend on the number of rows.
        self.stream.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.n, *self.shape)}
        np.lib.format.write_array_header_1_0(self.stream, header)

    def save(self, columns, made):
        """Put the index in its place, then the complete file: at no time is there a file without its index."""
        self._write_header()
        self.stream.close()
        made = made | {"file": _identity(self.part)}
        index = self.part.with_name(f"{self.part.stem}{_INDEX}.part")
        try:
            with open(index, "xb") as stream:
                np.savez(stream, made=np.array(json.dumps(made)), **columns)
            _check_out(self.out)  # once more: cutting takes its time
            os.replace(index, self.out.with_name(self.out.name + _INDEX))
        finally:
            index.unlink(missing_ok=True)
        os.replace(self.part, self.out)
        X = np.load(self.out, mmap_mode="r")
        if _identity(self.out) != made["file"]:
            raise OSError(f"{self.out} was replaced while it was made, by another call with the same out=. Give each its "
                          "own file.")
        return X
