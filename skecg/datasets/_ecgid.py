"""ECG-ID Database."""

import re

import numpy as np

from ._physionet import ODC_BY, Database, patient, read_text

_DATE = re.compile(r"^#\s*ECG date:\s*(\d{2})\.(\d{2})\.(\d{4})", re.MULTILINE)
ECGID = Database(
    name="ecgid",
    title="the ECG-ID Database",
    slug="ecgiddb",
    version="1.0.0",
    headers=("Person_*/rec_*.hea",),
    extensions=("hea", "dat", "atr"),
    n_records=310,
    record_bytes=40_232,
    license=ODC_BY,
    citation="Lugovaya TS. Biometric human identification based on electrocardiogram. Master's thesis, Faculty of "
             "Computing Technologies and Informatics, Electrotechnical University LETI, Saint Petersburg, 2005. "
             "https://doi.org/10.13026/C2J01F",
    descr="""ECG-ID Database

310 recordings of lead I from 90 volunteers (44 men and 46 women of 13 to 75 years), 20 seconds at 500 Hz, 2 to
20 recordings per person over up to six months. Each record holds the raw signal ("ECG I") and a filtered one
("ECG I filtered"), and ten beats found automatically and not audited. `target` is the person.""",
)


def fetch_ecgid(data_home=None, *, records=None, lead_names=None, download_if_missing=True, verify=False):
    """The ECG-ID Database: 310 recordings of 20 s in lead I, from 90 persons, to tell them apart by (13 MB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``ecgid``; or the folder of a copy of this
        one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records such as ``"Person_01/rec_1"``, or patterns such as ``"Person_0*"``.
        ``None`` is all of them.
    lead_names : sequence of str, default=None
        Signals to read, of ``"ECG I"`` (raw) and ``"ECG I filtered"``; ``None`` reads both.
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
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence with annotations (ten unaudited beats), read on
        access; ``target`` and ``patient_id`` : ndarray of shape (n_records,), str, both the person;
        ``target_names`` : the persons, tuple of str; ``record_names`` : ndarray of shape (n_records,), str;
        ``folds`` : None; ``date`` : ndarray of shape (n_records,), datetime64[D]; ``age`` : ndarray of shape
        (n_records,), float, years; ``sex`` : ndarray of shape (n_records,), str; ``fs`` : 500; ``lead_names`` :
        the signal that windows are cut from unless others are asked for, ``("ECG I",)``, the raw one; ``DESCR``,
        ``license`` (ODC-BY 1.0), ``citation``.

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
    Recordings of one day are far more alike than those of different days. A test that says something about
    recognition later separates them by ``date``.

    References
    ----------
    .. [1] Lugovaya TS. Biometric human identification based on electrocardiogram. Master's thesis,
           Electrotechnical University LETI, Saint Petersburg, 2005.

    Examples
    --------
    >>> from skecg.datasets import fetch_ecgid
    >>> from skecg.preprocessing import make_windows
    >>> ecgid = fetch_ecgid()                                        # doctest: +SKIP
    >>> X, y, groups = make_windows(ecgid, length=5.0)               # doctest: +SKIP
    """
    folder, paths = ECGID.provide(data_home, records, download_if_missing, verify)
    person = np.array([path.partition("/")[0] for path in paths], dtype=str)
    texts = [read_text(folder / path) for path in paths]
    dates = [_DATE.search(text) for text in texts]
    options = {"annotations": "atr"}
    if lead_names is not None:
        options["lead_names"] = tuple(lead_names)
    return ECGID.bunch(
        folder, paths, options,
        record_names=np.array(paths, dtype=str),
        target=person,
        target_names=tuple(dict.fromkeys(person.tolist())),
        patient_id=person.copy(),
        date=np.array(["-".join(date.groups()[::-1]) if date else "NaT" for date in dates], dtype="datetime64[D]"),
        age=np.array([patient(text)[0] for text in texts]),
        sex=np.array([patient(text)[1] for text in texts], dtype=str),
        fs=500,
        lead_names=("ECG I",) if lead_names is None else tuple(lead_names),
    )
