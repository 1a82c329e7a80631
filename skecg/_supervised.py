"""ECGClassifier and ECGRegressor (signals, end to end); HeadClassifier and HeadRegressor (embeddings)."""

from ._classifier import NetworkClassifier
from ._on_embeddings import EmbeddingPredictor
from ._on_signals import SignalPredictor
from ._regressor import NetworkRegressor


class ECGClassifier(NetworkClassifier, SignalPredictor):
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
        Train on one CPU thread, pretraining included.
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

    _parameter_constraints = {**SignalPredictor._parameter_constraints, **NetworkClassifier._parameter_constraints}

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


class ECGRegressor(NetworkRegressor, SignalPredictor):
    """Predict values from ECGs, such as coordinates in millimetres, with a pretrained network that is fine-tuned end to end.

    ``fit`` pretrains a clone of ``embedder`` (on ``X_unlabeled`` if given), puts ``head`` on its network, and trains with
    targets. A pretrained embedder is kept as it is inside :class:`~sklearn.frozen.FrozenEstimator`: the regressor then
    starts from its weights and never changes the original. A plain embedder is pretrained again in every fit, which
    is what keeps cross-validation free of leaks. Each target is standardised by its mean and standard deviation in what is
    trained on; predictions are in the unit of y.

    Parameters
    ----------
    embedder : ECGSelfSupervisedEmbedder or FrozenEstimator, default=None
        None: ``ECGSelfSupervisedEmbedder()``. With ``max_epochs=0`` it is the same network from scratch. Its ``crop_size``
        applies to training with targets too; predictions are averaged over the crops of a window.
    head : Head, default=None
        None: :class:`~skecg.heads.LinearHead`.
    trainable : {"all", "head"} or int, default="all"
        What the targets train: everything, the head, or the head and the network's top ``k`` blocks.
    head_epochs : int, default=0
        Passes in which the head trains alone before everything does. A random head sends random gradients into pretrained
        weights, which can cost accuracy (Kumar et al., 2022).
    lead_dropout : float, default=0.0
        Probability that a lead of a training sample is taken away, drawn anew for every presentation, against
        overfitting and for data in which leads are missing.
    loss : {"squared_error", "huber"}, default="squared_error"
        Of standardised targets, averaged over samples and targets. "huber" is half the square up to an error of one standard
        deviation of the target and grows linearly from there, so that a few wrong values in y weigh less.
    early_stopping : bool, default=False
        Stop when the loss on validation samples has not fallen for ``n_iter_no_change`` epochs, and keep the best
        epoch's weights. The validation samples are ``X_val`` if given, else ``validation_fraction`` of the patients in
        ``groups``, or of the samples without groups.
    validation_fraction : float, default=0.1
        Share set apart for ``early_stopping``.
    n_iter_no_change : int, default=10
        Patience of ``early_stopping``.
    max_epochs : int, default=30
        Passes over the samples with targets.
    min_updates : int, default=0
        Passes are added where ``max_epochs`` of them make fewer updates: a few samples fill few batches, and a network needs
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
        Take part in training with targets.
    deterministic : bool, default=False
        Train on one CPU thread, pretraining included.
    verbose : int, default=0
        1 shows a progress bar over the epochs, 2 prints a line for each as well.
    random_state : int, RandomState or None, default=None
        Seed of everything in ``fit``, and of the embedder where that has none of its own.

    Attributes
    ----------
    target_mean_, target_scale_ : ndarray of shape (n_targets,)
        Mean and standard deviation of the targets that were trained on, in the unit of y; 1 in place of the deviation
        of a target that does not vary.
    embedder_ : ECGSelfSupervisedEmbedder
        Holds the fine-tuned network: ``embedder_.transform`` gives the fine-tuned embedding.
    head_ : Head
        Clone of ``head``.
    head_network_ : torch.nn.Module
        The trained head.
    history_ : list of dict
        One entry per epoch of training with targets, with losses of standardised ones; that of pretraining is
        ``embedder_.history_``.
    n_updates_ : int
        Updates made with targets, those of the head alone included.
    n_leads_in_, n_times_in_, n_features_in_ : int
        Shape of one sample; size of X's second axis.

    References
    ----------
    Kumar A, Raghunathan A, Jones R, Ma T, Liang P. Fine-tuning can distort pretrained features and underperform
    out-of-distribution. ICLR 2022.

    Examples
    --------
    >>> from skecg import ECGRegressor, ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import PatchTransformer
    >>> X, y, groups = make_ecg(32, duration=2.0, random_state=0)
    >>> height = X.max(axis=2)[:, :3]                                    # of three leads, in millivolt
    >>> embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=32, depth=1), max_epochs=1)
    >>> ECGRegressor(embedder, max_epochs=2, random_state=0).fit(X, height).predict(X[:5]).shape
    (5, 3)
    """

    _parameter_constraints = {**SignalPredictor._parameter_constraints, **NetworkRegressor._parameter_constraints}

    def __init__(
        self, embedder=None, head=None, trainable="all", *, head_epochs=0, lead_dropout=0.0, loss="squared_error",
        early_stopping=False, validation_fraction=0.1, n_iter_no_change=10, max_epochs=30, min_updates=0,
        batch_size=32, learning_rate=1e-3, weight_decay=0.05, warmup=0.1, gradient_clip=1.0, precision="auto",
        device="auto", callbacks=None, deterministic=False, verbose=0, random_state=None,
    ):
        self.embedder = embedder
        self.head = head
        self.trainable = trainable
        self.head_epochs = head_epochs
        self.lead_dropout = lead_dropout
        self.loss = loss
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


