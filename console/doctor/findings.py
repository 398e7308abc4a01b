"""What an examination finds, and what a check is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from msgspec import Struct

from console.doctor.examination import Examination

Result = Literal["ok", "warning", "failure"]


class Finding(Struct, frozen=True):
    """One answer.

    Attributes:
        result: "warning" is what works and should not stay so.
        cause: what was seen.
        fix: what to do, one sentence; empty when nothing needs to be done.
        check: its name in the table, for tools.
        examined: its name for people.
    """

    result: Result
    cause: str
    fix: str = ""
    check: str = ""
    examined: str = ""


Findings = Iterator[Finding]


class Needs(Enum):
    """What a check needs."""

    MACHINE = "nothing but this machine"
    BROKER = "a broker to talk TLS with; it is run once for each address"
    CONNECTION = "to connect as the program, which ends the program's own connection; once for each address"


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the table.

    Attributes:
        name: for tools; stable.
        examined: for people.
        look: the check itself.
        needs: what it needs.
        production: asked only with `--production`.
    """

    name: str
    examined: str
    look: Callable[[Examination], Findings]
    needs: Needs = Needs.MACHINE
    production: bool = False


def ok(cause: str) -> Finding:
    """As it should be."""
    return Finding("ok", cause)


def warning(cause: str, fix: str) -> Finding:
    """It works, and should not stay so."""
    return Finding("warning", cause, fix)


def failure(cause: str, fix: str) -> Finding:
    """It does not work, or must not be so."""
    return Finding("failure", cause, fix)


def graver(examination: Examination, cause: str, fix: str) -> Finding:
    """What development may do and production must not; who encrypts means it to be production."""
    meant = examination.production or (examination.broker is not None and examination.broker.tls)
    return (failure if meant else warning)(cause, fix)


def told(error: Exception, fix: str) -> Finding:
    """An error of ours, which names its own fix behind a semicolon; `fix` is for those that do not."""
    cause, semicolon, its_own = str(error).rpartition("; ")
    return failure(cause, its_own) if semicolon else failure(str(error), fix)
