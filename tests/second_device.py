"""A second device, written from PROTOCOL.md alone: it shares no code with the first and reads as a reference.

Top-down: the device and its round, frames and messages, graph, keys and shares; `second_vector` writes what
it sends. It has no clock, no transport and no training: `handle` takes a coordinator's frame and returns the
frames to say.
"""

import hmac
import math
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from second_vector import (
    E,
    H,
    Message,
    Trained,
    Words,
    add_mask,
    cost,
    encode,
    enough_for_noise,
    epsilon,
    fits,
    pack,
    stream,
)

DECISIONS = ("cohort", "share-set", "survivor-set", "confirmations")  # bound to T0, T1, T2, T3


class Refused(Exception):  # noqa: N818 - the protocol's word
    """A rule is broken: the frame changes nothing, or the device leaves."""


def need(holds: object, why: str) -> None:
    if not holds:
        raise Refused(why)


FACTS = {
    "idle": True,
    "charging": True,
    "unmetered": True,
    "battery": None,
    "temperature": 40,
    "free_memory_mb": 500,
    "free_disk_mb": 5000,
    "rested": 10**9,
    "tags": [],
    "version": "0.1.0",
}
"""What a device on mains power knows of itself."""


@dataclass
class SecondDevice:
    """One device. `floor`, `gamma_floor`, `facts` and `budget` (in zCDP, for life) are its own; `seen` is the
    newest order it entered, `charged` what its rounds cost it.
    """

    name: str
    key: Ed25519PrivateKey
    certificate: bytes
    root: x509.Certificate
    now: datetime
    train: Callable[[], Trained]
    floor: int = 3
    gamma_floor: float = 0.0
    facts: Message = field(default_factory=lambda: dict(FACTS))
    budget: float = math.inf
    charged: list[tuple[Sequence[int], float]] = field(default_factory=list)
    entropy: Callable[[int], bytes] = os.urandom
    seen: Sequence[int] = (0, 0, 0)
    round: "Round | None" = None
    refused: list[str] = field(default_factory=list)

    def handle(self, frame: bytes) -> list[bytes]:
        """What to say to a coordinator's frame."""
        try:
            opened = open_frame(frame, self.root, "coordinator", self.now)
            order = opened.message["order"]
            need(order[0] == opened.generation, "signed by another generation")
            if self.round is None or self.round.order != order:
                need(opened.message["tag"] == "manifest", "of no round of ours")
                check_order(order, self.seen)
                self.round = Round(self, opened)
                return self.round.begin()
            return self.round.told(opened)
        except Refused as why:
            self.refused.append(str(why))
            return []

    @property
    def upload(self) -> bytes:
        """The masked bytes; empty before there are any and after the round."""
        return self.round.upload if self.round else b""


