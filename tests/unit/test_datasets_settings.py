"""The table [data] of an agent's settings."""

import re
from pathlib import Path

import pytest

from device_agent.settings import AgentSettings
from models.datasets.source import (
    CsvSource,
    DataSource,
    HookSource,
    NpzSource,
    SqliteSource,
    WindowsSource,
)
from runtime.config import SettingsError, load_settings

HEAD = 'fleet = "f"\nidentity = "i"\nstate = "s"\nbroker.urls = ["mqtt://localhost"]\n'
DEPLOYMENT = Path(__file__).parents[2] / "DEPLOYMENT.md"


def data(folder: Path, text: str, environment: dict[str, str] | None = None) -> DataSource:
    file = folder / "agent.toml"
    file.write_text(HEAD + text)
    return load_settings(AgentSettings, file=file, environment=environment or {}, overrides={}).data


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        data(folder, "[data]\n" + text)
    return str(caught.value).replace(f"{folder / 'agent.toml'}: ", "")


def test_a_path_alone_is_an_npz(tmp_path: Path) -> None:
    assert data(tmp_path, 'data.path = "d.npz"') == NpzSource(tmp_path / "d.npz")


def test_each_kind_has_its_keys(tmp_path: Path) -> None:
    text = '[data]\nsource = "csv"\npath = "d.csv"\nlabel = "what"\nmean = [1, 2.5]\ndeviation = [1, 2]'

    made = data(tmp_path, text)

    assert made == CsvSource(tmp_path / "d.csv", label="what", mean=(1.0, 2.5), deviation=(1.0, 2.0))


def test_the_environment_and_the_command_line_speak_of_the_same_keys(tmp_path: Path) -> None:
    environment = {
        "FEDFLEET_DATA__SOURCE": "csv",
        "FEDFLEET_DATA__CLASSES": "a, b",
        "FEDFLEET_DATA__WINDOW": "7",
    }

    made = data(tmp_path, '[data]\npath = "d.csv"\nlabel = "l"', environment)

    assert made == CsvSource(tmp_path / "d.csv", label="l", classes=("a", "b"), window=7)


CSV = 'source = "csv"\npath = "d"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('source = "cvs"', 'data.source is "cvs"; write one of "npz", "csv", "sqlite", "windows", "hook"'),
        ("source = 3", "data.source is 3; write one of"),
        ('source = "csv"', "data.path is missing; write text"),
        ('source = "sqlite"\npath = "d"', "data.query is missing; write text"),
        ('path = "d"\nlabel = "x"', 'data.label is not a key where data.source is "npz"; known are holdout'),
        (CSV + 'labels = "x"', 'data.labels is not a key where data.source is "csv"; did you mean label?'),
        (CSV + "window = 0", "data.window is 0; write a whole number at least 1"),
        (CSV + "stride = 2", "data: stride is set without a window; write window too"),
        (CSV + 'delimiter = "ab"', 'data.delimiter is "ab"; write text matching'),
        (CSV + "mean = [1]", "data: mean has 1 numbers and deviation 0; both have one for each"),
        (CSV + "mean = [1]\ndeviation = [0]", "data.deviation is [0]; write a list, each a number above"),
        (CSV + 'label = "a"\ntargets = ["b"]', "data: label and targets are both set; keep label"),
        (CSV + 'classes = ["b"]', "data: classes is set without a label; write the label's column"),
        (CSV + 'label = "a"\nclasses = ["b", "b"]', "data: classes holds a name twice"),
        (CSV + 'label = "a"\nfeatures = ["a"]', "data: features holds a, which is what the model pre"),
        ('source = "windows"\npath = "d"\nclasses = ["../x"]', 'data: classes holds "../x"; write names'),
        ('source = "hook"\npath = "d"\nholdout = 1.0', "data.holdout is 1.0; write a number above 0.0"),
    ],
)
def test_a_wrong_key_is_named_with_the_fix(tmp_path: Path, text: str, told: str) -> None:
    assert mistakes(tmp_path, text).startswith(told)


def test_statistics_belong_to_the_features_that_are_listed(tmp_path: Path) -> None:
    told = mistakes(tmp_path, CSV + 'features = ["a"]\nmean = [1, 2]\ndeviation = [1, 2]')

    assert told == "data: mean has 2 numbers and features 1 columns; write one for each"


def test_something_else_than_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match='data is 3; write a table whose key source is one of "npz", "csv"'
    ):
        data(tmp_path, "data = 3")


def test_the_examples_of_the_manual_are_right(tmp_path: Path) -> None:
    chapter = DEPLOYMENT.read_text().partition("## Your data")[2].partition("\n## ")[0]
    examples = re.findall(r"```toml\n(.*?)```", chapter, re.DOTALL)

    kinds = {type(data(tmp_path, example)) for example in examples}

    assert kinds == {NpzSource, CsvSource, SqliteSource, WindowsSource, HookSource}
