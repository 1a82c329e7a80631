"""Splits by patient, nested label budgets, and the search for leaks between them. Loads without torch."""

from ._budgets import LabelBudget, label_budgets, load_budgets, save_budgets
from ._leakage import LeakageReport, SplitLeakage, audit_leakage
from ._splits import MultilabelStratifiedGroupKFold, MultilabelStratifiedGroupShuffleSplit

__all__ = [
    "LabelBudget", "LeakageReport", "MultilabelStratifiedGroupKFold", "MultilabelStratifiedGroupShuffleSplit",
    "SplitLeakage", "audit_leakage", "label_budgets", "load_budgets", "save_budgets",
]
