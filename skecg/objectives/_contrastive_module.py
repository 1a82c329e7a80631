"""The module of Wav2Vec2CMSC: views, quantiser, and the losses within and between records."""

import torch
import torch.nn.functional as F
from torch import nn

from ..encoders._layers import Dropout
from ._masking import sample_lead_mask, sample_negatives, sample_span_mask


class ProductQuantizer(nn.Module):
    """Vectors to the nearest of what a few codebooks can say: one code from each, chosen by a linear layer.

    Parameters
    ----------
    latent_dim : int
        Width of the vectors.
    n_groups, n_codes : int
        Codebooks, and vectors in each.
    dim : int
        Width of the joined codebook vectors.
    """

    def __init__(self, latent_dim, n_groups, n_codes, dim):
        super().__init__()
        self.n_groups = n_groups
        self.choose = nn.Linear(latent_dim, n_groups * n_codes)
        nn.init.normal_(self.choose.weight)
        nn.init.zeros_(self.choose.bias)
        self.codebook = nn.Parameter(torch.rand(n_groups, n_codes, dim // n_groups))

    def forward(self, latents, temperature, noise=None):
        """Quantise.

        Parameters
        ----------
        latents : Tensor of shape (n, latent_dim)
        temperature : float
            Of the softmax through which gradients reach the choice.
        noise : Tensor of shape (n, n_groups, n_codes), optional
            Added to the logits in training. None: the choice is that of the logits, and has no gradient.

        Returns
        -------
        quantized : Tensor of shape (n, dim)
        codes : Tensor of shape (n, n_groups)
        logits : Tensor of shape (n, n_groups, n_codes)
            Without the noise.
        """
        logits = self.choose(latents).unflatten(-1, (self.n_groups, -1))
        noisy = logits if noise is None else logits + noise
        codes = noisy.argmax(dim=-1)  # (n, G)
        if noise is None:
            groups = torch.arange(self.n_groups, device=codes.device)
            return self.codebook[groups, codes].flatten(1), codes, logits
        soft = (noisy / temperature).softmax(dim=-1)
        hard = F.one_hot(codes, logits.shape[-1]).to(soft.dtype)
        choice = hard - soft.detach() + soft  # forward hard, backward soft
        return torch.einsum("ngv,gvd->ngd", choice, self.codebook).flatten(1), codes, logits


def contrastive_logits(context, target, codes, negatives, temperature):
    """Similarity of each position with its target, then with those of other positions.

    Parameters
    ----------
    context, target : Tensors of shape (S, M, F)
        What is predicted at M positions of S records, and what is true.
    codes : Tensor of shape (S, M, G)
        Of the targets: a negative that equals the positive is no negative.
    negatives : Tensor of shape (S, M, K)
        Positions to compare with.
    temperature : float

    Returns
    -------
    logits : Tensor of shape (S, M, 1 + K)
        The right answer comes first; minus infinity for negatives that equal it.
    """
    context, target = F.normalize(context, dim=-1), F.normalize(target, dim=-1)
    # all cosines of a record at once: a hundred negatives are drawn from fewer than a hundred others
    similarity = context @ target.transpose(1, 2) / temperature  # (S, M, M)
    positive = similarity.diagonal(dim1=1, dim2=2)
    equal = (codes[:, :, None] == codes[:, None]).all(dim=-1)
    others = similarity.masked_fill(equal, float("-inf")).gather(2, negatives)  # (S, M, K)
    return torch.cat([positive.unsqueeze(-1), others], dim=-1)


def agreement_logits(first, second, temperature):
    """Cosine similarities (n, m) of embeddings (n, D) and (m, D), over a temperature; norms have no gradient."""
    first, second = (h / h.norm(dim=1, keepdim=True).clamp(min=1e-8).detach() for h in (first, second))
    return first @ second.T / temperature


def agreement_loss(logits, positive):
    """Cross-entropy over rows and over columns of ``logits`` (n, m), meaned over the ``positive`` entries (n, m) bool.

    Zero if there are none.
    """
    both = (logits.log_softmax(dim=1) + logits.log_softmax(dim=0))[positive]
    return -0.5 * both.sum() / max(1, len(both))


class ContrastiveModule(nn.Module):
    """Trains a network by what is hidden in a record and by what belongs to it.

    ``batch.given`` may hold ``lead_mask`` (S, L) bool, ``mask`` (S, N) bool, ``negatives`` (S, M, K) and, for training,
    ``gumbel`` noise (n, G, V) of the n hidden frames; S are the pieces of signal, both halves of a window in a row.
    """

    def __init__(self, network, objective):
        super().__init__()
        self.encoder, self.settings = network, objective
        if objective.local_weight:
            codebook_dim = objective.codebook_dim or objective.target_dim
            self.mask_embedding = nn.Parameter(torch.rand(network.embed_dim))
            self.target_dropout = Dropout(objective.target_dropout)
            self.quantizer = ProductQuantizer(
                network.latent_dim, objective.codebook_groups, objective.codebook_size, codebook_dim
            )
            self.project_target = nn.Linear(codebook_dim, objective.target_dim)
            self.project_context = nn.Linear(network.embed_dim, objective.target_dim)

    def forward(self, batch):
        settings = self.settings
        x, lead_valid = self._pieces(batch)
        n_blocks = 1 if settings.contrast_size is None else -(-len(batch) // settings.contrast_size)
        windows = torch.arange(len(batch), device=x.device).tensor_split(n_blocks)
        per_window = 2 if settings.halve else 1
        blocks = [slice(per_window * int(rows[0]), per_window * (int(rows[-1]) + 1)) for rows in windows]
        if settings.local_weight:
            found, pooled = self._local(batch, x, lead_valid, blocks)
        else:
            found, pooled = [(len(rows), {}) for rows in windows], self.encoder(x, lead_valid)
        if settings.global_weight:
            for (_, terms), rows, block in zip(found, windows, blocks, strict=True):
                terms |= self._global(_full(pooled[block]), None if batch.group is None else batch.group[rows])
        # blocks count by their hidden frames, as steps of accumulated gradients would
        total = max(1, sum(weight for weight, _ in found))
        terms = {name: sum(weight * part[name] for weight, part in found) / total for name in found[0][1]}
        loss = settings.global_weight * terms.get("cmsc", 0.0)
        if settings.local_weight:
            loss = loss + settings.local_weight * (
                terms["contrastive"] + settings.diversity_weight * terms["diversity"]
                + settings.feature_penalty * terms["feature_penalty"]
            )
            terms["gumbel_temperature"] = torch.tensor(self.gumbel_temperature(batch.step))
        return {"loss": loss, **{name: value.detach() for name, value in terms.items()}}

    def gumbel_temperature(self, step):
        """Temperature at an update."""
        first, last, factor = self.settings.gumbel_temperature
        return max(first * factor**step, last)

    def _pieces(self, batch):
        """The signals that the network sees (S, L, T), random leads taken away, and which leads they have."""
        x, lead_valid = batch.x, batch.lead_valid
        if self.settings.halve:
            half = x.shape[-1] // 2
            if not half:
                raise ValueError(f"A window of {x.shape[-1]} sample(s) has no halves. Use longer windows, or halve=False.")
            x = x[..., :2 * half].unflatten(-1, (2, half)).transpose(1, 2).flatten(0, 1)  # (2 B, L, T / 2)
            lead_valid = None if lead_valid is None else lead_valid.repeat_interleave(2, dim=0)
        taken = batch.given.get("lead_mask")
        if taken is None and self.training and self.settings.lead_mask_prob:
            taken = sample_lead_mask(
                *x.shape[:2], self.settings.lead_mask_prob, lead_valid, batch.generator, x.device
            )
        if taken is None:
            return x, lead_valid
        # as a missing lead: encoders that mix leads see the mean, the others leave it out
        x = torch.where(taken.unsqueeze(-1), self.encoder.center.to(x.dtype), x)
        return x, ~taken if lead_valid is None else lead_valid & ~taken

    def _local(self, batch, x, lead_valid, blocks):
        """(hidden frames, terms) of each block, and all embeddings of the masked pass (S, n_features)."""
        network, padding = self.encoder, self.encoder.padding_mask(lead_valid, x.shape[-1])
        latents = network.tokenize(x)  # (S, N, C)
        h = network.embed(latents)  # (S, N, D)
        hidden = batch.given.get("mask")
        if hidden is None:
            hidden = torch.cat([
                sample_span_mask(
                    block.stop - block.start, h.shape[1], self.settings.mask_prob, self.settings.mask_length,
                    self.settings.equal_mask_counts, batch.generator, h.device,
                ) for block in blocks
            ])
        h = torch.where(hidden.unsqueeze(-1), self.mask_embedding.to(h.dtype), h)
        h = network.contextualize(h, padding)
        with torch.autocast(h.device.type, enabled=False):  # what compares vectors needs the digits
            features = self.target_dropout(_full(network.normalize(latents)))
            # of the hidden frames alone, one record after the other
            quantized, codes, logits = self.quantizer(
                features[hidden], self.gumbel_temperature(batch.step), self._gumbel_noise(batch, features, hidden)
            )
            targets, contexts = self.project_target(quantized), self.project_context(_full(h[hidden]))
            ends = hidden.sum(dim=1).cumsum(dim=0).tolist()
            found = []
            for block in blocks:
                rows = slice(ends[block.start - 1] if block.start else 0, ends[block.stop - 1])
                negatives = batch.given.get("negatives")
                terms = self._recognise(
                    contexts[rows], targets[rows], codes[rows], hidden[block],
                    None if negatives is None else negatives[block], batch.generator,
                )
                terms |= _code_use(logits[rows])
                terms["feature_penalty"] = _full(latents[block]).square().mean()
                terms["hidden_fraction"] = hidden[block].to(torch.float32).mean()
                found.append((rows.stop - rows.start, terms))
        return found, network.pool(h, padding)

    def _gumbel_noise(self, batch, features, hidden):
        """Noise on the choice of codes, (n, G, V); None outside of training."""
        if not self.training:
            return None
        noise = batch.given.get("gumbel")
        if noise is not None:
            return noise
        shape = (int(hidden.sum()), *self.quantizer.codebook.shape[:2])
        noise = torch.empty(shape, dtype=features.dtype, device=features.device).exponential_(generator=batch.generator)
        return -noise.clamp(min=torch.finfo(noise.dtype).tiny).log()

    def _recognise(self, contexts, targets, codes, hidden, negatives, generator):
        """Cross-entropy of recognising the targets (n, F) at the ``hidden`` positions (S, N) of a block."""
        counts = hidden.sum(dim=1)
        n_positions = int(counts.max())
        place = torch.arange(n_positions, device=counts.device)
        valid = place < counts[:, None]  # (S, M)
        index = (counts.cumsum(dim=0) - counts)[:, None] + torch.minimum(place, (counts[:, None] - 1).clamp(min=0))
        index = index.clamp(max=len(codes) - 1)  # of a last record without hidden frames
        if negatives is None:
            negatives = sample_negatives(counts, n_positions, self.settings.n_negatives, generator)
        logits = contrastive_logits(
            contexts[index], targets[index], codes[index], negatives[:, :n_positions], self.settings.temperature
        )[valid]  # (n, 1 + K)
        best = (logits[:, :1] >= logits).all(dim=1) & (logits[:, :1] > logits).any(dim=1)
        return {
            "contrastive": F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)),
            "contrastive_accuracy": best.to(torch.float32).mean(),
        }

    def _global(self, pooled, group):
        """Agreement of the embeddings that belong together, of a block."""
        if self.settings.halve:
            first, second = pooled[::2], pooled[1::2]
            group = torch.arange(len(first), device=pooled.device) if group is None else group
            itself = None
        else:
            if group is None:
                raise ValueError(
                    "halve=False compares windows of one patient, and needs to know them: pass groups to fit, or leave "
                    "halve=True."
                )
            first = second = pooled
            itself = torch.eye(len(pooled), dtype=torch.bool, device=pooled.device)
        with torch.autocast(pooled.device.type, enabled=False):
            logits = agreement_logits(first, second, self.settings.temperature)
            positive = group[:, None] == group
            if itself is not None:
                logits = logits.masked_fill(itself, torch.finfo(logits.dtype).min)
                positive = positive & ~itself
            right = positive.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]
            return {
                "cmsc": agreement_loss(logits, positive),
                "cmsc_accuracy": right.to(torch.float32).sum() / positive.any(dim=1).sum().clamp(min=1),
            }


def _code_use(logits):
    """How many codes are used, by the choices without noise and by their mean probabilities; logits (n, G, V)."""
    n_groups, n_codes = logits.shape[1:]
    chosen = F.one_hot(logits.argmax(dim=-1), n_codes).to(logits.dtype).mean(dim=0)  # (G, V)
    probable = _perplexity(logits.softmax(dim=-1).mean(dim=0)).sum()
    return {
        "diversity": 1 - probable / (n_groups * n_codes), "code_perplexity": _perplexity(chosen).sum(),
        "probability_perplexity": probable,
    }


def _perplexity(probability):
    """Exponential of the entropy over the last axis."""
    return torch.exp(-(probability * (probability + 1e-7).log()).sum(dim=-1))


def _full(x):
    """At least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
