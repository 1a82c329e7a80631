"""Masked language modelling beside Hugging Face's transformers; quantising beside numpy; tokenising beside bare tokenizers.

    pip install transformers
    python benchmarks/heartbert_speed.py

A step is forward, backward and fused AdamW on sequences of 512 tokens, 15 % of them hidden, with the small network of
skecg.recipes.heartbert (4 blocks of width 256) at two sizes of the vocabulary. transformers' RobertaForMaskedLM has the same
layers, dropout and sequences, and the faster of its two implementations of attention counts. Levels are found in windows of
1,080 samples of a simulated lead, or of MIT-BIH's record 101 (--data), and in the same samples in random order, where
np.searchsorted cannot start from its last answer, after a call of the same (the windows are in the processor's caches), and
"cold" after 64 MiB of something else; tokens are made of the windows. Everything takes turns in one process on
one thread; ratios are those of medians of processor time.
"""

import argparse
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from _common import machine, write_json

from skecg._torch import build_seeded
from skecg.datasets import fetch_mitdb, make_ecg
from skecg.encoders._token import PAD, TokenNetwork
from skecg.objectives import Batch, MaskedLanguageModeling
from skecg.preprocessing import ECGQuantizer, ECGTokenizer
from skecg.preprocessing._quantizer import quantize
from skecg.preprocessing._tokenizer import _parsed, _text

N_TOKENS, WIDTH, DEPTH, HEADS, DROPOUT = 512, 256, 4, 4, 0.1


def in_turns(functions, n_rounds, before=lambda function: None):
    """Median processor time of each function, in seconds, after one round that does not count.

    ``before(function)`` is called before each, so that all find the processor's caches in the same state.
    """
    seconds = {name: [] for name in functions}
    for i in range(n_rounds + 1):
        for name, function in functions.items():
            before(function)
            started = time.process_time()
            function()
            if i:
                seconds[name].append(time.process_time() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def step_of(model, loss_of, precision):
    """One update, as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(model)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def ours(vocab_size, ids, precision):
    def build():
        network = TokenNetwork(
            vocab_size, 1, N_TOKENS, WIDTH, DEPTH, HEADS, 4.0, DROPOUT, 0.0, N_TOKENS)
        return MaskedLanguageModeling().build(network)

    batch = Batch(ids[:, None].int(), generator=torch.Generator().manual_seed(0))
    return step_of(build_seeded(build, 0).train(), lambda module: module(batch)["loss"], precision)


def theirs(vocab_size, ids, precision, attention):
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=vocab_size, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=N_TOKENS + 2, type_vocab_size=1, pad_token_id=PAD,
        hidden_dropout_prob=DROPOUT, attention_probs_dropout_prob=0.0, attn_implementation=attention)
    model = build_seeded(lambda: RobertaForMaskedLM(config), 0).train()
    hidden = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.15
    seen, labels = torch.where(hidden, 6, ids), torch.where(hidden, ids, -100)
    return step_of(model, lambda model: model(input_ids=seen, labels=labels).loss, precision)


def measure_steps(vocab_size, precision, batch_size, n_rounds):
    ids = torch.randint(7, vocab_size, (batch_size, N_TOKENS), generator=torch.Generator().manual_seed(0))
    median = in_turns({
        "skecg": ours(vocab_size, ids, precision),
        **{name: theirs(vocab_size, ids, precision, name) for name in ("eager", "sdpa")},
    }, n_rounds)
    best = min(("eager", "sdpa"), key=median.get)
    return {
        "vocab_size": vocab_size, "precision": precision, "sequences": batch_size, "rounds": n_rounds,
        "skecg_tokens_per_second": round(batch_size * N_TOKENS / median["skecg"]),
        "transformers_tokens_per_second": round(batch_size * N_TOKENS / median[best]), "attention": best,
        "ratio": round(median[best] / median["skecg"], 3),
    }


def windows_of(data):
    """(n_windows, 1080) millivolt of one lead at 360 Hz."""
    if data is None:
        return make_ecg(720, fs=360, duration=3.0, random_state=0)[0][:, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part of the data set
        record = fetch_mitdb(data, records="101", download_if_missing=False).records[0]
    return np.asarray(record.signal[0, : 600 * 1080]).reshape(-1, 1080)


def measure_symbols(windows, method, n_rounds):
    quantizer = ECGQuantizer(100, method=method).fit(windows)
    edges = quantizer.edges_
    levels = quantize(windows, edges)
    assert np.array_equal(levels, np.searchsorted(edges, windows, side="right"))
    shuffled = np.random.default_rng(0).permuted(windows.ravel()).reshape(windows.shape)
    quantising = {
        "skecg": lambda: quantize(windows, edges), "numpy": lambda: np.searchsorted(edges, windows, side="right"),
        "skecg shuffled": lambda: quantize(shuffled, edges),
        "numpy shuffled": lambda: np.searchsorted(edges, shuffled, side="right"),
    }
    elsewhere = np.zeros(2**23)  # 64 MiB
    warm = in_turns(quantising, 5 * n_rounds, before=lambda function: function())
    cold = in_turns(quantising, 5 * n_rounds, before=lambda function: elsewhere.__iadd__(1))
    tokenizer = ECGTokenizer(4096).fit(levels)
    bare = _parsed(tokenizer.json_)
    texts = [_text(line, tokenizer.first_character_) for line in levels]
    tokenised = in_turns({
        "skecg": lambda: tokenizer.encode(levels),
        "bare": lambda: [encoding.ids for encoding in bare.encode_batch_fast(texts, add_special_tokens=False)],
    }, 5 * n_rounds)
    return {
        "method": method, "samples": windows.size, "snr_db": round(quantizer.snr_db_, 2),
        "samples_per_token": round(windows.size / sum(map(len, tokenizer.encode(levels))), 2),
        "million_samples_per_second": round(windows.size / warm["skecg"] / 1e6, 1),
        "numpy_over_skecg": round(warm["numpy"] / warm["skecg"], 2),
        "numpy_over_skecg_shuffled": round(warm["numpy shuffled"] / warm["skecg shuffled"], 2),
        "numpy_over_skecg_cold": round(cold["numpy"] / cold["skecg"], 2),
        "million_samples_tokenised_per_second": round(windows.size / tokenised["skecg"] / 1e6, 2),
        "bare_tokenizers_over_skecg": round(tokenised["bare"] / tokenised["skecg"], 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=None, help="folder with mitdb/ in PhysioNet's layout")
    parser.add_argument("--only", choices=["symbols", "steps"], default=None)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "heartbert_speed.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {"machine": machine(), "symbols": [], "steps": []}
    if args.only != "steps":
        windows = windows_of(args.data)
        for method in ("quantile", "lloyd-max"):
            results["symbols"].append(measure_symbols(windows, method, args.rounds))
            print(results["symbols"][-1], flush=True)
    if args.only != "symbols":
        results["machine"]["transformers"] = version("transformers")
        for vocab_size in (4096, 52_000):
            for precision in ("float32", "bfloat16"):
                results["steps"].append(measure_steps(vocab_size, precision, args.batch_size, args.rounds))
                print(results["steps"][-1], flush=True)
    write_json(args.output, results)


if __name__ == "__main__":
    main()
