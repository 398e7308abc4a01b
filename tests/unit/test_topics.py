"""Every topic fits every broker: few levels, plain names, no overlap between people and machines."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import NAME_PATTERN, DeviceId, Name, Order
from protocol.messages import DECISION_TOPICS
from protocol.topics import MACHINES, PEOPLE, Topics

LONGEST = "x" * 64
HIGHEST = Order(2**32 - 1, 2**53 - 1, 2**53 - 1)


def every_topic(fleet: str, device: DeviceId, order: Order) -> tuple[list[str], list[str]]:
    """The topics for people and those for machines."""
    topics = Topics(fleet)
    people = [
        topics.coordinator_status,
        topics.round_status,
        topics.round_result(order),
        topics.model_status,
        topics.device_status(device),
    ]
    machines = [
        topics.offer(device),
        topics.inbox(device),
        topics.outbox(device),
        topics.wants(device),
        *(topics.decision(order, name) for name in DECISION_TOPICS.values()),
        topics.probe(device),
        topics.upload("main", device),
        topics.blob_chunk(bytes(32), 4095),
    ]
    return people, machines


@given(st.from_regex(NAME_PATTERN, fullmatch=True), st.from_regex(NAME_PATTERN, fullmatch=True))
def test_every_level_is_a_name_and_there_are_few(fleet: str, device: str) -> None:
    people, machines = every_topic(fleet, DeviceId(device), HIGHEST)
    for topic in people + machines:
        assert topic.count("/") <= 7
        assert all(re.fullmatch(NAME_PATTERN, level) for level in topic.split("/"))


def test_the_two_roots_do_not_meet() -> None:
    people, machines = every_topic(LONGEST, DeviceId(LONGEST), HIGHEST)
    assert all(topic.startswith(f"{PEOPLE}/{LONGEST}/") for topic in people)
    assert all(topic.startswith(f"{MACHINES}/{LONGEST}/") for topic in machines)
    assert len(set(people + machines)) == len(people + machines)


@pytest.mark.parametrize(
    ("name", "valid"),
    [("a", True), ("a_b-9", True), (LONGEST, True), ("", False), (LONGEST + "x", False), ("a.b", False),
     ("A", False), ("a/b", False), ("+", False), ("#", False), ("é", False), ("a b", False)],
)  # fmt: skip
def test_what_a_name_is(name: str, valid: bool) -> None:  # noqa: FBT001 - a parameter of the table
    assert bool(re.fullmatch(NAME_PATTERN, name)) is valid


def test_filters_take_exactly_their_own() -> None:
    topics, device, order = Topics("test"), DeviceId("d1"), Order(1, 2, 3)
    for one, many in (
        (topics.offer(device), topics.every_offer),
        (topics.outbox(device), topics.every_outbox),
        (topics.upload("main", device), topics.every_upload("main")),
        (topics.device_status(device), topics.every_device_status),
        (topics.decision(order, "cohort"), topics.decisions(order)),
        (topics.decision(order, "cohort"), topics.every_decision),
        (topics.round_result(order), topics.every_round_result),
        (topics.blob_chunk(bytes(32), 7), topics.every_blob_chunk),
    ):
        assert re.fullmatch(many.replace("+", "[^/]+"), one)
    assert not re.fullmatch(topics.every_offer.replace("+", "[^/]+"), topics.outbox(device))
    assert topics.decisions(order) != topics.decisions(Order(1, 3, 3))
    assert topics.everything_for_people == "fl/1/test/#"


@pytest.mark.parametrize("name", ["a\n", "a.b", "", "x" * 65, "a/b"])
def test_what_is_no_name_does_not_come_in_over_the_wire(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(name), type=Name)
