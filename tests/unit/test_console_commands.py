"""The operator's commands as they are typed."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.commands import app
from console.demo_files import bundled_plan, make_files
from console.identities import IdentitiesError, device_names, make_fleet
from console.main import main
from console.plan_check import check_plan
from console.run_files import fresh
from console.serve_broker import PasswordError, default_password_file, password_in
from console.watch import read_settings
from models.datasets.npz import load_npz
from protocol.certificates import FleetTrust, Role
from protocol.errors import MisuseError
from runtime.clock import SystemClock
from runtime.config import SettingsError
from runtime.identity import load_identity

HEAVY = ("matplotlib", "onnx", "onnxruntime", "numpy", "aiomqtt", "typer", "rich", "rich.live")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.toml"
    file.write_text(bundled_plan())
    return file


def fedfleet(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages are there after running this in a new interpreter."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    command = [sys.executable, "-P", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return {name for name in HEAVY if name in ran.stdout.split()}


# Help.


def test_help_names_every_command() -> None:
    said = fedfleet("--help").output
    for command in ("demo", "broker", "coordinator", "agent", "watch", "identities", "plan"):
        assert command in said


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("import console.commands") <= {"typer", "numpy", "rich"}


def test_an_agent_that_waits_has_loaded_nothing_that_only_others_or_rounds_need() -> None:
    assert loaded_by("import console.main, device_agent.__main__") == {"aiomqtt"}


def test_a_bare_installation_says_what_it_can_do() -> None:
    script = """
