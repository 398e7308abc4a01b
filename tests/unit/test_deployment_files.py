"""Images and compose files: what keeps a program in, and that each names what the others have."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from dockerfiles import DOCKERFILES, ROOT, Stage, context, ignore_patterns, of, stages
from msgspec import Struct
from msgspec.structs import fields

from coordinator.settings import CoordinatorSettings
from device_agent.settings import AgentSettings
from registrar.settings import GuardSettings, RegistrarSettings
from runtime.config import load_settings

COMPOSE = (ROOT / "docker-compose.yml", *sorted((ROOT / "deploy").glob("*.compose.yml")))


@pytest.fixture(params=DOCKERFILES, ids=lambda file: file.name)
def last(request: pytest.FixtureRequest) -> Stage:
    """The stage that becomes the image."""
    return stages(request.param)[-1]


# Dockerfiles.


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_every_base_is_one_release(file: Path) -> None:
    for stage in stages(file):
        base = stage[0].text.split()[0]
        assert re.search(r":\d+\.\d+\.\d+", base), base


def test_nobody_is_root(last: Stage) -> None:
    (user,) = of(last, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user.text)
    assert not of(last[last.index(user) :], "RUN")


def test_programs_are_process_1_and_hear_sigterm(last: Stage) -> None:
    assert [one.text for one in of(last, "STOPSIGNAL")] == ["SIGTERM"]
    for word in ("ENTRYPOINT", "CMD"):
        (one,) = of(last, word)
        assert one.is_exec


def test_health_is_asked_without_a_shell(last: Stage) -> None:
    (check,) = of(last, "HEALTHCHECK")
    command = check.text.partition("CMD ")[2]
    assert command.startswith("[")
    assert "curl" not in command


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_builds_stays_behind(file: Path) -> None:
    build, image = stages(file)
    assert of(build, "COPY")
    assert all(one.text.startswith("--from=build /opt/fedfleet ") for one in of(image, "COPY"))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_modules_come_from_the_installation_only(file: Path) -> None:
    assert "PYTHONSAFEPATH=1" in of(stages(file)[-1], "ENV")[0].text.split()


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_no_secrets(file: Path) -> None:
    assert not re.search(r"password|token|secret|\.key\b", file.read_text(), re.IGNORECASE)


def test_the_context_is_the_packages_and_what_installs_them() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {*wheel["packages"], "pyproject.toml", "README.md", "LICENSE", "scripts"}
    offered = [
        *(f"{package}/__init__.py" for package in wheel["packages"]),
        *("pyproject.toml", "README.md", "LICENSE", "scripts/install", "scripts/test", ".git/HEAD", ".env"),
        *("fleet/coordinator/coordinator.key", "console/__pycache__/main.pyc", "tests/unit/test_x.py"),
    ]
    sent = context(ignore_patterns(), offered)
    assert {path.split("/")[0] for path in sent} == wanted
    assert "scripts/test" not in sent
    assert not [path for path in sent if "pyc" in path]


# Compose files. Read as text: the tests bring no YAML reader for three files; the schema is checked by
# scripts/check-deployment.


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
@pytest.mark.parametrize(
    "line",
    [
        "read_only: true",
        "cap_drop: [ALL]",
        "security_opt: [no-new-privileges:true]",
        'options: {max-size: 10m, max-file: "5"}',
        "tmpfs: [/tmp]",
    ],
)
def test_every_file_locks_its_services_in(file: Path, line: str) -> None:
    assert f"{line}\n" in file.read_text()


def services(file: Path) -> dict[str, str]:
    """Each service's lines."""
    block = file.read_text().split("\nservices:\n")[1].split("\n\nvolumes:\n")[0]
    parts = re.split(r"^  ([a-z]+):\n", "\n" + block, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def every_service() -> list[Any]:
    found = ((file, name, text) for file in COMPOSE for name, text in services(file).items())
    return [pytest.param(text, id=f"{file.name}-{name}") for file, name, text in found]


@pytest.mark.parametrize("service", every_service())
def test_every_service_has_its_bounds(service: str) -> None:
    for word in ("mem_limit:", "stop_grace_period:", "tmpfs: [/tmp]"):
        assert word in service
    assert "<<: " in service or "read_only: true" in service
    assert "privileged: true" not in service
    assert "docker.sock" not in service


def test_the_guard_shares_what_it_needs_with_the_broker_and_no_more() -> None:
    found = services(ROOT / "docker-compose.yml")
    assert "./fleet/broker:/etc/fedfleet:ro" in found["broker"]
    assert "./fleet/broker:/etc/fedfleet\n" in found["guard"]
    assert "pid: service:broker" in found["guard"]
    assert (ROOT / "deploy" / "broker.pid").read_text() == "1\n"
    for name in ("broker", "guard"):
        assert 'user: "1883:1883"' in found[name]


@pytest.mark.parametrize(
    ("settings", "file", "name"),
    [
        (CoordinatorSettings, "docker-compose.yml", "coordinator"),
        (GuardSettings, "docker-compose.yml", "guard"),
        (RegistrarSettings, "deploy/registrar.compose.yml", "registrar"),
        (AgentSettings, "deploy/agent.compose.yml", "agent"),
    ],
)
def test_every_program_is_told_what_it_must_be_told(settings: type[Struct], file: str, name: str) -> None:
    told = dict(re.findall(r"(FEDFLEET_[A-Z_]+): (\S+)", services(ROOT / file)[name]))
    told["FEDFLEET_FLEET"], told["FEDFLEET_BROKER__URLS"] = "plant", "mqtts://broker:8883"
    load_settings(settings, file=None, environment=told, overrides={})


def test_the_guard_finds_the_brokers_files_where_it_looks_for_them() -> None:
    guard = services(ROOT / "docker-compose.yml")["guard"]
    looks = {one.name: one.default for one in fields(GuardSettings)}
    assert f"./fleet/broker:{looks['crl'].parent}\n" in guard
    assert f"./deploy/broker.pid:{looks['pid_file']}:ro\n" in guard


def test_no_issuing_key_on_the_coordinators_host() -> None:
    assert "registrar:" not in (ROOT / "docker-compose.yml").read_text().split("\nservices:\n")[1]
    assert "services:\n  registrar:" in (ROOT / "deploy" / "registrar.compose.yml").read_text()


def test_the_broker_is_one_release_and_starts_where_its_state_goes() -> None:
    broker = services(ROOT / "docker-compose.yml")["broker"]
    assert re.search(r"image: eclipse-mosquitto:\d+\.\d+\.\d+\n", broker)
    assert "broker-data:/mosquitto/data\n" in broker
    assert "working_dir: /mosquitto/data\n" in broker
    assert "persistence_location" not in re.sub("#.*", "", (ROOT / "mosquitto.conf").read_text())


def test_the_brokers_health_is_its_port() -> None:
    broker = services(ROOT / "docker-compose.yml")["broker"]
    (port,) = re.findall(r'":([0-9A-F]{4}) 00000000:0000 0A "', broker)
    assert f'ports: ["{int(port, 16)}:{int(port, 16)}"]' in broker
    assert f"listener {int(port, 16)}\n" in (ROOT / "mosquitto.conf").read_text()


def test_the_demo_needs_no_network_and_no_preparation() -> None:
    demo = services(ROOT / "docker-compose.yml")["demo"]
    assert "network_mode: none" in demo
    assert "profiles: [demo]" in demo
    assert "./" not in demo
