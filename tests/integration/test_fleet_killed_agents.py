"""An agent killed in every phase of a round: the sum is exact over its survivors, and the next one comes.

Four agents run in the test (`Puppet`), with updates that are known; what one of them says is held back, so
that a phase stays open for as long as it takes to stop the fifth, a process of its own, and to kill it.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from real_fleet import Program, RealFleet
from real_puppets import Puppet, plain_mean
from tiny_plan import plan_text

from broker.embedded import Engine
from protocol.ids import DeviceId
from protocol.messages import Confirmation, FromDevice, Reveal, RoundKeys, SealedShares, UploadOffer
from protocol.status import RoundResult

pytestmark = pytest.mark.broker

VICTIM_EXAMPLES = 20
TOLERANCE = 2e-6
"""Of the mean: float32 weights near 1 and 32-bit fixed point."""


@dataclass
class Scene:
    """Four puppets and one victim, in a fleet whose victim trains without moving."""

    fleet: RealFleet
    puppets: list[Puppet]
    victim: Program

    @property
    def slow(self) -> Puppet:
        """The puppet whose words are held back."""
        return self.puppets[0]

    async def kill_victim(self) -> None:
        await self.victim.kill()
        await self.fleet.sees_device("victim", "lost", boot=1)

    async def both_rounds_are_exact(self, *, victim_counts: bool, dropouts: int) -> None:
        """The first with or without the victim's update, which is zero; the second without the victim."""
        await self.fleet.sees_coordinator("finished")
        first, second = self.fleet.results()
        assert (first.result, second.result) == ("committed", "committed"), first.reason or second.reason
        assert (first.survivors, first.dropouts) == (5 if victim_counts else 4, dropouts)
        assert (second.survivors, second.dropouts) == (4, 0)
        initial, after_first = self.puppets[0].worker.received
        after_second = self.fleet.kept().vector
        mean = plain_mean(self.puppets, VICTIM_EXAMPLES if victim_counts else 0)
        np.testing.assert_allclose(after_first - initial, mean, atol=TOLERANCE)
        np.testing.assert_allclose(after_second - after_first, plain_mean(self.puppets), atol=TOLERANCE)


@asynccontextmanager
async def scene(
    folder: Path,
    engine: Engine = "mosquitto",
    *,
    features: int = 4,
    prepare: Callable[[Scene], None] = lambda _scene: None,
    **victim: str,
) -> AsyncIterator[Scene]:
    plan = plan_text(rounds=2, features=features, learning_rate=1e-9)
    async with RealFleet(folder, engine, plan) as fleet, AsyncExitStack() as stack:
        fleet.enrol("victim", VICTIM_EXAMPLES, features)
        await fleet.start_coordinator(start_when=5)
        programs = await fleet.start_agents("victim", **victim)
        await fleet.watch.until("the victim's offer", lambda: _on_offer(fleet) == 1)
        puppets = [Puppet(fleet, f"p{number}", number) for number in range(1, 5)]
        opened = Scene(fleet, puppets, programs["victim"])
        prepare(opened)
        for puppet in puppets:
            await stack.enter_async_context(puppet)
        yield opened


def _on_offer(fleet: RealFleet) -> int:
    status = fleet.watch.latest.get(fleet.topics.coordinator_status)
    return getattr(status, "devices", 0)


async def test_killed_when_invited(tmp_path: Path) -> None:
    async with scene(tmp_path, prepare=lambda scene: scene.victim.pause()) as played:
        await played.fleet.sees_round(1, phase="inviting", accepted=4)
        await played.kill_victim()
        await played.both_rounds_are_exact(victim_counts=False, dropouts=0)


async def test_killed_while_training(tmp_path: Path) -> None:
    data = tmp_path / "victim" / "data.npz"

    def starve(_scene: Scene) -> None:
        """Nobody ever writes into this data file, so reading it never ends."""
        data.unlink()
        os.mkfifo(data)

    async with scene(tmp_path, prepare=starve) as played:
        await played.fleet.sees_round(1, phase="keying", accepted=5, trained=4)
        await played.kill_victim()
        await played.both_rounds_are_exact(victim_counts=False, dropouts=0)
    with pytest.raises(OSError, match="No such device"):  # no reader: its training process went with it
        os.open(data, os.O_WRONLY | os.O_NONBLOCK)


