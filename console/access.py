"""`fedfleet access`: the broker's access rules for a fleet."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from broker.access import SHARDS, mosquitto_rules
from broker.nats import NatsNode, nats_node, nats_users
from protocol.errors import FedfleetError
from protocol.ids import NAME_PATTERN
from protocol.topics import Topics
from runtime.files import write_synced

ROUTES_PASSWORD = "FEDFLEET_ROUTES_PASSWORD"  # noqa: S105 (the name of a variable)


class AccessError(FedfleetError):
    """The rules cannot be made as asked."""


def for_mosquitto(fleet: str, names: Sequence[str], shards: Sequence[str] = SHARDS) -> str:
    """What belongs into Mosquitto's `acl_file`.

    Raises:
        AccessError: the fleet or a name is none.
    """
    return mosquitto_rules(Topics(_name(fleet)), tuple(map(_name, names)), tuple(map(_name, shards)))


def for_nats(fleet: str, names: Sequence[str], generation: int, shards: Sequence[str] = SHARDS) -> str:
    """The users of a NATS cluster, the same file for every node.

    Raises:
        AccessError: the fleet or a name is none, or nobody is named.
    """
    if not names:
        raise AccessError("NATS refuses whoever is not named; give a --name for each client, devices too")
    shards = tuple(map(_name, shards))
    return nats_users(Topics(_name(fleet)), tuple(map(_name, names)), generation=generation, shards=shards)


def for_nats_node(
    name: str, listen: str, routes_listen: str, routes: Sequence[str], environment: Mapping[str, str]
) -> str:
    """The configuration of one node of a NATS cluster.

    Raises:
        AccessError: the name is none, or the environment has no password for the routes.
    """
    password = environment.get(ROUTES_PASSWORD, "")
    if not re.fullmatch("[A-Za-z0-9]{16,}", password):
        raise AccessError(f"set {ROUTES_PASSWORD} to 16 or more letters and digits, the same for every node")
    return nats_node(NatsNode(_name(name), listen, routes_listen, tuple(routes), password))


def deliver(text: str, file: Path | None, *, secret: bool = False) -> None:
    """Write the text to a file, whole or not at all, or print it.

    Args:
        text: all of it.
        file: None prints.
        secret: the file is for its owner only.

    Raises:
        AccessError: the file cannot be written.
    """
    if file is None:
        sys.stdout.write(text)
        return
    mask = os.umask(0o077) if secret else None
    try:
        write_synced(file, text.encode())
    except OSError as error:
        raise AccessError(f"{file} cannot be written ({error.strerror}); its folder must exist") from error
    finally:
        if mask is not None:
            os.umask(mask)


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise AccessError(f'"{text}" is not a name; write 1 to 64 of a-z, 0-9, _ and -')
    return text
