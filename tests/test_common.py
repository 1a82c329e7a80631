"""scikit-learn's own checks, complete, on every public estimator: none skipped, none expected to fail."""

import inspect
import warnings
from functools import partial
from unittest import SkipTest

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import estimator_checks as checks
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.fixes import parse_version
from torch import nn

from skecg import (
    ECGClassifier,
    ECGRegressor,
    ECGSelfSupervisedEmbedder,
    HeadClassifier,
    HeadRegressor,
    MultilabelThresholdClassifier,
    RecordClassifier,
)
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d, TokenTransformer
from skecg.heads import ArcFaceHead, BiLSTMHead, LinearHead
from skecg.objectives import MaskedLanguageModeling, MaskedReconstruction, Objective, Wav2Vec2CMSC
from skecg.preprocessing import (
    BandpassFilter,
    ECGQuantizer,
    ECGTokenizer,
    LeadScaler,
    LeadSelector,
    QRSIntegral,
    QualityGate,
)

SKLEARN = parse_version(sklearn.__version__)


class AgreeingViews(Objective):
    """A user's own objective, for any encoder: two noisy views of a sample get similar embeddings."""

    def __init__(self, noise_std=0.1):
        self.noise_std = noise_std

    def build(self, network):
        return AgreeingViewsModule(network, self.noise_std)


class AgreeingViewsModule(nn.Module):
    def __init__(self, network, noise_std):
        super().__init__()
        self.encoder, self.noise_std = network, noise_std
        self.predict = nn.Linear(network.n_features, network.n_features)

    def forward(self, batch):
        def view():
            noise = torch.randn(batch.x.shape, generator=batch.generator)
            return self.encoder(batch.x + self.noise_std * self.encoder.scale * noise, batch.lead_valid)

        difference = self.predict(view()) - view().detach()
        return {"loss": difference.square().mean(), "largest": difference.detach().abs().max()}


def patches():
    return PatchTransformer(1, embed_dim=16, depth=1, n_heads=2)


def tokens():
    return TokenTransformer(ECGQuantizer(20), ECGTokenizer(40), embed_dim=16, depth=1, n_heads=2)


def resnet():
    return ResNet1d(8, (1, 1), kernel_size=3)


def frames():
    return ConvTransformer(16, 1, n_heads=2, conv_dim=8, conv_strides=(1,), position_kernel=3, position_groups=4)


def embedder(encoder, objective=None):
    return ECGSelfSupervisedEmbedder(encoder, objective, max_epochs=2)


def supervised(kind, encoder):
    return kind(ECGSelfSupervisedEmbedder(encoder, max_epochs=0), max_epochs=15, batch_size=16, learning_rate=1e-2)


