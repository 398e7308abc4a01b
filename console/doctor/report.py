"""Findings, for people and for tools."""

from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from console.doctor.findings import Finding, Result
from runtime.command_line import EXIT_OK

EXIT_FAILURE = 1
"""Something fails; 2, as everywhere, is that it could not be examined."""

_COLOURS: dict[Result, str] = {"ok": "green", "warning": "yellow", "failure": "red"}


class Line(msgspec.Struct, frozen=True):
    """A finding as tools read it; the names stay.

    Attributes:
        check: "identity.files".
        examined: the same for people.
        result: "ok", "warning" or "failure".
        cause: what was seen.
        fix: what to do; empty for "ok".
    """

    check: str
    examined: str
    result: Result
    cause: str
    fix: str


def json_lines(found: Sequence[Finding]) -> str:
    """One object a line."""
    lines = (Line(one.check, one.examined, one.result, one.cause, one.fix) for one in found)
    return "".join(msgspec.json.encode(line).decode() + "\n" for line in lines)


def show(found: Sequence[Finding], console: Console) -> None:
    """A table, and what it comes to."""
    table = Table(box=None, pad_edge=False)
    for name in ("examined", "", "found"):
        table.add_column(name, no_wrap=name != "found", overflow="fold")
    before = ""
    for one in found:
        text = Text(one.cause)
        if one.fix:
            text.append(f"\n→ {one.fix}", style="bold")
        table.add_row(
            "" if one.examined == before else one.examined, Text(one.result, style=_COLOURS[one.result]), text
        )
        before = one.examined
    console.print(table)
    console.print(summary(found))


def summary(found: Sequence[Finding]) -> str:
    """One line."""
    counts = Counter(one.result for one in found)
    return f"{counts['failure']} failures, {counts['warning']} warnings, {counts['ok']} ok"


def exit_code(found: Sequence[Finding]) -> int:
    """0 without a failure; warnings are allowed."""
    return EXIT_FAILURE if any(one.result == "failure" for one in found) else EXIT_OK
