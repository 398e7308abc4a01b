"""A round's masks as its devices and its coordinator make and remove them, without their messages.

Every device has fresh keys, shares its secrets with its neighbours in the graph, opens what they shared with
it, and masks; some then vanish. The coordinator adds what arrives, recovers the survivors' seeds and the
vanished ones' keys from shares, and takes the masks off. All of it is the programs' own code
(`protocol.device_work`, `protocol.coordinator_work`, `secagg`). Left out are certificates and signatures: a
thousand devices that each check a thousand of them would take minutes here, and change no number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from protocol.chunks import describe
from protocol.cohort import CohortView, MemberKeys
from protocol.coordinator_work import AddUpdate, ExpandMasks, RecoverKeys
from protocol.device_work import MaskUpdate, Membership
from protocol.ids import DeviceId, Order
from protocol.messages import SealedShares
from protocol.plan import SecureAggregation
from secagg import graph, shamir
from secagg.keys import RoundSecrets, Secret, derive, seed_commitment
from secagg.ring import RingLayout, RingVector
from secagg.sealing import Channel, open_channel

_NO_SIGNING_KEY = bytes(32)


@dataclass
class MaskedRound:
    """One round: `take` every member's vector, then `unmask`.

    Attributes:
        layout: of the vectors.
        settings: of the graph: who may be corrupt, who may vanish.
        members: of the cohort, all of whom mask.
        vanishing: members whose masked vector never arrives.
        seed: of all secrets; different for each round.
    """

    layout: RingLayout
    settings: SecureAggregation
    members: tuple[DeviceId, ...]
    vanishing: frozenset[DeviceId]
    seed: bytes
    total: RingVector = field(init=False)

    def __post_init__(self) -> None:
        self.total = RingVector.zeros(self.layout)
        self._secrets = {
            name: RoundSecrets.from_master(Secret(self._hash(name.encode()))) for name in self.members
        }
        settings = self.settings
        rule = graph.parameters(len(self.members), settings.corrupt_fraction, settings.dropout_fraction)
        keys = {
            name: MemberKeys(secrets.mask_public, secrets.seal_public, _NO_SIGNING_KEY)
            for name, secrets in self._secrets.items()
        }
        fewest = len(self.members) - len(self.vanishing)
        self._view = CohortView(self._hash(b"T1"), self.members, keys, rule.degree, rule.threshold, fewest)
        self._masking = self._hash(b"T2")
        self._neighbours = self._view.neighbours()
        self._memberships = {name: self._join(name) for name in self.members}
        self._mail = _sort(self._memberships)
        self._held: dict[DeviceId, Mapping[DeviceId, tuple[bytes, bytes]]] = {}

    def take(self, name: DeviceId, vector: RingVector) -> None:
        """Mask a member's vector in place, and add it to the sum unless it never arrives."""
        work = MaskUpdate(
            vector=vector,
            own=name,
            membership=self._memberships[name],
            transcript=self._masking,
            live=self._neighbours[name],
            delivered=self._mail[name],
            secrets=self._secrets[name],
        )
        masked = work.run()
        self._held[name] = masked.held
        if name not in self.vanishing:
            AddUpdate(self.total, name, describe(masked.data), masked.data).run()

    def unmask(self) -> RingVector:
        """The sum of the survivors' vectors."""
        survivors = [name for name in self.members if name not in self.vanishing]
        recover = RecoverKeys(
            view=self._view,
            neighbours=self._neighbours,
            commitments={name: self._memberships[name].shares.commitment for name in survivors},
            survivors=survivors,
            dropouts=sorted(self.vanishing),
            reveals={name: self._reveal(name) for name in survivors},
            transcript=self._masking,
        )
        self.total.add(ExpandMasks(self.layout, recover.run()).run())
        return self.total

    def _reveal(self, name: DeviceId) -> dict[DeviceId, bytes]:
        """For each neighbour the share of its own mask when it survived, of its mask key when it vanished."""
        return {peer: pair[peer in self.vanishing] for peer, pair in self._held[name].items()}

    def _join(self, name: DeviceId) -> Membership:
        """As `JoinCohort` does once it has checked the cohort."""
        view, secrets, near = self._view, self._secrets[name], sorted(self._neighbours[name])
        connect = partial(open_channel, secrets.seal_private, transcript=view.transcript, own=name)
        channels = {peer: connect(view.keys[peer].seal_key, peer=peer) for peer in near}
        commitment = seed_commitment(view.transcript, name, secrets.self_seed)
        sealed = _seal(view, channels, secrets)
        shares = SealedShares(Order(1, 1, 1), view.transcript, commitment, sealed)
        return Membership(view, self._neighbours[name], channels, shares)

    def _hash(self, what: bytes) -> bytes:
        return sha256(self.seed + what).digest()


def _seal(
    view: CohortView, channels: Mapping[DeviceId, Channel], secrets: RoundSecrets
) -> tuple[tuple[DeviceId, bytes], ...]:
    everyone = view.points()
    points = [everyone[peer] for peer in channels]
    both = [
        (secret, derive(secrets.share_key, salt=view.transcript, label=b"fedfleet/1/share/" + use))
        for use, secret in ((b"self-seed", secrets.self_seed), (b"mask-private", secrets.mask_private))
    ]
    shares = shamir.split_many(both, threshold=view.threshold, points=points)
    return tuple((peer, channels[peer].seal(shares[everyone[peer]])) for peer in channels)


def _sort(memberships: Mapping[DeviceId, Membership]) -> dict[DeviceId, dict[DeviceId, bytes]]:
    """Sealed pairs by receiver and sender."""
    mail: dict[DeviceId, dict[DeviceId, bytes]] = {name: {} for name in memberships}
    for sender, membership in memberships.items():
        for receiver, sealed in membership.shares.shares:
            mail[DeviceId(receiver)][sender] = sealed
    return mail
