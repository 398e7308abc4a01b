"""The pace that the coordinator has told, kept on disk: when power returns, all start in one second."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from broker.transport import Delivery
from protocol.certificates import FleetTrust
from protocol.errors import PeerError
from protocol.frames import open_coordinator_frame
from protocol.ids import ORIGIN, Order
from protocol.messages import Pace
from protocol.pace import SHORTEST, Interval
from runtime.clock import Clock
from runtime.files import write_synced

FILE = "pace.json"

_log = structlog.get_logger(__name__)


class _Kept(Struct, frozen=True, forbid_unknown_fields=True):
    order: Order = ORIGIN
    interval: Interval = SHORTEST


class PaceKeeper:
    """Knows the newest pace.

    Args:
        trust: the fleet's root.
        clock: the time.
        folder: where it is written to.

    Attributes:
        on_change: called on the event loop when the interval has changed.
    """

    def __init__(self, trust: FleetTrust, clock: Clock, folder: Path) -> None:
        self._trust = trust
        self._clock = clock
        self._file = folder / FILE
        self._kept = self._recall()
        self._writing: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    @property
    def interval(self) -> float:
        """Seconds between this device's offers."""
        return self._kept.interval

    def frame_arrived(self, delivery: Delivery) -> None:
        """A frame on the topic of the pace; what is not valid, or of an older round, is dropped."""
        try:
            frame = open_coordinator_frame(delivery.payload, self._trust, self._clock.unix())
        except PeerError as error:
            _log.warning("refused", topic=delivery.topic, error=type(error).__name__, cause=str(error))
            return
        pace = frame.message
        # An older key could else name a generation beyond every later one.
        if not isinstance(pace, Pace) or pace.order.generation != frame.signer.generation:
            return
        if pace.order < self._kept.order or pace.interval == self._kept.interval:
            return
        self._kept = _Kept(pace.order, pace.interval)
        self._writing = asyncio.create_task(self._write(self._kept, self._writing))
        self.on_change()

    def _recall(self) -> _Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            _log.warning("pace_not_recalled", cause=str(error))
            return _Kept()

    async def _write(self, kept: _Kept, before: asyncio.Task[None] | None) -> None:
        """In order; a disk that refuses costs what a restart could have known, and no more."""
        if before is not None:
            await before
        try:
            await asyncio.to_thread(self._store, kept)
        except OSError as error:
            _log.warning("pace_not_kept", cause=str(error))

    def _store(self, kept: _Kept) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_synced(self._file, msgspec.json.encode(kept))
