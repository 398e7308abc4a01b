"""Fleets in which somebody is against the others: a coordinator that lies, a network that is rough.

The honest side is always the real halves with real cryptography. `HostileCoordinator` says whatever a test
wants to honest devices; `RoughFleet` runs honest halves over a network that drops, repeats, delays and
reorders, and holds every step to the invariants.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from virtual_fleet import NOW, Device, VirtualFleet

from protocol import effects as fx
from protocol.certificates import Role
from protocol.cohort import CohortView, read_cohort
from protocol.coordinator_work import FormCohort
from protocol.device_work import MaskUpdate
from protocol.frames import Opened, Signer, open_device_frame, seal_frame
from protocol.ids import DeviceId, Seconds
from protocol.messages import (
    Cohort,
    Confirmation,
    Confirmations,
    FromDevice,
    Message,
    Reveal,
    RoundKeys,
    SealedShares,
    ShareDelivery,
    ShareSet,
    SurvivorSet,
    encode,
)
from protocol.transcript import begin, extend
from registrar.authority import FleetAuthority
from runtime.identity import Identity

_M = TypeVar("_M", bound=Message)


def refused(errors: Sequence[Exception], kind: type[Exception], gist: str) -> None:
    """Exactly one refusal, of this class, whose message has this in it."""
    assert len(errors) == 1, errors
    with pytest.raises(kind, match=gist):
        raise errors[0]


def spoil(fleet: VirtualFleet, name: str, kind: type[_M], change: Callable[[_M], Sequence[Message]]) -> None:
    """From now on a device says something else, properly signed, wherever it would say this kind."""
    identity = fleet.devices[DeviceId(name)].identity

    def tamper(sender: str, _: str, frame: bytes) -> list[bytes]:
        if sender != name:
            return [frame]
        said = open_device_frame(frame, fleet.trust, NOW).message
        return [seal_frame(identity, other) for other in change(said)] if isinstance(said, kind) else [frame]

    fleet.tamper = tamper


def stranger(fleet: str, name: str, role: Role = Role.DEVICE) -> Identity:
    """Somebody with a certificate of another root, which calls itself this fleet's."""
    return FleetAuthority.create(fleet, NOW, lambda size: bytes(range(7, 7 + size))).issue(name, role)


class HostileCoordinator(VirtualFleet):
    """Honest devices in the hands of a coordinator that says whatever the test wants.

    `invite` brings all to their round keys. Then the test speaks, message by message; the methods that make
    messages make honest ones, for the test to spoil.
    """

    def __init__(self, devices: int = 6, size: int = 5, **arguments: object) -> None:
        super().__init__(devices, size, **arguments)  # type: ignore[arg-type]
        self.t0 = begin(encode(self.manifest))

    # Speaking.

    def tell(self, name: str, message: Message, *, signer: Signer | None = None) -> list[Exception]:
        """Tell one device; what it refused because of it."""
        device = self.devices[DeviceId(name)]
        known = len(device.refused)
        self._tell(DeviceId(name), seal_frame(signer or self.coordinator_identity, message))
        return device.refused[known:]

    def tell_all(self, message: Message) -> None:
        """Tell everybody, who must not object."""
        for name in self.devices:
            assert self.tell(name, message) == []

    def said(self, name: str, kind: type[_M]) -> _M:
        """The newest message of this kind that a device has said."""
        return next(said for said in reversed(self.devices[DeviceId(name)].said) if isinstance(said, kind))

    def has_said(self, name: str, kind: type[Message]) -> bool:
        """Whether a device has ever said such a message."""
        return any(isinstance(said, kind) for said in self.devices[DeviceId(name)].said)

    def stage(self, name: str) -> str:
        """Where a device's round is."""
        half = self.devices[DeviceId(name)].round
        assert half is not None
        return half.stage

    # An honest round, link by link.

    def invite(self) -> None:
        """Everybody accepts, trains and shows round keys."""
        self.tell_all(self.manifest)

    def entry(self, name: str) -> bytes:
        """A device's signed keys."""
        return seal_frame(self.devices[DeviceId(name)].identity, self.said(name, RoundKeys))

    def cohort(self, *names: str) -> Cohort:
        """The cohort of these devices, or of all."""
        members = sorted(names or self.devices)
        return Cohort(self.manifest.order, self.t0, tuple(map(self.entry, members)))

    def view(self, cohort: Cohort) -> CohortView:
        """What follows from a valid cohort."""
        return read_cohort(cohort, self.manifest, self.t0, self._open)

    def _open(self, frame: bytes) -> Opened[FromDevice]:
        return open_device_frame(frame, self.trust, NOW)

    def share_set(self, t1: bytes, *names: str) -> ShareSet:
        """The share set of these devices, or of all."""
        return ShareSet(self.manifest.order, t1, tuple(sorted(names or self.devices)))

    def delivery(self, to: str, share_set: ShareSet) -> ShareDelivery:
        """What the members of a share set sealed for one of them."""
        sealed = [
            (sender, dict(self.said(sender, SealedShares).shares)[to])
            for sender in share_set.members
            if sender != to
        ]
        return ShareDelivery(
            self.manifest.order, extend(share_set.transcript, encode(share_set)), tuple(sealed)
        )

    def survivor_set(self, t2: bytes, *names: str) -> SurvivorSet:
        """The survivor set of these devices, or of all."""
        return SurvivorSet(self.manifest.order, t2, tuple(sorted(names or self.devices)))

    def confirmations(self, t3: bytes, *names: str) -> Confirmations:
        """The signatures of these devices' own confirmations, whatever they confirmed."""
        signed = []
        for name in sorted(names or self.devices):
            frame = seal_frame(self.devices[DeviceId(name)].identity, self.said(name, Confirmation))
            signed.append((name, frame[-64:]))
        return Confirmations(self.manifest.order, t3, tuple(signed))

    # Shortcuts to where an attack begins.

    def bring_to_shares(self) -> CohortView:
        """All have shared their secrets; what they know of the cohort."""
        self.invite()
        cohort = self.cohort()
        self.tell_all(cohort)
        return self.view(cohort)

    def bring_to_uploads(self) -> bytes:
        """All have masked; T2."""
        share_set = self.share_set(self.bring_to_shares().transcript)
        self.tell_all(share_set)
        for name in self.devices:
            assert self.tell(name, self.delivery(name, share_set)) == []
        return extend(share_set.transcript, encode(share_set))

    def bring_to_confirmations(self) -> tuple[bytes, bytes]:
        """All have confirmed that all survived; T2 and T3."""
        t2 = self.bring_to_uploads()
        survivors = self.survivor_set(t2)
        self.tell_all(survivors)
        return t2, extend(t2, encode(survivors))


