"""Secrets, the labelled derivations that give each one purpose, and key agreement.

Every derived key has a label of its own, `fedfleet/1/<purpose>`, and where it belongs to a round it is
salted with the transcript, so that a key never serves two purposes, two pairs or two views of a round.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from secagg.errors import LowOrderPointError

SECRET_SIZE = 32
"""Bytes of a master secret, a private key and a self-mask seed."""

_P = 2**255 - 19
_LOW_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,
        _P + 1,
    }
)
"""u-coordinates of the points of order 1, 2, 4 and 8 on curve and twist, and their encodings beyond p."""

_SHA256 = SHA256()

PUBLIC_KEY_SIZE = 32
"""Bytes of an X25519 public key."""


class Secret:
    """Bytes that never print, compare in constant time and have no hash.

    It can be pickled, because workers on this machine need it. Python cannot erase bytes: dropping the last
    reference is all that "erase" can mean here.
    """

    __slots__ = ("_private_key", "_value")

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)
        self._private_key: X25519PrivateKey | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._value,)

    def private_key(self) -> X25519PrivateKey:
        """Return the 32 bytes as an X25519 private key; kept, as reading it costs as much as an agreement."""
        if self._private_key is None:
            self._private_key = X25519PrivateKey.from_private_bytes(self._value)
        return self._private_key

    def reveal(self) -> bytes:
        """Return the bytes themselves; the caller must have a reason."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"Secret({len(self._value)} bytes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and compare_digest(self._value, other._value)

    # A set or dictionary of secrets would hash, and so leak, their content.
    __hash__ = None  # type: ignore[assignment]


def encode(*parts: bytes) -> bytes:
    """Join parts so that different lists of parts never give the same bytes.

    Each part is preceded by its length as four big-endian bytes.
    """
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def derive(secret: Secret, *, salt: bytes, label: bytes, length: int = SECRET_SIZE) -> Secret:
    """Derive a key for one purpose with HKDF-SHA256 (RFC 5869).

    Args:
        secret: the input keying material.
        salt: the hash of the transcript the key belongs to.
        label: the purpose; goes into HKDF's `info`.
        length: bytes of the key, 1 to 8160.
    """
    return expand(extract(secret, salt), label, length)


def extract(secret: Secret, salt: bytes) -> Secret:
    """Return the 32-byte key from which `expand` makes keys for several purposes (RFC 5869, section 2.2)."""
    mac = _salted(salt).copy()
    mac.update(secret.reveal())
    return Secret(mac.finalize())


def expand(extracted: Secret, label: bytes, length: int) -> Secret:
    """Return the key for one purpose: with `extract`, what `derive` gives (RFC 5869, section 2.3)."""
    return Secret(HKDFExpand(_SHA256, length, label).derive(extracted.reveal()))


@lru_cache(maxsize=64)
def _salted(salt: bytes) -> HMAC:
    """Copying a keyed HMAC costs a third of keying one; a round has few transcripts and many secrets."""
    return HMAC(salt, _SHA256)


def public_key(private: Secret) -> bytes:
    """Return the 32-byte X25519 public key of a 32-byte private key (RFC 7748, section 6.1)."""
    return private.private_key().public_key().public_bytes_raw()


def is_low_order(public: bytes) -> bool:
    """Whether an X25519 public key gives zero with every private key (RFC 7748, section 6.1 and 7).

    Compared with the seven encodings there are, the unused top bit left out: 1/40 of an agreement's time.
    """
    return int.from_bytes(public, "little") % 2**255 in _LOW_ORDER


def agree(private: Secret, public: bytes) -> Secret:
    """Return the 32-byte X25519 shared secret with one peer (RFC 7748, section 6.1).

    Raises:
        LowOrderPointError: the key is not 32 bytes, or the shared secret is all zero.
    """
    try:
        return Secret(private.private_key().exchange(_parsed(public)))
    except ValueError as error:
        raise LowOrderPointError("a public key must be 32 bytes and not of low order") from error


@lru_cache(maxsize=4096)
def _parsed(public: bytes) -> X25519PublicKey:
    """Parsing costs half an agreement; a coordinator meets each survivor's key once for every dropout."""
    return X25519PublicKey.from_public_bytes(public)


@dataclass(frozen=True)
class RoundSecrets:
    """All the secrets of one device in one round, derived from one master that lives in memory only.

    Attributes:
        mask_private: X25519 private key whose agreements give the pair masks; shared among the neighbours.
        seal_private: X25519 private key whose agreements seal the shares; never leaves the device.
        self_seed: seed of the device's own mask; shared among the neighbours.
        share_key: gives the coefficients of both sharings, through one derivation each.
        encoding_key: gives the randomness of stochastic rounding and of the device's noise.
    """

    mask_private: Secret
    seal_private: Secret
    self_seed: Secret
    share_key: Secret
    encoding_key: Secret

    @classmethod
    def from_master(cls, master: Secret) -> Self:
        """Derive the five from 32 uniformly random bytes that serve this round only."""

        def part(purpose: bytes) -> Secret:
            return derive(master, salt=b"", label=b"fedfleet/1/" + purpose)

        return cls(
            mask_private=part(b"mask-private"),
            seal_private=part(b"seal-private"),
            self_seed=part(b"self-seed"),
            share_key=part(b"share-key"),
            encoding_key=part(b"encoding-key"),
        )

    @property
    def mask_public(self) -> bytes:
        """The public half of `mask_private`."""
        return public_key(self.mask_private)

    @property
    def seal_public(self) -> bytes:
        """The public half of `seal_private`."""
        return public_key(self.seal_private)


def seed_commitment(transcript: bytes, device: str, seed: Secret) -> bytes:
    """Return the 32-byte hash by which a recovered seed is checked.

    SHA-256 over the encoded label, transcript, device and seed. It hides the seed because the seed has 256
    bits of entropy, and binds it because SHA-256 resists collisions.
    """
    return sha256(encode(b"fedfleet/1/seed-commitment", transcript, device.encode(), seed.reveal())).digest()
