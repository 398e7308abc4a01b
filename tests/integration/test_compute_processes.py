"""Heavy work in processes of its own: the same results, and everything it needs can be sent there."""

import pickle

import numpy as np
import pytest
import virtual_fleet
from virtual_fleet import VirtualFleet

from privacy.encoding import LocalMetrics
from protocol import effects as fx
from protocol.coordinator_work import ExpandMasks
from protocol.phases import Phase
from runtime.compute import Computer
from secagg.errors import LowOrderPointError
from secagg.keys import Secret
from secagg.pairwise import PairGroup, SelfGroup
from secagg.ring import RingLayout, RingVector

TRANSCRIPT = bytes(32)


def seeds(count: int) -> SelfGroup:
    return SelfGroup(tuple((f"d{n}", Secret(bytes([n]) * 32)) for n in range(1, count + 1)), TRANSCRIPT)


@pytest.mark.parametrize("size", [300_000, 100_000])  # left in shared memory, and sent through the pipe
async def test_masks_expanded_in_processes_are_those_expanded_here(size: int) -> None:
    work = ExpandMasks(RingLayout(size, 32, 10), (seeds(30),))
    assert work.heavy
    here = work.run()
    async with Computer(workers=2) as computer:
        there = await computer.run(work)
    assert isinstance(there, RingVector)
    np.testing.assert_array_equal(there.update, here.update)
    np.testing.assert_array_equal(there.metrics, here.metrics)


async def test_an_error_of_a_process_comes_back_by_its_name() -> None:
    bad = PairGroup(
        Secret(bytes(range(32))), "d1", tuple((f"p{n}", bytes(32)) for n in range(50)), TRANSCRIPT
    )
    work = ExpandMasks(RingLayout(100_000, 32, 10), (bad,))
    async with Computer(workers=1) as computer:
        with pytest.raises(LowOrderPointError):
            await computer.run(work)


def test_whatever_a_round_computes_heavily_can_be_sent_to_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy: list[str] = []

    def through_a_pipe(work: fx.Work) -> fx.Computed | fx.ComputeFailed:
        if not work.heavy:
            return original(work)
        heavy.append(type(work).__name__)
        sent = pickle.loads(pickle.dumps(work))  # noqa: S301 - our own
        return fx.Computed(work, pickle.loads(pickle.dumps(sent.run())))  # noqa: S301 - our own

    original = virtual_fleet._compute
    monkeypatch.setattr(virtual_fleet, "_compute", through_a_pipe)
    fleet = VirtualFleet(devices=110, size=22_000).lose("d005", "d006", phase=Phase.COLLECTING)
    for device in fleet.devices.values():
        device.delta *= 0.01  # within the clip
        device.metrics = LocalMetrics(examples=50, evaluated=4, loss_sum=4.0, correct=2)  # within the cap
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    assert set(heavy) == {"ExpandMasks", "RecoverKeys"}
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(without=("d005", "d006")), atol=1e-5)
