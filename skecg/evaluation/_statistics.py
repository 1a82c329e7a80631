"""Intervals, differences and saved labels of a label-efficiency study, over patients and repeats."""

from dataclasses import asdict, dataclass
from numbers import Integral

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import t as student
from sklearn.utils import check_random_state

from ..metrics import bootstrap_weights

# Weights of resampled patients held at once: resamples x patients.
_BLOCK = 2**22
_POWER = 0.8


def resampled_values(curve, metric=None, *, n_resamples=1000, random_state=0):
    """Mean metric of every arm at every label fraction, in the study and in resamples of its patients and repeats.

    A resample draws patients over the whole study, so that a patient who was drawn twice counts twice in every run that was
    tested on that patient, and it draws repeats within every split and fraction. All arms share both draws.

    Parameters
    ----------
    curve : LabelEfficiencyCurve
    metric : str, default=None
        One of the study's metrics; None is the first.
    n_resamples : int, default=1000
        Bootstrap samples.
    random_state : int, RandomState or None, default=0
        Seed of the draws. Values of an integer seed are kept on the curve.

    Returns
    -------
    ndarray of shape (n_arms, n_fractions, 1 + n_resamples)
        The study's own values first. NaN where the metric is undefined.

    Notes
    -----
    With m(r) the metric of repeat r, and m*(r) that of its predictions on the drawn patients, the value of one split is

        mean_r m*(r)  +  sqrt(R / (R - 1)) * mean_r [c(r) - 1] m(r)

    where c(r) says how often repeat r was drawn. The first term is the bootstrap over patients, the second adds the variance
    between the R repeats; the factor makes it unbiased (R draws with replacement understate it by (R - 1) / R). Drawing
    repeats of m* instead would count the interaction of patients and repeats three times (Owen 2007): with 300 test patients
    standard errors of a difference were then 0.96 to 1.29 times the truth, and are 0.89 to 1.16 times the truth as it is
    (``benchmarks/label_efficiency/coverage.py``).
    """
    metric = curve.metrics[0] if metric is None else metric
    kept, key = curve._resampled, (metric, n_resamples, random_state)
    if key in kept:
        return kept[key]
    if not isinstance(n_resamples, Integral) or n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples!r}; expected a whole number of at least 1, such as 1000.")
    rng, runs, share = check_random_state(random_state), _runs_by_place(curve), 1 / len(curve.splits)
    values = np.zeros((len(curve.arms), len(curve.label_fractions), 1 + n_resamples))
    for (fraction, _), of_arms in runs.items():
        own = np.array([[curve.evaluate(run, metric) for run in repeats] for repeats in of_arms])  # (n_arms, n)
        n = own.shape[1]
        excess = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) - 1                       # (n_resamples, n)
        values[:, fraction, 0] += share * own.mean(axis=1)
        values[:, fraction, 1:] += share * np.sqrt(n / max(1, n - 1)) / n * own @ excess.T

    tests = [test for _, test in curve.splits]
    patients, codes = np.unique(np.asarray(curve.groups)[np.concatenate(tests)], return_inverse=True)
    codes = np.split(codes, np.cumsum([len(test) for test in tests])[:-1])
    step = max(1, _BLOCK // max(len(patients), *map(len, tests)))
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        drawn = bootstrap_weights(np.arange(len(patients)), n_resamples=stop - start, random_state=rng)
        for split, of_test in enumerate(codes):
            weights = drawn[:, of_test]
            for fraction in range(len(curve.label_fractions)):
                for arm, repeats in enumerate(runs[fraction, split]):
                    for run in repeats:
                        values[arm, fraction, 1 + start:1 + stop] += (
                            share / len(repeats) * curve.evaluate(run, metric, weights)
                        )
    if len(patients) == 1:
        values[..., 1:] = np.nan  # nothing varies between resamples
    values.flags.writeable = False
    if isinstance(random_state, Integral):
        kept[key] = values
    return values


def summary(curve, metric=None, *, confidence_level=0.95, n_resamples=1000, random_state=0):
    """Value of every arm at every label fraction, with its interval.

    Parameters
    ----------
    curve : LabelEfficiencyCurve
        Result of :func:`label_efficiency_curve`.
    metric : str, default=None
        One of the study's metrics; None is the first.
    confidence_level : float, default=0.95
        Probability covered by the interval.
    n_resamples : int, default=1000
        Bootstrap samples. Those in which the value is undefined are left out.
    random_state : int, RandomState or None, default=0
        Seed of the draws. The same integer is computed once for all tables of a study.

    Returns
    -------
    list of dict
        One per arm and fraction: ``arm``, ``fraction``, ``value`` (mean over splits of the mean over repeats), ``low`` and
        ``high`` (percentile interval over patients and repeats), ``sd`` (between the repeats of a split; NaN for one
        repeat), ``n_labels`` and ``n_patients`` (means), ``n_runs``.

    Raises
    ------
    ValueError
        An unknown metric, or a confidence level that is not between 0 and 1.

    See Also
    --------
    compare : Differences between two arms; overlapping intervals of two arms say nothing about those.

    Notes
    -----
    The interval covers what other test patients and other draws of budgets and seeds would have given. It does not cover
    what other training patients would have given beyond that: with all labels every repeat of a split trains on the same
    patients, and splits of a cross-validation share most of theirs.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skecg.evaluation import label_efficiency_curve, summary
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> curve = label_efficiency_curve({"Bayes": GaussianNB()}, X, y, label_fractions=(0.05, 1.0), cv=2, n_repeats=3,
    ...                                verbose=0, random_state=0)
    >>> for row in summary(curve):
    ...     print(row["arm"], row["fraction"], row["n_runs"], row["low"] < row["value"] < row["high"])
    Bayes 0.05 6 True
    Bayes 1.0 6 True
    """
    _check_level(confidence_level)
    values = resampled_values(curve, metric, n_resamples=n_resamples, random_state=random_state)
    runs, rows = _runs_by_place(curve), []
    for i, arm in enumerate(curve.arms):
        for j, fraction in enumerate(curve.label_fractions):
            of_splits = [runs[j, split][i] for split in range(len(curve.splits))]
            low, high = _interval(values[i, j, 1:], confidence_level)
            deviations = [np.array([curve.evaluate(run, metric) for run in repeats]) for repeats in of_splits]
            deviations = [own - own.mean() for own in deviations]
            freedom = sum(len(own) - 1 for own in deviations)
            of_all = [run for repeats in of_splits for run in repeats]
            rows.append({
                "arm": arm, "fraction": fraction, "value": float(values[i, j, 0]), "low": low, "high": high,
                "sd": float(np.sqrt(np.sum(np.concatenate(deviations) ** 2) / freedom)) if freedom else float("nan"),
                "n_labels": float(np.mean([run.n_labels for run in of_all])),
                "n_patients": float(np.mean([run.n_patients for run in of_all])), "n_runs": len(of_all),
            })
    return rows


def compare(
    curve, arm, reference, metric=None, *, reference_fraction=None, margin=0.005, confidence_level=0.95, n_resamples=1000,
    random_state=0,
):
    """Paired differences between two arms at every label fraction.

    Parameters
    ----------
    curve : LabelEfficiencyCurve
        Result of :func:`label_efficiency_curve`.
    arm, reference : str
        The difference is that of ``arm`` minus ``reference``; both had the same budgets, repeats and test patients.
    metric : str, default=None
        One of the study's metrics; None is the first.
    reference_fraction : float, default=None
        Label fraction of the reference. None: the arm's. With 1.0 the question is whether the arm does as well with few
        labels as the reference with all.
    margin : float, default=0.005
        How much lower than the reference counts as no worse, in units of the metric: the default suits metrics between 0
        and 1, and 1.0 would be a millimetre of "neg_localization_error".
    confidence_level : float, default=0.95
        Probability covered by the interval; 1 minus it is the level of the tests.
    n_resamples : int, default=1000
        Bootstrap samples. Those in which the difference is undefined are left out.
    random_state : int, RandomState or None, default=0
        Seed of the draws. The same integer is computed once for all tables of a study.

    Returns
    -------
    list of dict
        One per fraction:

        - ``arm``, ``reference``, ``metric``, ``reference_fraction`` (that of the row where it was None): what is compared
        - ``fraction``, ``difference``, ``low``, ``high`` (interval of this fraction alone)
        - ``p_value``: two-sided, the level at which the interval would just hold 0
        - ``p_holm``: adjusted for the number of fractions
        - ``claim``: "higher" or "lower" if ``p_holm`` is at most 1 - confidence_level, else "undecided"
        - ``non_inferior``: whether the interval lies above ``-margin``
        - ``detectable_effect``: the smallest true difference that a study like this one finds with 80 % power

    Raises
    ------
    ValueError
        An unknown arm or metric, a fraction that the study does not have, a negative margin, or a confidence level that is
        not between 0 and 1.

    Notes
    -----
    Intervals and p-values are those of Student's t: the difference over its bootstrap standard error s, which covers
    patients and repeats, with the degrees of freedom of Welch and Satterthwaite. Three repeats of one split have two degrees
    of freedom, which counts where repeats vary more than patients do. In 200 simulated studies of two equally good arms
    (five repeats, one split) some difference was claimed in 4 %, and by percentiles of the same bootstrap in 8.5 %.

    The detectable effect is (t(1 - alpha / (2 m)) + t(0.8)) * s, with alpha = 1 - confidence_level, m the number of
    fractions (the first step of Holm's method, which is that of Bonferroni) and t the quantile of Student's t. A study whose
    detectable effect is larger than the difference hoped for cannot decide, whatever it finds.

    What the intervals do not cover is said in :func:`summary`.

    References
    ----------
    Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6(2):65-70, 1979.

    Satterthwaite FE. An approximate distribution of estimates of variance components. Biometrics Bulletin 2(6):110-114,
    1946.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skecg.evaluation import compare, label_efficiency_curve
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> curve = label_efficiency_curve({"Bayes": GaussianNB(), "chance": DummyClassifier()}, X, y,
    ...                                label_fractions=(0.05, 1.0), cv=2, n_repeats=3, verbose=0, random_state=0)
    >>> for row in compare(curve, "Bayes", "chance"):
    ...     print(row["fraction"], row["claim"], row["difference"] > row["low"] > 0.3, row["p_holm"] < 0.001)
    0.05 higher True True
    1.0 higher True True
    """
    _check_level(confidence_level)
    if margin < 0:
        raise ValueError(f"margin is {margin!r}; expected how much lower counts as no worse, a number of at least 0.")
    if reference_fraction is not None and reference_fraction not in curve.label_fractions:
        raise ValueError(
            f"reference_fraction={reference_fraction!r} is none of the study's label fractions: "
            f"{', '.join(f'{f:.4g}' for f in curve.label_fractions)}."
        )
    a, b = number_of(curve, arm), number_of(curve, reference)
    values = resampled_values(curve, metric, n_resamples=n_resamples, random_state=random_state)
    level, rows = 1 - confidence_level, []
    names = {"arm": arm, "reference": reference, "metric": curve.metrics[0] if metric is None else metric}
    for j, fraction in enumerate(curve.label_fractions):
        k = j if reference_fraction is None else curve.label_fractions.index(reference_fraction)
        difference = values[a, j] - values[b, k]
        own, drawn = float(difference[0]), difference[1:][~np.isnan(difference[1:])]
        error = float(drawn.std(ddof=1)) if len(drawn) > 1 else float("nan")
        freedom = _freedom(curve, metric, (a, j), (b, k), error)
        reach = float(student.ppf(1 - level / 2, freedom)) * error
        factor = student.ppf(1 - level / (2 * len(curve.label_fractions)), freedom) + student.ppf(_POWER, freedom)
        rows.append({
            **names, "fraction": fraction, "reference_fraction": curve.label_fractions[k],
            "difference": own, "low": own - reach, "high": own + reach,
            "p_value": _p_value(own, error, freedom), "p_holm": None, "claim": "undecided",
            "non_inferior": own - reach > -margin, "detectable_effect": float(factor) * error,
        })
    for row, p_holm in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_holm
        if p_holm <= level:
            row["claim"] = "higher" if row["difference"] > 0 else "lower"
    return rows


@dataclass(frozen=True)
class LabelSaving:
    """How many labels an arm needs for what another reaches with all; what :func:`label_saving` returns.

    ``str`` says it in a sentence.

    Attributes
    ----------
    arm, reference, metric : str
    fraction : float
        Label fraction at which ``arm`` reaches the full result of ``reference``. Infinite: not reached with the largest
        fraction. Equal to ``smallest_fraction``: reached there already, so it is that fraction or less.
    low, high : float
        Ends of the interval of ``fraction``, which can be infinite or ``smallest_fraction`` in the same sense.
    share_reached : float
        Share of the resamples in which the result was reached.
    reference_value : float
        The full result of ``reference``.
    reference_fraction, smallest_fraction : float
        The largest and the smallest label fraction of the study.
    confidence_level : float
        Of the interval.
    """

    arm: str
    reference: str
    metric: str
    fraction: float
    low: float
    high: float
    share_reached: float
    reference_value: float
    reference_fraction: float
    smallest_fraction: float
    confidence_level: float

    @property
    def saving(self):
        """Share of the reference's labels that the arm does without; NaN if it does not reach the result."""
        return 1 - self.fraction / self.reference_fraction if np.isfinite(self.fraction) else float("nan")

    @property
    def factor(self):
        """How many times as many labels the reference needs; NaN if the arm does not reach the result."""
        return self.reference_fraction / self.fraction if np.isfinite(self.fraction) else float("nan")

    def to_dict(self):
        """All fields with ``saving`` and ``factor``, ready for JSON: what is infinite or undefined is None."""
        found = asdict(self) | {"saving": self.saving, "factor": self.factor}
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in found.items()
        }

    def __str__(self):
        goal = (f"what {self.reference} reaches at label fraction {self.reference_fraction:.3g} "
                f"({self.metric} {self.reference_value:.3f})")
        interval = f"{100 * self.confidence_level:g} % interval {self._text(self.low)} to {self._text(self.high)}"
        if np.isnan(self.fraction):
            return f"Undefined: whether {self.arm} reaches {goal}."
        if np.isinf(self.fraction):
            return (f"{self.arm} does not reach {goal} at any label fraction of the study ({interval}); it does in "
                    f"{100 * self.share_reached:.0f} % of resamples.")
        more = "at least " if self.fraction == self.smallest_fraction else ""
        return (f"{self.arm} reaches {goal} at label fraction {self._text(self.fraction)} ({interval}): "
                f"{self.reference} needs {more}{self.factor:.3g} times as many labels.")

    def _text(self, fraction):
        if np.isinf(fraction):
            return "not reached"
        return f"{'<= ' if fraction == self.smallest_fraction else ''}{fraction:.3g}"


