"""Looks for the first seed that shows each planted bug, and writes them down as a table."""

import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import simulator
from simulator.drawing import schedule_for
from simulator.simulation import run_schedule
from simulator.world import Outcome

import planted.coordinators
import planted.deliveries
import planted.devices
import planted.prices
import planted.states  # noqa: F401 - each adds its bugs to the list
from planted.bugs import BUGS

MOST_SEEDS = 1200
"""Every bug must be seen in the schedules of fewer seeds."""

TABLE = Path(simulator.__file__).with_name("PLANTED.md")

HEAD = """# Planted bugs

Written by `scripts/simulate --planted`. Each line is a mistake that was put into the real programs
(`tests/planted`), what it breaks (I1 to I7 of THREATS.md, P1 to P7 of `books.py`, the sum, or that no round
is stuck), the first seed of 0, 1, 2 … whose schedule showed it, what the oracle said then, and after how many
virtual seconds. The same seeds find nothing in the programs as they are.

| bug | what is wrong | breaks | seed | the oracle said | s |
|---|---|---|---|---|---|
"""

LONGEST = 150
"""Characters of what the oracle said."""


@dataclass(frozen=True)
class Catch:
    """How a bug was seen.

    Attributes:
        bug: its name.
        seed: whose schedule showed it first; None if none did.
        said: what the oracle said.
        seconds: virtual, until then.
    """

    bug: str
    seed: int | None
    said: str
    seconds: float


def run_seed(seed: int) -> Outcome:
    """The simulation of a seed; one in ten verifies all signatures, as in a campaign."""
    outcome = run_schedule(schedule_for(seed), real_crypto=seed % 10 == 0)
    gc.collect()
    return outcome


def run_with(bug: str, seed: int) -> Outcome:
    """The simulation of a seed with a bug planted."""
    with BUGS[bug].planted():
        return run_seed(seed)


def hunt(bug: str) -> Catch:
    """The first seed that shows a bug."""
    for seed in range(MOST_SEEDS):
        outcome = run_with(bug, seed)
        if outcome.violation is not None:
            return Catch(bug, seed, _shown(str(outcome.violation)), outcome.seconds)
    return Catch(bug, None, "nothing", 0.0)


def hunt_all(*, workers: int, told: Callable[[Catch], None]) -> list[Catch]:
    """Hunt every bug, in so many processes.

    Args:
        workers: processes.
        told: of each catch, in order.
    """
    catches = []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for catch in pool.map(hunt, BUGS):
            told(catch)
            catches.append(catch)
    return catches


def table_of(catches: Sequence[Catch]) -> str:
    """The table as Markdown."""
    lines = (_line(catch) for catch in catches)
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seeds_in(table: str) -> Iterator[tuple[str, int]]:
    """Each bug of a table with the seed that showed it."""
    for line in table.removeprefix(HEAD).splitlines():
        name, _, _, seed, *_ = line.strip("| ").split(" | ")
        yield name, int(seed)


def _line(catch: Catch) -> list[str]:
    bug = BUGS[catch.bug]
    return [bug.name, bug.what, bug.breaks, str(catch.seed), catch.said, f"{catch.seconds:.0f}"]


def _shown(said: str) -> str:
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"
