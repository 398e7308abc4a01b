"""SIGTERM and SIGINT as one event, and programs that end within seconds of it, broker or no broker."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

from runtime.clock import Clock

GRACE = 8.0
"""Seconds a program may take to say goodbye before it just ends; container engines wait 10."""


def stop_event() -> asyncio.Event:
    """An event that is set when the program is asked to end. Call it inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def run_until(stop: asyncio.Event, program: Coroutine[Any, Any, None], clock: Clock) -> None:
    """Run a program that ends by itself once `stop` is set; after GRACE it is cancelled.

    Raises:
        Exception: what the program raises.
    """
    task = asyncio.create_task(program)
    late = asyncio.create_task(_late(stop, clock))
    try:
        await asyncio.wait({task, late}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    finally:
        for one in (task, late):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one


async def _late(stop: asyncio.Event, clock: Clock) -> None:
    await stop.wait()
    await clock.sleep(GRACE)
