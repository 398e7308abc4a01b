"""The newest revocation list: heard on the bus, kept on disk, told to whoever must act on it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog

from broker.transport import Delivery
from protocol.certificates import FleetTrust
from protocol.errors import PeerError
from protocol.revocations import RevocationList
from runtime.clock import Clock
from runtime.files import write_synced

FILE = "revocations"

SHORT = 65_536
"""Bytes of a list that is read at once, in two milliseconds: 1,600 entries."""

MAX_WAITING = 8
"""Lists that wait to be read: a megabyte each; a registrar publishes one a second at most."""

_log = structlog.get_logger(__name__)


class RevocationKeeper:
    """Keeps a program's trust up to date.

    What was heard is written down, so that a broker that plays an older list to a program that was restarted
    is found out.

    Args:
        trust: is told of every list.
        clock: the time.
        folder: where the newest is written to.

    Attributes:
        on_newer: called on the event loop after the trust has taken a newer list.
    """

    def __init__(self, trust: FleetTrust, clock: Clock, folder: Path) -> None:
        self._trust = trust
        self._clock = clock
        self._file = folder / FILE
        self._reading: asyncio.Task[None] | None = None
        self._waiting = 0
        self._writing: asyncio.Task[None] | None = None
        self.on_newer: Callable[[], None] = lambda: None

    def recall(self, others: Iterable[Path] = ()) -> None:
        """Read what was written down, here and in other folders, blocking; the newest counts."""
        for file in (self._file, *(folder / FILE for folder in others)):
            try:
                self._trust.heed(file.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, PeerError) as error:
                _log.warning("list_not_recalled", file=str(file), cause=str(error))

    def message_arrived(self, delivery: Delivery) -> None:
        """What was published as the registrar's list. A short one is in force when this returns."""
        if not self._waiting and len(delivery.payload) <= SHORT:
            with self._refusing(delivery):
                self._take(self._trust.read_list(delivery.payload))
        elif self._waiting < MAX_WAITING:
            self._waiting += 1
            self._reading = asyncio.create_task(self._read(delivery, self._reading))
        else:
            _log.warning("refused", topic=delivery.topic, cause="too many revocation lists at once")

    async def _read(self, delivery: Delivery, before: asyncio.Task[None] | None) -> None:
        """In a thread, as a long list would stop the loop for tens of milliseconds; one after the other."""
        if before is not None:
            await before
        try:
            with self._refusing(delivery):
                self._take(await asyncio.to_thread(self._trust.read_list, delivery.payload))
        finally:
            self._waiting -= 1

    @contextlib.contextmanager
    def _refusing(self, delivery: Delivery) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            _log.warning("refused", topic=delivery.topic, error=type(error).__name__, cause=str(error))

    def _take(self, offered: RevocationList) -> None:
        if self._trust.take_list(offered):
            _log.info("revocation_list", number=offered.sequence)
            self._writing = asyncio.create_task(self._write(offered.message, self._writing))
            self.on_newer()

    async def _write(self, message: bytes, before: asyncio.Task[None] | None) -> None:
        """In order; a disk that refuses costs what a restart could have known, and no more."""
        if before is not None:
            await before
        try:
            await asyncio.to_thread(self._store, message)
        except OSError as error:
            _log.warning("list_not_kept", cause=str(error))

    def _store(self, message: bytes) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_synced(self._file, message)
