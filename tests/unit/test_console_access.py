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
