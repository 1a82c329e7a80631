"""Pretrained once on twelve leads, used on fewer: what random lead masking brings.

    python benchmarks/lead_agnostic.py ptbxl_bp100 FOLDER

FOLDER holds PTB-XL as in joint_spatiotemporal.py: a table ``labels.csv`` beside records at 100 Hz. Every network is
pretrained once, on all leads of folds 1-8; labels come from folds 1-8 too, fold 9 is the test part. From the same weights it
is then trained with labels on 12, 6, 3, 2 and 1 leads, the missing ones NaN, and tested on those. Targets: superclasses,
with few and with all labels, and statements that are arrhythmias of the CinC Challenge 2021 (as in arrhythmias.py), with all
labels and decided at 0.5.

``--cache`` keeps every pretraining, epoch by epoch, and every finished run: the same command goes on where it was stopped.

Arms: ResNet1d after CMSC with random lead masking (RLM), after CMSC without, and from scratch, which is a supervised network
given the mean in place of missing leads; a small ConvTransformer after wav2vec 2.0 + CMSC with RLM, without, and from
scratch; probes of the frozen embeddings. "12 leads in training" are networks that were trained with labels on all leads and
merely tested without some.
"""

import argparse
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from _common import machine, write_json
from arrhythmias import load
from joint_spatiotemporal import ptbxl_bp100
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.encoders import ConvTransformer, ResNet1d
from skecg.evaluation import compare, label_efficiency_curve, summary
from skecg.evaluation._curve import LabelEfficiencyCurve
from skecg.evaluation._statistics import holm
from skecg.heads import LinearHead
from skecg.objectives import Wav2Vec2CMSC

FS = 100
CROP = 500  # samples of the piece that an update of pretraining sees; its halves of 2.5 s are the pairs
PIECE = 250  # samples that everything after pretraining sees at a time
RESNET, CONV = "ResNet1d", "ConvTransformer"
EPOCHS = {RESNET: 300, CONV: 80}  # of pretraining
LEADS = {  # by their places among the 12
    "12 leads": tuple(range(12)), "6 leads (limbs)": tuple(range(6)), "3 leads (I, II, V2)": (0, 1, 7),
    "2 leads (I, II)": (0, 1), "1 lead (I)": (0,),
}
METRICS = {"roc_auc": "macro AUROC", "cinc_2021": "challenge score"}


def network(name):
    """Parameters of the two networks, for any length of window."""
    if name == RESNET:
        return ResNet1d(any_length=True)
    return ConvTransformer(128, 3, conv_dim=64, conv_strides=(2, 2, 2), dropout=0.1, any_length=True)


def pretrain(name, X, groups, cache, epochs, seed):
    """Embedders after pretraining with RLM (True) and without (False)."""
    return {
        rlm: ECGSelfSupervisedEmbedder(
            network(name), Wav2Vec2CMSC(local_weight=float(name == CONV), lead_mask_prob=0.5 * rlm), crop_size=CROP,
            max_epochs=epochs, checkpoint_dir=cache / "pretrained", random_state=seed,
        ).fit(X, groups=groups).set_params(crop_size=PIECE, checkpoint_dir=None)
        for rlm in (True, False)
    }


def masked(X, leads):
    """X with NaN in place of all other leads."""
    X = X.copy()
    X[:, np.setdiff1d(np.arange(X.shape[1]), leads)] = np.nan
    return X


def title(name, with_rlm):
    return f"{name}, {'wav2vec 2.0 + ' if name == CONV else ''}CMSC{' + RLM' if with_rlm else ''}"


