"""One demo: processes, kills, baselines, picture. It knows of the rounds what stands on the status topics."""

import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from console.children import Child, Children
from console.demo_files import FLEET, DemoFiles
from console.fleet_view import FleetView, News, accuracy
from console.kill_policy import Kill, is_moment, schedule
from console.local_run import LocalRun
from console.outputs import Output
from console.plan_check import check_plan
from protocol.ids import DeviceId
from protocol.phases import Phase

VICTIM_UPLOAD_SECONDS = 0.7
"""A victim's link is so slow that its update takes this long: long enough to be killed in the middle."""


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


class Demo(LocalRun):
    """One demo.

    Args:
        options: what the user asked for.
        files: made for it.
        view: filled from the status topics.
        output: where it is shown.
    """

    def __init__(self, options: DemoOptions, files: DemoFiles, view: FleetView, output: Output) -> None:
        super().__init__(FLEET, files, view, output)
        self._options = options
        self._demo_files = files
        devices = [DeviceId(name) for name in files.devices]
        self._planned = schedule(devices, options.drop, files.plan.stopping.rounds, options.seed)
        self._victims = {kill.device for kill in self._planned}
        self._killed: dict[int, DeviceId] = {}
        self._baselines: dict[str, float] = {}
        self._told_to_end = False

    def coordinator_options(self) -> Sequence[str]:
        """See `LocalRun`."""
        data = str(self._demo_files.evaluation_data)
        return "--evaluation-data", data, "--seed", str(self._options.seed)

    def agent_options(self, name: str) -> Sequence[str]:
        """See `LocalRun`."""
        data = ["--data", str(self._files.of(name) / "data.npz")]
        slow = ["--upload-bytes-per-second", str(self._slow_link())] if name in self._victims else []
        return data + slow

    def _slow_link(self) -> float:
        return check_plan(self._files.plan_file, self._options.devices).bytes_up / VICTIM_UPLOAD_SECONDS

    # While rounds run.

    def expects(self, device: DeviceId) -> bool:
        """See `LocalRun`."""
        return device not in self._killed.values()

    async def between_looks(self, children: Children, coordinator: Child) -> None:
        """See `LocalRun`."""
        if not self._told_to_end and self._too_few_are_left():
            self._told_to_end = True
            await self._end_early(children, coordinator)

    def heard(self, news: News) -> None:  # noqa: ARG002 (the view has it already)
        """See `LocalRun`."""
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

    async def conclude(self, children: Children) -> None:
        """See `LocalRun`."""
        await super().conclude(children)
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
            self._demo_files.plot,
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
            plot=str(self._demo_files.plot) if committed else None,
        )
