"""Whatever comes in, only documented errors come out, and what is refused changes nothing."""

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hostile_fleets import HostileCoordinator
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace
from virtual_fleet import NOW, VirtualFleet, manifest_for

from protocol.chunks import describe
from protocol.errors import FedfleetError, FrameError, PeerError
from protocol.frames import open_coordinator_frame, open_device_frame, seal_frame
from protocol.ids import DeviceId, Order
from protocol.messages import (
    Accept,
    Cohort,
    Confirmation,
    Confirmations,
    Decline,
    FromCoordinator,
    FromDevice,
    Grant,
    Message,
    Reveal,
    RoundEnded,
    RoundKeys,
    SealedShares,
    ShareDelivery,
    ShareSet,
    Stored,
    SurvivorSet,
    UploadOffer,
    decode_from_coordinator,
    decode_from_device,
    encode,
)
from protocol.phases import Phase
from protocol.transcript import begin
from protocol.vector import encoding_of, layout_of

FLEET = VirtualFleet(devices=4, size=2)
TRUST = FLEET.trust
UP = seal_frame(FLEET.devices[DeviceId("d001")].identity, Accept(FLEET.manifest.order, bytes(32)))
DOWN = seal_frame(FLEET.coordinator_identity, FLEET.manifest)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
tags = st.sampled_from(
    [said.__struct_config__.tag for said in (Accept, Reveal, RoundKeys, Cohort, ShareSet, Grant)]
)
anything = st.binary() | plain.map(msgspec.msgpack.encode)
almost = st.builds(lambda tag, rest: msgspec.msgpack.encode([tag, *rest]), tags, st.lists(plain))


@given(anything | almost)
def test_any_bytes_are_a_message_or_a_frame_error(body: bytes) -> None:
    for decode in (decode_from_device, decode_from_coordinator):
        try:
            message = decode(body)
        except FrameError:
            continue
        assert decode(encode(message)) == message


@given(anything)
def test_any_bytes_are_a_frame_or_a_peer_error(data: bytes) -> None:
    for reader in (open_device_frame, open_coordinator_frame):
        with pytest.raises(PeerError):
            reader(data, TRUST, NOW)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.sampled_from([UP, DOWN]), st.integers(0), st.binary(max_size=9), st.integers(0, 9))
def test_a_frame_with_a_splice_is_refused(frame: bytes, place: int, splice: bytes, cut: int) -> None:
    place %= len(frame)
    data = frame[:place] + splice + frame[place + cut :]
    if data == frame:
        return
    for reader in (open_device_frame, open_coordinator_frame):
        with pytest.raises(PeerError):
            reader(data, TRUST, NOW)


# Valid messages that are wrong, in any order, to halves in any phase.

names = st.sampled_from(["d001", "d002", "d003", "d004", "d005", "d006", "mallory"])
links = st.sampled_from([0, 1, 2, 3, 4])
members = st.lists(names, max_size=7).map(tuple)


