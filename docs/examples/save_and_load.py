"""Save a fitted Pipeline as JSON and arrays, and load it without running code from the files."""

import json
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

import skecg
from skecg import ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer
from skecg.preprocessing import LeadScaler

classes = ("normal", "atrial fibrillation")
X, y, groups = make_ecg(60, classes=classes, duration=4.0, random_state=0)
model = Pipeline([
    ("scale", LeadScaler()),
    ("embedder", ECGSelfSupervisedEmbedder(
        PatchTransformer(embed_dim=32, depth=2), max_epochs=3, random_state=0)),
    ("head", LogisticRegression(max_iter=1000)),
]).fit(X, y)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "af-model"
    skecg.save(model, path)
    for file in sorted(path.iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")
    print("saved with:", ", ".join(json.loads((path / "config.json").read_text())["versions"]))
    loaded = skecg.load(path)

print("same probabilities:", np.array_equal(loaded.predict_proba(X), model.predict_proba(X)))
print("same parameters:", repr(loaded) == repr(model))
