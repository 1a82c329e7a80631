"""Samplers of what is hidden: pure functions of shapes and a generator."""

import torch


def sample_time_mask(n_samples, n_positions, mask_ratio, generator=None, device=None):
    """Hide the same number of positions in every sample, chosen uniformly.

    Parameters
    ----------
    n_samples, n_positions : int
    mask_ratio : float
        Share of positions to hide; the count is rounded, and at least one position is hidden and one is left.
    generator : torch.Generator, optional
    device : torch.device, optional

    Returns
    -------
    mask : Tensor of shape (n_samples, n_positions)
        True: hidden.

    Raises
    ------
    ValueError
        Fewer than two positions: nothing could be hidden and seen at once.
    """
    if n_positions < 2:
        raise ValueError(
            f"Only {n_positions} position(s) in time to mask: nothing would remain visible. Use longer windows or "
            "smaller patches (at most half of n_times)."
        )
    n_hidden = min(max(round(mask_ratio * n_positions), 1), n_positions - 1)
    noise = torch.rand(n_samples, n_positions, generator=generator, device=device)
    ranks = noise.argsort(dim=1).argsort(dim=1)
    return ranks < n_hidden
