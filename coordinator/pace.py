"""Tells devices how often to offer themselves, by how many there are."""

from collections.abc import Callable

import structlog

from broker.transport import Delivery, TransportError
from coordinator.fleet import Fleet
from coordinator.rounds import Desk
from protocol.certificates import FleetTrust
from protocol.errors import PeerError
from protocol.frames import open_coordinator_frame, seal_frame
from protocol.ids import Order
from protocol.messages import Pace
from protocol.pace import steered

LOOK_AGAIN = 5.0
"""Seconds between looks at the fleet: in so many a storm of new devices is noticed."""

_log = structlog.get_logger(__name__)


class PaceSetter:
    """Keeps the retained pace right.

    Args:
        desk: what the coordinator acts with.
        trust: the fleet's root.
    """

    def __init__(self, desk: Desk, trust: FleetTrust) -> None:
        self._desk = desk
        self._trust = trust
        self._said = False
        self._since = desk.clock.now()

    @property
    def _fleet(self) -> Fleet:
        return self._desk.fleet

    def frame_arrived(self, delivery: Delivery) -> None:
        """What an earlier coordinator has told devices: they go by it until this one says another."""
        if self._said:
            return  # it is our own
        try:
            frame = open_coordinator_frame(delivery.payload, self._trust, self._desk.clock.unix())
        except PeerError as error:
            _log.warning("refused", topic=delivery.topic, error=type(error).__name__, cause=str(error))
            return
        if isinstance(frame.message, Pace):
            self._fleet.interval = frame.message.interval

    async def keep(self, order: Callable[[], Order]) -> None:
        """Look at the fleet again and again, once `set` was called.

        Args:
            order: the newest round.
        """
        while True:
            await self._desk.clock.sleep(LOOK_AGAIN)
            if self._said:
                await self.set(order())

    async def set(self, order: Order) -> None:
        """Tell devices the pace, for the first time or when it changes."""
        now, devices = self._desk.clock.now(), self._fleet.heard_lately()
        interval = steered(self._fleet.interval, devices, now - self._since)
        if self._said and interval == self._fleet.interval:
            return
        self._said, self._since, self._fleet.interval = True, now, interval
        _log.info("pace", interval=round(interval), devices=devices)
        frame = seal_frame(self._desk.signer, Pace(order, interval))
        try:
            await self._desk.transport.publish(self._desk.topics.pace, frame, retain=True)
        except TransportError as error:
            # The transport publishes it again with the next connection.
            _log.warning("not_sent", message="Pace", cause=str(error))
