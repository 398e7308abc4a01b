"""`fedfleet agent install-service`: the agent as a systemd unit, a guest on its device with hardly a right.

The unit is `agent.service` beside this file, with what differs from device to device in braces.

The service may write below its state folder and nowhere else. It gets its private key as a credential: the
file belongs to root, systemd hands its content over in memory, and a link in the identity folder leads there.
Certificates stay files of the service, so that it can renew them; keys do not change when it does.
"""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from device_agent.settings import AgentSettings
from protocol.errors import FedfleetError
from runtime.config import load_settings
from runtime.files import write_private, write_synced
from runtime.identity import only_name

UNIT = "fedfleet-agent.service"
STATE = Path("/var/lib/fedfleet-agent")
KEYS = Path("/etc/fedfleet/keys")
UNIT_FOLDER = Path("/etc/systemd/system")

# What the unit hides from the service: people's home folders, and temporary files of others.
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 (compared, not used)
_UNIT_MODE = 0o644

_AGENT_MB = 256
"""MiB beside training: the agent itself takes 70, and a model of ten million parameters some copies of 40."""

# systemd.resource-control(5): bytes with a unit, or a part of the machine's memory.
_MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?|[1-9][0-9]?%")
# Also what systemd takes for a name, and nothing that would begin another line of the unit.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


class ServiceError(FedfleetError):
    """The unit would not work; the message says the fix."""


@dataclass(frozen=True, slots=True)
class AgentService:
    """What differs from one device to the next.

    Attributes:
        command: the interpreter and what it runs, without the options.
        config: the agent's settings file.
        key: the device's private key in its identity folder.
        hidden_folders: what it reads in places that are hidden otherwise.
        memory_max: of the agent and its training together, as systemd writes it.
        user: that it runs as; None has systemd make one up.
    """

    command: tuple[str, ...]
    config: Path
    key: Path
    hidden_folders: tuple[Path, ...]
    memory_max: str
    user: str | None

    @property
    def root_key(self) -> Path:
        """Where root keeps the private key."""
        return KEYS / self.key.name

    @property
    def credential(self) -> Path:
        """Where systemd shows it to the service."""
        return Path("/run/credentials") / UNIT / self.key.name

    @property
    def unit(self) -> str:
        """The text of the unit file."""
        return _template().format(
            command=" ".join(_quoted(one) for one in (*self.command, "--config", str(self.config))),
            memory_max=self.memory_max,
            user="DynamicUser=yes" if self.user is None else f"User={self.user}",
            state=STATE.name,
            credential=f"{self.key.name}:{self.root_key}",
            homes="\n".join(_home_lines(self.hidden_folders)),
        )

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What root does next; with the key only as long as it lies beside the certificate."""
        begin = ("systemctl daemon-reload", f"systemctl enable --now {UNIT}")
        if self.key.is_symlink():
            return begin
        return (
            f"install -D -m 0600 {self.key} {self.root_key}",
            f"ln -sf {self.credential} {self.key}",
            *begin,
        )


def plan_service(
    config: Path, python: Path, prefixes: tuple[Path, ...], memory_max: str | None, user: str | None
) -> AgentService:
    """Make a service of a device's settings file.

    Args:
        config: the agent's settings, TOML; the environment counts for nothing here.
        python: interpreter that has this project.
        prefixes: folders of its installation.
        memory_max: "512M" or "40%", for instance; None is what the settings grant training, and the agent's
            own share: training that wants too much then meets its own limit first, and is declined.
        user: to run as; None has systemd make one up.

    Raises:
        SettingsError: the settings are wrong.
        IdentityError: the identity folder does not hold one key, and the settings do not name one.
        ServiceError: the settings, `memory_max` or `user` do not fit a service.
    """
    _check_words(memory_max, user)
    config = config.absolute()
    settings = load_settings(AgentSettings, file=config, environment={}, overrides={})
    _check_folders(config, settings)
    name = settings.name or only_name(settings.identity)
    read = (config.parent, settings.data.path.absolute().parent, *prefixes)
    return AgentService(
        command=(str(python), "-P", "-m", "console", "agent"),
        config=config,
        key=settings.identity / f"{name}.key",
        hidden_folders=tuple(dict.fromkeys(folder for folder in read if _is_hidden(folder))),
        memory_max=memory_max or f"{settings.training.memory_limit_mb + _AGENT_MB}M",
        user=user,
    )


def _check_words(memory_max: str | None, user: str | None) -> None:
    if memory_max is not None and not _MEMORY.fullmatch(memory_max):
        raise ServiceError(f'memory-max "{memory_max}" is not an amount; write 512M or 40%, for instance')
    if user is not None and not _USER.fullmatch(user):
        raise ServiceError(f'user "{user}" is not a name; write one of a-z, 0-9, _ and -, or leave it out')


def _check_folders(config: Path, settings: AgentSettings) -> None:
    for key, folder in (("state", settings.state), ("identity", settings.identity)):
        if STATE not in folder.parents:
            raise ServiceError(
                f"{config}: {key} is {folder}, where the service may not write; move it below {STATE}"
            )


def write_unit(service: AgentService, folder: Path) -> Path:
    """Write the unit file, whole or not at all.

    Returns:
        Its path.

    Raises:
        ServiceError: it cannot be written there.
    """
    file = folder / UNIT
    try:
        write_synced(file, service.unit.encode())
        file.chmod(_UNIT_MODE)
    except OSError as error:
        raise ServiceError(
            f"{file} cannot be written ({error.strerror}); run this as root, or give another --output"
        ) from error
    return file


def hand_over_key(service: AgentService) -> None:
    """Leave the private key to root, and a link to what systemd hands over in its place; once is enough.

    Raises:
        ServiceError: the key is not there, or not ours to take.
    """
    key, kept = service.key, service.root_key
    if key.is_symlink():
        return
    try:
        secret = key.read_bytes()
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(kept, secret)
        link = key.with_name(f".{key.name}.new")
        link.unlink(missing_ok=True)
        link.symlink_to(service.credential)
        link.replace(key)
    except OSError as error:
        raise ServiceError(f"{key} cannot be moved to {kept} ({error.strerror}); run this as root") from error


def _template() -> str:
    return resources.files("console").joinpath("agent.service").read_text(encoding="utf-8")


def _is_hidden(folder: Path) -> bool:
    return any(place == folder or place in folder.parents for place in _HIDDEN)


def _home_lines(folders: tuple[Path, ...]) -> list[str]:
    if not folders:
        return ["ProtectHome=yes"]
    return ["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_quoted(str(folder))}" for folder in folders)]


def _quoted(word: str) -> str:
    r"""For a unit file, systemd.syntax(7): a percent sign begins a specifier, a dollar sign a variable."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(letter.isspace() for letter in word) or escaped != word else word
