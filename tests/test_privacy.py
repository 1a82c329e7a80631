"""Saved models hold arrays and configuration: no names, ids, dates, paths or signals. Nothing talks to the network."""

import io
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skecg
from skecg import (
    ECGClassifier,
    ECGSelfSupervisedEmbedder,
    HeadClassifier,
    MultilabelThresholdClassifier,
    RecordClassifier,
)
from skecg.datasets import ECGRecord, make_ecg, read_records, write_records
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d, TokenTransformer
from skecg.objectives import Wav2Vec2CMSC
from skecg.preprocessing import (
    BandpassFilter,
    ECGQuantizer,
    ECGTokenizer,
    LeadScaler,
    LeadSelector,
    QRSIntegral,
    QualityGate,
)

CANARY = "Zq7Canary"
LEADS, FS = ("I", "II", "V1"), 100.0


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Paths of records whose folder, names, comments and date are canaries; labels; patients."""
    folder = tmp_path_factory.mktemp(f"{CANARY}-folder")
    X, y, groups = make_ecg(16, n_patients=8, duration=3.0, lead_names=LEADS, random_state=0)
    comments = (f"Patient ID: {CANARY}-id", f"Name: {CANARY}, Eve", f"Admitted: 24-12-1973 {CANARY}-date")
    patients = np.array([f"{CANARY}-patient-{group}" for group in groups])
    paths = write_records(folder, [
        ECGRecord(x, FS, LEADS, name=f"{CANARY}{i}", comments=comments) for i, x in enumerate(X)
    ], y=y, groups=patients)
    assert CANARY in Path(f"{paths[0]}.hea").with_suffix(".hea").read_text()
    return paths, y, patients


@pytest.fixture
def canary_environment(tmp_path, monkeypatch):
    """User, host name, home and working directory are canaries too."""
    for name in ("USER", "LOGNAME", "USERNAME", "HOME", "HOSTNAME"):
        monkeypatch.setenv(name, f"/{CANARY}-{name}")
    monkeypatch.setattr(socket, "gethostname", lambda: f"{CANARY}-host")
    place = tmp_path / f"{CANARY}-cwd"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def artefacts(model, folder):
    """What each way of keeping a model writes, {name: bytes}."""
    skecg.save(model, folder / "model")
    kept = {f"save {file.name}": file.read_bytes() for file in (folder / "model").iterdir()}
    stream = io.BytesIO()
    joblib.dump(model, stream)
    kept |= {"pickle": pickle.dumps(model), "joblib": stream.getvalue()}
    skops = pytest.importorskip("skops.io")
    with zipfile.ZipFile(io.BytesIO(skops.dumps(model))) as archive:
        kept |= {f"skops {name}": archive.read(name) for name in archive.namelist()}
    return kept


def holds_canary(content):
    forms = (CANARY.encode(), CANARY.encode("utf-16-le"), CANARY.encode("utf-32-le"), b"24-12-1973", b"1973")
    return [form for form in forms if form in content]


def pieces(X):
    """All leads cut into 32 bytes, in float32 and float64: any 64 bytes of a lead hold one of them whole."""
    found = set()
    for dtype in (np.float32, np.float64):
        width = 32 // np.dtype(dtype).itemsize
        whole = X[..., :X.shape[-1] // width * width].astype(dtype).reshape(-1, width)
        found |= {piece.tobytes() for piece in whole if len(np.unique(piece)) > width // 2}  # flat ones occur by chance
    return found


def holds_signal(content, X):
    """Whether some 64 bytes of X in float32 or float64 occur in the content."""
    return any(piece in content for piece in pieces(X))


def scratch(encoder, **parameters):
    return ECGSelfSupervisedEmbedder(
        encoder, **{"max_epochs": 1, "batch_size": 8, "lead_names": LEADS, "random_state": 0, **parameters})


def patches():
    return PatchTransformer(20, embed_dim=16, depth=1, n_heads=2)


def tokens():
    return TokenTransformer(ECGQuantizer(20), ECGTokenizer(60), embed_dim=16, depth=1, n_heads=2)


def frames():
    return ConvTransformer(16, 1, n_heads=2, conv_dim=8, conv_strides=(2, 5), position_kernel=4, position_groups=4)


MODELS = {
    "whole pipeline": lambda: make_pipeline(
        QualityGate("mask", fs=FS, lead_names=LEADS, checks=("gap",)), LeadSelector(LEADS, input_lead_names=LEADS),
        BandpassFilter(fs=FS), LeadScaler(), scratch(patches()), HeadClassifier(max_epochs=1)),
    "groups in the objective": lambda: scratch(frames(), objective=Wav2Vec2CMSC(
        codebook_size=4, target_dim=8, n_negatives=4, halve=False), warm_start=True),
    "tokens": lambda: scratch(tokens(), warm_start=True),
    "classifier": lambda: ECGClassifier(
        scratch(ResNet1d(4, (1, 1))), max_epochs=1, early_stopping=True, validation_fraction=0.3),
    "thresholds": lambda: MultilabelThresholdClassifier(OneVsRestClassifier(make_pipeline(
        QRSIntegral(fs=FS, onset=0.5, lead_names=LEADS), StandardScaler(), LogisticRegression())), min_positives=2),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:The least populated class", "ignore:lbfgs failed")
def test_nothing_of_the_patients_is_in_a_saved_model(name, records, tmp_path, canary_environment):
    paths, y, patients = records
    X = np.stack([record.signal for record in read_records(paths)])
    model = MODELS[name]()
    codes = np.unique(y, return_inverse=True)[1]
    if name == "thresholds":
        model.fit(X, np.stack([codes % 2, codes > 1], axis=1).astype(int), groups=patients)
    elif name == "whole pipeline":
        model.fit(X, y)
    else:
        model.fit(X, y, groups=patients)
    for what, content in artefacts(model, tmp_path).items():
        assert holds_canary(content) == [], what
        assert not holds_signal(content, X), what


def test_nothing_of_the_records_is_in_a_saved_model(records, tmp_path, canary_environment):
    paths, y, patients = records
    kept = list(read_records(paths, comments=True))
    assert CANARY in kept[0].comments[0]
    for kind, given in (("paths", paths), ("records", kept)):
        (tmp_path / kind).mkdir()
        model = RecordClassifier(make_pipeline(scratch(patches()), LogisticRegression()), length=1.5)
        for what, content in artefacts(model.fit(given, y, groups=patients), tmp_path / kind).items():
            assert holds_canary(content) == [], what


def test_checkpoints_hold_weights_and_no_names(records, tmp_path, canary_environment):
    paths, _, patients = records
    X = np.stack([record.signal for record in read_records(paths)])
    embedder = scratch(
        frames(), objective=Wav2Vec2CMSC(local_weight=0, halve=False), checkpoint_dir=tmp_path / "checkpoints")
    embedder.fit(X, groups=patients)
    files = [file for file in (tmp_path / "checkpoints").rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert holds_canary(file.read_bytes()) == []
        assert not holds_signal(file.read_bytes(), X)
        assert CANARY not in file.name


def test_a_cache_holds_embeddings_and_no_names(records, tmp_path, canary_environment):
    """Nor signals as they are, but what joblib prints of its arguments: some numbers of them."""
    paths, _, patients = records
    X = np.stack([record.signal for record in read_records(paths)])
    embedder = scratch(patches(), cache=str(tmp_path / "cache")).fit(X, groups=patients)
    expected = embedder.transform(X)
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert any(expected.tobytes()[:64] in file.read_bytes() for file in files)
    for file in files:
        assert holds_canary(file.read_bytes()) == []
        assert not holds_signal(file.read_bytes(), X)


def test_the_tests_of_signals_and_canaries_would_notice():
    X = make_ecg(2, duration=1.0, random_state=0)[0]
    for dtype in ("f4", "f8"):
        piece = X[1, 3, 41:61].astype(dtype).tobytes()[:64]
        assert holds_signal(b"x" + piece + b"y", X)
        assert not holds_signal(piece[:28], X)
    assert holds_canary(pickle.dumps(np.array([CANARY])))


FLOW = """
import sys

