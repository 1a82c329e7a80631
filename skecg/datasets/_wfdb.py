"""The WFDB format: headers are read and checked here, samples and annotations are decoded by wfdb."""

import os
import re
import warnings
from contextlib import contextmanager
from functools import cache
from inspect import signature
from types import SimpleNamespace as _Fields  # looked up hundreds of times per record, which a Bunch makes slow

import numpy as np
from sklearn.utils import Bunch

_MILLIVOLT = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # micro sign and Greek mu

# Storage formats: bits per sample of the raw ones, as (bits, samples) of the smallest group; those of FLAC; and the
# value that marks an invalid sample. Format 0, which stores nothing, is for layout segments only.
_RAW = {
    "8": (8, 1), "16": (16, 1), "24": (24, 1), "32": (32, 1), "61": (16, 1), "80": (8, 1), "160": (16, 1),
    "212": (24, 2), "310": (32, 3), "311": (32, 3),
}
_FLAC = {"508": 8, "516": 16, "524": 24}
_INVALID = {
    "16": -(2**15), "24": -(2**23), "32": -(2**31), "61": -(2**15), "80": -(2**7), "160": -(2**15), "212": -(2**11),
    "310": -(2**9), "311": -(2**9), "508": -(2**7), "516": -(2**15), "524": -(2**23),
}
_WIDE = ("8", "24", "32", "524")  # ADC values that float32 may not hold

# What a file may claim. Longer ones are refused before anything is allocated.
_MAX_HEADER_BYTES = 2**20
_MAX_LINES = 2**15
_MAX_LEADS = 2**10
_MAX_SEGMENTS = 2**14
_MAX_ANNOTATION_BYTES = 2**23
# Compressed signals and gaps between segments take no room on disk: more than so many samples must be backed by one
# stored byte (or sample) per hundred. Real recordings stay far below.
_FREE_SAMPLES = 2**24
_MAX_EXPANSION = 100

_FILE = r"[^\s/\\:*?\[\]\x00-\x1f\x7f]{1,255}"  # no folder, no drive, no address, no pattern
_NUMBER = r"[-+]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][-+]?\d{1,4})?"
_RECORD_LINE = [
    ("record name", r"(?P<name>[^\s/]+)(?:/(?P<n_segments>\d{1,15}))?"),
    ("number of signals", r"(?P<n_leads>\d{1,15})"),
    ("sampling rate", rf"(?P<fs>(?!-){_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?"),
    ("number of samples", r"(?P<n_times>\d{1,15})"),
]
_SIGNAL_LINE = [
    ("signal file", rf"(?P<file>{_FILE})"),
    ("format", r"(?P<format>\d{1,3})(?:x(?P<per_frame>\d{1,9}))?(?::(?P<skew>\d{1,12}))?(?:\+(?P<offset>\d{1,15}))?"),
    ("gain", rf"(?P<gain>{_NUMBER})(?:\((?P<baseline>[-+]?\d{{1,10}})\))?(?:/(?P<unit>\S+))?"),
    ("ADC resolution", r"\d{1,10}"),
    ("ADC zero", r"(?P<zero>[-+]?\d{1,10})"),
    ("initial value", r"(?P<initial>[-+]?\d{1,10})"),
    ("checksum", r"(?P<checksum>[-+]?\d{1,10})"),
    ("block size", r"\d{1,10}"),
    ("lead name", r"(?P<name>.*)"),
]
_SEGMENT_LINE = [("segment name", rf"(?P<name>{_FILE})"), ("number of samples", r"(?P<n_times>\d{1,15})")]


def _compiled(fields):
    return [(name, re.compile(pattern, re.ASCII)) for name, pattern in fields]


_RECORD_LINE, _SIGNAL_LINE, _SEGMENT_LINE = map(_compiled, (_RECORD_LINE, _SIGNAL_LINE, _SEGMENT_LINE))


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


# --- header


