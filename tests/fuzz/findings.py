"""What came out that must not."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Finding:
    """One place that failed.

    Attributes:
        target: what was attacked.
        error: the error, in one line.
        where: the innermost frame, file and line.
        reproduction: how to have it again.
        times: how often.
    """

    target: str
    error: str
    where: str
    reproduction: str
    times: int = 0


@dataclass
class Findings:
    """All of them, told apart by target, kind of error and place."""

    found: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    def add(self, target: str, error: BaseException, reproduction: Callable[[], str]) -> None:
        """Count one; the reproduction is made for the first of its kind only."""
        where = _place_of(error)
        key = target, type(error).__name__, where
        if key not in self.found:
            line = "".join(traceback.format_exception_only(error)).strip()[:300]
            self.found[key] = Finding(target, line, where, reproduction())
        self.found[key].times += 1

    def take_in(self, others: list[Finding]) -> None:
        """Those of another process."""
        for other in others:
            key = other.target, other.error.partition(":")[0], other.where
            self.found.setdefault(key, other)
            if self.found[key] is not other:
                self.found[key].times += other.times


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""


def smaller(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """As few bytes of `data` as still fail, by cutting ever smaller pieces out."""
    size = len(data) // 2
    while size:
        start = 0
        while start < len(data):
            shorter = data[:start] + data[start + size :]
            if fails(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data
