"""Label budgets: nested subsets of patients whose labels may be used, and their manifests."""

import hashlib
import json
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from .._files import write_atomically
from ._targets import encode_groups, encode_labels

_FORMAT = "skecg label budgets, version 1"


@dataclass(frozen=True, eq=False)
class LabelBudget:
    """The samples whose labels may be used at one label fraction; what :func:`label_budgets` returns.

    Attributes
    ----------
    repeat : int
        Number of the draw.
    fraction : float
        Share of the patients that was asked for.
    rows : ndarray of shape (n_labels,), int
        Sorted rows of ``y`` and ``groups``.
    patients : tuple
        Sorted ids of the patients, as in ``groups``; row numbers where there are no groups.
    class_counts : dict
        Samples of each class (the label, or the column of an indicator matrix: its number, or its name in a DataFrame);
        empty for continuous targets.
    n_samples : int
        Number of samples that the budget was drawn from.
    fingerprint : str
        Digest of the ``y`` and ``groups`` that the budget was drawn from.
    n_labels, n_patients : int
        Number of samples and of patients in the budget.
    absent : tuple
        Classes without a positive sample.

    Examples
    --------
    >>> from skecg.model_selection import label_budgets
    >>> label_budgets(["N", "N", "V", "N", "V"], label_fractions=[0.4], random_state=0)
    [LabelBudget(repeat=0, fraction=0.4, n_labels=2, n_patients=2, class_counts={'N': 1, 'V': 1}, absent=())]
    """

    repeat: int
    fraction: float
    rows: np.ndarray = field(repr=False)
    patients: tuple = field(repr=False)
    class_counts: dict
    n_samples: int
    fingerprint: str

    @property
    def n_labels(self):
        return len(self.rows)

    @property
    def n_patients(self):
        return len(self.patients)

    @property
    def absent(self):
        return tuple(name for name, count in self.class_counts.items() if count == 0)

    def __eq__(self, other):
        if not isinstance(other, LabelBudget):
            return NotImplemented
        mine, others = dict(vars(self)), dict(vars(other))
        return np.array_equal(mine.pop("rows"), others.pop("rows")) and mine == others

    def __hash__(self):
        return hash((self.repeat, self.fraction, self.fingerprint, self.patients))

    def __repr__(self):
        shown = ("repeat", "fraction", "n_labels", "n_patients", "class_counts", "absent")
        return f"LabelBudget({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def label_budgets(y, groups=None, *, label_fractions, n_repeats=1, random_state=None):
    """Draw nested, stratified subsets of whole patients, one for each label fraction.

    Parameters
    ----------
    y : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_targets)
        Class labels, a multi-label indicator matrix, or continuous targets (then patients are drawn at random). Whole
        numbers are class labels.
    groups : array-like of shape (n_samples,), default=None
        Patient ids, str or int. ``None``: each sample is a patient.
    label_fractions : sequence of float
        Shares of the patients, above 0 and up to 1.
    n_repeats : int or sequence of int, default=1
        Number of draws, of all fractions or of each.
    random_state : int, RandomState or None, default=None
        Seed of the draws.

    Returns
    -------
    list of LabelBudget
        Repeat by repeat, in each the fractions in the given order.

    Raises
    ------
    ValueError
        Fractions outside (0, 1] or given twice, another number of repeats than of fractions, missing patient ids,
        targets of another kind.

    See Also
    --------
    save_budgets : Keep budgets for further arms of a study.

    Notes
    -----
    Within a repeat each patient has an entry: the fraction from which on the patient belongs to the budget. So budgets
    are nested, and do not depend on which other fractions are asked for, nor on the number of repeats.

    - Patients with one label each (or one class): the patients of a class are shuffled, and the j-th of n enters at
      (j + u) / n with one random phase u for the class. A budget holds the share of each class, rounded down or up, and
      at least one patient of every class.
    - Otherwise patients are grouped by their combination of labels (a label counts if any sample of the patient has it).
      They are put in an order in which, at each step, that combination is next which keeps the squared deviations of
      the number of patients with each label, and with each combination, from their shares smallest; each
      starts with a random phase. A budget takes a run of this order, read as a circle from a random patient on, so that
      every patient is equally likely. With 57 labels of 1,974 patients of PTB-XL, each number of patients was within 2.2
      of its share in 60 draws at fractions from 0.02 to 1. A class may be absent from a small budget: ``absent`` says so.
    - The second rule takes time and memory in proportion to n_patients x n_combinations x n_labels, and n_combinations x
      n_labels.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.model_selection import label_budgets
    >>> y = np.repeat(["N", "S", "V"], [120, 20, 60])
    >>> patients = np.arange(200) // 2
    >>> budgets = label_budgets(y, patients, label_fractions=[0.1, 0.5], random_state=0)
    >>> [(budget.fraction, budget.n_patients, budget.class_counts) for budget in budgets]
    [(0.1, 10, {'N': 12, 'S': 2, 'V': 6}), (0.5, 50, {'N': 60, 'S': 10, 'V': 30})]
    >>> set(budgets[0].rows) < set(budgets[1].rows)
    True
    """
    fractions = _check_fractions(label_fractions)
    repeats = _check_repeats(n_repeats, fractions)
    n_samples = _num_samples(y)
    classes, indicator = encode_labels(y)
    patients, codes = encode_groups(groups, n_samples)
    of_patient = np.zeros((len(patients), len(classes)), dtype=bool)
    for label in range(len(classes)):
        of_patient[codes[indicator[:, label]], label] = True
    fingerprint = _fingerprint(y, classes, indicator, patients, codes)

    rng = check_random_state(random_state)
    budgets = []
    for repeat in range(max(repeats)):
        entry = _entries(of_patient, np.random.RandomState(rng.randint(np.iinfo(np.int32).max)))
        for fraction, n_draws in zip(fractions, repeats, strict=True):
            if repeat < n_draws:
                inside = entry <= fraction
                budgets.append(_budget(repeat, fraction, inside, classes, indicator, patients, codes, fingerprint))
    return budgets


