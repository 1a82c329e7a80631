"""Damaged and malicious model files: `skecg.load` refuses them, executes nothing, and takes little memory.

    python benchmarks/reliability/model_files.py [--cases 10000] [--cache FILE]

Each case takes the directory that `skecg.save` wrote for one of the small models of `_zoo.py` and changes it as the seed
and its number say. Damage (flipped bits, lost, doubled or exchanged pieces, truncation, missing and exchanged files) leaves
the sums as they are. Forgery recomputes them: foreign classes, lying shapes, sizes and offsets, endless nesting, bombs of
small values, paths, links, networks of other sizes. Every one of these is wrong, so that the only right answer is
ValueError (FileNotFoundError where the directory itself is gone).

A child process loads a few hundred cases one after the other, with everything imported beforehand. It reports every
audit event of executing, compiling, importing, opening for writing or elsewhere, of processes, sockets and pickles; and
the growth of its peak resident memory (VmHWM, reset before each case, freed memory given back), which must stay below
twice the size of the files plus 16 MiB. It is killed after 20 s.

Three cases more, of a network of 64 MiB, are refused as late as can be: after all of it was read.

`--free N` cases more replace random values in forged configs by others. Some of these are models of somebody's making
that nobody can tell from real ones, and load: they are counted apart, and held to the same limits.
"""

import argparse
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _zoo
from _common import machine, write_json
from _forgeries import damage, forge, free, links

import skecg
from skecg import persistence

N_PER_CHILD, SECONDS = 200, 20
ALLOWED_BYTES = 16 * 2**20
BASES = (
    "embedder-patches-joint", "embedder-frames", "embedder-tokens", "classifier-resnet-arcface", "whole-pipeline",
    "record-classifier", "thresholds", "quantizer",
)
EXECUTING = (
    "exec", "compile", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "subprocess.Popen", "pickle.find_class", "marshal.loads", "code.__new__", "ctypes.dlopen", "import", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree",
)


# --- loading under watch


def write_case(folder, bases, seed, case, is_free):
    """Write the directory of a case; the kind of the case, and the bytes of its files."""
    rng = np.random.default_rng([seed, case, is_free])
    files = bases[BASES[case % len(BASES)]]
    share = rng.random()
    if not is_free and share < 0.05:
        kind = links(folder, files, rng)
        return kind, sum(len(content) for content in files.values())
    changed, kind = free(files, rng) if is_free else damage(files, rng) if share < 0.5 else forge(files, rng)
    if changed == files:  # what was exchanged was equal
        changed = {**files, "config.json": files["config.json"] + b" "}
    folder.mkdir()
    for name, content in changed.items():
        (folder / name).write_bytes(content)
    return kind, sum(map(len, changed.values()))


def memory(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def child(pipe, bases, seed, cases, is_free):
    """Load the cases, and send an answer for each."""
    inside, events, watching = "", [], False

    def hook(event, arguments):
        if not watching:
            return
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            writes = arguments[1] and set(str(arguments[1])) & set("wax+")
            if writes or not os.fsdecode(arguments[0]).startswith(inside):
                events.append(f"open {arguments[:2]}")
        elif event.startswith(EXECUTING) or event.startswith("socket."):
            events.append(f"{event} {str(arguments)[:80]}")

    sys.addaudithook(hook)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda n: None)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name, files in bases.items():  # what a process needs once: pages of libraries, lines of sources
            path = Path(folder) / name
            path.mkdir()
            for file, content in files.items():
                (path / file).write_bytes(content)
            skecg.load(path)
        gc.collect()
        gc.freeze()  # collections between cases look at what the cases left only
        for case in cases:
            path = Path(folder) / "model"
            inside = str(path)
            kind, n_bytes = write_case(path, bases, seed, case, is_free)
            pipe.send((case, kind, None))
            events.clear()
            gc.collect()
            trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before, loaded, detail = memory("VmRSS"), None, ""
            watching, start = True, time.perf_counter()
            try:
                loaded = skecg.load(path)
                outcome = "loaded"
            except BaseException as error:
                outcome, detail = type(error).__name__, str(error)[:200]
            watching, seconds = False, time.perf_counter() - start
            growth = memory("VmHWM") - before
            del loaded
            pipe.send((case, kind, (outcome, detail, growth, n_bytes, seconds, list(events))))
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def run(bases, seed, n_cases, is_free, cache):
    """Answers of all cases, {case: (kind, outcome, detail, growth, n_bytes, seconds, events)}; the cache has those known."""
    answers = {int(case): tuple(answer) for case, answer in cache.get(f"{seed} {is_free}", {}).items()}
    context = multiprocessing.get_context("fork")
    todo = [case for case in range(n_cases) if case not in answers]
    while todo:
        mine, other = context.Pipe()
        process = context.Process(target=child, args=(other, bases, seed, todo[:N_PER_CHILD], is_free))
        process.start()
        other.close()
        current = None
        try:
            while mine.poll(SECONDS):
                case, kind, answer = mine.recv()
                current = None if answer else (case, kind)
                if answer:
                    answers[case] = (kind, *answer)
            outcome = "hang"
        except EOFError:
            outcome = "crash"
        process.kill()
        process.join()
        if current is not None:
            answers[current[0]] = (current[1], outcome, "", 0, 0, SECONDS, [])
        todo = [case for case in todo if case not in answers]
        cache[f"{seed} {is_free}"] = answers
        yield answers
    yield answers