def named(value: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    return st.lists(st.tuples(names, value), max_size=7).map(tuple)


def some(size: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, 255).map(lambda byte: bytes([byte]) * size)


ORDERS = st.sampled_from([Order(1, 1, 1)] * 4 + [Order(1, 1, 2), Order(0, 0, 0)])
DUE = layout_of(encoding_of(manifest_for(5, members=6))).packed_size
BLOBS = st.sampled_from([describe(bytes(DUE)), describe(b"x"), replace(describe(b"x"), size=DUE)])
from_devices = st.one_of(
    st.builds(Accept, ORDERS, some(32)),
    st.builds(Decline, ORDERS, some(32), st.text(max_size=200)),
    st.builds(RoundKeys, ORDERS, some(32), some(32), some(32)),
    st.builds(SealedShares, ORDERS, some(32), some(32), named(some(88))),
    st.builds(UploadOffer, ORDERS, some(32), BLOBS),
    st.builds(Confirmation, ORDERS, some(32)),
    st.builds(Reveal, ORDERS, some(32), named(some(36))),
)
from_coordinators = st.one_of(
    st.builds(
        Cohort, ORDERS, some(32), st.lists(st.binary(max_size=40) | st.just(UP), max_size=4).map(tuple)
    ),
    st.builds(ShareSet, ORDERS, some(32), members),
    st.builds(ShareDelivery, ORDERS, some(32), named(some(88))),
    st.builds(Grant, ORDERS, some(32), st.lists(st.integers(0, 9), max_size=3).map(tuple)),
    st.builds(Stored, ORDERS, some(32)),
    st.builds(SurvivorSet, ORDERS, some(32), members),
    st.builds(Confirmations, ORDERS, some(32), named(some(64))),
    st.just(replace(FLEET.manifest, plan=bytes([9] * 32))),
    st.builds(RoundEnded, st.just(Order(1, 1, 9)), st.just("aborted"), st.text(max_size=9), st.floats(0, 9)),
)


def link(transcripts: list[bytes], index: int, message: Message) -> Message:
    """The message, perhaps continuing the right transcript after all."""
    if index < len(transcripts) and "transcript" in message.__struct_fields__:
        return replace(message, transcript=transcripts[index])
    return message


def brought(to: int) -> tuple[HostileCoordinator, list[bytes]]:
    """Honest devices in the middle of a round, and its transcript so far."""
    fleet = HostileCoordinator(devices=6)
    known = [fleet.t0]
    if to == 0:
        fleet.invite()
    elif to == 1:
        known.append(fleet.bring_to_shares().transcript)
    elif to == 2:
        known.append(fleet.bring_to_uploads())
    elif to == 3:
        known.extend(fleet.bring_to_confirmations())
    return fleet, known


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(0, 3), st.lists(st.tuples(links, from_coordinators), min_size=1, max_size=8))
def test_no_sequence_of_wrong_messages_breaks_a_device(
    to: int, said: list[tuple[int, FromCoordinator]]
) -> None:
    fleet, known = brought(to)
    device = fleet.devices[DeviceId("d001")]
    for index, message in said:
        before = fleet.stage("d001")
        errors = fleet.tell("d001", link(known, index, message))
        assert all(isinstance(error, FedfleetError) and str(error) for error in errors)
        if errors and not any(isinstance(late, Decline) for late in device.said):
            assert fleet.stage("d001") == before
    assert not fleet.has_said("d001", Reveal)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.integers(0, 2**16),
    st.lists(st.tuples(st.sampled_from(["d001", "d002"]), links, from_devices), min_size=1, max_size=8),
)
def test_no_sequence_of_wrong_messages_breaks_the_coordinator(
    seed: int, said: list[tuple[str, int, FromDevice]]
) -> None:
    fleet = VirtualFleet(devices=6, size=5, seed=seed)
    waiting = list(said)

    def interleave(_: str, __: str, frame: bytes) -> list[bytes]:
        if waiting and fleet.random.random() < 0.2:
            name, index, message = waiting.pop()
            say_to_coordinator(fleet, name, link(links_so_far(fleet), index, message))
        return [frame]

    fleet.tamper = interleave
    if fleet.run() is Phase.COMMITTED:
        assert fleet.mean is not None
        np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean_of(fleet.survivors), atol=1e-4)
    else:
        assert fleet.mean is None
        assert fleet.round.reason


def links_so_far(fleet: VirtualFleet) -> list[bytes]:
    """T0 and whatever the announced decisions continue."""
    return [
        begin(encode(fleet.manifest)),
        *(said.transcript for said in fleet.announced if hasattr(said, "transcript")),
    ]


def say_to_coordinator(fleet: VirtualFleet, name: str, message: Message) -> None:
    """One more frame; if it is refused, the phase knows what it knew before."""
    frame = seal_frame(fleet.devices[DeviceId(name)].identity, message)
    known, before = repr(fleet.round._state), len(fleet.refused)
    fleet._hear(frame)
    if len(fleet.refused) > before:
        assert repr(fleet.round._state) == known
        assert str(fleet.refused[-1])
