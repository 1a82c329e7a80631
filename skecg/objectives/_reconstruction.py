"""MaskedReconstruction: hide stretches of time, predict the signal there."""

from numbers import Integral, Real

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from ..encoders._layers import TransformerBlock, default_patch_size, init_transformer_weights
from ._base import Objective
from ._masking import sample_time_mask


class MaskedReconstruction(Objective):
    """Masked autoencoding in time.

    A fresh random part of each window is hidden in all leads at once (a mask per lead would leave the limb leads to
    linear algebra), and the original signal is predicted there. With an encoder of patches
    (:class:`~skecg.encoders.PatchTransformer`) only the visible patches pass through the encoder and a light
    transformer decoder predicts the hidden ones, each lead on its own: what the leads have in common is left for the
    encoder to find. With an encoder of the signal (:class:`~skecg.encoders.ResNet1d`) the
    hidden time steps are replaced by a learned value per lead and a linear decoder predicts the signal.

    The loss is the squared error over hidden samples, in units of the training signals' variance. Missing leads,
    flat leads and padding are left out.

    Parameters
    ----------
    mask_ratio : float, default=0.5
        Share of the time patches to hide.
    patch_size : int, default=None
        Samples that are hidden together (signal encoders only; an encoder of patches hides its own). None cuts a window
        into about 40 patches.
    lead_fraction : float, default=1.0
        Share of the leads that an update works with, drawn for each batch (encoders of patches only). Fewer leads make
        an update cheaper.
    decoder_dim : int, default=64
        Width of the transformer decoder (patches only).
    decoder_depth : int, default=1
        Blocks of the transformer decoder (patches only).
    decoder_heads : int, default=4
        Its attention heads; divides ``decoder_dim``.

    References
    ----------
    He K, Chen X, Xie S, Li Y, Dollar P, Girshick R. Masked autoencoders are scalable vision learners. CVPR 2022.

    Zhang H, et al. MaeFE: masked autoencoders family of electrocardiogram for self-supervised pretraining and transfer
    learning. IEEE Trans Instrum Meas 72, 2023.

    Examples
    --------
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.objectives import MaskedReconstruction
    >>> X, y, groups = make_ecg(8, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(
    ...     objective=MaskedReconstruction(mask_ratio=0.75), max_epochs=2, random_state=0)
    >>> embedder.fit_transform(X).shape
    (8, 128)
    """

    requires = ("patches", "signal")

    _parameter_constraints = {
        "mask_ratio": [Interval(Real, 0, 1, closed="neither")],
        "patch_size": [Interval(Integral, 1, None, closed="left"), None],
        "lead_fraction": [Interval(Real, 0, 1, closed="right")],
        "decoder_dim": [Interval(Integral, 1, None, closed="left")],
        "decoder_depth": [Interval(Integral, 1, None, closed="left")],
        "decoder_heads": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, mask_ratio=0.5, *, patch_size=None, lead_fraction=1.0, decoder_dim=64, decoder_depth=1,
                 decoder_heads=4):
        self.mask_ratio = mask_ratio
        self.patch_size = patch_size
        self.lead_fraction = lead_fraction
        self.decoder_dim = decoder_dim
        self.decoder_depth = decoder_depth
        self.decoder_heads = decoder_heads

    def build(self, network):
        self._validate_params()
        if hasattr(network, "patch_size"):
            return PatchReconstruction(
                network, self.mask_ratio, self.lead_fraction, self.decoder_dim, self.decoder_depth, self.decoder_heads
            )
        return SignalReconstruction(network, self.mask_ratio, self.patch_size)


def varying_leads(x):
    """Leads that change over time, (B, L) bool: flat and missing (constantly filled) leads have nothing to predict."""
    return x.amax(dim=-1) > x.amin(dim=-1)


def masked_mean_square(prediction, target, weight):
    """Mean squared error where ``weight`` (broadcast) is one; 0 if it is zero everywhere."""
    weight = weight.expand(target.shape).to(torch.float32)
    return ((prediction.float() - target.float()).square() * weight).sum() / weight.sum().clamp(min=1)


