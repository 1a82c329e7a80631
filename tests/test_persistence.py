import hashlib
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import Bunch

import skecg
from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier, _codec, persistence
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.objectives import MaskedReconstruction
from skecg.preprocessing import BandpassFilter, LeadScaler

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 2, 200)).astype(np.float32)
X[3, 1] = np.nan
Y = np.array(["AFIB", "NORM"])[RNG.integers(0, 2, 24)]
X[Y == "AFIB"] *= 2
FULL = np.nan_to_num(X)


def make_embedder(**params):
    params = {"encoder": PatchTransformer(embed_dim=16, depth=1), "max_epochs": 1, "random_state": 0, **params}
    return ECGSelfSupervisedEmbedder(**params)


@pytest.fixture(scope="module")
def embedder():
    return make_embedder().fit(X)


@pytest.fixture(scope="module")
def classifier(embedder):
    return ECGClassifier(FrozenEstimator(embedder), max_epochs=1, random_state=0).fit(X, Y)


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline(
        BandpassFilter(0.5, 40.0, fs=100), LeadScaler(), make_embedder(), StandardScaler(), LogisticRegression()
    ).fit(X, Y)


def round_trip(estimator, folder, **kwargs):
    skecg.save(estimator, folder / "model", **kwargs)
    return skecg.load(folder / "model", **kwargs)


def outputs(estimator, X):
    return [
        getattr(estimator, name)(X) for name in ("transform", "predict", "predict_proba", "decision_function")
        if hasattr(estimator, name)
    ]


def assert_same_outputs(a, b, X=X):
    first, second = outputs(a, X), outputs(b, X)
    assert len(first) == len(second) > 0
    for x, y in zip(first, second, strict=True):
        assert_array_equal(x, y, strict=True)


