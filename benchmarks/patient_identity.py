"""Whose recording is it? Persons of ECG-ID who were never trained on, recognised by the nearest recording in a gallery.

    python benchmarks/patient_identity.py FOLDER [--ptbxl FOLDER]

FOLDER holds the ECG-ID Database (or part of it). Persons are divided into five folds; networks are trained on four and see
the persons of the fifth in the test alone. Each person's first record is the gallery, all others are probes, so that every
probe is tested once, by networks that do not know its person. Galleries: of the persons of the fold, and of all persons
(the others' recordings are known to the networks then, and in the way).

Recordings: lead I, raw, filtered to 0.5-40 Hz here (what the stored filtered signal went through is not documented), 100 Hz,
z-score. Arms:

- median beat: correlation of the median beats, at 500 Hz and at the networks' 100 Hz; nothing is learned
- scratch: ResNet1d trained by ArcFaceHead on the other persons
- CMSC: ResNet1d pretrained on the other persons' recordings without names, frozen; and trained further by ArcFaceHead
- with ``--ptbxl``, the ResNet1d that lead_agnostic.py pretrains on 12 leads of PTB-XL, given lead I alone: after CMSC with
  random lead masking (RLM) and without, frozen; and trained further by ArcFaceHead

Networks are compared by the cosine of embeddings: ``make_pipeline(embedder, KNeighborsClassifier(1, metric="cosine"))``.
``--cache`` keeps the scores of every fold and arm. Intervals (95 %) resample persons.
"""

import argparse
import copy
import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _baselines import IntervalMorphology
from _common import machine, write_json
from lead_agnostic import EPOCHS, RESNET, network, pretrain, ptbxl_bp100
from scipy.signal import resample_poly
from sklearn.frozen import FrozenEstimator
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GroupKFold

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg._files import write_atomically
from skecg.datasets import fetch_ecgid
from skecg.heads import ArcFaceHead
from skecg.metrics import bootstrap_weights
from skecg.objectives import Wav2Vec2CMSC
from skecg.preprocessing import BandpassFilter, LeadScaler, LeadSelector

FS = 100
PIECE = 5 * FS
MEDIAN_BEATS = {"median beat, 500 Hz": 500, "median beat, 100 Hz": FS}
REFERENCE = "median beat, 500 Hz"


