"""A whole fleet as processes on this machine: broker, coordinator and agents, until the run has ended.

It knows of the rounds what stands on the status topics; `fedfleet demo` and `fedfleet try` add their own.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Coroutine, Sequence

from console.children import Child, Children
from console.fleet_view import FleetView, News
from console.outputs import REFRESH_SECONDS, Output
from console.run_files import RunFiles
from console.serve_broker import READY, USERNAME, password_in
from console.watching import listening, watching_transport
from protocol.ids import DeviceId
from protocol.status import CoordinatorStatus
from runtime.config import PREFIX, BrokerSettings
from runtime.secret import SecretStr

EXIT_OK = 0
EXIT_NOTHING = 1
"""Not one round was committed."""
EXIT_TERMINATED = 128 + signal.SIGTERM

BROKER_SECONDS = 20.0
"""Within which the broker is ready."""
LOOK_AGAIN_SECONDS = 0.1
"""Between two looks at whether all processes live."""
STALL_SECONDS = 120.0
"""Without news from anybody, the run is given up."""
FAREWELL_SECONDS = 2.0
"""Within which the last status of a coordinator that has ended arrives."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A dozen processes share the cores already."""


class LocalRun:
    """One run. What differs between runs is in the methods that have no underscore in front.

    Args:
        fleet: its name.
        files: with identities in place.
        view: filled from the status topics.
        output: where it is shown.
    """

    def __init__(self, fleet: str, files: RunFiles, view: FleetView, output: Output) -> None:
        self._fleet = fleet
        self._files = files
        self._view = view
        self._output = output
        self._agents: dict[DeviceId, Child] = {}
        self._heard = time.monotonic()
        self._farewell = asyncio.Event()

    def coordinator_options(self) -> Sequence[str]:
        """Of its command line, beside where everything is."""
        return ()

    def agent_options(self, name: str) -> Sequence[str]:
        """Likewise, an agent's."""
        raise NotImplementedError

    def expects(self, device: DeviceId) -> bool:  # noqa: ARG002 (for those that override it)
        """Whether the device's process should be there."""
        return True

    def heard(self, news: News) -> None:
        """A status said something new."""

    async def between_looks(self, children: Children, coordinator: Child) -> None:
        """Called again and again while the coordinator runs."""

    async def conclude(self, children: Children) -> None:  # noqa: ARG002 (for those that override it)
        """The coordinator has ended, and at least one round was committed."""
        shutil.copyfile(self._files.of("coordinator") / "state" / "model.onnx", self._files.model)

    async def run(self) -> None:
        """From the broker's start to the end of everything."""
        refreshing = asyncio.create_task(self._refresh())
        try:
            await self._run()
        finally:
            refreshing.cancel()

    async def _refresh(self) -> None:
        while True:
            self._output.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def _run(self) -> None:
        password = password_in(self._files.work / "broker.password")
        async with Children(self._files.logs, _environment(password)) as children:
            broker = await self._start_broker(children)
            transport = watching_transport(
                BrokerSettings((broker,), username=USERNAME, password=SecretStr(password))
            )
            async with listening(transport, self._fleet, self._view, self._news):
                coordinator = await self._start_fleet(children, broker)
                await self._follow(children, coordinator)
            await children.stop([coordinator, *self._agents.values()])
            if self._view.committed:
                await self.conclude(children)

    # Starting.

    async def _start_broker(self, children: Children) -> str:
        file = self._files.work / "broker.password"
        arguments = ("broker", "--port", "0", "--username", USERNAME, "--password-file", str(file))
        # Orphaned it ends in order, as it has a process of its own and a folder to clear away.
        broker = await children.start("broker", "console", *arguments, orphaned=signal.SIGTERM)
        return (await broker.says(READY, BROKER_SECONDS)).split()[0]

    async def _start_fleet(self, children: Children, broker: str) -> Child:
        files = self._files
        coordinator = await children.start(
            "coordinator",
            "console",
            "coordinator",
            *self._common(broker, "coordinator"),
            *("--plan", str(files.plan_file), "--start-when", str(len(files.devices))),
            *self.coordinator_options(),
        )
        for name in files.devices:
            arguments = [*self._common(broker, name), *self.agent_options(name)]
            self._agents[DeviceId(name)] = await children.start(name, "console", "agent", *arguments)
        text = f"{len(self._agents)} agents, a coordinator and a broker at {broker}; logs in {files.logs}"
        fields = {"devices": len(self._agents), "rounds": files.plan.stopping.rounds, "broker": broker}
        self._output.event("started", text, {**fields, "folder": str(files.folder)})
        return coordinator

    def _common(self, broker: str, name: str) -> list[str]:
        own = self._files.of(name)
        login = ["--fleet", self._fleet, "--broker", broker, "--username", USERNAME]
        return [*login, "--identity", str(own / "identity"), "--state", str(own / "state")]

    # While rounds run.

    async def _follow(self, children: Children, coordinator: Child) -> None:
        """Show the run until the coordinator has ended."""
        while not coordinator.ended:
            self._check_agents(coordinator)
            await self.between_looks(children, coordinator)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        if coordinator.process.returncode:
            coordinator.check()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._farewell.wait(), FAREWELL_SECONDS)

    def _check_agents(self, coordinator: Child) -> None:
        for device, agent in self._agents.items():
            if self.expects(device):
                agent.check()
        if time.monotonic() - self._heard > STALL_SECONDS:
            raise coordinator.failed(f"and everybody else fell silent for {STALL_SECONDS:g} s")

    def _news(self, news: News) -> None:
        self._heard = time.monotonic()
        self._output.news(news)
        if isinstance(news.status, CoordinatorStatus) and news.status.state != "online":
            self._farewell.set()
        self.heard(news)


async def until_terminated(work: Coroutine[None, None, None]) -> None:
    """Run it; SIGTERM cancels it."""
    running = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await running


def _environment(password: str) -> dict[str, str]:
    """Ours without settings that are meant for other programs; the password stands on no command line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**inherited, **_ONE_THREAD, f"{PREFIX}BROKER__PASSWORD": password}
