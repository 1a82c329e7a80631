"""The WFDB format: headers are read and checked here, samples and annotations are decoded by wfdb."""

import re
import warnings
from contextlib import contextmanager
from math import ceil, isfinite

import numpy as np
from sklearn.utils import Bunch

_MILLIVOLT = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # micro sign and Greek mu

# Storage formats: bytes per sample (of the raw ones), and bits (the lowest value marks an invalid sample).
# Format 61 is left out: wfdb fails to give its ADC values, without which nothing can be verified.
_BYTES = {
    "8": 1, "16": 2, "24": 3, "32": 4, "80": 1, "160": 2, "212": 3 / 2, "310": 4 / 3, "311": 4 / 3,
}
_BITS = {
    "16": 16, "24": 24, "32": 32, "80": 8, "160": 16, "212": 12, "310": 10, "311": 10,
    "508": 8, "516": 16, "524": 24,
}

_MAX_HEADER_BYTES = 2**20
_MAX_LEADS = 1024

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RECORD_LINE = [
    ("record name", r"(?P<name>[^\s/]+)(?:/(?P<n_segments>\d+))?"),
    ("number of signals", r"(?P<n_leads>\d+)"),
    ("sampling rate", rf"(?P<fs>(?!-){_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?"),
    ("number of samples", r"(?P<n_times>\d+)"),
]
_SIGNAL_LINE = [
    ("signal file", r"(?P<file>[^\s/\\]+)"),
    ("format", r"(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?"),
    ("gain", rf"(?P<gain>{_NUMBER})(?:\((?P<baseline>[-+]?\d+)\))?(?:/(?P<unit>\S+))?"),
    ("ADC resolution", r"\d+"),
    ("ADC zero", r"(?P<zero>[-+]?\d+)"),
    ("initial value", r"[-+]?\d+"),
    ("checksum", r"(?P<checksum>[-+]?\d+)"),
    ("block size", r"\d+"),
    ("lead name", r"(?P<name>.*)"),
]


class ECGFormatError(ValueError):
    """A file that is not what its format, or its own header, says.

    Attributes
    ----------
    file : str or None
        The file at fault.
    line : int or None
        The line of a text file, counted from 1.
    field : str or None
        The field that could not be used, e.g. ``"gain"``.
    """

    def __init__(self, message, *, file=None, line=None, field=None):
        where = f"{file}, line {line}: " if line is not None else f"{file}: " if file is not None else ""
        super().__init__(where + message)
        self.file, self.line, self.field = None if file is None else str(file), line, field


def header_path(path):
    """The header file of a record given with or without ``.hea``."""
    return path if path.suffix == ".hea" else path.with_name(path.name + ".hea")


def read_header(path):
    """A Bunch of what the header says: ``fs`` (0) and ``n_times`` (None) where it says nothing."""
    file = header_path(path)
    if not file.is_file():
        if path.is_dir():
            raise FileNotFoundError(f"{path} is a folder, not a record: use read_records for all records in "
                                    "it.")
        there = sorted(other.stem for other in path.parent.glob("*.hea"))
        listed = f"; there is {', '.join(there[:10])}{', ...' if len(there) > 10 else ''}" if there else ""
        raise FileNotFoundError(f"There is no record {path.name!r} in {path.parent} (no file "
                                f"{file.name}{listed}).")
    if file.stat().st_size > _MAX_HEADER_BYTES:
        raise ECGFormatError(f"a header of {file.stat().st_size:,} bytes is not a WFDB header.", file=file)
    content = file.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    comments = tuple(line.lstrip("# \t") for _, line in lines if line.startswith("#"))
    lines = [(number, line) for number, line in lines if not line.startswith("#")]
    if not lines:
        raise ECGFormatError("the header is empty. Copy the file again.", file=file)

    number, line = lines[0]
    start = _parse(_RECORD_LINE, line.split(), file, number, required=2)
    if start["n_segments"] is not None:
        raise ECGFormatError(
            "records of several segments are not read as one yet: read the segments, which are the records "
            f"{', '.join(other.split()[0] for _, other in lines[1:4])}, ...",
            file=file, line=number, field="record name",
        )
    n_leads = int(start["n_leads"])
    if not 1 <= n_leads <= _MAX_LEADS:
        raise ECGFormatError(f"the header claims {n_leads} signals; expected 1 to {_MAX_LEADS}.",
                             file=file, line=number, field="number of signals")
    if n_leads != len(lines) - 1:
        raise ECGFormatError(f"the header claims {n_leads} signals but describes {len(lines) - 1}. Copy the "
                             "file again.",
                             file=file, line=number, field="number of signals")
    leads = [_signal_line(line, i, file, number) for i, (number, line) in enumerate(lines[1:])]
    fs = float(start["fs"] or 0)
    if not isfinite(fs):
        raise ECGFormatError(f"a sampling rate of {start['fs']} Hz is not finite.",
                             file=file, line=number, field="sampling rate")
    return Bunch(
        file=file, line=number, leads=leads, comments=comments, fs=int(fs) if fs.is_integer() else fs,
        n_times=None if start["n_times"] is None else int(start["n_times"]),
    )


