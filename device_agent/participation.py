"""One round on one device: carries out what the device's half asks for."""

import asyncio
from collections.abc import Iterable

import numpy as np
import structlog
from numpy.typing import NDArray

from broker.transport import Delivery, TransportError
from device_agent.equipment import Equipment
from models.bounds import MAX_MANIFEST_BYTES
from models.bundle import Bundle, BundleManifest
from models.errors import DIVERGED, BundleError, EngineUnavailableError, TrainingFailedError
from models.installed import choose_engine
from privacy.encoding import LocalMetrics
from privacy.mode import Mode
from protocol.chunks import BlobRef
from protocol.device_checks import DeviceContext
from protocol.device_privacy import PrivacyStance, privacy_objection
from protocol.device_round import DeviceRound
from protocol.effects import (
    Begin,
    Charge,
    ConditionsFailed,
    DeviceEvent,
    DeviceFailed,
    Effect,
    Enter,
    Fetch,
    Fetched,
    Reconnected,
    Refuse,
    Remember,
    Say,
    SendChunks,
    Told,
    Train,
    Trained,
    Upload,
)
from protocol.errors import MisuseError, PeerError
from protocol.frames import Opened, open_coordinator_frame, seal_frame
from protocol.ids import Order
from protocol.messages import MAX_REASON, Decline, FromCoordinator, Manifest
from protocol.status import DeviceStatus
from runtime.driver import Driver
from runtime.files import in_words
from runtime.transfers import Uploader, fetch_blob
from secagg.keys import SECRET_SIZE, Secret

WATCH_INTERVAL = 5.0
"""Seconds between looks at the device while it trains: reading them takes a millisecond."""

_log = structlog.get_logger(__name__)


def stance_of(equipment: Equipment) -> PrivacyStance:
    """What the device insists on now, and what it has spent."""
    privacy, ledger = equipment.settings.privacy, equipment.memory.ledger
    return PrivacyStance(
        weakest=privacy.weakest,
        budget=privacy.epsilon,
        delta=privacy.delta,
        spent=ledger.spent,
        last=ledger.last.order if ledger.last else None,
    )


