"""Label-efficiency studies: how many labels pretraining saves, with intervals. What pretraining sees."""

from ._curve import LabelEfficiencyCurve, Run
from ._display import LabelEfficiencyDisplay
from ._reconstruction import ReconstructionDisplay
from ._statistics import LabelSaving, compare, label_saving, summary
from ._study import label_efficiency_curve

__all__ = [
    "LabelEfficiencyCurve", "LabelEfficiencyDisplay", "LabelSaving", "ReconstructionDisplay", "Run", "compare",
    "label_efficiency_curve", "label_saving", "summary",
]
