"""Large contents through a real broker: by credit, by plain push, and pulled down as retained chunks.

Three processes: the broker (mosquitto if the machine has it), all devices, and this one, which receives.
The floor of each row is a bare loop over aiomqtt with the same chunks, clients and processes, in the same
run: no hashes, no frames, no credits; its receiver only counts. A row that processes each chunk for 3 ms adds
that time to the floor.

    python -m benchmarks.transfers [--quick] [--json]
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import aiomqtt
import msgspec

from broker.address import BrokerAddress
from broker.embedded import EmbeddedBroker
from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Delivery
from protocol.chunks import CHUNK_SIZE, Assembly, BlobRef, Chunk, describe, split
from protocol.ids import DeviceId
from protocol.topics import Topics
from runtime.clock import SystemClock, happens
from runtime.entropy import SystemEntropy
from runtime.transfers import Uploader, UploadReceiver, fetch_blob, publish_blob
from runtime.uploads import MAX_ASSEMBLING

TOPICS = Topics("benchmark")
SHARD = "0"
READY, GO, STOP = "control/ready", "control/go", "control/stop"
# Longer than the devices' process needs to start or to end.
START_SECONDS = 60.0
# What the coordinator of the reference experiment spent on each chunk.
PROCESSING_SECONDS = 0.003
# A run in which nothing arrives for so long is over: the rest is lost. Pulls count when a device is done.
SILENCE_SECONDS = {"up": 3.0, "down": 30.0}


@dataclass(frozen=True)
class Load:
    """How many devices move how many bytes each."""

    devices: int
    size: int

    @property
    def chunks(self) -> int:
        """Chunks of one content."""
        return -(-self.size // CHUNK_SIZE)

    def content(self, number: int) -> bytes:
        """Bytes of one device, different from every other's."""
        return number.to_bytes(4, "little") * (self.size // 4)


@dataclass
class Row:
    """One line of the table."""

    name: str
    devices: int
    bytes: int
    seconds: float
    floor_seconds: float
    ratio_to_floor: float
    broker_peak_mb: float
    chunks: int
    delivered: int


def device_id(number: int) -> DeviceId:
    """The name of a device."""
    return DeviceId(f"d{number}")


def transport(address: BrokerAddress, name: str) -> MqttTransport:
    """A client of our own."""
    settings = MqttSettings((address,), name, clean=True)
    return MqttTransport(settings, sleep=SystemClock().sleep, uniform=SystemEntropy().uniform)


# The devices' process.


def devices_main(address: BrokerAddress, load: Load, kind: str) -> None:
    """Runs all devices of one experiment until it is told to stop."""
    asyncio.run(_devices(address, load, kind))


async def _devices(address: BrokerAddress, load: Load, kind: str) -> None:
    go, stop = asyncio.Event(), asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        control = await stack.enter_async_context(transport(address, "control"))
        await control.subscribe(GO, lambda _: go.set())
        await control.subscribe(STOP, lambda _: stop.set())
        # The bare loop loses chunks when all devices push at once; a few at a time is its best.
        places = asyncio.Semaphore(load.devices if kind == "bare push" else MAX_ASSEMBLING)
        work = [
            await stack.enter_async_context(_device(address, load, kind, number, places))
            for number in range(load.devices)
        ]
        await control.publish(READY, b"", retain=True)
        await go.wait()
        tasks = [asyncio.create_task(start()) for start in work]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


@contextlib.asynccontextmanager
async def _device(
    address: BrokerAddress, load: Load, kind: str, number: int, places: asyncio.Semaphore
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """One device, connected and prepared; what it yields is the part that is measured."""
    content = load.content(0 if "pull" in kind else number)
    ref = describe(content)
    if kind.startswith("bare"):
        async with bare_client(address, device_id(number)) as client:
            if kind == "bare pull":
                await client.subscribe("bare/+", qos=0)
                yield lambda: _count_bare(client, ref.chunks)
            else:
                yield lambda: _push_bare(client, f"bare/{number}", list(split(content, ref)), places)
        return
    async with transport(address, device_id(number)) as ours:
        if kind == "push":
            yield lambda: _push(ours, number, content, ref)
        elif kind == "credit":
            await _await_credit(ours, number, content, ref)
            yield lambda: ours.publish(TOPICS.outbox(device_id(number)), msgspec.msgpack.encode(ref))
        else:
            yield lambda: _pull(ours, ref)


def bare_client(address: BrokerAddress, name: str) -> aiomqtt.Client:
    """The client library as it is, with the one option without which it is 60 times slower."""
    return aiomqtt.Client(
        address.host,
        address.port,
        identifier=name,
        username=address.user,
        password=address.password,
        # As the product speaks where the broker can.
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=True,
        socket_options=[(6, 1, 1)],
        timeout=120,
    )


async def _push_bare(
    client: aiomqtt.Client, topic: str, chunks: list[memoryview], places: asyncio.Semaphore
) -> None:
    async with places:
        for chunk in chunks:
            await client.publish(topic, bytes(chunk), qos=1)


async def _count_bare(client: aiomqtt.Client, left: int) -> None:
    async for _ in client.messages:
        left -= 1
        if not left:
            await client.publish("pulled", b"", qos=1)


async def _push(ours: MqttTransport, number: int, content: bytes, ref: BlobRef) -> None:
    for index, chunk in enumerate(split(content, ref)):
        frame = msgspec.msgpack.encode(Chunk(ref.sha256, index, chunk))
        await ours.publish(TOPICS.upload(SHARD, device_id(number)), frame)


async def _await_credit(ours: MqttTransport, number: int, content: bytes, ref: BlobRef) -> None:
    name = device_id(number)
    uploader = Uploader(ours, TOPICS, SHARD, name, content, ref, clock=SystemClock())
    sends: set[asyncio.Task[None]] = set()

    def granted(delivery: Delivery) -> None:
        indices = msgspec.msgpack.decode(delivery.payload, type=tuple[int, ...])
        task = asyncio.create_task(uploader.granted(indices))
        sends.add(task)
        task.add_done_callback(sends.discard)

    await ours.subscribe(TOPICS.inbox(name), granted)


async def _pull(ours: MqttTransport, ref: BlobRef) -> None:
    await fetch_blob(ours, TOPICS, ref, clock=SystemClock())
    await ours.publish("pulled", b"")


# The receiver's process.


@dataclass
class Outcome:
    """What one experiment measured."""

    seconds: float
    delivered: int
    peak: int

    @property
    def loss_then_time(self) -> tuple[int, float]:
        """What makes one run better than another."""
        return -self.delivered, self.seconds


class Arrivals:
    """Counts what arrives and when the last one did."""

    def __init__(self, expected: int, direction: str = "up") -> None:
        self.expected = expected
        self.silence = SILENCE_SECONDS[direction]
        self.count = 0
        self.begun = time.perf_counter()
        self.last = self.begun
        self._all = asyncio.Event()

    def add(self, number: int = 1) -> None:
        """So many more."""
        self.count += number
        self.last = time.perf_counter()
        if self.count == self.expected:
            self._all.set()

    async def end(self) -> float:
        """Waits until all have come or nothing comes any more; seconds until the last one came."""
        while not self._all.is_set() and time.perf_counter() - self.last < self.silence:
            await happens(self._all, self.silence / 4, SystemClock())
        return self.last - self.begun


async def experiment(
    kind: str, load: Load, receive: Callable[..., Awaitable[Arrivals]], **options: Any
) -> Outcome:
    """Starts a broker and the devices' process, lets them go, and measures."""
    async with EmbeddedBroker.start() as broker:
        context = multiprocessing.get_context("spawn")
        devices = context.Process(target=devices_main, args=(broker.address, load, kind), daemon=True)
        devices.start()
        async with transport(broker.address, "control-here") as control:
            ready = asyncio.Event()
            await control.subscribe(READY, lambda _: ready.set())
            async with asyncio.timeout(START_SECONDS):
                await ready.wait()
            arrivals, seconds = await _measure(broker.address, control, load, receive, options)
            outcome = Outcome(seconds, arrivals.count, broker.peak_memory())
            await control.publish(STOP, b"")
            await asyncio.to_thread(devices.join, START_SECONDS)
            devices.kill()
        return outcome


async def _measure(
    address: BrokerAddress,
    control: MqttTransport,
    load: Load,
    receive: Callable[..., Awaitable[Arrivals]],
    options: dict[str, Any],
) -> tuple[Arrivals, float]:
    async with contextlib.AsyncExitStack() as stack:
        arrivals = await receive(stack, address, load, **options)
        arrivals.begun = arrivals.last = time.perf_counter()
        await control.publish(GO, b"")
        return arrivals, await arrivals.end()


async def count_bare(
    stack: contextlib.AsyncExitStack, address: BrokerAddress, load: Load, *, hashing: bool = False
) -> Arrivals:
    """The floor's receiver: counts, and hashes each chunk where the floor is to be a checked one."""
    arrivals = Arrivals(load.devices * load.chunks)
    client = await stack.enter_async_context(bare_client(address, "receiver"))
    await client.subscribe("bare/+", qos=1)

    async def count() -> None:
        async for message in client.messages:
            if hashing:
                sha256(message.payload).digest()
            arrivals.add()

    task = asyncio.create_task(count())
    stack.callback(task.cancel)
    return arrivals


async def assemble_pushed(
    stack: contextlib.AsyncExitStack, address: BrokerAddress, load: Load, *, processing: float
) -> Arrivals:
    """Takes in whatever devices push, with the same checks."""
    refs = {device_id(number): describe(load.content(number)) for number in range(load.devices)}
    assemblies = {device: Assembly(ref) for device, ref in refs.items()}
    arrivals = Arrivals(sum(ref.chunks for ref in refs.values()))
    ours = await stack.enter_async_context(transport(address, "receiver"))

    def take(delivery: Delivery) -> None:
        chunk = msgspec.msgpack.decode(delivery.payload, type=Chunk)
        assemblies[DeviceId(delivery.topic.rpartition("/")[2])].add(chunk.index, chunk.data)
        time.sleep(processing)
        arrivals.add()

    await ours.subscribe(TOPICS.every_upload(SHARD), take)
    return arrivals


async def receive_by_credit(
    stack: contextlib.AsyncExitStack, address: BrokerAddress, load: Load, *, processing: float
) -> Arrivals:
    """The receiver of the product."""
    arrivals = Arrivals(load.devices * load.chunks)
    ours = await stack.enter_async_context(transport(address, "receiver"))

    async def grant(device: DeviceId, _: bytes, indices: tuple[int, ...]) -> None:
        await ours.publish(TOPICS.inbox(device), msgspec.msgpack.encode(indices))

    receiver = await stack.enter_async_context(
        UploadReceiver(ours, TOPICS, SHARD, grant, clock=SystemClock())
    )
    group = await stack.enter_async_context(asyncio.TaskGroup())

    async def receive(device: DeviceId, ref: BlobRef) -> None:
        await receiver.receive(device, ref)
        arrivals.add(ref.chunks)

    def announced(delivery: Delivery) -> None:
        ref = msgspec.msgpack.decode(delivery.payload, type=BlobRef)
        group.create_task(receive(DeviceId(delivery.topic.split("/")[-2]), ref))

    await ours.subscribe(TOPICS.every_outbox, announced)
    if processing:
        # On every chunk, before the receiver looks at it, as a slow coordinator would.
        await ours.subscribe(TOPICS.every_upload(SHARD), lambda _: time.sleep(processing))
    return arrivals


async def publish_down(
    stack: contextlib.AsyncExitStack, address: BrokerAddress, load: Load, *, bare: bool
) -> Arrivals:
    """Publishes one content; devices report when they have it."""
    content = load.content(0)
    ref = describe(content)
    arrivals = Arrivals(load.devices * load.chunks, "down")
    ours = await stack.enter_async_context(transport(address, "receiver"))
    await ours.subscribe("pulled", lambda _: arrivals.add(ref.chunks))

    async def push() -> None:
        for index, chunk in enumerate(split(content, ref)):
            await ours.publish(f"bare/{index}", chunk)

    def start(_: Delivery) -> None:
        stack.callback(asyncio.create_task(push()).cancel)

    if bare:
        await ours.subscribe(GO, start)
    else:
        await publish_blob(ours, TOPICS, content, ref)
    return arrivals


# The table.


def row(name: str, load: Load, outcome: Outcome, floor: float) -> Row:
    """One line; `outcome.delivered` counts chunks."""
    return Row(
        name,
        load.devices,
        load.size,
        round(outcome.seconds, 3),
        round(floor, 3),
        round(outcome.seconds / floor, 3),
        round(outcome.peak / 1e6, 1),
        load.devices * load.chunks,
        outcome.delivered,
    )


async def typical(runs: int, *experiments: Callable[[], Awaitable[Outcome]]) -> list[Outcome]:
    """The median run of each; they take turns, so that a busy machine is busy for all.

    The bare loop is now and then a third faster for no reason that repeats: the best of few is a lottery.
    """
    outcomes = [[await each() for each in experiments] for _ in range(runs)]
    ordered = [
        sorted(each, key=lambda outcome: outcome.loss_then_time) for each in zip(*outcomes, strict=True)
    ]
    return [of_one[(runs - 1) // 2] for of_one in ordered]


async def rows(load: Load, runs: int) -> list[Row]:
    """All experiments of one load."""
    slow = {"processing": PROCESSING_SECONDS}
    bare, hashed, crowd, credit = await typical(
        runs,
        lambda: experiment("bare push, a few at a time", load, count_bare),
        lambda: experiment("bare push, a few at a time", load, count_bare, hashing=True),
        lambda: experiment("bare push", load, count_bare),
        lambda: experiment("credit", load, receive_by_credit, processing=0.0),
    )
    slow_credit = await experiment("credit", load, receive_by_credit, **slow)
    slow_push = await experiment("push", load, assemble_pushed, **slow)
    broadcast, pull = await typical(
        runs,
        lambda: experiment("bare pull", load, publish_down, bare=True),
        lambda: experiment("pull", load, publish_down, bare=False),
    )
    # One thread receives and processes.
    busy = bare.seconds + load.devices * load.chunks * PROCESSING_SECONDS
    return [
        row("up, bare publish loop, 4 devices at a time", load, bare, bare.seconds),
        row("up, bare publish loop, 4 at a time, SHA-256 of each chunk", load, hashed, bare.seconds),
        row("up, bare publish loop, all at once", load, crowd, bare.seconds),
        row("up, credit", load, credit, bare.seconds),
        row("up, credit, beside the hashing loop", load, credit, hashed.seconds),
        row("up, credit, 3 ms a chunk", load, slow_credit, busy),
        row("up, plain push, 3 ms a chunk", load, slow_push, busy),
        row("down, bare broadcast", load, broadcast, broadcast.seconds),
        row("down, retained pull", load, pull, broadcast.seconds),
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="25 devices instead of 100")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    load = Load(25 if options.quick else 100, 5_000_000)
    table = asyncio.run(rows(load, runs=3 if options.quick else 5))
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in table]}))
        return
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
    print(f"{machine}, {load.devices} devices x {load.size / 1e6:g} MB")
    print("| | seconds | floor | ratio | MB/s | broker peak MB | chunks | delivered |")
    print("|---|---|---|---|---|---|---|---|")
    for line in table:
        rate = line.delivered / line.chunks * line.devices * line.bytes / 1e6 / line.seconds
        print(
            f"| {line.name} | {line.seconds:.2f} | {line.floor_seconds:.2f} | {line.ratio_to_floor:.2f} "
            f"| {rate:.0f} | {line.broker_peak_mb:.0f} | {line.chunks} | {line.delivered} |"
        )


if __name__ == "__main__":
    main()
