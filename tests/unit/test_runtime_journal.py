"""The journal: order, whole units, nothing acknowledged is lost, nothing damaged is opened."""

import asyncio
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from hand_clock import HandClock, settle

from protocol.errors import MisuseError
from runtime.clock import SystemClock
from runtime.journal import (
    DamagedJournalError,
    Journal,
    JournalClosedError,
    JournalInUseError,
    NewerJournalError,
    SqlValue,
    Statement,
)

FIRST_MIGRATION = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"
QUERIES = """
A line before the first name is a comment.
-- name: write
INSERT INTO note (id, text) VALUES (:id, :text);

-- name: forget
DELETE FROM note;

-- name: all
SELECT id, text FROM note ORDER BY id;
"""


def note(number: int, text: str = "-") -> Statement:
    return "write", {"id": number, "text": text}


def numbers(journal: Journal) -> list[object]:
    return [number for number, _ in journal.select("all")]


def make_schema(folder: Path, *migrations: str, queries: str = QUERIES) -> Path:
    folder.mkdir()
    for number, migration in enumerate(migrations, start=1):
        (folder / f"{number:03}_step.sql").write_text(migration)
    (folder / "queries.sql").write_text(queries)
    return folder


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    return make_schema(tmp_path / "schema", FIRST_MIGRATION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture(name="journal")
async def open_journal(folder: Path, schema: Path) -> AsyncIterator[Journal]:
    with closing(Journal(folder / "journal", schema, SystemClock())) as opened:
        yield opened


async def happened(condition: Callable[[], object]) -> None:
    """The writer has a thread of its own, which a hand clock does not move."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


# Units.


async def test_what_was_flushed_is_there_after_a_restart(folder: Path, schema: Path) -> None:
    for number in range(3):
        with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
            assert numbers(journal) == list(range(number))
            journal.append(note(number))
            await journal.flushed()


async def test_a_unit_is_kept_whole_and_in_order(journal: Journal) -> None:
    journal.append(note(1), note(2))
    journal.append(("forget", {}), note(3))
    journal.append(note(4, "last"))
    await journal.flushed()
    assert journal.select("all") == [(3, "-"), (4, "last")]


async def test_append_keeps_the_parameters_of_the_call(journal: Journal) -> None:
    parameters: dict[str, SqlValue] = {"id": 1, "text": "then"}
    journal.append(("write", parameters))
    parameters["text"] = "later"
    await journal.flushed()
    assert journal.select("all") == [(1, "then")]


async def test_nothing_to_flush_returns_at_once(journal: Journal) -> None:
    await journal.flushed()
    journal.append(note(1))
    await journal.flushed()
    await journal.flushed()
    assert asyncio.all_tasks() == {asyncio.current_task()}  # none waits for work


async def test_select_sees_what_is_committed_only(journal: Journal) -> None:
    journal._connection.execute("BEGIN IMMEDIATE")
    journal._connection.execute("INSERT INTO note VALUES (1, 'half')")
    assert numbers(journal) == []
    journal._connection.execute("COMMIT")
    assert numbers(journal) == [1]


async def test_select_does_not_write(journal: Journal) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        journal.select("forget")


async def test_a_commit_is_synced_before_it_returns(journal: Journal) -> None:
    # A kill cannot show it, since the kernel keeps what was written: only a power failure would.
    assert journal._connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert journal._connection.execute("PRAGMA synchronous").fetchall() == [(2,)]


# Group commit.


async def test_a_thousand_callers_share_one_sync(journal: Journal) -> None:
    commits = []
    journal._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    async def caller(number: int) -> None:
        journal.append(note(number))
        await journal.flushed()

    await asyncio.gather(*map(caller, range(1000)))
    assert numbers(journal) == list(range(1000))
    assert len(commits) == 1


async def test_what_is_appended_during_a_commit_goes_into_the_next(journal: Journal) -> None:
    committing, go_on = threading.Event(), threading.Event()

    def at_commit(sql: str) -> None:
        if sql == "COMMIT" and not committing.is_set():
            committing.set()
            go_on.wait(10)

    journal._connection.set_trace_callback(at_commit)
    journal.append(note(1))
    first = asyncio.create_task(journal.flushed())
    await asyncio.to_thread(committing.wait, 10)
    journal.append(note(2))
    both = asyncio.create_task(journal.flushed())
    await settle()
    assert not first.done()
    go_on.set()
    await first
    assert 1 in numbers(journal)
    await both
    assert numbers(journal) == [1, 2]


async def test_a_cancelled_waiter_harms_nobody(journal: Journal) -> None:
    journal.append(note(1))
    gone = asyncio.create_task(journal.flushed())
    stays = asyncio.create_task(journal.flushed())
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert gone.cancelled()
    assert numbers(journal) == [1]


class InlineLoop(asyncio.SelectorEventLoop):
    """As a simulator runs programs: nothing leaves the loop's thread."""

    def run_in_executor(  # type: ignore[override]  # one result type is enough here
        self, executor: object, func: Callable[..., object], *args: object
    ) -> asyncio.Future[object]:
        del executor
        done: asyncio.Future[object] = self.create_future()
        try:
            done.set_result(func(*args))
        except sqlite3.Error as error:
            done.set_exception(error)
        return done


def test_a_simulator_may_run_the_commits_inline(folder: Path, schema: Path) -> None:
    with closing(Journal(folder / "journal", schema, HandClock())) as journal:

        async def work() -> int:
            journal.append(note(1))
            await journal.flushed()
            return threading.active_count()

        before = threading.active_count()
        with asyncio.Runner(loop_factory=InlineLoop) as runner:
            assert runner.run(work()) == before
        assert numbers(journal) == [1]


# A disk that refuses.


@contextmanager
def no_free_page(journal: Journal) -> Iterator[None]:
    """SQLite answers as on a full disk."""
    ((pages,),) = journal._connection.execute("PRAGMA page_count")
    ((limit,),) = journal._connection.execute(f"PRAGMA max_page_count={pages}")
    assert limit == pages
    yield
    journal._connection.execute("PRAGMA max_page_count=1000000")


@contextmanager
def no_file_grows(journal: Journal) -> Iterator[None]:
    """The kernel refuses with an error that is not "no space left"."""
    del journal
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("refusal", "reason"), [(no_free_page, "disk full"), (no_file_grows, "disk error")], ids=["full", "error"]
)
async def test_a_refusing_disk_is_asked_again_until_it_takes_everything(
    folder: Path, schema: Path, refusal: Callable[[Journal], AbstractContextManager[None]], reason: str
) -> None:
    clock = HandClock()
    told: list[str] = []
    with closing(Journal(folder / "journal", schema, clock)) as journal:
        journal.on_trouble = told.append
        journal.append(note(0))
        await journal.flushed()
        with refusal(journal):
            for number in range(1, 4):
                journal.append(note(number, "x" * 20_000))
            early = asyncio.create_task(journal.flushed())
            for _ in range(3):
                await happened(lambda: clock._sleepers)
                await clock.pass_time(1)
            await happened(lambda: clock._sleepers)
            journal.append(("forget", {}), note(4))
            late = asyncio.create_task(journal.flushed())
            await settle()
            assert not early.done()
            assert not late.done()
            assert numbers(journal) == [0]
            assert told == [reason]
        await clock.pass_time(1)
        await early
        await late
        assert told == [reason, ""]
        assert numbers(journal) == [4]  # in order: the notes before it were forgotten after they were written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", mount], check=True)