import sys
sys.modules["typer"], sys.argv = None, ["fedfleet", "demo"]
import console.main
console.main.main()
"""
    command = [sys.executable, "-P", "-c", script]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert (
        "fedfleet: typer is not here: a bare installation knows `fedfleet agent` and `health`" in ran.stderr
    )


def test_what_is_hidden_while_a_program_loads_can_be_imported_afterwards() -> None:
    assert loaded_by("import device_agent\nimport rich") == {"rich"}


def test_a_package_that_is_loaded_already_stays() -> None:
    assert loaded_by("import rich\nimport device_agent") == {"rich"}


@pytest.mark.parametrize("program", ["coordinator", "agent"])
def test_a_program_tells_its_own_options(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = fedfleet(program, "--help")
    assert result.exit_code == 0
    assert "--identity DIR" in result.output + capsys.readouterr().out


@pytest.mark.parametrize("program", ["coordinator", "agent"])
def test_a_program_that_is_told_nothing_ends_with_2(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedfleet", program])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"fedfleet {program}: settings: fleet is missing" in capsys.readouterr().err


# plan check.


def test_the_example_plan_is_valid_and_its_figures_are_told(plan: Path) -> None:
    result = fedfleet("plan", "check", plan, "--devices", 10)
    assert result.exit_code == 0
    for text in ("3,207 parameters", "10 devices invited", "32 bits", "9 neighbours", "12.9 kB"):
        assert text in result.output


def test_plan_figures_as_json(plan: Path) -> None:
    figures = json.loads(fedfleet("plan", "check", plan, "--devices", 10, "--json").output)
    assert figures["parameters"] == 3207
    assert figures["bytes_down"] == 4 * 3207
    assert figures["bytes_up"] == 4 * (3207 + 4) + 40
    assert (figures["cohort"], figures["degree"]) == (10, 9)
    assert figures["tolerated_dropouts"] == 10 - figures["threshold"] - 1
    assert figures["round_seconds"] == 130


def test_without_a_fleet_size_the_smallest_full_round_is_figured(plan: Path) -> None:
    assert check_plan(plan, None).cohort == 5


def test_with_spacing_a_full_round_leaves_the_others_to_rest(plan: Path) -> None:
    chosen = plan.read_text().replace("fraction = 1.0 ", "count = 10 ")
    plan.write_text(
        chosen.replace("[privacy]", '[privacy]\nmode = "central"\ntarget_epsilon = 8.0\nspacing = 50')
    )

    assert check_plan(plan, None).cohort == 10
    assert not any("left out" in text for _, text in check_plan(plan, None).privacy)
    assert check_plan(plan, 60).privacy[-1] == (
        "warning",
        (
            "60 devices are fewer than privacy.spacing 50 times selection.min_cohort 5: rest is cut short, "
            "and the budget ends the run after about 12 of 20 rounds; lower privacy.spacing to 12"
        ),
    )


def test_a_wrong_plan_names_file_key_value_and_fix(plan: Path) -> None:
    plan.write_text(plan.read_text().replace("batch_size = 16 ", "batch_size = -16"))
    result = fedfleet("plan", "check", plan)
    assert result.exit_code == 2
    for text in (str(plan), "training.batch_size", "-16"):
        assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_cannot_be_built_is_told_in_a_line(plan: Path) -> None:
    plan.write_text(plan.read_text().replace("window = 128", "widow = 128"))
    result = fedfleet("plan", "check", plan)
    assert result.exit_code == 2
    assert "widow" in result.stderr


def test_too_few_devices_are_told(plan: Path) -> None:
    result = fedfleet("plan", "check", plan, "--devices", 3)
    assert result.exit_code == 2
    assert "lower selection.min_cohort" in result.stderr


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    result = fedfleet("plan", "check", tmp_path / "nowhere.toml")
    assert result.exit_code == 2
    assert "nowhere.toml: cannot be read" in result.stderr


# identities.


def test_a_development_fleet_can_be_loaded_and_is_trusted(tmp_path: Path) -> None:
    result = fedfleet("identities", tmp_path / "ids", "--fleet", "plant", "--device", "press", "--devices", 2)
    assert result.exit_code == 0
    assert "for development only" in result.output
    coordinator = load_identity(tmp_path / "ids" / "coordinator")
    trust = FleetTrust(coordinator.root)
    now = SystemClock().unix()
    trust.verify(coordinator.certificate, role=Role.COORDINATOR, now=now)
    for name in ("press", "device-1", "device-2"):
        trust.verify(load_identity(tmp_path / "ids" / name).certificate, role=Role.DEVICE, now=now)


def test_the_roots_private_key_is_not_kept(tmp_path: Path) -> None:
    make_fleet(tmp_path / "ids", "plant", ["d1"])
    keys = sorted(file.name for file in (tmp_path / "ids").rglob("*.key"))
    assert keys == ["coordinator.key", "d1.key"]


def test_a_fleet_is_not_made_over_another(tmp_path: Path) -> None:
    make_fleet(tmp_path / "ids", "plant", ["d1"])
    result = fedfleet("identities", tmp_path / "ids", "--fleet", "plant", "--devices", 2)
    assert result.exit_code == 2
    assert "is not empty" in result.stderr


def test_names_must_differ_and_be_names(tmp_path: Path) -> None:
    with pytest.raises(IdentitiesError, match="names repeat"):
        make_fleet(tmp_path / "ids", "plant", ["d1", "d1"])
    with pytest.raises(IdentitiesError, match="names repeat"):
        make_fleet(tmp_path / "ids", "plant", ["coordinator"])
    with pytest.raises(MisuseError, match="not a name"):
        make_fleet(tmp_path / "ids", "plant", ["D 1"])
    assert not (tmp_path / "ids").exists()


def test_numbered_names_sort_as_they_count() -> None:
    assert device_names(10, "d")[0] == "d01"
    assert device_names(10, "d")[-1] == "d10"


# broker.


def test_a_password_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "broker.password"
    password = password_in(file)
    assert len(password) >= 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password_in(file) == password


@pytest.mark.parametrize("content", ["", "\n", 'a"b\n', "two\nlines\n"])
def test_a_password_file_that_cannot_be_used_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broker.password"
    file.write_text(content)
    with pytest.raises(PasswordError, match=r"broker\.password"):
        password_in(file)


def test_the_password_is_kept_in_the_users_state_folder() -> None:
    home = Path("/home/hans")
    assert default_password_file({}, home) == home / ".local/state/fedfleet/broker.password"
    assert default_password_file({"XDG_STATE_HOME": "/s"}, home) == Path("/s/fedfleet/broker.password")


# watch.


def test_a_watcher_reads_its_part_of_the_environment_only() -> None:
    environment = {
        "FEDFLEET_FLEET": "plant",
        "FEDFLEET_BROKER__URLS": "mqtt://a:1",
        "FEDFLEET_BROKER__USERNAME": "hans",
        "FEDFLEET_BROKER__PASSWORD": "geheim",
        "FEDFLEET_IDENTITY": "for/an/agent",
    }
    settings = read_settings(fleet=None, urls=["mqtt://b:2"], username=None, environment=environment)
    assert settings.fleet == "plant"
    assert settings.broker.urls == ("mqtt://b:2",)
    assert settings.broker.username == "hans"
    assert "geheim" not in repr(settings)


def test_a_watcher_without_a_broker_is_told_so() -> None:
    with pytest.raises(SettingsError, match=r"broker\.urls is missing"):
        read_settings(fleet="plant", urls=(), username=None, environment={})


# The demo's files.


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    wanted = tmp_path / "out"
    assert [fresh(wanted).name for _ in range(3)] == ["out", "out-2", "out-3"]


def test_every_device_of_the_demo_has_identity_and_data_of_its_own(tmp_path: Path) -> None:
    files = make_files(tmp_path / "out", 6, 4)
    assert files.plan.stopping.rounds == 4
    assert len(files.devices) == 6
    for name in files.devices:
        assert load_identity(files.of(name) / "identity").name == name
        assert len(load_npz(files.of(name) / "data.npz").x) > 0
    pooled = load_npz(files.evaluation_data, holdout=None)
    parts = [load_npz(files.of(name) / "data.npz") for name in files.devices]
    assert len(pooled.x_test) == sum(len(part.x_test) for part in parts)


def test_the_demos_plan_is_the_commented_example(tmp_path: Path) -> None:
    files = make_files(tmp_path / "out", 5, None)
    assert files.plan_file.read_text() == bundled_plan()


@pytest.mark.parametrize("option", [("--devices", 4), ("--devices", 141), ("--rounds", 0), ("--drop", -1)])
def test_the_demo_refuses_numbers_that_make_no_sense(option: tuple[str, int]) -> None:
    assert fedfleet("demo", *option).exit_code == 2
