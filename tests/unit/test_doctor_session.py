"""What the doctor makes of brokers that do less than a real one, or answer otherwise."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, cast

import pytest
from examined import changed, device, only, worst

from broker.address import BrokerAddress
from broker.mqtt_connection import MqttSettings
from broker.probe import DENIED, Greeting, Probe, ProbeError, TakenOverError
from console.doctor import rules, session
from console.doctor.examination import Examination
from console.doctor.findings import Findings

OWN = "flw/1/f/probe/d1"
GOOD = Greeting(modern=True, session_present=True, keepalive=300)


@dataclass
class Broker:
    """What a broker does with one message after the other.

    Attributes:
        greeting: to everybody.
        echoes: whether a message comes back to who listens.
        code: its answer to a publish; an error is raised.
        refuses: whether a client with these settings is turned away.
    """

    greeting: Greeting = GOOD
    echoes: Callable[[str], bool] = lambda topic: topic == OWN
    code: Callable[[str, bytes], int] = lambda _topic, _payload: 0
    refuses: Callable[[MqttSettings], bool] = lambda _: False
    heard: set[tuple[str, bytes]] = field(default_factory=set)
    connected: list[MqttSettings] = field(default_factory=list)

    def dial(self, _address: BrokerAddress, settings: MqttSettings, _now: Callable[[], float]) -> Probe:
        self.connected.append(settings)
        return cast("Probe", self)

    def __enter__(self) -> Self:
        if self.refuses(self.connected[-1]):
            raise ProbeError("no")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def subscribe(self, _topic: str) -> int:
        return 0

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        assert not (retain and topic != OWN)
        if self.echoes(topic):
            self.heard.add((topic, payload))
        return self.code(topic, payload)

    def hears(self, topic: str, payload: bytes, *, retained: bool | None = None) -> bool:
        return self.has_heard(topic, payload, retained=retained)

    def has_heard(self, topic: str, payload: bytes, *, retained: bool | None = None) -> bool:
        del retained
        return (topic, payload) in self.heard


def at(folder: Path, broker: Broker) -> Examination:
    patient = device(folder)
    (address,) = patient.settings.broker.addresses
    return changed(patient, broker_address=address, dial=broker.dial)


def raising(error: ProbeError, *, when: Callable[[str, bytes], bool]) -> Callable[[str, bytes], int]:
    def code(topic: str, payload: bytes) -> int:
        if when(topic, payload):
            raise error
        return 0

    return code


def test_a_broker_of_the_older_version(tmp_path: Path) -> None:
    broker = Broker(Greeting(modern=False, session_present=False))
    assert "MQTT 3.1.1" in only(session.connection(at(tmp_path, broker))).cause


def test_sessions_that_are_forgotten(tmp_path: Path) -> None:
    patient = at(tmp_path, Broker(Greeting(modern=True, session_present=False)))
    found = worst(session.sessions(patient))
    assert found.result == "failure"
    assert "persistent_client_expiration" in found.fix


@pytest.mark.parametrize(
    "check", [rules.permitted, session.retained, session.large], ids=["permitted", "retained", "large"]
)
def test_a_broker_that_drops_what_it_acknowledges(
    tmp_path: Path, check: Callable[[Examination], Findings]
) -> None:
    found = worst(check(at(tmp_path, Broker(echoes=lambda _: False))))
    assert found.result == "failure"
    assert "not" in found.cause


def test_large_messages_that_are_hung_up_on_or_denied(tmp_path: Path) -> None:
    hangs = raising(ProbeError("Packet too large"), when=lambda _, payload: len(payload) > 100_000)
    found = worst(session.large(at(tmp_path, Broker(code=hangs))))
    assert "Packet too large" in found.cause
    assert "max_packet_size" in found.fix
    denied = Broker(code=lambda _, payload: DENIED if len(payload) > 100_000 else 0)
    assert worst(session.large(at(tmp_path, denied))).result == "failure"
    assert only(session.too_large(at(tmp_path, denied))).result == "ok"
    assert only(session.too_large(at(tmp_path, Broker(code=hangs)))).result == "ok"


@pytest.mark.parametrize(
    "check", [session.large, session.too_large, rules.forbidden_to_say, rules.forbidden_to_hear]
)
def test_who_is_pushed_off_found_nothing_out(
    tmp_path: Path, check: Callable[[Examination], Findings]
) -> None:
    pushes = raising(TakenOverError("pushed"), when=lambda _topic, _payload: True)
    with pytest.raises(TakenOverError):
        [*check(at(tmp_path, Broker(code=pushes)))]


def test_a_longest_keepalive(tmp_path: Path) -> None:
    patient = at(tmp_path, Broker())
    assert only(session.keepalive(patient)).cause == "300 s at most"
    for greeting in (
        Greeting(modern=True, session_present=True),
        Greeting(modern=True, session_present=True, keepalive=900),
    ):
        assert worst(session.keepalive(at(tmp_path, Broker(greeting)))).fix.startswith(
            "write max_keepalive 300"
        )
    strict = Broker(refuses=lambda settings: settings.keepalive > 300)
    assert only(session.keepalive(at(tmp_path, strict))).result == "ok"


def test_another_client_id_that_is_refused(tmp_path: Path) -> None:
    broker = Broker(refuses=lambda settings: settings.client_id != "d1")
    assert only(session.own_name(at(tmp_path, broker))).cause == "another client id than the name is refused"


def test_client_ids_that_are_free(tmp_path: Path) -> None:
    broker = Broker()
    assert worst(session.own_name(at(tmp_path, broker))).result == "failure"
    # What was left under a name that is not ours is cleaned away.
    assert broker.connected[-1].client_id == broker.connected[-2].client_id != "d1"
    assert broker.connected[-1].clean
    assert not any(one.clean for one in broker.connected[:-1])


# Rules.


def test_a_broker_that_hangs_up_on_who_tries(tmp_path: Path) -> None:
    strict = Broker(code=raising(ProbeError("not authorised"), when=lambda topic, _: topic != OWN))
    assert {one.result for one in rules.forbidden_to_say(at(tmp_path, strict))} == {"ok"}
    assert only(rules.forbidden_to_hear(at(tmp_path, strict))).result == "ok"


def test_an_answer_counts_only_where_brokers_tell_the_truth(tmp_path: Path) -> None:
    """By MQTT 3.1.1 a publish that was denied is acknowledged like any other."""
    modern, old = Broker(), Broker(Greeting(modern=False, session_present=True))
    assert {one.result for one in rules.forbidden_to_say(at(tmp_path, modern))} == {"failure"}
    assert {one.result for one in rules.forbidden_to_say(at(tmp_path, old))} == {"ok"}


def test_what_comes_back_was_let_through_whatever_the_broker_says(tmp_path: Path) -> None:
    liar = Broker(echoes=lambda _: True, code=lambda topic, _: 0 if topic == OWN else DENIED + 7)
    assert {one.result for one in rules.forbidden_to_say(at(tmp_path, liar))} == {"failure"}
    assert only(rules.forbidden_to_hear(at(tmp_path, liar))).result == "failure"
    development = replace(at(tmp_path, liar), broker=None)
    (address,) = development.settings.broker.addresses
    plain = replace(development, broker=replace(address, tls=False))
    assert {one.result for one in rules.forbidden_to_say(plain)} == {"warning"}
