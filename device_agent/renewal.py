"""Renewing the device's certificate before it expires, by itself."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from broker.transport import Delivery, Transport, TransportError
from protocol.certificates import FleetTrust
from protocol.enrolment import EnrolmentRefused, EnrolmentRequest, check_enrolled, write_csr
from protocol.errors import PeerError
from protocol.frames import open_registrar_frame, seal_frame
from protocol.topics import Topics
from runtime.clock import Clock, happens
from runtime.entropy import Entropy
from runtime.identity import Identity, load_tls_certificate, write_certificate

DUE_SHARE = 1 / 3
DUE_SECONDS = 120 * 86_400.0
"""A certificate is renewed when less than this part of its life, and less than that, is left. Its life counts
from the enrolment, also after a renewal. Asked too early, a registrar gives nothing new."""

CHECK_INTERVAL = 86_400.0
"""Seconds between looks at the date, and between tries, give or take a quarter."""

ANSWER_PATIENCE = 30.0
"""Seconds that one try waits for the registrar."""

_log = structlog.get_logger(__name__)


class Renewal:
    """Looks after the certificate of one device. Use it as a context; its work goes on inside.

    Args:
        identity: whose certificate; changed in place.
        trust: whom the device believes.
        topics: of its fleet.
        transport: the bus; need not be connected yet.
        clock: time.
        entropy: jitter, so that a fleet that joined on one day does not ask in one hour.
        renewed: called after the certificate was changed: writes it down, and has new connections show it.
    """

    def __init__(
        self,
        identity: Identity,
        trust: FleetTrust,
        topics: Topics,
        transport: Transport,
        *,
        clock: Clock,
        entropy: Entropy,
        renewed: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._trust = trust
        self._topics = topics
        self._transport = transport
        self._clock = clock
        self._entropy = entropy
        self._renewed = renewed
        self._answered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begins, where a registrar issued the certificate; the root's are renewed by people."""
        if self._identity.registrar is not None:
            topic = self._topics.enrolment_answer(self._identity.name)
            await self._transport.subscribe(topic, self._answer_arrived)
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            if self._due():
                await self._ask()
            await self._clock.sleep(CHECK_INTERVAL * (0.75 + 0.5 * self._entropy.uniform()))

    def _due(self) -> bool:
        own = self._trust.read(self._identity.certificate)
        left = own.not_after - self._clock.unix()
        return left < min(DUE_SECONDS, DUE_SHARE * (own.not_after - own.not_before))

    async def _ask(self) -> None:
        identity = self._identity
        request = EnrolmentRequest(write_csr(identity.name, identity.private_key))
        self._answered.clear()
        try:
            await self._transport.publish(
                self._topics.enrolment_request(identity.name), seal_frame(identity, request)
            )
        except TransportError as error:
            _log.warning("not_renewed", cause=str(error))
            return
        if not await happens(self._answered, ANSWER_PATIENCE, self._clock):
            _log.warning("not_renewed", cause="no answer; is the registrar running?")

    def _answer_arrived(self, delivery: Delivery) -> None:
        try:
            self._read(delivery.payload)
        except PeerError as error:
            _log.warning("refused", cause=str(error))
        except OSError as error:
            _log.error("not_renewed", cause=f"the certificate cannot be written: {error.strerror}")

    def _read(self, payload: bytes) -> None:
        """Take a newer certificate over: what is not newer is an answer, too, and changes nothing."""
        identity, now = self._identity, self._clock.unix()
        answer = open_registrar_frame(payload, self._trust, now).message
        if isinstance(answer, EnrolmentRefused):
            _log.error("not_renewed", cause=f"the registrar refused: {answer.reason}")
            return
        key = identity.private_key.public_key().public_bytes_raw()
        offered = check_enrolled(answer, self._trust, name=identity.name, public_key=key, now=now)
        self._answered.set()
        if offered.not_after > self._trust.read(identity.certificate).not_after:
            before = identity.certificate, identity.registrar
            identity.certificate, identity.registrar = answer.certificate, answer.registrar
            try:
                self._renewed()
            except OSError:
                # Tomorrow again: connections show what is on disk.
                identity.certificate, identity.registrar = before
                raise
            _log.info("renewed", days=round((offered.not_after - now) / 86_400))


def keep_renewed(identity: Identity, folder: Path, tls: ssl.SSLContext | None) -> Callable[[], None]:
    """What to do with a renewed certificate: write it down, and show it from the next connection on."""

    def renewed() -> None:
        write_certificate(folder, identity)
        if tls is not None:
            load_tls_certificate(tls, identity)

    return renewed
