"""The agent program: offers the device and takes part when invited. Built here, once, from its settings.

A device is idle for most of its life, so nothing that is imported here may need numpy, nor what a round alone
needs: `Agent._prepare` is the one place that brings them in.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

from broker.transport import Delivery, TransportError
from device_agent.artifacts import ArtifactCache
from device_agent.conditions import Conditions, read_conditions
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.private_weights import PrivateWeights
from device_agent.renewal import Renewal, keep_renewed
from device_agent.settings import AgentSettings
from models.training_process import TrainingWorker
from protocol.certificates import Role
from protocol.errors import PeerError
from protocol.frames import Opened, open_coordinator_frame, seal_frame
from protocol.ids import DeviceId, Order, Seconds
from protocol.messages import Decline, FromCoordinator, Manifest, Offer
from protocol.order_checks import check_generation, check_order
from protocol.status import CoordinatorState, CoordinatorStatus, DeviceState, DeviceStatus, decode_status
from protocol.topics import Topics
from protocol.transcript import begin
from runtime.bus import connect_mqtt
from runtime.clock import Clock, SystemClock, happens
from runtime.compute import Computer
from runtime.entropy import Entropy, SystemEntropy
from runtime.identity import load_identity
from runtime.revocations import RevocationKeeper
from runtime.signals import run_until, stop_event
from runtime.status_board import StatusBoard
from runtime.watchdog import watched

if TYPE_CHECKING:
    from device_agent.participation import Participation

OFFER_INTERVAL = 60.0
"""Seconds between a free device's offers, give or take a quarter; the coordinator forgets it after 150."""

LEAVE_SECONDS = 5.0
"""How long an ending agent tries to tell the coordinator."""

_log = structlog.get_logger(__name__)