def read_header(path):
    """What the header says: ``fs`` (0) and ``n_times`` (None) where it says nothing.

    ``leads`` of an ordinary record, ``segments`` of one that is made of others; the other one is None.
    """
    file = header_path(path)
    if not os.path.isfile(file):
        if path.is_dir():
            raise FileNotFoundError(f"{path} is a folder, not a record: use read_records for all records in "
                                    "it.")
        there = sorted(other.stem for other in path.parent.glob("*.hea"))
        listed = f"; there is {', '.join(there[:10])}{', ...' if len(there) > 10 else ''}" if there else ""
        raise FileNotFoundError(f"There is no record {path.name!r} in {path.parent} (no file "
                                f"{file.name}{listed}).")
    lines, comments = _read_lines(file)
    number, line = lines[0]
    start = _parse(_RECORD_LINE, line.split(), file, number, required=2)
    fs = _rate(start["fs"] or "0")
    if fs and not 1e-6 <= fs <= 1e9:
        raise ECGFormatError(f"a sampling rate of {start['fs']} Hz is not one of a recording.",
                             file=file, line=number, field="sampling rate")
    n_leads = int(start["n_leads"])
    if not 1 <= n_leads <= _MAX_LEADS:
        raise ECGFormatError(f"the header claims {n_leads} signals; expected 1 to {_MAX_LEADS}.",
                             file=file, line=number, field="number of signals")
    header = _Fields(
        file=file, line=number, comments=comments, n_leads=n_leads, leads=None, segments=None,
        fs=fs, n_times=int(start["n_times"] or 0) or None,  # the format's way to say that it is not known
    )
    if start["n_segments"] is not None:
        header.segments = _segment_lines(lines[1:], int(start["n_segments"]), header)
        return header
    if n_leads != len(lines) - 1:
        raise ECGFormatError(f"the header claims {n_leads} signals but describes {len(lines) - 1}. Copy the "
                             "file again.",
                             file=file, line=number, field="number of signals")
    header.leads = [_signal_line(line, i, file, number) for i, (number, line) in enumerate(lines[1:])]
    _check_groups(header)
    return header


def _rate(text):
    value = float(text)
    return int(value) if value.is_integer() else value


def _read_lines(file):
    """Pairs of line number and text, and the comments."""
    size = os.path.getsize(file)
    if size > _MAX_HEADER_BYTES:
        raise ECGFormatError(f"a header of {size:,} bytes is not a WFDB header.", file=file)
    content = file.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = re.split("\r\n|\r|\n", text)  # splitlines would split at characters that old comments contain
    if len(lines) > _MAX_LINES:
        raise ECGFormatError(f"a header of {len(lines):,} lines is not a WFDB header.", file=file)
    lines = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    comments = tuple(line.lstrip("# \t") for _, line in lines if line.startswith("#"))
    lines = [(number, line) for number, line in lines if not line.startswith("#")]
    if not lines:
        raise ECGFormatError("the header is empty. Copy the file again.", file=file, line=1, field="record name")
    return lines, comments


def _parse(fields, tokens, file, number, required):
    values = {}
    if len(tokens) < required:
        raise ECGFormatError(f"the line ends before the {fields[len(tokens)][0]}.",
                             file=file, line=number, field=fields[len(tokens)][0])
    for i, (name, pattern) in enumerate(fields):
        if i < len(tokens):
            match = pattern.fullmatch(tokens[i])
            if match is None:
                raise ECGFormatError(f"{tokens[i][:80]!r} is not a {name}.", file=file, line=number, field=name)
            values |= match.groupdict()
        else:
            values |= dict.fromkeys(pattern.groupindex)
    return values


