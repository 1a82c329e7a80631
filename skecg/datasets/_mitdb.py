"""MIT-BIH Arrhythmia Database."""

import numpy as np

from ._physionet import ODC_BY, Database

_PACED = ("102", "104", "107", "217")
_DS1 = ("101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122", "124", "201", "203", "205", "207",
        "208", "209", "215", "220", "223", "230")
MITDB = Database(
    name="mitdb",
    title="the MIT-BIH Arrhythmia Database",
    slug="mitdb",
    version="1.0.0",
    headers=("[12][0-9][0-9].hea",),
    extensions=("hea", "dat", "atr"),
    n_records=48,
    record_bytes=2.0e6,
    license=ODC_BY,
    citation="Moody GB, Mark RG. The impact of the MIT-BIH Arrhythmia Database. IEEE Eng Med Biol 20(3):45-50, 2001. "
             "https://doi.org/10.13026/C2F305",
    descr="""MIT-BIH Arrhythmia Database

48 two-lead ambulatory recordings of 30 minutes from 47 subjects (records 201 and 202 are one subject), 360
Hz, with every beat annotated by cardiologists. The first lead is MLII in all but a few records; the second is
mostly V1. Labels belong to beats, not to records: see skecg.preprocessing.make_beats.""",
)


def fetch_mitdb(
    data_home=None, *, records=None, lead_names=None, include_paced=False, download_if_missing=True, verify=False,
):
    """The MIT-BIH Arrhythmia Database: 48 two-lead recordings of half an hour, every beat annotated (100 MB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``mitdb``; or the folder of a copy of this
        one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records, or patterns such as ``"1*"``. ``None`` is all of them.
    lead_names : sequence of str, default=None
        Leads to read from each record; ``None`` reads both. A lead that a record does not have is NaN.
    include_paced : bool, default=False
        Whether to keep records 102, 104, 107 and 217, whose beats are paced. The usual protocol (AAMI EC57)
        leaves them out; 102 and 104 have no lead MLII.
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
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence with annotations, read on access;
        ``record_names`` and ``patient_id`` : ndarray of shape (n_records,), str, where 201 and 202 are one
        subject; ``target`` : None, for labels belong to beats; ``folds`` : ndarray of shape (n_records,),
        str, the halves ``"DS1"`` and ``"DS2"`` of de Chazal et al. [1]_, empty for paced records; ``fs`` :
        360; ``lead_names`` : the lead(s) that windows and beats are cut from unless others are asked for,
        ``("MLII",)``; ``DESCR``, ``license`` (ODC-BY 1.0), ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ValueError
        No record of that name.

    See Also
    --------
    skecg.preprocessing.make_beats : Cut labelled beats from it.

    Notes
    -----
    The published halves are not quite exclusive for patients: 201 is in DS1, 202 in DS2. Leave out one of them,
    or split by ``patient_id``.

    References
    ----------
    .. [1] de Chazal P, O'Dwyer M, Reilly RB. Automatic classification of heartbeats using ECG morphology and
           heartbeat interval features. IEEE Trans Biomed Eng 51(7):1196-1206, 2004.
    .. [2] Moody GB, Mark RG. The impact of the MIT-BIH Arrhythmia Database. IEEE Eng Med Biol 20(3):45-50, 2001.

    Examples
    --------
    >>> from skecg.datasets import fetch_mitdb
    >>> from skecg.preprocessing import make_beats
    >>> mitdb = fetch_mitdb()                                        # doctest: +SKIP
    >>> X, y, groups = make_beats(mitdb)                             # doctest: +SKIP
    """
    folder, names = MITDB.provide(data_home, records, download_if_missing, verify)
    names = [name for name in names if include_paced or name not in _PACED]
    options = {"annotations": "atr"}
    if lead_names is not None:
        options |= {"lead_names": tuple(lead_names), "missing": "nan"}
    return MITDB.bunch(
        folder, names, options,
        patient_id=np.array(["201" if name == "202" else name for name in names], dtype=str),
        folds=np.array(["" if name in _PACED else "DS1" if name in _DS1 else "DS2" for name in names], dtype=str),
        fs=360,
        lead_names=("MLII",) if lead_names is None else tuple(lead_names),
    )
