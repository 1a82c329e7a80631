"""What the estimators cost beside bare torch: time of fit and transform, memory on a memmap.

    python benchmarks/overhead.py

Estimator and bare loop take turns in one process, on one thread; the ratio is that of their medians. The bare loops use
the same module and the same batches: fit's has AdamW, clipping, autocast and the loss as a number, and nothing else;
transform's is the network over blocks of the same size. Memory is what a fresh process holds of its own (not file pages)
at its peak, over what it held before, for memmaps of two sizes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from _common import machine, write_json

from skecg import ECGSelfSupervisedEmbedder
from skecg._torch import build_seeded, resolve_precision
from skecg._training import INFERENCE_BLOCK, Plan, Signals
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.objectives import MaskedReconstruction

ENCODERS = {
    "PatchTransformer, 64 wide, 2 blocks": PatchTransformer(100, 64, 2),
    "PatchTransformer, 128 wide, 4 blocks": PatchTransformer(100, 128, 4),
    "ResNet1d, 32 wide": ResNet1d(),
}


def bare_fit(X, encoder, n_epochs, batch_size, seed=0):
    """A training loop as one would write it by hand."""
    network = build_seeded(encoder.build, seed)
    module = build_seeded(lambda: MaskedReconstruction().build(network), seed + 1)
    decay = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}], lr=1e-3, fused=True
    )
    plan = Plan(max_epochs=n_epochs, batch_size=batch_size, learning_rate=1e-3, weight_decay=0.05, seed=seed, warmup=0.1)
    bfloat16 = resolve_precision("auto", torch.device("cpu")) == "bfloat16"
    generator, data = torch.Generator(), Signals(X, encoder)
    n_batches = -(-len(X) // batch_size)
    for epoch in range(n_epochs):
        rng = np.random.default_rng([seed, 1 + epoch])
        for i, rows in enumerate(np.array_split(rng.permutation(len(X)), n_batches)):
            batch = data.batch(rows, rng)
            batch.generator = generator
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * plan.factor(epoch * n_batches + i, n_epochs * n_batches)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = module(batch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            loss.item()
    return network.eval()


def bare_transform(X, network):
    """The network over all samples, block by block."""
    out = []
    with torch.inference_mode():
        for start in range(0, len(X), INFERENCE_BLOCK):
            out.append(network(torch.from_numpy(X[start:start + INFERENCE_BLOCK])).numpy())
    return np.concatenate(out)


def in_turns(functions, n_rounds):
    """Seconds of each function, in interleaved rounds after one that is not counted."""
    seconds = {name: [] for name in functions}
    for i in range(n_rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if i:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds, of, to):
    """Ratio of medians, and the range of the ratios of single rounds."""
    pairs = [a / b for a, b in zip(seconds[of], seconds[to], strict=True)]
    return {
        "ratio_of_medians": round(float(np.median(seconds[of]) / np.median(seconds[to])), 3),
        "range_of_rounds": [round(min(pairs), 3), round(max(pairs), 3)],
    }


def anonymous_mib():
    """Memory of this process that is not backed by a file."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024
    raise SystemExit("RssAnon is not in /proc/self/status: the memory part needs Linux.")


def memory_child(path, what):
    """Peak anonymous memory of fit or transform on a memmap, over what there was before."""
    torch.set_num_threads(1)
    X = np.load(path, mmap_mode="r")
    embedder = ECGSelfSupervisedEmbedder(PatchTransformer(25, 32, 1), crop_size=250, max_epochs=1, random_state=0)
    embedder.fit(X[:64]).transform(X[:64])  # what is allocated once
    before, peak, running = anonymous_mib(), [0.0], True

    def watch():
        while running:
            peak[0] = max(peak[0], anonymous_mib())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    embedder.fit(X) if what == "fit" else embedder.transform(X)
    running = False
    watcher.join()
    print(max(0.0, peak[0] - before))


def memory(n_small=512, n_large=4096):
    """MiB held by fit and transform on memmaps of two sizes."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (n_small, n_large):
            path = Path(folder, f"{n}.npy")
            X = np.lib.format.open_memmap(path, "w+", np.float32, (n, 12, 1000))
            for start in range(0, n, 256):
                X[start:start + 256] = np.random.default_rng(start).normal(size=X[start:start + 256].shape)
            X.flush()
            for what in ("fit", "transform"):
                command = [sys.executable, __file__, "--memory-child", str(path), what]
                output = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout
                results[f"{what}, {X.nbytes / 2**20:.0f} MiB memmap"] = round(float(output), 1)
            del X
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    parser.add_argument("--memory-child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_child:
        return memory_child(*args.memory_child)

    torch.set_num_threads(1)
    X = np.random.default_rng(0).normal(size=(args.samples, 12, 1000)).astype(np.float32)
    results = {}
    for name, encoder in ENCODERS.items():
        embedder = ECGSelfSupervisedEmbedder(encoder, max_epochs=2, batch_size=32, random_state=0)
        fitted = encoder.fit(X)
        seconds = in_turns(
            {"fit": lambda e=embedder: e.fit(X), "bare": lambda f=fitted: bare_fit(X, f, 2, 32)}, args.rounds
        )
        results[f"fit, {name}"] = ratio(seconds, "fit", "bare")
        network = embedder.network_
        seconds = in_turns(
            {"transform": lambda e=embedder: e.transform(X), "bare": lambda n=network: bare_transform(X, n)}, args.rounds
        )
        results[f"transform, {name}"] = ratio(seconds, "transform", "bare")
        np.testing.assert_array_equal(embedder.transform(X), bare_transform(X, network))
        print(name, results[f"fit, {name}"], results[f"transform, {name}"])
    held = memory()
    print(held)
    write_json(args.output, {
        "samples": f"{args.samples} windows of 12 leads, 1000 samples", "rounds": args.rounds,
        "time over bare torch": results, "anonymous MiB at the peak": held, "machine": machine(),
    })


if __name__ == "__main__":
    main()
