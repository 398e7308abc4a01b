"""`fedfleet access` on the command line."""

from pathlib import Path

from typer.testing import CliRunner

from broker.access import mosquitto_rules
from console.commands import app
from protocol.topics import Topics

runner = CliRunner()


def test_mosquitto_rules_are_printed_or_written(tmp_path: Path) -> None:
    expected = mosquitto_rules(Topics("f"), ("watch-alice",))
    arguments = ["access", "mosquitto", "--fleet", "f", "--name", "watch-alice"]
    assert runner.invoke(app, arguments).stdout == expected
    assert runner.invoke(app, [*arguments, "--output", str(tmp_path / "acl")]).stdout == ""
    assert (tmp_path / "acl").read_text() == expected


def test_what_is_wrong_is_told_with_its_fix(tmp_path: Path) -> None:
    name = runner.invoke(app, ["access", "mosquitto", "--fleet", "F/#"])
    assert (name.exit_code, "write 1 to 64 of" in name.stderr) == (2, True)
    folder = runner.invoke(app, ["access", "mosquitto", "--fleet", "f", "--output", str(tmp_path / "no/acl")])
    assert (folder.exit_code, "its folder must exist" in folder.stderr) == (2, True)


def test_nats_users_are_those_that_are_named() -> None:
    arguments = ["access", "nats", "--fleet", "f", "--generation", "2"]
    printed = runner.invoke(app, [*arguments, "--name", "d1", "--name", "coordinator"]).stdout
    assert '"CN=d1,OU=device,O=f"' in printed
    assert '"SERIALNUMBER=2,CN=coordinator,OU=coordinator,O=f"' in printed
    nobody = runner.invoke(app, arguments)
    assert (nobody.exit_code, "a --name for each client" in nobody.stderr) == (2, True)


def test_a_nats_node_needs_a_password_for_its_routes(tmp_path: Path) -> None:
    arguments = ["access", "nats-node", "n1", "--route", "n2:6222", "--routes-listen", "10.0.0.1:6222"]
    secret = {"FEDFLEET_ROUTES_PASSWORD": "0123456789abcdef"}
    made = runner.invoke(app, arguments, env=secret)
    assert 'routes: ["nats://routes:0123456789abcdef@n2:6222"]' in made.stdout
    runner.invoke(app, [*arguments, "--output", str(tmp_path / "node.conf")], env=secret)
    assert (tmp_path / "node.conf").stat().st_mode & 0o777 == 0o600
    refused = runner.invoke(app, arguments, env={"FEDFLEET_ROUTES_PASSWORD": "short"})
    assert (refused.exit_code, "16 or more letters" in refused.stderr) == (2, True)