def label_saving(curve, arm, reference, *, metric=None, confidence_level=0.95, n_resamples=1000, random_state=0):
    """Label fraction at which one arm reaches what another reaches with all labels.

    Parameters
    ----------
    curve : LabelEfficiencyCurve
        Result of :func:`label_efficiency_curve`, with two label fractions or more.
    arm, reference : str
        The arm that may need fewer labels, and the one whose result with the largest fraction is to be reached.
    metric : str, default=None
        One of the study's metrics; None is the first.
    confidence_level : float, default=0.95
        Probability covered by the interval.
    n_resamples : int, default=1000
        Bootstrap samples. Those in which a value is undefined are left out.
    random_state : int, RandomState or None, default=0
        Seed of the draws. The same integer is computed once for all tables of a study.

    Returns
    -------
    LabelSaving
        ``fraction``, ``low``, ``high``, ``saving``, ``factor``, ``share_reached``; ``str`` of it is a sentence,
        ``to_dict()`` goes into JSON.

    Raises
    ------
    ValueError
        An unknown arm or metric, a single label fraction, or a confidence level that is not between 0 and 1.

    Notes
    -----
    - Both curves are made monotone (isotonic regression): more labels do not harm, and without it a chance peak at a
      small fraction would count as reached.
    - Between fractions the curve is a monotone cubic in the logarithm of the fraction (PCHIP). Learning curves are
      concave there; straight lines pass below them and made the fraction 16 % too large in a simulation (0.58 for 0.5).
    - The interval is that of percentiles, over the same resampled patients and repeats as in :func:`summary`. It covers
      other test patients, other draws of budgets and other seeds. What it does not cover: other training patients beyond
      that (with all labels the repeats of a split share them), the choice of hyper-parameters outside the study, and
      other hospitals. Where the test part is much larger than what the learners vary by, the first matters most.
    - On simulated tasks with known answers its coverage is in ``benchmarks/results/label_saving_coverage.json``.
    - A difference at the largest fraction that is small against the rise of the curve makes the interval wide. A few
      fractions cannot tell a saving of 40 % from one of 55 %.

    References
    ----------
    Fritsch FN, Carlson RE. Monotone piecewise cubic interpolation. SIAM Journal on Numerical Analysis 17(2):238-246, 1980.

    Owen AB. The pigeonhole bootstrap. Annals of Applied Statistics 1(2):386-411, 2007.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skecg.evaluation import label_efficiency_curve, label_saving
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> few = make_pipeline(FunctionTransformer(lambda X: X[:, 8:10]), GaussianNB())
    >>> curve = label_efficiency_curve({"all": GaussianNB(), "two": few}, X, y, label_fractions=(0.05, 0.2, 1.0),
    ...                                cv=2, n_repeats=3, verbose=0, random_state=0)
    >>> found = label_saving(curve, "all", "two")
    >>> print(found)
    all reaches what two reaches at label fraction 1 (roc_auc 0.7...) at label fraction <= 0.05
    (95 % interval <= 0.05 to <= 0.05): two needs at least 20 times as many labels.
    >>> found.to_dict()["saving"]
    0.95
    >>> print(label_saving(curve, "two", "all"))
    two does not reach what all reaches at label fraction 1 (roc_auc 0.9...) at any label fraction of the study
    (95 % interval not reached to not reached); it does in 0 % of resamples.
    """
    _check_level(confidence_level)
    a, b = number_of(curve, arm), number_of(curve, reference)
    if len(curve.label_fractions) < 2:
        raise ValueError(
            f"The study has one label fraction, {curve.label_fractions[0]:.4g}; a fraction at which {arm!r} reaches "
            f"{reference!r} needs two at least. Give label_efficiency_curve more label_fractions."
        )
    values = resampled_values(curve, metric, n_resamples=n_resamples, random_state=random_state)
    targets = isotonic(values[b].T)[:, -1]
    found = reaching_fraction(curve.label_fractions, isotonic(values[a].T), targets)
    low, high = _interval(found[1:], confidence_level)
    drawn = found[1:][~np.isnan(found[1:])]
    return LabelSaving(
        arm, reference, curve.metrics[0] if metric is None else metric, float(found[0]), low, high,
        float(np.isfinite(drawn).mean()) if len(drawn) else float("nan"), float(targets[0]), curve.label_fractions[-1],
        curve.label_fractions[0], confidence_level,
    )


