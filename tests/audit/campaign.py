"""A campaign: the programs as they are, in every setting, then with every bug, in one process or more."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

from audit.audit import Audit, Verdict, audit
from audit.bugs import CASES, HONEST
from audit.game import Setting


@dataclass(frozen=True)
class Job:
    """One audit of a campaign.

    Attributes:
        name: of the bug or the setting.
        bug: its place in `CASES`; None audits the programs as they are.
        setting: to play.
        ratio: see `bugs.Case`.
        right: the verdict that is expected.
        runs: to guess.
        seed: of the audit.
        masked: runs through the whole protocol.
    """

    name: str
    bug: int | None
    setting: Setting
    ratio: float
    right: Verdict
    runs: int
    seed: int
    masked: int


@dataclass(frozen=True)
class Row:
    """One audit done."""

    job: Job
    audit: Audit
    seconds: float


def audit_all(releases: int, seed: int, masked: int, workers: int) -> Iterator[Row]:
    """All audits, in order.

    Args:
        releases: to guess in each audit.
        seed: the same gives the same audits.
        masked: runs through the whole protocol, of programs as they are.
        workers: processes.
    """
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs(releases, seed, masked))


def jobs(releases: int, seed: int, masked: int) -> Iterator[Job]:
    """The programs as they are, then with each bug."""
    for name, setting in HONEST.items():
        runs = releases // setting.rounds
        yield Job(name, None, setting, 1.0, Verdict.WITHIN, runs, seed, masked)
    for place, case in enumerate(CASES):
        runs = releases // case.setting.rounds
        yield Job(case.bug.name, place, case.setting, case.ratio, case.verdict, runs, seed, 0)


def work(job: Job) -> Row:
    """Do one audit."""
    begun = time.monotonic()
    with nullcontext() if job.bug is None else CASES[job.bug].bug.planted():
        done = audit(job.setting, job.runs, job.seed, masked=job.masked)
    return Row(job, done, time.monotonic() - begun)
