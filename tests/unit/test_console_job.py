"""Jobs before they run: what `fedfleet init` writes, and what `fedfleet try` and `plan check` refuse."""

import ast
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from console.commands import app
from console.job import JobError, make_job, try_job
from models.datasets.hook import call_hook
from models.datasets.source import HookSource
from runtime.plan_file import load_plan

COMMAND = CliRunner()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    make_job(tmp_path / "job")
    return tmp_path / "job"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_what_init_writes_is_valid(job: Path) -> None:
    assert load_plan(job / "plan.toml").model.catalog == "mlp"
    ast.parse((job / "make_model.py").read_text())
    assert COMMAND.invoke(app, ["data", "check", str(job / "settings.toml")]).exit_code == 0


def test_the_hook_tells_devices_apart_and_repeats_itself(job: Path, tmp_path: Path) -> None:
    places = [tmp_path / name / "data.py" for name in ("device-1", "device-2")]
    for place in places:
        place.parent.mkdir()
        place.symlink_to(job / "data.py")

    one, two, again = (call_hook(HookSource(path=place)) for place in (*places, places[0]))

    assert not np.array_equal(one.x, two.x)
    assert np.array_equal(one.x, again.x)


def test_a_folder_with_something_in_it_is_left_alone(job: Path) -> None:
    with pytest.raises(JobError, match="is not empty; give a new folder"):
        make_job(job)
    told = COMMAND.invoke(app, ["init", str(job)])
    assert told.exit_code == 2


def test_plan_check_compares_the_data_with_the_model(job: Path) -> None:
    command = ["plan", "check", str(job / "plan.toml"), "--data", str(job / "settings.toml")]
    assert COMMAND.invoke(app, command).exit_code == 0

    change(job / "plan.toml", "features = 4", "features = 5")
    told = COMMAND.invoke(app, command)

    assert told.exit_code == 1
    assert "x is float32 (n, 4); the model 'mlp' with loss cross_entropy takes float32 (n, 5)" in told.stderr


def test_a_job_whose_data_do_not_fit_does_not_begin(job: Path) -> None:
    change(job / "plan.toml", "classes = 3", "classes = 2")
    with pytest.raises(JobError, match=r"data.py: labels run from 0 to 2; the model has 2 classes"):
        try_job(job, None, None, json=True)
    assert not (job / "try").exists()


def test_agents_need_data_of_their_own(job: Path) -> None:
    change(job / "settings.toml", 'source = "hook"', 'source = "csv"')
    with pytest.raises(JobError, match="put a file for each into a folder, and add --data FOLDER"):
        try_job(job, None, None, json=True)
    with pytest.raises(JobError, match="data holds 0 files; write one for each agent there"):
        try_job(job, None, job / "data", json=True)


def test_numbers_that_want_scaling_are_told_with_the_lines_to_write(job: Path) -> None:
    (job / "my.csv").write_text("hot,label\n" + "".join(f"{50 + 10 * (i % 2)},{i % 2}\n" for i in range(10)))
    settings = (job / "settings.toml").read_text()
    table = '[data]\nsource = "csv"\npath = "my.csv"\nlabel = "label"\n'
    (job / "settings.toml").write_text(settings[: settings.index("[data]")] + table)
    command = ["data", "check", str(job / "settings.toml")]

    told = COMMAND.invoke(app, command).stdout

    assert "far from 0 and 1" in told
    assert "mean = [55]" in told
    assert "deviation = [5]" in told
    with (job / "settings.toml").open("a") as file:
        file.write("mean = [55]\ndeviation = [5]\n")
    assert "far from" not in COMMAND.invoke(app, command).stdout


def test_fewer_devices_than_devices_insist_on(job: Path) -> None:
    with pytest.raises(JobError, match="4 devices are fewer than each insists on; start 5, or lower floors"):
        try_job(job, 4, None, json=True)