async def test_a_disk_that_is_really_full_is_used_again_when_it_has_room(
    small_disk: Path, schema: Path
) -> None:
    told: list[str] = []
    clock = HandClock()
    with closing(Journal(small_disk / "journal", schema, clock)) as journal:
        journal.on_trouble = told.append
        with pytest.raises(OSError, match="No space"):
            (small_disk / "other").write_bytes(bytes(2**20))
        for number in range(20):
            journal.append(note(number, "x" * 4000))
        flushed = asyncio.create_task(journal.flushed())
        await happened(lambda: told)
        assert numbers(journal) == []
        (small_disk / "other").unlink()
        await clock.pass_time(1)
        await flushed
        assert told[-1] == ""
    with closing(Journal(small_disk / "journal", schema, clock)) as journal:
        assert numbers(journal) == list(range(20))


# Bugs of the caller.


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (note(1), sqlite3.IntegrityError),  # a second note 1
        (("write", {"id": 2}), sqlite3.ProgrammingError),  # no text
        (note(2**70), OverflowError),
    ],
    ids=["constraint", "parameter", "range"],
)
async def test_a_wrong_unit_is_told_to_every_waiter_and_closes_the_journal(
    folder: Path, schema: Path, wrong: Statement, cause: type[Exception]
) -> None:
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        journal.append(note(1))
        await journal.flushed()
        journal.append(note(5))
        journal.append(note(6), wrong)
        for outcome in await asyncio.gather(journal.flushed(), journal.flushed(), return_exceptions=True):
            assert isinstance(outcome, JournalClosedError)
            assert isinstance(outcome.__cause__, cause)
        assert not journal._connection.in_transaction
        with pytest.raises(JournalClosedError, match="cannot keep"):
            journal.append(note(7))
        with pytest.raises(JournalClosedError, match="cannot keep"):
            await journal.flushed()
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        assert numbers(journal) == [1]


