"""Real agents, some not what the plan asks for, and one asleep: who takes part, what is said."""

import time
from pathlib import Path

import pytest
from real_fleet import CLOCK, RealFleet
from tiny_plan import plan_text

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ASKED = '[selection.eligibility]\ntags = ["lab"]\nmin_rest = 5\nmin_free_memory_mb = 1\nmin_version = "0.1"\n'


def hours_that_are_not_now() -> str:
    """By local time, like the device."""
    hours = [time.localtime(CLOCK.unix() + 3600 * later).tm_hour for later in (2, 3)]
    return "{:02}:00-{:02}:00".format(*hours)


async def test_only_those_take_part_that_the_plan_and_their_owners_want(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1, tables=ASKED)) as fleet:
        await fleet.start_coordinator()
        await fleet.start_agents("d1", "d2", CONDITIONS__TAGS="lab,press")
        await fleet.start_agents("d4", CONDITIONS__TAGS="roof")
        hours = hours_that_are_not_now()
        await fleet.start_agents("d5", CONDITIONS__TAGS="lab", CONDITIONS__WINDOWS=hours)
        asleep = await fleet.sees_device("d5", "sleeping")
        assert asleep.why.endswith(f", takes part {hours})")
        await fleet.sees_coordinator(
            "online",
            why="2 of 3 devices on offer are eligible; the plan wants 3 (1 without tag lab)",
        )

        await fleet.start_agents("d3", CONDITIONS__TAGS="lab")
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        (result,) = fleet.results()
        assert (result.result, result.survivors) == ("committed", 3)
        await fleet.sees_device("d5", "sleeping")
