"""Shape, lead and missing-value rules of signal arrays, and every message about them."""

from difflib import get_close_matches

import numpy as np
from sklearn.utils.validation import validate_data

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# Modified leads, as headers of PhysioNet name them: bipolar, placed to look like the standard lead. Names that only
# count signals ("ECG1", "ECG lead 2") or that no convention explains ("V1-V2", "D3", "II+") stay what they are.
_ALIASES = {
    "mli": "I", "mlii": "II", "ml2": "II", "mliii": "III", "mod.v1": "V1", "mcl1": "V1", "mv2": "V2",
}
_BY_LOWER = {name.lower(): name for name in STANDARD_LEADS}

# Rows looked at together: small enough that a memmap is never resident as a whole.
_BLOCK_BYTES = 4 * 2**20


def canonical_lead_name(name):
    """The standard spelling of a lead name: ``"AVR"``, ``"ECG avr"`` and ``"lead aVR"`` are all ``"aVR"``.

    Modified leads of ambulatory recorders and monitors (``"MLII"``, ``"MCL1"``) map to the standard lead they
    imitate. A name that is not one of the 12 standard leads comes back stripped and otherwise unchanged.
    """
    name = str(name).strip()
    key = name.lower()
    for prefix in ("ecg lead ", "ecg ", "lead "):
        if key.startswith(prefix):
            key = key[len(prefix):].strip()
            break
    key = _ALIASES.get(key, key)
    return _BY_LOWER.get(key.lower(), name)


def check_lead_names(lead_names, n_leads=None):
    """``lead_names`` as a tuple of unique strings, one per lead.

    ``None`` gives the 12 standard leads where there are 12, else ``"lead0"``, ``"lead1"``, ...

    Raises
    ------
    ValueError
        Not a sequence of strings, a lead named twice, or another number of names than leads.
    """
    if lead_names is None:
        return STANDARD_LEADS if n_leads == 12 else tuple(f"lead{i}" for i in range(n_leads))
    if isinstance(lead_names, str) or not all(isinstance(name, str) for name in lead_names):
        raise ValueError(
            f"lead_names must be a sequence of strings such as ('I', 'II', 'V1'); got {lead_names!r}."
        )
    lead_names = tuple(lead_names)
    canonical = [canonical_lead_name(name).lower() for name in lead_names]
    repeated = sorted({name for name, key in zip(lead_names, canonical, strict=True) if canonical.count(key) > 1})
    if repeated:
        raise ValueError(f"lead_names names a lead more than once: {', '.join(repeated)}. Name each lead once.")
    if n_leads is not None and len(lead_names) != n_leads:
        raise ValueError(
            f"lead_names has {len(lead_names)} names ({', '.join(lead_names)}) but X has {n_leads} leads: "
            "give one name per lead, in the order of X's second axis."
        )
    return lead_names


def match_leads(wanted, available):
    """The position of each ``wanted`` lead among ``available``, None where a standard lead is missing.

    Names are compared in their canonical spelling; where two leads share it, the exact name decides.

    Raises
    ------
    ValueError
        A name that is neither available nor one of the 12 standard leads, a name that fits several leads
        equally well, or no name at all.
    """
    wanted, available = check_lead_names(wanted), tuple(str(name) for name in available)
    if not wanted:
        raise ValueError("lead_names is empty: name at least one lead.")
    exact = [name.strip().lower() for name in available]
    canonical = [canonical_lead_name(name).lower() for name in available]
    positions = []
    for name in wanted:
        key = canonical_lead_name(name)
        hits = [i for i, other in enumerate(exact) if other == name.strip().lower()]
        hits = hits or [i for i, other in enumerate(canonical) if other == key.lower()]
        if len(hits) > 1:
            raise ValueError(
                f"Lead {name!r} fits {len(hits)} of the leads {', '.join(available)}: rename them first."
            )
        if not hits and key not in STANDARD_LEADS:
            known = {other.lower(): other for other in (*available, *STANDARD_LEADS)}
            close = [known[match] for match in get_close_matches(name.lower(), known, n=3)]
            hint = f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
            raise ValueError(
                f"Unknown lead {name!r}.{hint} There is {', '.join(available)}; "
                f"the standard leads are {', '.join(STANDARD_LEADS)}."
            )
        positions.append(hits[0] if hits else None)
    return positions


def as_3d(X):
    """``X`` as (n_samples, n_leads, n_times); two dimensions are one lead. Never copies."""
    return X[:, np.newaxis] if X.ndim == 2 else X


