"""label_efficiency_curve: what each arm makes of a share of the labels."""

import pickle
import re
import time
import warnings
from collections import Counter, defaultdict
from functools import partial
from importlib.metadata import version
from numbers import Integral
from pathlib import Path

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from sklearn.base import BaseEstimator, clone, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import has_fit_parameter
from tqdm.auto import tqdm

from .. import __version__
from .._embedder import ECGSelfSupervisedEmbedder
from .._files import write_atomically
from .._predictor import NetworkPredictor
from ..metrics import get_scorer
from ..metrics._scorers import MetricScorer
from ..metrics._table import METRICS
from ..model_selection import MultilabelStratifiedGroupKFold, label_budgets, load_budgets, save_budgets
from ._curve import LabelEfficiencyCurve
from ._pretraining import find_pretraining, freeze, is_search, seed_of
from ._runs import execute, read_run


def label_efficiency_curve(
    arms, X, y, *, groups=None, X_unlabeled=None, groups_unlabeled=None, label_fractions=(0.02, 0.05, 0.1, 0.3, 1.0),
    cv=None, n_repeats=5, scoring="roc_auc", budgets=None, transductive=False, n_jobs=None, cache_dir=None, verbose=1,
    random_state=None,
):
    """Score estimators that were trained on shares of the labelled patients.

    Every split of the cross-validation is worked through in the same way. Embedders are pretrained on the whole training
    part without labels, once per split whatever the number of fractions and repeats. Then every arm is trained on the
    same budgets of labelled patients, which are nested and stratified, and predicts the test part.

    Parameters
    ----------
    arms : dict of str to estimator
        What to compare: any scikit-learn estimator, on signals or on features. An
        :class:`~skecg.ECGSelfSupervisedEmbedder` anywhere inside (in a Pipeline, an :class:`~skecg.ECGClassifier`, a search)
        is pretrained and frozen together with the pipeline steps before it; arms with equal embedders share one. An
        embedder of ``max_epochs=0`` is a random initialisation, drawn anew in each repeat. A search (``GridSearchCV`` and
        its kind), alone or as the last step of a Pipeline, tunes inside each budget: with ``cv`` None (5) or a number its
        folds are stratified and keep patients apart, with ``scoring=None`` it maximises the first metric.
    X : array-like of shape (n_samples, n_leads, n_times), (n_samples, n_times) or (n_samples, n_features)
        Signals in millivolt, or features; or records or paths, where all arms are :class:`~skecg.RecordClassifier`.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Classes, a multi-label indicator matrix, or values for regressors (several per sample: (n_samples, n_targets)).
        Whole numbers are values where all arms are regressors. Budgets and folds of values are drawn by patient alone.
    groups : array-like of shape (n_samples,), default=None
        Patients. None: every sample is a patient of its own.
    X_unlabeled : array-like of shape (n_unlabeled, n_leads, n_times), default=None
        Further signals for pretraining, beside those of the training part.
    groups_unlabeled : array-like of shape (n_unlabeled,), default=None
        Their patients; those of the test part are left out of pretraining.
    label_fractions : sequence of float, default=(0.02, 0.05, 0.1, 0.3, 1.0)
        Shares of the training patients whose labels are used.
    cv : int, splitter or iterable of (train, test), default=None
        None: 5 folds, stratified, patients apart. One pair of index arrays is a fixed test part.
    n_repeats : int or sequence of int, default=5
        Budgets drawn per fraction (each with other seeds of heads and batches); a sequence has one number per fraction.
    scoring : str, callable, list of str or dict of str to str or callable, default="roc_auc"
        Metrics, larger is better: a name that :func:`skecg.metrics.get_scorer` knows, or ``metric(y_true, y_score)`` on
        probabilities or decision values (predicted values of regressors, for which there is "neg_localization_error").
    budgets : str, Path or list, default=None
        Manifest of an earlier study (``cache_dir/budgets.json``, or ``curve.budgets``), whose budgets are used again.
        ``label_fractions``, ``n_repeats`` are then those of the manifest.
    transductive : bool, default=False
        Whether pretraining sees the signals of the test part too. The result says so, and so does its plot.
    n_jobs : int, default=None
        Processes. Each gets an equal share of torch's threads.
    cache_dir : str or Path, default=None
        Where finished pretrainings and runs are kept. The same call takes up there after a kill, and a call with a further
        arm only computes that; needs ``random_state``. Records on disk are known by their paths. Holds pickles: keep
        it where only you can write.
    verbose : int, default=1
        1 shows a progress bar with an estimate of the time left.
    random_state : int, RandomState or None, default=None
        Seed of budgets, folds, and of every ``random_state`` inside the arms that is None. A ``random_state`` that an arm
        has is kept, and then the same in all repeats.

    Returns
    -------
    curve : LabelEfficiencyCurve

    Raises
    ------
    ValueError
        Patients on both sides of a split, unlabelled signals that are test signals, a manifest of other data, arms that
        cannot be compared, a metric for which smaller is better, ``early_stopping`` in a budget of one patient.
    RuntimeError
        An arm failed; finished runs are in ``cache_dir``.

    Warns
    -----
    UserWarning
        Budgets that lack a class; networks that were given different numbers of updates on the same budget; what arms warned
        about, once for each arm: messages that differ in numbers only count as one.

    See Also
    --------
    label_saving : The fraction at which one arm reaches another's full result.
    LabelEfficiencyDisplay : Plots the result.
    skecg.model_selection.audit_leakage : Finds shared patients and duplicated windows.

    Notes
    -----
    * A budget that holds a single class, or a single value, trains nothing: its runs predict that.
    * Arms share, within a repeat, the budget and the seed; classifiers with equal heads start from the same head.
    * :class:`~skecg.ECGClassifier` and :class:`~skecg.ECGRegressor` make equal steps on equal budgets when their
      ``max_epochs``, ``min_updates``, ``head_epochs`` and ``batch_size`` are equal; ``min_updates`` keeps small budgets from
      meaning few updates.

    References
    ----------
    Oliver A, Odena A, Raffel C, Cubuk ED, Goodfellow IJ. Realistic evaluation of deep semi-supervised learning
    algorithms. NeurIPS 2018.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import PatchTransformer
    >>> from skecg.evaluation import label_efficiency_curve
    >>> X, y, groups = make_ecg(60, classes=("normal", "atrial fibrillation"), duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=16, depth=1), max_epochs=1)
    >>> arms = {"probe": make_pipeline(embedder, LogisticRegression()),
    ...         "fine-tuned": ECGClassifier(embedder, max_epochs=1)}
    >>> curve = label_efficiency_curve(arms, X, y, groups=groups, label_fractions=(0.3, 1.0), cv=2, n_repeats=1,
    ...                                verbose=0, random_state=0)
    >>> len(curve.pretraining), len(curve.runs)         # one pretraining per split, shared by both arms
    (2, 8)
    """
    study = _Study(
        arms, X, y, groups, X_unlabeled, groups_unlabeled, label_fractions, cv, n_repeats, scoring, budgets, transductive,
        effective_n_jobs(n_jobs), None if cache_dir is None else Path(cache_dir), verbose, random_state,
    )
    study.pretrain()
    study.run()
    study.warn()
    return study.curve()


