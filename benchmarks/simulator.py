"""The simulator beside real recordings: the same intervals and amplitudes, measured by the same code.

    python benchmarks/simulator.py FOLDER

FOLDER holds ptbxl/ and mitdb/ in PhysioNet's layout, whole or in part. Of PTB-XL, each record of a class is compared with
simulated patients of that class and of the same ages: normal ones at 500 Hz, classes at 100 Hz. Of the MIT-BIH database, the
timing of premature beats and of fibrillation is compared by its annotations. Three questions follow: how well the
delineator finds the simulator's own onsets and ends, whether age has the same effect, and whether a classifier can tell
simulated from real.
"""

import argparse
import ast
import csv
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from _common import machine, write_json
from scipy.signal import butter, find_peaks, resample_poly, sosfiltfilt, welch
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg.datasets import make_ecg_records, read_record
from skecg.metrics import macro_roc_auc

FS = 500  # Hz, of all measurements
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
CLASSES = {  # SCP codes of PTB-XL
    "sinus bradycardia": {"SBRAD"}, "sinus tachycardia": {"STACH"}, "sinus arrhythmia": {"SARRH"},
    "atrial fibrillation": {"AFIB"}, "atrial flutter": {"AFLT"}, "first-degree AV block": {"1AVB"},
    "left bundle branch block": {"CLBBB"}, "right bundle branch block": {"CRBBB"},
    "left anterior fascicular block": {"LAFB"}, "left ventricular hypertrophy": {"LVH"},
    "anterior myocardial infarction": {"AMI", "ASMI"}, "inferior myocardial infarction": {"IMI"},
    "premature ventricular contractions": {"PVC"},
}
WITHOUT_P = ("atrial fibrillation", "atrial flutter")
BANDS = {"below 0.5": (0, 0.5), "0.5-5": (0.5, 5), "5-15": (5, 15), "15-40": (15, 40), "40-100": (40, 100)}  # Hz


