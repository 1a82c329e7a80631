"""Sleep stages from the ECG: 3-s segments by HeartBERT, a BiLSTM over the segments of neighbouring epochs.

    python benchmarks/sleep_stages.py FOLDER

FOLDER holds beat times (``.ecg``) and sleep stages (``.st``) of the MIT-BIH Polysomnographic Database, whose waveforms were
not available: those are simulated. Rhythm and stages are real, each beat is where it was in the night; the shape of the
beats, one simulated heart for each subject, and the noise are not. (All are sinus beats; 125 of 246,000 were noted as
others.)
The nights are written as WFDB in the layout of the database, and read back by fetch_slpdb and make_epochs.

Epochs of 30 s are scored in 5, 4 and 3 classes at natural prevalence, cross-validated by subject (slp02a and slp02b are one
subject):

- ``pretrained``: each of an epoch's ten segments of 3 s is embedded by itself, by an embedder that was pretrained on
  segments of the training subjects; a BiLSTM reads those of the epoch and its two neighbours, and names one stage.
- ``random network``: the same without pretraining (levels and tokens are learned from the training subjects).
- ``heart rate, boosted trees``: the mean, the spread and the mean successive difference of the RR intervals of the epoch, of
  five epochs around it, and relative to the night, without a network. It has the beat times; the networks have to find them.

``protocol="paper"`` is what HeartBERT's notebooks do: fragments of 3 s, each with the stage of its epoch, those of all
subjects split at random, so that fragments of one epoch are in training and test. The same fragments are split by subject,
too, and classified by the same fine-tuned arm: the gap is the paired difference, with the bootstrap over subjects.

``--cache`` keeps the nights, every pretraining and every result, so that the same command goes on where it was stopped.
"""

import argparse
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from _common import machine, write_json
from heartbeats import interval_text, rates, resampled, share_text, with_interval, without_nan
from scipy.signal import decimate
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier
from skecg.datasets import ECGRecord, fetch_slpdb, write_record
from skecg.datasets._records import read_annotations
from skecg.datasets._synthetic_classes import CONDITIONS
from skecg.datasets._synthetic_heart import draw_dipole, draw_patient, sinus_beats
from skecg.datasets._synthetic_torso import MONTAGE, draw_noise
from skecg.encoders import TokenTransformer
from skecg.heads import BiLSTMHead
from skecg.model_selection import MultilabelStratifiedGroupKFold
from skecg.objectives import MaskedLanguageModeling
from skecg.preprocessing import ECGQuantizer, ECGTokenizer, make_epochs

FS, FACTOR = 250, 5  # Hz; networks see 50 Hz
SEGMENT = 3 * FS // FACTOR  # samples
LEADS = (0, 1, 10)  # I, II, V5 of the simulator's twelve; that with the largest beats is recorded
MERGED = {
    5: {name: name for name in ("W", "N1", "N2", "N3", "R")},
    4: {"W": "W", "N1": "light", "N2": "light", "N3": "deep", "R": "R"},
    3: {"W": "W", "N1": "NREM", "N2": "NREM", "N3": "NREM", "R": "R"},
}
PRETRAINED, RANDOM, BASELINE = "pretrained", "random network", "heart rate, boosted trees"


# ---------------------------------------------------------------------------------------------------------------- data