async def run(settings: AgentSettings) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        FedfleetError: settings, identity or state are not usable, or the broker refuses this device.
    """
    stop, clock = stop_event(), SystemClock()
    async with (
        equip(settings, clock, SystemEntropy()) as equipment,
        watched(equipment.transport, clock, os.environ),
    ):
        await run_until(stop, Agent(equipment).run(stop), clock)


@contextlib.asynccontextmanager
async def equip(settings: AgentSettings, clock: Clock, entropy: Entropy) -> AsyncIterator[Equipment]:
    """Build everything an agent acts with; the transport is connected inside `Agent.run`."""
    identity = load_identity(settings.identity, settings.name)
    trust, _ = identity.trust(Role.DEVICE, clock.unix())
    topics = Topics(settings.fleet)
    device = DeviceId(identity.name)
    memory = AgentMemory(settings.state)
    memory.begin()
    transport = connect_mqtt(
        settings.broker,
        identity=identity,
        will=(topics.device_status(device), DeviceStatus("lost", boot=memory.boot)),
        clock=clock,
        entropy=entropy,
    )
    revocations = RevocationKeeper(trust, clock, settings.state)
    # What came with the certificate counts until the broker tells more.
    revocations.recall([settings.identity])
    worker = TrainingWorker(settings.training)
    renewal = Renewal(
        identity,
        trust,
        topics,
        transport,
        clock=clock,
        entropy=entropy,
        renewed=keep_renewed(identity, settings.identity, transport.settings.tls),
    )
    async with Computer(workers=0) as computer, renewal:
        try:
            yield Equipment(
                settings=settings,
                identity=identity,
                trust=trust,
                revocations=revocations,
                topics=topics,
                transport=transport,
                board=StatusBoard(transport),
                memory=memory,
                artifacts=ArtifactCache(settings.state / "artifacts"),
                private=PrivateWeights(settings.state / "private"),
                worker=worker,
                computer=computer,
                clock=clock,
                entropy=entropy,
            )
        finally:
            await worker.close()


class Agent:
    """One device of the fleet.

    Args:
        equipment: what it acts with.
    """

    def __init__(self, equipment: Equipment) -> None:
        self._with = equipment
        self._participation: Participation | None = None
        self._task: asyncio.Task[None] | None = None
        self._offer_now = asyncio.Event()
        self._rest_until = equipment.clock.now()
        self._coordinator: tuple[CoordinatorState, int] = ("offline", 0)
        self._newest = equipment.memory.seen
        self._last_reason = ""
        self._saying: set[asyncio.Task[None]] = set()
        self.refused = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Offer the device and take part in rounds until `stop` is set."""
        transport, topics = self._with.transport, self._with.topics
        transport.on_connection(self._connection_changed)
        # Before connecting, so that nothing is missed that a persistent session has kept.
        await transport.subscribe(topics.revocations, self._with.revocations.message_arrived)
        await transport.subscribe(topics.inbox(self._with.device), self._inbox_arrived)
        await transport.subscribe(topics.coordinator_status, self._coordinator_changed)
        async with transport, self._with.board:
            offers = asyncio.create_task(self._offer_again_and_again())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({offers, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if offers.done():
                await offers
            offers.cancel()
            await self._leave("the agent ends")
            self._show("offline", "")

    # Offering.

    async def _offer_again_and_again(self) -> None:
        clock, entropy = self._with.clock, self._with.entropy
        while True:
            self._offer_now.clear()
            rest = self._rest_until - clock.now()
            if rest > 0:
                await clock.sleep(rest)
            await self._offer()
            await happens(self._offer_now, OFFER_INTERVAL * (0.75 + 0.5 * entropy.uniform()), clock)

    async def _offer(self) -> None:
        """Also while it takes part: a coordinator restarted in a round learns of its devices only so."""
        conditions = self._conditions()
        offer = Offer(
            boot=self._with.memory.boot,
            seen=self._with.memory.seen,
            idle=conditions.idle,
            charging=conditions.charging,
            unmetered=conditions.unmetered,
            engines=self._with.engines,
            version=version("fedfleet")[:32],
        )
        if self._task is None:
            self._show("idle", self._last_reason or conditions.why)
        topic = self._with.topics.offer(self._with.device)
        try:
            await self._with.transport.publish(topic, seal_frame(self._with.identity, offer))
        except TransportError as error:
            _log.warning("not_offered", cause=str(error))

    def _conditions(self) -> Conditions:
        return read_conditions(self._with.settings.conditions)

    def _connection_changed(self, connected: bool) -> None:  # noqa: FBT001 - the transport's listener
        if not connected:
            return
        self._offer_now.set()
        if self._participation is not None:
            self._participation.reconnected()

    def _coordinator_changed(self, delivery: Delivery) -> None:
        """Information only: a coordinator that has just come online makes the agent offer sooner."""
        with contextlib.suppress(PeerError):
            status = decode_status(delivery.payload, CoordinatorStatus)
            before, self._coordinator = self._coordinator, (status.state, status.epoch)
            if status.state == "online" and self._coordinator != before:
                self._offer_now.set()

    # Taking part.

    def _inbox_arrived(self, delivery: Delivery) -> None:
        try:
            frame = open_coordinator_frame(delivery.payload, self._with.trust, self._with.clock.unix())
            self._route(frame)
        except PeerError as error:
            self.refused += 1
            _log.warning("refused", error=type(error).__name__, cause=str(error))

    def _route(self, frame: Opened[FromCoordinator]) -> None:
        message, current = frame.message, self._participation
        if current is not None and message.order == current.round.order:
            current.told(frame)
        elif isinstance(message, Manifest):
            check_generation(message.order, frame.signer)
            if message.order == self._newest:
                self._sit_out(message.order, begin(frame.body))
                return
            check_order(message.order, self._newest)
            self._newest = message.order
            self._invited(Opened(frame.signer, message, frame.body, frame.frame, frame.signature))

    def _sit_out(self, order: Order, transcript: bytes) -> None:
        """Invited again to a round that it was in and is in no more: nobody need wait for it."""
        decline = seal_frame(self._with.identity, Decline(order, transcript, "it is in this round no more"))
        task = asyncio.create_task(self._say(decline))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def _say(self, frame: bytes) -> None:
        with contextlib.suppress(TransportError):  # the invitation comes again
            await self._with.transport.publish(self._with.topics.outbox(self._with.device), frame)

    def _invited(self, invitation: Opened[Manifest]) -> None:
        """A newer round ends an older one: the coordinator has gone on without telling."""
        previous = self._task
        if self._participation is not None:
            self._participation.leave("a newer round has begun")
        self._participation = self._prepare(invitation)
        self._task = asyncio.create_task(self._take_part(self._participation, previous))
        self._task.add_done_callback(_report)

    def _prepare(self, invitation: Opened[Manifest]) -> "Participation":
        # ruff: noqa: PLC0415 (the first invitation brings in numpy and all that a round needs)
        from device_agent.participation import Participation, stance_of
        from protocol.device_checks import DeviceContext

        conditions = self._conditions()
        context = DeviceContext(
            own=self._with.device,
            trust=self._with.trust,
            min_cohort=self._with.settings.floors.min_cohort,
            corrupt_fraction=self._with.settings.floors.corrupt_fraction,
            idle=conditions.idle,
            charging=conditions.charging,
            unmetered=conditions.unmetered,
            started=self._with.clock.unix(),
            min_enrolled_age=self._with.settings.floors.min_enrolled_age,
            privacy=stance_of(self._with),
        )
        return Participation(self._with, invitation, context)

    async def _take_part(self, participation: "Participation", previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.gather(previous, return_exceptions=True)
        try:
            await participation.run()
        except TransportError as error:
            _log.warning("round_lost", cause=str(error))
        finally:
            if self._participation is participation:
                self._after(participation)

    def _after(self, participation: "Participation") -> None:
        self._participation = self._task = None
        round_ = participation.round
        self._rest_until = Seconds(self._with.clock.now() + round_.retry_after)
        self._last_reason = round_.reason
        self._show("idle", round_.reason)
        if round_.reason:
            self._offer_now.set()

    async def _leave(self, reason: str) -> None:
        if self._participation is not None:
            self._participation.leave(reason)
        task = self._task
        if task is not None:
            await asyncio.wait({task}, timeout=LEAVE_SECONDS)
            task.cancel()

    def _show(self, state: DeviceState, why: str) -> None:
        status = DeviceStatus(state, why, self._with.memory.boot)
        self._with.board.show(self._with.topics.device_status(self._with.device), status)


def _report(task: asyncio.Task[None]) -> None:
    """A bug in one round must be seen, and must not keep the device from the next one."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("round_failed", exc_info=task.exception())