def _check_fractions(label_fractions):
    fractions = [label_fractions] if isinstance(label_fractions, Real) else list(label_fractions)
    if not fractions or not all(isinstance(f, Real) and 0 < f <= 1 for f in fractions):
        raise ValueError(
            f"label_fractions must be shares above 0 and up to 1, e.g. (0.02, 0.1, 1.0); got {label_fractions!r}."
        )
    fractions = [float(f) for f in fractions]
    if len(set(fractions)) < len(fractions):
        raise ValueError(f"label_fractions names a fraction more than once: {fractions}. Name each once.")
    return fractions


def _check_repeats(n_repeats, fractions):
    repeats = [n_repeats] * len(fractions) if isinstance(n_repeats, Integral) else list(n_repeats)
    if len(repeats) != len(fractions) or not all(isinstance(n, Integral) and n >= 1 for n in repeats):
        raise ValueError(
            f"n_repeats must be an int of at least 1, or one for each of the {len(fractions)} fractions; got "
            f"{n_repeats!r}."
        )
    return repeats


def _budget(repeat, fraction, inside, classes, indicator, patients, codes, fingerprint):
    rows = np.flatnonzero(inside[codes])
    counts = indicator[rows].sum(axis=0).tolist()
    return LabelBudget(
        repeat=repeat, fraction=fraction, rows=rows, patients=tuple(patients[inside].tolist()),
        class_counts=dict(zip(classes, counts, strict=True)), n_samples=len(codes), fingerprint=fingerprint,
    )


def _entries(of_patient, rng):
    """The fraction from which on each patient belongs to the budget, (n_patients,)."""
    n, n_labels = of_patient.shape
    if n_labels and of_patient.sum(axis=1).max() <= 1:
        return _entries_of_strata(of_patient, rng)
    order = _balanced_order(of_patient, rng) if n_labels else rng.permutation(n)
    order = np.roll(order, rng.randint(n))
    entry = np.empty(n)
    entry[order] = (np.arange(n) + 0.5) / n  # the share rounded to whole patients
    entry[order[0]] = 0.0
    return entry


def _entries_of_strata(of_patient, rng):
    """Systematic sampling within each class; patients without any label are a class of their own."""
    entry = np.empty(len(of_patient))
    for members in (*of_patient.T, ~of_patient.any(axis=1)):
        shuffled = rng.permutation(np.flatnonzero(members))
        phase = rng.uniform()
        if len(shuffled):
            entry[shuffled] = (np.arange(len(shuffled)) + phase) / len(shuffled)
            entry[shuffled[0]] = 0.0  # at least one patient
    return entry


def _balanced_order(of_patient, rng):
    """Patients in an order of which every run has about its share of each label."""
    n, n_labels = of_patient.shape
    combinations, code, available = np.unique(of_patient, axis=0, return_inverse=True, return_counts=True)
    combinations, code = combinations.astype(float), code.ravel()  # (n_combinations, n_labels)
    label_share, share = of_patient.mean(axis=0), available / n
    # what the run so far lacks of each label and of each combination
    label_lack, lack = rng.uniform(-0.5, 0.5, n_labels), rng.uniform(-0.5, 0.5, len(available))
    n_of_labels = combinations.sum(axis=1)
    sequence = np.empty(n, dtype=int)
    for step in range(n):
        label_lack += label_share
        lack += share
        # half of what one more patient takes off the sum of squares, up to a constant
        gain = combinations @ label_lack - n_of_labels / 2 + lack
        gain[available == 0] = -np.inf
        best = sequence[step] = gain.argmax()
        label_lack -= combinations[best]
        lack[best] -= 1
        available[best] -= 1
    # the patients of a combination take its places in random order
    shuffled = rng.permutation(n)
    order = np.empty(n, dtype=int)
    order[np.argsort(sequence, kind="stable")] = shuffled[np.argsort(code[shuffled], kind="stable")]
    return order