def arms(pretrained, name, epochs, updates, probes=True):
    """Arms that are trained and tested on the same leads, with equal numbers of passes over the labelled samples."""
    training = {"lead_dropout": 0.1, "warmup": 0.2, "batch_size": 32, "learning_rate": 1e-3 if name == RESNET else 5e-4}
    head = LinearHead(dropout=0.3) if name == RESNET else None
    found = {}
    for rlm in (True, False):
        frozen = FrozenEstimator(pretrained[rlm])
        found[title(name, rlm)] = ECGClassifier(
            frozen, head, head_epochs=4, max_epochs=epochs, min_updates=updates, **training,
            trainable="all" if name == RESNET else 3,  # of the transformer all but the convolutions, as its authors do
        )
        if probes:
            found[f"{title(name, rlm)}, probe"] = make_pipeline(
                frozen, StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=1000)))
    scratch = ECGSelfSupervisedEmbedder(network(name), crop_size=PIECE, max_epochs=0)
    found[f"{name}, scratch"] = ECGClassifier(
        scratch, head, max_epochs=epochs + 4, min_updates=updates * 11 // 10, **training)
    return found


def arms_of_twelve(pretrained, epochs, updates):
    """Arms of ResNet1d that see all leads in training with labels."""
    own = arms(pretrained, RESNET, epochs, updates)
    scratch, rlm = own[f"{RESNET}, scratch"], own[title(RESNET, True)]
    return {
        f"{RESNET}, scratch, 12 leads in training": clone(scratch).set_params(lead_dropout=0.0),
        f"{RESNET}, scratch, 12 leads in training, lead dropout": clone(scratch).set_params(lead_dropout=0.5),
        f"{title(RESNET, True)}, 12 leads in training, lead dropout": clone(rlm).set_params(lead_dropout=0.5),
    }


def by_leads(of_leads, of_twelve, X, y, groups, cv, **options):
    """One curve per set of leads, in which every arm had the same budgets and seeds.

    Of the arms that were trained on all leads, the test part is predicted once per set of leads, one below the other.
    """
    (train, test), = cv
    curves = {
        name: label_efficiency_curve(of_leads, masked(X, leads), y, groups=groups, cv=cv, **options)
        for name, leads in LEADS.items()
    }
    if not of_twelve:
        return curves
    rows = np.tile(test, len(LEADS))
    below = np.concatenate([X[train], *(masked(X[test], leads) for leads in LEADS.values())])
    both = np.concatenate([train, rows])
    split = np.arange(len(train)), np.arange(len(train), len(both))
    twelve = label_efficiency_curve(of_twelve, below, y[both], groups=groups[both], cv=[split], **options)
    blocks = [slice(i * len(test), (i + 1) * len(test)) for i in range(len(LEADS))]
    return {name: joined(curve, twelve, block) for (name, curve), block in zip(curves.items(), blocks, strict=True)}


def joined(curve, other, block):
    """``curve`` with the arms of ``other``, of whose test part ``block`` are the same samples."""
    def part(values):
        return None if values is None else values[block]

    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(curve.budgets[0], other.budgets[0], strict=True))
    assert np.array_equal(*(one.groups[one.splits[0][1]][rows] for one, rows in ((curve, slice(None)), (other, block))))
    runs = [replace(run, scores=part(run.scores), predictions=part(run.predictions)) for run in other.runs]
    return LabelEfficiencyCurve(
        arms=curve.arms + other.arms, label_fractions=curve.label_fractions, metrics=curve._functions,
        runs=curve.runs + runs, pretraining=curve.pretraining + other.pretraining, budgets=curve.budgets,
        splits=curve.splits, y=curve.y,
        groups=curve.groups, classes=curve.classes, transductive=False,
        settings=curve.settings | {"arms": curve.settings["arms"] | other.settings["arms"]},
    )


# --------------------------------------------------------------------------------------------------------- results


def pairs(arms):
    """What is compared."""
    wanted = []
    for name in (RESNET, CONV):
        rlm, plain, scratch = title(name, True), title(name, False), f"{name}, scratch"
        wanted += [(rlm, plain), (rlm, scratch), (plain, scratch), (f"{rlm}, probe", f"{plain}, probe")]
    rlm, scratch, dropout = title(RESNET, True), f"{RESNET}, scratch", "12 leads in training, lead dropout"
    wanted += [
        (scratch, f"{scratch}, 12 leads in training"), (scratch, f"{scratch}, {dropout}"),
        (f"{rlm}, {dropout}", f"{scratch}, {dropout}"), (rlm, f"{rlm}, {dropout}"),
    ]
    return [pair for pair in wanted if set(pair) <= set(arms)]


