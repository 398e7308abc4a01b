"""A cohort of both engines, as processes over a real broker: one model comes of it, and it is a good one."""

from hashlib import sha256
from pathlib import Path

import pytest
from real_fleet import RealFleet
from tiny_plan import plan_text

from coordinator.artifact import build_artifact
from models.installed import ORT_GRAPH, ORT_TRAINING, available_engines
from runtime.plan_file import load_plan

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(
        ORT_TRAINING not in available_engines(), reason="onnxruntime-training-cpu is not installed here"
    ),
]

FLEET = {ORT_GRAPH: ("d1", "d2", "d3"), ORT_TRAINING: ("d4", "d5", "d6")}
NETWORK = """
[model]
catalog = "mlp"
parameters = { features = 4, classes = 3, hidden = 8 }
[training]"""


def plan(rounds: int) -> str:
    """The tiny plan, with a layer more: what an engine does wrong in its backward pass would show."""
    before, after = plan_text(rounds=rounds, learning_rate=0.3).split("[training]")
    assert "[model]" in before
    return NETWORK + after


async def test_agents_with_different_engines_train_one_model(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan(rounds=4)) as fleet:
        coordinator = await fleet.start_coordinator(
            start_when=6, SHARD="second", EVALUATION__DATA=str(tmp_path / "judge.npz")
        )
        for engine, names in FLEET.items():
            await fleet.start_agents(*names, TRAINING__ENGINE=engine)
        await fleet.sees_coordinator("finished", why="4 rounds are committed")
        assert await coordinator.ended() == 0

        results = fleet.results()
        assert [(one.result, one.survivors) for one in results] == [("committed", 6)] * 4
        assert (results[-1].evaluated_accuracy or 0.0) > 0.9
        for engine, names in FLEET.items():
            for name in names:
                assert engines_of(fleet, tmp_path / name / "state") == {engine}


def engines_of(fleet: RealFleet, state: Path) -> set[str]:
    """Whose files of the bundle a device has fetched."""
    plan_file = fleet.folder / "plan.toml"
    bundle = build_artifact(load_plan(plan_file), fleet.folder, seed=1).bundle
    fetched = {file.name for file in (state / "artifacts").iterdir()}
    return {
        engine
        for engine, files in bundle.manifest.engines.items()
        if fetched & {sha256(bundle.files[file]).hexdigest() for file in files}
    }
