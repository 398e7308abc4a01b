"""Faults at system calls, put in by strace.

strace counts the calls of each thread on its own: "the third" is the third of whichever thread comes to three
first. It does not see what a program does under `--seccomp-bpf` when it injects signals, so every call stops.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_QUIET = "attach,personality,path-resolution,thread-execve"
"""Not the ends of processes: they tell that a log is whole."""

_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_BLOB = re.compile(r"(?<=[/-])([0-9a-f]{64}|\w{8})$")
_NAMED = re.compile(r'[<"](/[^">]*)[">]')


@dataclass(frozen=True)
class Target:
    """System calls of one kind.

    Attributes:
        call: the name, or its beginning where machines differ ("rename", "renameat2").
        files: only on these, relative to the state folder; on any when there are none.
    """

    call: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.call} {self.files[-1]}" if self.files else self.call


_DATABASE = tuple(f"coordinator.db{suffix}" for suffix in ("", "-wal", "-journal", ".lock"))
_RESULTS = (".results.jsonl.new", "results.jsonl")
_MODEL = (".model.onnx.new", "model.onnx")

JOURNAL_PAGES = Target("pwrite64")

TARGETS = (
    Target("fdatasync"),
    JOURNAL_PAGES,
    Target("fsync"),
    Target("rename"),
    Target("unlink"),
    Target("ftruncate"),
    Target("mkdir", ("", "spool", "models")),
    Target("openat", (".home", ".coordinator.db.new", *_DATABASE, *_RESULTS)),
    Target("write", (".coordinator.db.new", *_DATABASE, *_RESULTS)),
    *(Target(call, _MODEL) for call in ("openat", "write", "fsync", "rename")),
    *(Target(call, (folder,)) for folder in ("spool", "models") for call in ("openat", "fsync")),
)
"""Everything durable that a coordinator does. What only the busiest thread comes to often stands alone, and
what others do again by its files. Temporary names of blobs cannot be told to strace: what is done to them
lies between calls that are here."""


@dataclass(frozen=True)
class Fault:
    """What happens at which calls.

    Attributes:
        target: the calls.
        what: "signal=SIGKILL" or "error=ENOSPC".
        when: "3", "3..5" or "3+", by strace's counting.
    """

    target: Target
    what: str
    when: str

    def __str__(self) -> str:
        return f"{self.what} at {self.target} {self.when}"

    @property
    def kills(self) -> bool:
        """Whether the program ends by it."""
        return self.what.startswith("signal=")


def killed_at(target: Target, number: int) -> Fault:
    """The process is killed when it enters this call."""
    return Fault(target, "signal=SIGKILL", str(number))


def disk_full(target: Target, when: str) -> Fault:
    """These calls find no space."""
    return Fault(target, "error=ENOSPC", when)


def is_usable() -> bool:
    """Whether strace is installed and may watch programs here, which some containers forbid."""
    program = shutil.which("strace")
    if program is None:
        return False
    return (
        subprocess.run([program, "-o", os.devnull, "true"], check=False, capture_output=True).returncode == 0
    )


def command(log: Path, state: Path, what: Sequence[Fault | Target]) -> Sequence[str]:
    """What to put before a program; strace is then its grandchild, and signals reach the program itself.

    Args:
        log: where strace writes.
        state: the folder that files are in.
        what: a fault; or targets, whose calls are only written down, whatever their files.
    """
    faults = [one for one in what if isinstance(one, Fault)]
    calls = {one.target.call if isinstance(one, Fault) else one.call for one in what}
    files = {state / name for fault in faults for name in fault.target.files}
    return (
        *("strace", "-D", "-f", "-y", "-e", f"quiet={_QUIET}", "-o", str(log)),
        *("-e", f"trace=/^({'|'.join(sorted(calls))})"),
        *(word for file in sorted(files) for word in ("-P", str(file))),
        *(word for fault in faults for word in ("-e", _injection(fault))),
    )


def _injection(fault: Fault) -> str:
    return f"inject=/^{fault.target.call}:{fault.what}:when={fault.when}"


async def whole(log: Path, program: int) -> str:
    """The log, once it tells the end of the program, which strace may see later than others.

    Args:
        log: of strace.
        program: its process id; it has ended.
    """
    for _ in range(500):
        if re.search(rf"^{program} +\+\+\+ ", text := _read(log), re.MULTILINE):
            return text
        await asyncio.sleep(0.02)
    raise AssertionError(f"strace never saw the end of {program}")


def _read(log: Path) -> str:
    return log.read_text(errors="replace")


def counted(log: str, state: Path, target: Target) -> int:
    """How often the busiest thread has made the calls."""
    files = {str(state / name) for name in target.files}
    threads = Counter[str]()
    for line in log.splitlines():
        found = _LINE.match(line)
        if found and found[2].startswith(target.call):
            threads[found[1]] += not files or bool(files & set(_NAMED.findall(found[3])))
    return max(threads.values(), default=0)


def place_of(log: str, state: Path) -> str:
    """The call in which the program was killed, with the file; the names of blobs are shortened."""
    dying = next((line.split()[0] for line in log.splitlines() if line.endswith("= ?")), "")
    calls = [found for line in log.splitlines() if (found := _LINE.match(line)) and found[1] == dying]
    found = calls[-1] if calls else None
    names = _NAMED.findall(found[3]) if found else []
    file = next((name.removeprefix(f"{state}/") for name in names if name.startswith(str(state))), "")
    return f"{found[2]} {_BLOB.sub('…', file)}" if found else ""
