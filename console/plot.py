"""The picture of a run: accuracy by round, beside what the same model reaches otherwise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # a file, never a window; before pyplot looks for a display

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter


def draw_accuracy(
    file: Path,
    rounds: Sequence[int],
    accuracies: Sequence[float],
    baselines: Mapping[str, float],
    kills: Mapping[int, str],
) -> None:
    """Write a PNG.

    Args:
        file: to be written.
        rounds: numbers of the committed rounds.
        accuracies: in [0, 1], one for each of them.
        baselines: accuracy by name, drawn as lines.
        kills: by round, which devices were killed in it.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(
        rounds, accuracies, marker="o", markersize=4, color="tab:blue", label="federated, masked updates"
    )
    for (name, value), color in zip(baselines.items(), ("tab:green", "tab:gray"), strict=False):
        axes.axhline(value, linestyle="--", linewidth=1.2, color=color, label=f"{name}: {value:.1%}")
    for row, (number, devices) in enumerate(kills.items()):
        axes.axvline(number, linestyle=":", linewidth=1.2, color="tab:red")
        axes.annotate(
            f"{devices} killed",
            (number, 0.03 + 0.05 * (row % 6)),  # names of neighbouring rounds below each other
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color="tab:red",
            fontsize=8,
        )
    axes.set(xlabel="round", ylabel="accuracy on everyone's test data", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
