"""ECGClassifier (signals, end to end) and HeadClassifier (embeddings)."""

import copy
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from ._classifier import NetworkClassifier, Rows, SupervisedModule, apply_head
from ._embedder import ECGSelfSupervisedEmbedder
from ._training import (
    Signals,
    apply_network,
    draw_seed,
    resolve_device,
    with_callbacks,
)
from ._validation import validate_ecg
from .heads import LinearHead


class ECGClassifier(NetworkClassifier):
    """Classify ECGs with a pretrained network, fine-tuned end to end.

    ``fit`` pretrains a clone of ``embedder`` (on ``X_unlabeled`` if given), puts ``head`` on its network, and trains with
    labels. A pretrained embedder is kept as it is inside :class:`~sklearn.frozen.FrozenEstimator`: the classifier then
    starts from its weights and never changes the original. A plain embedder is pretrained again in every fit, which
    is what keeps cross-validation free of leaks.

    Parameters
    ----------
    embedder : ECGSelfSupervisedEmbedder or FrozenEstimator, default=None
        None: ``ECGSelfSupervisedEmbedder()``. With ``max_epochs=0`` it is the same network from scratch. Its ``crop_size``
        applies to training with labels too; logits are averaged over the crops of a window.
    head : Head, default=None
        None: :class:`~skecg.heads.LinearHead`.
    trainable : {"all", "head"} or int, default="all"
        What the labels train: everything, the head, or the head and the network's top ``k`` blocks.
    head_epochs : int, default=0
        Passes in which the head trains alone before everything does. A random head sends random gradients into pretrained
        weights, which can cost accuracy (Kumar et al., 2022).
    lead_dropout : float, default=0.0
        Probability that a lead of a training sample is taken away, drawn anew for every presentation, against
        overfitting and for data in which leads are missing.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss. Multi-label targets: "balanced" weights each label's positives.
    early_stopping : bool, default=False
        Stop when the loss on validation samples has not fallen for ``n_iter_no_change`` epochs, and keep the best
        epoch's weights. The validation samples are ``X_val`` if given, else ``validation_fraction`` of the patients in
        ``groups``, or of the samples without groups.
    validation_fraction : float, default=0.1
        Share set apart for ``early_stopping``.
    n_iter_no_change : int, default=10
        Patience of ``early_stopping``.
    max_epochs : int, default=30
        Passes over the labelled samples.
    min_updates : int, default=0
        Passes are added where ``max_epochs`` of them make fewer updates: a few labels fill few batches, and a network needs
        its number of updates all the same.
    batch_size : int, default=32
        Samples per update, at most.
    learning_rate : float, default=1e-3
        Peak learning rate of AdamW.
    weight_decay : float, default=0.05
        Decoupled weight decay of matrices.
    warmup : float, default=0.1
        Share of the updates in which the learning rate rises linearly, before it falls to zero as a cosine.
    gradient_clip : float, default=1.0
        Largest norm of the gradient. None: not clipped.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training; see :class:`ECGSelfSupervisedEmbedder`.
    device : str, default="auto"
        Torch device.
    callbacks : list of skorch callbacks, default=None
        Take part in training with labels.
    deterministic : bool, default=False
        Train on one CPU thread.
    verbose : int, default=0
        1 shows a progress bar over the epochs, 2 prints a line for each as well.
    random_state : int, RandomState or None, default=None
        Seed of everything in ``fit``, and of the embedder where that has none of its own.

    Attributes
    ----------
    classes_ : ndarray
        Class labels; label indices for multi-label targets.
    embedder_ : ECGSelfSupervisedEmbedder
        Holds the fine-tuned network: ``embedder_.transform`` gives the fine-tuned embedding.
    head_ : Head
        Clone of ``head``.
    head_network_ : torch.nn.Module
        The trained head.
    history_ : list of dict
        One entry per epoch of training with labels; that of pretraining is ``embedder_.history_``.
    n_updates_ : int
        Updates made with labels, those of the head alone included.
    n_leads_in_, n_times_in_, n_features_in_ : int
        Shape of one sample; size of X's second axis.

    References
    ----------
    Kumar A, Raghunathan A, Jones R, Ma T, Liang P. Fine-tuning can distort pretrained features and underperform
    out-of-distribution. ICLR 2022.

    Examples
    --------
    >>> from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import PatchTransformer
    >>> X, y, groups = make_ecg(32, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=32, depth=1), max_epochs=1)
    >>> clf = ECGClassifier(embedder, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X[:5]).shape == (5, len(clf.classes_))
    True
    """

    _parameter_constraints = {
        **NetworkClassifier._parameter_constraints,
        "embedder": [ECGSelfSupervisedEmbedder, FrozenEstimator, None],
        "head_epochs": [Interval(Integral, 0, None, closed="left")],
        "lead_dropout": [Interval(Real, 0, 1, closed="left")],
        "trainable": [StrOptions({"all", "head"}), Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self, embedder=None, head=None, trainable="all", *, head_epochs=0, lead_dropout=0.0, class_weight=None,
        early_stopping=False, validation_fraction=0.1, n_iter_no_change=10, max_epochs=30, min_updates=0,
        batch_size=32, learning_rate=1e-3, weight_decay=0.05, warmup=0.1, gradient_clip=1.0, precision="auto",
        device="auto", callbacks=None, deterministic=False, verbose=0, random_state=None,
    ):
        self.embedder = embedder
        self.head = head
        self.trainable = trainable
        self.head_epochs = head_epochs
        self.lead_dropout = lead_dropout
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_epochs = max_epochs
        self.min_updates = min_updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.gradient_clip = gradient_clip
        self.precision = precision
        self.device = device
        self.callbacks = callbacks
        self.deterministic = deterministic
        self.verbose = verbose
        self.random_state = random_state

    @with_callbacks
    def fit(self, X, y, groups=None, X_unlabeled=None, X_val=None, y_val=None):
        """Pretrain, then train with labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            Labelled signals in millivolt.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or a multi-label indicator matrix.
        groups : array-like of shape (n_samples,), default=None
            Patients; those of the validation samples are not trained on. Also passed to pretraining, unless
            that is on ``X_unlabeled``.
        X_unlabeled : array-like of shape (n_unlabeled, n_leads, n_times), default=None
            What to pretrain on in place of X; put X's signals in as well if pretraining should see them.
        X_val, y_val : array-like, default=None
            Validation samples, for ``early_stopping`` and the ``valid_loss`` of ``history_``. In a Pipeline, earlier steps
            transform X_val only under ``Pipeline(transform_input=["X_val"])``.

        Returns
        -------
        self : ECGClassifier
        """
        self._validate_params()
        X = validate_ecg(self, X, reset=True, min_samples=2, min_times=2)
        target = self._encode_labels(X, y)
        if groups is not None:
            groups = column_or_1d(groups)
            check_consistent_length(X, groups)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together; only one of them was given.")
        rng = check_random_state(self.random_state)
        seed = draw_seed(rng)
        # whatever can be wrong with the arguments is found before hours of pretraining
        resolve_device(self.device)
        rows, valid_rows = self._split(target, groups, rng) if X_val is None else (np.arange(len(X)), None)
        weights = self._loss_weights(target[rows])
        if X_val is not None:
            X_val = self._validate(X_val, reset=False)
            check_consistent_length(X_val, y_val)
            target_val = self._encode_known_labels(np.asarray(y_val))

        n_epochs = self._n_epochs(len(rows))
        context = self._begin_callbacks(X, y, self.head_epochs + n_epochs)
        self.embedder_ = self._fit_embedder(X, groups, X_unlabeled, seed)
        self.head_ = LinearHead() if self.head is None else clone(self.head)
        network = self.embedder_.network_
        head = self._start_head(target[rows], weights, seed)

        self.history_ = []
        stages = (("head", self.head_epochs, 0.0), (self.trainable, n_epochs, self.lead_dropout))
        for trainable, max_epochs, lead_dropout in stages:
            if not max_epochs:
                continue
            # a head on fixed embeddings need not pass the signals through the network in every epoch
            fixed = trainable == "head" and head.input == "embedding" and not lead_dropout

            def signals(X, target, fixed=fixed, lead_dropout=lead_dropout):
                if fixed:
                    return Signals(self.embedder_.transform(X), y=target)
                return Signals(X, self.embedder_.encoder_, target, None, self.embedder_.crop_size, lead_dropout)

            module = SupervisedModule(None if fixed else network, head, trainable, weights)
            data, valid = signals(X, target), None
            if X_val is not None:
                valid = signals(X_val, target_val)
            elif valid_rows is not None:
                data, valid = Rows(data, rows), Rows(data, valid_rows)
            self.history_ += self._fit_head(module, data, valid, seed, context, X, y, max_epochs, len(self.history_))
        self.n_updates_ = self._n_updates(len(rows))
        self.head_network_ = head.eval()
        network.requires_grad_(True).eval()
        if context is not None:
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _fit_embedder(self, X, groups, X_unlabeled, seed):
        """A fitted embedder of this classifier's own."""
        if isinstance(self.embedder, FrozenEstimator):
            if X_unlabeled is not None:
                raise ValueError(
                    "X_unlabeled was given, but the embedder is frozen and would not see it. Pass the embedder itself to "
                    "pretrain, or leave X_unlabeled out."
                )
            embedder = self.embedder.estimator
            if not isinstance(embedder, ECGSelfSupervisedEmbedder):
                raise ValueError(
                    f"The frozen estimator is a {type(embedder).__name__}; ECGClassifier needs an "
                    "ECGSelfSupervisedEmbedder. Other transformers go into a Pipeline before a HeadClassifier."
                )
            check_is_fitted(embedder, msg=(
                "FrozenEstimator holds an %(name)s that is not fitted. Fit it first, or pass it without FrozenEstimator."
            ))
            validate_ecg(embedder, X, reset=False, any_length=embedder.encoder_.any_length)
            embedder = copy.deepcopy(embedder)  # its network is about to be trained
            embedder.n_times_in_, embedder.n_features_in_, embedder._ndim_in = (
                self.n_times_in_, self.n_features_in_, self._ndim_in
            )
            return embedder.set_params(output="embedding")
        embedder = ECGSelfSupervisedEmbedder() if self.embedder is None else clone(self.embedder)
        embedder.set_params(output="embedding")
        if embedder.random_state is None:
            embedder.set_params(random_state=seed)
        if X_unlabeled is None:
            return embedder.fit(X, groups=groups)
        embedder.fit(X_unlabeled)
        validate_ecg(embedder, X, reset=False, any_length=embedder.encoder_.any_length)
        return embedder

    def _validate(self, X, reset):
        return validate_ecg(self, X, reset=reset)

    def _n_head_inputs(self):
        network = self.embedder_.network_
        return network.embed_dim if self.head_.input == "tokens" else network.n_features

    def _logits(self, X):
        device = resolve_device(self.device)
        network, head = self.embedder_.network_.to(device), self.head_network_.to(device)
        return apply_network(
            lambda batch: apply_head(network, head, batch), X, self.embedder_.encoder_, device=device,
            crop_size=self.embedder_.crop_size,
        )


class HeadClassifier(NetworkClassifier):
    """Classify embeddings with a head, trained by the same loop as :class:`ECGClassifier`.

    The step after an embedder in a Pipeline: on vectors, or with ``output="tokens"`` on sequences.

    Parameters
    ----------
    head : Head, default=None
        None: :class:`~skecg.heads.LinearHead`, which takes the mean of a sequence.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss. Multi-label targets: "balanced" weights each label's positives.
    early_stopping : bool, default=False
        Stop when the loss on validation samples has not fallen for ``n_iter_no_change`` epochs, and keep the best
        epoch's weights. Validation samples are ``validation_fraction`` of the patients in ``groups``, or of the samples.
    validation_fraction : float, default=0.1
        Share set apart for ``early_stopping``.
    n_iter_no_change : int, default=10
        Patience of ``early_stopping``.
    max_epochs : int, default=100
        Passes over the samples.
    min_updates : int, default=0
        Passes are added where ``max_epochs`` of them make fewer updates.
    batch_size : int, default=32
        Samples per update, at most.
    learning_rate : float, default=1e-2
        Peak learning rate of AdamW.
    weight_decay : float, default=0.05
        Decoupled weight decay of matrices.
    warmup : float, default=0.1
        Share of the updates in which the learning rate rises linearly, before it falls to zero as a cosine.
    gradient_clip : float, default=1.0
        Largest norm of the gradient. None: not clipped.
    precision : {"auto", "float32", "bfloat16"}, default="float32"
        Arithmetic of training; see :class:`ECGSelfSupervisedEmbedder`.
    device : str, default="auto"
        Torch device.
    callbacks : list of skorch callbacks, default=None
        Take part in training.
    deterministic : bool, default=False
        Train on one CPU thread.
    verbose : int, default=0
        1 shows a progress bar over the epochs, 2 prints a line for each as well.
    random_state : int, RandomState or None, default=None
        Seed of initialisation, batch order and the validation split.

    Attributes
    ----------
    classes_ : ndarray
        Class labels; label indices for multi-label targets.
    head_ : Head
        Clone of ``head``.
    head_network_ : torch.nn.Module
        The trained head.
    history_ : list of dict
        One entry per epoch.
    n_updates_ : int
        Updates made.
    n_features_in_ : int
        Size of X's second axis.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skecg import HeadClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> HeadClassifier(random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _parameter_constraints = NetworkClassifier._parameter_constraints

    def __init__(
        self, head=None, *, class_weight=None, early_stopping=False, validation_fraction=0.1, n_iter_no_change=10,
        max_epochs=100, min_updates=0, batch_size=32, learning_rate=1e-2, weight_decay=0.05, warmup=0.1,
        gradient_clip=1.0, precision="float32", device="auto", callbacks=None, deterministic=False, verbose=0,
        random_state=None,
    ):
        self.head = head
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_epochs = max_epochs
        self.min_updates = min_updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.gradient_clip = gradient_clip
        self.precision = precision
        self.device = device
        self.callbacks = callbacks
        self.deterministic = deterministic
        self.verbose = verbose
        self.random_state = random_state

    @with_callbacks
    def fit(self, X, y, groups=None):
        """Train the head.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_tokens, n_features)
            Embeddings. In sequences, absent tokens are rows of NaN.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or a multi-label indicator matrix.
        groups : array-like of shape (n_samples,), default=None
            Patients; ``early_stopping`` sets some of them apart.

        Returns
        -------
        self : HeadClassifier
        """
        self._validate_params()
        X = self._validate(X, reset=True)
        target = self._encode_labels(X, y)
        if groups is not None:
            groups = column_or_1d(groups)
            check_consistent_length(X, groups)
        rng = check_random_state(self.random_state)
        seed = draw_seed(rng)
        rows, valid_rows = self._split(target, groups, rng)
        n_epochs = self._n_epochs(len(rows))
        context = self._begin_callbacks(X, y, n_epochs)
        self.head_ = LinearHead() if self.head is None else clone(self.head)
        weights = self._loss_weights(target[rows])
        head = self._start_head(target[rows], weights, seed)
        module = SupervisedModule(None, head, "head", weights)
        data = Signals(X, y=target)
        self.history_ = self._fit_head(
            module, Rows(data, rows), None if valid_rows is None else Rows(data, valid_rows), seed, context, X, y,
            n_epochs,
        )
        self.n_updates_ = self._n_updates(len(rows))
        self.head_network_ = head.eval()
        if context is not None:
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _validate(self, X, reset):
        X = validate_data(
            self, X, reset=reset, dtype=[np.float32, np.float64], allow_nd=True, ensure_min_samples=2 if reset else 1,
            ensure_all_finite="allow-nan" if getattr(X, "ndim", 2) == 3 else True,
        )
        if X.ndim > 3:
            raise ValueError(
                f"X has shape {X.shape}; expected (n_samples, n_features) or (n_samples, n_tokens, n_features)."
            )
        if X.ndim == 3:
            missing = np.isnan(X)
            if (missing.any(axis=2) != missing.all(axis=2)).any() or missing.all(axis=(1, 2)).any():
                raise ValueError(
                    "Input X contains NaN inside a token, or a sample without any token. An absent token is a row of NaN; "
                    "every sample needs one token at least."
                )
        if reset:
            self._sample_shape_in = X.shape[1:]
        elif X.shape[1:] != self._sample_shape_in:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was fitted on {self._sample_shape_in}."
            )
        return X

    def _n_head_inputs(self):
        return self._sample_shape_in[-1]

    def _logits(self, X):
        device = resolve_device(self.device)
        head = self.head_network_.to(device)
        return apply_network(lambda batch: apply_head(None, head, batch), X, device=device)
