"""Run a named label-efficiency study: JSON, a figure and a short report.

    python benchmarks/label_efficiency/run.py ptbxl FOLDER
    python benchmarks/label_efficiency/run.py mitdb FOLDER

FOLDER holds the recordings: for ``ptbxl`` a table ``labels.csv`` (columns filename, patient_id, strat_fold, NORM, MI,
STTC, CD, HYP) beside 12-lead records of 10 s at 100 Hz, for ``mitdb`` the MIT-BIH Arrhythmia Database. ``--cache`` keeps
every finished pretraining and run, so that the same command goes on where it was stopped.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _common import machine, write_json
from studies import STUDIES

from skecg.evaluation import LabelEfficiencyDisplay, compare, label_efficiency_curve, label_saving, summary

REFERENCES = ("same network from scratch", "ResNet1d from scratch", "features, linear")
METRICS = {"roc_auc": "macro AUROC", "average_precision": "macro average precision", "f1": "macro F1"}
PRETRAINED = ("pretrained, linear probe", "pretrained, fine-tuned")


def results(curve):
    """Everything that the report and the figure say, by metric."""
    return {
        metric: {
            "summary": summary(curve, metric),
            "differences": [
                row for arm in PRETRAINED for reference in REFERENCES for row in compare(curve, arm, reference, metric)
            ],
            "label_saving": [
                label_saving(curve, arm, reference, metric=metric).to_dict() | {
                    "text": str(label_saving(curve, arm, reference, metric=metric))}
                for arm in PRETRAINED for reference in REFERENCES
            ],
        }
        for metric in curve.metrics
    }


def report(name, curve, found, minutes):
    """A page of text with the tables that a reader looks for first."""
    metric = curve.metrics[0]
    tables = found[metric]
    patients = len({group for _, test in curve.splits for group in curve.groups[test]})
    lines = [
        f"{len(curve.y):,} labelled samples of {curve.settings['n_patients']:,} patients; {len(curve.splits)} split(s), "
        f"tested on {patients:,} patients. Values are {METRICS[metric]}, mean over splits and repeats, with 95 % intervals "
        f"over patients and repeats. All runs together took {minutes:.0f} minutes, "
        f"{sum(e['seconds'] for e in curve.pretraining) / 60:.0f} of them pretraining.",
        "", f"![Label efficiency](label_efficiency_{name}.png)", "",
        "| labels | " + " | ".join(curve.arms) + " |", "|---|" + "---|" * len(curve.arms),
    ]
    shares = {}
    for fraction in curve.label_fractions:
        rows = {row["arm"]: row for row in tables["summary"] if row["fraction"] == fraction}
        first = next(iter(rows.values()))
        shares[fraction] = f"{fraction:.0%} ({first['n_labels']:,.0f} of {first['n_patients']:,.0f} patients)"
        cells = [f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in rows.values()]
        lines.append(f"| {shares[fraction]} | {' | '.join(cells)} |")
    lines += [
        "", "Paired differences with 95 % intervals, p after Holm's correction over the fractions, and the smallest true "
        "difference that the study would have found with 80 % power.",
    ]
    for arm in PRETRAINED:
        lines += ["", f"| {arm}, minus | " + " | ".join(REFERENCES) + " |", "|---|" + "---|" * len(REFERENCES)]
        for fraction, share in shares.items():
            rows = {
                row["reference"]: row for row in tables["differences"] if (row["arm"], row["fraction"]) == (arm, fraction)
            }
            cells = [
                f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p {row['p_holm']:.2g}; "
                f"{row['detectable_effect']:.3f}" for row in (rows[reference] for reference in REFERENCES)
            ]
            lines.append(f"| {share} | {' | '.join(cells)} |")
    lines += ["", "Labels saved:", ""] + [f"- {row['text']}" for row in tables["label_saving"]]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path, help="recordings")
    parser.add_argument("--cache", type=Path, default=None, help="folder for finished runs")
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    args = parser.parse_args()

    arguments = STUDIES[args.study](args.folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        curve = label_efficiency_curve(**arguments, n_jobs=args.n_jobs, cache_dir=args.cache, random_state=args.seed)
    remarks = sorted({str(w.message) for w in told if issubclass(w.category, UserWarning)})
    print(*remarks, sep="\n")
    found = results(curve)
    minutes = (sum(run.seconds for run in curve.runs) + sum(entry["seconds"] for entry in curve.pretraining)) / 60
    stem = args.output / f"label_efficiency_{args.study}"
    display = LabelEfficiencyDisplay(curve).plot(saving=("pretrained, fine-tuned", "same network from scratch"))
    args.output.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(f"{stem}.png", dpi=150)
    text = report(args.study, curve, found, minutes)
    Path(f"{stem}.md").write_text(text)
    print(text)
    write_json(f"{stem}.json", {
        **json.loads(curve.to_json()), "results": found, "warnings": remarks, "minutes": round(minutes),
        "machine": machine(),
    })


if __name__ == "__main__":
    main()
