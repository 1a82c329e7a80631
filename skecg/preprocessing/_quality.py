"""Faults of recordings: gaps, flat and clipped leads, units, swapped leads, wrong sampling rate, duplicates."""

import warnings
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from .._validation import _check_ndim, _check_same_shape, _match_ndim, as_3d, check_lead_names, row_blocks
from ._faults import WholeSet, is_long, judge_samples, not_checked
from ._signal import _SignalTransformer

# What to do about each fault. The order is that of the report.
FAULTS = {
    "empty": "drop the sample: every lead is missing",
    "gap": "fill the gap, or set the whole lead to NaN (QualityGate(policy='mask') does)",
    "flat": "set the lead to NaN: an electrode was off, or the record was padded",
    "saturated": "set the lead to NaN, or cut around the clipped part",
    "unit": "convert to millivolt: divide ADC counts by the gain, microvolts by 1000; multiply volts by 1000",
    "fs": "check the sampling rate in the header, and pass that one",
    "swapped": "rename the two leads (lead_names), or check the order of the leads",
    "inverted": "multiply the lead by -1",
    "gain": "check the gain of the lead in the header",
    "mislabelled": "check lead_names and the order of the leads; one lead may come from another place",
    "reversed_arms": "look at the record: right and left arm electrode exchanged (or dextrocardia)",
    "repeated_lead": "find the true signal of one of the two leads, or set it to NaN",
    "duplicate": "drop the copy, or keep both on one side of every split",
}


class Issue(NamedTuple):
    """One finding of :func:`check_ecg`.

    ``sample`` is None for a finding about all of ``X``; ``leads`` names the leads concerned, and is empty for
    one about the whole sample; ``value`` crossed ``threshold``. Of a duplicate, ``value`` is the earlier sample.
    """

    sample: int | None
    leads: tuple[str, ...]
    fault: str
    value: float
    threshold: float
    message: str


class QualityReport:
    """What :func:`check_ecg` found. ``print`` it for a summary.

    Attributes
    ----------
    issues : list of Issue
        Named tuples ``(sample, leads, fault, value, threshold, message)``, by fault and sample.
    mask : dict of str to ndarray of shape (n_samples, n_leads), bool
        For each fault, the leads that have it. A fault of a whole sample marks its leads; a finding about all
        of ``X`` (``sample`` None) marks none.
    n_samples : int
    fs : float
        Hz.
    lead_names : tuple of str
    not_checked : dict of str to tuple of str
        What could not be looked for, and the faults concerned.
    """

    def __init__(self, issues, mask, fs, lead_names, not_checked):
        self.issues = issues
        self.mask = mask
        self.fs = fs
        self.lead_names = lead_names
        self.not_checked = not_checked
        self.n_samples = len(mask["gap"])

    @property
    def ok(self):
        """Whether no fault was found."""
        return not self.issues

    def select(self, faults):
        """The same report, of some faults only.

        Parameters
        ----------
        faults : collection of str

        Returns
        -------
        report : QualityReport

        Raises
        ------
        ValueError
            A name that is no fault.
        """
        faults = set(faults)
        _check_faults(faults, "faults")
        mask = {fault: found if fault in faults else np.zeros_like(found) for fault, found in self.mask.items()}
        return QualityReport([i for i in self.issues if i.fault in faults], mask, self.fs, self.lead_names,
                             {what: of for what, of in self.not_checked.items() if faults & set(of)})

    def together(self):
        """The same report, of what concerns the samples together: duplicates, and issues about all of ``X``."""
        report = self.select({"duplicate"})
        return QualityReport([i for i in self.issues if i.sample is None] + report.issues, report.mask, self.fs,
                             self.lead_names, {})

    def to_frame(self):
        """The issues as a ``pandas.DataFrame``, one row each."""
        import pandas as pd

        return pd.DataFrame(self.issues, columns=Issue._fields)

    def __str__(self):
        size = f"{self.n_samples:,} samples of {len(self.lead_names)} lead(s) at {self.fs:g} Hz"
        whole, own = ([i for i in self.issues if (i.sample is None) == of_all] for of_all in (True, False))
        lines = []
        for fault in dict.fromkeys(issue.fault for issue in whole):
            lines.append(f"All of X looks wrong: {fault}. To do first: {FAULTS[fault]}.")
            lines += [f"    {issue.message}" for issue in whole if issue.fault == fault]
        if own:
            lines.append(f"Faults in {len({issue.sample for issue in own}):,} of {size}:")
        else:
            lines.append(f"No {'other ' if whole else ''}fault found in {size}.")
        for fault, remedy in FAULTS.items():
            found = [issue for issue in own if issue.fault == fault]
            if found:
                lines.append(f"- {fault}: {len({issue.sample for issue in found}):,} sample(s). To do: {remedy}. First:")
                lines += [f"    {issue.message}" for issue in found[:3]]
        if self.not_checked:
            lines.append(f"Not checked: {'; '.join(self.not_checked)}.")
        return "\n".join(lines)

    def __repr__(self):
        return f"<QualityReport: {len(self.issues)} issue(s) in {self.n_samples} sample(s)>"


