"""The plot of what a masked pretraining task hid and what was predicted there."""

from numbers import Real

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._embedder import ECGSelfSupervisedEmbedder
from .._torch import resolve_device
from .._training import Signals, crop_starts, draw_seed
from .._validation import validate_ecg


class ReconstructionDisplay:
    """Signals on paper, with what was hidden and what :class:`~skecg.objectives.MaskedReconstruction` predicted there.

    Make one with :meth:`~skecg.evaluation.ReconstructionDisplay.from_estimator`.

    Parameters
    ----------
    signal : ndarray of shape (n_samples, n_leads, n_times)
        As the embedder takes them.
    hidden : ndarray of shape (n_samples, n_leads, n_times)
        True where the network could not see the signal.
    reconstruction : ndarray of shape (n_samples, n_leads, n_times)
        What was predicted, in the unit of ``signal``; means something where ``hidden`` only.
    lead_names : sequence of str
    unit : str, default="mV"
        Of the signals.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from skecg import ECGSelfSupervisedEmbedder
    >>> from skecg.datasets import make_ecg
    >>> from skecg.evaluation import ReconstructionDisplay
    >>> X, y, groups = make_ecg(8, duration=2.0, random_state=0)
    >>> embedder = ECGSelfSupervisedEmbedder(max_epochs=1, warm_start=True, random_state=0).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(embedder, X[:2], random_state=0)
    >>> display.reconstruction.shape
    (2, 12, 200)
    >>> round(float(display.hidden.mean()), 2)
    0.5
    >>> display.plot(fs=100).figure_.savefig("reconstruction.png")                          # doctest: +SKIP
    """

    def __init__(self, signal, hidden, reconstruction, lead_names, unit="mV"):
        self.signal = signal
        self.hidden = hidden
        self.reconstruction = reconstruction
        self.lead_names = lead_names
        self.unit = unit

    @classmethod
    def from_estimator(cls, estimator, X, *, unit=None, random_state=None):
        """Hide parts of signals as at the end of pretraining, with the leads in their order, and predict them.

        Parameters
        ----------
        estimator : ECGSelfSupervisedEmbedder or Pipeline
            Embedder that was fitted with ``warm_start=True`` (which keeps the objective's module) and a
            :class:`~skecg.objectives.MaskedReconstruction`; or a Pipeline that ends in one, whose earlier steps are applied.
        X : array-like of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
            As in ``fit``. With ``crop_size``, the pieces that cover a window are treated one by one.
        unit : str, default=None
            Unit of the signals that reach the embedder. None: "mV", and "units" after other steps, such as a
            :class:`~skecg.preprocessing.LeadScaler`.
        random_state : int, RandomState or None, default=None
            Of what is hidden.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        ValueError
            The embedder has no module that reconstructs.
        """
        embedder, steps = estimator, None
        if isinstance(estimator, Pipeline):
            embedder, steps = estimator[-1], estimator[:-1] if len(estimator) > 1 else None
        if isinstance(embedder, FrozenEstimator):
            embedder = embedder.estimator
        if not isinstance(embedder, ECGSelfSupervisedEmbedder):
            raise TypeError(
                f"Got a {type(embedder).__name__}; expected an ECGSelfSupervisedEmbedder, or a Pipeline that ends in one."
            )
        check_is_fitted(embedder)
        module = getattr(embedder, "pretrainer_", None)
        if module is None:
            raise ValueError(
                "The embedder has thrown its objective away. Fit it with warm_start=True, which keeps what reconstructs."
            )
        if not hasattr(module, "reconstruct") or not module.settings.mask_ratio:
            raise ValueError(
                f"{type(embedder.objective_).__name__} does not reconstruct signals; expected MaskedReconstruction with a "
                "mask_ratio above 0."
            )
        encoder = embedder.encoder_
        X = X if steps is None else steps.transform(X)
        X = validate_ecg(embedder, X, reset=False, any_length=encoder.any_length)
        n_times = X.shape[-1]
        size = embedder.crop_size or n_times
        device = resolve_device(embedder.device)
        module.to(device).eval()
        generator = torch.Generator(device).manual_seed(draw_seed(check_random_state(random_state)))
        signal = np.full((len(X), module.encoder.n_leads, n_times), np.nan, dtype=np.float32)
        hidden, reconstruction = np.zeros(signal.shape, dtype=bool), signal.copy()
        for start in crop_starts(n_times, size):
            piece = np.s_[..., start:start + size]
            batch = Signals(X[piece], encoder).batch(np.arange(len(X))).to(device)
            batch.generator, batch.step, batch.n_steps = generator, 1, 2  # the last update, for schedules
            with torch.inference_mode():
                parts = [part.cpu().numpy() for part in module.reconstruct(batch)]
            signal[piece], hidden[piece], reconstruction[piece] = parts
        missing = np.isnan(np.asarray(X).reshape(signal.shape)[:, :, 0])
        signal[missing] = reconstruction[missing] = np.nan
        hidden[missing] = False
        unit = unit or ("mV" if steps is None else "units")
        return cls(signal, hidden, reconstruction, embedder.lead_names_in_, unit)

    def plot(self, sample=0, *, fs, gain=None, speed=25.0, row_height=22.0, ax=None):
        """Draw one sample, all leads below each other, in the scale of paper; needs ``pip install skecg[plot]``.

        Black is what the network saw, grey what was hidden, red what it predicted there.

        Parameters
        ----------
        sample : int, default=0
            Which one.
        fs : float
            Sampling rate in Hz.
        gain : float, default=None
            Millimetres of paper per unit. None: 10 for "mV", else a round number that makes signals as high as a row.
        speed : float, default=25.0
            Millimetres of paper per second.
        row_height : float, default=22.0
            Millimetres of paper between two leads.
        ax : matplotlib.axes.Axes, default=None
            Where to draw, in millimetres of paper, which it should have room for. None: a new figure of the right size.

        Returns
        -------
        self : ReconstructionDisplay

        Raises
        ------
        ValueError
            A scale that is not positive, or a sample that there is not.
        """
        for name, value in {"fs": fs, "gain": 1 if gain is None else gain, "speed": speed, "row_height": row_height}.items():
            if not isinstance(value, Real) or not value > 0:
                raise ValueError(f"{name} is {value!r}; expected a positive number.")
        if not -len(self.signal) <= sample < len(self.signal):
            raise ValueError(f"sample is {sample!r}, but there are {len(self.signal)} samples.")
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("ReconstructionDisplay.plot needs matplotlib: pip install 'skecg[plot]'.") from error
        signal, hidden, reconstruction = (part[sample] for part in (self.signal, self.hidden, self.reconstruction))
        n_leads, n_times = signal.shape
        if gain is None:
            gain = 10.0 if self.unit == "mV" else _gain(signal, row_height)
        x = np.arange(n_times) / fs * speed
        left, right, top, height = -14.0, np.ceil(x[-1] / 5) * 5, 12.0, n_leads * row_height
        if ax is None:
            size = ((right - left) / 25.4, (height + top) / 25.4)
            ax = plt.figure(figsize=size).add_axes((0, 0, 1, 1))
        ax.set(xlim=(left, right), ylim=(-height, top), aspect="equal")
        for step, line_width in ((1, 0.2), (5, 0.6)):
            ax.vlines(np.arange(0, right + 1, step), -height, 0, color="#f2b8b5", linewidth=line_width)
            ax.hlines(np.arange(-height // 5 * 5 + 5, 1, step), 0, right, color="#f2b8b5", linewidth=line_width)
        for lead, name in enumerate(self.lead_names):
            baseline = -row_height * (lead + 0.5)
            ax.text(left + 1, baseline, name, weight="bold", verticalalignment="center")
            if np.isnan(signal[lead]).all():
                ax.text(1, baseline, "missing", style="italic", verticalalignment="center")
                continue
            zero = np.median(signal[lead])
            trace, guess = (baseline + gain * (values - zero) for values in (signal[lead], reconstruction[lead]))
            # stretches of one kind, each joined to the sample after it
            edges = np.flatnonzero(np.diff(hidden[lead])) + 1
            for start, stop in zip(np.r_[0, edges], np.r_[edges, n_times], strict=True):
                piece = slice(start, stop + 1)
                if hidden[lead, start]:
                    ax.plot(x[piece], trace[piece], color="0.65", linewidth=0.7)
                    ax.plot(x[start:stop], guess[start:stop], color="#c00000", linewidth=0.9)
                    ax.fill_between(x[piece], baseline - row_height / 2, baseline + row_height / 2, color="0.5", alpha=0.12,
                                    linewidth=0)
                else:
                    ax.plot(x[piece], trace[piece], color="black", linewidth=0.7)
        ax.axis("off")
        ax.text(0, top - 5, "black: seen    grey: hidden    red: predicted", fontsize=8)
        ax.text(0, top - 9.5, f"{speed:g} mm/s, {gain:g} mm/{self.unit.removesuffix('s')}", fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _gain(signal, row_height):
    """Millimetres per unit: the largest round number with which nearly all of the signals fits into its row."""
    deviations = np.abs(signal - np.median(signal, axis=1, keepdims=True))
    reach = np.nanquantile(deviations, 0.999)
    room = 0.8 * row_height / reach if reach > 0 else 10.0
    power = 10.0 ** np.floor(np.log10(room))
    return float(max(step * power for step in (1, 2, 5) if step * power <= room))
