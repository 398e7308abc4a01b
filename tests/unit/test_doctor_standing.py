"""What the doctor makes of what others have left at the broker."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from examined import DAY, NOW, StillClock, authority, changed, device, only, registrar, registrar_of, worst

from broker.address import BrokerAddress
from broker.mqtt_connection import MqttSettings
from broker.probe import Probe
from broker.transport import Delivery
from console.doctor import standing
from console.doctor.examination import Examination
from protocol.certificates import Role
from protocol.ids import UnixTime
from protocol.revocations import encode_revocations
from protocol.status import BrokerStatus, CoordinatorStatus, encode_status
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.identity import Identity

TOPICS = Topics("f")


class Board:
    """A broker that keeps these messages and says nothing else."""

    def __init__(self, kept: Mapping[str, bytes]) -> None:
        self._kept = kept
        self.received: list[Delivery] = []

    def dial(self, _address: BrokerAddress, _settings: MqttSettings, _now: Callable[[], float]) -> Probe:
        self.received = []
        return cast("Probe", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def subscribe(self, topic: str) -> int:
        if topic in self._kept:
            self.received.append(Delivery(topic, self._kept[topic], retained=True))
        return 0

    def publish(self, _topic: str, _payload: bytes) -> int:
        return 0

    def hears(self, _topic: str, _payload: bytes) -> bool:
        return True

    def waits_for(self, happened: Callable[[], bool], *, patience: float) -> bool:
        assert patience < 1
        return happened()


def at(patient: Examination, kept: Mapping[str, bytes]) -> Examination:
    (address,) = patient.settings.broker.addresses
    return changed(patient, broker_address=address, dial=Board(kept).dial)


def listed(
    issuer: FleetAuthority, number: int = 4, *, left: float = 7 * DAY, revoked: Identity | None = None
) -> dict[str, bytes]:
    """The registrar's list."""
    serials = [x509.load_der_x509_certificate(one.certificate).serial_number for one in [revoked] if one]
    crl = issuer.revocation_list(number, dict.fromkeys(serials, NOW), UnixTime(NOW + left))
    certificate = issuer.certificate.public_bytes(Encoding.DER)
    return {TOPICS.revocations: encode_revocations(certificate, crl.public_bytes(Encoding.DER))}


@pytest.fixture
def issuer() -> FleetAuthority:
    return registrar_of(authority())[0]


# The list.


def test_a_good_list(tmp_path: Path, issuer: FleetAuthority) -> None:
    patient = device(tmp_path, issuer.issue("d1", Role.DEVICE))
    found = only(standing.revocations(at(patient, listed(issuer))))
    assert (found.result, found.cause) == ("ok", "list 4, good for another 7.0 days, does not name us")


def test_no_list(tmp_path: Path, issuer: FleetAuthority) -> None:
    enrolled = device(tmp_path, issuer.issue("d1", Role.DEVICE))
    assert worst(standing.revocations(at(enrolled, {}))).result == "failure"
    development = at(device(tmp_path), {})
    assert only(standing.revocations(development)).result == "ok"
    assert worst(standing.revocations(changed(development, production=True))).result == "warning"


def test_a_list_that_ends_soon_and_one_that_has_ended(tmp_path: Path, issuer: FleetAuthority) -> None:
    patient = device(tmp_path, issuer.issue("d1", Role.DEVICE))
    soon = worst(standing.revocations(at(patient, listed(issuer, left=7200.0))))
    assert (soon.result, soon.cause) == ("warning", "list 4 expires in 2.0 h")
    later = changed(patient, clock=StillClock(NOW + 8 * DAY))
    over = worst(standing.revocations(at(later, listed(issuer))))
    assert (over.result, over.cause) == ("failure", "revocation list 4 has expired")
    assert "fedfleet registrar" in over.fix


def test_a_list_that_names_us(tmp_path: Path, issuer: FleetAuthority) -> None:
    own = issuer.issue("d1", Role.DEVICE)
    found = worst(standing.revocations(at(device(tmp_path, own), listed(issuer, revoked=own))))
    assert found.cause == "list 4 takes our certificate back"
    assert "enrol again" in found.fix


def test_a_list_of_somebody_else(tmp_path: Path, issuer: FleetAuthority) -> None:
    patient = device(tmp_path, issuer.issue("d1", Role.DEVICE))
    other = registrar_of(authority())[0]
    for kept in (listed(other), {TOPICS.revocations: b"?"}):
        assert worst(standing.revocations(at(patient, kept))).result == "failure"


# The guard.


@pytest.fixture
def office(tmp_path: Path) -> tuple[Examination, FleetAuthority]:
    by, own = registrar_of(authority())
    return registrar(tmp_path, own), by


@pytest.mark.parametrize(
    ("status", "result", "cause"),
    [
        (BrokerStatus("online", 4), "ok", "online, and the broker goes by list 4"),
        (BrokerStatus("online", 5), "ok", "online, and the broker goes by list 5"),
        (BrokerStatus("online", 3), "failure", "the broker goes by list 3, the newest is 4"),
        (
            BrokerStatus("online", 3, "no pid"),
            "failure",
            "the broker goes by list 3, the newest is 4: no pid",
        ),
        (BrokerStatus("lost", 4), "failure", "the guard is lost"),
        (None, "failure", "no guard has ever said anything: the broker lets in who was revoked"),
    ],
)
def test_the_guard(
    office: tuple[Examination, FleetAuthority], status: BrokerStatus | None, result: str, cause: str
) -> None:
    patient, by = office
    said = {TOPICS.broker_status: encode_status(status)} if status else {}
    found = only(standing.guard(at(patient, listed(by) | said)))
    assert (found.result, found.cause) == (result, cause)
    assert bool(found.fix) is (result != "ok")


def test_a_guard_without_a_list_and_one_that_talks_nonsense(
    office: tuple[Examination, FleetAuthority],
) -> None:
    patient, _ = office
    said = {TOPICS.broker_status: encode_status(BrokerStatus("online", 0))}
    assert only(standing.guard(at(patient, said))).result == "ok"
    assert only(standing.guard(at(patient, said | {TOPICS.revocations: b"?"}))).result == "ok"
    assert "cannot be read" in worst(standing.guard(at(patient, {TOPICS.broker_status: b"?"}))).cause


# The coordinator.


@pytest.mark.parametrize(
    ("message", "result", "cause"),
    [
        (encode_status(CoordinatorStatus("online", devices=3)), "ok", "online, with 3 devices on offer"),
        (encode_status(CoordinatorStatus("lost")), "warning", "it is lost"),
        (b"?", "warning", "not a CoordinatorStatus"),
        (None, "warning", "none has ever said anything"),
    ],
)
def test_the_coordinator(tmp_path: Path, message: bytes | None, result: str, cause: str) -> None:
    kept = {TOPICS.coordinator_status: message} if message else {}
    found = only(standing.coordinator(at(device(tmp_path), kept)))
    assert found.result == result
    assert found.cause.startswith(cause)
