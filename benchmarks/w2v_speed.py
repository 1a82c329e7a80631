"""A pretraining step of Wav2Vec2CMSC beside the Wav2Vec2ForPreTraining of transformers, and the processor's peak.

    python benchmarks/w2v_speed.py            (needs transformers)

The network of ``recipes.w2v_cmsc_rlm(size="small")``: 4 convolutions of width 256, 4 blocks of width 256, 12 leads, pieces
of 2,500 samples (156 frames), 2 x 320 codes, 100 negatives, dropout 0.1, none on attention weights. Ours is the whole step,
random draws included: masks, leads, negatives, noise, four losses, backward, AdamW. Transformers' model has the same sizes,
its first convolution takes 12 leads, and it is spared what it does not have: it gets masks and negatives ready-made and
computes two losses (contrastive, diversity). Steps and products of matrices take turns in one process on one thread; the
ratio is that of the medians. Operations are those of the direct formulas (three times the products of the forward pass, the
positional convolution among them, losses not); the peak is the fastest of three square products in the same arithmetic,
each in its fastest round.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _common import machine, write_json
from masked_reconstruction_speed import product_of
from torch import nn

from skecg._torch import build_seeded
from skecg.objectives import Batch
from skecg.recipes import w2v_cmsc_rlm

N_TIMES, N_FRAMES, DIM, DEPTH, KERNEL, GROUPS = 2500, 156, 256, 4, 128, 16


class LeadFeatures(nn.Module):
    """transformers' extractor of features, of several leads."""

    def __init__(self, extractor, n_leads):
        super().__init__()
        self.conv_layers = extractor.conv_layers
        first = self.conv_layers[0].conv
        self.conv_layers[0].conv = nn.Conv1d(n_leads, first.out_channels, first.kernel_size, first.stride, bias=False)

    def forward(self, x):
        for layer in self.conv_layers:
            x = layer(x)
        return x


def transformers_step(x, precision):
    """One update of transformers' model, as a function; the published script's AdamW."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    model = Wav2Vec2ForPreTraining(Wav2Vec2Config(
        hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=4, intermediate_size=4 * DIM, conv_dim=[DIM] * 4,
        conv_stride=[2] * 4, conv_kernel=[2] * 4, num_conv_pos_embeddings=KERNEL, num_conv_pos_embedding_groups=GROUPS,
        hidden_dropout=0.1, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.1, layerdrop=0.0,
        num_codevectors_per_group=320, num_codevector_groups=2, codevector_dim=256, proj_codevector_dim=256,
        num_negatives=100,
    ))
    model.wav2vec2.feature_extractor = LeadFeatures(model.wav2vec2.feature_extractor, x.shape[1])
    np.random.seed(0)  # noqa: NPY002 - what transformers draws from
    mask = _compute_mask_indices((len(x), N_FRAMES), 0.65, 10)
    negatives = torch.from_numpy(_sample_negative_indices((len(x), N_FRAMES), 100, mask))
    mask = torch.from_numpy(mask)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(x, mask_time_indices=mask, sampled_negative_indices=negatives).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(windows, precision):
    """One update of Wav2Vec2CMSC, as a function."""
    embedder = w2v_cmsc_rlm("upstream", "small")
    encoder = embedder.encoder.fit(windows)
    module = build_seeded(lambda: embedder.objective.build(encoder.build()), 0).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)
    batch = Batch(x=torch.from_numpy(windows), generator=torch.Generator().manual_seed(0))

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = module(batch)["loss"]
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def operations_per_piece():
    """Of a step: multiplications and additions of the forward products, and twice as many backward."""
    frames = [N_TIMES // 2**i for i in range(1, 5)]
    stem = sum(2 * n * 2 * n_in * DIM for n, n_in in zip(frames, (12, DIM, DIM, DIM), strict=True))
    positions = 2 * N_FRAMES * KERNEL * DIM * DIM // GROUPS
    blocks = DEPTH * (24 * N_FRAMES * DIM**2 + 4 * N_FRAMES**2 * DIM)
    return 3 * (stem + positions + blocks + 2 * N_FRAMES * DIM**2)


def measure(precision, n_windows, n_rounds):
    """Seconds of everything in turns; ratios of medians."""
    windows = np.random.default_rng(0).normal(size=(n_windows, 12, 2 * N_TIMES)).astype(np.float32)
    pieces = torch.from_numpy(windows).unflatten(-1, (2, N_TIMES)).transpose(1, 2).flatten(0, 1).contiguous()
    products = {f"product of {size}": product_of(size, precision) for size in (1024, 2048, 3072)}
    functions = {
        "skecg": our_step(windows, precision), "transformers": transformers_step(pieces, precision),
        **{name: function for name, (function, _) in products.items()},
    }
    seconds = {name: [] for name in functions}
    for i in range(n_rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if i:
                seconds[name].append(time.perf_counter() - started)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    peak = max(operations / min(seconds[name]) for name, (_, operations) in products.items())
    pairs = [b / a for a, b in zip(seconds["skecg"], seconds["transformers"], strict=True)]
    # of what else runs on the processor the fastest round has suffered least
    share = {name: len(pieces) * operations_per_piece() / min(seconds[name]) / peak for name in ("skecg", "transformers")}
    return {
        "precision": precision, "pieces": len(pieces), "rounds": n_rounds,
        "transformers_over_skecg": round(median["transformers"] / median["skecg"], 2),
        "range_of_rounds": [round(min(pairs), 2), round(max(pairs), 2)],
        "pieces_per_second": {name: round(len(pieces) / median[name], 2) for name in share},
        "gigaflop_per_piece": round(operations_per_piece() / 1e9, 2),
        "peak_gigaflop_per_second": round(peak / 1e9, 1),
        "share_of_peak": {name: round(value, 3) for name, value in share.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--windows", type=int, default=8, help="of 10 s; each gives two pieces of 5 s")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "w2v_speed.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(precision, args.windows, args.rounds) for precision in ("float32", "bfloat16")]
    for row in results:
        print(row)
    write_json(args.output, {"machine": machine(), "threads": 1, "results": results})


if __name__ == "__main__":
    main()
