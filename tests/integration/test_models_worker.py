"""The training process: it answers, it fails in words, and it comes back after every kind of end."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import Struct
from msgspec.structs import replace

from models.artifact import build_bundle, initial_weights
from models.catalog import build_model
from models.datasets.source import NpzSource
from models.engines import load_engine
from models.errors import TrainingFailedError
from models.layout import Vector
from models.training_calls import TrainResult
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.plan import Training

DEADLINE = 60.0
FOREVER = Training(local_epochs=1000, batch_size=1)

PARENT = """
import asyncio, sys
from pathlib import Path
import numpy as np
from models.datasets.source import NpzSource
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.plan import Training

async def main(path, size):
    worker, bundle, dataset = TrainingWorker(), path.with_name("bundle").read_bytes(), NpzSource(path)
    weights = np.zeros(size, dtype=np.float32)
    await worker.train(bundle, weights, Training(), dataset, seed=1, deadline=60)
    print(worker.pid, flush=True)
    forever = Training(local_epochs=1000, batch_size=1)
    await worker.train(bundle, weights, forever, dataset, seed=1, deadline=60)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


class Bench(Struct):
    """A worker, a small model, and a data file of 40 examples."""

    worker: TrainingWorker
    bundle: bytes
    weights: Vector
    dataset: Path

    async def train(self, training: Training | None = None, deadline: float = DEADLINE) -> TrainResult:
        return await self.worker.train(
            self.bundle,
            self.weights,
            training or Training(),
            NpzSource(self.dataset),
            seed=7,
            deadline=deadline,
        )

    async def fails(self, training: Training | None = None, deadline: float = DEADLINE) -> str:
        with pytest.raises(TrainingFailedError) as caught:
            await self.train(training, deadline)
        return f"{caught.value.kind}: {caught.value}"

    async def busy(self) -> tuple[asyncio.Task[TrainResult], int]:
        """A training that will not end by itself, and the process it runs in."""
        await self.train()
        assert self.worker.pid is not None
        task = asyncio.create_task(self.train(FOREVER))
        await asyncio.sleep(0.05)
        return task, self.worker.pid


def write_examples(path: Path, features: int = 6, seed: int = 1) -> None:
    x = np.random.default_rng(seed).normal(size=(40, features)).astype(np.float32)
    np.savez(path, x=x, y=(x[:, 0] > 0).astype(np.int64))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    model = build_model("mlp", {"features": 6, "classes": 2, "hidden": 8}, seed=1)
    dataset = tmp_path / "data.npz"
    write_examples(dataset)
    bundle = build_bundle(model, Training(loss="cross_entropy", optimizer="sgd")).encode()
    bench = Bench(TrainingWorker(), bundle, initial_weights(model), dataset)
    yield bench
    await bench.worker.close()


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # ended, but nobody has asked how


def environment_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_training_evaluates_what_it_received_and_returns_what_it_learned(bench: Bench) -> None:
    result = await bench.train(Training(local_epochs=30))

    trained = np.frombuffer(result.weights, dtype="<f4")
    source = NpzSource(bench.dataset)
    before = await bench.worker.evaluate(bench.bundle, bench.weights, source, deadline=DEADLINE)
    after = await bench.worker.evaluate(bench.bundle, trained, source, deadline=DEADLINE)
    assert (result.examples, result.evaluated) == (32, 8)
    assert (result.loss_sum, result.correct) == (before.loss_sum, before.correct)
    assert after.loss_sum < before.loss_sum
    assert result.seconds > 0


async def test_the_process_lives_on_and_computes_what_the_engine_computes(bench: Bench) -> None:
    first, pid = await bench.train(), bench.worker.pid
    second = await bench.train()

    assert bench.worker.pid == pid
    assert second.weights == first.weights
    with np.load(bench.dataset) as data:
        x, y = data["x"][:32], data["y"][:32]
    bundle = build_bundle(
        build_model("mlp", {"features": 6, "classes": 2, "hidden": 8}, 1),
        Training(),
    )
    here = load_engine(bundle).fit(bench.weights, x, y, Training(), seed=7)
    assert here.weights.tobytes() == first.weights


async def test_calls_wait_for_each_other(bench: Bench) -> None:
    results = await asyncio.gather(*(bench.train() for _ in range(4)))

    assert len({result.weights for result in results}) == 1


async def test_another_bundle_and_a_changed_file_are_noticed(bench: Bench) -> None:
    first = await bench.train()
    write_examples(bench.dataset, seed=2)
    other_data = await bench.train()
    model = build_model("logistic", {"features": 6, "classes": 2}, seed=1)
    bench.bundle = build_bundle(model, Training()).encode()
    bench.weights = initial_weights(model)
    other_model = await bench.train()

    assert other_data.weights != first.weights
    assert len(other_model.weights) == 4 * 14


