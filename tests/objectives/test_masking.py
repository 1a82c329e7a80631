import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skecg.objectives._masking import sample_time_mask


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
