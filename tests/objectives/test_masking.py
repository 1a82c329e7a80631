import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skecg.objectives._masking import (
    sample_lead_mask,
    sample_negatives,
    sample_span_mask,
    sample_time_mask,
    sample_token_mask,
)


@settings(deadline=None, max_examples=150)
@given(
    n_samples=st.integers(0, 20), n_positions=st.integers(2, 60), mask_ratio=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**31),
)
def test_counts_are_exact_and_draws_reproducible(n_samples, n_positions, mask_ratio, seed):
    mask = sample_time_mask(n_samples, n_positions, mask_ratio, torch.Generator().manual_seed(seed))
    assert mask.shape == (n_samples, n_positions)
    assert mask.dtype == torch.bool
    counts = mask.sum(dim=1).tolist()
    expected = min(max(round(mask_ratio * n_positions), 1), n_positions - 1)
    assert counts == [expected] * n_samples
    again = sample_time_mask(n_samples, n_positions, mask_ratio, torch.Generator().manual_seed(seed))
    assert torch.equal(mask, again)


@pytest.mark.parametrize(("n_positions", "mask_ratio"), [(8, 0.5), (10, 0.3), (5, 0.75)])
def test_every_position_and_pair_is_equally_likely(n_positions, mask_ratio):
    n = 20000
    mask = sample_time_mask(n, n_positions, mask_ratio, torch.Generator().manual_seed(0)).double().numpy()
    k = int(mask[0].sum())
    share = k / n_positions
    error = 5 * np.sqrt(share * (1 - share) / n)
    assert np.abs(mask.mean(axis=0) - share).max() < error
    pairs = mask.T @ mask / n  # drawn without replacement
    off = pairs[~np.eye(n_positions, dtype=bool)]
    assert np.abs(off - k * (k - 1) / (n_positions * (n_positions - 1))).max() < 5 * np.sqrt(0.25 / n)


def test_samples_are_drawn_independently():
    mask = sample_time_mask(4000, 6, 0.5, torch.Generator().manual_seed(0)).double().numpy()
    neighbours = (mask[:-1] * mask[1:]).mean(axis=0)
    assert np.abs(neighbours - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 4000)
    assert len(np.unique(mask, axis=0)) == 20  # all choices of 3 out of 6


