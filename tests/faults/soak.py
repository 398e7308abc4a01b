"""Programs of a real fleet are killed, stopped and started again at random for as long as one likes.

Real Mosquitto, the real coordinator, real agents in processes of their own whose training is known, so that
every sum can be checked. In the end everything is left alone: a round must then be committed.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.fault_fleet import FaultFleet, empty_folder
from faults.known_training import device_name
from faults.ledger import Verdict, judge
from real_fleet import Program
from tiny_plan import plan_text

from protocol.status import RoundResult

DEADLINE = 10.0
"""Seconds of a phase at most."""

STUCK = 6 * DEADLINE + 60.0
"""Seconds without the end of a round after which something is stuck: its phases, and all programs anew."""

BETWEEN = (0.3, 3.0)
"""Seconds between two faults."""

AWAY = (0.1, 4.0)
"""Seconds until what was killed or stopped is back."""

WEIGHTS = {"broker": 1.0, "coordinator": 0.8, "device": 6.0}
"""How often each is hit, relatively."""

Say = Callable[..., None]
"""Told the name of an event and its fields."""


@dataclass(frozen=True)
class Sample:
    """What the coordinator's process uses."""

    process: int
    time: float
    rss_mb: float
    files: int


@dataclass
class Soak:
    """One soak.

    Args:
        fleet: entered, nothing started.
        devices: how many.
        seed: of what happens when; what comes of it depends on the machine.
        say: told of every fault.
    """

    fleet: FaultFleet
    devices: int
    seed: int
    say: Say
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stuck: int = 0
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._running = dict[str, Program]()
        self._busy = set[str]()
        self._last = (0, time.monotonic())

    async def run(self, seconds: float, stop: asyncio.Event) -> Verdict:
        """Hurt for so long, or until `stop`; then heal, end and judge."""
        await self._start_everything()
        ends = time.monotonic() + seconds
        async with asyncio.TaskGroup() as hurting:
            while time.monotonic() < ends and not stop.is_set() and self._goes_on():
                await asyncio.sleep(self._random.uniform(*BETWEEN))
                self._look()
                if actor := self._victim():
                    hurting.create_task(self._hurt(actor))
        await self._heal()
        return await self._end()

    async def _start_everything(self) -> None:
        self._running["coordinator"] = await self.fleet.start_coordinator(start_when=3)
        self._running |= await self.fleet.start_agents(*map(device_name, range(1, self.devices + 1)))
        await self.fleet.sees_result(1)

    # Hurting.

    def _victim(self) -> str:
        kind = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        number = self._random.randint(1, self.devices)
        actor = device_name(number) if kind == "device" else kind
        return "" if actor in self._busy else actor

    async def _hurt(self, actor: str) -> None:
        self._busy.add(actor)
        away, chance = self._random.uniform(*AWAY), self._random.random()
        if actor == "broker":
            keep = chance < 0.5
            self._note("restart keeping" if keep else "kill forgetting", actor)
            await self.fleet.broker.restart(keep_state=keep)
        elif chance < 0.3:
            self._note("stop", actor)
            self._running[actor].pause()
            await asyncio.sleep(away)
            self._running[actor].process.send_signal(signal.SIGCONT)
        else:
            self._note("kill", actor)
            await self._running[actor].kill()
            await asyncio.sleep(away)
            await self._start_again(actor)
        self._busy.remove(actor)

    def _note(self, what: str, actor: str) -> None:
        kind = actor if actor in WEIGHTS else "device"
        self.faults[f"{what} {kind}"] += 1
        self.say("fault", what=what, who=actor)

    async def _start_again(self, actor: str) -> None:
        if actor == "coordinator":
            self._running[actor] = await self.fleet.start_coordinator(start_when=3)
        else:
            self._running |= await self.fleet.start_agents(actor)

    # Watching.

    def _look(self) -> None:
        for actor, program in self._running.items():
            code = program.process.returncode
            if actor in self._busy:
                continue
            if code is not None:
                self.wrong.append(f"{actor} has ended with {code}")
            elif actor == "coordinator":
                self.samples.append(_sample(program.process.pid))

    def _goes_on(self) -> bool:
        over = sum(isinstance(status, RoundResult) for status in self.fleet.watch.latest.values())
        if over > self._last[0]:
            self._last = (over, time.monotonic())
        return not self.wrong and time.monotonic() < self._last[1] + STUCK

    def committed(self) -> int:
        """Rounds that were seen to be committed."""
        latest = self.fleet.watch.latest.values()
        return sum(isinstance(status, RoundResult) and status.result == "committed" for status in latest)

    # Ending.

    async def _heal(self) -> None:
        before, ends = self.committed(), time.monotonic() + STUCK
        while self.committed() == before and not self.wrong:
            if time.monotonic() > ends:
                self.stuck += 1
                return
            self._look()
            await asyncio.sleep(0.2)
        self.say("healed", committed=self.committed())

    async def _end(self) -> Verdict:
        """End the open round by a plan that is fulfilled, so that the books are complete."""
        code = await self._running["coordinator"].terminate()
        (self.fleet.folder / "plan.toml").write_text(plan_text(rounds=1, deadline=DEADLINE))
        last = await self.fleet.start_coordinator()
        codes = (code, await last.ended())
        if any(codes):
            self.wrong.append(f"the coordinator has ended with {codes}")
        await self.fleet.heard_all()
        verdict = judge(self.fleet.ledger, self.fleet.books())
        self.wrong += verdict.wrong
        return verdict

    def longest(self) -> Sequence[Sample]:
        """Samples of the coordinator process that has lived longest, without those of its start."""
        processes = Counter(sample.process for sample in self.samples)
        oldest = processes.most_common(1)[0][0]
        samples = [sample for sample in self.samples if sample.process == oldest]
        return samples[len(samples) // 5 :]


def _sample(process: int) -> Sample:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return Sample(process, time.monotonic(), round(kilobytes / 1024, 1), files)


async def soak(minutes: float, devices: int, seed: int, say: Say, stop: asyncio.Event) -> dict[str, object]:
    """A whole soak; what came of it."""
    began = time.monotonic()
    with empty_folder() as folder:
        plan = plan_text(rounds=1_000_000, deadline=DEADLINE, aborted_in_a_row=1_000_000)
        fleet = FaultFleet(folder, plan)
        one = Soak(fleet, devices, seed, say)
        verdict = Verdict((), 0, 0, 0)
        try:
            async with fleet:
                verdict = await one.run(minutes * 60, stop)
        except AssertionError as complaints:
            one.wrong.append(str(complaints)[-2000:])
        except TimeoutError:
            one.stuck += 1
    for sentence in one.wrong:
        say("wrong", what=sentence)
    return {
        "minutes": round((time.monotonic() - began) / 60, 2),
        "seed": seed,
        "kills": sum(one.faults.values()),
        "faults": dict(one.faults),
        "committed": verdict.committed,
        "checked": verdict.checked,
        "aborted": verdict.aborted,
        "wrong": len(one.wrong),
        "stuck": one.stuck,
        **(_growth(one.longest()) if one.samples else {}),
    }


def _growth(samples: Sequence[Sample]) -> dict[str, object]:
    first, last = samples[0], samples[-1]
    return {
        "rss_mb": [first.rss_mb, last.rss_mb],
        "files": [first.files, last.files],
        "over_s": round(last.time - first.time),
    }
