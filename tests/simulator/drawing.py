"""Draws a schedule from a seed: every kind of fault, alone or together, at any time and any step."""

import random
from collections.abc import Callable, Sequence
from typing import Any, get_args

from msgspec.structs import replace

from simulator.operations import (
    BRIEF,
    COORDINATOR,
    FLOOR,
    LONGEST_CRASH,
    AnyOperation,
    BrokerRestart,
    ClockJump,
    Clone,
    Crash,
    Cut,
    DiskFull,
    Lie,
    Malice,
    Noise,
    Private,
    Replay,
    Restore,
    Revoke,
    Schedule,
    Slow,
)

LATEST = 25.0
"""Virtual seconds in which faults begin: one or two rounds."""

MOST = 6
"""Faults of one schedule. More seldom find more, and cost as much time as they have left rounds to end."""

BRIEF_PART = 0.15
"""Of the schedules: in these the faults are so brief that no round may lose anybody."""

AWAY = 700.0
"""Seconds of a coordinator after which no round can be gone on with."""

PRIVATE_PART = 0.4
"""Of the schedules: in these updates are rotated, and in most of them noised."""

REVOKED_PART = 0.25
REVOKING_FLEET = 6
"""Of the schedules with so many devices: in these one is thrown out."""

CHARGE_PART = 0.6
CHARGE_STEPS = (130, 210)
"""Steps of a device about its first charge."""

COORDINATOR_STEPS = 1600
DEVICE_STEPS = 500
"""Steps before which crashes fall: about two rounds."""


_Draw = Callable[[random.Random, Sequence[str]], list[AnyOperation]]


def schedule_for(seed: int) -> Schedule:
    """The schedule of a seed; the same in every process."""
    chance = random.Random(f"schedule/{seed}")
    devices = chance.randrange(4, 8)
    schedule = Schedule(
        seed=seed,
        devices=devices,
        corrupt_fraction=chance.choice((1 / 3, 0.2)),
        latency=chance.choice((0.01, 0.05, 0.3)),
        training=chance.choice((4.0, 10.0, 20.0)),
    )
    schedule = replace(schedule, privacy=_privacy(random.Random(f"privacy/{seed}"), schedule))
    operations = _operations(chance, schedule.names)
    operations += _revocation(schedule.with_operations(operations))
    return schedule.with_operations([*operations, *_at_the_charge(schedule.with_operations(operations))])


def _revocation(fleet: Schedule) -> list[AnyOperation]:
    """Drawn apart from the other faults, where the fleet is large enough to go on without one.

    Not beside a restored backup: of few devices that know what it forgot, one would be heard no more, and
    what only so many say as may lie is not believed (THREATS.md, Not defended).
    """
    chance = random.Random(f"revocation/{fleet.seed}")
    restored = any(isinstance(one, Restore) for one in fleet.operations)
    if fleet.devices < REVOKING_FLEET or restored or chance.random() >= REVOKED_PART:
        return []
    # Long enough for a round to begin after it.
    return [Revoke(start=_when(chance), seconds=60.0, device=chance.choice(fleet.names))]


_FULL_COHORTS = {(5, 0.2): 4, (7, 1 / 3): 6}
"""Fewest members, by devices and gamma, where certain noise takes more survivors than secrets do."""


def _privacy(chance: random.Random, fleet: Schedule) -> Private | None:
    """Drawn apart from the faults: these are the same with it and without."""
    if chance.random() >= PRIVATE_PART:
        return None
    sketch = 0.75 if chance.random() < 0.2 else 1.0
    mode: Any = chance.choices(("distributed", "central", "none"), (6, 3, 1))[0]
    if mode == "none":
        return Private(mode=mode, sketch=sketch)
    return Private(
        mode=mode,
        multiplier=chance.choice((0.05, 0.2, 1.0)),
        spacing=chance.choice((1, 1, 2)),
        rounds=chance.choice((2, 1000, 1000, 1000)),
        quantile=chance.choice((None, 0.5)),
        bits=chance.choice((16, 16, 24)),
        sketch=sketch,
        min_cohort=_FULL_COHORTS.get((fleet.devices, fleet.corrupt_fraction), FLOOR),
    )


