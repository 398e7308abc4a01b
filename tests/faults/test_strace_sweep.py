"""The short form of `scripts/soak --sweep`: a few of its kill points, and a disk that is full."""

import asyncio

import pytest
from faults import strace
from faults.strace import JOURNAL_PAGES, Fault, Target, command, disk_full, killed_at
from faults.sweep import IN_A_ROUND, complaints, small_fleet, survive

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.skipif(not strace.is_usable(), reason="strace is missing (apt install strace) or forbidden"),
]


@pytest.mark.parametrize(
    "fault",
    [
        killed_at(Target("fdatasync"), 3),  # the journal is being made
        killed_at(Target("fdatasync"), 14),
        killed_at(JOURNAL_PAGES, 100),
        killed_at(Target("fsync", ("spool",)), 1),
        killed_at(Target("openat", ("models",)), 1),
        killed_at(Target("rename", (".results.jsonl.new",)), 1),
    ],
    ids=lambda fault: f"{fault.target}-{fault.when}",
)
async def test_a_coordinator_killed_at_a_system_call_goes_on_where_it_was(fault: Fault) -> None:
    outcome = await survive(fault)
    assert outcome.came_to_it
    assert outcome.wrong == []


async def test_a_coordinator_killed_while_it_resumes_goes_on_where_it_was() -> None:
    outcome = await survive(IN_A_ROUND, killed_at(Target("fdatasync"), 2), killed_at(JOURNAL_PAGES, 20))
    assert outcome.came_to_it
    assert outcome.wrong == []


@pytest.mark.parametrize(
    "fault",
    [disk_full(JOURNAL_PAGES, "100..102"), disk_full(Target("fsync", ("models",)), "1..2")],
    ids=["journal", "models"],
)
async def test_while_the_disk_is_full_everything_waits(fault: Fault) -> None:
    outcome = await survive(fault)
    assert outcome.paused
    assert outcome.wrong == []


async def test_an_update_that_finds_no_space_is_sent_again() -> None:
    assert (await survive(disk_full(Target("fsync", ("spool",)), "1..2"))).wrong == []


async def test_on_a_disk_that_stays_full_nothing_is_announced_and_it_can_be_stopped() -> None:
    async with small_fleet() as (fleet, devices):
        forever = disk_full(JOURNAL_PAGES, "100+")
        log = fleet.folder / "strace.log"
        run = await fleet.start_under(command(log, fleet.coordinator_state, [forever]))
        await fleet.sees_coordinator("online", why="disk full: everything waits until it works again")
        await asyncio.sleep(3)  # the journal tries again every second
        await fleet.heard_all()
        assert run.process.returncode is None
        assert fleet.ledger.not_in(fleet.books()) == []
        assert await run.terminate() == 0
        again = await fleet.start_coordinator(start_when=5)
        code = await again.ended()
        await fleet.heard_all()
        assert list(complaints(fleet, devices, code)) == []
        fleet.excuse("disk_trouble")
