"""Many simulations in several processes, and what they come to."""

import contextlib
import gc
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from msgspec import Struct

from simulator.actors import cast
from simulator.drawing import schedule_for
from simulator.operations import Crash, Private, Schedule
from simulator.shrinking import shrink
from simulator.simulation import run_schedule
from simulator.world import Outcome

STEPS_APART = 25
"""Schedules that one process takes at a time."""


class Failure(Struct, frozen=True):
    """A schedule that violated an invariant.

    Attributes:
        schedule: which.
        violation: of which invariant, at which step, and how.
        invariant: its name alone.
    """

    schedule: Schedule
    violation: str
    invariant: str


class Tally(Struct):
    """What many simulations came to.

    Attributes:
        seeds: how many there were.
        failures: those that violated an invariant.
        committed: rounds; `aborted` likewise.
        faults: how often something was done to somebody.
        seconds: virtual.
    """

    seeds: int = 0
    failures: list[Failure] = []
    committed: int = 0
    aborted: int = 0
    faults: int = 0
    seconds: float = 0.0

    def count(self, schedule: Schedule, outcome: Outcome) -> None:
        """Add one simulation."""
        self.seeds += 1
        self.committed += outcome.committed
        self.aborted += outcome.aborted
        self.faults += outcome.faults
        self.seconds += outcome.seconds
        if outcome.violation is not None:
            failure = Failure(schedule, str(outcome.violation), outcome.violation.invariant)
            self.failures = [*self.failures, failure]

    def add(self, other: "Tally") -> None:
        """Add the simulations of another tally."""
        self.seeds += other.seeds
        self.failures = [*self.failures, *other.failures]
        self.committed += other.committed
        self.aborted += other.aborted
        self.faults += other.faults
        self.seconds += other.seconds

    def summary(self) -> dict[str, float]:
        """The figures; whatever is not stuck is wrong."""
        stuck = sum(failure.invariant == "stuck" for failure in self.failures)
        return {
            "seeds": self.seeds,
            "wrong": len(self.failures) - stuck,
            "stuck": stuck,
            "committed": self.committed,
            "aborted": self.aborted,
            "faults": self.faults,
            "virtual_hours": round(self.seconds / 3600, 2),
        }


@dataclass(frozen=True)
class Job:
    """Schedules for one process.

    Attributes:
        schedules: in order.
        real: which of them verify every signature, by place.
    """

    schedules: Sequence[Schedule]
    real: Sequence[bool]


def run_job(job: Job) -> Tally:
    """Run them."""
    tally = Tally()
    with _garbage_later():
        for schedule, real in zip(job.schedules, job.real, strict=True):
            tally.count(schedule, run_schedule(schedule, real_crypto=real))
            gc.collect()
    return tally


@contextlib.contextmanager
def _garbage_later() -> Iterator[None]:
    """Collect after each simulation, not many times in it, and leave the modules alone: a fifth faster."""
    cast()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def seeds(numbers: Iterable[int], *, real_crypto_every: int = 10) -> Iterator[Job]:
    """The schedules of these seeds, in jobs.

    Args:
        numbers: the seeds.
        real_crypto_every: every so many seeds, all signatures are verified; in the others, those made in
            the same process are remembered.
    """
    return jobs((schedule_for(number), number % real_crypto_every == 0) for number in numbers)


def jobs(schedules: Iterable[tuple[Schedule, bool]]) -> Iterator[Job]:
    """Schedules, each with whether its signatures are all verified, in jobs."""
    waiting: list[tuple[Schedule, bool]] = []
    for one in schedules:
        waiting.append(one)
        if len(waiting) == STEPS_APART:
            yield Job(*zip(*waiting, strict=True))
            waiting = []
    if waiting:
        yield Job(*zip(*waiting, strict=True))


def run_all(work: Iterable[Job], *, workers: int = 1) -> Iterator[Tally]:
    """Run jobs; what each came to, in order.

    Args:
        work: the jobs.
        workers: processes.
    """
    if workers == 1:
        yield from map(run_job, work)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_job, work)


def total(parts: Iterable[Tally]) -> Tally:
    """The sum of tallies."""
    tally = Tally()
    for part in parts:
        tally.add(part)
    return tally


def shrunk(failure: Failure) -> Schedule:
    """The shortest schedule found that violates the same invariant."""

    def fails(schedule: Schedule) -> bool:
        violation = run_schedule(schedule).violation
        return violation is not None and violation.invariant == failure.invariant

    return shrink(failure.schedule, fails)


REFERENCE = Schedule(seed=0, devices=5, training=2.0)
PRIVATE_REFERENCE = Schedule(seed=0, devices=5, training=2.0, privacy=Private(quantile=0.5))
"""A round without faults, without and with privacy."""


def crash_at_every_step(
    actor: str, reference: Schedule = REFERENCE, *, every: int = 1, first: int = 1
) -> Iterator[tuple[Schedule, bool]]:
    """A reference round, and the actor killed before each of its steps.

    Args:
        actor: who.
        reference: the round.
        every: takes only every so many steps.
        first: of these steps.
    """
    outcome = run_schedule(reference, real_crypto=False)
    for step in range(first, outcome.steps[actor] + 1, every):
        crash = Crash(
            start=outcome.seconds,
            seconds=3.0,
            actor=actor,
            step=step,
            torn=step % 2 == 0,
            silent=step % 3 == 0,
        )
        yield reference.with_operations([crash]), False
