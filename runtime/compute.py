"""Where the pure computations run: light ones in threads, heavy ones in processes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # an agent starts without numpy, and never needs processes
    from protocol.effects import Work
    from runtime.processes import Processes


class Computer:
    """Runs work off the event loop. Use it as a context.

    Args:
        workers: processes for heavy work; 0 runs heavy work in threads like the rest, as a device does.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="compute")
        self._processes: Processes | None = None

    async def run(self, work: "Work") -> object:
        """The work's result.

        Raises:
            Exception: whatever the work raises.
            BrokenProcessPool: a process died, for example for want of memory.
        """
        if work.heavy and self.workers:
            return await self._pool().run(work, self._threads)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work.run)

    def _pool(self) -> "Processes":
        if self._processes is None:  # on demand: small fleets never need it
            from runtime.processes import Processes  # noqa: PLC0415 - numpy and multiprocessing

            self._processes = Processes(self.workers)
        return self._processes

    def close(self) -> None:
        """End threads and processes without waiting for what they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
