"""Heads: parameter objects for what turns embeddings into predictions, and their modules."""

import math
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from torch import nn

from .encoders._layers import Dropout


class Head(BaseEstimator):
    """Base class of heads: parameters from which a module is built.

    Attributes
    ----------
    input : {"embedding", "tokens"}
        What the module's ``forward(h, padding_mask=None)`` takes: (B, D) vectors, or (B, N, D) sequences with a
        (B, N) mask that is True at absent tokens.
    """

    input = "embedding"

    def build(self, n_features, n_outputs):
        """The module, mapping to (B, n_outputs) logits, or standardised values of a regressor.

        If it has a method ``start_at(outputs)``, that is called before training with the outputs of the best constant
        prediction: the logits of the class frequencies, or zeros for the means of a regressor's targets.

        If it has a true attribute ``takes_target``, the loss is computed on ``forward(h, ..., target=target)``: the codes of
        the classes (B,), or zeros and ones (B, n_outputs) for two classes or several labels.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement build(n_features, n_outputs).")


class LinearHead(Head):
    """One linear layer on the embedding, standardised over each batch of training samples.

    Parameters
    ----------
    dropout : float, default=0.0
        Dropout probability on the embedding.

    Notes
    -----
    The standardisation is a batch normalisation without gain and shift: embeddings of a pretrained network may have any
    scale, and a linear layer on them would learn at a rate that depends on it. After training it is a fixed shift and
    scale.

    Examples
    --------
    >>> import torch
    >>> from skecg.heads import LinearHead
    >>> LinearHead().build(n_features=8, n_outputs=3)(torch.zeros(2, 8)).shape
    torch.Size([2, 3])
    """

    _parameter_constraints = {"dropout": [Interval(Real, 0, 1, closed="left")]}

    def __init__(self, dropout=0.0):
        self.dropout = dropout

    def build(self, n_features, n_outputs):
        self._validate_params()
        return _LinearModule(n_features, n_outputs, self.dropout)


class _LinearModule(nn.Module):
    def __init__(self, n_features, n_outputs, dropout):
        super().__init__()
        # the default eps would be a variance of its own beside that of small embeddings
        self.norm = nn.BatchNorm1d(n_features, affine=False, eps=1e-10)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(n_features, n_outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def start_at(self, outputs):
        """Give ``outputs`` until trained."""
        with torch.no_grad():
            self.linear.bias.copy_(outputs)

    def forward(self, h, padding_mask=None):
        h = h.float()
        if self.training and len(h) < 2:  # a variance needs two samples
            h = (h - self.norm.running_mean) / torch.sqrt(self.norm.running_var + self.norm.eps)
        else:
            h = self.norm(h)
        return self.linear(self.dropout(h))  # (B, n_outputs)


class BiLSTMHead(Head):
    """A bidirectional LSTM over the tokens; a linear layer on its last states.

    Parameters
    ----------
    hidden_dim : int, default=128
        Width of the state in each direction.
    dropout : float, default=0.0
        Dropout probability on the states that the linear layer takes.

    Notes
    -----
    * Absent tokens are left out: each direction ends at a real token, and neither the length of the padding nor the place of
      missing leads changes anything. HeartBERT reads the states at the last position instead, which usually is padding, and
      where the backward direction has seen one token.
    * How sequences are put together in a batch can change the last digits of the results.

    References
    ----------
    Hochreiter S, Schmidhuber J. Long short-term memory. Neural Comput 9(8):1735-1780, 1997.

    Graves A, Schmidhuber J. Framewise phoneme classification with bidirectional LSTM and other neural network
    architectures. Neural Netw 18(5-6):602-610, 2005.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skecg import ECGSelfSupervisedEmbedder, HeadClassifier
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import PatchTransformer
    >>> from skecg.heads import BiLSTMHead
    >>> X, y, groups = make_ecg(12, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(PatchTransformer(embed_dim=16, depth=1), output="tokens", max_epochs=1)
    >>> make_pipeline(embedder, HeadClassifier(BiLSTMHead(8), max_epochs=2)).fit(X, y).predict(X[:3]).shape
    (3,)
    """

    input = "tokens"

    _parameter_constraints = {
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, hidden_dim=128, dropout=0.0):
        self.hidden_dim = hidden_dim
        self.dropout = dropout

    def build(self, n_features, n_outputs):
        self._validate_params()
        return _BiLSTMModule(n_features, n_outputs, self.hidden_dim, self.dropout)


class _BiLSTMModule(nn.Module):
    def __init__(self, n_features, n_outputs, hidden_dim, dropout):
        super().__init__()
        self.onwards, self.backwards = (nn.LSTM(n_features, hidden_dim, batch_first=True) for _ in range(2))
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(2 * hidden_dim, n_outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def start_at(self, outputs):
        """Give ``outputs`` until trained."""
        with torch.no_grad():
            self.linear.bias.copy_(outputs)

    def forward(self, h, padding_mask=None):
        if padding_mask is None:
            padding_mask = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
        there_first = padding_mask.to(torch.int8).argsort(dim=1, stable=True)  # (B, N)
        length = (~padding_mask).sum(dim=1, keepdim=True).clamp(min=1)  # of nothing at all, one absent token is read
        there_first = there_first[:, : int(length.max())]
        place = torch.arange(there_first.shape[1], device=h.device)
        backwards = there_first.gather(1, (length - 1 - place).clamp(min=0))
        h = h.to(self.linear.weight.dtype)
        states = []
        # Each direction reads on past the end of the shorter sequences, and what it held there is taken: measured 2.5 to 7
        # times as fast on a CPU as packed sequences, on which torch has no fused kernel there.
        with torch.autocast(h.device.type, enabled=False):
            for lstm, order in ((self.onwards, there_first), (self.backwards, backwards)):
                read = lstm(h.gather(1, order.unsqueeze(-1).expand(-1, -1, h.shape[2])))[0]  # (B, N, H)
                states.append(read.gather(1, (length - 1).unsqueeze(-1).expand(-1, 1, read.shape[2]))[:, 0])
        return self.linear(self.dropout(torch.cat(states, dim=1)))  # (B, n_outputs)


class ArcFaceHead(Head):
    """Cosines between the embedding and one direction per class, with an angular margin in training.

    In training, the angle between an embedding and the direction of its class is increased by ``margin`` before the loss:
    embeddings of a class have to lie closer together than separating the classes would ask for. They can then be compared
    with those of classes that were never trained on, by cosine: to identify patients, train on some and compare
    embeddings of others.

    Parameters
    ----------
    scale : float, default=64.0
        Factor on the cosines: logits.
    margin : float, default=0.5
        Added to the angle, in radians.

    Notes
    -----
    * Where the increased angle would pass 180 degrees, ``margin * sin(margin)`` is taken from the cosine instead.
    * Oh et al. (2022) identify patients with ``scale=192`` and ``margin=1.0`` on 70,000 classes.
    * For classes only: neither for several labels nor for a regressor.

    References
    ----------
    Deng J, Guo J, Xue N, Zafeiriou S. ArcFace: additive angular margin loss for deep face recognition. CVPR 2019.

    Oh J, Chung H, Kwon J, Hong D, Choi E. Lead-agnostic self-supervised learning for local and global representations of
    electrocardiogram. CHIL 2022.

    Examples
    --------
    Patients of whom two recordings are known, recognised among each other:

    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.encoders import ResNet1d
    >>> from skecg.heads import ArcFaceHead
    >>> X, y, patient = make_ecg(16, duration=2.0, random_state=0)
    >>> scratch = ECGSelfSupervisedEmbedder(ResNet1d(8), max_epochs=0)
    >>> classifier = ECGClassifier(scratch, ArcFaceHead(), max_epochs=1, random_state=0).fit(X[:8], patient[:8])
    >>> embeddings = classifier.embedder_.transform(X[8:])  # of patients that were not trained on
    >>> nearest = KNeighborsClassifier(1, metric="cosine").fit(embeddings, patient[8:])
    >>> nearest.predict(embeddings).shape
    (8,)
    """

    _parameter_constraints = {
        "scale": [Interval(Real, 0, None, closed="neither")],
        "margin": [Interval(Real, 0, math.pi, closed="left")],
    }

    def __init__(self, scale=64.0, margin=0.5):
        self.scale = scale
        self.margin = margin

    def build(self, n_features, n_outputs):
        self._validate_params()
        return _ArcFaceModule(n_features, n_outputs, self.scale, self.margin)


class _ArcFaceModule(nn.Module):
    takes_target = True

    def __init__(self, n_features, n_outputs, scale, margin):
        super().__init__()
        self.n_outputs, self.scale, self.margin = n_outputs, scale, margin
        directions = torch.empty(max(2, n_outputs), n_features).uniform_(-1, 1)  # two classes share an output
        self.directions = nn.Parameter(F.normalize(directions, dim=1))

    def forward(self, h, padding_mask=None, target=None):
        h = h if h.dtype == torch.float64 else h.float()
        with torch.autocast(h.device.type, enabled=False):
            cosine = F.normalize(h, dim=1) @ F.normalize(self.directions, dim=1).T
        cosine = cosine.clamp(-1, 1)  # (B, n_classes)
        if target is not None:
            own = self._codes(target).unsqueeze(1)
            cosine = cosine.scatter(1, own, self._increase(cosine.gather(1, own)))
        logits = self.scale * cosine
        return logits if self.n_outputs > 1 else logits[:, 1:] - logits[:, :1]  # (B, n_outputs)

    def _increase(self, cosine):
        """Cosine of the angle plus the margin."""
        sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()  # of no angle at all the gradient would be infinite
        increased = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine <= math.cos(math.pi - self.margin)
        return torch.where(beyond, cosine - self.margin * math.sin(self.margin), increased)

    def _codes(self, target):
        if target.dtype == torch.int64:
            return target
        if self.n_outputs > 1 or ((target != 0) & (target != 1)).any():
            raise ValueError(
                "ArcFaceHead separates classes of which a sample has one; use another head for labels or values."
            )
        return target[:, 0].long()
