"""Runs, one after the other or in several processes, told on standard error as they go."""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.private_learning.cases import Case, Outcome
from benchmarks.private_learning.task import Task, learn


def run(task: Task, cases: Sequence[Case], workers: int, file: Path | None) -> list[Outcome]:
    """What comes of each case, in their order; each is appended to the file, if there is one, as it ends."""
    if workers == 1:
        return [_learn(task, file, case) for case in cases]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(_learn, task, file), cases))


def _learn(task: Task, file: Path | None, case: Case) -> Outcome:
    rounds = []
    for done in learn(task, case.recipe, case.aggregation):
        rounds.append(done)
        masked = "  unmasked sum bit-equal to the plain one" if done.masked else ""
        print(
            f"{case.label:>28} round {done.number:>2} {done.accuracy:6.1%} {done.seconds:5.1f} s{masked}",
            file=sys.stderr,
            flush=True,
        )
    outcome = Outcome(case, tuple(rounds))
    if file is not None:
        with file.open("a", encoding="ascii") as lines:
            lines.write(json.dumps(outcome.row()) + "\n")
    return outcome
