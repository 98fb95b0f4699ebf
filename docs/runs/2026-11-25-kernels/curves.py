"""The picture of this record: `curves.py losses.csv curves.svg`, with matplotlib 3.11."""

import csv
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# Printed losses over which a point of a curve is the mean.
WINDOW = 10

with open(sys.argv[1], newline="") as table:
    rows = list(csv.DictReader(table))
steps = [int(row["step"]) for row in rows]
figure, axes = plt.subplots(figsize=(8, 4.5))
for run in [name for name in rows[0] if name != "step"]:
    losses = [float(row[run]) for row in rows]
    smooth = [sum(losses[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(losses))]
    kernels, seed = run.split("-")
    colour = {"torch": "tab:orange", "winograd": "tab:blue"}[kernels]
    axes.plot(steps, smooth, color=colour, linewidth=0.9, label=kernels if seed == "1" else None)
axes.set(xlabel="step", ylabel="total loss, mean of ten printed ones", xlim=(0, 2000))
axes.legend()
axes.grid(alpha=0.3)
figure.tight_layout()
figure.savefig(sys.argv[2], metadata={"Date": None})