def r_peaks(X):
    """Bursts of activity over all leads, at least 0.25 s apart, in samples."""
    speed = np.abs(np.gradient(X, axis=-1)).sum(axis=0)
    level = np.convolve(speed, np.ones(FS // 12) / (FS // 12), mode="same")
    peaks = find_peaks(level, height=0.35 * np.percentile(level, 98), distance=FS // 4)[0]
    return peaks


def median_beat(X, peaks, before, after):
    """The usual beat, aligned by correlation: shape (n_leads, before + after), in samples."""
    rr = np.diff(peaks)
    usual = np.concatenate([[True], np.abs(rr / np.median(rr) - 1) < 0.15])
    peaks = peaks[usual & (peaks >= before + 25) & (peaks < X.shape[1] - after - 25)]
    if len(peaks) < 2:
        return None
    template = np.median([X[:, p - before : p + after] for p in peaks], axis=0)
    core = slice(before - FS // 10, before + FS // 10)
    lags = np.arange(-25, 26)
    aligned = []
    for p in peaks:
        match = [np.sum(template[:, core] * X[:, p + lag - before : p + lag + after][:, core]) for lag in lags]
        aligned.append(p + lags[np.argmax(match)])
    return np.median([X[:, p - before : p + after] for p in aligned], axis=0)


def edge(speed, start, step, threshold, patience):
    """First sample from which on ``speed`` stays below the threshold for ``patience`` samples."""
    i = start
    while 0 < i < len(speed) - 1:
        ahead = speed[max(0, i - patience + 1) : i + 1] if step < 0 else speed[i : i + patience]
        if np.all(ahead < threshold):
            return i
        i += step
    return i


def measure(signal, fs):
    """Intervals (ms), amplitudes (mV), axis (degrees) and spectrum of twelve leads, by name; NaN where there is none."""
    X = np.asarray(signal, dtype=float)
    if fs != FS:
        X = resample_poly(X, FS, int(fs), axis=-1)
    result = {}
    lead = {name: X[i] for i, name in enumerate(LEADS)}
    result["residual of I + III = II (uV, rms)"] = 1e3 * np.std(lead["I"] + lead["III"] - lead["II"])
    frequency, power = welch(X, FS, nperseg=4 * FS, detrend="constant")
    power = power.mean(axis=0)
    for name, (low, high) in BANDS.items():
        if high <= fs / 2 * 0.9:
            inside = (frequency >= low) & (frequency < high)
            result[f"log10 power {name} Hz (mV²)"] = np.log10(power[inside].sum() * frequency[1] + 1e-12)
    X = sosfiltfilt(butter(2, (0.4, 40), "bandpass", fs=FS, output="sos"), X, axis=-1)
    peaks = r_peaks(X)
    if len(peaks) < 4:
        return result
    rr = np.diff(peaks) / FS
    result["heart rate (1/min)"] = 60 / np.mean(rr)
    result["SD of RR / mean"] = np.std(rr) / np.mean(rr)
    result["RMSSD / mean"] = np.sqrt(np.mean(np.diff(rr) ** 2)) / np.mean(rr)

    usual = np.median(rr)
    before, after = int(min(0.36, 0.5 * usual) * FS), int(min(0.62, 0.68 * usual) * FS)
    beat = median_beat(X, peaks, before, after) if before > FS // 8 else None
    if beat is None:
        return result
    speed = np.linalg.norm(np.gradient(beat, axis=1) * FS, axis=0)  # mV/s
    speed = np.convolve(speed, np.ones(5) / 5, mode="same")
    core = slice(before - FS // 10, before + FS // 10)
    top = core.start + speed[core].argmax()
    onset = edge(speed, top, -1, 0.06 * speed[core].max(), 8)
    end = edge(speed, top, 1, 0.085 * speed[core].max(), 10)
    result["QRS duration (ms)"] = 1e3 * (end - onset) / FS
    beat = beat - np.median(beat[:, max(0, onset - 10) : onset - 1], axis=1, keepdims=True)
    qrs, at = beat[:, onset : end + 1], dict(zip(LEADS, beat, strict=True))
    for name in ("I", "II", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"):
        wave = qrs[LEADS.index(name)]
        result[f"R {name} (mV)"], result[f"S {name} (mV)"] = max(0, wave.max()), min(0, wave.min())
    net = {name: result[f"R {name} (mV)"] + result[f"S {name} (mV)"] for name in ("I", "aVF")}
    result["QRS axis (degrees)"] = np.degrees(np.arctan2(net["aVF"] * 2 / np.sqrt(3), net["I"]))
    for name in ("II", "V2", "V5"):
        result[f"ST {name} (mV)"] = at[name][min(end + int(0.06 * FS), len(beat[0]) - 1)]

    first = end + int(0.08 * FS)
    size = np.linalg.norm(beat, axis=0)
    if first < len(size) - 20:
        peak = first + size[first:].argmax()
        for name in ("I", "II", "V1", "V2", "V5"):
            near = at[name][max(first, peak - 25) : peak + 25]
            result[f"T {name} (mV)"] = near[np.abs(near).argmax()]
        fall = np.gradient(size)[peak : peak + int(0.16 * FS)]
        if len(fall) and fall.min() < 0:
            steepest = peak + fall.argmin()
            t_end = steepest + size[steepest] / -fall.min()
            result["QT (ms)"] = 1e3 * (t_end - onset) / FS
            result["QTcF (ms)"] = result["QT (ms)"] / np.cbrt(np.mean(rr))

    atrial = np.linalg.norm(beat[:, : onset - int(0.015 * FS)], axis=0)
    if len(atrial) > 40:
        peak = len(atrial) - 1 - atrial[::-1][: int(0.24 * FS)].argmax()
        level = np.median(np.sort(atrial)[: len(atrial) // 3])
        if 0 < peak < len(atrial) - 1 and atrial[peak] > 2.5 * level and atrial[peak] > 0.08:
            start = edge(atrial, peak, -1, level + 0.15 * (atrial[peak] - level), 5)
            result["PR (ms)"] = 1e3 * (onset - start) / FS
            result["P II (mV)"] = at["II"][max(0, peak - 15) : peak + 15].max()
    return result


def table(rows):
    """Measurements by name, NaN where a record has none."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def compare(simulated, real):
    """Median and quartiles side by side, and the largest difference of the two distribution functions."""
    rows = {}
    for name in simulated:
        if name not in real:
            continue
        pair = [values[np.isfinite(values)] for values in (simulated[name], real[name])]
        if min(map(len, pair)) < 3:
            continue
        a, b = map(np.sort, pair)
        both = np.concatenate([a, b])
        distance = np.abs(np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)).max()
        rows[name] = {
            "simulated": summary(a), "real": summary(b), "Kolmogorov-Smirnov distance": round(float(distance), 3),
        }
    return rows


def summary(values):
    return {"median": figure(np.median(values)), "quartiles": [figure(q) for q in np.quantile(values, (0.25, 0.75))],
            "n": len(values)}


def figure(value):
    return float(f"{value:.3g}")


def ptbxl_rows(folder):
    """Rows of PTB-XL with their codes, age and sex."""
    with open(folder / "ptbxl_database.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            codes = set(ast.literal_eval(row["scp_codes"]))
            yield row, codes, float(row["age"] or "nan"), "MF"[int(row["sex"])]


def read_ptbxl(folder, fs, wanted):
    """Measurements, ages and sexes of the rows that ``wanted(codes)`` keeps."""
    rows, ages, sexes = [], [], []
    for row, codes, age, sex in ptbxl_rows(folder):
        path = folder / row["filename_hr" if fs == 500 else "filename_lr"]
        if wanted(codes) and path.with_name(path.name + ".hea").exists():
            rows.append(measure(read_record(path, lead_names=LEADS).signal, fs))
            ages.append(age)
            sexes.append(sex)
    return table(rows), np.array(ages), np.array(sexes)


def simulate(name, fs, n_records, seed, ages):
    """Measurements of simulated patients as old as those of ``ages``, without the youngest and oldest twentieth."""
    ages = np.clip(np.nanquantile(ages[ages < 120], (0.05, 0.95)), 16, 100)
    data = make_ecg_records(n_records, n_patients=n_records, classes=[name], fs=fs, ages=ages, random_state=seed)
    return table([measure(record.signal, fs) for record in data.records]), data


def premature_beats(records, symbol):
    """Per record: RR before and after premature beats, over the usual RR of normal beats."""
    rows = []
    for record in records:
        notes = record.annotations
        beats = np.isin(notes.symbol, list("NLRAaJSVFejnE/fQ"))
        sample, kind = notes.sample[beats] / record.fs, notes.symbol[beats]
        normal = np.isin(kind, ["N", "L", "R"])
        rr = np.diff(sample)
        usual = rr[normal[:-1] & normal[1:]]
        single = 1 + np.flatnonzero((kind[1:-1] == symbol) & normal[:-2] & normal[2:])
        if len(single) and len(usual) > 2:
            usual = np.median(usual)
            rows.append({
                "interval before / usual": np.median(rr[single - 1]) / usual,
                "interval after / usual": np.median(rr[single]) / usual,
            })
    return table(rows)


def fibrillation(records):
    """Per record: irregularity of RR while the note is (AFIB."""
    rows = []
    for record in records:
        notes, rr = record.annotations, []
        starts = notes.sample[notes.symbol == "+"]
        texts = notes.aux_note[notes.symbol == "+"]
        beats = notes.sample[np.isin(notes.symbol, list("NLR"))]
        for start, stop, text in zip(starts, [*starts[1:], record.n_times], texts, strict=True):
            if text == "(AFIB":
                inside = beats[(beats >= start) & (beats < stop)] / record.fs
                for begin in np.arange(start / record.fs, stop / record.fs - 9.9, 10):
                    piece = np.diff(inside[(inside >= begin) & (inside < begin + 10)])
                    if len(piece) > 4:
                        rr.append({"SD of RR / mean": piece.std() / piece.mean(), "heart rate (1/min)": 60 / piece.mean(),
                                   "RMSSD / mean": np.sqrt(np.mean(np.diff(piece) ** 2)) / piece.mean()})
        if rr:
            rows.append({name: np.median([row[name] for row in rr]) for name in rr[0]})
    return table(rows)


def delineator_errors(n_records, seed):
    """What `measure` says less what the simulator knows, for normal hearts with noise."""
    data = make_ecg_records(n_records, n_patients=n_records, classes=["normal"], fs=FS, fiducials=True, ages=(18, 90),
                            random_state=seed)
    errors = defaultdict(list)
    for record in data.records:
        found, notes, true = measure(record.signal, FS), record.annotations, defaultdict(list)
        wave = {}  # onset, peak and end of the P, QRS and T of one beat after the other
        for i, symbol in enumerate(notes.symbol):
            if symbol in "pNt" and "".join(notes.symbol[max(0, i - 1) : i + 2]) == f"({symbol})":
                wave[symbol] = notes.sample[i - 1 : i + 2] * 1e3 / FS
                if symbol == "t" and len(wave) == 3:
                    true["PR (ms)"].append(wave["N"][0] - wave["p"][0])
                    true["QRS duration (ms)"].append(wave["N"][2] - wave["N"][0])
                    true["QT (ms)"].append(wave["t"][2] - wave["N"][0])
                    wave = {}
        for name, values in true.items():
            errors[name].append(found.get(name, np.nan) - np.median(values))
    errors = {name: np.array(values) for name, values in errors.items()}
    return {name: {**summary(v[np.isfinite(v)]), "not found": int(np.isnan(v).sum())} for name, v in errors.items()}


def age_effects(measured, ages, sexes):
    """Change per decade and of women against men by least squares, with standard errors."""
    effects = {}
    for name in ("heart rate (1/min)", "RMSSD / mean", "PR (ms)", "QRS duration (ms)", "QTcF (ms)", "QRS axis (degrees)",
                 "R V5 (mV)", "S V1 (mV)", "T II (mV)", "T V5 (mV)"):
        keep = np.isfinite(measured[name]) & (ages >= 18) & (ages <= 90)
        A = np.stack([np.ones(keep.sum()), (ages[keep] - 50) / 10, sexes[keep] == "F"], axis=1).astype(float)
        beta, rest, *_ = np.linalg.lstsq(A, measured[name][keep], rcond=None)
        error = np.sqrt(np.diag(np.linalg.inv(A.T @ A)) * rest[0] / (len(A) - 3))
        effects[name] = {"at 50 years, men": figure(beta[0]), "per decade": [figure(beta[1]), figure(error[1])],
                         "women": [figure(beta[2]), figure(error[2])]}
    return effects


def told_apart(simulated, real, seed):
    """AUROC of classifiers, cross-validated, that tell simulated from real by the measurements."""
    names = [name for name in simulated if name in real and not name.startswith("residual")]
    X = np.concatenate([np.stack([of[name] for name in names], axis=1) for of in (simulated, real)])
    y = np.repeat([0, 1], [len(simulated[names[0]]), len(real[names[0]])])
    models = {
        "logistic regression": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=2000)),
        "random forest": make_pipeline(SimpleImputer(), RandomForestClassifier(300, random_state=seed)),
    }
    wave = [i for i, name in enumerate(names) if "power" not in name]
    scores = {}
    for kind, columns in (("all measurements", slice(None)), ("without the spectrum", wave)):
        for model, estimator in models.items():
            p = cross_val_predict(estimator, X[:, columns], y, cv=5, method="predict_proba")[:, 1]
            scores[f"{model}, {kind}"] = round(float(macro_roc_auc(y, p)), 3)
    return scores


def draw(simulated, real, path):
    """Quartiles and twentieths of normal recordings, simulated and real."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        "ms": ("PR (ms)", "QRS duration (ms)", "QT (ms)", "QTcF (ms)"),
        "mV": ("P II (mV)", "R I (mV)", "R II (mV)", "R V1 (mV)", "S V1 (mV)", "R V2 (mV)", "S V2 (mV)", "R V3 (mV)",
               "S V3 (mV)", "R V4 (mV)", "S V4 (mV)", "R V5 (mV)", "S V5 (mV)", "T I (mV)", "T II (mV)", "T V1 (mV)",
               "T V2 (mV)", "T V5 (mV)"),
        "1/min, degrees": ("heart rate (1/min)", "QRS axis (degrees)"),
        "share of RR": ("SD of RR / mean", "RMSSD / mean"),
        "log10 mV²": tuple(f"log10 power {band} Hz (mV²)" for band in BANDS),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 4.5), width_ratios=[1 + len(v) for v in panels.values()],
                                layout="constrained")
    for ax, (unit, names) in zip(axes, panels.items(), strict=True):
        for of, colour, move in ((simulated, "tab:orange", -0.2), (real, "tab:blue", 0.2)):
            values = [of[name][np.isfinite(of[name])] for name in names]
            boxes = ax.boxplot(values, positions=np.arange(len(names)) + move, widths=0.32, whis=(5, 95), showfliers=False,
                               patch_artist=True, medianprops={"color": "black"})
            for box in boxes["boxes"]:
                box.set(facecolor=colour, alpha=0.7)
        short = [name.split(" (")[0].replace("log10 power ", "").replace(" / mean", "") for name in names]
        ax.set_xticks(range(len(names)), short, rotation=90)
        ax.set_ylabel(unit)
        ax.grid(axis="y", alpha=0.3)
    figure.suptitle(f"Normal electrocardiograms: {len(simulated['R I (mV)'])} simulated (orange), "
                    f"{len(real['R I (mV)'])} of PTB-XL (blue); quartiles, whiskers from 5 to 95 %")
    figure.savefig(path, dpi=130)
    print(f"Figure: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="holds ptbxl/ and mitdb/")
    parser.add_argument("--output", default="benchmarks/results", metavar="FOLDER", help="where figure and results go")
    parser.add_argument("--records", type=int, default=200, help="simulated records per comparison")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    ptbxl, mitdb, n = args.folder / "ptbxl", args.folder / "mitdb", args.records

    real, ages, _ = read_ptbxl(ptbxl, 500, lambda codes: codes <= {"NORM", "SR"} and "NORM" in codes)
    simulated, _ = simulate("normal", 500, n, args.seed, ages)
    results = {"normal, 500 Hz": compare(simulated, real)}
    discriminator = told_apart(simulated, real, args.seed)
    for name, codes in {"normal": {"NORM"}, **CLASSES}.items():
        of_class, ages, sexes = read_ptbxl(
            ptbxl, 100, lambda found, codes=codes, name=name: found & codes
            and (name != "normal" or found <= {"NORM", "SR"}) and not ("AFIB" in found and name not in WITHOUT_P))
        like_it, data = simulate(name, 100, n, args.seed, ages)
        for values in (of_class, like_it):
            if name in WITHOUT_P:
                values.pop("PR (ms)", None), values.pop("P II (mV)", None)
        results[f"{name}, 100 Hz"] = compare(like_it, of_class)
        if name == "normal":
            effects = {"simulated": age_effects(like_it, data.age, data.sex), "real": age_effects(of_class, ages, sexes)}

    records = [read_record(path.with_suffix(""), annotations="atr") for path in sorted(mitdb.glob("*.hea"))]
    long = {
        name: make_ecg_records(n, n_patients=n, classes=[name], duration=60, ages=(25, 90), random_state=args.seed).records
        for name in ("premature ventricular contractions", "premature atrial contractions", "atrial fibrillation")
    }
    timing = {
        name: compare(premature_beats(long[name], symbol), premature_beats(records, symbol))
        for name, symbol in (("premature ventricular contractions", "V"), ("premature atrial contractions", "A"))
    }
    timing["atrial fibrillation"] = compare(fibrillation(long["atrial fibrillation"]), fibrillation(records))
    errors = delineator_errors(n, args.seed)

    for title, rows in {**results, **{f"{k}, MIT-BIH": v for k, v in timing.items()}}.items():
        print(f"\n{title}\n{'':36}{'simulated':>30}{'real':>36}")
        for name, row in rows.items():
            cells = [f"{row[k]['median']:>9g} [{row[k]['quartiles'][0]:g}, {row[k]['quartiles'][1]:g}] n={row[k]['n']}"
                     for k in ("simulated", "real")]
            print(f"{name:36}{cells[0]:>34}{cells[1]:>34}   KS {row['Kolmogorov-Smirnov distance']:.2f}")
    Path(args.output).mkdir(parents=True, exist_ok=True)
    draw(simulated, real, Path(args.output) / "simulator.png")
    print("\nmeasured less true:", errors, "\ntold apart (AUROC):", discriminator, "\nage and sex:")
    for name in effects["real"]:
        print(f"{name:22}", *(f"{k}: {effects[k][name]}" for k in effects), sep="  ")
    write_json(Path(args.output) / "simulator.json", {
        "settings": {"records": n, "seed": args.seed}, "PTB-XL": results, "MIT-BIH": timing,
        "delineation, measured less true (ms)": errors, "told apart, AUROC": discriminator,
        "effects of age and sex, with standard errors": effects, "machine": machine(),
    })


if __name__ == "__main__":
    main()
