"""What it is worth to test on segments of recordings that were trained on: the split of the published evaluation, measured.

    python benchmarks/segment_leak.py FOLDER

The evaluation of Oh et al. (2022) cuts recordings into pieces of 5 s, divides the pieces at random into training and test,
and scores every piece by itself at a threshold of 0.5. So pieces of one recording lie on both sides. Here the same pieces of
PTB-XL (FOLDER as of arrhythmias.py; folds 1-8, so that fold 9 remains a test part) are classified and scored in the same
way under three protocols, each a cross-validation with folds of equal size: "paper" divides pieces, "record" recordings,
"patient" patients. Statements are scored as arrhythmias of the CinC Challenge 2021, the predictions of all folds
together. AUROC is meaned over the classes that ten patients have at least, since rarer ones lack examples in training.

Arms: a linear model on the frozen embeddings of ResNet1d after CMSC with random lead masking, pretrained as in
lead_agnostic.py (on the signals of folds 1-8 without labels, under every protocol, as the published pretraining saw all
databases); and ResNet1d from scratch.

``--cache`` keeps every finished fold. Intervals (95 %) resample patients.
"""

import argparse
import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _common import machine, write_json
from arrhythmias import CLASSES, counts, difference, interval, load
from lead_agnostic import EPOCHS, PIECE, RESNET, network, pretrain, ptbxl_bp100
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg._files import write_atomically
from skecg.heads import LinearHead
from skecg.metrics import bootstrap_weights, class_scores, resample_metric

LENGTH = 500  # samples of a piece: 5 s
ARMS = ("pretrained, probe", "scratch")
PROTOCOLS = ("paper", "record", "patient")
METRICS = {"cinc_2021": "challenge score", "roc_auc": "macro AUROC"}


def pieces(X):
    """Consecutive pieces (n_pieces, n_leads, LENGTH) of recordings, and the recording of each."""
    n_pieces = X.shape[2] // LENGTH
    cut = X[..., :n_pieces * LENGTH].reshape(*X.shape[:2], n_pieces, LENGTH).swapaxes(1, 2).reshape(-1, X.shape[1], LENGTH)
    return cut, np.repeat(np.arange(len(X)), n_pieces)


def protocols(record, patient):
    """The unit that each piece belongs to and that is not divided, by protocol."""
    return dict(zip(PROTOCOLS, (np.arange(len(record)), record, patient), strict=True))


def fit_predict(arm, settings, inputs, y, train, test):
    """Probabilities (n_test, n_classes) of a fold."""
    if arm == "scratch":
        embedder = ECGSelfSupervisedEmbedder(network(RESNET), crop_size=PIECE, max_epochs=0)
        model = ECGClassifier(
            embedder, LinearHead(dropout=0.3), max_epochs=settings["labelled_epochs"], lead_dropout=0.1, warmup=0.2,
            batch_size=32, learning_rate=1e-3, random_state=settings["seed"])
    else:
        model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=1000)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples", UserWarning)
        return class_scores(model.fit(inputs[train], y[train]), inputs[test])


def run(cache, arm, settings, inputs, y, unit):
    """Probabilities of every piece by a model that was not trained on its unit, and seconds; from the cache if there."""
    found, seconds = np.full(y.shape, np.nan), 0.0
    folds = GroupKFold(settings["folds"], shuffle=True, random_state=settings["seed"])
    for number, (train, test) in enumerate(folds.split(inputs, groups=unit)):
        digest = hashlib.sha256(inputs.tobytes() + y.tobytes() + train.tobytes()).hexdigest()
        key = json.dumps([arm, settings, digest])
        file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"
        if not file.exists():
            started = time.perf_counter()
            proba = fit_predict(arm, settings, inputs, y, train, test)
            own = time.perf_counter() - started
            write_atomically(file, lambda stream, p=proba, s=own: np.savez_compressed(stream, proba=p, seconds=s))
            print(f"{arm}, fold {number}: {own:.0f} s", flush=True)
        with np.load(file) as stored:
            found[test] = stored["proba"]
            seconds += float(stored["seconds"])
    return found, seconds