def check_ecg(X, *, fs, lead_names=None):
    """Look for faults of recordings that spoil training silently.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        Meant to be millivolt; z-scores pass as well. Two dimensions are one lead. A lead that is NaN from end
        to end is missing, which is no fault. Memmaps are read in blocks of about 4 MiB.
    fs : float
        The sampling rate in Hz that ``X`` is believed to have.
    lead_names : sequence of str, default=None
        What the leads are. ``None`` means the 12 standard leads where there are 12; otherwise the checks of
        limb leads are left out.

    Returns
    -------
    report : QualityReport
        ``print(report)`` sums up; ``report.ok``, ``report.issues`` and ``report.mask`` are for programs.

    Raises
    ------
    ValueError
        An array of another number of dimensions, or with more leads than samples in time (swapped axes); lead names
        that do not fit it; ``fs`` that is not positive.

    See Also
    --------
    QualityGate : The same as a step of a pipeline.

    Notes
    -----
    What is looked for:

    - ``"empty"``: every lead missing. ``"gap"``: NaN or infinite values inside a lead.
    - ``"flat"``: a second (or the whole window, if shorter) within which a lead varies by less than 1 % of the
      record's amplitude.
    - ``"saturated"``: at least 4 plateaus of 10 ms (and two samples) at exactly the lead's highest or lowest
      value, or one of 0.1 s. A plateau at either end of the window does not count: records are padded
      there. Clipping before a filter is smeared by it and not found.
    - ``"unit"``: the amplitude (median over leads of the median range within a second) is above 50 or below
      0.02. ADC counts and microvolts of an ECG are above; volts are below; millivolt and z-scores are between.
    - ``"swapped"``, ``"inverted"``, ``"gain"``, ``"mislabelled"``: three or more of the limb leads I, II, III,
      aVR, aVL, aVF do not satisfy I + III = II, aVR = -(I + II) / 2, aVL = (I - III) / 2 and
      aVF = (II + III) / 2, although each may have a scale of its own (z-scores). Leads are named where one
      exchange, one sign or one gain restores the identities; with three or four leads, several repairs may be equally
      good, and all are named. Among three leads, a difference of scale can look like an exchange. Chest
      leads have no identities: their order is not judged.
    - ``"reversed_arms"``: exchanged arm electrodes satisfy the identities. Lead I then runs against V5 and V6
      (correlation below -0.25 and -0.5), which dextrocardia and some axis deviations do too.
    - ``"repeated_lead"``: two leads of a sample are one up to scale and offset (correlation 0.9999).
    - ``"fs"``: the heart rate, counted from five beats or more whose width the signal itself tells, is below 25 or
      above 240 per minute. Of 20 and more samples also together: a median heart rate below 50 or above 115, or a
      spectral line where no multiple of 50 or 60 Hz is, nor of 30 Hz (mains on tapes played at twice their
      speed, as in MIT-BIH). Such an issue has ``sample`` None.
    - ``"duplicate"``: the same values as in an earlier sample, up to scale and offset of each lead.

    All but gaps need windows of 0.5 s and 25 samples, heart rates 1.5 s. How often each check alarms falsely on real
    recordings, and how often it finds an injected fault, is in ``benchmarks/results/quality.json``.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.datasets import make_ecg
    >>> from skecg.preprocessing import check_ecg
    >>> X, _, _ = make_ecg(30, classes=["normal"], random_state=0)
    >>> print(check_ecg(X, fs=100))
    No fault found in 30 samples of 12 lead(s) at 100 Hz.
    Not checked: order of chest leads.
    >>> X[3, [0, 4]] = X[3, [4, 0]]                                  # I and aVL
    >>> X[7, 6, 200:300] = np.nan
    >>> report = check_ecg(X, fs=100)
    >>> [(issue.sample, issue.leads, issue.fault) for issue in report.issues]
    [(7, ('V1',), 'gap'), (3, ('I', 'aVL'), 'swapped')]
    >>> print(check_ecg(X[[7]], fs=100))
    Faults in 1 of 1 samples of 12 lead(s) at 100 Hz:
    - gap: 1 sample(s). To do: fill the gap, or set the whole lead to NaN (...). First:
        sample 0, lead V1: 100 of 1000 values are NaN or infinite, from 2.00 s on
    Not checked: order of chest leads; heart rate of all samples together (...); mains line (...).
    """
    if not hasattr(X, "ndim") or not hasattr(X, "dtype"):
        X = np.asarray(X)
    if X.ndim not in (2, 3) or not np.issubdtype(X.dtype, np.number) or np.iscomplexobj(X):
        raise ValueError(f"X has shape {X.shape} and dtype {X.dtype}; expected real numbers of shape (n_samples, n_leads, "
                         "n_times), or (n_samples, n_times) for one lead.")
    if 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}: nothing to check.")
    if not (isinstance(fs, Real) and 0 < fs < np.inf):
        raise ValueError(f"fs must be a positive number, the sampling rate in Hz; got {fs!r}.")
    X = as_3d(X)
    _check_axes(X)
    return _check(X, fs, check_lead_names(lead_names, X.shape[1]), together=True)


