"""Bytes that are no honest frame are refused before anybody acts on them, in both directions."""

from collections.abc import Callable

import msgspec
import pytest
from virtual_fleet import NOW, VirtualFleet

from protocol.errors import CertificateError, FrameError, PeerError
from protocol.frames import Opened, open_coordinator_frame, open_device_frame, seal_frame, signed_bytes
from protocol.ids import DeviceId
from protocol.messages import (
    MAX_FRAME,
    Accept,
    Cohort,
    RoundEnded,
    ShareSet,
    decode_from_coordinator,
    decode_from_device,
    encode,
)
from protocol.transcript import begin

FLEET = VirtualFleet(devices=3, size=2)
DEVICE, COORDINATOR = FLEET.devices[DeviceId("d001")].identity, FLEET.coordinator_identity
ORDER, T0 = FLEET.manifest.order, begin(encode(FLEET.manifest))
UP = seal_frame(DEVICE, Accept(ORDER, T0))
DOWN = seal_frame(COORDINATOR, RoundEnded(ORDER, "aborted", "why not", 1.0))
Open = Callable[[bytes], Opened[object]]


def open_up(frame: bytes) -> Opened[object]:
    return open_device_frame(frame, FLEET.trust, NOW)


def open_down(frame: bytes) -> Opened[object]:
    return open_coordinator_frame(frame, FLEET.trust, NOW)


both_ways = pytest.mark.parametrize(
    ("frame", "reader"), [(UP, open_up), (DOWN, open_down)], ids=["up", "down"]
)


def signed(sender: object, body: bytes, *, by: object = DEVICE) -> bytes:
    """A properly signed frame around any body."""
    signature = by.sign(signed_bytes(by.name, body))  # type: ignore[attr-defined]
    return msgspec.msgpack.encode([sender, by.certificate, body, signature])  # type: ignore[attr-defined]


@both_ways
def test_an_honest_frame_opens(frame: bytes, reader: Open) -> None:
    assert reader(frame).frame == frame


@both_ways
def test_a_frame_cut_anywhere_is_refused(frame: bytes, reader: Open) -> None:
    for length in range(len(frame)):
        with pytest.raises(FrameError, match="not a frame"):
            reader(frame[:length])


@both_ways
def test_a_frame_with_something_behind_it_is_refused(frame: bytes, reader: Open) -> None:
    with pytest.raises(FrameError, match="not a frame"):
        reader(frame + b"\0")


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@both_ways
def test_no_bit_of_a_frame_can_be_changed(frame: bytes, reader: Open) -> None:
    for place in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises((FrameError, CertificateError)):
            reader(bytes(flipped))


@both_ways
def test_an_oversized_frame_is_not_even_parsed(frame: bytes, reader: Open) -> None:
    with pytest.raises(FrameError, match=f"{MAX_FRAME + 1} bytes is longer than {MAX_FRAME}"):
        reader(frame.ljust(MAX_FRAME + 1, b"\0"))


