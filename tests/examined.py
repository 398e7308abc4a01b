"""A device that has everything as it should be, to be spoiled by a test."""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
from known_conditions import WELL
from msgspec.structs import replace as with_fields

from console.doctor.examination import Examination, Machine
from console.doctor.findings import Finding, Findings
from coordinator.settings import CoordinatorSettings
from device_agent.settings import AgentSettings
from models.datasets.source import NpzSource
from protocol.certificates import Role
from protocol.ids import Seconds, UnixTime
from registrar.authority import YEAR, FleetAuthority
from registrar.settings import RegistrarSettings
from runtime.config import BrokerSettings
from runtime.entropy import SeededEntropy
from runtime.identity import Identity, write_identity
from runtime.secret import SecretStr

NOW = UnixTime(1_800_000_000.0)
DAY = 86_400.0
ENTROPY = SeededEntropy(1)
VERSIONS = {"paho-mqtt": "2.1.0", "numpy": "2.4.6"}


class StillClock:
    """The wall clock stands still, and nobody sleeps."""

    def __init__(self, unix: float = NOW) -> None:
        self._unix = UnixTime(unix)

    def now(self) -> Seconds:
        return Seconds(time.monotonic())

    def unix(self) -> UnixTime:
        return self._unix

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nobody sleeps here, not even {seconds} s")


def installed(versions: dict[str, str]) -> Callable[[str], str]:
    def version_of(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise PackageNotFoundError(name) from None

    return version_of


MACHINE = Machine(
    root=False,
    mounts="/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n",
    free=lambda _: 10**12,
    synchronised=True,
    folders=(),
    python=(3, 11),
    version_of=installed(VERSIONS),
    readings=lambda _: WELL,
    required=("paho-mqtt<2.3,>=2.1", "numpy<3,>=2.0", "onnx>=1.21; extra == 'coordinator'"),
)


def authority(fleet: str = "f", *, now: float = NOW, lifetime: float = 10 * YEAR) -> FleetAuthority:
    return FleetAuthority.create(fleet, UnixTime(now), ENTROPY.bytes, lifetime=lifetime)


def registrar_of(root: FleetAuthority, *, now: float = NOW) -> tuple[FleetAuthority, Identity]:
    identity = root.issue("registrar", Role.REGISTRAR)
    return FleetAuthority.of_registrar(identity, UnixTime(now), ENTROPY.bytes), identity


def keep(folder: Path, identity: Identity) -> Path:
    write_identity(folder, identity)
    return folder


def device(folder: Path, identity: Identity | None = None, **changes: Any) -> Examination:
    """A device; `changes` are of the examination, or of its settings."""
    data = folder / "data.npz"
    np.savez(data, x=np.zeros((10, 3), np.float32), y=np.zeros(10, np.int64))
    settings = AgentSettings(
        fleet="f",
        broker=BrokerSettings(urls=("mqtts://broker.local:8883",)),
        identity=keep(folder / "home" / "etc" / "identity", identity or authority().issue("d1", Role.DEVICE)),
        state=folder / "home" / "state",
        data=NpzSource(data),
    )
    return changed(Examination(Role.DEVICE, settings, StillClock(), SeededEntropy(2), MACHINE, {}), **changes)


def coordinator(folder: Path, plan: str, identity: Identity | None = None, **changes: Any) -> Examination:
    """A coordinator with this plan."""
    identity = identity or authority().issue("coordinator", Role.COORDINATOR)
    (folder / "plan.toml").write_text(plan)
    settings = CoordinatorSettings(
        fleet="f",
        broker=BrokerSettings(urls=("mqtts://broker.local:8883",)),
        identity=keep(folder / "home" / "etc" / "identity", identity),
        state=folder / "home" / "state",
        plan=folder / "plan.toml",
    )
    made = Examination(Role.COORDINATOR, settings, StillClock(), SeededEntropy(2), MACHINE, {})
    return changed(made, **changes)


def registrar(folder: Path, identity: Identity, **changes: Any) -> Examination:
    """A registrar."""
    settings = RegistrarSettings(
        fleet="f",
        broker=BrokerSettings(urls=("mqtts://broker.local:8883",)),
        identity=keep(folder / "home" / "etc" / "identity", identity),
        state=folder / "home" / "state",
    )
    made = Examination(Role.REGISTRAR, settings, StillClock(), SeededEntropy(2), MACHINE, {})
    return changed(made, **changes)


def changed(examination: Examination, **changes: Any) -> Examination:
    """Another one; keywords of the settings, the machine or the examination itself."""
    settings: Any = examination.settings
    login = {name: changes.pop(name) for name in ("urls", "username", "authorities") if name in changes}
    if "password" in changes:
        login["password"] = SecretStr(changes.pop("password"))
    if login:
        changes["broker"] = with_fields(settings.broker, **login)
    of_settings = {name: changes.pop(name) for name in [*changes] if name in settings.__struct_fields__}
    if "broker_address" in changes:
        changes["broker"] = changes.pop("broker_address")
    machine = examination.machine
    of_machine = {name: changes.pop(name) for name in [*changes] if hasattr(machine, name)}
    return replace(
        examination,
        settings=with_fields(settings, **of_settings),
        machine=replace(machine, **of_machine),
        **changes,
    )


def results(found: Findings | list[Finding]) -> list[str]:
    return [one.result for one in found]


def only(found: Findings | list[Finding]) -> Finding:
    (one,) = found
    return one


def worst(found: Findings | list[Finding]) -> Finding:
    """The first that is not ok; who tells of something wrong names the fix."""
    bad = [one for one in found if one.result != "ok"]
    assert all(one.fix for one in bad)
    return bad[0]