def simulate(source, folder, seed):
    """A night for each record in ``source``: its beats where they were, its stages; in ``folder``, as slpdb is laid out."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, stages in enumerate(sorted(source.glob("*.st"))):
        name = stages.stem
        if (folder / f"{name}.st").exists():  # copied last
            continue
        notes, beats = read_annotations(source / name, "st"), read_annotations(source / name, "ecg")
        n_times = max(beats.sample[-1], notes.sample[-1]) + 30 * FS
        rng = np.random.default_rng([seed, int("".join(filter(str.isdigit, name)))])  # one heart for a subject
        patient = draw_patient(rng, rng.spawn(1)[0], CONDITIONS["normal"], ages=(30, 60))
        night = np.random.default_rng([seed, 1, number])
        dipole, _, _ = draw_dipole(night, patient, n_times, FS, sinus_beats(patient, beats.sample / FS))
        hour = draw_noise(night, min(n_times, 3600 * FS), FS, 60.0)  # of one level all night
        montage = MONTAGE[max(LEADS, key=lambda k: np.std(MONTAGE[k] @ patient.electrodes @ dipole[:, : 60 * FS]))]
        lead, noise = montage @ patient.electrodes, np.resize(montage @ hour, n_times)
        signal = lead @ dipole + 0.5 * noise
        write_record(folder / name, ECGRecord(signal[None].astype(np.float32), FS, ["ECG"]))
        for extension in ("ecg", "st"):
            shutil.copyfile(source / f"{name}.{extension}", folder / f"{name}.{extension}")


def read(folder):
    """Epochs at 50 Hz, their stage in five classes, subject, and place; the RR intervals are read apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a part of the database
        data = fetch_slpdb(folder, download_if_missing=False)
        X, y, groups, places = make_epochs(data)
    parts = [decimate(X[rows], FACTOR, ftype="fir").astype(np.float32) for rows in np.array_split(np.arange(len(X)), 20)]
    return np.concatenate(parts), y, groups, places, heart_rate(data, places)


def heart_rate(data, places):
    """Features of the RR intervals around each epoch, (n_epochs, n_features)."""
    features = []
    for record in np.unique(places[:, 0]):
        beats = np.asarray(data.records[record].annotations.sample) / FS
        rr = np.diff(beats)
        middle, normal = beats[1:] - rr / 2, (rr > 0.3) & (rr < 2.0)
        rr, middle = rr[normal], middle[normal]
        epochs = places[places[:, 0] == record, 1]
        columns = []
        for around in (0, 2):  # the epoch, and five of them
            start, stop = (np.searchsorted(middle, 30 * (epochs + k)) for k in (-around, around + 1))
            for a, b in zip(start, stop, strict=True):
                own = rr[a:b]
                known = len(own) > 2
                columns.append([own.mean(), own.std(), np.abs(np.diff(own)).mean()] if known else [np.nan] * 3)
        columns = np.array(columns).reshape(2, len(epochs), 3).transpose(1, 0, 2).reshape(len(epochs), 6)
        features.append(np.hstack([columns, columns / np.nanmedian(columns, axis=0)]))
    return np.concatenate(features)


def with_neighbours(places, n):
    """Rows of the epochs before and after each, (n_epochs, 2 n + 1); where there is none, -1."""
    row = {tuple(place): i for i, place in enumerate(places.tolist())}
    return np.array([[row.get((record, epoch + k), -1) for k in range(-n, n + 1)] for record, epoch in places.tolist()])


def sequences(segments, neighbours):
    """Segments of neighbouring epochs in a row, (n_epochs, n_segments, n_features); NaN where there is no epoch."""
    joined = segments[neighbours]
    joined[neighbours < 0] = np.nan
    return joined.reshape(len(neighbours), -1, segments.shape[2])


# --------------------------------------------------------------------------------------------------------------- arms


def embedder(options, epochs):
    encoder = TokenTransformer(
        ECGQuantizer(options.levels, method="lloyd-max"), ECGTokenizer(options.vocabulary), embed_dim=options.width,
        depth=options.depth, dropout=0.1,
    )
    return ECGSelfSupervisedEmbedder(
        encoder, MaskedLanguageModeling(), crop_size=SEGMENT, output="crops", max_epochs=epochs, batch_size=64,
        learning_rate=2e-3, random_state=options.seed,
    )


class Cache:
    """Results by name, in a folder or not at all."""

    def __init__(self, folder, options):
        # where the data are, and what is not theirs, changes no result
        own = {k: v for k, v in vars(options).items() if k not in ("folder", "cache", "output")}
        self.folder = folder and folder / joblib.hash(own)

    def __call__(self, name, make):
        if self.folder is None:
            return make()
        file = self.folder / f"{name}.joblib"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            started = time.process_time()
            found = make()
            partial = file.with_suffix(".partial")
            joblib.dump((found, time.process_time() - started), partial)
            partial.replace(file)
            print(f"{name}: {time.process_time() - started:.0f} s", flush=True)
        return joblib.load(file)[0]

    def seconds(self):
        return sum(joblib.load(file)[1] for file in self.folder.glob("*.joblib")) if self.folder else None