@both_ways
@pytest.mark.parametrize(
    "untyped",
    [
        None, 7, "text", b"bytes", [], {}, [1, 2, 3, 4], ["d001", b"", b"", b""],
        {"sender": "d001", "certificate": b"", "body": b"", "signature": bytes(64)},
        ["d001", b"", b"", bytes(64), "and more"], ["../etc", b"", b"", bytes(64)], [[[[[[]]]]]],
    ],
    ids=str,
)  # fmt: skip
def test_untyped_bytes_are_no_frame(frame: bytes, reader: Open, untyped: object) -> None:
    del frame
    with pytest.raises(PeerError):
        reader(msgspec.msgpack.encode(untyped))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        msgspec.msgpack.encode({"type": "accept"}),
        msgspec.msgpack.encode(["accept"]),
        msgspec.msgpack.encode(["accept", [1, 1, 1], bytes(31)]),
        msgspec.msgpack.encode(["accept", [1, 1, 1], bytes(32), "more"]),
        msgspec.msgpack.encode(["accept", [1, 1], bytes(32)]),
        msgspec.msgpack.encode(["accept", [1, 1, -1], bytes(32)]),
        msgspec.msgpack.encode(["accept", [1, 1, 2**53], bytes(32)]),
        msgspec.msgpack.encode(["accept", [1, 1, 1.0], bytes(32)]),
        msgspec.msgpack.encode(["accept", [1, 1, 1], "x" * 32]),
        msgspec.msgpack.encode(["decline", [1, 1, 1], bytes(32), "x" * 201]),
        msgspec.msgpack.encode(["unheard-of", [1, 1, 1], bytes(32)]),
        msgspec.msgpack.encode(["cohort", [1, 1, 1], bytes(32), []]),  # a coordinator's word
        msgspec.msgpack.encode(["reveal", [1, 1, 1], bytes(32), [["d1", bytes(36)]] * 1025]),
        b"\x93\xa6accept\x93\x01\x01\x01\xc4\x20" + bytes(31),
        b"\x94\xa7decline\x93\x01\x01\x01\xc4\x20" + bytes(32) + b"\xa2\xff\xfe",  # no UTF-8
    ],
)
def test_a_signed_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError, match="not a message of this protocol"):
        open_up(signed("d001", body))


@pytest.mark.parametrize(
    ("short", "long"),
    [(b"\xa6accept", b"\xd9\x06accept"), (b"\x93\x01", b"\xdc\x00\x03\x01"), (b"\x93\x01", b"\x93\xcc\x01")],
    ids=["text", "array", "number"],
)
def test_a_message_has_one_encoding(short: bytes, long: bytes) -> None:
    body = encode(Accept(ORDER, T0)).replace(short, long, 1)
    assert decode_from_device(body) == Accept(ORDER, T0)
    with pytest.raises(FrameError, match="Accept in another encoding"):
        open_up(signed("d001", body))


def test_each_side_speaks_only_its_own_messages() -> None:
    with pytest.raises(FrameError, match="not a message"):
        decode_from_coordinator(encode(Accept(ORDER, T0)))
    with pytest.raises(FrameError, match="not a message"):
        decode_from_device(encode(ShareSet(ORDER, T0, ())))


def test_a_frame_sent_back_is_refused() -> None:
    with pytest.raises(CertificateError, match="is a device, not a coordinator"):
        open_down(UP)
    with pytest.raises(CertificateError, match="is a coordinator, not a device"):
        open_up(DOWN)


def test_a_signature_does_not_move_between_sender_and_body() -> None:
    body = encode(Accept(ORDER, T0))
    with pytest.raises(FrameError, match="sent the certificate of d001"):
        open_up(signed("d00", body))
    assert signed_bytes("ab", b"c") != signed_bytes("a", b"bc")


def test_the_largest_cohort_fits_one_frame() -> None:
    entry = len(seal_frame(DEVICE, Accept(ORDER, T0))) + 2 * 34  # the keys
    cohort = Cohort(ORDER, T0, (bytes(entry + 2 * 60),) * 1024)  # and names of 64
    assert len(seal_frame(COORDINATOR, cohort)) <= MAX_FRAME


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_whatever_arrives_broken_the_round_goes_on() -> None:
    fleet = VirtualFleet(devices=6, size=4, seed=5)

    def spoil(_: str, __: str, frame: bytes) -> list[bytes]:
        place = fleet.random.randrange(8 * len(frame))
        flipped = bytearray(frame)
        flipped[place // 8] ^= 1 << place % 8
        return [frame[: place // 8], bytes(flipped), b"", frame + frame, frame]

    fleet.tamper = spoil
    assert fleet.run() == "committed"
    assert len(fleet.refused) > 100
    assert all(isinstance(error, FrameError | CertificateError) for error in fleet.refused)
