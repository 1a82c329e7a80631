"""Signals to windows: filters, scaling, lead selection, cutting. Loads without torch."""

from ._signal import BandpassFilter, LeadScaler, LeadSelector
from ._windows import make_beats, make_windows

__all__ = ["BandpassFilter", "LeadScaler", "LeadSelector", "make_beats", "make_windows"]
