"""Runs, one after the other or in several processes, told on standard error as they go."""

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from benchmarks.private_learning.cases import Case, Outcome
from benchmarks.private_learning.task import Task, learn


def run(task: Task, cases: Sequence[Case], workers: int) -> list[Outcome]:
    """What comes of each case, in their order."""
    if workers == 1:
        return [_learn(task, case) for case in cases]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(_learn, task), cases))


def _learn(task: Task, case: Case) -> Outcome:
    rounds = []
    for done in learn(task, case.recipe, case.aggregation):
        rounds.append(done)
        masked = "  unmasked sum bit-equal to the plain one" if done.masked else ""
        print(
            f"{case.label:>28} round {done.number:>2} {done.accuracy:6.1%} {done.seconds:5.1f} s{masked}",
            file=sys.stderr,
            flush=True,
        )
    return Outcome(case, tuple(rounds))
