"""The fourth phase: masked updates come, and are added to one sum."""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar

from protocol.chunks import BlobRef
from protocol.coordinator_phases.phase import expect, too_few, unreachable
from protocol.coordinator_work import AddUpdate, FormedCohort, SortMail
from protocol.effects import Announce, Compute, Effect, KeepSum, Receive, Send, StopReceiving, Uploaded
from protocol.errors import ProtocolError, SecondDecisionError, SetError
from protocol.frames import Opened
from protocol.ids import DeviceId
from protocol.messages import (
    FromDevice,
    Manifest,
    ShareDelivery,
    ShareSet,
    Stored,
    UploadOffer,
)
from protocol.phases import Phase
from secagg.ring import RingLayout, RingVector

SUM_INTERVAL = 16
"""Updates after which the running sum is stored and they need not be kept: the disk holds at most so many and
two sums, and about 1.06 times what was received is written."""


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
        said = expect(frame, UploadOffer, self.transcript)
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
        return too_few(survivors, fewest, "uploaded") or unreachable(self.formed, self.members, survivors)

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
