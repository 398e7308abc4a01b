"""Real agents in a test's own event loop: what they say can be held back, what they train is known."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from real_fleet import CLOCK, ENTROPY, FLEET, PATIENCE, RealFleet

from broker.address import BrokerAddress
from broker.transport import ConnectionListener, Handler, Payload, Subscription, Transport
from device_agent.app import Agent, equip
from device_agent.settings import AgentSettings, Floors, PrivacySettings
from models.datasets.source import DataSource, NpzSource
from models.installed import ORT_GRAPH
from models.layout import Vector
from models.training_calls import TrainResult
from models.training_process import TrainingWorker
from protocol.frames import Frame
from protocol.messages import FromDevice, decode_from_device
from protocol.plan import Training
from runtime.config import BrokerSettings
from runtime.secret import SecretStr


class KnownWorker(TrainingWorker):
    """Trains nothing: adds a vector that the test knows, and claims a number of examples.

    Args:
        seed: of the vector.
        examples: how many it claims, at most the plan's cap.
    """

    def __init__(self, seed: int, examples: int) -> None:
        super().__init__()
        self.examples = examples
        self.received: list[NDArray[np.float32]] = []
        self._seed = seed

    def delta(self) -> NDArray[np.float32]:
        """What it adds to the weights it has received, float32 (d,), L2 norm 1."""
        vector = np.random.default_rng(self._seed).normal(size=self.received[-1].size)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    async def train(
        self,
        bundle: bytes,  # noqa: ARG002 - what a worker is given
        weights: Vector,
        training: Training,  # noqa: ARG002
        source: DataSource,  # noqa: ARG002
        *,
        seed: int,  # noqa: ARG002
        deadline: float,  # noqa: ARG002
        engine: str = ORT_GRAPH,  # noqa: ARG002
        private: bytes | None = None,  # noqa: ARG002
    ) -> TrainResult:
        self.received.append(weights)
        return TrainResult(
            weights=(weights + self.delta()).tobytes(), examples=self.examples, training_loss=1.0,
            evaluated=4, loss_sum=4.0, correct=2, seconds=0.0,
        )  # fmt: skip


class Gate(Transport):
    """Passes everything on, but holds back what its device says of one kind until it is opened.

    Args:
        inner: the real transport.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._kind: type[FromDevice] | None = None
        self._opened = asyncio.Event()
        self._knocked = asyncio.Event()

    def hold(self, kind: type[FromDevice]) -> None:
        """From now on."""
        self._kind = kind
        self._opened.clear()
        self._knocked.clear()

    async def knocked(self) -> None:
        """Waits until something is held back."""
        async with asyncio.timeout(PATIENCE):
            await self._knocked.wait()

    def open(self) -> None:
        """Lets go what was held back, and all that follows."""
        self._kind = None
        self._opened.set()

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False, expiry: float | None = None
    ) -> None:
        if self._kind is not None and isinstance(said(topic, payload), self._kind):
            self._knocked.set()
            await self._opened.wait()
        await self._inner.publish(topic, payload, qos=qos, retain=retain, expiry=expiry)

    async def subscribe(self, filter: str, handler: Handler, *, qos: int = 1) -> Subscription:  # noqa: A002 (MQTT's word)
        return await self._inner.subscribe(filter, handler, qos=qos)

    def on_connection(self, listener: ConnectionListener) -> None:
        self._inner.on_connection(listener)

    @property
    def connected(self) -> bool:
        return self._inner.connected

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(exc_type, exc, traceback)


def said(topic: str, payload: Payload) -> FromDevice | None:
    """The message on its way to the coordinator, if it is one."""
    if not topic.endswith("/outbox"):
        return None
    return decode_from_device(msgspec.msgpack.decode(payload, type=Frame).body)


class Wire:
    """A cable between one device and the broker, that can be cut. Use it as a context.

    Args:
        to: the broker.
    """

    def __init__(self, to: BrokerAddress) -> None:
        self._to = to
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = True

    @property
    def address(self) -> BrokerAddress:
        """This end of the cable."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return replace(self._to, host="127.0.0.1", port=port)

    def cut(self) -> None:
        """Both ends find the connection gone, and there is no new one until it is mended."""
        self._whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """New connections reach the broker again."""
        self._whole = True

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        broker_reader, broker_writer = await asyncio.open_connection(self._to.host, self._to.port)
        self._writers |= {writer, broker_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, broker_writer))
                group.create_task(_pass_on(broker_reader, writer))
        finally:
            self._writers -= {writer, broker_writer}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


class Puppet:
    """One agent in this process, with its real settings, memory and connection. Use it as a context.

    Args:
        fleet: where it belongs.
        name: of the device.
        number: of its vector and examples.
        address: where it finds the broker; the broker itself when None.
        privacy: what its privacy may cost.
    """

    def __init__(
        self,
        fleet: RealFleet,
        name: str,
        number: int,
        address: BrokerAddress | None = None,
        *,
        privacy: PrivacySettings = PrivacySettings(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name
        self.worker = KnownWorker(number, 10 + number)
        self._settings = _settings(fleet, name, address or fleet.broker.address, privacy)
        self._stop = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        equipment = await self._stack.enter_async_context(equip(self._settings, CLOCK, ENTROPY))
        self.transport = equipment.transport
        self.gate = Gate(equipment.transport)
        self.agent = Agent(replace(equipment, transport=self.gate, worker=self.worker))
        self._task = asyncio.create_task(self.agent.run(self._stop))
        return self

    async def quiet(self) -> None:
        """Waits until it takes part in nothing."""
        task = self.agent._task
        if task is not None:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({task})

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gate.open()
        self._stop.set()
        async with self._stack, asyncio.timeout(PATIENCE):
            await self._task


def _settings(fleet: RealFleet, name: str, address: BrokerAddress, privacy: PrivacySettings) -> AgentSettings:
    folder = fleet.enrol(name)
    broker = BrokerSettings(
        urls=(str(replace(address, user=None, password=None)),),
        username=address.user,
        password=None if address.password is None else SecretStr(address.password),
    )
    return AgentSettings(
        fleet=FLEET,
        broker=broker,
        identity=folder / "identity",
        state=folder / "state",
        data=NpzSource(folder / "data.npz"),
        floors=Floors(min_cohort=3),
        privacy=privacy,
    )


def plain_mean(puppets: list[Puppet], idle_examples: int = 0) -> NDArray[np.float64]:
    """What plain averaging of these devices gives, and of others that changed nothing.

    Args:
        puppets: whose updates count.
        idle_examples: of the others together.
    """
    weights = [puppet.worker.examples for puppet in puppets]
    total = sum(
        (weight * puppet.worker.delta().astype(np.float64))
        for weight, puppet in zip(weights, puppets, strict=True)
    )
    return np.asarray(total) / (sum(weights) + idle_examples)
