"""The rules grant what the programs do, nothing else, and Mosquitto reads them so."""

import itertools
import json

import pytest

from broker.access import ALWAYS, access_of, mosquitto_rules, role_called
from broker.nats import nats_users, subject, subjects
from broker.routing import matches
from protocol.ids import DeviceId, Order
from protocol.messages import DECISION_TOPICS
from protocol.roles import Role
from protocol.topics import Topics

TOPICS = Topics("f")
D1, D2 = DeviceId("d1"), DeviceId("d2")
ORDER = Order(1, 2, 3)
NAMES = ("d1", "d2", "coordinator", "registrar", "watch", "watch-alice", "guard", "claim", "broker")


def topics_of(device: DeviceId) -> list[str]:
    return [
        TOPICS.offer(device),
        TOPICS.inbox(device),
        TOPICS.outbox(device),
        TOPICS.wants(device),
        TOPICS.upload("main", device),
        TOPICS.device_status(device),
        TOPICS.enrolment_request(device),
        TOPICS.enrolment_answer(device),
    ]


PUBLIC = [
    TOPICS.coordinator_status,
    TOPICS.round_status,
    TOPICS.round_result(ORDER),
    TOPICS.model_status,
    TOPICS.broker_status,
    *(TOPICS.decision(ORDER, name) for name in DECISION_TOPICS.values()),
    TOPICS.high_water,
    TOPICS.pace,
    TOPICS.revocations,
    TOPICS.blob_chunk(bytes(32), 0),
    TOPICS.enrolment_request("token"),
    TOPICS.enrolment_answer("token"),
]
PUBLIC_OF_DEVICES = [
    TOPICS.coordinator_status,
    TOPICS.blob_chunk(bytes(32), 0),
    TOPICS.pace,
    TOPICS.revocations,
    *(TOPICS.decision(ORDER, name) for name in DECISION_TOPICS.values()),
]
OUTSIDE = ["fl/1/g/coordinator", "flw/1/g/devices/d1/inbox", "x", "$SYS/broker/version", "flw/1/f/rounds"]
PROBES = [TOPICS.probe(name) for name in NAMES]
EVERY = [*topics_of(D1), *topics_of(D2), *PUBLIC, *OUTSIDE, *PROBES]


def says(name: str) -> set[str]:
    """To others; what it tells itself is everybody's own business."""
    return {topic for topic in EVERY if _any(access_of(TOPICS, name).publish, topic)} - {TOPICS.probe(name)}


def hears(name: str) -> set[str]:
    return {topic for topic in EVERY if _any(access_of(TOPICS, name).subscribe, topic)} - {TOPICS.probe(name)}


def _any(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(one, topic) for one in filters)


def test_a_device_speaks_for_itself_and_hears_what_is_for_it() -> None:
    assert says("d1") == {
        TOPICS.offer(D1),
        TOPICS.outbox(D1),
        TOPICS.wants(D1),
        TOPICS.upload("main", D1),
        TOPICS.device_status(D1),
        TOPICS.enrolment_request(D1),
    }
    assert hears("d1") == {
        TOPICS.inbox(D1),
        TOPICS.enrolment_answer(D1),
        TOPICS.revocations,
        TOPICS.pace,
        TOPICS.coordinator_status,
        TOPICS.blob_chunk(bytes(32), 0),
        *(TOPICS.decision(ORDER, name) for name in DECISION_TOPICS.values()),
    }


def test_only_the_coordinator_decides() -> None:
    decisions = {TOPICS.decision(ORDER, name) for name in DECISION_TOPICS.values()}
    decisions |= {TOPICS.inbox(D1), TOPICS.blob_chunk(bytes(32), 0), TOPICS.model_status, TOPICS.high_water}
    decisions |= {TOPICS.pace}
    assert decisions <= says("coordinator")
    theirs = {TOPICS.offer(D1), TOPICS.outbox(D1), TOPICS.wants(D1), TOPICS.upload("main", D1)}
    assert theirs <= hears("coordinator")
    assert not hears("coordinator") & {TOPICS.inbox(D1), TOPICS.enrolment_request("token")}
    for name in set(NAMES) - {"coordinator"}:
        assert not says(name) & decisions


def test_only_the_registrar_revokes_and_answers() -> None:
    theirs = {TOPICS.revocations, TOPICS.enrolment_answer("token")}
    assert theirs <= says("registrar")
    assert hears("registrar") >= {TOPICS.enrolment_request("token"), TOPICS.broker_status}
    for name in set(NAMES) - {"registrar"}:
        assert not says(name) & theirs


