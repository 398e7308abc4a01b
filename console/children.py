"""Other programs as child processes: each logs to a file, and all of them end with us, whatever happens."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from protocol.errors import FedfleetError

GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL."""
TAIL_LINES = 15
_LOOK_AGAIN_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


class ChildFailedError(FedfleetError):
    """A child process ended when it should not have, or does not do what it should."""


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """A process that we started.

    Attributes:
        name: also of its log.
        process: its handle.
        log: what it wrote to standard output and error.
    """

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.returncode is not None

    def failed(self, what: str) -> ChildFailedError:
        """An error that shows the end of its log."""
        tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return ChildFailedError("\n".join([f"{self.name} {what}; the end of {self.log}:", *tail]))

    def check(self) -> None:
        """Raises `ChildFailedError` if it is gone."""
        if self.ended:
            raise self.failed(f"ended with {self.process.returncode}")

    async def says(self, text: str, seconds: float) -> str:
        """The rest of the first line of its log that begins with `text`.

        Raises:
            ChildFailedError: it ended before it said so, or took longer than `seconds`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    for line in self.log.read_text(errors="replace").splitlines(keepends=True):
                        if line.startswith(text) and line.endswith("\n"):
                            return line.removeprefix(text).strip()
                    self.check()
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        raise self.failed(f"did not get ready in {seconds:g} s")


class Children:
    """Starts programs of this project in the same interpreter's installation. Use it as a context.

    Args:
        logs: folder for their logs.
        environment: of all of them.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._children: list[Child] = []

    async def start(
        self, name: str, module: str, *arguments: str, orphaned: signal.Signals = signal.SIGKILL
    ) -> Child:
        """Run `python -P -m module arguments` in a process group of its own.

        A terminal's Ctrl-C then reaches us alone, and we end the others in order.

        Args:
            name: of the child and its log.
            module: to run.
            arguments: its command line.
            orphaned: what the system sends it when we are killed without a chance to end it (Linux).
        """
        log = self._logs / f"{name}.log"
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self._environment,
                process_group=0,
                preexec_fn=partial(_end_with_parent, orphaned) if sys.platform == "linux" else None,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    async def stop(self, children: Sequence[Child]) -> None:
        """End these, all at once: SIGTERM, and SIGKILL for those that take too long."""
        for child in children:
            _signal(child, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await asyncio.gather(*(child.process.wait() for child in children))
        for child in children:
            _signal(child, signal.SIGKILL)
        await asyncio.gather(*(child.process.wait() for child in children))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the newest first, so that nobody loses the broker before it has said goodbye."""
        first, others = self._children[:1], self._children[1:]
        try:
            await self.stop(others)
        finally:
            await self.stop(first)


def _signal(child: Child, number: signal.Signals) -> None:
    if not child.ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process.pid, number)


_libc = ctypes.CDLL(None)


def _end_with_parent(number: signal.Signals) -> None:
    # Runs in the child between fork and exec; nothing but one system call may happen here.
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
