"""A coordinator's state that is old, copied, in use twice, or of another plan than it was."""

import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from real_fleet import Program, RealFleet
from real_puppets import Puppet, plain_mean
from tiny_plan import plan_text

from coordinator.state import JOURNAL_FILE
from protocol.messages import SealedShares

pytestmark = pytest.mark.broker


@asynccontextmanager
async def puppets(fleet: RealFleet, count: int = 5) -> AsyncIterator[list[Puppet]]:
    async with AsyncExitStack() as stack:
        made = [Puppet(fleet, f"p{number}", number) for number in range(1, count + 1)]
        for puppet in made:
            await stack.enter_async_context(puppet)
        yield made


async def killed_while_sharing(fleet: RealFleet, coordinator: Program, slow: Puppet) -> None:
    slow.gate.hold(SealedShares)
    await slow.gate.knocked()
    await coordinator.kill()
    await fleet.sees_coordinator("lost")


def copy_of(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name("backup")))


def restore_openly(backup: Path, state: Path) -> None:
    """As anybody restores a backup: other files than before."""
    shutil.rmtree(state)
    shutil.copytree(backup, state)


def restore_silently(backup: Path, state: Path) -> None:
    """As a snapshot of the disk does: the same file with older content."""
    for name in (f"{JOURNAL_FILE}-wal", f"{JOURNAL_FILE}-shm"):
        (state / name).unlink(missing_ok=True)
    for file in backup.rglob("*"):
        if file.is_file():
            (state / file.relative_to(backup)).write_bytes(file.read_bytes())


@pytest.mark.parametrize("restore", [restore_openly, restore_silently])
async def test_an_old_copy_of_the_state_begins_a_new_epoch_and_gives_its_open_round_up(
    tmp_path: Path, restore: Callable[[Path, Path], None]
) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=2)) as fleet:
        coordinator = await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            slow = devices[0]
            await killed_while_sharing(fleet, coordinator, slow)
            backup = copy_of(fleet.coordinator_state)
            slow.gate.open()
            second = await fleet.start_coordinator(start_when=5)
            await fleet.sees_result(1)  # which the backup does not know
            await second.kill()
            await fleet.sees_coordinator("lost")
            restore(backup, fleet.coordinator_state)
            third = await fleet.start_coordinator(start_when=5)
            await fleet.sees_coordinator("finished", epoch=2, why="2 rounds are committed")
            assert await third.ended() == 0
        first_result, *others = fleet.written_results()
        assert (first_result.result, first_result.reason) == (
            "aborted",
            "its state was rolled back or copied",
        )
        assert [one.result for one in others] == ["committed", "committed"]
        moved = fleet.kept().vector - slow.worker.received[0]
        np.testing.assert_allclose(moved, 2 * plain_mean(devices), atol=5e-6)


async def test_a_second_coordinator_on_the_same_state_refuses_to_run(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet:
        first = await fleet.start_coordinator(start_when=5)
        await fleet.sees_coordinator("online")
        second = await fleet.start_coordinator(start_when=5)
        assert await second.ended() == 2
        assert "is in use" in second.log.read_text()
        assert first.process.returncode is None
        assert await first.terminate() == 0


async def test_a_stopped_coordinator_leaves_its_round_open_and_goes_on_with_it(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet:
        first = await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            devices[0].gate.hold(SealedShares)
            await devices[0].gate.knocked()
            assert await first.terminate() == 0
            await fleet.sees_coordinator("offline", why="round 1 goes on with the next start")
            devices[0].gate.open()
            await fleet.start_coordinator(start_when=5)
            await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert [(one.result, one.survivors) for one in fleet.results()] == [("committed", 5)]


async def test_a_changed_plan_ends_the_open_round_and_tells_its_devices(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet:
        first = await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            await killed_while_sharing(fleet, first, devices[0])
            (tmp_path / "plan.toml").write_text(plan_text(rounds=2))
            devices[0].gate.open()
            await fleet.start_coordinator(start_when=5)
            await fleet.sees_coordinator("finished", why="2 rounds are committed")
        given_up, *others = fleet.written_results()
        assert (given_up.result, given_up.reason) == ("aborted", "the plan has changed")
        assert [(one.round, one.result) for one in others] == [(2, "committed"), (3, "committed")]


async def test_an_older_coordinator_stops_when_a_later_one_has_gone_on(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=2)) as fleet:
        older = await fleet.start_coordinator(start_when=5)
        await fleet.sees_coordinator("online", why="0 of 5 devices are on offer")
        older.pause()
        restore_openly(copy_of(fleet.coordinator_state), fleet.coordinator_state)
        async with puppets(fleet) as devices:
            newer = await fleet.start_coordinator(start_when=5)
            await fleet.sees_result(1)
            await newer.kill()
            older.process.send_signal(signal.SIGCONT)
            assert await older.ended() == 2
            # How far the newer one came before it was killed is a matter of milliseconds.
            assert "another coordinator of this fleet has come to round 1.2." in older.log.read_text()
            await fleet.start_coordinator(start_when=5)
            await fleet.sees_coordinator("finished", epoch=2, why="2 rounds are committed")
        assert [one.survivors for one in fleet.results()] == [5, 5]
        assert all(len(device.worker.received) == 2 for device in devices)
