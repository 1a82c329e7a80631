"""Self-supervised ECG representation learning as scikit-learn estimators.

The names below are resolved on first use, so that ``skecg.datasets`` and ``skecg.preprocessing``
load without torch.
"""

from importlib import import_module

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "ECGSelfSupervisedEmbedder": "skecg._embedder",
    "ECGClassifier": "skecg._supervised",
    "ECGRegressor": "skecg._supervised",
    "HeadClassifier": "skecg._supervised",
    "HeadRegressor": "skecg._supervised",
    "MultilabelThresholdClassifier": "skecg._thresholds",
    "RecordClassifier": "skecg._record_classifier",
    "RecordPredictions": "skecg._record_classifier",
    "TrainingInterrupted": "skecg._checkpoints",
    "save": "skecg.persistence",
    "load": "skecg.persistence",
}
_ROOMS = (
    "datasets", "preprocessing", "encoders", "objectives", "heads", "metrics", "model_selection",
    "recipes", "persistence", "evaluation",
)

__all__ = ["__version__", *_PUBLIC, *_ROOMS]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return import_module(f"skecg.{name}")
    raise AttributeError(f"module 'skecg' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
