"""What the round asks of every phase, and what phases ask of answers."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import ClassVar, Protocol, TypeVar

from protocol.coordinator_work import FormedCohort
from protocol.effects import Effect
from protocol.errors import ProtocolError, TranscriptError
from protocol.frames import Opened
from protocol.ids import DeviceId
from protocol.messages import (
    Accept,
    Confirmation,
    FromDevice,
    Reveal,
    RoundKeys,
    RoundMessage,
    SealedShares,
    UploadOffer,
)
from protocol.phases import Phase

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


def expect(frame: Opened[FromDevice], kind: type[_M], transcript: bytes) -> _M:
    """The answer, which must be of this kind and continue this transcript.

    Raises:
        ProtocolError: it is of another kind.
        TranscriptError: it continues another transcript.
    """
    said = frame.message
    if not isinstance(said, kind):
        raise ProtocolError(f"{frame.sender} sent {type(said).__name__} where {kind.__name__} is due")
    if said.transcript != transcript:
        raise TranscriptError(f"{frame.sender}'s {kind.__name__} continues another transcript")
    return said


def too_few(present: Collection[DeviceId], needed: int, did: str) -> str:
    """How many have done what so many are needed for; empty when they are enough."""
    return "" if len(present) >= needed else f"{len(present)} devices {did}; {needed} are needed"


def unreachable(formed: FormedCohort, targets: Iterable[DeviceId], helpers: AbstractSet[DeviceId]) -> str:
    """How many targets have fewer helpers among their neighbours than the threshold; empty for none."""
    threshold = formed.view.threshold
    short = sum(len(formed.neighbours[target] & helpers) < threshold for target in targets)
    return f"{short} members have fewer than {threshold} neighbours left" if short else ""


LAST_AWAITED: Mapping[type, Phase] = {
    Accept: Phase.KEYING,
    RoundKeys: Phase.KEYING,
    SealedShares: Phase.SHARING,
    UploadOffer: Phase.COLLECTING,
    Confirmation: Phase.CONFIRMING,
    Reveal: Phase.RECOVERING,
}
"""The last phase in which a message is awaited; said again later, it is a repeat that crossed our answer."""
