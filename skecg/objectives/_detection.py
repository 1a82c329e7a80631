"""The modules of MaskedReconstruction: temporal detection (what was hidden) and spatial detection (which lead is where)."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..encoders._layers import TransformerBlock, default_patch_size, init_transformer_weights
from ._masking import sample_lead_order, sample_time_mask

CHEST_LEADS = {"V1", "V2", "V3", "V4", "V5", "V6"}


def varying_leads(x):
    """Leads that change over time, (B, L) bool: flat and missing (constantly filled) leads have nothing to predict."""
    return x.amax(dim=-1) > x.amin(dim=-1)


def masked_mean_square(prediction, target, weight):
    """Mean squared error where ``weight`` (broadcast) is one; 0 if it is zero everywhere."""
    weight = weight.expand(target.shape).to(torch.float32)
    return ((prediction.float() - target.float()).square() * weight).sum() / weight.sum().clamp(min=1)


def take_leads(x, order):
    """``x`` (B, L, ...) with its leads in another order (B, L); as it is if ``order`` is None."""
    if order is None:
        return x
    return x.gather(1, order.reshape(*order.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))


def branch(h):
    """``h`` for one of several losses, and the norm of that loss's gradient: zero until the backward pass."""
    norm = torch.zeros((), device=h.device)
    if not h.requires_grad:
        return h, norm
    h = h.view_as(h)

    def keep(gradient):
        norm.copy_(gradient.float().norm())

    h.register_hook(keep)
    return h, norm


class Detection(NamedTuple):
    """What a module makes of a batch. A window has K places that a lead can stand in."""

    prediction: torch.Tensor | None  # broadcasts with target and hidden; None without masks
    target: torch.Tensor             # in units of the training signals
    hidden: torch.Tensor             # bool: what could not be seen, and is signal rather than padding
    varying: torch.Tensor            # bool: not of a missing or flat lead
    logits: torch.Tensor | None      # (B, K, L), of the lead in each place; None without shuffling
    places: torch.Tensor             # (K,)
    gradients: dict                  # norms, filled in the backward pass