def _check_axes(X):
    n_leads, n_times = X.shape[1:]
    if n_leads > max(1, n_times):
        raise ValueError(f"X has shape {X.shape}, that is n_leads={n_leads} and n_times={n_times}: the axes look "
                         "swapped. Expected (n_samples, n_leads, n_times); use X.transpose(0, 2, 1).")


def _check_faults(faults, name):
    unknown = [fault for fault in faults if fault not in FAULTS]
    if unknown:
        raise ValueError(f"{name} has {unknown[0]!r}; known faults are {', '.join(FAULTS)}.")


def _check(X, fs, lead_names, *, together):
    """The report; ``together`` also compares the samples with each other."""
    findings = _Findings(X.shape[:2], lead_names)
    whole_set = WholeSet(X.shape[2], fs) if together and is_long(X.shape[2], fs) else None
    for rows in row_blocks(X):
        x = np.array(X[rows], dtype=np.float64, order="C")
        rates, usable = judge_samples(x, fs, lead_names, findings, rows.start)
        if whole_set is not None:
            whole_set.add(x, usable, rates)
    if whole_set is not None:
        whole_set.check(findings)
    return findings.report(fs, not_checked(X.shape[2], fs, lead_names, whole_set))


class _Findings:
    """Collects issues and masks."""

    def __init__(self, shape, lead_names):
        self.lead_names = lead_names
        self.mask = {fault: np.zeros(shape, dtype=bool) for fault in FAULTS}
        self.issues = []

    def add(self, fault, sample, leads, value, threshold, text, *, whole=False):
        """One issue. ``leads`` are positions; a fault of the ``whole`` sample marks them, but names none."""
        names = () if whole else tuple(self.lead_names[lead] for lead in leads)
        where = "X" if sample is None else f"sample {sample}"
        if names:
            unnamed = names[0].startswith("lead")
            where += f", {'' if unnamed else 'leads ' if len(names) > 1 else 'lead '}{', '.join(names)}"
        if sample is not None:
            sample = int(sample)
            self.mask[fault][sample, list(leads)] = True
        self.issues.append(Issue(sample, names, fault, float(value), float(threshold), f"{where}: {text}"))

    def report(self, fs, not_checked):
        order = list(FAULTS)
        issues = sorted(self.issues, key=lambda i: (order.index(i.fault), -1 if i.sample is None else i.sample))
        return QualityReport(issues, self.mask, fs, self.lead_names, not_checked)


