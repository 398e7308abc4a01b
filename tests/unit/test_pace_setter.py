"""The coordinator tells devices the pace: when it starts, and when the fleet has grown or shrunk enough."""

from types import SimpleNamespace
from typing import cast

from hand_clock import HandClock
from virtual_fleet import NOW, VirtualFleet

from broker.memory import MemoryBroker
from broker.transport import Delivery
from coordinator.fleet import Fleet
from coordinator.pace import LOOK_AGAIN, PaceSetter
from coordinator.rounds import Desk
from protocol.frames import open_coordinator_frame, seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import Pace
from protocol.topics import Topics

TOPICS, ORDER = Topics("test"), Order(1, 1, 4)


class Clock(HandClock):
    def unix(self) -> UnixTime:
        return NOW


class CountedFleet(Fleet):
    """A fleet of which the test says how large it is."""

    heard = 0

    def heard_lately(self) -> int:
        return self.heard


class Office:
    """What a pace setter acts with, and what devices hear."""

    def __init__(self) -> None:
        self.virtual = VirtualFleet(3)
        self.clock = Clock()
        self.fleet = CountedFleet(self.virtual.trust, self.clock)
        self.transport = MemoryBroker().connect("coordinator")
        self.heard: list[Pace] = []
        desk = SimpleNamespace(
            signer=self.virtual.coordinator_identity,
            topics=TOPICS,
            transport=self.transport,
            fleet=self.fleet,
            clock=self.clock,
        )
        self.setter = PaceSetter(cast("Desk", desk), self.virtual.trust)

    def hear(self, delivery: Delivery) -> None:
        message = open_coordinator_frame(delivery.payload, self.virtual.trust, NOW).message
        assert isinstance(message, Pace)
        self.heard.append(message)

    async def sees(self, devices: int, after: float = LOOK_AGAIN) -> list[float]:
        """Look at a fleet of this size; all intervals that were told so far."""
        await self.clock.pass_time(after)
        self.fleet.heard = devices
        await self.setter.set(ORDER)
        await self.clock.pass_time(0.0)
        return [pace.interval for pace in self.heard]


async def test_the_pace_is_told_once_and_again_when_it_is_off_by_more_than_a_quarter() -> None:
    office = Office()
    async with office.transport:
        await office.transport.subscribe(TOPICS.pace, office.hear)
        assert await office.sees(0) == [60.0]
        assert await office.sees(7000) == [60.0]
        assert await office.sees(12_000) == [60.0, 120.0]
        assert await office.sees(14_000) == [60.0, 120.0]
        assert office.fleet.interval == 120.0
        assert await office.sees(10, after=230.0) == [60.0, 120.0]
        assert await office.sees(10, after=10.0) == [60.0, 120.0, 60.0]
        assert {pace.order for pace in office.heard} == {ORDER}


async def test_a_coordinator_that_starts_goes_on_with_the_pace_that_devices_know() -> None:
    office = Office()
    told = seal_frame(office.virtual.coordinator_identity, Pace(Order(1, 1, 3), 1000.0))
    office.setter.frame_arrived(Delivery(TOPICS.pace, told, retained=True))
    async with office.transport:
        await office.transport.subscribe(TOPICS.pace, office.hear)
        assert await office.sees(3) == [1000.0]  # it has not heard of most
        assert await office.sees(3, after=1900.0) == [1000.0]
        assert await office.sees(3, after=100.0) == [1000.0, 60.0]


def test_what_is_no_pace_of_a_coordinator_is_not_believed() -> None:
    office = Office()
    forged = seal_frame(office.virtual.devices[DeviceId("d001")].identity, Pace(ORDER, 3600.0))
    for payload in (b"noise", forged):
        office.setter.frame_arrived(Delivery(TOPICS.pace, payload, retained=True))
    assert office.fleet.interval == 60.0
