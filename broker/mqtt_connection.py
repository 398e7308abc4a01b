"""Making one MQTT connection: settings, versions, refusals and what they mean.

MQTT 5 is tried first and given up for 3.1.1 where the broker does not speak it. Each attempt is a fresh
client: a client of paho that is used again would resend what it had queued.
"""

import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.address import BrokerAddress
from broker.mqtt_packets import LeanClient
from broker.transport import MAX_PACKET, MAX_PAYLOAD, Delivery, RefusedError, Will

# What an exchange with the broker may take, in seconds, besides the time of its bytes.
PATIENCE = 10.0
# What the broker may send before we acknowledge; equal to max_inflight_messages in mosquitto.conf.
RECEIVE_MAXIMUM = 20

_UNSUPPORTED_VERSION = 132
_REFUSALS = {
    133: "it does not accept this client id; choose another name",
    134: "user name or password is wrong; correct the broker's address in the settings",
    135: "this user may not connect; correct user and password, or the broker's access rules",
    138: "this client is banned; ask the broker's operator",
    140: "it wants another kind of login; use user and password or a certificate",
}
_HUNG_UP = (
    "it hung up without an answer; where certificates are wanted, this one may have expired or been revoked, "
    "or the broker's revocation lists have expired: its log says which"
)
_FAILED = 128  # this SUBACK code tells no reason; those from here on are denials

# The client's own reports say what ours say, without the cause.
_client_logger = logging.getLogger(f"{__name__}.client")
_client_logger.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach the broker, and as whom.

    Attributes:
        addresses: brokers, tried in turn.
        client_id: unique in the fleet; a second connection of the same name pushes the first one out.
        will: what the broker says when we vanish.
        clean: forget the session when the connection ends.
        session_expiry: seconds for which a broker keeps the session of a client that is away (MQTT 5).
        keepalive: seconds, from 3; a connection that died in silence is noticed within one and a half times
            as many, by us and by the broker.
        tls: for `mqtts://`; the system's authorities when None.
        max_payload: larger publishes are refused before they make the broker hang up, in bytes.
    """

    addresses: tuple[BrokerAddress, ...]
    client_id: str
    will: Will | None = None
    clean: bool = False
    session_expiry: int = 7 * 24 * 3600
    keepalive: int = 30
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    max_payload: int = MAX_PAYLOAD


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that is connected, and whether by MQTT 5."""

    client: aiomqtt.Client
    modern: bool


class Connector:
    """Connects with fresh clients and remembers which brokers do not speak MQTT 5.

    Args:
        settings: how to reach the brokers.
        receive: called with each message while the socket is read; must not block or fail.
    """

    def __init__(self, settings: MqttSettings, receive: Callable[[Delivery], None]) -> None:
        self._settings = settings
        self._receive = receive
        self._old_brokers: set[BrokerAddress] = set()

    async def connect(self, address: BrokerAddress) -> Connection:
        """One attempt.

        Raises:
            RefusedError: the broker answered and refused, for a reason that will still be there next time.
            MqttError: anything else; worth another attempt.
        """
        client = self._fresh_client(address)
        try:
            await client.__aenter__()
        except MqttConnectError as error:
            code = number(error.rc)
            if code == _UNSUPPORTED_VERSION and address not in self._old_brokers:
                self._old_brokers.add(address)
                return await self.connect(address)
            if code in _REFUSALS:
                raise RefusedError(f"{address} refuses the connection: {_REFUSALS[code]}") from None
            raise
        except BaseException:
            # An attempt that was given up has an open socket; saying goodbye is what closes it.
            client._client.disconnect()  # noqa: SLF001 (aiomqtt offers no other way)
            raise
        return Connection(client, modern=address not in self._old_brokers)

    def _fresh_client(self, address: BrokerAddress) -> aiomqtt.Client:
        settings = self._settings
        client = aiomqtt.Client(
            address.host,
            address.port,
            identifier=settings.client_id,
            username=address.user,
            password=address.password,
            will=_will(settings.will),
            keepalive=ping_interval(settings.keepalive),
            timeout=PATIENCE,
            tls_context=(settings.tls or ssl.create_default_context()) if address.tls else None,
            # Without it a request and its answer take 88 ms instead of 1.3.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_client_logger,
            **self._session(address),
        )
        client.pending_calls_threshold = 1 << 30  # many publishes at once are normal here
        LeanClient.adopt(client._client, self._receive)  # noqa: SLF001 (aiomqtt builds it itself)
        _notice_hanging_up(client)
        return client

    def _session(self, address: BrokerAddress) -> dict[str, Any]:
        if address in self._old_brokers:
            return {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": self._settings.clean}
        options = properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=0 if self._settings.clean else self._settings.session_expiry,
            ReceiveMaximum=RECEIVE_MAXIMUM,
            MaximumPacketSize=MAX_PACKET,
        )
        return {
            "protocol": aiomqtt.ProtocolVersion.V5,
            "clean_start": self._settings.clean,
            "properties": options,
        }


def _notice_hanging_up(client: aiomqtt.Client) -> None:
    """An attempt ends when the broker hangs up; aiomqtt would go on to wait for its answer.

    By TLS 1.3 a client has connected before its certificate is judged: this is how a refusal looks.
    """
    inner, connected = client._client, client._connected  # noqa: SLF001 (aiomqtt offers no other way)
    told = inner.on_disconnect

    def disconnected(*arguments: Any) -> None:
        if not connected.done():
            connected.set_exception(aiomqtt.MqttError(_HUNG_UP))
            connected.exception()  # an attempt that was given up asks no more
        if told is not None:
            told(*arguments)

    inner.on_disconnect = disconnected


def ping_interval(keepalive: int) -> int:
    """What paho is told, so that a dead connection is noticed within 1.5 keepalives, in seconds.

    It asks after one interval of silence and waits another for the answer; aiomqtt has it look once a second,
    which may come a second late each time. A broker waits for 1.5 intervals (MQTT 5, section 3.1.2.10), and
    Mosquitto looks every five seconds.
    """
    return max(1, keepalive * 3 // 4 - 1)


def properties(packet_type: int, **values: int) -> Properties:
    """Properties of an MQTT 5 packet (section 2.2.2)."""
    bag = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho types all but this
    for name, value in values.items():
        setattr(bag, name, value)
    return bag


def denials(codes: tuple[int, ...] | list[ReasonCode]) -> list[bool]:
    """Which filters of a SUBSCRIBE the broker denied, by a reason that will still be there next time."""
    return [number(code) > _FAILED for code in codes]


def failures(codes: tuple[int, ...] | list[ReasonCode]) -> list[bool]:
    """Which filters of a SUBSCRIBE the broker did not grant, without a reason."""
    return [number(code) == _FAILED for code in codes]


def number(code: int | ReasonCode | None) -> int:
    """A reason code as the number that the standard prints."""
    return code.value if isinstance(code, ReasonCode) else code or 0


def cause(error: aiomqtt.MqttError) -> str:
    """An error of aiomqtt in words; some have none of their own."""
    return str(error) or type(error).__name__


def _will(will: Will | None) -> aiomqtt.Will | None:
    return None if will is None else aiomqtt.Will(will.topic, will.payload, qos=1, retain=True)
