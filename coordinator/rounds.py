"""One round at the coordinator: carries out what the coordinator's half asks for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from broker.transport import Transport, TransportError
from coordinator.fleet import Fleet
from coordinator.round_journal import JournaledRound
from coordinator.state import CoordinatorState
from protocol.device_privacy import privacy_of
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
    KeepSum,
    Receive,
    Refuse,
    Resumed,
    Revoked,
    Send,
    StopReceiving,
    SumKept,
    Uploaded,
    UploadFailed,
)
from protocol.errors import MisuseError, PeerError, ProtocolError
from protocol.frames import Opened, Signer, seal_frame
from protocol.ids import DeviceId, Order, Seconds
from protocol.messages import (
    DECISION_TOPICS,
    Decision,
    FromDevice,
    HighWater,
    Manifest,
    Message,
    Offer,
)
from protocol.phases import Phase
from protocol.status import RoundStatus
from protocol.topics import Topics
from runtime.clock import Clock
from runtime.compute import Computer
from runtime.driver import Driver
from runtime.entropy import Entropy
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard
from runtime.transfers import UploadReceiver, UploadStalledError

GONE_AFTER = 2.0
"""Seconds a lost device has to come back before its round stops waiting for it. A broker that restarts says
everybody's will, and a short break of a link is no death."""

MAX_FRAMES = 500
"""Frames of one device that a round listens to, repeats included. One that says everything again every 30 s
for an hour needs about 150; one that floods shall not fill the disk."""

