"""Ending another client's session by MQTT's own rule: a client id has one connection, the newest.

A broker must disconnect whoever held the client id before (section 3.1.4 of MQTT 3.1.1 and of 5), and a clean
start drops what it had subscribed and what waits for it.
"""

from dataclasses import replace

import aiomqtt

from broker.mqtt_connection import Connector, MqttSettings, cause
from broker.transport import TransportError


async def take_over(settings: MqttSettings) -> None:
    """Connect once under the client id, and leave.

    Args:
        settings: the session to end, and the broker, or several of which the first that answers is taken.

    Raises:
        TransportError: no broker let us in.
    """
    connector = Connector(replace(settings, clean=True, will=None), lambda _delivery: None)
    causes = list[str]()
    for address in settings.addresses:
        try:
            connection = await connector.connect(address)
            await connection.client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, TransportError) as error:
            causes.append(cause(error) if isinstance(error, aiomqtt.MqttError) else str(error))
        else:
            return
    raise TransportError(f"{settings.client_id}'s session was not ended: {'; '.join(causes)}")