class SpatioTemporalModule(nn.Module):
    """What both modules share: the draws, the classifier of leads, the sum of the losses.

    ``order`` (B, L) says which lead stands in each place; None where nothing is shuffled. The encoder sees places only.
    """

    def __init__(self, network, objective):
        super().__init__()
        self.encoder, self.settings = network, objective
        names = network.lead_names or ()
        self.chest_leads = [i for i, name in enumerate(names) if name.upper() in CHEST_LEADS]

    def forward(self, batch):
        order, shuffled = self.draw_order(batch)
        found = self.detect(batch, order)
        terms, loss = {}, 0.0
        if found.prediction is not None:
            loss = masked_mean_square(found.prediction, found.target, found.hidden & found.varying)
        if order is not None:
            if found.prediction is not None:
                terms["reconstruction"] = loss
            varying = take_leads(varying_leads(batch.x), order)[:, found.places]  # (B, K)
            scored = varying & shuffled[:, None]
            surprise, lead_terms = self._lead_terms(found.logits, order[:, found.places], scored)
            # over the number of leads to be expected, so that the mean over batches is right where few are shuffled
            share = 1.0 if "order" in batch.given else self.settings.lead_shuffle
            scale = self.settings.lead_loss_weight / math.log(self.encoder.n_leads)
            loss = loss + scale * surprise / (share * varying.sum()).clamp(min=1e-6)
            terms |= lead_terms
            if loss.requires_grad:
                terms |= found.gradients
        if self._scheduled:
            terms["mask_ratio"] = torch.tensor(self._mask_ratio(batch), dtype=torch.float64)
        return {"loss": loss, **terms}

    def detect(self, batch, order):
        """:class:`Detection` of a batch whose leads stand in ``order``."""
        raise NotImplementedError(f"{type(self).__name__} must implement detect(batch, order) and return a Detection.")

    def reconstruct(self, batch):
        """What is hidden in a batch, all leads in their places, and what is predicted there.

        Returns
        -------
        signal, hidden, reconstruction : Tensors of shape (B, L, T)
            In the unit of X; bool; in the unit of X, a prediction for every sample.
        """
        network, (n_samples, n_leads, n_times) = self.encoder, batch.x.shape
        everywhere = {"places": torch.arange(n_leads, device=batch.x.device), **batch.given}
        found = self.detect(replace(batch, given=everywhere), None)
        hidden = found.hidden.expand(found.prediction.shape).reshape(n_samples, n_leads, -1)[..., :n_times]
        prediction = found.prediction.float().reshape(n_samples, n_leads, -1)[..., :n_times]
        return batch.x, hidden, prediction * network.scale + network.center

    def _lead_terms(self, logits, lead, scored):
        """Sum of the cross-entropies of naming ``lead`` (B, K) where ``scored``, and what is reported; NaN if nothing is."""
        logits, lead = logits.float()[scored], lead[scored]  # (n, L), (n,)
        cross_entropy = F.cross_entropy(logits, lead, reduction="sum")
        right = (logits.argmax(dim=1) == lead).float()
        terms = {"lead_cross_entropy": cross_entropy / len(lead) if len(lead) else logits.new_tensor(math.nan),
                 "lead_accuracy": right.mean()}
        if self.chest_leads:
            chest = torch.isin(lead, torch.tensor(self.chest_leads, device=lead.device))
            terms["chest_lead_accuracy"] = right[chest].mean()
        return cross_entropy, terms

    def draw_order(self, batch):
        """The order of the leads and which samples are shuffled, or None and None."""
        settings, n_leads = self.settings, self.encoder.n_leads
        if not settings.lead_shuffle:
            return None, None
        order = batch.given.get("order")
        if order is not None:
            return order, torch.ones(len(order), dtype=torch.bool, device=order.device)
        return sample_lead_order(
            len(batch), n_leads, settings.lead_shuffle, settings.shuffle_fraction, batch.generator, batch.x.device
        )

    def draw_hidden(self, batch, n_positions):
        """Which time patches are hidden in each place, (B, L, P) bool; the same number everywhere."""
        n_samples, n_leads, device = len(batch), self.encoder.n_leads, batch.x.device
        hidden, ratio = batch.given.get("mask"), self._mask_ratio(batch)
        if hidden is not None:
            hidden = hidden if hidden.ndim == 3 else hidden[:, None]
        elif not ratio:
            hidden = torch.zeros(n_samples, 1, n_positions, dtype=torch.bool, device=device)
        elif self.settings.mask_per_lead:
            hidden = sample_time_mask(n_samples * n_leads, n_positions, ratio, batch.generator, device)
            hidden = hidden.unflatten(0, (n_samples, n_leads))
        else:
            hidden = sample_time_mask(n_samples, n_positions, ratio, batch.generator, device)[:, None]
        return hidden.expand(-1, n_leads, -1)

    def in_target_order(self, x, order):
        """``x`` by places as the reconstruction wants it: by leads, unless that is as they stand."""
        original = order is not None and self.settings.reconstruction_order == "original"
        return take_leads(x, order.argsort(dim=1)) if original else x

    @property
    def _scheduled(self):
        return isinstance(self.settings.mask_ratio, (tuple, list))

    def _mask_ratio(self, batch):
        if not self._scheduled:
            return self.settings.mask_ratio
        first, last = self.settings.mask_ratio
        return first + (last - first) * batch.step / max(1, batch.n_steps - 1)

    def refuse_symmetry(self, n_times):
        """Shuffling means nothing to a network that treats all places alike."""
        network = self.encoder
        if network.center.is_meta:  # rebuilt from saved weights
            return
        if network.n_leads < 2:
            raise ValueError("lead_shuffle needs at least 2 leads to change places; X has 1. Set lead_shuffle=0.")
        x = torch.randn(1, network.n_leads, n_times, generator=torch.Generator().manual_seed(0))
        training = network.training
        network.eval()
        with torch.no_grad():
            there, back = (network.encode_tokens(v)[0].mean(dim=1) for v in (x, x.flip(1)))
        network.train(training)
        if torch.allclose(there, back, rtol=0, atol=1e-5 * float(there.abs().max())):
            raise ValueError(
                f"{type(network).__name__} gives the same tokens in whatever order the leads stand, so that shuffled leads "
                "cannot be told from others. Give its places embeddings, or set lead_shuffle=0."
            )


