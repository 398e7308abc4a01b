"""The main job: a coordinator and five agents as processes, over both brokers, to a better model."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from real_fleet import RealFleet
from real_puppets import Puppet
from tiny_plan import examples, plan_text

from broker.embedded import Engine
from protocol.messages import SealedShares

pytestmark = pytest.mark.broker

NAMES = [f"d{number}" for number in range(1, 6)]


@pytest.mark.parametrize("engine", ["mosquitto", "nats"])
async def test_five_agents_train_a_better_model(tmp_path: Path, engine: Engine) -> None:
    async with RealFleet(tmp_path, engine, plan_text(rounds=3)) as fleet:
        coordinator = await fleet.start_coordinator(
            start_when=5, SHARD="second", EVALUATION__DATA=str(tmp_path / "judge.npz")
        )
        agents = await fleet.start_agents(*NAMES)
        await fleet.sees_coordinator("finished", why="3 rounds are committed")
        assert await coordinator.ended() == 0

        results = fleet.results()
        assert [(one.round, one.result, one.survivors) for one in results] == [
            (1, "committed", 5),
            (2, "committed", 5),
            (3, "committed", 5),
        ]
        assert fleet.written_results() == results
        assert results[-1].evaluated_accuracy == pytest.approx(_accuracy(fleet.model_file))
        assert (results[-1].evaluated_accuracy or 0.0) > 0.9

        for name, agent in agents.items():
            assert await agent.terminate() == 0
            await fleet.sees_device(name, "offline", boot=1)
        assert await fleet.retained_for_machines() == [fleet.topics.high_water, fleet.topics.pace]


async def test_sigterm_in_a_round_ends_every_program_with_zero(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet:
        coordinator = await fleet.start_coordinator(start_when=5)
        agents = await fleet.start_agents("d1", "d2", "d3", "d4")
        async with Puppet(fleet, "p1", 1) as slow:
            slow.gate.hold(SealedShares)
            await fleet.sees_round(1, phase="sharing", shared=4)
            assert await agents["d1"].terminate() == 0
            await fleet.sees_device("d1", "offline", boot=1)
            assert await coordinator.terminate() == 0
            await fleet.sees_coordinator("offline", why="round 1 goes on with the next start")
            assert fleet.results() == []
            for name in ("d2", "d3", "d4"):
                assert await agents[name].terminate() == 0


def _accuracy(model: Path) -> float:
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    judge = examples(99, 60)
    outputs = session.run(None, {session.get_inputs()[0].name: judge["x_test"]})
    return float(np.mean(np.argmax(outputs[0], axis=1) == judge["y_test"]))