async def test_an_unknown_query_is_refused_at_the_call(journal: Journal) -> None:
    with pytest.raises(MisuseError, match="'wriet'"):
        journal.append(note(1), ("wriet", {}))
    with pytest.raises(MisuseError, match="'al'"):
        journal.select("al")
    journal.append(note(2))
    await journal.flushed()
    assert numbers(journal) == [2]


def test_append_needs_a_running_loop_and_keeps_nothing_without(folder: Path, schema: Path) -> None:
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        with pytest.raises(RuntimeError, match="no running event loop"):
            journal.append(note(1))
        asyncio.run(journal.flushed())
        assert numbers(journal) == []


# Closing.


async def test_close_drops_what_is_queued_and_tells_who_waits(folder: Path, schema: Path) -> None:
    journal = Journal(folder / "journal", schema, SystemClock())
    journal.append(note(1))
    await journal.flushed()
    journal.append(note(2))
    waiting = asyncio.create_task(journal.flushed())
    await asyncio.sleep(0)  # the writer begins
    journal._queue.append([("INSERT INTO note VALUES (3, '-')", {})])
    journal.close()
    journal.close()
    await happened(waiting.done)
    for call in (lambda: journal.append(note(4)), lambda: journal.select("all")):
        with pytest.raises(JournalClosedError, match="is closed"):
            call()
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        assert numbers(journal) in ([1], [1, 2])  # a commit that was under way may have ended


async def test_close_wakes_a_writer_that_waits_for_the_disk(folder: Path, schema: Path) -> None:
    clock = HandClock()
    journal = Journal(folder / "journal", schema, clock)
    with no_free_page(journal):
        journal.append(note(1, "x" * 20_000))
        waiting = asyncio.create_task(journal.flushed())
        await happened(lambda: clock._sleepers)
    journal.close()
    with pytest.raises(JournalClosedError, match="is closed"):
        await waiting
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_loop_that_ends_early_closes_the_journal(folder: Path, schema: Path) -> None:
    clock = HandClock()

    async def leave_a_unit_behind() -> None:
        journal.append(note(1, "x" * 20_000))
        await happened(lambda: clock._sleepers)

    async def come_back() -> None:
        journal.append(note(2))

    with closing(Journal(folder / "journal", schema, clock)) as journal:
        with no_free_page(journal):
            asyncio.run(leave_a_unit_behind())
        with pytest.raises(JournalClosedError, match="its event loop ended"):
            asyncio.run(come_back())


def test_a_journal_outlives_a_loop_that_was_idle(folder: Path, schema: Path) -> None:
    async def write(number: int) -> None:
        journal.append(note(number))
        await journal.flushed()

    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        asyncio.run(write(1))
        asyncio.run(write(2))
        assert numbers(journal) == [1, 2]


