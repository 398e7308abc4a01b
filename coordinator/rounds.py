"""One round at the coordinator: carries out what the coordinator's half asks for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from broker.transport import Transport, TransportError
from coordinator.fleet import Fleet
from protocol.coordinator_round import CoordinatorRound
from protocol.effects import (
    Announce,
    Begin,
    Commit,
    Committed,
    CoordinatorEvent,
    Effect,
    Gone,
    Heard,
    Invite,
    Receive,
    Refuse,
    Send,
    Stop,
    StopReceiving,
    Uploaded,
    UploadFailed,
)
from protocol.errors import MisuseError, PeerError
from protocol.frames import Opened, Signer, seal_frame
from protocol.ids import DeviceId, Order, Seconds
from protocol.messages import DECISION_TOPICS, Decision, FromDevice, Message
from protocol.phases import Phase
from protocol.status import RoundStatus
from protocol.topics import Topics
from runtime.clock import Clock
from runtime.compute import Computer
from runtime.decisions import DecisionLog
from runtime.driver import Driver
from runtime.status_board import StatusBoard
from runtime.transfers import UploadReceiver, UploadStalledError

GONE_AFTER = 2.0
"""Seconds a lost device has to come back before its round stops waiting for it. A broker that restarts says
everybody's will, and a short break of a link is no death."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Desk:
    """Everything a coordinator acts with; built once by `coordinator.app`."""

    signer: Signer
    topics: Topics
    transport: Transport
    board: StatusBoard
    fleet: Fleet
    uploads: UploadReceiver
    decisions: DecisionLog
    computer: Computer
    clock: Clock


class Round:
    """The shell of the coordinator's half of one round.

    Args:
        desk: what the coordinator acts with.
        half: the pure half, not begun.
        commit: applies the mean update to the model and stores it.
    """

    def __init__(
        self, desk: Desk, half: CoordinatorRound, commit: Callable[[Commit], Awaitable[None]]
    ) -> None:
        self._desk = desk
        self._half = half
        self._commit = commit
        self._driver: Driver[CoordinatorEvent] = Driver(self, self, computer=desk.computer, clock=desk.clock)
        self._receiving: dict[DeviceId, asyncio.Task[object]] = {}
        self._doubts: set[asyncio.Task[None]] = set()
        self._recorded: set[Decision] = set()
        self._log = _log.bind(round=half.order.round)
        self.refused = 0

    async def run(self) -> None:
        """Run the round to its end."""
        self._desk.fleet.on_frame = self._heard
        self._desk.fleet.on_lost = self._lost
        # A restarted agent has none of the round's secrets left: there is nothing to wait for.
        self._desk.fleet.on_restarted = lambda device: self._driver.feed(Gone(device))
        try:
            await self._driver.run(Begin())
        finally:
            self._desk.fleet.forget_round()
            for task in self._doubts:
                task.cancel()

    def _lost(self, device: DeviceId) -> None:
        task = asyncio.create_task(self._give_up_on(device))
        self._doubts.add(task)
        task.add_done_callback(self._doubts.discard)

    async def _give_up_on(self, device: DeviceId) -> None:
        await self._desk.clock.sleep(GONE_AFTER)
        if self._desk.fleet.is_lost(device):
            self._driver.feed(Gone(device))

    def stop(self, reason: str) -> None:
        """End the round as aborted."""
        self._driver.feed(Stop(reason))

    def _heard(self, frame: Opened[FromDevice]) -> None:
        self._driver.feed(Heard(frame))

    # The machine as the driver sees it: the pure half, with its progress shown.

    @property
    def over(self) -> bool:
        """See `runtime.driver.Machine`."""
        return self._half.over

    def handle(self, event: CoordinatorEvent, now: Seconds) -> list[Effect]:
        """See `runtime.driver.Machine`."""
        before = self._half.phase
        effects = self._half.handle(event, now)
        if self._half.phase is not before:
            self._log.info("phase", phase=self._half.phase, reason=self._half.reason)
        self._desk.board.show(self._desk.topics.round_status, self._status(now))
        return effects

    def _status(self, now: Seconds) -> RoundStatus:
        progress = self._half.progress
        answered = progress.answered
        left = progress.deadline - now
        return RoundStatus(
            round=self._half.order.round,
            phase=progress.phase,
            invited=progress.invited,
            accepted=answered.get(Phase.INVITING, 0),
            trained=answered.get(Phase.KEYING, 0),
            shared=answered.get(Phase.SHARING, 0),
            uploaded=answered.get(Phase.COLLECTING, 0),
            confirmed=answered.get(Phase.CONFIRMING, 0),
            revealed=answered.get(Phase.RECOVERING, 0),
            needed=progress.needed,
            deadline_s=round(left, 1) if left < float("inf") else None,
            reason=progress.reason,
        )

    # Effects.

    async def emit(self, effect: Effect) -> None:
        """See `runtime.driver.Shell.emit`."""
        match effect:
            case Announce(decision):
                await self._announce(decision)
            case Invite(to, manifest):
                await self._send(self._desk.topics.inbox(to), manifest)
            case Send(to, message):
                await self._send(self._desk.topics.inbox(to), message)
            case _:
                raise MisuseError(f"a coordinator does not emit {type(effect).__name__}")

    async def _announce(self, decision: Decision) -> None:
        if decision not in self._recorded:
            frame = seal_frame(self._desk.signer, decision)
            await asyncio.to_thread(self._desk.decisions.record, frame)
            self._recorded.add(decision)
        topic = self._desk.topics.decision(self._half.order, DECISION_TOPICS[type(decision)])
        await self._send(topic, decision, retain=True)

    async def _send(self, topic: str, message: Message, *, retain: bool = False) -> None:
        try:
            frame = seal_frame(self._desk.signer, message)
            await self._desk.transport.publish(topic, frame, retain=retain)
        except TransportError as error:
            self._log.warning("not_sent", message=type(message).__name__, cause=str(error))

    async def perform(self, effect: Effect) -> CoordinatorEvent | None:
        """See `runtime.driver.Shell.perform`."""
        match effect:
            case Receive():
                return await self._receive(effect)
            case StopReceiving(device):
                for one, task in self._receiving.items():
                    if device in (None, one):
                        task.cancel()
            case Commit():
                await self._commit(effect)
                return Committed()
            case Refuse(error):
                self.refused += 1
                self._log.warning("refused", error=type(error).__name__, cause=str(error))
            case _:
                raise MisuseError(f"a coordinator does not perform {type(effect).__name__}")
        return None

    async def _receive(self, effect: Receive) -> CoordinatorEvent:
        task = asyncio.current_task()
        if task is not None:
            self._receiving[effect.device] = task
        try:
            data = await self._desk.uploads.receive(effect.device, effect.ref)
        except (UploadStalledError, PeerError) as error:
            self._log.warning("upload_failed", device=effect.device, cause=str(error))
            return UploadFailed(effect.device)
        finally:
            if self._receiving.get(effect.device) is task:
                del self._receiving[effect.device]
        return Uploaded(effect.device, effect.ref, data)


def decision_topics(topics: Topics, order: Order) -> list[str]:
    """Every retained topic of a round, to be cleared when nobody needs it."""
    return [topics.decision(order, name) for name in DECISION_TOPICS.values()]