def load(folder):
    """Lead I by sampling rate {fs: (n_records, 1, n_times)}, persons, dates; a person's records in their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partial copy
        data = fetch_ecgid(folder, lead_names=["ECG I"], download_if_missing=False)
    number = np.array([int(name.rpartition("_")[2]) for name in data.record_names])
    order = np.lexsort([number, data.target])
    X = np.stack([record.signal for record in data.records])[order]
    X = BandpassFilter(0.5, 40, fs=data.fs).fit_transform(X)
    signals = {data.fs: X, FS: resample_poly(X, FS, data.fs, axis=2).astype(np.float32)}
    signals = {fs: LeadScaler(scope="lead").fit_transform(X) for fs, X in signals.items()}
    return signals, data.target[order], data.date[order]


def split_gallery(person):
    """Rows of first records, and of all others."""
    first = np.unique(person, return_index=True)[1]
    return first, np.setdiff1d(np.arange(len(person)), first)


def median_beats(X, fs, before=0.25, after=0.45):
    """The median beat of each record less its mean (n_records, n_points); beats are aligned at their largest value."""
    find, reach = IntervalMorphology(fs), round(0.08 * fs)
    before, after, medians = round(before * fs), round(after * fs), []
    for (signal,) in X:
        beats = []
        for peak in find._peaks(signal[None]):
            start = max(0, peak - reach)
            peak = start + np.abs(signal[start:peak + reach]).argmax()
            if before <= peak <= len(signal) - after:
                beats.append(signal[peak - before:peak + after])
        medians.append(np.median(beats, axis=0))
    return np.array(medians) - np.mean(medians, axis=1, keepdims=True)


# --------------------------------------------------------------------------------------------------------- arms


def embedders(X, train, person, pretrained, settings, cache):
    """Functions that fit the embedder of each arm on the rows ``train``."""
    seed = settings["seed"]
    scratch = ECGSelfSupervisedEmbedder(network(RESNET), crop_size=PIECE, max_epochs=0)

    def cmsc():
        return ECGSelfSupervisedEmbedder(
            network(RESNET), Wav2Vec2CMSC(local_weight=0, lead_mask_prob=0), crop_size=2 * PIECE,
            max_epochs=settings["epochs"], checkpoint_dir=cache / "pretrained", random_state=seed,
        ).fit(X[train], groups=person[train]).set_params(crop_size=PIECE)

    def arcface(embedder, place=None):
        head_epochs = 0 if embedder is scratch else 10
        return ECGClassifier(
            embedder, ArcFaceHead(), head_epochs=head_epochs, max_epochs=settings["labelled_epochs"] - head_epochs,
            warmup=0.2, random_state=seed,
        ).fit((X if place is None else place(X))[train], person[train]).embedder_

    arms = {
        "scratch, ArcFace": lambda: arcface(scratch),
        "CMSC, frozen": cmsc,
        "CMSC, ArcFace": lambda: arcface(FrozenEstimator(cmsc())),
    }
    for rlm, embedder in pretrained.items():
        embedder = copy.copy(embedder).set_params(crop_size=PIECE)
        title = f"PTB-XL, {'RLM' if rlm else 'no RLM'}"
        arms[f"{title}, frozen"] = lambda embedder=embedder: embedder
        arms[f"{title}, ArcFace"] = lambda embedder=embedder: arcface(FrozenEstimator(embedder), on_twelve_leads)
    return arms


def on_twelve_leads(X):
    """Lead I in its place among the 12."""
    return LeadSelector(
        ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"], input_lead_names=["I"]).fit_transform(X)


def run(cache, signals, person, folds, arm, fold, pretrained, settings):
    """Similarity of a fold's probes with all first records (n_probes, n_persons), and seconds; from the cache if there."""
    X = signals[FS]
    first, probes = split_gallery(person)
    train, test = folds[fold]
    probes = np.intersect1d(probes, test)
    key = json.dumps([arm, settings, hashlib.sha256(X.tobytes()).hexdigest(), train.tolist(), person.tolist()])
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"
    if file.exists():
        with np.load(file) as stored:
            return stored["similarity"], float(stored["seconds"])
    started = time.perf_counter()
    if arm in MEDIAN_BEATS:
        embeddings = median_beats(signals[MEDIAN_BEATS[arm]], MEDIAN_BEATS[arm])
    else:
        embedder = embedders(X, train, person, pretrained, settings, cache)[arm]()
        embeddings = embedder.transform(X if embedder.n_leads_in_ == 1 else on_twelve_leads(X))
    similarity, seconds = cosine_similarity(embeddings[probes], embeddings[first]), time.perf_counter() - started
    write_atomically(file, lambda stream: np.savez_compressed(stream, similarity=similarity, seconds=seconds))
    print(f"fold {fold}, {arm}: {seconds:.0f} s", flush=True)
    return similarity, seconds


# --------------------------------------------------------------------------------------------------------- results


def verification(similarity, same, weights, false_alarms=0.01):
    """AUROC, equal error rate and hits at a share of false alarms, of weighted pairs.

    Parameters
    ----------
    similarity : ndarray of shape (n_pairs,)
    same : ndarray of shape (n_pairs,), bool
        Pairs of one person.
    weights : ndarray of shape (n_pairs,)
    """
    values, place = np.unique(-similarity, return_inverse=True)  # the most similar first
    hits, alarms = (np.bincount(place, weights * part, minlength=len(values)) for part in (same, ~same))
    hits, alarms = (np.r_[0.0, np.cumsum(part) / part.sum()] for part in (hits, alarms))
    crossing = np.argmax(alarms >= 1 - hits)
    # between thresholds the rates lie on straight lines, as for the area
    (a0, a1), (m0, m1) = alarms[crossing - 1:crossing + 1], 1 - hits[crossing - 1:crossing + 1]
    share = (m0 - a0) / ((m0 - a0) + (a1 - m1)) if a1 - m1 + m0 - a0 > 0 else 0.0
    return (np.trapezoid(hits, alarms), a0 + share * (a1 - a0), hits[np.flatnonzero(alarms <= false_alarms)[-1]])


