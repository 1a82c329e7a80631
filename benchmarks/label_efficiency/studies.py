"""Named label-efficiency studies on real recordings: data, splits and arms.

A study is a function of a folder of recordings that returns the arguments of
:func:`skecg.evaluation.label_efficiency_curve`.
"""

import csv
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.signal import decimate
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _baselines import baseline

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import read_records
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.heads import LinearHead
from skecg.objectives import MaskedReconstruction

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")


def linear(Cs):
    """Logistic regression per class, its penalty chosen inside the budget by patient."""
    return GridSearchCV(OneVsRestClassifier(LogisticRegression(max_iter=2000)), {"estimator__C": list(Cs)}, cv=3)


def arms(encoder, features, crop_size, epochs, batch_size, pretraining_rate, labelled_epochs, updates, lead_dropout):
    """The five arms of both studies: two from one pretraining, two networks from scratch, and a cheap baseline."""
    pretrained = ECGSelfSupervisedEmbedder(
        encoder, MaskedReconstruction(mask_ratio=0.6, lead_fraction=0.5), crop_size=crop_size, max_epochs=epochs,
        batch_size=batch_size, learning_rate=pretraining_rate,
    )
    scratch = ECGSelfSupervisedEmbedder(encoder, crop_size=crop_size, max_epochs=0)
    convolutional = ECGSelfSupervisedEmbedder(ResNet1d(), crop_size=crop_size, max_epochs=0)
    training = {"lead_dropout": lead_dropout, "warmup": 0.2, "batch_size": 32}
    # The fine-tuned network first trains its head alone. Networks from scratch get these updates, a third more at least, for
    # everything.
    fine_tuning = {"head_epochs": 10, "max_epochs": labelled_epochs, "min_updates": updates, **training}
    from_scratch = {"max_epochs": labelled_epochs + 10, "min_updates": updates * 4 // 3, **training}
    return {
        "pretrained, linear probe": make_pipeline(pretrained, StandardScaler(), linear((3e-4, 1e-3, 3e-3, 1e-2, 1e-1))),
        "pretrained, fine-tuned": ECGClassifier(pretrained, learning_rate=5e-4, **fine_tuning),
        "same network from scratch": ECGClassifier(scratch, learning_rate=5e-4, **from_scratch),
        "ResNet1d from scratch": ECGClassifier(convolutional, LinearHead(dropout=0.3), learning_rate=1e-3, **from_scratch),
        "features, linear": make_pipeline(*features[:-1], linear((0.3, 1, 3, 10))),
    }


def ptbxl(folder):
    """PTB-XL superclasses: pretraining and budgets from folds 1-8, fold 9 is the test part."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a unit that is not a voltage: the signals are z-scored
        X = np.stack([record.signal for record in read_records([folder / row["filename"] for row in rows])])
    fold = np.array([int(row["strat_fold"]) for row in rows])
    encoder = PatchTransformer(patch_size=25, embed_dim=128, depth=5, pooling="lead")
    return {
        "arms": arms(encoder, baseline(100), crop_size=250, epochs=200, batch_size=64, pretraining_rate=1.5e-3,
                     labelled_epochs=12, updates=150, lead_dropout=0.1),
        "X": X, "y": np.array([[int(row[name]) for name in SUPERCLASSES] for row in rows]),
        "groups": np.array([row["patient_id"] for row in rows]),
        "cv": [(np.flatnonzero(fold <= 8), np.flatnonzero(fold == 9))],
        "label_fractions": (0.02, 0.05, 0.1, 0.3, 1.0), "n_repeats": (4, 4, 3, 2, 2),
        "scoring": ["roc_auc", "average_precision"],
    }


def mitdb(folder, per_class=100, unlabelled_per_patient=600):
    """MIT-BIH beats in AAMI classes, five folds by patient; pretraining sees many more beats of the training patients."""
    from skecg.datasets import fetch_mitdb
    from skecg.preprocessing import make_beats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partial copy
        # a second before the beat: prematurity is a matter of the preceding interval
        X, y, groups = make_beats(fetch_mitdb(folder, download_if_missing=False), before=1.2, after=0.6)
    known = np.flatnonzero(np.isin(y, ["N", "S", "V", "F"]))  # Q occurs in single patients only
    rng = np.random.default_rng(0)
    labelled = known[capped(y[known], groups[known], per_class, rng)]
    others = np.setdiff1d(np.arange(len(y)), labelled)
    others = others[capped(np.zeros(len(others), int), groups[others], unlabelled_per_patient, rng)]
    X = decimate(X, 3, ftype="fir").astype(np.float32)  # 120 Hz
    encoder = PatchTransformer(patch_size=12, embed_dim=64, depth=3, pooling="lead")
    return {
        "arms": arms(encoder, baseline(120, beat=1.2, n_features=2016), crop_size=None, epochs=30, batch_size=64,
                     pretraining_rate=1e-3, labelled_epochs=6, updates=200, lead_dropout=0.0),
        "X": X[labelled], "y": y[labelled], "groups": groups[labelled], "X_unlabeled": X[others],
        "groups_unlabeled": groups[others], "cv": 5, "label_fractions": (0.12, 0.25, 0.5, 1.0), "n_repeats": (4, 4, 3, 2),
        "scoring": ["roc_auc", "f1"],
    }


def capped(y, groups, limit, rng):
    """Rows with at most ``limit`` of each class per patient."""
    rows = rng.permutation(len(y))
    _, codes = np.unique(np.stack([groups[rows].astype(str), y[rows].astype(str)]), axis=1, return_inverse=True)
    codes = codes.ravel()
    order = np.argsort(codes, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(codes[order])) + 1]
    rank = np.empty(len(rows), int)
    rank[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    return np.sort(rows[rank < limit])


STUDIES = {"ptbxl": ptbxl, "mitdb": mitdb}
