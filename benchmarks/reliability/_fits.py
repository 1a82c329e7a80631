"""Small fits in which every source of randomness matters, and children of this process to run them in."""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skecg import ECGSelfSupervisedEmbedder
from skecg._training import module_state
from skecg.datasets import make_ecg
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d
from skecg.objectives import MaskedReconstruction, Objective, Wav2Vec2CMSC


class Noisy(Objective):
    """Draws from torch's global generator, as layers of torch do, and from the batch's; reports two terms more."""

    def build(self, network):
        return NoisyModule(network)


class NoisyModule(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.encoder, self.dropout, self.predict = network, nn.Dropout(0.3), nn.Linear(network.n_features, 3)

    def forward(self, batch):
        h = self.predict(self.dropout(self.encoder(batch.x, batch.lead_valid)))
        error = (h - torch.randn(h.shape, generator=batch.generator)).square()
        return {"loss": error.mean(), "first": error[:, 0].mean(), "second": error[:, 1].mean()}


FITS = {
    "masked reconstruction, dropout, crops": (PatchTransformer(10, 16, 1, n_heads=2, dropout=0.2), MaskedReconstruction()),
    "wav2vec 2.0 + CMSC, patients, dropout, crops": (
        ConvTransformer(16, 1, n_heads=2, mlp_ratio=1.0, conv_dim=16, conv_strides=(2, 2), position_kernel=8,
                        position_groups=2, dropout=0.1, attention_dropout=0.1),
        Wav2Vec2CMSC(mask_length=4, n_negatives=5, codebook_size=8, target_dim=16),
    ),
    "own objective, batch normalisation, global generator, crops": (ResNet1d(8, (1, 1), kernel_size=3), Noisy()),
}


def data():
    """24 windows of six patients; one lead is missing in one of them."""
    X = make_ecg(24, duration=2.0, lead_names=("I", "II", "V2"), random_state=0)[0]
    X[5, 1] = np.nan
    return X, np.arange(24) // 4


def embedder(name, **params):
    """A cosine schedule over eight epochs of four batches."""
    encoder, objective = FITS[name]
    return ECGSelfSupervisedEmbedder(encoder, objective, **{
        "max_epochs": 8, "batch_size": 7, "crop_size": 150, "random_state": 0, "deterministic": True, **params})


N_UPDATES = 32


def outcome(fitted, X):
    """Hash of weights, history (without times) and embeddings."""
    digest = hashlib.sha256()
    for name, value in module_state(fitted.network_).items():
        digest.update(name.encode() + value.tobytes())
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in fitted.history_]
    digest.update(json.dumps(history).encode() + fitted.transform(X).tobytes())
    return digest.hexdigest()


def start(function):
    """Run ``function()`` in a child, which has all imports already; its process id and where its answer can be read.

    The answer is what ``function`` returns, as JSON, after a line that says that it has been called.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, os.fdopen(reading)
    code = 1
    try:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            print("started", file=file, flush=True)
            answer = function()
            print(json.dumps(answer), file=file, flush=True)
        code = 0
    except SystemExit as error:  # TrainingInterrupted, as the interpreter would treat it
        code = error.code
    finally:
        os._exit(code)


def finish(child, file):
    """Exit code (minus the signal's number if one ended it) and answer of a child."""
    lines = file.read().splitlines()
    file.close()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(lines[-1]) if code == 0 else None


def saved_states(folder):
    """Updates after which a state was saved in a folder, the latest first."""
    return sorted((int(path.stem.split("-")[1]) for path in Path(folder).glob("*.safetensors")), reverse=True)