def score(similarity, probe_person, gallery_person, allowed, other_day, weights):
    """Every figure (1 + n_resamples,), the study's own first.

    ``allowed`` (n_probes, n_persons) marks the gallery of each probe; ``weights`` (1 + n_resamples, n_persons) says how
    often each person was drawn. Pairs count as often as both of their persons.
    """
    similarity = np.where(allowed, similarity, -np.inf)
    right = gallery_person[similarity.argmax(axis=1)] == probe_person
    column = np.searchsorted(gallery_person, probe_person)
    same = probe_person[:, None] == gallery_person
    found = {name: np.empty(len(weights)) for name in ("rank_1", "rank_1_other_day", "auroc", "eer", "tar_at_far_1")}
    for i, weight in enumerate(weights):
        of_probe = weight[column]
        found["rank_1"][i] = np.average(right, weights=of_probe)
        found["rank_1_other_day"][i] = np.average(right[other_day], weights=of_probe[other_day])
        pairs = np.where(same, of_probe[:, None], of_probe[:, None] * weight)
        found["auroc"][i], found["eer"][i], found["tar_at_far_1"][i] = verification(
            similarity[allowed], same[allowed], pairs[allowed])
    return found


def interval(resamples):
    return [round(float(bound), 4) for bound in np.quantile(resamples, [0.025, 0.975])]


def figure(found, path):
    """Rank-1 and hits at 1 % false alarms of all arms."""
    import matplotlib.pyplot as plt

    names = list(found)
    axes = plt.subplots(1, 2, figsize=(9.0, 0.9 + 0.33 * len(names)), sharey=True, layout="constrained")[1]
    for ax, metric, title in zip(axes, ("rank_1", "tar_at_far_1"), (
            "rank-1 identification", "verified at 1 % false acceptance"), strict=True):
        for offset, gallery, colour in ((-0.14, "all persons", "tab:blue"), (0.14, "persons of the fold", "tab:orange")):
            rows = [found[name][gallery][metric] for name in names]
            values = np.array([row["value"] for row in rows])
            ends = np.array([row["interval"] for row in rows]).T
            ax.errorbar(values, np.arange(len(names)) + offset, xerr=np.maximum(0, [values - ends[0], ends[1] - values]),
                        fmt="o", color=colour, capsize=2.5, markersize=4, label=f"gallery: {gallery}")
        ax.set_title(title, fontsize="medium")
        ax.grid(alpha=0.3)
    axes[0].set_yticks(np.arange(len(names)), names)
    axes[0].invert_yaxis()
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, frameon=False, fontsize="small", loc="outside lower center", ncols=2)
    axes[0].figure.savefig(path, dpi=150)


