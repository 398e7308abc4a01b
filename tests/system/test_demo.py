"""`fedfleet demo` as a user runs it: real processes, a real broker, an agent killed, a better model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.watch import CHANNELS, CLASSES, WINDOW

pytestmark = [pytest.mark.slow, pytest.mark.broker]

LIMIT_SECONDS = 120
DEVICES, ROUNDS = 6, 4


def demo(folder: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDFLEET_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "console", "demo", "--json", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """Its events; a demo that takes too long is ended, and all its children with it."""
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=30)
        raise
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def working_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working folder is this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == folder.resolve():
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # it ended, or is somebody else's
    return found


def nobody_works_in(folder: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while working_in(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not working_in(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("demo")
    yield folder, finish(demo(folder, "--devices", str(DEVICES), "--rounds", str(ROUNDS), "--keep", "kept"))
    assert nobody_works_in(folder)


def test_the_last_line_sums_the_run_up(run: tuple[Path, list[dict[str, Any]]]) -> None:
    last = run[1][-1]
    assert list(last) == [
        "event",
        "rounds_committed",
        "rounds_aborted",
        "devices_killed",
        "dropouts_recovered",
        "accuracy",
        "centralised_accuracy",
        "local_only_accuracy",
        "seconds",
        "bytes_up_per_device",
        "model",
        "plot",
    ]
    assert last["event"] == "finished"
    assert last["rounds_committed"] == ROUNDS
    assert last["bytes_up_per_device"] == ROUNDS * (4 * (3207 + 4) + 40)
    assert last["accuracy"] > 0.5
    assert last["centralised_accuracy"] > last["local_only_accuracy"] > 1 / CLASSES


def test_an_agent_was_killed_and_its_masks_were_recovered(run: tuple[Path, list[dict[str, Any]]]) -> None:
    events = run[1]
    [killed] = [event for event in events if event["event"] == "killed"]
    [round_] = [one for one in events if one["event"] == "round" and one["round"] == killed["round"]]
    assert killed["phase"] == "collecting"
    assert (round_["result"], round_["survivors"], round_["dropouts"]) == ("committed", DEVICES - 1, 1)
    assert (events[-1]["devices_killed"], events[-1]["dropouts_recovered"]) == (1, 1)


def test_the_model_runs_in_plain_onnxruntime(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, events = run
    session = onnxruntime.InferenceSession(folder / events[-1]["model"], providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    [answer] = session.run(None, {given.name: np.zeros((2, CHANNELS, WINDOW), np.float32)})
    assert answer.shape == (2, CLASSES)


def test_the_picture_is_a_png(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, events = run
    assert (folder / events[-1]["plot"]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_every_phase_was_seen_on_the_status_topics(run: tuple[Path, list[dict[str, Any]]]) -> None:
    seen = {event["phase"] for event in run[1] if event["event"] == "phase"}
    assert {"inviting", "keying", "sharing", "collecting", "confirming", "recovering"} <= seen


def test_the_password_stands_in_no_log(run: tuple[Path, list[dict[str, Any]]]) -> None:
    work = run[0] / "kept" / "work"
    password = (work / "broker.password").read_text().strip()
    logs = list((work / "logs").glob("*.log"))
    assert len(logs) == DEVICES + 4
    assert not any(password in log.read_text() for log in logs)


def test_without_keep_only_results_remain(tmp_path: Path) -> None:
    (tmp_path / "fedfleet-demo").mkdir()
    finish(demo(tmp_path, "--devices", "5", "--rounds", "1", "--drop", "0"))
    remaining = sorted(file.name for file in (tmp_path / "fedfleet-demo-2").iterdir())
    assert remaining == ["accuracy.png", "model.onnx", "results.json"]
    assert list((tmp_path / "fedfleet-demo").iterdir()) == []


def test_more_kills_than_the_fleet_can_stand_end_sensibly(tmp_path: Path) -> None:
    process = demo(tmp_path, "--devices", "5", "--rounds", "6", "--drop", "2")
    out, _ = process.communicate(timeout=LIMIT_SECONDS)
    events = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0
    assert "exhausted" in {event["event"] for event in events}
    assert events[-1]["devices_killed"] == 1
    assert events[-1]["rounds_committed"] < 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_demo_ends_nobody_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = demo(tmp_path, "--devices", "5", "--drop", "0")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "phase":
            break
    assert len(working_in(tmp_path)) > 6
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode in {128 + number, -number}
    assert nobody_works_in(tmp_path)
