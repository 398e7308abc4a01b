"""Over a real broker, with devices cut off, the mean is that of plain averaging; and nothing piles up."""

import asyncio
import gc
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from real_fleet import CLOCK, ENTROPY, FLEET, RealFleet
from real_puppets import Puppet, Wire, plain_mean
from tiny_plan import plan_text

from broker.embedded import Engine
from broker.mqtt import MqttTransport
from coordinator.app import _composed
from coordinator.settings import CoordinatorSettings
from protocol.certificates import Role
from protocol.coordinator_round import CoordinatorRound
from protocol.device_round import DeviceRound
from protocol.messages import UploadOffer
from runtime.config import BrokerSettings
from runtime.identity import write_identity
from runtime.secret import SecretStr

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("engine", ["mosquitto", "nats"])
async def test_two_of_ten_cut_off_before_their_upload(tmp_path: Path, engine: Engine) -> None:
    async with (
        RealFleet(tmp_path, engine, plan_text(rounds=1)) as fleet,
        Wire(fleet.broker.address) as wire,
        AsyncExitStack() as stack,
    ):
        await fleet.start_coordinator(start_when=10)
        whole = [Puppet(fleet, f"p{number}", number) for number in range(1, 9)]
        cut = [Puppet(fleet, f"cut{number}", number, wire.address) for number in range(9, 11)]
        for puppet in whole + cut:
            await stack.enter_async_context(puppet)
        for puppet in cut:
            puppet.gate.hold(UploadOffer)
        await asyncio.gather(*(puppet.gate.knocked() for puppet in cut))
        wire.cut()
        result = await fleet.sees_result(1)
        wire.mend()
        assert (result.result, result.survivors, result.dropouts) == ("committed", 8, 2)
        # Everybody's loss is 4 over 4 examples, and half of them were right.
        assert result.loss == pytest.approx(1.0, abs=1e-3)
        assert result.accuracy == pytest.approx(0.5, abs=1e-3)
        moved = fleet.kept().vector - whole[0].worker.received[0]
        np.testing.assert_allclose(moved, plain_mean(whole), atol=2e-6)


@pytest.mark.slow
async def test_fifty_rounds_leave_nothing_behind(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=3)) as fleet, AsyncExitStack() as stack:
        write_identity(tmp_path / "coordinator", fleet.authority.issue("coordinator", Role.COORDINATOR, 1))
        devices = [Puppet(fleet, f"p{number}", number) for number in range(1, 6)]
        for puppet in devices:
            await stack.enter_async_context(puppet)
        few = await _run_and_count(fleet, devices)
        (tmp_path / "plan.toml").write_text(plan_text(rounds=50))
        many = await _run_and_count(fleet, devices)
        assert len(devices[0].worker.received) == 50
        assert many == few


async def _run_and_count(fleet: RealFleet, devices: list[Puppet]) -> Counter[str]:
    """Run the coordinator here to its end; what is there when everything is quiet again."""
    async with asyncio.timeout(120), _composed(_settings(fleet), CLOCK, ENTROPY) as run:
        await run.run(asyncio.Event())
        counts = _of(run._desk.transport, "coordinator")
    await fleet.sees_coordinator("finished")
    for device in devices:
        await fleet.sees_device(device.name, "idle")
        await device.quiet()
        counts += _of(device.transport, device.name)
    gc.collect()
    counts["rounds"] = sum(isinstance(thing, CoordinatorRound | DeviceRound) for thing in gc.get_objects())
    counts["tasks"] = len(asyncio.all_tasks())
    return counts


def _of(transport: object, name: str) -> Counter[str]:
    assert isinstance(transport, MqttTransport)
    parts = ("_filters", "_state", "_listeners", "_exchanges", "_stale")
    return Counter({f"{name}{part}": len(getattr(transport, part)) for part in parts})


def _settings(fleet: RealFleet) -> CoordinatorSettings:
    address = fleet.broker.address
    return CoordinatorSettings(
        fleet=FLEET,
        broker=BrokerSettings(
            (f"mqtt://{address.host}:{address.port}",), address.user, SecretStr(address.password or "")
        ),
        identity=fleet.folder / "coordinator",
        state=fleet.coordinator_state,
        plan=fleet.folder / "plan.toml",
        start_when=5,
        workers=1,
    )
