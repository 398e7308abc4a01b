"""SIGTERM and SIGINT as one event, so that a program ends by returning."""

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """An event that is set when the program is asked to end. Call it inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
