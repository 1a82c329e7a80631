"""RecordClassifier: whole recordings in, one prediction per recording out."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import assert_all_finite, check_consistent_length, check_is_fitted, has_fit_parameter

from ._validation import as_3d, check_lead_names, validate_ecg
from .datasets import ECGFormatError, ECGRecord, read_record
from .datasets._records import RecordSequence
from .metrics import aggregate_windows, class_scores
from .preprocessing import make_windows
from .preprocessing._cutting import label, n_samples

_BLOCK_BYTES = 2**26  # windows that predictions are made for at a time


class RecordPredictions(NamedTuple):
    """What :meth:`RecordClassifier.predict_records` returns: a row per record, in the order of the records.

    Parameters
    ----------
    names : ndarray of shape (n_records,), str
        Names of the records; their numbers where they have none.
    groups : ndarray of shape (n_records,) or None
        Patients, if they were given.
    labels : ndarray of shape (n_records,) or (n_records, n_labels)
        What ``predict`` gives. Where some record has no usable window the array is one of objects, None for that record.
    scores : ndarray of shape (n_records, n_classes), (n_records, n_labels) or (n_records,), float64
        What ``predict_proba`` gives, or ``decision_function`` of an estimator without probabilities. NaN for a record
        without a usable window.
    spread : ndarray of the shape of ``scores``, float64
        Standard deviation over the windows of a record: how much they disagree. 0 for a single window.
    n_windows : ndarray of shape (n_records,), int
        Usable windows.
    classes : ndarray
        What the columns of ``scores`` are.
    """

    names: np.ndarray
    groups: np.ndarray | None
    labels: np.ndarray
    scores: np.ndarray
    spread: np.ndarray
    n_windows: np.ndarray
    classes: np.ndarray

    def to_frame(self):
        """A ``pandas.DataFrame``, indexed by name, with a column of scores and one of spread for each class."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install 'skecg[pandas]'.") from error
        columns = {} if self.groups is None else {"group": self.groups}
        if self.labels.ndim == 1:
            columns["label"] = self.labels
        else:
            columns |= {f"label {name}": column for name, column in zip(self.classes, self.labels.T, strict=True)}
        columns["n_windows"] = self.n_windows
        names = self.classes if self.scores.ndim == 2 else self.classes[1:]
        for title, values in (("score", self.scores), ("spread", self.spread)):
            values = values.reshape(len(values), -1)
            columns |= {f"{title} {name}": column for name, column in zip(names, values.T, strict=True)}
        return pd.DataFrame(columns, index=pd.Index(self.names, name="record"))


def _advice(estimator):
    """What to do where an estimator does not give the scores that are wanted."""
    classifier = "Take a classifier that has, or put it into CalibratedClassifierCV."
    return "It is a regressor; take a classifier." if is_regressor(estimator) else classifier


def _estimator_has(name):
    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


class RecordClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Classify whole recordings of any length by a classifier of windows.

    Records are cut into windows, the estimator learns and predicts windows, and the predictions of a record's windows are
    combined to one. Records may be given as paths: each is read when its turn comes.

    Parameters
    ----------
    estimator : estimator
        Classifier of windows with ``predict_proba`` or ``decision_function``: a Pipeline,
        :class:`~skecg.ECGClassifier`, a search. ``fit`` fits a clone. One that is fitted already is kept as it is inside
        :class:`~sklearn.frozen.FrozenEstimator`; ``fit`` then needs no labels, and ``lead_names`` and ``fs`` are to be
        given as the estimator learned them.
    length : float, default=None
        Seconds of a window; a whole number of samples. None: a record is one window, and all have the same length.
    step : float, default=None
        Seconds from the start of one window to the start of the next. None: ``length``.
    lead_names : sequence of str, default=None
        Leads of the windows, in this order; matched without regard to case and prefix. A standard lead that a record does
        not have is NaN. None: those of the first record in ``fit``.
    fs : float, default=None
        Sampling rate in Hz that all records must have. None: that of the first record in ``fit``. Arrays need it where
        ``length`` is given.
    how : {"mean", "median", "max", "logit-mean"}, default="mean"
        How windows are combined; see :func:`~skecg.metrics.aggregate_windows`.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier of windows.
    classes_ : ndarray
        Class labels; label indices for multi-label targets.
    fs_ : float or None
        Sampling rate in Hz. None after a fit on an array without ``fs``.
    lead_names_in_ : tuple of str
        Leads of the windows.
    n_leads_in_, n_times_in_ : int
        Shape of a window.
    n_features_in_ : int
        Number of leads; of a two-dimensional array, of its columns.

    See Also
    --------
    skecg.preprocessing.make_windows : Windows alone.
    skecg.metrics.aggregate_windows : Predictions per record from predictions per window.

    Notes
    -----
    - A window has the label of its record. A long record has more windows than a short one, and weighs more in ``fit``.
    - The estimator is told which record a window comes from, or which patient where ``groups`` are given, wherever its
      ``fit`` takes ``groups`` (steps of a Pipeline included): so ``early_stopping`` keeps them apart. With metadata routing,
      it is told only if it asks. Records rather than windows have to be split in cross-validation: put the search around
      the RecordClassifier.
    - Probabilities of classes sum to one. With two classes, those of the second one are combined by ``how``; with more,
      "median", "max" and "logit-mean" are divided by their sum. The label is the most probable class. Decision values are
      combined by ``how`` as well, "logit-mean" being their mean.
    - Windows are cut by :func:`~skecg.preprocessing.make_windows`: the rest at the end of a record is dropped, and a gap
      makes that lead missing in its window. Values of arrays are checked as those of all estimators here are: NaN is a
      missing lead, from end to end.
    - ``fit`` holds all windows in memory. Predictions hold one record and 64 MiB of windows at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skecg import ECGSelfSupervisedEmbedder, RecordClassifier
    >>> from skecg.datasets import make_ecg_records
    >>> from skecg.encoders import PatchTransformer
    >>> data = make_ecg_records(20, classes=["normal", "left bundle branch block"], duration=7.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=16, depth=1), max_epochs=1, random_state=0)
    >>> clf = RecordClassifier(make_pipeline(embedder, LogisticRegression()), length=2.0)
    >>> clf = clf.fit(data.records, data.target, groups=data.patient_id)
    >>> clf.predict(data.records).shape
    (20,)
    >>> predicted = clf.predict_records(data.records[:2])
    >>> predicted.names, predicted.n_windows, predicted.spread.shape
    (array(['sim00000', 'sim00001'], dtype='<U8'), array([3, 3]), (2, 2))
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"])],
        "length": [Interval(Real, 0, None, closed="neither"), None],
        "step": [Interval(Real, 0, None, closed="neither"), None],
        "lead_names": ["array-like", None],
        "fs": [Interval(Real, 0, None, closed="neither"), None],
        "how": [StrOptions({"mean", "median", "max", "logit-mean"})],
    }

    def __init__(self, estimator, length=None, *, step=None, lead_names=None, fs=None, how="mean"):
        self.estimator = estimator
        self.length = length
        self.step = step
        self.lead_names = lead_names
        self.fs = fs
        self.how = how

    def fit(self, X, y=None, groups=None):
        """Cut windows and fit a clone of the estimator on them.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            Records in a list or as :func:`~skecg.datasets.read_records` gives them, paths as
            :func:`~skecg.datasets.read_record` takes them, or an array of shape (n_records, n_leads, n_times) or
            (n_records, n_times) in millivolt.
        y : array-like of shape (n_records,) or (n_records, n_labels)
            A label per record, or a multi-label indicator matrix if the estimator takes one. Not needed with a frozen
            estimator, for which no record but the first is read.
        groups : array-like of shape (n_records,), default=None
            A patient per record. None: each record is a patient of its own.

        Returns
        -------
        self : RecordClassifier

        Raises
        ------
        ValueError
            A record of another sampling rate, without any of the leads, or without a usable window (shorter than
            ``length``, or gaps in every lead); the message names it.
        ECGFormatError, FileNotFoundError
            A path that cannot be read.
        """
        self._validate_params()
        frozen = isinstance(self.estimator, FrozenEstimator)
        if y is None and not frozen:
            raise ValueError("RecordClassifier requires y to be passed, but the target y is None.")
        if not hasattr(self.estimator, "predict_proba") and not hasattr(self.estimator, "decision_function"):
            raise ValueError(
                f"{self.estimator!r} has neither predict_proba nor decision_function: predictions of its windows cannot be "
                f"combined. {_advice(self.estimator)}"
            )
        if self.step is not None and self.length is None:
            raise ValueError(f"step={self.step!r} without length: give both in seconds.")
        X, records = self._learn(X, frozen)
        y = None if y is None else np.asarray(y)
        if y is not None:
            assert_all_finite(y, input_name="y")
        owners = groups if groups is None else np.asarray(groups)
        check_consistent_length(X, y, owners)
        self._multilabel = None if y is None else type_of_target(y, input_name="y") == "multilabel-indicator"

        if frozen:
            self.estimator_ = self.estimator.fit(X, y)
        else:
            windows, numbers = self._windows(X, records)
            if owners is None and windows is not X:
                owners = np.arange(len(y))  # windows of one record belong together, also where no patients are known
            parameters = {} if owners is None else _groups_for(self.estimator, owners[numbers])
            self.estimator_ = clone(self.estimator).fit(windows, y[numbers], **parameters)
        classes = self.estimator_.classes_
        self.classes_ = np.arange(len(classes)) if isinstance(classes, list) else classes
        return self

    def cut(self, X):
        """The windows that ``fit`` would give to the estimator: to pretrain on, or to look at.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            As in ``fit``.

        Returns
        -------
        windows : ndarray of shape (n_windows, n_leads, n_times), or (n_windows, n_times)
            Millivolt.
        numbers : ndarray of shape (n_windows,), int
            The record of each.

        Raises
        ------
        ValueError
            As in ``fit``.
        """
        self._validate_params()
        scratch = clone(self)  # what is learned from X on the way belongs to fit
        return scratch._windows(*scratch._learn(X))

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Probabilities per record.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            As in ``fit``; records may have other lengths.

        Returns
        -------
        ndarray of shape (n_records, n_classes) or (n_records, n_labels)
            Rows sum to one for classes; for multi-label targets, each label's own probability.

        Raises
        ------
        ValueError
            As in ``fit``.
        """
        return self._predict(X, "predict_proba").scores

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X):
        """Decision values per record.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            As in ``fit``; records may have other lengths.

        Returns
        -------
        ndarray of shape (n_records, n_classes), (n_records, n_labels), or (n_records,) for two classes

        Raises
        ------
        ValueError
            As in ``fit``.
        """
        return self._predict(X, "decision_function").scores

    def predict(self, X):
        """The most probable class per record; for multi-label targets, labels of probability above 0.5.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            As in ``fit``; records may have other lengths.

        Returns
        -------
        ndarray of shape (n_records,) or (n_records, n_labels)

        Raises
        ------
        ValueError
            As in ``fit``.
        """
        return self._predict(X).labels

    def predict_records(self, X, groups=None):
        """Predictions per record, with how much its windows disagree.

        Parameters
        ----------
        X : sequence of ECGRecord or of paths, or array-like
            As in ``fit``; records may have other lengths.
        groups : array-like of shape (n_records,), default=None
            Patients, which travel along.

        Returns
        -------
        predictions : RecordPredictions
            A row for every record. That one has no usable window is no error here: its ``n_windows`` is 0, its scores are
            NaN.

        Raises
        ------
        ValueError
            A record of another sampling rate or without any of the leads, or no usable window at all.
        """
        if groups is not None:
            groups = np.asarray(groups)
            check_consistent_length(X, groups)
        return self._predict(X, strict=False)._replace(groups=groups)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags = get_tags(self.estimator).classifier_tags
        return tags

    # ------------------------------------------------------------------------------------------------ records

    def _learn(self, X, frozen=False):
        """Validated X, and its records (None: an array), after learning what they have in common."""
        records = _as_records(X)
        if records is None:
            X = validate_ecg(self, X, reset=True)
            self._learn_array()
        else:
            self._learn_records(records, frozen)
        return X, records

    def _learn_records(self, records, frozen):
        """What all records must have in common, from the first one."""
        if frozen and (self.fs is None or self.lead_names is None):
            raise ValueError(
                "A frozen estimator does not tell which leads it was fitted on, nor at which sampling rate: pass "
                "lead_names= and fs=."
            )
        first = _load(records[0], 0, self.lead_names)
        self.fs_ = float(first.fs if self.fs is None else self.fs)
        self.lead_names_in_ = check_lead_names(first.lead_names if self.lead_names is None else self.lead_names)
        self.n_features_in_ = self.n_leads_in_ = len(self.lead_names_in_)
        self.n_times_in_ = first.n_times if self.length is None else n_samples(self.length, self.fs_, "length")
        self._ndim_in = 3
        vars(self).pop("feature_names_in_", None)

    def _learn_array(self):
        self.fs_ = None if self.fs is None else float(self.fs)
        self.lead_names_in_ = check_lead_names(self.lead_names, self.n_leads_in_)
        if self.length is not None:
            if self.fs_ is None:
                raise ValueError("length is in seconds: pass fs=, the sampling rate of the array in Hz.")
            self.n_times_in_ = n_samples(self.length, self.fs_, "length")

    def _checked(self, X, records):
        """Records, or the rows of an array, as a sequence that checks each of them."""
        if records is None:
            records = [ECGRecord(row, self.fs_, self.lead_names_in_) for row in as_3d(X)]
        elif self.fs_ is None:
            raise ValueError(
                "RecordClassifier was fitted on an array without fs=, so that the sampling rate of records cannot be "
                "checked. Pass fs=."
            )
        return _Records(records, self.fs_, self.lead_names_in_, self.n_times_in_ if self.length is None else None)

    def _check_usable(self, records, counts):
        if not counts.all():
            names = [repr(records.names[i]) for i in np.flatnonzero(counts == 0)]
            listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise ValueError(
                f"{len(names)} of {len(counts)} records have no usable window of {self.n_times_in_ / self.fs_:g} s, being "
                f"shorter or with gaps in every lead: {listed}. Leave them out, or pass a shorter length."
            )

    # ------------------------------------------------------------------------------------------------ windows

    def _windows(self, X, records):
        """All windows, and the number of the record of each; X itself where each sample is one window."""
        if records is None and self.length is None:
            return X, np.arange(len(X))
        records = self._checked(X, records)
        windows, numbers = self._cut(records, np.arange(len(records)))
        self._check_usable(records, np.bincount(numbers, minlength=len(records)))
        return windows, numbers

    def _cut(self, records, numbers):
        """Windows of checked records as the estimator takes them, and the number of the record of each."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* records give no window", UserWarning)  # they are counted afterwards
            windows, _, numbers = make_windows(
                records, self.n_times_in_ / self.fs_, step=self.step, lead_names=self.lead_names_in_, groups=numbers
            )
        return windows[:, 0] if self._ndim_in == 2 else windows, numbers

    def _blocks(self, records):
        """Windows of all records and the numbers of their records, in blocks of bounded size."""
        n_times = self.n_times_in_
        n_step = n_times if self.step is None else n_samples(self.step, self.fs_, "step")
        n_block = max(1, _BLOCK_BYTES // (4 * self.n_leads_in_ * n_times))
        parts, numbers, n_free = [], [], n_block
        for number, record in enumerate(records):
            first, n_windows = 0, (record.n_times - n_times) // n_step + 1
            while first < n_windows:
                n = min(n_free, n_windows - first)
                times = slice(first * n_step, (first + n - 1) * n_step + n_times)
                parts.append(replace(record, signal=record.signal[:, times], annotations=None))
                numbers.append(number)
                first, n_free = first + n, n_free - n
                if not n_free:
                    yield from self._cut_block(parts, numbers)
                    parts, numbers, n_free = [], [], n_block
        if parts:
            yield from self._cut_block(parts, numbers)

    def _cut_block(self, parts, numbers):
        try:
            yield self._cut(parts, numbers)
        except ValueError:  # each part is long enough for a window, so that nothing but gaps can leave none
            if not all(np.isnan(part.signal).any() for part in parts):
                raise

    def _predict(self, X, method=None, strict=True):
        check_is_fitted(self)
        estimator = self.estimator_
        if method is None:
            method = "predict_proba" if hasattr(estimator, "predict_proba") else "decision_function"
        records = _as_records(X)
        if records is None:
            X = validate_ecg(self, X, reset=False, any_length=self.length is not None)
        if records is None and self.length is None:
            names, blocks = range(len(X)), [(X, np.arange(len(X)))]
        else:
            records = self._checked(X, records)
            names, blocks = records.names, self._blocks(records)
        values, numbers, multilabel = [], [], self._multilabel
        for windows, of_record in blocks:
            values.append(_window_scores(estimator, windows, method))
            numbers.append(of_record)
            if multilabel is None:
                multilabel = np.ndim(estimator.predict(windows[:1])) == 2
        if not values:
            self._check_usable(records, np.zeros(len(names)))
        # A row of NaN for every record, which counts as no window: records without any appear, all in their order.
        values.insert(0, np.full((len(names), *values[0].shape[1:]), np.nan))
        numbers.insert(0, np.arange(len(names)))
        how = "mean" if method == "decision_function" and self.how == "logit-mean" else self.how
        _, scores, spread, counts = aggregate_windows(np.concatenate(values), np.concatenate(numbers), how=how)
        if strict:
            self._check_usable(records, counts)
        if method == "predict_proba" and not multilabel:
            scores = _sum_to_one(scores, how)
        labels = self._labels(scores, 0.5 if method == "predict_proba" else 0.0, multilabel)
        if not counts.all():
            labels = labels.astype(object)
            labels[counts == 0] = None
        return RecordPredictions(np.asarray(names, str), None, labels, scores, spread, counts, self.classes_)

    def _labels(self, scores, threshold, multilabel):
        if multilabel:
            return (scores > threshold).astype(int)
        if scores.ndim == 1:
            return self.classes_[(scores > threshold).astype(int)]
        if scores.shape[1] != len(self.classes_):
            raise ValueError(
                f"{self.estimator_!r} gives {scores.shape[1]} scores for {len(self.classes_)} classes; expected one per "
                "class. Use decision_function_shape='ovr'."
            )
        return self.classes_[np.argmax(scores, axis=1)]


class _Records:
    """Records brought to the leads of the classifier and checked, one after another; ``names`` of those so far."""

    def __init__(self, sources, fs, lead_names, n_times):
        self.sources, self.fs, self.lead_names, self.n_times = sources, fs, lead_names, n_times
        self.names = []

    def __len__(self):
        return len(self.sources)

    def __iter__(self):
        for number in range(len(self)):
            record = _load(self.sources[number], number, self.lead_names)
            who = f"Record {label(record, number)}"
            if record.fs != self.fs:
                raise ValueError(
                    f"{who} has fs={record.fs:g} Hz, but RecordClassifier works at {self.fs:g} Hz. Resample it first, or "
                    "fit another classifier at its rate."
                )
            if self.n_times not in (None, record.n_times):
                raise ValueError(
                    f"{who} has {record.n_times} samples in time, others {self.n_times}. Pass length= in seconds to cut "
                    "windows."
                )
            self.names.append(record.name or str(number))
            yield record


def _as_records(X):
    """X where it is a sequence of records or paths, None where it is an array."""
    if isinstance(X, (str, os.PathLike, Bunch)) or hasattr(X, "signal"):
        raise ValueError(
            f"X is a {type(X).__name__}; expected a sequence of records or paths, or an array. Use read_records(folder) for "
            "a folder, data.records and data.target of a data set, and [record] for a single record."
        )
    if isinstance(X, RecordSequence):
        return X
    if getattr(X, "ndim", None) == 1 and getattr(X.dtype, "kind", "O") in "OU":
        X = list(X)
    if isinstance(X, Sequence) and len(X) and (isinstance(X[0], (str, os.PathLike)) or hasattr(X[0], "signal")):
        return X
    return None


def _load(source, number, lead_names):
    """The record with these leads; None: with its own."""
    try:
        if isinstance(source, (str, os.PathLike)):
            # leads that are not wanted may be of another rate or unit
            options = {} if lead_names is None else {"lead_names": lead_names, "missing": "nan"}
            source = read_record(source, **options)
        elif not hasattr(source, "signal"):
            raise ValueError(f"it is a {type(source).__name__}; expected an ECGRecord or the path of one.")
        return source if lead_names is None else source.select_leads(lead_names, missing="nan")
    except ECGFormatError:  # names its file
        raise
    except ValueError as error:
        name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "")
        raise ValueError(f"Record number {number}{f' ({name})' if name else ''} cannot be used: {error}") from error


def _groups_for(estimator, groups):
    """The arguments of ``fit`` by which an estimator, or steps of a Pipeline, learn the groups."""
    if get_config()["enable_metadata_routing"]:
        return {"groups": groups} if get_routing_for_object(estimator).consumes("fit", {"groups"}) else {}
    if isinstance(estimator, Pipeline):
        return {
            f"{name}__{key}": value for name, step in estimator.steps for key, value in _groups_for(step, groups).items()
        }
    is_search = hasattr(estimator, "cv") and hasattr(estimator, "refit")  # which hands them to its splitter
    return {"groups": groups} if is_search or has_fit_parameter(estimator, "groups") else {}


def _window_scores(estimator, windows, method):
    if method == "predict_proba":
        return class_scores(estimator, windows)
    return np.asarray(estimator.decision_function(windows), dtype=float)


def _sum_to_one(scores, how):
    """Combined probabilities of classes that exclude each other."""
    if how == "mean":
        return scores
    if how == "max" and scores.shape[1] == 2:  # the greatest of both would hide what shows in a single window
        return np.stack([1 - scores[:, 1], scores[:, 1]], axis=1)
    total = scores.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / scores.shape[1], scores / np.where(total == 0, 1, total))
