"""What a certificate's holder may do, and the names that go with it."""

from enum import StrEnum


class Role(StrEnum):
    """What a certificate's holder may do: its OU.

    A device trains, a coordinator runs rounds, a registrar issues the certificates of devices. The others
    say nothing in the protocol, and are for brokers to tell apart: who watches the status topics, who guards
    a broker's revocation list, the broker itself, and a device that has only a claim to be enrolled.
    """

    DEVICE = "device"
    COORDINATOR = "coordinator"
    REGISTRAR = "registrar"
    WATCH = "watch"
    GUARD = "guard"
    BROKER = "broker"
    CLAIM = "claim"


REGISTRARS = frozenset({Role.DEVICE, Role.CLAIM})
"""Roles whose certificates a registrar may issue; all can come from the root."""


def fits(name: str, role: Role) -> bool:
    """Whether a holder of a role may have a name.

    Others than devices are called by their role's word, alone or before a dash ("watch-alice"), and no device
    is: a broker that knows names only cannot be deceived by one.
    """
    if role is Role.DEVICE:
        return not any(_is_called(name, other) for other in Role if other is not Role.DEVICE)
    return _is_called(name, role)


def _is_called(name: str, role: Role) -> bool:
    return name == role or name.startswith(f"{role}-")
