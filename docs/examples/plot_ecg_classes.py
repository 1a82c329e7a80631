"""Classes of the simulator, in two leads."""

import matplotlib.pyplot as plt
import numpy as np

from skecg.datasets import make_ecg

classes = (
    "normal", "atrial fibrillation", "premature ventricular contractions",
    "left bundle branch block", "anterior myocardial infarction", "left ventricular hypertrophy",
)
leads, fs = ("II", "V1"), 250
X, y, _ = make_ecg(
    6, classes=classes, duration=4.0, fs=fs, lead_names=leads, noise=0.5, random_state=3)

figure, axes = plt.subplots(len(classes), 2, figsize=(9, 8), sharex=True, layout="constrained")
times = np.arange(X.shape[-1]) / fs
for row, name in enumerate(classes):
    signal = X[y == name][0]
    for column, lead in enumerate(leads):
        ax = axes[row, column]
        ax.plot(times, signal[column], color="black", linewidth=0.8)
        ax.set_xticks(np.arange(0, 4.1, 0.2), minor=True)
        ax.grid(which="both", color="mistyrose", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(f"{name}, lead {lead}", loc="left", fontsize=9)
        ax.set_ylabel("mV", fontsize=8)
        ax.tick_params(which="both", labelsize=8)
for ax in axes[-1]:
    ax.set_xlabel("seconds", fontsize=8)
