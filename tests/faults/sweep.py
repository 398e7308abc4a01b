"""Kill the real coordinator at its durable system calls, one after another, in a real round.

A clean run tells how many calls there are. Then, for each, a new fleet: the coordinator dies when it enters
the call, is started again, and two rounds are played to their end, of which everything is checked.

What the kernel was given survives a kill, synced or not: this shows the order in which things are written and
said. What only a sync keeps from a power cut is not seen here.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from faults.fault_fleet import FaultFleet, Witness, empty_folder, witnesses
from faults.ledger import judge
from faults.strace import (
    JOURNAL_PAGES,
    TARGETS,
    Fault,
    Target,
    command,
    counted,
    disk_full,
    killed_at,
    place_of,
    whole,
)
from tiny_plan import plan_text

from protocol.ids import Order

ROUNDS = 2
DEADLINE = 20.0
"""Seconds of a phase at most: a round that is stuck ends within the patience of the fleet."""

EVERY = {"pwrite64": 8}
"""Steps between kill points, where there are hundreds of the same kind: pages of one transaction."""

IN_A_ROUND = killed_at(Target("fdatasync"), 20)
"""In the middle of the first round: the next start resumes it."""


@dataclass(frozen=True)
class Outcome:
    """What came of faults, one for each start of the coordinator before the last.

    Attributes:
        faults: the faults.
        places: the calls in which it was killed; fewer than faults when it did not come to one.
        paused: whether it has shown that the disk is full.
        wrong: a sentence for everything that must not be.
    """

    faults: Sequence[Fault]
    places: Sequence[str]
    paused: bool
    wrong: Sequence[str]

    @property
    def came_to_it(self) -> bool:
        """Whether every fault has killed it."""
        return len(self.places) == len(self.faults)


@asynccontextmanager
async def small_fleet() -> AsyncIterator[tuple[FaultFleet, list[Witness]]]:
    """A fleet with five devices and a plan of two rounds, its coordinator not started."""
    with empty_folder() as folder:
        plan = plan_text(rounds=ROUNDS, deadline=DEADLINE)
        async with FaultFleet(folder, plan) as fleet:
            await fleet.know_the_beginning()
            async with witnesses(fleet) as devices:
                yield fleet, devices


async def count_calls(*before: Fault) -> dict[Target, int]:
    """How often one thread makes each call in a run without faults, or in one after kills."""
    async with small_fleet() as (fleet, _):
        for fault in before:
            code, _ = await _run(fleet, fault)
            assert code == -signal.SIGKILL
        code, log = await _run(fleet)
        assert code == 0
        return {target: counted(log, fleet.coordinator_state, target) for target in TARGETS}


def kill_points(counts: Mapping[Target, int], *before: Fault) -> Iterator[Sequence[Fault]]:
    """One at every call that was counted."""
    for target, count in counts.items():
        for number in range(1, count + 1, EVERY.get(target.call, 1)):
            yield *before, killed_at(target, number)


def full_points(counts: Mapping[Target, int]) -> Iterator[Sequence[Fault]]:
    """The disk is full for three seconds, when the journal is written and when other files are."""
    for number in range(60, counts[JOURNAL_PAGES], 40):
        yield (disk_full(JOURNAL_PAGES, f"{number}..{number + 2}"),)  # it tries again every second
    for target in TARGETS:
        if target.call == "fsync" and target.files:
            yield (disk_full(target, "1..2"),)


async def survive(*faults: Fault) -> Outcome:
    """From an empty folder to the end of the plan, with one fault at each start but the last."""
    async with small_fleet() as (fleet, devices):
        places, wrong = list[str](), list[str]()
        for fault in faults:
            code, log = await _run(fleet, fault)
            if code != -signal.SIGKILL:
                break
            places.append(place_of(log, fleet.coordinator_state))
            await fleet.heard_all()
            wrong += fleet.ledger.not_in(fleet.books())
        else:
            code = await (await fleet.start_coordinator(start_when=5)).ended()
        await fleet.heard_all()
        wrong += complaints(fleet, devices, code)
        fleet.excuse("disk_trouble")
        return Outcome(faults, places, fleet.has_shown("disk full"), wrong)


async def _run(fleet: FaultFleet, *faults: Fault) -> tuple[int, str]:
    """The coordinator under strace to its end: its exit code and the log of strace."""
    log = fleet.folder / f"strace-{len(fleet.programs)}.log"
    run = await fleet.start_under(command(log, fleet.coordinator_state, faults or TARGETS))
    return await run.ended(), await whole(log, run.process.pid)


def complaints(fleet: FaultFleet, devices: Sequence[Witness], code: int) -> Iterator[str]:
    """Everything that must not be once the coordinator has ended with this code and all is heard."""
    if code:
        yield f"the coordinator has ended with {code}"
    books = fleet.books()
    verdict = judge(fleet.ledger, books)
    yield from verdict.wrong
    if list(books.results) != [Order(1, 1, number) for number in range(1, ROUNDS + 1)]:
        yield f"the rounds are {[str(order) for order in books.results]}: one was not gone on with"
    if (verdict.committed, verdict.checked) != (ROUNDS, ROUNDS):
        yield f"not all rounds were committed and their sums checked: {verdict}"
    for order, survivors in fleet.ledger.survivors.items():
        if lost := {device.name for device in devices if order in device.training.trained} - survivors:
            yield f"{order} went on without {sorted(lost)}, who had trained and were there"
    for device in devices:
        if len(device.training.trained) != len(set(device.training.trained)):
            yield f"{device.name} has trained twice in a round"


async def sweep(
    points: Sequence[Sequence[Fault]], together: int, told: Callable[[Outcome], None]
) -> list[Outcome]:
    """All of them.

    Args:
        points: the faults of each.
        together: at most so many at the same time.
        told: of each, as it is done.
    """
    free = asyncio.Semaphore(together)

    async def one(faults: Sequence[Fault]) -> Outcome:
        async with free:
            try:
                outcome = await survive(*faults)
            except (AssertionError, TimeoutError) as error:
                outcome = Outcome(faults, (), paused=False, wrong=(f"{error!r}"[:2000],))
            told(outcome)
            return outcome

    return await asyncio.gather(*map(one, points))
