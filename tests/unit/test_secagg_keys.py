"""Secrets stay hidden, and the primitives below them are those of the RFCs."""

import pickle
from dataclasses import replace

import pytest

from secagg.keys import (
    RoundSecrets,
    Secret,
    agree,
    derive,
    encode,
    expand,
    extract,
    public_key,
    seed_commitment,
)

ALICE = Secret(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
BOB = Secret(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
MASTER = Secret(bytes(range(32)))


def test_a_secret_does_not_print() -> None:
    shown = f"{MASTER} {MASTER!r} {[MASTER]} {RoundSecrets.from_master(MASTER)}"
    assert "Secret(32 bytes)" in shown
    for secret in (MASTER, RoundSecrets.from_master(MASTER).self_seed):
        assert secret.reveal().hex() not in shown
        assert repr(secret.reveal())[2:-1] not in shown


def test_secrets_compare_by_content_and_have_no_hash() -> None:
    assert Secret(b"same") == Secret(b"same")
    assert Secret(b"same") != Secret(b"diff")
    assert Secret(b"same") != Secret(b"longer")
    assert Secret(b"same") != b"same"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret(b"same"))


def test_a_secret_goes_to_a_worker_and_keeps_no_alias() -> None:
    public = public_key(MASTER)
    sent: Secret = pickle.loads(pickle.dumps(MASTER))  # noqa: S301 (our own bytes)
    assert sent == MASTER
    assert public_key(sent) == public
    buffer = bytearray(b"first")
    secret = Secret(bytes(buffer))
    buffer[:] = b"later"
    assert secret.reveal() == b"first"
    assert len(secret) == 5


def test_hkdf_is_that_of_rfc_5869() -> None:
    """Appendix A.1 and A.3."""
    first = derive(
        Secret(b"\x0b" * 22),
        salt=bytes(range(13)),
        label=bytes(range(0xF0, 0xFA)),
        length=42,
    )
    assert first.reveal().hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    third = derive(Secret(b"\x0b" * 22), salt=b"", label=b"", length=42)
    assert third.reveal().hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_one_extraction_serves_several_purposes() -> None:
    extracted = extract(MASTER, b"salt")
    assert "Secret(32 bytes)" in repr(extracted)
    for label in (b"one", b"two"):
        assert expand(extracted, label, 16) == derive(MASTER, salt=b"salt", label=label, length=16)


def test_key_agreement_is_that_of_rfc_7748() -> None:
    """Section 6.1."""
    alice_public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    bob_public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert public_key(ALICE).hex() == alice_public
    assert public_key(BOB).hex() == bob_public
    assert agree(ALICE, bytes.fromhex(bob_public)).reveal().hex() == shared
    assert agree(BOB, bytes.fromhex(alice_public)).reveal().hex() == shared


def test_encoding_is_unambiguous() -> None:
    lists = ((), (b"",), (b"", b""), (b"ab",), (b"a", b"b"), (b"", b"ab"), (b"ab", b""))
    assert len({encode(*parts) for parts in lists}) == len(lists)


def test_each_purpose_has_its_own_secret() -> None:
    secrets = RoundSecrets.from_master(MASTER)
    assert secrets == RoundSecrets.from_master(MASTER)
    parts = [
        secrets.mask_private,
        secrets.seal_private,
        secrets.self_seed,
        secrets.share_key,
        secrets.encoding_key,
    ]
    assert len({part.reveal() for part in parts} | {MASTER.reveal()}) == 6
    assert secrets.mask_public == public_key(secrets.mask_private)
    assert secrets.seal_public == public_key(secrets.seal_private)
    assert replace(secrets, self_seed=MASTER) != secrets


def test_a_commitment_binds_transcript_device_and_seed() -> None:
    seed = Secret(bytes(32))
    commitments = {
        seed_commitment(b"t1", "ant", seed),
        seed_commitment(b"t2", "ant", seed),
        seed_commitment(b"t1", "bee", seed),
        seed_commitment(b"t1", "ant", MASTER),
        seed_commitment(b"t1a", "nt", seed),
    }
    assert len(commitments) == 5
    assert all(len(commitment) == 32 for commitment in commitments)
