"""From settings to a transport: what both programs build the same way."""

from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Will
from protocol.status import Status, encode_status
from runtime.clock import Clock
from runtime.config import BrokerSettings
from runtime.entropy import Entropy


def connect_mqtt(
    broker: BrokerSettings, *, name: str, will_topic: str, will: Status, clock: Clock, entropy: Entropy
) -> MqttTransport:
    """A transport that is not connected yet.

    Args:
        broker: where, and with which login.
        name: client id, the name of the certificate.
        will_topic: where the broker says `will` when we vanish.
        will: what it says.
        clock: time.
        entropy: jitter of reconnects.
    """
    settings = MqttSettings(
        addresses=broker.addresses,
        client_id=name,
        will=Will(will_topic, encode_status(will)),
        keepalive=broker.keepalive,
    )
    return MqttTransport(settings, sleep=clock.sleep, uniform=entropy.uniform)
