"""Status topics: JSON for people that our own tools read back, whatever else lies on them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import FrameError
from protocol.ids import DeviceId, Order
from protocol.status import (
    MAX_STATUS,
    CoordinatorStatus,
    DeviceStatus,
    ModelStatus,
    RoundResult,
    RoundStatus,
    Status,
    decode_status,
    device_of,
    encode_status,
    read_status,
)
from protocol.topics import Topics

TOPICS = Topics("test")
EXAMPLES: list[tuple[str, Status]] = [
    (TOPICS.coordinator_status, CoordinatorStatus("online", "0.1.0", epoch=3, devices=7, why="waiting")),
    (TOPICS.round_status, RoundStatus(4, "sharing", 9, 8, 7, 6, 0, 0, 0, needed=5, deadline_s=12.5)),
    (TOPICS.round_status, RoundStatus(4, "committing", 9, 8, 7, 6, 6, 6, 6, needed=5, deadline_s=None)),
    (TOPICS.round_result(Order(1, 1, 4)), RoundResult(4, "committed", 6, 1, loss=0.5, model="sha256:ab")),
    (
        TOPICS.round_result(Order(1, 1, 5)),
        RoundResult(5, "aborted", reason="2 devices trained; 5 are needed"),
    ),
    (TOPICS.model_status, ModelStatus(4, "ab" * 32, 3207)),
    (TOPICS.device_status(DeviceId("d1")), DeviceStatus("sleeping", "on battery", boot=2)),
]


@pytest.mark.parametrize(("topic", "status"), EXAMPLES)
def test_a_status_is_json_that_reads_back_from_its_topic(topic: str, status: Status) -> None:
    payload = encode_status(status)
    assert isinstance(json.loads(payload), dict)
    assert read_status(topic, payload) == status


def test_a_newer_program_may_say_more() -> None:
    payload = b'{"state":"online","moon":"full"}'
    assert decode_status(payload, CoordinatorStatus) == CoordinatorStatus("online")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"state":"asleep"}',
        b'{"why":"no state"}',
        b'{"state":"idle","boot":"one"}',
        b'{"state":"idle","why":"' + b"x" * 201 + b'"}',
        b"\xff\xfe",
        b"[" * 50_000,
    ],
)
def test_what_is_no_device_status_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError, match="not a DeviceStatus"):
        decode_status(payload, DeviceStatus)


def test_a_status_that_is_too_long_is_not_even_parsed() -> None:
    with pytest.raises(FrameError, match=f"longer than {MAX_STATUS}"):
        decode_status(b" " * (MAX_STATUS + 1), DeviceStatus)


@pytest.mark.parametrize("topic", ["fl/1/test/weather", "fl/1/test", "fl", "", "flw/1/test/uploads/main/d1"])
def test_an_unknown_topic_is_no_status(topic: str) -> None:
    with pytest.raises(FrameError, match="no status topic"):
        read_status(topic, b"{}")


@given(st.sampled_from([topic for topic, _ in EXAMPLES]), st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_status_or_a_frame_error(topic: str, payload: bytes) -> None:
    try:
        read_status(topic, payload)
    except FrameError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_a_presence_topic_names_its_device() -> None:
    assert device_of(TOPICS.device_status(DeviceId("d1"))) == "d1"
