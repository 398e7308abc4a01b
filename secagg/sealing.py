"""Sealed messages between two members of a round, carried by a coordinator that cannot read or move them.

AES-128-GCM (NIST SP 800-38D). The key comes from the pair's X25519 agreement, salted with the transcript and
labelled with sender and receiver in this order, so that each direction has its own. The nonce is zero: safe
because a key seals one message, the bundle of shares from this sender to this receiver in this transcript,
and a device that is asked again sends the same bytes.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.errors import SealError
from secagg.keys import Secret, agree, encode, expand, extract

SEAL_OVERHEAD = 16
"""Bytes by which a sealed message is longer than its content: the tag."""

_KEY_SIZE = 16
_NONCE = bytes(12)


@dataclass(frozen=True)
class Channel:
    """What one device and one peer share for sealing to each other: one agreement serves both directions.

    Attributes:
        extracted: from the pair's X25519 shared secret; both directions' keys are made from it.
        own: id of the device.
        peer: id of the peer.
        transcript: hash of the round so far, equal on both sides.
    """

    extracted: Secret
    own: str
    peer: str
    transcript: bytes

    def seal(self, plaintext: bytes) -> bytes:
        """Encrypt and authenticate the one message to the peer; `SEAL_OVERHEAD` bytes longer."""
        cipher, context = self._direction(self.own, self.peer)
        return cipher.encrypt(_NONCE, plaintext, context)

    def open_sealed(self, sealed: bytes) -> bytes:
        """Check and decrypt the one message from the peer.

        Raises:
            SealError: it was changed, cut, or belongs to another sender, receiver or transcript.
        """
        cipher, context = self._direction(self.peer, self.own)
        try:
            return cipher.decrypt(_NONCE, sealed, context)
        except InvalidTag as error:
            reason = f"not a sealed message from {self.peer} to {self.own} in this transcript"
            raise SealError(reason) from error

    def _direction(self, sender: str, receiver: str) -> tuple[AESGCM, bytes]:
        """Return the cipher and the associated data of one direction."""
        context = encode(self.transcript, sender.encode(), receiver.encode())
        label = b"fedfleet/1/seal" + context
        return AESGCM(expand(self.extracted, label, _KEY_SIZE).reveal()), context


def open_channel(private: Secret, peer_public: bytes, *, transcript: bytes, own: str, peer: str) -> Channel:
    """Agree with a peer.

    Args:
        private: the device's seal private key.
        peer_public: the peer's seal public key.
        transcript: hash of the round so far, equal on both sides.
        own: id of the device.
        peer: id of the peer.

    Raises:
        LowOrderPointError: the peer's public key is not usable.
    """
    return Channel(extract(agree(private, peer_public), transcript), own, peer, transcript)


def seal(
    plaintext: bytes, *, private: Secret, peer_public: bytes, transcript: bytes, sender: str, receiver: str
) -> bytes:
    """Seal to a receiver with whom no channel is kept; raises what `open_channel` raises."""
    channel = open_channel(private, peer_public, transcript=transcript, own=sender, peer=receiver)
    return channel.seal(plaintext)


def open_sealed(
    sealed: bytes, *, private: Secret, peer_public: bytes, transcript: bytes, sender: str, receiver: str
) -> bytes:
    """Open what a sender sealed; raises what `open_channel` and `Channel.open_sealed` raise."""
    channel = open_channel(private, peer_public, transcript=transcript, own=receiver, peer=sender)
    return channel.open_sealed(sealed)