def isotonic(values):
    """Non-decreasing sequences nearest to the rows of ``values`` (n_rows, n), by the max-min formula."""
    n = values.shape[1]
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    means = np.full((n, n, len(values)), np.inf)
    for start in range(n):
        for stop in range(start, n):
            means[start, stop] = (sums[:, stop + 1] - sums[:, start]) / (stop + 1 - start)
    out = np.empty_like(values)
    for i in range(n):
        out[:, i] = means[:i + 1, i:].min(axis=1).max(axis=0)
    return out


def reaching_fraction(fractions, curves, targets):
    """Where non-decreasing curves (n_rows, n_fractions) reach their targets (n_rows,).

    Infinite: nowhere; the first of ``fractions``: there or before; NaN: something is undefined.
    """
    x, out = np.log(fractions), np.full(len(curves), np.nan)
    defined = np.flatnonzero(~np.isnan(curves).any(axis=1) & ~np.isnan(targets))
    if not len(defined):
        return out
    curves, targets = curves[defined], targets[defined]
    with np.errstate(over="ignore"):  # slopes next to 0 are inverted on the way
        pieces = PchipInterpolator(x, curves.T).c                  # (4, n_fractions - 1, n_rows), highest power first
    reached = curves >= targets[:, None]
    first = reached.argmax(axis=1)
    found = np.where(reached.any(axis=1), np.asarray(fractions)[first], np.inf)
    inside = np.flatnonzero(first > 0)
    a, b, c, d = pieces[:, first[inside] - 1, inside]
    low, high = np.zeros(len(inside)), np.diff(x)[first[inside] - 1]
    for _ in range(50):  # bisection: the piece is monotone
        middle = (low + high) / 2
        below = ((a * middle + b) * middle + c) * middle + d < targets[inside]
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found[inside] = np.exp(x[first[inside] - 1] + high)
    out[defined] = found
    return out


