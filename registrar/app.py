"""The registrar program: answers who asks for a certificate, and tells everybody what was taken back."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.mqtt import MqttSettings
from broker.takeover import take_over
from broker.transport import Delivery, Transport, TransportError
from protocol.certificates import Role
from protocol.enrolment import MAX_REQUEST
from protocol.errors import PeerError
from protocol.frames import open_enrolment_request, seal_frame
from protocol.ids import Seconds
from protocol.revocations import RevocationList
from protocol.status import BrokerStatus, decode_status
from protocol.topics import Topics
from registrar.office import DAY, Office
from registrar.running import running
from registrar.settings import RegistrarSettings
from registrar.store import DeviceRecord, RegistrarStore
from runtime.bus import connect_mqtt
from runtime.clock import Clock, SystemClock, happens
from runtime.entropy import SystemEntropy
from runtime.files import write_synced
from runtime.identity import load_identity, passing_tls
from runtime.signals import run_until, stop_event
from runtime.watchdog import watched

CRL_FILE = "revoked.crl"
ROOT_CRL_FILE = "root.crl"

POLL = 0.2
"""Seconds between looks at the store: how soon a revocation by command is seen."""

GUARD_PATIENCE = 1.0
"""Seconds for a broker's guard to have the broker go by a new list, before sessions are ended anyway."""

RETRY = 10.0
"""Seconds between two tries to end a session."""

MAX_TURNED_BACK = 10.0
"""Seconds that a list waits for a clock that was turned back."""

HELD = 120.0
"""Seconds after which an ended session is ended once more, and then every day. A broker looks at revocation
lists while TLS is set up, so it lets in who was through with that and had said nothing yet: with Mosquitto an
idle connection for 90 s, one that sends its first packet byte by byte for longer."""

MAX_PENDING = 256
"""Applicants waiting for an answer; who is not heard asks again."""

Kick = Callable[[str], Awaitable[None]]
"""Ends the session of the device of that name; raises TransportError."""

_log = structlog.get_logger(__name__)


async def run(settings: RegistrarSettings) -> None:
    """Run the registrar until SIGTERM or SIGINT.

    Raises:
        FedfleetError: settings, identity or state are not usable, or the broker refuses.
    """
    stop, clock, entropy = stop_event(), SystemClock(), SystemEntropy()
    identity = load_identity(settings.identity, settings.name)
    with running(settings.state), contextlib.closing(RegistrarStore(settings.state)) as store:
        office = Office(identity, store, entropy.bytes, settings.terms)
        office.trust.verify(identity.certificate, role=Role.REGISTRAR, now=clock.unix())
        transport = connect_mqtt(settings.broker, identity=identity, clock=clock, entropy=entropy)

        async def kick(name: str) -> None:
            made = office.takeover_identity(name, clock.unix())
            tls = passing_tls(made, settings.broker.authorities) if transport.settings.tls else None
            await take_over(MqttSettings(transport.settings.addresses, name, tls=tls))

        registrar = Registrar(
            office,
            Topics(settings.fleet),
            transport,
            clock,
            kick=kick,
            files=(settings.state / CRL_FILE, settings.identity / ROOT_CRL_FILE),
        )
        async with watched(transport, clock, os.environ):
            await run_until(stop, registrar.run(stop), clock)


