"""Reads Dockerfiles: enough of their language for ours."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = tuple(sorted((ROOT / "deploy").glob("*.Dockerfile")))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: RUN and the like, and the rest of its line or lines."""

    word: str
    text: str

    @property
    def is_exec(self) -> bool:
        """Whether it is a list of words, which no shell reads."""
        return self.text.startswith("[")

    @property
    def words(self) -> list[str]:
        """The list, or what a shell makes of the line."""
        return json.loads(self.text) if self.is_exec else ["/bin/sh", "-c", self.text]


Stage = tuple[Instruction, ...]
"""From one FROM to the next."""


def stages(file: Path) -> list[Stage]:
    """The stages of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, re.sub(r"\s+", " ", rest).strip()))
    return [tuple(stage) for stage in found]


def of(stage: Stage, word: str) -> list[Instruction]:
    """The instructions of one kind."""
    return [one for one in stage if one.word == word]


def context(patterns: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Which paths `.dockerignore` lets through: the last pattern that matches one, or its folder, decides."""
    return [path for path in paths if not _ignored(patterns, path)]


def _ignored(patterns: Sequence[str], path: str) -> bool:
    ignored = False
    for pattern in patterns:
        if _matches(pattern.removeprefix("!"), path):
            ignored = not pattern.startswith("!")
    return ignored


def _matches(pattern: str, path: str) -> bool:
    parts = path.split("/")
    beginnings = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    if pattern.startswith("**/"):
        return pattern[3:] in parts
    return any(fnmatch(one, pattern) and one.count("/") == pattern.count("/") for one in beginnings)


def ignore_patterns() -> list[str]:
    """Of the file in this project."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
