"""One run of a plan: the product's model, engine, selection, clip, weights and server optimizer.

No broker and no masks: that their sum is the plain one, tests show elsewhere. Here it is taken in float64.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from random import Random

import numpy as np

from benchmarks.learning.averaging import averaging
from benchmarks.learning.examples import Fleet
from benchmarks.learning.workers import Workers
from coordinator.selection import Candidate, Choice, select
from models.artifact import build_bundle, initial_weights
from models.catalog import build_model
from models.engines import FitResult
from models.layout import Vector
from privacy.clipping import clip_l2
from protocol.ids import DeviceId
from protocol.plan import Plan

TOLD_EVERY = 10


@dataclass(frozen=True)
class Curve:
    """What came of a run.

    Attributes:
        seed: of the initial weights, of who is selected, and of every device's shuffling.
        accuracies: of the shared model after each round, 0 to 1.
    """

    seed: int
    accuracies: tuple[float, ...]

    def after(self, number: int) -> float:
        """The accuracy after a round, numbered from 1; NaN where the run ended before it."""
        return self.accuracies[number - 1] if number <= len(self.accuracies) else float("nan")

    def rounds_to(self, target: float) -> float:
        """Where the best accuracy so far crosses the target, between two rounds on a straight line.

        McMahan et al. 2017, section 3. Infinity if it never does.
        """
        best = np.maximum.accumulate(self.accuracies)
        reached = np.flatnonzero(best >= target)
        if not reached.size:
            return float("inf")
        after = int(reached[0])
        if after == 0:
            return 1.0
        return after + float((target - best[after - 1]) / (best[after] - best[after - 1]))


@dataclass(frozen=True)
class Run:
    """A plan on a fleet.

    Attributes:
        plan: its tables model, training, selection, secure_aggregation.clip, server and stopping.
        fleet: the devices.
        seed: see `Curve`.
    """

    plan: Plan
    fleet: Fleet
    seed: int

    def curve(self, label: str, engine: str, processes: int) -> Curve:
        """Learn until the plan's rounds are over or its target is reached; tell it on standard error."""
        accuracies: list[float] = []
        for accuracy in self._accuracies(engine, processes):
            accuracies.append(accuracy)
            if len(accuracies) % TOLD_EVERY == 0:
                said = f"{label}, seed {self.seed}: round {len(accuracies)} {accuracy:.1%}"
                print(said, file=sys.stderr, flush=True)
            if self.plan.stopping.target is not None and accuracy >= self.plan.stopping.target:
                break
        return Curve(self.seed, tuple(accuracies))

    def _accuracies(self, engine: str, processes: int) -> Iterator[float]:
        plan = self.plan
        model = build_model(plan.model.catalog or "", plan.model.parameters, self.seed)
        bundle = build_bundle(model, plan.training)
        with Workers(bundle, self.fleet, engine, processes) as workers:

            def mean_update(weights: Vector, number: int) -> Vector:
                members = self._members(number)
                seeds = [self._number(f"{number}/{member}") for member in members]
                return self._mean(weights, workers.train(weights, members, plan.training, seeds))

            for weights in averaging(plan.server, initial_weights(model), mean_update, plan.stopping.rounds):
                yield workers.accuracy(weights)

    def _members(self, number: int) -> list[int]:
        names = {DeviceId(f"d{index:04}"): index for index in range(len(self.fleet.clients))}
        chance = Random(self._number(f"{number}/selection")).random
        choice = select([Candidate(name) for name in names], self.plan.selection, chance)
        if not isinstance(choice, Choice):
            raise SystemExit(choice.reason)
        return [names[name] for name in choice.invited]

    def _mean(self, weights: Vector, results: list[FitResult]) -> Vector:
        """Clipped updates, weighted by examples up to the cap."""
        clip, cap = self.plan.secure_aggregation.clip, self.plan.training.max_examples
        parts = [min(result.examples, cap) for result in results]
        updates = [clip_l2(result.weights - weights, clip)[0] for result in results]
        mean: Vector = np.average(updates, axis=0, weights=np.array(parts, np.float64)).astype(np.float32)
        return mean

    def _number(self, label: str) -> int:
        """A seed of its own for each use."""
        return int.from_bytes(sha256(f"{self.seed}/{label}".encode()).digest()[:8])