def _signal_line(line, position, file, number):
    values = _parse(_SIGNAL_LINE, line.split(None, 8), file, number, required=2)
    stored = values["format"]
    if stored not in _RAW and stored not in _FLAC and (stored, values["file"]) != ("0", "~"):
        raise ECGFormatError(f"storage format {stored} is not supported; supported are "
                             f"{', '.join((*_RAW, *_FLAC))}.",
                             file=file, line=number, field="format")
    unit = values["unit"] or "mV"
    factor = _MILLIVOLT.get(unit.lower())
    gain = float(values["gain"] or 0)
    if gain and not 1e-20 <= abs(gain) <= 1e20:
        raise ECGFormatError(f"a gain of {values['gain']} is not one of a recording.",
                             file=file, line=number, field="gain")
    zero = int(values["zero"] or 0)
    number_or_none = {name: None if values[name] is None else int(values[name]) for name in ("initial", "checksum")}
    return _Fields(
        line=number, file=values["file"], format=stored, name=values["name"] or f"lead{position}",
        per_frame=int(values["per_frame"] or 1) or 1, skew=int(values["skew"] or 0),
        offset=int(values["offset"] or 0), gain=gain, zero=zero, baseline=int(values["baseline"] or zero),
        unit=unit if factor is None else "mV", factor=factor or 1.0, **number_or_none,
    )


def _check_groups(header):
    """Leads of one file follow each other and agree on how it is stored."""
    groups = {}
    for i, lead in enumerate(header.leads):
        group = groups.setdefault(lead.file, [])
        if group and group[-1] != i - 1:
            raise ECGFormatError(f"the leads of {lead.file} do not follow each other.",
                                 file=header.file, line=lead.line, field="signal file")
        first = header.leads[group[0]] if group else lead
        if (lead.format, lead.offset) != (first.format, first.offset):
            raise ECGFormatError(f"the leads of {lead.file} have different formats or offsets.",
                                 file=header.file, line=lead.line, field="format")
        group.append(i)


def _segment_lines(lines, n_segments, header):
    if n_segments != len(lines) or not 1 <= n_segments <= _MAX_SEGMENTS:
        raise ECGFormatError(f"the header claims {n_segments} segments and lists {len(lines)}; expected as many, "
                             f"1 to {_MAX_SEGMENTS:,}.",
                             file=header.file, line=header.line, field="record name")
    segments = []
    for number, line in lines:
        values = _parse(_SEGMENT_LINE, line.split(), header.file, number, required=2)
        segments.append(_Fields(line=number, name=values["name"], n_times=int(values["n_times"])))
    return segments


def read_parts(header, folder):
    """The leads of a record, and where its samples are.

    Returns
    -------
    leads : list of fields
        What the signal lines say; for a record of segments those of the layout segment, or of the first one.
    parts : list of fields
        ``start`` in frames, ``n_times`` (None where only the file can tell), the ``header`` and, for each of the
        leads, its position there (None where it is not stored). Gaps have no part.
    """
    if header.segments is None:
        return header.leads, [_Fields(start=0, n_times=header.n_times, header=header, line=header.line,
                                      positions=list(range(header.n_leads)))]
    segments, headers = header.segments, {}
    for segment in segments:
        if segment.name != "~" and segment.name not in headers:
            headers[segment.name] = _segment_header(header, segment, folder)
    variable = segments[0].n_times == 0
    if variable and segments[0].name == "~":
        raise ECGFormatError("the layout segment has no name.",
                             file=header.file, line=segments[0].line, field="segment name")
    if not any(segment.n_times and segment.name != "~" for segment in segments):
        raise ECGFormatError("the record is made of gaps only.",
                             file=header.file, line=header.line, field="segment name")
    leads = (headers[segments[0].name] if variable else next(iter(headers.values()))).leads
    names = [lead.name for lead in leads]
    if len(leads) != header.n_leads or (variable and len(set(names)) < len(names)):
        raise ECGFormatError(f"the header claims {header.n_leads} signals, its segments have {', '.join(names)}.",
                             file=header.file, line=header.line, field="number of signals")
    if any(segment.n_times == 0 for segment in segments[1:]):
        raise ECGFormatError("a segment after the first one is empty.",
                             file=header.file, line=header.line, field="number of samples")
    parts, start, positions = [], 0, {}
    for segment in segments[1:] if variable else segments:
        name = segment.name
        if name != "~":
            if name not in positions:  # a segment may occur any number of times
                positions[name] = _same_leads(leads, headers[name], variable)
            parts.append(_Fields(start=start, n_times=segment.n_times, header=headers[name], line=segment.line,
                                 positions=positions[name]))
        start += segment.n_times
    if header.n_times not in (None, start):
        raise ECGFormatError(f"the header claims {header.n_times} samples, its segments have {start}.",
                             file=header.file, line=header.line, field="number of samples")
    header.n_times = start
    return leads, parts


