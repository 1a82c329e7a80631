"""Pretrain, embed and classify in one Pipeline, cross-validated by patient.

Filter, scaling, pretraining and head are learned on the training patients of each fold.
"""

from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skecg import ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer
from skecg.objectives import MaskedReconstruction
from skecg.preprocessing import BandpassFilter, LeadScaler

classes = ("normal", "left bundle branch block", "anterior myocardial infarction")
X, y, groups = make_ecg(150, classes=classes, duration=5.0, random_state=0)
print("X", X.shape, "with", len(set(groups)), "patients and", len(set(y)), "classes")

pipe = Pipeline([
    ("filter", BandpassFilter(0.5, 40.0, fs=100)),
    ("scale", LeadScaler()),
    ("embedder", ECGSelfSupervisedEmbedder(
        PatchTransformer(patch_size=25, embed_dim=32, depth=2, pooling="lead"),
        MaskedReconstruction(decoder_dim=32),
        crop_size=250, max_epochs=30, batch_size=16, learning_rate=3e-3, random_state=0)),
    ("standardize", StandardScaler()),
    ("head", LogisticRegression(max_iter=1000)),
])

# the same network without pretraining
scratch = clone(pipe).set_params(embedder__max_epochs=0)

folds = StratifiedGroupKFold(3)
for name, model in {"pretrained": pipe, "random features": scratch}.items():
    accuracy = cross_val_score(model, X, y, groups=groups, cv=folds)
    print(f"{name}: accuracy {accuracy.mean():.2f}, folds {accuracy.round(2).tolist()}")

pipe.fit(X, y)
history = pipe["embedder"].history_
print(f"pretraining loss: {history[0]['loss']:.2f} after epoch 1, "
      f"{history[-1]['loss']:.2f} after epoch {len(history)}")
