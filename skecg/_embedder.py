"""ECGSelfSupervisedEmbedder: pretraining is ``fit``, embedding is ``transform``."""

import copy
from numbers import Integral, Real

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_consistent_length, check_is_fitted, check_memory, column_or_1d

from ._checkpoints import Checkpoints
from ._rebuild import rebuild
from ._torch import build_seeded, resolve_device
from ._training import (
    CallbackSupportMixin,
    Plan,
    Signals,
    all_or_nothing,
    apply_network,
    draw_seed,
    fit_network,
    module_state,
    with_callbacks,
)
from ._validation import check_lead_names, validate_ecg
from .encoders import Encoder, PatchTransformer
from .objectives import MaskedLanguageModeling, MaskedReconstruction, Objective, Wav2Vec2CMSC

# by the tokens of the encoder
DEFAULT_OBJECTIVES = {
    "patches": MaskedReconstruction, "signal": MaskedReconstruction, "latents": Wav2Vec2CMSC, "ids": MaskedLanguageModeling,
}
TRAINING_CONSTRAINTS = {
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "warmup": [Interval(Real, 0, 1, closed="left")],
    "gradient_clip": [Interval(Real, 0, None, closed="neither"), None],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "device": [str],
    "callbacks": [list, None],
    "deterministic": ["boolean"],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}


