"""Where did a ventricular beat begin? Segment and place in mm, at shares of the labelled patients, on simulated beats.

    OMP_NUM_THREADS=1 python benchmarks/vt_origins.py [--cache FOLDER]

Ventricles are paced at known sites (``make_vt_beats``); everything is split by anatomy. Arms, on the same nested budgets of
labelled anatomies: areas of the first 120 ms of QRS and a linear model; ResNet1d and a transformer from scratch; the
transformer after joint spatio-temporal pretraining, frozen and fine-tuned; the same with random weights, frozen.
Pretraining sees the beats of the training anatomies without labels, and those of further ones.

``--cache`` keeps every finished pretraining and run, so that the same command goes on where it was stopped.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import machine, write_json

from skecg import ECGClassifier, ECGRegressor, ECGSelfSupervisedEmbedder
from skecg.datasets import make_vt_beats
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.evaluation import LabelEfficiencyDisplay, compare, label_efficiency_curve, label_saving, summary
from skecg.heads import LinearHead
from skecg.metrics import localization_error, share_localized
from skecg.preprocessing import QRSIntegral
from skecg.recipes import joint_spatiotemporal

FS, BEFORE = 250, 0.1
BASELINE, FINE_TUNED, PROBED = "QRS integrals, linear", "pretrained, fine-tuned", "pretrained, linear probe"
SCRATCH, CONVOLUTIONAL, RANDOM = "same network from scratch", "ResNet1d from scratch", "random weights, linear probe"
TASKS = {
    "segment": {"scoring": ["accuracy", "balanced_accuracy"], "margin": 0.01},
    "position": {"scoring": ["neg_localization_error", "localized_within_10_mm"], "margin": 1.0},
}


def arms(task, epochs, labelled_epochs, updates):
    """The six arms, for classification or regression."""
    supervised = {"segment": ECGClassifier, "position": ECGRegressor}[task]
    encoder = PatchTransformer(10, embed_dim=64, depth=3, pooling="lead")  # 40 ms: a QRS complex is four
    pretrained = joint_spatiotemporal("small", fs=FS, encoder=encoder, crop_size=None, max_epochs=epochs)
    scratch = ECGSelfSupervisedEmbedder(encoder, max_epochs=0)
    convolutional = ECGSelfSupervisedEmbedder(ResNet1d(), max_epochs=0)

    def linear(strengths):
        if task == "segment":
            return GridSearchCV(LogisticRegression(max_iter=2000), {"C": [1 / s for s in strengths]}, cv=3)
        return GridSearchCV(Ridge(), {"alpha": list(strengths)}, cv=3)

    training = {"warmup": 0.2, "batch_size": 32}
    # The fine-tuned network first trains its head alone. Networks from scratch get these updates, a third more at least, for
    # everything.
    fine_tuning = {"head_epochs": 5, "max_epochs": labelled_epochs, "min_updates": updates, **training}
    from_scratch = {"max_epochs": labelled_epochs + 5, "min_updates": updates * 4 // 3, **training}
    few, many = (1e-2, 1e-1, 1, 10, 100), (1, 10, 100, 1e3, 1e4)
    return {
        BASELINE: make_pipeline(QRSIntegral(fs=FS, onset=BEFORE), StandardScaler(), linear(few)),
        CONVOLUTIONAL: supervised(convolutional, LinearHead(dropout=0.3), learning_rate=1e-3, **from_scratch),
        SCRATCH: supervised(scratch, learning_rate=5e-4, **from_scratch),
        RANDOM: make_pipeline(scratch, StandardScaler(), linear(many)),
        PROBED: make_pipeline(pretrained, StandardScaler(), linear(many)),
        FINE_TUNED: supervised(pretrained, learning_rate=5e-4, **fine_tuning),
    }


def errors(curve):
    """Error in mm of each arm and fraction over all test beats of all repeats: quartiles, and the share within 10 mm."""
    rows = []
    for arm in curve.arms:
        for fraction in curve.label_fractions:
            runs = curve.select(arm=arm, fraction=fraction)
            true = np.concatenate([curve.y[curve.splits[run.split][1]] for run in runs])
            predicted = np.concatenate([run.predictions for run in runs])
            low, median, high = localization_error(true, predicted, quantile=(0.25, 0.5, 0.75))
            rows.append({
                "arm": arm, "fraction": fraction, "median": median, "lower_quartile": low, "upper_quartile": high,
                "within_10_mm": share_localized(true, predicted, radius=10.0), "n_beats": len(true) // len(runs),
            })
    return rows


def study(task, beats, unlabelled, args):
    """Results of one task, with its figure."""
    X, segment, position, groups = beats
    y = segment if task == "segment" else position
    split = next(GroupShuffleSplit(1, test_size=args.test, random_state=0).split(X, y, groups))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        curve = label_efficiency_curve(
            arms(task, args.epochs, args.labelled_epochs, args.updates), X, y, groups=groups, X_unlabeled=unlabelled[0],
            groups_unlabeled=unlabelled[3] + groups.max() + 1, cv=[split], label_fractions=args.fractions,
            n_repeats=args.repeats, scoring=TASKS[task]["scoring"], n_jobs=args.n_jobs,
            cache_dir=args.cache and args.cache / task, random_state=args.seed,
        )
    print(*sorted({str(w.message) for w in told if issubclass(w.category, UserWarning)}), sep="\n")
    figure = args.output / f"vt_origins_{task}.png"
    display = LabelEfficiencyDisplay(curve).plot(saving=(FINE_TUNED, SCRATCH))
    figure.parent.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(figure, dpi=150)
    found = {
        "figure": figure.name,
        "settings": curve.settings,
        "pretraining": curve.pretraining,
        "seconds": sum(run.seconds for run in curve.runs) + sum(entry["seconds"] for entry in curve.pretraining),
        "metrics": {
            metric: {
                "summary": summary(curve, metric),
                "differences": [
                    row for arm in (PROBED, FINE_TUNED) for reference in (RANDOM, SCRATCH, CONVOLUTIONAL, BASELINE)
                    for row in compare(curve, arm, reference, metric, margin=TASKS[task]["margin"])
                ],
                "label_saving": [
                    str(label_saving(curve, FINE_TUNED, reference, metric=metric))
                    for reference in (SCRATCH, CONVOLUTIONAL, BASELINE)
                ],
            }
            for metric in curve.metrics
        },
        "runs": curve.table,
    }
    if task == "position":
        found["errors_mm"] = errors(curve)
    return found


def report(results):
    """A page of text with the tables that a reader looks for first."""
    lines = []
    for task, found in results["tasks"].items():
        metric, rows = next((name, part["summary"]) for name, part in found["metrics"].items())
        names = list(dict.fromkeys(row["arm"] for row in rows))
        what = "Accuracy of the segment" if task == "segment" else "Median error in mm (quartiles; share within 10 mm)"
        lines += ["", f"{what}:", "", "| labels | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for fraction in dict.fromkeys(row["fraction"] for row in rows):
            of = {row["arm"]: row for row in rows if row["fraction"] == fraction}
            if task == "position":
                mm = {row["arm"]: row for row in found["errors_mm"] if row["fraction"] == fraction}
                cells = [f"{e['median']:.1f} ({e['lower_quartile']:.1f}, {e['upper_quartile']:.1f}; {e['within_10_mm']:.0%})"
                         for e in (mm[name] for name in names)]
            else:
                cells = [f"{of[name]['value']:.3f} [{of[name]['low']:.3f}, {of[name]['high']:.3f}]" for name in names]
            patients = next(iter(of.values()))["n_patients"]
            lines.append(f"| {fraction:.0%} ({patients:.0f} anatomies) | {' | '.join(cells)} |")
        unit = " in mm" if task == "position" else ""
        lines += [
            "", f"{FINE_TUNED.capitalize()}, minus another arm{unit} (larger is better), with 95 % intervals over anatomies "
            "and repeats, p after Holm's correction over the fractions, and the smallest true difference found with 80 % "
            "power:", "",
        ]
        rows = [row for row in found["metrics"][metric]["differences"] if row["arm"] == FINE_TUNED]
        references = list(dict.fromkeys(row["reference"] for row in rows))
        lines += ["| labels | " + " | ".join(references) + " |", "|---|" + "---|" * len(references)]
        for fraction in dict.fromkeys(row["fraction"] for row in rows):
            cells = [f"{row['difference']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}], p {row['p_holm']:.2g}; "
                     f"{row['detectable_effect']:.2g}" for row in rows if row["fraction"] == fraction]
            lines.append(f"| {fraction:.0%} | {' | '.join(cells)} |")
        lines += ["", "Labels saved:", ""] + [f"- {text}" for text in found["metrics"][metric]["label_saving"]]
        lines += ["", f"![{what}](vt_origins_{task}.png)"]
    return "\n".join(lines).strip() + "\n"


def plain(value):
    """Whatever JSON does not know, as Python's own."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--anatomies", type=int, default=60, help="with labels, of which the budgets are drawn")
    parser.add_argument("--test", type=int, default=30, help="test anatomies")
    parser.add_argument("--further", type=int, default=60, help="further anatomies without labels, for pretraining")
    parser.add_argument("--sites", type=int, default=20, help="per anatomy")
    parser.add_argument("--scar", type=float, default=0.3, help="share of the anatomies that have a scar")
    parser.add_argument("--epochs", type=int, default=50, help="of pretraining")
    parser.add_argument("--labelled-epochs", type=int, default=8)
    parser.add_argument("--updates", type=int, default=150, help="with labels, at least")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.05, 0.1, 0.3, 1.0])
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 3, 2, 2], help="one number, or one per fraction")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--cache", type=Path, default=None, help="folder for finished runs")
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()
    args.repeats = args.repeats[0] if len(args.repeats) == 1 else args.repeats

    start = time.perf_counter()
    beats = make_vt_beats(args.anatomies + args.test, args.sites, scar=args.scar, random_state=args.seed)
    unlabelled = make_vt_beats(args.further, args.sites, scar=args.scar, random_state=args.seed + 1)
    print(f"{len(beats[0]) + len(unlabelled[0]):,} beats in {time.perf_counter() - start:.0f} s", flush=True)
    results = {
        "options": {name: value for name, value in vars(args).items() if name not in ("cache", "output", "n_jobs")},
        "tasks": {task: study(task, beats, unlabelled, args) for task in args.tasks},
        "machine": machine(),
    }
    text = report(results)
    (args.output / "vt_origins.md").write_text(text)
    print(text)
    write_json(args.output / "vt_origins.json", plain(results))


if __name__ == "__main__":
    main()
