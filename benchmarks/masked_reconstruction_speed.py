"""What it saves to encode the visible patches only, and how near a pretraining step comes to the processor's peak.

    python benchmarks/masked_reconstruction_speed.py

A step is forward, backward and AdamW of MaskedReconstruction with ViT-S as in ST-MEM: 12 leads of 2,250 samples in
patches of 75 (360 tokens), 12 blocks of width 384, three quarters hidden, decoder of 4 blocks of width 256, each lead
on its own. "All patches" is the same module with every patch through the encoder, the hidden ones as a learned vector.
Steps and products of matrices take turns in one process on one thread. The ratio is that of the medians. The peak is
the fastest of three square products in the same arithmetic, each in its fastest round; the share is that of the fastest
step with visible patches, operations counted by torch: multiplications and additions of matrix products only.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _common import machine, write_json
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skecg._torch import build_seeded
from skecg.encoders import PatchTransformer
from skecg.objectives import Batch, MaskedReconstruction
from skecg.objectives._detection import masked_mean_square

N_TIMES, PATCH = 2250, 75


class AllPatches(nn.Module):
    """The same task with all patches through the encoder; parts are the visible-only module's."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.hidden_patch = nn.Parameter(torch.zeros(module.encoder.embed_dim))

    def forward(self, batch):
        module, network = self.module, self.module.encoder
        n_patches = network.n_patches(N_TIMES)
        tokens = network.tokenize(batch.x)
        hidden = module.draw_hidden(batch, n_patches).flatten(1)  # (B, L * P)
        positions = network.positions(n_patches)
        projected = network.project(tokens)
        h = torch.where(hidden.unsqueeze(-1), self.hidden_patch.to(projected.dtype), projected) + positions
        h = network.contextualize(h)
        everything = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        prediction = module._decode(h, everything, positions, network.n_leads)
        return {"loss": masked_mean_square(prediction, tokens, hidden.unsqueeze(-1))}


def step_of(module, batch, precision):
    """One update, as a function, and its operations."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = module(batch)["loss"]
        loss.backward()
        optimizer.step()
        return loss.item()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops()


def product_of(size, precision):
    """A product of square matrices, as a function, and its operations."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b, out = (torch.randn(size, size).to(dtype) for _ in range(3))
    return (lambda: torch.mm(a, b, out=out)), 2 * size**3


def measure(precision, batch_size, n_rounds):
    """Seconds of everything in turns; ratios of medians."""
    encoder = PatchTransformer(PATCH, 384, 12, n_heads=6)
    X = np.random.default_rng(0).normal(size=(batch_size, 12, N_TIMES)).astype(np.float32)
    encoder.fit(X)
    objective = MaskedReconstruction(0.75, decoder_dim=256, decoder_depth=4)
    visible, complete = (build_seeded(lambda: objective.build(encoder.build()), 0) for _ in range(2))
    batch = Batch(x=torch.from_numpy(X), generator=torch.Generator().manual_seed(0))
    functions = {
        "visible patches": step_of(visible.train(), batch, precision),
        "all patches": step_of(AllPatches(complete).train(), batch, precision),
        **{f"product of {size}": product_of(size, precision) for size in (1024, 2048, 3072)},
    }
    seconds = {name: [] for name in functions}
    for i in range(n_rounds + 1):
        for name, (function, _) in functions.items():
            started = time.perf_counter()
            function()
            if i:
                seconds[name].append(time.perf_counter() - started)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    # of what else runs on the processor the fastest round has suffered least
    rate = {name: operations / min(seconds[name]) for name, (_, operations) in functions.items()}
    peak = max(value for name, value in rate.items() if name.startswith("product"))
    pairs = [b / a for a, b in zip(seconds["visible patches"], seconds["all patches"], strict=True)]
    return {
        "precision": precision, "batch_size": batch_size, "rounds": n_rounds,
        "all_over_visible": round(median["all patches"] / median["visible patches"], 3),
        "range_of_rounds": [round(min(pairs), 3), round(max(pairs), 3)],
        "gigaflop_per_window": round(functions["visible patches"][1] / batch_size / 1e9, 2),
        "peak_gigaflop_per_second": round(peak / 1e9, 1),
        "share_of_peak": round(rate["visible patches"] / peak, 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path,
                        default=Path(__file__).parent / "results" / "masked_reconstruction_speed.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(precision, args.batch_size, args.rounds) for precision in ("float32", "bfloat16")]
    for row in results:
        print(row)
    write_json(args.output, {"machine": machine(), "threads": 1, "results": results})


if __name__ == "__main__":
    main()
