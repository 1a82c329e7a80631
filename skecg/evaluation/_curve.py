"""What a label-efficiency study found: every run with its predictions, and the tables made from them."""

import json
import zipfile
from dataclasses import asdict, dataclass, field

import numpy as np

from .._files import write_atomically
from ..metrics._table import METRICS
from ..model_selection import LabelBudget

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Run:
    """One arm, trained on one budget and tested on one split.

    Attributes
    ----------
    arm : str
    fraction : float
        Share of the training patients whose labels were used.
    repeat, split : int
        Which draw of the budget, and which split of the cross-validation.
    n_labels, n_patients : int
        Labelled samples and their patients.
    absent : tuple
        Classes of which the budget has no positive.
    seconds : float
        Wall-clock time of fit and prediction, without pretraining.
    n_updates : int or None
        Gradient updates with labels, where the arm is a network.
    best_params : dict or None
        What a search chose inside the budget.
    scores : ndarray of shape (n_test, n_classes) or None
        Probabilities or decision values of the test samples, columns in the order of ``curve.classes``.
    predictions : ndarray of shape (n_test,) or (n_test, n_outputs) or None
        Predicted labels or values.
    """

    arm: str
    fraction: float
    repeat: int
    split: int
    n_labels: int
    n_patients: int
    absent: tuple
    seconds: float
    n_updates: int | None
    best_params: dict | None
    scores: np.ndarray | None = field(repr=False)
    predictions: np.ndarray | None = field(repr=False)


