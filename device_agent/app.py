"""The agent program: offers the device and takes part when invited. Built here, once, from its settings.

A device is idle for most of its life, so nothing that is imported here may need numpy, nor what a round alone
needs: `Agent._prepare` is the one place that brings them in.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NoReturn

import structlog

from broker.transport import Delivery, TransportError
from device_agent.artifacts import ArtifactCache
from device_agent.conditions import ConditionReader, Sensors
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.private_weights import PrivateWeights
from device_agent.renewal import Renewal, keep_renewed
from device_agent.settings import AgentSettings
from models.training_process import TrainingWorker
from protocol.certificates import Role
from protocol.errors import PeerError
from protocol.frames import Opened, open_coordinator_frame, seal_frame
from protocol.ids import DeviceId, Order, Seconds
from protocol.messages import MAX_REASON, Decline, FromCoordinator, Manifest, Offer
from protocol.order_checks import check_generation, check_order
from protocol.pace import until_next, until_return
from protocol.phases import Stage
from protocol.status import CoordinatorState, CoordinatorStatus, DeviceState, DeviceStatus, decode_status
from protocol.topics import Topics
from protocol.transcript import begin
from runtime.bus import connect_mqtt
from runtime.clock import Clock, SystemClock, happens
from runtime.compute import Computer
from runtime.entropy import Entropy, SystemEntropy
from runtime.heap import give_back
from runtime.identity import load_identity
from runtime.revocations import RevocationKeeper
from runtime.signals import run_until, stop_event
from runtime.status_board import StatusBoard
from runtime.watchdog import watched

if TYPE_CHECKING:
    from device_agent.participation import Participation

LOOK_INTERVAL = 30.0
"""Seconds between looks at the device, give or take a quarter, whether it sleeps or not."""

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
        agent = Agent(equipment, _give_back, settings.renew_seconds)
        await run_until(stop, agent.run(stop), clock)
        if agent.renews:
            _begin_anew()


def _begin_anew() -> NoReturn:
    """The same program in the same process: numpy cannot be unloaded, and most devices wait for hours.

    Not after the contexts have ended: they would tell a service manager that the service is stopping.
    """
    _log.info("begins_anew")
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - our own command line


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
    sensors = Sensors(settings.state, ask_network=settings.conditions.unmetered == "auto")
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
                conditions=ConditionReader(settings.conditions, sensors.read, lambda: memory.entered, clock),
                pace=PaceKeeper(trust, clock, settings.state),
            )
        finally:
            await worker.close()


class Agent:
    """One device of the fleet.

    Args:
        equipment: what it acts with.
        rested: is called when a round is over and its vectors are gone.
        renew_seconds: how long after its last round it ends by itself, to begin anew; 0 is never.

    Attributes:
        renews: whether it ended by itself, because it has rested for so long.
    """

    def __init__(
        self,
        equipment: Equipment,
        rested: Callable[[object], None] = lambda _: None,
        renew_seconds: float = 0.0,
    ) -> None:
        self._with = equipment
        self._rested = rested
        self._renew_seconds = renew_seconds
        self._participation: Participation | None = None
        self._task: asyncio.Task[None] | None = None
        self._offer_due = self._rest_until = equipment.clock.now()
        self._offer_moved = asyncio.Event()
        self._coordinator: tuple[CoordinatorState, int] = ("offline", 0)
        self._newest = equipment.memory.seen
        self._last_reason = ""
        self._saying: set[asyncio.Task[None]] = set()
        self._last_round: Seconds | None = None
        self.renews = False
        self.refused = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Offer the device and take part in rounds until `stop` is set."""
        transport, topics = self._with.transport, self._with.topics
        await self._with.conditions.look()
        self._offer_due = Seconds(self._offer_due + self._until_return())
        self._with.pace.on_change = self._pace_changed
        transport.on_connection(self._connection_changed)
        # Before connecting, so that nothing is missed that a persistent session has kept.
        await transport.subscribe(topics.revocations, self._with.revocations.message_arrived)
        await transport.subscribe(topics.pace, self._with.pace.frame_arrived)
        await transport.subscribe(topics.inbox(self._with.device), self._inbox_arrived)
        await transport.subscribe(topics.coordinator_status, self._coordinator_changed)
        async with transport, self._with.board:
            self._show_free()
            working = [
                asyncio.create_task(self._offer_again_and_again()),
                asyncio.create_task(self._look_again_and_again()),
            ]
            ends: list[asyncio.Task[object]] = [asyncio.create_task(stop.wait())]
            if self._renew_seconds:
                ends.append(asyncio.create_task(self._rest_long_enough()))
            tasks: list[asyncio.Task[object]] = [*working, *ends]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            for task in done.difference(ends):
                await task  # it ends with a bug only
            self.renews = not stop.is_set()
            await self._leave("the agent ends")
            self._show("offline", "")

    # Waking and sleeping.

    async def _look_again_and_again(self) -> None:
        conditions, entropy = self._with.conditions, self._with.entropy
        while True:
            before = conditions.newest.asleep
            await self._with.clock.sleep(LOOK_INTERVAL * (0.75 + 0.5 * entropy.uniform()))
            now = (await conditions.look()).asleep
            if before and not now:
                self._come_back()
            if self._task is None:
                self._show_free()

    async def _rest_long_enough(self) -> None:
        """Ends when the agent has been in a round, and then in none for `renew_seconds`."""
        clock, rest = self._with.clock, self._renew_seconds
        while self._last_round is None or clock.now() < self._last_round + rest or self._task:
            await clock.sleep(min(LOOK_INTERVAL, rest))

    def _show_free(self) -> None:
        """What it does while it takes part in nothing."""
        conditions = self._with.conditions.newest
        if conditions.asleep:
            self._show("sleeping", conditions.asleep)
        else:
            self._show("idle", self._last_reason or conditions.remarks)

    # Offering.

    async def _offer_again_and_again(self) -> None:
        clock = self._with.clock
        while True:
            self._offer_moved.clear()
            wait = max(self._offer_due, self._rest_until) - clock.now()
            if wait > 0:
                await happens(self._offer_moved, wait, clock)
                continue
            self._offer_due = Seconds(
                clock.now() + until_next(self._with.pace.interval, self._with.entropy.uniform())
            )
            # Also while it takes part: a coordinator restarted in a round learns of its devices only so.
            if self._task is not None or not self._with.conditions.newest.asleep:
                await self._offer()

    async def _offer(self) -> None:
        offer = Offer(
            boot=self._with.memory.boot,
            seen=self._with.memory.seen,
            facts=self._with.conditions.newest.facts,
            engines=self._with.engines,
        )
        if self._task is None:
            self._show_free()
        topic = self._with.topics.offer(self._with.device)
        try:
            await self._with.transport.publish(topic, seal_frame(self._with.identity, offer))
        except TransportError as error:
            _log.warning("not_offered", cause=str(error))

    def _come_back(self) -> None:
        """Offer soon, but not all devices of a large fleet at once."""
        self._offer_within(self._until_return())

    def _pace_changed(self) -> None:
        """Begin anew at a random moment of the new interval."""
        self._offer_due = Seconds(self._with.clock.now() + self._with.pace.interval)
        self._offer_within(self._with.pace.interval * self._with.entropy.uniform())

    def _until_return(self) -> float:
        return until_return(self._with.pace.interval, self._with.entropy.uniform())

    def _offer_within(self, seconds: float) -> None:
        self._offer_due = Seconds(min(self._offer_due, self._with.clock.now() + seconds))
        self._offer_moved.set()

    def _connection_changed(self, connected: bool) -> None:  # noqa: FBT001 - the transport's listener
        if not connected:
            return
        self._come_back()
        if self._participation is not None:
            self._participation.reconnected()

    def _coordinator_changed(self, delivery: Delivery) -> None:
        """Information only: a coordinator that has just come online makes the agent offer sooner."""
        with contextlib.suppress(PeerError):
            status = decode_status(delivery.payload, CoordinatorStatus)
            before, self._coordinator = self._coordinator, (status.state, status.epoch)
            if status.state == "online" and self._coordinator != before:
                self._come_back()

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
        self._task.add_done_callback(self._rested)

    def _prepare(self, invitation: Opened[Manifest]) -> "Participation":
        # ruff: noqa: PLC0415 (the first invitation brings in numpy and all that a round needs)
        from device_agent.participation import Participation, stance_of
        from protocol.device_checks import DeviceContext

        conditions = self._with.conditions.newest
        context = DeviceContext(
            own=self._with.device,
            trust=self._with.trust,
            min_cohort=self._with.settings.floors.min_cohort,
            corrupt_fraction=self._with.settings.floors.corrupt_fraction,
            facts=conditions.facts,
            started=self._with.clock.unix(),
            min_enrolled_age=self._with.settings.floors.min_enrolled_age,
            privacy=stance_of(self._with),
            asleep=conditions.asleep,
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
        self._last_round = self._with.clock.now()
        round_ = participation.round
        self._rest_until = Seconds(self._with.clock.now() + round_.retry_after)
        self._last_reason = f"declined: {round_.reason}" if round_.stage is Stage.LEFT else round_.reason
        self._show_free()
        if round_.reason:
            self._offer_within(0.0)

    async def _leave(self, reason: str) -> None:
        if self._participation is not None:
            self._participation.leave(reason)
        task = self._task
        if task is not None:
            await asyncio.wait({task}, timeout=LEAVE_SECONDS)
            task.cancel()

    def _show(self, state: DeviceState, why: str) -> None:
        status = DeviceStatus(state, why[:MAX_REASON], self._with.memory.boot)
        self._with.board.show(self._with.topics.device_status(self._with.device), status)


def _give_back(_round: object) -> None:
    asyncio.get_running_loop().run_in_executor(None, give_back)


def _report(task: asyncio.Task[None]) -> None:
    """A bug in one round must be seen, and must not keep the device from the next one."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("round_failed", exc_info=task.exception())
