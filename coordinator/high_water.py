"""How far any coordinator of this fleet has come, by the signed mark that is kept on the broker.

State that was rolled back does not know it. The mark does, and so do the devices, which tell the newest round
that they entered: a coordinator asks both before it opens or resumes a round.
"""

import asyncio
from collections.abc import Callable

import structlog

from broker.transport import Delivery
from protocol.certificates import FleetTrust
from protocol.errors import PeerError
from protocol.frames import open_coordinator_frame
from protocol.ids import ORIGIN
from protocol.messages import HighWater
from runtime.clock import Clock

_log = structlog.get_logger(__name__)


class HighWaterMark:
    """The highest mark seen.

    Args:
        trust: the fleet's root.
        clock: time.

    Attributes:
        newest: the highest so far; of the origin before the first.
        arrived: set once there was one.
        on_rise: told of every higher one.
    """

    def __init__(self, trust: FleetTrust, clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self.newest = HighWater(ORIGIN, 0)
        self.arrived = asyncio.Event()
        self.on_rise: Callable[[HighWater], None] = lambda _mark: None

    def frame_arrived(self, delivery: Delivery) -> None:
        """A frame on the topic of the mark; what is not valid is dropped."""
        try:
            frame = open_coordinator_frame(delivery.payload, self._trust, self._clock.unix())
        except PeerError as error:
            _log.warning("refused", topic=delivery.topic, error=type(error).__name__, cause=str(error))
            return
        mark = frame.message
        # An older key could else name a generation beyond every later one.
        if not isinstance(mark, HighWater) or mark.order.generation != frame.signer.generation:
            return
        self.arrived.set()
        if beyond(mark, self.newest):
            self.newest = mark
            self.on_rise(mark)


def beyond(mark: HighWater, other: HighWater) -> bool:
    """Whether a coordinator that left `mark` has come further than one at `other`."""
    return (mark.order, mark.decisions) > (other.order, other.decisions)
