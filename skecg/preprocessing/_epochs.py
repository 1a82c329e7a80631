"""Nights to scored epochs: a function, because it changes the number of samples."""

import warnings
from collections.abc import Mapping

import numpy as np

from ._cutting import check_seconds, count, cut, label, n_samples, unpack

# Rechtschaffen and Kales' stages 3 and 4 are N3 of the AASM; movement time is no stage of sleep.
_STAGES = {"W": "W", "1": "N1", "N1": "N1", "2": "N2", "N2": "N2", "3": "N3", "4": "N3", "N3": "N3", "R": "R"}
_MERGED = {
    5: {name: name for name in ("W", "N1", "N2", "N3", "R")},
    4: {"W": "W", "N1": "light", "N2": "light", "N3": "deep", "R": "R"},
    3: {"W": "W", "N1": "NREM", "N2": "NREM", "N3": "NREM", "R": "R"},
}
_LENGTH_OF_STAGES = 30.0  # seconds, of the arrays in a Bunch


def make_epochs(data, length=30.0, *, neighbours=0, lead_names=None, classes=5, groups=None, out=None, verbose=0):
    """Cut nights into epochs with their sleep stages, each with its neighbours if wanted.

    Parameters
    ----------
    data : Bunch or sequence of ECGRecord
        What :func:`~skecg.datasets.fetch_slpdb` returns, whose ``stages`` are used, or records whose annotations
        are sleep stages, as ``read_records(folder, annotations="st")`` gives them.
    length : float, default=30.0
        Seconds of an epoch, as it was scored.
    neighbours : int, default=0
        Epochs on each side that belong to the window too: it then covers ``2 * neighbours + 1`` epochs without a
        break, and has the stage of the one in the middle.
    lead_names : sequence of str, default=None
        Leads of the result, in this order. ``None`` takes those of the Bunch, or of the first record. A standard
        lead that a record does not have is NaN.
    classes : {5, 4, 3} or dict of str to str, default=5
        How stages are merged. 5: W, N1, N2, N3, R, where N3 is stages 3 and 4 of Rechtschaffen and Kales [1]_, as
        the AASM [2]_ defines it; 4: W, light (N1, N2), deep (N3), R; 3: W, NREM, R. Or the label of each stage as it
        is written in the record: ``W 1 2 3 4 R MT``, or ``N1 N2 N3``. Epochs of other stages (5, 4, 3: movement
        time, and what was not scored) get no window; they may be neighbours.
    groups : array-like of shape (n_records,), default=None
        A subject per record; ``None`` takes ``patient_id`` of a Bunch, else the number of the record.
    out : str or Path, default=None
        A ``.npy`` file that the windows are written to, record by record, and where they are found again, as
        :func:`make_windows` does.
    verbose : int, default=0
        Whether to show a progress bar, and to tell what became of ``out``.

    Returns
    -------
    X : ndarray of shape (n_epochs, n_leads, n_times), float32
        Millivolt, in the order of the records and of time. With ``out``, a read-only memmap of that file.
    y : ndarray of shape (n_epochs,), str
    groups : ndarray of shape (n_epochs,)
    places : ndarray of shape (n_epochs, 2), int
        The number of the record, and that of the epoch in it, counted from the start of the record: rows that
        agree in the first and follow each other in the second are a sequence.

    Warns
    -----
    UserWarning
        How many scored epochs were left out.

    Raises
    ------
    ValueError
        A record without stages, of another sampling rate, or without any of the leads; stages that are not
        ``length`` apart; a length that is no whole number of samples; no epoch at all.
    OSError
        ``out`` cannot be written, or holds something else, as in :func:`make_windows`.

    Notes
    -----
    - Epochs that lack a neighbour, because the record begins or ends there, are left out: no sample is made up. So
      are epochs that the signal does not cover, or with gaps in every lead.
    - A stage is the first word of an annotation with the symbol ``"`` and begins at its sample. It holds for
      ``length`` seconds, not until the next one.

    References
    ----------
    .. [1] Rechtschaffen A, Kales A. A manual of standardized terminology, techniques and scoring system for sleep
           stages of human subjects. National Institutes of Health publication 204, 1968.
    .. [2] Iber C, Ancoli-Israel S, Chesson A, Quan SF. The AASM manual for the scoring of sleep and associated
           events. American Academy of Sleep Medicine, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from skecg.datasets import ECGRecord
    >>> from skecg.preprocessing import make_epochs
    >>> stages = Bunch(sample=30 * 250 * np.arange(1, 6), symbol=np.array(['"'] * 5),
    ...                aux_note=np.array(["W", "1 H", "MT", "3", "4 HA"]))
    >>> night = ECGRecord(np.zeros((1, 250 * 240), np.float32), fs=250, lead_names=["ECG"], annotations=stages)
    >>> X, y, groups, places = make_epochs([night], neighbours=1)
    >>> X.shape, y, places[:, 1]
    ((4, 1, 22500), array(['W', 'N1', 'N3', 'N3'], dtype='<U2'), array([1, 2, 4, 5]))
    """
    records, lead_names, _, groups = unpack(data, lead_names, None, groups)
    names = _names(classes)
    neighbours = count(neighbours, "neighbours")
    check_seconds(length, "length")
    stages = data.get("stages") if hasattr(data, "records") else None
    if stages is not None:
        _check_stages(stages, len(records), length)

    def places(record, number):
        n_times = n_samples(length, record.fs, "length")
        if stages is None:
            starts, scored = _noted(record, number, n_times, {*_STAGES, "MT", *names})
        else:
            scored = np.asarray(stages[number], dtype=str)
            starts = n_times * np.arange(len(scored))
        wanted = np.isin(scored, list(names))
        starts, scored = starts[wanted], scored[wanted]
        return starts - neighbours * n_times, (2 * neighbours + 1) * n_times, {
            "label": np.array([names[stage] for stage in scored.tolist()], dtype=str), "epoch": starts // n_times,
        }

    windows = cut(
        "make_epochs", records, lead_names, places, out=out, verbose=verbose,
        parameters={"length": float(length), "neighbours": neighbours, "classes": names},
        labels=() if stages is None else stages,
        nothing=f"There is no scored epoch with all its signal; looked for the stages {' '.join(names)}.",
    )
    if windows.n_outside + windows.n_gaps:
        n_epochs = len(windows.X) + windows.n_outside + windows.n_gaps
        warnings.warn(
            f"{n_epochs - len(windows.X):,} of {n_epochs:,} scored epochs are left out: {windows.n_outside:,} that "
            f"leave the record{' with their neighbours' if neighbours else ''}, {windows.n_gaps:,} with gaps in every "
            "lead.", UserWarning, stacklevel=2,
        )
    return windows.X, windows.label, groups[windows.record], np.stack([windows.record, windows.epoch], axis=1)


