"""HeartBERT on heartbeats: from scratch, beside ResNet1d, by patient and by the paper's random split of the beats.

    python benchmarks/heartbeats.py mitdb FOLDER
    python benchmarks/heartbeats.py icentia11k FOLDER

FOLDER holds the database as PhysioNet lays it out: for ``mitdb`` AAMI classes N, S, V, F (lead MLII), for ``icentia11k``
the paper's own task, N, S, V, Q, on what is there. Each beat is seen with 1.2 s before and 0.6 s after it, at 120 to 125 Hz.

Of each patient some beats of every class are labelled; the test part has beats drawn whatever their class, at natural
prevalence. Whatever is fitted, thresholds of the levels and tokens too, sees training patients only: their labelled beats,
and in pretraining further ones.

``protocol="patient"`` is cross-validation by patient at several shares of labelled patients (label_efficiency_curve).
``protocol="paper"`` splits the same beats at random instead, patients on both sides, as HeartBERT's notebooks do; it trains
two of the same arms on as many folds, and every beat is tested once in either protocol. The pretrained one starts from the
further beats of all patients. The gap is the paired difference, with the bootstrap over patients.

``--cache`` keeps every finished pretraining and run, so that the same command goes on where it was stopped.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.signal import decimate
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "label_efficiency"))
from _common import machine, write_json
from studies import capped

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier
from skecg.datasets import fetch_icentia11k, fetch_mitdb
from skecg.encoders import ResNet1d, TokenTransformer
from skecg.evaluation import LabelEfficiencyDisplay, compare, label_efficiency_curve, summary
from skecg.heads import BiLSTMHead, LinearHead
from skecg.metrics import bootstrap_weights
from skecg.model_selection import MultilabelStratifiedGroupKFold
from skecg.objectives import MaskedLanguageModeling
from skecg.preprocessing import ECGQuantizer, ECGTokenizer, make_beats

FETCH = {"mitdb": fetch_mitdb, "icentia11k": fetch_icentia11k}
CLASSES = {"mitdb": ("N", "S", "V", "F"), "icentia11k": ("N", "S", "V", "Q")}
FACTOR = {"mitdb": 3, "icentia11k": 2}  # of the sampling rate, 360 and 250 Hz
TUNED, PROBED, SCRATCH, CONVOLUTIONAL = (
    "pretrained, fine-tuned", "pretrained, BiLSTM probe", "same network from scratch", "ResNet1d from scratch")


def read(dataset, folder, options):
    """Beats of all records in ``folder``: X, y, patients, and the rows that are labelled, tested, for pretraining only."""
    rng = np.random.default_rng(options.seed)
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partial copy
        data = FETCH[dataset](folder, download_if_missing=False)
        for number, patient in enumerate(data.patient_id):
            # classes of the database's own symbols where they are the paper's
            own = {} if dataset == "mitdb" else {"classes": {name: name for name in CLASSES[dataset]}}
            X, y, _ = make_beats([data.records[number]], before=1.2, after=0.6, lead_names=data.lead_names, **own)
            known = np.flatnonzero(np.isin(y, CLASSES[dataset]))  # mitdb's Q occurs in single patients only
            roles = select(y[known], np.zeros(len(known)), options, rng)
            rows = np.unique(np.concatenate(roles))  # of a long record, no more than could be used is kept
            X = decimate(X[known[rows]], FACTOR[dataset], ftype="fir").astype(np.float32)
            parts.append((X, y[known[rows]], np.repeat(patient, len(rows))))
    X, y, groups = map(np.concatenate, zip(*parts, strict=True))
    return X, y, groups, select(y, groups, options, rng)


def select(y, groups, options, rng):
    """Rows that are labelled, that are tested, and that only pretraining sees."""
    whatever = np.zeros(len(y), int)
    tested = capped(whatever, groups, options.tested, rng)
    labelled = capped(y, groups, options.per_class, rng)
    rest = np.setdiff1d(np.arange(len(y)), np.union1d(tested, labelled))
    return labelled, tested, rest[capped(whatever[rest], groups[rest], options.unlabelled, rng)]


def embedder(options):
    """HeartBERT in a size that a CPU pretrains in minutes."""
    encoder = TokenTransformer(
        ECGQuantizer(options.levels, method="lloyd-max"), ECGTokenizer(options.vocabulary), embed_dim=options.width,
        depth=options.depth, dropout=0.1,
    )
    return ECGSelfSupervisedEmbedder(
        encoder, MaskedLanguageModeling(), max_epochs=options.epochs, batch_size=64, learning_rate=2e-3)


def study_arms(options):
    pretrained = embedder(options)
    scratch = embedder(options).set_params(max_epochs=0)
    convolutional = ECGSelfSupervisedEmbedder(ResNet1d(16), max_epochs=0)
    head = BiLSTMHead(64)
    training = {"max_epochs": options.labelled_epochs, "min_updates": options.updates, "warmup": 0.2, "batch_size": 32}
    # a third more updates for networks from scratch, as the other studies give them
    longer = {**training, "max_epochs": -(-options.labelled_epochs * 4 // 3), "min_updates": options.updates * 4 // 3}
    return {
        TUNED: ECGClassifier(pretrained, head, trainable=options.trainable, **training),
        PROBED: make_pipeline(
            embedder(options).set_params(output="tokens"), HeadClassifier(head, learning_rate=2e-3, **training)),
        SCRATCH: ECGClassifier(scratch, head, **longer),
        CONVOLUTIONAL: ECGClassifier(convolutional, LinearHead(dropout=0.3), **longer),
    }


def by_patient(data, arms, options):
    """Cross-validation by patient at shares of the labelled patients."""
    X, y, groups, (labelled, tested, rest) = data
    rows = np.union1d(labelled, tested)
    is_labelled, is_tested = (np.isin(rows, part) for part in (labelled, tested))
    folds = MultilabelStratifiedGroupKFold(options.folds, shuffle=True, random_state=options.seed)
    splits = [
        (train[is_labelled[train]], test[is_tested[test]]) for train, test in folds.split(rows, y[rows], groups[rows])
    ]
    return label_efficiency_curve(
        arms, X[rows], y[rows], groups=groups[rows], X_unlabeled=X[rest], groups_unlabeled=groups[rest], cv=splits,
        label_fractions=options.fractions, n_repeats=options.repeats, scoring=["f1", "roc_auc"], n_jobs=options.n_jobs,
        cache_dir=options.cache and options.cache / "patient", random_state=options.seed,
    )


def by_beat(data, arms, options):
    """The paper's protocol: beats split at random."""
    X, y, _, (labelled, tested, rest) = data
    rows = np.union1d(labelled, tested)
    is_labelled, is_tested = (np.isin(rows, part) for part in (labelled, tested))
    folds = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed)
    splits = [(train[is_labelled[train]], test[is_tested[test]]) for train, test in folds.split(rows, y[rows])]
    arms = {name: arms[name] for name in (TUNED, CONVOLUTIONAL)}
    known = arms[TUNED].embedder
    known = known.set_params(
        random_state=options.seed, checkpoint_dir=options.cache and options.cache / "paper" / "pretraining").fit(X[rest])
    arms[TUNED] = arms[TUNED].set_params(embedder=FrozenEstimator(known))
    return label_efficiency_curve(
        arms, X[rows], y[rows], cv=splits, label_fractions=[1.0], n_repeats=options.repeats[-1], scoring=["f1"],
        n_jobs=options.n_jobs, cache_dir=options.cache and options.cache / "paper", random_state=options.seed,
    )


