"""What was decided, as the signed bytes that left, synced before they leave.

A decision that was announced must never be taken differently after a crash (invariant I3). The open round's
records are appended to one file: a length of 4 bytes (big-endian), then the frame.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


class DecisionLog(Protocol):
    """Keeps signed frames."""

    def begin(self) -> None:
        """Forget the rounds before; they are over, and the order fences them."""
        ...

    def record(self, frame: bytes) -> None:
        """Return once the frame is safe. May block for a disk's sync: call it off the event loop."""
        ...


class MemoryDecisionLog:
    """Forgets with the process; for tests."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def begin(self) -> None:
        """See `DecisionLog.begin`."""
        self.frames.clear()

    def record(self, frame: bytes) -> None:
        """See `DecisionLog.record`."""
        self.frames.append(frame)


class FileDecisionLog:
    """Appends to a file and syncs it. Use it as a context.

    Args:
        path: made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def begin(self) -> None:
        """See `DecisionLog.begin`."""
        self._file.truncate(0)

    def record(self, frame: bytes) -> None:
        """See `DecisionLog.record`."""
        self._file.write(len(frame).to_bytes(4, "big") + frame)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
