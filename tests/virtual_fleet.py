"""A whole fleet in one function call: the real halves and real cryptography, no network and no clock.

Messages are delivered one at a time in a seeded order, computations run at once, time jumps to the next
wish. Tests steer it by what it loses, alters and holds back, and read the outcome.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace
from numpy.typing import NDArray

from privacy.encoding import LocalMetrics, MeanUpdate
from privacy.errors import PrivacyError
from protocol import effects as fx
from protocol.certificates import FleetTrust, Role
from protocol.chunks import BlobRef, describe
from protocol.coordinator_round import CoordinatorRound
from protocol.device_checks import DeviceContext
from protocol.device_privacy import PrivacyStance
from protocol.device_round import DeviceRound
from protocol.eligibility import Facts
from protocol.errors import FedfleetError, PeerError
from protocol.frames import open_coordinator_frame, open_device_frame, seal_frame
from protocol.ids import DeviceId, Order, Seconds, UnixTime
from protocol.messages import Manifest, Message, SurvivorSet, ToDevice
from protocol.noise import noise_of
from protocol.phases import Phase
from protocol.plan import Deadlines, Eligibility, Privacy, SecureAggregation, Training
from protocol.revocations import encode_revocations
from registrar.authority import FleetAuthority
from runtime.entropy import SeededEntropy
from runtime.identity import Identity
from secagg.errors import SecAggError
from secagg.keys import Secret

NOW = UnixTime(1_700_000_000.0)
ENROLLED = UnixTime(NOW - 1000)
BUNDLE = b"bundle"


def manifest_for(
    size: int,
    *,
    members: int,
    order: Order | None = None,
    min_cohort: int = 3,
    bits: int = 32,
    corrupt_fraction: float = 1 / 3,
    dropout_fraction: float = 0.05,
    threshold: int = 0,
    fleet: str = "test",
    clip: float = 10.0,
    sketch: float = 1.0,
    privacy: Privacy | None = None,
    rounds: int = 1,
) -> Manifest:
    """A manifest for a model of `size` parameters and at most `members` devices."""
    masking = SecureAggregation(
        bits=bits,  # type: ignore[arg-type]
        clip=clip,
        corrupt_fraction=corrupt_fraction,
        dropout_fraction=dropout_fraction,
        threshold=threshold,
        sketch=sketch,
    )
    return Manifest(
        fleet=fleet,
        order=order or Order(1, 1, 1),
        protocol="pairwise",
        plan=bytes(32),
        revocations=0,
        bundle=describe(BUNDLE),
        weights=describe(np.zeros(size, "<f4").tobytes()),
        training=Training(max_examples=100),
        eligibility=Eligibility(),
        secure_aggregation=masking,
        noise=noise_of(privacy or Privacy(), masking, size, (min_cohort, members), rounds),
        min_cohort=min_cohort,
        max_cohort=members,
        deadlines=Deadlines(),
        shard="main",
    )


class ForeignDevice(Protocol):
    """A device of another implementation: it speaks in frames alone."""

    @property
    def upload(self) -> bytes:
        """Its masked update, when it has offered one."""
        ...

    def handle(self, frame: bytes) -> list[bytes]:
        """What it says to a coordinator's frame."""
        ...


@dataclass
class Device:
    """One virtual device: its identity, its update and its half of the round."""

    identity: Identity
    delta: NDArray[np.float32]
    metrics: LocalMetrics
    round: DeviceRound | None = None
    upload: bytes = b""
    wake: float = float("inf")
    lost: bool = False
    refused: list[Exception] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)
    foreign: ForeignDevice | None = None


Tamper = Callable[[str, str, bytes], list[bytes]]
"""(sender, receiver, frame) → what arrives instead."""


