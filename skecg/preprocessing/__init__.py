"""Signals to windows to symbols: quality, filters, scaling, lead selection, cutting, tokens. Loads without torch."""

from ._beats import make_beats
from ._epochs import make_epochs
from ._qrs_integral import QRSIntegral
from ._quality import QualityGate, QualityReport, check_ecg
from ._quantizer import ECGQuantizer
from ._signal import BandpassFilter, LeadScaler, LeadSelector
from ._tokenizer import ECGTokenizer
from ._windows import make_windows

__all__ = [
    "BandpassFilter", "ECGQuantizer", "ECGTokenizer", "LeadScaler", "LeadSelector", "QRSIntegral", "QualityGate",
    "QualityReport", "check_ecg", "make_beats", "make_epochs", "make_windows",
]