def test_generator_is_used_and_the_global_one_is_not():
    before = torch.get_rng_state()
    sample_time_mask(3, 10, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n_positions", [0, 1])
def test_nothing_would_remain(n_positions):
    with pytest.raises(ValueError, match=rf"Only {n_positions} position\(s\) in time to mask"):
        sample_time_mask(3, n_positions, 0.5)


def naive_spans(rng, n_samples, n_positions, mask_prob, mask_length, equal_counts):
    """wav2vec 2.0's spans, one sample and one position at a time."""
    n_spans = max(2, int(mask_prob * n_positions / mask_length + rng.random()))
    hidden = []
    for _ in range(n_samples):
        starts = rng.choice(n_positions - mask_length, n_spans, replace=False)
        hidden.append(sorted({start + i for start in starts for i in range(mask_length)}))
    if equal_counts:
        fewest = min(map(len, hidden))
        hidden = [rng.choice(row, fewest, replace=False) for row in hidden]
    return [len(row) for row in hidden]


@pytest.mark.parametrize("equal_counts", [True, False])
def test_spans_have_the_statistics_of_a_naive_loop(equal_counts):
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    ours, naive = [], []
    for _ in range(150):
        counts = sample_span_mask(6, 156, 0.65, 10, equal_counts, generator).sum(dim=1).numpy()
        assert (len(set(counts)) == 1) or not equal_counts
        ours.append(counts.mean())
        naive.append(np.mean(naive_spans(rng, 6, 156, 0.65, 10, equal_counts)))
    error = np.hypot(np.std(ours), np.std(naive)) / np.sqrt(150)
    assert abs(np.mean(ours) - np.mean(naive)) < 4 * error
    if not equal_counts:
        assert np.mean(ours) > 74


@pytest.mark.parametrize("case", range(5))
def test_spans_have_the_published_samplers_statistics(reference, case):
    stats = json.loads((reference / "w2v_cmsc_rlm_tiny" / "mask_sampler_stats.json").read_text())[case]
    generator, n = torch.Generator().manual_seed(1), 200 if stats["batch"] < 64 else 60
    counts = [sample_span_mask(stats["batch"], stats["frames"], 0.65, 10, True, generator)[0].sum().item() for _ in range(n)]
    error = np.hypot(np.std(counts) / np.sqrt(n), stats["std_of_mean"])
    assert abs(np.mean(counts) - stats["mean_masked"]) < 4 * error


def test_spans_are_spans():
    mask = sample_span_mask(200, 60, 0.4, 7, False, torch.Generator().manual_seed(0)).numpy()
    n_spans = set()
    for row in mask:
        edges = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
        lengths = edges[1::2] - edges[::2]
        assert (lengths >= 7).all()
        n_spans.add(int(np.ceil(lengths / 7).sum()))
    assert not mask[:, -1].any()  # as published
    assert (mask[:, :-1].mean(axis=0) > 0.02).all()  # anywhere else
    assert max(n_spans) <= 4  # 0.4 * 60 / 7, rounded up


@pytest.mark.parametrize("n_positions", range(2, 13))
@pytest.mark.parametrize("equal_counts", [True, False])
def test_spans_in_short_samples(n_positions, equal_counts):
    generator = torch.Generator().manual_seed(0)
    masks = torch.cat([sample_span_mask(8, n_positions, 0.65, 10, equal_counts, generator) for _ in range(5)])
    assert masks.shape == (40, n_positions)
    assert masks.any(dim=1).all()


def test_spans_need_two_positions():
    with pytest.raises(ValueError, match=r"Only 1 frame\(s\) in time to mask"):
        sample_span_mask(4, 1, 0.65, 10)


def test_lead_mask_spares_one_lead():
    generator = torch.Generator().manual_seed(0)
    mask = sample_lead_mask(20000, 3, 0.5, None, generator)
    assert not mask.all(dim=1).any()
    expected = np.array([(1 + 3) / 8, 3 / 8, 1 / 8])  # one, two, three leads left: the eighth that had none joins the first
    found = np.bincount((~mask).sum(dim=1), minlength=4)[1:] / 20000
    np.testing.assert_allclose(found, expected, atol=0.015)
    spared = ~mask[(~mask).sum(dim=1) == 1]
    np.testing.assert_allclose(spared.float().mean(dim=0), 1 / 3, atol=0.02)
    assert not sample_lead_mask(50, 1, 0.9, None, generator).any()
    assert not sample_lead_mask(50, 4, 0.0, None, generator).any()


def test_lead_mask_spares_a_lead_that_is_there():
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(2000, 4, generator=generator) < 0.4
    valid[:, 2] |= ~valid.any(dim=1)
    left = valid & ~sample_lead_mask(2000, 4, 0.8, valid, generator)
    assert left.any(dim=1).all()
    only = valid.sum(dim=1) == 1
    assert torch.equal(left[only], valid[only])


def test_negatives_are_other_positions_of_the_sample():
    counts, generator = torch.tensor([1, 2, 5, 9]), torch.Generator().manual_seed(0)
    index = sample_negatives(counts, 9, 4000, generator)
    assert index.shape == (4, 9, 4000)
    assert (index[0, 0] == 0).all()  # no other
    for row, count in enumerate(counts.tolist()):
        for position in range(count if count > 1 else 0):
            found = np.bincount(index[row, position], minlength=count) / 4000
            expected = np.full(count, 1 / (count - 1))
            expected[position] = 0
            np.testing.assert_allclose(found, expected, atol=0.04)


def naive_tokens(there, mask_ratio, span_length, shift, noise):
    """The chosen tokens of one sequence, one token at a time."""
    tokens = [i for i, is_there in enumerate(there) if is_there]
    spans = {}
    for k, i in enumerate(tokens):
        spans.setdefault((k + shift) // span_length, []).append(i)
    n_chosen = max(1, int(torch.tensor(mask_ratio * len(tokens) / span_length).round()))
    chosen = sorted(spans, key=lambda span: noise[span])[:n_chosen]
    return sorted(i for span in chosen for i in spans[span])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=5), st.floats(0.05, 0.95),
    st.integers(1, 5), st.integers(0, 10**6),
)
def test_tokens_are_chosen_as_by_a_naive_loop(rows, mask_ratio, span_length, seed):
    there, generator = torch.tensor(rows), torch.Generator().manual_seed(seed)
    mask = sample_token_mask(there, mask_ratio, span_length, generator)
    generator.manual_seed(seed)
    shift = torch.randint(span_length, (len(rows), 1), generator=generator)
    noise = torch.rand(len(rows), 13, generator=generator)
    for i, row in enumerate(rows):
        assert mask[i].nonzero()[:, 0].tolist() == naive_tokens(row, mask_ratio, span_length, shift[i].item(), noise[i])


@pytest.mark.parametrize("span_length", [1, 3])
def test_every_token_is_chosen_equally_often(span_length):
    there = torch.ones(20_000, 30, dtype=torch.bool)
    share = sample_token_mask(there, 0.2, span_length, torch.Generator().manual_seed(0)).float().mean(dim=0)
    # the first and the last span may be shorter than the others, and are chosen as often
    assert share.sub(share.mean()).abs().max() < 0.015
    assert abs(share.mean() - 0.2) < 0.015
