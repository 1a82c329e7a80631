"""What temporal and spatial detection each bring: ablation, label efficiency and the paper's claims in one command.

    python benchmarks/joint_spatiotemporal.py ptbxl_bp100 FOLDER
    python benchmarks/joint_spatiotemporal.py ptbxl FOLDER

FOLDER holds PTB-XL: for ``ptbxl_bp100`` a table ``labels.csv`` (columns filename, patient_id, strat_fold, NORM, MI, STTC,
CD, HYP) beside records at 100 Hz (pretraining and labels from folds 1-8, fold 9 is the test part), for ``ptbxl`` a copy or
part of the original at 100 Hz in PhysioNet's layout (three folds by patient). ``--cache`` keeps every finished pretraining
and run, so that the same command goes on where it was stopped.

Arms: the network of ``recipes.joint_spatiotemporal("small")`` after no pretraining ("scratch"), temporal detection only,
spatial detection only, and both ("joint"), each fine-tuned and as a linear probe of the frozen embedding; a probe of the
control, both with random lead numbers as targets (shuffling without anything to learn from it); ResNet1d from scratch and
after joint pretraining, fine-tuned; features with a linear model.
"""

import argparse
import csv
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.append(str(Path(__file__).resolve().parent / "label_efficiency"))
from _baselines import baseline
from _common import machine, write_json
from studies import SUPERCLASSES, linear

from skecg import ECGClassifier
from skecg.datasets import fetch_ptbxl, read_records
from skecg.encoders import ResNet1d
from skecg.evaluation import (
    LabelEfficiencyDisplay,
    ReconstructionDisplay,
    compare,
    label_efficiency_curve,
    label_saving,
    summary,
)
from skecg.heads import LinearHead
from skecg.objectives import MaskedReconstruction
from skecg.objectives._detection import PatchReconstruction
from skecg.preprocessing import BandpassFilter, LeadScaler, make_windows
from skecg.recipes import joint_spatiotemporal

FS = 100
CONTROL = "joint, random lead numbers"


class RandomLeadNumbers(MaskedReconstruction):
    """The control: leads are shuffled all the same, but the numbers to predict are dealt out at random."""

    def build(self, network):
        self._validate_params()
        return _RandomLeadNumbers(network, self)


class _RandomLeadNumbers(PatchReconstruction):
    def forward(self, batch):
        self.generator = batch.generator
        return super().forward(batch)

    def _lead_terms(self, logits, lead, scored):
        dealt = torch.rand(lead.shape, generator=self.generator, device=lead.device).argsort(dim=1)
        return super()._lead_terms(logits, lead.gather(1, dealt), scored)


def embedders(epochs):
    """The network after each kind of pretraining, and ResNet1d's."""
    joint = joint_spatiotemporal("small", fs=FS, max_epochs=epochs)
    objective = joint.objective
    control = RandomLeadNumbers(**objective.get_params())
    residual = clone(joint).set_params(encoder=ResNet1d(), objective=MaskedReconstruction(0.5, lead_shuffle=0.5))
    return {
        "scratch": clone(joint).set_params(max_epochs=0),
        "temporal": clone(joint).set_params(objective__lead_shuffle=0.0),
        "spatial": clone(joint).set_params(objective__mask_ratio=0),
        "joint": joint,
        CONTROL: clone(joint).set_params(objective=control),
        "ResNet1d scratch": clone(residual).set_params(max_epochs=0),
        "ResNet1d joint": residual,
    }


