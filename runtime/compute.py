"""Where the pure computations run: light ones in threads, heavy ones in processes.

The cryptography package holds the interpreter's lock while it generates a mask's stream or agrees a key, so
threads add nothing there; each heavy piece goes to a process of its own, one per core. A vector that comes
back is left in shared memory: sending a million words through a pipe takes as long as twenty masks.
"""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import Self

from protocol.effects import Work
from protocol.errors import MisuseError
from secagg.ring import RingLayout, RingVector

_PIPED = 2**20
"""Bytes of a vector that still goes through the pipe: making and taking a shared block costs as much."""


class Computer:
    """Runs work off the event loop. Use it as a context.

    Args:
        workers: processes for heavy work; 0 runs heavy work in threads like the rest, as a device does.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="compute")
        self._processes: ProcessPoolExecutor | None = None

    async def run(self, work: Work) -> object:
        """The work's result.

        Raises:
            Exception: whatever the work raises.
            BrokenProcessPool: a process died, for example for want of memory.
        """
        loop = asyncio.get_running_loop()
        if work.heavy and self.workers:
            result = await loop.run_in_executor(self._pool(), _run_in_process, work)
            if isinstance(result, _Lent):
                return await loop.run_in_executor(self._threads, result.take)
            return result
        return await loop.run_in_executor(self._threads, work.run)

    def _pool(self) -> ProcessPoolExecutor:
        # On demand: small fleets never need it. Spawned, because a fork would copy threads and sockets.
        if self._processes is None:
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(self.workers, mp_context=context)
        return self._processes

    def close(self) -> None:
        """End threads and processes without waiting for what they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Lent:
    """A vector that a process has left in shared memory."""

    block: str
    layout: RingLayout

    def take(self) -> RingVector:
        """The vector, in our own memory; the shared block is gone."""
        block = SharedMemory(self.block)
        try:
            vector = RingVector.zeros(self.layout)
            vector.add(RingVector.over(self.layout, _memory(block)))
        finally:
            block.close()
            block.unlink()
        return vector


def _run_in_process(work: Work) -> object:
    result = work.run()
    if not isinstance(result, RingVector) or result.layout.memory_size <= _PIPED:
        return result
    block = SharedMemory(create=True, size=result.layout.memory_size)
    shared = RingVector.over(result.layout, _memory(block))
    shared.add(result)  # fresh memory is zero
    del shared  # the block cannot be closed while arrays view it
    block.close()
    return _Lent(block.name, result.layout)


def _memory(block: SharedMemory) -> memoryview:
    if block.buf is None:  # pragma: no cover - only a closed block has none
        raise MisuseError("the shared block is closed")
    return block.buf
