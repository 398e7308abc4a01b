"""What a round asks of the world, and what the world tells it.

A half of a round is `handle(event, now) -> list[Effect]`: it decides, the shell acts. Effects that leave the
process (`Remember`, `Charge`, `Announce`, `Send`) are carried out in the order in which they were given; the
others run beside them, and each tells its outcome with an event.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.encoding import LocalMetrics, MeanUpdate
from privacy.mode import Mode
from protocol.chunks import BlobRef
from protocol.frames import Opened
from protocol.ids import DeviceId, Order, Seconds
from protocol.messages import Decision, FromCoordinator, FromDevice, Manifest, RoundEnded, ToDevice
from protocol.plan import Training
from secagg.ring import RingVector


class Work(Protocol):
    """A pure computation too long for the event loop.

    `heavy` work is worth another process; the rest runs in a thread.
    """

    @property
    def heavy(self) -> bool:
        """Whether it deserves a process of its own."""
        ...

    def run(self) -> object:
        """Compute the result."""
        ...


# Effects of both halves.


@dataclass(frozen=True)
class WakeAt:
    """Send `Woke` at this time; replaces an earlier wish."""

    time: Seconds


@dataclass(frozen=True)
class Compute:
    """Run the work; answer with `Computed` or `ComputeFailed`."""

    work: Work


@dataclass(frozen=True)
class Refuse:
    """Count a message that broke a rule; nothing else happens."""

    error: Exception


# Effects of the coordinator's half.


@dataclass(frozen=True)
class Invite:
    """Send the manifest to one device."""

    to: DeviceId
    manifest: Manifest


@dataclass(frozen=True)
class Announce:
    """Sign a decision, record it durably, then publish it to all. The same decision again is only sent."""

    decision: Decision


@dataclass(frozen=True)
class Send:
    """Sign a message and publish it to one device's inbox."""

    to: DeviceId
    message: ToDevice


@dataclass(frozen=True)
class Receive:
    """Take a device's upload chunk by chunk; answer with `Uploaded` or `UploadFailed`."""

    device: DeviceId
    ref: BlobRef


@dataclass(frozen=True)
class StopReceiving:
    """Give up one device's upload, or all that are still open."""

    device: DeviceId | None = None


@dataclass(frozen=True)
class KeepSum:
    """Store the running sum, which does not change meanwhile; answer with `SumKept`."""

    total: RingVector = field(repr=False)


@dataclass(frozen=True)
class Commit:
    """Apply the mean update to the model, evaluate and store it; answer with `Committed`.

    `ended` is what will be announced then: model, result and end of the round are one transaction.
    """

    ended: RoundEnded
    mean: MeanUpdate
    survivors: int
    dropouts: int


# Effects of the device's half.


@dataclass(frozen=True)
class Remember:
    """Store durably that this round was entered, before anything later leaves."""

    order: Order


@dataclass(frozen=True)
class Charge:
    """Store durably what this round costs, before anything later leaves; it is never taken back.

    Attributes:
        order: the round.
        mode: whose noise.
        rho: the cost in zCDP.
    """

    order: Order
    mode: Mode
    rho: float


@dataclass(frozen=True)
class Say:
    """Sign a message and publish it to the coordinator."""

    message: FromDevice


@dataclass(frozen=True)
class Fetch:
    """Fetch bundle and weights; answer with `Fetched` or `FetchFailed`."""

    bundle: BlobRef
    weights: BlobRef


@dataclass(frozen=True)
class Train:
    """Evaluate the weights on held-out data, then train; answer with `Trained` or `TrainingFailed`."""

    bundle: bytes
    weights: bytes | memoryview
    training: Training
    min_examples: int
    seed: int


@dataclass(frozen=True)
class Upload:
    """Keep these bytes ready to be sent chunk by chunk."""

    ref: BlobRef
    data: bytes


@dataclass(frozen=True)
class SendChunks:
    """Send these chunks of the kept upload."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class Enter:
    """Tell the device's status topic what it does now."""

    state: Literal["training", "uploading"]


Effect = (
    WakeAt | Compute | Refuse | Invite | Announce | Send | Receive | StopReceiving | KeepSum | Commit
    | Remember | Charge | Say | Fetch | Train | Upload | SendChunks | Enter
)  # fmt: skip


# Events of both halves.


@dataclass(frozen=True)
class Begin:
    """The round starts."""


@dataclass(frozen=True)
class Woke:
    """A time wished for with `WakeAt` has come."""


@dataclass(frozen=True)
class Computed:
    """The work is done."""

    work: Work
    result: object


@dataclass(frozen=True)
class ComputeFailed:
    """The work ended with an error that the protocol knows."""

    work: Work
    error: Exception


# Events of the coordinator's half.


@dataclass(frozen=True)
class Heard:
    """A verified frame from a device."""

    frame: Opened[FromDevice]


@dataclass(frozen=True)
class Gone:
    """A device's connection was lost: nobody needs to wait for it, though it may come back."""

    device: DeviceId


@dataclass(frozen=True)
class Revoked:
    """A device's certificate was taken back: it is in no cohort that forms from now on."""

    device: DeviceId


@dataclass(frozen=True)
class Uploaded:
    """An upload is complete; its bytes have the promised hash."""

    device: DeviceId
    ref: BlobRef
    data: bytes | bytearray | memoryview


@dataclass(frozen=True)
class UploadFailed:
    """An upload stalled and was given up."""

    device: DeviceId


@dataclass(frozen=True)
class SumKept:
    """The running sum is stored.

    Attributes:
        blob: its SHA-256, by which it is found again.
    """

    blob: bytes


@dataclass(frozen=True)
class Committed:
    """The model is stored."""


@dataclass(frozen=True)
class Resumed:
    """The coordinator was restarted in the middle of the round; the round's time stood still meanwhile.

    Attributes:
        away: for how long, by the wall clock.
    """

    away: Seconds


# Events of the device's half.


@dataclass(frozen=True)
class Told:
    """A verified frame from the coordinator."""

    frame: Opened[FromCoordinator]


@dataclass(frozen=True)
class Reconnected:
    """The broker is back: whatever was not answered is said again."""


@dataclass(frozen=True)
class Fetched:
    """Bundle and weights are here; their hashes are the manifest's."""

    bundle: bytes
    weights: bytes | memoryview


@dataclass(frozen=True)
class Trained:
    """Training ended.

    Attributes:
        initial: weights before, float32 (d,).
        trained: weights after, float32 (d,).
        metrics: of the initial weights on this device's held-out data, and the example count.
    """

    initial: NDArray[np.float32] = field(repr=False)
    trained: NDArray[np.float32] = field(repr=False)
    metrics: LocalMetrics = field(repr=False)


@dataclass(frozen=True)
class DeviceFailed:
    """Fetching or training did not work; the reason goes to the coordinator."""

    reason: str


@dataclass(frozen=True)
class ConditionsFailed:
    """The device is not what it has to be any more. It leaves, unless its keys have: others need it then.

    Attributes:
        reason: in words.
    """

    reason: str


CoordinatorEvent = (
    Begin | Woke | Computed | ComputeFailed | Heard | Gone | Revoked | Uploaded | UploadFailed | SumKept
    | Committed | Resumed
)  # fmt: skip
DeviceEvent = (
    Begin | Woke | Computed | ComputeFailed | Told | Reconnected | Fetched | Trained | DeviceFailed
    | ConditionsFailed
)  # fmt: skip