EMBEDDERS = {
    "embedder-patches-reconstruction": embedder(patches(), MaskedReconstruction(decoder_dim=16)),
    "embedder-resnet-reconstruction": embedder(resnet(), MaskedReconstruction()),
    "embedder-frames-local": embedder(
        frames(), Wav2Vec2CMSC(global_weight=0, halve=False, codebook_size=4, target_dim=8, n_negatives=4)),
    "embedder-frames-global": embedder(frames(), Wav2Vec2CMSC(local_weight=0)),
    "embedder-tokens-language": embedder(tokens(), MaskedLanguageModeling()),
    "embedder-patches-toy": embedder(patches(), AgreeingViews()),
    "embedder-resnet-toy": embedder(resnet(), AgreeingViews()),
}
PREPROCESSING = {
    "bandpass": BandpassFilter(fs=100),
    "scaler": LeadScaler(),
    "scaler-record": LeadScaler(scope="record"),
    "scaler-lead": LeadScaler(scope="lead"),
    "selector": LeadSelector(),
    "gate": QualityGate(fs=100),
    "integral": QRSIntegral(fs=10, onset=0.0, baseline=0.0),
}
QUANTIZERS = {  # integers come out: no floating-point type to preserve
    "quantizer": ECGQuantizer(),
    "quantizer-lloyd-max": ECGQuantizer(4, method="lloyd-max", exact_samples=100),
}
CLASSIFIERS = {
    "classifier-patches": supervised(ECGClassifier, patches()),
    "classifier-resnet": supervised(ECGClassifier, resnet()),
    "head-classifier": HeadClassifier(),
}
REGRESSORS = {  # the other encoder is taken in test_common_3d.py
    "regressor-patches": supervised(ECGRegressor, patches()),
    "head-regressor": HeadRegressor(),
}
# around an estimator: neither class weights nor multi-label targets of its own
META = {"record-classifier": RecordClassifier(LogisticRegression())}
# One check asks that predict is the greatest of predict_proba: all thresholds stay at 0.5. The others are run on tuned
# thresholds in test_thresholds.py.
THRESHOLDS = {"thresholds": MultilabelThresholdClassifier(RecordClassifier(LogisticRegression()), min_positives=1000)}
ESTIMATORS = {**EMBEDDERS, **PREPROCESSING, **QUANTIZERS, **CLASSIFIERS, **REGRESSORS, **META, **THRESHOLDS}
PARAMETER_OBJECTS = {
    "patches": PatchTransformer(),
    "frames": ConvTransformer(),
    "resnet": ResNet1d(),
    "reconstruction": MaskedReconstruction(),
    "toy": AgreeingViews(),
    "contrastive": Wav2Vec2CMSC(),
    "linear-head": LinearHead(),
    "tokens": TokenTransformer(),
    "tokenizer": ECGTokenizer(),
    "language": MaskedLanguageModeling(),
    "bilstm-head": BiLSTMHead(),
    "arcface-head": ArcFaceHead(),
}


def generate(estimator):
    """All pairs (estimator, check) that scikit-learn runs on an estimator."""
    return list(checks.estimator_checks_generator(estimator))


def describe(check):
    """Name and options of a check, e.g. ``check_classifiers_train(readonly_memmap=True)``."""
    options = ",".join(f"{k}={v}" for k, v in check.keywords.items()) if isinstance(check, partial) else ""
    name = (check.func if isinstance(check, partial) else check).__name__
    return f"{name}({options})" if options else name


def per_check(estimators):
    return [
        pytest.param(estimator, check, id=f"{name}-{describe(check)}")
        for name, original in estimators.items() for estimator, check in generate(original)
    ]


class ReferenceTransformer(TransformerMixin, BaseEstimator):
    """A transformer by scikit-learn's rules, without any tag of its own."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


class ReferenceIntegerTransformer(ReferenceTransformer):
    """A transformer to integers by scikit-learn's rules."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class PlainClassifier(ClassifierMixin, BaseEstimator):
    """A classifier by scikit-learn's rules, without any tag of its own."""

    def fit(self, X, y):
        return self


class ReferenceClassifier(ClassifierMixin, BaseEstimator):
    """A classifier with class weights that takes multi-label targets, otherwise without any tag of its own."""

    def __init__(self, class_weight=None):
        self.class_weight = class_weight

    def fit(self, X, y):
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class ReferenceRegressor(RegressorMixin, BaseEstimator):
    """A regressor that takes several targets, otherwise without any tag of its own."""

    def fit(self, X, y):
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


@pytest.mark.parametrize(("estimator", "check"), per_check(ESTIMATORS))
def test_estimator_check(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"{describe(check)} was skipped: {skipped}")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_check_is_switched_off(name):
    """Tags can silence the suite (a single check runs on 3-D-only estimators), so what runs is itself asserted."""
    estimator = ESTIMATORS[name]
    reference, n_checks = next(
        found for names, found in (
            (CLASSIFIERS, (ReferenceClassifier(), 60)),  # 55 of a classifier, 1 of weights, 4 of multi-label
            (REGRESSORS, (ReferenceRegressor(), 53)),  # 52 of a regressor, 1 of several targets
            (QUANTIZERS, (ReferenceIntegerTransformer(), 46)),
            (META, (PlainClassifier(), 55)),
            (THRESHOLDS, (PlainClassifier(), 56)),  # 1 of a classifier of two classes
            (ESTIMATORS, (ReferenceTransformer(), 47)),
        ) if name in names
    )
    ours, theirs = ([describe(check) for _, check in generate(e)] for e in (estimator, reference))
    assert set(theirs) - set(ours) == set()
    assert len(ours) >= len(theirs)
    if (1, 9) <= SKLEARN.release[:2] < (1, 10):
        assert len(ours) == n_checks


