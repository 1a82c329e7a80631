"""The arrhythmias that the PhysioNet/CinC Challenge 2021 scores: from files to decisions per record.

    python benchmarks/arrhythmias.py                           simulated records of four sources
    python benchmarks/arrhythmias.py --records FOLDER          and PTB-XL statements: a folder as of ptbxl_bp100 below

Simulated: four sources that differ in classes, amplitude, noise and sampling rate are written as WFDB, read again, brought
to 100 Hz, cut into windows of 5 s, and classified per record; thresholds are tuned on training patients held out. Two ways
of testing, with as many folds: patients of all sources mixed, and one source left out.

Real: a folder with ``labels.csv`` (columns filename, patient_id, strat_fold, sub_class, form, rhythm: statements joined by
";") of records of 10 s at 100 Hz. Statements are mapped to scored classes where their definitions agree (STATEMENTS);
training on folds 1-7, thresholds on 8, test on 9.

Every finished fold is kept in ``--cache``: the same call goes on after a kill. Intervals (95 %) resample test patients.
"""

import argparse
import csv
import hashlib
import json
import time
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from _baselines import baseline
from _common import machine, write_json
from scipy.signal import resample_poly
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, MultilabelThresholdClassifier, RecordClassifier
from skecg._files import write_atomically
from skecg.datasets import cinc_targets, make_ecg_records, read_records, write_records
from skecg.encoders import ResNet1d
from skecg.heads import LinearHead
from skecg.metrics import bootstrap_weights, cinc_classes, resample_metric
from skecg.model_selection import MultilabelStratifiedGroupKFold
from skecg.preprocessing import BandpassFilter, LeadScaler

FS = 100
CLASSES = cinc_classes(2021)

# Classes of the simulator as scored classes. Sinus rhythm is annotated where it is the rhythm under a finding, too.
SIMULATED = {
    "normal": ("NSR",), "sinus bradycardia": ("SB",), "sinus tachycardia": ("STach",), "sinus arrhythmia": ("SA",),
    "atrial fibrillation": ("AF",), "atrial flutter": ("AFL",), "ventricular paced rhythm": ("PR",),
    "first-degree AV block": ("IAVB",), "left bundle branch block": ("LBBB", "NSR"),
    "right bundle branch block": ("RBBB", "NSR"), "left anterior fascicular block": ("LAnFB", "NSR"),
    "premature atrial contractions": ("PAC", "NSR"), "premature ventricular contractions": ("PVC", "NSR"),
}
# Sampling rate in Hz, factor on the amplitude, noise, mains in Hz, and the classes with their shares.
SOURCES = {
    "clinic": (500, 1.0, 1.0, 50, {
        "normal": 8, "sinus bradycardia": 2, "sinus tachycardia": 2, "sinus arrhythmia": 2, "atrial fibrillation": 2,
        "left bundle branch block": 2, "right bundle branch block": 2, "left anterior fascicular block": 3,
        "premature atrial contractions": 1, "first-degree AV block": 2,
    }),
    "screening": (250, 0.8, 1.5, 60, {
        "normal": 4, "sinus bradycardia": 8, "sinus tachycardia": 4, "sinus arrhythmia": 3, "atrial flutter": 1,
        "premature atrial contractions": 2, "first-degree AV block": 1, "atrial fibrillation": 1,
    }),
    "arrhythmia unit": (257, 1.3, 0.7, 50, {
        "normal": 1, "atrial fibrillation": 5, "atrial flutter": 4, "premature ventricular contractions": 5,
        "premature atrial contractions": 3, "ventricular paced rhythm": 3, "left bundle branch block": 1,
    }),
    "ward": (125, 1.0, 2.5, 50, {
        "normal": 3, "sinus tachycardia": 3, "atrial fibrillation": 3, "premature ventricular contractions": 3,
        "left bundle branch block": 2, "right bundle branch block": 3, "ventricular paced rhythm": 1,
        "left anterior fascicular block": 1, "first-degree AV block": 2,
    }),
}
# Statements of PTB-XL whose definition is that of a scored class. Left out, because a subclass joins it with others:
# LAFB (with LPFB), first-degree AV block (with higher degrees). Left out, because no scored class says the same: ILBBB, low
# or non-specific T waves and ST changes, abnormal QRS, voltage criteria, infarctions, hypertrophies, WPW, supraventricular
# tachycardias, bigeminy. Axis deviations and poor R wave progression are no statements of these columns.
STATEMENTS = {
    "SR": "NSR", "AFIB": "AF", "AFLT": "AFL", "SARRH": "SA", "SBRAD": "SB", "STACH": "STach", "PACE": "PR",  # rhythm
    "PVC": "PVC", "PAC": "PAC", "LPR": "LPR", "LNGQT": "LQT", "LVOLT": "LQRSV", "QWAVE": "QAb", "INVT": "TInv",  # form
    "TAB": "TAb", "NDT": "TAb",
    "CLBBB": "LBBB", "CRBBB": "RBBB", "IRBBB": "IRBBB", "IVCD": "NSIVCB",  # sub_class
}


