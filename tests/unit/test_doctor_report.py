"""What `fedfleet doctor` writes, and its exit code."""

import io
import json
import os
from pathlib import Path

import pytest
from examined import device
from rich.console import Console
from typer.testing import CliRunner, Result

from console.commands import app
from console.doctor.findings import Finding, Needs, failure, graver, ok, told, warning
from console.doctor.report import exit_code, json_lines, show, summary
from console.doctor.running import examine, program_runs
from console.doctor.tables import CHECKS
from protocol.errors import FedfleetError
from protocol.roles import Role
from runtime.clock import SystemClock
from runtime.watchdog import Heartbeat

FOUND = [
    Finding("ok", "fine", "", "a.one", "one"),
    Finding("warning", "odd", "look", "a.one", "one"),
    Finding("failure", "broken", "mend", "b", "two"),
]


def fedfleet(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    monkeypatch.setattr("os.environ", kept)


def test_json_lines_stay_as_they_are() -> None:
    assert json_lines(FOUND) == (
        '{"check":"a.one","examined":"one","result":"ok","cause":"fine","fix":""}\n'
        '{"check":"a.one","examined":"one","result":"warning","cause":"odd","fix":"look"}\n'
        '{"check":"b","examined":"two","result":"failure","cause":"broken","fix":"mend"}\n'
    )


def test_a_table_for_people() -> None:
    out = io.StringIO()
    show(FOUND, Console(file=out, width=60))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[1:] == [
        ["one", "ok", "fine"],
        ["warning", "odd"],
        ["→", "look"],
        ["two", "failure", "broken"],
        ["→", "mend"],
        ["1", "failures,", "1", "warnings,", "1", "ok"],
    ]


def test_warnings_are_allowed_and_failures_are_not() -> None:
    assert exit_code(FOUND[:2]) == 0
    assert exit_code(FOUND) == 1
    assert summary(FOUND[:1]) == "0 failures, 0 warnings, 1 ok"


def test_an_error_of_ours_is_taken_apart() -> None:
    assert told(FedfleetError("it broke; mend it"), "else") == failure("it broke", "mend it")
    assert told(FedfleetError("it broke"), "mend it so") == failure("it broke", "mend it so")


def test_production_and_encryption_make_it_graver(tmp_path: Path) -> None:
    patient = device(tmp_path)
    assert graver(patient, "a", "b") == warning("a", "b")
    assert graver(device(tmp_path, production=True), "a", "b") == failure("a", "b")
    (secure,) = patient.settings.broker.addresses
    assert graver(device(tmp_path, broker_address=secure), "a", "b") == failure("a", "b")


@pytest.mark.parametrize("role", list(CHECKS))
def test_a_name_for_each_check(role: Role) -> None:
    names = [check.name for check in CHECKS[role]]
    assert len(names) == len(set(names))
    assert all(check.examined for check in CHECKS[role])


def test_the_names_of_checks_stay_as_they_are() -> None:
    """Tools go by them: a new one may come, an old one does not change."""
    names = {check.name for table in CHECKS.values() for check in table}
    assert names >= {
        *("python", "packages", "clock", "clock.kept", "identity.files", "identity.standing"),
        *("identity.dates", "state.folder", "state.file-system", "state.room", "engine", "data", "plan"),
        *(
            "rights",
            "environment",
            "issuing-keys",
            "mosquitto.settings",
            "mosquitto.lists",
            "floors",
            "conditions",
        ),
        *("broker.encryption", "broker.name", "broker.port", "broker.tls", "broker.older-tls"),
        *("broker.strangers", "connection", "rules.permitted", "rules.say", "rules.hear", "rules.name"),
        *("session.kept", "session.retained", "session.large", "session.too-large", "session.keepalive"),
        *("fleet.revocations", "fleet.guard", "fleet.coordinator", "plan.floors"),
    }


# Where nobody can be asked.


def test_a_broker_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    found = {one.check: one for one in examine(device(tmp_path, urls=("mqtts://127.0.0.1:9",)))}
    assert found["broker.port"].result == "failure"
    assert "start the broker" in found["broker.port"].fix
    assert found["connection"].result == "failure"
    assert "was not examined" in found["connection"].cause
    assert not {"rules.say", "broker.tls", "session.kept"} & found.keys()


def test_a_host_that_is_not_known(tmp_path: Path) -> None:
    found = {one.check: one for one in examine(device(tmp_path, urls=("mqtts://no-such-host.invalid:1",)))}
    assert "no-such-host.invalid is not known" in found["broker.name"].cause
    assert "broker.port" not in found


def test_each_of_several_brokers_is_told_apart(tmp_path: Path) -> None:
    urls = ("mqtts://127.0.0.1:9", "mqtt://127.0.0.1:10")
    found = [one.examined for one in examine(device(tmp_path, urls=urls)) if one.check == "broker.port"]
    assert found == ["port of mqtts://127.0.0.1:9", "port of mqtt://127.0.0.1:10"]


def test_a_running_program_is_left_alone(tmp_path: Path) -> None:
    found = examine(device(tmp_path, urls=("mqtts://127.0.0.1:9",)), program_runs=True)
    (told_so,) = (one for one in found if one.check == "connection")
    assert told_so.result == "warning"
    assert "--takeover" in told_so.fix
    taken = examine(device(tmp_path, urls=("mqtts://127.0.0.1:9",)), program_runs=True, takeover=True)
    assert [one.result for one in taken if one.check == "connection"] == ["failure"]


def test_a_heartbeat_says_that_the_program_runs(tmp_path: Path) -> None:
    clock = SystemClock()
    assert not program_runs(tmp_path, clock)
    for connected in (True, False):
        beat = {"at": Heartbeat(clock.now(), connected).at, "connected": connected}
        (tmp_path / "heartbeat").write_text(json.dumps(beat))
        assert program_runs(tmp_path, clock) is connected


def test_only_production_asks_some_things(tmp_path: Path) -> None:
    patient = device(tmp_path, urls=("mqtt://127.0.0.1:9",))
    asked = {one.check for one in examine(patient)}
    more = {one.check for one in examine(device(tmp_path, urls=("mqtt://127.0.0.1:9",), production=True))}
    of_machine = [check for check in CHECKS[Role.DEVICE] if check.production and check.needs is Needs.MACHINE]
    assert more - asked >= {check.name for check in of_machine}


def test_no_secret_is_told(tmp_path: Path) -> None:
    patient = device(
        tmp_path, production=True, urls=("mqtt://127.0.0.1:9",), username="me", password="hunter2"
    )
    assert "hunter2" not in json_lines(examine(patient)) + repr(patient)
    assert ok("x").fix == ""


# As it is typed.


def settings_file(folder: Path) -> Path:
    patient = device(folder)
    file = folder / "agent.toml"
    file.write_text(
        f'fleet = "f"\nidentity = "{patient.settings.identity}"\nstate = "state"\n'
        '[broker]\nurls = ["mqtt://127.0.0.1:9"]\n[data]\npath = "data.npz"\n'
    )
    return file


def test_the_command_examines_what_the_settings_say(tmp_path: Path) -> None:
    result = fedfleet("doctor", "agent", "--json", "--config", settings_file(tmp_path), "--runtime", tmp_path)
    found = {line["check"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1
    assert found["data"]["cause"] == "8 examples of shape (3,), 2 held out"
    assert found["broker.encryption"]["result"] == "warning"
    assert found["broker.port"]["result"] == "failure"


def test_options_of_the_program_overrule(tmp_path: Path) -> None:
    result = fedfleet(
        *("doctor", "agent", "--config", settings_file(tmp_path), "--data", "gone.npz", "--runtime", tmp_path)
    )
    assert "gone.npz: no such file" in result.stdout
    assert "failures" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("program", ["agent", "coordinator", "registrar"])
def test_wrong_settings_cannot_be_examined(program: str) -> None:
    result = fedfleet("doctor", program, "--fleet", "f")
    assert result.exit_code == 2
    assert "identity is missing" in result.stderr


def test_an_option_that_does_not_exist() -> None:
    assert fedfleet("doctor", "agent", "--no-such-option").exit_code == 2


def test_the_help_names_the_exit_codes() -> None:
    assert "Exit code 0" in fedfleet("doctor", "--help").output
