"""What a person sees with nothing but `mosquitto_sub -t 'fl/#' -v`."""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from real_fleet import PATIENCE, RealFleet
from real_puppets import Puppet
from tiny_plan import plan_text

from protocol.messages import SealedShares

pytestmark = pytest.mark.broker


@pytest.mark.skipif(
    shutil.which("mosquitto_sub") is None,
    reason="needs mosquitto_sub (Debian: apt install mosquitto-clients)",
)
async def test_mosquitto_sub_alone_tells_how_a_run_goes(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet, AsyncExitStack() as stack:
        address = fleet.broker.address
        subscriber = await asyncio.create_subprocess_exec(
            "mosquitto_sub", "-h", address.host, "-p", str(address.port), "-u", address.user or "",
            "-P", address.password or "", "-t", "fl/#", "-v", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            coordinator = await fleet.start_coordinator(start_when=3)
            devices = [Puppet(fleet, f"p{number}", number) for number in range(1, 4)]
            for device in devices:
                await stack.enter_async_context(device)
            devices[0].gate.hold(SealedShares)
            await fleet.sees_round(1, phase="sharing")
            devices[0].gate.open()
            await coordinator.ended()
            lines = await _read_until_finished(subscriber)
        finally:
            subscriber.kill()
            await subscriber.communicate()

    seen = [(topic, json.loads(text)) for topic, _, text in (line.partition(" ") for line in lines)]
    phases = [status["phase"] for topic, status in seen if topic == "fl/1/real/round"]
    assert [phases[-1], "sharing" in phases] == ["committed", True]
    states = [status["state"] for topic, status in seen if topic == "fl/1/real/devices/p1"]
    assert states[0] == "idle"
    assert "training" in states
    results = [status for topic, status in seen if topic == "fl/1/real/rounds/1"]
    assert [(one["result"], one["survivors"]) for one in results] == [("committed", 3)]
    assert any(topic == "fl/1/real/model" and status["round"] == 1 for topic, status in seen)


async def _read_until_finished(subscriber: asyncio.subprocess.Process) -> list[str]:
    assert subscriber.stdout is not None
    lines = list[str]()
    async with asyncio.timeout(PATIENCE):
        while not lines or '"state":"finished"' not in lines[-1]:
            lines.append((await subscriber.stdout.readline()).decode().rstrip("\n"))
    return lines
