"""MIT-BIH Polysomnographic Database."""

import numpy as np

from ._physionet import ODC_BY, Database
from ._records import read_annotations
from ._wfdb import ECGFormatError

_EPOCH = 30  # seconds
SLPDB = Database(
    name="slpdb",
    title="the MIT-BIH Polysomnographic Database",
    slug="slpdb",
    version="1.0.0",
    headers=("slp[0-9][0-9]*.hea",),
    extensions=("hea", "dat", "ecg", "st"),
    n_records=18,
    record_bytes=3.5e7,
    license=ODC_BY,
    citation="Ichimaru Y, Moody GB. Development of the polysomnographic database on CD-ROM. Psychiatry Clin Neurosci "
             "53:175-177, 1999. https://doi.org/10.13026/C23K5S",
    descr="""MIT-BIH Polysomnographic Database

18 polysomnograms of 16 men evaluated for sleep apnoea, up to seven hours, 250 Hz: one ECG lead (of unnamed position)
with every beat annotated, blood pressure, EEG, respiration and more. Each epoch of 30 seconds has a sleep stage by
Rechtschaffen and Kales: W (awake), 1, 2, 3, 4, R (REM), MT (movement time). Records slp01a and slp01b are one subject,
and so are slp02a and slp02b.""",
)


def fetch_slpdb(data_home=None, *, records=None, lead_names=("ECG",), download_if_missing=True, verify=False):
    """The MIT-BIH Polysomnographic Database: 18 nights with ECG, beats and sleep stages (0.6 GB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``slpdb``; or the folder of a copy of this
        one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records, or patterns such as ``"slp0*"``. ``None`` is all of them.
    lead_names : sequence of str or None, default=("ECG",)
        Signals to read; ``None`` reads all, blood pressure and respiration in their own units included.
    download_if_missing : bool, default=True
        Whether to download the files that are missing, from PhysioNet or from the mirror in the environment
        variable ``SKECG_PHYSIONET_URL``. Nothing else ever downloads anything. Each file is checked against
        the SHA-256 that PhysioNet publishes; what broke off is continued by the next call. Without it, what
        is there is used, and a warning counts the records.
    verify : bool, default=False
        Whether to check the SHA-256 of the files that are there already, too.

    Returns
    -------
    data : Bunch
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence with annotations (the beats), read on access;
        ``stages`` : list of n_records ndarrays of shape (n_epochs,), str: element k is the sleep stage from
        second 30 k to 30 (k + 1), one of ``W 1 2 3 4 R MT``, or empty where the epoch was not scored;
        ``events`` : list of n_records ndarrays of shape (n_epochs,), str: codes of apnoea, arousal and leg
        movement in that epoch, separated by spaces; ``record_names`` and ``patient_id`` : ndarray of shape
        (n_records,), str; ``target`` : None, for labels belong to epochs; ``folds`` : None; ``fs`` : 250;
        ``lead_names`` : ``("ECG",)``, the lead that windows are cut from unless others are asked for;
        ``DESCR``, ``license`` (ODC-BY 1.0), ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ECGFormatError
        Stages that are not given per epoch of 30 s.
    ValueError
        No record of that name.

    Notes
    -----
    - Codes of events: H hypopnoea, OA obstructive apnoea, CA central apnoea, L leg movements, each with a
      trailing A where it came with an arousal; X obstructive apnoea with arousal; A unspecified arousal.
      slp41 and slp45 were not scored for apnoea.
    - Without its signal file a record cannot be read, but its stages are there.

    References
    ----------
    .. [1] Ichimaru Y, Moody GB. Development of the polysomnographic database on CD-ROM. Psychiatry Clin Neurosci
           53:175-177, 1999.

    Examples
    --------
    >>> from skecg.datasets import fetch_slpdb
    >>> slpdb = fetch_slpdb(records="slp02*")                        # doctest: +SKIP
    >>> slpdb.stages[0][:5]                                          # doctest: +SKIP
    array(['2', '2', '2', '2', '2'], dtype='<U2')
    """
    folder, names = SLPDB.provide(data_home, records, download_if_missing, verify)
    options = {"annotations": "ecg"}
    if lead_names is not None:
        options["lead_names"] = tuple(lead_names)
    scored = [_read_epochs(folder / name) for name in names]
    return SLPDB.bunch(
        folder, names, options,
        stages=[stages for stages, _ in scored],
        events=[events for _, events in scored],
        patient_id=np.array([name[:5] for name in names], dtype=str),  # slp02a and slp02b: slp02
        fs=250,
        lead_names=("ECG",) if lead_names is None else tuple(lead_names),
    )


def _read_epochs(path):
    """Stage and events of each epoch, from the notes: the first word is the stage."""
    notes = read_annotations(path, "st")
    n_samples = _EPOCH * notes.fs
    epochs = np.rint(notes.sample / n_samples).astype(int)
    # The epoch at the start of a record is noted at sample 1.
    if len(set(epochs.tolist())) < len(epochs) or (np.abs(notes.sample - n_samples * epochs) > 1).any():
        raise ECGFormatError(f"the sleep stages are not given once every {_EPOCH} s.", file=f"{path}.st")
    stages = np.zeros(max(epochs, default=-1) + 1, dtype="<U2")
    events = [""] * len(stages)
    for epoch, note in zip(epochs.tolist(), notes.aux_note.tolist(), strict=True):
        stage, _, rest = note.strip().partition(" ")
        stages[epoch] = "MT" if stage == "M" else stage  # slp45 abbreviates it
        events[epoch] = " ".join(rest.split())
    return stages, np.array(events, dtype=str)