class Round:
    """One round. `links` are T0, T1 …: as many decisions are taken as there are links after the first."""

    def __init__(self, own: SecondDevice, opened: "Opened") -> None:
        self.own, self.manifest, self.fleet = own, opened.message, opened.fleet
        self.order: list[int] = self.manifest["order"]
        self.links = [H(b"fedfleet/1/transcript/manifest" + H(opened.body))]
        self.taken = {"manifest": opened.body}
        self.secrets: Secrets | None = Secrets(own.entropy(32))
        self.last = self.upload = b""
        self.delivery: Message | None = None
        self.held: dict[str, bytes] = {}
        self.vector: Sequence[Words] = ()
        self.over = False

    @property
    def keys(self) -> "Secrets":
        need(self.secrets, "the secrets are erased")
        return self.secrets  # type: ignore[return-value]  # `need` saw to it

    def begin(self) -> list[bytes]:
        """Accept, train, and show keys."""
        try:
            check_manifest(self.manifest, self.fleet, self.own)
            self.own.seen = self.order  # to be stored durably before anything is said
            trained = self.own.train()
            if trained.examples < self.manifest["eligibility"]["min_examples"]:
                need(self.manifest["noise"], "too few examples")
                trained = Trained(np.zeros_like(trained.delta), 0, 0, 0.0, 0)
            self.vector = encode(trained, self.manifest, self.links[0], self.keys.encoding_key)
        except (Refused, LookupError, TypeError, ValueError, ArithmeticError) as why:
            return [self.leave(why)]
        accept = self.say("accept", self.links[0])
        keys = (public(self.keys.mask_private), public(self.keys.seal_private))
        self.entry = self.say("round-keys", self.links[0], *keys)
        return [accept, self.entry]

    def told(self, opened: "Opened") -> list[bytes]:
        """Take what the coordinator says in this round."""
        message, tag = opened.message, opened.message["tag"]
        if self.over:
            return []
        if tag == "round-ended":
            self.erase()
        if tag == "manifest":
            need(opened.body == self.taken[tag], "a second manifest")
            return [self.last]
        if tag == "share-delivery":
            return self.delivered(message)
        return self.decided(tag, opened) if tag in DECISIONS else []

    def say(self, tag: str, link: bytes, *fields: Any) -> bytes:
        self.last = seal_frame(self.own, [tag, self.order, link, *fields])
        return self.last

    def leave(self, why: Exception) -> bytes:
        self.own.refused.append(str(why))
        self.erase()
        return self.say("decline", self.links[0], str(why)[:200])

    def erase(self) -> None:
        self.over, self.secrets, self.upload, self.vector, self.held = True, None, b"", (), {}

    def decided(self, tag: str, opened: "Opened") -> list[bytes]:
        """Take a decision in its turn; one that breaks a rule makes the device leave."""
        place, body = DECISIONS.index(tag), opened.body
        if self.taken.get(tag) == body:
            return []
        need(tag not in self.taken and place == len(self.links) - 1, f"a second or early {tag}")
        need(opened.message["T"] == self.links[place], f"a {tag} of another transcript")
        self.taken[tag] = body
        self.links.append(H(b"fedfleet/1/transcript/decision" + self.links[place] + H(body)))
        take = (self.cohort, self.share_set, self.survivor_set, self.confirmations)[place]
        try:
            return take(opened.message)
        except Refused as why:
            return [self.leave(why)]

    def cohort(self, message: Message) -> list[bytes]:
        """Check U1, find our place in it, share both secrets among our neighbours."""
        own, manifest = self.own, self.manifest
        entries = [open_frame(frame, own.root, "device", own.now) for frame in message["members"]]
        self.members = {entry.sender: entry for entry in entries}
        names = [entry.sender for entry in entries]
        need(names == sorted(set(names)), "a cohort that is not sorted and distinct")
        for entry in entries:
            said = entry.message
            need((said["tag"], said["order"], said["T"]) == ("round-keys", self.order, self.links[0]), "keys")
            need(entry.fleet == self.fleet, "a member of another fleet")
        public_keys = [entry.message[kind] for entry in entries for kind in ("mask_key", "seal_key")]
        need(len(set(public_keys)) == 2 * len(names), "a round key twice")
        need(not any(map(is_low_order, public_keys)), "a key of low order")
        need(len({entry.key.public_bytes_raw() for entry in entries}) == len(names), "a device key twice")
        need(self.entry in message["members"], "our own entry altered")
        self.floor = max(manifest["min_cohort"], own.floor)
        need(self.floor <= len(names) <= manifest["max_cohort"], "a cohort too small or too large")
        self.enough = enough_for_noise(manifest, len(names))
        self.neighbours, self.threshold = graph(
            own.name, names, self.links[1], manifest["secure_aggregation"]
        )
        need(self.threshold <= len(self.neighbours), "a threshold above the neighbours")
        return [self.say_shares(names)]

    def say_shares(self, names: list[str]) -> bytes:
        t1, points = self.links[1], {name: names.index(name) + 1 for name in self.neighbours}
        secrets = {"self-seed": self.keys.self_seed, "mask-private": self.keys.mask_private}
        seeds, keys = (
            share(secret, points, self.threshold, D(self.keys.share_key, t1, f"fedfleet/1/share/{kind}"))
            for kind, secret in secrets.items()
        )
        commitment = H(E("fedfleet/1/seed-commitment", t1, self.own.name, self.keys.self_seed))
        sealed = []
        for name in self.neighbours:
            cipher, bound = self.seal(name, self.own.name, name)
            sealed.append([name, cipher.encrypt(bytes(12), seeds[name] + keys[name], bound)])
        return self.say("sealed-shares", t1, commitment, sealed)

    def seal(self, other: str, sender: str, receiver: str) -> tuple[AESGCM, bytes]:
        """Cipher and associated data; its key serves once, so its nonce may be zero."""
        bound = E(self.links[1], sender, receiver)
        secret = agree(self.keys.seal_private, self.members[other].message["seal_key"])
        return AESGCM(D(secret, self.links[1], b"fedfleet/1/seal" + bound, 16)), bound

    def share_set(self, message: Message) -> list[bytes]:
        self.sharing = self.subset(message["members"], self.members)
        self.peers = [name for name in self.neighbours if name in self.sharing]
        return self.mask() if self.delivery else []

    def subset(self, names: list[str], of: Collection[str]) -> list[str]:
        need(names == sorted(set(names)) and set(names) <= set(of), "not a sorted subset")
        need(self.own.name in names, "a set without us")
        need(len(names) >= max(self.floor, self.threshold, self.enough), "a set of too few")
        need(sum(name in names for name in self.neighbours) >= self.threshold, "too few neighbours in a set")
        return names

    def delivered(self, message: Message) -> list[bytes]:
        """The neighbours' shares, which may come before the share set they are bound to."""
        if self.upload:
            return [self.last] if len(self.links) == 3 else []
        self.delivery = message
        try:
            return self.mask() if len(self.links) == 3 else []
        except Refused as why:
            return [self.leave(why)]

    def mask(self) -> list[bytes]:
        """Hold what opens, then mask in place, once."""
        delivery, t2 = self.delivery or {}, self.links[2]
        self.delivery = None
        if delivery["T"] != t2:
            return []
        self.hold(dict(delivery["shares"]))
        self_mask = D(self.keys.self_seed, t2, b"fedfleet/1/self-mask" + E(self.own.name), 16)
        add_mask(self.vector, self_mask, adding=True)
        for name in self.peers:
            secret = agree(self.keys.mask_private, self.members[name].message["mask_key"])
            pair_mask = D(secret, t2, b"fedfleet/1/pair-mask" + E(*sorted((self.own.name, name))), 16)
            add_mask(self.vector, pair_mask, adding=self.own.name < name)
        metrics, update = self.vector
        self.upload = pack(metrics, update, self.manifest["secure_aggregation"]["bits"])
        if self.manifest["noise"]:
            self.own.charged.append((self.order, cost(self.manifest)))  # to be stored durably likewise
        return [self.say("upload-offer", t2, describe(self.upload))]

    def hold(self, shares: dict[str, bytes]) -> None:
        need(set(self.peers) <= set(shares), "a neighbour's shares are missing")
        for name in self.peers:
            cipher, bound = self.seal(name, name, self.own.name)
            try:
                self.held[name] = cipher.decrypt(bytes(12), shares[name], bound)
            except InvalidTag:
                continue
        need(len(self.held) >= self.threshold, "too few shares open")

    def survivor_set(self, message: Message) -> list[bytes]:
        need(self.upload, "survivors before our upload")
        self.survivors = self.subset(message["members"], self.sharing)
        return [self.say("confirmation", self.links[3])]

    def confirmations(self, message: Message) -> list[bytes]:
        """Count our neighbours' signatures under this T3; then one share of each, of the kind U3 implies."""
        body = msgpack.packb(["confirmation", self.order, self.links[3]])
        confirmed = {
            name
            for name, signature in message["signatures"]
            if name in self.neighbours
            and name in self.survivors
            and is_signed(self.members[name].key, signature, to_sign(name, body))
        }
        need(len(confirmed) >= self.threshold, "too few confirmations")
        shares = [
            [name, pair[:36] if name in self.survivors else pair[36:]]
            for name, pair in sorted(self.held.items())
        ]
        self.erase()
        return [self.say("reveal", self.links[3], shares)]


