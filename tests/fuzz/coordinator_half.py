"""The coordinator's half besieged by devices of its fleet, in every phase of real rounds.

Two of its seven devices, and one that was not invited, say whatever their keys can sign, beside what an
honest agent on them says; and what any device said in this round is said again. Somebody with the
coordinator's key speaks to one honest device. However that ends: no error comes out, and there is no wrong
sum.
"""

import random
from typing import Any

import numpy as np
from virtual_fleet import VirtualFleet

from fuzz.findings import Findings
from fuzz.rounds import VICTIM, RecordedRound
from fuzz.spoiler import Spoiler
from protocol import coordinator_phases as phases
from protocol import effects as fx
from protocol.certificates import Certificate, Role
from protocol.coordinator_round import CoordinatorRound
from protocol.frames import Opened, open_device_frame, seal_frame
from protocol.ids import DeviceId, Seconds
from protocol.messages import (
    MAX_FRAME,
    Confirmation,
    FromDevice,
    Message,
    RoundKeys,
    decode_from_coordinator,
    decode_from_device,
    encode,
)
from protocol.phases import Phase
from protocol.transcript import begin
from runtime.identity import Identity

DEVICES = 7
HOSTILE = tuple(map(DeviceId, ("d003", "d007")))
BURST = 40
"""Most hostile messages between two effects."""

LARGEST = MAX_FRAME - 4096
_GROWING = {
    *(phases.Inviting, phases.Keying, phases.Sharing, phases.Collecting, phases.Confirming),
    *(phases.Recovering, phases.Committing, CoordinatorRound),
}


def state_of(value: Any) -> Any:
    """A copy of all that the half knows; what is frozen stays itself."""
    kind = type(value)
    if kind in _GROWING:
        return {name: state_of(one) for name, one in vars(value).items()}
    if kind is dict:
        return {key: state_of(one) for key, one in value.items()}
    return value.copy() if kind in (set, list) else value


