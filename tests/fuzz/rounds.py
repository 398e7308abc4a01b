"""Real rounds as material: every message that was said, and the device's half between every two steps."""

import copy
from dataclasses import dataclass

from virtual_fleet import Device, VirtualFleet

from protocol import effects as fx
from protocol.certificates import Certificate, Role
from protocol.device_round import DeviceRound
from protocol.eligibility import Facts
from protocol.ids import DeviceId, Seconds
from protocol.messages import (
    Decline,
    Extension,
    FromCoordinator,
    FromDevice,
    Grant,
    HighWater,
    Message,
    Offer,
    Pace,
    RoundEnded,
    Stored,
    UploadOffer,
    encode,
)
from protocol.phases import Phase
from protocol.transcript import begin

VICTIM = DeviceId("d001")
DEVICES = 6


@dataclass(frozen=True)
class Moment:
    """A device's half between two steps of a real round."""

    half: DeviceRound
    now: Seconds

    def again(self) -> DeviceRound:
        """A copy to spoil. What the half knows is frozen but for its record of decisions."""
        return copy_of(self.half)


def copy_of(half: DeviceRound) -> DeviceRound:
    """An independent half in the same state."""
    other = copy.copy(half)
    other._decisions = dict(half._decisions)
    return other


class RecordedRound(VirtualFleet):
    """A round of six devices of which one vanishes after sharing; it runs when it is made.

    Attributes:
        seed: of everything.
        moments: of the device `VICTIM`.
        from_devices: everything devices say in a round, by kind.
        from_coordinator: likewise.
        frames_up: signed frames of devices.
        frames_down: signed frames of the coordinator.
        uploads: masked updates.
    """

    def __init__(self, seed: int) -> None:
        self._sent: list[Message] = []
        super().__init__(DEVICES, 5, seed=seed)
        self.seed = seed
        self.moments: list[Moment] = []
        self.frames_up: list[bytes] = []
        self.frames_down: list[bytes] = []
        self.tamper = self._note
        self.lose("d006", phase=Phase.COLLECTING)
        if self.run() is not Phase.COMMITTED:
            raise AssertionError(self.round.reason)
        self.t0 = begin(encode(self.manifest))
        self.links = [self.t0, *dict.fromkeys(_links(self.announced))]
        self.uploads = [device.upload for device in self.devices.values() if device.upload]
        said = [message for device in self.devices.values() for message in device.said]
        self.from_devices = _by_kind([*said, *self._rarely_said_up()])
        self.from_coordinator = _by_kind(
            [self.manifest, *self.announced, *self._sent, *self._rarely_said_down()]
        )

    def coordinators(self) -> list[Certificate]:
        """Certificates of the fleet's coordinator and of those before and after it."""
        others = [
            self.authority.issue("coordinator", Role.COORDINATOR, generation=generation)
            for generation in (0, 2, 2**32 - 1)
        ]
        return [self.trust.read(one.certificate) for one in (self.coordinator_identity, *others)]

    def _note(self, sender: str, _: str, frame: bytes) -> list[bytes]:
        (self.frames_down if sender == "coordinator" else self.frames_up).append(frame)
        return [frame]

    def _perform_on_device(self, name: DeviceId, device: Device, effect: fx.Effect) -> None:
        if name == VICTIM and device.round is not None:
            self.moments.append(Moment(copy_of(device.round), self.now))
        super()._perform_on_device(name, device, effect)

    def _to_device(self, name: DeviceId, message: Message) -> None:
        self._sent.append(message)
        super()._to_device(name, message)

    def _rarely_said_up(self) -> list[FromDevice]:
        order = self.manifest.order
        offer = Offer(3, order, Facts(idle=True, battery=41, tags=("lab",), version="1"), ("ort-graph",))
        return [offer, Decline(order, self.t0, "disk full")]

    def _rarely_said_down(self) -> list[FromCoordinator]:
        order = self.manifest.order
        blob = next(said for said in self.devices[VICTIM].said if isinstance(said, UploadOffer)).blob.sha256
        return [
            Grant(order, blob, (0,)),
            Stored(order, blob),
            Extension(order, self.t0, 3.0),
            RoundEnded(order, "aborted", "too few", 2.0),
            HighWater(order, 3),
            Pace(order, 90.0),
        ]


def _links(announced: list[Message]) -> list[bytes]:
    return [said.transcript for said in announced if hasattr(said, "transcript")]


def _by_kind(messages: list[Message]) -> list[list[Message]]:
    kinds: dict[type[Message], list[Message]] = {}
    for message in messages:
        kept = kinds.setdefault(type(message), [])
        if message not in kept:
            kept.append(message)
    return list(kinds.values())
