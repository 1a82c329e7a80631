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


def sample_lead_order(n_samples, n_leads, probability, fraction=1.0, generator=None, device=None):
    """Disrupt the order of the leads in some of the samples.

    Parameters
    ----------
    n_samples, n_leads : int
    probability : float
        Of a sample to be shuffled. Their number in a batch is ``probability * n_samples``, rounded up or down at random
        so that it is right on average.
    fraction : float, default=1.0
        Share of the leads of a shuffled sample that exchange their places; the count is rounded, and is two at least.
    generator : torch.Generator, optional
    device : torch.device, optional

    Returns
    -------
    order : Tensor of shape (n_samples, n_leads)
        Which lead stands in each place; all orders of the chosen leads are equally likely, the right one too.
    shuffled : Tensor of shape (n_samples,)
        True: a shuffled sample.
    """
    def rand(*shape):
        return torch.rand(*shape, generator=generator, device=device)

    n_shuffled = int(probability * n_samples + rand(1).item())
    shuffled = rand(n_samples).argsort() < n_shuffled
    count = min(max(round(fraction * n_leads), 2), n_leads)
    leads = rand(n_samples, n_leads).argsort(dim=1)[:, :count]  # the chosen ones, in random order
    order = torch.arange(n_leads, device=device).expand(n_samples, -1)
    exchanged = order.scatter(1, leads.sort(dim=1).values, leads)
    return torch.where(shuffled[:, None], exchanged, order), shuffled
