"""The metrics by name, and their values on many resamples."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ._challenge import challenge_classes, challenge_kernel, cinc_score
from ._common import check_weights, decided_classes, one_decided_class, scored_classes
from ._decisions import (
    accuracy,
    balanced_accuracy,
    cohen_kappa,
    kappa,
    macro_f1,
    macro_recall,
    mean_f1,
    mean_recall,
    share_correct,
)
from ._ranking import macro_average_precision, macro_roc_auc, mean_average_precision, mean_roc_auc
from ._regression import neg_localization_error, negative_median, positions, share_localized, share_near


class Metric(NamedTuple):
    """A metric, and what it takes."""

    function: Callable  # (y_true, predicted, *, labels=None, record_ids=None) -> float
    prepare: Callable   # (y_true, predicted, labels) -> matrices of the kernel
    kernel: Callable    # (true, predicted, weights) -> (n_resamples,)
    unit: str = ""

    @property
    def response(self):
        """What ``predicted`` is: "scores" (see ``class_scores``), or "labels" or "values" as ``predict`` gives them."""
        return {scored_classes: "scores", positions: "values"}.get(self.prepare, "labels")

    def resampled(self, y_true, predicted, weights, *, labels=None):
        true, predicted = self.prepare(y_true, predicted, labels)
        return self.kernel(true, predicted, check_weights(weights, len(true)))


METRICS = {
    "roc_auc": Metric(macro_roc_auc, scored_classes, mean_roc_auc),
    "average_precision": Metric(macro_average_precision, scored_classes, mean_average_precision),
    "f1": Metric(macro_f1, decided_classes, mean_f1),
    "recall": Metric(macro_recall, decided_classes, mean_recall),
    "balanced_accuracy": Metric(balanced_accuracy, one_decided_class, mean_recall),
    "kappa": Metric(cohen_kappa, one_decided_class, kappa),
    "accuracy": Metric(accuracy, decided_classes, share_correct),
    **{
        f"cinc_{year}": Metric(*(partial(part, year=year) for part in (cinc_score, challenge_classes, challenge_kernel)))
        for year in (2020, 2021)
    },
    "neg_localization_error": Metric(neg_localization_error, positions, negative_median, unit="mm"),
    "localized_within_10_mm": Metric(share_localized, positions, share_near),
}


def metric_named(name):
    if name not in METRICS:
        raise ValueError(f"{name!r} is no metric of skecg; expected one of {', '.join(METRICS)}.")
    return METRICS[name]


def resample_metric(name, y_true, predicted, weights, *, labels=None):
    """A metric on many resamples of the same samples, without repeating rows.

    Equals the metric on the repeated rows, ties and missing classes included: a class that a resample lacks is left out of
    that resample's mean. Scores are sorted once, whatever the number of resamples.

    Parameters
    ----------
    name : {"roc_auc", "average_precision", "f1", "recall", "balanced_accuracy", "kappa", "accuracy", "cinc_2020", \
            "cinc_2021", "neg_localization_error", "localized_within_10_mm"}
        As in :func:`get_scorer`.
    y_true : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_coordinates)
        Class labels, a multi-label indicator matrix, or positions.
    predicted : array-like of shape (n_samples, n_classes), (n_samples,), (n_samples, n_labels) or (n_samples, n_coordinates)
        Scores for "roc_auc" and "average_precision", positions for the two last, else decisions.
    weights : array-like of shape (n_resamples, n_samples)
        How often each resample has drawn each sample, as :func:`bootstrap_weights` gives it.
    labels : array-like of shape (n_classes,), default=None
        Classes of the columns of scores, or classes that may occur among decisions; as in the metric itself.

    Returns
    -------
    ndarray of shape (n_resamples,)
        NaN where the metric is undefined.

    Raises
    ------
    ValueError
        Weights of another shape, or negative; and as the metric itself.

    Examples
    --------
    An interval over patients of a difference between two models:

    >>> import numpy as np
    >>> from skecg.metrics import bootstrap_weights, resample_metric
    >>> rng = np.random.default_rng(0)
    >>> y, patients = rng.integers(2, size=200), np.repeat(np.arange(50), 4)
    >>> good, poor = y + rng.normal(size=(2, 200)) * [[0.5], [2.0]]
    >>> weights = bootstrap_weights(patients, n_resamples=500, random_state=0)
    >>> difference = resample_metric("roc_auc", y, good, weights) - resample_metric("roc_auc", y, poor, weights)
    >>> low, high = np.nanquantile(difference, [0.025, 0.975])
    >>> bool(0 < low < high)
    True
    """
    return metric_named(name).resampled(y_true, predicted, weights, labels=labels)