def _parse(fields, tokens, file, number, required):
    values = {}
    if len(tokens) < required:
        raise ECGFormatError(f"the line ends before the {fields[len(tokens)][0]}.",
                             file=file, line=number, field=fields[len(tokens)][0])
    for i, (name, pattern) in enumerate(fields):
        match = re.fullmatch(pattern, tokens[i]) if i < len(tokens) else None
        if i < len(tokens) and match is None:
            raise ECGFormatError(f"{tokens[i]!r} is not a {name}.", file=file, line=number, field=name)
        values |= match.groupdict() if match else dict.fromkeys(re.compile(pattern).groupindex)
    return values


def _signal_line(line, position, file, number):
    values = _parse(_SIGNAL_LINE, line.split(None, 8), file, number, required=2)
    if values["format"] not in _BYTES | _BITS:
        raise ECGFormatError(f"storage format {values['format']} is not supported; supported are "
                             f"{', '.join(_BYTES | _BITS)}.",
                             file=file, line=number, field="format")
    unit = values["unit"] or "mV"
    factor = _MILLIVOLT.get(unit.lower())
    gain = float(values["gain"] or 0)
    if not isfinite(gain):
        raise ECGFormatError(f"a gain of {values['gain']} is not finite.",
                             file=file, line=number, field="gain")
    return Bunch(
        line=number, file=values["file"], format=values["format"], name=values["name"] or f"lead{position}",
        per_frame=int(values["per_frame"] or 1) or 1, skew=int(values["skew"] or 0),
        offset=int(values["offset"] or 0), gain=gain, baseline=int(values["baseline"] or values["zero"] or 0),
        unit=unit if factor is None else "mV", factor=factor or 1.0,
        checksum=None if values["checksum"] is None else int(values["checksum"]),
    )


def check_files(header, path, used, verify):
    """The signal files are there and as long as the header claims, before anything is allocated."""
    for file in dict.fromkeys(header.leads[i].file for i in used):
        leads = [lead for lead in header.leads if lead.file == file]
        data = path.with_name(file)
        if not data.is_file():
            raise ECGFormatError(f"the header names the signal file {file}, which is not in {path.parent}. "
                                 "Copy it next to the header.",
                                 file=header.file, line=leads[0].line, field="signal file")
        width = _BYTES.get(leads[0].format)
        if header.n_times is None or width is None:
            continue
        frame = sum(lead.per_frame for lead in leads)
        size, claimed = data.stat().st_size, leads[0].offset + ceil(round(header.n_times * frame * width, 3))
        if size < claimed:
            raise ECGFormatError(
                f"the file has {size:,} bytes, but {header.file.name} claims {header.n_times:,} samples of "
                f"{len(leads)} lead(s) in format {leads[0].format}, which take {claimed:,}. Copy both files "
                "again.",
                file=data, field="number of samples",
            )
        proven = verify and all(header.leads[i].checksum is not None for i in used)
        if size - claimed >= frame * width and not proven:
            raise ECGFormatError(
                f"the file has {size:,} bytes, but {header.file.name} accounts for {claimed:,} "
                f"({header.n_times:,} samples of {len(leads)} lead(s) in format {leads[0].format}) and "
                "gives no checksum to prove it. Correct the header.",
                file=data, field="number of samples",
            )


