"""paho's client with a shorter way for packets in both directions.

paho copies a large packet four times when it arrives and again before every write, reads properties that
nobody asks for, and has the loop wake up once more for each packet that leaves. Here a packet is read into
its place, of a PUBLISH only what a `Delivery` holds is looked at, and what leaves is written at once from
where it lies; the loop is asked for its turn only when the socket is full. Everything else stays paho's.

What is overridden are its internal seams, in paho 2.1 and 2.2; the unit tests hold them.
"""

import ssl
from collections.abc import Callable
from socket import socket
from typing import Any, cast

from paho.mqtt.client import Client, MQTTMessageInfo, time_func
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.transport import Delivery

# Bits of a PUBLISH's first byte (MQTT 5, section 3.3.1). We never subscribe with QoS 2.
_ACKNOWLEDGE, _RETAIN = 0x02, 0x01
# A length is written in up to four bytes of seven bits; the eighth says that another follows (1.5.5).
_MORE, _LONGEST = 0x80, 4

_TAKEN = ReasonCode(PacketTypes.PUBACK)
_NO_PROPERTIES = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]  # paho types all but this


class LeanClient(Client):
    """A client of paho that hands over deliveries itself.

    Attributes:
        receive: called with each message while the socket is read; must not block or fail.
    """

    receive: Callable[[Delivery], None]
    _flushing = False

    @staticmethod
    def adopt(client: Client, receive: Callable[[Delivery], None]) -> None:
        """Makes a client that somebody else built, and that is not connected yet, a lean one."""
        client.__class__ = LeanClient
        cast("LeanClient", client).receive = receive

    # Out.

    def _packet_queue(
        self, command: int, packet: Any, mid: int, qos: int, info: MQTTMessageInfo | None = None
    ) -> MQTTErrorCode:
        # Before each write paho slices what is left; a slice of a view is no copy.
        return super()._packet_queue(command, cast("bytes", memoryview(packet)), mid, qos, info)

    def _call_socket_register_write(self) -> None:
        # Before that, aiomqtt works from another thread.
        if self._flushing or self._registered_write or not self.is_connected():
            super()._call_socket_register_write()
            return
        self._flushing = True
        try:
            self.loop_write()
        finally:
            self._flushing = False

    # In.

    def _packet_read(self) -> MQTTErrorCode:
        incoming = self._in_packet
        try:
            if not incoming["have_remaining"]:
                self._read_header()
            while left := incoming["to_process"]:
                incoming["to_process"] -= self._read_into(memoryview(incoming["packet"])[-left:])
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        # With nothing left to read, paho handles the packet and makes ready for the next.
        return super()._packet_read()

    def _read_header(self) -> None:
        incoming = self._in_packet
        incoming["command"] = incoming["command"] or self._read_byte()
        byte = _MORE
        while byte & _MORE:
            if len(incoming["remaining_count"]) == _LONGEST:
                raise ConnectionError
            byte = self._read_byte()
            incoming["remaining_count"].append(byte)
            incoming["remaining_length"] += (byte & ~_MORE) * incoming["remaining_mult"]
            incoming["remaining_mult"] *= _MORE
        incoming["have_remaining"] = 1
        incoming["to_process"] = incoming["remaining_length"]
        incoming["packet"] = bytearray(incoming["remaining_length"])

    def _read_byte(self) -> int:
        byte = self._sock_recv(1)
        if not byte:
            raise ConnectionError
        return byte[0]

    def _read_into(self, room: memoryview) -> int:
        if self._sock is None:
            raise ConnectionError
        try:
            size = cast("socket", self._sock).recv_into(room)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        if not size:
            raise ConnectionError
        # A large packet on a slow link is no silence.
        self._last_bytes_received = time_func()
        return size

    def _handle_publish(self) -> MQTTErrorCode:
        command, packet = self._in_packet["command"], self._in_packet["packet"]
        modern = self._protocol == MQTTProtocolVersion.MQTTv5
        try:
            topic, mid, start = _head(packet, numbered=bool(command & _ACKNOWLEDGE), modern=modern)
        except (IndexError, UnicodeDecodeError) as error:
            raise MalformedPacket(str(error)) from None
        payload = bytes(memoryview(packet)[start:])
        self.receive(Delivery(topic, payload, retained=bool(command & _RETAIN)))
        return self._send_puback(mid) if command & _ACKNOWLEDGE else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        # A broker that has no more to say than that it took the message says no more.
        if cmd != "PUBACK" or len(packet) != 2:  # noqa: PLR2004 (the packet's number)
            return super()._handle_pubackcomp(cmd)
        mid = int.from_bytes(packet)
        with self._out_message_mutex:
            if mid not in self._out_messages:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            return self._do_on_publish(mid, _TAKEN, _NO_PROPERTIES)


def _head(packet: bytearray, *, numbered: bool, modern: bool) -> tuple[str, int, int]:
    """A PUBLISH's topic, its number if it has one, and where its payload starts (section 3.3.2)."""
    end = 2 + int.from_bytes(packet[:2])
    topic, mid = packet[2:end].decode(), 0
    if numbered:
        mid = int.from_bytes(packet[end : end + 2])
        end += 2
    if modern:
        end = _after_properties(packet, end)
    if end > len(packet):
        raise IndexError("a PUBLISH ends before its payload")
    return topic, mid, end


def _after_properties(packet: bytearray, start: int) -> int:
    size = shift = 0
    while True:
        byte = packet[start]
        size |= (byte & ~_MORE) << shift
        start, shift = start + 1, shift + 7
        if not byte & _MORE:
            return start + size
