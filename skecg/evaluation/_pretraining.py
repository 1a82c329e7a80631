"""Pretraining apart from labels: every embedder inside an arm is fitted once per split and frozen."""

import copy
import pickle
from dataclasses import dataclass

import joblib
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from .._embedder import ECGSelfSupervisedEmbedder
from .._on_signals import SignalPredictor
from .._record_classifier import RecordClassifier

_AFTERWARDS = ("output", "cache", "verbose", "checkpoint_dir")  # parameters that pretraining does not depend on


@dataclass(frozen=True)
class Pretraining:
    """An embedder, and the steps that its signals pass before it (a RecordClassifier cuts them); all unfitted."""

    steps: tuple
    embedder: ECGSelfSupervisedEmbedder

    @property
    def key(self):
        """Equal for equal parameters: arms that pretrain the same way share one pretraining."""
        parameters = {k: v for k, v in clone(self.embedder).get_params(deep=False).items() if k not in _AFTERWARDS}
        try:
            return joblib.hash([[_plain(step) for step in self.steps], parameters])
        except pickle.PicklingError:  # a function inside another one can be told from others by its identity only
            return f"{[id(step) for step in self.steps]} {id(self.embedder)}"

    def fit(self, X, groups, seed, checkpoint_dir=None, verbose=0):
        """(frozen steps, fitted embedder)."""
        steps = []
        for step in self.steps:
            if isinstance(step, RecordClassifier):
                X, numbers = step.cut(X)
                groups = None if groups is None else groups[numbers]
                steps.append(None)  # nothing to freeze
                continue
            step = seeded(clone(step), seed)
            try:
                X = step.fit(X).transform(X)
            except Exception as error:
                raise ValueError(
                    f"{step!r} comes before an embedder and is fitted on the unlabelled training part; that failed: {error} "
                    "A step that needs labels belongs after the embedder."
                ) from error
            steps.append(FrozenEstimator(step))
        embedder = seeded(clone(self.embedder), seed)
        embedder.set_params(verbose=max(embedder.verbose, verbose))
        if embedder.checkpoint_dir is None:
            embedder.set_params(checkpoint_dir=checkpoint_dir)
        return steps, embedder.fit(X, groups=groups)


def _plain(step):
    """What a step does to signals; how a RecordClassifier cuts them does not depend on its estimator."""
    if isinstance(step, RecordClassifier):
        return {name: value for name, value in step.get_params(deep=False).items() if name not in ("estimator", "how")}
    return clone(step)


def find_pretraining(arm):
    """The :class:`Pretraining` of every embedder inside an arm."""
    found = []

    def note(steps, embedder):
        found.append(Pretraining(steps, embedder))
        return [], embedder

    _replace(arm, (), note)
    return found


def freeze(arm, pretrained):
    """An arm with every embedder, and the steps before it, replaced by fitted and frozen ones.

    Parameters
    ----------
    arm : estimator
        Is not changed.
    pretrained : dict
        ``Pretraining.key`` to (frozen steps, fitted embedder).
    """
    def frozen(steps, embedder):
        frozen_steps, fitted = pretrained[Pretraining(steps, embedder).key]
        own = copy.copy(fitted).set_params(**{name: getattr(embedder, name) for name in _AFTERWARDS})
        return frozen_steps, FrozenEstimator(own)

    return _replace(arm, (), frozen)


def _replace(value, before, fitted):
    """A copy of ``value`` in which ``fitted(before, embedder)`` stands in place of each embedder that has to be pretrained.

    ``before`` are the steps of the enclosing pipelines that signals pass first.
    """
    if isinstance(value, FrozenEstimator) or not _pretrains(value):
        return value
    if isinstance(value, ECGSelfSupervisedEmbedder):
        return fitted(before, value)[1]
    if isinstance(value, Pipeline):
        return _replace_steps(value, before, fitted)
    if isinstance(value, dict):
        return {key: _replace(item, before, fitted) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replace(item, before, fitted) for item in value)
    if isinstance(value, RecordClassifier):
        return clone(value).set_params(estimator=_replace(value.estimator, (*before, value), fitted))
    parameters = value.get_params(deep=False)
    if is_search(value) and any(_pretrains(item) for name, item in parameters.items() if name != "estimator"):
        raise ValueError(
            f"{type(value).__name__} searches among embedders, which are pretrained once per split, not once per candidate. "
            "Make each of them an arm of its own."
        )
    if isinstance(value, SignalPredictor) and value.embedder is None:
        parameters["embedder"] = ECGSelfSupervisedEmbedder()
    return type(value)(**{name: _replace(item, before, fitted) for name, item in parameters.items()})


def is_search(estimator):
    """Whether it is GridSearchCV or one of its kind."""
    return isinstance(estimator, BaseEstimator) and all(
        hasattr(estimator, name) for name in ("estimator", "cv", "scoring", "refit")
    )


def _replace_steps(pipeline, before, fitted):
    pretrains = [_pretrains(step) for _, step in pipeline.steps]
    if sum(pretrains) > 1:
        raise ValueError(
            f"{pipeline!r} has several steps with an embedder to pretrain, one after another. Freeze the first "
            "(FrozenEstimator), or join them by a FeatureUnion."
        )
    position = pretrains.index(True)
    own = tuple(step for _, step in pipeline.steps[:position] if step not in (None, "passthrough"))
    frozen = None

    def note(steps, embedder):
        nonlocal frozen
        result = fitted(steps, embedder)
        frozen = frozen or result[0][len(before): len(before) + len(own)]
        return result

    name, step = pipeline.steps[position]
    step = _replace(step, before + own, note)
    remaining = iter(frozen or own)
    steps = [
        (n, s if s in (None, "passthrough") else next(remaining)) for n, s in pipeline.steps[:position]
    ] + [(name, step), *pipeline.steps[position + 1:]]
    return clone(pipeline).set_params(steps=steps)


def _pretrains(value):
    """Whether an embedder that has to be pretrained lies inside. One of ``max_epochs=0`` is a random initialisation, and has
    not: each repeat then draws its own."""
    if isinstance(value, FrozenEstimator):
        return False
    if isinstance(value, ECGSelfSupervisedEmbedder):
        return value.max_epochs > 0
    if isinstance(value, dict):
        return any(map(_pretrains, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_pretrains, value))
    if isinstance(value, SignalPredictor) and value.embedder is None:
        return True
    return isinstance(value, BaseEstimator) and any(map(_pretrains, value.get_params(deep=False).values()))


def seeded(estimator, seed):
    """The estimator, with every ``random_state`` inside that is None set; what its user has set stays."""
    parameters = estimator.get_params(deep=True)
    unset = {
        name: seed for name, value in parameters.items()
        if (name == "random_state" or name.endswith("__random_state")) and value is None
    }
    return estimator.set_params(**unset) if unset else estimator


def seed_of(*key):
    """An integer seed for a place in the study, such as (study's seed, split, repeat)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0] >> 1)