def row_blocks(X):
    """Slices over the first axis, each covering about 4 MiB."""
    step = max(1, _BLOCK_BYTES // max(1, X.itemsize * int(np.prod(X.shape[1:]))))
    return [slice(start, min(start + step, len(X))) for start in range(0, len(X), step)]


def validate_ecg(estimator, X, *, reset, min_samples=1, min_times=1, any_length=False):
    """Check a signal array and learn (or compare) its number of leads and samples in time.

    Parameters
    ----------
    estimator : BaseEstimator
        Receives ``n_features_in_``, ``n_leads_in_`` and ``n_times_in_`` if ``reset``, is compared otherwise.
    X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        Millivolt. Missing leads are NaN from end to end.
    reset : bool
        True in ``fit``, False afterwards.
    min_samples, min_times : int
        Fewer are an error.
    any_length : bool
        Whether three-dimensional input of another ``n_times`` than in ``fit`` is accepted.

    Returns
    -------
    X : ndarray of the dimensions seen in ``fit``
        float32 or float64; the same object (memmaps included) wherever the input was one of these already.

    Raises
    ------
    ValueError
        Wrong number of dimensions, leads or samples in time, axes in another order, NaN inside a lead,
        infinite values, every lead missing.
    """
    _check_ndim(X)
    if not reset and hasattr(X, "ndim") and hasattr(X, "shape"):
        X = _match_ndim(estimator, X)
        if X.ndim == 3:
            _check_same_shape(estimator, X, any_length)
    X = validate_data(
        estimator, X, reset=reset, allow_nd=True, dtype=[np.float32, np.float64],
        ensure_all_finite=False, ensure_min_samples=min_samples,
    )
    _check_ndim(X)  # nested lists only become an array in validate_data
    n_leads, n_times = as_3d(X).shape[1:]
    if n_leads == 0 or n_times == 0:
        raise ValueError(f"X has shape {X.shape}, that is n_leads={n_leads} and n_times={n_times}: nothing to work on.")
    if reset:
        if n_leads > max(1, n_times):
            raise ValueError(
                f"X has shape {X.shape}, that is n_leads={n_leads} and n_times={n_times}: the axes look swapped. "
                "Expected (n_samples, n_leads, n_times); use X.transpose(0, 2, 1)."
            )
        if n_times < min_times:
            raise ValueError(
                f"X has n_times={n_times} (n_features={X.shape[1]}) samples in time; "
                f"{type(estimator).__name__} needs at least {min_times}. Pass longer windows."
            )
        estimator.n_leads_in_, estimator.n_times_in_ = n_leads, n_times
        estimator._ndim_in = X.ndim
    elif X.ndim == 3:  # lists only get here
        _check_same_shape(estimator, X, any_length)
    _check_values(X)
    return X


def _check_ndim(X):
    if getattr(X, "ndim", 0) > 3:
        raise ValueError(
            f"X has {X.ndim} dimensions, shape {X.shape}; expected (n_samples, n_leads, n_times), "
            "or (n_samples, n_times) for one lead."
        )


def _match_ndim(estimator, X):
    """One lead may come as (n, t) or (n, 1, t), whatever ``fit`` saw."""
    if X.ndim == 3 and estimator._ndim_in == 2 and X.shape[1] == 1:
        return X[:, 0]
    if X.ndim == 2 and estimator._ndim_in == 3 and estimator.n_leads_in_ == 1:
        return X[:, np.newaxis]
    if X.ndim in (2, 3) and X.ndim != estimator._ndim_in:
        leads, times = estimator.n_leads_in_, estimator.n_times_in_
        raise ValueError(
            f"X has shape {X.shape}, but {type(estimator).__name__} was fitted on {leads} lead(s) of {times} "
            f"samples: expected (n_samples, {leads}, {times})."
        )
    return X


def _check_same_shape(estimator, X, any_length):
    given, expected = X.shape[1:], (estimator.n_leads_in_, estimator.n_times_in_)
    if given == expected or (any_length and given[0] == expected[0]):
        return
    name = type(estimator).__name__
    if given == expected[::-1]:
        raise ValueError(
            f"X has shape {X.shape}: the axes are swapped. {name} expects (n_samples, {expected[0]}, {expected[1]}); "
            "use X.transpose(0, 2, 1)."
        )
    if given[0] != expected[0]:
        names = getattr(estimator, "lead_names_in_", None)
        listed = f" ({', '.join(names)})" if names is not None else ""
        raise ValueError(
            f"X has {given[0]} lead(s), but {name} was fitted on {expected[0]}{listed}. Use "
            "skecg.preprocessing.LeadSelector to bring X to these leads; it fills a missing lead with NaN."
        )
    raise ValueError(
        f"X has {given[1]} samples in time, but {name} was fitted on {expected[1]}. Cut windows of the fitted length "
        "with skecg.preprocessing.make_windows, at the same sampling rate."
    )


def _check_values(X):
    """NaN only as whole leads, nothing infinite, at least one lead per sample; in blocks."""
    for rows in row_blocks(X):
        block = np.asarray(as_3d(X[rows]))
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(block.sum(dtype=np.float32)):
                continue
        infinite = np.abs(block) > np.finfo(np.float32).max
        if infinite.any():
            sample, lead, _ = np.argwhere(infinite)[0]
            raise ValueError(
                f"Input X contains infinity (inf) or a value too large for float32, first in sample "
                f"{rows.start + sample}, lead {lead}. "
                "Remove such records or repair them before fitting."
            )
        n_missing = np.isnan(block).sum(axis=2)
        partly = (n_missing > 0) & (n_missing < block.shape[2])
        if partly.any():
            sample, lead = np.argwhere(partly)[0]
            raise ValueError(
                f"Input X contains NaN inside a lead: sample {rows.start + sample}, lead {lead} has "
                f"{n_missing[sample, lead]} of {block.shape[2]} values missing. A missing lead is NaN from end "
                "to end; fill shorter gaps, or drop the window."
            )
        empty = (n_missing == block.shape[2]).all(axis=1)
        if empty.any():
            raise ValueError(
                f"Input X contains NaN only: every lead of sample {rows.start + int(np.argmax(empty))} is missing. "
                "Drop samples without any lead."
            )