# ------------------------------------------------------------------------------------------------------ what was found


def confusions(curve, groups, arm, fraction=1.0):
    """(n_patients, n_classes, n_classes): how often a patient's beats of one class were called another, over repeats."""
    patients, patient = np.unique(groups, return_inverse=True)
    n_classes = len(curve.classes)
    counts = np.zeros((len(patients), n_classes, n_classes))
    for run in curve.select(arm=arm, fraction=fraction):
        test = curve.splits[run.split][1]
        predicted = run.scores.argmax(axis=1) if run.predictions is None else np.searchsorted(curve.classes, run.predictions)
        np.add.at(counts, (patient[test], np.searchsorted(curve.classes, curve.y[test]), predicted), 1)
    return counts


def rates(counts):
    """F1, sensitivity and positive predictive value of each class from (..., n_classes, n_classes); last axis: classes."""
    hits = np.einsum("...cc->...c", counts)
    true, called = counts.sum(axis=-1), counts.sum(axis=-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = hits / true  # NaN where patients without this class were drawn
        return {"f1": 2 * hits / (true + called) + 0 * sensitivity, "sensitivity": sensitivity, "ppv": hits / called}


def with_interval(values):
    """The first value, and percentiles of the others, which are resamples; NaN where there is none."""
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def resampled(counts, n_resamples=2000):
    """Sums over the patients themselves (first) and over patients drawn again."""
    drawn = bootstrap_weights(np.arange(len(counts)), n_resamples=n_resamples, random_state=0)
    return np.einsum("rp,pij->rij", np.concatenate([np.ones((1, len(counts)), int), drawn]), counts)


def per_class(curve, groups):
    """Rates of each class over all test beats, by arm and fraction."""
    rows = []
    for arm in curve.arms:
        for fraction in curve.label_fractions:
            found = rates(resampled(confusions(curve, groups, arm, fraction)))
            rows += [
                {"arm": arm, "fraction": fraction, "class": str(name),
                 **{rate: with_interval(values[:, i]) for rate, values in found.items()}}
                for i, name in enumerate(curve.classes)
            ]
    return rows


def gaps(patient, paper, groups):
    """F1 of either protocol over the same beats, and the difference."""
    rows = []
    for arm in paper.arms:
        honest, leaky = (
            rates(resampled(confusions(curve, groups, arm)))["f1"] for curve in (patient, paper))
        for name, pick in (("macro", lambda f1: np.nanmean(f1, axis=1)),
                           *((str(c), lambda f1, i=i: f1[:, i]) for i, c in enumerate(patient.classes))):
            rows.append({
                "arm": arm, "class": name, "patient": with_interval(pick(honest)), "paper": with_interval(pick(leaky)),
                "gap": with_interval(pick(leaky) - pick(honest)),
            })
    return rows


def plot(path, curve, found):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.6), layout="constrained")
    LabelEfficiencyDisplay(curve).plot("f1", ax=left)
    left.set_title("by patient")
    arms = list(dict.fromkeys(row["arm"] for row in found["gaps"]))
    names = list(dict.fromkeys(row["class"] for row in found["gaps"]))
    for i, (arm, protocol) in enumerate((arm, protocol) for arm in arms for protocol in ("patient", "paper")):
        rows = [row[protocol] for row in found["gaps"] if row["arm"] == arm]
        value, low, high = (np.array([row[key] for row in rows]) for key in ("value", "low", "high"))
        right.bar(
            np.arange(len(names)) + 0.2 * (i - 1.5), value, 0.19, yerr=[value - low, high - value], capsize=2,
            color=f"C{arms.index(arm)}", alpha=1.0 if protocol == "patient" else 0.45,
            label=f"{arm}, split by {'patient' if protocol == 'patient' else 'beat (paper)'}",
        )
    right.set_xticks(range(len(names)), names)
    right.set(ylabel="F1", ylim=(0, 1.3), title="all labels, the same beats")
    right.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def interval_text(value, sign=""):
    return f"{value['value']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def share_text(value):
    return "-" if np.isnan(value["value"]) else f"{value['value']:.2f}"