def arms(epochs, labelled_epochs, updates):
    """Fine-tuned and probed; equal numbers of passes over the labelled samples, as in benchmarks/label_efficiency."""
    training = {"lead_dropout": 0.1, "warmup": 0.2, "batch_size": 32}
    fine_tuning = {"head_epochs": 10, "max_epochs": labelled_epochs, "min_updates": updates, **training}
    from_scratch = {"max_epochs": labelled_epochs + 10, "min_updates": updates * 4 // 3, **training}
    found = {}
    for name, embedder in embedders(epochs).items():
        residual, scratch = name.startswith("ResNet1d"), embedder.max_epochs == 0
        head = LinearHead(dropout=0.3) if residual else None
        if name != CONTROL:
            found[name] = ECGClassifier(
                embedder, head, learning_rate=1e-3 if residual else 5e-4, **(from_scratch if scratch else fine_tuning))
        if not scratch and not residual:
            found[f"{name}, probe"] = make_pipeline(
                embedder, StandardScaler(), linear((3e-4, 1e-3, 3e-3, 1e-2, 1e-1)))
    return found | {"features, linear": make_pipeline(*baseline(FS)[:-1], linear((0.3, 1, 3, 10)))}


def ptbxl_bp100(folder):
    """Derived PTB-XL, leads z-scored: one split."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a unit that is not a voltage: the signals are z-scored
        X = np.stack([record.signal for record in read_records([folder / row["filename"] for row in rows])])
    fold = np.array([int(row["strat_fold"]) for row in rows])
    return {
        "X": X, "y": np.array([[int(row[name]) for name in SUPERCLASSES] for row in rows]),
        "groups": np.array([row["patient_id"] for row in rows]),
        "cv": [(np.flatnonzero(fold <= 8), np.flatnonzero(fold == 9))],
        "label_fractions": (0.1, 0.6, 1.0), "n_repeats": (2, 1, 2),
    }


def filtered(folder):
    """Windows of original PTB-XL in millivolt, labels and patients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partial copy
        X, y, groups = make_windows(fetch_ptbxl(folder, fs=FS, download_if_missing=False), length=10.0)
    return BandpassFilter(0.5, 40, fs=FS).fit_transform(X), y, groups


def ptbxl(folder):
    """Original PTB-XL, one scale per recording: three folds by patient."""
    X, y, groups = filtered(folder)
    X = LeadScaler(scope="record").fit_transform(X)
    return {"X": X, "y": y, "groups": groups, "cv": 3, "label_fractions": (0.6, 1.0), "n_repeats": (2, 1)}


STUDIES = {"ptbxl_bp100": ptbxl_bp100, "ptbxl": ptbxl}


def named_leads(X, n_windows=300, tolerance=0.02):
    """Lead accuracy of algebra on shuffled windows: limb leads by their relations, chest leads by a guess of 1 in 6."""
    rng, right = np.random.default_rng(0), []
    for i in rng.choice(len(X), min(n_windows, len(X)), replace=False):
        order = rng.permutation(12)
        x = X[i][order].astype(float)
        x -= x.mean(axis=1, keepdims=True)
        best, found = np.inf, None
        for a in range(12):
            for b in range(12):
                if a == b:
                    continue
                wanted = [x[b] - x[a], -(x[a] + x[b]) / 2, x[a] - x[b] / 2, x[b] - x[a] / 2]
                distance = np.array([[np.square(w - lead).mean() for lead in x] for w in wanted])
                distance[:, [a, b]] = np.inf
                nearest = distance.argmin(axis=1)
                if len(set(nearest)) == 4 and distance.min(axis=1).sum() < best:
                    best, found = distance.min(axis=1).sum(), [a, b, *nearest]
        chest = np.setdiff1d(np.arange(12), found)
        guess = np.concatenate([found, rng.permutation(chest)])
        right.append((order[guess] == np.arange(12)).mean())
    return float(np.mean(right))


def draw_reconstruction(X, groups, path, seed, epochs=300):
    """Joint pretraining on signals in millivolt without the last patient, whose first window is then drawn."""
    shown = groups == groups[-1]
    embedder = joint_spatiotemporal("small", fs=FS, max_epochs=epochs, warm_start=True, random_state=seed).fit(X[~shown])
    display = ReconstructionDisplay.from_estimator(embedder, X[shown][:1], random_state=seed)
    display.plot(fs=FS).figure_.savefig(path, dpi=110)
    error = np.square(display.signal - display.reconstruction)[display.hidden].mean()
    return {"epochs": epochs, "last_epoch": embedder.history_[-1],
            "shown": {"squared_error_over_variance": float(error / display.signal[display.hidden].var())}}


def results(curve):
    """Values, paired differences, claims and saved labels."""
    pairs = [
        ("temporal", "scratch"), ("spatial", "scratch"), ("joint", "scratch"), ("joint", "temporal"), ("joint", "spatial"),
        ("joint, probe", "temporal, probe"), ("joint, probe", "spatial, probe"), ("joint, probe", f"{CONTROL}, probe"),
        ("ResNet1d joint", "ResNet1d scratch"),
        ("joint", "ResNet1d scratch"), ("joint", "features, linear"), ("ResNet1d joint", "features, linear"),
    ]
    savings = [
        ("joint", "scratch"), ("joint, probe", "scratch"), ("joint", "ResNet1d scratch"), ("joint", "features, linear"),
        ("ResNet1d joint", "ResNet1d scratch"),
    ]
    return {
        "summary": summary(curve),
        "differences": [row for pair in pairs for row in compare(curve, *pair)],
        # the paper's first claim: with 60 % of the labels as good as the supervised network with all
        "against_all_labels": [
            row for pair in (("joint", "scratch"), ("ResNet1d joint", "ResNet1d scratch"))
            for row in compare(curve, *pair, reference_fraction=1.0)],
        "label_saving": [
            found.to_dict() | {"text": str(found)} for found in (label_saving(curve, *pair) for pair in savings)],
    }


def claims(found):
    """The paper's two claims for 27 arrhythmias, put to this study: a line each, for both networks."""
    lines = []
    for arm, reference in (("joint", "scratch"), ("ResNet1d joint", "ResNet1d scratch")):
        def row(table, fraction, arm=arm, reference=reference):
            return next(r for r in found[table] if (r["arm"], r["reference"], r["fraction"]) == (arm, reference, fraction))

        few, full = row("against_all_labels", 0.6), row("differences", 1.0)
        held = full["low"] <= 0.013 <= full["high"]
        lines += [
            f"- 60 % of the labels are as good as all for the network from scratch: {arm} with 60 % minus {reference} with "
            f"all is {few['difference']:+.3f} [{few['low']:+.3f}, {few['high']:+.3f}]; no worse by more than 0.005: "
            f"{'yes' if few['non_inferior'] else 'not shown'}.",
            f"- +0.013 over random initialisation: {arm} minus {reference} with all labels is {full['difference']:+.3f} "
            f"[{full['low']:+.3f}, {full['high']:+.3f}]; the interval {'holds' if held else 'does not hold'} +0.013 and "
            f"{'holds' if full['low'] <= 0 <= full['high'] else 'does not hold'} 0; differences from "
            f"{full['detectable_effect']:.3f} on would have been found with 80 % power.",
        ]
    return lines


def spatial_detection(curve):
    """What the last epoch of each pretraining said about lead numbers, by arm and split."""
    names = ("reconstruction", "lead_cross_entropy", "lead_accuracy", "chest_lead_accuracy", "reconstruction_gradient",
             "lead_gradient")
    return [
        {"arm": entry["arms"][0], "split": entry["split"],
         **{name: round(entry["history"][-1][name], 4) for name in names if name in entry["history"][-1]}}
        for entry in curve.pretraining
    ]


def report(study, curve, found, detection, algebra):
    """The tables that a reader looks for first."""
    lines = [
        f"![Ablation](joint_spatiotemporal_{study}.png)", "",
        f"{len(curve.y):,} recordings of {curve.settings['n_patients']:,} patients, {len(curve.splits)} split(s) by "
        "patient. Macro AUROC of five superclasses, mean over splits and repeats; 95 % intervals over patients and repeats.",
        "", "| arm | " + " | ".join(f"{f:.0%} of labels" for f in curve.label_fractions) + " |",
        "|---|" + "---|" * len(curve.label_fractions),
    ]
    for arm in curve.arms:
        cells = [f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                 for row in found["summary"] if row["arm"] == arm]
        lines.append(f"| {arm} | {' | '.join(cells)} |")

    def table(title, rows):
        table_lines = ["", title, "", "| arm minus reference | "
                       + " | ".join(f"{f:.0%}" for f in curve.label_fractions) + " |",
                       "|---|" + "---|" * len(curve.label_fractions)]
        for pair in dict.fromkeys((row["arm"], row["reference"]) for row in rows):
            cells = [
                f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p {row['p_holm']:.2g}; "
                f"{row['detectable_effect']:.3f}" for row in rows if (row["arm"], row["reference"]) == pair]
            table_lines.append(f"| {pair[0]} minus {pair[1]} | {' | '.join(cells)} |")
        return table_lines

    lines += table("Paired differences on equal labels with 95 % intervals, p after Holm's correction over the fractions, "
                   "and the smallest true difference found with 80 % power:", found["differences"])
    lines += table("The same against the reference with all labels:", found["against_all_labels"])
    lines += ["", "What the paper claims, of other data and tasks, as hypotheses here:", "", *claims(found)]
    lines += ["", "Labels saved:", ""] + [f"- {row['text']}" for row in found["label_saving"]]
    measured = f", measured here {algebra:.3f}" if algebra else ""
    lines += ["", "Spatial detection in the last epoch of pretraining (chance: accuracy 0.083, cross-entropy 2.485; linear "
              f"algebra names the six limb leads and one of six chest leads, 0.583{measured}):", "",
              "| arm | cross-entropy | accuracy, all leads | accuracy, V1-V6 |", "|---|---|---|---|"]
    for arm in dict.fromkeys(row["arm"] for row in detection):
        rows = [row for row in detection if row["arm"] == arm and "lead_accuracy" in row]
        if rows:
            means = [np.mean([row[name] for row in rows])
                     for name in ("lead_cross_entropy", "lead_accuracy", "chest_lead_accuracy")]
            lines.append(f"| {arm} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path, help="recordings")
    parser.add_argument("--cache", type=Path, default=None, help="folder for finished runs")
    parser.add_argument("--epochs", type=int, default=120, help="of pretraining")
    parser.add_argument("--labelled-epochs", type=int, default=12)
    parser.add_argument("--updates", type=int, default=150, help="with labels, at least")
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()

    data = STUDIES[args.study](args.folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        curve = label_efficiency_curve(
            arms(args.epochs, args.labelled_epochs, args.updates), **data, scoring=["roc_auc", "average_precision"],
            n_jobs=args.n_jobs, cache_dir=args.cache, random_state=args.seed)
    remarks = sorted({str(w.message) for w in told if issubclass(w.category, UserWarning)})
    print(*remarks, sep="\n")
    found, detection = results(curve), spatial_detection(curve)
    stem = args.output / f"joint_spatiotemporal_{args.study}"
    args.output.mkdir(parents=True, exist_ok=True)
    algebra = figure = None
    if args.study == "ptbxl":  # lead scales are kept here, so that the limb leads still obey their relations
        algebra = named_leads(data["X"])
        figure = draw_reconstruction(*filtered(args.folder)[::2], f"{stem}_reconstruction.png", args.seed)
    minutes = (sum(run.seconds for run in curve.runs) + sum(entry["seconds"] for entry in curve.pretraining)) / 60
    display = LabelEfficiencyDisplay(curve).plot(arms=[arm for arm in curve.arms if not arm.endswith("probe")])
    display.figure_.savefig(f"{stem}.png", dpi=150)
    text = report(args.study, curve, found, detection, algebra)
    Path(f"{stem}.md").write_text(text)
    print(text)
    write_json(f"{stem}.json", {
        **json.loads(curve.to_json()), "results": found, "spatial_detection": detection, "lead_accuracy_of_algebra": algebra,
        "reconstruction": figure, "warnings": remarks, "minutes": round(minutes), "machine": machine(),
    })


if __name__ == "__main__":
    main()
