"""`fedfleet broker`: a broker for one desk, in the foreground."""

import os
import secrets
import shlex
from pathlib import Path
from typing import Literal

from rich.console import Console

from broker.embedded import EmbeddedBroker
from protocol.errors import FedfleetError
from runtime.signals import stop_event

USERNAME = "fedfleet"
READY = "broker ready at "
"""What the line with the address begins with; a starter may wait for it."""


class PasswordError(FedfleetError):
    """The password file cannot be used."""


def default_password_file(environment: dict[str, str] | os._Environ[str], home: Path) -> Path:
    """Where the password is kept when nobody says where (XDG Base Directory Specification: state)."""
    return (
        Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "fedfleet" / "broker.password"
    )


def password_in(file: Path) -> str:
    """The password in a file; a random one is written there, for the owner only, if there is no file.

    Raises:
        PasswordError: the file cannot be read or made, or is empty.
    """
    try:
        if not file.exists():
            _write_random(file)
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise PasswordError(f"{file}: {error}; give a readable text file") from error
    if not password or '"' in password or "\n" in password:
        raise PasswordError(f"{file}: must hold one password without quotes; remove it and one is made")
    return password


def _write_random(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_urlsafe(18) + "\n")


async def serve(
    *,
    host: str,
    port: int,
    engine: Literal["auto", "mosquitto", "nats"],
    username: str,
    password_file: Path,
    console: Console,
) -> None:
    """Run the broker until SIGTERM or SIGINT.

    Raises:
        FedfleetError: no broker program, a port that is taken, or a password file that cannot be used.
    """
    stop = stop_event()
    password = password_in(password_file)
    async with EmbeddedBroker.start(engine, host=host, port=port, user=username, password=password) as broker:
        text = _how_to_connect(broker, username, password_file)
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        console.file.flush()
        await stop.wait()


def _how_to_connect(broker: EmbeddedBroker, username: str, password_file: Path) -> str:
    """For people; the password itself stands in no output, and on no command line."""
    address = f"mqtt://{broker.address.host}:{broker.address.port}"
    variables = {"URLS": address, "USERNAME": username, "PASSWORD_FILE": str(password_file)}
    exports = " ".join(f"FEDFLEET_BROKER__{name}={shlex.quote(value)}" for name, value in variables.items())
    return (
        f"{READY}{address} ({broker.engine}, user {username}, password in {password_file})\n"
        f"Before you start the other programs:\n  export {exports}"
    )
