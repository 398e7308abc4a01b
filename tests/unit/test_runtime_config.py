from collections.abc import Mapping
from pathlib import Path

import pytest

from broker.address import BrokerAddress
from coordinator.settings import CoordinatorSettings
from device_agent.settings import AgentSettings
from runtime.config import SettingsError, load_settings
from runtime.secret import SecretStr

AGENT = """
fleet = "demo"
identity = "keys"
state = "/var/lib/fedfleet"
[broker]
urls = ["mqtt://file:1883"]
[data]
path = "examples.npz"
"""


def agent(
    folder: Path,
    text: str = AGENT,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> AgentSettings:
    file = folder / "agent.toml"
    file.write_text(text)
    return load_settings(AgentSettings, file=file, environment=environment or {}, overrides=overrides or {})


def test_the_command_line_overrules_the_environment_which_overrules_the_file(tmp_path: Path) -> None:
    environment = {"FEDFLEET_FLEET": "from-env", "FEDFLEET_BROKER__URLS": "mqtt://env:1", "PATH": "/bin"}

    settings = agent(
        tmp_path, environment=environment, overrides={"broker.urls": ("mqtt://option:1",), "name": None}
    )

    assert settings.fleet == "from-env"
    assert settings.broker.urls == ("mqtt://option:1",)
    assert settings.data.path == tmp_path / "examples.npz"
    assert settings.name is None


def test_text_of_the_environment_becomes_what_it_stands_for(tmp_path: Path) -> None:
    settings = agent(
        tmp_path,
        environment={
            "FEDFLEET_BROKER__URLS": "mqtt://a:1, mqtts://[::1]:8883",
            "FEDFLEET_BROKER__KEEPALIVE": "60",
            "FEDFLEET_CONDITIONS__CHARGING": "true",
            "FEDFLEET_CONDITIONS__UNMETERED": "auto",
            "FEDFLEET_CONDITIONS__WINDOWS": "22:00-06:00, 12:00-13:00",
            "FEDFLEET_CONDITIONS__TAGS": "lab,gpu",
            "FEDFLEET_FLOORS__CORRUPT_FRACTION": "0.25",
        },
    )

    assert settings.broker.urls == ("mqtt://a:1", "mqtts://[::1]:8883")
    assert settings.broker.keepalive == 60
    assert settings.conditions.charging is True
    assert settings.conditions.unmetered == "auto"
    assert settings.conditions.windows == ("22:00-06:00", "12:00-13:00")
    assert settings.conditions.tags == ("lab", "gpu")
    assert settings.floors.corrupt_fraction == 0.25


def test_what_the_environment_says_to_the_roots_commands_is_none_of_a_programs_settings(
    tmp_path: Path,
) -> None:
    assert agent(tmp_path, environment={"FEDFLEET_CA_PASSPHRASE_FILE": "/run/passphrase"}).fleet == "demo"


def test_a_path_in_the_file_starts_from_the_files_folder(tmp_path: Path) -> None:
    settings = agent(tmp_path, overrides={"state": Path("here")})

    assert settings.identity == tmp_path / "keys"
    assert settings.state == Path("here")
    assert agent(tmp_path).state == Path("/var/lib/fedfleet")


def test_a_coordinator_can_be_set_from_the_environment_alone() -> None:
    environment = {
        "FEDFLEET_FLEET": "demo",
        "FEDFLEET_BROKER__URLS": "mqtt://localhost",
        "FEDFLEET_IDENTITY": "keys",
        "FEDFLEET_STATE": "state",
        "FEDFLEET_PLAN": "plan.toml",
    }

    settings = load_settings(
        CoordinatorSettings, file=None, environment=environment, overrides={"workers": 2}
    )

    assert (settings.plan, settings.shard, settings.workers) == (Path("plan.toml"), "main", 2)
    assert settings.start_when is None


def test_a_secret_may_come_from_a_file_and_never_prints(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    environment = {
        "FEDFLEET_BROKER__USERNAME": "d1",
        "FEDFLEET_BROKER__PASSWORD_FILE": str(tmp_path / "password"),
    }

    settings = agent(tmp_path, environment=environment)

    assert settings.broker.password == SecretStr("hunter2")
    assert settings.broker.password.reveal() == "hunter2"
    assert "hunter2" not in f"{settings} {settings!r} {settings.broker.password}"


@pytest.mark.parametrize(
    ("environment", "overrides", "line"),
    [
        (
            {"FEDFLEET_BROKER__KEEPALIVE": "often"},
            {},
            (
                'environment: FEDFLEET_BROKER__KEEPALIVE: broker.keepalive is "often"; write a whole number '
                "at least 3 and at most 65535 (default 30)"
            ),
        ),
        (
            {},
            {"broker.urls": ("broker.local",)},
            (
                "command line: broker.urls: broker.urls is ('broker.local',); write a list, each an address "
                'such as "mqtt://broker.local:1883" or "mqtts://broker.local:8883", its login in username '
                "and password"
            ),
        ),
        (
            {"FEDFLEET_BROKER__URL": "mqtt://a"},
            {},
            "environment: FEDFLEET_BROKER__URL is not a setting; did you mean FEDFLEET_BROKER__URLS?",
        ),
        (
            {"FEDFLEET_BROKER__PASSWORD": "x", "FEDFLEET_BROKER__PASSWORD_FILE": "y"},
            {},
            (
                "environment: FEDFLEET_BROKER__PASSWORD_FILE and FEDFLEET_BROKER__PASSWORD are both set; "
                "unset one"
            ),
        ),
        (
            {"FEDFLEET_BROKER__PASSWORD_FILE": "/none/such"},
            {},
            (
                "environment: FEDFLEET_BROKER__PASSWORD_FILE is /none/such, which cannot be read (No such "
                "file or directory); name a readable file"
            ),
        ),
    ],
)
def test_a_wrong_value_names_its_source_key_and_fix(
    tmp_path: Path, environment: dict[str, str], overrides: dict[str, object], line: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        agent(tmp_path, environment=environment, overrides=overrides)

    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('fleet = "demo"', "", r"fleet is missing; write text matching ^[a-z0-9_-]{1,64}\Z"),
        (
            "[data]",
            "[data]\nholdout = 2",
            "data.holdout is 2; write a number above 0.0 and below 1.0 (default 0.2)",
        ),
        ("[data]", "[dta]", "dta is not a key; did you mean data?\ndata.path is missing; write text"),
        (
            "[broker]",
            "[broker]\npassword = 'x'",
            "broker: password is set without a username; write username too",
        ),
        ("[broker]", "[broker]\npassword = 7", "broker.password is a hidden value; write text"),
        ("[broker]", "[broker", "is not TOML: "),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, old: str, new: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        agent(tmp_path, AGENT.replace(old, new))

    told = str(caught.value).replace(f"{tmp_path / 'agent.toml'}: ", "")
    assert told.startswith(line)


def test_a_login_in_an_address_is_refused_without_printing_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="its login in username and password") as caught:
        agent(tmp_path, environment={"FEDFLEET_BROKER__URLS": "mqtt://d1:hunter2@broker"})

    assert "hunter2" not in str(caught.value)


def test_addresses_carry_the_login(tmp_path: Path) -> None:
    login = {"FEDFLEET_BROKER__USERNAME": "d1", "FEDFLEET_BROKER__PASSWORD": "hunter2"}

    addresses = agent(tmp_path, environment=login).broker.addresses

    assert addresses == (BrokerAddress("file", 1883, tls=False, user="d1", password="hunter2"),)


def test_a_port_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="broker: urls holds a port above 65535"):
        agent(tmp_path, environment={"FEDFLEET_BROKER__URLS": "mqtt://broker:70000"})


def test_missing_settings_without_a_file_say_what_to_write() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(AgentSettings, file=None, environment={}, overrides={})

    told = str(caught.value)
    assert "settings: fleet is missing" in told
    assert "settings: broker.urls is missing" in told
    assert "settings: data.path is missing" in told


def test_a_settings_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(AgentSettings, file=tmp_path / "none.toml", environment={}, overrides={})


def test_a_table_overrules_a_file_that_has_a_value_in_its_place(tmp_path: Path) -> None:
    text = AGENT.replace('[broker]\nurls = ["mqtt://file:1883"]', "").replace("state", "broker = 3\nstate")

    assert agent(tmp_path, text, {"FEDFLEET_BROKER__URLS": "mqtt://env:1"}).broker.urls == ("mqtt://env:1",)
    with pytest.raises(SettingsError, match="broker is 3; write a table with the keys urls, username"):
        agent(tmp_path, text)


def test_secrets_compare_by_their_text() -> None:
    assert SecretStr("a") == SecretStr("a")
    assert SecretStr("a") != SecretStr("b")
    assert SecretStr("a") != "a"
    assert len({SecretStr("a"), SecretStr("a")}) == 1
