"""`fedfleet doctor` at real brokers: the production settings, and the same spoiled one by one."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from examined import DAY, changed, coordinator, device, registrar
from secure_broker import CLOCK, ENTROPY, HOUR, Office, SecureBroker, secure_broker, transport

from broker.embedded import EmbeddedBroker
from broker.mqtt import MqttTransport
from broker.transport import Delivery
from console.demo_files import bundled_plan
from console.doctor.examination import Examination
from console.doctor.findings import Finding
from console.doctor.rules import ground
from console.doctor.running import examine
from device_agent.settings import Floors, PrivacySettings
from protocol.certificates import Role
from protocol.ids import DeviceId, UnixTime
from protocol.revocations import encode_revocations
from protocol.status import BrokerStatus, CoordinatorStatus, encode_status
from protocol.topics import Topics
from runtime.identity import Identity, load_identity

pytestmark = pytest.mark.broker

TOPICS = Topics("f")
STRICT = {
    "floors": Floors(min_enrolled_age=60.0),
    "privacy": PrivacySettings("distributed", epsilon=8.0),
}


def url(broker: EmbeddedBroker) -> str:
    return f"{'mqtts' if broker.address.tls else 'mqtt'}://127.0.0.1:{broker.address.port}"


def at(patient: Examination, broker: EmbeddedBroker, **changes: Any) -> Examination:
    """The patient now, on its way to this broker."""
    here = {"clock": CLOCK, "entropy": ENTROPY, "production": True, "urls": (url(broker),)}
    return changed(patient, **here | changes)


async def examined(
    patient: Examination, *, runs: bool = False, takeover: bool = False
) -> dict[str, list[Finding]]:
    """What was found, by check."""
    found: dict[str, list[Finding]] = {}
    for one in await asyncio.to_thread(examine, patient, program_runs=runs, takeover=takeover):
        found.setdefault(one.check, []).append(one)
    assert all(one.fix for ones in found.values() for one in ones if one.result != "ok")
    return found


def bad(found: dict[str, list[Finding]]) -> dict[str, str]:
    """The checks that found something, and how bad the worst of it is."""
    return {
        name: "failure" if any(one.result == "failure" for one in ones) else "warning"
        for name, ones in found.items()
        if any(one.result != "ok" for one in ones)
    }


async def a_living_fleet(office: Office, broker: SecureBroker) -> None:
    """Registrar, guard and coordinator have said what they say, retained."""
    crl = office.registrar.revocation_list(3, {}, UnixTime(CLOCK.unix() + 7 * DAY))
    certificate = office.registrar.certificate.public_bytes(Encoding.DER)
    message = encode_revocations(certificate, crl.public_bytes(Encoding.DER))
    await says(broker, the_registrar(office), TOPICS.revocations, message)
    online = encode_status(CoordinatorStatus("online", "1", devices=3))
    await says(broker, office.identity("coordinator", Role.COORDINATOR), TOPICS.coordinator_status, online)
    guarded = encode_status(BrokerStatus("online", 3))
    await says(broker, office.identity("guard", Role.GUARD), TOPICS.broker_status, guarded)


async def says(broker: SecureBroker, who: Identity, topic: str, payload: bytes) -> None:
    async with transport(broker.address, who) as bus:
        await bus.publish(topic, payload, retain=True)


def the_registrar(office: Office) -> Identity:
    """Who issues for this office."""
    (folder,) = office.folder.glob("registrar-*")
    return load_identity(folder)


# The production settings.


async def test_an_agent_at_a_production_broker_is_well(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        await a_living_fleet(broker.office, broker)
        patient = device(tmp_path, broker.office.identity("d1"), mosquitto_conf=broker.settings_file)
        found = await examined(at(patient, broker, **STRICT))
    assert bad(found) == {"mosquitto.lists": "warning"}  # they are good for an hour
    assert {name for name in found if name.startswith(("rules.", "session.", "broker."))} == {
        *("rules.permitted", "rules.say", "rules.hear", "rules.name", "session.kept", "session.retained"),
        *("session.large", "session.too-large", "session.keepalive", "broker.encryption", "broker.name"),
        *("broker.port", "broker.tls", "broker.older-tls", "broker.strangers"),
    }


async def test_a_coordinator_at_a_production_broker_is_well(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        await a_living_fleet(broker.office, broker)
        own = broker.office.identity("coordinator", Role.COORDINATOR)
        found = await examined(at(coordinator(tmp_path, bundled_plan(), own), broker))
    assert bad(found) == {"plan.floors": "warning"}  # the plan of the demo adds no noise


async def test_a_registrar_at_a_production_broker_is_well(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        await a_living_fleet(broker.office, broker)
        found = await examined(at(registrar(tmp_path, the_registrar(broker.office)), broker))
    assert bad(found) == {}
    assert found["fleet.guard"][0].cause == "online, and the broker goes by list 3"


async def test_a_registrar_misses_its_guard(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        await a_living_fleet(broker.office, broker)
        patient = at(registrar(tmp_path, the_registrar(broker.office)), broker)
        guard = broker.office.identity("guard", Role.GUARD)
        for status, cause in (
            (BrokerStatus("online", 2, "no pid"), "goes by list 2, the newest is 3: no pid"),
            (BrokerStatus("lost"), "the guard is lost"),
        ):
            await says(broker, guard, TOPICS.broker_status, encode_status(status))
            found = await examined(patient)
            assert bad(found) == {"fleet.guard": "failure"}
            assert cause in found["fleet.guard"][0].cause
            assert "fedfleet guard" in found["fleet.guard"][0].fix


async def test_a_fleet_in_which_nobody_is_there(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        patient = at(device(tmp_path, broker.office.identity("d1")), broker, **STRICT)
        assert bad(await examined(patient)) == {
            "fleet.revocations": "failure",
            "fleet.coordinator": "warning",
        }


# Settings that were spoiled.


class SpoiledBroker(SecureBroker):
    """The production settings with other lines in them."""

    changes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def spoiled(cls, office: Office, *changes: tuple[str, str]) -> "SpoiledBroker":
        """`changes` are what stands there and what is to stand there."""
        broker = cls.of(office)
        assert isinstance(broker, SpoiledBroker)
        broker.changes = changes
        return broker

    def _mosquitto(self) -> list[str]:
        arguments = super()._mosquitto()
        text = self.settings_file.read_text()
        for old, new in self.changes:
            assert old in text
            text = text.replace(old, new)
        self.settings_file.write_text(text)
        return arguments


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("acl_file ", "# acl_file ")], {"rules.say": "failure", "rules.hear": "failure"}),
        ([("use_username_as_clientid true", "")], {"rules.name": "failure"}),
        ([("max_packet_size 2097152", "max_packet_size 100000")], {"session.large": "failure"}),
        ([("max_packet_size 2097152", "max_packet_size 9000000")], {"session.too-large": "failure"}),
        ([("max_keepalive 300", "max_keepalive 65535")], {"session.keepalive": "warning"}),
        ([("persistence true", "persistence true\nretain_available false")], {"session.retained": "failure"}),
        ([("tls_version tlsv1.3", "tls_version tlsv1.2")], {"broker.older-tls": "failure"}),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
async def test_each_spoiled_setting_is_found(
    tmp_path: Path, changes: list[tuple[str, str]], expected: dict[str, str]
) -> None:
    office = Office("f", tmp_path / "identities")
    async with SpoiledBroker.spoiled(office, *changes) as broker:
        found = bad(await examined(at(device(tmp_path, office.identity("d1")), broker, **STRICT)))
    nobody = {"fleet.revocations": "failure", "fleet.coordinator": "warning"}
    assert {name: found[name] for name in found.keys() - nobody.keys()} == expected


async def test_a_broker_that_asks_for_nothing(tmp_path: Path) -> None:
    office = Office("f", tmp_path / "identities")
    changes = [
        ("require_certificate true", ""),
        ("use_identity_as_username true", ""),
        ("use_username_as_clientid true", ""),
        ("allow_anonymous false", "allow_anonymous true"),
        ("acl_file ", "# acl_file "),
    ]
    async with SpoiledBroker.spoiled(office, *changes) as broker:
        found = await examined(at(device(tmp_path, office.identity("d1")), broker))
    assert [one.cause for one in found["broker.strangers"]] == ["the broker lets in a client without a name"]
    assert {"rules.say", "rules.hear", "rules.name", "broker.strangers"} <= bad(found).keys()


async def test_rules_that_forget_one_thing(tmp_path: Path) -> None:
    """Devices can speak for each other, and the broker tells so only in its answer to a publish."""
    async with secure_broker(tmp_path) as broker:
        rules = broker.files / "acl"
        rules.write_text(rules.read_text() + "\npattern write flw/1/f/devices/+/outbox\n")
        broker.reload()
        found = await examined(at(device(tmp_path, broker.office.identity("d1")), broker, **STRICT))
    (one,) = (one for one in found["rules.say"] if one.result == "failure")
    assert one.cause.startswith("flw/1/f/devices/watch/outbox may be published to")
    assert "`fedfleet access`" in one.fix


@pytest.mark.parametrize(("engine", "more"), [("mosquitto", set()), ("nats", {"session.keepalive"})])
async def test_a_broker_for_one_desk_is_content_with_warnings(
    tmp_path: Path, engine: Literal["mosquitto", "nats"], more: set[str]
) -> None:
    async with EmbeddedBroker.start(engine) as broker:
        login = {"username": broker.address.user, "password": broker.address.password}
        patient = at(device(tmp_path), broker, production=False, clock=device(tmp_path).clock, **login)
        found = bad(await examined(patient))
        graver = bad(await examined(replace(patient, production=True)))
    expected = {"broker.encryption", "rules.say", "rules.hear", "rules.name"}
    logins = {"broker.strangers"}  # who has the password needs no certificate
    assert found == dict.fromkeys(expected | more | {"fleet.coordinator"}, "warning")
    assert {name for name, result in graver.items() if result == "failure"} == expected | logins


# Certificates.


@pytest.mark.parametrize(
    ("certificate", "cause", "fix"),
    [
        ({"lifetime": HOUR / 2}, "the broker's certificate has expired", "fedfleet ca renew"),
        ({"addresses": ["elsewhere.example"]}, "is for another host", "fedfleet ca issue"),
    ],
)
async def test_a_brokers_wrong_certificate(
    tmp_path: Path, certificate: dict[str, Any], cause: str, fix: str
) -> None:
    office = Office("f", tmp_path / "identities")
    server = office.identity("broker", Role.BROKER, **({"addresses": ["127.0.0.1"]} | certificate))
    async with SecureBroker.of(office, server=server) as broker:
        found = await examined(at(device(tmp_path, office.identity("d1")), broker))
    assert found["broker.tls"][0].result == found["connection"][0].result == "failure"
    assert cause in found["broker.tls"][0].cause
    assert fix in found["broker.tls"][0].fix


async def test_a_broker_of_another_fleet(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        stranger = Office("f", tmp_path / "others").identity("d1")
        found = await examined(at(device(tmp_path, stranger), broker))
    assert found["broker.tls"][0].cause == "who signed the broker's certificate is not known"
    assert "broker.authorities" in found["broker.tls"][0].fix


async def test_a_device_that_the_broker_does_not_know(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        stranger = Office("f", tmp_path / "others").identity("d1")
        patient = at(device(tmp_path, stranger), broker, authorities=broker.files / "fleet.crt")
        found = await examined(patient)
    assert found["broker.tls"][0].cause == "the broker does not know who signed our certificate"


async def test_a_revoked_device(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        own = broker.office.identity("d1")
        broker.office.revoke(own)
        broker.office.write_lists(broker.files / "revoked.crl")
        broker.reload()
        found = await examined(at(device(tmp_path, own), broker))
    assert found["broker.tls"][0].cause == "the broker says that our certificate was revoked"


# Nobody is disturbed.


async def test_what_waited_for_an_agent_still_waits_after_the_doctor(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        own = broker.office.identity("d1")
        got: list[bytes] = []

        async def agent() -> MqttTransport:
            bus = transport(broker.address, own, clean=False)
            await bus.subscribe(TOPICS.inbox(DeviceId("d1")), lambda one: got.append(one.payload))
            return bus

        async with await agent():
            pass
        boss = transport(broker.address, broker.office.identity("coordinator", Role.COORDINATOR))
        async with boss:
            for number in range(30):  # more than a broker has under way at once
                await boss.publish(TOPICS.inbox(DeviceId("d1")), bytes([number]))
        await examined(at(device(tmp_path, own), broker))
        assert got == []
        async with await agent():
            for _ in range(500):
                if len(got) == 30:
                    break
                await asyncio.sleep(0.01)
    assert got == [bytes([number]) for number in range(30)]


async def test_a_running_program_is_pushed_off_and_comes_back(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        await a_living_fleet(broker.office, broker)
        own = broker.office.identity("d1")
        program = transport(broker.address, own, clean=False)
        program._uniform = lambda: 0.9  # it comes back after 0.9 s, and then pushes the doctor off
        losses: list[bool] = []
        program.on_connection(losses.append)
        async with program:
            found = await examined(at(device(tmp_path, own), broker, **STRICT), runs=True, takeover=True)
            for _ in range(500):
                if program.connected:
                    break
                await asyncio.sleep(0.01)
            assert program.connected
    assert losses.count(False) >= 1
    assert "failure" not in bad(found).values()


async def test_a_new_device_leaves_no_session(tmp_path: Path) -> None:
    async with secure_broker(tmp_path) as broker:
        patient = at(device(tmp_path, broker.office.identity("d1")), broker)
        await examined(patient)
        patient = replace(patient, broker=patient.settings.broker.addresses[0])

        def session_present() -> bool:
            with patient.connect() as probe:
                return probe.greeting.session_present

        assert not await asyncio.to_thread(session_present)


@pytest.mark.parametrize("role", [Role.DEVICE, Role.COORDINATOR, Role.REGISTRAR])
async def test_only_topics_that_nobody_uses_are_spoken_on(tmp_path: Path, role: Role) -> None:
    office = Office("f", tmp_path / "identities")
    patient = {
        Role.DEVICE: lambda: device(tmp_path, office.identity("d1")),
        Role.COORDINATOR: lambda: coordinator(
            tmp_path, bundled_plan(), office.identity("coordinator", Role.COORDINATOR)
        ),
        Role.REGISTRAR: lambda: registrar(tmp_path, the_registrar(office)),
    }[role]()
    name = patient.identity.name
    witnessed: list[Delivery] = []
    kept: list[Delivery] = []
    async with SpoiledBroker.spoiled(office, ("acl_file ", "# acl_file ")) as broker:
        witness = transport(broker.address, office.identity("witness"))
        await witness.subscribe("#", witnessed.append)
        async with witness:
            await examined(at(patient, broker))
        async with transport(broker.address, office.identity("later")) as later:
            await later.subscribe("#", kept.append)
            await later.publish("end", b"")
            await later.subscribe("end", lambda _: None)
    where = ground(TOPICS, role, name)
    assert {one.topic for one in witnessed} == {TOPICS.probe(name), where.hears, where.says, *where.neither}
    assert [one for one in kept if one.retained] == []
