"""The device's half in the hands of whoever has a coordinator's key, at every moment of a real round."""

import math
import random
from dataclasses import replace

import numpy as np
from virtual_fleet import NOW, _compute

from fuzz.findings import Findings
from fuzz.rounds import VICTIM, Moment, RecordedRound, copy_of
from fuzz.spoiler import Spoiler
from privacy.encoding import LocalMetrics
from protocol import effects as fx
from protocol.certificates import Certificate
from protocol.chunks import MAX_BLOB_SIZE
from protocol.device_checks import DeviceContext
from protocol.device_round import DeviceRound, _Waiting
from protocol.device_work import MaskUpdate
from protocol.eligibility import Facts
from protocol.frames import Opened
from protocol.ids import Seconds
from protocol.messages import (
    MAX_FRAME,
    Decline,
    FromCoordinator,
    Manifest,
    Message,
    Reveal,
    ShareSet,
    decode_from_coordinator,
    encode,
)
from secagg.keys import Secret

BURST = 12
"""Messages told to one copy of a half before the next is taken."""

MAX_EFFECTS = 8
LARGEST = MAX_FRAME - 4096
"""Bytes of a body that still fits a frame."""

MAX_MODEL = 4096
"""Bytes of weights up to which the fuzzer trains."""

METRICS = LocalMetrics(examples=17, evaluated=4, loss_sum=4.0, correct=2)


class DeviceHalf:
    """Tells copies of a half what a lying coordinator may say, properly signed.

    Args:
        recorded: the round whose moments are used.
        chance: seeded.
        findings: where failures go.
    """

    name = "device half"

    def __init__(self, recorded: RecordedRound, chance: random.Random, findings: Findings) -> None:
        self._chance = chance
        self._findings = findings
        self._moments = recorded.moments
        self._kinds = recorded.from_coordinator
        material = [message for kind in self._kinds for message in kind]
        self._spoiler = Spoiler(chance, decode_from_coordinator, material, recorded.links)
        self._signers = recorded.coordinators()
        self._t3 = recorded.links[-1]

    def feed(self, frames: int) -> None:
        """Tell so many messages."""
        while frames > 0:
            frames -= self._burst(self._chance.choice(self._moments), min(frames, BURST))

    def _burst(self, moment: Moment, most: int) -> int:
        half, told = moment.again(), 0
        while told < most and not half.over:
            frame = self._frame()
            told += 1
            before = copy_of(half)
            try:
                self._told(half, frame, moment.now)
            except Exception as error:  # noqa: BLE001 - finding these is what this is for
                where = f"stage {before.stage}, {type(before._known).__name__}, told {frame.message!r}"
                self._findings.add(self.name, error, lambda where=where: where)  # type: ignore[misc]
                break
        return max(told, 1)

    def _frame(self) -> Opened[FromCoordinator]:
        """Signatures are the codec's business: this frame was opened."""
        message, body = self._spoiler.spoiled(self._chance.choice(self._chance.choice(self._kinds)))
        signer = self._signers[0] if self._chance.random() < 0.95 else self._chance.choice(self._signers)
        return Opened(signer, message, body, b"", bytes(64))  # type: ignore[arg-type]

    def _told(self, half: DeviceRound, frame: Opened[FromCoordinator], now: Seconds) -> None:
        before = state_of(half)
        effects = half.handle(fx.Told(frame), now)
        refused = any(isinstance(effect, fx.Refuse) for effect in effects)
        taken = isinstance(frame.message, ShareSet) and state_of(half)["_decisions"] != before["_decisions"]
        # A valid share set is taken even if the delivery that waited for it proves to be of another.
        if refused and not half.over and not taken:
            assert state_of(half) == before, "what was refused has changed the state"
        self._perform(half, effects, now)

    def _perform(self, half: DeviceRound, effects: list[fx.Effect], now: Seconds) -> None:
        check_device(half, effects, now)
        for effect in effects:
            match effect:
                case fx.Say(Reveal(transcript=transcript)):
                    # Only what its neighbours confirmed makes a device reveal, and they confirmed this alone.
                    assert transcript == self._t3, "it revealed for another survivor set"
                case fx.Compute(MaskUpdate() as work):
                    # It masks in place, and the vector belongs to all copies of this moment.
                    vector = work.vector
                    own = replace(vector, metrics=vector.metrics.copy(), update=vector.update.copy())
                    self._perform(half, half.handle(_compute(replace(work, vector=own)), now), now)
                case fx.Compute(work):
                    self._perform(half, half.handle(_compute(work), now), now)