def _fingerprint(y, classes, indicator, patients, codes):
    """Digest of targets and patients, independent of their storage type."""
    digest = hashlib.sha256(repr((classes, patients.tolist(), indicator.shape)).encode())
    digest.update(np.packbits(indicator).tobytes() if classes else np.asarray(y, dtype="<f8").tobytes())
    digest.update(codes.astype("<i8").tobytes())
    return digest.hexdigest()


def save_budgets(path, budgets):
    """Write budgets to one JSON file: their manifest.

    Parameters
    ----------
    path : str or Path
        The file appears when it is complete, and replaces an older one.
    budgets : sequence of LabelBudget
        Those of several splits together: each carries the fingerprint of the data that it was drawn from.

    Raises
    ------
    ValueError
        Nothing to save, two different budgets of the same data, repeat and fraction, or patient ids that are neither
        str nor a number.

    See Also
    --------
    load_budgets : Read them.

    Examples
    --------
    Manifests of all splits of a study, stored once and read by each of its arms:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from sklearn.model_selection import GroupKFold
    >>> from skecg.model_selection import label_budgets, load_budgets, save_budgets
    >>> y, patients = np.arange(60) % 3, np.arange(60) // 2
    >>> splits = list(GroupKFold(3).split(y, y, patients))
    >>> budgets = []
    >>> for train, _ in splits:
    ...     budgets += label_budgets(y[train], patients[train], label_fractions=[0.1, 0.5], random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_budgets(Path(folder) / "budgets.json", budgets)
    ...     train, _ = splits[1]
    ...     again = load_budgets(Path(folder) / "budgets.json", y[train], patients[train])
    >>> again == budgets[2:4]
    True
    """
    manifests = {}
    for budget in budgets:
        stored = manifests.setdefault(budget.fingerprint, {})
        if stored.setdefault((budget.repeat, budget.fraction), budget) != budget:
            raise ValueError(
                f"There are two different budgets of repeat {budget.repeat} and fraction {budget.fraction} for the same "
                "data, drawn with different seeds. Save them in two files."
            )
        if not all(isinstance(patient, (str, int, float)) for patient in budget.patients):
            raise ValueError("Patient ids must be str or int to be stored as JSON: convert groups first.")
    if not manifests:
        raise ValueError("budgets is empty: there is nothing to save.")
    content = {"format": _FORMAT, "manifests": [
        {
            "fingerprint": fingerprint,
            "n_samples": next(iter(stored.values())).n_samples,
            "budgets": [
                {
                    "repeat": budget.repeat, "fraction": budget.fraction, "n_labels": budget.n_labels,
                    "n_patients": budget.n_patients, "patients": budget.patients,
                    "class_counts": {str(name): count for name, count in budget.class_counts.items()},
                    "absent": [str(name) for name in budget.absent],
                }
                for budget in stored.values()
            ],
        }
        for fingerprint, stored in manifests.items()
    ]}
    write_atomically(path, lambda file: file.write(json.dumps(content).encode()))


def load_budgets(path, y, groups=None):
    """The budgets of a manifest that were drawn from these data.

    Parameters
    ----------
    path : str or Path
        What :func:`save_budgets` wrote.
    y : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_targets)
        The targets that the budgets were drawn from, in the same order.
    groups : array-like of shape (n_samples,), default=None
        The patient ids that they were drawn from.

    Returns
    -------
    list of LabelBudget
        In the order in which they were saved.

    Raises
    ------
    ValueError
        The file is no manifest, or holds no budget of these data (other labels, patients or order).

    See Also
    --------
    save_budgets : Write them; with an example.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        known = content["format"] == _FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of label budgets: {error!r}. Pass a file of save_budgets.") from error
    if not known:
        raise ValueError(f"{path} has the format {content['format']!r}; expected {_FORMAT!r}.")
    n_samples = _num_samples(y)
    classes, indicator = encode_labels(y)
    patients, codes = encode_groups(groups, n_samples)
    fingerprint = _fingerprint(y, classes, indicator, patients, codes)
    for manifest in content["manifests"]:
        if manifest["fingerprint"] == fingerprint:
            return [
                _budget(stored["repeat"], stored["fraction"], np.isin(patients, stored["patients"]), classes, indicator,
                        patients, codes, fingerprint)
                for stored in manifest["budgets"]
            ]
    sizes = ", ".join(str(manifest["n_samples"]) for manifest in content["manifests"])
    raise ValueError(
        f"{path} holds no budget drawn from these data ({n_samples} samples of {len(patients)} patients); its budgets are "
        f"of other data, of {sizes} samples. Pass the same y and groups, in the same order, as to label_budgets, e.g. "
        "y[train] and groups[train] of the same split."
    )
