"""The shell of a half: order of what leaves, alarms, computations, and how a run ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hand_clock import HandClock, settle
from virtual_fleet import manifest_for

from privacy.errors import NotFiniteError
from protocol import effects as fx
from protocol.errors import MisuseError, TranscriptError
from protocol.ids import DeviceId, Order, Seconds
from protocol.messages import Accept, RoundEnded, Stored
from runtime.compute import Computer
from runtime.driver import MAX_SENDING, Driver
from secagg.errors import ShareError

ORDER = Order(1, 1, 1)
DECISION = fx.Announce(RoundEnded(ORDER, "aborted", "", 0.0))
REMEMBER = fx.Remember(ORDER)
CHARGE = fx.Charge(ORDER, "distributed", 0.5)
SAY = fx.Say(Accept(ORDER, bytes(32)))


def send(number: int) -> fx.Send:
    return fx.Send(DeviceId(f"d{number}"), Stored(ORDER, bytes(32)))


@dataclass
class Script:
    """A half that answers each event with what the test wrote down; `Gone` ends it."""

    answers: dict[type, list[fx.Effect]]
    heard: list[object] = field(default_factory=list)
    over: bool = False

    def handle(self, event: object, now: Seconds) -> list[fx.Effect]:
        del now
        self.heard.append(event)
        self.over = self.over or isinstance(event, fx.Gone)
        return self.answers.get(type(event), [])


@dataclass
class Tape:
    """A shell that writes down what it was asked, and can be held up."""

    said: list[object] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    hold: tuple[type, ...] = ()
    outcome: Callable[[fx.Effect], object] = lambda _: None

    async def emit(self, effect: fx.Effect) -> None:
        if isinstance(effect, self.hold):
            await self.gate.wait()
        self.said.append(effect)

    async def perform(self, effect: fx.Effect) -> object:
        self.said.append(effect)
        return self.outcome(effect)


@dataclass(frozen=True)
class Task:
    """A computation."""

    work: Callable[[], object]
    heavy: bool = False

    def run(self) -> object:
        return self.work()


STOP = fx.Gone(DeviceId("the end"))


async def settled() -> None:
    """Longer than `run` waits before it feeds."""
    for _ in range(3):
        await settle()


async def run(script: Script, tape: Tape, *feeds: object, clock: HandClock | None = None) -> None:
    """Drive the script from `Begin`; then feed what the test says."""
    async with Computer(workers=0) as computer:
        driver: Driver[object] = Driver(script, tape, computer=computer, clock=clock or HandClock())
        task = asyncio.create_task(driver.run(fx.Begin()))
        for event in feeds:
            await settle()
            driver.feed(event)
        await task


async def test_nothing_overtakes_what_must_be_durable_first() -> None:
    tape = Tape(hold=(fx.Remember, fx.Announce))
    script = Script({fx.Begin: [send(1), REMEMBER, SAY, DECISION, send(2)]})
    running = asyncio.create_task(run(script, tape, STOP))
    await settle()
    assert tape.said == [send(1)]
    tape.gate.set()
    await running
    assert tape.said.index(REMEMBER) < tape.said.index(SAY)
    assert tape.said.index(DECISION) < tape.said.index(send(2))


async def test_an_update_is_offered_only_once_its_cost_is_durable() -> None:
    tape = Tape(hold=(fx.Charge,))
    running = asyncio.create_task(run(Script({fx.Begin: [CHARGE, SAY]}), tape, STOP))
    await settled()
    assert tape.said == []
    tape.gate.set()
    await running
    assert tape.said == [CHARGE, SAY]


async def test_many_messages_leave_side_by_side_but_not_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape(hold=(fx.Send,))
    waiting: list[object] = []
    script = Script({fx.Begin: [send(number) for number in range(3 * MAX_SENDING)]})
    original = tape.emit

    async def counting(effect: fx.Effect) -> None:
        waiting.append(effect)
        await original(effect)

    monkeypatch.setattr(tape, "emit", counting)
    running = asyncio.create_task(run(script, tape, STOP))
    await settle()
    assert len(waiting) == MAX_SENDING
    tape.gate.set()
    await running
    # The round is over: what had not left, and only resends could have, is dropped.
    assert MAX_SENDING <= len(tape.said) <= MAX_SENDING + 1


async def test_the_run_ends_only_when_the_last_word_has_left() -> None:
    tape = Tape(hold=(fx.Announce,))
    script = Script({fx.Gone: [DECISION]})
    running = asyncio.create_task(run(script, tape, STOP))
    await settled()
    assert script.over
    assert not running.done()
    tape.gate.set()
    await running
    assert tape.said == [DECISION]


async def test_what_is_not_outgoing_runs_beside_and_reports_its_outcome() -> None:
    fetch = fx.Fetch(manifest_for(1, members=3).bundle, manifest_for(1, members=3).weights)
    outcome = fx.Fetched(b"bundle", b"weights")
    tape = Tape(outcome=lambda effect: outcome if effect == fetch else None)
    script = Script({fx.Begin: [fetch, fx.Enter("training")]})
    await run(script, tape, fx.Reconnected(), STOP)
    assert outcome in script.heard
    assert script.heard.count(outcome) == 1
    assert None not in script.heard


async def test_a_computation_tells_its_result() -> None:
    task = Task(lambda: 42)
    script = Script({fx.Begin: [fx.Compute(task)], fx.Computed: [fx.Enter("uploading")]})
    tape = Tape(outcome=lambda _: STOP)
    await run(script, tape)
    assert fx.Computed(task, 42) in script.heard


@pytest.mark.parametrize(
    "error", [TranscriptError("t"), ShareError("s"), NotFiniteError("n"), MisuseError("m")], ids=repr
)
async def test_an_error_that_the_protocol_knows_is_told_to_the_half(error: Exception) -> None:
    def fail() -> object:
        raise error

    task = Task(fail)
    script = Script({fx.Begin: [fx.Compute(task)], fx.ComputeFailed: [fx.Enter("uploading")]})
    await run(script, Tape(outcome=lambda _: STOP))
    assert fx.ComputeFailed(task, error) in script.heard


async def test_any_other_error_of_a_computation_ends_the_run_loudly() -> None:
    script = Script({fx.Begin: [fx.Compute(Task(lambda: 1 // 0))]})
    with pytest.raises(ExceptionGroup) as caught:
        await run(script, Tape())
    assert caught.group_contains(ZeroDivisionError)


@pytest.mark.parametrize(
    "effect", [SAY, DECISION, fx.Enter("training")], ids=["beside", "durable", "performed"]
)
async def test_a_bug_in_an_effect_ends_the_run_loudly(
    effect: fx.Effect, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()

    async def broken(_: fx.Effect) -> None:
        raise MisuseError("a bug")

    monkeypatch.setattr(tape, "emit", broken)
    monkeypatch.setattr(tape, "perform", broken)
    with pytest.raises(ExceptionGroup) as caught:
        await run(Script({fx.Begin: [effect]}), tape)
    assert caught.group_contains(MisuseError)


async def test_an_alarm_rings_at_its_time_and_a_newer_wish_replaces_it() -> None:
    clock = HandClock()
    script = Script({fx.Begin: [fx.WakeAt(Seconds(5.0))], fx.Reconnected: [fx.WakeAt(Seconds(9.0))]})
    running = asyncio.create_task(run(script, Tape(), fx.Reconnected(), clock=clock))
    await settled()
    await clock.pass_time(8.9)
    assert fx.Woke() not in script.heard
    await clock.pass_time(0.2)
    assert script.heard.count(fx.Woke()) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_time_that_has_passed_rings_at_once_and_infinity_never() -> None:
    clock = HandClock()
    script = Script({fx.Begin: [fx.WakeAt(Seconds(-1.0))], fx.Woke: [fx.WakeAt(Seconds(float("inf")))]})
    running = asyncio.create_task(run(script, Tape(), clock=clock))
    await clock.pass_time(1e9)
    assert script.heard == [fx.Begin(), fx.Woke()]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_still_runs_is_ended_with_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()
    tape = Tape()

    async def endless(_: fx.Effect) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(tape, "perform", endless)
    await run(Script({fx.Begin: [fx.Enter("training")]}), tape, STOP)
    assert ended.is_set()
