"""WFDB records on disk to arrays in millivolt, leads by name."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from .._validation import match_leads
from ._wfdb import (
    ECGFormatError,
    check_files,
    check_sums,
    decode,
    header_path,
    read_annotations,
    read_header,
    to_physical,
)


@dataclass(frozen=True, eq=False)
class ECGRecord:
    """One recording as stored.

    Attributes
    ----------
    signal : ndarray of shape (n_leads, n_times), float32
        Millivolt, wherever ``units`` says ``"mV"``. Invalid samples are NaN.
    fs : float
        Sampling rate in Hz.
    lead_names : tuple of str
        One name per lead, as in the file.
    units : tuple of str
        One per lead: ``"mV"``, or what the file says where that is not a voltage.
    name : str
        Name of the record.
    annotations : Bunch or None
        ``sample`` (int64, positions in ``signal``), ``symbol`` and ``aux_note`` (str), each of shape
        (n_annotations,).
    comments : tuple of str
        Empty unless asked for: comments of clinical records describe the patient.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.datasets import ECGRecord
    >>> record = ECGRecord(np.zeros((2, 3600), np.float32), fs=360, lead_names=("MLII", "V5"))
    >>> record.n_leads, record.duration
    (2, 10.0)
    >>> record.select_leads(["V5", "II"]).lead_names
    ('V5', 'MLII')
    """

    signal: np.ndarray = field(repr=False)
    fs: float
    lead_names: tuple
    units: tuple = None
    name: str = ""
    annotations: Bunch = field(default=None, repr=False)
    comments: tuple = field(default=(), repr=False)

    def __post_init__(self):
        if np.ndim(self.signal) != 2 or len(self.signal) != len(self.lead_names):
            raise ValueError(
                f"signal must have shape (n_leads, n_times) with one of lead_names={tuple(self.lead_names)} "
                f"per lead; got shape {np.shape(self.signal)}."
            )
        object.__setattr__(self, "lead_names", tuple(self.lead_names))
        object.__setattr__(self, "units", tuple(self.units or ("mV",) * len(self.lead_names)))

    @property
    def n_leads(self):
        """Number of leads."""
        return self.signal.shape[0]

    @property
    def n_times(self):
        """Number of samples in time."""
        return self.signal.shape[1]

    @property
    def duration(self):
        """Seconds."""
        return self.n_times / self.fs

    def select_leads(self, lead_names, *, missing="raise"):
        """The same record with these leads, in this order.

        Parameters
        ----------
        lead_names : sequence of str
            Matched without regard to case and prefix; ``"II"`` finds ``"MLII"``, ``"aVR"`` finds ``"ECG
            AVR"``.
        missing : {"raise", "nan"}, default="raise"
            What a standard lead that the record does not have is: an error, or a lead of NaN.

        Returns
        -------
        record : ECGRecord

        Raises
        ------
        ValueError
            A lead that is missing (or, with ``missing="nan"``, all of them), unknown, or ambiguous.
        """
        positions = _find_leads(lead_names, self.lead_names, missing, self.name)
        if positions == list(range(self.n_leads)):
            return self
        signal = np.full((len(positions), self.n_times), np.nan, dtype=np.float32)
        for row, position in enumerate(positions):
            if position is not None:
                signal[row] = self.signal[position]
        return replace(
            self, signal=signal,
            lead_names=_pick(positions, self.lead_names, lead_names),
            units=_pick(positions, self.units, ["mV"] * len(positions)),
        )


class RecordSequence(Sequence):
    """Records of a folder, read from disk when they are asked for.

    ``len(records)``, ``records[3]``, ``records[:10]``, ``records[mask]`` and ``for record in records`` work.
    Nothing is kept in memory. ``names`` lists the records without reading them.
    """

    def __init__(self, paths, options):
        self.paths = [Path(path) for path in paths]
        self.options = dict(options)

    @property
    def names(self):
        """Names of the records, from their file names."""
        return [path.name.removesuffix(".hea") for path in self.paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, key):
        positions = np.arange(len(self))[key]
        if positions.ndim:
            return RecordSequence([self.paths[position] for position in positions], self.options)
        return read_record(self.paths[positions], **self.options)

    def __repr__(self):
        return f"<{len(self)} records, read on access>"


def read_record(
    path, *, lead_names=None, missing="raise", annotations=None, default_fs=None, default_gain=None,
    verify=True, comments=False,
):
    """Read a WFDB record from a local folder, in millivolt.

    Parameters
    ----------
    path : str or Path
        The header file, with or without ``.hea``.
    lead_names : sequence of str, default=None
        Leads to read, in this order; ``None`` reads all. Names are matched as in
        :meth:`ECGRecord.select_leads`.
    missing : {"raise", "nan"}, default="raise"
        What a standard lead that is not in the file is: an error, or a lead of NaN.
    annotations : str, default=None
        Extension of an annotation file to read too, e.g. ``"atr"``.
    default_fs : float, default=None
        Sampling rate in Hz of a record whose header gives none. Nothing is assumed otherwise.
    default_gain : float, default=None
        ADC units per millivolt of leads whose header gives none. Nothing is assumed otherwise.
    verify : bool, default=True
        Whether the samples must add up to the header's checksums.
    comments : bool, default=False
        Whether to keep the header's comments, which describe the patient.

    Returns
    -------
    record : ECGRecord
        ``signal`` of shape (n_leads, n_times), float32, millivolt. A lead without a unit is in millivolt (the
        format's rule); other voltages are converted; other units are kept and named in ``units``, with a
        warning.

    Raises
    ------
    FileNotFoundError
        The record, or its annotation file, does not exist.
    ECGFormatError
        The header cannot be used, lacks what must not be guessed, or is contradicted by the signal file.
    ValueError
        A lead that is missing, unknown or ambiguous; a path that is an address on a network.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skecg.datasets import read_record
    >>> lines = ["demo 2 250 500", "demo.dat 16 1000/mV 16 0 0 0 0 MLII", "demo.dat 16 1000/mV 16 0 0 0 0 V1"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "demo.hea").write_text("\\n".join(lines))
    ...     np.zeros((500, 2), dtype="<i2").tofile(Path(folder, "demo.dat"))
    ...     record = read_record(Path(folder, "demo"), lead_names=["V1", "II"])
    >>> record.signal.shape, record.signal.dtype, record.lead_names
    ((2, 500), dtype('float32'), ('V1', 'MLII'))
    """
    path = local_path(path)
    path = path.with_name(path.name.removesuffix(".hea"))
    header = read_header(path)
    fs = header.fs or default_fs
    if not fs:
        raise ECGFormatError(
            "the header gives no sampling rate. Pass default_fs= (in Hz) if you know it.",
            file=header.file, line=header.line, field="sampling rate",
        )
    names = [lead.name for lead in header.leads]
    wanted = names if lead_names is None else tuple(lead_names)
    positions = list(range(len(names)))
    if lead_names is not None:
        positions = _find_leads(lead_names, names, missing, path.name)
    used = sorted(position for position in positions if position is not None)
    rates = {header.leads[i].per_frame for i in used}
    if len(rates) > 1:
        listed = ", ".join(f"{names[i]} {fs * header.leads[i].per_frame:g} Hz" for i in used)
        raise ECGFormatError(
            f"the leads have different sampling rates ({listed}). Pass lead_names= to read leads of one "
            "rate.",
            file=header.file, field="format",
        )
    for i in used:
        lead = header.leads[i]
        lead.gain = lead.gain or default_gain
        if not lead.gain:
            raise ECGFormatError(
                f"the header gives no gain for lead {lead.name}. Pass default_gain= (ADC units per mV) if "
                "you know it.",
                file=header.file, line=lead.line, field="gain",
            )
    check_files(header, path, used, verify)
    digital = decode(header, path, used)
    if verify:
        check_sums(header, used, digital)

    rate = rates.pop()
    signal = np.full((len(positions), len(digital[0])), np.nan, dtype=np.float32)
    for row, position in enumerate(positions):
        if position is not None:
            signal[row] = to_physical(digital[used.index(position)], header.leads[position])
    units = [lead.unit for lead in header.leads]
    strange = [i for i in used if units[i] != "mV"]
    if strange:
        warnings.warn(
            f"Lead(s) {', '.join(names[i] for i in strange)} are in "
            f"{', '.join(sorted({units[i] for i in strange}))}, which is not a voltage: their values are "
            "kept as they are (see record.units).",
            UserWarning, stacklevel=2,
        )
    notes = None
    if annotations is not None:
        notes = read_annotations(path, annotations, frame_fs=fs, per_frame=rate, n_times=signal.shape[1])
    return ECGRecord(
        signal=signal, fs=fs * rate, name=path.name,
        lead_names=_pick(positions, names, wanted),
        units=_pick(positions, units, ["mV"] * len(positions)),
        annotations=notes, comments=header.comments if comments else (),
    )


def read_records(source, **options):
    """The records of a folder, or of a list of paths, read one at a time when they are asked for.

    Parameters
    ----------
    source : str, Path or iterable of these
        A folder: its ``RECORDS`` file decides which records and in which order, where there is one; else all
        header files in it and below, sorted. Records that ``RECORDS`` lists and that are not there are
        counted in a warning. Or the records themselves, as in :func:`read_record`.
    **options
        Passed on to :func:`read_record`.

    Returns
    -------
    records : RecordSequence
        ``len(records)``, ``records[i]``, ``records[i:j]`` and iteration; each access reads from disk.

    Raises
    ------
    FileNotFoundError
        No such folder, or no record in it.
    ECGFormatError
        A ``RECORDS`` file that leads out of its folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skecg.datasets import read_records
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b", "a"):
    ...         header = f"{name} 1 250 500\\n{name}.dat 16 1000 16 0 0 0 0 II"
    ...         _ = Path(folder, f"{name}.hea").write_text(header)
    ...         np.zeros(500, dtype="<i2").tofile(Path(folder, f"{name}.dat"))
    ...     records = read_records(folder, lead_names=["II"])
    ...     [(record.name, record.duration) for record in records]
    [('a', 2.0), ('b', 2.0)]
    """
    signature(read_record).bind(None, **options)
    if not isinstance(source, (str, os.PathLike)):
        return RecordSequence([local_path(path) for path in source], options)
    folder = local_path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. For a single record use read_record.")
    listed = _listed_records(folder)
    paths = [path for path in listed if header_path(path).is_file()]
    if not paths:
        raise FileNotFoundError(f"There is no WFDB record (a header file *.hea) in {folder}.")
    if len(paths) < len(listed):
        warnings.warn(f"{folder} holds {len(paths)} of the {len(listed)} records that its RECORDS file "
                      "lists.",
                      UserWarning, stacklevel=2)
    return RecordSequence(paths, options)


def local_path(path):
    text = os.fspath(path)
    if "://" in text or "::" in text:
        raise ValueError(f"{text!r} is an address on a network; skecg reads local files only. Download it "
                         "first.")
    return Path(os.path.abspath(text))


def _listed_records(folder):
    """Paths of all records of a folder, by RECORDS (which may name folders with a RECORDS of their own)."""
    file = folder / "RECORDS"
    if not file.is_file():
        return [path.with_suffix("") for path in sorted(folder.rglob("*.hea"))]
    paths = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        if os.path.isabs(entry) or ".." in Path(entry).parts or ":" in entry:
            raise ECGFormatError(f"{entry!r} leads out of the folder.",
                                 file=file, line=number, field="record name")
        below = entry.endswith("/") and (folder / entry).is_dir()
        paths.extend(_listed_records(folder / entry) if below else [folder / entry])
    return paths


def _find_leads(wanted, available, missing, name):
    if missing not in ("raise", "nan"):
        raise ValueError(f"missing must be 'raise' or 'nan'; got {missing!r}.")
    positions = match_leads(wanted, available)
    absent = [lead for lead, position in zip(wanted, positions, strict=True) if position is None]
    if absent and (missing == "raise" or len(absent) == len(positions)):
        advice = "" if len(absent) == len(positions) else " Pass missing='nan' for leads of NaN instead."
        raise ValueError(
            f"Record {name} has no lead {', '.join(absent)}; it has {', '.join(available)}.{advice}"
        )
    return positions


def _pick(positions, values, otherwise):
    pairs = zip(positions, otherwise, strict=True)
    return tuple(other if position is None else values[position] for position, other in pairs)
