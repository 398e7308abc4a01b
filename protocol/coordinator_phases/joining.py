"""The first three phases: who accepts, who has trained, who shares its secrets."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar

from protocol.cohort import MemberKeys, keys_of
from protocol.coordinator_phases.collecting import Collecting
from protocol.coordinator_phases.phase import expect, too_few
from protocol.coordinator_work import FormedCohort
from protocol.effects import Announce, Effect, Invite
from protocol.errors import CohortError, ProtocolError, SecondDecisionError, SetError, TranscriptError
from protocol.frames import Opened
from protocol.ids import DeviceId
from protocol.messages import Accept, Cohort, FromDevice, Manifest, RoundKeys, SealedShares, ShareSet, encode
from protocol.phases import Phase
from protocol.transcript import extend
from secagg.ring import RingLayout, RingVector


@dataclass
class Inviting:
    """Who was invited, and who has answered."""

    phase: ClassVar[Phase] = Phase.INVITING
    manifest: Manifest
    context: bytes
    invited: frozenset[DeviceId]
    wanted: int
    declined: AbstractSet[DeviceId]
    accepted: set[DeviceId] = field(default_factory=set)
    keys: dict[DeviceId, tuple[bytes, MemberKeys]] = field(default_factory=dict)
    shown: dict[bytes, DeviceId] = field(default_factory=dict)

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """Accept, or the keys of a device that has already trained."""
        said = frame.message
        if frame.sender not in self.invited:
            raise ProtocolError(f"{frame.sender} was not invited")
        if isinstance(said, RoundKeys):
            self._hear_keys(frame)
        elif not isinstance(said, Accept) or said.transcript != self.context:
            raise TranscriptError(f"{frame.sender} answered another invitation")
        self.accepted.add(frame.sender)
        return []

    def _hear_keys(self, frame: Opened[FromDevice]) -> None:
        keys = keys_of(frame, self.manifest, self.context)
        known = self.keys.get(frame.sender, (b"", keys))[1]
        if known != keys:
            raise SecondDecisionError(f"{frame.sender} shows other keys than before")
        shown = (keys.mask_key, keys.seal_key, keys.signing_key)
        for key in shown:
            if self.shown.get(key, frame.sender) != frame.sender:
                raise CohortError(f"{frame.sender} shows a key of {self.shown[key]}")
        self.shown.update(dict.fromkeys(shown, frame.sender))
        self.keys.setdefault(frame.sender, (frame.frame, keys))

    def withdraw(self, device: DeviceId) -> None:
        """It is no member, whatever it has said."""
        self.accepted.discard(device)
        self.keys.pop(device, None)

    def silent(self) -> AbstractSet[DeviceId]:
        """Neither accepted nor declined."""
        return self.invited - self.accepted - self.declined

    def satisfied(self) -> bool:
        """The wanted number has accepted; over-selected devices may still join by their keys."""
        return len(self.accepted) >= self.wanted

    def shortage(self) -> str:
        """Fewer accepted than a cohort needs."""
        return too_few(self.accepted, self.manifest.min_cohort, "accepted")

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """The manifest, to each."""
        return [Invite(device, self.manifest) for device in sorted(devices)]

    def answered(self) -> int:
        """Accepted."""
        return len(self.accepted)

    def keying(self) -> "Keying":
        """The next phase, with everything known so far."""
        return Keying(**vars(self))


@dataclass
class Keying(Inviting):
    """Members train; whoever has finished shows its keys."""

    phase: ClassVar[Phase] = Phase.KEYING

    def silent(self) -> AbstractSet[DeviceId]:
        """Invited, not declined, no keys yet."""
        return self.invited - self.declined - self.keys.keys()

    def satisfied(self) -> bool:
        """The cohort is as large as wanted."""
        return len(self.keys) >= self.wanted

    def shortage(self) -> str:
        """Fewer have trained than a cohort needs."""
        return too_few(self.keys, self.manifest.min_cohort, "trained")

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """The manifest again, to those who never answered it; training is not hurried."""
        return super().address(set(devices) - self.accepted)

    def answered(self) -> int:
        """Trained."""
        return len(self.keys)

    def cohort(self) -> Cohort:
        """U1."""
        members = tuple(frame for _, (frame, _) in sorted(self.keys.items()))
        return Cohort(self.manifest.order, self.context, members)


@dataclass
class Sharing:
    """Members share their secrets among their neighbours."""

    phase: ClassVar[Phase] = Phase.SHARING
    manifest: Manifest
    formed: FormedCohort
    shares: dict[DeviceId, SealedShares] = field(default_factory=dict)
    mail: dict[DeviceId, dict[DeviceId, bytes]] = field(default_factory=dict, repr=False)

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """Sealed shares, for exactly the neighbours."""
        said = expect(frame, SealedShares, self.formed.view.transcript)
        if frame.sender not in self.formed.view.keys:
            raise SetError(f"{frame.sender} is not in the cohort")
        receivers = [receiver for receiver, _ in said.shares]
        if receivers != sorted(self.formed.neighbours[frame.sender]):
            raise SetError(f"{frame.sender} made shares for others than its neighbours")
        if frame.sender not in self.shares:
            self.shares[frame.sender] = said
            for receiver, sealed in said.shares:
                self.mail.setdefault(DeviceId(receiver), {})[frame.sender] = sealed
        if self.shares[frame.sender] != said:
            raise SecondDecisionError(f"{frame.sender} shares its secrets a second time")
        return []

    def silent(self) -> AbstractSet[DeviceId]:
        """No shares yet."""
        return self.formed.view.keys.keys() - self.shares.keys()

    def satisfied(self) -> bool:
        """Everybody is awaited."""
        return False

    def shortage(self) -> str:
        """Too few shared for a sum that can be unmasked."""
        return too_few(self.members(), self.formed.view.fewest, "shared their secrets with enough others")

    def members(self) -> frozenset[DeviceId]:
        """U2: those who shared, without any that has fewer neighbours left than the threshold."""
        members = frozenset(self.shares)
        while True:
            core = frozenset(
                device
                for device in members
                if len(self.formed.neighbours[device] & members) >= self.formed.view.threshold
            )
            if core == members:
                return core
            members = core

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """The cohort."""
        return [Announce(self.formed.cohort)] if devices else []

    def answered(self) -> int:
        """Shared."""
        return len(self.shares)

    def collecting(self, layout: RingLayout) -> "Collecting":
        """Decide U2: the next phase."""
        members = self.members()
        before = self.formed.view.transcript
        share_set = ShareSet(self.manifest.order, before, tuple(sorted(members)))
        return Collecting(
            manifest=self.manifest,
            formed=self.formed,
            commitments={device: said.commitment for device, said in self.shares.items()},
            mail=self.mail,
            share_set=share_set,
            members=members,
            transcript=extend(before, encode(share_set)),
            total=RingVector.zeros(layout),
        )
