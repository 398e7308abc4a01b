"""README's "Deploy to a fleet", and DEPLOYMENT.md: every command as it stands, on empty machines.

Real programs, Debian's own start of Mosquitto, mutual TLS on port 8883, the folders that the pages name. What
people do between two commands (carry a file, write a plan, paste a token) is what this test does by itself.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from machines import ROOT, SOURCE, Machine, Network
from tiny_plan import examples, plan_text

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(300)]

PATIENCE = 60.0
DEVICES = [f"pi-{number}" for number in range(1, 7)]
COORDINATOR = "var/lib/fedfleet-coordinator"
AGENT = "var/lib/fedfleet-agent"

NOT_TYPED = {
    "apt-get install --yes git python3-pip python3-venv": "changes this machine: check-deployment does it",
    "git clone <this repository> /opt/fedfleet-source": "each machine finds the project's files there",
    "/opt/fedfleet-source/scripts/install coordinator /opt/fedfleet": "scripts/check-deployment does it",
    "ln -s /opt/fedfleet/bin/fedfleet /usr/local/bin/": "/usr/local is this machine's own: PATH says it",
    "apt-get install --yes mosquitto": "it changes this machine, which has one",
    "docker compose up --detach": "needs a container engine: tests/unit/test_deployment_files.py reads it",
}
"""Commands that are not run, and why. `systemctl` is, by a stand-in that starts what the units say."""

USER = "FEDFLEET_CA_PASSPHRASE_FILE"


class Page:
    """A page's blocks of commands, to be taken one by one in their order.

    Attributes:
        left_out: commands that were not handed out.
    """

    def __init__(self, name: str) -> None:
        blocks = r"^```sh (?!job\n)(.+?)\n(.*?)^```$"  # test_job.py types those of a job
        found = re.findall(blocks, (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
        self._blocks: list[tuple[str, str]] = found
        self.left_out: list[str] = []

    def next(self, where: str) -> str:
        """What is typed next, which is there."""
        label, text = self._blocks.pop(0)
        assert label == where
        lines = text.splitlines()
        self.left_out += [bare(line) for line in lines if bare(line) in NOT_TYPED]
        return "\n".join(line for line in lines if bare(line) not in NOT_TYPED)

    def is_done(self) -> bool:
        """Whether all was handed out."""
        return not self._blocks


def bare(line: str) -> str:
    """A command without the remark behind it."""
    return re.sub(r"\s{2,}#.*", "", line).strip()


@pytest.fixture
def network(tmp_path: Path) -> "Network":
    for program in ("mosquitto", "unshare", "nsenter", "ip"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            pytest.skip(f"needs {program}")
    made = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount", "true"], check=False)
    if os.geteuid() != 0 or made.returncode != 0:
        pytest.skip("needs root, and a kernel that lets it make namespaces")
    return Network(tmp_path)


def test_a_fleet_from_empty_machines(network: Network, tmp_path: Path) -> None:
    readme, deployment = Page("README.md"), Page("DEPLOYMENT.md")
    readme.next("install")
    with network:
        authority = with_a_passphrase(network, tmp_path)
        authority.type(readme.next("authority"))
        assert not list(authority.home.rglob("root.key"))

        prepare_containers(network, authority, readme.next("server-docker"))
        part_b = readme.next("server")
        server = set_up(network.machine("server"), authority, part_b)

        tokens = authority.type(readme.next("authority")).split()
        part_c = readme.next("device")
        with ThreadPoolExecutor(3) as people:
            list(people.map(lambda name, token: start(network.machine(name), part_c, token), DEVICES, tokens))
        until_interrupted(authority, readme.next("authority until Ctrl-C"), "committed")
        until(lambda: survivors(server)[-1:] == [6], server)

        thrown_out = network.machine("pi-6")
        told = authority.type(readme.next("authority"))
        assert "pi-6: the broker goes by it" in told
        assert "pi-6: its session has ended" in told
        rounds = len(survivors(server))
        until(lambda: survivors(server)[rounds:][-1:] == [5], server)
        until(lambda: "this one may have expired or been revoked" in thrown_out.logs(), thrown_out)
        assert readme.is_done()

        enrol_by_hand(network.machine("pi-7"), authority, deployment)
        server.type(deployment.next("server"))
        authority.type(deployment.next("authority"))
        renew(authority, server, deployment)
        set_up_again(network, authority, server, deployment, part_b)
        put_the_registrar_back(authority, deployment)
        let_alice_watch(authority, network.machine("server-2"), deployment)
        assert deployment.is_done()
    assert {*readme.left_out, *deployment.left_out} == set(NOT_TYPED)


def with_a_passphrase(network: Network, folder: Path) -> Machine:
    """The authority's machine, whose user does not type the passphrase each time."""
    file = folder / "passphrase"
    file.write_text("correct horse battery staple\n")
    return network.machine("authority", {USER: str(file)})


