"""A fleet on the terminal: phase, counts, devices and rounds, drawn from its status topics."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from console.fleet_view import FleetView, accuracy, loss
from console.text import decimal, duration, percent, size
from protocol.phases import Phase
from protocol.status import RoundResult, RoundStatus

PHASES = (
    Phase.INVITING,
    Phase.KEYING,
    Phase.SHARING,
    Phase.COLLECTING,
    Phase.CONFIRMING,
    Phase.RECOVERING,
    Phase.COMMITTING,
)
COUNTS = ("accepted", "trained", "shared", "uploaded", "confirmed", "revealed")
STATE_STYLES = {
    "idle": "green",
    "training": "cyan",
    "uploading": "blue",
    "sleeping": "dim",
    "offline": "dim",
    "lost": "red",
}
BAR_WIDTH = 24
_ONE_LINE: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}

MOST_REASONS = 3
"""For which devices sleep, on a line with the counts."""

AROUND_THE_ROUNDS = 15
"""Lines of the screen that are not rounds: the newest rounds get the rest."""
FEWEST_ROUNDS = 3


def draw(
    view: FleetView, *, title: str, seconds: float, height: int, notes: Mapping[int, str]
) -> RenderableType:
    """The whole screen.

    Args:
        view: what is known.
        title: of the run.
        seconds: since the watcher began.
        height: lines that there are.
        notes: by round, what happened in it.
    """
    rounds = max(FEWEST_ROUNDS, height - AROUND_THE_ROUNDS)
    return Panel(
        Group(
            _coordinator(view),
            Text(),
            *_open_round(view.round),
            Text(),
            _devices(view),
            Text(),
            rounds_table([view.results[number] for number in sorted(view.results)[-rounds:]], notes),
        ),
        title=f"[bold]{title}[/bold]",
        subtitle=duration(seconds),
        padding=(0, 1),
    )


def rounds_table(results: list[RoundResult], notes: Mapping[int, str]) -> Table:
    """One row a round; "up" is what one device sent, "epsilon" what the run has cost by then."""
    private = any(result.epsilon is not None for result in results)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("round", justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for name in ("in sum", "recovered", "loss", "accuracy", "time", "up", *["epsilon"] * private):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for result in results:
        # The one column that gives way, and by cutting, so that the screen keeps its height.
        remark = Text(notes.get(result.round, result.reason), **_ONE_LINE)
        table.add_row(*_row(result), *[decimal(result.epsilon)] * private, remark, style=_style(result))
    return table


def _row(result: RoundResult) -> tuple[str, ...]:
    return (
        str(result.round),
        result.result,
        str(result.survivors),
        str(result.dropouts),
        decimal(loss(result)),
        percent(accuracy(result)),
        f"{result.seconds:.1f} s",
        size(result.bytes_up),
    )


def _style(result: RoundResult) -> str:
    if result.result == "aborted":
        return "red"
    return "yellow" if result.dropouts else ""


def _coordinator(view: FleetView) -> Text:
    if view.coordinator is None:
        return Text("no coordinator has been heard of yet", style="dim")
    status = view.coordinator
    text = Text.assemble(
        "coordinator ", (status.state, "red" if status.state == "lost" else "bold"), **_ONE_LINE
    )
    if status.why:
        text.append(f": {status.why}", style="dim")
    return text


def _open_round(status: RoundStatus | None) -> list[RenderableType]:
    if status is None:
        return [Text("no round yet", style="dim")]
    deadline = "" if status.deadline_s is None else f"   {status.deadline_s:.0f} s at most"
    heading = Text.assemble(
        ("round ", ""),
        (str(status.round), "bold"),
        f"   {status.invited} invited, {status.needed} needed{deadline}",
        **_ONE_LINE,
    )
    if status.privacy != "none":
        heading.append(f"   {status.privacy} privacy", style="dim")
    if status.reason:
        heading.append(f"   {status.reason}", style="red")
    return [heading, _phases(status.phase), _bars(status)]


def _phases(current: str) -> Text:
    """Where the round is: what is done is green, what comes is dim."""
    names = [str(phase) for phase in PHASES]
    reached = names.index(current) if current in names else len(names)
    text = Text()
    for index, name in enumerate(names):
        style = "green" if index < reached else "bold reverse cyan" if index == reached else "dim"
        text.append(name, style=style).append("  ")
    if current == Phase.ABORTED:
        text.append(current, style="bold red")
    return text


def _bars(status: RoundStatus) -> Table:
    """In two columns, so that a small terminal has room for rounds."""
    table = Table.grid(padding=(0, 2))
    half = len(COUNTS) // 2
    for left, right in zip(COUNTS[:half], COUNTS[half:], strict=True):
        table.add_row(*_bar(status, left), *_bar(status, right))
    return table


def _bar(status: RoundStatus, name: str) -> tuple[RenderableType, ...]:
    count: int = getattr(status, name)
    bar = ProgressBar(total=max(status.invited, 1), completed=count, width=BAR_WIDTH)
    return name, bar, f"{count}/{status.invited}"


def _devices(view: FleetView) -> Text:
    text = Text("devices  ")
    if not view.devices:
        return text.append("none has been heard of yet", style="dim")
    for state, count in sorted(view.device_states().items()):
        text.append(f"{count} {state}", style=STATE_STYLES[state]).append("   ")
    if reasons := view.why_asleep().most_common(MOST_REASONS):
        text.append("asleep: " + ", ".join(f"{count} {what}" for what, count in reasons), style="dim")
    return text