# --------------------------------------------------------------------------------------------------------- data


def at_100_hz(record):
    if record.fs == FS:
        return replace(record, annotations=None)
    ratio = Fraction(FS) / Fraction(record.fs).limit_denominator(1000)
    signal = resample_poly(record.signal, ratio.numerator, ratio.denominator, axis=1).astype(np.float32)
    return replace(record, signal=signal, fs=float(FS), annotations=None)


def simulate(folder, n_records, seed):
    """Records of all sources, through files; their labels, patients and sources."""
    records, diagnoses, patients, sources = [], [], [], []
    for number, (source, (fs, amplitude, noise, mains, shares)) in enumerate(SOURCES.items()):
        data = make_ecg_records(
            n_records, n_patients=n_records // 2, classes=list(shares), weights=list(shares.values()), fs=fs, noise=noise,
            mains=mains, ages=(30, 90), electrode_shift=2.0, random_state=seed + number,
        )
        data.records = [replace(record, signal=amplitude * record.signal) for record in data.records]
        paths = write_records(folder / source.replace(" ", "_"), data, overwrite=True)
        records += [at_100_hz(record) for record in read_records(paths)]
        diagnoses += [SIMULATED[name] for name in data.target]
        patients += [f"{source} {patient}" for patient in data.patient_id]
        sources += [source] * n_records
    targets = cinc_targets(diagnoses)
    assert not targets.unscored
    return records, targets.target, np.array(patients), np.array(sources)


