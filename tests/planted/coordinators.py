"""Bugs in what the coordinator decides: phases, sums, masks and deadlines."""

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from coordinator.fleet import Fleet
from coordinator.rounds import Round
from planted.bugs import Plant, bug, no_effects
from privacy.weighted_update import WeightedEncoding
from protocol.certificates import FleetTrust
from protocol.coordinator_phases import Collecting, Confirming, Keying, Sharing
from protocol.coordinator_round import CoordinatorRound
from protocol.coordinator_work import RecoverKeys
from protocol.effects import Announce, Receive, Send, StopReceiving, Uploaded
from protocol.frames import seal_frame
from protocol.ids import ORIGIN, Seconds
from protocol.messages import Cohort, RoundEnded, Stored, SurvivorSet, UploadOffer
from secagg import graph
from secagg.pairwise import SelfGroup
from secagg.ring import RingVector


def _unflushed(plant: Plant, kind: type) -> None:
    async def emit(real: Any, self: Round, effect: Any) -> None:
        said = getattr(effect, "decision", getattr(effect, "message", None))
        if not isinstance(said, kind):
            await real(self, effect)
        elif isinstance(effect, Announce):
            await self._announce(effect.decision, self._half.frame_of(effect.decision))
        elif isinstance(effect, Send):
            frame = seal_frame(self._desk.signer, effect.message)
            await self._publish(self._desk.topics.inbox(effect.to), frame, kind)

    plant.instead(Round, "emit", emit)


@bug("I3", "The cohort leaves before it is stored.")
def cohort_before_the_sync(plant: Plant) -> None:
    _unflushed(plant, Cohort)


@bug("I3", "The survivor set leaves before it is stored.")
def survivor_set_before_the_sync(plant: Plant) -> None:
    _unflushed(plant, SurvivorSet)


@bug("I3", "The end of a round leaves before it is stored.")
def end_before_the_sync(plant: Plant) -> None:
    _unflushed(plant, RoundEnded)


@bug("I3", "An update is acknowledged before it is stored.")
def acknowledgement_before_the_sync(plant: Plant) -> None:
    _unflushed(plant, Stored)


@bug("sum", "Collecting ends as soon as enough have uploaded, and what comes later is still added.")
def late_update(plant: Plant) -> None:
    def decide(real: Any, self: CoordinatorRound, event: Any, now: Seconds) -> list[Any]:
        state = self._state
        if isinstance(event, Uploaded) and isinstance(state, Confirming):
            total = state.collected.total
            total.add(RingVector.unpack(total.layout, event.data))
        effects: list[Any] = real(self, event, now)
        return effects

    def handle(real: Any, self: CoordinatorRound, event: Any, now: Seconds) -> list[Any]:
        return [effect for effect in real(self, event, now) if not isinstance(effect, StopReceiving)]

    def satisfied(_real: Any, self: Collecting) -> bool:
        return len(self.stored) >= max(self.formed.view.threshold, self.manifest.min_cohort)

    plant.instead(CoordinatorRound, "_decide", decide)
    plant.instead(CoordinatorRound, "handle", handle)
    plant.instead(Collecting, "satisfied", satisfied)


@bug("sum", "An update whose offer comes again is fetched and added again.")
def update_added_twice(plant: Plant) -> None:
    def hear(real: Any, self: Collecting, frame: Any) -> list[Any]:
        effects: list[Any] = real(self, frame)
        if frame.sender in self.stored and isinstance(frame.message, UploadOffer):
            self.arrived.discard(frame.sender)
            effects = [*effects, Receive(frame.sender, frame.message.blob)]
        return effects

    def added(real: Any, self: Collecting, device: Any) -> list[Any]:
        self.stored.pop(device, None)
        effects: list[Any] = real(self, device)
        return effects

    plant.instead(Collecting, "hear", hear)
    plant.instead(Collecting, "added", added)


def _recovered(plant: Plant, part: Any) -> None:
    plant.instead(RecoverKeys, "run", lambda real, self: part(real(self)))


@bug("sum", "The pair masks of members that vanished are not removed.")
def pair_masks_left_in(plant: Plant) -> None:
    _recovered(plant, lambda corrections: corrections[:1])


