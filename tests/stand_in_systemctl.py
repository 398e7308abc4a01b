"""What `systemctl` means, without systemd: starts what a unit says, and waits until it is ready.

It reads templates and drop-ins, hands credentials over, makes runtime and state folders, and hears READY=1.
It does not change users and locks nothing in: that is systemd's own.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNITS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
RUN = Path("/run")
PATIENCE = 30.0
INHERITED = ("PATH", "PYTHONPATH", "LANG")


@dataclass
class Unit:
    """One service."""

    name: str

    def settings(self, key: str) -> list[str]:
        """All values of a key, in order."""
        instance = self.name.partition("@")[2]
        lines = "\n".join(file.read_text() for file in self._files()).splitlines()
        found = (line.partition("=")[2] for line in lines if line.startswith(f"{key}="))
        return [value.replace("%i", instance) for value in found]

    def _files(self) -> Iterator[Path]:
        template = re.sub("@.*", "@", self.name)
        for folder in UNITS:
            if (folder / f"{template}.service").exists():
                yield folder / f"{template}.service"
                yield from sorted(folder.glob(f"{self.name}.service.d/*.conf"))
                return
        sys.exit(f"Unit {self.name}.service could not be found.")

    @property
    def _pid_file(self) -> Path:
        return RUN / f"{self.name}.pid"

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        # Not what its user has set.
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= dict(self._environment())
        for folder in self.settings("StateDirectory"):
            self._own(Path("/var/lib") / folder)
        for credential in self.settings("LoadCredential"):
            name, _, source = credential.partition(":")
            place = RUN / "credentials" / f"{self.name}.service"
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            (place / name).unlink(missing_ok=True)
            shutil.copy(source, place / name)
        for command in self.settings("ExecStartPre"):
            subprocess.run(shlex.split(command), check=False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
            place = RUN / f"{self.name}.notify"
            place.unlink(missing_ok=True)
            ears.bind(str(place))
            place.chmod(0o777)  # the broker gives its rights up
            ears.settimeout(0.2)
            self._launch(environment | {"NOTIFY_SOCKET": str(place)}, ears)

    def _own(self, folder: Path) -> None:
        """A folder of its state; it moves when systemd makes its user up: DynamicUser= in systemd.exec(5)."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.settings("DynamicUser")[-1:] == ["yes"] and not folder.is_symlink():
            private = folder.parent / "private"
            private.mkdir(mode=0o700, exist_ok=True)
            folder.rename(private / folder.name)
            folder.symlink_to(Path("private") / folder.name)

    def _environment(self) -> Iterator[tuple[str, str]]:
        files = [Path(one).read_text().split() for one in self.settings("EnvironmentFile")]
        lines = [shlex.split(one) for one in self.settings("Environment")]
        for name, _, value in (pair.partition("=") for pairs in files + lines for pair in pairs):
            yield name, value
        for folder in self.settings("RuntimeDirectory"):
            (RUN / folder).mkdir(exist_ok=True)
            yield "RUNTIME_DIRECTORY", str(RUN / folder)

    def _launch(self, environment: dict[str, str], ears: socket.socket) -> None:
        (command,) = self.settings("ExecStart")
        with Path(f"/var/log/{self.name}.log").open("ab") as log:
            process = subprocess.Popen(
                shlex.split(command),
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file.write_text(str(process.pid))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and process.poll() is None:
            try:
                if b"READY=1" in ears.recv(4096).splitlines():
                    return
            except TimeoutError:
                continue
        sys.exit(f"{self.name} did not get ready: {Path(log.name).read_text()[-2000:]}")

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if not self._pid_file.exists():
            return
        pid = int(self._pid_file.read_text())
        self._pid_file.unlink()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        sys.exit(f"{self.name} did not stop")

    def reload(self) -> None:
        """Have it read its files again."""
        os.kill(int(self._pid_file.read_text()), signal.SIGHUP)


def main(words: list[str]) -> None:
    """Do what is asked of each unit."""
    match words:
        case ["enable", "--now", *names] | ["start", *names]:
            steps = [Unit.start]
        case ["daemon-reload"]:
            return
        case ["reload", *names]:
            steps = [Unit.reload]
        case ["restart", *names]:
            steps = [Unit.stop, Unit.start]
        case ["stop", *names] | ["disable", "--now", *names]:
            steps = [Unit.stop]
        case _:
            sys.exit(f"systemctl: no stand-in for {words}")
    for name in names:
        for step in steps:
            step(Unit(name.removesuffix(".service")))


if __name__ == "__main__":
    main(sys.argv[1:])