def load(folder):
    """Records of a table of statements, their labels, patients and folds, and the statements without a class."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a unit that is not a voltage
        records = list(read_records([folder / row["filename"] for row in rows]))
    statements = [
        {s for column in ("sub_class", "form", "rhythm") for s in row[column].split(";") if s} for row in rows
    ]
    targets = cinc_targets([[STATEMENTS.get(s, s) for s in own] for own in statements])
    unmapped = sorted(set().union(*statements) - set(STATEMENTS))
    assert set(targets.unscored) == set(unmapped)
    patients = np.array([row["patient_id"] for row in rows])
    return records, targets.target, patients, np.array([int(row["strat_fold"]) for row in rows]), targets.unscored


# --------------------------------------------------------------------------------------------------------- arms


def classifier(arm, settings):
    """A classifier of windows at 100 Hz."""
    if arm == "features":
        return baseline(FS, n_features=settings["n_features"], random_state=settings["seed"])
    training = {
        "max_epochs": settings["epochs"], "batch_size": 32, "learning_rate": 1e-3, "warmup": 0.2,
        "random_state": settings["seed"],
    }
    if arm == "scratch":
        embedder = ECGSelfSupervisedEmbedder(ResNet1d(), crop_size=250, max_epochs=0)
        network = ECGClassifier(embedder, LinearHead(dropout=0.3), lead_dropout=0.1, **training)
    else:
        from skecg.recipes import joint_spatiotemporal

        embedder = joint_spatiotemporal(size="small", fs=FS, max_epochs=settings["pretraining_epochs"])
        training["learning_rate"] = 5e-4
        network = ECGClassifier(embedder, head_epochs=5, lead_dropout=0.1, **training)
    return make_pipeline(BandpassFilter(0.5, 40.0, fs=FS), LeadScaler(), network)


def run(cache, kind, name, arm, settings, data, train, test, valid=None):
    """Probabilities, decisions and thresholds of one fold; from the cache where it is there."""
    records, y, patients = data[:3]
    rows = [] if valid is None else valid
    content = [y.tobytes(), patients.tobytes(), *(np.asarray(part, np.int64).tobytes() for part in (train, test, rows))]
    key = json.dumps([kind, arm, settings, SOURCES, *(hashlib.sha256(part).hexdigest() for part in content)])
    file = cache / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if file.exists():
        with np.load(file) as stored:
            return dict(stored)
    started = time.perf_counter()
    inner = RecordClassifier(classifier(arm, settings), length=5.0 if kind == "simulated" else None)
    model = MultilabelThresholdClassifier(inner, metric="cinc_2021", cv=0.25, random_state=settings["seed"])
    validation = {} if valid is None else {"X_val": [records[i] for i in valid], "y_val": y[valid]}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples", UserWarning)
        model.fit([records[i] for i in train], y[train], groups=patients[train], **validation)
    proba = model.predict_proba([records[i] for i in test])
    result = {
        "proba": proba, "predicted": proba > model.thresholds_, "thresholds": model.thresholds_,
        "unseen": np.array(~y[train].any(axis=0) & y[test].any(axis=0)), "seconds": np.array(time.perf_counter() - started),
    }
    write_atomically(file, lambda stream: np.savez_compressed(stream, **result))
    print(f"{kind}, {name}, {arm}: {result['seconds']:.0f} s", flush=True)
    return result


# --------------------------------------------------------------------------------------------------------- results


def score(folds, y, patients, n_resamples, seed):
    """Each metric: mean over folds, its interval over patients, the value of each fold, and the resamples."""
    weights = bootstrap_weights(patients, n_resamples=n_resamples, random_state=seed)
    out = {}
    for title, metric, what in (
        ("cinc_score", "cinc_2021", lambda fold: fold["predicted"]),
        ("cinc_score_at_0.5", "cinc_2021", lambda fold: fold["proba"] > 0.5),
        ("macro_f1", "f1", lambda fold: fold["predicted"]),
        ("macro_roc_auc", "roc_auc", lambda fold: fold["proba"]),
        ("exact_match", "accuracy", lambda fold: fold["predicted"]),
    ):
        values = [
            resample_metric(metric, y[test], what(fold), np.vstack([np.ones(len(test), int), weights[:, test]]))
            for test, fold in folds.values()
        ]
        mean = np.mean(values, axis=0)
        of_folds = {name: value[0] for name, value in zip(folds, values, strict=True)}
        out[title] = {"value": mean[0], "resamples": mean[1:], "folds": of_folds}
    return out


def report(results):
    """As JSON: values rounded, resamples as intervals."""
    return {
        title: {
            "value": round(float(found["value"]), 4), "interval": interval(found["resamples"]),
            "folds": {name: round(float(value), 4) for name, value in found["folds"].items()},
        }
        for title, found in results.items()
    }


def difference(results, others):
    """Paired: the same patients are drawn for both."""
    return {
        title: {"value": round(float(results[title]["value"] - others[title]["value"]), 4),
                "interval": interval(results[title]["resamples"] - others[title]["resamples"])} for title in results
    }


def interval(resamples):
    return [round(float(bound), 4) for bound in np.nanquantile(resamples, [0.025, 0.975])]


def counts(y):
    return {name: int(n) for name, n in zip(CLASSES.abbreviations, y.sum(axis=0), strict=True) if n}


def simulated(args, settings):
    data = simulate(args.cache / "records", args.n_records, args.seed)
    _, y, patients, sources = data
    mixed = MultilabelStratifiedGroupKFold(len(SOURCES), shuffle=True, random_state=args.seed)
    rows = np.zeros(len(y))
    schemes = {
        "patients of all sources mixed": {
            f"fold {i}": split for i, split in enumerate(mixed.split(rows, y, patients))},
        "one source left out": {
            sources[test[0]]: (train, test) for train, test in LeaveOneGroupOut().split(rows, y, groups=sources)},
    }
    found = {"records": len(y), "patients": len(np.unique(patients)), "classes": {
        source: counts(y[sources == source]) for source in SOURCES}}
    for arm in args.arms:
        results = {}
        for scheme, splits in schemes.items():
            folds = {
                name: (test, run(args.cache, "simulated", f"{scheme}, {name}", arm, settings, data, train, test))
                for name, (train, test) in splits.items()
            }
            results[scheme] = score(folds, y, patients, args.resamples, args.seed)
            found.setdefault(arm, {})[scheme] = report(results[scheme]) | {
                "classes_that_training_lacks": {
                    name: [CLASSES.abbreviations[i] for i in np.flatnonzero(fold["unseen"])]
                    for name, (_, fold) in folds.items()
                },
                "seconds": round(float(sum(fold["seconds"] for _, fold in folds.values())), 1),
            }
        mixed_result, left_out = results.values()
        found[arm]["left out minus mixed"] = difference(left_out, mixed_result)
    return found


def real(args, settings):
    *data, fold, unscored = load(args.records)
    _, y, patients = data
    train, valid, test = (np.flatnonzero(part) for part in (fold <= 7, fold == 8, fold == 9))
    found = {
        "folder": args.records.name, "records": {"train": len(train), "thresholds": len(valid), "test": len(test)},
        "classes": {"train": counts(y[train]), "test": counts(y[test])}, "statements_left_out": unscored,
    }
    results = {}
    for arm in args.arms:
        result = run(args.cache, "real", "folds", arm, settings, data, train, test, valid)
        results[arm] = score({"fold 9": (test, result)}, y, patients, args.resamples, args.seed)
        found[arm] = report(results[arm]) | {"seconds": round(float(result["seconds"]), 1), "thresholds": {
            CLASSES.abbreviations[i]: round(float(result["thresholds"][i]), 3) for i in np.flatnonzero(y.any(axis=0))}}
        for values in found[arm].values():
            if isinstance(values, dict):
                values.pop("folds", None)
    for arm in args.arms[1:]:
        found[f"{arm} minus {args.arms[0]}"] = difference(results[arm], results[args.arms[0]])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, help="folder of PTB-XL records with labels.csv")
    parser.add_argument("--arms", nargs="+", default=["features", "scratch"], choices=["features", "scratch", "joint"])
    parser.add_argument("--n-records", type=int, default=160, help="simulated records per source")
    parser.add_argument("--n-features", type=int, default=2016, help="random convolutions of the arm features")
    parser.add_argument("--epochs", type=int, default=12, help="of training with labels")
    parser.add_argument("--pretraining-epochs", type=int, default=100, help="of the arm joint")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("demo/arrhythmias"), help="where finished folds are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/arrhythmias.json")
    args = parser.parse_args()

    settings = {name: getattr(args, name) for name in ("n_features", "epochs", "pretraining_epochs", "seed")}
    results = {"command": "python benchmarks/arrhythmias.py" + (" --records FOLDER" if args.records else ""),
               "settings": {**settings, "n_records": args.n_records, "arms": args.arms, "resamples": args.resamples},
               "machine": machine(), "simulated": simulated(args, settings)}
    if args.records:
        results["real"] = real(args, settings)
    write_json(args.out, results)
    args.out.with_suffix(".md").write_text(table(results))
    print(table(results))


def table(results):
    """The main figures as Markdown."""
    metrics = {
        "cinc_score": "challenge score", "cinc_score_at_0.5": "challenge score, thresholds of 0.5",
        "macro_roc_auc": "macro AUROC", "macro_f1": "macro F1", "exact_match": "exact match",
    }
    lines = [f"| test, arm | {' | '.join(metrics.values())} |", "|---|" + "---|" * len(metrics)]
    rows = {
        f"simulated, {scheme}, {arm}": found
        for scheme in ("patients of all sources mixed", "one source left out", "left out minus mixed")
        for arm in results["settings"]["arms"] for found in [results["simulated"][arm][scheme]]
    }
    if "real" in results:
        rows |= {f"PTB-XL, fold 9, {arm}": results["real"][arm] for arm in results["settings"]["arms"]}
    for title, found in rows.items():
        cells = [f"{found[name]['value']:.3f} [{found[name]['interval'][0]:.3f}, {found[name]['interval'][1]:.3f}]"
                 for name in metrics]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
