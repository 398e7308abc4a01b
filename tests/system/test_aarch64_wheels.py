"""A device with an ARM processor finds a wheel of everything that an agent needs: nothing is compiled there.

The package index is asked for a system with glibc 2.28, as of 2018, with the oldest and the newest Python of
pyproject.toml. Nothing is downloaded but what the answer needs, and nothing is installed.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PLATFORMS = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 29))]
"""What a system with glibc 2.28 takes; pip is told each by name."""

PYTHONS = [
    version
    for each in PROJECT["classifiers"]
    if "." in (version := each.removeprefix("Programming Language :: Python :: "))
]


def agent_requirements(python: str) -> Iterator[str]:
    """What pyproject.toml asks for on such a device; pip would judge the markers by this machine."""
    device = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "aarch64",
    }
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["agent"], *extras["network"]):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(device):
            requirement.marker = None
            yield str(requirement)


def resolve(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """What pip would install, as a report."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--quiet"]
    pip += [
        "--ignore-installed",
        "--target",
        str(folder / "nothing"),
        "--report",
        str(folder / "report.json"),
    ]
    return subprocess.run([*pip, *arguments], check=False, capture_output=True, text=True, timeout=240)


def wheels(folder: Path) -> dict[str, str]:
    """File name by project, of a report."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    urls = {each["metadata"]["name"]: each["download_info"]["url"] for each in report["install"]}
    return {name: unquote(urlsplit(url).path).rpartition("/")[2] for name, url in urls.items()}


@pytest.fixture(scope="module", autouse=True)
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """There must be one."""
    answer = resolve(tmp_path_factory.mktemp("index"), "--no-deps", "msgspec")
    if answer.returncode != 0:
        pytest.skip("pip finds no package index here, not even for msgspec on this very machine")


@pytest.mark.parametrize("python", [PYTHONS[0], PYTHONS[-1]])
def test_every_package_of_an_agent_has_a_wheel_for_aarch64(tmp_path: Path, python: str) -> None:
    wanted = sorted(agent_requirements(python))
    assert any(each.startswith("onnxruntime<") for each in wanted)
    assert not any(each.startswith("onnxruntime-training") for each in wanted)

    options = [option for platform in PLATFORMS for option in ("--platform", platform)]
    answer = resolve(tmp_path, "--only-binary=:all:", "--python-version", python, *options, *wanted)
    assert answer.returncode == 0, last_errors(answer.stderr)

    found = wheels(tmp_path)
    assert {Requirement(each).name for each in wanted} <= found.keys()
    for name, file in found.items():
        _, _, _, tags = parse_wheel_filename(file)
        assert any(tag.platform == "any" or tag.platform in PLATFORMS for tag in tags), (name, file)
    assert "aarch64" in found["onnxruntime"]


def last_errors(complaints: str) -> str:
    """Without what names a package index."""
    lines = [line for line in complaints.splitlines() if line.startswith("ERROR")]
    return "\n".join(lines[-3:])