def holm(p_values):
    """P-values adjusted by Holm's step-down method."""
    order, adjusted, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = float(largest)
    return adjusted


def _p_value(difference, error, freedom):
    """Two-sided, and not 0 even where nothing varies."""
    if np.isnan(error) or difference == 0:
        return 1.0
    return float(max(np.finfo(float).tiny, 2 * student.sf(abs(difference) / error, freedom) if error else 0.0))


def _freedom(curve, metric, arm, reference, error):
    """Degrees of freedom of the error of a difference, part of which is estimated from a few repeats.

    ``arm`` and ``reference`` are numbers of an arm and of a fraction; on the same fraction their repeats are pairs.
    """
    (a, of_arm), (b, of_reference) = arm, reference
    own, number, runs = 0.0, 0, _runs_by_place(curve)
    for split in range(len(curve.splits)):
        ours, theirs = (
            np.array([curve.evaluate(run, metric) for run in runs[fraction, split][i]])
            for i, fraction in ((a, of_arm), (b, of_reference))
        )
        for values in [ours - theirs] if of_arm == of_reference else [ours, theirs]:
            if len(values) > 1:
                own += np.var(values, ddof=1) / len(values) / len(curve.splits) ** 2
                number += len(values) - 1
    n_patients = len(np.unique(np.asarray(curve.groups)[np.concatenate([test for _, test in curve.splits])]))
    rest = max(0.0, error**2 - own)  # what patients add
    spread = own**2 / max(1, number) + rest**2 / max(1, n_patients - 1)
    return error**4 / spread if spread > 0 else float("inf")


def _interval(values, confidence_level):
    """Percentiles without interpolation, rounded outwards, since values can be infinite."""
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - confidence_level) / 2 * (len(values) - 1)
    return float(values[int(np.floor(tail))]), float(values[int(np.ceil(len(values) - 1 - tail))])


def _runs_by_place(curve):
    """{(number of the fraction, split): one list of runs per arm, in the order of their repeats}."""
    runs = {
        (fraction, split): [[] for _ in curve.arms]
        for fraction in range(len(curve.label_fractions)) for split in range(len(curve.splits))
    }
    for run in sorted(curve.runs, key=lambda run: run.repeat):
        place = curve.label_fractions.index(run.fraction), run.split
        runs[place][curve.arms.index(run.arm)].append(run)
    return runs


def number_of(curve, arm):
    """Place of an arm among those of a study; ValueError where there is none of this name."""
    if arm not in curve.arms:
        raise ValueError(f"There is no arm {arm!r}; the study has {', '.join(map(repr, curve.arms))}.")
    return curve.arms.index(arm)


def _check_level(confidence_level):
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level is {confidence_level!r}; expected a number between 0 and 1, such as 0.95.")