MAX_LOSSES = 50
"""Losses of one device that a round hears of; presences are unsigned."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Desk:
    """Everything a coordinator acts with; built once by `coordinator.app`."""

    signer: Signer
    topics: Topics
    transport: Transport
    board: StatusBoard
    fleet: Fleet
    revocations: RevocationKeeper
    uploads: UploadReceiver
    state: CoordinatorState
    computer: Computer
    clock: Clock
    entropy: Entropy


class Round:
    """The shell of the coordinator's half of one round.

    Args:
        desk: what the coordinator acts with.
        manifest: the signed frame.
        half: the half with its journal; not begun, or replayed.
        invited: whose frames are of this round.
        commit: applies the mean update to the model and stores it with the end of the round.
    """

    def __init__(
        self,
        desk: Desk,
        manifest: bytes,
        half: JournaledRound,
        invited: Sequence[DeviceId],
        commit: Callable[[Commit], Awaitable[None]],
    ) -> None:
        self._desk = desk
        self._manifest = manifest
        self._half = half
        self._commit = commit
        self._order = half.half.order
        self._driver: Driver[CoordinatorEvent] = Driver(self, self, computer=desk.computer, clock=desk.clock)
        self._receiving: dict[DeviceId, asyncio.Task[object]] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._frames_left = dict.fromkeys(invited, MAX_FRAMES)
        self._losses_left = dict.fromkeys(invited, MAX_LOSSES)
        self._announced = 0
        self._log = _log.bind(round=self._order.round)
        self.refused = 0

    async def run(self, begin: Begin | Resumed, unfinished: Sequence[Effect] = ()) -> None:
        """Run the round to its end.

        Args:
            begin: how it begins.
            unfinished: what was under way when the last process ended.
        """
        await self._say_again_what_was_decided()
        self._desk.fleet.on_frame = self._heard
        self._desk.fleet.on_lost = lambda device: self._start(self._give_up_on(device))
        # A restarted agent has none of the round's secrets left: there is nothing to wait for.
        self._desk.fleet.on_restarted = self._gone
        self._desk.fleet.on_revoked = self._revoked
        self._start(self._withdraw_revoked())
        try:
            await self._driver.run(begin, unfinished)
        finally:
            self._desk.fleet.forget_round()
            for task in self._beside:
                task.cancel()

    async def _say_again_what_was_decided(self) -> None:
        """Byte-identical; the broker may have lost it, and some may not have left."""
        await self._mark_high_water()
        for decision, frame in self._half.decisions:
            await self._announce(decision, frame)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _give_up_on(self, device: DeviceId) -> None:
        await self._desk.clock.sleep(GONE_AFTER)
        if self._desk.fleet.is_lost(device):
            self._gone(device)

    def _gone(self, device: DeviceId) -> None:
        if self._losses_left.get(device, 0):
            self._losses_left[device] -= 1
            self._driver.feed(Gone(device))

    async def _withdraw_revoked(self) -> None:
        """Whoever was revoked since it spoke, while the coordinator was down; on a turn of its own: begun."""
        for certificate in self._half.signers:
            self._desk.fleet.met(certificate)
        for device in tuple(self._frames_left):
            if self._desk.fleet.is_revoked(device):
                self._revoked(device)

    def _revoked(self, device: DeviceId) -> None:
        if self._frames_left.get(device, 0):
            self._frames_left[device] = 0
            self._driver.feed(Revoked(device))

    def _heard(self, frame: Opened[FromDevice]) -> None:
        """What is not for this round, or too much, is kept from the half and from the journal."""
        if isinstance(frame.message, Offer):
            return
        left = self._frames_left.get(frame.sender, 0)
        if frame.message.order != self._order or not left:
            kind = type(frame.message).__name__
            self._refuse(ProtocolError(f"a {kind} of {frame.sender} that is not expected"))
            return
        self._frames_left[frame.sender] = left - 1
        self._driver.feed(Heard(frame))

    # The machine as the driver sees it: the half, with its progress shown.

    @property
    def over(self) -> bool:
        """See `runtime.driver.Machine`."""
        return self._half.over

    def handle(self, event: CoordinatorEvent, now: Seconds) -> list[Effect]:
        """See `runtime.driver.Machine`."""
        before = self._half.progress.phase
        effects = self._half.handle(event, now)
        progress = self._half.progress
        if progress.phase is not before:
            self._log.info("phase", phase=progress.phase, reason=progress.reason)
        if isinstance(event, SumKept):
            self._start(self._half.forget_summed())
        self._desk.board.show(self._desk.topics.round_status, self._status(now))
        return effects

    def _status(self, now: Seconds) -> RoundStatus:
        progress = self._half.progress
        answered = progress.answered
        left = progress.deadline - now
        return RoundStatus(
            round=self._order.round,
            phase=progress.phase,
            invited=progress.invited,
            accepted=answered.get(Phase.INVITING, 0),
            trained=answered.get(Phase.KEYING, 0),
            shared=answered.get(Phase.SHARING, 0),
            uploaded=answered.get(Phase.COLLECTING, 0),
            confirmed=answered.get(Phase.CONFIRMING, 0),
            revealed=answered.get(Phase.RECOVERING, 0),
            needed=progress.needed,
            privacy=privacy_of(self._half.half.manifest),
            deadline_s=round(left, 1) if left < float("inf") else None,
            reason=progress.reason,
        )

    # Effects. Whatever leaves waits for the journal: what it says must not be forgotten.

    async def emit(self, effect: Effect) -> None:
        """See `runtime.driver.Shell.emit`."""
        await self._half.flushed()
        match effect:
            case Announce(decision):
                await self._announce(decision, self._half.frame_of(decision))
            case Invite(to):
                await self._publish(self._desk.topics.inbox(to), self._manifest, Manifest)
            case Send(to, message):
                frame = seal_frame(self._desk.signer, message)
                await self._publish(self._desk.topics.inbox(to), frame, type(message))
            case _:
                raise MisuseError(f"a coordinator does not emit {type(effect).__name__}")

    async def _announce(self, decision: Decision, frame: bytes) -> None:
        if len(self._half.decisions) > self._announced:
            await self._mark_high_water()
        topic = self._desk.topics.decision(self._order, DECISION_TOPICS[type(decision)])
        await self._publish(topic, frame, type(decision), retain=True)

    async def _mark_high_water(self) -> None:
        """Before the decision itself: state that does not know it is then known to be old."""
        self._announced = len(self._half.decisions)
        frame = seal_frame(self._desk.signer, HighWater(self._order, self._announced))
        await self._publish(self._desk.topics.high_water, frame, HighWater, retain=True)

    async def _publish(self, topic: str, frame: bytes, kind: type[Message], *, retain: bool = False) -> None:
        try:
            await self._desk.transport.publish(topic, frame, retain=retain)
        except TransportError as error:
            self._log.warning("not_sent", message=kind.__name__, cause=str(error))

    async def perform(self, effect: Effect) -> CoordinatorEvent | None:
        """See `runtime.driver.Shell.perform`."""
        match effect:
            case Receive():
                return await self._receive(effect)
            case StopReceiving(device):
                for one, task in self._receiving.items():
                    if device in (None, one):
                        task.cancel()
            case KeepSum():
                return await self._keep_sum(effect)
            case Commit():
                await self._half.flushed()
                await self._commit(effect)
                return Committed()
            case Refuse(error):
                self._refuse(error)
            case _:
                raise MisuseError(f"a coordinator does not perform {type(effect).__name__}")
        return None

    def _refuse(self, error: Exception) -> None:
        self.refused += 1
        self._log.warning("refused", error=type(error).__name__, cause=str(error))

    async def _receive(self, effect: Receive) -> CoordinatorEvent:
        task = asyncio.current_task()
        if task is not None:
            self._receiving[effect.device] = task
        try:
            data = await self._desk.uploads.receive(effect.device, effect.ref)
            name = await self._desk.state.spool_update(data)
        except (UploadStalledError, PeerError) as error:
            self._log.warning("upload_failed", device=effect.device, cause=str(error))
            return UploadFailed(effect.device)
        finally:
            if self._receiving.get(effect.device) is task:
                del self._receiving[effect.device]
        if name != effect.ref.sha256:
            self._refuse(ProtocolError(f"the upload of {effect.device} is not the content that it named"))
            self._frames_left[effect.device] = 0  # once is a lie; again would be on our disk
            return UploadFailed(effect.device)
        return Uploaded(effect.device, effect.ref, data)

    async def _keep_sum(self, effect: KeepSum) -> SumKept:
        packed = await asyncio.to_thread(effect.total.pack)
        return SumKept(await self._desk.state.spool_update(packed))


def decision_topics(topics: Topics, order: Order) -> list[str]:
    """Every retained topic of a round, to be cleared when nobody needs it."""
    return [topics.decision(order, name) for name in DECISION_TOPICS.values()]