def in_fresh_process(code, folder, *args):
    root = Path(skecg.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)], cwd=folder, env=env, capture_output=True,
        text=True, timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def rewrite(folder, change):
    """Forge a config whose own digest is right."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["sha256"]
    config = change(config) or config
    file.write_bytes(persistence._sealed(config))


# --- round trips


@pytest.mark.parametrize("params", [
    {},
    {"encoder": ResNet1d(width=4, depths=(1, 1))},
    {"output": "tokens"},
    {"warm_start": True},
    {"max_epochs": 0, "objective": MaskedReconstruction(), "lead_names": ["II", "V1"]},
], ids=["patches", "resnet", "tokens", "warm_start", "from_scratch"])
def test_embedder(params, tmp_path):
    embedder = make_embedder(**params).fit(X)
    loaded = round_trip(embedder, tmp_path)
    assert type(loaded) is ECGSelfSupervisedEmbedder
    assert_same_outputs(embedder, loaded)
    assert loaded.history_ == embedder.history_
    assert loaded.lead_names_in_ == embedder.lead_names_in_
    assert repr(loaded) == repr(embedder)
    assert joblib.hash(loaded) == joblib.hash(embedder)
    assert not any(module.training for module in loaded.network_.modules())
    clone(loaded)


def test_warm_start_continues_alike(tmp_path):
    embedder = make_embedder(warm_start=True).fit(X)
    loaded = round_trip(embedder, tmp_path)
    assert_same_outputs(embedder.fit(X), loaded.fit(X))


@pytest.mark.parametrize("name", ["embedder", "classifier", "pipeline"])
def test_fitted(name, tmp_path, request):
    estimator = request.getfixturevalue(name)
    assert_same_outputs(estimator, round_trip(estimator, tmp_path))


def test_head_classifiers(tmp_path, embedder):
    model = make_pipeline(FrozenEstimator(embedder), HeadClassifier(max_epochs=1, random_state=0)).fit(X, Y)
    assert_same_outputs(model, round_trip(model, tmp_path))


def test_multilabel(tmp_path, embedder):
    targets = np.stack([Y == "AFIB", np.arange(24) % 3 == 0], axis=1).astype(int)
    model = ECGClassifier(FrozenEstimator(embedder), max_epochs=1, random_state=0).fit(X, targets)
    assert_same_outputs(model, round_trip(model, tmp_path))


@pytest.mark.parametrize("steps", [
    [PCA(3, random_state=0), LogisticRegression()],
    [RidgeClassifierCV()],
    [SVC(random_state=np.random.RandomState(3))],
    [KNeighborsClassifier(algorithm="brute")],
    [VotingClassifier([("a", LogisticRegression()), ("b", RidgeClassifierCV())])],
    [ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", PCA(2), slice(2, 9))]), LogisticRegression()],
    [FunctionTransformer(), LogisticRegression()],
], ids=lambda steps: type(steps[0]).__name__)
def test_scikit_learn_steps(steps, tmp_path, embedder):
    model = make_pipeline(FrozenEstimator(embedder), *steps).fit(X, Y)
    assert_same_outputs(model, round_trip(model, tmp_path))


def test_types_as_parameters(tmp_path):
    model = OneHotEncoder(dtype=np.float32, sparse_output=False).fit([["a", 1], ["b", 2]])
    loaded = round_trip(model, tmp_path)
    assert loaded.dtype is np.float32
    assert_same_outputs(model, loaded, [["b", 1]])


def test_best_estimator_of_a_search(tmp_path):
    pipe = make_pipeline(LeadScaler(), make_embedder(max_epochs=0), LogisticRegression())
    grid = {"ecgselfsupervisedembedder__encoder__depth": [1, 2], "ecgselfsupervisedembedder__encoder": [
        PatchTransformer(embed_dim=8)]}
    search = GridSearchCV(pipe, grid, cv=2).fit(FULL, Y)
    with pytest.raises(TypeError, match=r"GridSearchCV\.\w+.* best_estimator_"):
        skecg.save(search, tmp_path / "search")
    assert_same_outputs(search.best_estimator_, round_trip(search.best_estimator_, tmp_path))


def test_unfitted(tmp_path):
    model = make_pipeline(LeadScaler("lead"), make_embedder(), HeadClassifier(class_weight={"AFIB": 2.0, "NORM": 1}))
    loaded = round_trip(model, tmp_path)
    assert repr(loaded) == repr(model)
    with pytest.raises(NotFittedError):
        loaded.predict(X)
    assert_same_outputs(clone(make_embedder()).fit(X), loaded[1].fit(X))


def test_metadata_requests(tmp_path):
    from sklearn import config_context

    with config_context(enable_metadata_routing=True):
        embedder = make_embedder().set_fit_request(groups="patient")
        model = Pipeline([("embedder", embedder), ("head", LogisticRegression())])
        loaded = round_trip(model, tmp_path)
        assert repr(loaded.get_metadata_routing()) == repr(model.get_metadata_routing())
        assert loaded[0].get_metadata_routing().fit.requests == {"groups": "patient"}


def test_data_frames_and_output_config(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(FULL[:, 0], columns=[f"t{i}" for i in range(200)])
    model = make_pipeline(LeadScaler(), make_embedder()).set_output(transform="pandas").fit(frame)
    loaded = round_trip(model, tmp_path)
    pd.testing.assert_frame_equal(loaded.transform(frame), model.transform(frame))


def test_shared_estimators_stay_shared(tmp_path, embedder):
    frozen = FrozenEstimator(embedder)
    loaded = round_trip(Pipeline([("a", frozen), ("b", frozen)]), tmp_path)
    assert loaded[0] is loaded[1]
    weights = sum(p.nbytes for p in embedder.network_.state_dict().values())
    assert (tmp_path / "model" / "arrays.safetensors").stat().st_size < 1.1 * weights + 10_000


def test_fresh_process_in_another_directory(tmp_path, classifier, pipeline):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    np.save(tmp_path / "X.npy", X)
    for name, model in (("classifier", classifier), ("pipeline", pipeline)):
        np.save(tmp_path / f"{name}.npy", model.predict_proba(X))
        skecg.save(model, tmp_path / name)
        joblib.dump(model, tmp_path / f"{name}.joblib")
        (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps(model))
    code = """
import pickle, sys
from pathlib import Path
import joblib, numpy as np, skecg
folder = Path(sys.argv[1])
X = np.load(folder / "X.npy")
for name in ("classifier", "pipeline"):
    expected = np.load(folder / f"{name}.npy")
    assert (skecg.load(folder / name).predict_proba(X) == expected).all(), "load"
    assert (joblib.load(folder / f"{name}.joblib").predict_proba(X) == expected).all(), "joblib"
    assert (pickle.loads((folder / f"{name}.pickle").read_bytes()).predict_proba(X) == expected).all(), "pickle"
