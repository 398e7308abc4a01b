"""The broker and everyone's way to it: latency, and the faults that a schedule asks for.

A message is at the broker when it is published and takes its time from there. Without faults the messages for
one client arrive in order. A connection that breaks comes back by itself once its way is free.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Self

from broker.memory import MemoryBroker, MemoryTransport, _MemorySubscription, _Session
from broker.transport import Delivery, Handler, Payload, TransportError, Will
from simulator.loop import Incarnation, VirtualLoop
from simulator.operations import COMING_BACK, Noise

PATIENCE = 10.0
"""Seconds a publish or a subscription waits for a connection or an answer."""

ANSWERED_LATER = 0.5
"""Part of the publishes whose answer takes a hop; the others return at once."""

UNACKNOWLEDGED = 6
"""Most deliveries that a killed client had received and not acknowledged."""

KEEPALIVES = 45.0
"""Seconds after which both ends notice a half-open connection."""

REMEMBERED = 64
"""Deliveries of one client that may be replayed."""

Say = Callable[["SimulatedTransport", str, bytes], list[bytes] | None]
"""(client, topic, payload) → what is published instead, or None for the same."""

Lie = Callable[[str, Delivery], list[Delivery]]
"""(client, message) → what arrives instead."""

Note = Callable[..., None]


class Network(MemoryBroker):
    """One broker, and a way to it for each client.

    Args:
        loop: of everything.
        seed: of latencies.
        latency: typical virtual seconds of a hop.
        say: is asked about every message that a client publishes, before it is published.
        note: keeps the event log.
        fault: likewise, and counts.
    """

    def __init__(
        self, loop: VirtualLoop, seed: int, latency: float, *, say: Say, note: Note, fault: Note
    ) -> None:
        super().__init__()
        self.loop = loop
        self.say = say
        self.note = note
        self.fault = fault
        self.lie: Lie = lambda _client, delivery: [delivery]
        self.up = True
        self.noises: list[tuple[Noise, random.Random]] = []
        self._own = Context()
        self._random = random.Random(f"{seed}/network")
        self._latency = latency
        self._cut: set[str] = set()
        self._half_open: set[str] = set()
        self._arrivals: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._past: dict[str, deque[Delivery]] = {}
        self._seeking: list[SimulatedTransport] = []
        self._stuck: dict[str, list[Callable[[], None]]] = {}

    def client(self, name: str, will: Will, incarnation: Incarnation) -> "SimulatedTransport":
        """A client for one incarnation of an actor."""
        return SimulatedTransport(self, name, will, incarnation)

    def hop(self) -> float:
        """Seconds that a message takes this time."""
        return self._latency * (0.2 + 1.6 * self._random.random())

    def _later(self, seconds: float, act: Callable[..., object], *details: object) -> None:
        """What the network does outlives whoever is the cause of it."""
        self.loop.call_later(seconds, act, *details, context=self._own)

    def takes_time(self) -> bool:
        """Whether the broker's answer to a publish comes later."""
        return self._random.random() < ANSWERED_LATER

    # Ways to the broker.

    def reaches(self, client: str) -> bool:
        """Whether a client's packets come through."""
        return self.up and client not in self._cut and client not in self._half_open

    def cut(self, client: str, *, half_open: bool) -> None:
        """Break a client's way until `heal`; the broker says its will when it notices."""
        if not half_open:
            self._cut.add(client)
            self._lose(client)
            return
        self._half_open.add(client)
        self._later(KEEPALIVES, self._notice, client)

    def heal(self, client: str) -> None:
        """Free a client's way; a half-open connection that nobody noticed goes on."""
        self._cut.discard(client)
        self._half_open.discard(client)
        for send in self._stuck.pop(client, ()):
            send()
        session = self._sessions.get(client)
        if session is not None and session.transport is not None:
            self._deliver_all(session)
        self._let_in()

    def vanish(self, transport: "SimulatedTransport", *, silent: bool) -> None:
        """The process behind a client was killed; its machine says so, or nobody does.

        What it had received last may not have been acknowledged: the broker delivers it again.
        """
        session = self._sessions.get(transport.client_id)
        if session is not None and session.transport is transport:
            again = list(self._past.get(transport.client_id, ()))[-self._random.randint(1, UNACKNOWLEDGED) :]
            session.waiting.extendleft(reversed(again if self._random.random() < 0.5 else []))
        self._later(KEEPALIVES if silent else self.hop(), self._forget, transport)

    def kill(self) -> None:
        """The broker dies; every connection breaks, no will is said."""
        self.up = False
        for session in list(self._sessions.values()):
            if session.transport is not None:
                self._detach(session.transport)

    def revive(self, *, keep_state: bool) -> None:
        """The broker comes back."""
        if not keep_state:
            self.restart(keep_state=False)
        self.up = True
        self._let_in()

    def _notice(self, client: str) -> None:
        if client in self._half_open:
            self._lose(client)

    def _forget(self, transport: "SimulatedTransport") -> None:
        session = self._sessions.get(transport.client_id)
        if session is not None and session.transport is transport:
            self.drop(transport.client_id)

    def _lose(self, client: str) -> None:
        session = self._sessions.get(client)
        if session is not None and session.transport is not None:
            self.drop(client)

    def _detach(self, transport: MemoryTransport) -> None:
        super()._detach(transport)
        self._stuck.pop(transport.client_id, None)
        if transport.wanted and isinstance(transport, SimulatedTransport):
            self.seek(transport)

    def seek(self, transport: "SimulatedTransport") -> None:
        """Connect a client as soon as its way is free."""
        self._seeking.append(transport)
        self._let_in()

    def _let_in(self) -> None:
        seeking, self._seeking = self._seeking, []
        for transport in seeking:
            if self.reaches(transport.client_id):
                self._later(0.1 + (COMING_BACK - 0.1) * self._random.random(), self._admit, transport)
            else:
                self._seeking.append(transport)

    def _admit(self, transport: "SimulatedTransport") -> None:
        if not transport.incarnation.alive or not transport.wanted or transport.connected:
            return
        if not self.reaches(transport.client_id):
            self._seeking.append(transport)
            return
        self.note("connects", transport.incarnation.actor)
        self._attach(transport)

    # Messages.

    def hand_over(self, transport: "SimulatedTransport", topic: str, payload: bytes, *, retain: bool) -> bool:
        """Take a message from a client; whether it may believe that the broker has it."""
        instead = self.say(transport, topic, payload)
        fate = self._fate(transport.client_id, ("lost_ack", "false_ack"))
        for content in [payload] if instead is None else instead:
            if fate != "false_ack":
                self.publish(topic, content, retain=retain)
        return fate != "lost_ack"

    def hold_back(self, client: str, send: Callable[[], None]) -> None:
        """Keep what a client sends into a half-open connection; it arrives if the connection goes on."""
        self._stuck.setdefault(client, []).append(send)

    def _fate(self, client: str, kinds: tuple[str, ...]) -> str:
        now = self.loop.time()
        for noise, chance in self.noises:
            concerned = noise.kind in kinds and noise.client in {"", client}
            if concerned and noise.start <= now < noise.end and chance.random() < noise.rate:
                self.fault(noise.kind, client)
                return noise.kind
        return ""

    def _send(self, session: _Session, delivery: Delivery) -> None:
        for told in self.lie(session.client_id, delivery):
            self._pass_on(session, told)

    def _pass_on(self, session: _Session, delivery: Delivery) -> None:
        match self._fate(session.client_id, ("drop", "duplicate", "delay", "reorder", "corrupt")):
            case "drop":
                return
            case "duplicate":
                super()._send(session, delivery)
            case "delay":
                self._held[session.client_id] = self.loop.time() + 20.0 * self._random.random()
            case "reorder":
                self._later(5.0 * self._random.random(), super()._send, session, delivery)
                return
            case "corrupt":
                delivery = self._corrupted(delivery)
        super()._send(session, delivery)

    def _corrupted(self, delivery: Delivery) -> Delivery:
        if not delivery.payload:
            return delivery
        payload = bytearray(delivery.payload)
        payload[self._random.randrange(len(payload))] ^= 1 << self._random.randrange(8)
        return Delivery(delivery.topic, bytes(payload), delivery.retained)

    def _deliver_soon(self, session: _Session) -> None:
        client = session.client_id
        due = max(self.loop.time() + self.hop(), self._held.get(client, 0.0))
        due = max(due, self._arrivals.get(client, 0.0) + 1e-6)
        self._arrivals[client] = due
        self.loop.call_at(due, self._deliver_next, session, context=self._own)

    def _deliver_next(self, session: _Session) -> None:
        transport = session.transport
        if not isinstance(transport, SimulatedTransport) or not session.waiting:
            return
        # What a dead or unreachable client did not acknowledge waits for it.
        if transport.incarnation.alive and self.reaches(session.client_id):
            self._hand_out(transport, session.waiting.popleft())

    def _hand_out(self, transport: "SimulatedTransport", delivery: Delivery) -> None:
        self._past.setdefault(transport.client_id, deque(maxlen=REMEMBERED)).append(delivery)
        self.note("receives", transport.incarnation.actor, delivery.topic, delivery.payload)
        self.loop.enter(transport.incarnation, transport.context, transport._receive, delivery)

    def _deliver_all(self, session: _Session) -> None:
        for _ in session.waiting:
            self._deliver_soon(session)

    def replay(self, client: str, count: int, chance: random.Random) -> None:
        """Deliver some of what a client has received before once more."""
        session, past = self._sessions.get(client), list(self._past.get(client, ()))
        if session is not None and past:
            for _ in range(count):
                super()._send(session, chance.choice(past))

    def everyone(self) -> Iterator[str]:
        """Clients that the broker knows."""
        return iter(self._sessions)


