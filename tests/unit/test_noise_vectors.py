"""Cost and rotation of noised rounds against vectors that `vectors/make_noise.py` made without our code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from privacy.accounting import epsilon
from privacy.blocks import RotatedBlock
from privacy.errors import PrivacyError
from privacy.rotation import sign_bytes
from protocol.device_privacy import check_noise
from protocol.errors import ManifestError
from protocol.messages import Manifest, decode_from_coordinator, encode
from protocol.noise_cost import promised_cost
from protocol.transcript import begin
from protocol.vector import encoding_of

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "noise.json").read_text())


def manifest_in(case: dict[str, Any]) -> Manifest:
    body = bytes.fromhex(case["body"])
    manifest = decode_from_coordinator(body)
    assert isinstance(manifest, Manifest)
    assert encode(manifest) == body
    return manifest


def test_the_vectors_are_what_their_script_writes() -> None:
    written = subprocess.run([sys.executable, FOLDER / "make_noise.py"], capture_output=True, check=True)
    assert json.loads(written.stdout) == VECTORS


@pytest.mark.parametrize("case", VECTORS["costs"], ids=lambda case: case["why"])
def test_a_round_costs_this_much(case: dict[str, Any]) -> None:
    manifest = manifest_in(case)
    noise = manifest.noise
    assert noise is not None
    assert promised_cost(manifest) == pytest.approx(float(case["rho"]), rel=1e-12)
    total = epsilon(noise.participations * promised_cost(manifest), noise.delta)
    assert total == pytest.approx(float(case["epsilon"]), rel=1e-12)


@pytest.mark.parametrize("case", VECTORS["costs"], ids=lambda case: case["why"])
def test_a_round_rotates_by_these_public_bytes(case: dict[str, Any]) -> None:
    manifest = manifest_in(case)
    block = encoding_of(manifest).block
    assert isinstance(block, RotatedBlock)
    assert begin(encode(manifest)).hex() == case["transcript"]
    assert (block.words, block.norm_squared) == (case["width"], case["longest"])
    drawn = block.public_bytes(8 + sign_bytes(block.size))
    assert int.from_bytes(drawn[:8], "little") % block.size == case["start"]
    assert drawn[8:].hex() == case["signs"]


@pytest.mark.parametrize("case", VECTORS["accepted"], ids=lambda case: case["why"])
def test_a_true_label_is_accepted(case: dict[str, Any]) -> None:
    manifest = manifest_in(case)
    encoding_of(manifest)
    check_noise(manifest)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_numbers_that_do_not_hold_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises((ManifestError, PrivacyError)):
        check_noise(manifest_in(case))
