"""What a fleet's status topics have said so far: all that any watcher knows, and nothing else."""

import re
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from protocol.errors import FrameError
from protocol.ids import DeviceId
from protocol.status import (
    BrokerStatus,
    CoordinatorStatus,
    DeviceStatus,
    ModelStatus,
    RoundResult,
    RoundStatus,
    Status,
    device_of,
    read_status,
)

EVENTS: dict[type[Status], str] = {
    CoordinatorStatus: "coordinator",
    RoundStatus: "phase",
    RoundResult: "round",
    ModelStatus: "model",
    DeviceStatus: "device",
    BrokerStatus: "broker",
}
"""What a status is called in `--json` output."""


@dataclass(frozen=True, slots=True)
class News:
    """One status that said something new.

    Attributes:
        status: as published.
        device: whom it is about, of a `DeviceStatus`; else None.
    """

    status: Status
    device: DeviceId | None = None

    def as_event(self) -> dict[str, object]:
        """`{"event": …, …}`, ready for JSON."""
        about = {} if self.device is None else {"device": self.device}
        return {"event": EVENTS[type(self.status)], **about, **msgspec.to_builtins(self.status)}


@dataclass(slots=True)
class FleetView:
    """The newest status of everything.

    Attributes:
        coordinator: its presence; None until it has been heard of, like the others.
        round: that is open, or the last one.
        results: of the rounds that ended, by number.
        model: the newest.
        devices: presence by name.
        broker: what its guard says.
        refused: payloads that were no status.
    """

    coordinator: CoordinatorStatus | None = None
    round: RoundStatus | None = None
    results: dict[int, RoundResult] = field(default_factory=dict)
    model: ModelStatus | None = None
    devices: dict[DeviceId, DeviceStatus] = field(default_factory=dict)
    broker: BrokerStatus | None = None
    refused: int = 0

    def receive(self, topic: str, payload: bytes) -> News | None:
        """Take in what a status topic carried; None when it says nothing new, or is no status."""
        if not payload:  # a retained status was cleared
            return None
        try:
            status = read_status(topic, payload)
        except FrameError:
            self.refused += 1
            return None
        news = News(status, device_of(topic) if isinstance(status, DeviceStatus) else None)
        return news if self._keep(news) else None

    def _keep(self, news: News) -> bool:
        match news.status:
            case CoordinatorStatus() as status:
                changed = status != self.coordinator
                self.coordinator = status
            case RoundStatus() as status:
                changed = status != self.round
                self.round = status
            case RoundResult() as status:
                changed = status != self.results.get(status.round)
                self.results[status.round] = status
            case ModelStatus() as status:
                changed = status != self.model
                self.model = status
            case DeviceStatus() as status:
                changed = self._keep_device(news.device or DeviceId(""), status)
            case BrokerStatus() as status:
                changed = status != self.broker
                self.broker = status
        return changed

    def _keep_device(self, device: DeviceId, status: DeviceStatus) -> bool:
        known = self.devices.get(device)
        if known is not None and known.boot > status.boot:
            return False  # the will of an earlier boot says nothing of this one
        self.devices[device] = status
        return status != known

    @property
    def finished(self) -> bool:
        """Whether the coordinator has ended its run."""
        return self.coordinator is not None and self.coordinator.state == "finished"

    @property
    def committed(self) -> list[RoundResult]:
        """Results of the committed rounds, in order."""
        return [one for _, one in sorted(self.results.items()) if one.result == "committed"]

    @property
    def aborted(self) -> list[RoundResult]:
        """Results of the aborted rounds, in order."""
        return [one for _, one in sorted(self.results.items()) if one.result == "aborted"]

    def device_states(self) -> Counter[str]:
        """How many devices are in each state."""
        return Counter(status.state for status in self.devices.values())

    def why_asleep(self) -> Counter[str]:
        """What keeps how many devices asleep, without what each has measured."""
        whys = (status.why for status in self.devices.values() if status.state == "sleeping")
        return Counter(what for why in whys for what in re.sub(r" \([^()]*\)", "", why).split(", "))


def accuracy(result: RoundResult) -> float | None:
    """Of the new model on the coordinator's data, or else of the one before it on the devices' data."""
    return result.accuracy if result.evaluated_accuracy is None else result.evaluated_accuracy


def loss(result: RoundResult) -> float | None:
    """As `accuracy`."""
    return result.loss if result.evaluated_loss is None else result.evaluated_loss
