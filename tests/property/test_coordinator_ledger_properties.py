"""However rounds end, and wherever a coordinator dies: ledger, model and history tell of the same rounds."""

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from hand_clock import HandClock
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.ledger import Release
from coordinator.server_optimizer import ServerState
from coordinator.state import CoordinatorState
from coordinator.stopping import Outcome
from coordinator.stored import Model, Opening
from protocol.ids import DeviceId, Order
from protocol.status import RoundResult
from runtime.journal import JournalClosedError, Statement

BUNDLE = bytes(range(32))
DEVICES = [DeviceId(name) for name in ("d1", "d2", "d3", "d4")]

RELEASES = st.builds(
    Release,
    st.lists(st.sampled_from(DEVICES), unique=True).map(tuple),
    st.floats(0, 10, allow_subnormal=False),
)


@dataclass(frozen=True)
class End:
    """How a round ends: the clip after it when it is committed, None when it is aborted."""

    committed: bool
    release: Release | None
    clip: float | None
    deaths: list[int]
    """After so many turns of the loop, from when the end is queued, the coordinator dies; once for each."""


ENDS = st.builds(
    End,
    st.booleans(),
    st.none() | RELEASES,
    st.none() | st.floats(0.001, 10),
    st.lists(st.integers(0, 60), max_size=2),
)


@dataclass
class Expected:
    """The same books, kept by hand."""

    paid: dict[DeviceId, tuple[Fraction, int, int]] = field(default_factory=dict)
    committed: int = 0
    ended: int = 0
    clip: float | None = None
    weight: float = 0.0

    def ends(self, number: int, end: End) -> None:
        self.ended += 1
        if end.committed:
            self.committed += 1
            self.clip, self.weight = end.clip, float(number)
        release = end.release or Release((), 0.0)
        for device in release.survivors:
            rho, rounds, _ = self.paid.get(device, (Fraction(), 0, 0))
            self.paid[device] = (rho + Fraction(release.rho), rounds + 1, number)


def model(number: float) -> Model:
    vector = np.full(3, number, np.float32)
    return Model.of(vector, ServerState(vector, vector))


def opened(folder: Path) -> CoordinatorState:
    return CoordinatorState(folder, BUNDLE, lambda: model(0), HandClock())


def over(state: CoordinatorState) -> bool:
    newest = state.newest_round()
    return newest is not None and newest.over


async def finish(state: CoordinatorState, end: End) -> None:
    outcome = Outcome(committed=end.committed)
    result = RoundResult(state.round, "committed" if end.committed else "aborted")
    if end.committed:
        await state.commit(model(state.round), outcome, result, b"ended", release=end.release, clip=end.clip)
    else:
        await state.abort(outcome, result, release=end.release)


async def die_finishing(state: CoordinatorState, end: End, turns: int) -> None:
    """The end is queued; how much of it is durable when the program is no more is chance."""
    queued, append = asyncio.Event(), state.journal.append

    def tell(*statements: Statement) -> None:
        append(*statements)
        queued.set()

    state.journal.append = tell  # type: ignore[method-assign]
    finishing = asyncio.create_task(finish(state, end))
    await queued.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    state.close()
    with contextlib.suppress(JournalClosedError):
        await finishing


def check(state: CoordinatorState, expected: Expected) -> None:
    accounts = state.ledger.accounts
    assert {device: (one.rounds, one.last) for device, one in accounts.items()} == {
        device: (rounds, last) for device, (_, rounds, last) in expected.paid.items()
    }
    for device, (rho, rounds, _) in expected.paid.items():
        slack = rho * rounds / 2**51 + Fraction(rounds * 5e-324)
        assert rho <= Fraction(accounts[device].rho) <= rho + slack
    assert len(state.results) == expected.ended
    assert sum('"committed"' in line for line in state.results) == expected.committed
    assert (state.clip, state.model.vector[0]) == (expected.clip, expected.weight)


async def play(folder: Path, ends: list[End]) -> None:
    state, expected = opened(folder), Expected()
    await state.begin()
    for end in ends:
        number = state.round + 1
        await state.open_round(Order(1, 1, number), Opening(b"", (), 1, 1, 0.0))
        deaths = iter(end.deaths)
        while not over(state):
            check(state, expected)
            turns = next(deaths, None)
            if turns is None:
                await finish(state, end)
            else:
                await die_finishing(state, end, turns)
                state = opened(folder)
        expected.ends(number, end)
        check(state, expected)
        state.close()
        state = opened(folder)
        check(state, expected)
    state.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(ENDS, min_size=1, max_size=6))
def test_the_ledger_tells_of_exactly_the_rounds_that_ended(ends: list[End]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder), ends))
