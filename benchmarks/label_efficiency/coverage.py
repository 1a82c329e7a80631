"""Does the interval of label_saving cover the truth? Simulated studies with a known answer.

    python benchmarks/label_efficiency/coverage.py [--replications 200] [--output FILE]

About 15 minutes on one core. What is in the output already is kept, so that a call goes on where an earlier one stopped.

Two classes of normal samples differ in their mean; one arm estimates the difference of the means from the labelled
samples, the other from k times as many, of which it draws (k - 1) n from the known distribution (for k = 1: n others in
place of those given, for otherwise the arms would be one). So the second needs the label fraction 1 / k for what the first
reaches with all labels, on average over everything that is random. Each replication draws all samples anew and goes through
``label_efficiency_curve`` and ``label_saving``.

For k = 2 the same studies are also evaluated with other bootstraps and other interpolations:

- ``patients``: repeats are not resampled
- ``nested``: repeats of the resampled patients are drawn, without a correction
- ``nested, corrected``: the same, deviations times sqrt(R / (R - 1))
- ``nested, corrected, splits``: splits are drawn as well
- ``straight lines``, ``not monotone``: as in the library, with another curve

For k = 1, ``difference_coverage`` is that of the intervals of ``compare`` per fraction, and ``any_false_claim`` the share of
studies in which it claimed a difference that is not there, beside what percentiles of the same bootstrap would have claimed.

``se_over_sd`` is the bootstrap's standard error of the difference of the arms over the standard deviation of the difference
among the replications, per fraction: 1 is right, less is too sure.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

sys.path.insert(0, str(Path(__file__).parents[1]))
from _common import machine, write_json

from skecg.evaluation import label_efficiency_curve
from skecg.evaluation._statistics import (
    compare,
    holm,
    isotonic,
    label_saving,
    reaching_fraction,
    resampled_values,
)
from skecg.metrics import bootstrap_weights

FRACTIONS = (0.02, 0.05, 0.1, 0.3, 1.0)
SETTINGS = {
    "one split, 5 repeats, 300 test patients": {"n_train": 400, "n_test": 300, "n_repeats": 5},
    "3 splits, 3 repeats, 300 patients": {"n_train": 0, "n_test": 300, "cv": 3, "n_repeats": 3},
    "one split, 3 repeats, 100 test patients": {"n_train": 400, "n_test": 100, "n_repeats": 3, "ks": (2,)},
    "one split, 3 repeats, 300 test patients, flat curves": {
        "n_train": 400, "n_test": 300, "n_repeats": 3, "n_features": 8, "separation": 0.7, "ks": (2,)},
    "one split, 5 repeats, 1000 test patients": {"n_train": 400, "n_test": 1000, "n_repeats": 5, "ks": (2,)},
}


class MeanDifference(ClassifierMixin, BaseEstimator):
    """Projection on the estimated difference of the class means, from ``k`` times the labels."""

    def __init__(self, k=None, separation=1.5, random_state=None):
        self.k = k
        self.separation = separation
        self.random_state = random_state

    def fit(self, X, y):
        rng = np.random.default_rng([self.random_state, len(X)])
        means = []
        for label in (0, 1):
            given = X[y == label]
            n, total = len(given), given.sum(axis=0)
            if self.k is not None:
                further = n if self.k == 1 else round((self.k - 1) * n)
                drawn = rng.normal(size=X.shape[1]) * np.sqrt(further)  # the sum of so many samples
                drawn[0] += further * centre(label, self.separation)
                n, total = (further, drawn) if self.k == 1 else (n + further, total + drawn)
            means.append(total / n)
        self.coef_, self.classes_ = means[1] - means[0], np.array([0, 1])
        return self

    def decision_function(self, X):
        return X @ self.coef_

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


def centre(label, separation):
    return (label - 0.5) * separation


def simulate(k, seed, *, n_train, n_test, n_repeats, cv=None, n_features=50, separation=1.5, ks=None):
    """One study of fresh samples; one sample per patient."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    y = rng.permutation(n) % 2
    X = rng.normal(size=(n, n_features))
    X[:, 0] += centre(y, separation)
    arms = {"more": MeanDifference(k, separation), "given": MeanDifference(None, separation)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return label_efficiency_curve(
            arms, X, y, cv=cv or [(np.arange(n_train), np.arange(n_train, n))], label_fractions=FRACTIONS,
            n_repeats=n_repeats, verbose=0, random_state=seed,
        )


def alternatives(curve, n_resamples, seed):
    """Resampled values (n_arms, n_fractions, 1 + n_resamples) by other bootstraps."""
    rng = np.random.RandomState(seed)
    n = len(curve.y)
    drawn = np.concatenate([
        np.ones((1, n), int), bootstrap_weights(np.arange(n), n_resamples=n_resamples, random_state=rng)
    ])
    n_splits = len(curve.splits)
    designs = {name: np.zeros((len(curve.arms), len(FRACTIONS), n_splits, 1 + n_resamples))
               for name in ("patients", "nested", "nested, corrected")}
    for fraction, share in enumerate(FRACTIONS):
        for split, (_, test) in enumerate(curve.splits):
            runs = [curve.select(arm=arm, fraction=share, split=split) for arm in curve.arms]
            values = np.array([[curve.evaluate(run, None, drawn[:, test]) for run in repeats] for repeats in runs])
            for name, draw in zip(designs, shares(rng, values.shape[1], n_resamples), strict=True):
                designs[name][:, fraction, split] = np.einsum("arb,br->ab", values, draw)
    found = {name: values.mean(axis=2) for name, values in designs.items()}
    if n_splits > 1:
        draw = shares(rng, n_splits, n_resamples)[2]
        found["nested, corrected, splits"] = np.einsum("afsb,bs->afb", designs["nested, corrected"], draw)
    return found


def shares(rng, n, n_resamples):
    """Weights (1 + n_resamples, n) that are not drawn, drawn, and drawn and corrected; those of the study itself first."""
    fixed = np.full((1 + n_resamples, n), 1 / n)
    drawn = np.concatenate([fixed[:1], rng.multinomial(n, fixed[0], size=n_resamples) / n])
    return fixed, drawn, fixed + np.sqrt(n / max(1, n - 1)) * (drawn - fixed)


def straight(fractions, curves, targets):
    """Where lines between the points first reach the targets."""
    found = np.full(len(curves), np.inf)
    for row, (curve, target) in enumerate(zip(curves, targets, strict=True)):
        if (curve >= target).any():
            first = int((curve >= target).argmax())
            x = np.log(fractions[max(0, first - 1):first + 1])
            found[row] = np.exp(np.interp(target, curve[max(0, first - 1):first + 1], x))
    return found


def crossings(values, how="library"):
    """Fractions at which the first arm reaches the second, the study's own first."""
    more, given = values[0].T, values[1].T
    if how == "not monotone":
        return reaching_fraction(FRACTIONS, more, given[:, -1])
    return (straight if how == "straight lines" else reaching_fraction)(FRACTIONS, isotonic(more), isotonic(given)[:, -1])


def two_sided(drawn):
    """P-value from the share of resampled differences on the other side of 0."""
    return min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn)))


