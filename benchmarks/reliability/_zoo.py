"""A small fitted model for every public estimator, with every encoder, objective and head: what is tried on all of them."""

import warnings

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skecg import (
    ECGClassifier,
    ECGRegressor,
    ECGSelfSupervisedEmbedder,
    HeadClassifier,
    HeadRegressor,
    MultilabelThresholdClassifier,
    RecordClassifier,
)
from skecg.datasets import make_ecg
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d, TokenTransformer
from skecg.heads import ArcFaceHead, BiLSTMHead
from skecg.objectives import MaskedLanguageModeling, MaskedReconstruction, Wav2Vec2CMSC
from skecg.preprocessing import (
    BandpassFilter,
    ECGQuantizer,
    ECGTokenizer,
    LeadScaler,
    LeadSelector,
    QRSIntegral,
    QualityGate,
)

LEADS = ("I", "II", "V1")
FS = 100


def signals(n_samples=24, seed=0):
    """Simulated ECGs of three leads and two seconds, classes and patients; no lead is missing."""
    return make_ecg(n_samples, n_patients=max(2, n_samples // 2), duration=2.0, lead_names=LEADS, random_state=seed)


def with_missing_leads(X):
    X = X.copy()
    X[1::4, 1] = np.nan
    X[2::4, [0, 2]] = np.nan
    return X


def patches(**parameters):
    return PatchTransformer(**{"patch_size": 20, "embed_dim": 16, "depth": 1, "n_heads": 2, **parameters})


def resnet():
    return ResNet1d(4, (1, 1), kernel_size=3)


def frames():
    return ConvTransformer(16, 1, n_heads=2, conv_dim=8, conv_strides=(2, 5), position_kernel=4, position_groups=4)


def tokens():
    return TokenTransformer(ECGQuantizer(20), ECGTokenizer(60), embed_dim=16, depth=1, n_heads=2)


def embedder(encoder, objective=None, **parameters):
    return ECGSelfSupervisedEmbedder(
        encoder, objective, **{"max_epochs": 1, "batch_size": 8, "lead_names": LEADS, "random_state": 0, **parameters})


def scratch(encoder, **parameters):
    return embedder(encoder, max_epochs=0, **parameters)


def features():
    return make_pipeline(QRSIntegral(fs=FS, onset=0.5, lead_names=LEADS), StandardScaler(), LogisticRegression())


JOINT = {"mask_ratio": (0.2, 0.6), "lead_shuffle": 0.5, "decoder_dim": 16, "decoder_heads": 2, "decoder_depth": 1}

#: name -> (estimator, what it is fitted to: "X", "classes", "labels", "values" or "tokens", may leads be missing)
MODELS = {
    "embedder-patches": (embedder(patches(), MaskedReconstruction(decoder_dim=16)), "X", True),
    "embedder-patches-joint": (embedder(patches(), MaskedReconstruction(**JOINT), warm_start=True), "X", False),
    "embedder-patches-leads": (embedder(patches(pooling="lead"), crop_size=100), "X", True),
    "embedder-patches-tokens": (embedder(patches(), output="tokens"), "X", True),
    "embedder-resnet": (embedder(resnet(), MaskedReconstruction(), warm_start=True), "X", True),
    "embedder-frames": (embedder(
        frames(), Wav2Vec2CMSC(codebook_size=4, target_dim=8, n_negatives=4), warm_start=True), "X", True),
    "embedder-frames-cropped": (embedder(frames(), Wav2Vec2CMSC(local_weight=0), crop_size=120), "X", True),
    "embedder-tokens": (embedder(tokens(), MaskedLanguageModeling(), warm_start=True), "X", True),
    "classifier-patches": (ECGClassifier(scratch(patches()), max_epochs=2, random_state=0), "classes", True),
    "classifier-patches-labels": (ECGClassifier(scratch(patches()), max_epochs=2, random_state=0), "labels", True),
    "classifier-resnet-arcface": (
        ECGClassifier(scratch(resnet()), ArcFaceHead(), max_epochs=2, random_state=0), "classes", True),
    "classifier-frames": (ECGClassifier(scratch(frames()), max_epochs=2, random_state=0), "classes", True),
    "classifier-tokens-bilstm": (
        ECGClassifier(scratch(tokens()), BiLSTMHead(8), max_epochs=2, random_state=0), "classes", True),
    "regressor-resnet": (ECGRegressor(scratch(resnet()), max_epochs=2, random_state=0), "values", True),
    "regressor-tokens": (ECGRegressor(scratch(tokens()), max_epochs=2, random_state=0), "values", True),
    "head-classifier-bilstm": (HeadClassifier(BiLSTMHead(8), max_epochs=2, random_state=0), "tokens", False),
    "head-classifier-pipeline": (make_pipeline(
        BandpassFilter(0.5, 40, fs=FS), LeadScaler(), scratch(patches()), HeadClassifier(max_epochs=2, random_state=0),
    ), "classes", True),
    "head-regressor-pipeline": (
        make_pipeline(scratch(resnet()), HeadRegressor(max_epochs=2, random_state=0)), "values", True),
    "record-classifier": (RecordClassifier(
        make_pipeline(scratch(patches()), StandardScaler(), LogisticRegression()), length=1.0, fs=FS, lead_names=LEADS,
    ), "classes", True),
    "thresholds": (MultilabelThresholdClassifier(
        OneVsRestClassifier(features()), min_positives=2, random_state=0), "labels", False),
    "whole-pipeline": (make_pipeline(
        QualityGate("mask", fs=FS, lead_names=LEADS, checks=("gap", "flat")),
        LeadSelector(("I", "V1"), input_lead_names=LEADS), BandpassFilter(0.5, 40, fs=FS), LeadScaler("lead"),
        embedder(patches(), lead_names=("I", "V1")), StandardScaler(), LogisticRegression(),
    ), "classes", False),
    "frozen-embedder": (make_pipeline(
        FrozenEstimator(embedder(patches())), StandardScaler(), LogisticRegression()), "classes", True),
    "bandpass": (BandpassFilter(0.5, 40, fs=FS), "X", True),
    "scaler": (LeadScaler(), "X", True),
    "scaler-record": (LeadScaler("record"), "X", True),
    "selector": (LeadSelector(("V1", "aVL", "I"), input_lead_names=LEADS), "X", True),
    "gate": (QualityGate("mask", fs=FS, lead_names=LEADS, checks=("gap", "flat")), "X", True),
    "integral": (QRSIntegral(fs=FS, onset=0.5, lead_names=LEADS), "X", True),
    "quantizer": (ECGQuantizer(), "X", True),
    "quantizer-lloyd-max": (ECGQuantizer(8, method="lloyd-max"), "X", True),
}


def fitted(name):
    """The fitted model of this name, and further signals that it takes."""
    model, target, may_miss = MODELS[name]
    X, y, _ = signals()
    codes = np.unique(y, return_inverse=True)[1]
    targets = {
        "X": None, "classes": y, "tokens": y, "labels": np.stack([codes % 2, codes > 1], axis=1).astype(int),
        "values": np.stack([codes, X.std(axis=(1, 2))], axis=1),
    }
    new = signals(9, seed=1)[0]
    if target == "tokens":
        X, new = (np.moveaxis(x[..., ::10], 1, 2) for x in (X, new))  # (n_samples, n_tokens, n_features)
    elif may_miss:
        X, new = with_missing_leads(X), with_missing_leads(new)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class|lbfgs failed to converge")
        if name == "frozen-embedder":
            model.steps[0][1].estimator.fit(X)
        return model.fit(X, targets[target]), new


def outputs(model, X):
    """What the model says about X: name of the method -> array."""
    names = ("transform", "predict", "predict_proba", "decision_function")
    return {name: np.asarray(getattr(model, name)(X)) for name in names if hasattr(model, name)}


def weight_bytes(model):
    """Bytes of all arrays in a model, however deep, each counted once."""
    seen, total = {}, 0

    def walk(value):
        nonlocal total
        if id(value) in seen:
            return
        seen[id(value)] = value
        if isinstance(value, np.ndarray):
            total += value.nbytes
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif hasattr(value, "get_params"):
            walk(value.__getstate__())

    walk(model)
    return total
