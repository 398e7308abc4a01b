"""What the honest make of devices that cheat: refused by name, or recovered from."""

import numpy as np
import pytest
from hostile_fleets import WatchedFleet, refused, spoil, stranger
from msgspec.structs import replace
from virtual_fleet import NOW, VirtualFleet

from privacy.errors import MaskMismatchError, NotFiniteError
from protocol import effects as fx
from protocol.certificates import Role
from protocol.chunks import describe
from protocol.coordinator_round import CoordinatorRound
from protocol.errors import (
    CertificateError,
    CohortError,
    FrameError,
    PeerError,
    ProtocolError,
    SecondDecisionError,
    SetError,
    ShareDeliveryError,
    TranscriptError,
)
from protocol.frames import open_device_frame, seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import (
    Accept,
    Confirmation,
    Decline,
    Message,
    Reveal,
    RoundKeys,
    SealedShares,
    UploadOffer,
)
from protocol.phases import Phase
from protocol.vector import encoding_of, layout_of
from secagg.errors import RingError, ShareError
from secagg.keys import Secret, public_key

D1 = DeviceId("d001")
YEARS = UnixTime(NOW + 3 * 365 * 86_400)


def refusal(fleet: VirtualFleet, kind: type[Exception]) -> str:
    """What the coordinator said when it refused something with this error."""
    return next(str(error) for error in fleet.refused if type(error) is kind)


def committed_without(fleet: VirtualFleet, *cheats: str) -> None:
    """The round ends well, over exactly the others."""
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    assert set(fleet.survivors) == fleet.devices.keys() - set(cheats)
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(without=cheats), atol=1e-4)


def committed_with_all(fleet: VirtualFleet) -> None:
    committed_without(fleet)


# Shares that lie.