# One at a time.


def test_a_second_opener_in_this_process_is_refused(folder: Path, schema: Path) -> None:
    (folder / "alias").symlink_to(folder / "journal")
    with closing(Journal(folder / "journal", schema, SystemClock())):
        for name in ("journal", "alias"):
            with pytest.raises(JournalInUseError, match=r"journal is in use\. Stop the other program"):
                Journal(folder / name, schema, SystemClock())
    Journal(folder / "journal", schema, SystemClock()).close()


OPEN = """
import sys
from pathlib import Path
from runtime.clock import SystemClock
from runtime.journal import Journal
Journal(Path(sys.argv[1]), Path(sys.argv[2]), SystemClock())
"""


def test_a_second_process_is_refused(folder: Path, schema: Path) -> None:
    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", OPEN, folder / "journal", schema],
            capture_output=True,
            check=False,
            text=True,
        ).stderr

    with closing(Journal(folder / "journal", schema, SystemClock())):
        assert "JournalInUseError" in other()
    assert other() == ""


# Migrations.


async def test_missing_migrations_are_applied_once(folder: Path, tmp_path: Path, schema: Path) -> None:
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        journal.append(note(1))
        await journal.flushed()
    newer = make_schema(
        tmp_path / "newer",
        FIRST_MIGRATION,
        "ALTER TABLE note ADD COLUMN author TEXT NOT NULL DEFAULT 'nobody';\nUPDATE note SET author = 'old';",
        "CREATE INDEX note_author ON note (author) -- no newline and no semicolon",
        queries=QUERIES + "-- name: authors\nSELECT author FROM note ORDER BY id",
    )
    for _ in range(2):
        with closing(Journal(folder / "journal", newer, SystemClock())) as journal:
            assert journal.select("authors") == [("old",)]


def test_a_migration_that_fails_leaves_the_schema_before_it(
    folder: Path, tmp_path: Path, schema: Path
) -> None:
    broken = make_schema(
        tmp_path / "broken", FIRST_MIGRATION, "CREATE TABLE other (id); CREATE TABLE note (id);"
    )
    for _ in range(2):  # the lock is released, and nothing of the second migration is in the way
        with pytest.raises(sqlite3.OperationalError, match="table note already exists"):
            Journal(folder / "journal", broken, SystemClock())
    with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
        assert journal.select("all") == []


def test_a_schema_that_breaks_the_rules_is_refused(folder: Path, schema: Path) -> None:
    (schema / "003_step.sql").write_text("")
    with pytest.raises(MisuseError, match="003_step"):
        Journal(folder / "journal", schema, SystemClock())
    (schema / "003_step.sql").unlink()
    (schema / "queries.sql").write_text(QUERIES + "-- name: all\nSELECT 1")
    with pytest.raises(MisuseError, match="same name"):
        Journal(folder / "journal", schema, SystemClock())


# Files that must not be opened.


@pytest.fixture
async def crashed(tmp_path: Path, schema: Path) -> Path:
    """A state folder as a kill leaves it: 40 notes in the file, more in its write-ahead log."""
    (tmp_path / "live").mkdir()
    for _ in range(2):
        with closing(Journal(tmp_path / "live" / "journal", schema, SystemClock())) as journal:
            start = len(numbers(journal))
            for number in range(start, start + 40):
                journal.append(note(number, "x" * 500))
            await journal.flushed()
            if start:
                shutil.copytree(tmp_path / "live", tmp_path / "crashed")
    assert (tmp_path / "crashed" / "journal-wal").stat().st_size > 0
    return tmp_path / "crashed" / "journal"


def contents(file: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in file.parent.iterdir() if path.suffix != ".lock"}


def change(file: Path, position: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write(data)


def replace_by_text(file: Path) -> None:
    file.write_text("not a database\n" * 500)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_pages(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: 3 * 4096])
    file.with_name("journal-wal").unlink()