print("equal")
"""
    assert in_fresh_process(code, elsewhere, tmp_path) == "equal\n"
    assert not any(elsewhere.iterdir())


def test_pickles_are_small_and_hash_alike():
    embedder = make_embedder(encoder=PatchTransformer(embed_dim=128, depth=2)).fit(X[:4])
    weights = sum(value.nbytes for value in embedder.network_.state_dict().values())
    assert weights > 1_000_000
    assert len(pickle.dumps(embedder)) <= 1.1 * weights
    before = joblib.hash(embedder)
    embedder.transform(X)
    assert joblib.hash(embedder) == before == joblib.hash(pickle.loads(pickle.dumps(embedder)))


def test_size_and_equal_bytes(tmp_path):
    embedder = make_embedder(encoder=PatchTransformer(embed_dim=128, depth=2)).fit(X[:4])
    weights = sum(value.nbytes for value in embedder.network_.state_dict().values())
    for name in "ab":
        skecg.save(embedder, tmp_path / name)
    assert sum(file.stat().st_size for file in (tmp_path / "a").iterdir()) <= 1.05 * weights
    for file in ("config.json", "arrays.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# --- what is not saved


def test_no_paths_of_this_machine(tmp_path):
    model = Pipeline([("embedder", make_embedder(
        cache=str(tmp_path / "cache"), checkpoint_dir=tmp_path / "checkpoints"))], memory=str(tmp_path / "memory"))
    model.fit(X)
    loaded = round_trip(model, tmp_path)
    assert loaded.memory is None
    assert loaded[0].cache is None and loaded[0].checkpoint_dir is None
    for file in (tmp_path / "model").iterdir():
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content
        assert str(Path.home()).encode() not in content
        assert FULL[0, 0, :16].tobytes() not in content
    assert model.memory is not None


def test_forged_memory_is_dropped(tmp_path):
    skecg.save(Pipeline([("scale", StandardScaler())]), tmp_path / "model")

    def change(config):
        config["estimator"]["estimator"]["state"]["memory"] = "some/folder/with/pickles"

    rewrite(tmp_path / "model", change)
    assert skecg.load(tmp_path / "model").memory is None


def test_callbacks_are_dropped_with_a_warning(tmp_path):
    from skorch.callbacks import EarlyStopping

    embedder = make_embedder(callbacks=[EarlyStopping("train_loss")])
    with pytest.warns(UserWarning, match=r"Embedder\.callbacks is not saved"):
        loaded = round_trip(embedder, tmp_path)
    assert loaded.callbacks is None


@pytest.mark.parametrize(("step", "message"), [
    (RandomForestClassifier(2), r"^Pipeline\.steps\[1\]\[1\]\.RandomForestClassifier\.estimators_\[0\]\."
     r"DecisionTreeClassifier\.tree_ is of the type sklearn\.tree\._tree\.Tree, .*joblib"),
    (KNeighborsClassifier(algorithm="kd_tree"), r"KNeighborsClassifier\._tree .*KDTree"),
    (FunctionTransformer(lambda x: x), r"FunctionTransformer\.func is of the type function.*joblib"),
], ids=["forest", "kd_tree", "lambda"])
def test_refused_by_name(step, message, tmp_path):
    model = make_pipeline(StandardScaler(), step).fit(FULL[:, 0], Y)
    with pytest.raises(TypeError, match=message):
        skecg.save(model, tmp_path / "model")
    assert not any(tmp_path.iterdir())


class Holder(BaseEstimator):
    """An estimator of the user's, with any value."""

    def __init__(self, value=None):
        self.value = value


class Unpicklable:
    pass


