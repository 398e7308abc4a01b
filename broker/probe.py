"""One connection to a broker, by hand: what `fedfleet doctor` looks at a broker with.

The transport hides what a broker says, because programs need not know. Here its answers are told as they
come, and nothing is tried twice. Blocking, one thread. What a session has kept for the program whose session
it is is not acknowledged, so that it is still there for that program.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.address import BrokerAddress
from broker.mqtt_connection import PATIENCE, MqttSettings, properties
from broker.transport import MAX_PACKET, Delivery, TransportError
from protocol.errors import MisuseError

DENIED = 128
"""Reason codes from here on are refusals (MQTT 5, section 2.4)."""

# The slowest link that is still waited for, in bytes a second.
_FLOOR_RATE = 16 * 1024
_TURN = 0.05
_UNSUPPORTED_VERSION = 132
_TAKEN_OVER = 142


class ProbeError(TransportError):
    """There is no connection, or no longer; the message is the broker's or the network's own reason."""


class TakenOverError(ProbeError):
    """Somebody else has connected under the same client id."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the broker said to our connection.

    Attributes:
        modern: MQTT 5; otherwise 3.1.1, which has none of the numbers below.
        session_present: it has kept what this client id subscribed before.
        keepalive: seconds, where the broker wants another one than was asked for.
        max_packet: the largest that it takes, in bytes; None is not told.
    """

    modern: bool
    session_present: bool
    keepalive: int | None = None
    max_packet: int | None = None


@dataclass(slots=True)
class _Heard:
    greeting: tuple[ConnectFlags, ReasonCode, Properties | None] | None = None
    codes: dict[int, int] = field(default_factory=dict)
    lost: ReasonCode | None = None
    messages: list[Delivery] = field(default_factory=list)


class _Client(Client):
    """paho's, without the socket that it leaves open when a handshake fails."""

    def _ssl_wrap_socket(self, tcp_sock: Any) -> Any:
        if self._ssl_context is None:
            raise MisuseError("TLS without a context")
        return self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host)


