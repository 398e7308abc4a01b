"""Writes revocations.json: a registrar, its lists, and what each list makes of certificates.

Run `python tests/vectors/make_revocations.py > tests/vectors/revocations.json`. Keys come from a seed, and
Ed25519 is deterministic, so the bytes are the same every time.
"""

import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from itertools import count
from typing import Any

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.ids import UnixTime
from protocol.roles import Role
from registrar.authority import FleetAuthority

NOW = 1_700_000_000
DAY = 86_400
NUMBERS = count()


def entropy(size: int) -> bytes:
    return sha256(b"revocations %d" % next(NUMBERS)).digest()[:size]


ROOT = FleetAuthority.create("vectors", UnixTime(NOW - 100 * DAY), entropy)
OWN = ROOT.issue("registrar", Role.REGISTRAR)
OTHER = FleetAuthority.create("vectors", UnixTime(NOW - 100 * DAY), entropy)
IMPOSTOR = OTHER.issue("registrar", Role.REGISTRAR)


def registrar(identity: Any = OWN) -> FleetAuthority:
    return FleetAuthority.of_registrar(identity, UnixTime(NOW - DAY), entropy)


ANT, BEE = (registrar().issue(name, Role.DEVICE) for name in ("ant", "bee"))
MINTED = registrar().issue("coordinator", Role.COORDINATOR, 7)
DIRECT = ROOT.issue("cat", Role.DEVICE)


def serial(identity: Any) -> int:
    return x509.load_der_x509_certificate(identity.certificate).serial_number


def message(number: int, revoked: Sequence[Any] = (), *, by: Any = OWN, shown: Any = None) -> str:
    serials = {serial(one): UnixTime(NOW - 60) for one in revoked}
    crl = registrar(by).revocation_list(number, serials, UnixTime(NOW + 7 * DAY))
    return msgpack.packb([(shown or by).certificate, crl.public_bytes(Encoding.DER)]).hex()


def judged(why: str, identity: Any, *, role: str = "device", now: int = NOW, counts: bool) -> dict[str, Any]:
    return {"why": why, "certificate": identity.certificate.hex(), "role": role, "now": now, "counts": counts}


def case(why: str, lists: Sequence[tuple[str, bool]], *certificates: dict[str, Any]) -> dict[str, Any]:
    heard = [{"message": data, "taken": taken} for data, taken in lists]
    return {"why": why, "lists": heard, "certificates": list(certificates)}


def main() -> None:
    """Write the vectors to standard output."""
    first, second = message(1), message(2, [BEE])
    damaged = first[:-2] + f"{int(first[-2:], 16) ^ 1:02x}"
    cases = [
        case(
            "without a list only what the root signed counts",
            [],
            judged("a registrar's device", ANT, counts=False),
            judged("the root's device", DIRECT, counts=True),
        ),
        case(
            "under its list a registrar's device counts",
            [(first, True)],
            judged("a device", ANT, counts=True),
            judged("when the list has expired, and five minutes", ANT, now=NOW + 7 * DAY + 301, counts=False),
            judged("the root's device, then", DIRECT, now=NOW + 7 * DAY + 301, counts=True),
            judged("a coordinator that the registrar made", MINTED, role="coordinator", counts=False),
        ),
        case(
            "who is on the newest list does not",
            [(first, True), (second, True)],
            judged("revoked", BEE, counts=False),
            judged("another", ANT, counts=True),
        ),
        case(
            "an older list is not taken, nor another of the same number",
            [(second, True), (first, False), (message(2), False)],
            judged("revoked", BEE, counts=False),
        ),
        case(
            "a list that is not the registrar's is not taken",
            [
                (message(1, by=IMPOSTOR), False),
                (message(1, by=IMPOSTOR, shown=OWN), False),
                (message(1, by=ANT), False),
                (damaged, False),
                (first[:-2], False),
            ],
            judged("a device", ANT, counts=False),
        ),
    ]
    vectors = {"now": NOW, "root": OWN.root.hex(), "cases": cases}
    sys.stdout.write(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
