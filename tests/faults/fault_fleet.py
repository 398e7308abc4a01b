"""A real fleet whose coordinator may run under strace, and whose every word for machines is written down."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from faults.device_process import order_of
from faults.known_training import KnownTraining, device_name
from faults.ledger import Books, Ledger
from real_fleet import CLOCK, ENTROPY, FLEET, Program, RealFleet
from real_puppets import Gate, Puppet

from device_agent.app import Agent, equip
from protocol.certificates import Role
from protocol.frames import seal_frame
from protocol.ids import ORIGIN
from protocol.messages import HighWater
from protocol.status import CoordinatorStatus


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder that goes with the test, by the name that the kernel knows it by."""
    with tempfile.TemporaryDirectory(prefix="fedfleet-faults-") as folder:
        yield Path(folder).resolve()


_TESTS = Path(__file__).parent.parent


class FaultFleet(RealFleet):
    """See there; its agents train what is known.

    Args:
        folder: an empty one.
        plan: see `plan_text`.

    Attributes:
        ledger: everything that was said for machines.
    """

    def __init__(self, folder: Path, plan: str) -> None:
        super().__init__(folder, "mosquitto", plan)
        self.ledger = Ledger()
        self._before: Sequence[str] = ()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.user.subscribe(f"flw/1/{FLEET}/#", self.ledger.take)
        return self

    async def start_under(self, before: Sequence[str]) -> Program:
        """Start the coordinator behind other words: strace and its arguments."""
        self._before = before
        return await self.start_coordinator(start_when=5)

    async def know_the_beginning(self) -> None:
        """Leave the mark of a coordinator that has done nothing: the first one need not wait for any."""
        signer = self.authority.issue("coordinator-earlier", Role.COORDINATOR, 1)
        await self.user.publish(self.topics.high_water, seal_frame(signer, HighWater(ORIGIN, 0)), retain=True)

    async def heard_all(self) -> None:
        """Waits until everything that the broker has had by now is in the ledger."""
        mark = f"flw/1/{FLEET}/mark"
        sending = set[asyncio.Task[None]]()
        await self.hears(mark, after=lambda: sending.add(asyncio.create_task(self.user.publish(mark, b""))))

    def books(self) -> Books:
        """What the coordinator has stored; it must not be writing."""
        return Books.read(self.coordinator_state)

    def excuse(self, event: str) -> None:
        """Strike from the logs what is an error elsewhere and is wanted here."""
        for log in self._logs():
            lines = log.read_text().splitlines(keepends=True)
            log.write_text("".join(line for line in lines if f'"{event}"' not in line))

    def has_shown(self, why: str) -> bool:
        """Whether the coordinator has ever said that it waits for this."""
        shown = (status for _, status in self.watch.history if isinstance(status, CoordinatorStatus))
        return any(status.why.startswith(why) for status in shown)

    # Compiled modules are files, too: which are written at a start must not change from one to the next.
    more_environment: ClassVar[Mapping[str, str]] = {
        "PYTHONPATH": os.pathsep.join([str(_TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def command(self, module: str) -> Sequence[str]:
        """With what the next program is to be started under, and agents whose training is known."""
        before, self._before = self._before, ()
        own = {"device_agent": "faults.device_process"}.get(module, module)
        return (*before, *super().command(own))


class Witness(Puppet):
    """A device in this process, with known training.

    Args:
        fleet: where it belongs.
        number: of its training.
    """

    def __init__(self, fleet: RealFleet, number: int) -> None:
        super().__init__(fleet, device_name(number), number)
        self.training = KnownTraining(self.name, lambda: order_of(self.agent))

    async def __aenter__(self) -> Self:
        equipment = await self._stack.enter_async_context(equip(self._settings, CLOCK, ENTROPY))
        self.transport = equipment.transport
        self.gate = Gate(equipment.transport)
        self.agent = Agent(replace(equipment, transport=self.gate, worker=self.training))
        self._task = asyncio.create_task(self.agent.run(self._stop))
        return self


@asynccontextmanager
async def witnesses(fleet: RealFleet, count: int = 5) -> AsyncIterator[list[Witness]]:
    """Devices with known training, numbered from one."""
    async with AsyncExitStack() as stack:
        made = [Witness(fleet, number) for number in range(1, count + 1)]
        for witness in made:
            await stack.enter_async_context(witness)
        yield made
