"""From settings to a transport: what both programs build the same way."""

from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Will
from protocol.status import Status, encode_status
from runtime.clock import Clock
from runtime.config import BrokerSettings
from runtime.entropy import Entropy
from runtime.identity import Identity, client_tls


def connect_mqtt(
    broker: BrokerSettings,
    *,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    will: tuple[str, Status] | None = None,
) -> MqttTransport:
    """A transport that is not connected yet.

    Args:
        broker: where, and with which login.
        identity: its name is the client id, and its certificate the login where the broker wants TLS.
        clock: time.
        entropy: jitter of reconnects.
        will: what the broker says when we vanish, and on which topic.

    Raises:
        IdentityError: the certificate, or the authorities of the broker's, cannot be used.
    """
    tls = any(address.tls for address in broker.addresses)
    settings = MqttSettings(
        addresses=broker.addresses,
        client_id=identity.name,
        will=Will(will[0], encode_status(will[1])) if will else None,
        keepalive=broker.keepalive,
        tls=client_tls(identity, broker.authorities) if tls else None,
    )
    return MqttTransport(settings, sleep=clock.sleep, uniform=entropy.uniform)
