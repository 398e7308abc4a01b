"""`fedfleet agent install-service`: a unit that fits the device, or the reason why not."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console import service as service_module
from console.commands import app
from console.service import UNIT, AgentService, ServiceError, hand_over_key, plan_service, write_unit
from runtime.identity import IdentityError

PYTHON = Path("/usr/bin/python3")
SETTINGS = """
fleet = "plant"
name = "pi-1"
identity = "/var/lib/fedfleet-agent/identity"
state = "/var/lib/fedfleet-agent/state"
broker.urls = ["mqtts://broker.example.org:8883"]
data.path = "/srv/press/data.npz"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(SETTINGS)
    return file


def planned(config: Path, memory_max: str | None = None, user: str | None = None) -> AgentService:
    return plan_service(config, PYTHON, (Path("/usr"),), memory_max, user)


def install(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["agent", "install-service", *(str(one) for one in arguments)])


def test_the_unit_runs_the_agent_safely_from_any_folder(config: Path) -> None:
    unit = planned(config).unit.splitlines()
    assert f"ExecStart=/usr/bin/python3 -P -m console agent --config {config}" in unit
    for line in (
        "Type=notify",
        "WatchdogSec=60",
        "MemoryMax=768M",
        "DynamicUser=yes",
        "ProtectSystem=strict",
    ):
        assert line in unit


def test_the_key_is_roots_and_reaches_the_service_as_a_credential(config: Path) -> None:
    service = planned(config)
    assert "LoadCredential=pi-1.key:/etc/fedfleet/keys/pi-1.key" in service.unit.splitlines()
    assert service.next_steps == (
        "install -D -m 0600 /var/lib/fedfleet-agent/identity/pi-1.key /etc/fedfleet/keys/pi-1.key",
        "ln -sf /run/credentials/fedfleet-agent.service/pi-1.key /var/lib/fedfleet-agent/identity/pi-1.key",
        "systemctl daemon-reload",
        "systemctl enable --now fedfleet-agent.service",
    )


def test_a_user_may_be_named(config: Path) -> None:
    unit = planned(config, "40%", "press").unit.splitlines()
    assert "User=press" in unit
    assert "DynamicUser=yes" not in unit
    assert "MemoryMax=40%" in unit


@pytest.mark.parametrize("amount", ["", "much", "0", "100%", "1G\nUser=root"])
def test_an_amount_of_memory_that_systemd_would_not_take(config: Path, amount: str) -> None:
    with pytest.raises(ServiceError, match="write 512M or 40%"):
        planned(config, amount)


@pytest.mark.parametrize("user", ["", "Press", "a b", "press\nUser=root"])
def test_a_user_that_is_none(config: Path, user: str) -> None:
    with pytest.raises(ServiceError, match="is not a name"):
        planned(config, user=user)


@pytest.mark.parametrize("key", ["state", "identity"])
def test_what_is_written_lies_in_the_services_own_folder(config: Path, key: str) -> None:
    config.write_text(SETTINGS.replace(f"/var/lib/fedfleet-agent/{key}", "/opt/elsewhere"))
    with pytest.raises(ServiceError, match=f"{key} is /opt/elsewhere.*move it below /var/lib/fedfleet-agent"):
        planned(config)


def test_training_meets_its_own_limit_before_the_service_meets_its(config: Path) -> None:
    config.write_text(SETTINGS + "training.memory_limit_mb = 1024\n")
    assert "MemoryMax=1280M" in planned(config).unit.splitlines()


def test_homes_are_hidden_but_for_what_the_service_reads(config: Path) -> None:
    config.write_text(SETTINGS.replace("/srv/press", "/home/pi/my data"))
    lines = planned(config).unit.splitlines()
    assert "ProtectHome=tmpfs" in lines
    assert 'BindReadOnlyPaths="/home/pi/my data"' in lines
    assert "BindReadOnlyPaths=/usr" not in lines


def test_signs_that_mean_something_to_systemd_are_escaped(tmp_path: Path) -> None:
    config = tmp_path / '50% "of" $HOME.toml'
    config.write_text(SETTINGS)
    assert '/50%% \\"of\\" $$HOME.toml"' in planned(config).unit


def test_without_a_name_the_identity_folder_must_tell_it(config: Path) -> None:
    config.write_text(SETTINGS.replace('name = "pi-1"', ""))
    with pytest.raises(IdentityError, match="/var/lib/fedfleet-agent/identity"):
        planned(config)


def test_the_unit_is_written_for_all_to_read(config: Path, tmp_path: Path) -> None:
    file = write_unit(planned(config), tmp_path)
    assert file == tmp_path / UNIT
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    with pytest.raises(ServiceError, match="--output"):
        write_unit(planned(config), tmp_path / "no" / "where")


def test_a_dry_run_prints_the_unit_and_writes_nothing(config: Path, tmp_path: Path) -> None:
    told = install("--config", config, "--output", tmp_path / "units", "--dry-run")
    assert told.exit_code == 0
    assert told.output.startswith("# Written by `fedfleet agent install-service`")
    assert not (tmp_path / "units").exists()


def test_the_command_says_what_it_wrote_and_what_is_next(config: Path, tmp_path: Path) -> None:
    told = install("--config", config, "--output", tmp_path)
    assert told.exit_code == 0
    assert told.output.splitlines()[0] == f"written: {tmp_path / UNIT}"
    assert told.output.splitlines()[-1] == "  systemctl enable --now fedfleet-agent.service"


def test_a_mistake_is_told_in_a_line(tmp_path: Path) -> None:
    told = install("--config", tmp_path / "none.toml")
    assert told.exit_code == 2
    assert "none.toml: cannot be read" in told.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_it(config: Path, tmp_path: Path) -> None:
    file = write_unit(planned(config), tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_its_exposure_is_low(config: Path, tmp_path: Path) -> None:
    file = write_unit(planned(config), tmp_path)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout


def test_the_key_is_handed_over_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "KEYS", tmp_path / "keys")
    key = tmp_path / "identity" / "pi-1.key"
    key.parent.mkdir()
    key.write_text("secret")
    service = AgentService(("python",), tmp_path / "agent.toml", key, (), "1G", None)
    for _ in range(2):
        hand_over_key(service)
        assert key.readlink() == Path("/run/credentials/fedfleet-agent.service/pi-1.key")
        assert service.root_key.read_text() == "secret"
        assert stat.S_IMODE(service.root_key.stat().st_mode) == 0o600
    assert len(service.next_steps) == 2


def test_a_key_that_is_not_there(config: Path) -> None:
    with pytest.raises(ServiceError, match="run this as root"):
        hand_over_key(planned(config))