def _at_the_charge(schedule: Schedule) -> list[AnyOperation]:
    """Part of the private schedules have a fault more, about when devices are charged and upload."""
    chance = random.Random(f"charge/{schedule.seed}")
    if schedule.privacy is None or schedule.is_brief or chance.random() >= CHARGE_PART:
        return []
    device = chance.choice(schedule.names)
    kinds: list[AnyOperation] = [
        DiskFull(start=round(3.0 + schedule.training * chance.random(), 3), seconds=15.0, actor=device),
        Crash(
            start=LATEST,
            seconds=_while(chance),
            actor=device,
            step=chance.randint(*CHARGE_STEPS),
            torn=chance.random() < 0.5,
            silent=chance.random() < 0.5,
        ),
    ]
    start, salt = _when(chance) / 2, chance.getrandbits(32)
    if schedule.is_honest:
        kinds.append(Malice(start=start, seconds=30.0, device=device, kind="garbage_upload", salt=salt))
    if schedule.privacy.min_cohort > FLOOR:
        kinds += 3 * [Lie(start=start, seconds=30.0, kind="survivor_set", victims=(device,))]
    return [chance.choice(kinds)]


def _operations(chance: random.Random, devices: Sequence[str]) -> list[AnyOperation]:
    if chance.random() < BRIEF_PART:
        return _brief(chance, devices)
    count = chance.randint(1, MOST)
    kinds = chance.choices(list(_DRAWN), [weight for weight, _ in _DRAWN.values()], k=count)
    once = [kind for place, kind in enumerate(kinds) if kind not in _ONCE or kind not in kinds[:place]]
    return [operation for kind in once for operation in _DRAWN[kind][1](chance, devices)]


def _brief(chance: random.Random, devices: Sequence[str]) -> list[AnyOperation]:
    start = _when(chance)
    kinds = chance.choices(["noise", "broker", "crash"], [6, 1, 2], k=chance.randint(1, 3))
    drawn = [operation for kind in kinds for operation in _DRAWN[kind][1](chance, devices)]
    return [
        replace(operation, seconds=_while(chance, LONGEST_CRASH))
        if isinstance(operation, Crash)
        else replace(
            operation, start=round(start + chance.random(), 3), seconds=min(operation.seconds, BRIEF - 1.0)
        )
        for operation in drawn
    ]


def _when(chance: random.Random) -> float:
    return round(LATEST * chance.random(), 3)


def _while(chance: random.Random, longest: float = 20.0) -> float:
    """Short ones are as likely as long ones."""
    return round(0.2 + longest * chance.random() ** 2, 3)


def _anyone(chance: random.Random, devices: Sequence[str]) -> str:
    return COORDINATOR if chance.random() < 0.5 else chance.choice(devices)


def _noise(chance: random.Random, devices: Sequence[str]) -> Noise:
    return Noise(
        start=_when(chance),
        seconds=_while(chance, 30.0),
        kind=chance.choice(("drop", "duplicate", "delay", "reorder", "corrupt", "lost_ack", "false_ack")),
        client="" if chance.random() < 0.5 else _anyone(chance, devices),
        rate=chance.choice((0.05, 0.2, 0.5)),
        salt=chance.getrandbits(32),
    )


def _replay(chance: random.Random, devices: Sequence[str]) -> Replay:
    return Replay(
        start=_when(chance),
        client=_anyone(chance, devices),
        count=chance.randint(1, 12),
        salt=chance.getrandbits(32),
    )


def _cut(chance: random.Random, devices: Sequence[str]) -> Cut:
    return Cut(
        start=_when(chance),
        seconds=_while(chance, 60.0),
        client=_anyone(chance, devices),
        half_open=chance.random() < 0.4,
    )


def _broker(chance: random.Random, _: Sequence[str]) -> BrokerRestart:
    return BrokerRestart(start=_when(chance), seconds=_while(chance), keep_state=chance.random() < 0.5)