def within(answer):
    """Whether a case kept to the memory that it may take."""
    return answer[3] <= 2 * answer[4] + ALLOWED_BYTES


def summary(answers):
    """Figures of a part."""
    counts, outcomes = Counter(), {}
    for kind, outcome, *_ in answers.values():
        counts[kind.split(":")[0]] += 1
        outcomes.setdefault(kind, Counter())[outcome] += 1
    worst = max(answers.values(), key=lambda a: a[3] - 2 * a[4])
    return {
        "cases": len(answers), "kinds": dict(sorted(counts.items())),
        "outcomes": dict(Counter(a[1] for a in answers.values())),
        "outcomes by kind": {kind: dict(found) for kind, found in sorted(outcomes.items())},
        "executed, imported, written or opened elsewhere": sum(bool(a[6]) for a in answers.values()),
        "above twice the files plus 16 MiB": sum(not within(a) for a in answers.values()),
        "largest growth beyond twice the files, MiB": round((worst[3] - 2 * worst[4]) / 2**20, 2),
        "largest growth, MiB": round(max(a[3] for a in answers.values()) / 2**20, 2),
        "slowest, s": round(max(a[5] for a in answers.values()), 2),
    }


def large_part():
    """Growth over size, of a large model that is refused at its last byte or value, {case: ratio}."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        X = _zoo.signals(4)[0]
        path = Path(folder) / "model"
        skecg.save(_zoo.scratch(_zoo.patches(embed_dim=768, depth=2, n_heads=12)).fit(X), path)
        n_bytes = sum(file.stat().st_size for file in path.iterdir())
        config = json.loads((path / "config.json").read_text())
        del config["sha256"]
        ratios = {"size, MiB": round(n_bytes / 2**20, 1)}
        for case in ("wrong value after the network", "network in the other byte order", "last bit"):
            changed = json.loads(json.dumps(config))
            state = changed["estimator"]["estimator"]["state"]
            if case.startswith("network"):
                for node in state["network_"]["dict"].values():
                    node["array"]["dtype"] = ">f4"
            elif case.startswith("wrong"):
                state["zzz"] = changed["estimator"]["estimator"]["state"]["encoder_"]
                changed["estimator"] = {"tuple": [changed["estimator"], {"exec": ""}]}
            (path / "config.json").write_bytes(persistence._sealed(changed))
            if case == "last bit":
                with open(path / "arrays.safetensors", "r+b") as stream:
                    stream.seek(-1, os.SEEK_END)
                    last = stream.read(1)[0]
                    stream.seek(-1, os.SEEK_END)
                    stream.write(bytes([last ^ 1]))
            mine, other = context.Pipe()
            process = context.Process(target=_growth, args=(other, path))
            process.start()
            growth = mine.recv()
            process.join()
            ratios[case] = round((growth - ALLOWED_BYTES) / n_bytes, 3)
    return {"growth less 16 MiB, over the size": ratios}


def _growth(pipe, path):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    try:
        skecg.load(path)
        pipe.send(np.inf)
    except ValueError:
        pipe.send(memory("VmHWM") - before)


def save_bases(folder):
    bases = {}
    for name in BASES:
        skecg.save(_zoo.fitted(name)[0], folder / name)
        bases[name] = {file.name: file.read_bytes() for file in (folder / name).iterdir()}
        skecg.load(folder / name)
    return bases


def import_everything():
    """All of scikit-learn and skecg, so that no case is charged with an import."""
    import sklearn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in (sklearn, skecg):
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                if not {"tests", "conftest", "externals"} & set(module.name.split(".")):
                    try:
                        importlib.import_module(module.name)
                    except ImportError:
                        continue


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--free", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="file in which answers are kept, to be continued")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reliability_model_files.json"))
    args = parser.parse_args()
    cache = json.loads(args.cache.read_text()) if args.cache and args.cache.exists() else {}
    import_everything()
    with tempfile.TemporaryDirectory() as folder:
        bases = save_bases(Path(folder))
    results = {"seed": args.seed, "large": large_part()}
    for part, n_cases, is_free in (("damaged and malicious", args.cases, False), ("values exchanged", args.free, True)):
        if not n_cases:
            continue
        answers = {}
        for answers in run(bases, args.seed, n_cases, is_free, cache):
            print(f"{part}: {len(answers)} of {n_cases}", flush=True)
            if args.cache:
                args.cache.write_text(json.dumps(cache))
        results[part] = summary(answers)
        for case, answer in sorted(answers.items()):
            refused = answer[1] in ("ValueError", "FileNotFoundError") or (is_free and answer[1] == "loaded")
            if not refused or not within(answer) or answer[6]:
                print("look at", case, answer)
    write_json(args.output, {**results, "machine": machine()})


if __name__ == "__main__":
    main()