def without_nan(found):
    """What JSON can hold: null where there is no value, as for the predictive value of a class that was never named."""
    return json.loads(json.dumps(found), parse_constant=lambda _: None)


def report(name, curve, found, minutes):
    """A page of text with the tables that a reader looks for first."""
    numbers = found["data"]
    n_tested = sum(numbers["tested"].values())
    lines = [
        f"{numbers['patients']} patients; {sum(numbers['labelled'].values()):,} labelled beats, {n_tested:,} tested at "
        f"natural prevalence ({', '.join(f'{c} {n:,}' for c, n in numbers['tested'].items())}), {numbers['unlabelled']:,} "
        f"further ones for pretraining; {len(curve.splits)} folds by patient. About {numbers['tokens']:.0f} tokens a beat. "
        "Macro F1, mean over folds (classes without a beat in a fold left out there) and repeats, with 95 % intervals over "
        f"patients and repeats. All runs together took {minutes:.0f} minutes.",
        "", f"![Heartbeats](heartbeats_{name}.png)", "",
        "| labels | " + " | ".join(curve.arms) + " |", "|---|" + "---|" * len(curve.arms),
    ]
    shares = {}
    for fraction in curve.label_fractions:
        rows = {row["arm"]: row for row in found["summary"]["f1"] if row["fraction"] == fraction}
        first = next(iter(rows.values()))
        shares[fraction] = f"{fraction:.0%} ({first['n_labels']:,.0f} of {first['n_patients']:,.0f} patients)"
        lines.append(f"| {shares[fraction]} | {' | '.join(interval_text(row) for row in rows.values())} |")
    references = [arm for arm in curve.arms if arm != TUNED]
    lines += ["", f"{TUNED.capitalize()}, minus another arm (p after Holm's correction over the fractions):", "",
              "| labels | " + " | ".join(references) + " |", "|---|" + "---|" * len(references)]
    for fraction, share in shares.items():
        rows = {row["reference"]: row for row in found["differences"] if row["fraction"] == fraction}
        cells = [f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p {row['p_holm']:.2g}"
                 for row in (rows[reference] for reference in references)]
        lines.append(f"| {share} | {' | '.join(cells)} |")
    lines += ["", "All labels, over all tested beats; 95 % intervals over patients:", "",
              "| arm | " + " | ".join(f"{c}: F1; sensitivity / PPV" for c in curve.classes) + " |",
              "|---|" + "---|" * len(curve.classes)]
    for arm in curve.arms:
        rows = {row["class"]: row for row in found["per_class"] if (row["arm"], row["fraction"]) == (arm, 1.0)}
        cells = [f"{interval_text(rows[str(c)]['f1'])}; {share_text(rows[str(c)]['sensitivity'])} / "
                 f"{share_text(rows[str(c)]['ppv'])}" for c in curve.classes]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", "The two protocols, F1 over the same tested beats (macro: mean over the classes):", "",
              "| arm | class | split by patient | split by beat (paper) | gap |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['arm']} | {row['class']} | {interval_text(row['patient'])} | {interval_text(row['paper'])} | "
        f"{interval_text(row['gap'], '+')} |" for row in found["gaps"]
    ]
    return "\n".join(lines) + "\n"


