"""From an empty folder to a device thrown out: the operator's commands, real processes, Mosquitto by mTLS."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from secure_broker import HOST, SecureBroker, _program

from broker.access import mosquitto_rules
from broker.address import BrokerAddress
from broker.embedded import BrokerMissingError
from broker.mqtt import MqttSettings, MqttTransport
from device_agent.renewal import Renewal, keep_renewed
from protocol.certificates import Role
from protocol.ids import UnixTime
from protocol.topics import Topics
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.identity import client_tls, load_identity

pytestmark = pytest.mark.broker

FLEET = "demo"
TOPICS = Topics(FLEET)


class IssuedBroker(SecureBroker):
    """With the files that the operator's commands have made."""

    ca: Path

    def _write_files(self) -> None:
        if self.files.exists():
            return
        self.files.mkdir()
        shutil.copy(self.ca / "broker" / "fleet.crt", self.files / "fleet.crt")
        for file in ("broker.crt", "broker.key"):
            shutil.copy(self.ca / "broker" / file, self.files / file)
        shutil.copy(self.ca / "root" / "root.crl", self.files / "revoked.crl")
        (self.files / "acl").write_text(mosquitto_rules(TOPICS))


@dataclass
class Site:
    """One machine with everything on it."""

    folder: Path
    broker: IssuedBroker = field(init=False)
    programs: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def run(self, *arguments: str, code: int = 0) -> str:
        """One command to its end; its standard output."""
        program = await self._start(*arguments, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(program.communicate(), 60)
        assert program.returncode == code, out
        return out.decode()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """A program that runs for long."""
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            program = await self._start(*arguments, stdout=log)
        self.programs.append(program)
        return program

    async def _start(self, *arguments: str, stdout: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "console", *arguments),
            cwd=self.folder,
            env={**os.environ, "FEDFLEET_CA_PASSPHRASE": "correct horse battery"}
            if arguments[0] == "ca"
            else None,
            stdout=stdout,  # type: ignore[arg-type]
        )

    async def stop(self, program: asyncio.subprocess.Process) -> None:
        self.programs.remove(program)
        with contextlib.suppress(ProcessLookupError):
            program.terminate()
        await asyncio.wait_for(program.wait(), 20)

    @property
    def url(self) -> str:
        return f"mqtts://{HOST}:{self.broker.address.port}"

    async def start_registrar(self, days: int) -> asyncio.subprocess.Process:
        own = ("--identity", "ca/registrar", "--state", "state", "--certificate-days", str(days))
        return await self.start("registrar", "--fleet", FLEET, "--broker", self.url, *own)

    async def start_guard(self) -> asyncio.subprocess.Process:
        files = self.broker.files
        return await self.start(
            *("guard", "--fleet", FLEET, "--broker", self.url, "--identity", "ca/guard"),
            *("--crl", str(files / "revoked.crl"), "--root-crl", "ca/root/root.crl"),
            *("--pid-file", str(files.parent / "pid")),
        )

    def device(self, name: str) -> MqttTransport:
        identity = load_identity(self.folder / name)
        address = BrokerAddress(HOST, self.broker.address.port, tls=True)
        settings = MqttSettings((address,), name, clean=True, tls=client_tls(identity, None))
        return MqttTransport(settings, sleep=asyncio.sleep, uniform=lambda: 0.05)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    try:
        program = _program()
    except BrokerMissingError as missing:
        pytest.skip(str(missing))
    await site.run("ca", "init", "ca", "--fleet", FLEET)
    names = ("--san", HOST, "--san", "localhost")
    await site.run("ca", "issue", "broker", *names, "--ca", "ca", "--out", "ca/broker")
    await site.run("ca", "issue", "guard", "--ca", "ca", "--out", "ca/guard")
    broker = IssuedBroker(program, BrokerAddress(HOST, 0, tls=True), HOST)
    broker.ca = tmp_path / "ca"
    async with broker:
        site.broker = broker
        try:
            yield site
        finally:
            for running in tuple(site.programs):
                await site.stop(running)


async def join(site: Site, name: str) -> None:
    token = (await site.run("device", "enroll", "--identity", "ca/registrar", "--state", "state")).strip()
    (site.folder / "token").write_text(token)
    await site.run("agent", "join", site.url, "--token-file", "token", "--name", name, "--identity", name)


class LateClock(SystemClock):
    """Twenty hours later: a certificate of one day is due."""

    def unix(self) -> UnixTime:
        return UnixTime(super().unix() + 20 * 3600)


async def renew(site: Site, name: str) -> None:
    """What the agent does, until the certificate has changed; then the next connection shows the new one."""
    folder = site.folder / name
    identity, clock = load_identity(folder), LateClock()
    trust, before = identity.trust(Role.DEVICE, clock.unix())
    transport, changed = site.device(name), asyncio.Event()
    keep = keep_renewed(identity, folder, transport.settings.tls)

    def renewed() -> None:
        keep()
        changed.set()

    renewal = Renewal(
        identity, trust, TOPICS, transport, clock=clock, entropy=SystemEntropy(), renewed=renewed
    )
    async with asyncio.timeout(30):
        async with transport, renewal:
            await changed.wait()
        async with transport:
            assert transport.connected
    after = trust.read(load_identity(folder).certificate)
    assert after.not_after > before.not_after
    assert after.not_before == before.not_before


@pytest.mark.slow
async def test_a_devices_life_from_token_to_revocation(site: Site) -> None:
    registrar = await site.start_registrar(days=1)
    await site.start_guard()
    await join(site, "d1")
    await join(site, "d2")

    await site.stop(registrar)
    await site.start_registrar(days=30)
    await renew(site, "d1")

    lost = asyncio.Event()
    victim, other = site.device("d1"), site.device("d2")
    victim.on_connection(lambda connected: None if connected else lost.set())
    async with asyncio.timeout(60), victim, other:
        told = await site.run("device", "revoke", "d1", "--state", "state", "--reason", "stolen")
        assert "the broker goes by it" in told
        assert "its session has ended" in told
        await lost.wait()
        # It tries again and again, and is not let in; the other one notices nothing.
        await asyncio.sleep(1)
        assert not victim.connected
        assert other.connected

    rows = [
        msgspec.json.decode(line)
        for line in (await site.run("device", "ls", "--json", "--state", "state")).splitlines()
    ]
    assert {row["name"]: row["state"] for row in rows} == {"d1": "revoked", "d2": "standing"}
    again = ("agent", "join", site.url, "--token-file", "token", "--name", "d3", "--identity", "d3")
    await site.run(*again, "--timeout", "20", code=2)


async def test_a_device_is_enrolled_by_hand_and_let_in(site: Site) -> None:
    await site.start_registrar(days=1)
    await site.start_guard()
    await site.run("agent", "csr", "--name", "d1", "--identity", "d1")
    await site.run("ca", "sign", "d1.csr", "--identity", "ca/registrar", "--state", "state")
    await site.run("agent", "install", "d1.enrolled", "--identity", "d1")
    async with asyncio.timeout(30), site.device("d1") as device:
        assert device.connected
