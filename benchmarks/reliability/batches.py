"""Results do not depend on what else is embedded: subsets, orders and thread counts, to the last bit.

    python benchmarks/reliability/batches.py [--rounds 20]

For every encoder, `transform` of 70 recordings of 12 leads and 5,000 samples (10 s at 500 Hz, simulated) is compared with
`transform` of random subsets in random orders, with one and two threads; so is `predict_proba` of a classifier on the same
network. A third of the recordings lack leads. Weights are random: bits do not depend on what they are.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import machine, write_json

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.encoders import ConvTransformer, PatchTransformer, ResNet1d, TokenTransformer
from skecg.heads import ArcFaceHead, BiLSTMHead
from skecg.preprocessing import ECGQuantizer, ECGTokenizer

CASES = {
    "PatchTransformer": (lambda: PatchTransformer(125, embed_dim=64, depth=2), {}, None),
    "PatchTransformer, lead by lead": (lambda: PatchTransformer(125, embed_dim=64, depth=1, pooling="lead"), {}, None),
    "PatchTransformer, crops": (lambda: PatchTransformer(125, embed_dim=64, depth=2), {"crop_size": 1250}, None),
    "ResNet1d": (lambda: ResNet1d(16), {}, ArcFaceHead()),
    "ConvTransformer": (lambda: ConvTransformer(64, 2, conv_dim=32, conv_strides=(5, 4, 2)), {}, None),
    "ConvTransformer, crops": (
        lambda: ConvTransformer(64, 2, conv_dim=32, conv_strides=(5, 4, 2)), {"crop_size": 1250}, None),
    "TokenTransformer": (
        lambda: TokenTransformer(ECGQuantizer(32), ECGTokenizer(512, max_samples=500_000), embed_dim=32, depth=1, n_heads=2),
        {}, BiLSTMHead(16)),
}


def signals(n_samples, n_times, n_leads=12, seed=0):
    """Recordings, a third of which lack leads; lengths of their token sequences differ."""
    X = make_ecg(n_samples, duration=n_times / 500, fs=500, random_state=seed)[0][:, :n_leads]
    rng = np.random.default_rng(seed)
    for i in range(0, n_samples, 3):
        X[i, rng.permutation(n_leads)[:rng.integers(1, n_leads)]] = np.nan
    return X


def largest_difference(function, X, n_rounds, seed=0):
    """Over random subsets, orders and thread counts; 0 only if all bits are equal."""
    rng, n_threads = np.random.default_rng(seed), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected, largest = function(X), 0.0
        for i in range(n_rounds):
            torch.set_num_threads(1 + i % 2)
            size = 1 if i == 0 else int(rng.integers(1, len(X) + 1))
            rows = rng.permutation(len(X))[:size]
            found = function(X[rows])
            if found.tobytes() != np.ascontiguousarray(expected[rows]).tobytes():
                largest = max(largest, float(np.nanmax(np.abs(found - expected[rows]))), np.finfo(float).tiny)
    finally:
        torch.set_num_threads(n_threads)
    return largest


def functions(name, X):
    """What is compared for a case, {name: function of X}."""
    encoder, parameters, head = CASES[name]
    build = {"max_epochs": 0, "random_state": 0, **parameters}
    embedder = ECGSelfSupervisedEmbedder(encoder(), **build).fit(X)
    tokens = ECGSelfSupervisedEmbedder(encoder(), output="tokens", **build).fit(X)
    y = np.arange(len(X)) % 3
    few = slice(0, 12)
    classifier = ECGClassifier(
        ECGSelfSupervisedEmbedder(encoder(), **build), head, max_epochs=1, batch_size=6, random_state=0).fit(X[few], y[few])
    return {
        "transform": embedder.transform, "transform to tokens": tokens.transform, "predict_proba": classifier.predict_proba,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--samples", type=int, default=70)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reliability_batches.json"))
    args = parser.parse_args()
    X, results = signals(args.samples, 5000), {}
    for name in CASES:
        results[name] = {
            what: largest_difference(function, X, args.rounds) for what, function in functions(name, X).items()}
        print(name, results[name], flush=True)
    write_json(args.output, {
        "recordings": list(X.shape), "subsets": args.rounds, "threads": [1, 2], "largest difference": results,
        "machine": machine(),
    })


if __name__ == "__main__":
    main()