def count(y):
    return {str(name): int(n) for name, n in zip(*np.unique(y, return_counts=True), strict=True)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=FETCH)
    parser.add_argument("folder", type=Path, help="the recordings")
    parser.add_argument("--per-class", type=int, default=100, help="labelled beats of a class from a patient, at most")
    parser.add_argument("--tested", type=int, default=500, help="tested beats of a patient, at most")
    parser.add_argument("--unlabelled", type=int, default=250, help="further beats of a patient for pretraining, at most")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 1, 1])
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--trainable", type=lambda text: text if text == "all" else int(text), default=1)
    parser.add_argument("--epochs", type=int, default=8, help="of pretraining")
    parser.add_argument("--labelled-epochs", type=int, default=4)
    parser.add_argument("--updates", type=int, default=150, help="with labels, at least")
    parser.add_argument("--cache", type=Path, default=None, help="folder for finished runs")
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args(arguments)

    data = X, y, groups, (labelled, tested, rest) = read(options.dataset, options.folder, options)
    rows = np.union1d(labelled, tested)
    arms = study_arms(options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        curve = by_patient(data, arms, options)
        paper = by_beat(data, arms, options)
    remarks = sorted({str(w.message) for w in told if issubclass(w.category, UserWarning)})
    print(*remarks, sep="\n")
    tokens = embedder(options).encoder.fit(X[labelled]).encode_inputs(X[labelled])
    found = {
        "data": {
            "patients": len(np.unique(groups)), "labelled": count(y[labelled]), "tested": count(y[tested]),
            "unlabelled": len(rest), "tokens": float((tokens != 1).sum(axis=2).mean()),
        },
        "summary": {metric: summary(curve, metric) for metric in curve.metrics},
        "differences": [row for arm in curve.arms if arm != TUNED for row in compare(curve, TUNED, arm, "f1")],
        "per_class": per_class(curve, groups[rows]),
        "gaps": gaps(curve, paper, groups[rows]),
    }
    minutes = sum(run.seconds for part in (curve, paper) for run in part.runs) / 60 + sum(
        entry["seconds"] for entry in curve.pretraining) / 60
    stem = options.output / f"heartbeats_{options.dataset}"
    options.output.mkdir(parents=True, exist_ok=True)
    plot(f"{stem}.png", curve, found)
    text = report(options.dataset, curve, found, minutes)
    Path(f"{stem}.md").write_text(text)
    print(text)
    write_json(f"{stem}.json", {
        "options": {k: v for k, v in vars(options).items() if k not in ("folder", "cache", "output", "n_jobs")},
        **json.loads(curve.to_json()), "paper": json.loads(paper.to_json())["runs"], "results": without_nan(found),
        "warnings": remarks, "minutes": round(minutes), "machine": machine(),
    })


if __name__ == "__main__":
    main()