def _crash(chance: random.Random, devices: Sequence[str]) -> Crash:
    actor = _anyone(chance, devices)
    steps = COORDINATOR_STEPS if actor == COORDINATOR else DEVICE_STEPS
    at_step = chance.random() < 0.7
    start = LATEST if at_step else _when(chance)
    for_long = chance.random() < 0.03 and actor == COORDINATOR
    return Crash(
        start=start,
        seconds=AWAY if for_long else _while(chance),
        actor=actor,
        step=chance.randint(1, steps) if at_step else None,
        torn=chance.random() < 0.5,
        silent=chance.random() < 0.2,
    )


def _full(chance: random.Random, devices: Sequence[str]) -> DiskFull:
    return DiskFull(start=_when(chance), seconds=_while(chance), actor=_anyone(chance, devices))


def _slow(chance: random.Random, devices: Sequence[str]) -> Slow:
    return Slow(
        start=_when(chance),
        seconds=_while(chance),
        device=chance.choice(devices),
        by=round(90.0 * chance.random(), 3),
    )


def _jump(chance: random.Random, devices: Sequence[str]) -> ClockJump:
    return ClockJump(
        start=_when(chance),
        seconds=_while(chance),
        actor=_anyone(chance, devices),
        by=chance.choice((-1.0, 1.0)) * chance.choice((100.0, 3600.0, 10.0**6, 10.0**8)),
    )


def _restore(chance: random.Random, _: Sequence[str]) -> Restore:
    start = 5.0 + _when(chance)
    return Restore(
        start=start,
        seconds=_while(chance),
        copied=round(start * chance.random(), 3),
        announced=chance.random() < 0.5,
    )


def _clone(chance: random.Random, devices: Sequence[str]) -> Clone:
    return Clone(start=_when(chance), seconds=_while(chance), device=chance.choice(devices))


def _malice(chance: random.Random, devices: Sequence[str]) -> Malice:
    kinds = get_args(Malice.__annotations__["kind"])
    return Malice(
        start=_when(chance),
        seconds=_while(chance, 30.0),
        device=chance.choice(devices),
        kind=chance.choice(kinds),
        salt=chance.getrandbits(32),
    )


def _lie(chance: random.Random, devices: Sequence[str]) -> Lie:
    kinds = get_args(Lie.__annotations__["kind"])
    victims = chance.sample(devices, chance.randint(1, len(devices) - 1))
    return Lie(
        start=_when(chance),
        seconds=_while(chance, 30.0),
        kind=chance.choice(kinds),
        victims=tuple(sorted(victims)),
        instead=chance.random() < 0.5,
    )


def _relapse(chance: random.Random, devices: Sequence[str]) -> list[AnyOperation]:
    """A restarted device is told again what it was told before: what it must have kept in mind."""
    crash = Crash(start=_when(chance), seconds=_while(chance, 4.0), actor=chance.choice(devices))
    later = round(crash.end + 0.5 + 6.0 * chance.random(), 3)
    return [crash, Replay(start=later, client=crash.actor, count=16, salt=chance.getrandbits(32))]


def _one(draw: Callable[[random.Random, Sequence[str]], AnyOperation]) -> _Draw:
    return lambda chance, devices: [draw(chance, devices)]


_DRAWN: dict[str, tuple[int, _Draw]] = {
    "noise": (30, _one(_noise)),
    "replay": (8, _one(_replay)),
    "relapse": (8, _relapse),
    "cut": (12, _one(_cut)),
    "broker": (8, _one(_broker)),
    "crash": (30, _one(_crash)),
    "full": (5, _one(_full)),
    "slow": (5, _one(_slow)),
    "jump": (4, _one(_jump)),
    "restore": (3, _one(_restore)),
    "clone": (3, _one(_clone)),
    "malice": (6, _one(_malice)),
    "lie": (4, _one(_lie)),
}
"""How often each kind is drawn, and how."""

_ONCE = {"restore", "clone", "malice"}
"""Drawn once: a second liar would be more than a small cohort is said to stand."""
