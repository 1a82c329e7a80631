"""The main job: pretrain without labels, train heads with few labels, cross-validate by patient.

    python benchmarks/main_job.py                              simulated ECGs
    python benchmarks/main_job.py --records FOLDER             a folder of WFDB records

A folder may hold PTB-XL (``ptbxl_database.csv``: superclasses), records with beat annotations (``*.atr``: AAMI beats), or
12-lead records with a table ``labels.csv``: a column ``filename``, a column ``patient_id``, and either a column
``label`` or one column of 0 and 1 per label. Of beats, at most 150 of a class are taken from a patient.

Everything that is learned is learned on the training patients of a fold: filter and scaling, pretraining, heads.
Arms share the labelled patients and the number of updates. Macro AUROC is the mean over the folds; its interval
resamples patients.
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import epochs_for, label_budget, machine, write_json
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import load_mitdb, load_ptbxl, make_ecg, read_records
from skecg.encoders import PatchTransformer
from skecg.metrics import bootstrap_interval, macro_roc_auc
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
            data = load_ptbxl(folder, fs=100)
            X, y, groups = make_windows(data, 10.0)
            return {"name": "PTB-XL", "X": X, "y": y, "groups": groups, "fs": data.fs, "crop": 2.5}
        if (folder / "labels.csv").exists():
            X, y, groups, fs = load_table(folder)
            return {"name": folder.name, "X": X, "y": y, "groups": groups, "fs": fs, "crop": 2.5}
        if any(folder.glob("*.atr")):
            # a second before the beat: prematurity is a matter of the preceding interval
            data = load_mitdb(folder)
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


def splits(y, groups, n_folds, seed):
    """Folds by patient, stratified where there is one label a sample."""
    if y.ndim == 1:
        return list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(y, y, groups))
    return list(GroupKFold(n_folds, shuffle=True, random_state=seed).split(y, y, groups))


def models(data, args):
    """Preprocessing, the pretrained encoder and the same encoder from scratch."""
    fs, n_times = data["fs"], data["X"].shape[-1]
    crop_size = None if data["crop"] is None else min(n_times, round(data["crop"] * fs))
    embedder = ECGSelfSupervisedEmbedder(
        PatchTransformer(max(1, (crop_size or n_times) // (10 if crop_size else 36)), embed_dim=64, depth=3,
                         pooling="lead"),
        MaskedReconstruction(mask_ratio=0.6, lead_fraction=0.5), crop_size=crop_size, max_epochs=args.epochs,
        batch_size=32, learning_rate=2e-3, random_state=args.seed,
    )
    preprocessing = [("filter", BandpassFilter(0.5, 0.4 * fs if fs < 100 else 40.0, fs=fs)), ("scale", LeadScaler())]
    return preprocessing, embedder, clone(embedder).set_params(max_epochs=0)


def run(data, args):
    """Scores of every test sample, per arm and label fraction, and the history of the first pretraining."""
    X, y, groups = data["X"], data["y"], data["groups"]
    classes = None if y.ndim == 2 else np.unique(y)
    n_outputs = y.shape[1] if y.ndim == 2 else len(classes)
    folds = splits(y, groups, args.folds, args.seed)
    scores = {(f, arm): np.full((len(X), n_outputs), np.nan) for f in args.label_fractions for arm in ARMS}
    labelled, history = {}, None
    preprocessing, embedder, scratch = models(data, args)
    progress = tqdm(total=len(folds) * (1 + len(args.label_fractions) * len(ARMS)), unit="fit", desc="main job")

    for k, (train, test) in enumerate(folds):
        progress.set_postfix_str(f"fold {k + 1}: pretraining on {len(train)} unlabelled windows")
        pretrained = Pipeline([*clone(Pipeline(preprocessing)).steps, ("embedder", clone(embedder))]).fit(X[train])
        history = history or pretrained[-1].history_
        prepared, encoder = FrozenEstimator(pretrained[:-1]), FrozenEstimator(pretrained[-1])
        progress.update()
        for fraction in args.label_fractions:
            rows = train[label_budget(y[train], groups[train], fraction, np.random.default_rng([args.seed, k]))]
            labelled[fraction] = labelled.get(fraction, 0) + len(rows) / len(folds)
            end_to_end = {"max_epochs": epochs_for(args.updates, len(rows), 32), "random_state": args.seed}
            linear = LogisticRegression(C=0.01, max_iter=2000)
            arms = {
                ARMS[0]: make_pipeline(prepared, encoder, StandardScaler(),
                                       linear if y.ndim == 1 else OneVsRestClassifier(linear)),
                ARMS[1]: make_pipeline(prepared, ECGClassifier(encoder, head_epochs=20, **end_to_end)),
                ARMS[2]: make_pipeline(prepared, ECGClassifier(scratch, **end_to_end)),
            }
            for arm, pipe in arms.items():
                progress.set_postfix_str(f"fold {k + 1}: {arm}, {len(rows)} labels")
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="Label .* is present in all training examples|Label not")
                    pipe.fit(X[rows], y[rows])
                columns = slice(None) if classes is None else np.searchsorted(classes, pipe.classes_)
                out = scores[fraction, arm]
                out[test] = 0.0  # a class without a labelled patient is never predicted
                block = out[test]
                block[:, columns] = pipe.predict_proba(X[test])
                out[test] = block
                progress.update()
    progress.close()
    return folds, classes, scores, labelled, history


def evaluate(data, folds, classes, scores, seed, n_resamples=500):
    """Macro AUROC, mean over folds, with intervals over patients; and the paired difference to from scratch."""
    y, groups = data["y"], data["groups"]
    fold_of = np.empty(len(y), int)
    for k, (_, test) in enumerate(folds):
        fold_of[test] = k

    def statistic(score):
        def over_folds(rows):
            parts = (rows[fold_of[rows] == k] for k in range(len(folds)))
            return np.nanmean([macro_roc_auc(y[p], score[p], labels=classes) for p in parts if len(p)])
        return over_folds

    every, rows = np.arange(len(y)), []
    for (fraction, arm), score in scores.items():
        value = statistic(score)
        row = {"label_fraction": fraction, "arm": arm, "macro_roc_auc": round(float(value(every)), 4)}
        interval = bootstrap_interval(value, groups, n_resamples=n_resamples, random_state=seed)
        row["interval"] = [round(v, 4) for v in interval]
        if arm != ARMS[2]:
            other = statistic(scores[fraction, ARMS[2]])
            row["minus_scratch"] = round(float(value(every) - other(every)), 4)
            difference = bootstrap_interval(
                lambda r, a=value, b=other: a(r) - b(r), groups, n_resamples=n_resamples, random_state=seed
            )
            row["minus_scratch_interval"] = [round(v, 4) for v in difference]
        rows.append(row)
    return rows


def print_table(data, rows, labelled):
    """The result as text."""
    X, groups = data["X"], data["groups"]
    print(f"\n{data['name']}: {len(X)} windows of {len(np.unique(groups))} patients, {X.shape[1]} lead(s), "
          f"{X.shape[2] / data['fs']:g} s. Macro AUROC, 95 % interval over patients.\n")
    print(f"{'labelled patients':>18}  {'windows':>8}  {'':30}  {'macro AUROC':>21}  {'minus from scratch':>24}")
    for row in rows:
        low, high = row["interval"]
        text = f"{row['label_fraction']:>17.0%}   {labelled[row['label_fraction']]:>8.0f}  {row['arm']:30}  "
        text += f"{row['macro_roc_auc']:.3f} [{low:.3f}, {high:.3f}]"
        if "minus_scratch" in row:
            low, high = row["minus_scratch_interval"]
            text += f"  {row['minus_scratch']:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(text)


def draw(data, rows, history, path):
    """Scores with their intervals, and the pretraining loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), width_ratios=(2, 1), layout="constrained")
    fractions = sorted({row["label_fraction"] for row in rows})
    for i, arm in enumerate(ARMS):
        of_arm = [row for f in fractions for row in rows if row["arm"] == arm and row["label_fraction"] == f]
        value = np.array([row["macro_roc_auc"] for row in of_arm])
        low, high = np.array([row["interval"] for row in of_arm]).T
        at = np.arange(len(fractions)) + 0.12 * (i - 1)
        left.errorbar(at, value, [np.maximum(0, value - low), np.maximum(0, high - value)], fmt="os^"[i], capsize=3,
                      label=arm)
    left.set(xticks=range(len(fractions)), xticklabels=[f"{f:.0%}" for f in fractions],
             xlim=(-0.5, len(fractions) - 0.5), xlabel="patients with labels", ylabel="macro AUROC",
             title=f"{data['name']}, cross-validated by patient")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(ARMS))  # beside the intervals, not on them
    left.grid(axis="y", alpha=0.3)
    right.plot([row["epoch"] for row in history], [row["loss"] for row in history])
    right.set(xlabel="epoch", ylabel="loss", title="pretraining, first fold")
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
    parser.add_argument("--updates", type=int, default=100, help="updates of each training with labels")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1,
                        help="of torch; more are faster on idle cores, and far slower where other programs run")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    data = load(args.records, args.seed)
    folds, classes, scores, labelled, history = run(data, args)
    rows = evaluate(data, folds, classes, scores, args.seed)
    print_table(data, rows, labelled)
    output = Path(args.output)
    draw(data, rows, history, output / "main_job.png")
    settings = {k: v for k, v in vars(args).items() if k not in ("records", "output")}
    write_json(output / "main_job.json", {
        "data": data["name"], "n_windows": len(data["X"]), "n_patients": len(np.unique(data["groups"])),
        "settings": settings, "labelled_windows": {str(k): round(v) for k, v in labelled.items()},
        "results": rows, "pretraining_loss": [round(row["loss"], 4) for row in history], "machine": machine(),
    })


if __name__ == "__main__":
    main()
