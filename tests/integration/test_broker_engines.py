"""Both embedded brokers keep what `broker.transport` promises."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from broker.address import BrokerAddress
from broker.embedded import BrokerMissingError, EmbeddedBroker, Engine
from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Delivery, RefusedError, TransportError, Will
from protocol.chunks import BlobRef, describe
from protocol.errors import MisuseError
from protocol.ids import DeviceId
from protocol.topics import Topics
from runtime.clock import SystemClock
from runtime.entropy import SeededEntropy
from runtime.transfers import Uploader, UploadReceiver, fetch_blob, publish_blob

pytestmark = pytest.mark.broker

TOPICS = Topics("test")
CLOCK = SystemClock()
CONTENT = bytes(range(256)) * 8192  # 2 MiB, eight chunks
REF = describe(CONTENT)


@pytest.fixture(params=["mosquitto", "nats"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedBroker]:
    engine: Engine = request.param
    try:
        unopened = EmbeddedBroker.start(engine)
    except BrokerMissingError as missing:
        pytest.skip(str(missing))
    async with unopened as running:
        yield running


def client(
    broker: EmbeddedBroker, name: str, will: Will | None = None, *, clean: bool = False
) -> MqttTransport:
    return client_at(broker.address, name, will, clean=clean)


def client_at(
    address: BrokerAddress, name: str, will: Will | None = None, *, clean: bool = False
) -> MqttTransport:
    settings = MqttSettings((address,), name, will=will, clean=clean)
    # A short wait between attempts: these brokers are back in a moment.
    return MqttTransport(settings, sleep=CLOCK.sleep, uniform=lambda: 0.05)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (other processes do not set our events)
            await asyncio.sleep(0.01)


async def test_messages_arrive_and_retained_ones_wait(broker: EmbeddedBroker) -> None:
    seen, late = list[Delivery](), list[Delivery]()
    async with client(broker, "a") as a, client(broker, "b") as b:
        await b.subscribe("x/+", seen.append)
        for number in range(30):
            await a.publish(f"x/{number}", bytes([number]), retain=number == 7)
        await until(lambda: len(seen) == 30)
        assert [delivery.payload[0] for delivery in seen] == list(range(30))
        await a.subscribe("x/#", late.append)
        await until(lambda: late)
        assert late == [Delivery("x/7", b"\x07", retained=True)]
        await a.publish("x/7", b"", retain=True)
        async with client(broker, "c") as c:
            nothing = list[Delivery]()
            await c.subscribe("x/7", nothing.append)
            await c.publish("x/7", b"live")
            await until(lambda: nothing)
            assert nothing == [Delivery("x/7", b"live", retained=False)]


async def test_a_cancelled_subscription_is_silent(broker: EmbeddedBroker) -> None:
    kept, gone = list[Delivery](), list[Delivery]()
    async with client(broker, "a") as a:
        first = await a.subscribe("x", gone.append)
        await a.subscribe("y", kept.append)
        await first.cancel()
        await first.cancel()
        await a.publish("x", b"")
        await a.publish("y", b"")
        await until(lambda: kept)
    assert not gone


KILLED = """
import asyncio, sys
from broker.address import BrokerAddress
from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Will

async def main():
    settings = MqttSettings((BrokerAddress.parse(sys.argv[1]),), "killed", will=Will("will/killed", b"lost"))
    async with MqttTransport(settings, sleep=asyncio.sleep, uniform=lambda: 0.1) as transport:
        await transport.publish("will/killed", b"here", retain=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_program_leaves_its_will(broker: EmbeddedBroker) -> None:
    seen = list[Delivery]()
    async with client(broker, "watcher") as watcher:
        await watcher.subscribe("will/+", seen.append)
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, broker.url)
        await until(lambda: seen)
        program.kill()
        await program.wait()
        await until(lambda: len(seen) == 2)
    assert [delivery.payload for delivery in seen] == [b"here", b"lost"]


async def test_a_session_keeps_what_came_while_its_program_was_down(broker: EmbeddedBroker) -> None:
    seen = list[Delivery]()
    async with client(broker, "away") as away:
        await away.subscribe("x", seen.append)
    async with client(broker, "b") as b:
        for number in range(5):
            await b.publish("x", bytes([number]))
    again = client(broker, "away")
    await again.subscribe("x", seen.append)
    async with again:
        await until(lambda: len(seen) == 5)
    assert [delivery.payload[0] for delivery in seen] == list(range(5))


@pytest.mark.parametrize("keep_state", [True, False])
async def test_after_a_restart_everything_is_in_its_place(
    broker: EmbeddedBroker, *, keep_state: bool
) -> None:
    seen, connections = list[Delivery](), list[bool]()
    async with client(broker, "a") as a, client(broker, "b") as b:
        a.on_connection(connections.append)
        await b.subscribe("x/+", seen.append)
        await a.publish("x/state", b"kept", retain=True)
        await until(lambda: seen)
        await broker.restart(keep_state=keep_state)
        await until(lambda: connections == [True, False, True])
        await until(lambda: b.connected)
        await a.publish("x/news", b"")
        await until(lambda: seen[-1].topic == "x/news")
        late = list[Delivery]()
        async with client(broker, "c") as c:
            await c.subscribe("x/state", late.append)
            await until(lambda: late)
    assert late[0].payload == b"kept"


