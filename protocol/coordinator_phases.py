"""The coordinator's phases, one class each: what is known in it, whom it awaits, what it makes of an answer.

A phase never decides that it is over; `protocol.coordinator_round` does, asking it `silent` and `shortage`.
"""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

from protocol.chunks import BlobRef
from protocol.cohort import MemberKeys, keys_of
from protocol.coordinator_work import AddUpdate, FormedCohort, RecoverKeys, SortMail
from protocol.effects import (
    Announce,
    Compute,
    Effect,
    Invite,
    KeepSum,
    Receive,
    Send,
    StopReceiving,
    Uploaded,
)
from protocol.errors import CohortError, ProtocolError, SecondDecisionError, SetError, TranscriptError
from protocol.frames import Opened
from protocol.ids import DeviceId
from protocol.messages import (
    Accept,
    Cohort,
    Confirmation,
    Confirmations,
    FromDevice,
    Manifest,
    Reveal,
    RoundKeys,
    RoundMessage,
    SealedShares,
    ShareDelivery,
    ShareSet,
    Stored,
    SurvivorSet,
    UploadOffer,
    encode,
)
from protocol.phases import Phase
from protocol.transcript import extend
from secagg.ring import RingLayout, RingVector

SUM_INTERVAL = 16
"""Updates after which the running sum is stored and they need not be kept: the disk holds at most so many and
two sums, and about 1.06 times what was received is written."""

_M = TypeVar("_M", bound=RoundMessage)


class PhaseState(Protocol):
    """What the round asks of every phase."""

    phase: ClassVar[Phase]

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """Take an answer; raises PeerError when it breaks a rule."""
        ...

    def silent(self) -> AbstractSet[DeviceId]:
        """Awaited devices that have not answered."""
        ...

    def satisfied(self) -> bool:
        """Whether the phase may end although some are silent."""
        ...

    def shortage(self) -> str:
        """Why the round cannot go on with the answers there are; empty when it can."""
        ...

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """What the phase says to these devices; said again to those who stay silent."""
        ...

    def answered(self) -> int:
        """How many have answered."""
        ...


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

    def silent(self) -> AbstractSet[DeviceId]:
        """Neither accepted nor declined."""
        return self.invited - self.accepted - self.declined

    def satisfied(self) -> bool:
        """The wanted number has accepted; over-selected devices may still join by their keys."""
        return len(self.accepted) >= self.wanted

    def shortage(self) -> str:
        """Fewer accepted than a cohort needs."""
        return _too_few(self.accepted, self.manifest.min_cohort, "accepted")

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
        return _too_few(self.keys, self.manifest.min_cohort, "trained")

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
        said = _expect(frame, SealedShares, self.formed.view.transcript)
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
        return _too_few(self.members(), self.formed.view.fewest, "shared their secrets with enough others")

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


