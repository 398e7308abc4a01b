"""That the ledger sees what must not be: a round is made up, right at first, then with one thing wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

import msgspec
import numpy as np
import pytest
from faults.known_training import known_mean
from faults.ledger import Books, Ledger, judge
from virtual_fleet import NOW, manifest_for

from broker.transport import Delivery
from protocol.certificates import Role
from protocol.frames import seal_frame
from protocol.ids import DeviceId, Order
from protocol.messages import Extension, Message, Stored, SurvivorSet
from protocol.status import RoundResult
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.entropy import SeededEntropy

SIZE = 6
ORDER = Order(1, 1, 1)
T2 = bytes(32)
TOPICS = Topics("test")
SIGNER = FleetAuthority.create("test", NOW, SeededEntropy(1).bytes).issue("coordinator", Role.COORDINATOR, 1)


@dataclass
class MadeUp:
    """One committed round of p1, p2 and p3."""

    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        before = np.zeros(SIZE, "<f4")
        after = known_mean(["p1", "p2", "p3"], ORDER, SIZE).astype("<f4")
        self.hear(TOPICS.blob_chunk(sha256(before.tobytes()).digest(), 0), before.tobytes())
        self.tell("p1", manifest_for(SIZE, members=3, order=ORDER))
        for device in ("p1", "p2", "p3"):
            self.tell(device, Stored(ORDER, bytes(32)))
        self.decide(SurvivorSet(ORDER, T2, ("p1", "p2", "p3")))
        self.keep(after.tobytes())

    def hear(self, topic: str, payload: bytes) -> None:
        self.ledger.take(Delivery(topic, payload, retained=False))

    def tell(self, device: str, message: Message) -> None:
        self.hear(TOPICS.inbox(DeviceId(device)), seal_frame(SIGNER, message))

    def decide(self, message: Message) -> bytes:
        frame = seal_frame(SIGNER, message)
        self.hear(TOPICS.decision(ORDER, "any"), frame)
        return frame

    def keep(self, model: bytes) -> None:
        digest = sha256(model).digest()
        result = RoundResult(1, "committed", survivors=3, model=f"sha256:{digest.hex()}")
        decisions = self.ledger.decisions[ORDER][SurvivorSet]
        vector = np.frombuffer(model, "<f4")
        self.books = Books({ORDER: result}, frozenset(decisions), {digest: vector}, (result,))


def test_a_right_round_is_found_right() -> None:
    made = MadeUp()
    made.decide(Extension(ORDER, T2, 1.0))
    made.decide(Extension(ORDER, T2, 2.0))  # of a second break
    verdict = judge(made.ledger, made.books)
    assert (verdict.wrong, verdict.committed, verdict.checked) == ((), 1, 1)


def another_survivor_set(made: MadeUp) -> None:
    made.decide(SurvivorSet(ORDER, T2, ("p1", "p2")))


def another_manifest(made: MadeUp) -> None:
    made.tell("p2", msgspec.structs.replace(manifest_for(SIZE, members=3, order=ORDER), shard="other"))


def a_forgotten_update(made: MadeUp) -> None:
    made.tell("p4", Stored(ORDER, bytes(32)))


def a_forgotten_round(made: MadeUp) -> None:
    made.tell("p1", Stored(Order(1, 1, 2), bytes(32)))


def an_update_counted_twice(made: MadeUp) -> None:
    made.keep(known_mean(["p1", "p2", "p3", "p3"], ORDER, SIZE).astype("<f4").tobytes())


def a_result_that_was_not_written(made: MadeUp) -> None:
    made.books = replace(made.books, written=())


def an_open_round(made: MadeUp) -> None:
    made.books = replace(made.books, results=made.books.results | {Order(1, 1, 2): None})


def an_abort_without_a_reason(made: MadeUp) -> None:
    results = [*made.books.results.values(), RoundResult(2, "aborted")]
    orders = (ORDER, Order(1, 1, 2))
    written = tuple(result for result in results if result is not None)
    made.books = replace(made.books, results=dict(zip(orders, results, strict=True)), written=written)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (another_survivor_set, "has 2 decisions SurvivorSet"),
        (another_manifest, "has 2 manifests"),
        (a_forgotten_update, "lost the stored updates of ['p4']"),
        (a_forgotten_round, "acknowledged updates and is not known any more"),
        (an_update_counted_twice, "is not that of its survivors"),
        (a_result_that_was_not_written, "the results file is not what the state says"),
        (an_open_round, "is still open"),
        (an_abort_without_a_reason, "was aborted without a reason"),
    ],
)
def test_a_wrong_round_is_found_wrong(spoil: Callable[[MadeUp], None], sentence: str) -> None:
    made = MadeUp()
    spoil(made)
    assert any(sentence in found for found in judge(made.ledger, made.books).wrong)


def test_what_is_announced_must_be_stored() -> None:
    made = MadeUp()
    assert made.ledger.not_in(made.books) == []
    made.decide(Extension(ORDER, T2, 1.0))
    assert made.ledger.not_in(made.books) == ["Extension of 1.1.1 was announced and is not stored"]
