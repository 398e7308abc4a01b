"""Bugs in what a device decides and remembers."""

import math
from hashlib import sha256
from math import inf
from typing import Any

import numpy as np

import device_agent.app
import privacy.blocks
import protocol.device_round
from device_agent.app import Agent
from device_agent.memory import AgentMemory
from planted.bugs import Plant, bug, nothing
from protocol.device_round import DeviceRound
from protocol.device_work import CheckConfirmations, MaskUpdate
from protocol.effects import Remember, Say
from protocol.ids import ORIGIN, DeviceId, Seconds
from protocol.messages import Reveal, RoundKeys, SurvivorSet
from protocol.phases import Stage


@bug("I2", "That a round was entered is not written down.")
def tombstone_not_written(plant: Plant) -> None:
    plant.instead(AgentMemory, "remember", nothing)


@bug("I2", "That a round was entered is written down after its keys were shown.")
def tombstone_after_the_keys(plant: Plant) -> None:
    def handle(real: Any, self: DeviceRound, event: Any, now: Seconds) -> list[Any]:
        effects = [effect for effect in real(self, event, now) if not isinstance(effect, Remember)]
        shown = any(isinstance(effect, Say) and isinstance(effect.message, RoundKeys) for effect in effects)
        return [*effects, Remember(self.order)] if shown else effects

    plant.instead(DeviceRound, "handle", handle)


@bug("I2", "A restarted device enters its round again.")
def round_entered_again(plant: Plant) -> None:
    def start(real: Any, self: Agent, equipment: Any) -> None:
        real(self, equipment)
        self._newest = ORIGIN

    plant.instead(Agent, "__init__", start)


@bug("I2", "A device enters a round however old it is.")
def order_not_checked(plant: Plant) -> None:
    plant.instead(device_agent.app, "check_order", nothing)


@bug("I2", "A device that gets its shares twice masks twice.")
def masked_twice(plant: Plant) -> None:
    def on_delivery(real: Any, self: DeviceRound, delivery: Any, now: Seconds) -> list[Any]:
        known = self._known
        if not isinstance(known, protocol.device_round._Uploading):
            effects: list[Any] = real(self, delivery, now)
            return effects
        vector = vectors[self.order, self._context.own]
        self.stage = Stage.SHARED
        self._masking = False
        self._known = protocol.device_round._Chosen(
            vector, known.membership, known.share_set, known.transcript
        )
        self._early = delivery
        return self._mask()

    def mask(real: Any, self: DeviceRound) -> Any:
        vectors[self.order, self._context.own] = self._known.vector  # type: ignore[union-attr]
        return real(self)

    vectors: dict[Any, Any] = {}
    plant.instead(DeviceRound, "_on_delivery", on_delivery)
    plant.instead(DeviceRound, "_mask", mask)


@bug("I3", "A device takes a second survivor set, and confirms it.")
def second_survivor_set_taken(plant: Plant) -> None:
    def on_set(real: Any, self: DeviceRound, survivors: Any, body: bytes, now: Seconds) -> Any:
        known = self._known
        if isinstance(known, protocol.device_round._Confirmed):
            if self._decisions[SurvivorSet] == sha256(body).digest():
                return []
            del self._decisions[SurvivorSet]
            self.stage = Stage.UPLOADING
            before = transcripts[self.order]
            self._known = protocol.device_round._Uploading(
                known.membership, known.share_set, before, known.masked
            )
        elif isinstance(known, protocol.device_round._Uploading):
            transcripts[self.order] = known.transcript
        return real(self, survivors, body, now)

    transcripts: dict[Any, bytes] = {}
    plant.instead(DeviceRound, "_on_survivor_set", on_set)


def _reveals(plant: Plant, act: Any) -> None:
    def reveal(real: Any, self: DeviceRound, now: Seconds) -> list[Any]:
        known: Any = self._known
        real(self, now)
        right: Any = self._said
        return self._say(Reveal(self.order, right.transcript, tuple(act(known, right.shares))), now)

    plant.instead(DeviceRound, "_reveal", reveal)


@bug("I1", "A device reveals both shares of each neighbour.")
def both_shares_revealed(plant: Plant) -> None:
    def both(known: Any, _shares: Any) -> Any:
        for peer, pair in sorted(known.masked.held.items()):
            yield from ((peer, share) for share in pair)

    _reveals(plant, both)


@bug("sum", "A device reveals the other share than the survivor set asks for.")
def other_share_revealed(plant: Plant) -> None:
    def other(known: Any, _shares: Any) -> Any:
        for peer, (seed, key) in sorted(known.masked.held.items()):
            yield peer, key if peer in known.survivors else seed

    _reveals(plant, other)


@bug("stuck", "A device reveals a share of itself, which is no neighbour.")
def share_of_a_stranger_revealed(plant: Plant) -> None:
    _reveals(plant, lambda known, shares: [*shares, (known.membership.shares.shares[0][0] + "x", bytes(36))])


@bug("I1", "A device reveals before enough neighbours have confirmed.")
def confirmations_not_counted(plant: Plant) -> None:
    def said(real: Any, self: DeviceRound, survivors: Any, body: bytes, now: Seconds) -> list[Any]:
        before = self.stage
        effects: list[Any] = real(self, survivors, body, now)
        if before is Stage.UPLOADING and self.stage is Stage.CONFIRMED:
            effects += self._reveal(now)
        return effects

    plant.instead(DeviceRound, "_on_survivor_set", said)


@bug("I1", "A device takes any confirmations.")
def confirmations_not_verified(plant: Plant) -> None:
    plant.instead(CheckConfirmations, "run", lambda _real, self: self.neighbours)


@bug("sum", "A device masks towards all of its cohort, not only towards those that shared.")
def masked_towards_the_absent(plant: Plant) -> None:
    def pair_masks(real: Any, self: MaskUpdate) -> Any:
        object.__setattr__(self, "live", self.membership.neighbours)
        return real(self)

    plant.instead(MaskUpdate, "_pair_masks", pair_masks)


@bug("sum", "A device goes on although its share set or survivor set breaks a rule.")
def sets_not_checked(plant: Plant) -> None:
    plant.value(protocol.device_round, "check_set", lambda names, *_: frozenset(map(DeviceId, names)))


@bug("sum", "An update that is not a number is sent.")
def not_a_number_sent(plant: Plant) -> None:
    def quantize(real: Any, *given: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return real(*given)

    plant.value(math, "isfinite", lambda _number: True)
    plant.instead(privacy.blocks, "quantize", quantize)


@bug("stuck", "A device says everything once.")
def device_never_says_again(plant: Plant) -> None:
    def say_again(_real: Any, self: DeviceRound, _now: Seconds) -> list[Any]:
        self._resend_at = Seconds(inf)
        return []

    plant.instead(DeviceRound, "_say_again", say_again)


@bug("stuck", "A device that missed the end of its round waits for it for ever.")
def end_waited_for_for_ever(plant: Plant) -> None:
    def invited(real: Any, self: Agent, invitation: Any) -> None:
        if self._participation is None:
            real(self, invitation)

    def begin(real: Any, self: DeviceRound, now: Seconds) -> Any:
        effects = real(self, now)
        self._ends_at = Seconds(inf)
        return effects

    plant.instead(Agent, "_invited", invited)
    plant.instead(DeviceRound, "_begin", begin)


@bug("stuck", "A device offers itself once.")
def offered_once(plant: Plant) -> None:
    plant.value(device_agent.app, "until_next", lambda *_: 1e9)