async def test_the_event_loop_is_free_while_a_model_trains(bench: Bench) -> None:
    task, _ = await bench.busy()

    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_killed_process_is_a_failed_training_and_the_next_one_works(bench: Bench) -> None:
    await bench.train()
    task, pid = await bench.busy()
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingFailedError, match="crashed: the worker ended with -9"):
        await task
    assert (await bench.train()).examples == 32
    assert bench.worker.pid != pid


async def test_a_process_killed_while_idle_is_replaced(bench: Bench) -> None:
    await bench.train()
    pid = bench.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    with contextlib.suppress(TrainingFailedError):  # the end may be noticed only by the call that meets it
        await bench.train()
    assert (await bench.train()).examples == 32


async def test_a_late_training_is_killed(bench: Bench) -> None:
    await bench.train()
    pid = bench.worker.pid
    assert pid is not None

    assert "out of time: no answer after 0.2 s" in await bench.fails(FOREVER, deadline=0.2)

    assert has_ended(pid)
    assert (await bench.train()).examples == 32


async def test_a_cancelled_training_leaves_the_worker_usable(bench: Bench) -> None:
    task, pid = await bench.busy()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert has_ended(pid)
    assert (await bench.train()).examples == 32


async def test_failures_come_back_in_words_and_the_process_lives_on(bench: Bench) -> None:
    await bench.train()
    pid = bench.worker.pid
    good = bench.bundle, bench.weights, bench.dataset

    bench.bundle = b"no bundle"
    assert "bundle: not a training bundle" in await bench.fails()
    bench.bundle, bench.weights = good[0], np.full_like(good[1], np.nan)
    assert "weights" in await bench.fails()
    bench.weights, bench.dataset = good[1], good[2].with_name("none.npz")
    assert "none.npz: No such file" in await bench.fails()
    write_examples(bench.dataset, features=5)
    assert "x is float32 (32, 5)" in await bench.fails()
    bench.dataset = good[2]
    assert "diverged" in await bench.fails(replace(FOREVER, local_epochs=50, learning_rate=1e30))

    assert (await bench.train()).examples == 32
    assert bench.worker.pid == pid


async def test_a_process_over_its_memory_limit_fails_alone(bench: Bench) -> None:
    limited = TrainingWorker(TrainingLimits(memory_limit_mb=64))
    bench.worker, whole = limited, bench.worker
    try:
        assert await bench.fails()
    finally:
        await limited.close()
    bench.worker = whole
    assert (await bench.train()).examples == 32


async def test_closing_ends_the_process_and_the_next_call_starts_another(bench: Bench) -> None:
    await bench.train()
    pid = bench.worker.pid
    assert pid is not None

    await bench.worker.close()

    assert has_ended(pid)
    assert bench.worker.pid is None
    assert (await bench.train()).examples == 32


async def test_an_idle_process_ends_and_the_next_call_starts_another(bench: Bench) -> None:
    bench.worker = TrainingWorker(TrainingLimits(idle_seconds=0.0))
    await bench.train()
    async with asyncio.timeout(DEADLINE):
        while bench.worker.pid is not None:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    assert (await bench.train()).examples == 32


async def test_a_process_that_is_wanted_again_in_time_stays(bench: Bench) -> None:
    bench.worker = TrainingWorker(TrainingLimits(idle_seconds=DEADLINE))
    await bench.train()
    pid = bench.worker.pid
    await bench.train()
    assert bench.worker.pid == pid
    await bench.worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
async def test_no_process_outlives_a_killed_parent(bench: Bench) -> None:
    bench.dataset.with_name("bundle").write_bytes(bench.bundle)
    program = [sys.executable, "-P", "-c", PARENT, str(bench.dataset), str(bench.weights.size)]
    parent = await asyncio.create_subprocess_exec(*program, stdout=PIPE, stderr=DEVNULL)
    assert parent.stdout is not None
    async with asyncio.timeout(DEADLINE):
        child = int(await parent.stdout.readline())
        parent.kill()
        await parent.communicate()
        while not has_ended(child):  # noqa: ASYNC110 - a process of another parent sends us no event
            await asyncio.sleep(0.02)


async def test_secrets_in_the_environment_do_not_reach_the_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDFLEET_BROKER__PASSWORD", "hunter2")
    await bench.train()

    assert b"hunter2" not in environment_of(bench.worker.pid)


async def test_more_memory_or_time_than_allowed_is_said_with_the_setting_to_change(bench: Bench) -> None:
    model = build_model("mlp", {"features": 6, "classes": 2, "hidden": 3000}, seed=1)
    bench.bundle = build_bundle(model, Training()).encode()
    bench.weights = initial_weights(model)
    bench.worker = TrainingWorker(TrainingLimits(memory_limit_mb=256))
    try:
        assert "out of memory: training.memory_limit_mb = 256" in await bench.fails()
    finally:
        await bench.worker.close()
    bench.worker = TrainingWorker(TrainingLimits(memory_limit_mb=1024, cpu_seconds=1))
    assert "out of time: training.cpu_seconds = 1 were used up" in await bench.fails(FOREVER)