@bug("sum", "The self mask of one survivor is not removed.")
def self_mask_left_in(plant: Plant) -> None:
    def short(corrections: Any) -> Any:
        own: SelfGroup = corrections[0]
        return (own.part(1, len(own)), *corrections[1:])

    _recovered(plant, short)


@bug("sum", "The pair masks of members that vanished are not removed, and nobody looks at the sentinels.")
def pair_masks_left_in_unseen(plant: Plant) -> None:
    def decode(real: Any, self: WeightedEncoding, update: Any, metrics: Any, *others: Any) -> Any:
        words, figures = update.copy(), np.zeros_like(metrics)
        words[self.block.words :] = 0
        figures[0] = others[0] * self.metrics_scale
        return real(self, words, figures, *others)

    plant.value(WeightedEncoding, "_check_plausible", lambda *_: None)
    plant.instead(WeightedEncoding, "decode", decode)
    pair_masks_left_in(plant)


@bug("I7", "The share set names members whose shares have not arrived.")
def share_set_of_the_whole_cohort(plant: Plant) -> None:
    plant.value(Sharing, "members", lambda self: frozenset(self.formed.view.keys))


@bug("I4", "The survivor set forgets the update that was added last.")
def survivor_forgotten(plant: Plant) -> None:
    def after(real: Any, collected: Collecting) -> Any:
        collected.stored.popitem()
        return real(collected)

    plant.instead(Confirming, "after", after)


@bug("I7", "The survivor set is the share set, whoever has uploaded.")
def survivor_without_an_update(plant: Plant) -> None:
    def after(real: Any, collected: Collecting) -> Any:
        collected.stored.update(dict.fromkeys(collected.members, b""))
        return real(collected)

    plant.instead(Confirming, "after", after)


@bug("I4", "The threshold is one too low, on both sides.")
def threshold_too_low(plant: Plant) -> None:
    def parameters(real: Any, *figures: Any) -> Any:
        rule = real(*figures)
        return replace(rule, threshold=rule.threshold - 1)

    plant.instead(graph, "parameters", parameters)


@bug("I4", "Collecting ends well with too few updates.")
def too_few_updates(plant: Plant) -> None:
    plant.value(Collecting, "shortage", lambda _self: "")


@bug("stuck", "A phase waits for the silent for ever.")
def no_deadlines(plant: Plant) -> None:
    def enter(real: Any, self: CoordinatorRound, state: Any, now: Seconds) -> Any:
        effects = real(self, state, now)
        self._deadline = Seconds(inf)
        return effects

    plant.instead(CoordinatorRound, "_enter", enter)


@bug("stuck", "The coordinator says everything once.")
def coordinator_never_says_again(plant: Plant) -> None:
    def woke(_real: Any, self: CoordinatorRound, _now: Seconds) -> list[Any]:
        self._resend_at = Seconds(inf)
        return []

    plant.instead(CoordinatorRound, "_woke", woke)


@bug("stuck", "A phase is over when half of the devices have answered.")
def half_is_enough(plant: Plant) -> None:
    def satisfied(_real: Any, self: Keying) -> bool:
        return len(self.keys) >= max(self.wanted / 2, self.manifest.min_cohort)

    plant.instead(Keying, "satisfied", satisfied)


@bug("stuck", "One device that claims a high order is believed.")
def one_device_believed(plant: Plant) -> None:
    def newest(_real: Any, self: Fleet, _gamma: float) -> Any:
        return max((known.offer.seen for known in self._devices.values()), default=ORIGIN)

    plant.instead(Fleet, "newest_seen", newest)


@bug("stuck", "Storing a sum is never told to the round, which goes on waiting for it.")
def stored_sum_not_told(plant: Plant) -> None:
    plant.instead(Collecting, "next_upload", no_effects)


@bug("revoked", "A revoked device is heard and invited as if nothing were.")
def revoked_device_heard(plant: Plant) -> None:
    plant.instead(FleetTrust, "check_standing", lambda _real, _self, _certificate, _now: None)
    plant.instead(Fleet, "is_revoked", lambda _real, _self, _device: False)
