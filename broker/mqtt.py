"""The bus over MQTT: one supervised connection through aiomqtt.

One loop connects, renews the subscriptions, publishes the remembered state again, hands out what arrives,
and starts over when the connection is lost.

What keeps it from waiting for ever: every exchange has a time computed from the bytes that must leave
first; a loss ends all exchanges that are under way; a connection that died in silence ends
within one and a half keepalives.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.mqtt_connection import (
    PATIENCE,
    Connection,
    Connector,
    MqttSettings,
    cause,
    denials,
    failures,
    properties,
)
from broker.routing import Router, check_filter, check_topic
from broker.transport import (
    ConnectionListener,
    Delivery,
    Handler,
    Payload,
    RefusedError,
    TransportError,
)
from protocol.errors import MisuseError

__all__ = ["MqttSettings", "MqttTransport"]

# The slowest link that is still served, in bytes a second.
FLOOR_RATE = 16 * 1024
# A lost connection is tried again after up to a second, then up to two, four, … a minute.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0

# "Failure" (MQTT 3.1.1, section 3.9.3) is a denial, or a cluster that has no leader for some seconds.
SUBSCRIBE_ATTEMPTS = 3
SUBSCRIBE_AGAIN = 0.5

T = TypeVar("T")
_Codes = tuple[int, ...] | list[ReasonCode]

_log = structlog.get_logger(__name__)


class MqttTransport:
    """A client of MQTT brokers; see `broker.transport` for what it promises.

    Entering waits for the first connection, for as long as it takes: a broker that is not there yet is
    waited for.

    Args:
        settings: how to reach the broker.
        sleep: waits between attempts, in seconds.
        uniform: gives the jitter of these waits, in [0, 1).

    Raises:
        RefusedError: on entering, when the broker refuses this client.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        sleep: Callable[[float], Awaitable[None]],
        uniform: Callable[[], float],
    ) -> None:
        if not settings.addresses:
            raise MisuseError("a transport needs the address of a broker")
        self.settings = settings
        self._sleep = sleep
        self._uniform = uniform
        self._connection: Connection | None = None
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._connector = Connector(settings, self._dispatch)
        self._routes: Router[_MqttSubscription] = Router()
        self._filters: dict[str, list[int]] = {}
        self._stale: set[str] = set()
        self._state: dict[str, tuple[Payload, int]] = {}
        self._listeners: list[ConnectionListener] = []
        self._exchanges: set[asyncio.Timeout] = set()
        self._outgoing = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._connection is not None

    async def __aenter__(self) -> Self:
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        try:
            await self._first
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False, expiry: float | None = None
    ) -> None:
        """See `Transport.publish`. Waits for a connection within the time that the message has."""
        check_topic(topic)
        if len(payload) > self.settings.max_payload:
            raise MisuseError(f"{len(payload)} bytes exceed the limit of {self.settings.max_payload}")
        if retain and expiry is None:
            self._remember(topic, payload, qos)
        await self._exchange(
            lambda to: to.client.publish(
                topic, bytes(payload), qos, retain, _expiring(to, expiry), timeout=math.inf
            ),
            size=len(payload),
        )

    async def subscribe(self, filter: str, handler: Handler, *, qos: int = 1) -> "_MqttSubscription":  # noqa: A002 (MQTT's word)
        """See `Transport.subscribe`."""
        check_filter(filter)
        subscription = _MqttSubscription(self, filter, handler, qos)
        self._add(subscription)
        if self._task is None:
            return subscription
        try:
            denied = await self._ungranted(
                [(filter, qos)],
                lambda filters: self._exchange(lambda to: to.client.subscribe(filters, timeout=math.inf)),
            )
        except BaseException:
            await subscription.cancel()
            raise
        if denied:
            self._remove(subscription)
            raise RefusedError(f"the broker denies the subscription {filter}; correct its access rules")
        return subscription

    def on_connection(self, listener: ConnectionListener) -> None:
        """See `Transport.on_connection`."""
        self._listeners.append(listener)
        if self.connected:
            asyncio.get_running_loop().call_soon(listener, True)  # noqa: FBT003 (the listener's only argument)

    # The supervised loop.

    async def _run(self) -> None:
        attempt = 0
        while True:
            address = self.settings.addresses[attempt % len(self.settings.addresses)]
            try:
                connection = await self._connector.connect(address)
                attempt = 0
                await self._serve(connection)
            except RefusedError as error:
                if not self._started:
                    raise
                _log.error("broker_refuses", broker=str(address), cause=str(error))
            except aiomqtt.MqttError as error:
                _log.warning("broker_lost", broker=str(address), cause=cause(error))
            await self._sleep(self._uniform() * min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 10)))
            attempt += 1

    async def _serve(self, connection: Connection) -> None:
        """Uses a connection until it is lost.

        Raises:
            MqttError: that is how it always ends.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_loss(connection.client))
                group.create_task(self._renew(connection))
        except* aiomqtt.MqttError as losses:
            raise losses.exceptions[0] from None
        finally:
            self._lost()
            with contextlib.suppress(aiomqtt.MqttError):
                await connection.client.__aexit__(None, None, None)

    def _dispatch(self, delivery: Delivery) -> None:
        for subscription in self._routes.matching(delivery.topic):
            # On a turn of its own: a handler that fails is reported by the loop and stops nobody else.
            asyncio.get_running_loop().call_soon(subscription.deliver, delivery)

    async def _renew(self, connection: Connection) -> None:
        client = connection.client
        self._stale -= self._filters.keys()
        if stale := tuple(self._stale):
            await client.unsubscribe(list(stale))
            self._stale.difference_update(stale)
        filters = [(topic_filter, max(levels)) for topic_filter, levels in self._filters.items()]
        if filters and (denied := await self._ungranted(filters, client.subscribe)):
            _log.error("subscriptions_denied", filters=denied)
        self._connected(connection)
        for topic in tuple(self._state):
            if topic in self._state:
                payload, qos = self._state[topic]
                await client.publish(
                    topic, bytes(payload), qos, retain=True, timeout=self._time(len(payload))
                )

    def _connected(self, connection: Connection) -> None:
        self._connection = connection
        self._ready.set()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        self._tell(connected=True)

    def _lost(self) -> None:
        if self._connection is None:
            return
        self._connection = None
        self._ready.clear()
        now = asyncio.get_running_loop().time()
        for exchange in self._exchanges:
            if not exchange.expired():
                exchange.reschedule(now)
        self._tell(connected=False)

    def _tell(self, *, connected: bool) -> None:
        for listener in tuple(self._listeners):
            asyncio.get_running_loop().call_soon(listener, connected)

    @property
    def _started(self) -> bool:
        return self._first is not None and self._first.done()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._first is None:
            return
        error = task.exception()
        if error is not None and not self._first.done():
            self._first.set_exception(error)
        elif error is not None:
            context = {"message": "the connection's supervisor failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # Exchanges with the broker.

    async def _exchange(self, talk: Callable[[Connection], Coroutine[Any, Any, T]], size: int = 0) -> T:
        self._outgoing += size
        exchange = asyncio.timeout(self._time(self._outgoing))
        try:
            async with exchange:
                while self._connection is None:
                    await self._ready.wait()
                self._exchanges.add(exchange)
                return await talk(self._connection)
        except TimeoutError:
            reason = "no answer in time" if self.connected else "no connection"
            raise TransportError(f"the broker did not take it: {reason}") from None
        except aiomqtt.MqttError as error:
            raise TransportError(f"the broker did not take it: {cause(error)}") from None
        finally:
            self._outgoing -= size
            self._exchanges.discard(exchange)

    def _time(self, size: int) -> float:
        return PATIENCE + size / FLOOR_RATE

    def _remember(self, topic: str, payload: Payload, qos: int) -> None:
        if len(payload):
            self._state[topic] = payload, qos
        else:
            self._state.pop(topic, None)

    # Subscriptions.

    def _add(self, subscription: "_MqttSubscription") -> None:
        self._routes.add(subscription.filter, subscription)
        self._filters.setdefault(subscription.filter, []).append(subscription.qos)

    async def _ungranted(
        self, filters: list[tuple[str, int]], subscribe: Callable[[list[tuple[str, int]]], Awaitable[_Codes]]
    ) -> list[str]:
        """Subscribes; what the broker denies, or fails to grant again and again."""
        denied = list[str]()
        for attempt in range(SUBSCRIBE_ATTEMPTS):
            if attempt:
                await self._sleep(SUBSCRIBE_AGAIN)
            codes = await subscribe(filters)
            denied += [name for (name, _), bad in zip(filters, denials(codes), strict=False) if bad]
            filters = [one for one, failed in zip(filters, failures(codes), strict=False) if failed]
            if not filters:
                break
        return denied + [name for name, _ in filters]

    def _remove(self, subscription: "_MqttSubscription") -> bool:
        subscription.active = False
        self._routes.remove(subscription.filter, subscription)
        self._filters[subscription.filter].remove(subscription.qos)
        if self._filters[subscription.filter]:
            return False
        del self._filters[subscription.filter]
        return True

    async def _cancel(self, subscription: "_MqttSubscription") -> None:
        if not self._remove(subscription):
            return
        self._stale.add(subscription.filter)
        if self._connection is not None:
            with contextlib.suppress(TransportError):
                await self._exchange(lambda to: to.client.unsubscribe(subscription.filter, timeout=math.inf))
                self._stale.discard(subscription.filter)


@dataclass(eq=False, slots=True)
class _MqttSubscription:
    transport: MqttTransport
    filter: str
    handler: Handler
    qos: int
    active: bool = True

    async def cancel(self) -> None:
        """See `Subscription.cancel`."""
        if self.active:
            await self.transport._cancel(self)  # noqa: SLF001 (two halves of one thing)

    def deliver(self, delivery: Delivery) -> None:
        """Calls the handler unless the subscription has ended in the meantime."""
        if self.active:
            self.handler(delivery)


def _expiring(to: Connection, expiry: float | None) -> Properties | None:
    if expiry is None or not to.modern:
        return None
    return properties(PacketTypes.PUBLISH, MessageExpiryInterval=math.ceil(expiry))


async def _loss(client: aiomqtt.Client) -> None:
    """Ends with the connection, as MqttError; messages take another way (`_dispatch`)."""
    async for _ in client.messages:
        pass
