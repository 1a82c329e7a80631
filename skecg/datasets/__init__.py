"""Recordings: WFDB files and folders, and a simulator. Loads without torch."""

from ._physionet import load_mitdb, load_ptbxl
from ._records import ECGFormatError, ECGRecord, read_record, read_records
from ._synthetic import make_ecg

__all__ = [
    "ECGFormatError", "ECGRecord", "load_mitdb", "load_ptbxl", "make_ecg", "read_record", "read_records",
]
