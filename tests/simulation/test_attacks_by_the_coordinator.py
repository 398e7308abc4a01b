"""What honest devices refuse from a coordinator that lies, each with the error that names it."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hostile_fleets import HostileCoordinator, refused, stranger
from msgspec.structs import replace
from virtual_fleet import NOW, VirtualFleet, manifest_for

from privacy.encoding import MeanUpdate
from privacy.errors import MaskMismatchError
from protocol.certificates import Role
from protocol.chunks import describe
from protocol.coordinator_work import DecodeSum
from protocol.device_round import DeviceRound, _Uploading
from protocol.errors import (
    CertificateError,
    CohortError,
    ConfirmationError,
    FrameError,
    ManifestError,
    OrderError,
    PeerError,
    ProtocolError,
    SecondDecisionError,
    SetError,
    ShareDeliveryError,
    TranscriptError,
)
from protocol.frames import seal_frame
from protocol.ids import DeviceId, Order
from protocol.messages import (
    Accept,
    Confirmation,
    Decline,
    Grant,
    Manifest,
    Reveal,
    RoundEnded,
    RoundKeys,
    SealedShares,
    Share,
    Stored,
    UploadOffer,
    encode,
)
from protocol.order_checks import MAX_JUMP, check_order
from protocol.plan import SecureAggregation
from protocol.transcript import extend
from protocol.vector import encoding_of, layout_of
from registrar.authority import FleetAuthority
from runtime.identity import Identity
from secagg.keys import RoundSecrets, Secret
from secagg.pairwise import PairGroup, apply, self_expansion
from secagg.ring import RingVector

# Both share kinds for one device.


def test_a_share_is_of_one_kind_and_the_type_cannot_carry_two() -> None:
    both = msgspec.msgpack.encode([*_reveal_head(), [["d002", bytes(72)]]])
    with pytest.raises(msgspec.ValidationError, match="length <= 36"):
        msgspec.msgpack.decode(both, type=Reveal)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(bytes([196, 35]) + bytes(35), type=Share)


def _reveal_head() -> list[object]:
    return ["reveal", [1, 1, 1], bytes(32)]


def test_every_survivor_reveals_one_share_for_each_neighbour() -> None:
    fleet = HostileCoordinator()
    _, t3 = fleet.bring_to_confirmations()
    fleet.tell_all(fleet.confirmations(t3))
    for name in fleet.devices:
        peers = [peer for peer, _ in fleet.said(name, Reveal).shares]
        assert peers == sorted(fleet.devices.keys() - {name})


@pytest.mark.parametrize("already_confirmed", [False, True])
def test_a_second_survivor_set_that_would_flip_a_kind_is_refused(already_confirmed: bool) -> None:  # noqa: FBT001
    fleet = HostileCoordinator()
    t2 = fleet.bring_to_uploads()
    first, flipped = fleet.survivor_set(t2), fleet.survivor_set(t2, "d001", "d002", "d003", "d004", "d005")
    t3 = extend(t2, encode(first))
    assert fleet.tell("d001", first) == []
    if already_confirmed:
        for name in list(fleet.devices)[1:]:
            assert fleet.tell(name, first) == []
        assert fleet.tell("d001", fleet.confirmations(t3)) == []
        assert fleet.has_said("d001", Reveal)
    refused(fleet.tell("d001", flipped), SecondDecisionError, "second SurvivorSet")
    assert fleet.has_said("d001", Reveal) is already_confirmed
    assert fleet.said("d001", Confirmation).transcript == t3


def test_confirmations_of_another_survivor_set_reveal_nothing() -> None:
    fleet = HostileCoordinator()
    t2, _ = fleet.bring_to_confirmations()
    other = extend(t2, encode(fleet.survivor_set(t2, "d001", "d002", "d003", "d004", "d005")))
    refused(fleet.tell("d001", fleet.confirmations(other)), TranscriptError, "another transcript")
    assert not fleet.has_said("d001", Reveal)


# A cohort that the coordinator made up.


def _without_certificate(fleet: HostileCoordinator) -> bytes:
    return seal_frame(stranger("test", "d006"), fleet.said("d006", RoundKeys))


def _of_another_fleet(fleet: HostileCoordinator) -> bytes:
    return seal_frame(stranger("other", "d006"), fleet.said("d006", RoundKeys))


def _by_a_coordinator(fleet: HostileCoordinator) -> bytes:
    return seal_frame(fleet.authority.issue("coordinator-6", Role.COORDINATOR), fleet.said("d006", RoundKeys))


def _with_other_keys(fleet: HostileCoordinator) -> bytes:
    keys = fleet.said("d006", RoundKeys)
    return fleet.entry("d006").replace(keys.mask_key, keys.mask_key[::-1])


def _in_anothers_name(fleet: HostileCoordinator) -> bytes:
    return fleet.entry("d005").replace(b"\xa4d005", b"\xa4d006", 1)


@pytest.mark.parametrize(
    ("entry", "error", "gist"),
    [
        (_without_certificate, CertificateError, "not by this fleet's root|not issued by"),
        (_of_another_fleet, CertificateError, "not issued by this fleet's root"),
        (_by_a_coordinator, CertificateError, "is a coordinator, not a device"),
        (_with_other_keys, FrameError, "signature is not d006's"),
        (_in_anothers_name, FrameError, "sent the certificate of d005"),
    ],
)
def test_keys_that_no_device_signed_for_are_refused(
    entry: Callable[[HostileCoordinator], bytes], error: type[PeerError], gist: str
) -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    cohort = fleet.cohort()
    invented = replace(cohort, members=(*cohort.members[:-1], entry(fleet)))
    refused(fleet.tell("d001", invented), error, gist)
    assert fleet.stage("d001") == "left"
    assert not fleet.has_said("d001", SealedShares)


def test_a_cohort_without_or_with_an_altered_own_entry_is_refused() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    others = fleet.cohort(*list(fleet.devices)[1:])
    refused(fleet.tell("d001", others), CohortError, "own entry is missing or altered")
    # Even signed by its own key: what it says now is not what it said.
    keys = fleet.said("d002", RoundKeys)
    swapped = replace(keys, mask_key=keys.seal_key, seal_key=keys.mask_key)
    forged = seal_frame(fleet.devices[DeviceId("d002")].identity, swapped)
    members = tuple(forged if index == 1 else entry for index, entry in enumerate(fleet.cohort().members))
    refused(fleet.tell("d002", replace(fleet.cohort(), members=members)), CohortError, "missing or altered")


def test_names_and_keys_that_repeat_are_refused() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    cohort = fleet.cohort()
    first, second = cohort.members[:2]
    twice = replace(cohort, members=(first, first, *cohort.members[2:]))
    refused(fleet.tell("d001", twice), CohortError, "not sorted, or one appears twice")
    turned = replace(cohort, members=(second, first, *cohort.members[2:]))
    refused(fleet.tell("d002", turned), CohortError, "not sorted")
    copied = replace(fleet.said("d005", RoundKeys), mask_key=fleet.said("d004", RoundKeys).mask_key)
    sybil = seal_frame(fleet.devices[DeviceId("d005")].identity, copied)
    same = replace(cohort, members=(*cohort.members[:4], sybil, cohort.members[5]))
    refused(fleet.tell("d003", same), CohortError, "two members show the same key")


def test_one_device_key_under_two_names_is_refused() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    twin = fleet.devices[DeviceId("d005")].identity
    cloned = _certificate_for(fleet, "d006", twin.private_key)
    keys = fleet.said("d006", RoundKeys)
    members = (*fleet.cohort().members[:-1], seal_frame(cloned, keys))
    refused(fleet.tell("d001", replace(fleet.cohort(), members=members)), CohortError, "share one device key")


def _certificate_for(fleet: HostileCoordinator, name: str, key: Ed25519PrivateKey) -> Identity:
    """A registrar that does not look issues a second name for a key it has certified before."""
    raw = key.private_bytes_raw()
    draws = iter([raw, bytes(range(1, 20))])
    careless = FleetAuthority(fleet.authority.root, fleet.authority._key, NOW, lambda _: next(draws))
    return careless.issue(name, Role.DEVICE)


@pytest.mark.parametrize(
    "point", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")]
)
def test_a_key_of_low_order_is_refused(point: bytes) -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    bad = seal_frame(
        fleet.devices[DeviceId("d006")].identity, replace(fleet.said("d006", RoundKeys), mask_key=point)
    )
    members = (*fleet.cohort().members[:-1], bad)
    refused(fleet.tell("d001", replace(fleet.cohort(), members=members)), CohortError, "key of low order")


def test_keys_of_another_round_are_refused() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    old = replace(fleet.said("d006", RoundKeys), transcript=bytes(32))
    members = (*fleet.cohort().members[:-1], seal_frame(fleet.devices[DeviceId("d006")].identity, old))
    refused(
        fleet.tell("d001", replace(fleet.cohort(), members=members)), TranscriptError, "another round context"
    )


# Floors.


def test_a_cohort_below_the_devices_own_floor_is_refused() -> None:
    fleet = HostileCoordinator(floor=5)
    fleet.invite()
    refused(fleet.tell("d001", fleet.cohort("d001", "d002", "d003", "d004")), CohortError, "floor is 5")
    assert not fleet.has_said("d001", SealedShares)


def test_a_cohort_below_the_manifests_minimum_is_refused_whatever_the_device_says() -> None:
    fleet = HostileCoordinator(floor=3, min_cohort=5)
    fleet.invite()
    refused(fleet.tell("d001", fleet.cohort("d001", "d002", "d003", "d004")), CohortError, "floor is 5")


def test_a_share_set_below_floor_or_threshold_is_refused() -> None:
    fleet = HostileCoordinator(floor=5)
    t1 = fleet.bring_to_shares().transcript
    few = fleet.share_set(t1, "d001", "d002", "d003", "d004")
    refused(fleet.tell("d001", few), SetError, "4 members; at least 5 are needed")
    assert not fleet.has_said("d001", UploadOffer)


def test_a_survivor_set_below_floor_or_threshold_is_refused() -> None:
    fleet = HostileCoordinator(floor=3)
    t2 = fleet.bring_to_uploads()
    refused(
        fleet.tell("d001", fleet.survivor_set(t2, "d001", "d002", "d003")), SetError, "at least 4 are needed"
    )
    few_neighbours = fleet.survivor_set(t2, "d002", "d003", "d004", "d005")
    refused(fleet.tell("d002", few_neighbours), SetError, "fewer neighbours than the threshold of 4")
    assert not fleet.has_said("d001", Confirmation)


def test_a_threshold_too_low_for_the_neighbourhood_cannot_be_asked_for() -> None:
    fleet = HostileCoordinator(gamma_floor=0.3)
    careless = replace(
        fleet.manifest, secure_aggregation=SecureAggregation(clip=10.0, corrupt_fraction=0.01, threshold=1)
    )
    refused(fleet.tell("d001", careless), ManifestError, "corrupt part of only 0.010.*floor is 0.300")
    assert fleet.has_said("d001", Decline)
    assert not fleet.has_said("d001", Accept)


@pytest.mark.parametrize(("asked", "derived"), [(0, 4), (1, 4), (4, 4), (5, 5)])
def test_a_plan_can_raise_the_threshold_but_never_lower_it(asked: int, derived: int) -> None:
    fleet = HostileCoordinator(threshold=asked)
    assert fleet.bring_to_shares().threshold == derived


def test_a_threshold_above_the_neighbours_is_refused() -> None:
    fleet = HostileCoordinator(threshold=6)
    fleet.invite()
    refused(fleet.tell("d001", fleet.cohort()), CohortError, "threshold 6 is above the 5 neighbours")


# Strangers.


def test_sets_that_name_strangers_are_refused() -> None:
    fleet = HostileCoordinator()
    t1 = fleet.bring_to_shares().transcript
    refused(
        fleet.tell("d001", fleet.share_set(t1, *fleet.devices, "mallory")),
        SetError,
        "names strangers: mallory",
    )
    fleet = HostileCoordinator()
    t2 = fleet.bring_to_uploads()
    refused(
        fleet.tell("d001", fleet.survivor_set(t2, *fleet.devices, "sybil")),
        SetError,
        "names strangers: sybil",
    )


def test_sets_without_the_device_or_out_of_order_are_refused() -> None:
    fleet = HostileCoordinator()
    t1 = fleet.bring_to_shares().transcript
    refused(fleet.tell("d001", fleet.share_set(t1, *list(fleet.devices)[1:])), SetError, "this device is not")
    turned = replace(fleet.share_set(t1), members=tuple(reversed(fleet.devices)))
    refused(fleet.tell("d002", turned), SetError, "not sorted")
    double = replace(fleet.share_set(t1), members=("d003", *fleet.devices))
    refused(fleet.tell("d003", double), SetError, "names a device twice")


def test_confirmations_by_strangers_do_not_count() -> None:
    fleet = HostileCoordinator()
    _, t3 = fleet.bring_to_confirmations()
    some = fleet.confirmations(t3, "d001", "d002", "d003")
    sybils = tuple((f"s{index:03}", bytes(64)) for index in range(1, 9))
    refused(
        fleet.tell("d001", replace(some, signatures=(*some.signatures, *sybils))),
        ConfirmationError,
        "2 neighbours confirmed this survivor set; the threshold is 4",
    )
    assert not fleet.has_said("d001", Reveal)


def test_a_confirmation_repeated_or_forged_counts_once_or_not_at_all() -> None:
    fleet = HostileCoordinator()
    _, t3 = fleet.bring_to_confirmations()
    good = fleet.confirmations(t3, "d002", "d003").signatures
    repeated = replace(fleet.confirmations(t3), signatures=good * 3)
    refused(fleet.tell("d001", repeated), ConfirmationError, "2 neighbours confirmed")
    borrowed = tuple((name, good[0][1]) for name in fleet.devices)
    refused(
        fleet.tell("d004", replace(repeated, signatures=borrowed)),
        ConfirmationError,
        "1 neighbours confirmed",
    )
    assert not fleet.has_said("d001", Reveal)
    assert not fleet.has_said("d004", Reveal)


# Second decisions.


def test_a_second_manifest_for_a_round_is_refused() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    other = replace(fleet.manifest, plan=bytes([1] * 32))
    refused(fleet.tell("d001", other), SecondDecisionError, "second manifest for round 1.1.1")
    assert fleet.tell("d001", fleet.manifest) == []  # the same again is only a repeat


def test_a_second_cohort_is_refused() -> None:
    fleet = HostileCoordinator()
    fleet.bring_to_shares()
    other = fleet.cohort("d001", "d002", "d003", "d004", "d005")
    refused(fleet.tell("d001", other), SecondDecisionError, "second Cohort")
    assert fleet.tell("d001", fleet.cohort()) == []


def test_a_second_share_set_is_refused() -> None:
    fleet = HostileCoordinator()
    t1 = fleet.bring_to_shares().transcript
    first = fleet.share_set(t1)
    assert fleet.tell("d001", first) == []
    other = fleet.share_set(t1, "d001", "d002", "d003", "d004", "d005")
    refused(fleet.tell("d001", other), SecondDecisionError, "second ShareSet")
    assert fleet.tell("d001", fleet.delivery("d001", first)) == []
    refused(fleet.tell("d001", other), SecondDecisionError, "second ShareSet")
    assert len({said.blob.sha256 for said in _offers(fleet, "d001")}) == 1


def _offers(fleet: HostileCoordinator, name: str) -> list[UploadOffer]:
    return [said for said in fleet.devices[DeviceId(name)].said if isinstance(said, UploadOffer)]


def test_second_confirmations_are_refused_and_nothing_is_revealed_twice() -> None:
    fleet = HostileCoordinator()
    _, t3 = fleet.bring_to_confirmations()
    assert fleet.tell("d001", fleet.confirmations(t3)) == []
    said = list(fleet.devices[DeviceId("d001")].said)
    others = fleet.confirmations(t3, "d002", "d003", "d004", "d005")
    refused(fleet.tell("d001", others), SecondDecisionError, "second Confirmations")
    assert fleet.devices[DeviceId("d001")].said == said


# Decisions out of turn.


def test_a_decision_out_of_turn_is_refused_and_changes_nothing() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    t1 = fleet.t0
    refused(fleet.tell("d001", fleet.share_set(t1)), ProtocolError, "ShareSet while keyed")
    refused(fleet.tell("d001", fleet.survivor_set(t1)), ProtocolError, "SurvivorSet while keyed")
    fleet.bring_to_shares()
    refused(fleet.tell("d001", fleet.survivor_set(t1)), ProtocolError, "SurvivorSet while shared")
    assert fleet.stage("d001") == "shared"


def test_grants_and_receipts_for_what_was_not_offered_are_refused() -> None:
    fleet = HostileCoordinator()
    order = fleet.manifest.order
    fleet.bring_to_shares()
    refused(fleet.tell("d001", Grant(order, bytes(32), (0,))), ProtocolError, "grant for an upload")
    refused(fleet.tell("d001", Stored(order, bytes(32))), ProtocolError, "stored that was not offered")


# Two views of one round.


def test_devices_shown_different_cohorts_confirm_different_sets_and_reveal_nothing() -> None:
    fleet = HostileCoordinator(devices=6, corrupt_fraction=0.01)
    fleet.invite()
    left = fleet.cohort()
    victim = fleet.cohort("d001", "d002", "d003", "d004", "d005")
    for name in list(fleet.devices)[1:]:
        assert fleet.tell(name, left) == []
    assert fleet.tell("d001", victim) == []
    theirs = fleet.share_set(fleet.view(left).transcript)
    its = fleet.share_set(fleet.view(victim).transcript, "d001", "d002", "d003", "d004", "d005")
    for name in list(fleet.devices)[1:]:
        assert fleet.tell(name, theirs) == []
    assert fleet.tell("d001", its) == []
    # What the others sealed is bound to their cohort, so the victim cannot open any of it.
    refused(fleet.tell("d001", fleet.delivery("d001", its)), ShareDeliveryError, "0 neighbours' shares open")
    # The others cannot open the victim's, but go on among themselves.
    errors = fleet.tell("d002", fleet.delivery("d002", theirs))
    refused(errors, ShareDeliveryError, "shares from d001 do not open")
    assert fleet.stage("d001") == "left"
    assert fleet.stage("d002") == "uploading"


def test_devices_shown_different_survivor_sets_reveal_nothing() -> None:
    fleet = HostileCoordinator(devices=9)
    t2 = fleet.bring_to_uploads()
    everybody, without = fleet.survivor_set(t2), fleet.survivor_set(t2, *list(fleet.devices)[:8])
    for index, name in enumerate(list(fleet.devices)[:8]):
        assert fleet.tell(name, everybody if index < 4 else without) == []
    for index, name in enumerate(list(fleet.devices)[:8]):
        shown = everybody if index < 4 else without
        signatures = fleet.confirmations(extend(t2, encode(shown)), *list(fleet.devices)[:8])
        refused(fleet.tell(name, signatures), ConfirmationError, "the threshold is 6")
        assert not fleet.has_said(name, Reveal)


def test_devices_told_of_different_models_share_no_transcript() -> None:
    fleet = HostileCoordinator()
    other = replace(fleet.manifest, weights=describe(b"\1" * 4 * 5))
    for name in list(fleet.devices)[1:]:
        fleet.tell(name, fleet.manifest)
    assert fleet.tell("d001", other) == []
    assert fleet.said("d001", Accept).transcript != fleet.said("d002", Accept).transcript
    refused(fleet.tell("d002", fleet.cohort()), TranscriptError, "d001's keys were signed for another")


# Masks of two views.


def _unmasked(fleet: HostileCoordinator, survivors: Sequence[str], lost: str) -> MeanUpdate:
    """The sum with every mask removed that a coordinator could ever learn: each is taken from its device."""
    encoding = encoding_of(fleet.manifest)
    total = RingVector.zeros(layout_of(encoding))
    private = _secrets(fleet, lost).mask_private
    for name in survivors:
        known = _half(fleet, name)._known
        assert isinstance(known, _Uploading)
        total.add(RingVector.unpack(total.layout, known.masked.data))
        seed = _secrets(fleet, name).self_seed
        apply(total, [self_expansion(seed, transcript=known.transcript, device=name)], remove=True)
        if lost in known.share_set:
            peer = (name, _secrets(fleet, name).mask_public)
            apply(total, PairGroup(private, lost, (peer,), known.transcript))
    return DecodeSum(total, [], encoding, len(survivors), Secret(bytes(32))).run()


def _half(fleet: HostileCoordinator, name: str) -> DeviceRound:
    half = fleet.devices[DeviceId(name)].round
    assert half is not None
    return half


def _secrets(fleet: HostileCoordinator, name: str) -> RoundSecrets:
    secrets = _half(fleet, name)._secrets
    assert secrets is not None
    return secrets


@pytest.mark.parametrize("split", [False, True], ids=["one-share-set", "two-share-sets"])
def test_masks_of_two_views_do_not_cancel_even_if_every_check_failed_us(split: bool) -> None:  # noqa: FBT001
    """I7: the transcript is in every mask key (Pasquini et al. 2021)."""
    fleet = HostileCoordinator(devices=6)
    t1 = fleet.bring_to_shares().transcript
    survivors = list(fleet.devices)[:5]
    everybody, fewer = fleet.share_set(t1), fleet.share_set(t1, *survivors)
    for index, name in enumerate(survivors):
        shown = fewer if split and index >= 3 else everybody
        assert fleet.tell(name, shown) == []
        assert fleet.tell(name, fleet.delivery(name, shown)) == []
    if split:
        with pytest.raises(MaskMismatchError, match="a mask is left in"):
            _unmasked(fleet, survivors, "d006")
    else:
        mean = _unmasked(fleet, survivors, "d006").mean
        np.testing.assert_allclose(mean, fleet.plain_mean(without=("d006",)), atol=1e-5)


# Shares that were moved.


def test_a_share_moved_to_another_receiver_does_not_open() -> None:
    fleet = HostileCoordinator()
    share_set = fleet.share_set(fleet.bring_to_shares().transcript)
    fleet.tell_all(share_set)
    own, others = fleet.delivery("d001", share_set), dict(fleet.delivery("d002", share_set).shares)
    moved = tuple((sender, others.get(sender, sealed)) for sender, sealed in own.shares)
    refused(
        fleet.tell("d001", replace(own, shares=moved)),
        ShareDeliveryError,
        "1 neighbours' shares open; .* is 4",
    )
    assert not fleet.has_said("d001", UploadOffer)


def test_one_share_said_to_come_from_another_is_left_out_and_counted() -> None:
    fleet = HostileCoordinator()
    share_set = fleet.share_set(fleet.bring_to_shares().transcript)
    fleet.tell_all(share_set)
    own = dict(fleet.delivery("d001", share_set).shares)
    own["d002"] = own["d003"]
    delivery = replace(fleet.delivery("d001", share_set), shares=tuple(own.items()))
    refused(fleet.tell("d001", delivery), ShareDeliveryError, "shares from d002 do not open")
    assert fleet.has_said("d001", UploadOffer)


def test_shares_of_another_round_do_not_open() -> None:
    before, after = HostileCoordinator(seed=3), HostileCoordinator(seed=3, order=Order(1, 1, 2))
    old = before.share_set(before.bring_to_shares().transcript)
    new = after.share_set(after.bring_to_shares().transcript)
    after.tell_all(new)
    replayed = replace(after.delivery("d001", new), shares=before.delivery("d001", old).shares)
    refused(after.tell("d001", replayed), ShareDeliveryError, "0 neighbours' shares open")


def test_shares_for_another_share_set_are_refused_and_the_right_ones_still_count() -> None:
    fleet = HostileCoordinator()
    share_set = fleet.share_set(fleet.bring_to_shares().transcript)
    fleet.tell_all(share_set)
    right = fleet.delivery("d001", share_set)
    refused(fleet.tell("d001", replace(right, transcript=bytes(32))), TranscriptError, "another share set")
    assert fleet.tell("d001", right) == []
    assert fleet.has_said("d001", UploadOffer)


def test_withheld_shares_make_a_device_leave() -> None:
    fleet = HostileCoordinator()
    share_set = fleet.share_set(fleet.bring_to_shares().transcript)
    fleet.tell_all(share_set)
    right = fleet.delivery("d001", share_set)
    refused(
        fleet.tell("d001", replace(right, shares=right.shares[1:])), ShareDeliveryError, "no shares from d002"
    )


# Rounds.


@pytest.mark.parametrize(
    ("order", "gist"),
    [
        (Order(1, 5, 7), "not newer"),
        (Order(1, 5, 6), "not newer"),
        (Order(1, 4, 9), "not newer"),
        (Order(0, 9, 9), "not newer"),
        (Order(1, 5, 7 + MAX_JUMP + 1), "jumps too far"),
        (Order(1, 5 + MAX_JUMP + 1, 1), "jumps too far"),
        (Order(2, 5, 7 + MAX_JUMP + 1), "jumps too far"),
    ],
)
def test_a_round_that_was_or_that_jumps_is_refused(order: Order, gist: str) -> None:
    with pytest.raises(OrderError, match=gist):
        check_order(order, Order(1, 5, 7))


@pytest.mark.parametrize("order", [Order(1, 5, 8), Order(1, 6, 1), Order(2, 1, 1), Order(1, 5, 7 + MAX_JUMP)])
def test_a_newer_round_is_taken(order: Order) -> None:
    check_order(order, Order(1, 5, 7))


def test_frames_of_another_round_are_refused() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    old = RoundEnded(Order(1, 1, 0), "aborted", "", 0.0)
    refused(fleet.tell("d001", old), TranscriptError, "round 1.1.0 spoke to round 1.1.1")
    assert fleet.stage("d001") == "keyed"


@pytest.mark.parametrize(
    ("manifest", "gist"),
    [
        (manifest_for(5, members=6, fleet="other"), "of fleet other"),
        (manifest_for(5, members=6, order=Order(2, 1, 1)), "coordinator of generation 1 signed round 2.1.1"),
        (manifest_for(5, members=4), "at most 4 can't reach the floor of 5"),
        (replace(manifest_for(5, members=6), weights=describe(b"12345")), "no vector of float32"),
        (replace(manifest_for(5, members=6), bundle=replace(describe(b"x"), size=2**20)), "1 hashes came"),
    ],
)
def test_a_manifest_that_cannot_be_meant_for_this_device_is_refused(manifest: Manifest, gist: str) -> None:
    fleet = HostileCoordinator(floor=5)
    refused(fleet.tell("d001", manifest), ManifestError, gist)
    assert fleet.said("d001", Decline).reason


def test_another_coordinators_word_does_not_count_in_this_round() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    previous = fleet.authority.issue("coordinator", Role.COORDINATOR, generation=0)
    ended = RoundEnded(fleet.manifest.order, "aborted", "", 0.0)
    refused(
        fleet.tell("d001", ended, signer=previous), CertificateError, "coordinator of generation 0 speaks"
    )
    device = fleet.devices[DeviceId("d002")].identity
    refused(fleet.tell("d001", ended, signer=device), CertificateError, "is a device, not a coordinator")
    refused(
        fleet.tell("d001", ended, signer=stranger("test", "coordinator", Role.COORDINATOR)),
        CertificateError,
        "this fleet's root",
    )
    assert fleet.stage("d001") == "keyed"


def test_an_honest_round_over_these_tools_is_not_refused() -> None:
    """The attacks above fail for their own sake, not because the tools speak badly."""
    fleet = HostileCoordinator()
    _, t3 = fleet.bring_to_confirmations()
    fleet.tell_all(fleet.confirmations(t3))
    assert {fleet.stage(name) for name in fleet.devices} == {"revealed"}
    assert VirtualFleet(devices=6, size=5).run() == "committed"