class VirtualFleet:
    """Runs one round to its end.

    Args:
        devices: how many.
        size: parameters of the model.
        seed: of updates, keys and the order of delivery.
        floor: every device's own minimum cohort.
        gamma_floor: every device's own floor of the assumed corrupt part.
        stance: what every device insists on and has spent.
        registered: whether a registrar has issued the devices' certificates; else the root.
        min_enrolled_age: every device's own floor.
        manifest: see `manifest_for`.
    """

    def __init__(
        self,
        devices: int = 5,
        size: int = 7,
        *,
        seed: int = 1,
        floor: int = 3,
        gamma_floor: float = 0.0,
        stance: PrivacyStance = PrivacyStance(),  # noqa: B008 - frozen
        registered: bool = False,
        min_enrolled_age: float = 0.0,
        **manifest: object,
    ) -> None:
        self.random = random.Random(seed)
        self.entropy = SeededEntropy(seed)
        authority = FleetAuthority.create("test", ENROLLED, self.entropy.bytes)
        self.authority = authority
        self.coordinator_identity = authority.issue("coordinator", Role.COORDINATOR, generation=1)
        self.trust = FleetTrust(self.coordinator_identity.root)
        self.registrar = FleetAuthority.of_registrar(
            authority.issue("registrar", Role.REGISTRAR), ENROLLED, self.entropy.bytes
        )
        issuer = self.registrar if registered else authority
        if registered:
            self.trust.heed(self.revocation_list())
        numbers = np.random.default_rng(seed)
        self.devices = {
            DeviceId(f"d{index:03}"): Device(
                issuer.issue(f"d{index:03}", Role.DEVICE),
                numbers.normal(0, 0.5, size).astype(np.float32),
                LocalMetrics(examples=10 + index, evaluated=4, loss_sum=4.0, correct=index % 5),
            )
            for index in range(1, devices + 1)
        }
        self.floor = floor
        self.gamma_floor = gamma_floor
        self.stance = stance
        self.min_enrolled_age = min_enrolled_age
        self.manifest = replace(
            manifest_for(size, members=devices, **manifest),  # type: ignore[arg-type]
            revocations=self.trust.sequence,
        )
        self.round = CoordinatorRound(
            self.manifest,
            list(self.devices),
            devices,
            self.trust,
            workers=2,
            started=NOW,
            noise_key=Secret(self.entropy.bytes(32)),
        )
        self.now = Seconds(0.0)
        self.wake = float("inf")
        self.mean: MeanUpdate | None = None
        self.commit: fx.Commit | None = None
        self.refused: list[Exception] = []
        self.announced: list[Message] = []
        self.tamper: Tamper = lambda _sender, _receiver, frame: [frame]
        self.losses: dict[Phase, list[DeviceId]] = {}
        self._post: list[tuple[str, str, bytes]] = []

    def lose(self, *devices: str, phase: Phase) -> "VirtualFleet":
        """These vanish, silently, when the coordinator enters the phase."""
        self.losses.setdefault(phase, []).extend(map(DeviceId, devices))
        return self

    def revocation_list(self, *names: str, sequence: int = 1, expires: float = NOW + 1000) -> bytes:
        """The registrar's, as it is published."""
        certificates = [self.trust.read(self.devices[DeviceId(name)].identity.certificate) for name in names]
        revoked = {one.serial: NOW for one in certificates}
        signed = self.registrar.revocation_list(sequence, revoked, UnixTime(expires))
        own = self.registrar.certificate.public_bytes(Encoding.DER)
        return encode_revocations(own, signed.public_bytes(Encoding.DER))

    def revoke(self, *names: str) -> None:
        """Everybody hears of it now."""
        self.trust.heed(self.revocation_list(*names, sequence=self.trust.sequence + 1))
        for name in names:
            self._coordinator(fx.Revoked(DeviceId(name)))

    def plain_mean(self, without: Collection[str] = ()) -> NDArray[np.float64]:
        """The weighted mean that plain federated averaging would give."""
        return self.plain_mean_of([name for name in self.devices if name not in without])

    def plain_mean_of(self, names: Collection[str]) -> NDArray[np.float64]:
        """The weighted mean that plain federated averaging over these devices would give."""
        members = [self.devices[DeviceId(name)] for name in names]
        weights = [device.metrics.examples for device in members]
        return np.average([device.delta.astype(np.float64) for device in members], axis=0, weights=weights)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whom the announced survivor set names; nobody before it is announced."""
        return next((said.members for said in self.announced if isinstance(said, SurvivorSet)), ())

    def run(self, *, steps: int = 200_000) -> Phase:
        """Run the round to its end; never longer than `steps` deliveries and jumps of the clock."""
        self._coordinator(fx.Begin())
        for _ in range(steps):
            if self.round.over and not self._post:
                return self.round.phase
            if self._post:
                self._deliver(*self._post.pop(self.random.randrange(len(self._post))))
            else:
                self._jump()
        raise AssertionError(f"stuck in {self.round.phase}")

    # Delivery and time.

    def _deliver(self, sender: str, receiver: str, frame: bytes) -> None:
        for arriving in self.tamper(sender, receiver, frame):
            if receiver == "coordinator":
                self._hear(arriving)
            elif not self.devices[DeviceId(receiver)].lost:
                self._tell(DeviceId(receiver), arriving)

    def _hear(self, frame: bytes) -> None:
        try:
            opened = open_device_frame(frame, self.trust, NOW)
        except PeerError as error:
            self.refused.append(error)
        else:
            self._coordinator(fx.Heard(opened))

    def _tell(self, name: DeviceId, frame: bytes) -> None:
        device = self.devices[name]
        if device.foreign is not None:
            self._post += [(name, "coordinator", said) for said in device.foreign.handle(frame)]
            device.upload = device.foreign.upload
            return
        try:
            opened = open_coordinator_frame(frame, self.trust, NOW)
        except PeerError as error:
            device.refused.append(error)
            return
        if device.round is None and isinstance(opened.message, Manifest):
            context = DeviceContext(
                own=name,
                trust=self.trust,
                min_cohort=self.floor,
                corrupt_fraction=self.gamma_floor,
                facts=Facts(idle=True, charging=True, unmetered=True),
                started=NOW,
                privacy=self.stance,
                min_enrolled_age=self.min_enrolled_age,
            )
            device.round = DeviceRound(opened, context, Secret(self.entropy.bytes(32)))  # type: ignore[arg-type]
            self._device(name, fx.Begin())
        elif device.round is not None:
            self._device(name, fx.Told(opened))

    def _jump(self) -> None:
        """Nothing is under way: go to the next time somebody wished to be woken at."""
        waking = {name: device.wake for name, device in self.devices.items() if not device.lost}
        self.now = Seconds(max(self.now, min([self.wake, *waking.values()])))
        if self.wake <= self.now:
            self._coordinator(fx.Woke())
        for name, wake in waking.items():
            if wake <= self.now:
                self._device(name, fx.Woke())

    # Effects of the coordinator's half.

    def _coordinator(self, event: fx.CoordinatorEvent) -> None:
        effects = self.round.handle(event, self.now)
        for name in self.losses.pop(self.round.phase, []):
            self.devices[name].lost = True
            self._coordinator(fx.Gone(name))
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: fx.Effect) -> None:  # noqa: C901 - one line an effect
        match effect:
            case fx.WakeAt(time):
                self.wake = time
            case fx.Compute(work):
                self._coordinator(_compute(work))
            case fx.Refuse(error):
                self.refused.append(error)
            case fx.Invite(to, manifest):
                self._to_device(to, manifest)
            case fx.Send(to, message):
                self._to_device(to, message)
            case fx.Announce(decision):
                self.announced.append(decision)
                for name in self.devices:
                    self._to_device(name, decision)
            case fx.Receive(device, ref):
                self._receive(device, ref)
            case fx.KeepSum():
                self._coordinator(fx.SumKept(bytes(32)))
            case fx.Commit(mean=mean):
                self.mean, self.commit = mean, effect
                self._coordinator(fx.Committed())

    def _receive(self, device: DeviceId, ref: BlobRef) -> None:
        """As the shell does: only bytes with the promised hash are handed on."""
        data = self.devices[device].upload
        if not self.devices[device].lost:
            matches = sha256(data).digest() == ref.sha256
            self._coordinator(fx.Uploaded(device, ref, data) if matches else fx.UploadFailed(device))

    def _to_device(self, name: DeviceId, message: ToDevice | Message) -> None:
        self._post.append(("coordinator", name, seal_frame(self.coordinator_identity, message)))

    # Effects of a device's half.

    def _device(self, name: DeviceId, event: fx.DeviceEvent) -> None:
        device = self.devices[name]
        if device.round is None or device.lost:
            return
        device.wake = float("inf")
        for effect in device.round.handle(event, self.now):
            self._perform_on_device(name, device, effect)

    def _perform_on_device(self, name: DeviceId, device: Device, effect: fx.Effect) -> None:
        match effect:
            case fx.WakeAt(time):
                device.wake = time
            case fx.Compute(work):
                self._device(name, _compute(work))
            case fx.Refuse(error):
                device.refused.append(error)
            case fx.Say(message):
                device.said.append(message)
                self._post.append((name, "coordinator", seal_frame(device.identity, message)))
            case fx.Fetch():
                self._device(name, fx.Fetched(BUNDLE, np.zeros(device.delta.size, "<f4").tobytes()))
            case fx.Train():
                initial = np.zeros(device.delta.size, np.float32)
                self._device(name, fx.Trained(initial, initial + device.delta, device.metrics))
            case fx.Upload(data=data):
                device.upload = data


def _compute(work: fx.Work) -> fx.Computed | fx.ComputeFailed:
    """As the shell does: any other error is a bug, and ends the test."""
    try:
        return fx.Computed(work, work.run())
    except (FedfleetError, SecAggError, PrivacyError) as error:
        return fx.ComputeFailed(work, error)
