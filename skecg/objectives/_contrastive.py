"""Wav2Vec2CMSC: recognise hidden frames among others, and pieces of one record among those of others."""

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval

from ._base import Objective
from ._contrastive_module import ContrastiveModule


class Wav2Vec2CMSC(Objective):
    """Contrastive pretraining within and between records, with random leads taken away.

    *Local*: spans of frames are hidden before the transformer, which has to recognise the quantised latent of each hidden
    frame among those of other hidden frames of the same record (wav2vec 2.0). *Global*: the halves of a window, seen one
    by one, should have embeddings that are more alike than those of different records (CMSC). *Random lead masking*:
    in every piece of signal each lead is taken away with some probability, so that the network learns to do with
    any subset of the leads.

    The loss is ``local_weight * (contrastive + diversity_weight * diversity + feature_penalty * penalty) +
    global_weight * cmsc``. With ``local_weight=0`` any encoder of signals will do: nothing but its embedding is used.

    Parameters
    ----------
    local_weight : float, default=1.0
        Weight of the local term. 0: global alone, without masks in time.
    global_weight : float, default=1.0
        Weight of the global term. 0: local alone.
    lead_mask_prob : float, default=0.5
        Probability that a lead is taken away from a piece of signal. At least one of its leads stays. 0: off.
    halve : bool, default=True
        Cut each window into its two halves; they are the positive pairs, and with ``groups`` all first and second halves
        of one patient's windows in a batch are. False: windows stay whole, and the positive pairs of the global term are
        different windows of one patient (``groups`` must be given; a batch without such pairs has no global loss).
    contrast_size : int, default=None
        Windows that are contrasted with each other, and that get the same number of hidden frames; a batch is divided into
        blocks of at most so many. None: the whole batch.
    mask_prob : float, default=0.65
        Share of the frames that spans would cover if they never overlapped.
    mask_length : int, default=10
        Frames in a span.
    equal_mask_counts : bool, default=True
        Uncover frames at random until all pieces of a block have as few hidden ones as the one with the fewest.
    n_negatives : int, default=100
        Other hidden frames that a frame is compared with; drawn with replacement.
    temperature : float, default=0.1
        Cosine similarities are divided by it, in both terms.
    codebook_groups, codebook_size : int, default=2, 320
        Latents are quantised to one of ``codebook_size`` vectors in each group.
    codebook_dim : int, default=None
        Width of all groups' vectors together; a multiple of ``codebook_groups``. None: ``target_dim``.
    target_dim : int, default=256
        Width in which frames are compared.
    gumbel_temperature : tuple of three floats, default=(2.0, 0.5, 0.999995)
        Temperature of the Gumbel softmax that chooses codes in training: its first value, its last one and the factor per
        update.
    diversity_weight : float, default=0.1
        Weight of the share of codes that the batch leaves unused (by the perplexity of their mean probability).
    feature_penalty : float, default=10.0
        Weight of the mean square of the latents.
    target_dropout : float, default=0.1
        Dropout probability of latents before they are quantised.

    Notes
    -----
    ``history_`` of the embedder holds every term without its weight: ``contrastive`` (natural logarithm; chance is
    about the logarithm of ``n_negatives + 1``) and ``contrastive_accuracy``, ``diversity``, ``feature_penalty``, ``cmsc``
    and ``cmsc_accuracy``, as well as ``code_perplexity`` (codes in use), ``probability_perplexity`` (of the mean
    probability, summed over groups), ``gumbel_temperature`` and ``hidden_fraction``.

    * A negative with the same codes as the positive does not count.
    * The global term uses the embeddings of the masked pass; gradients do not flow through their norms.
    * Equal counts lower the share of hidden frames as blocks grow: from 0.50 of 156 frames alone to 0.37 in 128
      pieces. The published effective mask ratio depends on the batch size in this way.
    * Unlike the original, random lead masking never empties a record.
    * Spans hide no more of a short window than leaves one place to start in; a window needs two frames at least.

    References
    ----------
    Oh J, Chung H, Kwon J, Hong D, Choi E. Lead-agnostic self-supervised learning for local and global representations of
    electrocardiogram. CHIL 2022.

    Baevski A, Zhou H, Mohamed A, Auli M. wav2vec 2.0: a framework for self-supervised learning of speech
    representations. NeurIPS 2020.

    Kiyasseh D, Zhu T, Clifton DA. CLOCS: contrastive learning of cardiac signals across space, time, and patients. ICML
    2021.

    See Also
    --------
    skecg.recipes.w2v_cmsc_rlm : Embedder with this objective.

    Examples
    --------
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import ConvTransformer, ResNet1d
    >>> from skecg.objectives import Wav2Vec2CMSC
    >>> X, y, groups = make_ecg(8, duration=4.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(
    ...     ConvTransformer(embed_dim=32, depth=1, conv_dim=16), Wav2Vec2CMSC(), max_epochs=1, random_state=0)
    >>> embedder.fit_transform(X).shape
    (8, 32)

    The global term with another encoder:

    >>> embedder = ECGSelfSupervisedEmbedder(ResNet1d(8), Wav2Vec2CMSC(local_weight=0), max_epochs=1, random_state=0)
    >>> sorted(embedder.fit(X).history_[0])
    ['cmsc', 'cmsc_accuracy', 'epoch', 'learning_rate', 'loss', 'seconds']
    """

    _parameter_constraints = {
        "local_weight": [Interval(Real, 0, None, closed="left")],
        "global_weight": [Interval(Real, 0, None, closed="left")],
        "lead_mask_prob": [Interval(Real, 0, 1, closed="left")],
        "halve": ["boolean"],
        "contrast_size": [Interval(Integral, 1, None, closed="left"), None],
        "mask_prob": [Interval(Real, 0, 1, closed="right")],
        "mask_length": [Interval(Integral, 1, None, closed="left")],
        "equal_mask_counts": ["boolean"],
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "codebook_groups": [Interval(Integral, 1, None, closed="left")],
        "codebook_size": [Interval(Integral, 2, None, closed="left")],
        "codebook_dim": [Interval(Integral, 1, None, closed="left"), None],
        "target_dim": [Interval(Integral, 1, None, closed="left")],
        "gumbel_temperature": [tuple, list],
        "diversity_weight": [Interval(Real, 0, None, closed="left")],
        "feature_penalty": [Interval(Real, 0, None, closed="left")],
        "target_dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, local_weight=1.0, global_weight=1.0, *, lead_mask_prob=0.5, halve=True, contrast_size=None,
                 mask_prob=0.65, mask_length=10, equal_mask_counts=True, n_negatives=100, temperature=0.1,
                 codebook_groups=2, codebook_size=320, codebook_dim=None, target_dim=256,
                 gumbel_temperature=(2.0, 0.5, 0.999995), diversity_weight=0.1, feature_penalty=10.0,
                 target_dropout=0.1):
        self.local_weight = local_weight
        self.global_weight = global_weight
        self.lead_mask_prob = lead_mask_prob
        self.halve = halve
        self.contrast_size = contrast_size
        self.mask_prob = mask_prob
        self.mask_length = mask_length
        self.equal_mask_counts = equal_mask_counts
        self.n_negatives = n_negatives
        self.temperature = temperature
        self.codebook_groups = codebook_groups
        self.codebook_size = codebook_size
        self.codebook_dim = codebook_dim
        self.target_dim = target_dim
        self.gumbel_temperature = gumbel_temperature
        self.diversity_weight = diversity_weight
        self.feature_penalty = feature_penalty
        self.target_dropout = target_dropout

    @property
    def requires(self):
        """Latents for the local term; the global one takes any signal that can be cut in time."""
        return ("latents",) if self.local_weight else ("latents", "patches", "signal")

    def check_encoder(self, encoder):
        if encoder.tokens not in self.requires:
            hint = "set local_weight=0 for the global term alone" if encoder.tokens in ("patches", "signal") else (
                "choose an encoder of signals")
            raise ValueError(
                f"Wav2Vec2CMSC predicts {' or '.join(map(repr, self.requires))} tokens, but {type(encoder).__name__} makes "
                f"{encoder.tokens!r} tokens. Use ConvTransformer, or {hint}."
            )

    def build(self, network):
        self._validate_params()
        if not self.local_weight and not self.global_weight:
            raise ValueError("local_weight=0 and global_weight=0 leave nothing to learn. Set one of them.")
        dim = self.codebook_dim or self.target_dim
        if dim % self.codebook_groups:
            raise ValueError(
                f"codebook_dim={dim} is not a multiple of codebook_groups={self.codebook_groups}; choose it so that each "
                "group gets the same width."
            )
        values = self.gumbel_temperature
        if len(values) != 3 or any(not isinstance(v, Real) or v <= 0 for v in values) or values[2] > 1:
            raise ValueError(
                f"gumbel_temperature={values!r} is no schedule; expected the first value, the last value and the factor per "
                "update (at most 1), such as (2.0, 0.5, 0.999995)."
            )
        return ContrastiveModule(network, self)
