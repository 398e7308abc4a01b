"""Transcript vectors, some wrong on purpose; `vectors/make_secagg.py` made them without our code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg import graph, pairwise, sealing, shamir
from secagg.errors import LowOrderPointError, RingError, SealError, ShareError
from secagg.keys import RoundSecrets, Secret, agree, seed_commitment
from secagg.ring import RingLayout, RingVector

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "secagg.json").read_text())
MASKING, SEALING, SHARING, RING = (VECTORS[part] for part in ("masking", "sealing", "sharing", "ring"))
DEVICES = {device["id"]: device for device in MASKING["devices"]}
SECRETS = {
    name: RoundSecrets.from_master(Secret(bytes.fromhex(device["master"])))
    for name, device in DEVICES.items()
}
T2 = bytes.fromhex(MASKING["transcript"])


def vector(layout: dict[str, int], values: dict[str, Any]) -> RingVector:
    metrics, update = (np.array(values[block], np.int64) for block in ("metrics", "update"))
    return RingVector.from_signed(RingLayout(**layout), metrics, update)


def expansions(name: str) -> list[pairwise.Expansion]:
    secrets = SECRETS[name]
    peers = tuple((peer, SECRETS[peer].mask_public) for peer in DEVICES if peer != name)
    own = pairwise.self_expansion(secrets.self_seed, transcript=T2, device=name)
    return [own, *pairwise.PairGroup(secrets.mask_private, name, peers, T2)]


@pytest.mark.parametrize("name", DEVICES)
def test_one_master_gives_all_secrets_of_a_round(name: str) -> None:
    secrets, expected = SECRETS[name], DEVICES[name]
    derived = {
        "mask-private": secrets.mask_private,
        "seal-private": secrets.seal_private,
        "self-seed": secrets.self_seed,
        "share-key": secrets.share_key,
        "encoding-key": secrets.encoding_key,
    }
    assert {purpose: secret.reveal().hex() for purpose, secret in derived.items()} == expected["secrets"]
    assert secrets.mask_public.hex() == expected["mask_public"]
    assert secrets.seal_public.hex() == expected["seal_public"]
    assert seed_commitment(T2, name, secrets.self_seed).hex() == expected["commitment"]


@pytest.mark.parametrize("name", DEVICES)
def test_mask_keys_are_those_of_the_transcript(name: str) -> None:
    own, *pairs = expansions(name)
    assert own.key.reveal().hex() == DEVICES[name]["self_key"]
    assert own.sign == 1
    assert [pair.key.reveal().hex() for pair in pairs] == list(DEVICES[name]["pair_keys"].values())
    assert [pair.sign for pair in pairs] == [1 if name < peer else -1 for peer in DEVICES[name]["pair_keys"]]


def test_masked_uploads_are_those_of_the_transcript_and_sum_to_the_plain_sum() -> None:
    total = RingVector.zeros(RingLayout(**MASKING["layout"]))
    for name, device in DEVICES.items():
        upload = vector(MASKING["layout"], device)
        pairwise.apply(upload, expansions(name))
        assert upload.pack().hex() == device["masked"]
        total.add(RingVector.unpack(upload.layout, upload.pack()))
    pairwise.apply(total, [expansions(name)[0] for name in DEVICES], remove=True)
    assert total.signed_metrics().tolist() == MASKING["sum"]["metrics"]
    assert total.signed_update().tolist() == MASKING["sum"]["update"]


def open_case(case: dict[str, str]) -> bytes:
    return sealing.open_sealed(
        bytes.fromhex(case["sealed"]),
        private=SECRETS[case["receiver"]].seal_private,
        peer_public=SECRETS[case["sender"]].seal_public,
        transcript=bytes.fromhex(case["transcript"]),
        sender=case["sender"],
        receiver=case["receiver"],
    )


def test_a_sealed_message_is_that_of_the_transcript() -> None:
    assert open_case(SEALING).hex() == SEALING["plaintext"]
    sealed = sealing.seal(
        bytes.fromhex(SEALING["plaintext"]),
        private=SECRETS["ant"].seal_private,
        peer_public=SECRETS["bee"].seal_public,
        transcript=bytes.fromhex(SEALING["transcript"]),
        sender="ant",
        receiver="bee",
    )
    assert sealed.hex() == SEALING["sealed"]


@pytest.mark.parametrize("case", SEALING["refused"], ids=lambda case: case["why"])
def test_a_wrong_sealed_message_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(SealError):
        open_case(case)


def shares_of(case: dict[str, str]) -> dict[int, bytes]:
    return {int(point): bytes.fromhex(share) for point, share in case.items()}


def test_shares_are_those_of_the_transcript() -> None:
    secret, stream_key = (Secret(bytes.fromhex(SHARING[field])) for field in ("secret", "stream_key"))
    shares = shares_of(SHARING["shares"])
    split = shamir.split(secret, threshold=SHARING["threshold"], points=list(shares), stream_key=stream_key)
    assert split == shares
    assert shamir.combine(shares, SHARING["threshold"]) == secret


@pytest.mark.parametrize("case", SHARING["refused"], ids=lambda case: case["why"])
def test_wrong_shares_are_refused(case: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ShareError):
        shamir.combine(shares_of(case["shares"]), SHARING["threshold"])


def test_a_lying_share_is_found() -> None:
    secret, lie = Secret(bytes.fromhex(SHARING["secret"])), SHARING["lie"]
    shares = shares_of(SHARING["shares"]) | {lie["point"]: bytes.fromhex(lie["share"])}
    assert shamir.recover(shares, SHARING["threshold"], secret.__eq__) == (secret, frozenset({lie["point"]}))


@pytest.mark.parametrize("case", VECTORS["packing"], ids=lambda case: str(case["layout"]["bits"]))
def test_packed_vectors_are_those_of_the_format(case: dict[str, Any]) -> None:
    layout = RingLayout(**case["layout"])
    assert vector(case["layout"], case).pack().hex() == case["packed"]
    unpacked = RingVector.unpack(layout, bytes.fromhex(case["packed"]))
    assert unpacked.signed_metrics().tolist() == case["metrics"]
    assert unpacked.signed_update().tolist() == case["update"]
    for wrong in case["refused"]:
        with pytest.raises(RingError):
            RingVector.unpack(layout, bytes.fromhex(wrong["packed"]))


def test_the_ring_is_that_of_the_transcript() -> None:
    members, degree, transcript = RING["members"], RING["degree"], bytes.fromhex(RING["transcript"])
    found = graph.neighbours(members[::-1], degree, transcript)
    assert {member: sorted(near) for member, near in found.items()} == RING["neighbours"]


@pytest.mark.parametrize("key", VECTORS["refused_public_keys"])
def test_public_keys_that_force_the_secret_are_refused(key: str) -> None:
    with pytest.raises(LowOrderPointError):
        agree(SECRETS["ant"].mask_private, bytes.fromhex(key))
