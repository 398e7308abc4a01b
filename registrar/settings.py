"""What an operator sets for the registrar, and for a broker's guard."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from protocol.ids import Name
from registrar.office import DAY, Terms
from runtime.config import BrokerSettings, LogSettings

Days = Annotated[int, Meta(ge=1, le=7300)]


class RegistrarSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a registrar is told.

    Attributes:
        fleet: name of the fleet.
        broker: how to reach the broker.
        identity: folder with the fleet's root certificate, the registrar's certificate and key, and the
            root's revocation list.
        state: folder for claims, devices and revocations.
        name: which identity of the folder; None when it holds one.
        certificate_days: for how long a device's certificate is good; it is renewed when a third is left.
        list_days: for how long a revocation list is good; a new one is signed every day.
        log: what is logged.
    """

    fleet: Name
    broker: BrokerSettings
    identity: Path
    state: Path
    name: Name | None = None
    certificate_days: Days = 365
    list_days: Annotated[int, Meta(ge=2, le=365)] = 7
    log: LogSettings = LogSettings()

    @property
    def terms(self) -> Terms:
        """How long its signatures are good."""
        return Terms(self.certificate_days * DAY, self.list_days * DAY)


class GuardSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a broker's guard is told.

    Attributes:
        fleet: name of the fleet.
        broker: how to reach the broker.
        identity: folder with the fleet's root certificate and the guard's certificate and key.
        crl: file that the broker reads revocation lists from; written here.
        root_crl: the root's revocation list, which goes into it, too; None is the identity's root.crl.
        pid_file: of the broker's process, which is told to read the file again. Defaults are Debian's.
        name: which identity of the folder; None when it holds one.
        log: what is logged.
    """

    fleet: Name
    broker: BrokerSettings
    identity: Path
    crl: Path = Path("/etc/fedfleet/revoked.crl")
    root_crl: Path | None = None
    pid_file: Path = Path("/run/mosquitto/mosquitto.pid")
    name: Name | None = None
    log: LogSettings = LogSettings()
