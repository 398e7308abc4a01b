"""One demo: processes, kills, baselines, picture. It knows of the rounds what stands on the status topics."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from console.children import Child, Children
from console.demo_files import FLEET, DemoFiles
from console.fleet_view import FleetView, News, accuracy
from console.kill_policy import Kill, is_moment, schedule
from console.outputs import REFRESH_SECONDS, Output
from console.plan_check import check_plan
from console.serve_broker import READY, USERNAME, password_in
from console.watching import listening, watching_transport
from protocol.ids import DeviceId
from protocol.phases import Phase
from protocol.status import CoordinatorStatus
from runtime.config import PREFIX, BrokerSettings
from runtime.secret import SecretStr

BROKER_SECONDS = 20.0
"""Within which the broker is ready."""
LOOK_AGAIN_SECONDS = 0.1
"""Between two looks at whether all processes live."""
STALL_SECONDS = 120.0
"""Without news from anybody, the demo gives up."""
FAREWELL_SECONDS = 2.0
"""Within which the last status of a coordinator that has ended arrives."""
VICTIM_UPLOAD_SECONDS = 0.7
"""A victim's link is so slow that its update takes this long: long enough to be killed in the middle."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A dozen processes share the cores already."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user asked for.

    Attributes:
        devices: agents to start.
        rounds: committed rounds; None leaves it to the plan.
        seed: of first weights and choices.
        drop: agents to kill.
        keep: folder in which everything stays; None keeps model, plot and results in a default one.
    """

    devices: int
    rounds: int | None
    seed: int
    drop: int
    keep: Path | None


class Summary(Struct, frozen=True):
    """The demo's last word.

    Attributes:
        rounds_committed: whose updates are in the model.
        rounds_aborted: without effect.
        devices_killed: by us, in the middle of a round.
        dropouts_recovered: devices whose masks were taken out of a sum by the others' shares.
        accuracy: of the last model on everyone's test data.
        centralised_accuracy: of the same model trained on all data in one place.
        local_only_accuracy: mean over devices that train alone.
        seconds: from the command to here.
        bytes_up_per_device: masked updates of one device that took part in every committed round.
        model: path of the inference model.
        plot: path of the picture.
    """

    rounds_committed: int
    rounds_aborted: int
    devices_killed: int
    dropouts_recovered: int
    accuracy: float | None
    centralised_accuracy: float | None
    local_only_accuracy: float | None
    seconds: float
    bytes_up_per_device: int
    model: str | None
    plot: str | None


class Demo:
    """One demo.

    Args:
        options: what the user asked for.
        files: made for it.
        view: filled from the status topics.
        output: where it is shown.
    """

    def __init__(self, options: DemoOptions, files: DemoFiles, view: FleetView, output: Output) -> None:
        self._options = options
        self._files = files
        self._view = view
        self._output = output
        self._agents: dict[DeviceId, Child] = {}
        devices = [DeviceId(name) for name in files.devices]
        self._planned = schedule(devices, options.drop, files.plan.stopping.rounds, options.seed)
        self._victims = {kill.device for kill in self._planned}
        self._killed: dict[int, DeviceId] = {}
        self._baselines: dict[str, float] = {}
        self._heard = time.monotonic()
        self._farewell = asyncio.Event()

    async def run(self) -> None:
        """Rounds, then baselines, model and picture."""
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
            async with listening(transport, FLEET, self._view, self._news):
                coordinator = await self._start_fleet(children, broker)
                await self._follow(children, coordinator)
            await children.stop([coordinator, *self._agents.values()])
            if self._view.committed:
                await self._conclude(children)

    # Starting.

    async def _start_broker(self, children: Children) -> str:
        file = self._files.work / "broker.password"
        arguments = ("broker", "--port", "0", "--username", USERNAME, "--password-file", str(file))
        # Orphaned it ends in order, as it has a process of its own and a folder to clear away.
        broker = await children.start("broker", "console", *arguments, orphaned=signal.SIGTERM)
        return (await broker.says(READY, BROKER_SECONDS)).split()[0]

    async def _start_fleet(self, children: Children, broker: str) -> Child:
        files, options = self._files, self._options
        coordinator = await children.start(
            "coordinator",
            "console",
            "coordinator",
            *_common(files, broker, "coordinator"),
            *("--plan", str(files.plan_file), "--evaluation-data", str(files.evaluation_data)),
            *("--start-when", str(options.devices), "--seed", str(options.seed)),
        )
        for name in files.devices:
            arguments = [*_common(files, broker, name), "--data", str(files.of(name) / "data.npz")]
            if name in self._victims:
                arguments += ["--upload-bytes-per-second", str(self._slow_link())]
            self._agents[DeviceId(name)] = await children.start(name, "console", "agent", *arguments)
        text = f"{len(self._agents)} agents, a coordinator and a broker at {broker}; logs in {files.logs}"
        fields = {"devices": len(self._agents), "rounds": files.plan.stopping.rounds, "broker": broker}
        self._output.event("started", text, {**fields, "folder": str(files.folder)})
        return coordinator

    def _slow_link(self) -> float:
        return check_plan(self._files.plan_file, self._options.devices).bytes_up / VICTIM_UPLOAD_SECONDS

    # While rounds run.

    async def _follow(self, children: Children, coordinator: Child) -> None:
        """Show the run until the coordinator has ended."""
        told_to_end = False
        while not coordinator.ended:
            self._check_agents(coordinator)
            if not told_to_end and self._too_few_are_left():
                told_to_end = True
                await self._end_early(children, coordinator)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        if coordinator.process.returncode:
            coordinator.check()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._farewell.wait(), FAREWELL_SECONDS)

    def _check_agents(self, coordinator: Child) -> None:
        for device, agent in self._agents.items():
            if device not in self._killed.values():
                agent.check()
        if time.monotonic() - self._heard > STALL_SECONDS:
            raise coordinator.failed(f"and everybody else fell silent for {STALL_SECONDS:g} s")

    def _news(self, news: News) -> None:
        self._heard = time.monotonic()
        self._output.news(news)
        if isinstance(news.status, CoordinatorStatus) and news.status.state != "online":
            self._farewell.set()
        status = self._view.round
        if self._planned and is_moment(self._planned[0], self._view, max(self._killed, default=0)):
            self._kill(self._planned.pop(0), 0 if status is None else status.round)

    def _kill(self, kill: Kill, number: int) -> None:
        self._agents[kill.device].process.send_signal(signal.SIGKILL)
        self._killed[number] = kill.device
        phase = self._view.round.phase if self._view.round else ""
        text = f"{kill.device} killed while round {number} was {phase}"
        self._output.event("killed", text, {"device": kill.device, "round": number, "phase": phase})
        self._output.note(number, f"{kill.device} killed")

    def _too_few_are_left(self) -> bool:
        """Whether our kills have made another round impossible; the open one may still end well."""
        status = self._view.round
        left = len(self._agents) - len(self._killed)
        return (
            left < self._files.plan.selection.min_cohort
            and status is not None
            and status.round in self._view.results
            and status.phase in {Phase.COMMITTED, Phase.ABORTED}
        )

    async def _end_early(self, children: Children, coordinator: Child) -> None:
        left = len(self._agents) - len(self._killed)
        text = (
            f"{left} devices are left, the plan wants {self._files.plan.selection.min_cohort}: no more rounds"
        )
        self._output.event("exhausted", text, {"devices": left})
        await children.stop([coordinator])

    # Afterwards.

    async def _conclude(self, children: Children) -> None:
        shutil.copyfile(self._files.of("coordinator") / "state" / "model.onnx", self._files.model)
        text = "for comparison: the same model trained on all data in one place, and by each device alone"
        self._output.event("comparing", text, {})
        kinds = ("centralised", "local-only")
        results = await asyncio.gather(*(self._baseline(children, kind) for kind in kinds))
        self._baselines = dict(zip(kinds, results, strict=True))
        await asyncio.to_thread(self._draw)

    async def _baseline(self, children: Children, kind: str) -> float:
        options, files = self._options, self._files
        file = files.work / f"{kind}.json"
        arguments = (kind, str(files.plan_file), str(options.devices), str(options.seed), str(file))
        child = await children.start(kind, "console.baselines", *arguments)
        if await child.process.wait():
            child.check()
        return float(json.loads(file.read_text()))

    def _draw(self) -> None:
        from console.plot import draw_accuracy  # noqa: PLC0415 (a second of loading that the rounds do not want)

        judged = [(one.round, value) for one in self._view.committed if (value := accuracy(one)) is not None]
        draw_accuracy(
            self._files.plot,
            [number for number, _ in judged],
            [value for _, value in judged],
            {
                "all data in one place": self._baselines["centralised"],
                "each alone": self._baselines["local-only"],
            },
            self._killed,
        )

    def summary(self, seconds: float) -> Summary:
        """What came of it."""
        committed = self._view.committed
        return Summary(
            rounds_committed=len(committed),
            rounds_aborted=len(self._view.aborted),
            devices_killed=len(self._killed),
            dropouts_recovered=sum(one.dropouts for one in committed),
            accuracy=accuracy(committed[-1]) if committed else None,
            centralised_accuracy=self._baselines.get("centralised"),
            local_only_accuracy=self._baselines.get("local-only"),
            seconds=round(seconds, 1),
            bytes_up_per_device=sum(one.bytes_up for one in committed),
            model=str(self._files.model) if committed else None,
            plot=str(self._files.plot) if committed else None,
        )


def _environment(password: str) -> dict[str, str]:
    """Ours without settings that are meant for other programs; the password stands on no command line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**inherited, **_ONE_THREAD, f"{PREFIX}BROKER__PASSWORD": password}


def _common(files: DemoFiles, broker: str, name: str) -> list[str]:
    own = files.of(name)
    login = ["--fleet", FLEET, "--broker", broker, "--username", USERNAME]
    return [*login, "--identity", str(own / "identity"), "--state", str(own / "state")]
