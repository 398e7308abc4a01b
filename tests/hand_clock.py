"""A clock that a test moves by hand."""

import asyncio
import heapq
from itertools import count

from protocol.ids import Seconds, UnixTime


class HandClock:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> Seconds:
        return Seconds(self._now)

    def unix(self) -> UnixTime:
        return UnixTime(self._now)

    async def sleep(self, seconds: float) -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), sleeper))
        await sleeper

    async def pass_time(self, seconds: float) -> None:
        await settle()
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)
