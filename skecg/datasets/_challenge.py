"""PhysioNet/Computing in Cardiology Challenges 2020 and 2021."""

import re

import numpy as np

from .._validation import STANDARD_LEADS
from ._physionet import CC_BY, Database, patient, read_text
from ._wfdb import ECGFormatError, header_path

_SOURCES = ("cpsc_2018", "cpsc_2018_extra", "georgia", "ptb", "ptb-xl", "st_petersburg_incart")
_MORE_SOURCES = ("chapman_shaoxing", "ningbo")
_DIAGNOSES = re.compile(r"^#\s*Dx:[ \t]*(.*)$", re.MULTILINE)
_FS = re.compile(r"^\S+ +\d+ +(\d+(?:\.\d+)?)", re.MULTILINE)
_DESCR = """Training recordings with 12 leads from several hospitals, collected by the challenge. `target` holds the
diagnoses as SNOMED CT codes, as the headers give them: which of them the challenge scores, and which it takes to be the
same, is not applied. `source` names the collection a record comes from. The challenge gives no patients: `patient_id`
is the record, and recordings of one patient cannot be told (in ptb-xl, ptb and st_petersburg_incart there are some)."""


def _headers(sources):
    # As published, and one folder per source.
    return tuple(pattern for source in sources for pattern in (f"training/{source}/*/*.hea", f"{source}/*.hea"))


CINC2020 = Database(
    name="cinc2020",
    title="the PhysioNet/CinC Challenge 2020",
    slug="challenge-2020",
    version="1.0.2",
    headers=_headers(_SOURCES),
    extensions=("hea", "mat"),
    n_records=43_101,
    record_bytes=1.9e5,
    license=CC_BY,
    citation="Perez Alday EA, Gu A, Shah AJ, Robichaux C, Wong AKI, Liu C, Liu F, Rad AB, Elola A, Seyedi S, Li Q, Sharma "
             "A, Clifford GD, Reyna MA. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge "
             "2020. Physiol Meas 41:124003, 2020. https://doi.org/10.13026/dvyd-kd57",
    descr=f"PhysioNet/Computing in Cardiology Challenge 2020\n\n{_DESCR}",
)
CINC2021 = Database(
    name="cinc2021",
    title="the PhysioNet/CinC Challenge 2021",
    slug="challenge-2021",
    version="1.0.3",
    headers=_headers(_SOURCES + _MORE_SOURCES),
    extensions=("hea", "mat"),
    n_records=88_253,
    record_bytes=1.5e5,
    license=CC_BY,
    citation="Reyna MA, Sadr N, Perez Alday EA, Gu A, Shah AJ, Robichaux C, Rad AB, Elola A, Seyedi S, Ansari S, Ghanbari "
             "H, Li Q, Sharma A, Clifford GD. Will two do? Varying dimensions in electrocardiography: the "
             "PhysioNet/Computing in Cardiology Challenge 2021. Computing in Cardiology 48:1-4, 2021. "
             "https://doi.org/10.13026/34va-7q14",
    descr=f"PhysioNet/Computing in Cardiology Challenge 2021\n\n{_DESCR}",
)