class Participation:
    """The shell of a device's half of one round.

    Args:
        equipment: what the agent acts with.
        invitation: the verified manifest.
        context: what the device brings.
    """

    def __init__(self, equipment: Equipment, invitation: Opened[Manifest], context: DeviceContext) -> None:
        self._with = equipment
        self.round = DeviceRound(invitation, context, Secret(equipment.entropy.bytes(SECRET_SIZE)))
        self._driver: Driver[DeviceEvent] = Driver(
            self.round, self, computer=equipment.computer, clock=equipment.clock
        )
        self._uploader: Uploader | None = None
        self._training: asyncio.Task[object] | None = None
        self._mute = False
        self._engine, self._model = "", (b"", 0)
        self._log = _log.bind(round=invitation.message.order.round)

    async def run(self) -> None:
        """Take part until the round is over."""
        topic = self._with.topics.decisions(self.round.order)
        # What it misses comes again, being retained and repeated. At QoS 1 a NATS cluster elects a leader for
        # this one subscription, which fails one time in three for minutes after a node is gone.
        subscription = await self._with.transport.subscribe(topic, self._decision_arrived, qos=0)
        watching = asyncio.create_task(self._watch_conditions())
        try:
            await self._driver.run(Begin())
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await subscription.cancel()
            self._uploader = None  # it is part of a circle, and would keep the masked update for long
        if not watching.cancelled():
            watching.result()
        self._log.info("round_left", stage=self.round.stage, reason=self.round.reason)

    def told(self, frame: Opened[FromCoordinator]) -> None:
        """A verified frame of the coordinator came."""
        self._driver.feed(Told(frame))

    def reconnected(self) -> None:
        """The broker is back."""
        self._driver.feed(Reconnected())

    def leave(self, reason: str) -> None:
        """The agent ends."""
        self._driver.feed(DeviceFailed(reason))

    async def _watch_conditions(self) -> None:
        """Leave cleanly when they turn bad before the keys have left; later the others need this device."""
        while self.round.without_keys:
            conditions = await self._with.conditions.look()
            reason = conditions.ends_training(self.round.manifest.eligibility)
            if reason and self.round.without_keys:
                # At once, whether or not the broker can be told.
                if self._training is not None:
                    self._training.cancel()
                self._driver.feed(ConditionsFailed(reason))
                return
            await self._with.clock.sleep(WATCH_INTERVAL)

    def _decision_arrived(self, delivery: Delivery) -> None:
        if not delivery.payload:
            return  # the coordinator takes back what nobody needs any more
        try:
            frame = open_coordinator_frame(delivery.payload, self._with.trust, self._with.clock.unix())
        except PeerError as error:
            self._log.warning("frame_refused", topic=delivery.topic, cause=str(error))
        else:
            self.told(frame)

    # Effects.

    async def emit(self, effect: Effect) -> None:
        """See `runtime.driver.Shell.emit`."""
        match effect:
            case Remember(order):
                await self._remember(order)
            case Charge(order, mode, rho):
                await self._charge(order, mode, rho)
            case Say(message) if self._mute and not isinstance(message, Decline):
                return
            case Say(message):
                topic = self._with.topics.outbox(self._with.device)
                try:
                    await self._with.transport.publish(topic, seal_frame(self._with.identity, message))
                except TransportError as error:
                    self._log.warning("not_said", message=type(message).__name__, cause=str(error))
            case _:
                raise MisuseError(f"an agent does not emit {type(effect).__name__}")

    async def perform(self, effect: Effect) -> DeviceEvent | None:
        """See `runtime.driver.Shell.perform`."""
        match effect:
            case Fetch(bundle, weights):
                return await self._fetch(bundle, weights)
            case Train():
                return await self._train(effect)
            case Upload(ref, data):
                self._uploader = self._uploader_for(ref, data)
            case SendChunks(indices):
                await self._send_chunks(indices)
            case Enter(state):
                status = DeviceStatus(state, boot=self._with.memory.boot)
                self._with.board.show(self._with.topics.device_status(self._with.device), status)
            case Refuse(error):
                self._log.warning("refused", error=type(error).__name__, cause=str(error))
            case _:
                raise MisuseError(f"an agent does not perform {type(effect).__name__}")
        return None

    async def _remember(self, order: Order) -> None:
        try:
            await asyncio.to_thread(self._with.memory.remember, order, self._with.clock.unix())
        except OSError as error:
            # Nothing of a round that is not remembered may leave (I2).
            self._mute = True
            self._log.warning("round_not_remembered", cause=str(error))
            self.leave(in_words(error))

    async def _charge(self, order: Order, mode: Mode, rho: float) -> None:
        objection = privacy_objection(self.round.manifest, stance_of(self._with))
        if objection:  # the round before this one was charged after this one's invitation was judged
            self._mute = True
            self.leave(objection)
            return
        try:
            unix = self._with.clock.unix()
            await asyncio.to_thread(self._with.memory.charge, order, mode, rho, unix)
        except OSError as error:
            # No part of a masked update that is not charged may leave; nobody grants what is not offered.
            self._mute = True
            self._log.warning("round_not_charged", cause=str(error))
            self.leave(in_words(error))
        else:
            self._log.info("charged", mode=mode, rho=rho)

    async def _fetch(self, bundle: BlobRef, weights: BlobRef) -> DeviceEvent:
        """The bundle's manifest, the files of one engine, and the weights."""
        try:
            _check_size([bundle], MAX_MANIFEST_BYTES)
            manifest = BundleManifest.decode(bytes(await self._pull(bundle)))
            self._model = manifest.model_id, manifest.private.size if manifest.private else 0
            self._engine = choose_engine(manifest.engines, self._with.engines)
            needed = manifest.needed(self._engine)
            # What its training process could not even hold is not worth its disk and its network.
            memory = self._with.settings.training.memory_limit_mb * 2**20
            _check_size([weights, *(manifest.files[name] for name in needed)], memory)
            files = {name: bytes(await self._pull(manifest.files[name])) for name in needed}
            return Fetched(Bundle(manifest, files).encode(), await self._pull(weights))
        except EngineUnavailableError as error:
            return DeviceFailed(str(error)[:MAX_REASON])
        except (PeerError, TransportError) as error:
            self._log.warning("artifact_not_fetched", cause=str(error))
            return DeviceFailed("the artifact cannot be fetched")

    async def _pull(self, ref: BlobRef) -> memoryview:
        artifact = await asyncio.to_thread(self._with.artifacts.open, ref)
        return await fetch_blob(
            self._with.transport,
            self._with.topics,
            ref,
            clock=self._with.clock,
            assembly=artifact.assembly,
            keep=artifact.keep,
            wants=self._with.topics.wants(self._with.device),
        )

    async def _train(self, effect: Train) -> DeviceEvent:
        initial = np.frombuffer(effect.weights, "<f4")
        settings = self._with.settings
        self._training = asyncio.current_task()
        model, size = self._model
        private = await asyncio.to_thread(self._with.private.load, model, 4 * size) if size else None
        try:
            result = await self._with.worker.train(
                effect.bundle,
                initial,
                effect.training,
                settings.data,
                seed=effect.seed,
                engine=self._engine,
                private=private,
                deadline=self.round.manifest.deadlines.keying,
            )
        except TrainingFailedError as error:
            # The cause may quote the data or its path; the coordinator is told the kind alone.
            self._log.warning("training_failed", kind=error.kind, cause=str(error))
            if error.kind == DIVERGED:
                await asyncio.to_thread(self._with.private.forget, model)
                return self._nothing_learned(initial, f"training failed: {error.kind}")
            return DeviceFailed(f"training failed: {error.kind}")
        finally:
            self._training = None
        if result.examples < effect.min_examples:
            return self._nothing_learned(initial, "too few examples")
        if size:
            await asyncio.to_thread(self._with.private.keep, model, result.private)
        self._log.info("trained", examples=result.examples, seconds=round(result.seconds, 3))
        metrics = LocalMetrics(result.examples, result.evaluated, result.loss_sum, result.correct)
        return Trained(initial, np.frombuffer(result.weights, "<f4"), metrics)

    def _nothing_learned(self, initial: NDArray[np.float32], reason: str) -> DeviceEvent:
        """Leave for a reason that the data gave; where noise hides them, contribute zeros instead."""
        if self.round.manifest.noise is None:
            return DeviceFailed(reason)
        self._log.warning("contributes_zeros", reason=reason)
        return Trained(initial, initial, LocalMetrics(examples=0, evaluated=0, loss_sum=0.0, correct=0))

    def _uploader_for(self, ref: BlobRef, data: bytes) -> Uploader:
        return Uploader(
            self._with.transport,
            self._with.topics,
            self.round.manifest.shard,
            self._with.device,
            data,
            ref,
            clock=self._with.clock,
            bytes_per_second=self._with.settings.upload_bytes_per_second,
        )

    async def _send_chunks(self, indices: tuple[int, ...]) -> None:
        if self._uploader is not None:
            await self._uploader.granted(indices)


def _check_size(refs: Iterable[BlobRef], limit: int) -> None:
    if (size := sum(ref.size for ref in refs)) > limit:
        raise BundleError(f"{size:,} bytes are to be fetched; at most {limit:,} are allowed")
