"""How often check_ecg alarms on real recordings as they are, and how often it finds faults put into them.

    python benchmarks/quality.py FOLDER [--output FILE]

FOLDER holds any of mitdb, ptbxl, ptbxl_bp100, ecgid and cinc2021, each in its original layout. Rates come with counts
and 95 % Wilson intervals, apart for two halves of the patients ("a" and "b"; PTB-XL: odd and even folds). The limits are
round numbers that were set in view of the distributions of all these recordings: the halves tell how stable the rates
are, and neither is an untouched test set.
"""

import argparse
import csv
import time
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
from _common import machine, write_json

from skecg.datasets import fetch_mitdb, fetch_ptbxl, read_records
from skecg.preprocessing import BandpassFilter, LeadScaler, make_beats, make_windows
from skecg.preprocessing._quality import FAULTS, check_ecg

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LIMB = LEADS[:6]
# Alarms on recordings as they are that a look at the signal confirmed: (set, sample, fault).
CONFIRMED = {
    ("ptbxl_bp100", 1830, "flat"): "V6 is constant for the last 7 s",
    ("ptbxl_bp100", 1175, "mislabelled"): "lead I holds noise and no beat",
    ("cinc2021", 10, "duplicate"): "E07510 repeats the samples of E07509",
    ("ecgid", 375, "fs"): "second half of the raw record is off the scale, then noise of 150 mV",
}


def wilson(k, n):
    """Rate with counts and 95 % interval."""
    if n == 0:
        return None
    z, p = 1.959964, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    interval = [round(max(0.0, float(centre - half)), 4), round(min(1.0, float(centre + half)), 4)]
    return {"rate": round(p, 4), "k": int(k), "n": int(n), "interval": interval}


def load(folder):
    """Each set: signals, fs, leads, half (bool: held out) and subject."""
    sets = {}
    if (folder / "ptbxl").is_dir():
        for fs in (100, 500):
            data = fetch_ptbxl(folder / "ptbxl", fs=fs, download_if_missing=False)
            X, _, folds = make_windows(data, 10.0, groups=data.folds)
            sets[f"ptbxl_{fs}"] = X, fs, LEADS, folds % 2 == 0, data.patient_id
    if (folder / "ptbxl_bp100").is_dir():
        rows = list(csv.DictReader(open(folder / "ptbxl_bp100" / "labels.csv", encoding="utf-8")))
        records = read_records([folder / "ptbxl_bp100" / row["filename"] for row in rows])
        folds, patients = (np.array([int(float(row[key])) for row in rows]) for key in ("strat_fold", "patient_id"))
        sets["ptbxl_bp100"] = np.stack([record.signal for record in records]), 100, LEADS, folds % 2 == 0, patients
    if (folder / "cinc2021").is_dir():
        records = read_records(folder / "cinc2021")
        X = np.stack([record.signal[:, :5000] for record in records])
        sets["cinc2021"] = X, 500, LEADS, np.arange(len(X)) % 2 == 1, np.arange(len(X))
    if (folder / "mitdb").is_dir():
        data = fetch_mitdb(folder / "mitdb", download_if_missing=False)
        X, _, patients = make_windows(data, 10.0, lead_names=["MLII"])
        patients = np.unique(patients, return_inverse=True)[1]
        sets["mitdb_MLII"] = X, 360, ("MLII",), patients % 2 == 1, patients
        two = [(np.stack(np.split(r.signal[:, :648000], 180, axis=1)), i) for i, r in enumerate(data.records)]
        X, patients = np.concatenate([x for x, _ in two]), np.repeat([i for _, i in two], 180)
        sets["mitdb"] = X, 360, ("lead0", "lead1"), patients % 2 == 1, patients
    if (folder / "ecgid").is_dir():
        rows = list(csv.DictReader(open(folder / "ecgid" / "records.csv", encoding="utf-8")))
        records = [record.signal for record in read_records([folder / "ecgid" / row["record"] for row in rows])]
        persons = np.unique([row["person"] for row in rows], return_inverse=True)[1]
        for lead, name in enumerate(("ecgid", "ecgid_filtered")):
            X = np.concatenate([np.stack(np.split(r[[lead]], 2, axis=1)) for r in records])
            sets[name] = X, 500, ("I",), np.repeat(persons, 2) % 2 == 1, np.repeat(persons, 2)
    return sets


def false_alarms(X, fs, leads, held_out, name):
    """Samples with each fault, as recorded."""
    report = check_ecg(X, fs=fs, lead_names=leads)
    counts, confirmed = {}, []
    for fault in FAULTS:
        found = report.mask[fault].any(axis=1)
        for i in np.flatnonzero(found):
            at_converter_limit = fault == "saturated" and name in ("mitdb", "mitdb_MLII", "mitdb_quarter")
            if (name, int(i), fault) in CONFIRMED or at_converter_limit:
                reason = CONFIRMED.get((name, int(i), fault), "at the converter's limit of 5.12 mV")
                confirmed.append({"sample": int(i), "fault": fault, "why": reason})
                found[i] = False
        counts[fault] = {half: wilson(found[rows].sum(), rows.sum())
                         for half, rows in (("a", ~held_out), ("b", held_out))}
        counts[fault]["samples"] = np.flatnonzero(found).tolist()[:20]
    whole = [issue.message for issue in report.issues if issue.sample is None]
    return {"fs": fs, "leads": len(leads), "faults": counts, "confirmed": confirmed, "whole_set": whole}


