"""Time as an argument: programs are handed a clock, tests and the simulator hand in their own."""

import asyncio
import time
from typing import Protocol

from protocol.ids import Seconds, UnixTime


class Clock(Protocol):
    """What the time is, and waiting for it to pass."""

    def now(self) -> Seconds:
        """Monotonic time; only differences mean something."""

    def unix(self) -> UnixTime:
        """Wall-clock time; may jump, and is wrong on a device without a battery-backed clock."""

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds` of monotonic time; zero lets others run."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> Seconds:
        """See `Clock.now`."""
        return Seconds(time.monotonic())

    def unix(self) -> UnixTime:
        """See `Clock.unix`."""
        return UnixTime(time.time())

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)


async def happens(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Waits until `event` is set, at most `seconds`; whether it is."""
    if event.is_set():
        return True
    waiting = asyncio.ensure_future(event.wait())
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        timer.cancel()
    return event.is_set()