def folds_by_subject(data, options):
    X, y, groups, _, _ = data
    folds = MultilabelStratifiedGroupKFold(options.folds, shuffle=True, random_state=options.seed)
    return list(folds.split(X, y, groups))


def stage_by_subject(data, options, cache):
    """Predicted stages of every epoch, by arm and number of classes."""
    X, y, _, places, rates_of_heart = data
    neighbours = with_neighbours(places, options.neighbours)
    predicted = {(arm, n): np.empty(len(y), "<U5") for arm in (PRETRAINED, RANDOM, BASELINE) for n in MERGED}
    for fold, (train, test) in enumerate(folds_by_subject(data, options)):
        for arm, epochs in ((PRETRAINED, options.epochs), (RANDOM, 0)):
            known = cache(f"{arm} {fold}", lambda e=epochs, rows=train: embedder(options, e).fit(X[rows]))
            segments = cache(f"segments {arm} {fold}", lambda known=known: known.transform(X))
            sequence = sequences(segments, neighbours)
            for n, names in MERGED.items():
                target = np.array([names[stage] for stage in y])

                def head(sequence=sequence, target=target, train=train, test=test):
                    own = sequence[train]
                    flat = own.reshape(-1, own.shape[2])
                    mean, scale = np.nanmean(flat, axis=0), np.nanstd(flat, axis=0) + 1e-6
                    model = HeadClassifier(
                        BiLSTMHead(64), max_epochs=options.labelled_epochs, batch_size=64, learning_rate=2e-3,
                        random_state=options.seed)
                    return model.fit((own - mean) / scale, target[train]).predict((sequence[test] - mean) / scale)

                predicted[arm, n][test] = cache(f"stages {arm} {n} {fold}", head)
        for n, names in MERGED.items():
            target = np.array([names[stage] for stage in y])
            trees = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=options.seed)
            predicted[BASELINE, n][test] = trees.fit(rates_of_heart[train], target[train]).predict(rates_of_heart[test])
    return predicted


