"""Recordings: public databases, WFDB files and folders, and a simulator. Loads without torch."""

from ._challenge import fetch_cinc2020, fetch_cinc2021
from ._challenge_targets import CincTargets, cinc_targets
from ._ecgid import fetch_ecgid
from ._edb import fetch_edb
from ._icentia11k import fetch_icentia11k
from ._mitdb import fetch_mitdb
from ._ptbxl import fetch_ptbxl
from ._records import ECGFormatError, ECGRecord, read_annotations, read_record, read_records
from ._slpdb import fetch_slpdb
from ._synthetic import make_ecg, make_ecg_records
from ._synthetic_vt import make_vt_beats
from ._synthetic_writing import write_record, write_records

__all__ = [
    "CincTargets", "ECGFormatError", "ECGRecord", "cinc_targets", "fetch_cinc2020", "fetch_cinc2021", "fetch_ecgid",
    "fetch_edb", "fetch_icentia11k", "fetch_mitdb", "fetch_ptbxl", "fetch_slpdb", "make_ecg", "make_ecg_records",
    "make_vt_beats", "read_annotations", "read_record", "read_records", "write_record", "write_records",
]
