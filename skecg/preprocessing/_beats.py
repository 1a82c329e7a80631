"""Records to windows around annotated beats: a function, because it changes the number of samples."""

import warnings
from collections.abc import Mapping

import numpy as np

from ._cutting import count, cut, label, unpack

AAMI_CLASSES = {symbol: name for name, symbols in (
    ("N", "NLRej"), ("S", "AaJS"), ("V", "VE"), ("F", "F"), ("Q", "/fQ"),
) for symbol in symbols}

_BEATS = "NLRBAaJSVrFejnE/fQ?"  # every symbol of a beat in WFDB: each may be the neighbour of another


def make_beats(data, *, before=0.25, after=0.45, context=0, lead_names=None, classes=None, groups=None, out=None,
               verbose=0):
    """Cut one window around each annotated beat.

    Parameters
    ----------
    data : Bunch or sequence of ECGRecord
        Records with annotations: what :func:`~skecg.datasets.fetch_mitdb` returns, or a list.
    before, after : float, default=0.25, 0.45
        Seconds before and after the annotated sample, rounded to samples. The annotated sample is at
        ``round(before * fs)``.
    context : int, default=0
        Neighbouring beats on each side whose windows are set beside that of the beat, in order of time: with 1,
        the beat before, the beat, the beat after. ``n_times`` is ``2 * context + 1`` times as large, and y remains
        that of the beat in the middle.
    lead_names : sequence of str, default=None
        Leads of the result, in this order. ``None`` takes those of the Bunch (MLII for MIT-BIH), or of the
        first record. A lead that a record does not have is NaN.
    classes : dict of str to str, default=None
        The label of each annotation symbol; beats with other symbols are left out. ``None`` is the AAMI
        grouping: N = N L R e j; S = A a J S; V = V E; F = F; Q = / f Q.
    groups : array-like of shape (n_records,), default=None
        A patient per record; ``None`` takes ``patient_id`` of a Bunch, else the number of the record.
    out : str or Path, default=None
        A ``.npy`` file that the windows are written to, record by record, and where they are found again, as
        :func:`make_windows` does.
    verbose : int, default=0
        Whether to show a progress bar, and to tell what became of ``out``.

    Returns
    -------
    X : ndarray of shape (n_beats, n_leads, n_times), float32
        Millivolt, in the order of the records and of time. With ``out``, a read-only memmap of that file.
    y : ndarray of shape (n_beats,), str
    groups : ndarray of shape (n_beats,)

    Warns
    -----
    UserWarning
        With ``context``, how many beats were left out.

    Raises
    ------
    ValueError
        A record without annotations, of another sampling rate, or without any of the leads; no beat at all.
    OSError
        ``out`` cannot be written, or holds something else, as in :func:`make_windows`.

    Notes
    -----
    - Beats whose window would leave the record are dropped (one or two per record), and so are beats with a gap
      in every lead. With ``context`` that holds for the windows of the neighbours, too, so that the first and the
      last ``context`` beats of a record are dropped.
    - Neighbours are beats of any kind, also of symbols that are not in ``classes``.
    - ``context`` shows the shape of the neighbours, each at a known place, and not when they came. For the rhythm
      around a beat make its window longer: MIT-BIH's beats are 0.8 s apart, so that ``before=1.2, after=0.6``
      holds the whole beat before.
    - Filter and scale records, or windows without ``context``: where two windows meet, the signal jumps.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from skecg.datasets import ECGRecord
    >>> from skecg.preprocessing import make_beats
    >>> beats = Bunch(sample=np.array([5, 400, 760, 900]), symbol=np.array(["N", "N", "+", "V"]))
    >>> record = ECGRecord(np.zeros((1, 1800), np.float32), fs=360, lead_names=["MLII"], annotations=beats)
    >>> X, y, groups = make_beats([record])
    >>> X.shape, y
    ((2, 1, 252), array(['N', 'V'], dtype='<U1'))
    """
    records, lead_names, _, groups = unpack(data, lead_names, None, groups)
    if classes is not None and not isinstance(classes, Mapping):
        raise ValueError("classes must be a dict from symbol to label, such as {'N': 'N', 'V': 'V'}; got "
                         f"{classes!r}.")
    classes = AAMI_CLASSES if classes is None else {str(symbol): str(name) for symbol, name in classes.items()}
    context = count(context, "context")
    known = {*_BEATS, *classes}

    def places(record, number):
        if record.annotations is None:
            raise ValueError(f"Record {label(record, number)} has no annotations: read it with "
                             "read_record(..., annotations='atr').")
        n_before = round(before * record.fs)
        n_times = n_before + round(after * record.fs)
        if n_times < 1:
            raise ValueError(f"before={before!r} and after={after!r} s leave no sample at "
                             f"fs={record.fs:g} Hz.")
        symbols = np.asarray(record.annotations.symbol, dtype=str)
        beats = np.isin(symbols, list(known))
        symbols = symbols[beats]
        starts = np.asarray(record.annotations.sample, dtype=np.int64)[beats] - n_before
        wanted = np.flatnonzero(np.isin(symbols, list(classes)))
        starts = np.pad(starts, context, constant_values=-1)  # neighbours that are not there: outside the record
        pieces = starts[wanted[:, None] + np.arange(2 * context + 1)]
        return pieces, n_times, {"label": np.array([classes[symbol] for symbol in symbols[wanted].tolist()], dtype=str)}

    windows = cut(
        "make_beats", records, lead_names, places, out=out, verbose=verbose,
        parameters={"before": float(before), "after": float(after), "context": context, "classes": classes},
        nothing=f"There is no annotated beat; looked for the symbols {' '.join(classes)}.",
    )
    if context and windows.n_outside + windows.n_gaps:
        n_beats = len(windows.X) + windows.n_outside + windows.n_gaps
        warnings.warn(
            f"{n_beats - len(windows.X):,} of {n_beats:,} beats are left out: {windows.n_outside:,} for they have fewer "
            f"than {context} neighbour(s) on one side, or a window that leaves the record; {windows.n_gaps:,} with gaps "
            "in every lead.", UserWarning, stacklevel=2,
        )
    return windows.X, windows.label, groups[windows.record]
