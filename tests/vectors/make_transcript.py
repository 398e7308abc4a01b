"""Writes transcript.json: manifest, decisions, links and frames of one small round, some wrong on purpose.

A second implementation that shares no code with `protocol`: MessagePack by the `msgpack` package, hashes and
signatures by hand.

Run `python tests/vectors/make_transcript.py > tests/vectors/transcript.json` after a deliberate change of the
protocol.
"""

import datetime as dt
import hashlib
import json
import sys
from typing import Any

import msgpack  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = 1_700_000_000
ORDER = [1, 4, 42]
IDS = ("ant", "bee", "cat")


def digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(digest(b"signing", name.encode()))


def certificate(name: str, role: str, fleet: str = "vectors", issuer: str = "root") -> bytes:
    """A certificate of the profile; the root's own when name and issuer are one."""
    authority = name == issuer
    start = dt.datetime.fromtimestamp(NOW - 1000, tz=dt.UTC)
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet)
    attributes = [organisation]
    if not authority:
        attributes += [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    if role == "coordinator":
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, str(ORDER[0])))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([organisation]))
        .public_key(key(name).public_key())
        .serial_number(int.from_bytes(digest(name.encode())[:8], "big") >> 1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return builder.sign(key(issuer), None).public_bytes(Encoding.DER)


def frame(name: str, body: bytes, *, cert: bytes | None = None, by: str | None = None) -> bytes:
    signature = key(by or name).sign(b"\0".join((b"fedfleet/1/frame", name.encode(), body)))
    role = "coordinator" if name == "hub" else "device"
    packed: bytes = msgpack.packb([name, cert or certificate(name, role), body, signature])
    return packed


def blob(content: bytes) -> list[Any]:
    return [digest(content), len(content), 262_144, [digest(content)]]


def manifest() -> list[Any]:
    training = {
        "loss": "cross_entropy", "optimizer": "sgd", "local_epochs": 2, "batch_size": 16,
        "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0, "gradient_clip": None, "proximal": 0.0,
        "max_examples": 10_000, "examples": "random",
        "loss_ceiling": 10.0,
    }  # fmt: skip
    eligibility = {
        "idle": False, "charging": True, "unmetered": False, "unknown_network": "metered",
        "min_battery": None, "max_temperature": 80, "min_free_memory_mb": None, "min_free_disk_mb": None,
        "min_examples": 1, "min_rest": 0, "tags": ["lab"], "min_version": None,
    }  # fmt: skip
    masking = {
        "bits": 20, "clip": 10.0, "coordinate_limit": None, "sketch": 1.0,
        "corrupt_fraction": 0.25, "dropout_fraction": 0.05, "threshold": 0,
    }  # fmt: skip
    deadlines = {
        "inviting": 10.0, "keying": 300.0, "sharing": 30.0, "collecting": 120.0, "confirming": 30.0,
        "recovering": 30.0, "max_lifetime": 3600.0,
    }  # fmt: skip
    return [
        "manifest", "vectors", ORDER, "pairwise", digest(b"plan"), 0, blob(b"bundle"), blob(bytes(20)),
        training, eligibility, masking, None, 3, 8, deadlines, "main",
    ]  # fmt: skip


def public(name: str, purpose: bytes) -> bytes:
    private = X25519PrivateKey.from_private_bytes(digest(purpose, name.encode()))
    return private.public_key().public_bytes_raw()


def link(transcript: bytes, body: bytes) -> bytes:
    return digest(b"fedfleet/1/transcript/decision", transcript, digest(body))


def chain() -> list[dict[str, str]]:
    """T0 … T3, each with the body that leads to it."""
    bodies = [msgpack.packb(manifest())]
    links = [digest(b"fedfleet/1/transcript/manifest", digest(bodies[0]))]
    keys = (["round-keys", ORDER, links[0], public(name, b"mask"), public(name, b"seal")] for name in IDS)
    entries = [frame(name, msgpack.packb(said)) for name, said in zip(IDS, keys, strict=True)]
    for tag, content in (
        ("cohort", entries),
        ("share-set", list(IDS)),
        ("survivor-set", ["ant", "bee", "cat"]),
    ):
        bodies.append(msgpack.packb([tag, ORDER, links[-1], content]))
        links.append(link(links[-1], bodies[-1]))
    kinds = ("manifest", "cohort", "share-set", "survivor-set")
    return [
        {"message": kind, "body": body.hex(), "transcript": after.hex()}
        for kind, body, after in zip(kinds, bodies, links, strict=True)
    ]


def frames() -> list[dict[str, str]]:
    t0 = bytes(32)
    body = msgpack.packb(["accept", ORDER, t0])
    good = frame("ant", body)
    other_fleet = certificate("ant", "device", fleet="another", issuer="stranger")
    bare = msgpack.unpackb(good)
    cases = [
        ("", good),
        ("one byte too few", good[:-1]),
        ("one byte too many", good + b"\0"),
        ("signed by another device", frame("ant", body, by="bee")),
        ("with another device's certificate", frame("ant", body, cert=certificate("bee", "device"))),
        ("with a coordinator's certificate", frame("hub", body)),
        ("with a certificate of another fleet", frame("ant", body, cert=other_fleet)),
        ("another body under the signature", msgpack.packb([*bare[:2], body + b"\0", bare[3]])),
        ("a map instead of an array", msgpack.packb(dict(enumerate(bare)))),
        ("a fifth element", msgpack.packb([*bare, 0])),
        ("a name with a dot", frame("an.t", body, cert=certificate("ant", "device"))),
        ("a signed body that is no message", frame("ant", msgpack.packb(["accept", ORDER]))),
        ("a link of 31 bytes", frame("ant", msgpack.packb(["accept", ORDER, bytes(31)]))),
        ("a round that is a float", frame("ant", msgpack.packb(["accept", [1, 4, 42.0], t0]))),
        ("a coordinator's message by a device", frame("ant", msgpack.packb(["share-set", ORDER, t0, []]))),
        ("an unknown message", frame("ant", msgpack.packb(["gossip", ORDER, t0]))),
    ]
    return [{"why": why, "frame": content.hex()} for why, content in cases]


if __name__ == "__main__":
    vectors = {
        "now": NOW,
        "root": certificate("root", "", issuer="root").hex(),
        "order": ORDER,
        "members": list(IDS),
        "chain": chain(),
        "device_frames": {"opens": frames()[:1], "refused": frames()[1:]},
    }
    json.dump(vectors, sys.stdout, indent=1)
    sys.stdout.write("\n")
