"""The table and the picture."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import TypeAlias

import matplotlib as mpl

mpl.use("Agg")  # a file, never a window; before pyplot looks for a display

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmarks.learning.cases import REFERENCE, Accuracy, Case, Goal
from benchmarks.learning.running import Curve

Outcome: TypeAlias = tuple[Case, list[Curve]]

_COLORS = ("tab:blue", "tab:orange", "tab:green")


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lines of Markdown: a row for each goal, with the median of the seeds, the least and the most."""
    yield "| | | published | ours, median | least to most | |"
    yield "|---|---|---|---|---|---|"
    for case, curves in outcomes:
        for goal in case.goals:
            values = goal.values(curves)
            middle, least, most = map(goal.text, (median(values), min(values), max(values)))
            met = "met" if goal.is_met(curves) else "**missed**"
            published = f"{goal.text(goal.reference)} ({goal.source})"
            yield f"| {case.label} | {goal.name} | {published} | **{middle}** | {least} to {most} | {met} |"


def draw(file: Path, title: str, outcomes: Sequence[Outcome]) -> None:
    """Accuracy after each round: the median of the seeds on the range of all, and the references."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colors: dict[Goal, str] = {}
    for (case, curves), color in zip(outcomes, _COLORS, strict=False):
        _draw_curves(axes, case.label, curves, color)
        colors |= {goal: color for goal in case.goals if goal not in colors}
    for goal, color in colors.items():
        _draw_goal(axes, goal, color)
    axes.set(title=title, xlabel="round", ylabel="accuracy on the test examples")
    everything = [value for _, curves in outcomes for curve in curves for value in curve.accuracies]
    axes.set_ylim(max(0.0, min(everything) - 0.02), 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _draw_curves(axes: plt.Axes, label: str, curves: Sequence[Curve], color: str) -> None:
    """Runs that reached their target early are missing from the rounds behind it."""
    by_round = [
        [value for value in values if value is not None]
        for values in zip_longest(*(curve.accuracies for curve in curves))
    ]
    numbers = range(1, len(by_round) + 1)
    middle, least, most = ([pick(values) for values in by_round] for pick in (median, min, max))
    axes.fill_between(numbers, least, most, color=color, alpha=0.2, linewidth=0)
    axes.plot(numbers, middle, color=color, label=f"{label}, median of {len(curves)} seeds")


def _draw_goal(axes: plt.Axes, goal: Goal, color: str) -> None:
    marker = "x" if goal.source == REFERENCE else "D"
    if isinstance(goal, Accuracy):
        across, up, said = float(goal.round), goal.reference, goal.text(goal.reference)
    else:
        across, up, said = goal.reference, goal.target, f"{goal.target:.0%}"
    label = f"{goal.source}: {said} after {across:.0f} rounds"
    axes.plot(across, up, marker=marker, linestyle="", color=color, label=label)
