"""A device that is thrown out: nobody deals with it, and the round goes on without it."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hand_clock import HandClock
from msgspec.structs import replace
from virtual_fleet import NOW, VirtualFleet

from broker.transport import Delivery
from protocol import effects as fx
from protocol.certificates import FleetTrust
from protocol.ids import DeviceId, UnixTime
from protocol.messages import Cohort, Decline, SealedShares
from protocol.phases import Phase
from protocol.revocations import encode_revocations
from runtime.revocations import SHORT, RevocationKeeper

D1 = DeviceId("d001")


class Revoking(VirtualFleet):
    """A fleet in which `d001` is revoked when the coordinator enters a phase."""

    def __init__(self, phase: Phase, *, told: bool = True, devices: int = 8) -> None:
        super().__init__(devices, registered=True)
        self.when: Phase | None = phase
        self.told = told

    def _coordinator(self, event: fx.CoordinatorEvent) -> None:
        super()._coordinator(event)
        if self.round.phase is self.when:
            self.when = None
            self.trust.heed(self.revocation_list(D1, sequence=2))
            if self.told:
                super()._coordinator(fx.Revoked(D1))

    def members(self) -> list[str]:
        (cohort,) = [said for said in self.announced if isinstance(said, Cohort)]
        return [self.trust.read(certificate_in(frame)).subject for frame in cohort.members]


def certificate_in(frame: bytes) -> bytes:
    """The DER inside a frame: from its header to the length that this says."""
    start = frame.index(b"\x30\x82")
    return frame[start : start + 4 + int.from_bytes(frame[start + 2 : start + 4], "big")]


def reasons(fleet: VirtualFleet) -> set[str]:
    """For which devices left."""
    return {
        said.reason for device in fleet.devices.values() for said in device.said if isinstance(said, Decline)
    }


def test_whoever_is_revoked_before_the_cohort_forms_is_not_in_it() -> None:
    fleet = Revoking(Phase.INVITING)
    assert fleet.run() is Phase.COMMITTED
    assert D1 not in fleet.members()
    assert D1 not in fleet.survivors
    assert fleet.mean is not None
    assert fleet.mean.mean == pytest.approx(fleet.plain_mean(without={D1}), abs=1e-4)


def test_whoever_is_revoked_later_is_a_dropout() -> None:
    fleet = Revoking(Phase.COLLECTING)
    assert fleet.run() is Phase.COMMITTED
    assert D1 in fleet.members()
    assert D1 not in fleet.survivors
    assert fleet.mean is not None
    assert fleet.mean.mean == pytest.approx(fleet.plain_mean(without={D1}), abs=1e-4)
    assert any("was revoked" in str(error) for error in fleet.refused)


def test_an_update_that_is_stored_when_its_device_is_revoked_still_counts() -> None:
    fleet = Revoking(Phase.CONFIRMING)
    assert fleet.run() is Phase.COMMITTED
    assert D1 in fleet.survivors
    assert fleet.mean is not None
    assert fleet.mean.mean == pytest.approx(fleet.plain_mean(), abs=1e-4)


def test_keys_that_came_before_are_withdrawn() -> None:
    fleet = VirtualFleet(5, registered=True)
    said: list[str] = []

    def watching(sender: str, receiver: str, frame: bytes) -> list[bytes]:
        if receiver == "coordinator" and b"round-keys" in frame:
            said.append(sender)
            if sender == D1:
                fleet._hear(frame)
                fleet.revoke(D1)
                return []
        return [frame]

    fleet.tamper = watching
    assert fleet.run() is Phase.COMMITTED
    assert D1 in said
    assert D1 not in fleet.survivors


def test_devices_leave_a_cohort_in_which_the_coordinator_keeps_a_revoked_one() -> None:
    fleet = Revoking(Phase.SHARING, told=False)
    assert fleet.run() is Phase.ABORTED
    for name, device in fleet.devices.items():
        assert not [said for said in device.said if isinstance(said, SealedShares)], name
        declined = [said.reason for said in device.said if isinstance(said, Decline)]
        assert declined == ["d001's certificate was revoked"], name


def test_a_device_declines_when_the_coordinator_knows_a_newer_list() -> None:
    fleet = VirtualFleet(3, registered=True)
    fleet.round._state.manifest = replace(fleet.manifest, revocations=2)
    assert fleet.run() is Phase.ABORTED
    assert reasons(fleet) == {"revocation list 2 has not arrived here; the newest is 1"}


def test_under_an_expired_list_a_device_declines() -> None:
    fleet = VirtualFleet(3, registered=True)
    fleet.trust.heed(fleet.revocation_list(sequence=2, expires=NOW - 400))
    fleet.manifest = replace(fleet.manifest, revocations=2)
    fleet.round._state.manifest = fleet.manifest
    fleet._coordinator(fx.Begin())
    fleet._deliver(*fleet._post.pop(0))
    assert reasons(fleet) == {"revocation list 2 has expired; is the registrar running and connected?"}


@pytest.mark.parametrize(("floor", "end"), [(900.0, Phase.COMMITTED), (1001.0, Phase.ABORTED)])
def test_a_device_wants_the_others_to_have_been_enrolled_for_a_while(floor: float, end: Phase) -> None:
    fleet = VirtualFleet(5, registered=True, min_enrolled_age=floor)
    assert fleet.run() is end
    young = {f"{name} was enrolled 1000 s ago; the floor here is 1001" for name in ("d001", "d002")}
    assert reasons(fleet) == (set() if end is Phase.COMMITTED else young)


class WallClock(HandClock):
    def unix(self) -> UnixTime:
        return NOW


async def test_a_program_remembers_the_list_and_notices_an_older_one(tmp_path: Path) -> None:
    fleet = VirtualFleet(3, registered=True)
    first, second = fleet.revocation_list(sequence=1), fleet.revocation_list(D1, sequence=2)
    news: list[int] = []
    trust = FleetTrust(fleet.coordinator_identity.root)
    keeper = RevocationKeeper(trust, WallClock(), tmp_path / "state")
    keeper.on_newer = lambda: news.append(trust.sequence)

    for message in (first, second, second, first, b"nonsense"):
        keeper.message_arrived(Delivery("t", message, retained=True))

    assert news == [1, 2]
    assert keeper._writing is not None
    await keeper._writing
    restarted = FleetTrust(fleet.coordinator_identity.root)
    RevocationKeeper(restarted, WallClock(), tmp_path / "state").recall([tmp_path / "nowhere"])
    assert restarted.sequence == 2


async def test_a_long_list_does_not_stop_the_loop(tmp_path: Path) -> None:
    """It is read in a thread; what comes behind it keeps its place, and not too much of it waits."""
    fleet = VirtualFleet(3, registered=True)
    own = fleet.registrar.certificate.public_bytes(Encoding.DER)

    def listing(sequence: int, entries: int) -> bytes:
        revoked = {2**100 + serial: NOW for serial in range(entries)}
        crl = fleet.registrar.revocation_list(sequence, revoked, UnixTime(NOW + 1000))
        return encode_revocations(own, crl.public_bytes(Encoding.DER))

    news: list[int] = []
    trust = FleetTrust(fleet.coordinator_identity.root)
    keeper = RevocationKeeper(trust, WallClock(), tmp_path / "state")
    keeper.on_newer = lambda: news.append(trust.sequence)
    long, longer = listing(1, 3000), listing(2, 3001)
    assert len(long) > SHORT
    for message in (long, longer, *[long] * 20, listing(3, 1)):
        keeper.message_arrived(Delivery("t", message, retained=True))
    assert news == []
    assert keeper._reading is not None
    await keeper._reading
    assert news == [1, 2]
    keeper.message_arrived(Delivery("t", listing(3, 1), retained=True))
    assert news == [1, 2, 3]
    assert keeper._writing is not None
    await keeper._writing
