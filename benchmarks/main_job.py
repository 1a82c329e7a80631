"""The main job: pretrain without labels, train heads with few labels, cross-validate by patient.

    python benchmarks/main_job.py                              simulated ECGs
    python benchmarks/main_job.py --records FOLDER             a folder of WFDB records

A folder may hold PTB-XL (``ptbxl_database.csv``: superclasses), records with beat annotations (``*.atr``: AAMI beats), or
12-lead records with a table ``labels.csv``: a column ``filename``, a column ``patient_id``, and either a column
``label`` or one column of 0 and 1 per label. Of beats, at most 150 of a class are taken from a patient.

Everything that is learned is learned on the training patients of a fold: filter and scaling, pretraining, heads.
Arms share the labelled patients and the number of updates. Macro AUROC is the mean over folds and repeats; its interval
resamples patients and repeats.
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import machine, write_json
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import fetch_mitdb, fetch_ptbxl, make_ecg, read_records
from skecg.encoders import PatchTransformer
from skecg.evaluation import LabelEfficiencyDisplay, compare, label_efficiency_curve, summary
from skecg.objectives import MaskedReconstruction
from skecg.preprocessing import BandpassFilter, LeadScaler, make_beats, make_windows

ARMS = ("self-supervised, linear probe", "self-supervised, fine-tuned", "from scratch")


def load(folder, seed):
    """Windows, labels, patients and what they are."""
    if folder is None:
        classes = ("normal", "atrial fibrillation", "left bundle branch block", "right bundle branch block",
                   "anterior myocardial infarction", "left ventricular hypertrophy")
        X, y, groups = make_ecg(420, classes=classes, random_state=seed)
        return {"name": "simulated ECGs", "X": X, "y": y, "groups": groups, "fs": 100, "crop": 2.5}
    folder = Path(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        if (folder / "ptbxl_database.csv").exists():
            data = fetch_ptbxl(folder, fs=100, download_if_missing=False)
            X, y, groups = make_windows(data, 10.0)
            return {"name": "PTB-XL", "X": X, "y": y, "groups": groups, "fs": data.fs, "crop": 2.5}
        if (folder / "labels.csv").exists():
            X, y, groups, fs = load_table(folder)
            return {"name": folder.name, "X": X, "y": y, "groups": groups, "fs": fs, "crop": 2.5}
        if any(folder.glob("*.atr")):
            # a second before the beat: prematurity is a matter of the preceding interval
            data = fetch_mitdb(folder, download_if_missing=False)
            X, y, groups = make_beats(data, before=1.2, after=0.6)
            known = np.flatnonzero(np.isin(y, ["N", "S", "V", "F"]))  # Q occurs in single patients only
            rows = known[capped(y[known], groups[known], 150, np.random.default_rng(seed))]
            return {"name": "MIT-BIH beats", "X": X[rows], "y": y[rows], "groups": groups[rows], "fs": data.fs,
                    "crop": None}
    raise SystemExit(
        f"{folder} holds neither ptbxl_database.csv, nor labels.csv, nor annotations *.atr. Write a labels.csv with the "
        "columns filename, patient_id and label."
    )


def capped(y, groups, limit, rng):
    """Rows with at most ``limit`` of each class per patient."""
    rows = rng.permutation(len(y))
    keys = np.array([f"{g}/{label}" for g, label in zip(groups[rows], y[rows], strict=True)])
    order = np.argsort(keys, kind="stable")
    _, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    rank = np.empty(len(rows), int)
    rank[order] = np.arange(len(rows)) - np.repeat(starts, counts)
    return np.sort(rows[rank < limit])


def load_table(folder):
    """Records listed with their labels in ``labels.csv``, one window of the shortest common length each."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"filename", "patient_id"} - set(rows[0])
    if missing:
        raise SystemExit(f"{folder / 'labels.csv'} lacks the column(s) {', '.join(sorted(missing))}.")
    groups = np.array([row["patient_id"] for row in rows])
    binary = [k for k in rows[0] if k != "patient_id" and {row[k] for row in rows} == {"0", "1"}]
    if "label" in rows[0]:
        y = np.array([row["label"] for row in rows])
    elif binary:
        y = np.array([[int(row[k]) for k in binary] for row in rows])
    else:
        raise SystemExit(f"{folder / 'labels.csv'} has neither a column label nor columns of 0 and 1.")
    records = list(read_records([folder / row["filename"] for row in rows]))
    length = min(record.duration for record in records)
    X, y, groups = make_windows(records, length, step=max(record.duration for record in records), y=y, groups=groups)
    return X, y, groups, records[0].fs