@dataclass(frozen=True)
class Death:
    """What is held back at one device until the victim has answered, and how the victim then dies.

    Attributes:
        held: of the slow puppet.
        answered: which count of the round shows that everybody else has answered.
        silent_in: phase in which the victim is then missed, and killed.
        victim_counts: whether its update is in the sum.
        dropouts: members whose masks must be recovered.
    """

    held: type[FromDevice]
    answered: str
    silent_in: str
    victim_counts: bool
    dropouts: int


DEATHS = [
    Death(RoundKeys, "trained", "sharing", victim_counts=False, dropouts=0),
    Death(SealedShares, "shared", "collecting", victim_counts=False, dropouts=1),
    Death(UploadOffer, "uploaded", "confirming", victim_counts=True, dropouts=0),
]


@pytest.mark.parametrize("engine", ["mosquitto", "nats"])
@pytest.mark.parametrize("death", DEATHS, ids=["keyed", "shared", "collected"])
async def test_killed_before_it_can_answer_a_decision(tmp_path: Path, engine: Engine, death: Death) -> None:
    async with scene(tmp_path, engine) as played:
        slow, fleet = played.slow, played.fleet
        slow.gate.hold(death.held)
        await slow.gate.knocked()
        await fleet.sees_round(1, **{death.answered: 4})
        played.victim.pause()
        slow.gate.open()
        await fleet.sees_round(1, phase=death.silent_in)
        await played.kill_victim()
        await played.both_rounds_are_exact(victim_counts=death.victim_counts, dropouts=death.dropouts)


async def test_killed_in_the_middle_of_its_upload(tmp_path: Path) -> None:
    # 100,000 parameters for each class are five chunks, of which the victim sends one every four seconds.
    async with scene(tmp_path, features=100_000, UPLOAD_BYTES_PER_SECOND="65536") as played:
        await played.fleet.hears(played.fleet.topics.upload("main", DeviceId("victim")))
        await played.kill_victim()
        await played.both_rounds_are_exact(victim_counts=False, dropouts=1)


async def test_killed_when_confirmed_before_it_reveals(tmp_path: Path) -> None:
    async with scene(tmp_path) as played:
        slow, fleet = played.slow, played.fleet
        slow.gate.hold(Confirmation)
        await fleet.sees_round(1, confirmed=4)
        played.victim.pause()
        slow.gate.open()
        slow.gate.hold(Reveal)
        # Three have revealed; with a threshold of three their own secrets still lack a share.
        await fleet.sees_round(1, phase="recovering", revealed=3)
        await played.kill_victim()
        slow.gate.open()
        await played.both_rounds_are_exact(victim_counts=True, dropouts=0)


async def test_too_many_killed_abort_the_round_with_its_reason(tmp_path: Path) -> None:
    plan = plan_text(rounds=1, aborted_in_a_row=3, min_cohort=4)
    async with RealFleet(tmp_path, plan=plan) as fleet:
        await fleet.start_coordinator(start_when=5)
        agents = await fleet.start_agents("d1", "d2", "d3", "d4")
        async with Puppet(fleet, "p1", 1) as slow:
            slow.gate.hold(SealedShares)
            await fleet.sees_round(1, phase="sharing", shared=4)
            for name in ("d1", "d2"):
                await agents[name].kill()
                await fleet.sees_device(name, "lost")
            slow.gate.open()
            result = await fleet.sees_result(1)
            assert isinstance(result, RoundResult)
            assert (result.result, result.reason) == ("aborted", "3 devices uploaded; 4 are needed")
            await fleet.start_agents("d1", "d2")
            await fleet.sees_coordinator("finished", why="1 rounds are committed")
    assert [one.result for one in fleet.results()][-1] == "committed"
