"""Every kind of data in the real training process, and hooks that misbehave there."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec import Struct

from models.artifact import build_bundle, initial_weights
from models.catalog import build_model
from models.datasets.source import (
    CsvSource,
    DataSource,
    HookSource,
    NpzSource,
    SqliteSource,
    WindowsSource,
)
from models.errors import TrainingFailedError
from models.layout import Vector
from models.training_calls import TrainResult
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.plan import Training

DEADLINE = 60.0
FEATURES = ("a", "b", "c")


class Bench(Struct):
    """A worker, a small model, and 40 examples in five places."""

    worker: TrainingWorker
    bundle: bytes
    weights: Vector
    folder: Path

    async def train(
        self,
        source: DataSource,
        training: Training | None = None,
        *,
        seed: int = 7,
        deadline: float = DEADLINE,
    ) -> TrainResult:
        return await self.worker.train(
            self.bundle, self.weights, training or Training(), source, seed=seed, deadline=deadline
        )

    async def fails(self, source: DataSource, deadline: float = DEADLINE) -> str:
        with pytest.raises(TrainingFailedError) as caught:
            await self.train(source, deadline=deadline)
        return str(caught.value)

    def hook(self, text: str) -> HookSource:
        path = self.folder / "hook.py"
        path.write_text(text)
        return HookSource(path)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    model = build_model("logistic", {"features": 3, "classes": 2}, seed=1)
    bundle = build_bundle(model, Training()).encode()
    bench = Bench(
        TrainingWorker(TrainingLimits(memory_limit_mb=512, cpu_seconds=1)),
        bundle,
        initial_weights(model),
        tmp_path,
    )
    yield bench
    await bench.worker.close()


def in_every_place(folder: Path) -> list[DataSource]:
    """The same 40 examples."""
    x = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    rows = [(*map(float, each), ("low", "high")[label]) for each, label in zip(x, y, strict=True)]
    np.savez(folder / "d.npz", x=x, y=y)
    lines = ["a,b,c,level", *(",".join(map(repr, row[:3])) + f",{row[3]}" for row in rows)]
    (folder / "d.csv").write_text("\n".join(lines))
    with closing(sqlite3.connect(folder / "d.db")) as made:
        made.execute("CREATE TABLE r (a REAL, b REAL, c REAL, level TEXT)")
        made.executemany("INSERT INTO r VALUES (?, ?, ?, ?)", rows)
        made.commit()
    (folder / "hook.py").write_text(
        "import numpy as np, pathlib\n"
        "def load():\n"
        "    with np.load(pathlib.Path(__file__).with_name('d.npz')) as data:\n"
        "        return data['x'], data['y']\n"
    )
    classes = ("low", "high")
    return [
        NpzSource(folder / "d.npz"),
        CsvSource(folder / "d.csv", label="level", classes=classes),
        SqliteSource(folder / "d.db", query="SELECT * FROM r", label="level", classes=classes),
        HookSource(folder / "hook.py"),
    ]


async def test_the_same_examples_train_the_same_wherever_they_are(bench: Bench) -> None:
    results = [await bench.train(source) for source in in_every_place(bench.folder)]

    assert {(result.examples, result.evaluated) for result in results} == {(32, 8)}
    assert len({result.weights for result in results}) == 1
    assert len({result.loss_sum for result in results}) == 1


async def test_a_folder_of_windows_trains(bench: Bench) -> None:
    for number in range(20):
        folder = bench.folder / "data" / ("low", "high")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number:02}.npy", np.full((3, 1), number % 2, dtype=np.float32))
    model = build_model("cnn1d", {"channels": 1, "window": 8, "classes": 2}, seed=1)
    bench.bundle = build_bundle(model, Training()).encode()
    bench.weights = initial_weights(model)

    told = await bench.fails(WindowsSource(bench.folder / "data", classes=("low", "high")))
    assert "x is float32 (16, 1, 3)" in told
    for file in (bench.folder / "data").glob("*/*"):
        np.save(file, np.full((8, 1), float(file.parent.name == "high"), dtype=np.float32))
    result = await bench.train(WindowsSource(bench.folder / "data", classes=("low", "high")))

    assert (result.examples, result.evaluated) == (16, 4)


async def test_each_round_draws_its_own_sample_and_a_seed_always_the_same(bench: Bench) -> None:
    few = Training(max_examples=5, learning_rate=1.0)
    for source in in_every_place(bench.folder):
        first, again, other = [await bench.train(source, few, seed=seed) for seed in (1, 1, 2)]
        newest = [
            await bench.train(source, Training(max_examples=5, examples="newest"), seed=3) for _ in range(2)
        ]

        assert (first.examples, first.evaluated) == (5, 5)
        assert first.weights == again.weights != other.weights
        assert newest[0].weights == newest[1].weights


async def test_a_file_that_has_grown_is_read_anew(bench: Bench) -> None:
    source = in_every_place(bench.folder)[1]
    before = await bench.train(source)
    with source.path.open("a") as file:
        file.write("\n1.0,2.0,3.0,low" * 10)

    assert (before.examples, (await bench.train(source)).examples) == (32, 40)


async def test_what_is_there_is_described_by_the_same_process(bench: Bench) -> None:
    sources = in_every_place(bench.folder)
    await bench.train(sources[0])
    pid = bench.worker.pid
    for source in sources:
        schema = await bench.worker.describe(source, deadline=DEADLINE)
        assert (schema.examples, schema.held_out, schema.x.shape) == (32, 8, (3,))
        assert sum(schema.labels.values()) == 40
    assert (await bench.train(sources[0])).examples == 32
    assert bench.worker.pid == pid


async def test_a_hook_that_fails_is_told_by_its_line_and_the_process_lives_on(bench: Bench) -> None:
    good = in_every_place(bench.folder)[0]
    await bench.train(good)
    pid = bench.worker.pid

    told = await bench.fails(bench.hook("def load():\n    raise ValueError('a patient')"))

    assert told.startswith(f"dataset: {bench.folder / 'hook.py'}, line 2: ValueError")
    assert "patient" not in told
    assert (await bench.train(good)).examples == 32
    assert bench.worker.pid == pid


async def test_a_hook_without_end_uses_up_its_processor_time(bench: Bench) -> None:
    good = in_every_place(bench.folder)[0]

    assert "out of time: training.cpu_seconds = 1 were used up" in await bench.fails(
        bench.hook("def load():\n    while True:\n        yield [1.0, 2.0, 3.0], 0")
    )
    assert (await bench.train(good)).examples == 32


async def test_a_hook_that_sleeps_meets_the_deadline(bench: Bench) -> None:
    await bench.train(in_every_place(bench.folder)[0])

    told = await bench.fails(bench.hook("import time\ndef load():\n    time.sleep(1000)"), deadline=0.5)

    assert "out of time: no answer after 0.5 s" in told


async def test_a_hook_that_hoards_meets_the_memory_limit(bench: Bench) -> None:
    told = await bench.fails(bench.hook("def load():\n    return bytearray(2**40)"))

    assert "out of memory: training.memory_limit_mb = 512 is too little" in told


async def test_a_hook_that_ends_its_process_ends_no_other(bench: Bench) -> None:
    good = in_every_place(bench.folder)[0]

    assert "crashed: the worker ended with 3" in await bench.fails(
        bench.hook("import os\ndef load():\n    os._exit(3)")
    )
    assert (await bench.train(good)).examples == 32


async def test_what_a_hook_prints_disturbs_nobody(bench: Bench) -> None:
    source = in_every_place(bench.folder)[3]
    source.path.write_text("print('hello')\n" + source.path.read_text())

    assert (await bench.train(source)).examples == 32


async def test_a_hook_never_sees_the_agents_secrets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FEDFLEET_BROKER__PASSWORD", "hunter2")
    hook = bench.hook("import os\ndef load():\n    os.environ['FEDFLEET_BROKER__PASSWORD']")

    assert "line 3: KeyError" in await bench.fails(hook)
