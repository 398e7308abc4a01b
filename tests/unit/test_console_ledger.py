"""`fedfleet agent ledger` as it is typed."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.commands import app
from console.main import main
from device_agent.ledger import FILE
from device_agent.memory import AgentMemory
from privacy.accounting import compose, epsilon, rho_for
from protocol.ids import Order

NOON = 1_800_000_000.0


def spent_in(folder: Path, *costs: float) -> None:
    """An agent has spent so much in rounds 1, 2, ..."""
    memory = AgentMemory(folder)
    memory.begin()
    for number, rho in enumerate(costs, start=1):
        memory.remember(Order(1, 1, number), 0.0)
        memory.charge(Order(1, 1, number), "distributed", rho, NOON + number)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def fedfleet(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FEDFLEET_")]:
        monkeypatch.delenv(name)


def settings_file(folder: Path, privacy: str) -> Path:
    file = folder / "agent.toml"
    file.write_text(
        'fleet = "plant"\nidentity = "id"\nstate = "state"\n[broker]\nurls = ["mqtt://b:1"]\n'
        f'[data]\npath = "d.npz"\n[privacy]\n{privacy}\n'
    )
    return file


def test_the_ledger_is_told_in_a_table(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.01, 0.02)
    result = fedfleet("agent", "ledger", "--state", tmp_path)
    assert result.exit_code == 0
    file, head, first, second, total = result.output.splitlines()
    assert file == str(tmp_path / FILE)
    assert head.split() == ["round", "noise", "epsilon", "so", "far", "zCDP", "so", "far", "when", "(UTC)"]
    one, both = epsilon(0.01, 1e-6), epsilon(compose([0.01, 0.02]), 1e-6)
    assert first.split() == [
        *("1.1.1", "distributed", f"{one:.3g}", f"{one:.4g}", "0.01", "0.01", "2027-01-15", "08:00:01")
    ]
    assert second.split()[3:6] == [f"{both:.4g}", "0.02", "0.03"]
    assert total == f"2 rounds charged; epsilon {both:.4g} at delta 1e-06, zCDP 0.03; no budget given"


def test_what_is_left_of_a_budget_is_told(tmp_path: Path) -> None:
    spent_in(tmp_path / "state", 0.01, 0.02)
    file = settings_file(tmp_path, 'weakest = "distributed"\nepsilon = 4.0\ndelta = 1e-5')
    total = fedfleet("agent", "ledger", "--config", file).output.splitlines()[-1]
    both, left = epsilon(compose([0.01, 0.02]), 1e-5), rho_for(4.0, 1e-5) - 0.03
    assert total == (
        f"2 rounds charged; epsilon {both:.4g} of 4 at delta 1e-05, zCDP 0.03; left: zCDP {left:.4g}, "
        f"{int(left / 0.02)} rounds like the last one"
    )


def test_a_spent_budget_leaves_nothing(tmp_path: Path) -> None:
    spent_in(tmp_path / "state", 50.0)
    file = settings_file(tmp_path, 'weakest = "central"\nepsilon = 1.0')
    said = fedfleet("agent", "ledger", "--config", file).output
    assert said.endswith("; left: zCDP 0, 0 rounds like the last one\n")


def test_the_ledger_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent_in(tmp_path, 0.01, 0.02)
    monkeypatch.setenv("FEDFLEET_STATE", str(tmp_path))
    monkeypatch.setenv("FEDFLEET_PRIVACY__WEAKEST", "central")
    monkeypatch.setenv("FEDFLEET_PRIVACY__EPSILON", "4")
    monkeypatch.setenv("FEDFLEET_IDENTITY", "for/the/agent")
    made = json.loads(fedfleet("agent", "ledger", "--json").output)
    assert made["file"] == str(tmp_path / FILE)
    assert (made["delta"], made["rho"]) == (1e-6, compose([0.01, 0.02]))
    assert made["epsilon"] == made["entries"][1]["epsilon_so_far"] == epsilon(made["rho"], 1e-6)
    assert made["entries"][1] | {"epsilon": 0, "epsilon_so_far": 0} == {
        "order": [1, 1, 2],
        "mode": "distributed",
        "rho": 0.02,
        "epsilon": 0,
        "rho_so_far": made["rho"],
        "epsilon_so_far": 0,
        "unix": NOON + 2,
    }
    assert made["left"] == {
        "budget": 4.0,
        "rho": rho_for(4.0, 1e-6) - made["rho"],
        "rounds": int(made["left"]["rho"] / 0.02),
    }


def test_a_ledger_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    result = fedfleet("agent", "ledger", "--state", nowhere)
    assert result.exit_code == 0
    assert result.output.startswith(f"no round charged in {nowhere / FILE}; epsilon 0 at")
    assert not nowhere.exists()
    made = json.loads(fedfleet("agent", "ledger", "--state", nowhere, "--json").output)
    assert (made["entries"], made["rho"], made["epsilon"], made["left"]) == ([], 0.0, 0.0, None)


def test_a_budget_that_nothing_was_taken_from(tmp_path: Path) -> None:
    file = settings_file(tmp_path, 'weakest = "central"\nepsilon = 2.0')
    said = fedfleet("agent", "ledger", "--config", file, "--state", tmp_path / "other").output
    assert said.startswith(f"no round charged in {tmp_path / 'other' / FILE}; epsilon 0 of 2 at")
    assert said.endswith(f"; left: zCDP {rho_for(2.0, 1e-6):.4g}\n")


def test_a_damaged_ledger_is_told_with_exit_code_2(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25)
    (tmp_path / FILE).unlink()
    result = fedfleet("agent", "ledger", "--state", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"fedfleet: {tmp_path / FILE} is damaged: it holds 0 charges")


def test_without_a_folder_the_setting_is_named() -> None:
    result = fedfleet("agent", "ledger")
    assert result.exit_code == 2
    assert "--state DIR" in result.stderr


def test_the_command_and_the_program_share_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedfleet", "agent", "ledger", "--state", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("no round charged")
    monkeypatch.setattr(sys, "argv", ["fedfleet", "agent", "--config", str(tmp_path / "nowhere.toml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"fedfleet agent: {tmp_path / 'nowhere.toml'}: cannot be read")


def test_looking_counts_no_start(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25)
    before = contents(tmp_path)
    fedfleet("agent", "ledger", "--state", tmp_path)
    assert contents(tmp_path) == before


def test_a_limit_without_a_promise_is_refused(tmp_path: Path) -> None:
    result = fedfleet("agent", "ledger", "--config", settings_file(tmp_path, "epsilon = 4.0"))
    assert result.exit_code == 2
    assert f"{tmp_path / 'agent.toml'}: privacy: epsilon is a limit" in result.stderr
    assert 'write weakest = "central" or "distributed"' in result.stderr
