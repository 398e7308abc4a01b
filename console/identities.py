"""`fedfleet identities`: a development fleet on the fly."""

from collections.abc import Sequence
from pathlib import Path

from protocol.certificates import Role
from protocol.errors import FedfleetError
from registrar.authority import FleetAuthority
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.identity import Identity, write_identity

COORDINATOR = "coordinator"


class IdentitiesError(FedfleetError):
    """The development fleet cannot be made as asked."""


def device_names(count: int, prefix: str) -> list[str]:
    """`prefix` and a number each, all of one width: "device-01" to "device-10"."""
    width = len(str(count))
    return [f"{prefix}{number:0{width}}" for number in range(1, count + 1)]


def make_fleet(folder: Path, fleet: str, devices: Sequence[str]) -> list[Path]:
    """Write a folder for the coordinator and for each device; the root's private key is not kept.

    Returns:
        The folders, the coordinator's first.

    Raises:
        IdentitiesError: `folder` is there and not empty, or names repeat.
        MisuseError: a name is not 1 to 64 of [a-z0-9_-].
    """
    if folder.exists() and any(folder.iterdir()):
        raise IdentitiesError(f"{folder} is not empty; give a new folder: a fleet is made whole, once")
    identities = issue(fleet, devices)
    made = [folder / identity.name for identity in identities]
    for place, identity in zip(made, identities, strict=True):
        write_identity(place, identity)
    return made


def issue(fleet: str, devices: Sequence[str]) -> list[Identity]:
    """The coordinator's identity and the devices', under a new root.

    Raises:
        IdentitiesError: names repeat.
        MisuseError: one is not 1 to 64 of [a-z0-9_-].
    """
    if len({COORDINATOR, *devices}) != 1 + len(devices):
        raise IdentitiesError(f'names repeat; every device needs one of its own, and not "{COORDINATOR}"')
    authority = FleetAuthority.create(fleet, SystemClock().unix(), SystemEntropy().bytes)
    return [
        authority.issue(COORDINATOR, Role.COORDINATOR),
        *(authority.issue(name, Role.DEVICE) for name in devices),
    ]