def _names(classes):
    """The label of each stage as it is written."""
    if isinstance(classes, Mapping):
        return {str(stage): str(name) for stage, name in classes.items()}
    if isinstance(classes, bool) or classes not in (3, 4, 5):
        raise ValueError(f"classes must be 5, 4, 3, or a dict from stage to label; got {classes!r}.")
    return {stage: _MERGED[classes][name] for stage, name in _STAGES.items()}


def _check_stages(stages, n_records, length):
    if len(stages) != n_records:
        raise ValueError(f"data.stages must have one array for each of the {n_records} records; got {len(stages)}.")
    if length != _LENGTH_OF_STAGES:
        raise ValueError(f"data.stages are those of epochs of {_LENGTH_OF_STAGES:g} s; got length={length!r}.")


def _noted(record, number, n_times, known):
    """Start and stage of each epoch, from the annotations."""
    notes = record.annotations
    if notes is None or notes.get("aux_note") is None:
        stages = []
    else:
        words = [note.split() for note in np.asarray(notes.aux_note, dtype=str).tolist()]
        words = [word[0] if word else "" for word in words]
        stages = np.array(["MT" if word == "M" else word for word in words], dtype=str)  # slp45 abbreviates it
        which = (np.asarray(notes.symbol, dtype=str) == '"') & np.isin(stages, list(known))
        stages, starts = stages[which], np.asarray(notes.sample, dtype=np.int64)[which]
    if not len(stages):
        raise ValueError(f"Record {label(record, number)} has no sleep stages among its annotations: read it with "
                         "read_record(..., annotations='st').")
    grid = n_times * np.rint(starts / n_times).astype(np.int64)
    starts = np.where(np.abs(starts - grid) <= record.fs / 100, grid, starts)  # slpdb notes the first epoch at sample 1
    closest = np.diff(starts).min(initial=np.iinfo(np.int64).max)
    if len(starts) > 1 and abs(closest - n_times) > record.fs / 100:
        raise ValueError(f"The closest sleep stages of record {label(record, number)} are {closest / record.fs:g} s apart; "
                         f"expected length={n_times / record.fs:g} s.")
    return starts, stages
