"""A run: rounds of one plan, from the newest checkpoint to the stopping rule."""

import asyncio
import contextlib
from collections.abc import Callable
from importlib.metadata import version

import structlog
from msgspec.structs import replace

from broker.transport import TransportError
from coordinator.artifact import Artifact
from coordinator.evaluation import Evaluator
from coordinator.model_store import Checkpoint, ModelStore, raw
from coordinator.rounds import Desk, Round, decision_topics
from coordinator.selection import Choice, select
from coordinator.server_optimizer import initial_state, step
from coordinator.settings import CoordinatorSettings
from coordinator.stopping import Outcome, reason_to_stop, without_last_aborts
from models.artifact import export_inference
from protocol.certificates import FleetTrust
from protocol.chunks import BlobRef, describe
from protocol.coordinator_round import CoordinatorRound
from protocol.effects import Commit
from protocol.errors import FedfleetError
from protocol.frames import seal_frame
from protocol.ids import DeviceId, Order
from protocol.messages import Grant, Manifest
from protocol.phases import Phase
from protocol.plan import Plan, plan_hash
from protocol.status import CoordinatorState, CoordinatorStatus, ModelStatus, RoundResult, encode_status
from protocol.vector import encoding_of, layout_of
from runtime.clock import happens
from runtime.transfers import clear_blob, publish_blob

RESULT_LASTS = 30 * 24 * 3600.0
"""Seconds for which a broker that can keeps the result of a round."""

LOOK_AGAIN = 1.0
"""Seconds between looks at the fleet while too few devices are on offer."""

_log = structlog.get_logger(__name__)


class OutrunError(FedfleetError):
    """Devices have taken part in rounds of a newer coordinator certificate."""