class BesiegedRound(VirtualFleet):
    """One round under siege.

    Args:
        recorded: its messages are material, too.
        seed: of this round.
        frames: most hostile messages; afterwards it runs undisturbed.

    Attributes:
        left: hostile messages that were not said.
        last: what was said when something failed.
    """

    def __init__(self, recorded: RecordedRound, seed: int, frames: int) -> None:
        super().__init__(DEVICES, 5, seed=seed, corrupt_fraction=0.1)
        self.left = frames
        self.last = ""
        self._besieging = False
        self._known: Any = None
        self._links = [begin(encode(self.manifest))]
        self._material = recorded.from_devices
        up = [message for kind in recorded.from_devices for message in kind]
        down = [message for kind in recorded.from_coordinator for message in kind]
        self._up = Spoiler(self.random, decode_from_device, up, self._links)
        self._down = Spoiler(self.random, decode_from_coordinator, down, self._links)
        self._kinds_down = recorded.from_coordinator
        stranger = self.authority.issue("d900", Role.DEVICE)
        self._liars: list[tuple[Identity, Certificate]] = [
            (one, self.trust.read(one.certificate))
            for one in (*(self.devices[name].identity for name in HOSTILE), stranger)
        ]
        self._coordinator_certificate = self.trust.read(self.coordinator_identity.certificate)
        self._frames: list[bytes] = []
        self.tamper = self._overhear
        for name in self.random.sample(sorted(self.devices), self.random.choice((0, 0, 1, 2))):
            self.lose(name, phase=self.random.choice(list(Phase)[1:6]))
        # How hard each round is besieged differs, so that some are still in order in their last phases.
        self._weight = self.random.choice((0.02, 0.1, 0.5, 1.0))
        self._harmless = self.random.random() < 0.5
        """Only the one that was not invited is hostile."""

    def _overhear(self, _: str, receiver: str, frame: bytes) -> list[bytes]:
        if receiver == "coordinator":
            self._frames.append(frame)
        return [frame]

    def _perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Announce):
            transcript = getattr(effect.decision, "transcript", self._links[0])
            self._links[:] = dict.fromkeys((*self._links, transcript))
        if not self._besieging:
            self._besieging = True
            self._besiege()
            self._besieging = False
        super()._perform(effect)

    def _coordinator(self, event: fx.CoordinatorEvent) -> None:
        self._known = None
        super()._coordinator(event)

    def _besiege(self) -> None:
        for _ in range(self.random.randrange(BURST)):
            if self.left <= 0 or self.round.over:
                return
            self.left -= 1
            if self.random.random() < 0.004:
                self._disturb()
            self._hear_hostile(self._hostile())
        if self.random.random() < 0.02 * self._weight:
            self._lie_to_the_victim()

    def _disturb(self) -> None:
        """What happens beside frames: losses that were none, and early alarms."""
        name = self.random.choice(list(self.devices))
        self._coordinator(self.random.choice((fx.Gone(name), fx.Woke(), fx.Woke())))

    def _hostile(self) -> Opened[FromDevice]:
        if self._frames and self.random.random() < 0.05:
            return open_device_frame(self.random.choice(self._frames), self.trust, self.round._started)
        identity, certificate = self.random.choice(self._liars)
        message, body = self._up.spoiled(self._template())
        if self._harmless and certificate.subject in self.devices:
            identity, certificate = self._liars[-1]
        if not isinstance(message, RoundKeys | Confirmation):
            # Nobody looks at the signature of any other message once its frame is opened.
            return Opened(certificate, message, body, body, bytes(64))  # type: ignore[arg-type]
        frame = seal_frame(identity, message)
        return Opened(certificate, message, body, frame, frame[-64:])

    def _template(self) -> Message:
        said = self.devices[self.random.choice(HOSTILE)].said
        if said and self.random.random() < 0.5:
            return self.random.choice(said)
        return self.random.choice(self.random.choice(self._material))

    def _hear_hostile(self, frame: Opened[FromDevice]) -> None:
        self.last = f"{self.round.phase}: {frame.sender} says {frame.message!r}"
        before = self._known or state_of(self.round)
        effects = self.round.handle(fx.Heard(frame), self.now)
        self._known = None
        check_coordinator(effects, len(self.devices), self.now)
        if any(isinstance(effect, fx.Refuse) for effect in effects):
            after = state_of(self.round)
            # Whoever speaks of this round is there, whatever it says.
            before["_gone"] &= after["_gone"] | {frame.sender}
            assert after == before, "what was refused has changed the state"
            self._known = after
        for effect in effects:
            self._perform(effect)

    def _lie_to_the_victim(self) -> None:
        device = self.devices[VICTIM]
        if device.round is None or device.lost:
            return
        for _ in range(5):
            message, body = self._down.spoiled(self.random.choice(self.random.choice(self._kinds_down)))
            self.last = f"{device.round.stage}: {VICTIM} is told {message!r}"
            frame: Opened[Any] = Opened(self._coordinator_certificate, message, body, body, bytes(64))
            self._device(VICTIM, fx.Told(frame))

    def outcome(self) -> None:
        """Run; raises AssertionError when it ends in a wrong sum, without a reason, or not at all."""
        if self.run() is Phase.COMMITTED:
            assert self.mean is not None
            expected = self.plain_mean_of(self.survivors)
            np.testing.assert_allclose(self.mean.mean, expected, atol=1e-4)
        else:
            assert self.mean is None, "an aborted round has a sum"
            assert self.round.reason, "an aborted round has no reason"


def check_coordinator(effects: list[fx.Effect], devices: int, now: Seconds) -> None:
    """Nothing without bounds is asked for."""
    assert len(effects) <= 4 * devices + 8, f"{len(effects)} effects"
    for effect in effects:
        match effect:
            case fx.Announce(message) | fx.Send(_, message) | fx.Invite(_, message):
                assert len(encode(message)) <= LARGEST, f"{type(message).__name__} is too long"
            case fx.Receive(_, ref):
                assert ref.size < MAX_FRAME
            case fx.WakeAt(time):
                assert time >= 0.0 or now < 0.0, "no time"


class CoordinatorHalf:
    """Besieges round after round.

    Args:
        recorded: material.
        chance: seeded.
        findings: where failures go.

    Attributes:
        ended: rounds by their last phase.
    """

    name = "coordinator half"

    def __init__(self, recorded: RecordedRound, chance: random.Random, findings: Findings) -> None:
        self._recorded = recorded
        self._chance = chance
        self._findings = findings
        self.ended: dict[str, int] = {}

    def feed(self, frames: int) -> None:
        """Say so many hostile messages, in as many rounds as that takes."""
        while frames > 0:
            seed = self._chance.getrandbits(32)
            fleet = BesiegedRound(self._recorded, seed, frames)
            try:
                fleet.outcome()
            except Exception as error:  # noqa: BLE001 - finding these is what this is for
                told = f"BesiegedRound(RecordedRound({self._recorded.seed}), {seed}, {frames}); {fleet.last}"
                self._findings.add(self.name, error, lambda told=told: told)  # type: ignore[misc]
            self.ended[fleet.round.phase] = self.ended.get(fleet.round.phase, 0) + 1
            frames = min(fleet.left, frames - 1)
