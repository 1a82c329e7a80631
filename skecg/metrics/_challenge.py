"""The classes and the score of the PhysioNet/Computing in Cardiology Challenges 2020 and 2021.

Codes, names and weights (``cinc_2020.csv``, ``cinc_2021.csv``) are those of the challenges' evaluation code, under the
licence in ``cinc_LICENSE.txt``.
"""

import csv
from functools import cache, partial
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from ._common import as_target, decided_classes, once, weight_blocks

_SINUS_RHYTHM = "426783006"
_YEARS = (2020, 2021)


class CincClasses(NamedTuple):
    """What :func:`cinc_classes` returns: the scored classes, in the order of the columns of indicator matrices.

    Parameters
    ----------
    codes : tuple of tuple of str
        SNOMED CT codes of each class. Several where the challenge scores diagnoses as the same one.
    abbreviations : tuple of str
        The challenge's abbreviations; of merged diagnoses joined by ``|``, as in ``"CRBBB|RBBB"``.
    names : tuple of str
        Names, joined in the same way.
    sinus_rhythm : int
        Index of sinus rhythm, which a classifier that never looks would always answer.
    weights : ndarray of shape (n_classes, n_classes), float64
        Credit for answering one class where another is true: 1 on the diagonal, symmetric; read-only.
    """

    codes: tuple
    abbreviations: tuple
    names: tuple
    sinus_rhythm: int
    weights: np.ndarray

    def column(self, name):
        """The column of a class.

        Parameters
        ----------
        name : str, int or tuple of str
            One of its SNOMED CT codes, an abbreviation or a name, in upper or lower case; of merged diagnoses any one, or
            all as they stand in ``codes``, ``abbreviations`` and ``names``.

        Returns
        -------
        int

        Raises
        ------
        KeyError
            The challenge does not score it.
        """
        column = find_column(self, name)
        if column is None:
            raise KeyError(f"{name!r} is not scored; expected a SNOMED CT code, an abbreviation or a name of one of the "
                           f"classes {', '.join(self.abbreviations)}.")
        return column


def cinc_classes(year=2021):
    """The diagnoses that the PhysioNet/Computing in Cardiology Challenge of a year scores.

    Parameters
    ----------
    year : {2020, 2021}, default=2021
        Of 2020 there are 27 diagnoses in 24 classes, of 2021 30 diagnoses in 26 classes.

    Returns
    -------
    classes : CincClasses

    Raises
    ------
    ValueError
        Another year.

    See Also
    --------
    skecg.datasets.cinc_targets : Brings labels into the order of these classes.

    References
    ----------
    .. [1] Perez Alday EA, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020.
           Physiol Meas 41:124003, 2020.
    .. [2] Reyna MA, et al. Will two do? Varying dimensions in electrocardiography: the PhysioNet/Computing in Cardiology
           Challenge 2021. Computing in Cardiology 48:1-4, 2021.

    Examples
    --------
    >>> from skecg.metrics import cinc_classes
    >>> classes = cinc_classes(2021)
    >>> len(classes.codes), classes.names[classes.sinus_rhythm]
    (26, 'sinus rhythm')
    >>> column = classes.column("RBBB")
    >>> classes.codes[column], classes.abbreviations[column]
    (('713427006', '59118001'), 'CRBBB|RBBB')
    """
    if year not in _YEARS:
        raise ValueError(f"year is {year!r}; expected one of {', '.join(map(str, _YEARS))}.")
    return _read(int(year))