def _flipped(shares: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
    return tuple((peer, bytes([share[0] ^ 1]) + share[1:]) for peer, share in shares)


@pytest.mark.parametrize("lost", [(), ("d009",)])
def test_a_corrupted_share_is_found_and_another_subset_recovers_the_secret(lost: tuple[str, ...]) -> None:
    fleet = WatchedFleet(devices=10, size=5).lose(*lost, phase=Phase.COLLECTING)
    spoil(fleet, "d001", Reveal, lambda said: [replace(said, shares=_flipped(said.shares))])
    committed_without(fleet, *lost)


def test_a_share_that_is_no_field_element_is_passed_over() -> None:
    fleet = WatchedFleet(devices=10, size=5)
    spoil(
        fleet,
        "d002",
        Reveal,
        lambda said: [replace(said, shares=tuple((p, b"\xff" * 36) for p, _ in said.shares))],
    )
    committed_with_all(fleet)


def test_too_many_corrupted_shares_abort_and_never_give_a_wrong_sum() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    liars = {"d001", "d002", "d003"}

    def lie(sender: str, _: str, frame: bytes) -> list[bytes]:
        said = open_device_frame(frame, fleet.trust, NOW).message if sender in liars else None
        if not isinstance(said, Reveal):
            return [frame]
        return [
            seal_frame(fleet.devices[DeviceId(sender)].identity, replace(said, shares=_flipped(said.shares)))
        ]

    fleet.tamper = lie
    assert fleet.run() is Phase.ABORTED
    assert fleet.mean is None
    assert "cannot be recovered" in fleet.round.reason
    assert "secret cannot be recovered: no valid secret among" in refusal(fleet, ShareError)


def test_a_seed_that_does_not_match_its_signed_hash_is_not_used() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    spoil(fleet, "d004", SealedShares, lambda said: [replace(said, commitment=bytes(32))])
    assert fleet.run() is Phase.ABORTED
    assert fleet.mean is None
    assert "d004's secret cannot be recovered" in refusal(fleet, ShareError)


def test_shares_that_nobody_can_open_never_give_a_wrong_sum() -> None:
    fleet = WatchedFleet(devices=10, size=5)
    spoil(
        fleet, "d001", SealedShares,
        lambda said: [replace(said, shares=tuple((peer, bytes(88)) for peer, _ in said.shares))],
    )  # fmt: skip
    assert fleet.run() is Phase.ABORTED  # nobody holds a share of its seed, and it survived
    assert fleet.mean is None
    assert "secrets have fewer shares than the threshold" in fleet.round.reason
    refused(fleet.devices[DeviceId("d002")].refused, ShareDeliveryError, "shares from d001 do not open")


def test_a_second_set_of_sealed_shares_is_refused() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    spoil(fleet, "d001", SealedShares, lambda said: [said, replace(said, commitment=bytes(32))])
    committed_with_all(fleet)
    assert "d001 shares its secrets a second time" in refusal(fleet, SecondDecisionError)


def test_shares_for_others_than_the_neighbours_are_refused() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    spoil(fleet, "d001", SealedShares, lambda said: [replace(said, shares=said.shares[1:])])
    committed_without(fleet, "d001")
    assert "made shares for others than its neighbours" in refusal(fleet, SetError)


# What is revealed.


def test_shares_of_others_than_neighbours_are_refused() -> None:
    fleet = WatchedFleet(devices=10, size=5)
    spoil(fleet, "d001", Reveal, lambda said: [replace(said, shares=(("d001", bytes(36)), *said.shares))])
    committed_with_all(fleet)
    assert "reveals shares of others than its neighbours" in refusal(fleet, SetError)


def test_two_shares_for_one_device_in_one_message_are_refused() -> None:
    fleet = WatchedFleet(devices=10, size=5)
    spoil(fleet, "d001", Reveal, lambda said: [replace(said, shares=(said.shares[0], *said.shares))])
    committed_with_all(fleet)
    assert "reveals two shares of one neighbour" in refusal(fleet, SetError)


def test_a_second_different_reveal_is_refused() -> None:
    fleet = WatchedFleet(devices=10, size=5)
    cheat = fleet.devices[D1].identity
    cheated = False

    def tamper(sender: str, _: str, frame: bytes) -> list[bytes]:
        """The cheat is heard before the others, who say theirs again."""
        nonlocal cheated
        said = open_device_frame(frame, fleet.trust, NOW).message if sender in fleet.devices else None
        if not isinstance(said, Reveal):
            return [frame]
        if sender != D1:
            return [frame] if cheated else []
        cheated = True
        return [frame, seal_frame(cheat, replace(said, shares=_flipped(said.shares)))]

    fleet.tamper = tamper
    committed_with_all(fleet)
    assert "d001 reveals other shares than before" in refusal(fleet, SecondDecisionError)


# A mask that stays in.


def _due(fleet: VirtualFleet) -> int:
    """Bytes of every masked update."""
    return layout_of(encoding_of(fleet.manifest)).packed_size


def _upload_instead(fleet: VirtualFleet, name: str, data: bytes) -> None:
    def swap(said: UploadOffer) -> list[Message]:
        fleet.devices[DeviceId(name)].upload = data
        return [replace(said, blob=describe(data))]

    spoil(fleet, name, UploadOffer, swap)


def test_a_mask_left_in_is_found_by_the_sentinels_and_aborts_the_round() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    _upload_instead(fleet, "d003", bytes(_due(fleet)))  # an update that carries no masks at all
    assert fleet.run() is Phase.ABORTED
    assert fleet.mean is None
    assert "a sentinel of the sum is not zero" in refusal(fleet, MaskMismatchError)
    assert "a mask is left in" in fleet.round.reason


@pytest.mark.parametrize("more", [-1, 1, 10_000])
def test_an_upload_of_the_wrong_size_is_never_fetched(more: int) -> None:
    fleet = WatchedFleet(devices=6, size=5)
    due = _due(fleet)
    _upload_instead(fleet, "d003", bytes(due + more))
    committed_without(fleet, "d003")
    assert f"d003 offers {due + more} bytes; {due} are due" in refusal(fleet, ProtocolError)


def test_an_upload_that_is_no_vector_is_left_out_and_its_masks_are_recovered() -> None:
    fleet = WatchedFleet(devices=10, size=5, bits=10)
    _upload_instead(fleet, "d003", b"\xff" * _due(fleet))  # a bit after the last residue is set
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    assert fleet.commit is not None
    assert fleet.commit.dropouts == 1
    assert "a bit after the last residue is set" in refusal(fleet, RingError)


def test_a_second_masked_update_is_refused() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    spoil(fleet, "d001", UploadOffer, lambda said: [said, replace(said, blob=describe(bytes(_due(fleet))))])
    assert fleet.run() is Phase.COMMITTED
    assert "d001 offers a second masked update" in refusal(fleet, SecondDecisionError)


# Keys.


@pytest.mark.parametrize(
    ("change", "gist"),
    [
        (lambda said: replace(said, mask_key=bytes(32)), "d002 has a key of low order"),
        (lambda said: replace(said, seal_key=(1).to_bytes(32, "little")), "d002 has a key of low order"),
        (lambda said: replace(said, seal_key=said.mask_key), "d002 shows one key for both purposes"),
    ],
)
def test_bad_keys_are_refused_at_keying_and_do_not_abort_the_round(change, gist: str) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    fleet = WatchedFleet(devices=6, size=5)
    spoil(fleet, "d002", RoundKeys, lambda said: [change(said)])
    committed_without(fleet, "d002")
    assert gist in refusal(fleet, CohortError)


def test_keys_signed_for_another_round_are_refused() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    spoil(fleet, "d001", RoundKeys, lambda said: [replace(said, transcript=bytes(32))])
    committed_without(fleet, "d001")
    assert "d001's keys were signed for another round context" in refusal(fleet, TranscriptError)


# Who speaks.


class Hall:
    """A coordinator's round that has just begun, and anybody who speaks to it."""

    def __init__(self) -> None:
        self.fleet = VirtualFleet(devices=6, size=5)
        self.round: CoordinatorRound = self.fleet.round
        self.round.handle(fx.Begin(), self.fleet.now)

    def hear(self, frame: bytes, now: UnixTime = NOW) -> list[Exception]:
        """What is refused because of a frame."""
        try:
            opened = open_device_frame(frame, self.fleet.trust, now)
        except PeerError as error:
            return [error]
        before = (self.round.phase, self.round.progress)
        effects = self.round.handle(fx.Heard(opened), self.fleet.now)
        errors = [effect.error for effect in effects if isinstance(effect, fx.Refuse)]
        assert not errors or (self.round.phase, self.round.progress) == before
        return errors

    @property
    def accept(self) -> Accept:
        """An honest answer."""
        return Accept(self.round.order, self.round._t0)


def test_nobody_speaks_for_a_device() -> None:
    hall = Hall()
    victim, cheat = (hall.fleet.devices[DeviceId(name)].identity for name in ("d001", "d002"))
    frame = seal_frame(cheat, hall.accept)
    refused(hall.hear(frame.replace(b"\xa4d002", b"\xa4d001", 1)), FrameError, "sent the certificate of d002")
    body_of_victim = seal_frame(victim, hall.accept)[:-64] + frame[-64:]
    refused(hall.hear(body_of_victim), FrameError, "signature is not d001's")
    refused(
        hall.hear(seal_frame(stranger("test", "d001"), hall.accept)), CertificateError, "this fleet's root"
    )
    refused(
        hall.hear(seal_frame(hall.fleet.coordinator_identity, hall.accept)), CertificateError, "not a device"
    )


def test_an_expired_certificate_ends_a_devices_say() -> None:
    hall = Hall()
    frame = seal_frame(hall.fleet.devices[D1].identity, hall.accept)
    refused(hall.hear(frame, now=YEARS), CertificateError, "d001's certificate has expired")
    refused(hall.hear(frame, now=UnixTime(NOW - 86_400)), CertificateError, "not valid yet")


def _keys(hall: Hall, name: str, mask: int, seal: int) -> bytes:
    """Round keys of a device, made of small numbers."""
    mask_key, seal_key = (public_key(Secret(bytes([number]) * 32)) for number in (mask, seal))
    said = RoundKeys(hall.round.order, hall.round._t0, mask_key, seal_key)
    return seal_frame(hall.fleet.devices[DeviceId(name)].identity, said)


def test_a_device_shows_one_pair_of_keys_and_nobody_elses() -> None:
    hall = Hall()
    assert hall.hear(_keys(hall, "d001", 1, 2)) == []
    assert hall.hear(_keys(hall, "d001", 1, 2)) == []
    refused(hall.hear(_keys(hall, "d001", 1, 3)), SecondDecisionError, "d001 shows other keys than before")
    refused(hall.hear(_keys(hall, "d002", 1, 4)), CohortError, "d002 shows a key of d001")
    refused(hall.hear(_keys(hall, "d002", 4, 2)), CohortError, "d002 shows a key of d001")
    assert hall.hear(_keys(hall, "d002", 3, 4)) == []  # what was refused left nothing behind


def test_an_uninvited_device_is_refused() -> None:
    hall = Hall()
    extra = hall.fleet.authority.issue("extra", Role.DEVICE)
    refused(hall.hear(seal_frame(extra, hall.accept)), ProtocolError, "extra was not invited")


def test_a_frame_of_another_round_is_refused() -> None:
    hall = Hall()
    identity = hall.fleet.devices[D1].identity
    old = replace(hall.accept, order=Order(1, 1, 0))
    refused(hall.hear(seal_frame(identity, old)), TranscriptError, "speaks of round 1.1.0 in round 1.1.1")
    other = replace(hall.accept, transcript=bytes(32))
    refused(hall.hear(seal_frame(identity, other)), TranscriptError, "answered another invitation")


def test_answers_out_of_turn_are_refused() -> None:
    hall = Hall()
    identity, order, t0 = hall.fleet.devices[D1].identity, hall.round.order, hall.round._t0
    early: list[Message] = [
        SealedShares(order, t0, bytes(32), ()),
        UploadOffer(order, t0, describe(bytes(60))),
        Confirmation(order, t0),
        Reveal(order, t0, ()),
    ]
    for said in early:
        refused(hall.hear(seal_frame(identity, said)), TranscriptError, "answered another invitation")


@pytest.mark.parametrize("kind", [SealedShares, UploadOffer, Confirmation, Reveal])
def test_answers_for_another_transcript_are_refused(kind: type[Message]) -> None:
    fleet = WatchedFleet(devices=10, size=5)
    spoil(fleet, "d001", kind, lambda said: [replace(said, transcript=bytes(32))])
    assert fleet.run() is Phase.COMMITTED
    assert f"d001's {kind.__name__} continues another transcript" in refusal(fleet, TranscriptError)


# Updates that would spoil everybody's.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_stopped_by_the_device_itself(value: float) -> None:
    fleet = WatchedFleet(devices=6, size=5)
    fleet.devices[D1].delta[3] = value
    fleet.devices[D1].delta[4] = -value
    committed_without(fleet, "d001")
    refused(fleet.devices[D1].refused, NotFiniteError, "NaN or infinity")
    said = fleet.devices[D1].said
    assert not any(isinstance(message, RoundKeys) for message in said)
    declined = next(message for message in said if isinstance(message, Decline))
    assert "NaN or infinity" in declined.reason


def test_a_loss_that_is_not_finite_is_stopped_too() -> None:
    fleet = WatchedFleet(devices=6, size=5)
    metrics = fleet.devices[D1].metrics
    fleet.devices[D1].metrics = type(metrics)(metrics.examples, 4, float("nan"), 1)
    committed_without(fleet, "d001")
    refused(fleet.devices[D1].refused, NotFiniteError, "the loss is nan")