class ECGSelfSupervisedEmbedder(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Learn an embedding of ECGs from unlabelled recordings.

    ``fit`` builds a network from ``encoder``, trains it on the task of ``objective`` and throws the task away;
    ``transform`` embeds. Labels are ignored.

    Parameters
    ----------
    encoder : Encoder, default=None
        Parameters of the network that is kept. None: :class:`~skecg.encoders.PatchTransformer`.
    objective : Objective, default=None
        The pretraining task. None: :class:`~skecg.objectives.MaskedReconstruction`, or
        :class:`~skecg.objectives.Wav2Vec2CMSC` for :class:`~skecg.encoders.ConvTransformer`, or
        :class:`~skecg.objectives.MaskedLanguageModeling` for :class:`~skecg.encoders.TokenTransformer`.
    lead_names : sequence of str, default=None
        Names of X's leads, in order. None: the 12 standard leads where X has 12, else ``"lead0"``, ``"lead1"``, ...
    output : {"embedding", "tokens", "crops"}, default="embedding"
        What ``transform`` returns: one vector per sample, the sequence of token vectors, or the sequence of the vectors
        of the consecutive pieces of ``crop_size`` that cover a window.
    crop_size : int, default=None
        Samples in time of the random piece of each window that an update sees; None takes the whole window. Each epoch
        then costs less and varies more. ``transform`` embeds the consecutive pieces that cover a window and averages
        them (or joins their tokens, or gives them one by one).
    max_epochs : int, default=100
        Passes over the training signals. 0 leaves the random initialisation, the "from scratch" arm of a comparison.
    batch_size : int, default=64
        Samples per update, at most; batches of an epoch differ in size by one at most.
    learning_rate : float, default=1e-3
        Peak learning rate of AdamW.
    weight_decay : float, default=0.05
        Decoupled weight decay of matrices; vectors (biases, gains) are not decayed.
    warmup : float, default=0.1
        Share of the updates in which the learning rate rises linearly.
    schedule : {"cosine", "constant"}, default="cosine"
        After that, the learning rate falls to zero as a cosine, or stays.
    gradient_clip : float, default=1.0
        Largest norm of the gradient. None: not clipped.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training; "bfloat16" is autocast, weights stay float32. "auto" is bfloat16 on processors that compute
        in it (GPUs, CPUs with AVX512-BF16 or AMX) and float32 elsewhere. ``transform`` always computes in float32.
    device : str, default="auto"
        Torch device; "auto" takes a GPU if there is one.
    cache : str or joblib.Memory, default=None
        Where ``transform`` keeps embeddings, by weights and data.
    checkpoint_dir : str or path, default=None
        Where ``fit`` saves its state: after every epoch, every five minutes within longer ones, and when SIGTERM or Ctrl-C
        ends it. A fit with the same parameters and data takes up there after a crash, to the bit, or returns at once if it
        was complete; with ``random_state=None`` it takes up the interrupted seed too.
    warm_start : bool, default=False
        Keep the objective's module after ``fit``, and continue from there in the next ``fit``, for ``max_epochs`` more
        epochs with a new optimizer and learning-rate schedule.
    callbacks : list of skorch callbacks, default=None
        Take part in training, e.g. ``skorch.callbacks.EarlyStopping("train_loss")``. Callbacks that look at skorch's
        predictions (``EpochScoring``) find none during pretraining.
    deterministic : bool, default=False
        Train on one CPU thread, so that results do not depend on the number of threads or workers to the last bit.
    verbose : int, default=0
        1 shows a progress bar over the epochs, 2 prints a line for each as well.
    random_state : int, RandomState or None, default=None
        Seed of initialisation, batch order and masks. The same seed gives the same bits on a CPU of the same kind with the
        same number of torch threads.

    Attributes
    ----------
    encoder_ : Encoder
        Fitted clone of ``encoder``.
    network_ : torch.nn.Module
        The pretrained network, in eval mode.
    history_ : list of dict
        One entry per epoch: ``epoch``, ``loss``, the objective's further terms, ``learning_rate``, ``seconds``.
    lead_names_in_ : tuple of str
        Names of the leads.
    n_leads_in_, n_times_in_ : int
        Shape of one sample.
    n_features_in_ : int
        Size of X's second axis.
    feature_names_in_ : ndarray of str
        Column names, if X was a data frame (one lead, time along the columns).

    See Also
    --------
    ECGClassifier : Fine-tunes an embedder with labels.
    sklearn.frozen.FrozenEstimator : Keeps a pretrained embedder through ``clone`` and cross-validation.

    Notes
    -----
    * X is (n_samples, n_leads, n_times) in millivolt, or (n_samples, n_times) for one lead. A missing lead is NaN from
      end to end; NaN inside a lead is an error. A flat lead is accepted and counts as signal.
    * Memmaps are read in batches; neither ``fit`` nor ``transform`` copies X.
    * Pickles hold arrays only. They load on machines without a GPU.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import PatchTransformer
    >>> X, y, groups = make_ecg(32, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=32, depth=1), max_epochs=2, random_state=0)
    >>> embedder.fit_transform(X).shape
    (32, 32)
    >>> model = make_pipeline(embedder, LogisticRegression()).fit(X, y)
    >>> model.predict(X[:3]).shape
    (3,)
    """

    _parameter_constraints = {
        "encoder": [Encoder, HasMethods(["fit", "build", "encode_inputs"]), None],
        "objective": [Objective, HasMethods(["build"]), None],
        "lead_names": ["array-like", None],
        "output": [StrOptions({"embedding", "tokens", "crops"})],
        "crop_size": [Interval(Integral, 2, None, closed="left"), None],
        "schedule": [StrOptions({"cosine", "constant"})],
        "cache": [str, HasMethods(["cache"]), None],
        "checkpoint_dir": [str, HasMethods(["__fspath__"]), None],
        "warm_start": ["boolean"],
        **TRAINING_CONSTRAINTS,
    }

    def __init__(
        self, encoder=None, objective=None, *, lead_names=None, output="embedding", crop_size=None, max_epochs=100,
        batch_size=64, learning_rate=1e-3, weight_decay=0.05, warmup=0.1, schedule="cosine", gradient_clip=1.0,
        precision="auto", device="auto", cache=None, checkpoint_dir=None, warm_start=False, callbacks=None,
        deterministic=False, verbose=0, random_state=None,
    ):
        self.encoder = encoder
        self.objective = objective
        self.lead_names = lead_names
        self.output = output
        self.crop_size = crop_size
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.precision = precision
        self.device = device
        self.cache = cache
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.deterministic = deterministic
        self.verbose = verbose
        self.random_state = random_state

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y=None, groups=None):
        """Pretrain on signals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt; float32 and float64 are not copied.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Patient of each sample, for objectives that compare windows of a patient.

        Returns
        -------
        self : ECGSelfSupervisedEmbedder

        Raises
        ------
        ValueError
            Malformed signals, lead names that do not fit them, an objective that cannot predict the encoder's tokens;
            checkpoints that are all damaged, or of another fit.
        FloatingPointError
            The loss, its gradient or the weights are no longer finite; the message names the samples of the batch.
        OSError
            The state could not be saved in ``checkpoint_dir``.
        TrainingInterrupted, KeyboardInterrupt
            SIGTERM or Ctrl-C; the state is saved if there is a ``checkpoint_dir``.
        """
        self._validate_params()
        resume = self.warm_start and hasattr(self, "pretrainer_")
        X, group = self._check_inputs(X, groups, reset=not resume)
        self._pretrain(
            X, group, resume=resume, keep=self.warm_start, max_epochs=self.max_epochs, schedule=self.schedule
        )
        return self

    @with_callbacks
    @all_or_nothing
    def partial_fit(self, X, y=None, groups=None):
        """One more epoch on the given signals, at a constant ``learning_rate``; the first call starts afresh.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt. The scale of the signals is learned in the first call.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Patient of each sample.

        Returns
        -------
        self : ECGSelfSupervisedEmbedder
        """
        self._validate_params()
        resume = hasattr(self, "pretrainer_")
        X, group = self._check_inputs(X, groups, reset=not resume)
        self._pretrain(X, group, resume=resume, keep=True, max_epochs=1, schedule="constant", warmup=0.0)
        return self

    def transform(self, X):
        """Embed signals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Millivolt, with the leads of ``fit``; a missing lead is NaN from end to end.

        Returns
        -------
        ndarray of shape (n_samples, n_features), (n_samples, n_tokens, n_features) or (n_samples, n_crops, n_features)
            float32. With ``output="tokens"``, rows of NaN where a sample has no token because its lead is missing.
        """
        check_is_fitted(self)
        X = validate_ecg(self, X, reset=False, any_length=self.encoder_.any_length)
        if self.cache is None:
            return _embed(None, X, self.output, self)
        key = joblib.hash([module_state(self.network_), self.encoder_.get_params(), self.crop_size])
        return check_memory(self.cache).cache(_embed, ignore=["embedder"])(key, X, self.output, self)

    def _check_inputs(self, X, groups, reset):
        X = validate_ecg(self, X, reset=reset, min_samples=2, min_times=2)
        self.lead_names_in_ = check_lead_names(self.lead_names, self.n_leads_in_)
        if groups is None:
            return X, None
        groups = column_or_1d(groups)
        check_consistent_length(X, groups)
        return X, np.unique(groups, return_inverse=True)[1].astype(np.int64)

    def _pretrain(self, X, group, *, resume, keep, max_epochs, schedule, warmup=None):
        rng = check_random_state(self.random_state)
        seed = draw_seed(rng)
        if resume:
            encoder, objective, pretrainer = self.encoder_, self.objective_, copy.deepcopy(self.pretrainer_)
            seed = (seed + len(self.history_)) % 2**31  # the next fit draws other batches and masks
        else:
            encoder = PatchTransformer() if self.encoder is None else clone(self.encoder)
            if self.objective is None:
                objective = DEFAULT_OBJECTIVES.get(getattr(encoder, "tokens", None), MaskedReconstruction)()
            else:
                objective = clone(self.objective)
            if isinstance(objective, Objective):
                objective.check_encoder(encoder)
            encoder.fit(X if self.crop_size is None else self._central_crop(X))
            pretrainer = None

        checkpoints = None
        if self.checkpoint_dir is not None and max_epochs:
            checkpoints = self._checkpoints(X, group, encoder, objective, pretrainer, seed, (max_epochs, schedule))
            if checkpoints.latest is not None:
                seed = checkpoints.latest.values["seed"]  # that of the interrupted fit, if random_state is None
        if pretrainer is None:
            # the encoder first: its initialisation does not depend on the objective, so that "from scratch" arms match
            network = build_seeded(encoder.build, seed)
            network.lead_names = self.lead_names_in_
            if max_epochs or keep:
                pretrainer = build_seeded(lambda: objective.build(network), seed + 1)
        else:
            network = pretrainer.encoder

        context = None
        if hasattr(self, "_init_callback_context"):
            context = self._init_callback_context(max_subtasks=max_epochs)
            context.call_on_fit_task_begin(estimator=self, X=X, y=None)
        history = []
        if max_epochs:
            history = fit_network(
                pretrainer, Signals(X, encoder, group=group, crop_size=self.crop_size),
                self._plan(seed, max_epochs, schedule, warmup, checkpoints),
                context=context, estimator=self, hook_data={"X": X, "y": None},
            )
        else:
            network.to(resolve_device(self.device)).eval()

        self.encoder_, self.network_ = encoder, network
        if resume:
            offset = len(self.history_)
            history = self.history_ + [{**row, "epoch": row["epoch"] + offset} for row in history]
        self.history_ = history
        if keep:
            self.objective_, self.pretrainer_ = objective, pretrainer
        else:
            self.__dict__.pop("objective_", None)
            self.__dict__.pop("pretrainer_", None)
        if context is not None:
            context.call_on_fit_task_end(estimator=self, X=X, y=None)

    def _central_crop(self, X):
        room = self.n_times_in_ - self.crop_size
        if room < 0:
            raise ValueError(
                f"crop_size={self.crop_size} is longer than the windows, n_times={self.n_times_in_}. Use a smaller "
                "crop_size, or None for whole windows."
            )
        return X[..., room // 2: room // 2 + self.crop_size]

    def _plan(self, seed, max_epochs, schedule, warmup, checkpoints):
        return Plan(
            max_epochs=max_epochs, batch_size=self.batch_size, learning_rate=self.learning_rate,
            weight_decay=self.weight_decay, seed=seed, warmup=self.warmup if warmup is None else warmup,
            schedule=schedule, gradient_clip=self.gradient_clip, precision=self.precision, device=self.device,
            deterministic=self.deterministic, callbacks=self.callbacks, verbose=self.verbose, checkpoints=checkpoints,
            label="pretrain",
        )

    def _checkpoints(self, X, group, encoder, objective, pretrainer, seed, length):
        """Where the states of this fit are saved."""
        names = ("batch_size", "learning_rate", "weight_decay", "warmup", "gradient_clip", "precision", "crop_size")
        return Checkpoints(self.checkpoint_dir, {
            "encoder": (type(encoder).__qualname__, encoder.get_params()),
            "objective": (type(objective).__qualname__, objective.get_params()),
            **{name: getattr(self, name) for name in names},
            "max_epochs or schedule": length,
            "random_state": None if self.random_state is None else seed,
            "weights to start from": None if pretrainer is None else module_state(pretrainer),
            "groups": group,
            "X": X,
        })

    @property
    def _n_features_out(self):
        if self.output != "embedding":
            raise ValueError(
                f"output={self.output!r} gives three dimensions, which have no feature names and no data frame. Set "
                "output='embedding', or leave set_output at 'default'."
            )
        return self.network_.n_features

    def __sklearn_is_fitted__(self):
        return hasattr(self, "network_")  # not after a fit that was broken off

    def __getstate__(self):
        state = super().__getstate__().copy()
        for name in ("network_", "pretrainer_"):
            if name in state:
                state[name] = module_state(state[name])
        if "pretrainer_" in state:
            del state["network_"]  # lies inside
        return state

    def __setstate__(self, state):
        state = state.copy()
        if "encoder_" in state:
            encoder, objective = state["encoder_"], state.get("objective_")
            n_leads = state["n_leads_in_"]
            if getattr(encoder, "n_leads_", n_leads) != n_leads:
                raise ValueError(f"The state contradicts itself: {n_leads} leads, and {encoder.n_leads_} of the encoder.")

            def build():
                network = encoder.build()
                network.lead_names = state["lead_names_in_"]
                return network

            if "pretrainer_" in state:
                state["pretrainer_"] = rebuild(
                    lambda: objective.build(build()), state["pretrainer_"], encoder, objective)
                state["network_"] = state["pretrainer_"].encoder
            else:
                state["network_"] = rebuild(build, state["network_"], encoder)
        super().__setstate__(state)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _embed(key, X, output, embedder):
    """Embeddings of validated X. ``key`` identifies the weights to a cache."""
    device = resolve_device(embedder.device)
    network = embedder.network_.to(device)

    def tokens(batch):
        h, padding = network.align(*network.encode_tokens(batch.x, batch.lead_valid))
        return h if padding is None else h.masked_fill(padding.unsqueeze(-1), float("nan"))

    def embedding(batch):
        return network(batch.x, batch.lead_valid)

    def crop(batch):
        return embedding(batch).unsqueeze(1)  # a sequence of one

    function, join = {
        "embedding": (embedding, "mean"), "tokens": (tokens, "concatenate"), "crops": (crop, "concatenate"),
    }[output]
    return apply_network(
        function, X, embedder.encoder_, device=device, crop_size=embedder.crop_size, join=join
    )