def state_of(half: DeviceRound) -> dict[str, object]:
    """All that the half knows; its parts are frozen but for one."""
    return {**vars(half), "_decisions": dict(half._decisions)}


def check_device(half: DeviceRound, effects: list[fx.Effect], now: Seconds) -> None:
    """Nothing without bounds is asked for, and whoever has left keeps no secret."""
    assert len(effects) <= MAX_EFFECTS, f"{len(effects)} effects"
    for effect in effects:
        match effect:
            case fx.Say(message):
                assert len(encode(message)) <= LARGEST, f"{type(message).__name__} is too long"
            case fx.Fetch(bundle, weights):
                assert max(bundle.size, weights.size) <= MAX_BLOB_SIZE
            case fx.SendChunks(indices):
                assert len(indices) <= 64
            case fx.WakeAt(time):
                assert math.isfinite(time), "it never wakes again"
    if half.over:
        assert (half._secrets, half._known, half._early) == (None, _Waiting(), None), "it keeps a secret"
    elif (wake := _wake(effects)) is not None and wake <= now:
        again = copy_of(half).handle(fx.Woke(), now)
        assert (_wake(again) or now + 1) > now, "it wakes for ever"


def _wake(effects: list[fx.Effect]) -> Seconds | None:
    return next((effect.time for effect in effects if isinstance(effect, fx.WakeAt)), None)


class Invitations:
    """Spoiled manifests, to fresh halves; who accepts trains and encodes by its rules.

    Args:
        recorded: whose manifest it is.
        chance: seeded.
        findings: where failures go.
    """

    name = "invitation"

    def __init__(self, recorded: RecordedRound, chance: random.Random, findings: Findings) -> None:
        self._chance = chance
        self._findings = findings
        self._manifest = recorded.manifest
        self._spoiler = Spoiler(chance, decode_from_coordinator, [recorded.manifest], recorded.links)
        self._signer: Certificate = recorded.coordinators()[0]
        self._master = Secret(bytes(range(32)))
        self._context = DeviceContext(
            own=VICTIM,
            trust=recorded.trust,
            min_cohort=3,
            corrupt_fraction=0.0,
            facts=Facts(idle=True, charging=False, unmetered=True, battery=50, temperature=60),
            started=NOW,
        )

    def feed(self, frames: int) -> None:
        """Invite so many times."""
        for _ in range(frames):
            manifest, body = self._spoiler.spoiled(self._manifest)
            try:
                self._invite(Opened(self._signer, manifest, body, b"", bytes(64)))
            except Exception as error:  # noqa: BLE001 - finding these is what this is for
                self._findings.add(self.name, error, lambda said=manifest: repr(said))  # type: ignore[misc]

    def _invite(self, invitation: Opened[Message]) -> None:
        if not isinstance(invitation.message, Manifest):
            raise TypeError
        half, now = DeviceRound(invitation, self._context, self._master), Seconds(3.0)  # type: ignore[arg-type]
        effects = half.handle(fx.Begin(), now)
        check_device(half, effects, now)
        if half.over or invitation.message.weights.size > MAX_MODEL:
            return
        for event in self._fetched_and_trained(invitation.message.weights.size):
            effects = half.handle(event, now)
            check_device(half, effects, now)
        for effect in effects:
            if isinstance(effect, fx.Compute):
                effects = half.handle(_compute(effect.work), now)
                check_device(half, effects, now)
        assert half.over == any(isinstance(effect, fx.Say) and _declines(effect) for effect in effects)

    def _fetched_and_trained(self, size: int) -> list[fx.DeviceEvent]:
        initial = np.zeros(size // 4, np.float32)
        trained = initial + np.float32(self._chance.choice((0.0, 0.25, -3.0, 1e-30, 3e38)))
        return [fx.Fetched(b"", initial.tobytes()), fx.Trained(initial, trained, METRICS)]


def _declines(effect: fx.Say) -> bool:
    return isinstance(effect.message, Decline)