def report(results):
    """The main figures as Markdown."""
    titles = {"rank_1": "rank-1", "rank_1_other_day": "rank-1, other day", "auroc": "AUROC", "eer": "equal error rate",
              "tar_at_far_1": "accepted at 1 % false acceptance"}

    def cell(row):
        return f"{row['value']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]"

    n = results["counts"]
    lines = [
        f"{n['probes']} probes of {n['persons_with_probes']} persons, {n['probes_other_day']} of them from another day than "
        f"the gallery's record; {n['persons']} persons in all, {n['persons_per_fold']} in a fold. Intervals over persons.",
        "", "![Patient identity](patient_identity.png)",
    ]
    for gallery in ("all persons", "persons of the fold"):
        lines += ["", f"Gallery: {gallery}.", "", "| arm | " + " | ".join(titles.values()) + " |",
                  "|---|" + "---|" * len(titles)]
        lines += [f"| {arm} | " + " | ".join(cell(found[gallery][metric]) for metric in titles) + " |"
                  for arm, found in results["arms"].items()]
    lines += ["", "Paired differences, gallery of all persons:", "", "| arm minus reference | rank-1 | AUROC | "
              "accepted at 1 % false acceptance |", "|---|---|---|---|"]
    lines += [f"| {row['arm']} minus {row['reference']} | " + " | ".join(
        f"{row[m]['value']:+.3f} [{row[m]['interval'][0]:+.3f}, {row[m]['interval'][1]:+.3f}]"
        for m in ("rank_1", "auroc", "tar_at_far_1")) + " |" for row in results["differences"]]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="ECG-ID")
    parser.add_argument("--ptbxl", type=Path, help="PTB-XL as for lead_agnostic.py, for the networks pretrained on it")
    parser.add_argument("--epochs", type=int, default=60, help="of pretraining on ECG-ID")
    parser.add_argument("--labelled-epochs", type=int, default=80)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("demo/patient_identity"), help="where finished folds are kept")
    parser.add_argument("--ptbxl-cache", type=Path, default=Path("demo/lead_agnostic"), help="the cache of lead_agnostic.py")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()

    signals, person, date = load(args.folder)
    X = signals[FS]
    pretrained = {}
    if args.ptbxl:
        data = ptbxl_bp100(args.ptbxl)
        train = data["cv"][0][0]
        pretrained = pretrain(RESNET, data["X"][train], data["groups"][train], args.ptbxl_cache, EPOCHS[RESNET], args.seed)
    settings = {"epochs": args.epochs, "labelled_epochs": args.labelled_epochs, "seed": args.seed,
                "ptbxl_epochs": EPOCHS[RESNET] if args.ptbxl else None}
    folds = list(GroupKFold(5, shuffle=True, random_state=args.seed).split(X, groups=person))
    first, probes = split_gallery(person)
    fold_of = np.empty(len(person), int)
    for i, (_, test) in enumerate(folds):
        fold_of[test] = i
    order = np.concatenate([np.intersect1d(probes, test) for _, test in folds])
    other_day = date[order] != date[first][np.searchsorted(person[first], person[order])]
    galleries = {"all persons": np.ones((len(order), len(first)), bool),
                 "persons of the fold": fold_of[order][:, None] == fold_of[first]}
    weights = bootstrap_weights(np.arange(len(first)), n_resamples=args.resamples, random_state=args.seed)
    weights = np.concatenate([np.ones((1, len(first)), int), weights])

    names = [*MEDIAN_BEATS, *embedders(X, folds[0][0], person, pretrained, settings, args.cache)]
    arms, scores = {}, {}
    for arm in names:
        runs = [run(args.cache, signals, person, folds, arm, fold, pretrained, settings) for fold in range(len(folds))]
        similarity = np.concatenate([found for found, _ in runs])
        scores[arm] = {
            gallery: score(similarity, person[order], person[first], allowed, other_day, weights)
            for gallery, allowed in galleries.items()}
        arms[arm] = {gallery: {metric: {"value": round(float(values[0]), 4), "interval": interval(values[1:])}
                               for metric, values in found.items()} for gallery, found in scores[arm].items()}
        arms[arm]["seconds"] = round(sum(seconds for _, seconds in runs), 1)
    pairs = [
        ("scratch, ArcFace", REFERENCE), ("CMSC, frozen", REFERENCE), ("CMSC, ArcFace", REFERENCE),
        ("CMSC, ArcFace", "scratch, ArcFace"), ("PTB-XL, RLM, frozen", REFERENCE), ("PTB-XL, RLM, frozen", "CMSC, frozen"),
        ("PTB-XL, RLM, frozen", "PTB-XL, no RLM, frozen"), ("PTB-XL, RLM, ArcFace", REFERENCE),
        ("PTB-XL, RLM, ArcFace", "scratch, ArcFace"), ("PTB-XL, RLM, ArcFace", "PTB-XL, no RLM, ArcFace"),
    ]
    differences = [
        {"arm": arm, "reference": reference} | {
            metric: {"value": round(float(drawn[0]), 4), "interval": interval(drawn[1:])}
            for metric, values in scores[arm]["all persons"].items()
            for drawn in [values - scores[reference]["all persons"][metric]]}
        for arm, reference in pairs if arm in scores]
    persons = np.unique(person[probes])
    results = {
        "command": "python benchmarks/patient_identity.py FOLDER" + (" --ptbxl FOLDER" if args.ptbxl else ""),
        "settings": settings | {"resamples": args.resamples}, "machine": machine(),
        "counts": {"persons": len(first), "probes": len(probes), "persons_with_probes": len(persons),
                   "probes_other_day": int(other_day.sum()),
                   "persons_per_fold": "-".join(str(f(np.bincount(fold_of[first]))) for f in (np.min, np.max))},
        "arms": arms, "differences": differences,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    figure(arms, args.output / "patient_identity.png")
    text = report(results)
    (args.output / "patient_identity.md").write_text(text)
    print(text)
    write_json(args.output / "patient_identity.json", results)


if __name__ == "__main__":
    main()
