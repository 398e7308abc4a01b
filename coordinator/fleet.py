"""The devices as the coordinator knows them: who is on offer, and who was lost."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import structlog
from msgspec.structs import replace

from broker.transport import Delivery
from coordinator.selection import Candidate
from protocol.certificates import Certificate, FleetTrust
from protocol.eligibility import NEVER, Facts
from protocol.errors import PeerError
from protocol.frames import Opened, open_device_frame
from protocol.ids import NAME_PATTERN, ORIGIN, DeviceId, Order, Seconds
from protocol.messages import Accept, FromDevice, Offer
from protocol.pace import LONGEST, SHORTEST, offer_lasts
from protocol.status import DeviceStatus, decode_status, device_of
from runtime.clock import Clock

MAX_AWAY = 100_000
"""Devices remembered as lost; whoever can forge their statuses shall not fill the memory."""

_log = structlog.get_logger(__name__)


@dataclass
class _Known:
    offer: Offer
    heard: Seconds
    entered: Seconds  # when it entered a round, by its offer or by what it said since
    lost: bool = False
    sleeps: bool = False


class Fleet:
    """Keeps offers, presences and counts; hands the frames of a round on.

    Args:
        trust: the fleet's root.
        clock: time.

    Attributes:
        interval: seconds between a device's offers, by the pace that devices are told.
    """

    def __init__(self, trust: FleetTrust, clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self._devices: dict[DeviceId, _Known] = {}
        self._away: dict[DeviceId, int] = {}
        self._certificates: dict[DeviceId, Certificate] = {}
        self.interval = SHORTEST
        self.refused = 0
        self.forget_round()

    def forget_round(self) -> None:
        """Tell nobody of frames and losses; a round that opens sets these anew."""
        self.on_frame: Callable[[Opened[FromDevice]], None] = lambda _frame: None
        self.on_lost: Callable[[DeviceId], None] = lambda _device: None
        self.on_restarted: Callable[[DeviceId], None] = lambda _device: None
        self.on_revoked: Callable[[DeviceId], None] = lambda _device: None

    def candidates(self) -> list[Candidate]:
        """Devices on offer now, with what they said of themselves."""
        return [
            Candidate(device, self._facts(known), self._clock.unix() - self._certificates[device].not_before)
            for device, known in self._devices.items()
            if not (known.lost or known.sleeps)
            and self._clock.now() - known.heard <= offer_lasts(self.interval)
        ]

    def _facts(self, known: _Known) -> Facts:
        """As offered; but it rests since it entered a round, which may be later."""
        return replace(known.offer.facts, rested=min(int(self._clock.now() - known.entered), NEVER))

    def heard_lately(self) -> int:
        """Devices that spoke within the longest life of an offer; who is away now comes back, and counts."""
        since = self._clock.now() - offer_lasts(LONGEST)
        return sum(known.heard >= since for known in self._devices.values())

    def is_lost(self, device: DeviceId) -> bool:
        """Whether its connection was lost and nothing was heard of it since."""
        known = self._devices.get(device)
        return known is not None and known.lost

    def newest_seen(self, corrupt_fraction: float) -> Order:
        """The newest round that devices have entered; a coordinator that lost its state must go beyond.

        Args:
            corrupt_fraction: part of the devices that may lie; what only so many claim is not believed, or
                one device could drive the order to where no other follows.
        """
        seen = sorted((known.offer.seen for known in self._devices.values()), reverse=True)
        liars = ceil(corrupt_fraction * len(seen))
        return seen[liars] if liars < len(seen) else ORIGIN

    def frame_arrived(self, delivery: Delivery) -> None:
        """A frame on some device's offer or outbox topic; what is not valid is counted and dropped."""
        try:
            frame = open_device_frame(delivery.payload, self._trust, self._clock.unix())
        except PeerError as error:
            self.refused += 1
            _log.warning("refused", topic=delivery.topic, error=type(error).__name__, cause=str(error))
            return
        self.met(frame.signer)
        if isinstance(frame.message, Offer):
            self._offered(frame.sender, frame.message)
        elif frame.sender in self._devices:
            known = self._devices[frame.sender]
            known.heard, known.lost = self._clock.now(), False
            if isinstance(frame.message, Accept):
                known.entered = known.heard
        self.on_frame(frame)

    def met(self, certificate: Certificate) -> None:
        """A device has shown this certificate, now or before a restart."""
        self._certificates[certificate.subject] = certificate

    def is_revoked(self, device: DeviceId) -> bool:
        """Whether the certificate that it showed last was taken back."""
        certificate = self._certificates.get(device)
        return certificate is not None and self._trust.is_revoked(certificate)

    def list_arrived(self) -> None:
        """A newer revocation list is in force: who is on it is not on offer any more."""
        for device in [one for one in self._certificates if self.is_revoked(one)]:
            self._devices.pop(device, None)
            self.on_revoked(device)

    def _offered(self, device: DeviceId, offer: Offer) -> None:
        before = self._devices.get(device)
        if before is not None and offer.boot < before.offer.boot:
            return  # an old offer said again, by whomever
        if before is not None and offer.boot > before.offer.boot:
            self.on_restarted(device)
        # A will may overtake the offer, above all when both were kept while the coordinator was down. It is
        # unsigned, so a second offer outweighs it.
        lost = self._away.pop(device, -1) >= offer.boot
        now = self._clock.now()
        self._devices[device] = _Known(offer, now, Seconds(now - offer.facts.rested), lost)

    def status_arrived(self, delivery: Delivery) -> None:
        """A device's presence. What was said of an earlier boot is old news."""
        device = device_of(delivery.topic)
        if not re.match(NAME_PATTERN, device):
            return
        try:
            status = decode_status(delivery.payload, DeviceStatus)
        except PeerError as error:
            _log.warning("refused", topic=delivery.topic, error=type(error).__name__, cause=str(error))
            return
        away = status.state in {"lost", "offline"}
        if away:
            self._went_away(device, status.boot)
        else:
            self._away.pop(device, None)
        known = self._devices.get(device)
        if known is None or status.boot < known.offer.boot:
            return
        known.lost, known.sleeps = away, status.state == "sleeping"
        if away:
            self.on_lost(device)

    def _went_away(self, device: DeviceId, boot: int) -> None:
        if device in self._away or len(self._away) < MAX_AWAY:
            self._away[device] = max(boot, self._away.get(device, -1))
