"""The command line of the long-running programs: file < environment < options, and errors in a line."""

from pathlib import Path

import pytest
from msgspec import Struct

from coordinator.__main__ import PROGRAM as COORDINATOR
from coordinator.settings import CoordinatorSettings
from device_agent.__main__ import PROGRAM as AGENT
from protocol.errors import FedfleetError
from runtime.command_line import EXIT_OK, EXIT_WRONG, Option, Program
from runtime.config import SettingsError

AGENT_OPTIONS = (
    "--fleet plant --broker mqtt://a:1 --broker mqtt://b:2 --username hans "
    "--identity id --state st --data d.npz"
)


class Settings(Struct, frozen=True):
    depth: int = 1


served: list[Settings] = []


async def serve(settings: Settings) -> None:
    served.append(settings)
    if settings.depth > 9:
        raise FedfleetError("too deep; dig less")


PROGRAM = Program("Digs.", Settings, (Option("--depth", "depth", "how deep", "N", int),), serve)


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    served.clear()
    for name in ("FEDFLEET_DEPTH", "FEDFLEET_FLEET", "FEDFLEET_BROKER__PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_an_option_overrules_the_environment_which_overrules_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text("depth = 2")
    config = ["--config", str(tmp_path / "settings.toml")]
    assert PROGRAM.read(config, "dig") == Settings(2)
    monkeypatch.setenv("FEDFLEET_DEPTH", "3")
    assert PROGRAM.read(config, "dig") == Settings(3)
    assert PROGRAM.read([*config, "--depth", "4"], "dig") == Settings(4)


def test_it_serves_and_returns_zero() -> None:
    assert PROGRAM.main(["--depth", "5"], "dig") == EXIT_OK
    assert served == [Settings(5)]


def test_an_error_with_a_name_is_a_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert PROGRAM.main(["--depth", "10"], "dig") == EXIT_WRONG
    assert capsys.readouterr().err == "dig: too deep; dig less\n"


def test_an_unknown_option_ends_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAM.main(["--breadth", "1"], "dig")
    assert ended.value.code == EXIT_WRONG
    assert "--breadth" in capsys.readouterr().err


def test_an_abbreviated_option_is_unknown() -> None:
    with pytest.raises(SystemExit):
        PROGRAM.main(["--dep", "1"], "dig")


def test_the_agent_takes_its_options() -> None:
    settings = AGENT.read([*AGENT_OPTIONS.split(), "--upload-bytes-per-second", "18000"], "agent")
    assert settings.fleet == "plant"
    assert settings.broker.urls == ("mqtt://a:1", "mqtt://b:2")
    assert settings.broker.username == "hans"
    assert (settings.identity, settings.state, settings.data.path) == (Path("id"), Path("st"), Path("d.npz"))
    assert settings.upload_bytes_per_second == 18000


def test_the_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDFLEET_BROKER__PASSWORD", "geheim")
    settings = AGENT.read(AGENT_OPTIONS.split(), "agent")
    assert settings.broker.password is not None
    assert settings.broker.password.reveal() == "geheim"
    assert "--password" not in AGENT._parser("agent").format_help()


def test_the_coordinator_takes_its_options() -> None:
    line = (
        "--fleet plant --broker mqtt://a:1 --identity id --name boss --state st --plan p.toml "
        "--evaluation-data e.npz --start-when 7 --workers 2 --seed 3 --log-level debug --log-format json"
    )
    settings = COORDINATOR.read(line.split(), "coordinator")
    assert isinstance(settings, CoordinatorSettings)
    assert (settings.plan, settings.evaluation.data) == (Path("p.toml"), Path("e.npz"))
    assert (settings.name, settings.start_when, settings.workers, settings.seed) == ("boss", 7, 2, 3)
    assert (settings.log.level, settings.log.format) == ("debug", "json")


@pytest.mark.parametrize("program", [COORDINATOR, AGENT])
def test_what_is_missing_is_named(program: Program[Settings]) -> None:
    with pytest.raises(SettingsError, match="fleet is missing"):
        program.read([], "program")
