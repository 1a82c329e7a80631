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
    _FREE_SAMPLES,
    _MAX_EXPANSION,
    ECGFormatError,
    check_files,
    check_samples,
    decode,
    header_path,
    read_annotation_file,
    read_header,
    read_parts,
    to_physical,
)

_MAX_RECORDS_BYTES = 2**25


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
    """Records that are read from disk when they are asked for, and not kept.

    ``len(records)``, ``records[3]``, ``records[:10]``, ``records[mask]`` and ``for record in records`` work.
    :func:`read_records` and the loaders of databases return one.

    Parameters
    ----------
    paths : iterable of str or Path
        The records, as in :func:`read_record`.
    options : dict
        Keyword arguments of :func:`read_record`.

    Attributes
    ----------
    paths : list of Path
        The records.
    options : dict
        What they are read with.

    Examples
    --------
    >>> from skecg.datasets._records import RecordSequence
    >>> records = RecordSequence(["mitdb/100", "mitdb/101", "mitdb/103"], {"annotations": "atr"})
    >>> records, records[[True, False, True]].names
    (<3 records, read on access>, ['100', '103'])
    """

    def __init__(self, paths, options):
        self.paths = [Path(path) for path in paths]
        self.options = dict(options)

    @property
    def names(self):
        """Names of the records, from their file names: nothing is read."""
        return [path.name.removesuffix(".hea") for path in self.paths]

    def __len__(self):
        return len(self.paths)

    @property
    def shape(self):
        """``(n_records,)``: scikit-learn then takes a fold by an index, and reads nothing."""
        return (len(self),)

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
        Whether the samples must start with the header's initial values and add up to its checksums.
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

    See Also
    --------
    read_annotations : Annotations alone, whose signal files need not be there.

    Notes
    -----
    - Samples and annotations are decoded by wfdb, once the header is found to be sound: what it claims is there,
      and no more is allocated than the files can hold.
    - Checksums have 16 bits: in formats 24 and 32 a change of the upper bytes alone is not noticed. Gains, units
      and names have none.
    - A record of several segments is read as one. What no segment stores, gaps and leads, is NaN.
    - The names of files in a header do not lead out of its folder. Symbolic links are followed.

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
    path = _record_path(path)
    if default_gain is not None and not 0 < abs(default_gain) < np.inf:
        raise ValueError(f"default_gain must be a number of ADC units per millivolt; got {default_gain!r}.")
    header = read_header(path)
    fs = _sampling_rate(header, default_fs)
    leads, parts = read_parts(header, path.parent)
    names = [lead.name for lead in leads]
    wanted = names if lead_names is None else tuple(lead_names)
    positions = list(range(len(names)))
    if lead_names is not None:
        positions = _find_leads(lead_names, names, missing, path.name)
    used = sorted(position for position in positions if position is not None)
    rates = {leads[i].per_frame for i in used}
    if len(rates) > 1:
        listed = ", ".join(f"{names[i]} {fs * leads[i].per_frame:g} Hz" for i in used)
        raise ECGFormatError(
            f"the leads have different sampling rates ({listed}). Pass lead_names= to read leads of one "
            "rate.",
            file=header.file, field="format",
        )
    rate = rates.pop()
    units = _check_parts(parts, used, rate, default_gain)
    signal = _read_signal(parts, positions, rate, header, path.parent, verify)

    strange = [i for i in used if units[i] not in ("mV", None)]
    if strange:
        warnings.warn(
            f"Lead(s) {', '.join(names[i] for i in strange)} are in "
            f"{', '.join(sorted({units[i] for i in strange}))}, which is not a voltage: their values are "
            "kept as they are (see record.units).",
            UserWarning, stacklevel=2,
        )
    notes = None
    if annotations is not None:
        notes = read_annotation_file(path, annotations)
        # Positions count frames of the signal file, unless the annotation file has a clock of its own.
        factor = rate * fs / (notes.pop("fs") or fs)
        if factor != 1:
            notes.sample = np.rint(notes.sample * factor).astype(np.int64)
        _check_inside(notes.sample, signal.shape[1], path, annotations)
    return ECGRecord(
        signal=signal, fs=fs * rate, name=path.name,
        lead_names=_pick(positions, names, wanted),
        units=_pick(positions, [unit or "mV" for unit in units], ["mV"] * len(positions)),
        annotations=notes, comments=header.comments if comments else (),
    )


def read_annotations(path, extension, *, default_fs=None):
    """Read one annotation file of a WFDB record; its signal files need not be there.

    Parameters
    ----------
    path : str or Path
        The header file of the record, with or without ``.hea``.
    extension : str
        Which of its annotation files, e.g. ``"atr"``.
    default_fs : float, default=None
        Clock in Hz of a record whose header, and whose annotation file, give none. Nothing is assumed otherwise.

    Returns
    -------
    annotations : Bunch
        ``sample`` (int64), ``symbol`` and ``aux_note`` (str), each of shape (n_annotations,), and ``fs``:
        ``sample / fs`` is the time in seconds.

    Raises
    ------
    FileNotFoundError
        There is no such record, or no such annotation file.
    ECGFormatError
        The header or the annotation file cannot be used.
    ValueError
        A path that is an address on a network.

    See Also
    --------
    read_record : With the signal, and annotations counted in its samples.

    Examples
    --------
    Sleep stages of the MIT-BIH Polysomnographic Database: the first word of each note of 30 s.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from skecg.datasets import read_annotations
    >>> stages = bytes.fromhex("0158 01fc 3200 00ec 0000 4c1d 0058 04fc 3220 4100 0000")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "slp.hea").write_text("slp 1 250 15000\\nslp.dat 16")
    ...     _ = Path(folder, "slp.st").write_bytes(stages)
    ...     notes = read_annotations(Path(folder, "slp"), "st")
    >>> notes.sample / notes.fs, [note.split()[0] for note in notes.aux_note]
    (array([4.0000e-03, 3.0004e+01]), ['2', '2'])
    """
    path = _record_path(path)
    header = read_header(path)
    notes = read_annotation_file(path, extension)
    notes.fs = notes.fs or _sampling_rate(header, default_fs)
    if header.n_times and (header.fs or default_fs):
        _check_inside(notes.sample, np.ceil(header.n_times * notes.fs / (header.fs or default_fs)), path, extension)
    return notes


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


