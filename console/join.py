"""What `fedfleet agent join`, `csr` and `install` do."""

import asyncio
import getpass
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from broker.address import BrokerAddress
from broker.mqtt import MqttSettings, MqttTransport
from device_agent.join import (
    Applying,
    JoinError,
    apply,
    enrol,
    install,
    joined_before,
    keep,
    write_request,
)
from protocol.enrolment import CLAIM, Enrolled, check_device_name, decode_token
from registrar.root import fingerprint
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.files import write_synced
from runtime.identity import passing_tls

_MAX_NAME = 64


def read_token(token: str | None, file: Path | None) -> str:
    """The token: given in one of two ways, or asked for.

    Raises:
        JoinError: given in both or in none, or the file cannot be read.
    """
    if token is not None and file is not None:
        raise JoinError("give the token by --token or by --token-file, not by both")
    if token is not None:
        return token.strip()
    if file is None:
        typed = getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()
        if not typed.strip():
            raise JoinError("no token: paste what `fedfleet device enroll` printed, or give --token-file")
        return typed.strip()
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise JoinError(f"{file} cannot be read as a token; give the file that holds it") from error


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """How to try.

    Attributes:
        authorities: PEM file of those who may vouch for the broker; None is the fleet's root alone.
        seconds: after which to give up.
    """

    authorities: Path | None
    seconds: float


def join_fleet(broker: str, token: str, name: str | None, folder: Path, options: JoinOptions) -> list[str]:
    """`agent join`: returns what to tell.

    Raises:
        FedfleetError: the token, the folder or the answer is not usable, or there is no answer.
    """
    claim, address = decode_token(token), BrokerAddress.parse(broker)
    name = check_device_name(name or claim.name or host_name())
    applying = apply(claim, name, folder, SystemEntropy())
    if not joined_before(folder, name, claim.root, SystemClock().unix()):
        enrolled = asyncio.run(_enrol(applying, address, options))
        keep(folder, name, claim.root, enrolled, applying.key)
    fleet = applying.trust.fleet
    options_of_agent = f"--fleet {fleet} --broker {address} --identity {folder} --state DIR --data FILE"
    return [
        f"{name} is a device of fleet {fleet}; its identity is in {folder}. Next:",
        f"  fedfleet agent {options_of_agent}",
    ]


async def _enrol(applying: Applying, address: BrokerAddress, options: JoinOptions) -> Enrolled:
    clock, entropy = SystemClock(), SystemEntropy()
    tls = passing_tls(applying.identity, options.authorities) if address.tls else None
    settings = MqttSettings((address,), CLAIM, clean=True, tls=tls)

    def connect() -> MqttTransport:
        return MqttTransport(settings, sleep=clock.sleep, uniform=entropy.uniform)

    return await enrol(applying, connect, clock, entropy, options.seconds)


def host_name() -> str:
    """This machine's name as a device's: small letters, what is not allowed becomes a dash."""
    return re.sub(r"[^a-z0-9_-]+", "-", socket.gethostname().lower().partition(".")[0])[:_MAX_NAME]


def write_csr_file(name: str, folder: Path, file: Path) -> list[str]:
    """`agent csr`: returns what to tell.

    Raises:
        FedfleetError: the name is no device's, or the folder's key cannot be used.
    """
    write_synced(file, write_request(folder, check_device_name(name), SystemEntropy()))
    return [f"{file}: bring it to the registrar's host, and run there: fedfleet ca sign {file.name}"]


def install_file(file: Path, folder: Path) -> list[str]:
    """`agent install`: returns what to tell.

    Raises:
        FedfleetError: it is no answer to this device.
    """
    try:
        bundle = file.read_bytes()
    except OSError as error:
        raise JoinError(f"{file} cannot be read ({error.strerror}); give the file from `ca sign`") from error
    name, fleet, root = install(bundle, folder, SystemClock().unix())
    return [
        f"{name} is a device of fleet {fleet}; its identity is in {folder}.",
        f"Compare the fingerprint of the fleet's root: {fingerprint(root)}",
    ]
