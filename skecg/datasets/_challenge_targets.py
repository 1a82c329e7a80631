"""Diagnoses as the classes that the PhysioNet/Computing in Cardiology Challenges score."""

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from ..metrics import cinc_classes
from ..metrics._challenge import find_column


class CincTargets(NamedTuple):
    """What :func:`cinc_targets` returns.

    Parameters
    ----------
    target : ndarray of shape (n_records, n_classes), int64
        1 where a record has a class, columns in the order of :func:`~skecg.metrics.cinc_classes`. A row of zeros is a record
        without any scored diagnosis.
    names : tuple of str
        The challenge's abbreviations of the columns.
    unscored : dict of str to int
        What the challenge of that year does not score, and how many records have each; the most frequent first.
    """

    target: np.ndarray
    names: tuple
    unscored: dict


def cinc_targets(diagnoses, codes=None, *, year=2021):
    """Diagnoses as an indicator matrix of the classes that a challenge scores, equivalent diagnoses merged.

    Parameters
    ----------
    diagnoses : array-like of shape (n_records, n_codes), or sequence of n_records collections of str
        Indicator matrix with a column for each of `codes`, as ``data.target`` of
        :func:`~skecg.datasets.fetch_cinc2021`; or, without `codes`, the SNOMED CT codes of each record: a collection, or a
        string with commas between them. The challenge's abbreviations and names do as well, in upper or lower case.
    codes : sequence of str, default=None
        What the columns of `diagnoses` are, as ``data.target_names``.
    year : {2020, 2021}, default=2021
        Which challenge.

    Returns
    -------
    targets : CincTargets
        ``target``, ``names`` of its columns, and the ``unscored`` codes with their counts.

    Raises
    ------
    ValueError
        A matrix of another shape or with values other than 0 and 1, a string in place of a sequence, a record whose
        diagnoses are missing (an empty collection says that it has none), or another year.

    Warns
    -----
    UserWarning
        Something that records have is neither a code, which is all digits, nor an abbreviation or name. It is listed among
        the ``unscored``.

    See Also
    --------
    skecg.metrics.cinc_score : Scores decisions about these classes.

    Notes
    -----
    A 0 means that the class was not annotated, which is not always that it was not there: no source of the challenges
    annotates all classes (of the eight of 2021, only ningbo has "poor R wave progression"). Look at the classes of
    each source before you train on it.

    Examples
    --------
    >>> from skecg.datasets import cinc_targets
    >>> targets = cinc_targets([["426783006", "59118001"], ["713427006"], ["164951009"]])
    >>> [targets.names[i] for i in targets.target.any(axis=0).nonzero()[0]]
    ['CRBBB|RBBB', 'NSR']
    >>> targets.target.sum(axis=1), targets.unscored
    (array([2, 1, 0]), {'164951009': 1})

    Of records as they are fetched:

    >>> from skecg.datasets import fetch_cinc2021
    >>> data = fetch_cinc2021()                                     # doctest: +SKIP
    >>> y = cinc_targets(data.target, data.target_names).target     # doctest: +SKIP
    """
    classes = cinc_classes(year)
    if codes is not None and (isinstance(codes, str) or not isinstance(codes, Iterable)):
        raise ValueError(f"codes is {codes!r}; expected the codes of the columns of diagnoses. The year is passed by name, "
                         "year=2020.")
    if codes is None:
        diagnoses, codes = _from_collections(diagnoses)
    else:
        diagnoses = diagnoses.toarray() if issparse(diagnoses) else np.asarray(diagnoses)
        codes = [str(code) for code in codes]
        if diagnoses.ndim != 2 or diagnoses.shape[1] != len(codes):
            raise ValueError(f"diagnoses has shape {diagnoses.shape}; expected (n_records, {len(codes)}).")
        if not ((diagnoses == 0) | (diagnoses == 1)).all():
            raise ValueError("diagnoses holds values other than 0 and 1; expected an indicator matrix.")
    target, unscored = np.zeros((len(diagnoses), len(classes.codes)), dtype=np.int64), {}
    for code, has in zip(codes, diagnoses.T, strict=True):
        column = find_column(classes, code)
        if column is not None:
            target[:, column] |= has.astype(bool)
        elif has.any():
            unscored[code] = int(has.sum())
    unscored = dict(sorted(unscored.items(), key=lambda item: (-item[1], item[0])))
    unknown = [code for code in unscored if not code.strip().isdecimal()]
    if unknown:
        warnings.warn(
            f"{len(unknown)} diagnoses are neither SNOMED CT codes nor abbreviations or names of cinc_classes({year}) "
            f"and become no class: {', '.join(map(repr, unknown[:10]))}{', ...' if len(unknown) > 10 else ''}. Translate "
            "them, or leave them out.", UserWarning, stacklevel=2,
        )
    return CincTargets(target, classes.abbreviations, unscored)


def _from_collections(diagnoses):
    """Indicator matrix and codes of a collection of codes per record."""
    if isinstance(diagnoses, str) or getattr(diagnoses, "ndim", 1) != 1:
        raise ValueError(
            "diagnoses is one string or a matrix; expected the codes of each record, such as [['426783006'], ['164889003', "
            "'59118001']], or an indicator matrix together with codes=."
        )
    for number, own in enumerate(diagnoses):
        if not isinstance(own, Iterable):
            raise ValueError(
                f"The diagnoses of record {number} are {own!r}; expected a collection of codes, or a string with commas "
                "between them. A record without diagnoses has []."
            )
    found = [
        {code.strip() for code in (own.split(",") if isinstance(own, str) else map(str, own))} - {""} for own in diagnoses
    ]
    codes = sorted(set().union(*found))
    column = {code: i for i, code in enumerate(codes)}
    matrix = np.zeros((len(found), len(codes)), dtype=bool)
    for row, own in zip(matrix, found, strict=True):
        row[[column[code] for code in own]] = True
    return matrix, codes