@pytest.mark.parametrize("value", [
    np.zeros(2, complex), np.zeros(2, "M8[s]"), np.zeros(2, np.longdouble), np.zeros(2, "S3"),
    np.zeros(2, [("a", "i4")]), np.ma.masked_array([1.0], [True]), np.array([{}], dtype=object), np.float32,
    1 << 5000, 1j, b"bytes", Path("x"), print, Unpicklable(), Unpicklable, torch.zeros(2), torch.nn.Linear(1, 1),
    {(1, Unpicklable()): 1}, {Unpicklable()}, np.random.default_rng(0), type("Text", (str,), {})("x"),
], ids=lambda value: type(value).__name__)
def test_refused_values(value, tmp_path):
    if value is np.float32:  # an accepted type, among the classes that are not
        assert round_trip(Holder(value), tmp_path, trusted=[Holder]).value is np.float32
        return
    with pytest.raises((TypeError, ValueError), match=r"Holder\.value\[0\].*(joblib|pickle)"):
        skecg.save(Holder([value]), tmp_path / "model", trusted=[Holder])
    assert not any(tmp_path.iterdir())


def test_recursion_is_refused(tmp_path):
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match=r"Holder\.value\[0\] contains itself"):
        skecg.save(Holder(loop), tmp_path / "model", trusted=[Holder])
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="levels deep"):
        skecg.save(Holder(deep), tmp_path / "model", trusted=[Holder])
    with pytest.raises(TypeError, match="expects an estimator, got int"):
        skecg.save(3, tmp_path / "model")


# --- classes of the user


class ThinPatchTransformer(PatchTransformer):
    pass


class Impostor(BaseEstimator):
    __module__ = "sklearn.linear_model._logistic"


def test_trusted_classes(tmp_path):
    embedder = make_embedder(encoder=ThinPatchTransformer(embed_dim=8, depth=1)).fit(X)
    with pytest.raises(TypeError, match=r"encoder\.ThinPatchTransformer is of the class .*trusted=\[ThinPatch"):
        skecg.save(embedder, tmp_path / "model")
    skecg.save(embedder, tmp_path / "model", trusted=[ThinPatchTransformer])
    with pytest.raises(ValueError, match=r"config.json: .*ThinPatchTransformer', a class outside.*trusted=\[ThinPatch"):
        skecg.load(tmp_path / "model")
    assert_same_outputs(embedder, skecg.load(tmp_path / "model", trusted=ThinPatchTransformer))

    class Moved(PatchTransformer):  # the same class, imported from another module
        __qualname__ = "ThinPatchTransformer"

    Moved.__name__ = "ThinPatchTransformer"
    assert_same_outputs(embedder, skecg.load(tmp_path / "model", trusted=[Moved]))
    with pytest.raises(TypeError, match="trusted takes subclasses"):
        skecg.load(tmp_path / "model", trusted=[Unpicklable])


def test_claimed_module_is_not_believed(tmp_path):
    with pytest.raises(TypeError, match="outside skecg and scikit-learn"):
        skecg.save(Impostor(), tmp_path / "model")


# --- values


FLOATS = st.floats(width=64)
ATOMS = (
    st.none() | st.booleans() | st.integers() | FLOATS | st.text()
    | st.sampled_from([
        np.float32(1.5), np.int8(-3), np.bool_(True), np.str_("x"), np.float64("nan"), np.uint64(2**64 - 1),
        np.dtype("f4"), np.dtype(">i2"), np.dtype(object), np.float64, int, str, slice(None, 3), slice(1),
    ])
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
NUMERIC = st.sampled_from(sorted(_codec.NUMERIC))
ARRAYS = hnp.arrays(NUMERIC, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)) | hnp.arrays(
    st.sampled_from(["<U5", ">U3", object]), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
    elements=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
)
VALUES = st.recursive(
    ATOMS | ARRAYS | st.sets(KEYS, max_size=3) | st.frozensets(st.text(), max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4)
    | st.dictionaries(st.text(), inner, max_size=3).map(lambda d: Bunch(**d)),
    max_leaves=15,
)