def _segment_header(header, segment, folder):
    path = folder / f"{segment.name}.hea"
    if not os.path.isfile(path):
        raise ECGFormatError(f"the header names the segment {segment.name}, which is not in {folder}. Copy it next "
                             "to the header.",
                             file=header.file, line=segment.line, field="segment name")
    found = read_header(path)
    if found.segments is not None:
        raise ECGFormatError("a segment is made of segments itself.",
                             file=header.file, line=segment.line, field="segment name")
    if found.fs != header.fs:
        raise ECGFormatError(f"the sampling rate is {found.fs or 'not given'}, that of {header.file.name} "
                             f"{header.fs or 'not given'}.",
                             file=found.file, line=found.line, field="sampling rate")
    return found


def _same_leads(leads, part, variable):
    """The position of each lead in a segment."""
    names, there = [lead.name for lead in leads], [lead.name for lead in part.leads]
    if variable:
        found = {name: i for i, name in enumerate(there)}
        if len(found) < len(there) or not found.keys() <= set(names):
            raise ECGFormatError(f"the leads {', '.join(there)} are not those of the layout segment "
                                 f"({', '.join(names)}).",
                                 file=part.file, field="lead name")
        return [found.get(name) for name in names]
    if there != names:
        raise ECGFormatError(f"the leads {', '.join(there)} are not those of the first segment "
                             f"({', '.join(names)}).",
                             file=part.file, field="lead name")
    return list(range(len(names)))


# --- samples


