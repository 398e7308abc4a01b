"""Lists and certificates as written down for other implementations."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.certificates import FleetTrust
from protocol.errors import CertificateError
from protocol.ids import UnixTime
from protocol.roles import Role

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "revocations.json").read_text())


def test_the_vectors_are_what_their_script_writes() -> None:
    script = FOLDER / "make_revocations.py"
    written = subprocess.run([sys.executable, script], capture_output=True, check=True)
    assert json.loads(written.stdout) == VECTORS


@pytest.mark.parametrize("case", VECTORS["cases"], ids=[case["why"] for case in VECTORS["cases"]])
def test_lists_and_certificates_are_judged_as_written(case: dict[str, Any]) -> None:
    trust = FleetTrust(bytes.fromhex(VECTORS["root"]))
    for heard in case["lists"]:
        assert _taken(trust, bytes.fromhex(heard["message"])) is heard["taken"]
    for judged in case["certificates"]:
        assert _counts(trust, judged) is judged["counts"], judged["why"]


def _taken(trust: FleetTrust, message: bytes) -> bool:
    try:
        return trust.heed(message)
    except CertificateError:
        return False


def _counts(trust: FleetTrust, judged: dict[str, Any]) -> bool:
    try:
        der, role = bytes.fromhex(judged["certificate"]), Role(judged["role"])
        trust.verify(der, role=role, now=UnixTime(judged["now"]))
    except CertificateError:
        return False
    return True