class Probe:
    """A connection; enter it to connect.

    Args:
        address: of the broker.
        settings: as the program would connect, without its will; `clean` leaves no session behind.
        now: monotonic clock, for what is waited for.

    Attributes:
        greeting: the broker's, once entered.

    Raises:
        ProbeError: on entering: no connection, or the broker refuses it.
    """

    greeting: Greeting

    def __init__(self, address: BrokerAddress, settings: MqttSettings, now: Callable[[], float]) -> None:
        self._address = address
        self._settings = settings
        self._now = now
        self._filters: list[str] = []
        self._heard = _Heard()
        self._client: Client

    def __enter__(self) -> Self:
        if (code := self._connect(MQTTProtocolVersion.MQTTv5)) == _UNSUPPORTED_VERSION:
            self._heard = _Heard()
            code = self._connect(MQTTProtocolVersion.MQTTv311)
        if code >= DENIED:
            self._client.disconnect()
            raise ProbeError(f"the broker refuses the connection: {self._reason}")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(ProbeError):
            for topic_filter in self._filters:
                self._numbered(self._client.unsubscribe, topic_filter)
        self._client.disconnect()
        self._turn()

    @property
    def connected(self) -> bool:
        """Whether the broker has not hung up, as far as is known."""
        return self._heard.lost is None

    @property
    def received(self) -> list[Delivery]:
        """Everything so far, in order of arrival."""
        return self._heard.messages

    def subscribe(self, topic_filter: str) -> int:
        """Subscribe with QoS 0, until the probe is left.

        Returns:
            The broker's code; `DENIED` and above are refusals, the others prove nothing.

        Raises:
            ProbeError: no answer.
        """
        self._filters.append(topic_filter)
        return self._numbered(lambda name: self._client.subscribe(name, 0), topic_filter)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1.

        Returns:
            The broker's code; `DENIED` and above are refusals, the others prove nothing.

        Raises:
            ProbeError: no answer.
        """

        def send(name: str) -> tuple[MQTTErrorCode, int]:
            info = self._client.publish(name, payload, 1, retain)
            return info.rc, info.mid

        return self._numbered(send, topic, size=len(payload))

    def hears(self, topic: str, payload: bytes, *, retained: bool | None = None) -> bool:
        """Wait until this message has come; whether it has.

        Raises:
            ProbeError: the connection was lost before.
        """
        return self.waits_for(lambda: self.has_heard(topic, payload, retained=retained), len(payload))

    def has_heard(self, topic: str, payload: bytes, *, retained: bool | None = None) -> bool:
        """Whether this message has come so far."""
        return any(
            (one.topic, one.payload) == (topic, payload) and retained in {None, one.retained}
            for one in self.received
        )

    def waits_for(self, happened: Callable[[], bool], size: int = 0, *, patience: float = PATIENCE) -> bool:
        """Wait until something is so; whether it is, in the time that `size` bytes may take.

        Raises:
            ProbeError: the connection was lost before.
        """
        end = self._now() + patience + size / _FLOOR_RATE
        while not happened():
            if self._heard.lost is not None:
                raise self._loss(self._heard.lost)
            if self._now() > end:
                return False
            self._turn()
        return True

    # The connection.

    def _connect(self, version: MQTTProtocolVersion) -> int:
        """One attempt; the broker's code."""
        self._client = client = self._fresh_client(version)
        try:
            client.connect(**self._arguments(version))
        except OSError as error:  # also ssl.SSLError, and a name that is not known
            raise ProbeError(_words(error)) from error
        with suppress(ProbeError):
            self.waits_for(lambda: self._heard.greeting is not None)
        if self._heard.greeting is None:
            raise ProbeError("the broker hung up, or did not answer, before it greeted us")
        flags, reason, given = self._heard.greeting
        self.greeting = Greeting(
            version == MQTTProtocolVersion.MQTTv5,
            flags.session_present,
            getattr(given, "ServerKeepAlive", None),
            getattr(given, "MaximumPacketSize", None),
        )
        return int(reason.value)

    def _fresh_client(self, version: MQTTProtocolVersion) -> Client:
        old = version != MQTTProtocolVersion.MQTTv5
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id,
            clean_session=self._settings.clean if old else None,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = PATIENCE
        if self._address.user is not None:
            client.username_pw_set(self._address.user, self._address.password)
        if self._address.tls:
            client.tls_set_context(self._settings.tls or ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = client.on_unsubscribe = self._on_codes
        client.on_publish = self._on_publish
        return client

    def _arguments(self, version: MQTTProtocolVersion) -> dict[str, Any]:
        settings, address = self._settings, self._address
        where = {"host": address.host, "port": address.port, "keepalive": settings.keepalive}
        if version != MQTTProtocolVersion.MQTTv5:
            return where
        expiry = 0 if settings.clean else settings.session_expiry
        # We take larger packets than we should be able to send: a broker without limits is found out so.
        options = properties(
            PacketTypes.CONNECT, SessionExpiryInterval=expiry, MaximumPacketSize=4 * MAX_PACKET
        )
        return where | {"clean_start": settings.clean, "properties": options}

    def _turn(self) -> None:
        code = self._client.loop(_TURN)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS and self._heard.lost is None:
            self._heard.lost = ReasonCode(PacketTypes.DISCONNECT, identifier=_DROPPED)

    def _numbered(
        self, send: Callable[[str], tuple[MQTTErrorCode, int | None]], name: str, *, size: int = 0
    ) -> int:
        _, number = send(name)
        if number is None or not self.waits_for(lambda: number in self._heard.codes, size):
            raise ProbeError("the broker does not answer")
        return self._heard.codes.pop(number)

    def _loss(self, reason: ReasonCode) -> ProbeError:
        if reason.value == _TAKEN_OVER:
            return TakenOverError("another client has connected under the same name")
        return ProbeError(f"the broker hung up: {reason}")

    @property
    def _reason(self) -> str:
        return str(self._heard.greeting[1]) if self._heard.greeting else "no answer"

    # What paho calls.

    def _on_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, reason: ReasonCode, given: Properties | None
    ) -> None:
        self._heard.greeting = flags, reason, given

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._heard.messages.append(Delivery(message.topic, bytes(message.payload), retained=message.retain))

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _given: Any
    ) -> None:
        self._heard.lost = reason

    def _on_codes(
        self, _client: Client, _data: Any, number: int, reasons: list[ReasonCode], _given: Any
    ) -> None:
        self._heard.codes[number] = max((int(one.value) for one in reasons), default=0)

    def _on_publish(
        self, _client: Client, _data: Any, number: int, reason: ReasonCode, _given: Properties | None
    ) -> None:
        self._heard.codes[number] = int(reason.value)


_DROPPED = 128  # "Unspecified error": the connection ended without a word


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__