def interval(found):
    found = np.sort(found[1:])
    return found[int(0.025 * (len(found) - 1))], found[-1 - int(0.025 * (len(found) - 1))]


def tally(k, points, ends, differences=None, errors=None):
    """Coverage of 1 / k, where the ends missed, and the point estimates."""
    points, (low, high) = np.array(points), np.array(ends).T
    truth = 1 / k
    low, high = low > truth * (1 + 1e-9), high < truth * (1 - 1e-9)
    found = {
        "coverage": np.mean(~low & ~high), "all_above": low.mean(), "all_below": high.mean(),
        "median_fraction": np.median(points), "share_reached": np.isfinite(points).mean(),
    }
    found = {name: round(float(value), 4) for name, value in found.items()}
    if differences is not None:
        found["se_over_sd"] = np.round(
            np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(differences, axis=0, ddof=1), 2).tolist()
    return found


def replicate(k, setting, n_replications, n_resamples=400, others=False):
    """Tallies of the library's interval, and of the other designs where wanted; type-I errors for k = 1."""
    names, held = {}, []
    for seed in range(n_replications):
        curve = simulate(k, seed, **setting)
        found = label_saving(curve, "more", "given", n_resamples=n_resamples, random_state=seed)
        values = {"library": resampled_values(curve, n_resamples=n_resamples, random_state=seed)}
        if others:
            values |= alternatives(curve, n_resamples, seed)
        for name, resampled in values.items():
            record = names.setdefault(name, ([], [], [], []))
            difference = resampled[0] - resampled[1]
            fractions = crossings(resampled)
            record[0].append(found.fraction if name == "library" else fractions[0])
            record[1].append((found.low, found.high) if name == "library" else interval(fractions))
            record[2].append(difference[:, 0])
            record[3].append(difference[:, 1:].std(axis=1, ddof=1))
        if others:
            for name in ("straight lines", "not monotone"):
                fractions = crossings(values["library"], name)
                record = names.setdefault(name, ([], []))
                record[0].append(fractions[0])
                record[1].append(interval(fractions))
        if k == 1:
            rows = compare(curve, "more", "given", n_resamples=n_resamples, random_state=seed)
            percentiles = holm([two_sided(drawn[1:]) for drawn in values["library"][0] - values["library"][1]])
            held.append([(row["low"] <= 0 <= row["high"], row["claim"] != "undecided", p <= 0.05)
                         for row, p in zip(rows, percentiles, strict=True)])
    result = {name: tally(k, *record) for name, record in names.items()}
    if held:
        held = np.array(held)
        result["library"]["difference_coverage"] = held[..., 0].mean(axis=0).round(4).tolist()
        result["library"]["any_false_claim"] = round(float(held[..., 1].any(axis=1).mean()), 4)
        result["library"]["any_false_claim_of_percentiles"] = round(float(held[..., 2].any(axis=1).mean()), 4)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "label_saving_coverage.json")
    options = parser.parse_args()
    report = {"replications": options.replications, "resamples": options.resamples, "confidence_level": 0.95}
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    results = known["results"] if known.items() >= report.items() else {}  # go on where an earlier call stopped
    for name, setting in SETTINGS.items():
        done = results.setdefault(name, {"setting": {**setting, "label_fractions": FRACTIONS}, "k": {}})["k"]
        for k in setting.get("ks", (1, 1.5, 2, 4)):
            if str(k) not in done:
                started = time.perf_counter()
                done[str(k)] = replicate(k, setting, options.replications, options.resamples, others=k == 2)
                print(f"{name}; k = {k}; {time.perf_counter() - started:.0f} s")
                for design, numbers in done[str(k)].items():
                    print(f"    {design:28s} {numbers}", flush=True)
                write_json(options.output, {**report, "machine": machine(), "results": results})


if __name__ == "__main__":
    main()
