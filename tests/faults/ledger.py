"""All that was said for machines on a broker, and what must hold of it whatever was killed.

The ledger hears everything, the books are what the coordinator has on disk. Together they tell whether a
decision was taken twice, an acknowledged update was lost, or a sum is not that of its survivors.
"""

import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
from faults.known_training import known_mean
from numpy.typing import NDArray

from broker.transport import Delivery
from coordinator.model_store import RESULTS_FILE
from coordinator.state import JOURNAL_FILE
from coordinator.stored import Model
from protocol.frames import Frame
from protocol.ids import Order
from protocol.messages import Extension, Manifest, Message, Stored, SurvivorSet, decode_from_coordinator
from protocol.status import RoundResult

TOLERANCE = 1e-5
"""Of a sum of vectors of norm 1: quantising at 32 bits and float32 weights stay far below."""


@dataclass
class Ledger:
    """What was heard, by round."""

    manifests: dict[Order, set[Manifest]] = field(default_factory=lambda: defaultdict(set))
    decisions: dict[Order, dict[type[Message], set[bytes]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    survivors: dict[Order, frozenset[str]] = field(default_factory=dict)
    stored: dict[Order, set[str]] = field(default_factory=lambda: defaultdict(set))
    models: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)

    def take(self, delivery: Delivery) -> None:
        """One message; what was only taken back says nothing."""
        if not delivery.payload:
            return
        match delivery.topic.split("/")[3:]:
            case ["devices", device, "inbox"]:
                self._told(device, message_of(delivery.payload))
            case ["rounds", _, _]:
                self._decided(delivery.payload)
            case ["blobs", digest, "0"] if sha256(delivery.payload).hexdigest() == digest:
                # A model of the tiny plan is one chunk; the artifact is no vector and is never asked for.
                self.models[bytes.fromhex(digest)] = np.frombuffer(
                    delivery.payload, "<f4", len(delivery.payload) // 4
                )

    def _told(self, device: str, message: Message) -> None:
        match message:
            case Manifest(order=order):
                self.manifests[order].add(message)
            case Stored(order=order):
                self.stored[order].add(device)

    def _decided(self, frame: bytes) -> None:
        message = message_of(frame)
        order = getattr(message, "order")  # noqa: B009 - every decision has one, the base class has not
        self.decisions[order][type(message)].add(frame)
        if isinstance(message, SurvivorSet):
            self.survivors[order] = frozenset(message.members)

    def not_in(self, books: "Books") -> list[str]:
        """What was announced of the newest round, or of one that the books do not know, and is not stored."""
        return [
            f"{kind.__name__} of {order} was announced and is not stored"
            for order, kinds in self.decisions.items()
            if order >= books.newest
            for kind, frames in kinds.items()
            if frames - books.decisions
        ]


def message_of(frame: bytes) -> Message:
    """What a coordinator's frame says."""
    return decode_from_coordinator(msgspec.msgpack.decode(frame, type=Frame).body)


@dataclass(frozen=True)
class Books:
    """What a coordinator that does not run has stored.

    Attributes:
        results: of every round that is over; None of an open one.
        decisions: frames of the newest round.
        models: the weights of every model that is still there, by their hash.
        written: the lines of the results file.
    """

    results: dict[Order, RoundResult | None]
    decisions: frozenset[bytes]
    models: dict[bytes, NDArray[np.float32]]
    written: tuple[RoundResult, ...]

    @property
    def newest(self) -> Order:
        """The newest round."""
        return max(self.results, default=Order(0, 0, 0))

    @classmethod
    def read(cls, state: Path) -> "Books":
        """Look at a copy, because SQLite recovers what it opens."""
        with tempfile.TemporaryDirectory() as folder:
            for file in state.glob(f"{JOURNAL_FILE}*"):
                shutil.copyfile(file, Path(folder) / file.name)
            with closing(sqlite3.connect(Path(folder) / JOURNAL_FILE)) as journal:
                results, decisions = _read_journal(journal)
        kept = [
            msgspec.msgpack.decode(file.read_bytes(), type=Model)
            for file in state.glob("models/*")
            if not file.name.startswith(".")
        ]
        models = {sha256(model.weights).digest(): model.vector for model in kept}
        lines = (state / RESULTS_FILE).read_bytes().splitlines() if (state / RESULTS_FILE).exists() else []
        return cls(results, decisions, models, tuple(map(_result, lines)))


def _read_journal(
    journal: sqlite3.Connection,
) -> tuple[dict[Order, RoundResult | None], frozenset[bytes]]:
    with suppress(sqlite3.OperationalError):  # the first start may have come to no table
        rounds = journal.execute("SELECT generation, epoch, number, result FROM rounds ORDER BY number")
        results = {Order(*order): result and _result(result) for *order, result in rounds}
        return results, frozenset(frame for (frame,) in journal.execute("SELECT frame FROM decisions"))
    return {}, frozenset()


def _result(line: bytes | str) -> RoundResult:
    return msgspec.json.decode(line, type=RoundResult)


@dataclass(frozen=True)
class Verdict:
    """What the books and the ledger come to.

    Attributes:
        wrong: a sentence for everything that must not be.
        committed: rounds.
        aborted: rounds.
        checked: committed rounds whose sum was compared with what its survivors sent; of another the
            models or the survivors were never heard.
    """

    wrong: tuple[str, ...]
    committed: int
    aborted: int
    checked: int


def judge(ledger: Ledger, books: Books) -> Verdict:
    """Hold everything against everything; call it when the coordinator has ended."""
    over = {order: result for order, result in books.results.items() if result is not None}
    committed = {order: result for order, result in over.items() if result.result == "committed"}
    sums = {order: _sum_is_right(ledger, books, order, result) for order, result in committed.items()}
    wrong = [*_second_thoughts(ledger), *_lost(ledger, books), *_badly_kept(books)]
    wrong += [
        f"the sum of {order} is not that of its survivors" for order, right in sums.items() if right is False
    ]
    checked = sum(right is not None for right in sums.values())
    return Verdict(tuple(wrong), len(committed), len(over) - len(committed), checked)


def _second_thoughts(ledger: Ledger) -> Iterator[str]:
    """A round has one manifest and one of each decision, but as many extensions as breaks."""
    for order, manifests in ledger.manifests.items():
        if len(manifests) > 1:
            yield f"{order} has {len(manifests)} manifests"
    for order, kinds in ledger.decisions.items():
        for kind, frames in kinds.items():
            if len(frames) > 1 and kind is not Extension:
                yield f"{order} has {len(frames)} decisions {kind.__name__}"


def _lost(ledger: Ledger, books: Books) -> Iterator[str]:
    """What was acknowledged is in the sum, where there is one."""
    for order, devices in ledger.stored.items():
        survivors = ledger.survivors.get(order)
        if survivors is not None and devices - survivors:
            yield f"{order} lost the stored updates of {sorted(devices - survivors)}"
        if order not in books.results:
            yield f"{order} acknowledged updates and is not known any more"


def _badly_kept(books: Books) -> Iterator[str]:
    over = [result for result in books.results.values() if result is not None]
    if list(books.written) != over:
        yield "the results file is not what the state says"
    for order, result in books.results.items():
        if result is None:
            yield f"{order} is still open"
        elif result.result == "aborted" and not result.reason:
            yield f"{order} was aborted without a reason"


def _sum_is_right(ledger: Ledger, books: Books, order: Order, result: RoundResult) -> bool | None:
    """None when it was not heard from where to where the round has moved, or who survived."""
    models = ledger.models | books.models
    after = models.get(bytes.fromhex(result.model.removeprefix("sha256:")))
    before = next((models.get(manifest.weights.sha256) for manifest in ledger.manifests[order]), None)
    survivors = ledger.survivors.get(order)
    if before is None or after is None or survivors is None:
        return None
    expected = known_mean(survivors, order, before.size)
    return len(survivors) == result.survivors and bool(np.allclose(after - before, expected, atol=TOLERANCE))
