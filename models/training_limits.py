"""What a training process may take from its machine. A graph is a program of somebody else's."""

import contextlib
import math
import resource
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.bounds import MAX_GRAPH_BYTES

OPEN_FILES = 64
"""The interpreter and ONNX Runtime have about ten open."""

_FIRST_TO_GO = "1000"
"""The highest badness: on a machine out of memory the kernel ends this process and not the agent."""


class TrainingLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """The most that a training process may take.

    Attributes:
        memory_limit_mb: address space in MiB, and the most that is fetched for a round. The interpreter and
            ONNX Runtime map 150; the catalog's models with their default sizes reach 236, evaluating 256
            examples at once. 512 leave a machine of 1 GB the other half.
        cpu_seconds: processor time of one call, beside its deadline: what a round may cost a battery.
        engine: the only one to train with; None takes the fastest that machine and bundle have.
        idle_seconds: how long it waits for another call before it ends and gives its memory back; to start
            again takes a fraction of a second on a server, a few on a small device.
    """

    memory_limit_mb: Annotated[int, Meta(ge=256, le=2**20)] = 512
    cpu_seconds: Annotated[int, Meta(ge=1, le=10**6)] = 1800
    engine: Literal["ort-graph", "ort-training"] | None = None
    idle_seconds: Annotated[float, Meta(ge=0.0, le=1e6)] = 60.0


DEFAULT_LIMITS = TrainingLimits()


def limit_this_process(memory_limit_mb: int) -> None:
    """Set the limits that hold for the whole life of this process, and can never be raised again."""
    _lower(resource.RLIMIT_AS, memory_limit_mb * 2**20)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    # The graphs in their temporary folder. Python ignores SIGXFSZ, so a log file that is longer already loses
    # lines and ends nobody.
    _lower(resource.RLIMIT_FSIZE, MAX_GRAPH_BYTES)
    with contextlib.suppress(OSError):  # not on this system, or forbidden: the limits above hold all the same
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")


def allow_processor_time(seconds: int) -> None:
    """From now on; the kernel ends this process with SIGXCPU when it has used more.

    Only the soft limit is moved, so that a process that is kept is not punished for what it did before.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (_at_most(soft, hard), hard))


def _lower(which: int, value: int) -> None:
    """A service manager may have set less already."""
    value = _at_most(value, resource.getrlimit(which)[1])
    resource.setrlimit(which, (value, value))


def _at_most(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
