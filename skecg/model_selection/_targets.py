"""Targets and patients as arrays of indicators and codes."""

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.multiclass import type_of_target


def encode_labels(y):
    """Classes and who has them.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, an indicator matrix (sparse and DataFrame too), or continuous targets.

    Returns
    -------
    classes : tuple
        The sorted labels; the columns of an indicator matrix by name (DataFrame) or number. Empty if continuous.
    indicator : ndarray of shape (n_samples, n_classes), bool
        No column if the targets are continuous.
    """
    if y is None:
        raise ValueError("y is None: labels are needed to stratify by them.")
    columns = getattr(y, "columns", None)
    y = y.toarray() if issparse(y) else np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y, columns = y[:, 0], None
    kind = type_of_target(y, input_name="y")
    if kind in ("binary", "multiclass"):
        classes, codes = np.unique(y, return_inverse=True)
        return tuple(classes.tolist()), codes[:, None] == np.arange(len(classes))
    if kind == "multilabel-indicator":
        classes = range(y.shape[1]) if columns is None else columns.tolist()
        return tuple(classes), y.astype(bool)
    if kind in ("continuous", "continuous-multioutput"):
        return (), np.zeros((len(y), 0), dtype=bool)
    raise ValueError(
        f"y is of the kind {kind!r}, shape {y.shape}; expected class labels of shape (n_samples,), an indicator matrix "
        "of zeros and ones of shape (n_samples, n_labels), or continuous targets."
    )


def encode_groups(groups, n_samples):
    """Sorted patient ids (ndarray) and the position among them of each sample; ``None``: each sample is a patient."""
    if groups is None:
        return np.arange(n_samples), np.arange(n_samples)
    groups = np.asarray(groups)
    if groups.shape != (n_samples,):
        raise ValueError(
            f"groups must hold one patient id for each of the {n_samples} samples; got shape {groups.shape}."
        )
    try:
        missing = bool((groups != groups).any())  # only NaN differs from itself
        patients, codes = np.unique(groups, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"groups cannot be sorted ({error}): give ids of one type, str or int.") from error
    if missing:
        raise ValueError("groups holds missing values (NaN): give every sample a patient id.")
    return patients, codes