def set_up(server: Machine, authority: Machine, commands: str) -> Machine:
    """Part B, with a plan of one's own."""
    carry("server.tar", authority, server)
    (server.place / SOURCE.lstrip("/") / "plan.toml").write_text(plan_text(rounds=1000, min_cohort=5))
    server.type(commands)
    return server


def carry(file: str, giver: Machine, taker: Machine, to: str = "home") -> None:
    """By hand, from one home to the other's, or to a folder."""
    shutil.copy(giver.home / file, taker.place / to / Path(file).name)


def prepare_containers(network: Network, authority: Machine, commands: str) -> None:
    """Part B with containers, up to the engine: what the compose file mounts is there, and whose."""
    machine = network.machine("server-docker")
    carry("server.tar", authority, machine)
    machine.type(commands)
    source = machine.place / SOURCE.lstrip("/")
    for path in re.findall(r"- \.(/[a-z./]+):/", (source / "docker-compose.yml").read_text()):
        assert (source / path.lstrip("/")).exists(), path
    owners = {folder.name: folder.stat().st_uid for folder in (source / "fleet").iterdir()}
    assert owners == {"broker": 1883, "guard": 1883, "coordinator": 10001}
    assert (source / ".env").read_text() == "FEDFLEET_FLEET=my-fleet\n"


def start(device: Machine, commands: str, token: str) -> None:
    """Part C, with examples of its own; the token is pasted when it is asked for."""
    np.savez(device.home / "my.npz", **examples(int(device.name[3:]), 40))
    device.type(commands, answer=token + "\n")


def until_interrupted(machine: Machine, command: str, word: str) -> None:
    """Run a command until a word is seen, then press Ctrl-C."""
    seen = machine.place / "seen"
    with seen.open("w") as out:
        running = subprocess.Popen(
            machine.command("bash", "-c", f"exec {command}"), stdout=out, stderr=out, env=machine.environment
        )
        try:
            until(lambda: word in seen.read_text(), machine)
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(timeout=30)


def until(condition: Callable[[], bool], machine: Machine) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, machine.logs()
        time.sleep(0.1)


def survivors(server: Machine) -> list[int]:
    """Of each committed round."""
    file = server.place / COORDINATOR / "state" / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [row["survivors"] for row in rows if row["result"] == "committed"]


def enrol_by_hand(device: Machine, authority: Machine, page: Page) -> None:
    """A device that reaches no broker: three files are carried."""
    (device.place / AGENT).mkdir()
    device.type(page.next("device-by-hand"))
    shutil.copy(device.place / AGENT / "pi-7.csr", authority.home)
    authority.type(page.next("authority"))
    shutil.copy(authority.home / "pi-7.enrolled", device.place / AGENT)
    told = device.type(page.next("device-by-hand"))
    assert "pi-7 is a device of fleet my-fleet" in told


def renew(authority: Machine, server: Machine, page: Page) -> None:
    """The server goes on under its new certificates, and so does the run."""
    folder = server.place / COORDINATOR / "identity"
    before = (folder / "coordinator.crt").read_text()
    authority.type(page.next("authority"))
    carry("renewed.tar", authority, server)
    server.type(page.next("server"))
    assert before != (folder / "coordinator.crt").read_text()
    rounds = len(survivors(server))
    until(lambda: survivors(server)[rounds:][-1:] == [5], server)


def set_up_again(network: Network, authority: Machine, server: Machine, page: Page, commands: str) -> None:
    """Another server takes the place of one that was broken into."""
    server.type("systemctl stop fedfleet@coordinator fedfleet@guard mosquitto")
    authority.type(page.next("authority"))
    other = set_up(network.machine("server-2"), authority, commands)
    until(lambda: survivors(other)[-1:] == [5], other)


def put_the_registrar_back(authority: Machine, page: Page) -> None:
    """A backup, and what is restored of it."""
    authority.type(page.next("authority"))
    authority.type(page.next("authority"))
    assert "pi-6 " in authority.type("fedfleet device ls")


def let_alice_watch(authority: Machine, server: Machine, page: Page) -> None:
    """A watcher with a name of her own."""
    authority.type(page.next("authority"))
    carry("acl", authority, server)
    server.type(page.next("server"))
    until_interrupted(
        authority,
        "fedfleet watch --fleet my-fleet --broker mqtts://broker.example.org:8883 --identity alice",
        "committed",
    )
