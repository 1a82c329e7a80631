"""Icentia11k."""

import numpy as np

from ._physionet import CC_BY_NC_SA, Database
from ._wfdb import read_header

ICENTIA11K = Database(
    name="icentia11k",
    title="Icentia11k",
    slug="icentia11k-continuous-ecg",
    version="1.0",
    headers=("p[0-9][0-9]/p*/p*_s*.hea",),
    extensions=("hea", "dat", "atr"),
    n_records=541_794,
    record_bytes=2.1e6,
    license=CC_BY_NC_SA,
    citation="Tan S, Androz G, Ortiz-Gagne S, Chamseddine A, Fecteau P, Courville A, Bengio Y, Cohen JP. Icentia11K: an "
             "unsupervised representation learning dataset for arrhythmia subtype discovery. Computing in Cardiology, "
             "2021.\n"
             "Tan S, Ortiz-Gagne S, Beaudoin-Gagnon N, Fecteau P, Courville A, Bengio Y, Cohen JP. Icentia11k single lead "
             "continuous raw electrocardiogram dataset (version 1.0). PhysioNet, 2022. "
             "https://doi.org/10.13026/kk0v-r952",
    descr="""Icentia11k

Continuous single-lead recordings of 11,000 patients over up to two weeks, 250 Hz, from a chest-mounted device (a
modified lead I), in segments of about 70 minutes, up to 50 per patient. Technologists annotated beats (N, S, V, Q)
and rhythms ("(N", "(AFIB", "(AFL" up to ")"). Labels belong to beats and rhythms, not to records. The licence forbids
commercial use.""",
)


def fetch_icentia11k(data_home=None, *, records=None, download_if_missing=True, verify=False):
    """Icentia11k: 541,794 single-lead segments of 70 min from 11,000 patients, beats and rhythms (1.1 TB).

    Parameters
    ----------
    data_home : str or Path, default=None
        Folder of all data sets, in which this one is, or will be, ``icentia11k``; or the folder of a copy of
        this one. ``None`` is the environment variable ``SKECG_DATA``, or ``~/skecg_data``.
    records : str or sequence of str, default=None
        Only these: names of records such as ``"p00000_s00"``, or patterns such as ``"p0000?_s0*"``, the first ten
        segments of the first ten patients. Must be given to download; one record takes about 2 MB, the list
        of all, which is needed to check them, about 0.15 GB once.
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
        ``records`` : :class:`~skecg.datasets.ECGRecord` sequence with annotations (beats in ``symbol``, rhythms in
        ``aux_note``), read on access; ``record_names`` and ``patient_id`` : ndarray of shape (n_records,), str;
        ``target`` : None, for labels belong to beats; ``folds`` : None; ``fs`` : 250; ``lead_names`` : the one
        lead, as the first record names it; ``DESCR``, ``license`` (CC BY-NC-SA 4.0), ``citation``.

    Raises
    ------
    FileNotFoundError
        No such folder, or none of the records in it, and nothing may be downloaded.
    OSError
        A download that failed for good, wrong bytes, a folder that cannot be written to.
    ValueError
        A download without ``records``; no record of that name.

    References
    ----------
    .. [1] Tan S, et al. Icentia11K: an unsupervised representation learning dataset for arrhythmia subtype
           discovery. Computing in Cardiology, 2021.

    Examples
    --------
    >>> from skecg.datasets import fetch_icentia11k
    >>> from skecg.preprocessing import make_windows
    >>> icentia = fetch_icentia11k(records="p0000?_s00")             # doctest: +SKIP
    >>> X, y, groups = make_windows(icentia, length=10.0)            # doctest: +SKIP
    """
    folder, paths = ICENTIA11K.provide(data_home, records, download_if_missing, verify)
    return ICENTIA11K.bunch(
        folder, paths, {"annotations": "atr"},
        patient_id=np.array([path.rpartition("/")[2].partition("_")[0] for path in paths], dtype=str),
        fs=250,
        lead_names=tuple(lead.name for lead in read_header(folder / paths[0]).leads),
    )