class PatchReconstruction(SpatioTemporalModule):
    """Visible patches through the encoder, hidden ones from a light decoder."""

    def __init__(self, network, objective):
        super().__init__(network, objective)
        dim, n_heads = objective.decoder_dim, objective.decoder_heads
        if dim % n_heads:
            raise ValueError(f"decoder_dim={dim} is not a multiple of decoder_heads={n_heads}.")
        if objective.mask_ratio:
            self.narrow = nn.Linear(network.embed_dim, dim)
            self.mask_token = nn.Parameter(torch.zeros(dim))
            self.place = nn.Linear(network.embed_dim, dim, bias=False)  # the encoder's positions, for the decoder
            self.blocks = nn.ModuleList(TransformerBlock(dim, n_heads) for _ in range(objective.decoder_depth))
            self.norm = nn.LayerNorm(dim)
            self.predict = nn.Linear(dim, network.patch_size)
            for part in (self.narrow, self.place, self.blocks):
                init_transformer_weights(part)
            # predictions start near zero, where the loss is one: a wilder start takes epochs to unlearn
            nn.init.xavier_uniform_(self.predict.weight, gain=0.1)
            nn.init.zeros_(self.predict.bias)
            nn.init.normal_(self.mask_token, std=0.02)
        if objective.lead_shuffle:
            self.refuse_symmetry(4 * network.patch_size)
            self.name_lead = zero_linear(network.embed_dim, network.n_leads)

    def detect(self, batch, order):
        network, n_times = self.encoder, batch.x.shape[-1]
        n_patches = network.n_patches(n_times)
        places = self._draw_places(batch)  # (K,)
        n_places = len(places)
        leads = network.tokenize(batch.x).unflatten(1, (-1, n_patches))  # (B, L, P, S)
        placed = take_leads(leads, order)
        tokens = placed[:, places].flatten(1, 2)  # (B, K * P, S)
        positions = network.positions(n_patches).unflatten(0, (-1, n_patches))[places].flatten(0, 1)  # (K * P, D)
        hidden_places = self.draw_hidden(batch, n_patches)  # (B, L, P)
        hidden = hidden_places[:, places].flatten(1)  # (B, K * P)
        first = hidden.to(torch.int8).argsort(dim=1, stable=True)  # visible tokens first, place by place
        visible = first[:, : int((~hidden[0]).sum())]  # (B, V)

        lead_valid = None
        if batch.lead_valid is not None:
            lead_valid = take_leads(batch.lead_valid, order)[:, places]
            # nothing is scored where all drawn leads are missing, but softmax needs something to attend to
            lead_valid = lead_valid | ~lead_valid.any(dim=1, keepdim=True)
        padding = network.padding_mask(lead_valid, n_times)  # (B, K * P) or None
        h = network.project(_take(tokens, visible)) + positions[visible]  # (B, V, D)
        h = network.contextualize(h, None if padding is None else padding.gather(1, visible))

        logits, prediction, gradients = None, None, {}
        if self.settings.lead_shuffle:
            of_leads, gradients["lead_gradient"] = branch(h)
            logits = self.name_lead(of_leads.unflatten(1, (n_places, -1)).mean(dim=2))  # (B, K, L)
        if self.settings.mask_ratio:
            of_signal, gradients["reconstruction_gradient"] = branch(h)
            prediction = self._decode(of_signal, visible, positions, n_places).unflatten(1, (n_places, -1))
        original = self.settings.reconstruction_order == "original"
        target, varying = leads, varying_leads(batch.x)
        if not original:
            target, varying = placed, take_leads(varying, order)
        inside = network.target_valid(n_times, leads.device)  # (P, S)
        return Detection(
            prediction, target[:, places], self.in_target_order(hidden_places, order)[:, places, :, None] & inside,
            varying[:, places, None, None], logits, places, gradients,
        )

    def _decode(self, h, visible, positions, n_places):
        """Patches (B, K * P, S) from the encoded visible ones (B, V, D)."""
        n_samples, n_tokens = len(h), len(positions)
        # the decoder sees every position; hidden ones hold the mask token
        z = self.mask_token.to(h.dtype).expand(n_samples, n_tokens, -1)
        z = z.scatter(1, visible.unsqueeze(-1).expand(-1, -1, z.shape[-1]), self.narrow(h).to(z.dtype))
        z = z + self.place(positions).to(z.dtype)
        # each lead on its own: what the leads have in common is for the encoder to find
        z = z.reshape(n_samples * n_places, n_tokens // n_places, -1)  # (B * K, P, D')
        for block in self.blocks:
            z = block(z)
        return self.predict(self.norm(z)).reshape(n_samples, n_tokens, -1)

    def _draw_places(self, batch):
        """Places that this update works with, in order."""
        n_leads, device = self.encoder.n_leads, batch.x.device
        if "places" in batch.given:
            return batch.given["places"]
        count = max(1, round(self.settings.lead_fraction * n_leads))
        if count == n_leads:
            return torch.arange(n_leads, device=device)
        return torch.randperm(n_leads, generator=batch.generator, device=device)[:count].sort().values


class SignalReconstruction(SpatioTemporalModule):
    """Hidden stretches of the signal replaced by a learned value; the signal predicted from the last tokens."""

    def __init__(self, network, objective):
        super().__init__(network, objective)
        n_leads = network.n_leads
        if objective.mask_ratio:
            self.mask_value = nn.Parameter(torch.zeros(n_leads, 1))
            self.predict = nn.Linear(network.embed_dim, n_leads * network.stride)
        if objective.lead_shuffle:
            self.refuse_symmetry(4 * network.stride)
            self.name_lead = zero_linear(network.n_features, n_leads**2)

    def detect(self, batch, order):
        network = self.encoder
        leads = network.tokenize(batch.x)  # (B, L, T)
        n_leads, n_times = leads.shape[1:]
        placed = take_leads(leads, order)
        patch_size = self.settings.patch_size or default_patch_size(n_times)
        hidden = self.draw_hidden(batch, -(-n_times // patch_size)).repeat_interleave(patch_size, dim=2)[..., :n_times]
        seen = torch.where(hidden, self.mask_value, placed) if self.settings.mask_ratio else placed
        h = network.contextualize(network.embed(seen))  # (B, N, D)

        logits, prediction, gradients = None, None, {}
        if self.settings.lead_shuffle:
            of_leads, gradients["lead_gradient"] = branch(h)
            logits = self.name_lead(network.pool(of_leads)).unflatten(1, (n_leads, n_leads))  # (B, L, L)
        if self.settings.mask_ratio:
            of_signal, gradients["reconstruction_gradient"] = branch(h)
            prediction = self.predict(of_signal).unflatten(-1, (n_leads, network.stride))  # (B, N, L, stride)
            prediction = prediction.transpose(1, 2).flatten(2)[..., :n_times]  # (B, L, T)
        target, varying = leads, varying_leads(batch.x)
        if self.settings.reconstruction_order == "input":
            target, varying = placed, take_leads(varying, order)
        return Detection(
            prediction, target, self.in_target_order(hidden, order), varying.unsqueeze(-1), logits,
            torch.arange(n_leads, device=leads.device), gradients,
        )


def zero_linear(n_inputs, n_outputs):
    """A linear layer that predicts nothing yet: cross-entropy starts at the logarithm of the number of classes."""
    layer = nn.Linear(n_inputs, n_outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _take(h, index):
    """Tokens at ``index``: (B, N, D), (B, V) to (B, V, D)."""
    return h.gather(1, index.unsqueeze(-1).expand(-1, -1, h.shape[-1]))
