"""Metrics that stay defined when a class is missing, per window and per record, and their intervals."""

from ._bootstrap import bootstrap_interval, bootstrap_weights
from ._challenge import CincClasses, cinc_classes, cinc_score
from ._decisions import accuracy, balanced_accuracy, cohen_kappa, macro_f1, macro_recall
from ._ranking import macro_average_precision, macro_roc_auc, roc_auc_per_class
from ._records import RecordScores, aggregate_windows
from ._regression import localization_error, share_localized
from ._scorers import class_scores, get_scorer
from ._table import resample_metric

__all__ = [
    "CincClasses", "RecordScores", "accuracy", "aggregate_windows", "balanced_accuracy", "bootstrap_interval",
    "bootstrap_weights", "cinc_classes", "cinc_score", "class_scores", "cohen_kappa", "get_scorer",
    "localization_error", "macro_average_precision", "macro_f1", "macro_recall", "macro_roc_auc", "resample_metric",
    "roc_auc_per_class", "share_localized",
]