def injections(X, fs, leads, rng):
    """Triples (fault, severity, faulty signals, expected leads per sample or None, fs to declare)."""
    n, n_leads, n_times = X.shape
    rows, lead = np.arange(n), rng.integers(n_leads, size=n)
    one = [(leads[j],) for j in lead]

    def changed(change):
        Y = X.copy()
        for i in rows:
            Y[i, lead[i]] = change(Y[i, lead[i]].astype(float))
        return Y

    def piece(x, seconds, fill):
        length = min(n_times, round(seconds * fs))
        start = rng.integers(n_times - length + 1)
        x[start:start + length] = fill(x[start:start + length])
        return x

    for seconds in (0.01, 0.1, 1.0):
        yield "gap", f"{seconds} s", changed(lambda x, s=seconds: piece(x, s, lambda part: np.nan)), one, fs
    for seconds in (1.1, 2.0, 5.0, 10.0):
        yield "flat", f"{seconds} s", changed(lambda x, s=seconds: piece(x, s, lambda part: part[0])), one, fs
    yield "flat", "5 s, 1 unit of 5 uV toggling", changed(
        lambda x: piece(x, 5.0, lambda part: part[0] + 0.005 * rng.integers(2, size=len(part)))), one, fs
    for share in (0.9, 0.8, 0.7, 0.5, 0.3):
        def clip(x, share=share):
            middle = np.median(x)
            limit = share * np.abs(x - middle).max()
            return np.clip(x, middle - limit, middle + limit)
        yield "saturated", f"at {share:.0%} of the peak", changed(clip), one, fs
    for factor, name in ((1000, "microvolt"), (200, "counts, 200 per mV"), (100, "counts, 100 per mV"), (0.001, "volt")):
        yield "unit", name, X * np.float32(factor), None, fs
    for factor in (5, 2.5, 2, 1.39, 0.72, 0.5, 0.4, 0.2):
        yield "fs", f"declared {factor:g} times too high", X, None, fs * factor
    copies = rng.integers(n, size=max(1, n // 4))
    for name, Y in (("exact", X[copies]), ("times 1.5 plus 0.2", X[copies] * np.float32(1.5) + np.float32(0.2))):
        yield "duplicate", name, np.concatenate([X, Y]), (np.arange(n + len(copies)) >= n), fs
    if n_leads > 1:
        other = (lead + rng.integers(1, n_leads, size=n)) % n_leads
        step = np.float32(0.005)
        for name, copy in (("exact", lambda x: x), ("half the gain, plus 0.3", lambda x: x / 2 + np.float32(0.3)),
                           ("rounded to 5 uV", lambda x: (x / step).round() * step)):
            Y = X.copy()
            Y[rows, other] = copy(X[rows, lead])
            pair = [tuple(leads[j] for j in sorted(p)) for p in zip(lead, other, strict=True)]
            yield "repeated_lead", name, Y, pair, fs
    limb = [j for j, name in enumerate(leads) if name in LIMB]
    if len(limb) >= 3:
        pairs = list(combinations(limb, 2))
        chosen = [pairs[k] for k in rng.integers(len(pairs), size=n)]
        Y = X.copy()
        for i, (a, b) in enumerate(chosen):
            Y[i, [a, b]] = X[i, [b, a]]
        yield "swapped", "two limb leads", Y, [(leads[a], leads[b]) for a, b in chosen], fs
        lead = np.array(limb)[rng.integers(len(limb), size=n)]
        one = [(leads[j],) for j in lead]
        yield "inverted", "one limb lead", changed(lambda x: -x), one, fs
        for factor in (0.5, 0.9, 1.1, 2.0):
            yield "gain", f"one limb lead, {factor}", changed(lambda x, f=factor: f * x), one, fs
        if n_leads == 12:
            Y = X.copy()
            Y[rows, lead] = X[rows, 8]
            yield "mislabelled", "V3 in place of a limb lead", Y, one, fs
            Y = X.copy()
            Y[:, [0, 1, 2, 3, 4, 5]] = X[:, [0, 2, 1, 4, 3, 5]]
            Y[:, 0] *= -1
            yield "reversed_arms", "arm electrodes exchanged", Y, None, fs


def hits(X, fs, leads, rng, kind):
    """Found: the fault is reported for the sample. Named: with exactly the leads that were changed."""
    results = []
    for fault, severity, Y, expected, declared in injections(X, fs, leads, rng):
        of_limb = fault in ("swapped", "inverted", "gain", "mislabelled")
        if (kind in ("limb", "three") and not of_limb) or (kind == "one" and fault in ("gap", "duplicate")):
            continue
        report = check_ecg(Y, fs=declared, lead_names=leads)
        found, named = np.zeros(len(Y), bool), np.zeros(len(Y), bool)
        any_limb = np.zeros(len(Y), bool)
        for issue in report.issues:
            if issue.sample is None:
                continue
            any_limb[issue.sample] |= issue.fault in ("swapped", "inverted", "gain", "mislabelled")
            if issue.fault == fault:
                found[issue.sample] = True
                if expected is not None and fault != "duplicate":
                    named[issue.sample] |= set(issue.leads) == set(expected[issue.sample])
        entry = {"fault": fault, "severity": severity, "found": wilson(found.sum(), len(Y))}
        if fault == "duplicate":
            entry["found"] = wilson(found[expected].sum(), expected.sum())
        elif expected is not None:
            entry["named"] = wilson(named.sum(), len(Y))
        if of_limb:
            entry["any_limb_fault"] = wilson(any_limb.sum(), len(Y))
        if fault == "fs":
            entry["whole_set"] = [issue.message for issue in report.issues if issue.sample is None]
        results.append(entry)
    return results


def whole_sets(sets):
    """The sampling rate judged on 30 samples together: 10 random sets of each database, one of each mitdb record."""
    results = []
    for factor in (1, 2, 1.39, 0.72, 0.5):
        for name, (X, fs, leads, _, subjects) in sets.items():
            if len(X) < 100 or name == "mitdb_MLII":
                continue
            rng = np.random.default_rng(1)
            chosen = ([np.flatnonzero(subjects == s)[::6] for s in np.unique(subjects)] if name == "mitdb"
                      else [rng.choice(len(X), 30, replace=False) for _ in range(10)])
            alarms = 0
            for rows in chosen:
                issues = check_ecg(X[rows], fs=fs * factor, lead_names=leads).issues
                alarms += any(issue.sample is None for issue in issues)
            results.append({"set": name, "declared_times": factor, "alarms": wilson(alarms, len(chosen))})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "quality.json")
    parser.add_argument("--samples", type=int, default=100, help="recordings per set that faults are put into")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # partial copies of databases
    sets = load(args.folder)
    results = {"machine": machine(), "samples": args.samples, "time": {}, "false_alarms": {}, "hits": {}}
    for name, (X, fs, leads, held_out, _) in sets.items():
        start = time.perf_counter()
        results["false_alarms"][name] = false_alarms(X, fs, leads, held_out, name)
        results["time"][name] = {"shape": X.shape, "seconds": round(time.perf_counter() - start, 2)}
        variants = {}
        if len(leads) == 12:
            variants = {f"{name}, {len(part)} leads ({', '.join(part)})": (X[:, [leads.index(lead) for lead in part]], part)
                        for part in (LIMB, ("I", "II", "III"), ("I", "II"), ("II",), ("V1",))}
        if name in ("ptbxl_100", "ptbxl_500", "mitdb"):
            few = slice(None, None, 4 if name == "mitdb" else 1)
            filtered = BandpassFilter(0.5, 40.0, fs=fs).fit_transform(X[few])
            derived = {"0.5 to 40 Hz": filtered}
            for scope in ("dataset", "record", "lead"):
                derived[f"scaled by {scope}"] = LeadScaler(scope=scope).fit_transform(X[few])
            variants |= {f"{name}, {what}": (Y, leads) for what, Y in derived.items()}
        if len(leads) == 12 and name != "cinc2021":
            for seconds in (1, 2.5):
                variants[f"{name}, first {seconds} s"] = X[:, :, :round(seconds * fs)], leads
        for label, (Y, part) in variants.items():
            half = held_out if len(Y) == len(X) else held_out[::4]
            results["false_alarms"][label] = false_alarms(Y, fs, part, half, name if len(Y) == len(X) else f"{name}_quarter")
        print(name, *results["time"][name].values(), flush=True)
    if (args.folder / "mitdb").is_dir():
        X, _, groups = make_beats(fetch_mitdb(args.folder / "mitdb", download_if_missing=False))
        half = np.unique(groups, return_inverse=True)[1][::10] % 2 == 1
        results["false_alarms"]["mitdb, beats of 0.7 s"] = false_alarms(X[::10], 360, ("MLII",), half, None)
    for name, (X, fs, leads, held_out, _) in sets.items():
        rows = np.flatnonzero(held_out)
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(rows, min(args.samples, len(rows)), replace=False))
        parts = {"all": leads}
        if len(leads) == 12:
            parts |= {"limb": ("I", "II", "III", "aVR"), "three": ("I", "II", "III"), "one": ("II",)}
        for kind, part in parts.items():
            Y = X[rows][:, [leads.index(lead) for lead in part]]
            results["hits"][f"{name}, {len(part)} leads"] = hits(Y, fs, part, np.random.default_rng(0), kind)
            print(name, len(part), flush=True)
    results["whole_sets"] = whole_sets(sets)
    write_json(args.output, results)


if __name__ == "__main__":
    main()
