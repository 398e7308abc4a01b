"""Listening to a fleet's status topics."""

import contextlib
from collections.abc import AsyncIterator, Callable

from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Delivery, Transport
from console.fleet_view import FleetView, News
from protocol.topics import Topics
from runtime.clock import SystemClock
from runtime.config import BrokerSettings
from runtime.entropy import SystemEntropy
from runtime.identity import Identity, client_tls


@contextlib.asynccontextmanager
async def listening(
    transport: Transport, fleet: str, view: FleetView, told: Callable[[News], None]
) -> AsyncIterator[None]:
    """Keep a view true while the context is open.

    Args:
        transport: not entered yet.
        fleet: its name.
        view: empty.
        told: called after the view has changed.

    Raises:
        TransportError: the broker refuses this client, or the topics.
    """

    def arrived(delivery: Delivery) -> None:
        news = view.receive(delivery.topic, delivery.payload)
        if news is not None:
            told(news)

    await transport.subscribe(Topics(fleet).everything_for_people, arrived)
    async with transport:
        yield


def watching_transport(broker: BrokerSettings, identity: Identity | None = None) -> MqttTransport:
    """A client that nobody remembers when it is gone.

    Args:
        broker: how to reach it.
        identity: a watcher's, for a broker that wants certificates; None is a login, or nobody.

    Raises:
        IdentityError: the certificate, or the authorities of the broker's, cannot be used.
    """
    entropy = SystemEntropy()
    settings = MqttSettings(
        addresses=broker.addresses,
        client_id=identity.name if identity else f"watch-{entropy.bytes(8).hex()}",
        clean=True,
        session_expiry=0,
        keepalive=broker.keepalive,
        tls=client_tls(identity, broker.authorities) if identity else None,
    )
    return MqttTransport(settings, sleep=SystemClock().sleep, uniform=entropy.uniform)
