"""A job of one's own, as README.md tells it: every command there runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = [pytest.mark.slow, pytest.mark.broker]

README = Path(__file__).parent.parent.parent / "README.md"
CHAPTER = re.compile(r"(?ms)^## Your own model and data$(.*?)^## ")
COMMANDS = re.compile(r"(?ms)^```sh job\n(.*?)^```$")
LIMIT_SECONDS = 170


def type_in(folder: Path, commands: str) -> str:
    """Run shell lines, with `fedfleet` from this installation; returns what was printed."""
    program = f'fedfleet() {{ "{sys.executable}" -P -m console "$@"; }}\nset -e\n{commands}'
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shorten(job: Path) -> None:
    """Two rounds tell as much as ten."""
    plan = job / "plan.toml"
    plan.write_text(plan.read_text().replace("rounds = 10", "rounds = 2"))


def test_the_chapter_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    [chapter] = CHAPTER.findall(README.read_text())
    begin, rest = COMMANDS.findall(chapter)
    assert "fedfleet try" in type_in(tmp_path, begin)
    shorten(tmp_path / "myjob")

    told = type_in(tmp_path / "myjob", rest)

    assert "plan.toml is a valid plan" in told
    assert "160 to train on, 40 held out" in told
    assert "2 committed, 0 aborted" in told
    tried = tmp_path / "myjob" / "try"
    assert sorted(file.name for file in tried.iterdir()) == ["model.onnx", "results.json"]
    session = onnxruntime.InferenceSession(tried / "model.onnx", providers=["CPUExecutionProvider"])
    [answer] = session.run(None, {session.get_inputs()[0].name: np.zeros((2, 4), np.float32)})
    assert answer.shape == (2, 3)


def test_own_csv_files_and_an_own_model_with_a_softmax(tmp_path: Path) -> None:
    type_in(tmp_path, "fedfleet init job")
    job = tmp_path / "job"
    shorten(job)
    (job / "model.onnx").write_bytes(softmax_regression())
    plan, settings = job / "plan.toml", job / "settings.toml"
    plan.write_text(re.sub(r"catalog = .*\nparameters = .*\n# onnx", "onnx", plan.read_text()))
    text = settings.read_text()
    settings.write_text(
        text[: text.index("[data]")] + '[data]\nsource = "csv"\npath = "data/1.csv"\nlabel = "kind"\n'
        'classes = ["dry", "wet"]\n'
    )
    (job / "data").mkdir()
    for number in range(1, 6):
        write_csv(job / "data" / f"{number}.csv", np.random.default_rng(number))

    events = [json.loads(line) for line in type_in(job, "fedfleet try --data data --json").splitlines()]

    last = events[-1]
    assert (last["event"], last["rounds_committed"], last["rounds_aborted"]) == ("finished", 2, 0)
    assert last["accuracy"] > 0.8
    session = onnxruntime.InferenceSession(job / last["model"], providers=["CPUExecutionProvider"])
    [answer] = session.run(None, {"x": np.array([[3.0, 0.0], [-3.0, 0.0]], np.float32)})
    assert answer.sum(axis=1) == pytest.approx(1.0), "probabilities, as the model that was dropped in"
    assert answer.argmax(axis=1).tolist() == [1, 0]


def softmax_regression() -> bytes:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(np.zeros((2, 2), np.float32), "w"),
            numpy_helper.from_array(np.zeros(2, np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def write_csv(file: Path, random: np.random.Generator) -> None:
    rows = random.normal(size=(100, 2))
    lines = [f"{a:.3f},{b:.3f},{'wet' if a > 0 else 'dry'}" for a, b in rows]
    file.write_text("\n".join(["rain,wind,kind", *lines]) + "\n")
