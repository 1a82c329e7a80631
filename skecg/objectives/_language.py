"""MaskedLanguageModeling: hide tokens, predict them."""

from numbers import Integral, Real

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval
from torch import nn

from ..encoders._token import MASK, PAD
from ..preprocessing._tokenizer import SPECIAL_TOKENS
from ._base import Objective
from ._masking import sample_token_mask


class MaskedLanguageModeling(Objective):
    """Predict hidden tokens from the others (BERT; Devlin et al., 2019).

    In each lead, a fresh random part of the tokens is chosen at every update. Most of them are replaced by ``<mask>``, some
    by a random token, some stay what they are; a small head on the encoder predicts the chosen ones. The loss is the
    cross-entropy over the chosen tokens (natural logarithm).

    Parameters
    ----------
    mask_ratio : float, default=0.15
        Share of a lead's tokens to choose; the count is rounded, one at least.
    span_length : int, default=1
        Tokens that are chosen together. A single token of two or three samples can be interpolated from its neighbours; a
        span cannot.
    mask_share : float, default=0.8
        Share of the chosen tokens that ``<mask>`` replaces.
    random_share : float, default=0.1
        Share of them that a random token replaces. The rest stays.

    Notes
    -----
    - The head is RoBERTa's: linear, GELU, LayerNorm, and a decoder whose weights are those of the embedding. It is applied
      to the chosen tokens only: with 52,000 tokens, that halves the cost of an update.
    - As many tokens are chosen in leads of equal length, and never a special one; RoBERTa throws a coin for each token,
      so that the count varies. Random tokens are none of the special ones.
    - ``history_`` has ``accuracy``, the share of chosen tokens that are predicted. The perplexity is the exponential of the
      loss.

    References
    ----------
    Devlin J, Chang MW, Lee K, Toutanova K. BERT: pre-training of deep bidirectional transformers for language
    understanding. NAACL 2019.

    Liu Y, et al. RoBERTa: a robustly optimized BERT pretraining approach. arXiv:1907.11692, 2019.

    See Also
    --------
    skecg.recipes.heartbert : Embedder with this objective.

    Examples
    --------
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import TokenTransformer
    >>> from skecg.objectives import MaskedLanguageModeling
    >>> from skecg.preprocessing import ECGQuantizer, ECGTokenizer
    >>> X, y, groups = make_ecg(8, duration=2.0, random_state=0)
    >>> encoder = TokenTransformer(ECGQuantizer(16), ECGTokenizer(200), embed_dim=32, depth=1)
    >>> embedder = ECGSelfSupervisedEmbedder(encoder, MaskedLanguageModeling(), max_epochs=2, random_state=0)
    >>> embedder.fit_transform(X[:, :2]).shape
    (8, 32)
    >>> sorted(embedder.history_[0])
    ['accuracy', 'epoch', 'learning_rate', 'loss', 'seconds']
    """

    requires = ("ids",)

    _parameter_constraints = {
        "mask_ratio": [Interval(Real, 0, 1, closed="neither")],
        "span_length": [Interval(Integral, 1, None, closed="left")],
        "mask_share": [Interval(Real, 0, 1, closed="both")],
        "random_share": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, mask_ratio=0.15, *, span_length=1, mask_share=0.8, random_share=0.1):
        self.mask_ratio = mask_ratio
        self.span_length = span_length
        self.mask_share = mask_share
        self.random_share = random_share

    def build(self, network):
        self._validate_params()
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} are more than 1 together; the rest of "
                "the chosen tokens stays, so that they must add up to 1 at most."
            )
        return LanguageModule(network, self)


class LanguageModule(nn.Module):
    """Encoder and the head that names hidden tokens; its decoder is the encoder's embedding.

    ``given`` may hold ``mask`` (B, L * N), the chosen tokens, and ``seen`` (B, L * N), the ids that are read in place of
    those of the batch.
    """

    def __init__(self, network, objective):
        super().__init__()
        self.encoder, self.settings = network, objective
        dim = network.embed_dim
        self.dense = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(network.vocab_size))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, batch):
        network = self.encoder
        ids = network.tokenize(batch.x)  # (B, L * N)
        mask, seen = self.hide(ids, batch)
        h = network.contextualize(network.embed(seen), ids == PAD)
        logits, target = self.logits(h[mask]), ids[mask].long()  # (n, V), (n,)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy}

    def logits(self, h):
        """(..., D) to (..., V)."""
        return F.linear(self.norm(F.gelu(self.dense(h))), self.encoder.word.weight, self.bias)

    def hide(self, ids, batch):
        """Which tokens are to be predicted, and what is read in their places; both of the shape of ``ids``."""
        settings, network = self.settings, self.encoder
        mask = batch.given.get("mask")
        if mask is None:
            leads = ids.reshape(-1, ids.shape[1] // network.n_leads)  # (B * L, N)
            there = leads >= len(SPECIAL_TOKENS)
            mask = sample_token_mask(there, settings.mask_ratio, settings.span_length, batch.generator).reshape(ids.shape)
        if "seen" in batch.given:
            return mask, batch.given["seen"]
        fate = torch.rand(ids.shape, generator=batch.generator, device=ids.device)
        first = len(SPECIAL_TOKENS)
        drawn = torch.randint(
            first, network.vocab_size, ids.shape, generator=batch.generator, device=ids.device, dtype=ids.dtype
        )
        seen = torch.where(mask & (fate < settings.mask_share), MASK, ids)
        by_chance = (fate >= settings.mask_share) & (fate < settings.mask_share + settings.random_share)
        return mask, torch.where(mask & by_chance, drawn, seen)