def cut_the_last_byte(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    file.with_name("journal-wal").unlink()


def lose_the_file_beside_its_log(file: Path) -> None:
    file.unlink()


def flip_a_bit_of_a_page(file: Path) -> None:
    # The type of a tree page, the first byte of a page that the log does not replace.
    change(file, 3 * 4096, bytes([file.read_bytes()[3 * 4096] ^ 0x10]))


def set_a_foreign_application(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id=1234")


DAMAGES = [
    replace_by_text,
    empty,
    cut_pages,
    cut_the_last_byte,
    lose_the_file_beside_its_log,
    flip_a_bit_of_a_page,
    set_a_foreign_application,
]


def test_what_a_kill_leaves_is_opened(crashed: Path, schema: Path) -> None:
    with closing(Journal(crashed, schema, SystemClock())) as journal:
        assert numbers(journal) == list(range(80))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_left_untouched(
    crashed: Path, schema: Path, damage: Callable[[Path], None]
) -> None:
    damage(crashed)
    before = contents(crashed)
    for _ in range(2):
        with pytest.raises(DamagedJournalError, match=r"journal is damaged .* Nothing was changed\. Restore"):
            Journal(crashed, schema, SystemClock())
        assert contents(crashed) == before


def test_a_newer_schema_is_refused_and_left_untouched(crashed: Path, schema: Path, tmp_path: Path) -> None:
    newer = make_schema(tmp_path / "newer", FIRST_MIGRATION, "CREATE TABLE more (id)")
    shutil.copytree(crashed.parent, tmp_path / "migrated")
    file = tmp_path / "migrated" / "journal"
    with closing(Journal(file, newer, SystemClock())):
        shutil.copytree(file.parent, tmp_path / "killed")  # the second migration is in the log alone
    file = tmp_path / "killed" / "journal"
    before = contents(file)
    assert len(before["journal-wal"]) > 0
    with pytest.raises(NewerJournalError, match=r"has schema 2; this release knows 1\. .* Run the release"):
        Journal(file, schema, SystemClock())
    assert contents(file) == before


def test_a_flipped_bit_anywhere_is_refused_or_harmless_to_the_structure(crashed: Path, schema: Path) -> None:
    whole = contents(crashed)
    refused = 0
    for position in range(0, len(whole["journal"]), 397):
        for name, data in whole.items():
            crashed.with_name(name).write_bytes(data)
        change(crashed, position, bytes([whole["journal"][position] ^ 0x04]))
        before = contents(crashed)
        try:
            Journal(crashed, schema, SystemClock()).close()
        except (DamagedJournalError, NewerJournalError):
            refused += 1
            assert contents(crashed) == before
    assert refused > 0


# Kills.

WRITE_FOR_EVER = """
import asyncio, itertools, sys
from pathlib import Path
from runtime.clock import SystemClock
from runtime.journal import Journal

journal = Journal(Path(sys.argv[1]), Path(sys.argv[2]), SystemClock())
start = len(journal.select("all"))

async def write() -> None:
    for number in itertools.count(start, 3):
        journal.append(*(("write", {"id": number + part, "text": "x" * 200}) for part in range(3)))
        if number % 2:
            await journal.flushed()
            print(number + 2, flush=True)

asyncio.run(write())
"""


def test_nothing_that_was_flushed_is_lost_in_a_kill(folder: Path, schema: Path) -> None:
    for lines in (1, 7, 50, 400, 1500):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, folder / "journal", schema],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            for _ in range(lines):
                last = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                last = int(line) if line.endswith("\n") else last
        with closing(Journal(folder / "journal", schema, SystemClock())) as journal:
            kept = numbers(journal)
        assert kept == list(range(len(kept)))
        assert len(kept) % 3 == 0
        assert len(kept) > last


async def test_the_files_stay_small_over_thousands_of_rounds(journal: Journal, folder: Path) -> None:
    for _ in range(1000):
        for number in range(20):
            journal.append(note(number, "x" * 500))
        await journal.flushed()
        journal.append(("forget", {}))
        await journal.flushed()
    assert (folder / "journal").stat().st_size < 100_000
    assert (folder / "journal-wal").stat().st_size < 5_000_000