def fetch_cinc2020(data_home=None, *, records=None, lead_names=None, download_if_missing=True, verify=False):
    """Challenge 2020: 43,101 12-lead recordings from six sources, with diagnoses by SNOMED CT code (8 GB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``cinc2020``; or the folder of a copy of
        this one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records such as ``"E00001"``, or patterns such as ``"training/georgia/*"``.
        ``None`` is all of them.
    lead_names : sequence of str, default=None
        Leads to read, in this order; ``None`` reads all 12.
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
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence, read on access; ``target`` : ndarray of shape
        (n_records, n_codes), int64, 1 where a record has that diagnosis; ``target_names`` : the SNOMED CT codes
        that occur in these records, tuple of str; ``source`` : ndarray of shape (n_records,), str, one of
        ``cpsc_2018``, ``cpsc_2018_extra``, ``georgia``, ``ptb``, ``ptb-xl``, ``st_petersburg_incart``;
        ``record_names`` and ``patient_id`` : ndarray of shape (n_records,), str, the same (see Notes);
        ``age`` : ndarray of shape (n_records,), float, years; ``sex`` : ndarray of shape (n_records,), str,
        ``"female"``, ``"male"`` or empty; ``folds`` : None; ``fs`` : ndarray of shape (n_records,), float, the
        sampling rate of each record in Hz: 500, but 1000 in ptb and 257 in st_petersburg_incart;
        ``lead_names``; ``DESCR``, ``license`` (CC BY 4.0), ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ECGFormatError
        A header without a sampling rate or without diagnoses.
    ValueError
        No record of that name.

    Notes
    -----
    - The challenge gives no patients, so that ``patient_id`` is the record. Some sources have several recordings
      of a patient; a test on a source that training has not seen is safe from that (``source`` as groups of
      ``sklearn.model_selection.LeaveOneGroupOut``).
    - Codes that the challenge scores as one diagnosis are separate here; :func:`~skecg.datasets.cinc_targets` merges them.
    - All headers are read at once, the signals on access.

    References
    ----------
    .. [1] Perez Alday EA, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge
           2020. Physiol Meas 41:124003, 2020.

    Examples
    --------
    >>> from skecg.datasets import fetch_cinc2020
    >>> from skecg.preprocessing import make_windows
    >>> georgia = fetch_cinc2020(records="training/georgia/*")       # doctest: +SKIP
    >>> X, y, groups = make_windows(georgia, length=10.0)            # doctest: +SKIP
    """
    return _bunch(CINC2020, *CINC2020.provide(data_home, records, download_if_missing, verify), lead_names)


def fetch_cinc2021(data_home=None, *, records=None, lead_names=None, download_if_missing=True, verify=False):
    """Challenge 2021: 88,253 12-lead recordings from eight sources, with diagnoses by SNOMED CT code (13 GB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``cinc2021``; or the folder of a copy of
        this one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records such as ``"E00001"``, or patterns such as ``"training/ningbo/*"``.
        ``None`` is all of them.
    lead_names : sequence of str, default=None
        Leads to read, in this order; ``None`` reads all 12.
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
        As of :func:`~skecg.datasets.fetch_cinc2020`, with two more sources: ``chapman_shaoxing`` and ``ningbo``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ECGFormatError
        A header without a sampling rate or without diagnoses.
    ValueError
        No record of that name.

    See Also
    --------
    skecg.datasets.fetch_cinc2020 : The challenge before, six of the sources; its notes hold here, too.

    References
    ----------
    .. [1] Reyna MA, et al. Will two do? Varying dimensions in electrocardiography: the PhysioNet/Computing in
           Cardiology Challenge 2021. Computing in Cardiology 48:1-4, 2021.

    Examples
    --------
    >>> from skecg.datasets import fetch_cinc2021
    >>> from skecg.preprocessing import make_windows
    >>> ningbo = fetch_cinc2021(records="training/ningbo/g1/*")      # doctest: +SKIP
    >>> X, y, groups = make_windows(ningbo, length=10.0)             # doctest: +SKIP
    """
    return _bunch(CINC2021, *CINC2021.provide(data_home, records, download_if_missing, verify), lead_names)


def _bunch(database, folder, paths, lead_names):
    people, diagnoses, rates = [], [], []
    for path in paths:
        text = read_text(folder / path)
        fs, codes = _FS.search(text), _DIAGNOSES.search(text)
        if fs is None or codes is None:
            raise ECGFormatError(f"the header gives no {'sampling rate' if fs is None else 'diagnoses (# Dx: ...)'}. "
                                 "Download it again.", file=header_path(folder / path))
        people.append(patient(text))
        rates.append(float(fs[1]))
        diagnoses.append({code.strip() for code in codes[1].split(",")} - {""})
    names = sorted(set().union(*diagnoses), key=lambda code: (len(code), code))
    column = {name: number for number, name in enumerate(names)}
    target = np.zeros((len(paths), len(names)), dtype=np.int64)
    for row, codes in zip(target, diagnoses, strict=True):
        row[[column[code] for code in codes]] = 1
    parts = [path.split("/") for path in paths]
    ids = np.array([part[-1] for part in parts], dtype=str)
    return database.bunch(
        folder, paths, {} if lead_names is None else {"lead_names": tuple(lead_names)},
        target=target,
        target_names=tuple(names),
        patient_id=ids,
        source=np.array([part[part[0] == "training"] for part in parts], dtype=str),
        age=np.array([age for age, _ in people]),
        sex=np.array([sex for _, sex in people], dtype=str),
        fs=np.array(rates),
        lead_names=STANDARD_LEADS if lead_names is None else tuple(lead_names),
    )
