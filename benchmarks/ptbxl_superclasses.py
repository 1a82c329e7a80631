"""PTB-XL superclasses with few labels: pretrained against from scratch, patients apart.

    python benchmarks/ptbxl_superclasses.py FOLDER

FOLDER holds ``labels.csv`` (columns filename, patient_id, strat_fold, NORM, MI, STTC, CD, HYP) and 12-lead records of 10 s
at 100 Hz, or PTB-XL itself. Folds are PTB-XL's. Pretraining sees the signals of folds 1-8 and no label. Heads and
networks train on the labels of a share of the patients of folds 1-7; learning rate, or C of the linear probe, is
chosen on fold 8 for each arm and share; fold 9 is scored once.

Arms:

- ``linear probe``: logistic regression on the frozen pretrained embedding
- ``fine-tuned``: the pretrained network, its head first and then end to end
- ``from scratch``: the same network from random initialisation, with the same training end to end
- ``ResNet1d``: the convolutional network from scratch, with the same number of epochs and updates

Intervals are 95 %, bootstrapped over the patients of fold 9; with several draws of labelled patients, a resample also
draws among the draws.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from _common import epochs_for, label_budget, machine, write_json
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import load_ptbxl, read_records
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.heads import LinearHead
from skecg.metrics import bootstrap_interval, macro_roc_auc
from skecg.objectives import MaskedReconstruction
from skecg.preprocessing import make_windows

CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
CROP = 250  # samples: 2.5 s
GRID = {
    "linear probe": (0.0003, 0.001, 0.003, 0.01, 0.1),  # C
    "fine-tuned": (3e-4, 1e-3),  # learning rate
    "from scratch": (3e-4, 1e-3),
    "ResNet1d": (1e-3, 3e-3),
}


def load(folder):
    """Signals, superclass indicator, patients, folds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # partial copies, and units that are not a voltage
        if (folder / "ptbxl_database.csv").exists():
            data = load_ptbxl(folder, fs=100)
            X, y, groups = make_windows(data, 10.0)
            return X, y, groups, make_windows(data, 10.0, groups=data.folds)[2]
        with open(folder / "labels.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        records = read_records([folder / row["filename"] for row in rows])
        X = np.stack([record.signal for record in records])
    return (X, np.array([[int(row[c]) for c in CLASSES] for row in rows]),
            np.array([row["patient_id"] for row in rows]), np.array([int(row["strat_fold"]) for row in rows]))


def encoder():
    return PatchTransformer(patch_size=25, embed_dim=128, depth=5, pooling="lead")


def make_arm(arm, setting, n_labelled, pretrained, seed):
    """An unfitted estimator."""
    if arm == "linear probe":
        linear = OneVsRestClassifier(LogisticRegression(C=setting, max_iter=5000))
        return make_pipeline(FrozenEstimator(pretrained), StandardScaler(), linear)
    scratch = {"crop_size": CROP, "max_epochs": 0}
    embedder, head = {
        "fine-tuned": (FrozenEstimator(pretrained), LinearHead()),
        "from scratch": (ECGSelfSupervisedEmbedder(encoder(), **scratch), LinearHead()),
        "ResNet1d": (ECGSelfSupervisedEmbedder(ResNet1d(), **scratch), LinearHead(dropout=0.3)),
    }[arm]
    return ECGClassifier(
        embedder, head, head_epochs=30 if arm == "fine-tuned" else 0, lead_dropout=0.1, learning_rate=setting,
        batch_size=32, warmup=0.2, max_epochs=max(20, epochs_for(150, n_labelled, 32)), random_state=seed,
    )


def job(arm, setting, fraction, draw, X, y, fold, rows, pretrained, seed):
    """Scores on folds 8 and 9 of one arm, setting and draw."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class without a labelled patient
        model = make_arm(arm, setting, len(rows), pretrained, seed + draw).fit(X[rows], y[rows])
    scores = {f: model.predict_proba(X[fold == f]).astype(np.float32) for f in (8, 9)}
    return {"arm": arm, "setting": setting, "fraction": fraction, "draw": draw, "n_labels": len(rows),
            "valid": macro_roc_auc(y[fold == 8], scores[8]), "score": scores[9],
            "seconds": time.perf_counter() - started}


def interval(scores, y, groups, seed, reference=None):
    """Mean macro AUROC over draws and its interval; of the paired difference if there is a reference."""
    rng = np.random.default_rng(seed)

    def statistic(rows, draws):
        values = [macro_roc_auc(y[rows], scores[d][rows]) for d in draws]
        if reference is not None:
            values = [v - macro_roc_auc(y[rows], reference[d][rows]) for v, d in zip(values, draws, strict=True)]
        return float(np.mean(values))

    n = len(scores)
    low, high = bootstrap_interval(
        lambda rows: statistic(rows, rng.integers(n, size=n)), groups, n_resamples=1000, random_state=seed
    )
    return round(statistic(np.arange(len(y)), range(n)), 4), [round(low, 4), round(high, 4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=200, help="pretraining epochs")
    parser.add_argument("--label-fractions", type=float, nargs="+", default=(0.02, 0.05, 0.1, 1.0))
    parser.add_argument("--draws", type=int, default=3, help="draws of labelled patients below a share of 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=None, help="folder for checkpoints of pretraining")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "ptbxl_superclasses.json")
    args = parser.parse_args()

    X, y, groups, fold = load(args.folder)
    unlabelled = X[fold <= 8]
    pretraining = {"learning_rate": 1.5e-3, "mask_ratio": 0.6, "lead_fraction": 0.5, "batch_size": 64}
    embedder = ECGSelfSupervisedEmbedder(
        encoder(), MaskedReconstruction(mask_ratio=0.6, lead_fraction=0.5), crop_size=CROP, max_epochs=args.epochs,
        batch_size=64, learning_rate=1.5e-3, checkpoint_dir=args.work, verbose=1, random_state=args.seed,
    ).fit(unlabelled)
    pretraining["seconds"] = round(sum(row["seconds"] for row in embedder.history_))
    n_parameters = sum(p.numel() for p in embedder.network_.parameters())
    embedder.set_params(checkpoint_dir=None)

    train = np.flatnonzero(fold <= 7)
    tasks = []
    for fraction in sorted(args.label_fractions):
        for draw in range(args.draws if fraction < 1 else 1):
            rng = np.random.default_rng([args.seed, draw])
            rows = train[label_budget(y[train], groups[train], fraction, rng)]
            tasks += [(arm, setting, fraction, draw, rows) for arm, grid in GRID.items() for setting in grid]
    done = joblib.Parallel(n_jobs=args.n_jobs, verbose=5, batch_size=1)(
        joblib.delayed(job)(arm, setting, fraction, draw, X, y, fold, rows, embedder, args.seed)
        for arm, setting, fraction, draw, rows in sorted(tasks, key=lambda t: -len(t[-1]))
    )

    test = fold == 9
    results, chosen = [], {}
    for fraction in sorted(args.label_fractions):
        for arm, grid in GRID.items():
            of_arm = [r for r in done if r["arm"] == arm and r["fraction"] == fraction]
            valid = {s: float(np.mean([r["valid"] for r in of_arm if r["setting"] == s])) for s in grid}
            setting = max(valid, key=valid.get)
            runs = sorted((r for r in of_arm if r["setting"] == setting), key=lambda r: r["draw"])
            chosen[fraction, arm] = [r["score"] for r in runs]
            value, bounds = interval(chosen[fraction, arm], y[test], groups[test], args.seed)
            results.append({
                "label_fraction": fraction, "n_labels": [r["n_labels"] for r in runs], "arm": arm,
                "macro_roc_auc": value, "interval": bounds, "setting": setting,
                "valid": {str(s): round(v, 4) for s, v in valid.items()},
                "per_draw": [round(macro_roc_auc(y[test], r["score"]), 4) for r in runs],
                "seconds": round(float(np.mean([r["seconds"] for r in runs])), 1),
            })
        for row in results[-len(GRID):]:
            for other in ("from scratch", "ResNet1d"):
                if row["arm"] not in ("from scratch", "ResNet1d"):
                    value, bounds = interval(chosen[fraction, row["arm"]], y[test], groups[test], args.seed,
                                             chosen[fraction, other])
                    row[f"minus {other}"] = {"difference": value, "interval": bounds}

    for row in results:
        low, high = row["interval"]
        print(f"{row['label_fraction']:>5.0%}  {row['n_labels'][0]:>5} labels  {row['arm']:14} "
              f"{row['macro_roc_auc']:.3f} [{low:.3f}, {high:.3f}]  draws {row['per_draw']}")
    write_json(args.output, {
        "data": f"{args.folder.name}: {len(X)} records, {len(np.unique(groups))} patients",
        "test": f"fold 9: {int(test.sum())} records of {len(np.unique(groups[test]))} patients",
        "encoder": repr(encoder()), "n_parameters": n_parameters,
        "pretraining": {**pretraining, "epochs": args.epochs, "crop_size": CROP, "records": len(unlabelled),
                        "final_loss": round(embedder.history_[-1]["loss"], 4)},
        "seed": args.seed, "results": results, "machine": machine(),
    })


if __name__ == "__main__":
    main()
