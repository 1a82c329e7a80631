"""Records to windows of one length: a function, because it changes the number of samples."""

import warnings

import numpy as np

from ._cutting import check_seconds, cut, n_samples, unpack


def make_windows(data, length, *, step=None, lead_names=None, y=None, groups=None, out=None, verbose=0):
    """Cut records into windows of one length.

    Parameters
    ----------
    data : Bunch or sequence of ECGRecord
        What a ``fetch_*`` function or :func:`~skecg.datasets.read_records` returns, or records of one sampling rate.
    length : float
        Seconds; a whole number of samples.
    step : float, default=None
        Seconds from the start of one window to the start of the next; ``None`` is ``length`` (no overlap).
    lead_names : sequence of str, default=None
        Leads of the result, in this order. ``None`` takes those of the Bunch, or of the first record. A lead
        that a record does not have is NaN.
    y : array-like of shape (n_records, ...), default=None
        A label per record, which its windows inherit; ``None`` takes ``target`` of a Bunch.
    groups : array-like of shape (n_records,), default=None
        A patient per record; ``None`` takes ``patient_id`` of a Bunch, else the number of the record. Any
        other property of the records travels in the same way, e.g. ``groups=ptbxl.folds``.
    out : str or Path, default=None
        A ``.npy`` file that the windows are written to, record by record, for sets that do not fit into memory.
        Where it holds what an earlier call made of the same records in the same way, it is opened and no
        record is read. A file that no call has written is not touched.
    verbose : int, default=0
        Whether to show a progress bar, and to tell what became of ``out``.

    Returns
    -------
    X : ndarray of shape (n_windows, n_leads, n_times), float32
        Millivolt, in the order of the records and of time. With ``out``, a read-only memmap of that file.
    y : ndarray of shape (n_windows, ...) or None
        None where there are no labels.
    groups : ndarray of shape (n_windows,)

    Warns
    -----
    UserWarning
        Records shorter than ``length``, or without one usable window.

    Raises
    ------
    ValueError
        A record of another sampling rate (nothing is resampled silently), without any of the leads; a length
        that is no whole number of samples; labels or groups of another length than the records; no window at
        all; ``out`` without the suffix ``.npy``.
    OSError
        ``out`` cannot be written: FileExistsError where another file has this name (one without the small file below
        beside it), FileNotFoundError where there is no such folder, and so on.

    Notes
    -----
    - What remains at the end of a record is dropped: no sample is made up.
    - A gap (invalid samples) inside a window makes that lead missing in that window, NaN from end to end; a
      window without any lead left is dropped.
    - Beside ``out`` there is a small file ``<out>.index.npz``: which record each window comes from, and what all
      was made of: the arguments, this version, and path, size and time of change of every file of the records
      (those named ``<record>.*`` and ``<record>_*``), or what records in memory hold. If any of it differs,
      or the file is not as it was written, the windows are cut again and replace it. ``y`` and ``groups`` are
      not kept there: each call gives them anew.
    - Files appear under their names when they are complete. A process that is killed may leave a
      ``<out>.*.part``, which nothing reads.

    Examples
    --------
    >>> import numpy as np
    >>> from skecg.datasets import ECGRecord
    >>> from skecg.preprocessing import make_windows
    >>> records = [ECGRecord(np.zeros((1, n), np.float32), fs=100, lead_names=["II"]) for n in (1000, 2500)]
    >>> X, y, groups = make_windows(records, length=10.0, y=["healthy", "ill"])
    >>> X.shape, y, groups
    ((3, 1, 1000), array(['healthy', 'ill', 'ill'], dtype='<U7'), array([0, 1, 1]))

    A file, for the second time without reading the records:

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         X, y, groups = make_windows(records, length=10.0, out=Path(folder, "X.npy"), verbose=1)
    ...     type(X).__name__, X.shape
    [make_windows] ...X.npy: 3 windows, cut earlier.
    ('memmap', (3, 1, 1000))
    """
    records, lead_names, y, groups = unpack(data, lead_names, y, groups)
    step = length if step is None else step
    check_seconds(length, "length")
    check_seconds(step, "step")

    def places(record, number):
        n_times, n_step = n_samples(length, record.fs, "length"), n_samples(step, record.fs, "step")
        return np.arange(0, record.n_times - n_times + 1, n_step), n_times, {}

    windows = cut(
        "make_windows", records, lead_names, places, out=out, verbose=verbose,
        parameters={"length": float(length), "step": float(step)},
        nothing=f"No record has a usable window of {length:g} s.",
    )
    empty = len(records) - len(np.unique(windows.record))
    if empty:
        warnings.warn(f"{empty} of {len(records)} records give no window of {length:g} s: they are shorter, "
                      "or have gaps in every lead.", UserWarning, stacklevel=2)
    return windows.X, None if y is None else y[windows.record], groups[windows.record]
