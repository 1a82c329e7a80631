"""Label-efficiency studies: how many labels pretraining saves, with intervals."""

from ._curve import LabelEfficiencyCurve, Run
from ._display import LabelEfficiencyDisplay
from ._statistics import LabelSaving, compare, label_saving, summary
from ._study import label_efficiency_curve

__all__ = [
    "LabelEfficiencyCurve", "LabelEfficiencyDisplay", "LabelSaving", "Run", "compare", "label_efficiency_curve",
    "label_saving", "summary",
]