class HeadClassifier(NetworkClassifier, EmbeddingPredictor):
    """Classify embeddings with a head, trained by the same loop as :class:`ECGClassifier`.

    The step after an embedder in a Pipeline: on vectors, or with ``output="tokens"`` or ``"crops"`` on sequences.

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

    _parameter_constraints = {**EmbeddingPredictor._parameter_constraints, **NetworkClassifier._parameter_constraints}

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


class HeadRegressor(NetworkRegressor, EmbeddingPredictor):
    """Predict values from embeddings with a head, trained by the same loop as :class:`ECGRegressor`.

    The step after an embedder in a Pipeline: on vectors, or with ``output="tokens"`` or ``"crops"`` on sequences. Each
    target is standardised by its mean and standard deviation in what is trained on; predictions are in the unit of y.

    Parameters
    ----------
    head : Head, default=None
        None: :class:`~skecg.heads.LinearHead`, which takes the mean of a sequence.
    loss : {"squared_error", "huber"}, default="squared_error"
        Of standardised targets, averaged over samples and targets. "huber" is half the square up to an error of one standard
        deviation of the target and grows linearly from there, so that a few wrong values in y weigh less.
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
    target_mean_, target_scale_ : ndarray of shape (n_targets,)
        Mean and standard deviation of the targets that were trained on, in the unit of y; 1 in place of the deviation
        of a target that does not vary.
    head_ : Head
        Clone of ``head``.
    head_network_ : torch.nn.Module
        The trained head.
    history_ : list of dict
        One entry per epoch; losses are of standardised targets.
    n_updates_ : int
        Updates made.
    n_features_in_ : int
        Size of X's second axis.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skecg import HeadRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> HeadRegressor(random_state=0).fit(X, y).score(X, y) > 0.45
    True
    """

    _parameter_constraints = {**EmbeddingPredictor._parameter_constraints, **NetworkRegressor._parameter_constraints}

    def __init__(
        self, head=None, *, loss="squared_error", early_stopping=False, validation_fraction=0.1, n_iter_no_change=10,
        max_epochs=100, min_updates=0, batch_size=32, learning_rate=1e-2, weight_decay=0.05, warmup=0.1,
        gradient_clip=1.0, precision="float32", device="auto", callbacks=None, deterministic=False, verbose=0,
        random_state=None,
    ):
        self.head = head
        self.loss = loss
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
