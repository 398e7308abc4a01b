"""A watcher's view: what it keeps of the status topics, and what it does not believe."""

from console.fleet_view import FleetView, News, accuracy, loss
from protocol.ids import DeviceId
from protocol.status import (
    CoordinatorStatus,
    DeviceStatus,
    ModelStatus,
    RoundResult,
    RoundStatus,
    Status,
    encode_status,
)

ROOT = "fl/1/plant"
OPEN_ROUND = RoundStatus(7, "collecting", 10, 10, 10, 10, 4, 0, 0, 5, 21.5)


def told(view: FleetView, topic: str, status: Status) -> News | None:
    return view.receive(f"{ROOT}/{topic}", encode_status(status))


def test_every_kind_of_status_finds_its_place() -> None:
    view = FleetView()
    told(view, "coordinator", CoordinatorStatus("online", epoch=2, devices=10))
    told(view, "round", OPEN_ROUND)
    told(view, "rounds/6", RoundResult(6, "committed", survivors=9))
    told(view, "rounds/5", RoundResult(5, "aborted", reason="too few"))
    told(view, "model", ModelStatus(6, "ab" * 32, 3207))
    told(view, "devices/d1", DeviceStatus("training", boot=1))
    told(view, "devices/d2", DeviceStatus("idle", boot=1))
    assert view.coordinator == CoordinatorStatus("online", epoch=2, devices=10)
    assert view.round == OPEN_ROUND
    assert [one.round for one in view.committed] == [6]
    assert [one.round for one in view.aborted] == [5]
    assert view.model == ModelStatus(6, "ab" * 32, 3207)
    assert view.device_states() == {"training": 1, "idle": 1}


def test_what_keeps_devices_asleep_is_counted_without_what_each_has_measured() -> None:
    view = FleetView()
    for name, why in {
        "d1": "on battery (41 %, needs 60 %), too hot (81 °C, needs at most 70 °C)",
        "d2": "on battery (7 %, needs 60 %)",
        "d3": "network metered",
    }.items():
        told(view, f"devices/{name}", DeviceStatus("sleeping", why, 1))
    told(view, "devices/d4", DeviceStatus("idle", "too hot", 1))
    assert view.why_asleep() == {"on battery": 2, "too hot": 1, "network metered": 1}


def test_a_status_that_repeats_is_no_news() -> None:
    view = FleetView()
    assert told(view, "round", OPEN_ROUND) == News(OPEN_ROUND)
    assert told(view, "round", OPEN_ROUND) is None


def test_the_will_of_an_earlier_boot_says_nothing() -> None:
    view = FleetView()
    told(view, "devices/d1", DeviceStatus("idle", boot=3))
    assert told(view, "devices/d1", DeviceStatus("lost", boot=2)) is None
    assert view.devices == {"d1": DeviceStatus("idle", boot=3)}
    told(view, "devices/d1", DeviceStatus("lost", boot=3))
    assert view.device_states() == {"lost": 1}


def test_what_is_no_status_is_counted_and_dropped() -> None:
    view = FleetView()
    assert view.receive(f"{ROOT}/round", b"{") is None
    assert view.receive(f"{ROOT}/weather", b"{}") is None
    assert view.receive("fl", b"{}") is None
    assert view.refused == 3
    assert view.round is None


def test_a_cleared_topic_is_no_status_and_no_mistake() -> None:
    view = FleetView()
    assert view.receive(f"{ROOT}/rounds/1", b"") is None
    assert view.refused == 0


def test_news_name_their_event_and_device() -> None:
    event = News(DeviceStatus("lost", boot=4), DeviceId("d1")).as_event()
    assert event == {"event": "device", "device": "d1", "state": "lost", "why": "", "boot": 4}
    assert News(OPEN_ROUND).as_event()["event"] == "phase"
    assert News(RoundResult(1, "committed")).as_event()["event"] == "round"


def test_the_coordinators_own_evaluation_is_preferred() -> None:
    assert accuracy(RoundResult(1, "committed", accuracy=0.5, evaluated_accuracy=0.6)) == 0.6
    assert accuracy(RoundResult(1, "committed", accuracy=0.5)) == 0.5
    assert loss(RoundResult(1, "committed", loss=1.5, evaluated_loss=1.0)) == 1.0
    assert loss(RoundResult(1, "aborted")) is None
