"""Agents that have rested for long begin anew in their own process, and go on taking part."""

from pathlib import Path

import pytest
from real_fleet import RealFleet
from tiny_plan import plan_text

pytestmark = pytest.mark.broker

NAMES = ["d1", "d2", "d3"]


async def test_an_agent_that_begins_anew_keeps_its_process_and_takes_part_again(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet:
        agents = await fleet.start_agents(*NAMES, RENEW_SECONDS="1")
        first = await fleet.start_coordinator(start_when=3)
        assert await first.ended() == 0
        for name in NAMES:
            await fleet.sees_device(name, "idle", boot=2)

        (tmp_path / "plan.toml").write_text(plan_text(rounds=2))
        second = await fleet.start_coordinator(start_when=3)
        assert await second.ended() == 0

        assert [(one.result, one.survivors) for one in fleet.written_results()] == [("committed", 3)] * 2
        for name in NAMES:
            await fleet.sees_device(name, "idle", boot=3)
        for agent in agents.values():
            assert await agent.terminate() == 0
