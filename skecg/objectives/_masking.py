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


def sample_span_mask(n_samples, n_positions, mask_prob, mask_length, equal_counts=True, generator=None, device=None):
    """Hide spans of positions that may overlap, as wav2vec 2.0 does.

    Each sample gets ``mask_prob * n_positions / mask_length`` spans, rounded up or down at random (in the same direction
    for all samples), two at least. Spans start at different places. Since they overlap, fewer positions are
    hidden than ``mask_prob`` says, and as many in each sample only by chance.

    Parameters
    ----------
    n_samples, n_positions : int
    mask_prob : float
        Share of the positions that would be hidden if spans never overlapped.
    mask_length : int
        Positions in a span. No span that fits within the sample reaches the very last position.
    equal_counts : bool, default=True
        Uncover hidden positions, chosen uniformly, until every sample has as few as the one with the fewest: the more
        samples, the fewer positions are hidden.
    generator : torch.Generator, optional
    device : torch.device, optional

    Returns
    -------
    mask : Tensor of shape (n_samples, n_positions)
        True: hidden.

    Raises
    ------
    ValueError
        Fewer than two positions.
    """
    if n_positions < 2:
        raise ValueError(
            f"Only {n_positions} frame(s) in time to mask: nothing would remain visible. Use longer windows or frames of "
            "fewer samples."
        )

    def rand(*shape):
        return torch.rand(*shape, generator=generator, device=device)

    n_spans = int(mask_prob * n_positions / mask_length + rand(1).item())
    n_spans = min(max(n_spans, 2), n_positions - 1)
    # spans are cut at the end where short samples leave too few places to start
    n_starts = max(n_positions - mask_length, n_spans + 1)
    starts = rand(n_samples, n_starts).argsort(dim=1)[:, :n_spans]  # (B, S)
    covered = starts[:, :, None] + torch.arange(mask_length, device=device)  # (B, S, length)
    mask = torch.zeros(n_samples, n_positions + mask_length, dtype=torch.bool, device=device)
    mask = mask.scatter(1, covered.flatten(1), True)[:, :n_positions]
    if equal_counts:
        ranks = rand(n_samples, n_positions).masked_fill(~mask, 2.0).argsort(dim=1).argsort(dim=1)
        mask = ranks < mask.sum(dim=1).min()
    return mask


def sample_lead_mask(n_samples, n_leads, probability, lead_valid=None, generator=None, device=None):
    """Take each lead away at a given probability, but never the last one that a sample has.

    Parameters
    ----------
    n_samples, n_leads : int
    probability : float
        Of a lead to be taken away.
    lead_valid : Tensor of shape (n_samples, n_leads), optional
        False for a lead that is missing anyway.
    generator : torch.Generator, optional
    device : torch.device, optional

    Returns
    -------
    mask : Tensor of shape (n_samples, n_leads)
        True: taken away. Where all leads would be, one of those that are there is kept, chosen uniformly.
    """
    def rand():
        return torch.rand(n_samples, n_leads, generator=generator, device=device)

    mask, priority = rand() < probability, rand()
    if lead_valid is not None:
        priority = priority.masked_fill(~lead_valid, -1.0)
    left = ~mask if lead_valid is None else ~mask & lead_valid
    spared = torch.nn.functional.one_hot(priority.argmax(dim=1), n_leads).bool()  # (B, L)
    return mask & ~(spared & ~left.any(dim=1, keepdim=True))


def sample_negatives(counts, n_positions, n_negatives, generator=None):
    """Other positions of the same sample, uniformly and with replacement.

    Parameters
    ----------
    counts : Tensor of shape (n_samples,)
        Positions that each sample has.
    n_positions : int
        Largest of the counts.
    n_negatives : int
        For each position.
    generator : torch.Generator, optional

    Returns
    -------
    index : Tensor of shape (n_samples, n_positions, n_negatives)
        Below the sample's count and not the position itself; the position itself where there is no other.
    """
    others = (counts[:, None, None] - 1).clamp(min=0)  # (B, 1, 1)
    drawn = torch.rand(len(counts), n_positions, n_negatives, generator=generator, device=counts.device)
    index = torch.minimum((drawn * others).long(), (others - 1).clamp(min=0))
    own = torch.arange(n_positions, device=counts.device)[:, None]
    return index + ((index >= own) & (others > 0))


def sample_token_mask(there, mask_ratio, span_length=1, generator=None):
    """Choose tokens of sequences of unequal length, as many in each as its length asks for.

    The tokens of a sequence are cut into spans of ``span_length``, from a random place on; of the spans, some are
    chosen uniformly.

    Parameters
    ----------
    there : Tensor of shape (n_samples, n_positions)
        False where a sequence has no token that may be chosen (padding). The others of a row count as neighbours.
    mask_ratio : float
        Share of the tokens to choose. The number of spans is rounded, and is one at least.
    span_length : int, default=1
    generator : torch.Generator, optional

    Returns
    -------
    mask : Tensor of shape (n_samples, n_positions)
        True: chosen. Nothing in a row without tokens.
    """
    n_samples, n_positions = there.shape
    count = there.sum(dim=1, keepdim=True)  # (B, 1)
    shift = torch.randint(span_length, (n_samples, 1), generator=generator, device=there.device)
    span = ((there.cumsum(dim=1) - 1).clamp(min=0) + shift) // span_length  # (B, N), of each token
    n_spans = (count - 1 + shift) // span_length + 1  # (B, 1)
    noise = torch.rand(n_samples, n_positions + 1, generator=generator, device=there.device)
    noise = noise.masked_fill(torch.arange(n_positions + 1, device=there.device) >= n_spans, 2.0)
    rank = noise.argsort(dim=1).argsort(dim=1)  # of each span
    n_chosen = (mask_ratio * count / span_length).round().clamp(min=1)
    return (rank.gather(1, span) < n_chosen) & there
