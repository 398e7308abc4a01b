"""A broker without sockets, clock or chance: for tests and for the fault simulator.

It keeps what a real broker keeps (retained messages, persistent sessions and what waits for them, wills)
and loses what a real one loses when it is restarted without its state. Every delivery is one turn of the
event loop, in order for each client, so a test that runs twice runs the same way. QoS is ignored: nothing
is lost unless a test says so. Connections break and come back only by `drop`, `resume` and `restart`.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from broker.routing import Router, check_filter, check_topic, matches
from broker.transport import (
    MAX_PAYLOAD,
    ConnectionListener,
    Delivery,
    Handler,
    Payload,
    TransportError,
    Will,
)
from protocol.errors import MisuseError


@dataclass(eq=False)
class _Session:
    """What the broker knows of one client, also while it is away."""

    client_id: str
    clean: bool
    filters: dict[str, None] = field(default_factory=dict)
    waiting: deque[Delivery] = field(default_factory=deque)
    transport: "MemoryTransport | None" = None


class MemoryBroker:
    """The broker of one test.

    Args:
        max_payload: larger publishes are refused, in bytes.
    """

    def __init__(self, *, max_payload: int = MAX_PAYLOAD) -> None:
        self.max_payload = max_payload
        self.retained: dict[str, bytes] = {}
        self._sessions: dict[str, _Session] = {}
        self._routes: Router[_Session] = Router()

    def connect(self, client_id: str, will: Will | None = None, *, clean: bool = False) -> "MemoryTransport":
        """A client; it connects when its context is entered.

        Args:
            client_id: a second client of the same name pushes the first one out.
            will: published, retained, when the connection is dropped.
            clean: forget the subscriptions, and what waits for them, when the connection ends.
        """
        return MemoryTransport(self, client_id, will, clean=clean)

    def drop(self, client_id: str) -> None:
        """Breaks a client's connection; its will is published.

        Raises:
            MisuseError: it is not connected.
        """
        transport = self._transport(client_id)
        self._detach(transport)
        if transport.will is not None:
            self.publish(transport.will.topic, transport.will.payload, retain=True)

    def resume(self, transport: "MemoryTransport") -> None:
        """Lets a dropped client reconnect, as a real one does by itself."""
        self._attach(transport)

    def restart(self, *, keep_state: bool) -> None:
        """Breaks all connections at once, without wills; all come back on the loop's next turn.

        Args:
            keep_state: False forgets retained messages, sessions and everything on its way.
        """
        transports = [session.transport for session in self._sessions.values() if session.transport]
        for transport in transports:
            self._detach(transport)
        if not keep_state:
            self.retained.clear()
            self._sessions.clear()
            self._routes = Router()
        for transport in transports:
            asyncio.get_running_loop().call_soon(self._come_back, transport)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publishes as nobody in particular: what a test or a fault injector says."""
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for session in self._routes.matching(topic):
            self._send(session, Delivery(topic, payload, retained=False))

    def clients(self) -> Iterator[str]:
        """Names of the clients that are connected."""
        return (session.client_id for session in self._sessions.values() if session.transport)

    # What transports call.

    def _attach(self, transport: "MemoryTransport") -> None:
        known = self._sessions.get(transport.client_id)
        if known is not None and known.transport is not None:
            self.drop(transport.client_id)
        session = self._sessions.setdefault(
            transport.client_id, _Session(transport.client_id, transport.clean)
        )
        session.transport = transport
        for _ in session.waiting:
            self._deliver_soon(session)
        transport._connection_made()  # noqa: SLF001 (two halves of one thing)

    def _detach(self, transport: "MemoryTransport") -> None:
        session = self._sessions[transport.client_id]
        session.transport = None
        if transport.clean:
            for topic_filter in session.filters:
                self._routes.remove(topic_filter, session)
            del self._sessions[transport.client_id]
        transport._connection_lost()  # noqa: SLF001

    def _come_back(self, transport: "MemoryTransport") -> None:
        if transport.wanted and not transport.connected:
            self._attach(transport)

    def _subscribe(self, client_id: str, topic_filter: str) -> None:
        session = self._sessions[client_id]
        if topic_filter not in session.filters:
            session.filters[topic_filter] = None
            self._routes.add(topic_filter, session)
        for topic, payload in self.retained.items():
            if matches(topic_filter, topic):
                self._send(session, Delivery(topic, payload, retained=True))

    def _unsubscribe(self, client_id: str, topic_filter: str) -> None:
        session = self._sessions.get(client_id)
        if session is not None and topic_filter in session.filters:
            del session.filters[topic_filter]
            self._routes.remove(topic_filter, session)

    def _send(self, session: _Session, delivery: Delivery) -> None:
        if session.transport is not None or not session.clean:
            session.waiting.append(delivery)
            self._deliver_soon(session)

    def _deliver_soon(self, session: _Session) -> None:
        asyncio.get_running_loop().call_soon(self._deliver_next, session)

    def _deliver_next(self, session: _Session) -> None:
        # One turn for each message; a turn without a connection leaves the message waiting, and turns
        # left over from before a reconnect find nothing to do.
        if session.transport is not None and session.waiting:
            session.transport._receive(session.waiting.popleft())  # noqa: SLF001

    def _transport(self, client_id: str) -> "MemoryTransport":
        session = self._sessions.get(client_id)
        if session is None or session.transport is None:
            raise MisuseError(f"{client_id} is not connected")
        return session.transport