def cinc_score(y_true, y_pred, year=2021, *, labels=None, record_ids=None):
    """Score of the PhysioNet/Computing in Cardiology Challenge: 1 is perfect, 0 is sinus rhythm always.

    Diagnoses that call for similar treatment earn part of the credit of each other. The credit of a record is shared among
    all classes that are true or answered. The sum over records is scaled between that of the answer "sinus rhythm" for
    every record and that of the truth. It can be negative.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes)
        Indicator matrix, its columns in the order of ``cinc_classes(year)``; a row may have any number of ones, or none.
    y_pred : array-like of shape (n_samples, n_classes)
        Decisions of 0 and 1 as ``predict`` gives them, not probabilities.
    year : {2020, 2021}, default=2021
        Which challenge.
    labels : sequence of str, default=None
        What each column is, as :func:`cinc_classes` names it (code, abbreviation or name), where the matrices hold only some
        of the classes or have another order; all others count as 0 in both. None: all classes in order.
    record_ids : array-like of shape (n_samples,), default=None
        Record of each sample. If given, records are what is counted: a record has a class that more than half of its
        windows are decided to have.

    Returns
    -------
    float
        0 where nothing could be earned: no sample, no labels at all, or sinus rhythm alone in every record.

    Raises
    ------
    ValueError
        Matrices of another shape, values other than 0 and 1, or a label that is not scored in that year.

    Notes
    -----
    Of a record with true classes T and answered classes P, the credit is the sum of the weights w(t, p) over t in T and p in
    P, divided by the size of their union, or by 1 if that is empty. The score is (observed - inactive) / (correct -
    inactive), of sums over records: with P as answered, with sinus rhythm alone, and with P = T. It is not the mean of
    anything over records, so that scores of parts do not average to the score of the whole.

    References
    ----------
    .. [1] Perez Alday EA, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020.
           Physiol Meas 41:124003, 2020.
    .. [2] Reyna MA, et al. Will two do? Varying dimensions in electrocardiography: the PhysioNet/Computing in Cardiology
           Challenge 2021. Computing in Cardiology 48:1-4, 2021.

    Examples
    --------
    >>> from skecg.metrics import cinc_score
    >>> y_true = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    >>> y_pred = [[1, 0, 0], [1, 0, 0], [0, 0, 1]]           # flutter taken for fibrillation: a quarter of the credit
    >>> round(cinc_score(y_true, y_pred, labels=["AF", "AFL", "NSR"]), 4)
    0.5714
    """
    matrices = challenge_classes(y_true, y_pred, labels, record_ids, year=year)
    return once(partial(challenge_kernel, year=year), *matrices)


def challenge_classes(y_true, y_pred, labels=None, record_ids=None, *, year):
    """True and predicted indicator matrix over all classes of a year, of samples or, by majority, of records."""
    classes = cinc_classes(year)
    for name, y in (("y_true", y_true), ("y_pred", y_pred)):
        if isinstance(y, tuple) and hasattr(y, "target"):
            raise ValueError(f"{name} is a {type(y).__name__}; expected an indicator matrix. Pass its target.")
    n_columns = len(classes.codes) if labels is None else len(labels)
    shape = as_target(y_true).shape
    if shape[1:] != (n_columns,):
        raise ValueError(
            f"y_true has shape {shape}; expected an indicator matrix with a column for each of the {n_columns} "
            f"{f'classes of cinc_classes({year})' if labels is None else 'labels'}. skecg.datasets.cinc_targets makes one "
            "from diagnoses; pass labels= if the columns are some of the classes only."
        )
    true, predicted = decided_classes(y_true, y_pred, None, record_ids)
    if labels is None:
        return true, predicted
    columns = [find_column(classes, name) for name in labels]
    unknown = [str(name) for name, column in zip(labels, columns, strict=True) if column is None]
    if unknown:
        raise ValueError(f"labels holds {', '.join(unknown)}, which the challenge of {year} does not score; expected SNOMED "
                         f"CT codes, abbreviations or names of cinc_classes({year}).")
    if len(set(columns)) < len(columns):
        raise ValueError(f"labels names a class more than once: {', '.join(map(str, labels))}. Some diagnoses are scored as "
                         "one; merge their columns.")
    whole = np.zeros((2, len(true), len(classes.codes)), dtype=bool)
    whole[:, :, columns] = true, predicted
    return whole[0], whole[1]


def challenge_kernel(true, predicted, weights, *, year):
    classes = cinc_classes(year)
    inactive = np.zeros_like(true)
    inactive[:, classes.sinus_rhythm] = True
    credit = true @ classes.weights  # of each answer, (n_samples, n_classes)
    observed, correct, nothing = (
        (credit * answer).sum(axis=1) / np.maximum(1, (true | answer).sum(axis=1)) for answer in (predicted, true, inactive)
    )
    # Differences of each record first: where nothing can be earned they are exactly zero.
    earned = np.stack([observed - nothing, correct - nothing], axis=1)
    sums = np.empty((len(weights), 2))
    for rows, block in weight_blocks(weights):
        sums[rows] = block.T @ earned
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)


@cache
def _read(year):
    with files(__package__).joinpath(f"cinc_{year}.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    weights = np.array([row[3:] for row in rows], dtype=float)
    weights.setflags(write=False)
    codes = tuple(tuple(row[0].split("|")) for row in rows)
    return CincClasses(
        codes, tuple(row[1] for row in rows), tuple(row[2] for row in rows),
        next(i for i, same in enumerate(codes) if _SINUS_RHYTHM in same), weights,
    )


def find_column(classes, name):
    """The column of a code, abbreviation or name, or of all those of merged diagnoses; None if it is not scored."""
    name = ("|".join(name) if isinstance(name, tuple) else str(name)).strip().casefold()
    for i, (codes, *names) in enumerate(zip(classes.codes, classes.abbreviations, classes.names, strict=True)):
        for known in map(str.casefold, ("|".join(codes), *names)):
            if name in (known, *known.split("|")):
                return i
    return None
