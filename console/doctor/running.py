"""Going through the table."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as with_fields

from broker.mqtt_connection import MqttSettings
from broker.probe import ProbeError, TakenOverError
from console.doctor.examination import Examination
from console.doctor.findings import Check, Finding, Needs, failure, told, warning
from console.doctor.tables import CHECKS
from protocol.errors import FedfleetError
from runtime.clock import Clock
from runtime.watchdog import UnhealthyError, check_health

ATTEMPTS = 5
"""How often a check is tried when the running program takes its connection back."""

_NO_CONNECTION = "correct what failed above, and look into the broker's log"
_TAKEN_OVER = (
    "stop the program that has this name, or let it be pushed off with --takeover; "
    "if there is none, somebody has a copy of its key"
)


def examine(examination: Examination, *, program_runs: bool = False, takeover: bool = False) -> list[Finding]:
    """Everything that there is to ask.

    Args:
        examination: of what.
        program_runs: whether the program is connected now, under the name that we would connect with.
        takeover: push it off for a moment; otherwise what needs a connection is left out.

    Returns:
        At least one finding, in the order of the table.
    """
    found = [*_all(examination, Needs.MACHINE)]
    for address in examination.settings.broker.addresses:
        at = replace(examination, broker=address)
        found += _all(at, Needs.BROKER)
        if program_runs and not takeover:
            found.append(_left_out(at))
        else:
            found += _connected(at, attempts=ATTEMPTS if takeover else 1)
    return found


def program_runs(folder: Path, clock: Clock) -> bool:
    """Whether a program writes its heartbeat into this folder, and is connected."""
    try:
        check_health(folder, clock)
    except UnhealthyError:
        return False
    return True


def _all(examination: Examination, needs: Needs, attempts: int = 1) -> Iterator[Finding]:
    for check in CHECKS[examination.role]:
        if check.needs is needs and (examination.production or not check.production):
            yield from _named(check, examination, _look(check, examination, attempts))


def _look(check: Check, examination: Examination, attempts: int) -> list[Finding]:
    for attempt in range(1, attempts + 1):
        try:
            return [*check.look(examination)]
        except TakenOverError as error:
            if attempt == attempts:
                return [failure(str(error), _TAKEN_OVER)]
        except ProbeError as error:
            return [failure(str(error), _NO_CONNECTION)]
        except FedfleetError as error:
            return [told(error, _NO_CONNECTION)]
    return []


def _connected(examination: Examination, attempts: int) -> list[Finding]:
    """What needs a connection; the first failure to connect is told once, and ends it."""
    first, *_ = (check for check in CHECKS[examination.role] if check.needs is Needs.CONNECTION)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_session_as_it_was(examination))
        except FedfleetError as error:
            finding = failure(f"{error}; what needs a connection was not examined", _NO_CONNECTION)
            return [*_named(first, examination, [finding])]
        return [*_all(examination, Needs.CONNECTION, attempts)]


@contextlib.contextmanager
def _session_as_it_was(examination: Examination) -> Iterator[None]:
    """A program that was here before finds its session; otherwise none is left."""
    with examination.connect() as probe:
        kept = probe.greeting.session_present
    try:
        yield
    finally:
        if not kept:
            with contextlib.suppress(ProbeError), examination.connect(_forgotten(examination)):
                pass


def _forgotten(examination: Examination) -> MqttSettings:
    return replace(examination.mqtt(), clean=True)


def _left_out(examination: Examination) -> Finding:
    first, *_ = (check for check in CHECKS[examination.role] if check.needs is Needs.CONNECTION)
    finding = warning(
        "the program runs: connecting under its name would end its connection, so that was not examined",
        "stop the program, or push it off for a moment with --takeover",
    )
    return next(_named(first, examination, [finding]))


def _named(check: Check, examination: Examination, found: list[Finding]) -> Iterator[Finding]:
    where = f" of {examination.broker}" if examination.broker and len(_urls(examination)) > 1 else ""
    for one in found:
        yield with_fields(one, check=check.name, examined=check.examined + where)


def _urls(examination: Examination) -> tuple[str, ...]:
    return examination.settings.broker.urls
