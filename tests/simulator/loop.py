"""One event loop for a whole fleet: virtual time, and actors that can be killed between any two steps.

Each actor's program runs in a context of its own, which names its incarnation. A step is one turn of the
loop in such a context. The turns of a dead incarnation are dropped: no `finally`, no cancellation, as after
SIGKILL.
"""

import asyncio
import heapq
import itertools
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any


class Incarnation:
    """One life of an actor's program.

    Args:
        actor: its name.
        steps: that it took in earlier lives; counts on.
        reached: called when it is about to take the step `stop_at`.
    """

    __slots__ = ("actor", "alive", "reached", "steps", "stop_at")

    def __init__(self, actor: str, steps: int, reached: Callable[[], None]) -> None:
        self.actor = actor
        self.alive = True
        self.steps = steps
        self.stop_at = 0
        self.reached = reached


CURRENT: ContextVar[Incarnation | None] = ContextVar("incarnation", default=None)
"""Whose turn it is; None is the world's."""

MOST_TURNS = 50_000
"""Turns in one moment; more are a loop that never waits."""


class _Task(asyncio.Task[Any]):
    """Hashes by age, so that a set of tasks has the same order in every process."""

    __slots__ = ("age",)

    def __init__(self, age: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self.age = age
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.age


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready; when nothing is, time jumps to the next timer.

    Work for executors runs on the loop, after a short seeded time; its result comes at once or a little
    later, so that a crash may fall before, between and after.

    Args:
        seed: of these times.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._time = 0.0
        self._turns = 0
        self._ages = itertools.count()
        self._random = random.Random(f"{seed}/executor")
        self._tasks: list[_Task] = []
        self.failures: list[str] = []
        self.set_task_factory(self._new_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._time

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = _Task(next(self._ages), coro, loop=loop, **options)
        self._tasks.append(task)
        return task

    def run_until(self, done: Callable[[], bool]) -> None:
        """Turn until `done`, which is asked before time passes."""
        self._thread_id = 1  # what `is_running` looks at
        events._set_running_loop(self)
        try:
            while self._ready or not done():  # type: ignore[attr-defined]
                self._turn()
                if self._turns > MOST_TURNS:
                    self.failures.append(f"{MOST_TURNS} turns without a moment passing")
                    return
        finally:
            events._set_running_loop(None)
            self._thread_id = None  # type: ignore[assignment]

    def _turn(self) -> None:
        self._turns += 1
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        handle: Any = ready.popleft() if ready else self._next_timer()
        if handle._cancelled:
            return
        incarnation = handle._context.get(CURRENT)
        if incarnation is not None:
            if not incarnation.alive:
                return
            incarnation.steps += 1
            if incarnation.steps == incarnation.stop_at:
                incarnation.reached()
                if not incarnation.alive:
                    return
        handle._run()

    def _next_timer(self) -> asyncio.TimerHandle:
        timer: asyncio.TimerHandle = heapq.heappop(self._scheduled)  # type: ignore[attr-defined]
        timer._scheduled = False  # type: ignore[attr-defined]
        if not timer._cancelled and timer.when() > self._time:
            self._time = timer.when()
            self._turns = 0
        return timer

    def enter(
        self, incarnation: Incarnation, context: Context, act: Callable[..., object], *args: object
    ) -> None:
        """Take a step of an actor, now: what a message or a connection does to it. Its failures are noted."""
        if incarnation.alive:
            incarnation.steps += 1
            if incarnation.steps == incarnation.stop_at:
                incarnation.reached()
        if not incarnation.alive:
            return
        try:
            context.run(act, *args)
        except Exception as error:  # noqa: BLE001 - noted, and judged by the oracle
            self.call_exception_handler({"message": "a handler failed", "exception": error})

    def run_in_executor(self, _executor: object, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """See `asyncio.loop.run_in_executor`; runs on the loop."""
        future = self.create_future()
        self.call_later(0.02 * self._random.random() ** 3, self._execute, future, func, args)
        return future

    def _execute(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            result, error = func(*args), None
        except Exception as caught:  # noqa: BLE001 - handed to whoever waits
            result, error = None, caught
        if self._random.random() < 0.5:
            _finish(future, result, error)
        else:
            self.call_later(0.02 * self._random.random(), _finish, future, result, error)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note what nobody caught; asyncio would only log it."""
        error = context.get("exception")
        self.failures.append(f"{context['message']}: {error!r}")

    def bury(self) -> None:
        """Close every coroutine that has not ended, quietly, and the loop."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
            else:
                task._log_traceback = False
        self._tasks.clear()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()

    # What a loop without sockets and threads need not do.

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)


def _finish(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _close(coro: Any) -> None:
    """A coroutine that waits again in its `finally` refuses to close; it gets a few chances."""
    for _ in range(20):
        try:
            coro.close()
        except RuntimeError:
            continue
        except BaseException:  # noqa: BLE001, S112 - of a program that is dead already
            continue
        return