@contextmanager
def _wfdb():
    """The module, imported where it is used; its own deprecated calls are nothing a user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        import wfdb

        yield wfdb


def decode(header, path, used):
    """ADC values of the ``used`` leads, one int32 array each."""
    try:
        with _wfdb() as wfdb:
            # Samples as stored: frames not averaged, leads not shifted. The checksums are about these.
            record = wfdb.rdrecord(str(path), channels=used, physical=False, smooth_frames=False,
                                   ignore_skew=True, return_res=32)
        digital = [np.asarray(record.e_d_signal[i]) for i in range(len(used))]
    except Exception as error:  # wfdb raises a dozen unrelated classes for a bad file
        raise ECGFormatError(f"wfdb cannot decode the record ({type(error).__name__}: {error}). Copy its "
                             "files again.",
                             file=header.file) from error
    n_times = len(digital[0]) // header.leads[used[0]].per_frame
    if n_times == 0 or header.n_times not in (None, n_times):
        raise ECGFormatError(f"the header claims {header.n_times} samples, the signal file holds {n_times}.",
                             file=header.file, line=header.line, field="number of samples")
    return digital


def check_sums(header, used, digital):
    """The samples of each lead add up to the header's checksum, modulo 2**16."""
    for i, values in zip(used, digital, strict=True):
        lead = header.leads[i]
        # Without a number of samples in the header, a checksum of zero is a placeholder.
        if lead.checksum is None or (lead.checksum == 0 and header.n_times is None):
            continue
        found = int(values.sum(dtype=np.int64)) & 0xFFFF
        if found != lead.checksum & 0xFFFF:
            raise ECGFormatError(
                f"the samples of lead {lead.name} in {lead.file} add up to {found}, the header's checksum "
                f"says {lead.checksum & 0xFFFF}: the signal file was altered, cut, or belongs to another "
                "header. Copy both files again, or pass verify=False to read it all the same.",
                file=header.file, line=lead.line, field="checksum",
            )


def to_physical(digital, lead):
    """Millivolt (or the lead's own unit), float64, NaN where a sample is marked as invalid."""
    values = digital.astype(np.float64)
    if lead.format in _BITS:
        values[digital == -(2 ** (_BITS[lead.format] - 1))] = np.nan
    values -= lead.baseline
    values /= lead.gain
    if lead.factor != 1:
        values *= lead.factor
    shift = min(lead.skew * lead.per_frame, len(values))
    if shift:
        values[:-shift] = values[shift:]
        values[len(values) - shift:] = np.nan
    return values


def read_annotations(path, extension, *, frame_fs, per_frame, n_times):
    """Annotations as arrays, positions counted in samples of the signal."""
    extension = extension.removeprefix(".")
    file = path.with_name(f"{path.name}.{extension}")
    if not file.is_file():
        there = sorted(other.name for other in path.parent.glob(f"{path.name}.*"))
        raise FileNotFoundError(f"There is no annotation file {file}; of this record there is "
                                f"{', '.join(there)}.")
    content = file.read_bytes()
    # wfdb 4.3 loops for ever on notes that look like definitions and are none.
    notes = re.findall(rb"## (time resolution: \d|annotation type definitions|end of definitions|)", content)
    kinds = "".join(chr(note[0]) if note else "?" for note in notes)
    if kinds.count("t") > 1 or not re.fullmatch("(t|ae)*", kinds):
        raise ECGFormatError("the annotation file holds a note that starts with '## ' and is not a "
                             "definition that WFDB knows. Correct the note.", file=file, field="aux_note")
    try:
        with _wfdb() as wfdb:
            found = wfdb.rdann(str(path), extension)
        # Positions count frames of the signal file, unless the annotation file has a clock of its own.
        clock = float(found.fs) if "t" in kinds else frame_fs
        sample = np.rint(np.asarray(found.sample) * (per_frame * frame_fs / clock)).astype(np.int64)
        symbol = np.asarray(found.symbol, dtype=str)
        aux_note = np.asarray([note.rstrip("\x00") for note in found.aux_note], dtype=str)
    except Exception as error:
        raise ECGFormatError(f"wfdb cannot decode the annotations ({type(error).__name__}: {error}). Copy "
                             "the file again.", file=file) from error
    if len(sample) and (sample[0] < 0 or sample.max() > n_times or (np.diff(sample) < 0).any()):
        raise ECGFormatError(f"the annotations are not in order, or outside the record of {n_times:,} "
                             "samples. Copy the file again, and check that it belongs to this record.",
                             file=file, field="sample")
    return Bunch(sample=sample, symbol=symbol, aux_note=aux_note)
