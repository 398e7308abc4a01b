"""A campaign: so many hostile frames, shared out among all targets, in one process or more."""

import multiprocessing
import random
import resource
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.utils import CryptographyDeprecationWarning

from fuzz.codec import Bytes, readers
from fuzz.coordinator_half import CoordinatorHalf
from fuzz.device_half import DeviceHalf, Invitations
from fuzz.findings import Finding, Findings
from fuzz.rounds import RecordedRound
from fuzz.shells import AgentDoors, CoordinatorDoors, UploadDoor

SHARES = {
    "device body": 185,
    "coordinator body": 185,
    "device frame": 60,
    "coordinator frame": 60,
    "stored frame": 40,
    "journal entry": 60,
    "status": 80,
    "chunk": 80,
    "device half": 110,
    "invitation": 10,
    "coordinator half": 70,
    "coordinator shell": 30,
    "upload shell": 20,
    "agent shell": 10,
}
"""Frames of each target in a thousand."""

SLICE = 100_000
"""Frames after which new rounds are recorded, and new material drawn from them."""


class Target(Protocol):
    """Something under attack."""

    name: str

    def feed(self, frames: int) -> None:
        """Attack it so often."""
        ...


@dataclass
class Report:
    """What a campaign, or a worker's part of one, came to.

    Attributes:
        frames: hostile inputs by target.
        found: what came out that must not.
        growth: of the largest resident memory after the first slice, in bytes.
        seconds: it took.
    """

    frames: dict[str, int] = field(default_factory=dict)
    found: list[Finding] = field(default_factory=list)
    growth: int = 0
    seconds: float = 0.0

    @property
    def uncaught(self) -> int:
        """How many, repeats included."""
        return sum(finding.times for finding in self.found)


def run(frames: int, seed: int, workers: int) -> Report:
    """Attack everything.

    Args:
        frames: in all.
        seed: the same seed and number of workers give the same inputs.
        workers: processes; one stays in this one.
    """
    begun = time.monotonic()
    parts = [(frames // workers + (part < frames % workers), f"{seed}/{part}") for part in range(workers)]
    if workers == 1:
        report = work(*parts[0])
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            report = _together(list(pool.map(work, *zip(*parts, strict=True))))
    report.seconds = time.monotonic() - begun
    return report


def work(frames: int, seed: str) -> Report:
    """One worker's part."""
    chance, findings, report, peak = random.Random(seed), Findings(), Report(), 0
    for begin in range(0, frames, SLICE):
        _slice(min(SLICE, frames - begin), chance, findings, report, f"worker {seed} at frame {begin}")
        peak = peak or _peak()
    report.growth = _peak() - peak
    report.found = list(findings.found.values())
    return report


def _slice(frames: int, chance: random.Random, findings: Findings, report: Report, where: str) -> None:
    with warnings.catch_warnings():
        # A warning of numpy is a number that is none; that of a certificate's odd serial number is not ours.
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for target in targets(chance, findings):
            share = max(1, frames * SHARES[target.name] // 1000)
            try:
                target.feed(share)
            except AssertionError as error:
                # It stood all of it, and then did not do what it must still do.
                findings.add(target.name, error, lambda: where)
            report.frames[target.name] = report.frames.get(target.name, 0) + share


def targets(chance: random.Random, findings: Findings) -> Sequence[Target]:
    """All of them, over one newly recorded round."""
    recorded = RecordedRound(chance.getrandbits(32))
    return [
        *(Bytes(reader, chance, findings) for reader in readers(recorded)),
        DeviceHalf(recorded, chance, findings),
        Invitations(recorded, chance, findings),
        CoordinatorHalf(recorded, chance, findings),
        CoordinatorDoors(recorded, chance, findings),
        UploadDoor(chance, findings),
        AgentDoors(recorded, chance, findings),
    ]


def _together(reports: Sequence[Report]) -> Report:
    whole, findings = Report(), Findings()
    for report in reports:
        for name, frames in report.frames.items():
            whole.frames[name] = whole.frames.get(name, 0) + frames
        findings.take_in(report.found)
        whole.growth = max(whole.growth, report.growth)
    whole.found = list(findings.found.values())
    return whole


def _peak() -> int:
    """Largest resident memory of this process so far, in bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