# Frames and messages.


def check_order(order: Sequence[int], seen: Sequence[int]) -> None:
    need(list(order) > list(seen), "an order that does not grow")
    need(all(new <= old + 2**20 for new, old in zip(order[1:], seen[1:], strict=True)), "an order that jumps")


def check_manifest(manifest: Message, fleet: str, own: SecondDevice) -> None:
    asked, secure = manifest["eligibility"], manifest["secure_aggregation"]
    need(manifest["protocol"] == "pairwise", "another protocol")
    need(manifest["fleet"] == fleet == subject(own.root, "O"), "another fleet")
    need(manifest["revocations"] == 0, "a revocation list that this device does not have")
    need(manifest["max_cohort"] >= max(own.floor, manifest["min_cohort"]), "a cohort below the floor")
    need(secure["corrupt_fraction"] >= own.gamma_floor, "too small a corrupt part")
    need(fulfils(own.facts, asked), "a condition not met")
    need(manifest["weights"][1] % 4 == 0, "weights that are no float32")
    need(fits(manifest), "too many members for the ring")
    if manifest["noise"]:
        check_cost(manifest, own)


def fulfils(facts: Message, asked: Message) -> bool:
    """What is not known is not fulfilled, but for the network. While it charges, its charge is nothing."""
    unmetered = asked["unknown_network"] == "unmetered" if facts["unmetered"] is None else facts["unmetered"]
    bounds = {
        "battery": None if facts["charging"] else asked["min_battery"],
        "free_memory_mb": asked["min_free_memory_mb"],
        "free_disk_mb": asked["min_free_disk_mb"],
        "rested": asked["min_rest"],
    }
    least = {word: low for word, low in bounds.items() if low is not None}
    heat, most = facts["temperature"], asked["max_temperature"]
    return (
        all(facts[word] is True for word in ("idle", "charging") if asked[word])
        and (unmetered or not asked["unmetered"])
        and all(facts[word] is not None and facts[word] >= low for word, low in least.items())
        and (most is None or (heat is not None and heat <= most))
        and set(asked["tags"]) <= set(facts["tags"])
        and numbers(facts["version"]) >= numbers(asked["min_version"] or "")
    )


