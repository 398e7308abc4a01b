"""Who gets a connection to a broker with the production settings, and who does not."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from secure_broker import (
    CLOCK,
    HOUR,
    Office,
    SecureBroker,
    bare_context,
    knock,
    secure_broker,
    transport,
)
from structlog.testing import capture_logs

from broker.transport import MAX_PACKET, Delivery, TransportError
from protocol.certificates import Role
from protocol.ids import DeviceId, UnixTime
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.identity import Identity, client_tls

pytestmark = pytest.mark.broker

TOPICS = Topics("f")
D1, D2 = DeviceId("d1"), DeviceId("d2")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[SecureBroker]:
    async with secure_broker(tmp_path) as running:
        yield running


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (other processes do not set our events)
            await asyncio.sleep(0.01)


def shows(identity: Identity) -> ssl.SSLContext:
    return client_tls(identity, None)


def trusting(broker: SecureBroker, identity: Identity) -> ssl.SSLContext:
    """Whatever root the identity has, the client trusts this broker, so that only the broker can refuse."""
    context = bare_context(broker)
    folder = identity.folder or Path()
    context.load_cert_chain(folder / f"{identity.name}.crt", folder / f"{identity.name}.key")
    return context


# Certificates that the broker refuses.


async def test_whoever_the_fleet_knows_comes_in(broker: SecureBroker) -> None:
    office = broker.office
    assert await knock(broker, shows(office.identity("d1"))) == "accepted"
    assert await knock(broker, shows(office.identity("claim", Role.CLAIM))) == "accepted"
    for role in (Role.COORDINATOR, Role.REGISTRAR, Role.WATCH, Role.GUARD):
        assert await knock(broker, shows(office.identity(role, role))) == "accepted"


@pytest.mark.parametrize(
    ("fleet", "alert"), [("g", "TLSV1_ALERT_UNKNOWN_CA"), ("f", "TLSV1_ALERT_DECRYPT_ERROR")]
)
async def test_another_fleets_device_does_not(
    broker: SecureBroker, tmp_path: Path, fleet: str, alert: str
) -> None:
    """Also not one of a fleet that calls itself the same."""
    stranger = Office(fleet, tmp_path / "another").identity("d1")
    assert await knock(broker, trusting(broker, stranger)) == alert


async def test_nor_anybody_without_a_certificate(broker: SecureBroker) -> None:
    assert await knock(broker, bare_context(broker)) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


async def test_nor_anybody_without_tls(broker: SecureBroker) -> None:
    assert await knock(broker, None) == "closed"


async def test_nor_by_tls_1_2(broker: SecureBroker) -> None:
    context = trusting(broker, broker.office.identity("d1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await knock(broker, context) == "TLSV1_ALERT_PROTOCOL_VERSION"


async def test_an_expired_certificate_does_not(broker: SecureBroker) -> None:
    # Issued an hour ago, for half an hour.
    assert await knock(broker, shows(broker.office.identity("d1", lifetime=HOUR / 2))) == (
        "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    )


async def test_a_brokers_certificate_is_no_clients(broker: SecureBroker) -> None:
    other = broker.office.identity("broker-2", Role.BROKER, addresses=["127.0.0.1"])
    assert await knock(broker, shows(other)) == "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"


async def test_a_device_cannot_issue(broker: SecureBroker) -> None:
    """A device signs a certificate for another name with its own key, and shows both."""
    device = broker.office.identity("d1")
    forger = FleetAuthority.of_registrar(device, UnixTime(CLOCK.unix() - 60), lambda size: b"\x01" * size)
    forged = broker.office._keep(forger.issue("coordinator", Role.COORDINATOR))
    assert await knock(broker, shows(forged)) in {"TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE"}


# Revocation.


async def test_a_revoked_device_does_not_come_in_again(broker: SecureBroker) -> None:
    office, seen = broker.office, list[Delivery]()
    stolen, other = office.identity("d1"), office.identity("d2")
    coordinator = office.identity("coordinator", Role.COORDINATOR)
    async with transport(broker.address, stolen) as live, transport(broker.address, coordinator) as says:
        await live.subscribe(TOPICS.inbox(D1), seen.append)
        office.revoke(stolen)
        office.write_lists(broker.files / "revoked.crl")
        broker.reload()
        await until(lambda: "Reloading config" in broker.log())
        assert await knock(broker, shows(stolen)) == "SSLV3_ALERT_CERTIFICATE_REVOKED"
        assert await knock(broker, shows(other)) == "accepted"
        # Mosquitto looks at lists when a connection begins; to end this one is the registrar's part.
        await says.publish(TOPICS.inbox(D1), b"still")
        await until(lambda: seen)


async def test_a_refused_client_says_what_may_be_wrong(broker: SecureBroker) -> None:
    expired = broker.office.identity("d1", lifetime=HOUR / 2)
    with capture_logs() as logs:
        waiting = asyncio.create_task(transport(broker.address, expired).__aenter__())
        await until(lambda: logs)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert "may have expired or been revoked" in logs[0]["cause"]


async def test_a_list_that_is_missing_shuts_out_all_that_its_issuer_signed(broker: SecureBroker) -> None:
    office = broker.office
    only_root = office.root.revocation_list(2, {}, UnixTime(CLOCK.unix() + HOUR))
    (broker.files / "revoked.crl").write_bytes(only_root.public_bytes(Encoding.PEM))
    await broker.restart(keep_state=True)
    assert await knock(broker, shows(office.identity("d1"))) != "accepted"
    assert await knock(broker, shows(office.identity("watch", Role.WATCH)), "watch") == "accepted"


# Names.


async def test_a_device_cannot_take_anothers_client_id(broker: SecureBroker) -> None:
    seen, losses = list[Delivery](), list[bool]()
    d1, d2 = broker.office.identity("d1"), broker.office.identity("d2")
    coordinator = broker.office.identity("coordinator", Role.COORDINATOR)
    async with transport(broker.address, d1) as victim, transport(broker.address, coordinator) as says:
        await victim.subscribe(TOPICS.inbox(D1), seen.append)
        victim.on_connection(losses.append)
        async with transport(broker.address, d2, client_id="d1") as thief:
            stolen = list[Delivery]()
            await thief.subscribe(TOPICS.inbox(D1), stolen.append)
            await thief.subscribe(TOPICS.inbox(D2), stolen.append)
            await says.publish(TOPICS.inbox(D1), b"for d1")
            await says.publish(TOPICS.inbox(D2), b"for d2")
            await until(lambda: seen and stolen)
            assert losses == [True]
    assert [one.payload for one in seen] == [b"for d1"]
    assert [one.payload for one in stolen] == [b"for d2"]


async def test_a_packet_beyond_the_limit_ends_the_connection(broker: SecureBroker) -> None:
    heard = list[Delivery]()
    device = broker.office.identity("d1")
    coordinator = broker.office.identity("coordinator", Role.COORDINATOR)
    async with transport(broker.address, coordinator) as hears:
        await hears.subscribe(TOPICS.every_outbox, heard.append)
        async with transport(broker.address, device, max_payload=MAX_PACKET * 2) as large:
            losses = list[bool]()
            large.on_connection(losses.append)
            with pytest.raises(TransportError):
                await large.publish(TOPICS.outbox(D1), bytes(MAX_PACKET))
            await until(lambda: losses[-2:] == [False, True])
            await large.publish(TOPICS.outbox(D1), b"small")
            await until(lambda: heard)
    assert [len(one.payload) for one in heard] == [len(b"small")]


# Brokers that a client refuses.


async def test_only_the_fleets_broker_under_its_own_address_is_believed(tmp_path: Path) -> None:
    office = Office("f", tmp_path / "ours")
    device = office.identity("d1")
    impostors = [
        Office("f", tmp_path / "theirs").identity("broker", Role.BROKER, addresses=["127.0.0.1"]),
        office.identity("broker", Role.BROKER, addresses=["broker.example"]),
        office.identity("d2"),
        office._keep(office.root.issue("d3", Role.DEVICE, addresses=["127.0.0.1"])),
        office.identity("broker", Role.BROKER, addresses=["127.0.0.1"], lifetime=HOUR / 2),
    ]
    for impostor in impostors:
        async with SecureBroker.of(office, server=impostor) as broker:
            assert await knock(broker, shows(device)) == "CERTIFICATE_VERIFY_FAILED", broker.log()


# State.


async def test_what_the_broker_has_saved_survives_a_kill(broker: SecureBroker) -> None:
    waiting, kept = list[Delivery](), list[Delivery]()
    device, coordinator = (
        broker.office.identity("d1"),
        broker.office.identity("coordinator", Role.COORDINATOR),
    )
    async with transport(broker.address, device, clean=False) as away:
        await away.subscribe(TOPICS.inbox(D1), waiting.append)
    async with transport(broker.address, coordinator) as says:
        await says.publish(TOPICS.inbox(D1), b"queued")
        await says.publish(TOPICS.round_status, b"kept", retain=True)
    saved, now = broker.state / "mosquitto.db", CLOCK.unix()
    await until(lambda: saved.exists() and saved.stat().st_mtime > now)
    await broker.restart_after_kill()
    back = transport(broker.address, device, clean=False)
    await back.subscribe(TOPICS.inbox(D1), waiting.append)
    watch = broker.office.identity("watch", Role.WATCH)
    async with back, transport(broker.address, watch) as watcher:
        await watcher.subscribe(TOPICS.round_status, kept.append)
        await until(lambda: waiting and kept)
    assert [one.payload for one in waiting] == [b"queued"]
    assert [one.payload for one in kept] == [b"kept"]