class Registrar:
    """A registrar at work.

    Args:
        office: what it decides.
        topics: of its fleet.
        transport: the bus.
        clock: time.
        kick: ends a device's session at the broker.
        files: where the newest list is written for brokers that read it from there, and the root's list that
            goes with it; None writes none.

    Attributes:
        refused: messages that were no request by a claim or device of this fleet.
    """

    def __init__(
        self,
        office: Office,
        topics: Topics,
        transport: Transport,
        clock: Clock,
        *,
        kick: Kick,
        files: tuple[Path, Path] | None = None,
    ) -> None:
        self.refused = 0
        self._office = office
        self._topics = topics
        self._transport = transport
        self._kick = kick
        self._clock = clock
        self._files = files
        self._pending: dict[str, bytes] = {}
        self._asked = asyncio.Event()
        self._news = asyncio.Event()
        self._behind = False
        self._unsaid = False
        self._guard: BrokerStatus | None = None
        self._kick_after = clock.now()
        self._again: dict[str, Seconds] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve the fleet until `stop` is set."""
        transport, topics = self._transport, self._topics
        transport.on_connection(self._connection_changed)
        await transport.subscribe(topics.every_enrolment_request, self._request_arrived)
        await transport.subscribe(topics.revocations, self._list_seen)
        await transport.subscribe(topics.broker_status, self._guard_spoke)
        await self._sign()
        async with transport:
            _log.info("registrar_ready", fleet=topics.fleet, revocations=self._office.trust.sequence)
            work = [
                asyncio.create_task(one)
                for one in (self._answer_requests(), self._keep_the_list(), stop.wait())
            ]
            done, rest = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            for task in done:
                await task

    # Requests.

    def _request_arrived(self, delivery: Delivery) -> None:
        applicant = delivery.topic.split("/")[-2]
        full = len(self._pending) >= MAX_PENDING and applicant not in self._pending
        if full or len(delivery.payload) > MAX_REQUEST:
            self.refused += 1
            return
        self._pending[applicant] = delivery.payload
        self._asked.set()

    async def _answer_requests(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._pending:
                applicant = next(iter(self._pending))
                await self._answer(applicant, self._pending.pop(applicant))
                await self._clock.sleep(0)

    async def _answer(self, applicant: str, payload: bytes) -> None:
        """What is no request by a claim or device of this fleet, on its own topic, is not answered."""
        office, now = self._office, self._clock.unix()
        try:
            request = open_enrolment_request(payload, office.trust, now)
        except PeerError as error:
            self._refuse(applicant, str(error))
            return
        signer = request.signer
        if applicant != (signer.digest.hex() if signer.role is Role.CLAIM else signer.subject):
            self._refuse(applicant, f"{signer.subject} asks on another's topic")
            return
        answer = office.answer(request, now)
        _log.info("answered", applicant=applicant, answer=type(answer).__name__)
        with contextlib.suppress(TransportError):  # who gets no answer asks again
            await self._transport.publish(
                self._topics.enrolment_answer(applicant), seal_frame(office.identity, answer)
            )

    def _refuse(self, applicant: str, cause: str) -> None:
        self.refused += 1
        _log.warning("refused", applicant=applicant, cause=cause)

    # The revocation list.

    async def _keep_the_list(self) -> None:
        """Signs when there is something new, and every day; says it, and sees it through at the broker."""
        version = 0
        self._again = dict.fromkeys(self._thrown_out(), Seconds(self._clock.now() + HELD))
        while True:
            # At the start, too: the list that the broker holds comes first.
            await happens(self._news, POLL, self._clock)
            self._news.clear()
            before, version = version, self._office.store.version
            if self._outdated(changed=version != before):
                await self._sign()
            if self._unsaid:
                await self._publish()
            if self._clock.now() >= self._kick_after:
                await self._see_through()
            await self._end_once_more()

    def _outdated(self, *, changed: bool) -> bool:
        office, now = self._office, self._clock.unix()
        daily = now >= office.current_list.signed + DAY
        return self._behind or daily or (changed and office.unlisted(now))

    async def _sign(self) -> None:
        await self._wait_for_the_next_second()
        signed = self._office.sign_list(self._clock.unix())
        self._behind, self._unsaid = False, True
        if self._files is not None:
            known = self._office.trust.revocations
            assert known is not None  # noqa: S101 (it was signed one line above)
            write_synced(self._files[0], crl_file(known, self._files[1]))
        _log.info("revocations_signed", sequence=signed.sequence)

    async def _wait_for_the_next_second(self) -> None:
        """See `Office.sign_list`; a clock that was turned back far is not waited for."""
        newest = self._office.store.newest_list()
        wait = newest.signed + 1 - self._clock.unix() if newest else 0.0
        if wait > MAX_TURNED_BACK:
            _log.error("clock_turned_back", seconds=wait, fix="restart the brokers after the next list")
        elif wait > 0:
            await self._clock.sleep(wait)

    async def _publish(self) -> None:
        store, now = self._office.store, self._clock.unix()
        waiting = [device for device in store.unfinished() if device.listed is None]
        if self._office.unlisted(now):
            waiting = []  # one was revoked in this moment; the next list has it
        try:
            await self._transport.publish(
                self._topics.revocations, self._office.current_list.message, retain=True
            )
        except TransportError:
            return  # with the next connection
        self._unsaid = False
        store.mark_listed([device.id for device in waiting], now)
        if waiting:
            self._kick_after = self._clock.now()

    async def _see_through(self) -> None:
        """End the sessions of devices on the list, and again when the broker lets them in no more."""
        self._kick_after = Seconds(self._clock.now() + RETRY)
        store = self._office.store
        if not store.unfinished() or not self._transport.connected:
            return
        guarded = await self._guarded()
        if guarded:
            listed = [device.id for device in store.unfinished() if device.listed is not None]
            store.mark_guarded(listed, self._clock.unix())
        for device in store.unfinished():
            if device.listed is not None and device.kicked is None:
                await self._end_session(device)

    async def _end_session(self, device: DeviceRecord) -> None:
        try:
            await self._kick(device.name)
        except TransportError as error:
            _log.warning("not_kicked", device=device.name, cause=str(error))
            return
        self._office.store.mark_kicked([device.id], self._clock.unix())
        self._again[device.name] = Seconds(self._clock.now() + HELD)

    async def _end_once_more(self) -> None:
        """One session a turn, so that thousands do not keep a new revocation waiting; see `HELD`."""
        now = self._clock.now()
        due = next((name for name, at in self._again.items() if at <= now), None)
        if due is None or not self._transport.connected:
            return
        del self._again[due]
        if due not in self._thrown_out():
            return
        self._again[due] = Seconds(now + DAY)
        try:
            await self._kick(due)
        except TransportError as error:
            self._again[due] = Seconds(now + RETRY)
            _log.warning("not_kicked", device=due, cause=str(error))

    def _thrown_out(self) -> list[str]:
        return self._office.store.thrown_out(self._clock.unix())

    async def _guarded(self) -> bool:
        """Waits a moment for the guard's word that the broker goes by the newest list."""
        if self._guard is None or self._guard.state != "online":
            return False
        end = self._clock.now() + GUARD_PATIENCE
        while self._guard.revocations < self._office.trust.sequence:
            if (left := end - self._clock.now()) <= 0:
                return False
            self._news.clear()
            await happens(self._news, left, self._clock)
        return True

    def _list_seen(self, delivery: Delivery) -> None:
        """Our own list comes back, and at the start what an earlier registrar has left."""
        try:
            if delivery.payload and self._office.learn(delivery.payload, self._clock.unix()):
                _log.error("state_is_old", cause="the broker holds a newer revocation list; going beyond it")
                self._behind = True
                self._news.set()
        except PeerError as error:
            self._refuse("the retained revocation list", str(error))

    def _connection_changed(self, connected: bool) -> None:  # noqa: FBT001 - the transport's listener
        if connected:
            self._unsaid = True
            self._kick_after = self._clock.now()
            self._news.set()

    def _guard_spoke(self, delivery: Delivery) -> None:
        with contextlib.suppress(PeerError):
            self._guard = decode_status(delivery.payload, BrokerStatus)
            self._kick_after = self._clock.now()
            self._news.set()


def crl_file(known: RevocationList, root_crl: Path) -> bytes:
    """What a broker's TLS reads: the registrar's list and, behind it, the root's, PEM."""
    ours = x509.load_der_x509_crl(known.crl).public_bytes(Encoding.PEM)
    return ours + (root_crl.read_bytes() if root_crl.exists() else b"")
