"""A broker's guard: has the broker turn away whom the registrar has taken back.

It runs beside the broker, holds no key that signs anything for the fleet, and can do two things: write the
file that the broker's TLS reads revocation lists from, and tell the broker to read it again.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.transport import Delivery, Transport
from protocol.certificate_profile import key_of
from protocol.certificates import FleetTrust, Role
from protocol.errors import FedfleetError, PeerError
from protocol.revocations import RevocationList
from protocol.status import BrokerState, BrokerStatus
from protocol.topics import Topics
from registrar.app import ROOT_CRL_FILE, crl_file
from registrar.settings import GuardSettings
from runtime import logs
from runtime.bus import connect_mqtt
from runtime.clock import Clock, SystemClock, happens
from runtime.command_line import COMMON, Option, Program
from runtime.entropy import SystemEntropy
from runtime.files import write_synced
from runtime.identity import load_identity
from runtime.signals import run_until, stop_event
from runtime.status_board import StatusBoard
from runtime.watchdog import watched

RETRY = 1.0
"""Seconds until it is tried again to have the broker go by a list."""

_log = structlog.get_logger(__name__)


class GuardError(FedfleetError):
    """The guard cannot do its work; the message says the fix."""


async def run(settings: GuardSettings) -> None:
    """Run the guard until SIGTERM or SIGINT.

    Raises:
        FedfleetError: settings, identity or files are not usable, or the broker refuses.
    """
    stop, clock, entropy = stop_event(), SystemClock(), SystemEntropy()
    identity = load_identity(settings.identity, settings.name)
    trust, _ = identity.trust(Role.GUARD, clock.unix())
    root_crl = roots_list(settings)
    topics = Topics(settings.fleet)
    transport = connect_mqtt(
        settings.broker,
        identity=identity,
        will=(topics.broker_status, BrokerStatus("lost")),
        clock=clock,
        entropy=entropy,
    )

    def put_in_force(known: RevocationList) -> None:
        write_list(known, settings.crl, root_crl)
        signal_broker(settings.pid_file)

    guard = Guard(
        trust, topics, transport, clock, put_in_force=put_in_force, on_disk=list_on_disk(settings.crl)
    )
    async with watched(transport, clock, os.environ):
        await run_until(stop, guard.run(stop), clock)


class Guard:
    """The guard at work.

    Args:
        trust: the fleet's root.
        topics: of its fleet.
        transport: the bus.
        clock: time.
        put_in_force: has the broker go by a list; raises OSError or GuardError.
        on_disk: the list that the broker goes by already; older ones of its registrar are not taken.

    Attributes:
        refused: messages that were no newer revocation list.
    """

    def __init__(
        self,
        trust: FleetTrust,
        topics: Topics,
        transport: Transport,
        clock: Clock,
        *,
        put_in_force: Callable[[RevocationList], None],
        on_disk: x509.CertificateRevocationList | None = None,
    ) -> None:
        self.refused = 0
        self._trust = trust
        self._topics = topics
        self._transport = transport
        self._board = StatusBoard(transport)
        self._put_in_force = put_in_force
        self._clock = clock
        self._on_disk = on_disk
        self._number = 0 if on_disk is None else number_of(on_disk)
        self._news = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Guard the broker until `stop` is set."""
        await self._transport.subscribe(self._topics.revocations, self._list_arrived)
        async with self._transport, self._board:
            self._show("online")
            work = asyncio.create_task(self._follow())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if work.done():
                await work
            work.cancel()
            self._show("offline")

    def _list_arrived(self, delivery: Delivery) -> None:
        try:
            if delivery.payload and self._trust.heed(delivery.payload):
                self._news.set()
        except PeerError as error:
            self.refused += 1
            _log.warning("refused", cause=str(error))

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            known = self._trust.revocations
            if known is None or self._is_old(known):
                self._show("online", f"the published list is older than list {self._number}")
                continue
            try:
                self._put_in_force(known)
            except (OSError, GuardError) as error:
                _log.error("not_in_force", revocations=known.sequence, cause=str(error))
                self._show("online", f"list {known.sequence} is not in force: {_in_words(error)}")
                if not await happens(self._news, RETRY, self._clock):
                    self._news.set()
                continue
            self._on_disk, self._number = x509.load_der_x509_crl(known.crl), known.sequence
            _log.info("in_force", revocations=known.sequence)
            self._show("online")

    def _is_old(self, known: RevocationList) -> bool:
        """Numbers compare the lists of one registrar."""
        before = self._on_disk
        return (
            before is not None
            and before.is_signature_valid(key_of(known.registrar.certificate))
            and known.sequence < self._number
        )

    def _show(self, state: BrokerState, why: str = "") -> None:
        self._board.show(self._topics.broker_status, BrokerStatus(state, self._number, why))


def _in_words(error: Exception) -> str:
    """Without a path, which is nobody's business."""
    return (error.strerror or "an error") if isinstance(error, OSError) else str(error)


def roots_list(settings: GuardSettings) -> Path:
    """Where the root's revocation list is.

    Raises:
        GuardError: it is not there: without it a broker turns away everybody whom the root has signed.
    """
    file = settings.root_crl or settings.identity / ROOT_CRL_FILE
    if not file.is_file():
        raise GuardError(f"{file} is missing; copy {ROOT_CRL_FILE} from the root's folder there")
    return file


def write_list(known: RevocationList, file: Path, root_crl: Path) -> None:
    """Write what the broker's TLS reads: the registrar's list, and the root's behind it.

    Raises:
        OSError: the disk refused.
    """
    write_synced(file, crl_file(known, root_crl))
    file.chmod(0o644)  # a broker of another user reads it; nothing in it is secret


def signal_broker(pid_file: Path) -> None:
    """Tell the broker to read its files again.

    Raises:
        GuardError: there is no such process.
        OSError: the file cannot be read, or the process is not ours to tell.
    """
    text = pid_file.read_text("ascii").strip()
    # Neither 0 nor a negative number, which mean groups of processes.
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise GuardError("the broker's pid file holds no number; is it the right file?")
    try:
        os.kill(int(text), signal.SIGHUP)
    except ProcessLookupError:
        raise GuardError("the broker's pid file names no process; is the broker running?") from None


def list_on_disk(file: Path) -> x509.CertificateRevocationList | None:
    """The registrar's list in the broker's file, if there is one.

    Raises:
        GuardError: the file holds something else.
    """
    if not file.exists():
        return None
    try:
        crl = x509.load_pem_x509_crl(file.read_bytes())
        number_of(crl)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise GuardError(f"{file} is no file of revocation lists; copy root.crl there") from error
    # Before the first list of the registrar it is the root's alone, which has no common name.
    return crl if crl.issuer.get_attributes_for_oid(NameOID.COMMON_NAME) else None


def number_of(crl: x509.CertificateRevocationList) -> int:
    """Its number; raises ExtensionNotFound."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def serve(settings: GuardSettings) -> None:
    """The whole program; see `run`."""
    logs.configure(settings.log)
    await run(settings)


PROGRAM = Program(
    "Has a broker turn away whom the registrar has taken back; runs beside the broker.",
    GuardSettings,
    (
        *(option for option in COMMON if option.key != "state"),
        Option("--crl", "crl", "the broker's file of revocation lists, written here; else Debian's", "FILE"),
        Option("--root-crl", "root_crl", "the root's revocation list; else root.crl of the identity", "FILE"),
        Option(
            "--pid-file",
            "pid_file",
            "the broker's, whose process is told to read again; else Debian's",
            "FILE",
        ),
    ),
    serve,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:], "python -m registrar.guard"))
