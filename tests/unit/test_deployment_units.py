"""The servers' units: systemd takes them, and each program understands what its unit tells it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfiles import ROOT
from msgspec import Struct
from msgspec.structs import fields
from stand_in_systemctl import Unit

from coordinator.settings import CoordinatorSettings
from registrar.settings import GuardSettings, RegistrarSettings
from runtime.config import load_settings

UNITS = ROOT / "deploy" / "systemd"
PROGRAMS: dict[str, type[Struct]] = {
    "coordinator": CoordinatorSettings,
    "guard": GuardSettings,
    "registrar": RegistrarSettings,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_told_what_it_must_be_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stand_in_systemctl.UNITS", (UNITS,))
    words = [pair for line in Unit(f"fedfleet@{name}").settings("Environment") for pair in line.split()]
    told = dict(word.split("=", 1) for word in words)
    told |= {"FEDFLEET_FLEET": "plant", "FEDFLEET_BROKER__URLS": "mqtts://broker:8883"}
    settings = load_settings(PROGRAMS[name], file=None, environment=told, overrides={})
    assert settings.identity == Path(f"/var/lib/fedfleet-{name}/identity")  # type: ignore[attr-defined]


def test_the_guard_is_the_brokers_user_and_writes_where_it_must() -> None:
    drop_in = (UNITS / "fedfleet@guard.service.d" / "broker.conf").read_text()
    assert "\nUser=mosquitto\n" in drop_in
    (crl,) = (one.default for one in fields(GuardSettings) if one.name == "crl")
    assert f"\nReadWritePaths={crl.parent}\n" in drop_in


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
@pytest.mark.parametrize("name", PROGRAMS)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    template = tmp_path / "fedfleet@.service"
    template.write_text(template.read_text().replace("/opt/fedfleet/bin/fedfleet", sys.executable))
    unit = template.rename(tmp_path / f"fedfleet@{name}.service")
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
