"""What the metrics share: targets as indicator matrices, blocks of weights, quotients that may be undefined.

Every metric is computed by a kernel ``kernel(true, predicted, weights) -> (n_resamples,)``: ``true`` is a boolean matrix
(n_samples, n_classes), ``predicted`` one of scores or of decisions, and ``weights`` (n_resamples, n_samples) says how often
each sample counts. The metric itself is the case of one resample in which every sample counts once.
"""

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_consistent_length

from ._records import aggregate_windows, constant_per_record

# Resamples looked at together, in bytes of float64 weights. A kernel holds about six such arrays, best in a cache.
_BLOCK_BYTES = 2**20


def scored_classes(y_true, y_score, labels=None, record_ids=None):
    """Indicator matrix and scores, both (n_samples, n_classes), of samples or of records."""
    y_true, y_score = as_target(y_true), np.asarray(y_score, dtype=float)
    check_consistent_length(y_true, y_score, record_ids)
    if labels is None and y_true.ndim == 1:
        labels = np.unique(y_true)
    true = indicator(y_true, labels, "y_true")
    if y_score.ndim == 1:
        if true.shape[1] == 1:
            y_score = y_score[:, np.newaxis]
        elif true.shape[1] == 2 and y_true.ndim == 1:
            y_score = np.stack([-y_score, y_score], axis=1)
    if y_score.shape != true.shape:
        raise ValueError(
            f"y_score has shape {y_score.shape}, expected one column per class, {true.shape}. Pass labels=classes_ if "
            "y_true may lack a class."
        )
    names = np.arange(len(true))
    if record_ids is not None:
        true = constant_per_record(true, record_ids)
        names, y_score, _, _ = aggregate_windows(y_score, record_ids)
    missing = np.isnan(y_score).any(axis=1)
    if missing.any():
        unit = "sample" if record_ids is None else "record"
        raise ValueError(
            f"y_score is NaN for {missing.sum()} of {len(missing)} {unit}s, first for {unit} {names[missing.argmax()]}. "
            f"Score every {unit}, or leave those out of y_true and y_score."
        )
    return true, y_score


def decided_classes(y_true, y_pred, labels=None, record_ids=None):
    """True and predicted indicator matrix, both (n_samples, n_classes), of samples or, by majority, of records."""
    y_true, y_pred = as_target(y_true), as_target(y_pred)
    if y_true.ndim != y_pred.ndim or y_true.shape[1:] != y_pred.shape[1:]:
        raise ValueError(
            f"y_pred has shape {y_pred.shape}, but y_true has shape {y_true.shape}: expected decisions as predict gives "
            "them, a label for each sample or an indicator matrix. Scores go to macro_roc_auc or macro_average_precision."
        )
    check_consistent_length(y_true, y_pred, record_ids)
    if labels is None and y_true.ndim == 1:
        labels = np.union1d(y_true, y_pred)
    true, predicted = indicator(y_true, labels, "y_true"), indicator(y_pred, labels, "y_pred")
    if record_ids is not None:
        true = constant_per_record(true, record_ids)
        votes = aggregate_windows(predicted, record_ids).scores
        predicted = votes > 0.5 if y_true.ndim == 2 else np.eye(votes.shape[1], dtype=bool)[votes.argmax(axis=1)]
    return true, predicted


def one_decided_class(y_true, y_pred, labels=None, record_ids=None):
    """``decided_classes`` that refuses multi-label targets."""
    if as_target(y_true).ndim != 1:
        raise ValueError(
            f"y_true has shape {np.shape(y_true)}, but cohen_kappa and balanced_accuracy take one label for each sample. "
            "Use macro_f1 or macro_recall for multi-label targets."
        )
    return decided_classes(y_true, y_pred, labels, record_ids)


def as_target(y):
    return y.toarray() if issparse(y) else np.asarray(y)


def indicator(y, labels, name):
    if y.ndim == 2:
        if not ((y == 0) | (y == 1)).all():
            raise ValueError(f"{name} is two-dimensional, but no indicator matrix of 0 and 1 with a column per label.")
        return y.astype(bool)
    if y.ndim != 1:
        raise ValueError(f"{name} has shape {y.shape}; expected (n_samples,), or (n_samples, n_labels) if multi-label.")
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(np.unique(labels)) != len(labels):
        raise ValueError(f"labels must name each class once, got {labels.tolist()}.")
    columns = y[:, np.newaxis] == labels
    unknown = ~columns.any(axis=1)
    if unknown.any():
        raise ValueError(f"{name} holds labels that labels lacks: {', '.join(map(str, np.unique(y[unknown])))}.")
    return columns


def check_weights(weights, n_samples):
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != n_samples:
        raise ValueError(f"weights has shape {weights.shape}; expected (n_resamples, {n_samples}).")
    if weights.size and not weights.min() >= 0:
        raise ValueError("weights holds negative values or NaN; expected how often each sample was drawn.")
    return weights


def weight_blocks(weights):
    """Slices of resamples, and their weights as float64 (n_samples, n_block): rows of samples are contiguous."""
    size = max(1, _BLOCK_BYTES // (8 * max(1, weights.shape[1])))
    for start in range(0, len(weights), size):
        rows = slice(start, start + size)
        yield rows, np.ascontiguousarray(weights[rows].T, dtype=float)


def once(kernel, true, predicted):
    """The metric of the samples as they are."""
    return float(kernel(true, predicted, np.ones((1, len(true))))[0])


def ratio(numerator, denominator):
    """The quotient, NaN where the denominator is zero."""
    out = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


def mean_of_defined(values):
    """Mean over the last axis without the NaN in it; NaN if there is nothing else."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