class WatchedFleet(VirtualFleet):
    """A fleet whose every step is held to the invariants of a round."""

    def __init__(self, devices: int = 5, size: int = 7, **arguments: object) -> None:
        super().__init__(devices, size, **arguments)  # type: ignore[arg-type]
        self._revealed: dict[DeviceId, dict[str, bytes]] = {}
        self._masked: dict[DeviceId, list[bytes]] = {}
        self._decided: dict[type[Message], bytes] = {}
        self._threshold = 0

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Announce(decision):
                first = self._decided.setdefault(type(decision), encode(decision))
                assert first == encode(decision), f"I3: a second {type(decision).__name__}"
            case fx.Compute(FormCohort(cohort=cohort)):
                self._threshold = FormCohort(cohort, self.manifest, self._t0, self.trust).run().view.threshold
            case fx.Commit(survivors=survivors):
                assert self.mean is None, "I4: committed twice"
                assert survivors == len(self.survivors)
                assert survivors >= max(self._threshold, self.manifest.min_cohort), "I4: too few survivors"
        super()._perform(effect)

    @property
    def _t0(self) -> bytes:
        return begin(encode(self.manifest))

    def _perform_on_device(self, name: DeviceId, device: Device, effect: fx.Effect) -> None:
        match effect:
            case fx.Say(Reveal(shares=shares)):
                known = self._revealed.setdefault(name, dict(shares))
                assert known == dict(shares), f"I1: {name} reveals other shares than before"
                assert len(known) == len(shares), f"I1: {name} reveals two shares of one peer"
            case fx.Compute(MaskUpdate()):
                self._masked.setdefault(name, []).append(b"")
                assert len(self._masked[name]) == 1, f"I2: {name} masks twice"
        super()._perform_on_device(name, device, effect)


class RoughFleet(WatchedFleet):
    """A watched fleet over a network that loses, repeats, delays and reorders.

    Args:
        devices: how many.
        seed: of everything.
        loss: part of the frames that never arrive.
        repeat: part that arrives twice.
        delay: part that arrives up to 20 s late.
        stall: part of the uploads that the receiver gives up.
        flicker: part of the deliveries after which some device seems gone although it is not.
        death: chance that a device vanishes for good, at each jump of the clock.
    """

    def __init__(
        self,
        devices: int,
        seed: int,
        *,
        loss: float = 0.1,
        repeat: float = 0.1,
        delay: float = 0.1,
        stall: float = 0.1,
        flicker: float = 0.02,
        death: float = 0.02,
    ) -> None:
        super().__init__(devices, 4, seed=seed)
        self.tamper = self._rough
        self._rates = (loss, repeat, delay, stall, flicker, death)
        self._late: list[tuple[float, str, str, bytes]] = []

    def _rough(self, sender: str, receiver: str, frame: bytes) -> list[bytes]:
        loss, repeat, delay, _, flicker, _ = self._rates
        if self.random.random() < flicker:
            self._coordinator(fx.Gone(self.random.choice(list(self.devices))))
        luck = self.random.random()
        if luck < loss:
            return []
        if luck < loss + repeat:
            return [frame, frame]
        if luck < loss + repeat + delay:
            self._late.append((self.now + self.random.uniform(0, 20), sender, receiver, frame))
            return []
        return [frame]

    def _jump(self) -> None:
        for name in self.devices:
            if self.random.random() < self._rates[-1] / len(self.devices):
                self.devices[name].lost = True
        arrival = min((late[0] for late in self._late), default=float("inf"))
        waking = [device.wake for device in self.devices.values() if not device.lost]
        if arrival > min([self.wake, *waking]):
            super()._jump()
            return
        self.now = Seconds(max(self.now, arrival))
        for late in [late for late in self._late if late[0] <= self.now]:
            self._late.remove(late)
            self._post.append(late[1:])

    def _perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Receive) and self.random.random() < self._rates[3]:
            self._coordinator(fx.UploadFailed(effect.device))
        else:
            super()._perform(effect)