class MemoryTransport:
    """A client of a `MemoryBroker`; see `broker.transport` for what it promises."""

    def __init__(self, broker: MemoryBroker, client_id: str, will: Will | None, *, clean: bool) -> None:
        self.client_id = client_id
        self.will = will
        self.clean = clean
        self.wanted = False
        self._broker = broker
        self._connected = False
        self._routes: Router[_MemorySubscription] = Router()
        self._filters: dict[str, int] = {}
        self._state: dict[str, bytes] = {}
        self._listeners: list[ConnectionListener] = []

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False, expiry: float | None = None
    ) -> None:
        """See `Transport.publish`; fails at once when there is no connection, and nothing ever expires."""
        del qos
        check_topic(topic)
        if len(payload) > self._broker.max_payload:
            raise MisuseError(f"{len(payload)} bytes exceed the limit of {self._broker.max_payload}")
        content = bytes(payload)
        if retain and expiry is None:
            self._remember(topic, content)
        if not self._connected:
            raise TransportError(f"{self.client_id} has no connection to the broker")
        self._broker.publish(topic, content, retain=retain)

    async def subscribe(self, filter: str, handler: Handler, *, qos: int = 1) -> "_MemorySubscription":  # noqa: A002
        """See `Transport.subscribe`; fails at once when there is no connection."""
        del qos
        check_filter(filter)
        if self.wanted and not self._connected:
            raise TransportError(f"{self.client_id} has no connection to the broker")
        subscription = _MemorySubscription(self, filter, handler)
        self._routes.add(filter, subscription)
        self._filters[filter] = self._filters.get(filter, 0) + 1
        if self._connected:
            self._broker._subscribe(self.client_id, filter)  # noqa: SLF001
        return subscription

    def on_connection(self, listener: ConnectionListener) -> None:
        """See `Transport.on_connection`."""
        self._listeners.append(listener)
        if self._connected:
            asyncio.get_running_loop().call_soon(listener, True)  # noqa: FBT003 (the listener's only argument)

    async def __aenter__(self) -> Self:
        self.wanted = True
        self._broker._attach(self)  # noqa: SLF001
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wanted = False
        if self._connected:
            self._broker._detach(self)  # noqa: SLF001

    def _remember(self, topic: str, payload: bytes) -> None:
        if payload:
            self._state[topic] = payload
        else:
            self._state.pop(topic, None)

    def _cancel(self, subscription: "_MemorySubscription") -> None:
        self._routes.remove(subscription.filter, subscription)
        self._filters[subscription.filter] -= 1
        if not self._filters[subscription.filter]:
            del self._filters[subscription.filter]
            self._broker._unsubscribe(self.client_id, subscription.filter)  # noqa: SLF001

    # What the broker calls.

    def _connection_made(self) -> None:
        self._connected = True
        for topic_filter in self._filters:
            self._broker._subscribe(self.client_id, topic_filter)  # noqa: SLF001
        for topic, payload in tuple(self._state.items()):
            self._broker.publish(topic, payload, retain=True)
        self._tell(connected=True)

    def _connection_lost(self) -> None:
        self._connected = False
        self._tell(connected=False)

    def _tell(self, *, connected: bool) -> None:
        for listener in tuple(self._listeners):
            listener(connected)

    def _receive(self, delivery: Delivery) -> None:
        for subscription in self._routes.matching(delivery.topic):
            if subscription.active:
                subscription.handler(delivery)


@dataclass(eq=False)
class _MemorySubscription:
    transport: MemoryTransport
    filter: str
    handler: Handler
    active: bool = True

    async def cancel(self) -> None:
        """See `Subscription.cancel`."""
        if self.active:
            self.active = False
            self.transport._cancel(self)  # noqa: SLF001