class QualityGate(OneToOneFeatureMixin, _SignalTransformer):
    """Stop, repair or warn where recordings have faults, as a step of a pipeline.

    Parameters
    ----------
    policy : {"raise", "mask", "warn"}, default="raise"
        What to do about faults. ``"raise"``: an error that lists them. ``"mask"``: a lead with a fault becomes a
        missing lead (NaN from end to end); a fault of a whole sample (unit, sampling rate) takes all its leads; a
        wrong sampling rate of all of ``X`` is an error.
        ``"warn"``: a warning, and ``X`` as it is.
    fs : float
        Sampling rate of ``X`` in Hz. It has no default, because a wrong one is not noticed.
    lead_names : sequence of str, default=None
        What the leads are; ``None`` means the 12 standard leads where there are 12.
    checks : sequence of str, default=None
        Faults to act on, of those that :func:`check_ecg` describes; ``None`` is all.

    Attributes
    ----------
    report_ : QualityReport
        What was found in ``fit``. Neither pickled nor saved: it speaks of the training samples, one by one.
    lead_names_in_ : tuple of str
    n_features_in_, n_leads_in_, n_times_in_ : int
        As seen in ``fit``. ``transform`` takes any length of three-dimensional input.

    See Also
    --------
    check_ecg : The report alone; describes the faults and their limits.

    Notes
    -----
    - ``transform`` judges each sample by itself, so that its result does not depend on the other samples.
      What concerns the samples together (duplicates, the sampling rate by all heart rates and by the mains line) is
      judged in ``fit``. There is nothing to mask about it: of duplicates, ``"mask"`` warns; a sampling rate that is
      wrong for the whole set is an error, for no sample is then what it seems. Where the rate is known to be right
      (newborns, say), leave ``"fs"`` out of ``checks``.
    - Windows below 0.5 s or 25 samples are judged for gaps only.
    - Where ``"mask"`` leaves a sample without any lead, a warning names it: encoders refuse it, so drop it. If no
      sample keeps a lead, it is an error, for the cause is then of the whole set.
    - ``"mask"`` copies ``X`` where there is something to mask; otherwise ``X`` is returned as it came.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.datasets import make_ecg
    >>> from skecg.preprocessing import QualityGate
    >>> X, _, _ = make_ecg(30, classes=["normal"], random_state=0)
    >>> X[4, 2, 300:] = X[4, 2, 300]                                 # an electrode falls off
    >>> masked = QualityGate("mask", fs=100).fit_transform(X)
    >>> np.argwhere(np.isnan(masked).all(axis=2))
    array([[4, 2]])
    >>> QualityGate(fs=100).fit(X)
    Traceback (most recent call last):
    ...
    ValueError: Faults in 1 of 30 samples of 12 lead(s) at 100 Hz:
    - flat: 1 sample(s). To do: set the lead to NaN: an electrode was off, or the record was padded. First:
        sample 4, lead III: varies by 0 within 1 s from ... s on
    Not checked: order of chest leads.
    Repair or drop these samples, or use QualityGate(policy="mask").
    """

    _parameter_constraints = {
        "policy": [StrOptions({"raise", "mask", "warn"})],
        "fs": [Interval(Real, 0, None, closed="neither")],
        "lead_names": ["array-like", None],
        "checks": ["array-like", None],
    }

    def __init__(self, policy="raise", *, fs, lead_names=None, checks=None):
        self.policy = policy
        self.fs = fs
        self.lead_names = lead_names
        self.checks = checks

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.policy != "raise"
        return tags

    def fit(self, X, y=None):
        """Judge ``X`` sample by sample and as a whole, and learn its shape.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        y : ignored

        Returns
        -------
        self
        """
        self._fit(X)
        return self

    def fit_transform(self, X, y=None):
        """``fit(X).transform(X)``, judging ``X`` once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        y : ignored

        Returns
        -------
        X : ndarray of the same shape and dtype
        """
        X = self._fit(X)
        return self._mask(X, self.report_) if self.policy == "mask" else X

    def transform(self, X):
        """Judge each sample, and do what ``policy`` says.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)

        Returns
        -------
        X : ndarray of the same shape and dtype

        Raises
        ------
        ValueError
            A fault, with ``policy="raise"``; no lead left in any sample, with ``policy="mask"``.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        report = self._judge(X, together=False)
        if self.policy == "mask":
            return self._mask(X, report)
        self._say(report)
        return X

    def __getstate__(self):
        return {name: value for name, value in super().__getstate__().items() if name != "report_"}

    def _fit(self, X):
        self._validate_params()
        _check_faults(() if self.checks is None else self.checks, "checks")
        X = self._validate(X, reset=True)
        self.lead_names_in_ = check_lead_names(self.lead_names, self.n_leads_in_)
        self.report_ = self._judge(X, together=True)
        self._say(self.report_.together() if self.policy == "mask" else self.report_)
        return X

    def _judge(self, X, together):
        report = _check(as_3d(X), self.fs, self.lead_names_in_, together=together)
        return report if self.checks is None else report.select(self.checks)

    def _say(self, report):
        if report.ok:
            return
        if self.policy == "raise":
            raise ValueError(f'{report}\nRepair or drop these samples, or use QualityGate(policy="mask").')
        if self.policy == "mask" and any(issue.sample is None for issue in report.issues):
            raise ValueError(f"{report}\nThere is no lead to mask about that. If fs={self.fs:g} Hz is right, leave 'fs' "
                             "out of checks.")
        warnings.warn(str(report), UserWarning, stacklevel=3)

    def _mask(self, X, report):
        faulty = np.logical_or.reduce([found for fault, found in report.mask.items() if fault != "duplicate"])
        if not faulty.any():
            return X
        X = np.array(X)
        as_3d(X)[faulty] = np.nan
        empty = np.flatnonzero(np.isnan(as_3d(X)).all(axis=(1, 2)))
        if len(empty):
            text = f"{len(empty):,} of {len(X):,} samples keep no lead"
            if len(empty) == len(X):
                raise ValueError(f"After masking, {text}. {report}")
            listed = ", ".join(map(str, empty[:10])) + (", ..." if len(empty) > 10 else "")
            warnings.warn(f"After masking, {text}: {listed}. Drop these samples; encoders refuse them.", UserWarning,
                          stacklevel=3)
        return X

    def _validate(self, X, *, reset):
        """As validate_ecg, but for the values: to judge them is what this step is for."""
        _check_ndim(X)
        if not reset and hasattr(X, "ndim") and hasattr(X, "shape"):
            X = _match_ndim(self, X)
            if X.ndim == 3:
                _check_same_shape(self, X, any_length=True)
        X = validate_data(self, X, reset=reset, allow_nd=True, dtype=[np.float32, np.float64], ensure_all_finite=False)
        _check_ndim(X)
        n_leads, n_times = as_3d(X).shape[1:]
        if n_leads == 0 or n_times == 0:
            raise ValueError(f"X has shape {X.shape}: nothing to work on.")
        if reset:
            _check_axes(as_3d(X))
            self.n_leads_in_, self.n_times_in_, self._ndim_in = n_leads, n_times, X.ndim
        elif X.ndim == 3:
            _check_same_shape(self, X, any_length=True)
        return X
