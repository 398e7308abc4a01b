"""Where the doctor tries a broker's rules, and what it makes of a connection that it cannot keep."""

from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

import pytest
from examined import changed, device

from broker.access import Access, access_of
from broker.address import BrokerAddress
from broker.mqtt_connection import MqttSettings
from broker.probe import Greeting, Probe, ProbeError, TakenOverError
from broker.routing import matches
from console.doctor.findings import Finding
from console.doctor.rules import ground
from console.doctor.running import ATTEMPTS, examine
from protocol.roles import Role
from protocol.topics import Topics

TOPICS = Topics("f")
CLIENTS = [(Role.DEVICE, "d1"), (Role.COORDINATOR, "coordinator"), (Role.REGISTRAR, "registrar")]


def may_say(access: Access, topic: str) -> bool:
    return any(matches(one, topic) for one in access.publish)


def may_hear(access: Access, topic: str) -> bool:
    return any(matches(one, topic) for one in access.subscribe)


@pytest.mark.parametrize(("role", "name"), CLIENTS)
def test_the_ground_is_what_the_rules_say(role: Role, name: str) -> None:
    access, where = access_of(TOPICS, name), ground(TOPICS, role, name)
    assert may_hear(access, where.hears)
    assert not may_say(access, where.hears)
    assert may_say(access, where.says)
    assert not may_hear(access, where.says)
    assert not any(may_say(access, topic) for topic in where.neither)
    assert may_say(access, TOPICS.probe(name))
    assert may_hear(access, TOPICS.probe(name))


# A running program takes its connection back.


class Line:
    """Connections that turn out as written down; later ones fail."""

    greeting = Greeting(modern=True, session_present=True)

    def __init__(self, *outcomes: ProbeError | None) -> None:
        self._outcomes = list(outcomes)

    def dial(self, _address: BrokerAddress, _settings: MqttSettings, _now: Callable[[], float]) -> Probe:
        return cast("Probe", self)

    def __enter__(self) -> Self:
        outcome = self._outcomes.pop(0) if self._outcomes else ProbeError("the line is dead")
        if outcome is not None:
            raise outcome
        return self

    def __exit__(self, *_: object) -> None:
        pass


def connected_by(folder: Path, line: Line, *, takeover: bool) -> Finding:
    patient = changed(device(folder), urls=("mqtts://127.0.0.1:9",), dial=line.dial)
    (found,) = (one for one in examine(patient, takeover=takeover) if one.check == "connection")
    return found


PUSHED = TakenOverError("another client has connected under the same name")


def test_who_is_pushed_out_says_by_whom(tmp_path: Path) -> None:
    found = connected_by(tmp_path, Line(None, PUSHED), takeover=False)
    assert (found.result, found.cause) == ("failure", str(PUSHED))
    assert "stop the program that has this name" in found.fix
    assert "copy of its key" in found.fix


def test_a_takeover_is_tried_more_than_once(tmp_path: Path) -> None:
    line = Line(None, *[PUSHED] * (ATTEMPTS - 1), None)
    assert connected_by(tmp_path, line, takeover=True).result == "ok"
    assert connected_by(tmp_path, Line(None, *[PUSHED] * ATTEMPTS), takeover=True).cause == str(PUSHED)


def test_who_is_hung_up_on_is_told_why(tmp_path: Path) -> None:
    found = connected_by(tmp_path, Line(None, ProbeError("the broker hung up: Banned")), takeover=False)
    assert (found.result, found.cause) == ("failure", "the broker hung up: Banned")
    assert "broker's log" in found.fix
