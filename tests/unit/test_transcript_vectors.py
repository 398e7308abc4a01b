"""Transcript and frames against vectors that `vectors/make_transcript.py` made without our code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.certificates import FleetTrust
from protocol.cohort import read_cohort
from protocol.errors import PeerError, TranscriptError
from protocol.frames import Opened, open_device_frame
from protocol.ids import Order, UnixTime
from protocol.messages import (
    Accept,
    Cohort,
    FromDevice,
    Manifest,
    ShareSet,
    SurvivorSet,
    decode_from_coordinator,
    encode,
)
from protocol.transcript import begin, extend

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "transcript.json").read_text())
CHAIN = [(bytes.fromhex(step["body"]), bytes.fromhex(step["transcript"])) for step in VECTORS["chain"]]
TRUST = FleetTrust(bytes.fromhex(VECTORS["root"]))
NOW = UnixTime(VECTORS["now"])


def open_member(frame: bytes) -> Opened[FromDevice]:
    return open_device_frame(frame, TRUST, NOW)


def test_the_vectors_are_what_their_script_writes() -> None:
    written = subprocess.run([sys.executable, FOLDER / "make_transcript.py"], capture_output=True, check=True)
    assert json.loads(written.stdout) == VECTORS


@pytest.mark.parametrize("index", range(4), ids=[step["message"] for step in VECTORS["chain"]])
def test_every_decision_has_these_bytes_and_leads_to_this_link(index: int) -> None:
    body, transcript = CHAIN[index]
    message = decode_from_coordinator(body)
    assert isinstance(message, (Manifest, Cohort, ShareSet, SurvivorSet)[index])
    assert message.order == Order(*VECTORS["order"])
    assert encode(message) == body
    assert (extend(CHAIN[index - 1][1], body) if index else begin(body)) == transcript
    if not isinstance(message, Manifest):
        assert message.transcript == CHAIN[index - 1][1]


def test_a_link_depends_on_every_byte_before_it() -> None:
    (manifest, t0), (cohort, t1) = CHAIN[:2]
    assert begin(manifest[:-1] + b"\0") != t0
    assert extend(t0, cohort[:-1] + b"\0") != t1
    assert extend(t0[:-1] + b"\0", cohort) != t1
    assert extend(t0, manifest) != begin(manifest)


def test_the_cohort_is_read_as_it_was_written() -> None:
    manifest, cohort = (decode_from_coordinator(body) for body, _ in CHAIN[:2])
    assert isinstance(manifest, Manifest)
    assert isinstance(cohort, Cohort)
    view = read_cohort(cohort, manifest, CHAIN[0][1], open_member)
    assert view.transcript == CHAIN[1][1]
    assert list(view.members) == VECTORS["members"]
    assert (view.degree, view.threshold) == (2, 2)
    with pytest.raises(TranscriptError, match="another round context"):
        read_cohort(cohort, manifest, CHAIN[1][1], open_member)


def test_an_honest_frame_opens() -> None:
    (case,) = VECTORS["device_frames"]["opens"]
    opened = open_device_frame(bytes.fromhex(case["frame"]), TRUST, NOW)
    assert opened.sender == "ant"
    assert opened.message == Accept(Order(*VECTORS["order"]), bytes(32))


@pytest.mark.parametrize("case", VECTORS["device_frames"]["refused"], ids=lambda case: case["why"])
def test_a_wrong_frame_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(PeerError):
        open_device_frame(bytes.fromhex(case["frame"]), TRUST, NOW)
