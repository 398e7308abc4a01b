"""The shorter way through paho's client: two clients over a pair of sockets, and what breaks it."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.mqtt_packets import LeanClient
from broker.transport import Delivery

LARGE = bytes(range(256)) * 4096  # 1 MiB: more than a socket takes at once
VERSIONS = [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5]


@dataclass
class End:
    """One client on its end of the line; a PUBLISH looks the same in both directions."""

    client: LeanClient
    line: socket.socket
    seen: list[Delivery] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)

    def read(self) -> MQTTErrorCode:
        return self.client.loop_read()

    def publish(self, topic: str, payload: bytes, **options: object) -> MQTTMessageInfo:
        return self.client.publish(topic, payload, **options)  # type: ignore[arg-type]


def end(line: socket.socket, version: MQTTProtocolVersion) -> End:
    client = Client(CallbackAPIVersion.VERSION2, "end", protocol=version, reconnect_on_failure=False)
    line.settimeout(0)
    made = End(client, line)  # type: ignore[arg-type]  # a lean one on the next line
    LeanClient.adopt(client, made.seen.append)
    client._sock = line
    client._state = client._state.MQTT_CS_CONNECTED
    client.on_socket_register_write = lambda *_: made.asked.append(True)
    client.on_socket_unregister_write = lambda *_: made.asked.append(False)
    return made


@contextlib.contextmanager
def line(version: MQTTProtocolVersion) -> Iterator[tuple[End, End]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield end(ours, version), end(theirs, version)


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    with line(request.param) as both:
        yield both


@pytest.fixture
def modern_ends() -> Iterator[tuple[End, End]]:
    with line(MQTTProtocolVersion.MQTTv5) as both:
        yield both


def test_what_is_published_leaves_at_once_and_is_acknowledged(ends: tuple[End, End]) -> None:
    sender, receiver = ends
    first = sender.publish("x/ü", b"one", qos=1)
    second = sender.publish("x/2", b"", qos=0, retain=True)
    assert sender.asked == []
    assert second.is_published()
    for _ in range(2):
        receiver.read()
    assert receiver.seen == [Delivery("x/ü", b"one", retained=False), Delivery("x/2", b"", retained=True)]
    assert not first.is_published()
    sender.read()
    assert first.is_published()
    assert receiver.asked == []


def test_a_large_message_asks_the_loop_only_while_the_socket_is_full(ends: tuple[End, End]) -> None:
    sender, receiver = ends
    info = sender.publish("x", LARGE, qos=1)
    assert sender.asked == [True]
    while not receiver.seen:
        receiver.read()
        sender.client.loop_write()
    sender.read()
    assert info.is_published()
    assert receiver.seen == [Delivery("x", LARGE, retained=False)]
    assert sender.asked == [True, False]
    assert isinstance(receiver.seen[0].payload, bytes)


def test_a_message_that_comes_byte_by_byte_is_whole(ends: tuple[End, End]) -> None:
    sender, receiver = ends
    for byte in publish_bytes(sender.client, "x/1", b"payload"):
        assert receiver.seen == []
        sender.line.send(bytes((byte,)))
        receiver.read()
    assert receiver.seen == [Delivery("x/1", b"payload", retained=False)]


def test_a_large_message_on_a_slow_line_is_no_silence(ends: tuple[End, End]) -> None:
    sender, receiver = ends
    sender.line.send(publish_bytes(sender.client, "x", bytes(1000))[:500])
    receiver.client._last_bytes_received = 0.0
    receiver.read()
    assert receiver.client._last_bytes_received > 0
    assert receiver.seen == []


def test_properties_of_any_length_are_skipped(modern_ends: tuple[End, End]) -> None:
    sender, receiver = modern_ends
    many = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    many.UserProperty = [("name", "v" * 200)]
    sender.publish("x", b"payload", properties=many)
    receiver.read()
    assert receiver.seen == [Delivery("x", b"payload", retained=False)]


BROKEN = {
    "a topic beyond the end": b"\x30\x05\x00\x09xyz",
    "a topic that is no text": b"\x30\x05\x00\x02\xff\xffz",
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "no packet at all": b"",
}


@pytest.mark.parametrize("bytes_", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_packet_ends_the_connection(ends: tuple[End, End], bytes_: bytes) -> None:
    broken, receiver = ends
    broken.line.send(bytes_)
    broken.line.shutdown(socket.SHUT_WR)
    assert receiver.read() != MQTTErrorCode.MQTT_ERR_SUCCESS
    assert receiver.client.socket() is None
    assert receiver.seen == []


def test_a_broker_that_says_more_than_taken_is_heard_too(modern_ends: tuple[End, End]) -> None:
    sender, broker = modern_ends
    info = sender.publish("x", b"", qos=1)
    broker.line.send(b"\x40\x02\x00\x63")  # of a message that was never sent
    broker.line.send(b"\x40\x03\x00\x01\x10")  # nobody subscribed
    sender.read()
    assert not info.is_published()
    sender.read()
    assert info.is_published()


def test_before_the_connection_stands_the_loop_is_asked(ends: tuple[End, End]) -> None:
    sender, receiver = ends
    sender.client._state = sender.client._state.MQTT_CS_CONNECTING
    sender.publish("x", b"")
    assert sender.asked == [True]
    receiver.read()
    assert receiver.seen == []


class HalfARecord(socket.socket):
    """A socket with TLS that has a header, and of the packet only what TLS cannot open yet."""

    error: type[ssl.SSLError]

    def recv(self, size: int, *_: object) -> bytes:
        return b"\x30" * size

    def recv_into(self, *_: object) -> int:
        raise self.error


@pytest.mark.parametrize("error", [ssl.SSLWantReadError, ssl.SSLWantWriteError])
def test_half_a_record_of_tls_is_waited_for(ends: tuple[End, End], error: type[ssl.SSLError]) -> None:
    receiver = ends[1]
    with HalfARecord() as line:
        line.error = error
        receiver.client._sock = line
        assert receiver.read() == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert receiver.seen == []
        receiver.client._sock = receiver.line


def publish_bytes(client: LeanClient, topic: str, payload: bytes) -> bytes:
    """A PUBLISH as this client writes it."""
    client._state = client._state.MQTT_CS_CONNECTING
    client.publish(topic, payload, qos=1)
    packet = client._out_packet.pop()["packet"]
    client._state = client._state.MQTT_CS_CONNECTED
    return bytes(packet)
