"""What others see of a run: presence, results, the model and its bytes, how the last round ended."""

import contextlib
from importlib.metadata import version

import structlog

from broker.transport import TransportError
from coordinator.rounds import Desk, decision_topics
from coordinator.stored import stored_message
from protocol.chunks import BlobRef
from protocol.ids import Order
from protocol.messages import DECISION_TOPICS, Message
from protocol.status import CoordinatorState, CoordinatorStatus, ModelStatus, RoundResult
from runtime.transfers import ChunkResender, clear_blob, publish_blob

RESULT_LASTS = 30 * 24 * 3600.0
"""Seconds for which a broker that can keeps the result of a round."""

_log = structlog.get_logger(__name__)


class Notices:
    """Publishes it, and takes it back when nobody needs it any more.

    Args:
        desk: what the coordinator acts with.

    Attributes:
        chunks: says again what devices miss of it.
        last: the newest round whose decisions and weights the broker keeps.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.chunks = ChunkResender(desk.transport, desk.topics, desk.clock)
        self.last: tuple[Order, BlobRef] | None = None

    def show(self, state: CoordinatorState, why: str) -> None:
        """The coordinator's presence."""
        status = CoordinatorStatus(
            state=state,
            version=version("fedfleet"),
            epoch=self._desk.state.epoch,
            devices=len(self._desk.fleet.candidates()),
            why=why,
        )
        self._desk.board.show(self._desk.topics.coordinator_status, status)

    def show_model(self, weights: BlobRef) -> None:
        """The newest model."""
        status = ModelStatus(self._desk.state.round, weights.sha256.hex(), weights.size // 4)
        self._desk.board.show(self._desk.topics.model_status, status)

    def show_result(self, order: Order, result: RoundResult) -> None:
        """How a round ended."""
        self._desk.board.show(self._desk.topics.round_result(order), result, expiry=RESULT_LASTS)
        _log.info("round_over", number=order.round, result=result.result, reason=result.reason)

    async def announce(self, order: Order, *decisions: bytes) -> None:
        """Decisions of a round that is over, as they were signed."""
        for frame in decisions:
            name = DECISION_TOPICS[type(stored_message(frame, Message))]
            with contextlib.suppress(TransportError):
                await self._desk.transport.publish(
                    self._desk.topics.decision(order, name), frame, retain=True
                )

    async def publish(self, data: bytes, ref: BlobRef) -> None:
        """Bytes that devices fetch."""
        self.chunks.offer(data, ref)
        try:
            await publish_blob(self._desk.transport, self._desk.topics, data, ref)
        except TransportError as error:
            # The transport publishes it again with the next connection; devices wait for it.
            _log.warning("blob_not_published", cause=str(error))

    async def clear(self, *, keep: bytes) -> None:
        """Take what the last round retained off the broker, except the blob that the next one needs."""
        if self.last is None:
            return
        order, weights = self.last
        if weights.sha256 != keep:
            await self.clear_blob(weights)
        for topic in decision_topics(self._desk.topics, order):
            with contextlib.suppress(TransportError):
                await self._desk.transport.publish(topic, b"", retain=True)

    async def clear_blob(self, ref: BlobRef) -> None:
        """Take a blob off the broker."""
        self.chunks.withdraw(ref)
        with contextlib.suppress(TransportError):
            await clear_blob(self._desk.transport, self._desk.topics, ref)