def same(a, b):
    """Equal in value, type, dtype and memory layout."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape or (a.size and a.strides != b.strides):
            return False
        return same(a.ravel().tolist(), b.ravel().tolist()) if a.dtype == object else a.tobytes() == b.tobytes()
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return repr(a) == repr(b)
    return a == b


class Tensors(dict):
    get_tensor = dict.__getitem__


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(VALUES)
def test_plain_values_come_back_identical(value):
    encoder = _codec.Encoder()
    text = json.dumps(encoder.encode(value, "value"), allow_nan=False)
    decoded = _codec.Decoder(Tensors(encoder.arrays)).decode(json.loads(text))
    assert same(value, decoded)


@pytest.mark.parametrize("value", [
    np.asfortranarray(RNG.normal(size=(3, 4))), RNG.normal(size=(4, 6))[::2, ::3], np.array(2.5), np.zeros((0, 3)),
    np.arange(6, dtype=">i4").reshape(2, 3), np.array([np.nan, -0.0, np.inf], np.float16), np.array([True, False]),
    np.arange(24, dtype="u8").reshape(2, 3, 4).T, np.array(["a", "bcd"]), np.array("scalar"), RNG.normal(size=(4, 6)).T,
    np.array([["x", None], [1, 2.5]], dtype=object), np.broadcast_to(np.float32(1), (2, 3)),
], ids=str)
def test_arrays_on_disk(value, tmp_path):
    loaded = round_trip(Holder(value), tmp_path, trusted=[Holder]).value
    assert_array_equal(loaded, value, strict=True)
    assert loaded.dtype == value.dtype
    assert loaded.flags.writeable
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    assert same(np.array(value, order="F" if fortran else "C"), loaded)  # gaps between elements are closed


def test_random_state_continues(tmp_path):
    state = np.random.RandomState(0)
    state.normal(size=3)
    loaded = round_trip(Holder(state), tmp_path, trusted=[Holder]).value
    assert_array_equal(loaded.normal(size=700), state.normal(size=700))


def test_memmaps_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    loaded = round_trip(Holder(np.load(tmp_path / "a.npy", mmap_mode="r")), tmp_path, trusted=[Holder])
    assert_array_equal(loaded.value, np.arange(5), strict=True)


# --- files


def test_overwriting(tmp_path, embedder):
    path = tmp_path / "model"
    skecg.save(StandardScaler(), path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        skecg.save(embedder, path)
    assert isinstance(skecg.load(path), StandardScaler)
    (path / "README.md").write_text("mine")
    for model in (embedder, StandardScaler(), embedder):
        skecg.save(model, path, overwrite=True)
        assert type(skecg.load(path)) is type(model)
        assert len(list(path.iterdir())) == 3
    assert (path / "README.md").read_text() == "mine"


def test_only_models_are_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="not a model saved by skecg"):
        skecg.save(StandardScaler(), tmp_path / "thesis", overwrite=True)
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileExistsError, match="not a model"):
        skecg.save(StandardScaler(), tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    skecg.save(StandardScaler(), tmp_path / "empty", overwrite=True)
    skecg.load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="Create it first"):
        skecg.save(StandardScaler(), tmp_path / "a" / "b")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failing", ["save_file", "os.replace 1", "os.replace 2", "os.rename"])
def test_failure_in_the_middle(overwrite, failing, tmp_path, monkeypatch, embedder):
    path = tmp_path / "model"
    if overwrite:
        skecg.save(StandardScaler(with_mean=False), path)
    name, _, nth = failing.partition(" ")
    target, attribute = (persistence, name) if name == "save_file" else (os, name[3:])
    original, calls = getattr(target, attribute), []

    def fail(*args):
        calls.append(args)
        if len(calls) == int(nth or 1):
            raise OSError("No space left on device")
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(target, attribute, fail)
        if overwrite and failing == "os.rename":
            skecg.save(embedder, path, overwrite=True)  # does without
            return
        with pytest.raises(OSError, match="No space left"):
            skecg.save(embedder, path, overwrite=overwrite)
    if overwrite:
        assert skecg.load(path).with_mean is False
        skecg.save(embedder, path, overwrite=True)
    else:
        assert not any(tmp_path.iterdir())
        skecg.save(embedder, path)
    assert_same_outputs(embedder, skecg.load(path))


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_permissions_follow_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        skecg.save(StandardScaler(), tmp_path / "model")
    finally:
        os.umask(previous)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755
    for file in (tmp_path / "model").iterdir():
        assert file.stat().st_mode & 0o777 == 0o644


def test_missing_files(tmp_path, embedder):
    with pytest.raises(FileNotFoundError, match="no directory"):
        skecg.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        skecg.load(tmp_path)
    skecg.save(embedder, tmp_path / "model")
    (tmp_path / "model" / "arrays.safetensors").unlink()
    with pytest.raises(ValueError, match=r"arrays\.safetensors is missing"):
        skecg.load(tmp_path / "model")


@pytest.mark.parametrize("file", ["config.json", "arrays.safetensors"])
def test_every_damage_is_found(file, tmp_path, embedder):
    skecg.save(embedder, tmp_path / "model")
    target = tmp_path / "model" / file
    good = target.read_bytes()
    rng = np.random.default_rng(0)
    before = joblib.hash(embedder)
    for _ in range(60):
        position = int(rng.integers(len(good)))
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        for bad in (bytes(flipped), good[:position]):
            target.write_bytes(bad)
            try:
                loaded = skecg.load(tmp_path / "model")
            except ValueError as error:
                assert file in str(error)
            else:  # a flipped blank between JSON's values may stand for a blank
                assert file == "config.json" and joblib.hash(loaded) == before


def test_newer_format(tmp_path):
    skecg.save(StandardScaler(), tmp_path / "model")
    rewrite(tmp_path / "model", lambda config: config.update(format_version=99, novelty=1))
    with pytest.raises(ValueError, match=r"format version is 99, .*Upgrade skecg"):
        skecg.load(tmp_path / "model")


def test_versions_are_inside_and_checked(tmp_path):
    skecg.save(StandardScaler().fit(FULL[:, 0]), tmp_path / "model")

    def change(config):
        assert config["versions"]["skecg"] == skecg.__version__
        assert {"scikit-learn", "numpy", "torch"} <= config["versions"].keys()
        config["estimator"]["estimator"]["state"]["_sklearn_version"] = "1.0"

    rewrite(tmp_path / "model", change)
    with pytest.warns(InconsistentVersionWarning, match="1.0"):
        skecg.load(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InconsistentVersionWarning):
            skecg.load(tmp_path / "model")


# --- forged models


@pytest.mark.parametrize("name", [
    "os.system", "subprocess.Popen", "builtins.eval", "sklearn.utils._x.Something", "sklearn.base.clone",
    "sklearn.utils.Bunch", "skecg.persistence.os.system", "skecg.persistence.BaseEstimator",
    "sklearn.linear_model.LogisticRegression", "sklearn.tests.test_base.MyEstimator", "sklearn.conftest.Thing",
    "sklearn..base.BaseEstimator", "sklearn.base.BaseEstimator.__init__", "LogisticRegression", "", "antigravity.Fly",
    "sklearn.externals._packaging.version.Version", "skecg", "this.is", "sklearnx.Evil", "skecg_evil.Evil",
])
def test_forged_classes(name, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *args: pytest.fail("executed"))
    monkeypatch.setattr(subprocess, "Popen", lambda *args: pytest.fail("executed"))
    skecg.save(StandardScaler(), tmp_path / "model")

    def change(config):
        config["estimator"]["estimator"]["class"] = name

    rewrite(tmp_path / "model", change)
    with pytest.raises(ValueError, match=r"config\.json: "):
        skecg.load(tmp_path / "model")
    assert not {"antigravity", "this", "sklearn.tests.test_base", "sklearn.conftest"} & sys.modules.keys()


@pytest.mark.parametrize("tree", [
    None, 3, [], {}, {"tuple": []}, {"exec": "x"}, {"tuple": 3}, {"_class": "os.system"}, {"estimator": {}},
    {"a": 1, "b": 2}, {"same": 0}, {"estimator": {"class": 3, "id": 0, "state": {}}}, {"dict": {}},
    {"array": {"name": "nothing", "dtype": "<f8", "order": "C"}}, {"array": {"name": "x", "dtype": "|O", "order": "C"}},
    {"strings": {"values": ["x"] * 9, "dtype": "<U99999999", "shape": [9], "order": "C"}},
    {"objects": {"values": [1], "shape": [10**12], "order": "C"}},
    {"strings": {"values": [1], "dtype": "<U3", "shape": [1], "order": "C"}},
    {"random_state": {"key": [0] * 624, "pos": 10**9, "has_gauss": 0, "gauss": 0.0}},
    {"scalar": {"dtype": "<f8", "bytes": "00"}}, {"scalar": {"dtype": "V8", "bytes": "0000000000000000"}},
    {"metadata_request": {"__init__": {"a": "b"}}}, {"type": "object_"}, {"dtype": "O,O"}, {"float": "1e999"},
], ids=lambda tree: json.dumps(tree)[:40])
def test_forged_content(tree, tmp_path):
    skecg.save(StandardScaler(), tmp_path / "model")
    rewrite(tmp_path / "model", lambda config: config.update(estimator=tree))
    with pytest.raises(ValueError, match="model"):
        skecg.load(tmp_path / "model")


def test_every_byte_is_protected(tmp_path):
    """Damage is found before anything is parsed, even where JSON would not notice it."""
    skecg.save(StandardScaler(), tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    good = file.read_bytes()
    skecg.load(tmp_path / "model")
    for bad in (good + b"\n", good.replace(b"\n", b"\r\n"), good.replace(b" ", b"  ", 1), good.upper(), good[:-1]):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=r"config\.json was not written by skecg\.save, is damaged"):
            skecg.load(tmp_path / "model")


@pytest.mark.parametrize("value", [
    [[]] * 200_000, [{"metadata_request": {}}] * 3000, [{"dict": {"a": 1}}] * 100_000,
    {"strings": {"values": ["x"] * 9000, "dtype": "<U300", "shape": [9000], "order": "C"}},
], ids=["lists", "requests", "dicts", "strings"])
def test_forged_bombs(value, tmp_path):
    skecg.save(StandardScaler(), tmp_path / "model")
    rewrite(tmp_path / "model", lambda config: config["estimator"]["estimator"]["state"].update(bomb=value))
    with pytest.raises(ValueError, match="would take far more memory than its files"):
        skecg.load(tmp_path / "model")


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    for value in ([[]] * 300_000, np.array(["x" * 300] * 9000)):
        with pytest.raises(ValueError, match="Keep large data in numeric arrays"):
            skecg.save(Holder(value), tmp_path / "model", trusted=[Holder])
        assert not any(tmp_path.iterdir())
    history = [{"epoch": i, "loss": 0.1 * i, "learning_rate": 1e-3, "seconds": i / 7} for i in range(10_000)]
    assert round_trip(Holder(history), tmp_path, trusted=[Holder]).value == history


def test_forged_nesting_and_files(tmp_path):
    path = tmp_path / "model"
    skecg.save(StandardScaler(), path)
    good = (path / "config.json").read_text()
    nested = []
    for _ in range(400):
        nested = [nested]
    rewrite(path, lambda config: config.update(estimator=nested))
    with pytest.raises(ValueError, match="nested too deeply"):
        skecg.load(path)
    for text in ("[" * 100_000, "3", "[]", "{}", good.replace('"skecg"', "NaN"), "", "\xff"):
        (path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            skecg.load(path)
    (path / "config.json").write_text(good)
    rewrite(path, lambda config: config["arrays"].update(file="../secret"))
    with pytest.raises(ValueError, match=r"config\.json"):
        skecg.load(path)
    with open(path / "config.json", "wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(ValueError, match="larger than"):
        skecg.load(path)


def test_forged_arrays_with_a_right_sum(tmp_path, embedder):
    skecg.save(embedder, tmp_path / "model")
    file = tmp_path / "model" / "arrays.safetensors"
    content = file.read_bytes()
    for bad in (content[:1000], content[:-4], (2**60).to_bytes(8, "little") + content[8:], b""):
        file.write_bytes(bad)
        rewrite(tmp_path / "model", lambda config, bad=bad: config["arrays"].update(
            sha256=hashlib.sha256(bad).hexdigest()))
        with pytest.raises(ValueError, match=r"the arrays (end within their header|are not as long)"):
            skecg.load(tmp_path / "model")


@pytest.mark.parametrize("forged", [
    {"embed_dim": 10**6}, {"mlp_ratio": 1e12}, {"depth": 10**7}, {"n_leads_": 10**10}, {"embed_dim": 8},
])
def test_forged_network_sizes(forged, tmp_path, embedder):
    skecg.save(embedder, tmp_path / "model")

    def change(config):
        config["estimator"]["estimator"]["state"]["encoder_"]["estimator"]["state"].update(forged)

    rewrite(tmp_path / "model", change)
    with pytest.raises(ValueError, match=r"would take far more memory|cannot be rebuilt"):
        skecg.load(tmp_path / "model")