class _Study:
    """The state of one study while it runs."""

    def __init__(self, arms, X, y, groups, X_unlabeled, groups_unlabeled, label_fractions, cv, n_repeats, scoring, budgets,
                 transductive, n_jobs, folder, verbose, random_state):
        if folder is not None and not isinstance(random_state, Integral):
            raise ValueError(
                f"random_state={random_state!r} with a cache_dir: runs are found again by their seed. Pass an integer."
            )
        self.arms = _check_arms(arms)
        self.X, self.y, self.groups = indexable(X, np.asarray(y), groups)
        self.groups = np.arange(len(self.y)) if groups is None else np.asarray(groups)
        self.has_groups = groups is not None
        kind = type_of_target(self.y, input_name="y")
        # whole numbers are classes, unless it is values that the arms predict
        self.continuous = kind.startswith("continuous") or all(map(is_regressor, self.arms.values()))
        self.classes = None if self.continuous or kind.startswith("multilabel") else np.unique(self.y)
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError(f"y holds one class ({self.classes[0]!r}); expected two at least.")
        self.targets = self.y if kind.startswith("continuous") or not self.continuous else self.y + 0.5
        self.metrics = _check_metrics(scoring, self.continuous)
        self.seed = int(random_state) if isinstance(random_state, Integral) else int(
            check_random_state(random_state).randint(np.iinfo(np.int32).max))
        self.transductive, self.n_jobs, self.folder, self.verbose = bool(transductive), n_jobs, folder, verbose
        self.splits = self._check_splits(cv)
        self._check_unlabeled(X_unlabeled, groups_unlabeled)
        if budgets is None:
            self.budgets = [
                label_budgets(
                    self.targets[train], self.groups[train], label_fractions=label_fractions, n_repeats=n_repeats,
                    random_state=seed_of(self.seed, split),
                )
                for split, (train, _) in enumerate(self.splits)
            ]
        else:
            self.budgets = self._check_budgets(budgets)
        self._check_early_stopping()
        # whatever runs and pretrainings depend on, besides the arm, its budget and its seed
        self.fingerprint = joblib.hash([
            self.X, self.y, self.groups, self.X_unlabeled, self.groups_unlabeled, self.transductive, __version__,
        ])
        self.pretrained, self.pretraining, self.runs, self.messages = {}, [], [], defaultdict(dict)
        if folder is not None:
            save_budgets(folder / "budgets.json", [budget for of_split in self.budgets for budget in of_split])

    def _check_splits(self, cv):
        if cv is None or isinstance(cv, Integral):
            n = 5 if cv is None else cv
            cv = GroupKFold(n) if self.continuous else MultilabelStratifiedGroupKFold(
                n, shuffle=True, random_state=seed_of(self.seed))
        if isinstance(cv, tuple) and len(cv) == 2 and all(np.ndim(part) == 1 for part in cv):
            cv = [cv]
        rows = np.zeros(len(self.y))
        splits = [(np.asarray(train), np.asarray(test)) for train, test in check_cv(cv).split(rows, self.y, self.groups)]
        splits = [tuple(np.flatnonzero(part) if part.dtype == bool else part for part in split) for split in splits]
        for i, (train, test) in enumerate(splits):
            shared = np.intersect1d(self.groups[train], self.groups[test])
            if len(shared):
                raise ValueError(
                    f"Split {i} has {len(shared)} patient(s) both in training and in test, such as {shared[0]!r}. Use a "
                    "splitter that keeps groups apart, or leave cv at None."
                )
        return splits

    def _check_unlabeled(self, X_unlabeled, groups_unlabeled):
        self.X_unlabeled, self.groups_unlabeled = X_unlabeled, groups_unlabeled
        if X_unlabeled is None:
            return
        if np.shape(X_unlabeled)[1:] != np.shape(self.X)[1:]:
            raise ValueError(
                f"X_unlabeled has samples of shape {np.shape(X_unlabeled)[1:]}, X of shape {np.shape(self.X)[1:]}; expected "
                "the same leads and length."
            )
        if groups_unlabeled is not None:
            self.groups_unlabeled = indexable(X_unlabeled, np.asarray(groups_unlabeled))[1]
        known = {hash(np.ascontiguousarray(row).tobytes()) for row in X_unlabeled}
        dtype = np.asarray(X_unlabeled[:1]).dtype
        same = [i for i, row in enumerate(self.X) if hash(np.ascontiguousarray(row, dtype).tobytes()) in known]
        if same and not self.transductive:
            raise ValueError(
                f"{len(same)} samples of X, such as number {same[0]}, are in X_unlabeled as well: pretraining would see the "
                "test part. Take them out of X_unlabeled (the training part of X is pretrained on anyway), or ask for "
                "transductive=True."
            )

    def _check_budgets(self, budgets):
        if not isinstance(budgets, (list, tuple)):
            return [load_budgets(budgets, self.targets[train], self.groups[train]) for train, _ in self.splits]
        if len(budgets) != len(self.splits):
            raise ValueError(f"The budgets are those of {len(budgets)} splits; cv makes {len(self.splits)}.")
        for split, ((train, _), of_split) in enumerate(zip(self.splits, budgets, strict=True)):
            own = label_budgets(self.targets[train], self.groups[train], label_fractions=[1.0])[0].fingerprint
            if any(budget.fingerprint != own for budget in of_split):
                raise ValueError(
                    f"The budgets of split {split} were drawn from other data, or with another cv. Leave them out."
                )
        return [list(of_split) for of_split in budgets]

    def _check_early_stopping(self):
        """Patients cannot be set apart where there is one; a budget of one class or value, which trains nothing, may be."""
        def stops_early(arm):
            last = arm[-1] if isinstance(arm, Pipeline) else arm
            parts = (last, *last.get_params().values())
            return has_fit_parameter(last, "groups") and any(
                isinstance(part, NetworkPredictor) and part.early_stopping for part in parts)

        name = next((name for name, arm in self.arms.items() if stops_early(arm)), None)
        if name is None:
            return
        multilabel = self.classes is None and not self.continuous
        for split, (train, _) in enumerate(self.splits):
            for budget in self.budgets[split]:
                if budget.n_patients == 1 and (multilabel or len(np.unique(self.y[train[budget.rows]], axis=0)) > 1):
                    raise ValueError(
                        f"The arm {name!r} has early_stopping=True, which sets patients apart, but the budget of label "
                        f"fraction {budget.fraction:.4g} in split {split} has a single one. Use larger label_fractions, or "
                        "early_stopping=False."
                    )

    def pretrain(self):
        """Fit every distinct embedder once per split."""
        jobs, arms = {}, defaultdict(set)
        for split in range(len(self.splits)):
            for name, arm in self.arms.items():
                for job in find_pretraining(arm):
                    jobs[split, job.key] = job
                    arms[split, job.key].add(name)
        files = {
            (split, key): self._file("pretrained", "joblib", [key, self._pretraining_rows(split), seed_of(self.seed, split)])
            for split, key in jobs
        }
        self.pretrained = {place: _read(file, joblib.load) for place, file in files.items()}
        todo = [place for place, found in self.pretrained.items() if found is None]
        n_jobs = min(self.n_jobs, len(todo))  # one alone has all threads, and shows its epochs
        options = {
            "checkpoint_dir": None if self.folder is None else self.folder / "checkpoints",
            "verbose": int(bool(self.verbose) and n_jobs == 1),
        }
        calls = (
            delayed(_pretrain)(
                place, jobs[place], *self._signals(place[0]), seed_of(self.seed, place[0]), options
            )
            for place in todo
        )
        with self._progress(len(jobs), len(jobs) - len(todo), "pretraining") as progress:
            for place, found in self._parallel(calls, n_jobs):
                self.pretrained[place] = found
                if files[place] is not None:  # here: a worker cannot name the classes of the user's script
                    write_atomically(files[place], partial(joblib.dump, found))
                progress.update()
        for place, found in self.pretrained.items():
            entry = {name: found[name] for name in ("n_samples", "n_patients", "seconds")}
            entry["history"] = found["result"][1].history_
            self.pretraining.append({"split": place[0], "arms": sorted(arms[place]), "outside": False, **entry})
        outside = sorted(name for name, arm in self.arms.items() if _holds_frozen_embedder(arm))
        if outside:
            self.pretraining.append({"split": None, "arms": outside, "outside": True})

    def _pretraining_rows(self, split):
        train, test = self.splits[split]
        return np.sort(np.concatenate([train, test])) if self.transductive else train

    def _signals(self, split):
        """Signals to pretrain on, and their patients."""
        rows = self._pretraining_rows(split)
        X, groups = _safe_indexing(self.X, rows), self.groups[rows].astype(str)
        if self.X_unlabeled is None:
            return X, groups if self.has_groups else None
        if self.groups_unlabeled is None:
            extra, names = self.X_unlabeled, np.array([f"unlabelled {i}" for i in range(len(self.X_unlabeled))])
        else:
            names = self.groups_unlabeled.astype(str)
            keep = np.ones(len(names), bool)
            if not self.transductive:
                keep = ~np.isin(names, self.groups[self.splits[split][1]].astype(str))
            extra, names = _safe_indexing(self.X_unlabeled, np.flatnonzero(keep)), names[keep]
        return np.concatenate([X, extra]), np.concatenate([groups, names]) if self.has_groups else None

    def run(self):
        """Train every arm on every budget and predict the test part."""
        tasks, done = [], []
        options = {
            "classes": self.classes, "continuous": self.continuous, "has_groups": self.has_groups,
            "scoring": next(iter(self.metrics.values())),
            "wants": sorted({METRICS[m].response if isinstance(m, str) else "scores" for m in self.metrics.values()}),
        }
        for split, (train, test) in enumerate(self.splits):
            arms = {}
            for name, arm in self.arms.items():
                pretrained = {key: found["result"] for (s, key), found in self.pretrained.items() if s == split}
                arms[name] = freeze(arm, pretrained)
                _check_search(name, arms[name])
            for budget in self.budgets[split]:
                rows = train[budget.rows]
                seed = seed_of(self.seed, split, budget.repeat)
                for name, arm in arms.items():
                    file = self._file("runs", "npz", [clone(self.arms[name]), rows, test, train, seed, options["wants"],
                                                      str(options["scoring"])])
                    run = _read(file, read_run)
                    if run is None:
                        tasks.append((name, split, budget, arm, rows, test, seed, file))
                    else:
                        done.append((run, []))
        tasks.sort(key=lambda task: -task[2].fraction)  # the long ones first: no core is idle at the end
        jobs = (
            delayed(execute)(name, split, budget, arm, self.X, self.y, self.groups, rows, test, seed, file, options)
            for name, split, budget, arm, rows, test, seed, file in tasks
        )
        for run, messages in done:
            self._take(run, messages)
        with self._progress(len(done) + len(tasks), len(done), "runs") as progress:
            left = Counter((name, budget.fraction) for name, _, budget, *_ in tasks)
            for run, messages in self._parallel(jobs, min(self.n_jobs, max(1, len(tasks)))):
                self._take(run, messages)
                left[run.arm, run.fraction] -= 1
                progress.set_postfix_str(_time_left(left, self.runs, self.n_jobs), refresh=False)
                progress.update()

    def _take(self, run, messages):
        self.runs.append(run)
        if len(self.runs) == 1:
            self.try_metrics()
        alike = defaultdict(set)
        for category, text in messages:
            alike[category, re.sub(r"\d+", "", text)].add(text)
        of_arm = self.messages[run.arm]
        for kind, texts in alike.items():
            n_runs, others = of_arm.get(kind, (0, set()))
            of_arm[kind] = n_runs + 1, others | texts

    def try_metrics(self):
        """A metric that cannot be computed is known after the first run, not after the last."""
        curve = self.curve()
        for name, metric in self.metrics.items():
            try:
                curve.evaluate(curve.runs[0], name)
            except Exception as error:
                raise ValueError(
                    f"scoring={metric!r} cannot be computed on the first run ({type(error).__name__}: {error}). Expected a "
                    "name that skecg.metrics.get_scorer knows, or metric(y_true, y_score) -> float, where y_score has a "
                    "column per class (predicted values for regressors)."
                ) from error

    def _parallel(self, jobs, n_jobs):
        if n_jobs <= 1:
            yield from (function(*args, **kwargs) for function, args, kwargs in jobs)
            return
        with parallel_config(backend="loky", inner_max_num_threads=max(1, torch.get_num_threads() // n_jobs)):
            yield from Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=n_jobs)(jobs)

    def _progress(self, total, initial, label):
        return tqdm(total=total, initial=initial, desc=label, unit="fit", disable=not self.verbose or initial == total)

    def _file(self, kind, suffix, key):
        if self.folder is None:
            return None
        try:
            return self.folder / kind / f"{joblib.hash([self.fingerprint, key])}.{suffix}"
        except pickle.PicklingError as error:
            raise ValueError(
                f"An arm cannot be written to cache_dir ({error}). Define its functions in a module."
            ) from error

    def warn(self):
        """Say what a reader of the curve has to know."""
        absent = Counter((run.fraction, c) for run in self.runs if run.arm == next(iter(self.arms)) for c in run.absent)
        if self.y.ndim == 2:  # labels that nobody has are no matter of budgets
            columns = self.budgets[0][0].class_counts
            nobody = {c for c, has in zip(columns, (self.y == 1).any(axis=0), strict=False) if not has}
            absent = {key: n for key, n in absent.items() if key[1] not in nobody}
        if absent:
            total = Counter(b.fraction for of_split in self.budgets for b in of_split)
            listed = "; ".join(f"{c} in {n} of {total[f]} at {f:.3g}" for (f, c), n in sorted(absent.items(), key=str))
            warnings.warn(
                f"Budgets without any label of a class: {listed}. Their runs count all the same.", UserWarning, stacklevel=3
            )
        for split, (_, test) in enumerate(self.splits):
            missing = [] if self.classes is None else np.setdiff1d(self.classes, self.y[test]).tolist()
            if missing:
                warnings.warn(
                    f"The test part of split {split} has no sample of {', '.join(map(str, missing))}: macro averages there "
                    "are over the other classes.", UserWarning, stacklevel=3,
                )
        if self.X_unlabeled is not None and not self.pretrained:
            warnings.warn("X_unlabeled was given, but no arm pretrains an embedder.", UserWarning, stacklevel=3)
        updates = defaultdict(dict)
        for run in self.runs:
            if run.n_updates is not None:
                updates[run.split, run.fraction, run.repeat][run.arm] = run.n_updates
        uneven = next((by_arm for by_arm in updates.values() if len(set(by_arm.values())) > 1), None)
        if uneven:
            listed = ", ".join(f"{arm} {n}" for arm, n in uneven.items())
            warnings.warn(
                f"Networks made different numbers of updates on the same budget ({listed}): set their max_epochs, "
                "min_updates, head_epochs and batch_size so that they agree.", UserWarning, stacklevel=3,
            )
        for arm, messages in self.messages.items():
            for (category, _), (n, texts) in messages.items():
                others = f" (and {len(texts) - 1} more that differ in numbers only)" if len(texts) > 1 else ""
                warnings.warn(f"Arm {arm!r}, in {n} run(s): {category}: {min(texts)}{others}", UserWarning, stacklevel=3)

    def curve(self):
        settings = {
            "arms": {name: repr(arm) for name, arm in self.arms.items()}, "n_samples": len(self.y),
            "n_patients": len(np.unique(self.groups)), "random_state": self.seed,
            "versions": {"skecg": __version__} | {name: version(name) for name in ("torch", "scikit-learn", "numpy")},
        }
        fractions = sorted({budget.fraction for of_split in self.budgets for budget in of_split})
        return LabelEfficiencyCurve(
            arms=self.arms, label_fractions=fractions, metrics=self.metrics, runs=self.runs, pretraining=self.pretraining,
            budgets=self.budgets, splits=self.splits, y=self.y, groups=self.groups, classes=self.classes,
            transductive=self.transductive, settings=settings,
        )


def _check_arms(arms):
    if not isinstance(arms, dict) or not arms:
        raise ValueError(
            f"arms is {arms!r}; expected a dict of name to estimator, such as {{'from scratch': ECGClassifier(...)}}."
        )
    for name, arm in arms.items():
        if not isinstance(name, str):
            raise ValueError(f"The arm {name!r} has a {type(name).__name__} for a name; expected a str.")
        if isinstance(arm, type) or not all(hasattr(arm, method) for method in ("fit", "get_params")):
            raise ValueError(f"The arm {name!r} is {arm!r}, which is not an estimator.")
        if not any(hasattr(arm, method) for method in ("predict", "predict_proba", "decision_function")):
            raise ValueError(
                f"The arm {name!r} ({type(arm).__name__}) predicts nothing: put a classifier behind it in a Pipeline."
            )
    return {name: clone(arm) for name, arm in arms.items()}


def _check_metrics(scoring, continuous):
    """Ordered dict of metric name to name in METRICS or function."""
    if isinstance(scoring, MetricScorer):
        scoring = scoring.metric
    if isinstance(scoring, str):
        scoring = {scoring: scoring}
    elif callable(scoring):
        scoring = {getattr(scoring, "__name__", "score").strip("<>"): scoring}
    elif not isinstance(scoring, dict):
        scoring = {name: name for name in scoring}
    scoring = {name: m.metric if isinstance(m, MetricScorer) else m for name, m in scoring.items()}
    for name, metric in scoring.items():
        if isinstance(metric, str):
            get_scorer(metric)  # complains about names it does not know
            of_values = METRICS[metric].response == "values"
            if of_values and not continuous:
                raise ValueError(
                    f"scoring={metric!r} is for positions that regressors predict, but y holds classes. Use 'roc_auc', say, "
                    "or regressors in all arms."
                )
            if continuous and not of_values:
                raise ValueError(
                    f"scoring={metric!r} is for classes, but y is continuous. Use 'neg_localization_error' for positions, "
                    "or pass a function metric(y_true, y_pred), larger is better."
                )
        elif not callable(metric):
            raise ValueError(f"scoring has {metric!r} as {name!r}; expected the name of a metric or a function.")
        elif _is_loss(metric):
            raise ValueError(
                f"scoring={metric!r} is smaller for better predictions, but larger has to be better. Use "
                "'neg_localization_error' for positions, or pass a function that changes the sign."
            )
    return scoring


def _is_loss(metric):
    """Whether a function of this library or of scikit-learn is one of those whose names say that less is better."""
    while isinstance(metric, partial):
        metric = metric.func
    library, name = (getattr(metric, part, None) or "" for part in ("__module__", "__name__"))
    return library.split(".")[0] in ("skecg", "sklearn") and name.endswith(("_error", "_loss")) and name[:4] != "neg_"


def _check_search(name, arm):
    """A grid may not reach into what has just been frozen."""
    arm = arm[-1] if isinstance(arm, Pipeline) else arm
    if not is_search(arm):
        return
    grids = getattr(arm, "param_grid", None) or getattr(arm, "param_distributions", None) or {}
    for grid in [grids] if isinstance(grids, dict) else grids:
        for parameter, values in grid.items():
            target = clone(arm.estimator)
            try:
                target.set_params(**{parameter: values[0] if isinstance(values, (list, tuple, np.ndarray)) else None})
            except (ValueError, AttributeError) as error:
                raise ValueError(
                    f"The arm {name!r} searches over {parameter!r}, which it does not have once its embedder is pretrained "
                    "and frozen. Make an arm for each pretraining, and search over what the labels train."
                ) from error


def _holds_frozen_embedder(arm):
    """Whether the user brought a pretrained embedder, of which the study cannot know what it has seen."""
    if isinstance(arm, FrozenEstimator):
        inner = arm.estimator
        return isinstance(inner, ECGSelfSupervisedEmbedder) or _holds_frozen_embedder(inner)
    if isinstance(arm, (list, tuple)):
        return any(map(_holds_frozen_embedder, arm))
    return isinstance(arm, BaseEstimator) and any(map(_holds_frozen_embedder, arm.get_params(deep=False).values()))


def _pretrain(place, job, X, groups, seed, options):
    started = time.perf_counter()
    steps, embedder = job.fit(X, groups, seed, **options)
    found = {
        "result": (steps, embedder), "n_samples": len(X),
        "n_patients": len(X) if groups is None else len(np.unique(groups)), "seconds": time.perf_counter() - started,
    }
    return place, found


def _read(file, load):
    """What an earlier study left, or None."""
    if file is None or not file.exists():
        return None
    try:
        with open(file, "rb") as stream:
            return load(stream)
    except Exception as error:
        message = f"{file} cannot be read ({type(error).__name__}: {error}) and is computed again."
        warnings.warn(message, UserWarning, stacklevel=4)
        return None


def _time_left(left, runs, n_jobs):
    """An estimate by the mean time of the finished runs of the same arm, at the same or the next larger fraction."""
    seconds = defaultdict(list)
    for run in runs:
        seconds[run.arm, run.fraction].append(run.seconds)
    total, everything = 0.0, np.mean([run.seconds for run in runs])
    for (arm, fraction), n in left.items():
        known = sorted((f for a, f in seconds if a == arm), key=lambda f: (f < fraction, abs(f - fraction)))
        total += n * (np.mean(seconds[arm, known[0]]) if known else everything)
    minutes = total / n_jobs / 60
    return f"about {minutes:.0f} min left" if minutes > 1.5 else f"about {60 * minutes:.0f} s left"