class LabelEfficiencyCurve:
    """Result of :func:`label_efficiency_curve`.

    Attributes
    ----------
    arms : tuple of str
        Names of the arms.
    label_fractions : tuple of float
        Shares of the training patients whose labels were used, ascending.
    metrics : tuple of str
        Names of the metrics; the first is the default everywhere.
    runs : list of Run
        Every arm on every budget of every split, with its predictions.
    pretraining : list of dict
        One entry per network that was pretrained: ``split``, ``arms`` that start from it, ``n_samples``, ``n_patients``,
        ``seconds``, ``history`` (the embedder's ``history_``), and whether it happened ``outside`` of the study.
    budgets : list of list of LabelBudget
        The labelled samples, per split; rows count within the training part of the split.
    splits : list of (train, test)
        Row indices of X.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    groups : ndarray of shape (n_samples,)
        Patient of each sample.
    classes : ndarray or None
        Classes of single-label targets, in the order of the columns of predictions.
    transductive : bool
        Whether pretraining saw the test signals (without labels).
    settings : dict
        How the study was made: the arms as text, seed, versions.
    """

    def __init__(self, *, arms, label_fractions, metrics, runs, pretraining, budgets, splits, y, groups, classes,
                 transductive, settings):
        self.arms = tuple(arms)
        self.label_fractions = tuple(label_fractions)
        self.metrics = tuple(metrics)
        self._functions = dict(metrics)
        order = {arm: i for i, arm in enumerate(self.arms)}
        self.runs = sorted(runs, key=lambda run: (order[run.arm], run.fraction, run.split, run.repeat))
        self.pretraining = pretraining
        self.budgets = budgets
        self.splits = splits
        self.y = y
        self.groups = groups
        self.classes = classes
        self.transductive = transductive
        self.settings = settings
        self._resampled = {}  # what the bootstrap has computed already

    def __repr__(self):
        fractions = ", ".join(f"{fraction:.4g}" for fraction in self.label_fractions)
        kind = ", TRANSDUCTIVE" if self.transductive else ""
        return (f"<LabelEfficiencyCurve of {', '.join(self.arms)}: label fractions {fractions}; {len(self.splits)} "
                f"split(s), {len(self.runs)} runs{kind}>")

    def select(self, *, arm=None, fraction=None, split=None, repeat=None):
        """Runs of the given arm, label fraction, split and repeat; None takes all."""
        if arm is not None and arm not in self.arms:
            raise ValueError(f"There is no arm {arm!r}; the study has {', '.join(map(repr, self.arms))}.")
        wanted = {"arm": arm, "fraction": fraction, "split": split, "repeat": repeat}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        return [run for run in self.runs if all(getattr(run, name) == value for name, value in wanted.items())]

    def evaluate(self, run, metric=None, weights=None):
        """Value of a metric on the test samples of a run.

        Parameters
        ----------
        run : Run
            One of ``runs``.
        metric : str, default=None
            One of ``metrics``; None is the first.
        weights : ndarray of shape (n_resamples, n_test), default=None
            How often each test sample counts, for many resamples at once.

        Returns
        -------
        float, or ndarray of shape (n_resamples,)
        """
        function = self._functions[self._metric_name(metric)]
        test = self.splits[run.split][1]
        known = METRICS.get(function) if isinstance(function, str) else None
        if known is None:
            response = run.predictions if run.scores is None else run.scores
            call, resampled, options = function, None, {}
        else:
            response = run.scores if known.response == "scores" else run.predictions
            options = {} if self.classes is None else {"labels": self.classes}
            call, resampled = known.function, known.resampled
        y = self.y[test]
        if weights is None:
            return float(call(y, response, **options))
        if resampled is not None:
            return resampled(y, response, weights, **options)
        rows = np.arange(len(test))
        return np.array([
            call(y[drawn], response[drawn], **options) if len(drawn) else np.nan
            for drawn in (np.repeat(rows, weight) for weight in weights)
        ], dtype=float)

    def unit(self, metric=None):
        """Unit of a metric, such as "mm"; empty where it has none, or where it is a function of the user's."""
        function = self._functions[self._metric_name(metric)]
        return METRICS[function].unit if isinstance(function, str) else ""

    def _metric_name(self, metric):
        if metric is None:
            return self.metrics[0]
        if metric not in self._functions:
            raise ValueError(f"There is no metric {metric!r}; the study has {', '.join(self.metrics)}.")
        return metric

    @property
    def table(self):
        """One dict per run and metric: ``arm``, ``fraction``, ``repeat``, ``split``, ``metric``, ``value``, ``n_labels``,
        ``n_patients``, ``absent``, ``n_updates``, ``best_params``, ``seconds``."""
        return [
            {
                "arm": run.arm, "fraction": run.fraction, "repeat": run.repeat, "split": run.split, "metric": metric,
                "value": self.evaluate(run, metric), "n_labels": run.n_labels, "n_patients": run.n_patients,
                "absent": list(run.absent), "n_updates": run.n_updates, "best_params": run.best_params,
                "seconds": run.seconds,
            }
            for run in self.runs for metric in self.metrics
        ]

    def to_frame(self):
        """``table`` as a ``pandas.DataFrame``; needs ``pip install skecg[pandas]``."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install 'skecg[pandas]'. `table` is the same without it."
            ) from error
        return pd.DataFrame(self.table)

    def to_json(self, path=None):
        """The study without predictions: settings, pretraining and ``table``, as JSON text, or written to ``path``."""
        document = {
            "settings": self.settings, "transductive": self.transductive, "pretraining": self.pretraining,
            "runs": self.table,
        }
        text = json.dumps(document, indent=1, default=plain) + "\n"
        if path is None:
            return text
        write_atomically(path, lambda file: file.write(text.encode()))
        return None

    def save(self, path):
        """Write everything, predictions too, to one ``.npz`` file without pickles; ``load`` reads it."""
        arrays = {"y": storable(self.y), "groups": storable(self.groups)}
        if self.classes is not None:
            arrays["classes"] = storable(self.classes)
        for i, (train, test) in enumerate(self.splits):
            arrays |= {f"train{i}": train, f"test{i}": test}
            arrays |= {f"budget{i}_{j}": budget.rows for j, budget in enumerate(self.budgets[i])}
        runs = []
        for i, run in enumerate(self.runs):
            row = {name: getattr(run, name) for name in Run.__dataclass_fields__ if name not in ("scores", "predictions")}
            for name in ("scores", "predictions"):
                if getattr(run, name) is not None:
                    arrays[f"{name}{i}"] = storable(getattr(run, name))
            runs.append(row)
        document = {
            "format": FORMAT, "arms": self.arms, "label_fractions": self.label_fractions,
            "metrics": {name: function if isinstance(function, str) else None for name, function in self._functions.items()},
            "pretraining": self.pretraining, "transductive": self.transductive, "settings": self.settings, "runs": runs,
            "n_splits": len(self.splits),
            "budgets": [
                [{**asdict(budget), "rows": None, "class_counts": list(budget.class_counts.items())} for budget in of_split]
                for of_split in self.budgets
            ],
        }
        arrays["document"] = np.frombuffer(json.dumps(document, default=plain).encode(), np.uint8)
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path, *, metrics=None):
        """Read what ``save`` wrote.

        Parameters
        ----------
        path : str or Path
        metrics : dict of callables, default=None
            Metrics by name, where the study used functions of the user's own; a file holds none.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            document = json.loads(arrays["document"].tobytes())
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{path} is not what LabelEfficiencyCurve.save writes ({error!r}).") from error
        if document["format"] > FORMAT:
            raise ValueError(
                f"{path} was written by a newer skecg (format {document['format']}, known {FORMAT}). Update skecg."
            )
        functions = {name: function or (metrics or {}).get(name) for name, function in document["metrics"].items()}
        missing = [name for name, function in functions.items() if function is None]
        if missing:
            raise ValueError(f"{path} uses functions as metrics, which no file holds: pass metrics={{{missing[0]!r}: ...}}.")
        splits = [(arrays[f"train{i}"], arrays[f"test{i}"]) for i in range(document["n_splits"])]
        runs = [
            Run(**{**row, "absent": tuple(row["absent"])}, scores=arrays.get(f"scores{i}"),
                predictions=arrays.get(f"predictions{i}"))
            for i, row in enumerate(document["runs"])
        ]
        budgets = [
            [
                LabelBudget(**{
                    **row, "rows": arrays[f"budget{i}_{j}"], "patients": tuple(row["patients"]),
                    "class_counts": dict(row["class_counts"]),
                })
                for j, row in enumerate(of_split)
            ]
            for i, of_split in enumerate(document["budgets"])
        ]
        return cls(
            arms=document["arms"], label_fractions=document["label_fractions"], metrics=functions, runs=runs,
            pretraining=document["pretraining"], budgets=budgets, splits=splits, y=arrays["y"], groups=arrays["groups"],
            classes=arrays.get("classes"), transductive=document["transductive"], settings=document["settings"],
        )


def plain(value):
    """What JSON lacks, as what it has."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, set)):
        return list(value)
    return repr(value)


def storable(array):
    """Arrays of objects (patient ids, labels) as text, which needs no pickle."""
    array = np.asarray(array)
    return array.astype(str) if array.dtype == object else array
