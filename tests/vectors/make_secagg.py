"""Writes secagg.json: a second implementation of what it holds, in plain integers, sharing no code with
`secagg`.

Run `python tests/vectors/make_secagg.py > tests/vectors/secagg.json` after a deliberate change of the
protocol.
"""

import hashlib
import hmac
import json
import struct
import sys
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CURVE, FIELD = 2**255 - 19, 2**31 - 1
T1, T2 = hashlib.sha256(b"cohort").digest(), hashlib.sha256(b"share set").digest()
IDS = ("ant", "bee", "cat")


def frame(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(prk, info + b"\x01", "sha256")[:length]


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748, section 5: the Montgomery ladder."""
    k = (int.from_bytes(scalar, "little") & ~7 & (2**255 - 1)) | 2**254
    x1 = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        x3, z3 = (d * a + c * b) ** 2 % CURVE, x1 * (d * a - c * b) ** 2 % CURVE
        e = a * a - b * b
        x2, z2 = a * a * b * b % CURVE, e * (a * a + 121665 * e) % CURVE
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, CURVE - 2, CURVE) % CURVE).to_bytes(32, "little")


def public(scalar: bytes) -> bytes:
    return x25519(scalar, (9).to_bytes(32, "little"))


def stream(key: bytes, length: int) -> bytes:
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 (counter mode is built from it)
    blocks = (ecb.update(counter.to_bytes(16, "big")) for counter in range(length // 16 + 1))
    return b"".join(blocks)[:length]


def secrets_of(master: bytes) -> dict[str, bytes]:
    purposes = ("mask-private", "seal-private", "self-seed", "share-key", "encoding-key")
    return {purpose: hkdf(master, b"", b"fedfleet/1/" + purpose.encode()) for purpose in purposes}


MASTERS = {name: hashlib.sha256(name.encode()).digest() for name in IDS}
SECRETS = {name: secrets_of(master) for name, master in MASTERS.items()}


def pair_key(own: str, peer: str) -> bytes:
    shared = x25519(SECRETS[own]["mask-private"], public(SECRETS[peer]["mask-private"]))
    return hkdf(shared, T2, b"fedfleet/1/pair-mask" + frame(*sorted((own.encode(), peer.encode()))), 16)


def self_key(own: str) -> bytes:
    return hkdf(SECRETS[own]["self-seed"], T2, b"fedfleet/1/self-mask" + frame(own.encode()), 16)


def pack(metrics: list[int], update: list[int], bits: int) -> bytes:
    number: int = sum(value % 2**bits << bits * index for index, value in enumerate(update))
    words = b"".join(struct.pack("<I", value % 2**32) for value in metrics)
    size: int = -(-len(update) * bits // 8)
    return words + number.to_bytes(size, "little")


def masked(own: str, metrics: list[int], update: list[int]) -> tuple[list[int], list[int]]:
    """Add the masks as 32-bit words: a 20-bit residue travels in the low bits of one."""
    masks = [(self_key(own), 1)]
    masks += [(pair_key(own, peer), 1 if own < peer else -1) for peer in IDS if peer != own]
    values = metrics + update
    for key, sign in masks:
        words = struct.unpack(f"<{len(values)}I", stream(key, 4 * len(values)))
        values = [value + sign * word for value, word in zip(values, words, strict=True)]
    return values[: len(metrics)], values[len(metrics) :]


def masking() -> dict[str, Any]:
    plain = {name: ([index, -7], [3 * index, -1, 2**17, -(2**17), 5]) for index, name in enumerate(IDS)}
    devices = [
        {
            "id": name,
            "master": MASTERS[name].hex(),
            "secrets": {purpose: value.hex() for purpose, value in SECRETS[name].items()},
            "mask_public": public(SECRETS[name]["mask-private"]).hex(),
            "seal_public": public(SECRETS[name]["seal-private"]).hex(),
            "commitment": commitment(name),
            "self_key": self_key(name).hex(),
            "pair_keys": {peer: pair_key(name, peer).hex() for peer in IDS if peer != name},
            "metrics": plain[name][0],
            "update": plain[name][1],
            "masked": pack(*masked(name, *plain[name]), 20).hex(),
        }
        for name in IDS
    ]
    total = [
        [sum(column) for column in zip(*block, strict=True)] for block in zip(*plain.values(), strict=True)
    ]
    return {
        "transcript": T2.hex(),
        "layout": {"update_size": 5, "bits": 20, "metrics_size": 2},
        "devices": devices,
        "sum": {"metrics": total[0], "update": total[1]},
    }


def commitment(name: str) -> str:
    parts = (b"fedfleet/1/seed-commitment", T2, name.encode(), SECRETS[name]["self-seed"])
    return hashlib.sha256(frame(*parts)).hexdigest()


def sealing() -> dict[str, Any]:
    context = frame(T1, b"ant", b"bee")
    shared = x25519(SECRETS["ant"]["seal-private"], public(SECRETS["bee"]["seal-private"]))
    key = hkdf(shared, T1, b"fedfleet/1/seal" + context, 16)
    sealed = AESGCM(key).encrypt(bytes(12), b"two shares", context)
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    right = {"sealed": sealed.hex(), "transcript": T1.hex(), "sender": "ant", "receiver": "bee"}
    return {
        "plaintext": b"two shares".hex(),
        **right,
        "refused": [
            {"why": "moved to another transcript", **right, "transcript": T2.hex()},
            {"why": "moved to another receiver", **right, "receiver": "cat"},
            {"why": "said to come from another sender", **right, "sender": "cat"},
            {"why": "sent back", **right, "sender": "bee", "receiver": "ant"},
            {"why": "cut", **right, "sealed": sealed[:-1].hex()},
            {"why": "shorter than a tag", **right, "sealed": sealed[:9].hex()},
            {"why": "empty", **right, "sealed": ""},
            {"why": "one bit flipped", **right, "sealed": flipped.hex()},
        ],
    }


def sharing() -> dict[str, Any]:
    secret, stream_key, threshold, points = (
        SECRETS["ant"]["self-seed"],
        bytes(range(32)),
        3,
        (1, 2, 5, FIELD - 1),
    )
    number = int.from_bytes(secret, "little")
    words = [word & FIELD for word in struct.unpack("<32I", stream(stream_key, 128))]
    elements = [word for word in words if word != FIELD]
    shares = {}
    for x in points:
        limbs: list[int] = []
        for limb in range(9):
            value = number >> 30 * limb & 2**30 - 1
            for row in range(threshold - 1):  # the first row of coefficients belongs to the highest power
                value += elements[9 * row + limb] * pow(x, threshold - 1 - row, FIELD)
            limbs.append(value % FIELD)
        shares[str(x)] = struct.pack("<9I", *limbs).hex()
    first = shares["1"]
    return {
        "secret": secret.hex(),
        "stream_key": stream_key.hex(),
        "threshold": threshold,
        "shares": shares,
        "refused": [
            {"why": "too few", "shares": {point: shares[point] for point in ("1", "2")}},
            {"why": "a short share", "shares": {**shares, "1": first[:-2]}},
            {"why": "a long share", "shares": {**shares, "1": first + "00"}},
            {"why": "a limb of p", "shares": {**shares, "1": "ffffff7f" + first[8:]}},
            {"why": "a point of zero", "shares": {"0": first, **shares}},
            {"why": "a point of p", "shares": {str(FIELD): first, **shares}},
        ],
        "lie": {"point": 1, "share": shares["2"]},
    }


def packing() -> list[dict[str, Any]]:
    cases = []
    for bits in (8, 10, 12, 16, 20, 24, 31, 32):
        update = [0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 100, -100]
        good = pack([1, -2], update, bits)
        refused = [
            {"why": "cut", "packed": good[:-1].hex()},
            {"why": "too long", "packed": good.hex() + "00"},
        ]
        if 7 * bits % 8:
            refused.append({"why": "a bit after the last residue", "packed": (good[:-1] + b"\xff").hex()})
        layout = {"update_size": 7, "bits": bits, "metrics_size": 2}
        cases.append(
            {"layout": layout, "metrics": [1, -2], "update": update, "packed": good.hex(), "refused": refused}
        )
    return cases


def ring() -> dict[str, Any]:
    members = [f"device-{index}" for index in range(9)]
    order = sorted(members, key=lambda name: hmac.digest(T1, b"fedfleet/1/ring" + name.encode(), "sha256"))
    near = {
        name: sorted(order[(place + step) % 9] for step in (-2, -1, 1, 2)) for place, name in enumerate(order)
    }
    return {"transcript": T1.hex(), "members": members, "degree": 4, "neighbours": near}


def low_order() -> list[str]:
    """Points of order 1, 2, 4 and 8, and keys that are none by their length."""
    eight = 325606250916557431795983626356110631294008115727848805560023387167927233504
    other = 39382357235489614581723060781553021112529911719440698176882885853963445705823
    points = (0, 1, CURVE - 1, eight, other, CURVE, CURVE + 1)
    return [*(point.to_bytes(32, "little").hex() for point in points), "", "09" + 30 * "00", "09" + 32 * "00"]


if __name__ == "__main__":
    vectors = {
        "masking": masking(),
        "sealing": sealing(),
        "sharing": sharing(),
        "packing": packing(),
        "ring": ring(),
        "refused_public_keys": low_order(),
    }
    json.dump(vectors, sys.stdout, indent=1)
    sys.stdout.write("\n")
