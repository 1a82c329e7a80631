"""Reading of WFDB records: damaged files under a watchdog, and speed beside bare wfdb.

    python benchmarks/records.py FOLDER

FOLDER holds mitdb, ptbxl, ptbxl_bp100, ecgid, slpdb_rr and cinc2021 in PhysioNet's layout. The first part damages one
file of a real or written record at a time (10,000 cases, each a function of the seed and its number) and reads it in a
child process, which is killed once it has computed for 3 s, may map 1 GiB more than when it started, treats warnings as
errors, and reports every file opened outside the record's folder and every socket. The second part reads whole
databases in turns with `wfdb.rdrecord` and walks through the windows that `make_windows(out=...)` left on disk; it
compares processor time. A part that is not asked for (`--cases 0`, `--rounds 0`) stays in the results as it was.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from _common import machine, write_json

from skecg.datasets import ECGFormatError, read_annotations, read_record, read_records
from skecg.preprocessing import make_windows

TIMEOUT = 3.0
MEMORY = 2**30
N_PASSES = 5  # over the windows on disk, one after the other, as training makes them; the time is that of one

# ADC values that every storage format can hold.
WALK = np.cumsum(np.random.default_rng(0).integers(-9, 10, (401, 3)), axis=0).clip(-120, 120)

# --- records


def real_bases(folder):
    """Whole records of every database: name -> (record, extension, files)."""
    chosen = {
        "mitdb": ("mitdb/101", "atr"), "ptbxl 100 Hz": ("ptbxl/records100/*/*", None),
        "ptbxl 500 Hz": ("ptbxl/records500/*/*", None), "ptbxl_bp100": ("ptbxl_bp100/records/**/*", None),
        "georgia": ("cinc2021/georgia/*", None), "cinc ptb-xl": ("cinc2021/ptb-xl/*", None),
        "ecgid": ("ecgid/Person_01/rec_1", "atr"), "slpdb st": ("slpdb_rr/slp02a", "st"),
        "slpdb ecg": ("slpdb_rr/slp32", "ecg"),
    }
    bases = {}
    for name, (pattern, extension) in chosen.items():
        header = min(folder.glob(pattern + ".hea"))
        wanted = {".hea", ".dat", ".mat", f".{extension}"}
        bases[name] = header.stem, extension, {
            path.name: path.read_bytes() for path in sorted(header.parent.glob(header.stem + ".*")) if path.suffix in wanted
        }
    return bases


def written_bases():
    """Small records of every storage format and layout, of 1.6 s at 250 Hz."""
    import wfdb

    bases, walk = {}, WALK
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def write(name, digital=walk, fmt="16", lead_names=("I", "II", "V1"), **more):
            n = digital.shape[1]
            wfdb.wrsamp(name, fs=250, units=["mV"] * n, sig_name=list(lead_names), d_signal=digital, fmt=[fmt] * n,
                        adc_gain=[200.0] * n, baseline=[0] * n, write_dir=str(folder), **more)

        def take(title, record, extension=None):
            bases[title] = record, extension, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            for path in folder.iterdir():
                path.unlink()

        def header_of(name, fmt, values):
            sums = [f"{name}.dat {fmt} 200 12 0 {first} {total % 65536} 0 {lead}" for first, total, lead in
                    zip(values[0], values.sum(axis=0), ("I", "II", "V1"), strict=True)]
            (folder / f"{name}.hea").write_text("\n".join([f"{name} 3 250 {len(values)}", *sums, "# Age: 50"]) + "\n")

        for fmt in ("16", "24", "32", "80", "212", "508", "516", "524"):
            write("a", fmt=fmt)
            take(f"format {fmt}", "a")
        for fmt in ("61", "160", "310", "311", "8"):
            header_of("a", fmt, walk)
            (folder / "a.dat").write_bytes(pack(walk, fmt))
            take(f"format {fmt}", "a")
        write("a")
        notes = b"## time resolution: 500", b"## annotation type definitions", b"42 z something", b"## end of definitions"
        (folder / "a.atr").write_bytes(b"".join((
            *(word(22, 0) + aux(note) for note in notes), word(59, 0), b"\xff" * 4, word(0, 1), word(1, 10), word(42, 80),
            aux(b"odd"), word(59, 0), bytes(2), word(0, 310), word(28, 0), aux(b"(AFIB"), word(0, 0),
        )))
        take("annotations with definitions", "a", "atr")
        write("one"), write("two", walk[:200])
        (folder / "all.hea").write_text("all/4 3 250 902\none 401\ntwo 200\n~ 101\ntwo 200\n")
        wfdb.wrann("all", "atr", np.array([5, 700]), ["N", "V"], write_dir=str(folder))
        take("segments, fixed layout", "all", "atr")
        write("one", walk[:, :2], lead_names=("I", "II")), write("two", walk[:200, :1], fmt="212", lead_names=("V1",))
        (folder / "lay.hea").write_text("lay 3 250 0\n~ 0 200 12 0 0 0 0 I\n~ 0 200 12 0 0 0 0 II\n~ 0 200 12 0 0 0 0 V1\n")
        (folder / "all.hea").write_text("all/4 3 250 651\nlay 0\none 401\n~ 50\ntwo 200\n")
        take("segments, variable layout", "all")
    return bases


def word(code, value):
    """Two bytes of an annotation file."""
    return (code << 10 | value).to_bytes(2, "little")


def aux(note):
    """A note in an annotation file."""
    return word(63, len(note)) + note + bytes(len(note) % 2)


def pack(walk, fmt):
    """ADC values in storage formats that wfdb does not write."""
    flat = walk.ravel()
    if fmt == "61":
        return flat.astype(">i2").tobytes()
    if fmt == "160":
        return (flat + 2**15).astype("<u2").tobytes()
    if fmt == "8":  # differences; the first is from the initial value
        return np.diff(walk, axis=0, prepend=walk[:1]).astype("i1").tobytes()
    a, b, c = (np.append(flat, np.zeros(-len(flat) % 3, int)).reshape(-1, 3) & 0x3FF).T.astype("<u4")
    if fmt == "311":
        return (a | b << 10 | c << 20).astype("<u4").tobytes()
    low, high = a << 1 | (c & 31) << 11, b << 1 | (c >> 5) << 11
    return (low | high << 16).astype("<u4").tobytes()


# --- damage

NASTY = (
    "0", "-1", "1", "2147483648", "99999999999999", "9" * 25, "9" * 5000, "1e999", "nan", "inf", "-0", "0x10", "1e-320",
    "../secret", "/etc/passwd", "..", ".", "~", "s3://bucket/a", "a::b", "C:\\a", "*", "\u0663\u0664", "\u00b5",
    "\U0001f493", "a" * 300, "\x00", "", "16x1000000000", "212:999999999", "16+99999999", "516", "8", "0", "1e-300",
    "200(99999999999)/mV", "200/uV", "#", "a/2", "a/1000000", "1/2/3", "250/0.03(5)",
)
NOTES = ("## ", "## time resolution: 0", "## time resolution: 1" + "0" * 200, "## time resolution: 360",
         "## annotation type definitions", "## annotation type definitions\x00", "## end of definitions", "## 42 z x", "x")


def damage_text(text, rng):
    """One change of a header."""
    lines = text.split("\n")
    i, j = rng.integers(len(lines), size=2)
    kind = rng.integers(10)
    if kind < 4:
        tokens = lines[i].split(" ")
        tokens[rng.integers(len(tokens))] = NASTY[rng.integers(len(NASTY))]
        lines[i] = " ".join(tokens)
    elif kind == 4:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 5:
        lines.insert(j, lines[i])
    elif kind == 6:
        del lines[i]
    elif kind == 7:
        tokens = lines[i].split(" ")
        del tokens[rng.integers(len(tokens))]
        lines[i] = " ".join(tokens)
    elif kind == 8:  # another digit somewhere
        digits = [k for k, letter in enumerate(text) if letter.isdigit()] or [0]
        k = digits[rng.integers(len(digits))]
        return text[:k] + str(rng.integers(10)) + text[k + 1:]
    else:
        lines[i:i] = [lines[i]] * int(rng.choice([100, 2000, 40_000]))
    return "\n".join(lines)


def damage_bytes(content, rng):
    """One change of any file."""
    content = bytearray(content)
    near = rng.random() < 0.3  # where headers of binary formats are
    at = int(rng.integers(min(len(content), 48) if near else len(content))) if content else 0
    n = int(rng.choice([1, 2, 3, 17, 500]))
    kind = rng.integers(8)
    if kind < 2 and content:
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        content[at:at + n] = rng.bytes(len(content[at:at + n]))
    elif kind == 3:
        del content[at:]
    elif kind == 4:
        del content[at:at + n]
    elif kind == 5:
        content[at:at] = rng.bytes(n)
    elif kind == 6:
        content[at:at] = content[at // 2:at // 2 + n]
    else:
        content += bytes(n) if rng.random() < 0.5 else rng.bytes(n)
    return bytes(content)


def damage_words(content, rng):
    """One change of an annotation file, in its own terms."""
    words = [content[i:i + 2] for i in range(0, len(content), 2)]
    at = int(rng.integers(min(len(words), 12) if rng.random() < 0.5 else len(words)))
    kind = rng.integers(4)
    if kind == 0:  # a code, or a field
        words[at] = word(int(rng.integers(64)), int(rng.choice([0, 1, 22, 255, 256, 1023])))
    elif kind == 1:  # an interval
        words[at:at] = [word(59, 0), rng.bytes(2), rng.bytes(2)]
    elif kind == 2:  # a note, on an annotation at the start or anywhere
        note = NOTES[rng.integers(len(NOTES))].encode("latin-1")[:255]
        words[at % 8:at % 8] = [word(22, 0) if rng.random() < 0.7 else b"", aux(note)]
    else:
        words[at:at] = [bytes(2)]
    return b"".join(words)


def damaged(bases, seed, case):
    """(name of the base, damaged file, files) of one case."""
    rng = np.random.default_rng([seed, case])
    name = sorted(bases)[rng.integers(len(bases))]
    files = dict(bases[name][2])
    kinds = {}
    for file in files:
        suffix = Path(file).suffix
        kinds.setdefault({".hea": "header", ".dat": "signal", ".mat": "signal"}.get(suffix, "annotations"), []).append(file)
    kind = sorted(kinds)[rng.integers(len(kinds))]
    file = kinds[kind][rng.integers(len(kinds[kind]))]
    content = files[file]
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        own = {"header": damage_text, "annotations": damage_words}.get(kind)
        if own is None or rng.random() < 0.4 or not content:
            content = damage_bytes(content, rng)
        elif kind == "header":
            content = own(content.decode("utf-8", "surrogateescape"), rng).encode("utf-8", "surrogateescape")
        else:
            content = own(content, rng)
    files[file] = content
    if rng.random() < 0.01:
        del files[file]
    return name, kind, file, files


# --- watchdog


def read_base(folder, record, extension, files):
    """What the library makes of the files of a base, as comparable parts."""
    if not any(file.endswith((".dat", ".mat")) for file in files):
        notes = read_annotations(folder / record, extension)
        return {"annotations": [notes.sample, notes.symbol, notes.aux_note], "meaning": [notes.fs]}
    found = read_record(folder / record, annotations=extension, comments=True)
    notes = found.annotations
    return {
        "signal": [found.signal],
        "annotations": [] if notes is None else [notes.sample, notes.symbol, notes.aux_note],
        "meaning": [found.fs, found.lead_names, found.units, found.comments],
    }


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else np.array_equal(x, y)
        for x, y in zip(a, b, strict=True)
    )


def outcome_of(folder, bases, expected, seed, case):
    """One word on what became of a case, and details."""
    name, kind, file, files = damaged(bases, seed, case)
    record, extension, original = bases[name]
    for other, content in files.items():
        (folder / other).write_bytes(content)
    try:
        found = read_base(folder, record, extension, original)
    except ECGFormatError as error:
        if not (error.file and Path(error.file).parent == folder and str(error)):
            return kind, "failure", f"{name}, {file}: ECGFormatError without its file"
        return kind, "ECGFormatError", "file" + ", line" * (error.line is not None) + ", field" * (error.field is not None)
    except FileNotFoundError:
        missing = file not in files and file.endswith((f"{record}.hea", f".{extension}"))
        return kind, "FileNotFoundError" if missing else "failure", f"{name}, {file}: FileNotFoundError"
    except BaseException as error:
        return kind, "failure", f"{name}, {file}: {type(error).__name__}: {str(error)[:200]}"
    finally:
        for other in files:
            (folder / other).unlink()
    changed = [part for part in found if not same(found[part], expected[name][part])]
    return kind, "read, other " + " and ".join(changed) if changed else "read, the same", f"{name}, {file}"


def child(pipe, bases, seed):
    """Reads the cases that the parent names, one by one."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="Lead\\(s\\) .* which is not a voltage", category=UserWarning)
    outside = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(os.path.realpath(folder))
        expected = {}
        for name, (record, extension, files) in bases.items():
            for other, content in files.items():
                (folder / other).write_bytes(content)
            expected[name] = read_base(folder, record, extension, files)
            for other in files:
                (folder / other).unlink()

        def hook(event, arguments):
            if event == "open" and isinstance(arguments[0], (str, bytes)):
                path = os.path.realpath(os.fsdecode(arguments[0]))
                if os.path.dirname(path) != str(folder):
                    outside.append(path)
            elif event.startswith("socket.") or event in ("os.system", "subprocess.Popen"):
                outside.append(event)

        pipe.send(None)
        sys.addaudithook(hook)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 2**19
        outside.clear()
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        while (case := pipe.recv()) is not None:
            started = time.process_time()
            found = outcome_of(folder, bases, expected, seed, case)
            seconds = time.process_time() - started
            if outside:
                found = found[0], "failure", f"{found[2]}: opened {outside}"
                outside.clear()
            pipe.send((*found, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))