class PatchReconstruction(nn.Module):
    """Visible patches through the encoder, hidden ones from a light decoder."""

    def __init__(self, network, mask_ratio, lead_fraction, dim, depth, n_heads):
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"decoder_dim={dim} is not a multiple of decoder_heads={n_heads}.")
        self.encoder, self.mask_ratio, self.lead_fraction = network, mask_ratio, lead_fraction
        self.narrow = nn.Linear(network.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.place = nn.Linear(network.embed_dim, dim, bias=False)  # the encoder's positions, for the decoder
        self.blocks = nn.ModuleList(TransformerBlock(dim, n_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Linear(dim, network.patch_size)
        for part in (self.narrow, self.place, self.blocks):
            init_transformer_weights(part)
        # predictions start near zero, where the loss is one: a wilder start takes epochs to unlearn
        nn.init.xavier_uniform_(self.predict.weight, gain=0.1)
        nn.init.zeros_(self.predict.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch):
        network, n_times = self.encoder, batch.x.shape[-1]
        n_patches = network.n_patches(n_times)
        leads = self._draw_leads(batch)  # (L,)
        n_leads = len(leads)
        tokens = network.tokenize(batch.x).unflatten(1, (-1, n_patches))[:, leads].flatten(1, 2)  # (B, L * P, S)
        positions = network.positions(n_patches).unflatten(0, (-1, n_patches))[leads].flatten(0, 1)  # (L * P, D)
        hidden = batch.given.get("mask")
        if hidden is None:
            hidden = sample_time_mask(len(tokens), n_patches, self.mask_ratio, batch.generator, tokens.device)
        hidden = hidden.repeat(1, n_leads)  # (B, L * P): the same times in every lead
        order = hidden.to(torch.int8).argsort(dim=1, stable=True)  # visible tokens first
        visible = order[:, : int((~hidden[0]).sum())]  # (B, V)

        lead_valid = None
        if batch.lead_valid is not None:
            lead_valid = batch.lead_valid[:, leads]
            # nothing is scored where all drawn leads are missing, but softmax needs something to attend to
            lead_valid = lead_valid | ~lead_valid.any(dim=1, keepdim=True)
        padding = network.padding_mask(lead_valid, n_times)  # (B, L * P) or None
        h = network.project(_take(tokens, visible)) + positions[visible]  # (B, V, D)
        h = network.contextualize(h, None if padding is None else padding.gather(1, visible))

        # the decoder sees every position; hidden ones hold the mask token
        z = self.mask_token.to(h.dtype).expand(*hidden.shape, -1)
        z = z.scatter(1, visible.unsqueeze(-1).expand(-1, -1, z.shape[-1]), self.narrow(h).to(z.dtype))
        z = z + self.place(positions).to(z.dtype)
        # each lead on its own: what the leads have in common is for the encoder to find
        z = z.reshape(len(z) * n_leads, n_patches, -1)  # (B * L, P, D')
        for block in self.blocks:
            z = block(z)
        prediction = self.predict(self.norm(z)).reshape(tokens.shape)  # (B, L * P, S)

        scored = varying_leads(batch.x[:, leads]).repeat_interleave(n_patches, dim=1) & hidden
        inside = network.target_valid(n_times, tokens.device).repeat(n_leads, 1)  # (L * P, S)
        return {"loss": masked_mean_square(prediction, tokens, scored.unsqueeze(-1) & inside)}

    def _draw_leads(self, batch):
        """Leads that this update works with, in order."""
        n_leads, device = self.encoder.n_leads, batch.x.device
        count = max(1, round(self.lead_fraction * n_leads))
        if count == n_leads:
            return torch.arange(n_leads, device=device)
        return torch.randperm(n_leads, generator=batch.generator, device=device)[:count].sort().values


class SignalReconstruction(nn.Module):
    """Hidden stretches of the signal replaced by a learned value; the signal predicted from the last tokens."""

    def __init__(self, network, mask_ratio, patch_size):
        super().__init__()
        self.encoder, self.mask_ratio, self.patch_size = network, mask_ratio, patch_size
        self.mask_value = nn.Parameter(torch.zeros(network.n_leads, 1))
        self.predict = nn.Linear(network.embed_dim, network.n_leads * network.stride)

    def forward(self, batch):
        network, stride = self.encoder, self.encoder.stride
        target = network.tokenize(batch.x)  # (B, L, T)
        n_samples, n_leads, n_times = target.shape
        patch_size = self.patch_size or default_patch_size(n_times)
        hidden = batch.given.get("mask")
        if hidden is None:
            n_patches = -(-n_times // patch_size)
            hidden = sample_time_mask(n_samples, n_patches, self.mask_ratio, batch.generator, target.device)
        hidden = hidden.repeat_interleave(patch_size, dim=1)[:, None, :n_times]  # (B, 1, T)
        h = network.contextualize(network.embed(torch.where(hidden, self.mask_value, target)))  # (B, N, D)
        prediction = self.predict(h).unflatten(-1, (n_leads, stride))  # (B, N, L, stride)
        prediction = prediction.transpose(1, 2).flatten(2)[..., :n_times]  # (B, L, T)
        return {"loss": masked_mean_square(prediction, target, varying_leads(batch.x).unsqueeze(-1) & hidden)}


def _take(h, index):
    """Tokens at ``index``: (B, N, D), (B, V) to (B, V, D)."""
    return h.gather(1, index.unsqueeze(-1).expand(-1, -1, h.shape[-1]))
