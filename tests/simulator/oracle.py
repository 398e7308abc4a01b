"""What must hold after every step, whatever goes wrong.

The oracle reads every message that an honest program publishes, before a fault or a liar touches it, every
mean before it is applied, and what the coordinator's disk holds whenever it starts. Device i trains by adding
one to weight i, so mean times members holds ones for exactly the survivors: a 2 betrays an update counted
twice, anything else a mask that did not cancel. Where updates are rotated or noised, the mean must be that of
the integers that the survivors encoded (`vectors`); what privacy costs is in `books`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from privacy.encoding import MeanUpdate
from protocol.errors import FedfleetError
from protocol.frames import Frame
from protocol.ids import ORIGIN, Order
from protocol.messages import (
    Cohort,
    Confirmation,
    Confirmations,
    Decline,
    Extension,
    Manifest,
    Message,
    Reveal,
    RoundEnded,
    RoundKeys,
    SealedShares,
    ShareSet,
    Stored,
    SurvivorSet,
    UploadOffer,
    decode_from_coordinator,
    decode_from_device,
    encode,
)
from protocol.plan import Plan
from protocol.transcript import extend
from simulator.books import Books, Costs, certain_noise
from simulator.evidence import Disks, Durable
from simulator.operations import COORDINATOR, Noise, Schedule
from simulator.vectors import ENCODED, is_faithful, is_mean_of

TOLERANCE = 1e-4
"""Of a one: quantising at 32 bits and float32 weights stay far below."""

BETRAYED = ("a sentinel", "cannot come from", "cannot be recovered", "could not be resumed")
"""Why a round is aborted only if a device lies, or we are wrong."""

_frames = msgspec.msgpack.Decoder(Frame)


class Violation(Exception):  # noqa: N818 - what it says of the program, not of itself
    """An invariant did not hold.

    Attributes:
        invariant: "I1" to "I7", "P1" to "P7", "revoked", "sum", "uncaught" or "stuck".
        step: of the actor, or of nobody.
    """

    def __init__(self, invariant: str, step: str, what: str) -> None:
        super().__init__(f"{invariant} at {step}: {what}")
        self.invariant = invariant
        self.step = step


@dataclass
class _Round(Costs):
    revoked: frozenset[str] = frozenset()
    sizes: dict[str, int] = field(default_factory=dict)
    sharers: set[str] = field(default_factory=set)
    offered: dict[str, UploadOffer] = field(default_factory=dict)
    stored: set[bytes] = field(default_factory=set)
    confirmed: dict[bytes, set[str]] = field(default_factory=dict)
    ended: str = ""

    def fewest(self, members: int) -> int:
        """Survivors of a cohort of so many without whom no sum is unmasked."""
        return max(self.threshold(members), self.manifest.min_cohort)

    def threshold(self, members: int) -> int:
        """Shares that recover a secret among so many members, all neighbours of each other."""
        corrupt = max(ceil(self.manifest.secure_aggregation.corrupt_fraction * members) - 1, 0)
        return (members - 1 + corrupt) // 2 + 1


class Oracle:
    """Holds one simulation to the invariants; the first violation is kept.

    Args:
        schedule: what is done to it. Device i of it trains weight i.
        plan: of the run.
        initial: the first model.
        disks: what is durable.
        step: says which step it is.
    """

    def __init__(
        self,
        schedule: Schedule,
        plan: Plan,
        initial: NDArray[np.float32],
        disks: Disks,
        step: Callable[[], str],
    ) -> None:
        self.violation: Violation | None = None
        self.committed = 0
        self.newest = ORIGIN
        self._schedule = schedule
        self._indices = {name: index for index, name in enumerate(schedule.names)}
        self._disks = disks
        self._step = step
        self._read: dict[bytes, tuple[str, Message] | None] = {}
        self._first: dict[tuple[object, ...], object] = {}
        self._rounds: dict[Order, _Round] = {}
        self._initial = initial
        self._sums: dict[Order, MeanUpdate] = {}
        self._kept: list[Order] = []
        self._sets: dict[bytes, tuple[str, ...]] = {}
        self.books = Books(schedule, plan, self.fail, disks.ledger, self._rounds.get)

    def fail(self, invariant: str, what: str) -> None:
        """Note a violation; the simulation ends with the step."""
        if self.violation is None:
            self.violation = Violation(invariant, self._step(), what)

    def read(self, payload: bytes) -> tuple[str, Message] | None:
        """Sender and message of a frame; None when it is none."""
        try:
            return self._read[payload]
        except KeyError:
            found = self._read[payload] = _read(payload)
            return found

    # What is said.

    def said(self, life: str, payload: bytes) -> None:
        """A program is about to publish a frame. `life` is the lineage of its memory: a clone is another."""
        known = payload in self._read
        found = self.read(payload)
        if known or found is None:
            return
        match found[1]:
            case Manifest() as manifest:
                self._invites(manifest, payload)
            case Extension() as extension:
                self._extends(extension, payload)
            case Stored() as stored:
                self._acknowledges(stored)
            case Cohort() | ShareSet() | SurvivorSet() | Confirmations() | RoundEnded() as decision:
                self._decides(decision, payload)
            case Decline(reason=reason):
                self.books.declines(life, reason)
            case RoundKeys() | SealedShares() | UploadOffer() | Confirmation() | Reveal() as answer:
                if answer.order in self._rounds:
                    self._answers(life, found[0], answer, self._rounds[answer.order])

    def _answers(self, life: str, device: str, said: Any, round_: _Round) -> None:
        self._once("I2", (life, said.order, type(said)), said, f"{life} says two {type(said).__name__}")
        match said:
            case RoundKeys(order=order) if self._disks.entered(life) < order:
                self.fail("I2", f"{life} shows keys before it is durable that it entered the round")
            case SealedShares(shares=shares):
                round_.sharers.add(device)
                round_.sizes[life] = len(shares) + 1
            case UploadOffer(transcript=sharers):
                self._goes_on(life, device, sharers, round_)
                round_.offered[device] = said
                self.books.offers(life, said, round_.manifest)
                encoded = ENCODED.get((life, said.order))
                if encoded is not None and not is_faithful(encoded):
                    self.fail("sum", f"{life} has not encoded its update with the noise that it owes")
            case Confirmation(transcript=survivors):
                self._goes_on(life, device, survivors, round_)
                round_.confirmed.setdefault(survivors, set()).add(device)
            case Reveal(transcript=survivors, shares=shares):
                for peer, share in shares:
                    self._once("I1", (life, said.order, peer), share, f"{life} reveals two shares of {peer}")
                if len(round_.confirmed[survivors] - {device}) < round_.threshold(round_.sizes[life]):
                    self.fail("I1", f"{life} reveals shares for survivors that too few have confirmed")

    def arrives(self, payload: bytes) -> None:
        """A decision reaches somebody; it may be one that the transport kept until there was a connection."""
        heard = _read(payload)
        if heard is not None and isinstance(heard[1], ShareSet | SurvivorSet):
            self.announced(heard[1])

    def announced(self, decision: ShareSet | SurvivorSet) -> None:
        """Somebody with the coordinator's key announces a set."""
        self._sets[extend(decision.transcript, encode(decision))] = decision.members

    def _goes_on(self, life: str, device: str, transcript: bytes, round_: _Round) -> None:
        """I4, as a device must hold a lying coordinator to it."""
        members = self._sets.get(transcript, ())
        cohort = round_.sizes[life]
        if device not in members or len(members) < round_.fewest(cohort):
            self.fail("I4", f"{life} goes on with {', '.join(members) or 'nobody'}")
        elif len(members) < certain_noise(round_.manifest, cohort):
            self.fail("P5", f"{life} goes on with {', '.join(members)}, and too little noise is certain")

    def _acknowledges(self, stored: Stored) -> None:
        if stored.order not in self._rounds:
            return
        if not self._disks.holds(stored.blob):
            self.fail("I3", f"an update of round {stored.order} is acknowledged before it is durable")
        self._rounds[stored.order].stored.add(stored.blob)

    def _extends(self, extension: Extension, payload: bytes) -> None:
        if not self._disks.records(payload):
            self.fail("I3", "an extension leaves before it is durable")
        round_ = self._rounds.get(extension.order)
        if round_ is not None and extension.seconds > round_.manifest.deadlines.max_lifetime:
            self.fail("I3", f"round {extension.order} is extended beyond its lifetime")

    def _once(self, invariant: str, key: tuple[object, ...], value: object, what: str) -> None:
        if self._first.setdefault(key, value) != value:
            self.fail(invariant, what)

    def _invites(self, manifest: Manifest, payload: bytes) -> None:
        self._once("I3", (manifest.order, Manifest), manifest, f"two manifests for round {manifest.order}")
        if not self._disks.records(payload):
            self.fail("I3", f"the manifest of round {manifest.order} leaves before it is durable")
        if manifest.order in self._rounds:
            return
        if manifest.order <= self.newest:
            self.fail("I6", f"round {manifest.order} is opened after {self.newest}")
        self.newest = max(self.newest, manifest.order)
        # The end of the last round may still wait for a broker that is down.
        untold = [order for order in self._sums if order not in self._kept]
        clip = manifest.secure_aggregation.clip
        if clip not in {self._clip(), self._clip(*untold)}:
            self.fail("P6", f"round {manifest.order} has clip {clip}, not {self._clip()}")
        self._rounds[manifest.order] = _Round(manifest, revoked=self._disks.revoked())

    def _gathers(self, round_: _Round, order: Order, members: Sequence[bytes]) -> None:
        round_.members = len(members)
        for device in round_.revoked & {_frames.decode(frame).sender for frame in members}:
            self.fail("revoked", f"the cohort of round {order} holds {device}")

    def _decides(self, decision: Any, payload: bytes) -> None:
        kind = type(decision)
        self._once("I3", (decision.order, kind), decision, f"two {kind.__name__}s for round {decision.order}")
        if not self._disks.records(payload):
            self.fail("I3", f"the {kind.__name__} of round {decision.order} leaves before it is durable")
        if isinstance(decision, ShareSet | SurvivorSet):
            self.announced(decision)
        round_ = self._rounds.get(decision.order)
        if round_ is None:
            return
        match decision:
            case Cohort(members=members):
                self._gathers(round_, decision.order, members)
            case ShareSet(members=sharers):
                round_.shared = sharers
                if not round_.sharers.issuperset(sharers):
                    self.fail("I7", f"the share set of round {decision.order} names one that did not share")
            case Confirmations():
                round_.asked = True
            case SurvivorSet(members=survivors):
                round_.survivors = survivors
                self._enough(round_)
            case RoundEnded(result=result, reason=reason):
                self._ends(round_, result, reason)

    def _enough(self, round_: _Round) -> None:
        """I4: at least threshold and floor, and whoever was told that its update is stored."""
        survivors, members = len(round_.survivors), round_.members
        if survivors < round_.fewest(members):
            self.fail("I4", f"{survivors} survivors of {members} members are announced")
        elif survivors < certain_noise(round_.manifest, members):
            self.fail("P5", f"{survivors} survivors of {members} members make too little noise certain")
        kept = {offer.blob.sha256: device for device, offer in round_.offered.items()}
        lost = {kept[blob] for blob in round_.stored if blob in kept} - set(round_.survivors)
        if lost:
            self.fail("I4", f"acknowledged updates of {', '.join(sorted(lost))} are lost")

    def _ends(self, round_: _Round, result: str, reason: str) -> None:
        if round_.ended:
            return
        round_.ended, round_.reason = result, reason
        order = round_.manifest.order
        if (
            self._schedule.is_brief
            and not _never_fetched(self._schedule, reason)
            and (len(round_.survivors) < round_.manifest.max_cohort)
        ):
            self.fail("stuck", f"brief faults leave devices out of round {order}: {reason or result}")
        if result == "aborted":
            if self._schedule.is_honest and any(text in reason for text in BETRAYED):
                self.fail("sum", f"round {order} is aborted though no device lied: {reason}")
            return
        self.committed += 1
        if order not in self._sums:
            self.fail("I5", f"round {order} is announced as committed, but nothing was summed")
        elif order not in self._kept:
            self._kept.append(order)

    # What is summed.

    def sums(self, order: Order, mean: MeanUpdate, survivors: int) -> None:
        """The coordinator is about to apply a mean."""
        round_ = self._rounds[order]
        if survivors != len(round_.survivors):
            self.fail("I4", f"{survivors} are summed, {len(round_.survivors)} are announced")
        if not self._is_sum(round_, mean):
            total = mean.mean.astype(np.float64) * survivors
            self.fail(
                "sum", f"round {order} of {', '.join(round_.survivors)} sums to {total.round(4).tolist()}"
            )
        offers = [round_.offered.get(name) for name in round_.survivors]
        if len({offer and offer.transcript for offer in offers}) != 1:
            self.fail("I7", f"the summed devices of round {order} did not agree on the share set")
        before = self._sums.get(order, mean)
        noise = round_.manifest.noise
        if (noise is None or noise.mode != "central") and not np.array_equal(before.mean, mean.mean):
            self.fail("sum", f"round {order} is summed twice, with another result")
        self._sums[order] = mean  # in central mode noise is drawn anew; the last is what is stored

    def _is_sum(self, round_: _Round, mean: MeanUpdate) -> bool:
        if self._schedule.privacy is not None:
            order = round_.manifest.order
            lives = [(name, f"{name}-clone") for name in round_.survivors]
            found = [[ENCODED[one, order] for one in pair if (one, order) in ENCODED] for pair in lives]
            return is_mean_of(mean, round_.manifest, found)
        expected = np.zeros(mean.mean.size)
        expected[[self._indices[name] for name in round_.survivors]] = 1.0
        survivors = len(round_.survivors)
        total = mean.mean.astype(np.float64) * survivors
        return bool(np.allclose(total, expected, rtol=0, atol=TOLERANCE * survivors))

    # What is on the disk.

    def finds(self, disk: Durable) -> None:
        """I5: the disk holds the model of exactly the committed rounds; the end of the last may be untold."""
        untold = [order for order in self._sums if order not in self._kept]
        for order in untold if disk.committed > len(self._kept) else ():
            if _near(disk.weights, self._model([*self._kept, order])):
                self._kept.append(order)
                break
        if disk.committed != len(self._kept):
            self.fail("I5", f"{disk.committed} rounds are on the disk, {len(self._kept)} were committed")
        elif not _near(disk.weights, self._model(self._kept)):
            self.fail("I5", f"the model on the disk is not that of its {disk.committed} rounds")
        elif disk.results != disk.committed:
            self.fail("I5", f"{disk.results} results for {disk.committed} committed rounds")
        elif disk.clip != (self._clip() if disk.committed and self.books.is_adaptive else None):
            self.fail("P6", f"the next clip on the disk is {disk.clip}, not {self._clip()}")
        self.books.balances(disk.accounts, disk.closed)

    def finishes(self, disk: Durable) -> None:
        """The run is over."""
        self.finds(disk)
        if not self.books.may_end(disk.accounts, disk.committed):
            self.fail("stuck", f"the run ends after {disk.committed} rounds, with budget left")

    def _clip(self, *untold: Order) -> float:
        return self.books.clip_after(self._sums[order].clipped_rate for order in [*self._kept, *untold])

    def _model(self, rounds: list[Order]) -> NDArray[np.float32]:
        means = [self._sums[order].mean for order in rounds]
        return np.asarray(np.sum([self._initial, *means], axis=0), np.float32)

    def copies(self) -> int:
        """A copy of the coordinator's disk is made; what `forgets` takes."""
        return len(self._kept)

    def forgets(self, copy: int) -> None:
        """The coordinator's disk is replaced by that copy."""
        self._kept = self._kept[:copy]

    @property
    def aborted(self) -> int:
        """Rounds that were opened and came to nothing; the newest may still be open."""
        over = [
            round_ for round_ in self._rounds.values() if round_.ended or round_.manifest.order < self.newest
        ]
        return len(over) - self.committed


def _never_fetched(schedule: Schedule, reason: str) -> bool:
    """Whether the broker lost artifacts that it acknowledged: only the next round publishes them again."""
    lost = any(isinstance(one, Noise) and one.kind == "false_ack" for one in schedule.operations)
    return lost and "trained" in reason


def _read(payload: bytes) -> tuple[str, Message] | None:
    try:
        frame = _frames.decode(payload)
    except (msgspec.MsgspecError, ValueError):
        return None
    decode = decode_from_coordinator if frame.sender == COORDINATOR else decode_from_device
    try:
        return frame.sender, decode(frame.body)
    except FedfleetError:
        return None


def _near(one: NDArray[np.float32], other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=1e-3))
