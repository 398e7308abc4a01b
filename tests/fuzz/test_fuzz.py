"""The short form of the campaign, proof that the fuzzer sees, and what it has found so far."""

import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from msgspec import msgpack

from fuzz.campaign import run
from fuzz.codec import MAX_CAUSE, Bytes, Reader
from fuzz.coordinator_half import CoordinatorHalf
from fuzz.device_half import DeviceHalf
from fuzz.findings import Findings
from fuzz.mutator import MSGPACK, Mutator
from fuzz.rounds import RecordedRound
from fuzz.shells import AgentDoors
from privacy.clipping import clamp
from privacy.errors import QuantizationError
from privacy.quantization import scale_for
from protocol import effects as fx
from protocol.coordinator_phases import Recovering, Sharing
from protocol.device_round import DeviceRound
from protocol.errors import FrameError, ManifestError, TranscriptError
from protocol.frames import Opened
from protocol.ids import DeviceId, Order
from protocol.messages import FromDevice, Grant, SealedShares, decode_from_device
from protocol.order_checks import check_generation
from protocol.status import CoordinatorStatus, DeviceStatus, decode_status

# A certificate whose serial number was spoilt is refused, but the library warns first.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

RECORDED = RecordedRound(1)


def test_two_hundred_thousand_hostile_frames_do_no_harm() -> None:
    report = run(200_000, seed=1, workers=1)
    assert report.found == []
    assert sum(report.frames.values()) == 200_000
    assert report.growth < 64 * 2**20


def test_the_same_seed_draws_the_same_bytes() -> None:
    first, second = (Mutator(random.Random(3), RECORDED.frames_up, MSGPACK, 10) for _ in range(2))
    assert [first.draw() for _ in range(1000)] == [second.draw() for _ in range(1000)]


# It sees: bugs that are planted are found.


def test_a_reader_that_trips_is_found_and_its_input_made_small() -> None:
    def read(data: bytes) -> None:
        if b"\xc1" in data:
            raise KeyError(data)
        raise FrameError

    findings = Findings()
    Bytes(Reader("planted", RECORDED.frames_up, read), random.Random(1), findings).feed(2000)
    (found,) = findings.found.values()
    assert (found.target, found.reproduction) == ("planted", "c1")
    assert found.times > 1


Plant = Callable[[pytest.MonkeyPatch], None]


def looks_up_what_is_not_there(patch: pytest.MonkeyPatch) -> None:
    offered: dict[bytes, list[fx.Effect]] = {}
    patch.setattr(DeviceRound, "_granted", lambda _self, blob, _chunks: offered[blob])


def takes_a_set_before_it_is_checked(patch: pytest.MonkeyPatch) -> None:
    def take(self: DeviceRound, decision: Grant, body: bytes, transcript: bytes) -> None:
        self._decisions[type(decision)] = body[:32]
        if getattr(decision, "transcript", b"") != transcript:
            raise TranscriptError

    patch.setattr(DeviceRound, "_take", take)


def keeps_its_secrets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeviceRound, "_erase", lambda _self: None)


@pytest.mark.parametrize(
    ("plant", "error"),
    [
        (looks_up_what_is_not_there, "KeyError"),
        (takes_a_set_before_it_is_checked, "what was refused has changed the state"),
        (keeps_its_secrets, "keeps a secret"),
    ],
)
def test_a_bug_planted_in_the_devices_half_is_found(
    plant: Plant, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    findings = Findings()
    DeviceHalf(RECORDED, random.Random(1), findings).feed(3000)
    assert any(error in found.error for found in findings.found.values())


def keeps_shares_before_they_are_checked(patch: pytest.MonkeyPatch) -> None:
    honest = Sharing.hear

    def hear(self: Sharing, frame: Opened[FromDevice]) -> list[fx.Effect]:
        if isinstance(frame.message, SealedShares):
            self.shares.setdefault(frame.sender, frame.message)
        return honest(self, frame)

    patch.setattr(Sharing, "hear", hear)


def sums_up_reveals_of_anybody(patch: pytest.MonkeyPatch) -> None:
    def hear(self: Recovering, frame: Opened[FromDevice]) -> list[fx.Effect]:
        self._count(DeviceId(frame.sender))
        return []

    patch.setattr(Recovering, "hear", hear)


@pytest.mark.parametrize(
    ("plant", "error"),
    [
        (keeps_shares_before_they_are_checked, "what was refused has changed the state"),
        (sums_up_reveals_of_anybody, "KeyError"),
    ],
)
def test_a_bug_planted_in_the_coordinators_half_is_found(
    plant: Plant, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    findings = Findings()
    CoordinatorHalf(RECORDED, random.Random(1), findings).feed(8000)
    assert any(error in found.error for found in findings.found.values())


# What it has found.


def test_a_limit_too_small_for_a_scale_is_refused() -> None:
    assert scale_for(32, 1e-290, 6) > 0
    with pytest.raises(QuantizationError, match="too small"):
        scale_for(32, 5e-324, 6)


def test_a_limit_beyond_float32_cuts_nothing() -> None:
    delta = np.array([3e38, -1.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bounded, saturated = clamp(delta, 1.7e308)
    np.testing.assert_array_equal(bounded, delta)
    assert saturated == 0.0


def test_an_error_does_not_quote_hostile_bytes_at_length() -> None:
    with pytest.raises(FrameError) as refused:
        decode_from_device(msgpack.encode(["x" * 500_000, 1]))
    assert len(str(refused.value)) < MAX_CAUSE
    with pytest.raises(FrameError) as refused:
        decode_status(b'{"state":"' + b"x" * 60_000 + b'"}', DeviceStatus)
    assert len(str(refused.value)) < MAX_CAUSE


@pytest.mark.parametrize("number", [b"9" * 4000, b"-1", b"%d" % 2**53])
def test_a_status_counts_no_further_than_a_frame(number: bytes) -> None:
    with pytest.raises(FrameError, match="boot"):
        decode_status(b'{"state":"lost","boot":' + number + b"}", DeviceStatus)
    with pytest.raises(FrameError, match="epoch"):
        decode_status(b'{"state":"online","epoch":' + number + b"}", CoordinatorStatus)


def test_a_coordinator_opens_rounds_of_its_own_generation_alone() -> None:
    signer = RECORDED.trust.read(RECORDED.coordinator_identity.certificate)
    check_generation(Order(1, 9, 9), signer)
    with pytest.raises(ManifestError, match="generation 1"):
        check_generation(Order(2**32 - 1, 1, 1), signer)


def test_a_forged_generation_does_not_lock_an_agent_out() -> None:
    findings = Findings()
    AgentDoors(RECORDED, random.Random(1), findings).feed(2000)
    assert findings.found == {}