@dataclass
class Collecting:
    """Members mask and upload; each update is added to one running sum and dropped."""

    phase: ClassVar[Phase] = Phase.COLLECTING
    manifest: Manifest
    formed: FormedCohort
    commitments: Mapping[DeviceId, bytes]
    mail: Mapping[DeviceId, Mapping[DeviceId, bytes]] = field(repr=False)
    share_set: ShareSet
    members: frozenset[DeviceId]
    transcript: bytes
    total: RingVector = field(repr=False)
    deliveries: Mapping[DeviceId, ShareDelivery] = field(default_factory=dict, repr=False)
    sorting: bool = False
    offered: dict[DeviceId, BlobRef] = field(default_factory=dict)
    arrived: set[DeviceId] = field(default_factory=set)
    stored: dict[DeviceId, bytes] = field(default_factory=dict)
    waiting: list[Uploaded] = field(default_factory=list, repr=False)
    adding: bool = False

    @property
    def layout(self) -> RingLayout:
        """Of every update."""
        return self.total.layout

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """An upload is offered; the first offer of a device stands."""
        said = _expect(frame, UploadOffer, self.transcript)
        device, ref = frame.sender, said.blob
        if device not in self.members:
            raise SetError(f"{device} is not in the share set")
        if ref.size != self.layout.packed_size:
            raise ProtocolError(f"{device} offers {ref.size} bytes; {self.layout.packed_size} are due")
        if device not in self.offered:
            self.offered[device] = ref
            return [Receive(device, ref)]
        if self.offered[device] != ref:
            raise SecondDecisionError(f"{device} offers a second masked update")
        return [Send(device, Stored(self.manifest.order, ref.sha256))] if device in self.stored else []

    def take(self, upload: Uploaded) -> list[Effect]:
        """An upload is complete; one is added at a time, because the sum is changed in place."""
        if self.offered.get(upload.device) != upload.ref or upload.device in self.arrived:
            return []  # it was given up meanwhile
        self.arrived.add(upload.device)
        self.waiting.append(upload)
        return self._add_next()

    def give_up(self, device: DeviceId) -> list[Effect]:
        """A lost device's place among the uploads goes to the next one; it may offer again."""
        if device not in self.offered or device in self.arrived:
            return []
        del self.offered[device]
        return [StopReceiving(device)]

    def _add_next(self) -> list[Effect]:
        if self.adding or not self.waiting:
            return []
        upload = self.waiting.pop(0)
        self.adding = True
        return [Compute(AddUpdate(self.total, upload.device, upload.ref, upload.data))]

    def added(self, device: DeviceId) -> list[Effect]:
        """The update is in the sum."""
        ref = self.offered[device]
        if device in self.stored:
            raise SecondDecisionError(f"I4: the update of {device} was added twice")
        self.stored[device] = ref.sha256
        told = Send(device, Stored(self.manifest.order, ref.sha256))
        if len(self.stored) % SUM_INTERVAL or not self.silent():
            return [told, *self.next_upload()]
        return [told, KeepSum(self.total)]

    def next_upload(self) -> list[Effect]:
        """The sum is free for the next update."""
        self.adding = False
        return self._add_next()

    def silent(self) -> AbstractSet[DeviceId]:
        """Not in the sum yet."""
        return self.members - self.stored.keys()

    def satisfied(self) -> bool:
        """Everybody is awaited."""
        return False

    def shortage(self) -> str:
        """Too few in the sum, or a mask that could not be removed."""
        survivors = frozenset(self.stored)
        fewest = self.formed.view.fewest
        return _too_few(survivors, fewest, "uploaded") or _unreachable(self.formed, self.members, survivors)

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """The share set to all, and to each what its neighbours sealed for it, until it offers its upload."""
        silent = sorted(set(devices) - self.offered.keys())
        if not silent:
            return []
        if not self.deliveries and self.sorting:
            return [Announce(self.share_set)]
        if not self.deliveries:
            self.sorting = True
            # Long for a large cohort; `deliver` follows.
            order = self.manifest.order
            return [
                Announce(self.share_set),
                Compute(SortMail(order, self.transcript, self.mail, self.members)),
            ]
        return [Announce(self.share_set), *(Send(device, self.deliveries[device]) for device in silent)]

    def deliver(self, deliveries: Mapping[DeviceId, ShareDelivery]) -> list[Effect]:
        """What `SortMail` has put together, to each."""
        self.deliveries = deliveries
        return [Send(device, delivery) for device, delivery in deliveries.items()]

    def answered(self) -> int:
        """In the sum."""
        return len(self.stored)

    def confirming(self) -> "Confirming":
        """Decide U3: the next phase."""
        survivor_set = SurvivorSet(self.manifest.order, self.transcript, tuple(sorted(self.stored)))
        transcript = extend(self.transcript, encode(survivor_set))
        return Confirming(self, survivor_set, frozenset(self.stored), transcript)


@dataclass
class Confirming:
    """Survivors sign the survivor set."""

    phase: ClassVar[Phase] = Phase.CONFIRMING
    collected: Collecting
    survivor_set: SurvivorSet
    survivors: frozenset[DeviceId]
    transcript: bytes
    signatures: dict[DeviceId, bytes] = field(default_factory=dict)

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """A confirmation, whose signature the others will verify."""
        _expect(frame, Confirmation, self.transcript)
        if frame.sender not in self.survivors:
            raise SetError(f"{frame.sender} is not a survivor")
        self.signatures[frame.sender] = frame.signature
        return []

    def silent(self) -> AbstractSet[DeviceId]:
        """Not confirmed yet."""
        return self.survivors - self.signatures.keys()

    def satisfied(self) -> bool:
        """Everybody is awaited."""
        return False

    def shortage(self) -> str:
        """Too few confirmed to let enough others reveal."""
        return _unreachable(self.collected.formed, self.collected.members, self.revealers())

    def revealers(self) -> frozenset[DeviceId]:
        """Survivors with at least the threshold of confirmed neighbours."""
        formed = self.collected.formed
        return frozenset(
            device
            for device in self.survivors
            if len(formed.neighbours[device] & self.signatures.keys()) >= formed.view.threshold
        )

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """The survivor set."""
        return [Announce(self.survivor_set)] if devices else []

    def answered(self) -> int:
        """Confirmed."""
        return len(self.signatures)

    def recovering(self) -> "Recovering":
        """Pass the signatures on: the next phase."""
        order = self.collected.manifest.order
        signatures = Confirmations(order, self.transcript, tuple(sorted(self.signatures.items())))
        lacking = dict.fromkeys(self.collected.members, self.collected.formed.view.threshold)
        return Recovering(self, signatures, self.revealers(), lacking=lacking)


