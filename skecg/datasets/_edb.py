"""European ST-T Database."""

import numpy as np

from .._validation import STANDARD_LEADS, canonical_lead_name
from ._physionet import ODC_BY, Database, patient, read_text
from ._wfdb import read_header

EDB = Database(
    name="edb",
    title="the European ST-T Database",
    slug="edb",
    version="1.0.0",
    headers=("e[0-9][0-9][0-9][0-9].hea",),
    extensions=("hea", "dat", "atr"),
    n_records=90,
    record_bytes=5.5e6,
    license=ODC_BY,
    citation="Taddei A, Distante G, Emdin M, Pisani P, Moody GB, Zeelenberg C, Marchesi C. The European ST-T Database: "
             "standard for evaluating systems for the analysis of ST-T changes in ambulatory electrocardiography. Eur "
             "Heart J 13:1164-1172, 1992. https://doi.org/10.13026/C2D59Z",
    descr="""European ST-T Database

90 two-lead ambulatory recordings of two hours from 79 subjects with diagnosed or suspected ischaemia, 250 Hz.
Two cardiologists annotated every beat, changes of ST segment and T wave (367 and 401 episodes), rhythm and signal
quality. Which leads were recorded differs between records. Labels belong to beats and episodes, not to records.""",
)


def fetch_edb(data_home=None, *, records=None, lead_names=None, download_if_missing=True, verify=False):
    """The European ST-T Database: 90 two-lead recordings of two hours, with beats and ST-T episodes (0.5 GB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``edb``; or the folder of a copy of this
        one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records, or patterns such as ``"e01*"``. ``None`` is all of them.
    lead_names : sequence of str, default=None
        Leads to read from each record; ``None`` reads both. A lead that a record does not have is NaN; a
        record that has none of them cannot be read.
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
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence with annotations (beats in ``symbol``; ``"s"``
        and ``"T"`` for changes of ST segment and T wave, described in ``aux_note``), read on access;
        ``record_names`` and ``patient_id`` : ndarray of shape (n_records,), str (see Notes); ``target`` and
        ``folds`` : None; ``age`` : ndarray of shape (n_records,), float, years; ``sex`` : ndarray of shape
        (n_records,), str; ``fs`` : 250; ``lead_names`` : the lead(s) that windows and beats are cut from unless
        others are asked for: all standard leads that occur in these records, where those that a record lacks are
        NaN (``"III"`` finds ``"MLIII"``); ``DESCR``, ``license`` (ODC-BY 1.0), ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ValueError
        No record of that name.

    Notes
    -----
    The 90 records come from 79 subjects, but which of them share one is not published: ``patient_id`` is the
    record. A cautious split groups by age and sex instead, in which records of one subject should agree.

    References
    ----------
    .. [1] Taddei A, et al. The European ST-T Database: standard for evaluating systems for the analysis of ST-T
           changes in ambulatory electrocardiography. Eur Heart J 13:1164-1172, 1992.

    Examples
    --------
    >>> from skecg.datasets import fetch_edb
    >>> from skecg.preprocessing import make_beats
    >>> edb = fetch_edb(records="e010*")                             # doctest: +SKIP
    >>> X, y, groups = make_beats(edb)                               # doctest: +SKIP
    """
    folder, names = EDB.provide(data_home, records, download_if_missing, verify)
    people = [patient(read_text(folder / name)) for name in names]
    options = {"annotations": "atr"}
    if lead_names is None:
        there = {canonical_lead_name(lead.name) for name in names for lead in read_header(folder / name).leads}
        lead_names = [lead for lead in STANDARD_LEADS if lead in there]
    else:
        options |= {"lead_names": tuple(lead_names), "missing": "nan"}
    return EDB.bunch(
        folder, names, options,
        patient_id=np.array(names, dtype=str),
        age=np.array([age for age, _ in people]),
        sex=np.array([sex for _, sex in people], dtype=str),
        fs=250,
        lead_names=tuple(lead_names),
    )
