"""The pictures: accuracy against epsilon and round, and against bytes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")  # a file, never a window; before pyplot looks for a display

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from benchmarks.private_learning.cases import Outcome

_ANNOTATION = {"textcoords": "offset points", "fontsize": 8}


def draw_epsilons(
    file: Path, outcomes: Sequence[Outcome], title: str, baselines: Mapping[str, float]
) -> None:
    """Accuracy of the last model against epsilon, and of the first seed's models by round.

    Args:
        file: PNG to be written.
        outcomes: of the runs; those of one label differ in their seed, and are neighbours.
        title: of the picture.
        baselines: accuracy by name, drawn across.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    figure.suptitle(title)
    labels = [list(some) for _, some in groupby(outcomes, key=lambda outcome: outcome.case.label)]
    _draw_last(left, [some for some in labels if math.isfinite(some[0].case.epsilon)])
    colors = plt.colormaps["viridis"]([index / len(labels) for index in range(len(labels))])
    for some, color in zip(labels, colors, strict=True):
        _draw_rounds(right, some[0], color)
    for name, accuracy in baselines.items():
        right.axhline(accuracy, linestyle=":", color="tab:gray", label=f"{name}: {accuracy:.1%}")
    left.set(xlabel="ε of the whole run", ylabel="accuracy on the test examples")
    left.set_ylim(_least(each.accuracy for outcome in outcomes for each in outcome.rounds), 1)
    right.set(xlabel="round")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, [left, right], file)


def draw_bytes(file: Path, outcomes: Sequence[Outcome], title: str) -> None:
    """Accuracy of the last model against the bytes that a device sends in a round."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for epsilon, color in zip(_epsilons(outcomes), ("tab:orange", "tab:blue"), strict=False):
        some = [outcome for outcome in outcomes if outcome.case.epsilon == epsilon]
        whole = [outcome for outcome in some if outcome.case.rules.masking.sketch == 1]
        sketched = [outcome for outcome in some if outcome.case.rules.masking.sketch < 1]
        name = f"ε = {epsilon:g}" if math.isfinite(epsilon) else "without noise"
        _draw_sizes(axes, whole, f"{name}: all coordinates", marker="o", linestyle="-", color=color)
        _draw_sizes(axes, sketched, f"{name}: a sketch, 16 bits", marker="s", linestyle="", color=color)
    axes.axvline(4 * outcomes[0].case.rules.size, linestyle=":", color="tab:gray", label="plain float32")
    axes.set(title=title, xlabel="bytes up, a device and round", ylabel="accuracy on the test examples")
    axes.set(xscale="log", ylim=(_least(outcome.accuracy for outcome in outcomes), 1))
    _label_ticks(axes, [40_000, 100_000, 200_000, 400_000, 800_000], lambda value: f"{value / 1000:g} kB")
    _finish(figure, [axes], file)


def _draw_last(axes: plt.Axes, labels: Sequence[Sequence[Outcome]]) -> None:
    """Mean over the seeds, and from the least to the most, a line for each mode."""
    modes = groupby(labels, key=lambda some: some[0].case.mode)
    for (mode, group), side in zip(modes, (1, -1), strict=False):
        cases = list(group)
        runs = [[outcome.accuracy for outcome in some] for some in cases]
        epsilons, means = [some[0].case.epsilon for some in cases], [mean(run) for run in runs]
        below = [middle - min(run) for middle, run in zip(means, runs, strict=True)]
        above = [max(run) - middle for middle, run in zip(means, runs, strict=True)]
        axes.errorbar(epsilons, means, yerr=(below, above), marker="o", capsize=3, label=f"{mode} noise")
        for epsilon, middle in zip(epsilons, means, strict=True):
            where = {"xytext": (6 * side, -10), "ha": "left" if side > 0 else "right"}
            axes.annotate(f"{middle:.1%}", (epsilon, middle), **where, **_ANNOTATION)
    axes.set(xscale="log")
    axes.margins(x=0.15)
    _label_ticks(axes, _epsilons([some[0] for some in labels]), lambda value: f"{value:g}")


def _draw_rounds(axes: plt.Axes, outcome: Outcome, color: object) -> None:
    axes.plot(
        [each.number for each in outcome.rounds],
        [each.accuracy for each in outcome.rounds],
        marker="o",
        markersize=3,
        color=color,
        linestyle="--" if math.isinf(outcome.case.epsilon) else "-",
        label=f"ε = {outcome.case.label.replace('inf', '∞')}",
    )


def _draw_sizes(
    axes: plt.Axes, outcomes: Sequence[Outcome], label: str, *, marker: str, linestyle: str, color: str
) -> None:
    sizes = [outcome.case.aggregation.bytes_up for outcome in outcomes]
    accuracies = [outcome.accuracy for outcome in outcomes]
    axes.plot(sizes, accuracies, marker=marker, linestyle=linestyle, color=color, label=label)
    for outcome, size, accuracy in zip(outcomes, sizes, accuracies, strict=True):
        above = 8 if math.isinf(outcome.case.epsilon) else -14
        masking = outcome.case.rules.masking
        text = f"{masking.bits} bits" if masking.sketch == 1 else f"{masking.sketch:.0%}"
        axes.annotate(text, (size, accuracy), xytext=(0, above), ha="center", **_ANNOTATION)


def _least(accuracies: Iterable[float]) -> float:
    """Where the axis begins: a tenth, 5 % or more below the least."""
    return max(0, math.floor(10 * (min(accuracies) - 0.05)) / 10)


def _epsilons(outcomes: Sequence[Outcome]) -> list[float]:
    return sorted({outcome.case.epsilon for outcome in outcomes})


def _label_ticks(axes: plt.Axes, ticks: Sequence[float], text: Callable[[float], str]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def _finish(figure: plt.Figure, all_axes: Sequence[plt.Axes], file: Path) -> None:
    for axes in all_axes:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)
    plt.close(figure)