def process_seconds(pid):
    """Seconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(pipe, pid):
    """Whether a child answers before it has computed, or slept, for too long."""
    used, started = process_seconds(pid), time.perf_counter()
    while not pipe.poll(TIMEOUT):
        if process_seconds(pid) - used >= TIMEOUT or time.perf_counter() - started > 10 * TIMEOUT:
            return False
    return True


def fuzz(bases, cases, seed=0, report=None):
    """Outcomes by kind of file, failures, seconds and number of the slowest case, MiB and number of that at the peak."""
    context = multiprocessing.get_context("spawn")
    outcomes, failures, slowest, peak, process = Counter(), [], (0.0, None), (0.0, None), None
    for case in cases:
        if process is None:
            pipe, end = context.Pipe()
            process = context.Process(target=child, args=(end, bases, seed), daemon=True)
            process.start()
            end.close()
            pipe.recv()
        pipe.send(case)
        kind, outcome, detail, seconds, held = None, "hang", "", TIMEOUT, 0
        try:
            if answers(pipe, process.pid):
                kind, outcome, detail, seconds, held = pipe.recv()
        except EOFError:
            outcome, detail = "crash", f"exit code {process.exitcode}"
        slowest = max(slowest, (round(seconds, 2), case), key=lambda pair: pair[0])
        peak = max(peak, (round(held), case), key=lambda pair: pair[0])
        if outcome in ("hang", "crash"):
            kind, detail = damaged(bases, seed, case)[1], f"{damaged(bases, seed, case)[0]} {detail}"
            process.kill()
            process.join()
            process = None
        if outcome in ("hang", "crash", "failure"):
            failures.append(f"case {case}: {outcome}, {detail}")
        outcomes[kind, outcome] += 1
        if report:
            report(case, kind, outcome, detail)
    if process is not None:
        pipe.send(None)
        process.join()
    return outcomes, failures, slowest, peak


def fuzz_part(bases, n_cases, seed):
    started, fields, differ = time.perf_counter(), Counter(), Counter()

    def report(case, kind, outcome, detail):
        if outcome == "ECGFormatError":
            fields[detail] += 1
        if kind == "signal" and outcome.startswith("read, other"):
            differ[detail.split(",")[0]] += 1
        if (case + 1) % 1000 == 0:
            print(f"{case + 1} cases, {time.perf_counter() - started:.0f} s", flush=True)

    outcomes, failures, slowest, peak = fuzz(bases, range(n_cases), seed, report)
    table = {}
    for (kind, outcome), count in sorted(outcomes.items()):
        table.setdefault(kind, {})[outcome] = count
    for failure in failures:
        print(failure)
    return {
        "cases": n_cases, "seed": seed, "outcomes": table, "what ECGFormatError names": dict(fields),
        "damaged signal files read with other values": dict(differ),
        "failures": failures, "seconds of computing, and number of the slowest case": slowest,
        "MiB resident at the peak, and number of the case": peak,
    }


# --- speed


def walk_through(X, batch_size=64):
    """Every window of a memmap in turn, copied into a batch."""
    batch = np.empty((batch_size, *X.shape[1:]), X.dtype)
    for start in range(0, len(X), batch_size):
        rows = X[start:start + batch_size]
        batch[:len(rows)] = rows


def compare(paths, n_rounds, out):
    """How many times as fast as bare wfdb: reading, cutting into windows, and going through these again."""
    import wfdb

    stems = [str(path.with_suffix("")) for path in paths]
    windows, _, _ = make_windows(read_records(paths), 10.0, out=out / "X.npy")
    numbers = itertools.count()
    functions = {
        "bare wfdb": lambda: [wfdb.rdrecord(stem) and None for stem in stems],
        "read_records": lambda: [record and None for record in read_records(paths)],
        # under a new name each time: an old one would be read again
        "make_windows to disk": lambda: make_windows(read_records(paths), 10.0, out=out / f"first{next(numbers)}.npy"),
        "second pass, windows on disk": lambda: [walk_through(windows) for _ in range(N_PASSES)],
    }
    seconds = {name: [] for name in functions}
    for i in range(n_rounds + 1):
        for name, function in functions.items():
            started = time.process_time()  # other programs share the machine; the files are in memory
            function()
            if i:
                seconds[name].append((time.process_time() - started) / (N_PASSES if name.startswith("second") else 1))
    bare = seconds.pop("bare wfdb")
    result = {"records": len(paths), "bare wfdb, ms per record": round(1e3 * float(np.median(bare)) / len(paths), 2)}
    for name, own in seconds.items():
        pairs = [a / b for a, b in zip(bare, own, strict=True)]
        result[f"{name}, times as fast"] = {
            "ratio_of_medians": round(float(np.median(bare) / np.median(own)), 2),
            "range_of_rounds": [round(min(pairs), 2), round(max(pairs), 2)],
        }
    return result


def speed_part(folder, n_rounds):
    databases = {
        "mitdb, 360 Hz, 2 leads, 30 min": sorted((folder / "mitdb").glob("*.hea"))[:8],
        "ptbxl, 100 Hz, 12 leads, 10 s": sorted((folder / "ptbxl/records100").rglob("*.hea"))[:200],
        "ptbxl, 500 Hz, 12 leads, 10 s": sorted((folder / "ptbxl/records500").rglob("*.hea"))[:200],
        "cinc2021, 500 Hz, 12 leads, 10 s": sorted((folder / "cinc2021").rglob("*.hea")),
    }
    results = {}
    for name, paths in databases.items():
        with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of wfdb, about what it calls in pandas
            results[name] = compare(paths, n_rounds, Path(out))
        print(name, results[name], flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "records.json")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    if args.rounds:
        results["speed"] = {"rounds": args.rounds, **speed_part(args.folder, args.rounds), "machine": machine()}
    if args.cases:
        bases = real_bases(args.folder) | written_bases()
        results["damaged files"] = {**fuzz_part(bases, args.cases, args.seed), "machine": machine()}
    write_json(args.output, results)
    return 1 if args.cases and results["damaged files"]["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