@pytest.mark.parametrize("name", ESTIMATORS)
def test_tags_accept_two_and_three_dimensions(name):
    tags = sklearn.utils.get_tags(ESTIMATORS[name])
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test
    assert getattr(tags.classifier_tags, "poor_score", False) is False
    assert getattr(tags.regressor_tags, "poor_score", False) is False


def test_every_public_estimator_is_checked():
    import skecg
    from skecg import encoders, heads, objectives, preprocessing

    public = {name: getattr(skecg, name) for name in skecg._PUBLIC}
    for room in (encoders, objectives, heads, preprocessing):
        public |= {k: v for k, v in vars(room).items() if not k.startswith("_") and inspect.isclass(v)
                   and v.__module__.startswith("skecg.")}
    expected = {v for v in public.values() if inspect.isclass(v) and issubclass(v, BaseEstimator)}
    abstract = {encoders.Encoder, objectives.Objective, heads.Head}
    # a new estimator must be entered in the tables above
    assert expected - abstract == {type(e) for e in [*ESTIMATORS.values(), *PARAMETER_OBJECTS.values()]} - {AgreeingViews}


# Checks that scikit-learn applies to its own estimators, but check_estimator does not run. (Those of predictions, of
# NotAnArray and of outlier detectors run inside other checks, or do not concern these estimators.)
TRANSFORMERS = {**EMBEDDERS, **PREPROCESSING, **QUANTIZERS}
EXTRA = {
    "check_param_validation": ESTIMATORS,
    "check_dataframe_column_names_consistency": ESTIMATORS,
    "check_inplace_ensure_writeable": ESTIMATORS,
    "check_get_feature_names_out_error": TRANSFORMERS,
    "check_transformer_get_feature_names_out": TRANSFORMERS,
    "check_transformer_get_feature_names_out_pandas": TRANSFORMERS,
    "check_set_output_transform": TRANSFORMERS,
    "check_set_output_transform_pandas": TRANSFORMERS,
    "check_global_output_transform_pandas": TRANSFORMERS,
}


@pytest.mark.parametrize(
    ("check", "name"), [(check, name) for check, estimators in EXTRA.items() for name in estimators]
)
def test_check_that_scikit_learn_runs_on_itself(check, name):
    try:
        with warnings.catch_warnings():  # the checks mix frames and arrays
            warnings.filterwarnings("ignore", "X does not have valid feature names|X has feature names")
            getattr(checks, check)(type(ESTIMATORS[name]).__name__, clone(ESTIMATORS[name]))
    except SkipTest as skipped:
        pytest.fail(f"{check} was skipped: {skipped}")


OBJECT_CHECKS = (
    "check_estimator_cloneable", "check_valid_tag_types", "check_estimator_repr", "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params", "check_parameters_default_constructible",
    "check_get_params_invariance", "check_set_params", "check_mixin_order",
)


@pytest.mark.parametrize("check", OBJECT_CHECKS)
@pytest.mark.parametrize("name", PARAMETER_OBJECTS)
def test_parameter_object_check(name, check):
    original = PARAMETER_OBJECTS[name]
    getattr(checks, check)(type(original).__name__, original)


@pytest.mark.parametrize("name", PARAMETER_OBJECTS)
def test_parameter_object_holds_parameters_only(name):
    original = PARAMETER_OBJECTS[name]
    assert vars(original) == original.get_params()  # nothing allocated, nothing else kept
    assert type(original)().get_params() == original.get_params()
    assert repr(original) == f"{type(original).__name__}()"