class SimulatedTransport(MemoryTransport):
    """A client of the network; see `broker.transport` for what it promises."""

    def __init__(self, network: Network, name: str, will: Will, incarnation: Incarnation) -> None:
        super().__init__(network, name, will, clean=False)
        self.incarnation = incarnation
        self.context: Context = copy_context()
        self._network = network
        self._waiters: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self.wanted = True
        self.context = copy_context()
        self._network.seek(self)
        while not self._connected:
            await self._connection()
        return self

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False, expiry: float | None = None
    ) -> None:
        """See `Transport.publish`."""
        del qos
        content = bytes(payload)
        if retain and expiry is None:
            self._remember(topic, content)
        await self._connected_soon()
        if self._network.reaches(self.client_id):
            acknowledged = self._network.hand_over(self, topic, content, retain=retain)
        else:
            acknowledged = await self._held_back(topic, content, retain=retain)
        if self._network.takes_time():
            await asyncio.sleep(self._network.hop())
        if not acknowledged or not self._connected:
            raise TransportError(f"{self.client_id} lost the connection before the broker's answer")

    async def _held_back(self, topic: str, content: bytes, *, retain: bool) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def send() -> None:
            acknowledged = self._network.hand_over(self, topic, content, retain=retain)
            if not answer.done():
                answer.set_result(acknowledged)

        self._network.hold_back(self.client_id, send)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise TransportError(f"{self.client_id} has no answer from the broker") from None

    async def subscribe(self, filter: str, handler: Handler, *, qos: int = 1) -> _MemorySubscription:  # noqa: A002
        """See `Transport.subscribe`."""
        if self.wanted:
            await self._connected_soon()
        return await super().subscribe(filter, handler, qos=qos)

    async def _connected_soon(self) -> None:
        if not self._connected:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._connection()
            except TimeoutError:
                raise TransportError(f"{self.client_id} has no connection to the broker") from None

    async def _connection(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _connection_made(self) -> None:
        self._network.loop.enter(self.incarnation, self.context, super()._connection_made)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _connection_lost(self) -> None:
        self._connected = False
        self._network.loop.enter(self.incarnation, self.context, super()._connection_lost)
