"""A run: rounds of one plan, from where the state ends to the stopping rule."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from coordinator.artifact import Artifact
from coordinator.evaluation import Evaluator
from coordinator.high_water import HighWaterMark, beyond
from coordinator.ledger import Release, release_of
from coordinator.model_store import ModelStore
from coordinator.notices import Notices
from coordinator.pace import PaceSetter
from coordinator.privacy_rules import (
    clip_now,
    limits_of,
    next_clip,
    next_rounds,
    release_of_kept,
    spent_after,
)
from coordinator.round_journal import JournaledRound
from coordinator.round_replay import JournalMismatchError
from coordinator.rounds import Desk, Round
from coordinator.selection import BudgetSpent, Choice, select
from coordinator.server_optimizer import step
from coordinator.settings import CoordinatorSettings
from coordinator.stopping import Outcome, reason_to_stop
from coordinator.stored import Model, NewestRound, Opening, stored_message
from models.artifact import export_inference
from privacy.errors import PrivacyError
from protocol.certificates import FleetTrust
from protocol.chunks import describe
from protocol.coordinator_round import CoordinatorRound, aborted_end
from protocol.effects import Begin, Commit, Effect, Resumed
from protocol.errors import CertificateError, FedfleetError, MisuseError
from protocol.frames import seal_frame
from protocol.ids import DeviceId, Order, Seconds, UnixTime
from protocol.messages import (
    MAX_REASON,
    Grant,
    HighWater,
    Manifest,
    Message,
    RoundEnded,
)
from protocol.phases import Phase
from protocol.plan import Plan, plan_hash
from protocol.planned_round import PlanImpossibleError, planned_manifest
from protocol.status import RoundResult
from protocol.vector import encoding_of, layout_of
from runtime.blobs import BlobError
from runtime.clock import happens
from secagg.keys import SECRET_SIZE, Secret

LOOK_AGAIN = 1.0
"""Seconds between looks at the fleet while too few devices are on offer."""

CONSULT = 3.0
"""Seconds a starting coordinator waits for the mark on the broker, and for devices to say what they have
seen, before it believes that its state is the newest. Both come within one, if they come."""

_log = structlog.get_logger(__name__)


class OutrunError(FedfleetError):
    """Another coordinator of this fleet has come further than this one."""


class Run:
    """Runs rounds until the plan's rule, and keeps the state.

    Args:
        desk: what the coordinator acts with.
        settings: as the operator set them.
        plan: what to do.
        artifact: what is trained.
        store: where model and results are exported to.
        evaluator: judges new models.
        trust: the fleet's root.
        generation: of the coordinator's certificate.
        chance: uniform numbers in [0, 1) for sampling devices.
    """

    def __init__(  # noqa: PLR0917 - called once, by the composition root
        self,
        desk: Desk,
        settings: CoordinatorSettings,
        plan: Plan,
        artifact: Artifact,
        store: ModelStore,
        evaluator: Evaluator,
        trust: FleetTrust,
        generation: int,
        chance: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._state = desk.state
        self._settings = settings
        self._plan = plan
        self._artifact = artifact
        self._store = store
        self._evaluator = evaluator
        self._trust = trust
        self._generation = generation
        self._chance = chance
        self._gamma = plan.secure_aggregation.corrupt_fraction
        self._contents = tuple(artifact.contents())
        self._bundle_ref = artifact.manifest[1]
        self._weights_ref = describe(self._state.model.weights)
        self._marks = HighWaterMark(trust, desk.clock)
        self._pace = PaceSetter(desk, trust)
        self._outrun = asyncio.Event()
        self._half: JournaledRound | None = None
        self._notices = Notices(desk)
        desk.revocations.on_newer = desk.fleet.list_arrived
        self._state.journal.on_trouble = self._disk_trouble

    async def run(self, stop: asyncio.Event) -> None:
        """Run rounds until the plan's rule or until `stop` is set; a round that is open then can be resumed.

        Raises:
            OutrunError: see there.
        """
        desk, topics = self._desk, self._desk.topics
        await desk.transport.subscribe(topics.revocations, desk.revocations.message_arrived)
        # Before the mark, so that it has come when the mark has.
        await desk.transport.subscribe(topics.pace, self._pace.frame_arrived)
        await desk.transport.subscribe(topics.high_water, self._marks.frame_arrived)
        await desk.transport.subscribe(topics.every_offer, desk.fleet.frame_arrived)
        await desk.transport.subscribe(topics.every_outbox, desk.fleet.frame_arrived)
        await desk.transport.subscribe(topics.every_device_status, desk.fleet.status_arrived)
        await desk.transport.subscribe(topics.every_want, self._notices.chunks.wanted, qos=0)
        async with desk.transport, desk.board, desk.uploads, self._notices.chunks:
            rounds = asyncio.create_task(self._rounds())
            pace = asyncio.create_task(self._pace.keep(lambda: self._order))
            others = [pace, *(asyncio.create_task(event.wait()) for event in (stop, self._outrun))]
            await asyncio.wait({rounds, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in (rounds, *others):
                task.cancel()
            await asyncio.gather(rounds, *others, return_exceptions=True)
            if not pace.cancelled():
                pace.result()
            if rounds.cancelled() or rounds.exception():
                self._notices.show("offline", self._why_offline(rounds))
            else:
                self._notices.show("finished", rounds.result())
                await self._notices.clear(keep=b"")
                for _, ref in self._contents:
                    await self._notices.clear_blob(ref)
        if self._outrun.is_set():
            raise OutrunError(
                f"another coordinator of this fleet has come to round {self._marks.newest.order}, this one "
                f"is at {self._order}; stop one of them"
            )
        if not rounds.cancelled():
            rounds.result()

    def _why_offline(self, rounds: asyncio.Task[str]) -> str:
        error = None if rounds.cancelled() else rounds.exception()
        if isinstance(error, FedfleetError):
            return str(error)[:MAX_REASON]
        return f"round {self._state.round} goes on with the next start" if self._half else ""

    async def grant(self, device: DeviceId, blob: bytes, chunks: tuple[int, ...]) -> None:
        """Tell a device which chunks to send; what `UploadReceiver` asks for."""
        message = Grant(self._order, blob, chunks)
        await self._desk.transport.publish(
            self._desk.topics.inbox(device), seal_frame(self._desk.signer, message)
        )

    # Starting: is this state the newest there is?

    async def _begin(self) -> None:
        self._notices.show("online", "starting")
        await self._publish_bundle()
        kept = self._state.newest_round()
        await self._consult(is_open=kept is not None and not kept.over)
        ours = HighWater(self._order, len(kept.decisions) if kept else 0)
        behind = beyond(self._marks.newest, ours) or self._seen > self._order
        copied = self._state.restored
        if behind:
            # Rolled back: the rounds between are not known any more, and must not be played again.
            _log.warning("state_is_behind", seen=str(self._seen), state=str(self._order))
            self._state.epoch = self._seen.epoch + 1
        elif copied:
            _log.warning("state_is_a_copy", epoch=self._state.epoch)
            self._state.epoch += 1
        await self._state.begin()
        self._marks.on_rise = self._marked
        await self._pace.set(self._order)
        await self._export()
        self._notices.show("online", "starting")
        self._notices.show_model(self._weights_ref)
        if kept is not None:
            await self._go_on(kept, "its state was rolled back or copied" if behind or copied else "")
            await self._export()

    async def _publish_bundle(self) -> None:
        for content, ref in self._contents:
            await self._notices.publish(content, ref)

    async def _consult(self, *, is_open: bool) -> None:
        """Wait for the mark, and before a round is resumed for what its devices have seen."""
        ends = self._desk.clock.now() + CONSULT
        await happens(self._marks.arrived, CONSULT, self._desk.clock)
        needed = self._plan.selection.min_cohort if is_open else 0
        while len(self._desk.fleet.candidates()) < needed and self._desk.clock.now() < ends:
            await self._desk.clock.sleep(CONSULT / 10)

    @property
    def _seen(self) -> Order:
        """The newest round that anybody knows of."""
        return max(self._desk.fleet.newest_seen(self._gamma), self._marks.newest.order)

    def _marked(self, mark: HighWater) -> None:
        ours = HighWater(self._order, len(self._half.decisions) if self._half else 0)
        if mark.order > self._order or (self._half and beyond(mark, ours)):
            self._outrun.set()

    async def _go_on(self, kept: NewestRound, stale: str) -> None:
        """Resume the open round, or end it where it cannot be; say again how the last one ended."""
        manifest = stored_message(kept.opening.manifest, Manifest)
        self._notices.last = (kept.order, manifest.weights)
        if kept.over:
            self._notices.show_result(kept.order, self._state.last_result)
            await self._notices.announce(kept.order, *kept.decisions)
            return
        ended = _end_of(kept)
        if ended is not None:
            await self._aborted(kept.order, ended.reason, 0.0, release_of_kept(kept))
            await self._notices.announce(kept.order, *kept.decisions)
        elif stale or kept.order.generation != self._generation:
            # Not told: devices may know another end of it. The next manifest makes them leave.
            reason = stale or "the coordinator has a new certificate"
            await self._aborted(kept.order, reason, 0.0, release_of_kept(kept))
        elif manifest.plan != plan_hash(self._plan):
            await self._give_up(kept, "the plan has changed")
        else:
            await self._resume(kept, manifest)

    async def _resume(self, kept: NewestRound, manifest: Manifest) -> None:
        half = self._half_of(manifest, kept.opening)
        try:
            unfinished = await half.replay(kept, self._trust)
        except (JournalMismatchError, BlobError) as error:
            _log.warning("not_resumed", round=kept.order.round, cause=str(error))
            await self._give_up(kept, "it could not be resumed")
            return
        last = kept.events[-1].unix if kept.events else kept.opening.started
        away = Seconds(max(0.0, self._desk.clock.unix() - last))
        _log.info("resumed", round=kept.order.round, phase=half.progress.phase, away=round(away, 1))
        await self._run_round(half, kept.opening, Resumed(away) if kept.events else Begin(), unfinished)

    async def _give_up(self, kept: NewestRound, reason: str) -> None:
        """End a round that has no half, and tell its devices."""
        frame = seal_frame(self._desk.signer, aborted_end(kept.order, reason))
        self._state.record(None, [frame])
        await self._aborted(kept.order, reason, 0.0, release_of_kept(kept))
        await self._notices.announce(kept.order, frame)

    # One round after another.

    async def _rounds(self) -> str:
        """Why the run is over."""
        await self._begin()
        while True:
            reason = reason_to_stop(self._plan.stopping, self._state.history, self._state.seconds)
            if reason:
                return reason
            number, choice = await self._choose()
            if isinstance(choice, BudgetSpent):
                return choice.reason
            await self._open_round(number, choice)

    async def _choose(self) -> tuple[int, Choice | BudgetSpent]:
        """Wait until enough devices are on offer; the next round's number, and who is invited."""
        while True:
            candidates = self._desk.fleet.candidates()
            wanted = 0 if self._state.round else self._settings.start_when or 0
            why = f"{len(candidates)} of {wanted} devices are on offer"
            if len(candidates) >= wanted:
                limits = limits_of(self._plan, self._state.ledger, self._state.round + 1)
                for number in next_rounds(limits):
                    at_number = replace(limits, round=number)
                    choice = select(candidates, self._plan.selection, self._chance, at_number)
                    if isinstance(choice, Choice | BudgetSpent):
                        return number, choice
                    why = choice.reason
            self._notices.show("online", self._list_trouble() or why)
            await self._desk.clock.sleep(LOOK_AGAIN)

    def _list_trouble(self) -> str:
        """Under an expired list no device counts, and nobody would see why there are none."""
        try:
            self._trust.check_list(self._desk.clock.unix())
        except CertificateError as error:
            return str(error)
        return ""

    async def _open_round(self, number: int, choice: Choice) -> None:
        order = self._next_order(number)
        manifest = self._manifest(order, choice)
        opening = Opening(
            manifest=seal_frame(self._desk.signer, manifest),
            invited=tuple(choice.invited),
            wanted=choice.wanted,
            workers=self._desk.computer.workers,
            started=self._desk.clock.unix(),
        )
        await self._state.open_round(order, opening)
        await self._run_round(self._half_of(manifest, opening), opening, Begin(), [])

    def _next_order(self, number: int) -> Order:
        """A round's place in history, beyond everything any device has seen."""
        epoch, seen = self._state.epoch, self._seen
        if seen.generation > self._generation:
            raise OutrunError(
                f"devices know a coordinator certificate of generation {seen.generation}, ours is "
                f"{self._generation}; install the newer one"
            )
        if seen >= Order(self._generation, epoch, number):
            # This state is older than what devices took part in: a lost or restored folder.
            _log.warning("state_is_behind", seen=str(seen), state=str(self._order))
            epoch = seen.epoch + 1
        return Order(self._generation, epoch, number)

    def _half_of(self, manifest: Manifest, opening: Opening) -> JournaledRound:
        half = CoordinatorRound(
            manifest,
            [DeviceId(name) for name in opening.invited],
            opening.wanted,
            self._trust,
            workers=opening.workers,
            started=UnixTime(opening.started),
            noise_key=Secret(self._desk.entropy.bytes(SECRET_SIZE)),
        )
        return JournaledRound(half, self._state, self._desk.signer, self._desk.clock)

    async def _run_round(
        self, half: JournaledRound, opening: Opening, begin: Begin | Resumed, unfinished: Sequence[Effect]
    ) -> None:
        await self._notices.publish(self._state.model.weights, self._weights_ref)
        self._notices.show("online", "")
        self._half = half
        invited = [DeviceId(name) for name in opening.invited]
        await Round(self._desk, opening.manifest, half, invited, self._commit).run(begin, unfinished)
        order, ended = half.half.order, half.half
        self._half = None
        if ended.phase is Phase.COMMITTED:
            self._notices.show_model(self._weights_ref)
            self._notices.show_result(order, self._state.last_result)
        else:
            said = [decision for decision, _ in half.decisions]
            release = release_of(ended.manifest, said, unmasked=ended.revealed)
            await self._aborted(order, ended.reason, half.seconds, release)
            # The broker may have lost it after it said that it has it; devices would wait for it for ever.
            await self._publish_bundle()
        await self._export()
        # Devices that come back late still find how the last round ended; the one before is of no use.
        await self._notices.clear(keep=self._weights_ref.sha256)
        self._notices.last = (order, ended.manifest.weights)
        await self._desk.clock.sleep(ended.retry_after)

    def _manifest(self, order: Order, choice: Choice) -> Manifest:
        try:
            manifest = planned_manifest(
                self._plan,
                fleet=self._settings.fleet,
                order=order,
                bundle=self._bundle_ref,
                weights=self._weights_ref,
                members=len(choice.invited),
                clip=clip_now(self._plan, self._state.clip),
                shard=self._settings.shard,
                revocations=self._trust.sequence,
            )
            encoding_of(manifest)
        except PrivacyError as error:
            raise PlanImpossibleError(
                f"a round of {len(choice.invited)} devices is not possible: {error}"
            ) from error
        return manifest

    async def _commit(self, effect: Commit) -> None:
        """Mean update → server optimizer → evaluation → the state."""
        model, mean, half = self._state.model, effect.mean, self._half
        if half is None:
            raise MisuseError("no round is open")
        weights, moments = await asyncio.to_thread(
            step, self._plan.server, model.server_state, model.vector, mean.mean
        )
        judged = await self._evaluator.evaluate(weights)
        outcome = Outcome(
            committed=True,
            accuracy=mean.accuracy if judged.accuracy is None else judged.accuracy,
            loss=mean.loss if judged.loss is None else judged.loss,
        )
        model = Model.of(weights, moments)
        ref = await asyncio.to_thread(describe, model.weights)
        manifest = half.half.manifest
        release = release_of(manifest, [decision for decision, _ in half.decisions], unmasked=True)
        result = RoundResult(
            round=self._order.round,
            result="committed",
            survivors=effect.survivors,
            dropouts=effect.dropouts,
            loss=mean.loss,
            accuracy=mean.accuracy,
            metrics_noise=mean.metrics_noise,
            evaluated_loss=judged.loss,
            evaluated_accuracy=judged.accuracy,
            **spent_after(self._plan, self._state, release),
            clip=manifest.secure_aggregation.clip,
            clipped=mean.clipped_rate,
            saturated=mean.saturated_rate,
            seconds=round(half.seconds, 3),
            bytes_up=_bytes_up(manifest),
            model=f"sha256:{ref.sha256.hex()}",
        )
        ended = half.frame_of(effect.ended)
        clip = next_clip(self._plan, manifest.secure_aggregation.clip, mean.clipped_rate)
        await self._state.commit(model, outcome, result, ended, release=release, clip=clip)
        self._weights_ref = ref

    async def _export(self) -> None:
        """What users take away; a disk that refuses it costs no round, the next one writes it again."""
        model = await asyncio.to_thread(
            export_inference, self._artifact.bundle, self._state.model.vector, self._artifact.activation
        )
        try:
            await asyncio.to_thread(self._store.export, model, self._state.results)
        except OSError as error:
            _log.warning("not_exported", cause=str(error))

    async def _aborted(self, order: Order, reason: str, seconds: float, release: Release | None) -> None:
        spent = spent_after(self._plan, self._state, release)
        result = RoundResult(order.round, "aborted", reason=reason, seconds=round(seconds, 3), **spent)
        await self._state.abort(Outcome(committed=False), result, release=release)
        self._notices.show_result(order, result)

    @property
    def _order(self) -> Order:
        return Order(self._generation, self._state.epoch, self._state.round)

    def _disk_trouble(self, reason: str) -> None:
        _log.error("disk_trouble", reason=reason)
        self._notices.show("online", reason and f"{reason}: everything waits until it works again")


def _end_of(kept: NewestRound) -> RoundEnded | None:
    """The end that was announced, or was about to be."""
    last = stored_message(kept.decisions[-1], Message) if kept.decisions else None
    return last if isinstance(last, RoundEnded) else None


def _bytes_up(manifest: Manifest) -> int:
    return layout_of(encoding_of(manifest)).packed_size