class Run:
    """Runs rounds until the plan's rule, and keeps the checkpoint.

    Args:
        desk: what the coordinator acts with.
        settings: as the operator set them.
        plan: what to do.
        artifact: what is trained.
        store: where checkpoint, model and results are kept.
        evaluator: judges new models.
        trust: the fleet's root.
        generation: of the coordinator's certificate.
        chance: uniform numbers in [0, 1) for sampling devices.

    Raises:
        DamagedCheckpointError: the store holds something else.
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
        self._settings = settings
        self._plan = plan
        self._artifact = artifact
        self._store = store
        self._evaluator = evaluator
        self._trust = trust
        self._generation = generation
        self._chance = chance
        self._gamma = plan.secure_aggregation.corrupt_fraction
        self._bundle = artifact.bundle.encode()
        self._bundle_ref = describe(self._bundle)
        self._checkpoint = self._restored()
        self._weights_ref = describe(self._checkpoint.weights)
        self._result = RoundResult(0, "aborted")
        self._round: Round | None = None
        self._shown: list[tuple[Order, BlobRef]] = []

    def _restored(self) -> Checkpoint:
        """The newest checkpoint, or a new run; either way in a new epoch, which fences the last one."""
        kept = self._store.load(self._bundle_ref.sha256)
        if kept is not None:
            return replace(kept, epoch=kept.epoch + 1, history=without_last_aborts(kept.history))
        weights = self._artifact.weights
        state = initial_state(self._plan.server, weights.size)
        return Checkpoint(self._bundle_ref.sha256, 1, 0, raw(weights), raw(state.first), raw(state.second))

    async def run(self, stop: asyncio.Event) -> None:
        """Run rounds until the plan's rule or until `stop` is set."""
        desk, topics = self._desk, self._desk.topics
        await desk.transport.subscribe(topics.every_offer, desk.fleet.frame_arrived)
        await desk.transport.subscribe(topics.every_outbox, desk.fleet.frame_arrived)
        await desk.transport.subscribe(topics.every_device_status, desk.fleet.status_arrived)
        async with desk.transport, desk.board, desk.uploads:
            await self._save()
            self._show("online", "starting")
            self._show_model()
            await self._publish(self._bundle, self._bundle_ref)
            reason = await self._rounds(stop)
            self._show("finished" if reason else "offline", reason)
            await self._clear(keep=b"")
            await self._clear_blob(self._bundle_ref)

    async def grant(self, device: DeviceId, blob: bytes, chunks: tuple[int, ...]) -> None:
        """Tell a device which chunks to send; what `UploadReceiver` asks for."""
        message = Grant(self._order, blob, chunks)
        await self._desk.transport.publish(
            self._desk.topics.inbox(device), seal_frame(self._desk.signer, message)
        )

    # One round after another.

    async def _rounds(self, stop: asyncio.Event) -> str:
        """Why the run is over; empty when it was stopped."""
        while not stop.is_set():
            reason = reason_to_stop(self._plan.stopping, self._checkpoint.history, self._checkpoint.seconds)
            if reason:
                return reason
            choice = await self._choose(stop)
            if choice is not None:
                await self._run_round(choice, stop)
        return ""

    async def _choose(self, stop: asyncio.Event) -> Choice | None:
        """Wait until enough devices are on offer; None when stopped."""
        while not stop.is_set():
            candidates = self._desk.fleet.candidates()
            first = not self._checkpoint.history and self._round is None
            wanted = self._settings.start_when or 0 if first else 0
            if len(candidates) >= wanted:
                choice = select(candidates, self._plan.selection, self._chance)
                if isinstance(choice, Choice):
                    return choice
                self._show("online", choice.reason)
            else:
                self._show("online", f"{len(candidates)} of {wanted} devices are on offer")
            await happens(stop, LOOK_AGAIN, self._desk.clock)
        return None

    async def _run_round(self, choice: Choice, stop: asyncio.Event) -> None:
        began = self._desk.clock.now()
        self._advance()
        await self._save()
        # After the save: the new order fences the last round.
        await asyncio.to_thread(self._desk.decisions.begin)
        ref = self._weights_ref
        await self._publish(self._checkpoint.weights, ref)
        half = CoordinatorRound(
            self._manifest(choice, ref),
            choice.invited,
            choice.wanted,
            self._trust,
            workers=self._desk.computer.workers,
            started=self._desk.clock.unix(),
        )
        self._show("online", "")
        self._round = Round(self._desk, half, self._commit)
        watch = asyncio.create_task(self._stop_with(stop, self._round))
        try:
            await self._round.run()
        finally:
            watch.cancel()
        await self._finish(half, ref, self._desk.clock.now() - began)
        if half.retry_after:
            await happens(stop, half.retry_after, self._desk.clock)

    async def _stop_with(self, stop: asyncio.Event, round_: Round) -> None:
        await stop.wait()
        round_.stop("the coordinator is stopping")

    def _advance(self) -> None:
        """Open the next round number, beyond everything any device has seen."""
        epoch, seen = self._checkpoint.epoch, self._desk.fleet.newest_seen(self._gamma)
        if seen.generation > self._generation:
            raise OutrunError(
                f"devices know a coordinator certificate of generation {seen.generation}, ours is "
                f"{self._generation}; install the newer one"
            )
        if seen >= Order(self._generation, epoch, self._checkpoint.round + 1):
            # This state is older than what devices took part in: a lost or restored folder.
            _log.warning("state_is_behind", seen=str(seen), epoch=epoch)
            epoch = seen.epoch + 1
        self._checkpoint = replace(self._checkpoint, epoch=epoch, round=self._checkpoint.round + 1)

    def _manifest(self, choice: Choice, weights: BlobRef) -> Manifest:
        plan = self._plan
        return Manifest(
            fleet=self._settings.fleet,
            order=self._order,
            protocol="pairwise",
            plan=plan_hash(plan),
            bundle=self._bundle_ref,
            weights=weights,
            training=plan.training,
            eligibility=plan.selection.eligibility,
            secure_aggregation=plan.secure_aggregation,
            min_cohort=plan.selection.min_cohort,
            max_cohort=len(choice.invited),
            deadlines=plan.deadlines,
            shard=self._settings.shard,
        )

    async def _commit(self, effect: Commit) -> None:
        """Mean update → server optimizer → evaluation → checkpoint → the model on disk and on its topic."""
        weights, state = await asyncio.to_thread(
            step, self._plan.server, self._checkpoint.server_state, self._checkpoint.vector, effect.mean.mean
        )
        judged = await self._evaluator.evaluate(weights)
        mean = effect.mean
        outcome = Outcome(
            committed=True,
            accuracy=mean.accuracy if judged.accuracy is None else judged.accuracy,
            loss=mean.loss if judged.loss is None else judged.loss,
        )
        self._checkpoint = replace(
            self._checkpoint,
            weights=raw(weights),
            first=raw(state.first),
            second=raw(state.second),
            history=(*self._checkpoint.history, outcome),
        )
        self._weights_ref = await asyncio.to_thread(describe, self._checkpoint.weights)
        await self._save()
        model = await asyncio.to_thread(export_inference, self._artifact.bundle, weights)
        await asyncio.to_thread(self._store.export, model)
        self._show_model()
        self._result = RoundResult(
            round=self._order.round,
            result="committed",
            survivors=effect.survivors,
            dropouts=effect.dropouts,
            loss=mean.loss,
            accuracy=mean.accuracy,
            evaluated_loss=judged.loss,
            evaluated_accuracy=judged.accuracy,
            clipped=mean.clipped_rate,
            saturated=mean.saturated_rate,
            model=f"sha256:{self._weights_ref.sha256.hex()}",
        )

    async def _finish(self, half: CoordinatorRound, weights: BlobRef, seconds: float) -> None:
        committed = half.phase is Phase.COMMITTED
        if not committed:
            self._result = RoundResult(half.order.round, "aborted", reason=half.reason)
            history = (*self._checkpoint.history, Outcome(committed=False))
            self._checkpoint = replace(self._checkpoint, history=history)
        self._checkpoint = replace(self._checkpoint, seconds=self._checkpoint.seconds + seconds)
        await self._save()
        size = layout_of(encoding_of(half.manifest)).packed_size
        result = replace(self._result, seconds=round(seconds, 3), bytes_up=size)
        await asyncio.to_thread(self._store.append_result, encode_status(result))
        self._desk.board.show(self._desk.topics.round_result(half.order), result, expiry=RESULT_LASTS)
        _log.info("round_over", number=half.order.round, result=result.result, reason=result.reason)
        # Devices that come back late still find how the last round ended; the one before is of no use.
        await self._clear(keep=self._weights_ref.sha256)
        self._shown = [(half.order, weights)]

    # What others see.

    @property
    def _order(self) -> Order:
        return Order(self._generation, self._checkpoint.epoch, self._checkpoint.round)

    async def _save(self) -> None:
        await asyncio.to_thread(self._store.save, self._checkpoint)

    def _show(self, state: CoordinatorState, why: str) -> None:
        status = CoordinatorStatus(
            state=state,
            version=version("fedfleet"),
            epoch=self._checkpoint.epoch,
            devices=len(self._desk.fleet.candidates()),
            why=why,
        )
        self._desk.board.show(self._desk.topics.coordinator_status, status)

    def _show_model(self) -> None:
        ref = self._weights_ref
        status = ModelStatus(self._checkpoint.round, ref.sha256.hex(), ref.size // 4)
        self._desk.board.show(self._desk.topics.model_status, status)

    async def _publish(self, data: bytes, ref: BlobRef) -> None:
        try:
            await publish_blob(self._desk.transport, self._desk.topics, data, ref)
        except TransportError as error:
            # The transport publishes it again with the next connection; devices wait for it.
            _log.warning("blob_not_published", cause=str(error))

    async def _clear(self, *, keep: bytes) -> None:
        """Take what earlier rounds retained off the broker, except the blob that the next one needs."""
        for order, weights in self._shown:
            if weights.sha256 != keep:
                await self._clear_blob(weights)
            for topic in decision_topics(self._desk.topics, order):
                with contextlib.suppress(TransportError):
                    await self._desk.transport.publish(topic, b"", retain=True)

    async def _clear_blob(self, ref: BlobRef) -> None:
        with contextlib.suppress(TransportError):
            await clear_blob(self._desk.transport, self._desk.topics, ref)
