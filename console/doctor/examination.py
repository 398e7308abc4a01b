"""What checks may look at: everything they see of the world comes through here."""

import asyncio
import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from broker.address import BrokerAddress
from broker.mqtt_connection import MqttSettings
from broker.probe import Probe
from device_agent.conditions import Sensors
from device_agent.sensors import Readings
from device_agent.settings import AgentSettings
from protocol.errors import FedfleetError, MisuseError
from protocol.ids import Name
from protocol.roles import Role
from protocol.topics import Topics
from runtime.clock import Clock
from runtime.config import BrokerSettings
from runtime.entropy import Entropy
from runtime.identity import Identity, client_tls, load_identity

FLEET_FOLDER = Path("/etc/fedfleet")

# adjtimex(2): the kernel's clock is not synchronised.
_TIME_ERROR = 5
# struct timex of 64-bit Linux is 208 bytes; its first field, the modes, 0, asks and changes nothing.
_TIMEX_BYTES = 256


class ProgramSettings(Protocol):
    """What the settings of all programs have."""

    @property
    def fleet(self) -> Name:
        """Name of the fleet."""

    @property
    def broker(self) -> BrokerSettings:
        """How to reach the broker."""

    @property
    def identity(self) -> Path:
        """Folder of the certificate and the key."""

    @property
    def state(self) -> Path:
        """Folder for what must survive a restart."""

    @property
    def name(self) -> Name | None:
        """Which identity of the folder; None when it holds one."""


@dataclass(frozen=True)
class Machine:
    """What is asked of the operating system.

    Attributes:
        root: whether we run with all rights.
        mounts: `/proc/self/mounts`.
        free: bytes that are left where a folder is.
        synchronised: whether something keeps the clock right; None where that cannot be known.
        folders: besides those in the settings, where an issuing key may have been left.
        python: version.
        version_of: of an installed package; raises PackageNotFoundError.
        required: of fedfleet, as a package declares it.
        readings: what a device's sensors say.
    """

    root: bool
    mounts: str
    free: Callable[[Path], int]
    synchronised: bool | None
    folders: tuple[Path, ...]
    python: tuple[int, int]
    version_of: Callable[[str], str]
    required: tuple[str, ...]
    readings: Callable[[AgentSettings], Readings]


def this_machine() -> Machine:
    """The machine that we run on."""
    return Machine(
        root=os.geteuid() == 0,
        mounts=_text(Path("/proc/self/mounts")),
        free=lambda folder: shutil.disk_usage(folder).free,
        synchronised=_synchronised(),
        folders=(FLEET_FOLDER, Path.cwd()),
        python=sys.version_info[:2],
        version_of=metadata.version,
        required=_required(),
        readings=_readings,
    )


def _readings(settings: AgentSettings) -> Readings:
    ask_network = settings.conditions.unmetered == "auto"
    return asyncio.run(Sensors(settings.state, ask_network=ask_network).read())


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _required() -> tuple[str, ...]:
    try:
        return tuple(metadata.requires("fedfleet") or ())
    except metadata.PackageNotFoundError:  # run from a folder of sources
        return ()


def _synchronised() -> bool | None:
    if Path("/run/systemd/timesync/synchronized").exists():
        return True
    if sys.platform != "linux":
        return None
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else bool(state != _TIME_ERROR)


@dataclass(frozen=True)
class Examination:
    """One program on one machine.

    Attributes:
        role: of the program.
        settings: that it would run with.
        clock: the time.
        entropy: makes our messages tell apart from others'.
        machine: what is asked of the operating system.
        environment: variables that the program would see.
        production: whether what is fine for development is not.
        mosquitto_conf: the broker's settings, when it runs on this machine.
        broker: which address is examined; None for what is not about one.
        dial: makes a connection to be entered.
    """

    role: Role
    settings: ProgramSettings
    clock: Clock
    entropy: Entropy
    machine: Machine
    environment: Mapping[str, str]
    production: bool = False
    mosquitto_conf: Path | None = None
    broker: BrokerAddress | None = None
    dial: Callable[[BrokerAddress, MqttSettings, Callable[[], float]], Probe] = Probe

    @property
    def topics(self) -> Topics:
        """Of the fleet."""
        return Topics(self.settings.fleet)

    @property
    def identity(self) -> Identity:
        """Who the program would be.

        Raises:
            IdentityError: see `load_identity`.
        """
        return load_identity(self.settings.identity, self.settings.name)

    @property
    def address(self) -> BrokerAddress:
        """The broker that is examined.

        Raises:
            MisuseError: none is.
        """
        if self.broker is None:
            raise MisuseError("this check is not about a broker")
        return self.broker

    @property
    def own_topic(self) -> str:
        """Where the program may talk to itself.

        Raises:
            IdentityError: see `identity`.
        """
        return self.topics.probe(self.identity.name)

    def mqtt(self) -> MqttSettings:
        """How the program would connect.

        Raises:
            IdentityError: the identity or the authorities cannot be used.
        """
        identity = self.identity
        return MqttSettings(
            (self.address,),
            identity.name,
            keepalive=self.settings.broker.keepalive,
            tls=client_tls(identity, self.settings.broker.authorities) if self.address.tls else None,
        )

    def connect(self, settings: MqttSettings | None = None, address: BrokerAddress | None = None) -> Probe:
        """A connection to be entered; as the program's own unless told otherwise.

        Raises:
            IdentityError: see `mqtt`.
        """
        return self.dial(address or self.address, settings or self.mqtt(), self.clock.now)

    def token(self) -> bytes:
        """What nobody else would publish."""
        return b"fedfleet doctor " + self.entropy.bytes(8).hex().encode()

    def try_identity(self) -> Identity | None:
        """Who the program would be; None when that cannot be read, which a check of its own tells."""
        try:
            return self.identity
        except FedfleetError:
            return None
