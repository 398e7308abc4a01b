"""What an agent keeps on disk, and what it knows of its device: memory, artifacts, conditions."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_agent import artifacts
from device_agent.artifacts import KEPT, ArtifactCache
from device_agent.errors import DamagedStateError
from device_agent.memory import FILE, AgentMemory
from protocol.chunks import MIN_CHUNK_SIZE, describe, split
from protocol.ids import ORIGIN, Order
from runtime.files import in_words

# Memory.


def test_starts_are_counted_and_rounds_remembered_over_restarts(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path / "state")
    assert (memory.boot, memory.seen) == (0, ORIGIN)
    memory.begin()
    memory.remember(Order(1, 1, 7), 0.0)
    again = AgentMemory(tmp_path / "state")
    again.begin()
    assert (again.boot, again.seen) == (2, Order(1, 1, 7))


def test_when_a_round_was_entered_last_is_remembered(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path)
    assert memory.entered is None
    memory.remember(Order(1, 1, 7), 1_700_000_000.5)
    assert AgentMemory(tmp_path).entered == 1_700_000_000.5


def test_an_older_round_does_not_make_it_forget_the_newest(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path)
    memory.remember(Order(1, 2, 3), 0.0)
    memory.remember(Order(1, 1, 9), 0.0)
    assert AgentMemory(tmp_path).seen == Order(1, 2, 3)


@pytest.mark.parametrize("content", [b"", b"{", b'{"boot":-1,"seen":[1,1]}', b'{"boots":1}', b"\xff"])
def test_a_damaged_memory_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DamagedStateError, match=r"agent.json is damaged .*; restore it"):
        AgentMemory(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_round_that_cannot_be_remembered_is_not_entered(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path)
    (tmp_path / f".{FILE}.new").mkdir()  # where the new record would be written
    with pytest.raises(OSError, match="directory"):
        memory.remember(Order(1, 1, 1), 0.0)
    assert memory.seen == ORIGIN


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "disk full"), (errno.EIO, "disk error")])
def test_why_the_disk_refuses_is_said_without_a_path(number: int, reason: str) -> None:
    assert in_words(OSError(number, "no", "/home/someone/secret")) == reason


def test_a_start_on_a_full_disk_is_counted_with_the_next_round(tmp_path: Path) -> None:
    AgentMemory(tmp_path).begin()
    fill_disk(tmp_path)
    memory = AgentMemory(tmp_path)
    memory.begin()
    assert memory.boot == 2
    with pytest.raises(OSError, match="No space left") as refusal:
        memory.remember(Order(1, 1, 1), 0.0)
    assert in_words(refusal.value) == "disk full"
    assert (AgentMemory(tmp_path).boot, memory.seen) == (1, ORIGIN)
    free_disk(tmp_path)
    memory.remember(Order(1, 1, 2), 0.0)
    again = AgentMemory(tmp_path)
    assert (again.boot, again.seen) == (2, Order(1, 1, 2))


def fill_disk(state: Path) -> None:
    """No new record of the agent has room."""
    (state / f".{FILE}.new").symlink_to("/dev/full")


def free_disk(state: Path) -> None:
    (state / f".{FILE}.new").unlink()


# Artifacts.


CONTENT = random.Random(3).randbytes(3 * MIN_CHUNK_SIZE + 100)
REF = describe(CONTENT, MIN_CHUNK_SIZE)
CHUNKS = [bytes(chunk) for chunk in split(CONTENT, REF)]


def keep(cache: ArtifactCache, *indices: int) -> None:
    artifact = cache.open(REF)
    for index in indices:
        artifact.keep(index, CHUNKS[index])


def test_chunks_are_there_again_after_a_restart(tmp_path: Path) -> None:
    keep(ArtifactCache(tmp_path / "artifacts"), 3, 1)
    assert ArtifactCache(tmp_path / "artifacts").open(REF).assembly.missing() == (0, 2)
    keep(ArtifactCache(tmp_path / "artifacts"), 0, 2)
    assert ArtifactCache(tmp_path / "artifacts").open(REF).assembly.content() == CONTENT


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(MIN_CHUNK_SIZE + 5)
        file.write(b"?")


@pytest.mark.parametrize(
    ("harm", "missing"),
    [
        (damage, (1,)),
        (lambda path: os.truncate(path, 2 * MIN_CHUNK_SIZE + 1), (2, 3)),
        (lambda path: os.truncate(path, 10 * MIN_CHUNK_SIZE), ()),
        (lambda path: path.write_bytes(b""), (0, 1, 2, 3)),
        (Path.unlink, (0, 1, 2, 3)),
    ],
    ids=["a byte", "torn", "too long", "emptied", "gone"],
)
def test_damage_costs_the_chunks_it_hit(
    tmp_path: Path, harm: Callable[[Path], object], missing: tuple[int, ...]
) -> None:
    cache = ArtifactCache(tmp_path)
    keep(cache, 0, 1, 2, 3)
    harm(tmp_path / REF.sha256.hex())
    assert cache.open(REF).assembly.missing() == missing
    keep(cache, *missing)
    assert cache.open(REF).assembly.content() == CONTENT


def test_a_full_disk_ends_the_keeping_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ArtifactCache(tmp_path)
    path = tmp_path / REF.sha256.hex()
    artifact = cache.open(REF)
    artifact.keep(0, CHUNKS[0])
    path.unlink()
    path.symlink_to("/dev/full")
    warnings: list[str] = []
    log = SimpleNamespace(warning=lambda event, **_: warnings.append(event))
    monkeypatch.setattr("device_agent.artifacts._log", log)
    artifact.keep(1, CHUNKS[1])
    artifact.keep(2, CHUNKS[2])
    assert warnings == ["artifact_not_kept"]
    assert not path.is_symlink()


def test_a_folder_that_cannot_be_made_leaves_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    artifact = ArtifactCache(tmp_path / "file").open(REF)
    artifact.keep(0, CHUNKS[0])
    assert artifact.assembly.missing() == (0, 1, 2, 3)


def test_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    refs = [describe(bytes([number]) * 100, MIN_CHUNK_SIZE) for number in range(KEPT + 1)]
    for age, ref in enumerate(refs[:-1]):
        cache.open(ref).keep(0, bytes([age]) * 100)
        os.utime(tmp_path / ref.sha256.hex(), (age, age))
    assert cache.open(refs[0]).assembly.complete  # a use
    cache.open(refs[-1])
    assert {file.name for file in tmp_path.iterdir()} == {ref.sha256.hex() for ref in (refs[0], *refs[2:])}


def test_what_does_not_fit_beside_a_new_content_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "KEPT_BYTES", 250)
    cache = ArtifactCache(tmp_path)
    refs = [describe(bytes([number]) * 100, MIN_CHUNK_SIZE) for number in range(3)]
    for age, ref in enumerate(refs):
        cache.open(ref).keep(0, bytes([age]) * 100)
        os.utime(tmp_path / ref.sha256.hex(), (age, age))

    assert {file.name for file in tmp_path.iterdir()} == {ref.sha256.hex() for ref in refs[1:]}
