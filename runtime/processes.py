"""A pool of processes for heavy computations, one for each core.

The cryptography package holds the interpreter's lock while it generates a mask's stream or agrees a key, so
threads add nothing there. A vector that comes back is left in shared memory: sending a million words through
a pipe takes as long as twenty masks.
"""

import asyncio
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

from protocol.effects import Work
from protocol.errors import MisuseError
from secagg.ring import RingLayout, RingVector

_PIPED = 2**20
"""Bytes of a vector that still goes through the pipe: making and taking a shared block costs as much."""


class Processes:
    """Runs work in processes, which start when they are needed.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        # Spawned, because a fork would copy threads and sockets.
        self._pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))

    async def run(self, work: Work, threads: Executor) -> object:
        """The work's result; errors as `Computer.run`.

        Args:
            work: runs in a process.
            threads: where a large result is fetched from shared memory.
        """
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._pool, _run_in_process, work)
        if isinstance(result, _Lent):
            return await loop.run_in_executor(threads, result.take)
        return result

    def close(self) -> None:
        """End the processes without waiting for what they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)


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