INVALID = {
    PatchTransformer: {
        "patch_size": 0, "embed_dim": 0, "depth": -1, "n_heads": 0, "mlp_ratio": 0.0, "dropout": 1.0, "pooling": "max",
        "any_length": "yes",
    },
    ConvTransformer: {
        "embed_dim": 0, "depth": -1, "n_heads": 0, "mlp_ratio": 0.0, "conv_dim": 0, "conv_strides": 2, "position_kernel": 0,
        "position_groups": 0, "dropout": 1.0, "attention_dropout": 1.0, "attention_output_dropout": 1.0, "norm_eps": 0.0,
        "conv_gradient": -1.0, "any_length": "yes",
    },
    ResNet1d: {"width": 0, "depths": 2, "kernel_size": 0, "dropout": -0.1, "any_length": 2},
    MaskedReconstruction: {
        "mask_ratio": 1.0, "patch_size": 0, "mask_per_lead": "yes", "lead_shuffle": 1.5, "shuffle_fraction": 0.0,
        "reconstruction_order": "random", "lead_loss_weight": 0.0, "lead_fraction": 0.0, "decoder_dim": 0,
        "decoder_depth": 0, "decoder_heads": 0,
    },
    Wav2Vec2CMSC: {
        "local_weight": -1.0, "global_weight": -1.0, "lead_mask_prob": 1.0, "halve": "yes", "contrast_size": 0,
        "mask_prob": 0.0, "mask_length": 0, "equal_mask_counts": "yes", "n_negatives": 0, "temperature": 0.0,
        "codebook_groups": 0, "codebook_size": 1, "codebook_dim": 0, "target_dim": 0, "gumbel_temperature": 2.0,
        "diversity_weight": -1.0, "feature_penalty": -1.0, "target_dropout": 1.0,
    },
    LinearHead: {"dropout": 1.0},
    TokenTransformer: {
        "quantizer": 16, "tokenizer": "bpe", "embed_dim": 0, "depth": -1, "n_heads": 0, "mlp_ratio": 0.0, "dropout": 1.0,
        "attention_dropout": -0.1, "max_tokens": 0, "any_length": "yes", "cache": 1,
    },
    ECGTokenizer: {"vocab_size": 2**16 + 1, "min_frequency": 0, "max_token_length": 0, "max_samples": 0},
    MaskedLanguageModeling: {"mask_ratio": 1.0, "span_length": 0, "mask_share": 1.1, "random_share": -0.1},
    BiLSTMHead: {"hidden_dim": 0, "dropout": 1.0},
    ArcFaceHead: {"scale": 0.0, "margin": -0.1},
}


@pytest.mark.parametrize(
    ("kind", "parameter"), [(kind, parameter) for kind, values in INVALID.items() for parameter in values],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_invalid_value_of_a_nested_parameter_is_refused_in_fit(kind, parameter):
    """scikit-learn validates no nested objects: each must do so itself, and in ``fit``."""
    wrong = kind(**{parameter: INVALID[kind][parameter]})  # not in __init__
    X = np.random.default_rng(0).normal(size=(8, 2, 40))
    if kind in (LinearHead, ArcFaceHead, BiLSTMHead):
        estimator = ECGClassifier(ECGSelfSupervisedEmbedder(patches(), max_epochs=0), wrong, max_epochs=1)
    elif kind is MaskedLanguageModeling:
        estimator = ECGSelfSupervisedEmbedder(tokens(), wrong, max_epochs=1)
    elif kind is ECGTokenizer:
        estimator = ECGSelfSupervisedEmbedder(TokenTransformer(tokenizer=wrong), max_epochs=0)
    elif kind is MaskedReconstruction:
        estimator = ECGSelfSupervisedEmbedder(patches(), wrong, max_epochs=1)
    elif kind is Wav2Vec2CMSC:
        estimator = ECGSelfSupervisedEmbedder(frames(), wrong, max_epochs=1)
    else:
        estimator = ECGSelfSupervisedEmbedder(wrong, max_epochs=0)
    with pytest.raises(InvalidParameterError, match=f"The {parameter!r} parameter of {kind.__name__} must be"):
        estimator.fit(X, np.arange(8) % 2)


def test_every_nested_parameter_has_an_invalid_value_above():
    for kind, values in INVALID.items():
        assert set(values) == set(kind().get_params())
