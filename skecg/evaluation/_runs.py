"""One run of a study: an arm trained on a budget, in whatever process."""

import json
import time
import warnings
from dataclasses import dataclass, fields
from functools import partial
from numbers import Integral

import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_regressor
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

from .._files import write_atomically
from ..metrics import class_scores, get_scorer
from ..model_selection import MultilabelStratifiedGroupKFold
from ._curve import Run, plain, storable
from ._pretraining import is_search, seeded


def execute(name, split, budget, arm, X, y, groups, rows, test, seed, file, options):
    """Fit one arm on one budget; the run, and what it warned about."""
    started = time.perf_counter()
    scores = predictions = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model, only = _fit(arm, X, y, groups, rows, seed, options)
            X_test = _safe_indexing(X, test)
            if only is not None:
                predictions = np.repeat(np.asarray(only)[None], len(test), axis=0)
                if not options["continuous"]:
                    scores = np.repeat((options["classes"] == only)[None].astype(float), len(test), axis=0)
            else:
                if not options["continuous"] and "scores" in options["wants"]:
                    scores = class_scores(model, X_test, options["classes"]).astype(np.float32)
                if options["continuous"] or "labels" in options["wants"]:
                    predictions = np.asarray(model.predict(X_test))
        except Exception as error:
            raise RuntimeError(
                f"Arm {name!r} failed at label fraction {budget.fraction:.4g}, split {split}, repeat {budget.repeat} "
                f"({budget.n_labels} labels): {type(error).__name__}: {error}"
            ) from error
    best = getattr(model[-1] if isinstance(model, Pipeline) else model, "best_params_", None)
    run = Run(
        arm=name, fraction=budget.fraction, repeat=budget.repeat, split=split, n_labels=budget.n_labels,
        n_patients=budget.n_patients, absent=_absent(budget, options["classes"]), seconds=time.perf_counter() - started,
        n_updates=_n_updates(model), best_params=best and json.loads(json.dumps(best, default=plain)), scores=scores,
        predictions=predictions,
    )
    if file is not None:
        write_atomically(file, partial(write_run, run))
    return run, [(warning.category.__name__, str(warning.message)) for warning in caught]


def _fit(arm, X, y, groups, rows, seed, options):
    """The fitted model, or None and the only class or value of the budget."""
    X, y, groups = _safe_indexing(X, rows), y[rows], groups[rows]
    if (options["continuous"] or options["classes"] is not None) and len(np.unique(y, axis=0)) == 1:
        return None, y[0]
    model = seeded(clone(arm), seed)
    last = model[-1] if isinstance(model, Pipeline) else model
    if is_search(last):
        _prepare_search(last, y, groups, seed, options)
    parameters = {}
    if options["has_groups"] and has_fit_parameter(last, "groups"):
        if last is model:
            parameters["groups"] = groups
        elif not get_config()["enable_metadata_routing"]:
            parameters[f"{model.steps[-1][0]}__groups"] = groups
    return model.fit(X, y, **parameters), None


def _prepare_search(search, y, groups, seed, options):
    """Folds that keep patients apart, and the study's metric, unless the search brings its own."""
    if search.cv is None or isinstance(search.cv, Integral):
        search.set_params(cv=_inner_folds(y, groups, 5 if search.cv is None else search.cv, seed, options))
    elif hasattr(search.cv, "split"):  # a splitter of the user's own is told the patients
        search.set_params(cv=list(search.cv.split(np.zeros(len(y)), y, groups)))
    if search.scoring is None:
        metric = options["scoring"]
        search.set_params(
            scoring=get_scorer(metric) if isinstance(metric, str) else _FunctionScorer(metric, options["classes"])
        )


def _inner_folds(y, groups, n_folds, seed, options):
    """Folds of a budget by patient; by sample where patients leave no fold with two classes to train on."""
    for units in (groups, np.arange(len(y))):
        n = min(n_folds, len(np.unique(units)))
        if n < 2:
            continue
        splitter = MultilabelStratifiedGroupKFold(n, shuffle=True, random_state=seed)
        if options["continuous"]:
            splitter = GroupKFold(n)
        folds = list(splitter.split(np.zeros(len(y)), y, units))
        if options["classes"] is not None:
            folds = [(train, valid) for train, valid in folds if len(np.unique(y[train])) > 1]
        if folds:
            return folds
    raise ValueError(f"a search has nothing to validate on in a budget of {len(y)} sample(s). Use a larger fraction.")


@dataclass(frozen=True)
class _FunctionScorer:
    """A user's metric as what searches take."""

    function: object
    classes: object

    def __call__(self, estimator, X, y):
        if is_regressor(estimator):
            return self.function(y, estimator.predict(X))
        return self.function(y, class_scores(estimator, X, self.classes))


def _absent(budget, classes):
    """Classes that the budget lacks, those that the whole training part lacks included."""
    if classes is None:
        return tuple(budget.absent)
    return tuple(name for name in classes.tolist() if not budget.class_counts.get(name))


def _n_updates(model):
    """Gradient updates of a network, wherever it lies in the model."""
    if isinstance(model, Pipeline):
        return _n_updates(model[-1])
    if hasattr(model, "best_estimator_"):
        return _n_updates(model.best_estimator_)
    return getattr(model, "n_updates_", None)


def write_run(run, file):
    arrays = {"scores": run.scores, "predictions": run.predictions}
    arrays = {name: storable(array) for name, array in arrays.items() if array is not None}
    row = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("scores", "predictions")}
    np.savez_compressed(file, run=np.frombuffer(json.dumps(row, default=plain).encode(), np.uint8), **arrays)


def read_run(path):
    with np.load(path, allow_pickle=False) as file:
        row = json.loads(file["run"].tobytes())
        return Run(**{**row, "absent": tuple(row["absent"])}, scores=file.get("scores"), predictions=file.get("predictions"))
