"""How far any coordinator has come: the highest mark of those that may say so."""

from hand_clock import HandClock
from virtual_fleet import NOW, VirtualFleet

from broker.transport import Delivery
from coordinator.high_water import HighWaterMark, beyond
from protocol.certificates import Role
from protocol.frames import seal_frame
from protocol.ids import ORIGIN, Order, UnixTime
from protocol.messages import HighWater, RoundEnded
from registrar.authority import FleetAuthority

TOPIC = "flw/1/test/coordinator/high-water"


class Clock(HandClock):
    def unix(self) -> UnixTime:
        return NOW


class Marks:
    """What a coordinator of generation 1 reads."""

    def __init__(self) -> None:
        self.fleet = VirtualFleet(3)
        self.marks = HighWaterMark(self.fleet.trust, Clock())
        self.rises: list[HighWater] = []
        self.marks.on_rise = self.rises.append

    def hear(self, payload: bytes) -> None:
        self.marks.frame_arrived(Delivery(TOPIC, payload, retained=True))

    def mark(self, order: Order, decisions: int) -> None:
        self.hear(seal_frame(self.fleet.coordinator_identity, HighWater(order, decisions)))


def test_only_a_higher_mark_is_news() -> None:
    reader = Marks()
    assert (reader.marks.newest.order, reader.marks.arrived.is_set()) == (ORIGIN, False)
    for order, decisions in [
        (Order(1, 1, 3), 2),
        (Order(1, 1, 3), 2),
        (Order(1, 1, 3), 1),
        (Order(1, 1, 2), 9),
        (Order(1, 1, 3), 3),
        (Order(1, 2, 1), 0),
    ]:
        reader.mark(order, decisions)
    assert reader.marks.arrived.is_set()
    assert [(rise.order, rise.decisions) for rise in reader.rises] == [
        (Order(1, 1, 3), 2),
        (Order(1, 1, 3), 3),
        (Order(1, 2, 1), 0),
    ]


def test_a_mark_of_another_generation_than_its_signers_says_nothing() -> None:
    reader = Marks()
    reader.mark(Order(2, 1, 1), 0)
    reader.mark(Order(2**32 - 1, 2**53 - 1, 1), 0)
    assert reader.marks.newest.order == ORIGIN
    assert not reader.marks.arrived.is_set()


def test_devices_strangers_and_nonsense_leave_no_mark() -> None:
    reader = Marks()
    device = reader.fleet.authority.issue("d009", Role.DEVICE)
    other = FleetAuthority.create("test", UnixTime(NOW - 1000), reader.fleet.entropy.bytes)
    stranger = other.issue("coordinator", Role.COORDINATOR, generation=1)
    for payload in (
        seal_frame(device, HighWater(Order(1, 9, 9), 0)),
        seal_frame(stranger, HighWater(Order(1, 9, 9), 0)),
        seal_frame(reader.fleet.coordinator_identity, RoundEnded(Order(1, 9, 9), "aborted", "", 0.0)),
        b"",
        b"nonsense",
    ):
        reader.hear(payload)
    assert reader.marks.newest.order == ORIGIN
    assert reader.rises == []


def test_further_is_a_later_round_or_more_decided_in_it() -> None:
    here = HighWater(Order(1, 1, 3), 2)
    assert beyond(HighWater(Order(1, 1, 4), 0), here)
    assert beyond(HighWater(Order(1, 1, 3), 3), here)
    assert not beyond(here, here)
    assert not beyond(HighWater(Order(1, 1, 2), 9), here)