async def test_a_broker_that_is_not_there_yet_is_waited_for(broker: EmbeddedBroker) -> None:
    os.kill(broker.pid, signal.SIGSTOP)
    waiting = asyncio.create_task(client(broker, "early").__aenter__())
    await asyncio.sleep(0.1)
    os.kill(broker.pid, signal.SIGCONT)
    early = await waiting
    assert early.connected
    await early.__aexit__(None, None, None)


async def test_a_second_address_takes_over(broker: EmbeddedBroker) -> None:
    nobody = BrokerAddress("127.0.0.1", 9, user="x", password="x")
    settings = MqttSettings((nobody, broker.address), "a")
    async with MqttTransport(settings, sleep=CLOCK.sleep, uniform=lambda: 0.01) as a:
        assert a.connected


async def test_a_wrong_password_is_an_error_with_its_fix(broker: EmbeddedBroker) -> None:
    wrong = BrokerAddress(broker.address.host, broker.address.port, user="fedfleet", password="hidden")
    with pytest.raises(RefusedError, match="correct user and password") as refusal:
        async with client_at(wrong, "a"):
            pass
    assert "hidden" not in str(refusal.value)


async def test_giving_up_on_an_absent_broker_leaves_nothing_behind() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), client_at(BrokerAddress("127.0.0.1", 9), "a"):
            pass


async def test_a_publish_during_a_loss_fails_in_time_or_is_delivered(broker: EmbeddedBroker) -> None:
    async with client(broker, "a") as a:
        os.kill(broker.pid, signal.SIGSTOP)
        publishing = asyncio.create_task(a.publish("x", b"1"))
        await asyncio.sleep(0.1)
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(TransportError):
            await publishing
        await broker.restart(keep_state=True)
        await a.publish("x", b"2")


async def test_what_exceeds_the_limit_never_leaves(broker: EmbeddedBroker) -> None:
    async with client(broker, "a") as a:
        with pytest.raises(MisuseError, match="limit"):
            await a.publish("x", bytes(a.settings.max_payload + 1))
        await a.publish("x", bytes(a.settings.max_payload))


# Large contents.


async def test_a_content_reaches_every_device_over_a_restart(broker: EmbeddedBroker) -> None:
    async with contextlib.AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(client(broker, "coordinator"))
        await publish_blob(coordinator, TOPICS, CONTENT, REF)
        devices = [await stack.enter_async_context(client(broker, f"d{n}", clean=True)) for n in range(4)]
        fetches = [
            asyncio.create_task(fetch_blob(device, TOPICS, REF, clock=CLOCK, patience=0.5))
            for device in devices
        ]
        await broker.restart(keep_state=False)
        for fetched in fetches:
            assert await fetched == CONTENT


async def test_uploads_by_credit_survive_a_restart(broker: EmbeddedBroker) -> None:
    async with contextlib.AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(client(broker, "coordinator"))

        async def grant(device: DeviceId, sha256: bytes, indices: tuple[int, ...]) -> None:
            await coordinator.publish(TOPICS.inbox(device), msgspec.msgpack.encode((sha256, indices)))

        receiver = await stack.enter_async_context(
            UploadReceiver(
                coordinator, TOPICS, "0", grant, clock=CLOCK, max_assembling=2, window=2, patience=0.5
            )
        )
        names = [DeviceId(f"d{number}") for number in range(5)]
        contents = {name: name.encode() * 500_000 for name in names}
        refs = {name: describe(content) for name, content in contents.items()}
        for name in names:
            device = await stack.enter_async_context(client(broker, name, clean=True))
            await hear_grants(device, name, contents[name], refs[name])
        uploads = [asyncio.create_task(receiver.receive(name, refs[name])) for name in names]
        await until(lambda: receiver.counts.accepted >= 3)
        await broker.restart(keep_state=False)
        for name, upload in zip(names, uploads, strict=True):
            assert await upload == contents[name]
        assert receiver.counts.rejected == 0


async def hear_grants(device: MqttTransport, name: DeviceId, content: bytes, ref: BlobRef) -> None:
    uploader = Uploader(device, TOPICS, "0", name, content, ref, clock=CLOCK)
    sends = set[asyncio.Task[None]]()

    def granted(delivery: Delivery) -> None:
        _, indices = msgspec.msgpack.decode(delivery.payload, type=tuple[bytes, tuple[int, ...]])
        sends.add(asyncio.create_task(uploader.granted(indices)))

    await device.subscribe(TOPICS.inbox(name), granted)


# The process itself.


async def test_an_embedded_broker_leaves_no_process_and_no_file(broker: EmbeddedBroker) -> None:
    async with EmbeddedBroker.start(broker.engine) as other:
        pid, folder = other.pid, other._home
        assert folder.stat().st_mode & 0o777 == 0o700
        assert 0 < other.memory() <= other.peak_memory()
        assert (other.address.password or "-") not in repr(other.address)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


ORPHAN = """
import asyncio, sys
from broker.embedded import EmbeddedBroker

async def main():
    async with EmbeddedBroker.start(sys.argv[1]) as broker:
        print(broker.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_an_embedded_broker_dies_with_its_program(broker: EmbeddedBroker, tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", ORPHAN, broker.engine),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert program.stdout is not None
    stat = Path(f"/proc/{int(await program.stdout.readline())}/stat")
    program.kill()
    await program.wait()

    def gone() -> bool:
        # A container without an init process keeps the dead as zombies.
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    await until(gone)


def test_jitter_of_many_clients_differs() -> None:
    waits = {SeededEntropy(seed).uniform() for seed in range(100)}
    assert len(waits) == 100
