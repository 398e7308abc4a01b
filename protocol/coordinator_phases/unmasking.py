"""The last phases: survivors sign who they are and reveal shares; the sum is unmasked, the model stored."""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar

from protocol.coordinator_phases.collecting import Collecting
from protocol.coordinator_phases.phase import expect, unreachable
from protocol.coordinator_work import RecoverKeys
from protocol.effects import Announce, Effect
from protocol.errors import ProtocolError, SecondDecisionError, SetError
from protocol.frames import Opened
from protocol.ids import DeviceId
from protocol.messages import Confirmation, Confirmations, FromDevice, Reveal, SurvivorSet, encode
from protocol.phases import Phase
from protocol.transcript import extend


@dataclass
class Confirming:
    """Survivors sign the survivor set."""

    phase: ClassVar[Phase] = Phase.CONFIRMING
    collected: Collecting
    survivor_set: SurvivorSet
    survivors: frozenset[DeviceId]
    transcript: bytes
    signatures: dict[DeviceId, bytes] = field(default_factory=dict)

    @classmethod
    def after(cls, collected: Collecting) -> "Confirming":
        """Decide U3: whose updates are in the sum."""
        order, stored = collected.manifest.order, collected.stored
        survivor_set = SurvivorSet(order, collected.transcript, tuple(sorted(stored)))
        return cls(
            collected, survivor_set, frozenset(stored), extend(collected.transcript, encode(survivor_set))
        )

    def hear(self, frame: Opened[FromDevice]) -> list[Effect]:
        """A confirmation, whose signature the others will verify."""
        expect(frame, Confirmation, self.transcript)
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
        return unreachable(self.collected.formed, self.collected.members, self.revealers())

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
        said = expect(frame, Reveal, self.confirmed.transcript)
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
