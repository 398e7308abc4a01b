"""Machines on one loopback, each with folders of its own, where a page's commands are typed as they stand.

Namespaces of the kernel make them (unshare(1), nsenter(1)), which takes root: a network of their own, so that
port 8883 is free; one process namespace, so that closing a pipe ends everything; and for each machine a host
name and its own /etc, /opt, /run, /media, /var/lib and /var/log. The rest is this machine's, read as it is.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "/opt/fedfleet-source"
BROKER = "broker.example.org"
LIMIT = 60.0

# Its id outside: /proc is still that of the machine on which it began.
_TELL_ID = "read -r id rest < /proc/self/stat"
_UNTIL_CLOSED = "echo $id; read -r _; exit 0"

_NETWORK = f"{_TELL_ID}; ip link set lo up && {_UNTIL_CLOSED}"
_MACHINE = f"""{_TELL_ID}
set -e
hostname "$1"
cp -a /etc "$2/etc"
echo "127.0.0.1 {BROKER}" >> "$2/etc/hosts"
mkdir -p "$2/etc/mosquitto/conf.d" "$2/etc/systemd/system" "$2/var/lib/mosquitto"
chown mosquitto: "$2/var/lib/mosquitto"
for place in /opt/*/; do  # what is there stays: Python may be
  mkdir -p "$2$place" && mount --rbind "$place" "$2$place"
done
for place in etc opt run media var/lib var/log; do
  mkdir -p "$2/$place" && mount --rbind "$2/$place" "/$place"
done
mount -t proc proc /proc
{_UNTIL_CLOSED}"""


@dataclass
class Network:
    """All machines; left, nothing of them runs any more."""

    folder: Path
    machines: dict[str, "Machine"] = field(default_factory=dict)
    _holders: list["subprocess.Popen[str]"] = field(default_factory=list)

    def __enter__(self) -> Self:
        # Process 1 of the new process namespace: with it ends whatever was started there.
        self.id = self._hold("unshare", "--net", "--pid", "--fork", "--kill-child", "bash", "-c", _NETWORK)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for holder in reversed(self._holders):
            assert holder.stdin
            holder.stdin.close()
            holder.wait(timeout=30)
            assert holder.stdout
            holder.stdout.close()

    def machine(self, name: str, secrets: dict[str, str] | None = None) -> "Machine":
        """The machine of that name; a new one has this project in /opt, and nothing else."""
        if name not in self.machines:
            self.machines[name] = self._made(name, secrets or {})
        return self.machines[name]

    def _made(self, name: str, secrets: dict[str, str]) -> "Machine":
        place = self.folder / name
        _furnish(place)
        inside = ("nsenter", "--target", str(self.id), "--net", "--pid")
        apart = ("unshare", "--mount", "--uts", "bash", "-c", _MACHINE, "machine", name, str(place))
        return Machine(name, place, self._hold(*inside, *apart), secrets)

    def _hold(self, *command: str) -> int:
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._holders.append(holder)
        assert holder.stdout
        return int(holder.stdout.readline())


def _furnish(place: Path) -> None:
    programs = {
        "opt/fedfleet/bin/fedfleet": f'exec {sys.executable} -P -m console "$@"',
        "stand-ins/systemctl": f'exec {sys.executable} {ROOT / "tests" / "stand_in_systemctl.py"} "$@"',
    }
    for path, line in programs.items():
        (place / path).parent.mkdir(parents=True)
        (place / path).write_text(f"#!/bin/sh\n{line}\n")
        (place / path).chmod(0o755)
    source = place / SOURCE.lstrip("/")
    shutil.copytree(ROOT / "deploy", source / "deploy")
    for name in ("docker-compose.yml", "mosquitto.conf", "plan.toml"):
        shutil.copy(ROOT / name, source / name)
    (place / "home").mkdir()


@dataclass
class Machine:
    """One machine, and the shell of its user: folder and variables stay from block to block.

    Attributes:
        name: of the host.
        place: folder that holds its own places.
        id: of a process in it.
        secrets: variables that its user has set.
    """

    name: str
    place: Path
    id: int
    secrets: dict[str, str]

    @property
    def home(self) -> Path:
        """Where its user begins."""
        return self.place / "home"

    def type(self, text: str, answer: str = "") -> str:
        """Have bash do it, to the end; returns what was printed. A command that fails is an error."""
        session = self.place / "session"
        remember = f"{{ export -p; echo cd $PWD; }} > {session}"
        begin = f"if [ -e {session} ]; then source {session}; fi; set -eo pipefail"
        script = self.place / "script"
        script.write_text(f"{begin}\n{text}\n{remember}\n")
        ran = subprocess.run(
            self.command("bash", str(script)),
            input=answer,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            env=self.environment,
        )
        assert ran.returncode == 0, f"{self.name}: {text}\n{ran.stdout}{ran.stderr}\n{self.logs()}"
        return ran.stdout

    def command(self, *words: str) -> list[str]:
        """To run something there, in the user's home."""
        return ["nsenter", "--target", str(self.id), "--all", f"--wd={self.home}", *words]

    @property
    def environment(self) -> dict[str, str]:
        """Of the user."""
        path = f"{self.place / 'stand-ins'}:/opt/fedfleet/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return kept | {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8"} | self.secrets

    def logs(self) -> str:
        """The ends of all logs."""
        found = sorted((self.place / "var" / "log").rglob("*.log"))
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-1500:]}" for file in found)