def fragments_by_protocol(data, options, cache):
    """Stage of each fragment, and what it was called, when split by subject and at random."""
    X, y, groups, _, _ = data
    rng = np.random.default_rng(options.seed)
    pieces = X.reshape(len(X), 1, -1, SEGMENT)
    chosen = np.argsort(rng.random((len(X), pieces.shape[2])), axis=1)[:, : options.fragments]
    fragments = np.take_along_axis(pieces[:, 0], chosen[..., None], axis=1).reshape(-1, 1, SEGMENT)
    stage, subject = np.repeat(y, options.fragments), np.repeat(groups, options.fragments)
    at_random = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed)
    rows = np.arange(len(stage)).reshape(len(X), -1)
    splits = {
        "subject": [(rows[train].ravel(), rows[test].ravel()) for train, test in folds_by_subject(data, options)],
        "paper": list(at_random.split(fragments, stage)),
    }
    predicted = {}
    for protocol, folds in splits.items():
        predicted[protocol] = np.empty(len(stage), "<U5")
        for fold, (train, test) in enumerate(folds):
            def fit(protocol=protocol, fold=fold, train=train, test=test):
                if protocol == "subject":  # pretrained on these training subjects
                    own = np.unique(train // options.fragments)
                    known = cache(f"{PRETRAINED} {fold}", lambda: embedder(options, options.epochs).fit(X[own]))
                else:  # on whatever there is, as HeartBERT
                    known = cache("pretrained on all", lambda: embedder(options, options.epochs).fit(X))
                model = ECGClassifier(
                    FrozenEstimator(segment_embedder(known)), BiLSTMHead(64), trainable=1,
                    max_epochs=options.labelled_epochs // 3, batch_size=64, learning_rate=2e-3, random_state=options.seed)
                return model.fit(fragments[train], stage[train]).predict(fragments[test])

            predicted[protocol][test] = cache(f"fragments {protocol} {fold}", fit)
    return stage, subject, predicted


def segment_embedder(known):
    """The same network for windows that are one segment."""
    frozen = FrozenEstimator(known.encoder_.quantizer_), FrozenEstimator(known.encoder_.tokenizer_)
    single = clone(known).set_params(
        encoder__quantizer=frozen[0], encoder__tokenizer=frozen[1], crop_size=None, output="embedding", max_epochs=0)
    single.fit(np.tile(np.arange(SEGMENT, dtype=np.float32) % 2, (2, 1, 1)))
    single.network_.load_state_dict(known.network_.state_dict())
    return single


# ----------------------------------------------------------------------------------------------------- what was found


def confusions(true, called, groups):
    """(n_subjects, n_classes, n_classes), and the classes."""
    names, subjects = np.unique(true), np.unique(groups)
    counts = np.zeros((len(subjects), len(names), len(names)))
    places = (np.searchsorted(part, values) for part, values in ((subjects, groups), (names, true), (names, called)))
    np.add.at(counts, tuple(places), 1)
    return counts, names


def scores(counts):
    """Cohen's kappa, macro F1, and the rates of each class from (n_resamples, n_classes, n_classes)."""
    total = counts.sum(axis=(1, 2))
    agreed = np.einsum("rcc->r", counts) / total
    by_chance = np.einsum("rc,rc->r", counts.sum(axis=1), counts.sum(axis=2)) / total**2
    return {"kappa": (agreed - by_chance) / (1 - by_chance), "accuracy": agreed,
            "macro_f1": np.nanmean(rates(counts)["f1"], axis=1)}


def results(data, predicted, fragments):
    _, y, groups, _, _ = data
    found = {"stages": [], "classes": [], "protocols": []}
    for (arm, n), called in predicted.items():
        counts, names = confusions(np.array([MERGED[n][stage] for stage in y]), called, groups)
        drawn = resampled(counts)
        found["stages"].append({"arm": arm, "n_classes": n, **{k: with_interval(v) for k, v in scores(drawn).items()}})
        found["classes"] += [
            {"arm": arm, "n_classes": n, "class": str(name), "n": int(counts.sum(axis=(0, 2))[i]),
             **{k: with_interval(v[:, i]) for k, v in rates(drawn).items()}} for i, name in enumerate(names)
        ]
    stage, subject, by_protocol = fragments
    for n, merged in MERGED.items():
        both = {}
        for protocol, called in by_protocol.items():
            pair = (np.array([merged[name] for name in values]) for values in (stage, called))
            both[protocol] = scores(resampled(confusions(*pair, subject)[0]))
        for metric in ("kappa", "macro_f1", "accuracy"):
            honest, leaky = both["subject"][metric], both["paper"][metric]
            found["protocols"].append({
                "n_classes": n, "metric": metric, "subject": with_interval(honest), "paper": with_interval(leaky),
                "gap": with_interval(leaky - honest),
            })
    return found


def plot(path, found):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    arms = list(dict.fromkeys(row["arm"] for row in found["stages"]))
    left = [(arm, [row["kappa"] for row in found["stages"] if row["arm"] == arm]) for arm in arms]
    rows = [row for row in found["protocols"] if row["metric"] == "kappa"]
    right = [(f"split {how}", [row[key] for row in rows])
             for key, how in (("subject", "by subject"), ("paper", "at random (paper)"))]
    for ax, series, title in zip(axes, (left, right), ("epochs of 30 s, by subject", "fragments of 3 s"), strict=True):
        for i, (name, values) in enumerate(series):
            value, low, high = (np.array([one[key] for one in values]) for key in ("value", "low", "high"))
            place = np.arange(len(values)) + 0.24 * (i - (len(series) - 1) / 2)
            ax.bar(place, value, 0.22, yerr=[value - low, high - value], capsize=3, label=name,
                   color=f"C{i + (3 if ax is axes[1] else 0)}")
        ax.set_xticks(range(3), [f"{n} classes" for n in MERGED])
        ax.set(title=title)
        ax.legend(fontsize=9, loc="upper left", ncols=len(series) if ax is axes[1] else 2)
    top = max(row["kappa"]["high"] for row in found["stages"]), max(row["paper"]["high"] for row in rows)
    axes[0].set_ylim(top=1.3 * max(top))
    axes[0].set_ylabel("Cohen's kappa")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def report(found, numbers):
    lines = [
        f"{numbers['epochs']:,} epochs of {numbers['nights']} nights of {numbers['subjects']} subjects "
        f"({', '.join(f'{name} {n:,}' for name, n in numbers['stages'].items())}); {numbers['folds']} folds by subject; "
        f"{numbers['tokens']:.0f} tokens in 3 s. 95 % intervals over subjects. Waveforms are simulated; beat times and "
        "stages are real.",
        "", "![Sleep stages](sleep_stages.png)", "",
        "Epochs of 30 s, Cohen's kappa; macro F1:", "",
        "| arm | " + " | ".join(f"{n} classes" for n in MERGED) + " |", "|---|" + "---|" * len(MERGED),
    ]
    for arm in dict.fromkeys(row["arm"] for row in found["stages"]):
        cells = [f"{interval_text(row['kappa'])}; {interval_text(row['macro_f1'])}"
                 for row in found["stages"] if row["arm"] == arm]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    names = list(dict.fromkeys(row["class"] for row in found["classes"] if row["n_classes"] == 5))
    lines += ["", "F1 of each of the five classes (sensitivity / positive predictive value):", "",
              "| arm | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for arm in dict.fromkeys(row["arm"] for row in found["classes"]):
        rows = [row for row in found["classes"] if (row["arm"], row["n_classes"]) == (arm, 5)]
        cells = [f"{interval_text(row['f1'])} ({share_text(row['sensitivity'])} / {share_text(row['ppv'])})"
                 for row in rows]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += [
        "", f"Fragments of 3 s, {numbers['fragments']} of each epoch, pretrained and fine-tuned on five classes (merged for "
        "four and three), by either protocol on the same fragments:", "",
        "| classes | metric | split by subject | split at random (paper) | gap |", "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['n_classes']} | {row['metric'].replace('_f1', ' F1')} | {interval_text(row['subject'])} | "
        f"{interval_text(row['paper'])} | {interval_text(row['gap'], '+')} |" for row in found["protocols"]
    ]
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="with slp*.ecg and slp*.st")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, default=1, help="epochs on each side that are read too")
    parser.add_argument("--fragments", type=int, default=2, help="of the ten of each epoch, by either protocol")
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6, help="of pretraining")
    parser.add_argument("--labelled-epochs", type=int, default=9, help="of the BiLSTM; a third of it for fragments")
    parser.add_argument("--cache", type=Path, default=None, help="folder for nights and finished parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as temporary:
        nights = (options.cache or Path(temporary)) / f"nights{options.seed}" / "slpdb"
        simulate(options.folder, nights, options.seed)
        data = X, y, groups, places, _ = read(nights)
    cache = Cache(options.cache, options)
    predicted = stage_by_subject(data, options, cache)
    fragments = fragments_by_protocol(data, options, cache)
    found = results(data, predicted, fragments)
    ids = embedder(options, 0).encoder.fit(X[:, :, :SEGMENT]).encode_inputs(X[:, :, :SEGMENT])
    numbers = {
        "epochs": len(y), "nights": len(np.unique(places[:, 0])), "subjects": len(np.unique(groups)), "folds": options.folds,
        "stages": {name: int((y == name).sum()) for name in MERGED[5]}, "fragments": options.fragments,
        "tokens": float((ids != 1).sum(axis=2).mean()),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    plot(options.output / "sleep_stages.png", found)
    text = report(found, numbers)
    (options.output / "sleep_stages.md").write_text(text)
    print(text)
    write_json(options.output / "sleep_stages.json", {
        "options": {k: v for k, v in vars(options).items() if k not in ("folder", "cache", "output")}, "data": numbers,
        "results": without_nan(found), "processor_seconds": cache.seconds(), "machine": machine(),
    })


if __name__ == "__main__":
    main()