def check_files(header, folder, used, verify):
    """The number of samples (frames): the signal files hold what the header claims, before anything is allocated."""
    n_times = header.n_times
    for file in dict.fromkeys(header.leads[i].file for i in used):
        leads = [lead for lead in header.leads if lead.file == file]
        first, data = leads[0], folder / file
        if first.format == "0":
            raise ECGFormatError("a lead of format 0 has no samples.",
                                 file=header.file, line=first.line, field="format")
        if not os.path.isfile(data):
            raise ECGFormatError(f"the header names the signal file {file}, which is not in {folder}. "
                                 "Copy it next to the header.",
                                 file=header.file, line=first.line, field="signal file")
        size, frame = os.path.getsize(data), sum(lead.per_frame for lead in leads)
        if first.format in _FLAC:
            stored, unit = _flac_frames(data, leads, header), "samples"
            if stored * frame > max(_FREE_SAMPLES, _MAX_EXPANSION * size):
                raise ECGFormatError(f"{size:,} bytes that claim to be {stored * frame:,} samples are no recording.",
                                     file=data, field="number of samples")
            claimed, there, padding = n_times, stored, 1
        else:
            bits, samples = _RAW[first.format]
            stored = max(0, size - first.offset) * 8 * samples // (bits * frame)
            claimed = None if n_times is None else first.offset + -(-n_times * frame * bits // (8 * samples))
            there, padding, unit = size, max(frame * bits / (8 * samples), bits / 8), "bytes"
        if n_times is None:
            n_times = stored
        if claimed is not None and there < claimed:
            raise ECGFormatError(
                f"the file has {there:,} {unit}, but {header.file.name} claims {n_times:,} samples of "
                f"{len(leads)} lead(s) in format {first.format}, which take {claimed:,}. Copy both files "
                "again.",
                file=data, field="number of samples",
            )
        proven = verify and header.n_times and all(header.leads[i].checksum is not None for i in used)
        if stored != n_times and there - (claimed or 0) >= padding and not proven:
            raise ECGFormatError(
                f"the file has {there:,} {unit}, but {header.file.name} accounts for {claimed or n_times:,} "
                f"({n_times:,} samples of {len(leads)} lead(s) in format {first.format}) and "
                "gives no checksum to prove it. Correct the header.",
                file=data, field="number of samples",
            )
    if not n_times:
        raise ECGFormatError("the record has no samples.",
                             file=header.file, line=header.line, field="number of samples")
    return n_times


def _flac_frames(data, leads, header):
    """Number of frames that a FLAC file claims to hold, from its first block; nothing is decompressed."""
    with open(data, "rb") as stream:
        block = stream.read(42)
    if len(block) < 42 or block[:4] != b"fLaC" or block[4] & 0x7F:
        raise ECGFormatError("the file is not a FLAC file. Copy it again.", file=data, field="format")
    packed = int.from_bytes(block[18:26], "big")  # 20 bits rate, 3 channels - 1, 5 bits per sample - 1, 36 length
    channels, bits, length = (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & 2**36 - 1
    rates = {lead.per_frame for lead in leads}
    if channels != len(leads) or bits > _FLAC[leads[0].format] or len(rates) > 1:
        raise ECGFormatError(f"the file holds {channels} signal(s) of {bits} bits; {header.file.name} claims "
                             f"{len(leads)} of {_FLAC[leads[0].format]} bits at most and one rate.",
                             file=data, field="format")
    return max(0, length - leads[0].offset) // rates.pop()


@contextmanager
def _wfdb():
    """The module, imported where it is used; its own deprecated calls are nothing a user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        import wfdb

        yield wfdb


@cache
def _reader(*arguments):
    """The reader of signal files below wfdb.rdrecord.

    rdrecord would read the header again, by other rules, and for 12 leads of 10 s take 30 times as long for that as
    for the samples.
    """
    with _wfdb() as wfdb:
        from wfdb.io import _signal
    reader = getattr(_signal, "_rd_segment", None)
    if reader is None or not set(arguments) <= set(signature(reader).parameters):
        raise ImportError(f"wfdb {wfdb.__version__} has no reader of signal files that skecg knows; install a version "
                          "from 4.1.2 to 4.3.")
    return reader


def decode(header, folder, used, n_times):
    """ADC values of the ``used`` leads as stored (not averaged over frames, not shifted), one array each."""
    leads = header.leads
    arguments = {
        "file_name": [lead.file for lead in leads], "dir_name": str(folder), "pn_dir": None,
        "fmt": [lead.format for lead in leads], "n_sig": len(leads), "sig_len": n_times,
        "byte_offset": [lead.offset for lead in leads], "samps_per_frame": [lead.per_frame for lead in leads],
        "skew": [0] * len(leads), "init_value": [lead.zero if lead.initial is None else lead.initial for lead in leads],
        "sampfrom": 0, "sampto": n_times, "channels": list(used), "ignore_skew": True,
    }
    read = _reader(*arguments)
    try:
        return read(**arguments)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # wfdb raises a dozen unrelated classes for a bad file
        raise ECGFormatError(f"wfdb cannot decode the record ({type(error).__name__}: {error}). Copy its "
                             "files again.",
                             file=header.file, field="signal file") from error


def check_samples(header, used, digital):
    """The samples of each lead start with the header's initial value and add up to its checksum, modulo 2**16."""
    for i, values in zip(used, digital, strict=True):
        lead = header.leads[i]
        # Without a number of samples in the header, a checksum of zero is a placeholder.
        if lead.checksum == 0 and header.n_times is None:
            continue
        for field, what, expected, found in (
            ("checksum", "add up to", None if lead.checksum is None else lead.checksum & 0xFFFF,
             int(values.sum(dtype=np.int64)) & 0xFFFF),
            ("initial value", "start with", None if lead.format == "8" else lead.initial, int(values[0])),
        ):
            if expected not in (None, found):
                raise ECGFormatError(
                    f"the samples of lead {lead.name} in {lead.file} {what} {found}, the header's {field} "
                    f"says {expected}: the signal file was altered, cut, or belongs to another "
                    "header. Copy both files again, or pass verify=False to read it all the same.",
                    file=header.file, line=lead.line, field=field,
                )


def to_physical(digital, lead, out):
    """Fill ``out``, float32: millivolt (or the lead's own unit), NaN where a sample is marked as invalid."""
    gain = np.float32(lead.gain)
    if gain == lead.gain and lead.factor == 1 and lead.format not in _WIDE and abs(lead.baseline) < 2**23:
        # The difference is exact, and so is a quotient rounded once what it would be when rounded to float64 first.
        np.subtract(digital, np.float32(lead.baseline), out=out, dtype=np.float32)
        out /= gain
    else:
        values = digital.astype(np.float64)
        values -= lead.baseline
        values /= lead.gain
        values *= lead.factor
        out[:] = values
    invalid = _INVALID.get(lead.format)
    if invalid is not None:
        out[digital == invalid] = np.nan
    shift = min(lead.skew * lead.per_frame, len(out))
    if shift:
        out[:-shift] = out[shift:].copy()
        out[len(out) - shift:] = np.nan


# --- annotations

_NOTE, _SKIP, _AUX = 22, 59, 63  # codes; those above SKIP are fields of an annotation
_CODES = frozenset((*range(15), 16, *range(18, 42)))  # those that have a symbol
_CLOCK = re.compile(r"## time resolution: (\d{1,30}\.?\d{0,30})", re.ASCII)
_DEFINITION = re.compile(r"(\d{1,2}) (\S+) (.+)", re.ASCII)


def read_annotation_file(path, extension):
    """``sample``, ``symbol`` and ``aux_note`` as arrays, and ``fs``, the file's own clock in Hz (or None)."""
    extension = extension.removeprefix(".")
    if not re.fullmatch(r"[\w-]+", extension):
        raise ValueError(f"{extension!r} is not the extension of an annotation file; expected e.g. 'atr'.")
    file = path.with_name(f"{path.name}.{extension}")
    if not os.path.isfile(file):
        there = sorted(other.name for other in path.parent.glob(f"{path.name}.*"))
        raise FileNotFoundError(f"There is no annotation file {file}; of this record there is "
                                f"{', '.join(there)}.")
    size = os.path.getsize(file)
    if size > _MAX_ANNOTATION_BYTES:
        raise ECGFormatError(f"{size:,} bytes are no annotation file; expected {_MAX_ANNOTATION_BYTES:,} at most.",
                             file=file)
    expected, fs = _scan_annotations(file.read_bytes(), file)
    if not len(expected):
        return Bunch(sample=expected, symbol=np.array([], dtype=str), aux_note=np.array([], dtype=str), fs=fs)
    try:
        with _wfdb() as wfdb:
            found = wfdb.rdann(str(path), extension)
        sample = np.asarray(found.sample, dtype=np.int64)
        symbol = np.asarray(found.symbol, dtype=str)
        aux_note = np.asarray([note.rstrip("\x00") for note in found.aux_note], dtype=str)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise ECGFormatError(f"wfdb cannot decode the annotations ({type(error).__name__}: {error}). Copy "
                             "the file again.", file=file, field="symbol") from error
    if not np.array_equal(sample, expected):
        raise ECGFormatError("wfdb finds other annotations than the file holds. Please report it with the file.",
                             file=file, field="sample")
    return Bunch(sample=sample, symbol=symbol, aux_note=aux_note, fs=fs)


def _scan_annotations(content, file):
    """Positions of the annotations and the clock of the file (or None), by the rules of the format.

    wfdb takes any bytes for annotations, and loops for ever on notes that look like definitions and are none.
    """
    def wrong(message, at, field, advice="Copy the file again."):
        return ECGFormatError(f"byte {2 * at}: {message} {advice}", file=file, field=field)

    if len(content) % 2 or not content:
        raise ECGFormatError(f"{len(content)} bytes are no annotation file, which is made of pairs. Copy the file "
                             "again.", file=file, field="sample")
    words = np.frombuffer(content, dtype="<u2").tolist()
    found, at, time, end = [], 0, 0, len(words)
    while at < end and words[at]:
        start = at
        while at < end and words[at] >> 10 == _SKIP:
            if at + 3 >= end:
                raise wrong("the file ends inside an interval.", at, "sample")
            jump = words[at + 1] << 16 | words[at + 2]
            time += jump - (jump >> 31 << 32)
            at += 3
        code = words[at] >> 10
        if code > _SKIP:
            raise wrong("a field that belongs to no annotation.", at, "symbol")
        time += words[at] & 1023
        at += 1
        seen, note = set(), ""
        while at < end and words[at] >> 10 > _SKIP:
            field, value = divmod(words[at], 1024)
            if field in seen:
                raise wrong("an annotation has a field twice.", at, "aux_note" if field == _AUX else "symbol")
            seen.add(field)
            at += 1
            if field == _AUX:
                stop = at + (value + 1) // 2
                if value > 255 or stop >= end:
                    raise wrong(f"a note of {value} characters; expected 255 at most, inside the file.", at, "aux_note")
                note = content[2 * at:2 * at + value].decode("latin-1")
                at = stop
        found.append((time, code, note, start))
    if at >= end:
        raise wrong("the file ends without its end mark.", at, "sample")
    if any(words[at:]):
        raise wrong("the file goes on after its end mark.", at, "sample")
    clock, codes = _definitions(found, wrong)
    before, times = 0, []
    for time, code, _, at in found:
        if code == 0 or (code == _NOTE and time == 0):
            continue  # definitions, and steps in time without an annotation
        if code not in codes:
            raise wrong(f"{code} is not the code of an annotation.", at, "symbol")
        if not before <= time < 2**53:
            raise wrong("the annotations are not in order, or outside any record.", at, "sample")
        before = time
        times.append(time)
    return np.array(times, dtype=np.int64), clock


def _definitions(found, wrong):
    """The clock, and the codes that have a symbol, from the notes that a file may start with."""
    clock, codes, listing = None, _CODES, False
    special = [time == 0 and code == _NOTE for time, code, _, _ in found]
    for i, (_, _, note, at) in enumerate(found):
        if listing:
            match = _DEFINITION.fullmatch(note)
            if match and special[i] and 0 < int(match[1]) < _SKIP:
                codes = codes | {int(match[1])}
                continue
            if note != "## end of definitions" or not special[i]:
                raise wrong(f"{note!r} defines no type of annotation.", at, "aux_note")
            listing = False
        elif note.startswith("## ") and (special[i] or i < sum(special)):
            # wfdb looks for definitions in as many notes as there are at sample 0, counted from the start.
            leading = all(special[:i + 1])
            match = _CLOCK.fullmatch(note.rstrip("\x00")) if clock is None and leading else None
            if match:
                clock = _rate(match[1])
                if not 1e-6 <= clock <= 1e9:
                    raise wrong(f"a time resolution of {match[1]} Hz is not one of a recording.", at, "aux_note")
            elif leading and note == "## annotation type definitions":
                listing = True
            else:
                raise wrong(f"the note {note!r} starts with '## ' and is not a definition that WFDB knows.", at,
                            "aux_note", "Correct the note.")
    if listing:
        raise wrong("the definitions do not end.", 0, "aux_note")
    return clock, codes