def differences(curves, metric):
    """Paired differences of all sets of leads; p-values and detectable effects for as many comparisons as a pair has."""
    found = []
    for pair in pairs(next(iter(curves.values())).arms):
        rows = []
        for leads, curve in curves.items():
            strict = compare(curve, *pair, metric, confidence_level=1 - 0.05 / len(curves))
            rows += [
                {"leads": leads, **row, "detectable_effect": other["detectable_effect"]}
                for row, other in zip(compare(curve, *pair, metric), strict, strict=True)]
        for row, p_holm in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
            row |= {"p_holm": p_holm, "claim": "undecided"}
            if p_holm <= 0.05:
                row["claim"] = "higher" if row["difference"] > 0 else "lower"
        found += rows
    return found


def tables(curves, metric, name):
    """Values and differences as Markdown."""
    first = next(iter(curves.values()))
    header = ["", f"| arm | {' | '.join(curves)} |", "|---|" + "---|" * len(curves)]
    lines, rows = [], {leads: summary(curve, metric) for leads, curve in curves.items()}
    for fraction in first.label_fractions:
        lines += ["", f"{name}, {fraction:.0%} of the labels:", *header]
        for arm in first.arms:
            own = [next(r for r in rows[leads] if (r["arm"], r["fraction"]) == (arm, fraction)) for leads in curves]
            cells = [f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in own]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    found = differences(curves, metric)
    for fraction in first.label_fractions:
        lines += ["", f"{name}, {fraction:.0%} of the labels, arm minus reference; detectable effect:", *header]
        for pair in pairs(first.arms):
            own = [r for r in found if (r["arm"], r["reference"], r["fraction"]) == (*pair, fraction)]
            cells = [f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}], p {r['p_holm']:.2g}; "
                     f"{r['detectable_effect']:.3f}" for r in own]
            lines.append(f"| {pair[0]} minus {pair[1]} | {' | '.join(cells)} |")
    return lines


