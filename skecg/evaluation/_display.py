"""The plot of a label-efficiency curve."""

import numpy as np

from ._statistics import label_saving, number_of, summary

_MARKERS = "osD^vPX*"
_MOST_WITHIN = 6  # arms whose names leave the axes room for curves


class LabelEfficiencyDisplay:
    """Plot of score against the share of labels, one line per arm, with intervals.

    Parameters
    ----------
    curve : LabelEfficiencyCurve
        Result of :func:`label_efficiency_curve`.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : dict of str to matplotlib.lines.Line2D
        The line of each arm.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.datasets import load_iris
    >>> from skecg.evaluation import LabelEfficiencyDisplay, label_efficiency_curve
    >>> X, y = load_iris(return_X_y=True)
    >>> curve = label_efficiency_curve({"linear": LogisticRegression(max_iter=1000)}, X, y, label_fractions=(0.1, 1.0),
    ...                                cv=2, n_repeats=2, verbose=0, random_state=0)
    >>> display = LabelEfficiencyDisplay(curve).plot()                                     # doctest: +SKIP
    >>> display.figure_.savefig("label_efficiency.png")                                    # doctest: +SKIP
    """

    def __init__(self, curve):
        self.curve = curve

    def plot(
        self, metric=None, *, arms=None, saving=None, confidence_level=0.95, n_resamples=1000, random_state=0, ax=None
    ):
        """Draw the curves; needs ``pip install skecg[plot]``.

        Parameters
        ----------
        metric : str, default=None
            One of the study's metrics; None is the first.
        arms : sequence of str, default=None
            What to draw, in this order. None: all arms.
        saving : tuple of (str, str), default=None
            An arm and its reference: marks the fraction at which the arm reaches what the reference does with all labels.
        confidence_level : float, default=0.95
            Of the bars, which are intervals over patients and repeats.
        n_resamples : int, default=1000
            Resamples of the bootstrap.
        random_state : int, default=0
            Seed of the bootstrap.
        ax : matplotlib.axes.Axes, default=None
            Where to draw. None: a new figure. More than six arms are named beside the axes.

        Returns
        -------
        self : LabelEfficiencyDisplay
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("LabelEfficiencyDisplay.plot needs matplotlib: pip install 'skecg[plot]'.") from error
        if saving is not None and (isinstance(saving, str) or len(saving) != 2):
            raise ValueError(f"saving is {saving!r}; expected the names of an arm and of its reference.")
        curve, options = self.curve, {
            "confidence_level": confidence_level, "n_resamples": n_resamples, "random_state": random_state,
        }
        names = curve.arms if arms is None else list(arms)
        for arm in (*names, *(saving or ())):
            number_of(curve, arm)
        if not {*(saving or ())} <= {*names}:
            raise ValueError(f"saving={saving!r} names an arm that is not to be drawn: {', '.join(map(repr, names))} are.")
        metric = curve.metrics[0] if metric is None else metric
        rows = summary(curve, metric, **options)
        if ax is None:
            ax = plt.subplots(figsize=(7.0 if len(names) <= _MOST_WITHIN else 10.0, 4.6), layout="constrained")[1]
        fractions = np.array(curve.label_fractions)
        self.lines_ = {}
        for i, arm in enumerate(names):
            own = [row for row in rows if row["arm"] == arm]
            value, low, high = (np.array([row[name] for row in own], dtype=float) for name in ("value", "low", "high"))
            # beside each other on the logarithmic axis, so that the bars can be told apart
            at = fractions * 1.03 ** (i - (len(names) - 1) / 2)
            bars = ax.errorbar(
                at, value, [np.maximum(0, value - low), np.maximum(0, high - value)], fmt=_MARKERS[i % len(_MARKERS)],
                linestyle="-" if i < 10 else "--", markersize=5, linewidth=1.5, elinewidth=1, capsize=2.5, label=arm,
            )
            self.lines_[arm] = bars.lines[0]
        if saving is not None:
            self._draw_saving(ax, label_saving(curve, *saving, metric=metric, **options))
        n_labels = [np.mean([row["n_labels"] for row in rows if row["fraction"] == f]) for f in curve.label_fractions]
        ax.set_xscale("log")
        ax.set_xticks(fractions, [f"{f:.3g}" for f in 100 * fractions])
        ax.minorticks_off()
        ax.set_xlabel("patients with labels (%)")
        above = ax.secondary_xaxis("top")
        above.set_xticks(fractions, [f"{n:,.0f}" for n in n_labels])
        above.minorticks_off()
        above.set_xlabel("labelled samples")
        unit = curve.unit(metric)
        ax.set_ylabel(metric.replace("_", " ") + (unit and f" ({unit})"))
        ax.grid(alpha=0.3)
        within = len(names) <= _MOST_WITHIN
        place = {"loc": "best"} if within else {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        ax.legend(frameon=False, fontsize="small", **place)
        for line, text in enumerate(self._remarks()):
            ax.annotate(text, (0.01, 0.99), (0, -11 * line), xycoords="axes fraction", textcoords="offset points", va="top",
                        fontsize="small", color="firebrick", weight="bold")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_saving(self, ax, found):
        """A line at the reference's full result, and one where the arm's curve crosses it."""
        ax.axhline(found.reference_value, color=self.lines_[found.reference].get_color(), linestyle=":", linewidth=1)
        if np.isfinite(found.fraction):
            ax.axvline(found.fraction, color=self.lines_[found.arm].get_color(), linestyle=":", linewidth=1)
        ax.set_title(str(found), fontsize="small", wrap=True)

    def _remarks(self):
        """What a reader must not miss."""
        if self.curve.transductive:
            yield "transductive: pretraining saw the test signals"
        outside = sorted({arm for entry in self.curve.pretraining if entry["outside"] for arm in entry["arms"]})
        if outside:
            yield f"pretrained outside the study: {', '.join(outside)}"
