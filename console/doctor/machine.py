"""This machine: its versions, its clock, its rights."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError

from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, ok, warning
from models.installed import available_engines

OLDEST_PYTHON = (3, 11)

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)([^;]*)$")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")


def python(examination: Examination) -> Findings:
    """The interpreter."""
    version = ".".join(map(str, examination.machine.python))
    if examination.machine.python < OLDEST_PYTHON:
        yield failure(f"Python {version}", "install fedfleet into an environment of Python 3.11 or 3.12")
    else:
        yield ok(f"Python {version}")


def packages(examination: Examination) -> Findings:
    """What we call, in the versions that we know."""
    versions = []
    for name, bounds in _requirements(examination.machine.required):
        install = f"install {name}{bounds} into this environment"
        try:
            version = examination.machine.version_of(name)
        except PackageNotFoundError:
            yield failure(f"{name} is not installed", install)
            continue
        if not _within(version, bounds):
            yield warning(f"{name} {version} is none of the versions that were tested", install)
        versions.append(f"{name} {version}")
    yield ok(", ".join(versions) or "run from a folder of sources")


def _requirements(required: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Those that hold everywhere: names and bounds."""
    for one in required:
        if match := _REQUIREMENT.match(one):
            yield match[1], match[2]


def _within(version: str, bounds: str) -> bool:
    own = _numbers(version)
    return all(
        own >= _numbers(limit) if relation == ">=" else own < _numbers(limit)
        for relation, limit in _BOUND.findall(bounds)
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def engine(_examination: Examination) -> Findings:
    """Something that trains."""
    if engines := available_engines():
        yield ok(", ".join(engines))
    else:
        yield failure("onnxruntime is not installed", "pip install 'fedfleet[agent]'")


def synchronised(examination: Examination) -> Findings:
    """Something that keeps the clock right."""
    if examination.machine.synchronised:
        yield ok("the clock is kept right")
    else:
        yield warning(
            "nothing tells that the clock is kept right; certificates and deadlines go by it",
            "run systemd-timesyncd, chrony or another NTP client",
        )


def rights(examination: Examination) -> Findings:
    """A program needs none of root's."""
    if examination.machine.root:
        yield warning("this runs as root", "run the program as a user of its own")
    else:
        yield ok("not root")


def environment(examination: Examination) -> Findings:
    """Every child process and every bug report sees the environment."""
    name = "FEDFLEET_BROKER__PASSWORD"
    if name in examination.environment:
        yield warning(
            "the broker's password is in the environment, which child processes and reports show",
            f"write it into a file and set {name}_FILE",
        )
    else:
        yield ok("no secret in it")
