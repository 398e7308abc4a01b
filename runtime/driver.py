"""The shell of a round: feeds events to a pure half and carries out the effects it asks for.

Outgoing effects (`Remember`, `Charge`, `Announce`, `Invite`, `Send`, `Say`) go through one queue in the order
in which they were asked for, so that what must be durable first is. Everything else runs beside it and
reports back with an event. The driver ends when the round is over and everything has left.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

from privacy.errors import PrivacyError
from protocol.effects import (
    Announce,
    Charge,
    Compute,
    Computed,
    ComputeFailed,
    Effect,
    Invite,
    Remember,
    Say,
    Send,
    WakeAt,
    Woke,
)
from protocol.errors import FedfleetError
from protocol.ids import Seconds
from runtime.clock import Clock
from runtime.compute import Computer
from secagg.errors import SecAggError

DURABLE = Remember | Charge | Announce
"""Nothing later leaves before these are done."""

OUTGOING = DURABLE | Invite | Send | Say

MAX_SENDING = 32
"""Messages on their way to the broker at once: hides the round trip, bounds the memory."""

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)
EventT_contra = TypeVar("EventT_contra", contravariant=True)


class Machine(Protocol[EventT_contra]):
    """A pure half of a round."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        ...

    def handle(self, event: EventT_contra, now: Seconds) -> list[Effect]:
        """Decide what follows from an event."""
        ...


class Shell(Protocol[EventT_co]):
    """What a program can do for its half."""

    async def emit(self, effect: Effect) -> None:
        """Carry out one outgoing effect. A message that does not leave is said again by the half."""
        ...

    async def perform(self, effect: Effect) -> EventT_co | None:
        """Carry out any other effect; the event that reports its outcome, if there is one."""
        ...


class Driver(Generic[EventT]):
    """Runs one half of one round.

    Args:
        machine: the half.
        shell: what acts for it.
        computer: where its computations run.
        clock: time.
    """

    def __init__(
        self, machine: Machine[Any], shell: Shell[EventT], *, computer: Computer, clock: Clock
    ) -> None:
        self._machine = machine
        self._shell = shell
        self._computer = computer
        self._clock = clock
        self._events: asyncio.Queue[object] = asyncio.Queue()
        self._outgoing: asyncio.Queue[Effect] = asyncio.Queue()
        self._sending = asyncio.Semaphore(MAX_SENDING)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_time = Seconds(float("inf"))

    def feed(self, event: EventT) -> None:
        """Tell the round what happened; once it is over nobody listens."""
        if not self._machine.over:
            self._events.put_nowait(event)

    async def run(self, begin: EventT, unfinished: Sequence[Effect] = ()) -> None:
        """Run the round to its end.

        Args:
            begin: what it is told first.
            unfinished: effects of an earlier process, to be carried out before.

        Raises:
            ExceptionGroup: a bug in an effect; a peer's misbehaviour never gets this far.
        """
        async with self._group:
            self._start(self._pump())
            self._carry_out(unfinished)
            self.feed(begin)
            while not self._machine.over:
                self._handle(await self._events.get())
            self._keep_last_words()
            await self._outgoing.join()
            for task in self._tasks:
                task.cancel()

    def _keep_last_words(self) -> None:
        """Drop what was queued for devices that need it no more; decisions and a device's farewell stay."""
        waiting = [self._outgoing.get_nowait() for _ in range(self._outgoing.qsize())]
        for effect in waiting:
            self._outgoing.task_done()
            if isinstance(effect, DURABLE | Say):
                self._outgoing.put_nowait(effect)

    def _handle(self, event: object) -> None:
        self._carry_out(self._machine.handle(event, self._clock.now()))

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case WakeAt(time):
                    self._set_alarm(time)
                case Compute():
                    self._start(self._compute(effect))
                case _ if isinstance(effect, OUTGOING):
                    self._outgoing.put_nowait(effect)
                case _:
                    self._start(self._perform(effect))

    def _set_alarm(self, time: Seconds) -> None:
        if time == self._alarm_time:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_time = time
        if time < float("inf"):
            self._alarm = self._start(self._wake(time))

    async def _wake(self, time: Seconds) -> None:
        await self._clock.sleep(max(0.0, time - self._clock.now()))
        self._alarm_time = Seconds(float("inf"))
        self._events.put_nowait(Woke())

    async def _compute(self, effect: Compute) -> None:
        try:
            result = await self._computer.run(effect.work)
        except (FedfleetError, SecAggError, PrivacyError) as error:
            self._events.put_nowait(ComputeFailed(effect.work, error))
        else:
            self._events.put_nowait(Computed(effect.work, result))

    async def _perform(self, effect: Effect) -> None:
        event = await self._shell.perform(effect)
        if event is not None:
            self._events.put_nowait(event)

    async def _pump(self) -> None:
        while True:
            effect = await self._outgoing.get()
            if isinstance(effect, DURABLE):
                await self._emit(effect)
            else:
                await self._sending.acquire()
                self._start(self._emit_beside(effect))

    async def _emit(self, effect: Effect) -> None:
        try:
            await self._shell.emit(effect)
        finally:
            self._outgoing.task_done()

    async def _emit_beside(self, effect: Effect) -> None:
        try:
            await self._emit(effect)
        finally:
            self._sending.release()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
