"""Whether a device is what is asked: by the plan before it is invited, by its owner before it offers itself.

One function for both sides, so that the coordinator's selection, a device's refusal and the status pages say
the same. What a device does not know it does not fulfil; but of an unknown network the rules say what it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from protocol.ids import Name
from protocol.plan import MAX_RECENT, MAX_TAGS, Eligibility

NEVER = MAX_RECENT
"""Seconds since the last participation of a device that has never taken part: as long as can be asked for."""

Megabytes = Annotated[int, Meta(ge=0, lt=2**40)]


class Facts(Struct, frozen=True, forbid_unknown_fields=True):
    """What a device knows of itself; None is what it does not know.

    Attributes:
        idle: its load is below its own limit.
        charging: on mains power, or its battery is being charged or full.
        unmetered: its network costs nothing per byte.
        battery: percent of charge that is left; None without a battery, too.
        temperature: of its hottest part, in degrees Celsius.
        free_memory_mb: what programs could take without swapping, in MiB.
        free_disk_mb: what is left where the agent keeps its state, in MiB.
        rested: seconds since it entered a round, at most `NEVER`.
        tags: that its owner has given it.
        version: of the agent.
    """

    idle: bool | None = None
    charging: bool | None = None
    unmetered: bool | None = None
    battery: Annotated[int, Meta(ge=0, le=100)] | None = None
    temperature: Annotated[int, Meta(ge=-100, le=300)] | None = None
    free_memory_mb: Megabytes | None = None
    free_disk_mb: Megabytes | None = None
    rested: Annotated[int, Meta(ge=0, le=NEVER)] = NEVER
    tags: Annotated[tuple[Name, ...], Meta(max_length=MAX_TAGS)] = ()
    version: Annotated[str, Meta(max_length=32)] = ""


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that a device is not.

    Attributes:
        what: in few words, the same for every device, to be counted.
        measured: what there is and what is asked, in words; empty where `what` says all.
    """

    what: str
    measured: str = ""

    def __str__(self) -> str:
        """As a status shows it: on battery (41 %, needs 60 %)."""
        return f"{self.what} ({self.measured})" if self.measured else self.what


def missing(facts: Facts, rules: Eligibility) -> str:
    """Everything that a device is not, in words; empty when it fulfils the rules."""
    return in_words(lacks(facts, rules))


def in_words(found: tuple[Lack, ...]) -> str:
    """Several lacks as one reason."""
    return ", ".join(map(str, found))


def lacks(facts: Facts, rules: Eligibility) -> tuple[Lack, ...]:
    """Everything that a device is not, in the order of the rules. Its examples it counts while it trains."""
    return (
        *_idle(facts, rules),
        *_power(facts, rules),
        *_network(facts, rules),
        *_at_most("too hot", "temperature", facts.temperature, rules.max_temperature, "°C"),
        *_at_least("too little memory", "memory", facts.free_memory_mb, rules.min_free_memory_mb, "MB"),
        *_at_least("too little disk", "disk", facts.free_disk_mb, rules.min_free_disk_mb, "MB"),
        *_at_least("took part lately", "rest", facts.rested, rules.min_rest, "s"),
        *(Lack(f"without tag {tag}") for tag in rules.tags if tag not in facts.tags),
        *_version(facts, rules),
    )


def while_training(rules: Eligibility) -> Eligibility:
    """The rules that go on counting while a device trains: those on what training itself does not take.

    Load, memory and disk are its own doing then, and its rest is over.
    """
    return replace(rules, idle=False, min_free_memory_mb=None, min_free_disk_mb=None, min_rest=0)


def _idle(facts: Facts, rules: Eligibility) -> Iterator[Lack]:
    if rules.idle and not facts.idle:
        yield Lack("load unknown" if facts.idle is None else "busy")


def _power(facts: Facts, rules: Eligibility) -> Iterator[Lack]:
    """A device that is charging need not have any charge."""
    if facts.charging:
        return
    what = "power unknown" if facts.charging is None else "on battery"
    if rules.charging:
        yield Lack(what, "needs mains power")
    elif rules.min_battery is not None and (facts.battery is None or facts.battery < rules.min_battery):
        level = "charge unknown" if facts.battery is None else f"{facts.battery} %"
        yield Lack(what, f"{level}, needs {rules.min_battery} %")


def _network(facts: Facts, rules: Eligibility) -> Iterator[Lack]:
    known = rules.unknown_network == "unmetered" if facts.unmetered is None else facts.unmetered
    if rules.unmetered and not known:
        yield Lack("network may be metered" if facts.unmetered is None else "network metered")


def _at_least(low: str, name: str, given: int | None, wanted: int | None, unit: str) -> Iterator[Lack]:
    if wanted is None:
        return
    if given is None:
        yield Lack(f"{name} unknown", f"needs {wanted} {unit}")
    elif given < wanted:
        yield Lack(low, f"{given} {unit}, needs {wanted} {unit}")


def _at_most(high: str, name: str, given: int | None, wanted: int | None, unit: str) -> Iterator[Lack]:
    if wanted is None:
        return
    if given is None:
        yield Lack(f"{name} unknown", f"needs at most {wanted} {unit}")
    elif given > wanted:
        yield Lack(high, f"{given} {unit}, needs at most {wanted} {unit}")


def _version(facts: Facts, rules: Eligibility) -> Iterator[Lack]:
    if rules.min_version is None:
        return
    own, wanted = _numbers(facts.version), _numbers(rules.min_version)
    if not own:
        yield Lack("agent's version unknown", f"needs {rules.min_version}")
    elif own < wanted:
        yield Lack("agent too old", f"{facts.version}, needs {rules.min_version}")


@lru_cache(maxsize=256)
def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at the end: 1.2 is 1.2.0."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