def test_the_small_roles() -> None:
    assert says("guard") == {TOPICS.broker_status}
    assert hears("guard") == {TOPICS.revocations}
    assert says("watch") == says("watch-alice") == says("broker") == hears("broker") == set()
    assert hears("watch") == hears("watch-alice") == {topic for topic in EVERY if topic.startswith("fl/1/f/")}
    assert all("/enrolment/" in topic for topic in says("claim") | hears("claim"))
    assert not says("claim") & hears("claim")


@pytest.mark.parametrize(
    ("name", "role"),
    [("d1", Role.DEVICE), ("watchful", Role.DEVICE), ("watch", Role.WATCH), ("watch-a", Role.WATCH),
     ("coordinator-2", Role.COORDINATOR), ("claim", Role.CLAIM), ("devices", Role.DEVICE)],
)  # fmt: skip
def test_a_name_tells_the_role(name: str, role: Role) -> None:
    assert role_called(name) is role


# As Mosquitto reads a file: a user's denials, a user's grants, then the patterns, which are for everybody.


def mosquitto(rules: str, name: str, topic: str, way: str) -> bool:
    user, found = "", list[bool]()
    for line in rules.splitlines():
        kind, *rest = line.split()[:1] and line.split()
        if kind == "user":
            user = rest[0]
        elif kind == "topic" and user == name and rest[0] == "deny" and matches(rest[1], topic):
            return False
        elif kind == "pattern" or (kind == "topic" and user == name):
            found.append(way in rest[0] and matches(rest[1].replace("%u", name), topic))
    return any(found)


def readable(rules: str) -> str:
    return "\n".join(line for line in rules.splitlines() if line and not line.startswith("#"))


def test_mosquitto_grants_exactly_this() -> None:
    rules = readable(mosquitto_rules(TOPICS, ("watch-alice",)))
    for name, topic in itertools.product(NAMES, EVERY):
        itself = topic == TOPICS.probe(name)
        said, heard = itself or topic in says(name), itself or topic in hears(name)
        assert mosquitto(rules, name, topic, "write") is said, (name, topic)
        # A denial is of both ways, so nobody can be kept from hearing what they say on a public topic.
        own = said and topic in PUBLIC_OF_DEVICES
        assert mosquitto(rules, name, topic, "read") is (heard or own), (name, topic)


def test_who_is_no_device_has_none_of_a_devices_topics() -> None:
    rules = readable(mosquitto_rules(TOPICS, ("watch-alice",)))
    for name in set(NAMES) - {"d1", "d2"}:
        for topic, way in itertools.product(topics_of(DeviceId(name)), ("read", "write")):
            assert not mosquitto(rules, name, topic, way), (name, topic)


def test_everybody_talks_to_itself_and_to_no_other_self() -> None:
    for name, other in itertools.product(NAMES, NAMES):
        access = access_of(TOPICS, name)
        assert _any(access.publish, TOPICS.probe(other)) is (name == other)
        assert _any(access.subscribe, TOPICS.probe(other)) is (name == other)


def test_a_name_of_a_device_adds_no_rules() -> None:
    assert mosquitto_rules(TOPICS, ("d1", "watch")) == mosquitto_rules(TOPICS)
    for role in ALWAYS:
        assert f"\nuser {role}\n" in mosquitto_rules(TOPICS)


# As NATS reads its users: what is allowed, by the subject of a certificate.


def nats(name: str, topic: str, way: str) -> bool:
    users = nats_users(TOPICS, NAMES, generation=3)
    lines = (line for line in users.splitlines() if json.dumps(subject(TOPICS, name, 3)) in line)
    permissions = json.loads(next(lines).partition("permissions: ")[2].rstrip(",").removesuffix("}"))[way]
    # The wildcards of NATS are those of MQTT in other letters.
    as_mqtt = [
        one.replace(".", "/").replace("*", "+").replace(">", "#") for one in permissions.get("allow", ())
    ]
    assert permissions.get("allow") or permissions["deny"] == [">"]
    return any(matches(one, topic) for one in as_mqtt)


def test_nats_grants_exactly_this() -> None:
    for name, topic in itertools.product(NAMES, EVERY):
        itself = topic == TOPICS.probe(name)
        assert nats(name, topic, "publish") is (topic in says(name) or itself), (name, topic)
        assert nats(name, topic, "subscribe") is (topic in hears(name) or itself), (name, topic)


def test_a_wide_filter_has_two_subjects() -> None:
    assert list(subjects("fl/1/f/#")) == ["fl.1.f", "fl.1.f.>"]
    assert list(subjects("flw/1/f/blobs/+/+")) == ["flw.1.f.blobs.*.*"]
