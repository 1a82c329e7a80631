"""Simulated electrocardiograms on paper: 25 mm/s, 10 mm/mV, three rows of four leads and a rhythm strip."""

import matplotlib.pyplot as plt
import numpy as np

from skecg.datasets import make_ecg

classes = (
    "normal", "left bundle branch block", "right bundle branch block", "atrial fibrillation", "atrial flutter",
    "second-degree AV block", "premature ventricular contractions", "anterior myocardial infarction",
    "inferior myocardial infarction", "left ventricular hypertrophy", "Wolff-Parkinson-White pattern",
)
rows = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
lead_names = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
fs = 250  # Hz
width, row_height, top = 260, 33, 14  # mm


def plot_on_paper(signal, title):
    """Draw ten seconds of twelve leads, shape (12, n_times), in mV: one millimetre of the axes is one of paper."""
    height = 4 * row_height + top
    figure = plt.figure(figsize=(width / 25.4, height / 25.4))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(-5, width - 5), ylim=(0, height))
    for step, line_width in ((1, 0.2), (5, 0.6)):
        ax.vlines(np.arange(-5, width - 4, step), 0, height - 8, color="#f2b8b5", linewidth=line_width)
        ax.hlines(np.arange(0, height - 7, step), -5, width - 5, color="#f2b8b5", linewidth=line_width)
    times = np.arange(signal.shape[1]) / fs
    for row, names in enumerate((*rows, ("II",))):
        baseline = height - top - row_height * (row + 0.55)
        ax.plot([-4, -3, -3, -1, -1, 0], baseline + np.array([0, 0, 10, 10, 0, 0]), color="black", linewidth=0.6)
        for column, name in enumerate(names):
            shown = times >= 2.5 * column
            if len(names) > 1:
                shown &= times < 2.5 * (column + 1)
            trace = signal[lead_names.index(name)]
            trace = 10 * (trace - np.median(trace))
            ax.plot(25 * times[shown], baseline + trace[shown], color="black", linewidth=0.6)
            ax.text(62.5 * column + 1, baseline + 12, name, fontsize=8, weight="bold")
            if column:
                ax.vlines(62.5 * column, baseline - 2.5, baseline + 2.5, color="black", linewidth=0.6)
    ax.axis("off")
    ax.text(0, height - 5.5, title, fontsize=10)
    ax.text(width - 10, height - 5.5, "25 mm/s, 10 mm/mV", fontsize=8, horizontalalignment="right")


X, y, _ = make_ecg(len(classes), classes=classes, fs=fs, ages=(40, 70), noise=0.5, random_state=322)
for name in classes:
    plot_on_paper(X[y == name][0], name[0].upper() + name[1:])