def _record_path(path):
    path = local_path(path)
    return path.with_name(path.name.removesuffix(".hea"))


def _listed_records(folder, above=()):
    """Paths of all records of a folder, by RECORDS (which may name folders with a RECORDS of their own)."""
    file = folder / "RECORDS"
    if not file.is_file():
        return [path.with_suffix("") for path in sorted(folder.rglob("*.hea"))]
    if file.stat().st_size > _MAX_RECORDS_BYTES:
        raise ECGFormatError(f"{file.stat().st_size:,} bytes are no list of records.", file=file)
    above = (*above, os.path.realpath(folder))
    paths = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        below = entry.endswith("/") and os.path.isdir(folder / entry)
        if os.path.isabs(entry) or ".." in Path(entry).parts or ":" in entry or not Path(entry).name or (
            below and os.path.realpath(folder / entry) in above
        ):
            raise ECGFormatError(f"{entry!r} leads out of the folder, or to itself.",
                                 file=file, line=number, field="record name")
        paths.extend(_listed_records(folder / entry, above) if below else [folder / entry])
    return paths


def _sampling_rate(header, default_fs):
    if default_fs is not None and not 0 < default_fs < np.inf:
        raise ValueError(f"default_fs must be a positive number of Hz; got {default_fs!r}.")
    fs = header.fs or default_fs
    if not fs:
        raise ECGFormatError(
            "the header gives no sampling rate. Pass default_fs= (in Hz) if you know it.",
            file=header.file, line=header.line, field="sampling rate",
        )
    return fs


def _check_parts(parts, used, rate, default_gain):
    """The unit of each lead, None where no part stores it; gains are complete, units and rates the same throughout."""
    units = [None] * len(parts[0].positions)
    for part in {part.header.file: part for part in parts}.values():
        for i in used:
            if part.positions[i] is None:
                continue
            lead = part.header.leads[part.positions[i]]
            if not lead.gain and default_gain:
                lead.gain, lead.factor = default_gain, 1.0
            if not lead.gain:
                raise ECGFormatError(
                    f"the header gives no gain for lead {lead.name}. Pass default_gain= (ADC units per mV) if "
                    "you know it.",
                    file=part.header.file, line=lead.line, field="gain",
                )
            units[i] = units[i] or lead.unit
            if (lead.unit, lead.per_frame) != (units[i], rate):
                raise ECGFormatError(
                    f"lead {lead.name} is in {lead.unit}, {lead.per_frame} sample(s) per frame; elsewhere in the "
                    f"record it is in {units[i]}, {rate}.",
                    file=part.header.file, line=lead.line, field="gain" if lead.unit != units[i] else "format",
                )
    return units


def _read_signal(parts, positions, rate, header, folder, verify):
    """The leads at ``positions``, (n_leads, n_times) float32: every part in its place, NaN elsewhere."""
    checked = {}  # a segment may occur more than once
    for part in parts:
        file = part.header.file
        if file not in checked:
            used = sorted(part.positions[i] for i in positions if i is not None and part.positions[i] is not None)
            checked[file] = used, check_files(part.header, folder, used, verify) if used else 0
        used, n_times = checked[file]
        if used and part.n_times not in (None, n_times):
            raise ECGFormatError(f"the segment {file.name} has {n_times} samples, not {part.n_times}.",
                                 file=header.file, line=part.line, field="number of samples")
        part.n_times = part.n_times or n_times
    stored = sum(len(used) * n_times for used, n_times in checked.values())
    n_times = header.n_times if header.segments else parts[0].n_times
    if header.segments and n_times * rate * len(positions) > max(_FREE_SAMPLES, _MAX_EXPANSION * stored * rate):
        raise ECGFormatError(f"the record claims {n_times:,} samples of {len(positions)} lead(s), of which {stored:,} "
                             "are stored: that is no recording.",
                             file=header.file, line=header.line, field="number of samples")
    signal = np.full((len(positions), n_times * rate), np.nan, dtype=np.float32)
    done = {}
    for part in parts:
        used, _ = checked[part.header.file]
        where = slice(part.start * rate, (part.start + part.n_times) * rate)
        if not used:
            continue
        if part.header.file in done:
            signal[:, where] = signal[:, done[part.header.file]]
            continue
        digital = decode(part.header, folder, used, part.n_times)
        if verify:
            check_samples(part.header, used, digital)
        for row, i in enumerate(positions):
            if i is not None and part.positions[i] is not None:
                column = part.positions[i]
                to_physical(digital[used.index(column)], part.header.leads[column], signal[row, where])
        done[part.header.file] = where
    return signal


def _check_inside(sample, n_times, path, extension):
    if len(sample) and sample[-1] > n_times:
        raise ECGFormatError(f"an annotation is at {sample[-1]:,}, outside the record of {n_times:,.0f} "
                             "samples. Copy the file again, and check that it belongs to this record.",
                             file=path.with_name(f"{path.name}.{extension.removeprefix('.')}"), field="sample")


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