@dataclass
class Recovering:
    """Survivors reveal one share for each neighbour."""

    phase: ClassVar[Phase] = Phase.RECOVERING
    confirmed: Confirming
    confirmations: Confirmations
    revealers: frozenset[DeviceId]
    reveals: dict[DeviceId, Mapping[DeviceId, bytes]] = field(default_factory=dict, repr=False)
    lacking: dict[DeviceId, int] = field(default_factory=dict)
    tried: int = 0

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """Shares for neighbours in the share set."""
        said = _expect(frame, Reveal, self.confirmed.transcript)
        device, collected = frame.sender, self.confirmed.collected
        if device not in self.confirmed.survivors:
            raise SetError(f"{device} is not a survivor")
        peers = [peer for peer, _ in said.shares]
        allowed = collected.formed.neighbours[device] & collected.members
        if peers != sorted(set(peers)):
            raise SetError(f"{device} reveals two shares of one neighbour, or not in their order")
        if not allowed.issuperset(map(DeviceId, peers)):
            raise SetError(f"{device} reveals shares of others than its neighbours")
        shares = {DeviceId(peer): share for peer, share in said.shares}
        if device not in self.reveals:
            self.reveals[device] = shares
            for peer in shares.keys() & self.lacking.keys():
                self._count(peer)
        if self.reveals[device] != shares:
            raise SecondDecisionError(f"{device} reveals other shares than before")
        return []

    def _count(self, peer: DeviceId) -> None:
        self.lacking[peer] -= 1
        if not self.lacking[peer]:
            del self.lacking[peer]

    def silent(self) -> AbstractSet[DeviceId]:
        """Able to reveal, but has not."""
        return self.revealers - self.reveals.keys()

    def satisfied(self) -> bool:
        """Every secret has enough shares, and there are new ones since the last attempt."""
        return not self.shortage() and len(self.reveals) > self.tried

    def shortage(self) -> str:
        """A secret with fewer shares than the threshold; `lacking` says how many each still needs."""
        if not self.lacking:
            return ""
        return f"{len(self.lacking)} secrets have fewer shares than the threshold"

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:
        """The confirmations."""
        return [Announce(self.confirmations)] if devices else []

    def recover_keys(self) -> RecoverKeys:
        """The computation that opens the sum, with the shares there are now."""
        collected = self.confirmed.collected
        survivors = sorted(self.confirmed.survivors)
        return RecoverKeys(
            view=collected.formed.view,
            neighbours=collected.formed.neighbours,
            commitments=collected.commitments,
            survivors=survivors,
            dropouts=sorted(collected.members - self.confirmed.survivors),
            reveals=dict(self.reveals),
            transcript=collected.transcript,
        )

    def answered(self) -> int:
        """Revealed."""
        return len(self.reveals)


@dataclass
class Committing:
    """The sum is known; the model is being stored. Nobody is awaited."""

    phase: ClassVar[Phase] = Phase.COMMITTING
    survivors: int
    dropouts: int

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """Nothing is expected any more."""
        raise ProtocolError(f"{frame.sender} speaks while the model is stored")

    def silent(self) -> AbstractSet[DeviceId]:
        """Nobody."""
        return frozenset()

    def satisfied(self) -> bool:
        """Only the store ends this phase."""
        return False

    def shortage(self) -> str:
        """None."""
        return ""

    def address(self, devices: Collection[DeviceId]) -> list[Effect]:  # noqa: ARG002 - the same for every phase
        """Nothing to say."""
        return []

    def answered(self) -> int:
        """The survivors."""
        return self.survivors


LAST_AWAITED: Mapping[type, Phase] = {
    Accept: Phase.KEYING,
    RoundKeys: Phase.KEYING,
    SealedShares: Phase.SHARING,
    UploadOffer: Phase.COLLECTING,
    Confirmation: Phase.CONFIRMING,
    Reveal: Phase.RECOVERING,
}
"""The last phase in which a message is awaited; said again later, it is a repeat that crossed our answer."""


def _expect(frame: Opened[FromDevice], kind: type[_M], transcript: bytes) -> _M:
    said = frame.message
    if not isinstance(said, kind):
        raise ProtocolError(f"{frame.sender} sent {type(said).__name__} where {kind.__name__} is due")
    if said.transcript != transcript:
        raise TranscriptError(f"{frame.sender}'s {kind.__name__} continues another transcript")
    return said


def _too_few(present: Collection[DeviceId], needed: int, did: str) -> str:
    return "" if len(present) >= needed else f"{len(present)} devices {did}; {needed} are needed"


def _unreachable(formed: FormedCohort, targets: Iterable[DeviceId], helpers: AbstractSet[DeviceId]) -> str:
    threshold = formed.view.threshold
    short = sum(len(formed.neighbours[target] & helpers) < threshold for target in targets)
    return f"{short} members have fewer than {threshold} neighbours left" if short else ""