def arms(data, args):
    """Preprocessing and the three models that are compared; pretraining is shared by the first two."""
    fs, n_times = data["fs"], data["X"].shape[-1]
    crop_size = None if data["crop"] is None else min(n_times, round(data["crop"] * fs))
    embedder = ECGSelfSupervisedEmbedder(
        PatchTransformer(max(1, (crop_size or n_times) // (10 if crop_size else 36)), embed_dim=64, depth=3,
                         pooling="lead"),
        MaskedReconstruction(mask_ratio=0.6, lead_fraction=0.5), crop_size=crop_size, max_epochs=args.epochs,
        batch_size=32, learning_rate=2e-3,
    )
    scratch = clone(embedder).set_params(max_epochs=0)
    preprocessing = (BandpassFilter(0.5, 0.4 * fs if fs < 100 else 40.0, fs=fs), LeadScaler())
    linear = OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=2000))
    # The fine-tuned network first trains its head alone; the one from scratch gets as many updates for everything.
    return {
        ARMS[0]: make_pipeline(*preprocessing, embedder, StandardScaler(), linear),
        ARMS[1]: make_pipeline(
            *preprocessing, ECGClassifier(embedder, head_epochs=10, max_epochs=10, min_updates=args.updates)),
        ARMS[2]: make_pipeline(
            *preprocessing, ECGClassifier(scratch, max_epochs=20, min_updates=args.updates * 4 // 3)),
    }


def evaluate(curve):
    """Macro AUROC with intervals over patients and repeats, and the paired difference to from scratch."""
    differences = {
        (arm, row["fraction"]): row for arm in ARMS[:2] for row in compare(curve, arm, ARMS[2])
    }
    rows = []
    for row in summary(curve):
        found = {
            "label_fraction": row["fraction"], "arm": row["arm"], "n_labels": round(row["n_labels"]),
            "macro_roc_auc": round(row["value"], 4), "interval": [round(row["low"], 4), round(row["high"], 4)],
        }
        paired = differences.get((row["arm"], row["fraction"]))
        if paired:
            found["minus_scratch"] = round(paired["difference"], 4)
            found["minus_scratch_interval"] = [round(paired["low"], 4), round(paired["high"], 4)]
        rows.append(found)
    return sorted(rows, key=lambda row: row["label_fraction"])


def print_table(data, rows):
    """The result as text."""
    X, groups = data["X"], data["groups"]
    print(f"\n{data['name']}: {len(X)} windows of {len(np.unique(groups))} patients, {X.shape[1]} lead(s), "
          f"{X.shape[2] / data['fs']:g} s. Macro AUROC, 95 % intervals over patients and repeats.\n")
    print(f"{'labelled patients':>18}  {'windows':>8}  {'':30}  {'macro AUROC':>21}  {'minus from scratch':>24}")
    for row in rows:
        low, high = row["interval"]
        text = f"{row['label_fraction']:>17.0%}   {row['n_labels']:>8}  {row['arm']:30}  "
        text += f"{row['macro_roc_auc']:.3f} [{low:.3f}, {high:.3f}]"
        if "minus_scratch" in row:
            low, high = row["minus_scratch_interval"]
            text += f"  {row['minus_scratch']:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(text)


def draw(data, curve, path):
    """Scores with their intervals, and the pretraining loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), width_ratios=(2, 1), layout="constrained")
    LabelEfficiencyDisplay(curve).plot(ax=left)
    left.set_title(f"{data['name']}, cross-validated by patient", fontsize="medium")
    for entry in curve.pretraining:
        losses = [row["loss"] for row in entry["history"]]
        right.plot(np.arange(1, len(losses) + 1), losses, label=f"fold {entry['split'] + 1}")
    right.set(xlabel="epoch", ylabel="loss")
    right.set_title("pretraining", fontsize="medium")
    right.legend(frameon=False, fontsize="small")
    right.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"Figure: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", metavar="FOLDER", help="folder of WFDB records; default: simulated ECGs")
    parser.add_argument("--output", default="demo", metavar="FOLDER", help="where figure and results go")
    parser.add_argument("--label-fractions", type=float, nargs="+", default=(0.1, 1.0), metavar="SHARE")
    parser.add_argument("--epochs", type=int, default=120, help="pretraining epochs")
    parser.add_argument("--updates", type=int, default=100, help="least updates of each training with labels")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="draws of labelled patients in each fold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1,
                        help="of torch; more are faster on idle cores, and far slower where other programs run")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    data = load(args.records, args.seed)
    with warnings.catch_warnings():
        # labels that no or every labelled patient has, and head-only updates that the network from scratch does not make
        warnings.filterwarnings("ignore", "Arm .*Label|Budgets without|Networks made different")
        curve = label_efficiency_curve(
            arms(data, args), data["X"], data["y"], groups=data["groups"], label_fractions=args.label_fractions,
            cv=args.folds, n_repeats=[args.repeats if f < 1 else 1 for f in args.label_fractions],
            random_state=args.seed,
        )
    rows = evaluate(curve)
    print_table(data, rows)
    output = Path(args.output)
    draw(data, curve, output / "main_job.png")
    settings = {k: v for k, v in vars(args).items() if k not in ("records", "output")}
    write_json(output / "main_job.json", {
        "data": data["name"], "n_windows": len(data["X"]), "n_patients": len(np.unique(data["groups"])),
        "settings": settings, "results": rows, "machine": machine(),
        "pretraining_loss": [[round(row["loss"], 4) for row in entry["history"]] for entry in curve.pretraining],
    })


if __name__ == "__main__":
    main()
