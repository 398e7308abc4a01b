"""Signed frames: every message on the machines' root except chunks, which are held by their hashes.

A frame is `[sender, certificate, body, signature]`. It carries its signer's certificate, so that anyone who
trusts the fleet's root can verify it without asking anybody. The signature (Ed25519, RFC 8032) covers
label, sender and body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta, Struct

from protocol.certificates import MAX_CERTIFICATE, Certificate, FleetTrust, Role
from protocol.enrolment import (
    MAX_REQUEST,
    EnrolmentRequest,
    FromRegistrar,
    decode_from_registrar,
    decode_request,
)
from protocol.errors import MAX_CAUSE, CertificateError, FrameError
from protocol.ids import DeviceId, Name, UnixTime
from protocol.messages import (
    MAX_FRAME,
    FromCoordinator,
    FromDevice,
    Message,
    Signature,
    decode_from_coordinator,
    decode_from_device,
    encode,
)

_LABEL = b"fedfleet/1/frame"
M_co = TypeVar("M_co", covariant=True)
M = TypeVar("M", bound=Message)


class Signer(Protocol):
    """Who signs: a name, its certificate and an Ed25519 key that stays inside."""

    @property
    def name(self) -> str:
        """The certificate's common name."""
        ...

    @property
    def certificate(self) -> bytes:
        """DER."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        ...


class Frame(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What travels."""

    sender: Name
    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    body: bytes
    signature: Signature


@dataclass(frozen=True)
class Opened(Generic[M_co]):
    """A verified frame.

    Attributes:
        signer: the verified certificate of its sender.
        message: the decoded body.
        body: the signed bytes of the message.
        frame: the whole frame, for forwarding byte-identical.
        signature: Ed25519 over label, sender and body.
    """

    signer: Certificate
    message: M_co
    body: bytes
    frame: bytes
    signature: bytes

    @property
    def sender(self) -> DeviceId:
        """The sender's name."""
        return DeviceId(self.signer.subject)


def seal_frame(signer: Signer, message: Message) -> bytes:
    """Sign a message: the bytes to publish."""
    body = encode(message)
    signature = signer.sign(signed_bytes(signer.name, body))
    return _encoder.encode(Frame(signer.name, signer.certificate, body, signature))


def signed_bytes(sender: str, body: bytes) -> bytes:
    """What a frame's signature covers. A name cannot hold a zero byte, so the parts cannot shift."""
    return b"\0".join((_LABEL, sender.encode(), body))


def open_device_frame(data: bytes, trust: FleetTrust, now: UnixTime) -> Opened[FromDevice]:
    """Verify and decode a frame from a device.

    Args:
        data: the bytes as they came, at most MAX_FRAME.
        trust: the fleet's root.
        now: wall clock, for certificate validity.

    Raises:
        FrameError: malformed, too long, in another encoding than ours, or the signature is not the sender's.
        CertificateError: not a device of this fleet.
    """
    return _open(data, trust, Role.DEVICE, now, decode_from_device)


def open_coordinator_frame(data: bytes, trust: FleetTrust, now: UnixTime) -> Opened[FromCoordinator]:
    """Verify and decode a frame from a coordinator; as `open_device_frame`."""
    return _open(data, trust, Role.COORDINATOR, now, decode_from_coordinator)


def open_enrolment_request(data: bytes, trust: FleetTrust, now: UnixTime) -> Opened[EnrolmentRequest]:
    """Verify and decode a request for a certificate, by a claim or a device; as `open_device_frame`."""
    if len(data) > MAX_REQUEST:
        raise FrameError(f"a request of {len(data)} bytes is longer than {MAX_REQUEST}")
    role = trust.read(_decode(data).certificate).role
    if role not in {Role.CLAIM, Role.DEVICE}:
        raise FrameError(f"a {role} asks for a certificate; only claims and devices do")
    return _open(data, trust, role, now, decode_request)


def open_registrar_frame(data: bytes, trust: FleetTrust, now: UnixTime) -> Opened[FromRegistrar]:
    """Verify and decode a frame from a registrar; as `open_device_frame`."""
    return _open(data, trust, Role.REGISTRAR, now, decode_from_registrar)


def reopen_device_frame(data: bytes, trust: FleetTrust) -> Opened[FromDevice]:
    """Open a frame that was verified when it came and stored since: dates are not looked at again.

    Raises:
        PeerError: it is no such frame after all; what was stored is damaged.
    """
    frame = _decode(data)
    signer = trust.read(frame.certificate)
    if signer.role is not Role.DEVICE or signer.subject != frame.sender:
        raise CertificateError(f"{frame.sender} shows the certificate of the {signer.role} {signer.subject}")
    verify_signature(signer.public_key, frame.sender, frame.body, frame.signature)
    return Opened(signer, decode_from_device(frame.body), frame.body, data, frame.signature)


def verify_signature(public_key: bytes, sender: str, body: bytes, signature: bytes) -> None:
    """Check the signature of a frame whose parts are known.

    Raises:
        FrameError: it is not the sender's.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed_bytes(sender, body))
    except InvalidSignature as error:
        raise FrameError(f"the signature is not {sender}'s") from error


def _open(
    data: bytes, trust: FleetTrust, role: Role, now: UnixTime, decode: Callable[[bytes], M]
) -> Opened[M]:
    """A frame of a sender in this role, verified and decoded."""
    frame, signer = _verify(data, trust, role, now)
    message = decode(frame.body)
    _check_canonical(message, frame.body)
    return Opened(signer, message, frame.body, bytes(data), frame.signature)


def _check_canonical(message: Message, body: bytes) -> None:
    """One message has one encoding, so that a hash or signature over it can be rebuilt from its content."""
    if encode(message) != body:
        raise FrameError(f"a {type(message).__name__} in another encoding than the shortest and complete one")


def _verify(data: bytes, trust: FleetTrust, role: Role, now: UnixTime) -> tuple[Frame, Certificate]:
    frame = _decode(data)
    signer = trust.verify(frame.certificate, role=role, now=now)
    if signer.subject != frame.sender:
        raise FrameError(f"{frame.sender} sent the certificate of {signer.subject}")
    verify_signature(signer.public_key, frame.sender, frame.body, frame.signature)
    return frame, signer


def _decode(data: bytes) -> Frame:
    if len(data) > MAX_FRAME:
        raise FrameError(f"a frame of {len(data)} bytes is longer than {MAX_FRAME}")
    try:
        return _decoder.decode(data)
    # msgspec raises plain UnicodeDecodeError (a ValueError) for some bad strings.
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise FrameError(f"not a frame: {str(error)[:MAX_CAUSE]}") from error


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)