def draw(studies, path):
    """Mean metric of the arms over the sets of leads."""
    import matplotlib.pyplot as plt

    places = [(curves, fraction) for curves in studies for fraction in next(iter(curves.values())).label_fractions]
    figure, panels = plt.subplots(1, len(places), figsize=(3.9 * len(places), 5.4), sharey=True, layout="constrained")
    colours = {}
    for ax, (curves, fraction) in zip(np.atleast_1d(panels), places, strict=True):
        for arm in next(iter(curves.values())).arms:
            if arm.endswith("probe"):
                continue
            values = [
                next(r for r in summary(curve) if (r["arm"], r["fraction"]) == (arm, fraction))["value"]
                for curve in curves.values()]
            colour = colours.setdefault(arm, f"C{len(colours)}")
            style = ("^" if "RLM" in arm else "s" if "CMSC" in arm else "o") + (":" if "12 leads" in arm else "-")
            ax.plot(values, style, color=colour, label=arm, markersize=5)
        ax.set_xticks(range(len(curves)), [leads.replace(" (", "\n(") for leads in curves], fontsize="x-small")
        ax.set_title(f"{next(iter(curves.values())).arms[0].split(',')[0]}, {fraction:.0%} of the labels", fontsize="medium")
        ax.grid(alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("macro AUROC")
    lines = {line.get_label(): line for ax in np.atleast_1d(panels) for line in ax.lines}
    figure.legend(lines.values(), lines, frameon=False, fontsize="small", loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=130)


def report(studies, histories, n_train, n_test, figure):
    """The tables that a reader looks for first."""
    lines = [
        f"{n_train:,} recordings for pretraining and labels, {n_test} for the test. Values with 95 % intervals over "
        "patients and repeats; p after Holm's correction over all sets of leads and label fractions of a pair; "
        "detectable effects with 80 % power at the same level.", "", f"![Sets of leads]({figure})",
    ]
    for name, curves in studies.items():
        for metric in next(iter(curves.values())).metrics:
            lines += tables(curves, metric, f"{name}, {METRICS[metric]}")
    lines += ["", "Last epoch of pretraining:", "",
              "| network | epochs | CMSC | halves recognised | hidden frames recognised | seconds in all |",
              "|---|---|---|---|---|---|"]
    for name, history in histories.items():
        last = history[-1]
        local = f"{last['contrastive_accuracy']:.3f}" if "contrastive_accuracy" in last else ""
        seconds = sum(row["seconds"] for row in history)
        lines.append(
            f"| {name} | {len(history)} | {last['cmsc']:.3f} | {last['cmsc_accuracy']:.3f} | {local} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=["ptbxl_bp100"])
    parser.add_argument("folder", type=Path, help="recordings")
    parser.add_argument("--networks", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--epochs", type=int, help=f"of pretraining; by default {EPOCHS}")
    parser.add_argument("--labelled-epochs", type=int, default=8)
    parser.add_argument("--updates", type=int, default=150, help="with labels, at least")
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.05, 1.0], help="label fractions of superclasses")
    parser.add_argument("--repeats", nargs="+", type=int, default=[2, 1], help="at each fraction")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("demo/lead_agnostic"), help="where finished work is kept")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()

    data = ptbxl_bp100(args.folder)
    X, y, groups, cv = (data[name] for name in ("X", "y", "groups", "cv"))
    train, test = cv[0]
    amount = args.labelled_epochs, args.updates
    options = {"n_jobs": 1, "random_state": args.seed, "cache_dir": args.cache / "runs"}
    superclasses = {"label_fractions": args.fractions, "n_repeats": args.repeats, "scoring": "roc_auc"} | options
    studies, histories = {}, {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for name in args.networks:
            epochs = EPOCHS[name] if args.epochs is None else args.epochs
            pretrained = pretrain(name, X[train], groups[train], args.cache, epochs, args.seed)
            histories |= {title(name, rlm): embedder.history_ for rlm, embedder in pretrained.items()}
            of_twelve = arms_of_twelve(pretrained, *amount) if name == RESNET else {}
            studies[f"Superclasses, {name}"] = by_leads(
                arms(pretrained, name, *amount), of_twelve, X, y, groups, cv, **superclasses)
            if name == RESNET:
                studies["Arrhythmias"] = by_leads(
                    arms(pretrained, name, *amount, probes=False), {}, X, load(args.folder)[1].astype(int), groups, cv,
                    label_fractions=(1.0,), n_repeats=1, scoring=list(METRICS), **options)
    remarks = sorted({str(w.message) for w in told if issubclass(w.category, UserWarning)})
    print(*remarks, sep="\n")
    stem = args.output / f"lead_agnostic_{args.study}"
    args.output.mkdir(parents=True, exist_ok=True)
    draw([curves for name, curves in studies.items() if name != "Arrhythmias"], f"{stem}.png")
    text = report(studies, histories, len(train), len(test), f"{stem.name}.png")
    Path(f"{stem}.md").write_text(text)
    print(text)
    seconds = [run.seconds for curves in studies.values() for curve in curves.values() for run in curve.runs]
    write_json(f"{stem}.json", {
        "command": f"python benchmarks/lead_agnostic.py {args.study} FOLDER",
        "settings": {name: getattr(args, name) for name in (
            "networks", "labelled_epochs", "updates", "fractions", "repeats", "seed")},
        "pretraining": histories,
        "studies": {
            name: {leads: {key: value for key, value in json.loads(curve.to_json()).items() if key != "pretraining"}
                   for leads, curve in curves.items()} for name, curves in studies.items()},
        "differences": {name: {metric: differences(curves, metric) for metric in next(iter(curves.values())).metrics}
                        for name, curves in studies.items()},
        "warnings": remarks, "minutes_with_labels": round(sum(seconds) / 60), "machine": machine(),
    })


if __name__ == "__main__":
    main()
