"""What is learned, by which plan, and what it has to reach."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

from msgspec.structs import replace

from benchmarks.learning import hapt, mnist
from benchmarks.learning.examples import Examples, Fleet, joined
from benchmarks.learning.running import Curve
from models import watch
from protocol.plan import Model, Plan, Selection, Server, Stopping, Training

REFERENCE = "reference"
"""Our own earlier runs, one seed each, of another implementation."""


@dataclass(frozen=True)
class Accuracy:
    """The accuracy after a round has to be at least the reference's."""

    round: int
    reference: float
    source: str = REFERENCE

    @property
    def name(self) -> str:
        """Of the table's row."""
        return f"accuracy after {self.round} rounds"

    def values(self, curves: list[Curve]) -> list[float]:
        """Of each run."""
        return [curve.after(self.round) for curve in curves]

    def is_met(self, curves: list[Curve]) -> bool:
        """By the median of the runs."""
        return median(self.values(curves)) >= self.reference

    def text(self, value: float) -> str:
        """A value as the table writes it."""
        return f"{value:.1%}"


@dataclass(frozen=True)
class Rounds:
    """The rounds to an accuracy have to be at most the reference's."""

    target: float
    reference: float
    source: str = REFERENCE

    @property
    def name(self) -> str:
        """Of the table's row."""
        return f"rounds to {self.target:.0%}"

    def values(self, curves: list[Curve]) -> list[float]:
        """Of each run."""
        return [curve.rounds_to(self.target) for curve in curves]

    def is_met(self, curves: list[Curve]) -> bool:
        """By the median of the runs."""
        return median(self.values(curves)) <= self.reference

    def text(self, value: float) -> str:
        """A value as the table writes it."""
        return f"{value:.0f}"


Goal: TypeAlias = Accuracy | Rounds


@dataclass(frozen=True)
class Case:
    """One plan on one fleet.

    Attributes:
        label: of the table's rows and the picture's line.
        plan: as a user could write it.
        fleet: from a seed; only splits that are drawn depend on it.
        goals: what it has to reach.
        grid: local learning rates among which the plan's was chosen, by the first seed's goals.
    """

    label: str
    plan: Plan
    fleet: Callable[[int], Fleet]
    goals: tuple[Goal, ...]
    grid: tuple[float, ...] = ()

    def at(self, learning_rate: float) -> "Case":
        """The same with another local learning rate."""
        plan = replace(self.plan, training=replace(self.plan.training, learning_rate=learning_rate))
        return Case(f"{self.label}, rate {learning_rate:g}", plan, self.fleet, self.goals)


def watch_cases(_folder: Path) -> list[Case]:
    """The bundled data: a device for each person and arm, half of them in a round; and one a person, all.

    Ten people learn by the server momentum of the demo's plan, the others by plain averaging.
    """
    arms, people = watch_fleet("subject-side"), watch_fleet("subject")
    few, many = (_watch_plan(epochs, fraction=0.5, rounds=50) for epochs in (2, 5))
    demo = replace(_watch_plan(2, fraction=1.0, rounds=30), server=Server("fedavgm", momentum=0.5))
    # Published as 0.805, 0.867, 0.897 and 0.912 of the same 466 windows.
    right = {5: 375, 10: 404, 20: 418, 30: 425}
    return [
        Case("Watch, 20 devices, 2 epochs", few, lambda _: arms, (Accuracy(50, 0.848),)),
        Case("Watch, 20 devices, 5 epochs", many, lambda _: arms, (Accuracy(50, 0.862),)),
        Case(
            "Watch, 10 devices, 2 epochs, momentum 0.5",
            demo,
            lambda _: people,
            tuple(Accuracy(number, count / len(people.test)) for number, count in right.items()),
        ),
    ]


def hapt_cases(folder: Path) -> list[Case]:
    """Twenty-one people learn, nine others judge."""
    fleet = hapt.unseen_users(hapt.load(folder))
    sizes = {"channels": hapt.CHANNELS, "window": hapt.WINDOW, "classes": hapt.CLASSES}
    plan = Plan(
        Model("cnn1d", sizes),
        Training(local_epochs=2, batch_size=16, learning_rate=0.1),
        Selection(fraction=0.33, over_selection=1.0),
        stopping=Stopping(rounds=30),
    )
    return [Case("HAPT, 21 devices, 9 unseen people", plan, lambda _: fleet, (Accuracy(30, 0.853),))]


def iid_cases(folder: Path) -> list[Case]:
    """MNIST, shuffled."""
    data = mnist.load(folder).standardised()
    goals = (Rounds(0.97, 38), Rounds(0.97, 87, "McMahan et al."))
    plan = _mnist_plan(learning_rate=0.1, rounds=200)
    return [Case("MNIST 2NN, IID", plan, lambda seed: mnist.iid_fleet(data, 100, seed), goals, GRID)]


def shard_cases(folder: Path) -> list[Case]:
    """MNIST, two shards a device."""
    data = mnist.load(folder).standardised()
    goals = (Rounds(0.97, 623), Rounds(0.97, 664, "McMahan et al."))
    plan = _mnist_plan(learning_rate=0.1, rounds=1000)
    return [Case("MNIST 2NN, two shards", plan, lambda seed: mnist.shard_fleet(data, 100, seed), goals, GRID)]


GRID = (0.0215, 0.0464, 0.1, 0.215)
"""Three to a decade, as in the paper's section 3."""

CASES: dict[str, Callable[[Path], list[Case]]] = {
    "watch": watch_cases,
    "hapt": hapt_cases,
    "mnist-iid": iid_cases,
    "mnist-shards": shard_cases,
}
TITLES = {
    "watch": "Watch data, a device for each person and arm (20) or each person (10)",
    "hapt": "HAPT, judged by people who did not learn",
    "mnist-iid": "MNIST 2NN, 100 devices, ten in a round, IID",
    "mnist-shards": "MNIST 2NN, 100 devices, ten in a round, two shards each",
}


def watch_fleet(split: str) -> Fleet:
    """The natural splits of `models.watch`; the model is judged by everybody's last quarter."""
    devices = watch.load_watch("subject" if split == "subject" else "subject-side")
    return Fleet(
        tuple(Examples(device.x_train, device.y_train) for device in devices),
        joined([Examples(device.x_test, device.y_test) for device in devices]),
    )


def _watch_plan(epochs: int, *, fraction: float, rounds: int) -> Plan:
    sizes = {"channels": watch.CHANNELS, "window": watch.WINDOW, "classes": watch.CLASSES}
    return Plan(
        Model("cnn1d", sizes),
        Training(local_epochs=epochs, batch_size=16, learning_rate=0.1),
        Selection(fraction=fraction, over_selection=1.0),
        stopping=Stopping(rounds=rounds),
    )


def _mnist_plan(*, learning_rate: float, rounds: int) -> Plan:
    """A tenth of a hundred devices, batches of ten, one epoch."""
    return Plan(
        Model("mlp", {"features": 784, "classes": mnist.CLASSES}),
        Training(local_epochs=1, batch_size=10, learning_rate=learning_rate),
        Selection(fraction=0.1, over_selection=1.0),
        stopping=Stopping(rounds=rounds, target=0.97),
    )
