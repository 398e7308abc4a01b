"""Two thousand devices on one Mosquitto with the production settings: all at once, and all idle.

Mutual TLS and the access rules are in force; every device has a certificate of its own from the registrar.
The devices are light clients in one process of this machine, so half of the cost of a handshake is theirs;
delays are from the coordinator's publish to the device's handler, with what this process needs to read them.
"""

import argparse
import asyncio
import json
import os
import random
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import load_der_x509_certificate

from broker.mqtt import MqttTransport
from protocol.certificates import Role
from protocol.ids import DeviceId, Order
from protocol.topics import Topics
from runtime.identity import Identity
from tests.secure_broker import HOST, Office, SecureBroker, connect_packet, transport

TOPICS = Topics("storm")
# About what a manifest is, sealed.
INVITATION = bytes(1024)
AT_ONCE = 200
PATIENCE = 300.0
# As `broker.mqtt` waits after a loss.
LONGEST_FIRST_WAIT = 1.0

_PUBLISH, _SUBACK = 3, 9


class LightDevice(asyncio.Protocol):
    """A device that connects, subscribes as an agent does, acknowledges, and notes when something came."""

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        self.name = DeviceId(name)
        self.heard: Callable[[], None] = lambda: None
        self._context = context
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] | None = None

    async def connect(self, port: int) -> None:
        """Returns when the broker has confirmed the subscriptions."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._buffer.clear()
        await loop.create_connection(
            lambda: self, HOST, port, ssl=self._context, ssl_handshake_timeout=PATIENCE
        )
        await self._ready

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says who it is and what it wants to hear, without waiting in between."""
        self._transport = cast(asyncio.Transport, transport)
        filters = (
            TOPICS.inbox(self.name),
            TOPICS.every_decision,
            TOPICS.coordinator_status,
            TOPICS.revocations,
        )
        self._transport.write(connect_packet(self.name) + _subscribe_packet(filters))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits learns of it."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(exc or ConnectionResetError())

    def data_received(self, data: bytes) -> None:
        """Acts on every whole packet (MQTT 3.1.1, section 2.2)."""
        self._buffer += data
        while (size := _whole(self._buffer)) is not None:
            packet = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._act(packet)

    def _act(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == _SUBACK and self._ready is not None:
            self._ready.set_result(None)
        elif kind == _PUBLISH and self._transport is not None:
            body = packet[len(packet) - _remaining(packet)[0] :]
            behind = 2 + int.from_bytes(body[:2])
            if packet[0] & 0x06:
                self._transport.write(b"\x40\x02" + body[behind : behind + 2])
            self.heard()

    def close(self) -> None:
        """Without goodbye."""
        if self._transport is not None:
            self._transport.abort()


def _subscribe_packet(filters: Sequence[str]) -> bytes:
    body = b"\x00\x01" + b"".join(len(one).to_bytes(2) + one.encode() + b"\x01" for one in filters)
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([size % 128 | 0x80, size // 128])
    return b"\x82" + length + body


def _remaining(packet: bytes | bytearray) -> tuple[int, int]:
    """The length that the header tells (section 2.2.3), and how many bytes tell it; 0 when it is cut off."""
    value = 0
    for place, byte in enumerate(packet[1:5]):
        value += (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, place + 1
    return 0, 0


def _whole(buffer: bytearray) -> int | None:
    value, told = _remaining(buffer)
    size = 1 + told + value
    return size if told and len(buffer) >= size else None


@dataclass(frozen=True)
class Rush:
    """Many connections, from the first attempt to the last subscription confirmed.

    Attributes:
        name: of the experiment.
        devices: connections that were made.
        seconds: until the last had one.
        per_second: connections.
        broker_mb: resident memory when all were there.
        kb_each: of it for one connection.
    """

    name: str
    devices: int
    seconds: float
    per_second: float
    broker_mb: float
    kb_each: float


@dataclass(frozen=True)
class Delay:
    """How long messages took to all devices, in milliseconds from the coordinator's first publish."""

    name: str
    messages: int
    p50_ms: float
    p99_ms: float
    max_ms: float


async def rush(name: str, broker: SecureBroker, empty: int, connect: Awaitable[object], devices: int) -> Rush:
    """Measures while everybody connects."""
    began = time.perf_counter()
    await connect
    seconds = time.perf_counter() - began
    memory = broker.memory()
    return Rush(name, devices, seconds, devices / seconds, memory / 1e6, (memory - empty) / 1e3 / devices)


async def connect_all(devices: Sequence[LightDevice], port: int, at_once: int) -> None:
    """Everybody connects, and tries again after a jittered second when it is lost."""
    turns = asyncio.Semaphore(at_once)

    async def one(device: LightDevice) -> None:
        while True:
            try:
                async with turns:
                    return await device.connect(port)
            except OSError:
                await asyncio.sleep(random.random() * LONGEST_FIRST_WAIT)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(one(device) for device in devices))


async def delays(
    name: str, devices: Sequence[LightDevice], says: Callable[[], Awaitable[object]], runs: int
) -> Delay:
    """What each device waits, over some runs."""
    waits = list[float]()
    for _ in range(runs):
        done, left, began = asyncio.Event(), len(devices), time.perf_counter()

        def heard() -> None:
            nonlocal left
            waits.append(time.perf_counter() - began)  # noqa: B023 (called before the next run)
            left -= 1
            if not left:
                done.set()  # noqa: B023

        for device in devices:
            device.heard = heard
        async with asyncio.timeout(PATIENCE):
            await says()
            await done.wait()
    cuts = statistics.quantiles(waits, n=100)
    return Delay(name, len(waits), cuts[49] * 1e3, cuts[98] * 1e3, max(waits) * 1e3)


async def storm(count: int, runs: int) -> list[Rush | Delay]:
    """All experiments."""
    with tempfile.TemporaryDirectory() as folder:
        office = Office(TOPICS.fleet, Path(folder) / "identities")
        devices = [
            LightDevice(name, _context(office.registrar.issue(name, Role.DEVICE), Path(folder)))
            for name in (f"d{number}" for number in range(count))
        ]
        async with SecureBroker.of(office) as broker:
            found = await _storm(broker, office.identity("coordinator", Role.COORDINATOR), devices, runs)
            for device in devices:
                device.close()
        return found


async def _storm(
    broker: SecureBroker, coordinator: Identity, devices: list[LightDevice], runs: int
) -> list[Rush | Delay]:
    count, empty, port = len(devices), broker.memory(), broker.address.port
    first = await rush(
        f"connect, {AT_ONCE} at a time", broker, empty, connect_all(devices, port, AT_ONCE), count
    )
    await broker.restart(keep_state=True)
    again = await rush(
        "reconnect after a restart, all at once", broker, empty, connect_all(devices, port, count), count
    )
    async with transport(broker.address, coordinator) as says:
        invited = await delays("an invitation to each inbox", devices, lambda: invite(says, devices), runs)
        decision = TOPICS.decision(Order(1, 1, 1), "cohort")
        decided = await delays(
            "one decision for all", devices, lambda: says.publish(decision, INVITATION), runs
        )
    return [first, again, invited, decided]


async def invite(says: MqttTransport, devices: Sequence[LightDevice]) -> None:
    """One message to each."""
    await asyncio.gather(*(says.publish(TOPICS.inbox(device.name), INVITATION) for device in devices))


def _context(identity: Identity, folder: Path) -> ssl.SSLContext:
    """As `runtime.identity.client_tls`, from one file that nobody waits for the disk for."""
    chain = [load_der_x509_certificate(der) for der in (identity.certificate, identity.registrar or b"")]
    key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / f"{identity.name}.pem"
    file.write_bytes(key + b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    root = load_der_x509_certificate(identity.root).public_bytes(Encoding.PEM).decode()
    context = ssl.create_default_context(cadata=root)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(file)
    return context


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 devices instead of 2,000")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = asyncio.run(storm(200 if options.quick else 2000, runs=5))
    if options.json:
        print(json.dumps({"rows": [asdict(one) for one in found]}))
        return
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print("| | devices | seconds | connections/s | broker MB | kB each |")
    print("|---|---|---|---|---|---|")
    for one in found:
        if isinstance(one, Rush):
            print(
                f"| {one.name} | {one.devices} | {one.seconds:.1f} | {one.per_second:.0f} "
                f"| {one.broker_mb:.0f} | {one.kb_each:.1f} |"
            )
    print("\n| | messages | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for one in found:
        if isinstance(one, Delay):
            print(f"| {one.name} | {one.messages} | {one.p50_ms:.0f} | {one.p99_ms:.0f} | {one.max_ms:.0f} |")


if __name__ == "__main__":
    main()
