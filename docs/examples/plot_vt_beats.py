"""Sites of the left ventricle as a bull's eye, and the beats that are paced from four of them."""

import matplotlib.pyplot as plt
import numpy as np

from skecg.datasets import make_vt_beats

lead_names = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
fs = 500  # Hz
X, segment, position, _ = make_vt_beats(1, 400, fs=fs, after=0.45, noise=0.5, variation=0, random_state=0)
lateral, anterior, apical = position.T
turn, distance = np.arctan2(anterior, lateral), 1 - apical / 85  # the apex is in the middle

# One site in the middle of each wall, a third of the way down.
walls = {"lateral": 0, "anterior": 90, "septal": 180, "inferior": 270}
rows = {
    name: np.argmin(np.linalg.norm(position - [23 * np.cos(a), 23 * np.sin(a), 29], axis=1))
    for name, a in ((name, np.radians(angle)) for name, angle in walls.items())
}
colours = dict(zip(rows, ("#0072b2", "#009e73", "#d55e00", "#cc79a7"), strict=True))

figure = plt.figure(figsize=(9, 11), layout="constrained")
bull, beats = figure.subfigures(2, 1, height_ratios=(0.7, 1.4))
ax = bull.add_subplot(projection="polar")
ax.scatter(turn, distance, s=14, color="0.75")
for border in (0.1, 0.4, 0.7, 1.0):
    ax.plot(np.linspace(0, 2 * np.pi, 200), np.full(200, border), color="0.3", linewidth=0.8)
for angles, low, high in ((range(0, 360, 60), 0.4, 1.0), (range(45, 360, 90), 0.1, 0.4)):
    for angle in angles:
        ax.plot(np.radians([angle, angle]), [low, high], color="0.3", linewidth=0.8)
for number in range(1, 18):
    here = segment == number
    x, y = (distance * f(turn) for f in (np.cos, np.sin))
    middle = (0, 0) if number == 17 else (np.arctan2(y[here].mean(), x[here].mean()) + 0.22, np.median(distance[here]))
    ax.text(*middle, number, horizontalalignment="center", verticalalignment="center", fontsize=9, weight="bold", zorder=5,
            bbox={"boxstyle": "circle,pad=0.15", "color": "white", "alpha": 0.8})
for name, row in rows.items():
    ax.plot(turn[row], distance[row], "o", color=colours[name], markersize=7, zorder=6)
ax.set(rmax=1.0, yticks=[], xticks=np.radians(list(walls.values())), xticklabels=walls)
ax.tick_params(pad=4)
ax.grid(False)
ax.spines["polar"].set_visible(False)
ax.set_title("400 sites and their segments; the apex is in the middle", fontsize=10, pad=14)

axes = beats.subplots(6, 2, sharex=True)
times = 1e3 * (np.arange(X.shape[2]) / fs - 0.1)
for place, (name, ax) in enumerate(zip(lead_names, axes.T.ravel(), strict=True)):
    for wall, row in rows.items():
        trace = X[row, place]
        ax.plot(times, trace - trace[: round(0.09 * fs)].mean(), color=colours[wall], linewidth=1.1, label=wall)
    ax.axvspan(0, 120, color="0.93", linewidth=0)
    ax.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_ylabel(f"{name} (mV)", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.set_xlim(times[0], times[-1])
beats.supxlabel("ms from the onset of QRS; grey: the 120 ms that are integrated", fontsize=8)
beats.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper center", ncols=4)