def hook(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        print("network:", event, arguments, file=sys.stderr, flush=True)
        import os
        os._exit(3)

sys.addaudithook(hook)
import tempfile
from pathlib import Path
import skecg
for name in skecg.__all__:
    getattr(skecg, name)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skecg.encoders import PatchTransformer
X, y, groups = skecg.datasets.make_ecg(8, duration=1.0, random_state=0)
with tempfile.TemporaryDirectory() as folder:
    embedder = skecg.ECGSelfSupervisedEmbedder(
        PatchTransformer(20, embed_dim=16, depth=1), max_epochs=1, checkpoint_dir=folder + "/a", cache=folder + "/b")
    model = make_pipeline(skecg.preprocessing.LeadScaler(), embedder, LogisticRegression()).fit(X, y)
    skecg.save(model, Path(folder) / "model")
    skecg.load(Path(folder) / "model").predict(X)
    records = skecg.datasets.make_ecg_records(2, duration=2.0, random_state=0)
    paths = skecg.datasets.write_records(Path(folder) / "records", records)
    assert len(skecg.datasets.read_records(paths)[0].signal)
if len(sys.argv) > 1:
    import socket
    socket.create_connection(("127.0.0.1", 9), timeout=1)
print("done")
"""


@pytest.mark.parametrize("more", [[], ["connect"]], ids=["our code", "the hook works"])
def test_no_network_from_import_to_load(more):
    env = {**os.environ, "PYTHONPATH": str(Path(skecg.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", FLOW, *more], env=env, capture_output=True, text=True, timeout=300, check=False)
    if more:
        assert result.returncode == 3 and "network: socket." in result.stderr
    else:
        assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr


def test_tests_have_no_network():
    with socket.socket() as connection, pytest.raises(OSError, match="no network in tests"):
        connection.connect(("192.0.2.1", 80))
    with pytest.raises(OSError, match="no network in tests"):
        socket.getaddrinfo("example.org", 80)
