"""Metrics that stay defined when a class is missing, per window and per record, and their intervals."""

from ._bootstrap import bootstrap_interval, bootstrap_weights
from ._decisions import accuracy, balanced_accuracy, cohen_kappa, macro_f1, macro_recall
from ._ranking import macro_average_precision, macro_roc_auc, roc_auc_per_class
from ._records import RecordScores, aggregate_windows
from ._scorers import class_scores, get_scorer
from ._table import resample_metric

__all__ = [
    "RecordScores", "accuracy", "aggregate_windows", "balanced_accuracy", "bootstrap_interval", "bootstrap_weights",
    "class_scores", "cohen_kappa", "get_scorer", "macro_average_precision", "macro_f1", "macro_recall",
    "macro_roc_auc", "resample_metric", "roc_auc_per_class",
]
