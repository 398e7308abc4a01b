"""Whatever units, and wherever the power fails: a prefix of the units comes back, each whole."""

import asyncio
import random
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.clock import SystemClock
from runtime.journal import Journal, Statement

QUERIES = """
-- name: count
UPDATE tally SET units = units + 1
-- name: write
INSERT INTO note (text) VALUES (:text)
-- name: forget
DELETE FROM note
-- name: units
SELECT units FROM tally
-- name: texts
SELECT text FROM note ORDER BY rowid
"""

PAGE, SECTOR, LOG_HEADER = 4096, 512, 32

Unit = list[str] | None
"""Texts to write; or nothing but to forget all."""

TEXT = st.text("abc", max_size=40) | st.just("x" * 5000)
UNITS = st.none() | st.lists(TEXT, min_size=1, max_size=4)
GROUPS = st.lists(st.lists(UNITS, min_size=1, max_size=4), min_size=1, max_size=6)
"""Each group is flushed before the next is appended."""


SEEDED = st.integers(0, 2**32).map(random.Random)


@dataclass(frozen=True, slots=True)
class Files:
    """What the disk holds after a flush."""

    database: bytes
    log: bytes


def statements(unit: Unit) -> list[Statement]:
    texts: list[Statement] = [("forget", {})] if unit is None else [("write", {"text": t}) for t in unit]
    return [*texts, ("count", {})]


def texts_after(units: list[Unit]) -> list[str]:
    texts: list[str] = []
    for unit in units:
        texts = [] if unit is None else texts + unit
    return texts


def make_schema(folder: Path) -> Path:
    schema = folder / "schema"
    schema.mkdir()
    (schema / "001_notes.sql").write_text(
        "CREATE TABLE note (text TEXT); CREATE TABLE tally (units INTEGER); INSERT INTO tally VALUES (0);"
    )
    (schema / "queries.sql").write_text(QUERIES)
    return schema


def write(folder: Path, schema: Path, groups: list[list[Unit]], checkpoint: int) -> list[Files]:
    """The files after opening, and after each group."""
    file, log = folder / "journal", folder / "journal-wal"

    async def work(journal: Journal) -> list[Files]:
        seen = [Files(file.read_bytes(), log.read_bytes())]
        for group in groups:
            for unit in group:
                journal.append(*statements(unit))
            await journal.flushed()
            seen.append(Files(file.read_bytes(), log.read_bytes()))
        return seen

    with closing(Journal(file, schema, SystemClock())) as journal:
        # Often, so that a few units meet checkpoints and a log that starts again.
        journal._connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint}")
        return asyncio.run(work(journal))


def torn(old: bytes, new: bytes, unit: int, rng: random.Random) -> bytes:
    """Some of the blocks were written before the power failed, in any order."""
    old = old.ljust(len(new), b"\0")
    starts = range(0, len(new), unit)
    return b"".join((new if rng.random() < 0.5 else old)[start : start + unit] for start in starts)


def power_failure(before: Files, after: Files, rng: random.Random) -> tuple[Files, bool]:
    """The disk in the middle of a commit, and whether the commit was synced.

    SQLite writes the log and syncs it; then, at a checkpoint, it copies pages from the log to the database.
    Where the log starts again at its beginning, the new header is synced before anything follows it.
    """
    if rng.random() < 0.5:
        garbage = rng.randbytes(rng.randrange(3000)) if rng.random() < 0.5 else b""
        started = after.log[:LOG_HEADER] + before.log[LOG_HEADER:]
        return Files(before.database, torn(started, after.log, SECTOR, rng) + garbage), False
    return Files(torn(before.database, after.database, PAGE, rng), after.log), True


def reopened(files: Files, folder: Path, schema: Path) -> tuple[int, list[str]]:
    folder.mkdir()
    (folder / "journal").write_bytes(files.database)
    (folder / "journal-wal").write_bytes(files.log)
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        ((units,),) = journal.select("units")
        assert isinstance(units, int)
        return units, [str(text) for (text,) in journal.select("texts")]


@settings(max_examples=60, deadline=None)
@given(groups=GROUPS, checkpoint=st.sampled_from([1, 4, 1000]), rng=SEEDED)
def test_a_power_failure_leaves_a_prefix_of_whole_units(
    groups: list[list[Unit]], checkpoint: int, rng: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema = make_schema(folder)
        seen = write(folder, schema, groups, checkpoint)
        done: list[Unit] = []
        for number, (group, before, after) in enumerate(zip(groups, seen[:-1], seen[1:], strict=True)):
            files, synced = power_failure(before, after, rng)
            acknowledged = len(done) + (len(group) if synced else 0)
            done += group
            units, texts = reopened(files, folder / str(number), schema)
            assert acknowledged <= units <= len(done)
            assert texts == texts_after(done[:units])


@settings(max_examples=60, deadline=None)
@given(groups=GROUPS, cut=st.integers(0, 10**6), garbage=st.binary(max_size=3000))
def test_a_log_cut_anywhere_leaves_a_prefix_of_whole_units(
    groups: list[list[Unit]], cut: int, garbage: bytes
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema = make_schema(folder)
        opened, *seen = write(folder, schema, groups, checkpoint=1000)
        length = len(opened.log) + cut % (len(seen[-1].log) - len(opened.log) + 1)
        units, texts = reopened(
            Files(seen[-1].database, seen[-1].log[:length] + garbage), folder / "cut", schema
        )
        everything = [unit for group in groups for unit in group]
        synced = [group for group, files in zip(groups, seen, strict=True) if len(files.log) <= length]
        assert units >= sum(map(len, synced))
        assert texts == texts_after(everything[:units])