def numbers(version: str) -> list[int]:
    """Those that a version begins with, without zeros at the end."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return [int(part) for part in re.sub(r"(\.0+)+$", "", found[0]).split(".")] if found else []


def check_cost(manifest: Message, own: SecondDevice) -> None:
    """The label is no lower than what we count; we rest for as long as we are told; our own budget lasts."""
    noise, order, spent = manifest["noise"], manifest["order"], cost(manifest)
    need(noise["mode"] in ("distributed", "central"), "another mode of noise")
    need(
        epsilon(noise["participations"] * spent, noise["delta"]) <= noise["epsilon"] * (1 + 1e-6),
        "an epsilon too low by our count",
    )
    rounds = [before[2] for before, _ in own.charged if list(before[:2]) == order[:2]]
    need(not rounds or order[2] - rounds[-1] >= noise["spacing"], "another round so soon")
    need(math.fsum(cost for _, cost in own.charged) + spent <= own.budget, "our privacy budget is spent")


def fields(names: str, *shapes: Any) -> Message:
    return dict(zip(names.split(), shapes, strict=True))


# A shape is a type, a length in bytes, [of each], or {first: …, second: …}.
TEXT, NUMBER, HASH, KEY, NAMES = str, (int, float), 32, 32, [str]
ORDER = fields("generation epoch round", int, int, int)
BLOB = fields("sha256 size chunk_size chunk_hashes", HASH, int, int, [HASH])
FRAME = fields("sender certificate body signature", TEXT, bytes, bytes, 64)
MANIFEST = (
    "fleet order protocol plan revocations bundle weights training eligibility secure_aggregation noise"
)
MESSAGES = {
    "manifest": fields(
        f"{MANIFEST} min_cohort max_cohort deadlines shard",
        *(
            TEXT,
            ORDER,
            TEXT,
            HASH,
            int,
            BLOB,
            BLOB,
            dict,
            dict,
            dict,
            (dict, type(None)),
            int,
            int,
            dict,
            TEXT,
        ),
    ),
    "round-keys": fields("order T mask_key seal_key", ORDER, HASH, KEY, KEY),
    "cohort": fields("order T members", ORDER, HASH, [bytes]),
    "share-set": fields("order T members", ORDER, HASH, NAMES),
    "share-delivery": fields("order T shares", ORDER, HASH, [fields("sender sealed", TEXT, 88)]),
    "grant": fields("order blob chunks", ORDER, HASH, [int]),
    "stored": fields("order blob", ORDER, HASH),
    "survivor-set": fields("order T members", ORDER, HASH, NAMES),
    "confirmations": fields("order T signatures", ORDER, HASH, [fields("name signature", TEXT, 64)]),
    "round-ended": fields("order result reason retry_after", ORDER, TEXT, TEXT, NUMBER),
}


@dataclass(frozen=True)
class Opened:
    """A frame whose certificate and signature hold."""

    sender: str
    fleet: str
    generation: int
    key: Ed25519PublicKey
    body: bytes
    message: Message


def open_frame(frame: bytes, root: x509.Certificate, role: str, now: datetime) -> Opened:
    """Check length, structure, certificate, signature and body, in this order."""
    need(len(frame) <= 1_048_576, "a frame too long")
    try:
        parts = msgpack.unpackb(frame)
        need(has_shape(parts, FRAME) and len(parts[1]) <= 2048, "the structure of a frame")
        sender, der, body, signature = parts
        certificate, skew = x509.load_der_x509_certificate(der), timedelta(seconds=300)
        certificate.verify_directly_issued_by(root)
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        need(subject(certificate, "OU") == role and not authority, f"not a {role}")
        need(
            certificate.not_valid_before_utc - skew <= now <= certificate.not_valid_after_utc + skew, "dates"
        )
        need(subject(certificate, "CN") == sender, "another's certificate")
        generation = int(subject(certificate, "2.5.4.5")) if role == "coordinator" else 0
        key = Ed25519PublicKey.from_public_bytes(raw_key(certificate))
        need(is_signed(key, signature, to_sign(sender, body)), "signature")
        tag, *values = msgpack.unpackb(body)
        need(has_shape(values, MESSAGES[tag]), f"fields of {tag}")
        message = {"tag": tag, **dict(zip(MESSAGES[tag], values, strict=True))}
    except (ValueError, TypeError, LookupError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise Refused(f"malformed: {error}") from error
    return Opened(sender, subject(certificate, "O"), generation, key, body, message)


def has_shape(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        fits = isinstance(value, list) and len(value) == len(shape)
        return fits and all(map(has_shape, value, shape.values()))
    if isinstance(shape, list):
        return isinstance(value, list) and all(has_shape(each, shape[0]) for each in value)
    if isinstance(shape, int):
        return isinstance(value, bytes) and len(value) == shape
    return isinstance(value, shape)


def seal_frame(own: SecondDevice, message: list[Any]) -> bytes:
    body = msgpack.packb(message)
    framed = [own.name, own.certificate, body, own.key.sign(to_sign(own.name, body))]
    return bytes(msgpack.packb(framed))


def to_sign(sender: str, body: bytes) -> bytes:
    return b"\0".join((b"fedfleet/1/frame", sender.encode(), body))


def is_signed(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def raw_key(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise Refused("a key that is not Ed25519")
    return key.public_bytes_raw()


def subject(certificate: x509.Certificate, attribute: str) -> str:
    oids = {"O": "2.5.4.10", "CN": "2.5.4.3", "OU": "2.5.4.11"}
    oid = x509.ObjectIdentifier(oids.get(attribute, attribute))
    (found,) = certificate.subject.get_attributes_for_oid(oid)
    return str(found.value)


def describe(blob: bytes, chunk_size: int = 256 * 1024) -> list[Any]:
    chunks = [blob[start : start + chunk_size] for start in range(0, len(blob), chunk_size)]
    return [H(blob), len(blob), chunk_size, [H(chunk) for chunk in chunks]]


# Graph and threshold.


def graph(own: str, names: list[str], t1: bytes, secure: Message) -> tuple[list[str], int]:
    """Our neighbours, sorted, and the threshold."""
    n = len(names)
    k, t = degree_and_threshold(n, secure["corrupt_fraction"], secure["dropout_fraction"])
    ring = sorted(names, key=lambda name: hmac.digest(t1, b"fedfleet/1/ring" + name.encode(), "sha256"))
    place, reach = ring.index(own), range(1, k // 2 + 1)
    near = {ring[(place + side * step) % n] for step in reach for side in (-1, 1)}
    return sorted(near if k < n - 1 else set(names) - {own}), max(t, secure["threshold"])


@cache
def degree_and_threshold(n: int, gamma: float, delta: float) -> tuple[int, int]:
    """k and t: a Harary graph beyond 64 members where one is safe, else the complete graph."""
    corrupt, dropped = (math.ceil(Fraction(repr(part)) * n) for part in (gamma, delta))
    bad = corrupt + dropped
    for k in range(2, n - 1, 2) if n > 64 else ():
        apart = Fraction(n * (n - k - 1) * math.perm(bad, k), 2 * math.perm(n, k))
        if apart >= Fraction(1, 2**105):
            continue
        t1 = next(t for t in range(k + 1) if 1 - below(t + 1, n, corrupt, k) <= Fraction(1, 2**105 * n))
        t = (t1 + k) // 2 + 1
        if below(t, n, n - dropped, k) <= Fraction(1, 2**20 * n):  # which is t <= t2
            return k, t
    return n - 1, (n - 1 + corrupt - 1) // 2 + 1


def below(x: int, n: int, marked: int, k: int) -> Fraction:
    """P[Hyp < x], with `marked` of n marked and k drawn."""
    ways = sum(math.comb(marked, i) * math.comb(n - marked, k - i) for i in range(min(x, k + 1)))
    return Fraction(ways, math.comb(n, k))


# Keys and shares.


def D(secret: bytes, salt: bytes, label: bytes | str, n: int = 32) -> bytes:  # noqa: N802
    return HKDF(SHA256(), n, salt, label.encode() if isinstance(label, str) else label).derive(secret)


class Secrets:
    """What one round's master gives."""

    def __init__(self, master: bytes) -> None:
        self.mask_private, self.seal_private, self.self_seed, self.share_key, self.encoding_key = (
            D(master, b"", f"fedfleet/1/{use}")
            for use in ("mask-private", "seal-private", "self-seed", "share-key", "encoding-key")
        )


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, other: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


def is_low_order(key: bytes) -> bool:
    """With any private key it gives zero, which the library refuses."""
    try:
        agree(bytes(32), key)
    except ValueError:
        return True
    return False


PRIME = 2**31 - 1


def share(secret: bytes, points: dict[str, int], threshold: int, key: bytes) -> dict[str, bytes]:
    """Shamir shares of 32 bytes, one for each point."""
    number = int.from_bytes(secret, "little")
    limbs = [number >> 30 * limb & (2**30 - 1) for limb in range(9)]
    drawn = (int(word) & PRIME for word in np.frombuffer(stream(key, 36 * threshold + 256), "<u4"))
    coefficients = (word for word in drawn if word != PRIME)
    rows = [
        [next(coefficients) for _ in range(9)] for _ in range(threshold - 1)
    ]  # from the highest power down
    shares = {}
    for name, point in points.items():
        values = [0] * 9
        for row in [*rows, limbs]:
            values = [(value * point + one) % PRIME for value, one in zip(values, row, strict=True)]
        shares[name] = np.array(values, "<u4").tobytes()
    return shares