def common_classes(y, patient, at_least=10):
    """Columns of the classes that so many patients have."""
    return np.flatnonzero([len(np.unique(patient[column == 1])) >= at_least for column in y.T])


def score(proba, y, common, weights):
    """Metrics of pieces, with resamples of patients; ``common`` are the columns that AUROC is meaned over."""
    values = {
        "cinc_2021": resample_metric("cinc_2021", y, (proba > 0.5).astype(int), weights),
        "roc_auc": resample_metric("roc_auc", y[:, common], proba[:, common], weights),
    }
    return {metric: {"value": found[0], "resamples": found[1:]} for metric, found in values.items()}


def table(results):
    """The main figures as Markdown."""
    def cell(row, sign=""):
        return f"{row['value']:{sign}.3f} [{row['interval'][0]:{sign}.3f}, {row['interval'][1]:{sign}.3f}]"

    n = results["counts"]
    lines = [f"{n['pieces']:,} pieces of {n['recordings']:,} recordings of {n['patients']:,} patients; AUROC of "
             f"{len(n['classes_of_auroc'])} classes.", "",
             f"| arm, protocol | {' | '.join(METRICS.values())} |", "|---|" + "---|" * len(METRICS)]
    for arm, found in results["arms"].items():
        lines += [f"| {arm}, {name} | " + " | ".join(cell(values[m]) for m in METRICS) + " |"
                  for name, values in found["protocols"].items()]
        lines += [f"| {arm}, {name} | " + " | ".join(cell(values[m], "+") for m in METRICS) + " |"
                  for name, values in found["differences"].items()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="PTB-XL records with labels.csv")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--protocol", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--labelled-epochs", type=int, default=12, help="of the arm scratch")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("demo/segment_leak"), help="where finished folds are kept")
    parser.add_argument(
        "--pretraining-cache", type=Path, default=Path("demo/lead_agnostic"), help="the cache of lead_agnostic.py")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()

    data = ptbxl_bp100(args.folder)
    rows = data["cv"][0][0]
    X, record = pieces(data["X"][rows])
    patient = data["groups"][rows][record]
    y = load(args.folder)[1][rows][record].astype(int)
    weights = bootstrap_weights(patient, n_resamples=args.resamples, random_state=args.seed)
    weights = np.concatenate([np.ones((1, len(X)), weights.dtype), weights])
    common = common_classes(y, patient)
    settings = {"folds": args.folds, "labelled_epochs": args.labelled_epochs, "seed": args.seed}
    arms = {}
    for arm in args.arms:
        inputs = X
        if arm != "scratch":
            inputs = pretrain(
                RESNET, data["X"][rows], data["groups"][rows], args.pretraining_cache, EPOCHS[RESNET], args.seed,
            )[True].transform(X)
        units = protocols(record, patient)
        runs = {name: run(args.cache, arm, settings, inputs, y, units[name]) for name in args.protocol}
        scores = {name: score(proba, y, common, weights) for name, (proba, _) in runs.items()}
        arms[arm] = {
            "protocols": {name: {
                metric: {"value": round(float(values["value"]), 4), "interval": interval(values["resamples"])}
                for metric, values in found.items()} for name, found in scores.items()},
            "differences": {f"{name} minus patient": difference(scores[name], scores["patient"])
                            for name in args.protocol if name != "patient" and "patient" in args.protocol},
            "seconds": {name: round(seconds, 1) for name, (_, seconds) in runs.items()},
        }
    results = {
        "command": "python benchmarks/segment_leak.py FOLDER",
        "settings": settings | {"resamples": args.resamples, "arms": args.arms, "protocol": args.protocol},
        "machine": machine(), "classes": counts(y),
        "counts": {"pieces": len(X), "recordings": len(rows), "patients": len(np.unique(patient)),
                   "classes_of_auroc": [CLASSES.abbreviations[i] for i in common]},
        "arms": arms,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "segment_leak.md").write_text(table(results))
    print(table(results))
    write_json(args.output / "segment_leak.json", results)


if __name__ == "__main__":
    main()
