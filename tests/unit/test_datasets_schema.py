"""What a device's owner is told about the data, and whether a model can read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from console.commands import app
from console.demo_files import bundled_plan
from models.artifact import build_bundle
from models.bundle import BundleManifest
from models.catalog import build_model
from models.datasets.describe import describe
from models.datasets.schema import ArraySchema, DataSchema, mismatches
from models.datasets.source import CsvSource, NpzSource
from models.errors import DatasetError
from protocol.plan import Training


def manifest(model: str, loss: Any = "cross_entropy", **sizes: int) -> BundleManifest:
    return build_bundle(build_model(model, sizes, seed=1), Training(loss=loss, optimizer="sgd")).manifest


def schema(x: tuple[int, ...], y: tuple[int, ...] = (), **others: Any) -> DataSchema:
    kind = others.pop("y_dtype", "int64")
    return DataSchema(examples=8, held_out=2, x=ArraySchema("float32", x), y=ArraySchema(kind, y), **others)


def test_a_file_of_arrays_is_described(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((10, 3, 4)), y=np.arange(10) % 3)

    found = describe(NpzSource(tmp_path / "d.npz"))

    assert (found.examples, found.held_out, found.labels) == (8, 2, {0: 4, 1: 3, 2: 3})
    assert (str(found.x), str(found.y)) == ("float32 (n, 3, 4)", "int64 (n)")


def test_a_table_is_described_without_being_held(tmp_path: Path) -> None:
    rows = [f"{n},{n},{'run' if n % 2 else 'walk'}" for n in range(10)]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,what", *rows, "1,,run"]))

    found = describe(CsvSource(tmp_path / "d.csv", label="what", classes=("walk", "run"), window=2, stride=1))

    assert (found.examples, found.held_out, found.dropped) == (7, 1, 1)
    assert found.labels == {0: 3, 1: 5}
    assert found.x == ArraySchema("float32", (2, 2))


def test_more_classes_than_any_model_has_are_numbers_to_predict(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((10_001, 1)), y=np.arange(10_001))

    with pytest.raises(
        DatasetError, match="more than 10,000 different labels; numbers to predict are targets"
    ):
        describe(NpzSource(tmp_path / "d.npz"))


def test_data_that_fit_have_no_mismatch() -> None:
    cnn = manifest("cnn1d", channels=6, window=128, classes=7)

    assert mismatches(schema((6, 128), labels={0: 5, 6: 5}, classes=tuple("abcdefg")), cnn) == []


TAKES = "the model 'cnn1d' with loss cross_entropy takes"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (schema((128, 6)), f"x is float32 (n, 128, 6); {TAKES} float32 (n, 6, 128); set data.axes"),
        (schema((5, 128)), "set data.window and data.features"),
        (schema((6,)), "set data.window, or change the plan's model"),
        (schema((6, 128, 1)), "change data.features, or the plan's model"),
        (
            schema((6, 128), (1,), y_dtype="float32"),
            f"y is float32 (n, 1); {TAKES} int64 (n); set data.label to the column with the class",
        ),
        (schema((6, 128), labels={0: 1, 7: 1}), "labels run from 0 to 7; the model has 7 classes, 0 to 6"),
        (schema((6, 128), labels={0: 1}, classes=("a", "b")), "data.classes has 2 names, the model 7"),
    ],
)
def test_a_mismatch_names_both_sides_and_the_fix(found: DataSchema, told: str) -> None:
    (only,) = mismatches(found, manifest("cnn1d", channels=6, window=128, classes=7))
    assert told in only


def test_numbers_to_predict_are_targets() -> None:
    (only,) = mismatches(schema((4,)), manifest("autoencoder", "mse", features=4, hidden=2, code=1))
    assert "set data.targets to the columns" in only


# As it is typed.


def fedfleet(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def settings(folder: Path, data: str) -> Path:
    file = folder / "agent.toml"
    file.write_text(
        'fleet = "f"\nidentity = "i"\nstate = "s"\n[broker]\nurls = ["mqtt://localhost"]\n[data]\n' + data
    )
    return file


def watch_like(folder: Path, classes: int = 7) -> Path:
    x = np.zeros((20, 6, 128), np.float32)
    np.savez(folder / "d.npz", x=x, y=np.arange(20) % classes)
    return settings(folder, 'path = "d.npz"\n')


def test_the_command_tells_what_is_there_and_that_a_model_can_read_it(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(bundled_plan())

    result = fedfleet("data", "check", watch_like(tmp_path), "--plan", plan)

    assert result.exit_code == 0
    for text in ("16 to train on, 4 held out", "float32 (n, 6, 128)", "class 6"):
        assert text in result.output


def test_the_command_fails_where_a_model_cannot_read_it(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(bundled_plan().replace("# min_examples = 1 ", "min_examples = 17 "))

    result = fedfleet("data", "check", watch_like(tmp_path, classes=8), "--plan", plan, "--json")

    assert result.exit_code == 1
    told = json.loads(result.stdout.splitlines()[0])
    assert told["schema"]["examples"] == 16
    assert [one.split(";")[0] for one in told["mismatches"]] == [
        "labels run from 0 to 7",
        "16 examples to train on",
    ]


def test_the_command_names_what_is_wrong_with_settings_or_data(tmp_path: Path) -> None:
    wrong = fedfleet("data", "check", settings(tmp_path, 'source = "cvs"\npath = "d.csv"\n'))
    assert wrong.exit_code == 2
    assert 'data.source is "cvs"; write one of "npz", "csv"' in wrong.stderr
    gone = fedfleet("data", "check", settings(tmp_path, 'source = "csv"\npath = "d.csv"\n'))
    assert gone.exit_code == 2
    assert "d.csv: cannot be read (No such file or directory); set data.path to it" in gone.stderr
