"""The message bus as the programs see it, and what it promises.

The promise is small, because every broker keeps it:

- **A publish may be lost, duplicated, or overtaken** by a later one whenever a connection breaks. While
  a connection lasts, messages of one sender on one topic arrive in order.
- **A returned `publish` is not delivery.** The broker has the message; brokers drop what they
  acknowledged when a queue overflows or they are killed. Whoever needs an answer resends until it is
  acknowledged end to end, and every receiver acts once on what it gets twice.
- **Retained state is remembered by the transport** from the moment `publish` is called, whether or not it
  succeeds, and published again after every reconnect, so a broker that forgot it learns it anew. An empty
  retained payload clears and forgets. A retained message *with an expiry* is news, not state: the broker
  keeps it, the transport does not.
- **Subscriptions are renewed** after every reconnect, before listeners hear of the connection. Retained
  messages are then delivered again.
- **A handler sees each delivery of the broker once for each filter it subscribed that matches.** When the
  filters of one client overlap, a broker may deliver a message once for each of them, and each of these
  deliveries is a message of its own to every matching handler: a duplicate, as above.
- The **will** is published by the broker, retained, when the connection breaks without goodbye. Leaving the
  context in order is a goodbye: who wants to be seen leaving publishes that first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from protocol.errors import FedfleetError

# Twice the largest chunk; equal to max_packet_size in mosquitto.conf. Header and topic need room, too.
MAX_PACKET = 2 * 1024 * 1024
MAX_PAYLOAD = MAX_PACKET - 1024

Payload = bytes | memoryview


class TransportError(FedfleetError):
    """The broker could not be reached in time; the message may or may not have left."""


class RefusedError(TransportError):
    """The broker answered and refused; trying again without changing the settings will not help."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message from the broker.

    Attributes:
        topic: where it was published.
        payload: its bytes.
        retained: whether it was kept by the broker from before the subscription.
    """

    topic: str
    payload: bytes = field(repr=False)
    retained: bool


Handler = Callable[[Delivery], None]
"""Called on the event loop, in order of arrival; must not block."""

ConnectionListener = Callable[[bool], None]
"""Called on the event loop with True when connected and False when the connection is lost."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says, retained, when we vanish."""

    topic: str
    payload: bytes


class Subscription(Protocol):
    """A handler's standing order for a filter."""

    async def cancel(self) -> None:
        """Ends it: no call of the handler after this begins. Never fails; a second call does nothing."""


class Transport(Protocol):
    """A client of the bus. Use it as a context: entering waits for the first connection."""

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False, expiry: float | None = None
    ) -> None:
        """Hands a message to the broker.

        Args:
            topic: without wildcards.
            payload: at most the implementation's payload limit; empty and retained clears the topic.
            qos: 0 returns when the bytes are queued, 1 when the broker has acknowledged them.
            retain: the broker keeps it for later subscribers, and the transport remembers it.
            expiry: seconds after which a broker that can (MQTT 5) forgets it.

        Raises:
            TransportError: it was not handed over in time. How long that is belongs to the implementation.
            MisuseError: the topic has a wildcard or the payload exceeds the limit.
        """

    async def subscribe(self, filter: str, handler: Handler, *, qos: int = 1) -> Subscription:  # noqa: A002 (MQTT's word)
        """Has `handler` called with every message that matches `filter`, retained ones first.

        Before the context is entered this only takes note, and entering subscribes: the way not to miss what
        a persistent session kept while the program was down.

        Raises:
            TransportError: the broker did not confirm in time; there is no subscription.
            RefusedError: the broker denies it.
            MisuseError: this is not a filter.
        """

    def on_connection(self, listener: ConnectionListener) -> None:
        """Has `listener` told of every connection and loss; soon, if there is a connection already."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now, as far as is known."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
