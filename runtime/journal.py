"""State that survives a crash: one SQLite file, one writer, group commit.

A caller appends units, each of one or more statements, and waits until they are durable before it speaks. The
writer takes every unit that is queued at that moment into one transaction, so that a thousand callers wait
for one sync of the disk. What a crash leaves is always a prefix of the units, each whole.

SQLite sums its write-ahead log, not its pages: a changed bit is found where it breaks the structure, not
where it lies in the content of a row (readers verify signatures and hashes). In the log it ends the log
there, which is a rollback like that of an old copy.

The schema is a folder: migrations `001_<word>.sql`, `002_<word>.sql`, … and `queries.sql` with one statement
after each line `-- name: <query>`. The number of the newest migration is the file's `user_version`.

Settings of SQLite, with reasons:

- `journal_mode=WAL`, `synchronous=FULL`: one sync for each commit, which is durable when it returns. `NORMAL`
  may lose the last commits with the power.
- Checkpoints when the log holds 1000 pages of 4 KiB (SQLite's default) and `journal_size_limit` of as much:
  the log stays at about 4 MiB, also after a larger group. Nobody reads for long, so that a checkpoint always
  gets to the end.
- No vacuum: deleted rows leave free pages that the next round's rows fill. The file is as large as the
  largest round was; giving pages back would only write more.
- Ordinary locking: backup tools may read a file in use. A second program is kept out by a lock of our own.
"""

import asyncio
import fcntl
import re
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from importlib.resources.abc import Traversable
from itertools import chain
from pathlib import Path

from protocol.errors import FedfleetError, MisuseError
from runtime.clock import Clock
from runtime.files import write_synced

SqlValue = None | int | float | str | bytes
Statement = tuple[str, Mapping[str, SqlValue]]
"""A query's name in the schema's `queries.sql`, and its parameters."""

# "flwj"; file(1) and we tell our files from those of other programs by it.
_APPLICATION_ID = int.from_bytes(b"flwj", "big")

# 1000 pages of the write-ahead log, each 4 KiB and a header of 24 bytes.
_LOG_LIMIT = 1000 * (4096 + 24)

# A full disk is emptied by people or by the end of a round: asking more often helps nobody.
_RETRY_SECONDS = 1.0

_MIGRATION = re.compile(r"(\d{3})_\w+\.sql")
_QUERY = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


class JournalError(FedfleetError):
    """The journal cannot be used; the message names the file, the cause and the fix."""


class JournalInUseError(JournalError):
    """Another process, or this one a second time, uses the journal."""


class DamagedJournalError(JournalError):
    """The file is damaged, or it is no journal of this program."""


class NewerJournalError(JournalError):
    """A newer release of this program wrote the journal."""


class JournalClosedError(JournalError):
    """The journal takes and keeps nothing more; what was not durable is dropped."""


class Journal:
    """Keeps rows durably. Belongs to the thread of one event loop, from the first append on.

    A full or failing disk loses nothing: the writer keeps the units and tries again until it works. Any other
    error of a commit is a bug of the caller's statements and closes the journal.

    Args:
        file: in a folder that exists; made if it does not exist. `<file>.lock` beside it is made and stays.
        schema: the folder of migrations and queries, for example `importlib.resources.files(package)`.
        clock: waits between two tries when the disk is full.

    Attributes:
        on_trouble: told a short reason ("disk full", "disk error") when commits begin to fail for want of
            disk, and "" when they work again.

    Raises:
        JournalInUseError: see there.
        DamagedJournalError: see there; nothing was changed.
        NewerJournalError: see there; nothing was changed.
        MisuseError: the schema breaks the rules above.
        OSError: the disk refused.
        sqlite3.Error: the disk refused, or a migration is wrong; it was rolled back.
    """

    def __init__(self, file: Path, schema: Traversable, clock: Clock) -> None:
        self._file = file.resolve()
        self._clock = clock
        self._queries = _read_queries(schema)
        self.on_trouble: Callable[[str], None] = lambda _reason: None
        self._trouble = ""
        self._queue: list[_Unit] = []
        self._appended = 0
        self._durable = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._over = ""
        self._cause: Exception | None = None
        with ExitStack() as opened:
            _lock(self._file, opened)
            self._connection, self._reader = _open(self._file, _read_migrations(schema), opened)
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
            opened.callback(self._executor.shutdown, cancel_futures=True)
            self._opened = opened.pop_all()

    def append(self, *statements: Statement) -> None:
        """Queue one unit, which becomes durable as a whole, after everything appended before. Never blocks.

        Raises:
            MisuseError: no query has that name.
            JournalClosedError: closed, or an earlier unit failed.
            RuntimeError: no event loop runs.
        """
        loop = asyncio.get_running_loop()
        self._refuse_when_over()
        self._queue.append([(self._sql(name), dict(parameters)) for name, parameters in statements])
        self._appended += 1
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write())

    async def flushed(self) -> None:
        """Return once everything appended before the call is durable.

        Raises:
            JournalClosedError: it will not be; the cause is the error of SQLite, if there was one.
        """
        mine = self._appended
        if self._durable < mine and not self._over:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((mine, waiter))
            await waiter
        if self._durable < mine:
            self._refuse_when_over()

    def select(self, query: str, **parameters: SqlValue) -> list[tuple[SqlValue, ...]]:
        """All rows that a query finds in what is durable. Blocks: for start-up and tools.

        Raises:
            MisuseError: no query has that name.
            JournalClosedError: closed, or a unit failed.
        """
        self._refuse_when_over()
        return self._reader.execute(self._sql(query), parameters).fetchall()

    def close(self) -> None:
        """Drop what is queued, close the file and release the lock. Waits for a commit that is under way."""
        self._stop("is closed")
        if self._writer and not self._writer.get_loop().is_closed():
            self._writer.cancel()
        self._opened.close()

    def _sql(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            raise MisuseError(f"the schema has no query {name!r}") from None

    async def _write(self) -> None:
        try:
            while self._queue:
                await self._write_group(self._queue.copy())
        except asyncio.CancelledError:
            self._stop("was still writing when its event loop ended; open it again")
            raise
        except Exception as error:
            self._stop(f"got a unit that it cannot keep: {error!r}", error)
            raise

    async def _write_group(self, units: Sequence["_Unit"]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, _commit, self._connection, units)
        except sqlite3.OperationalError as error:
            if not (reason := _disk_trouble(error)):
                raise
            self._tell(reason)
            await self._clock.sleep(_RETRY_SECONDS)
            return
        del self._queue[: len(units)]
        self._durable += len(units)
        self._wake(self._durable)
        self._tell("")

    def _tell(self, reason: str) -> None:
        if reason != self._trouble:
            self._trouble = reason
            self.on_trouble(reason)

    def _stop(self, why: str, cause: Exception | None = None) -> None:
        if not self._over:
            self._over, self._cause = why, cause
            self._queue.clear()
            self._wake(self._appended)

    def _refuse_when_over(self) -> None:
        if self._over:
            raise JournalClosedError(f"{self._file} {self._over}") from self._cause

    def _wake(self, up_to: int) -> None:
        while self._waiters and self._waiters[0][0] <= up_to:
            _, waiter = self._waiters.popleft()
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)


_Unit = list[tuple[str, dict[str, SqlValue]]]


def _commit(connection: sqlite3.Connection, units: Sequence[_Unit]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, parameters in chain.from_iterable(units):
            connection.execute(sql, parameters)
        connection.execute("COMMIT")
    finally:
        # SQLite has rolled back by itself after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _disk_trouble(error: sqlite3.Error) -> str:
    """Why the disk refused; nothing if it was not the disk. The low byte of a result code is its kind."""
    kinds = {sqlite3.SQLITE_FULL: "disk full", sqlite3.SQLITE_IOERR: "disk error"}
    return kinds.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")


# The schema.


def _read_queries(schema: Traversable) -> dict[str, str]:
    blocks = _QUERY.split((schema / "queries.sql").read_text("utf-8"))[1:]
    names, statements = blocks[::2], blocks[1::2]
    if len(set(names)) != len(names):
        raise MisuseError("two queries have the same name")
    return dict(zip(names, (statement.strip() for statement in statements), strict=True))


def _read_migrations(schema: Traversable) -> list[str]:
    files = sorted((entry for entry in schema.iterdir() if _MIGRATION.fullmatch(entry.name)), key=_number)
    if [_number(entry) for entry in files] != list(range(1, len(files) + 1)):
        raise MisuseError(f"migrations are not numbered 001, 002, …: {[entry.name for entry in files]}")
    return [entry.read_text("utf-8") for entry in files]


def _number(migration: Traversable) -> int:
    return int(migration.name[:3])


# Opening.


def _lock(file: Path, opened: ExitStack) -> None:
    # The lock is the kernel's and dies with its holder; the file stays, since removing it would let two in.
    path = file.with_name(f"{file.name}.lock")
    lock = opened.enter_context(path.open("ab"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalInUseError(
            f"{file} is in use. Stop the other program (`fuser {path}` names it), or use another folder."
        ) from None


def _open(
    file: Path, migrations: Sequence[str], opened: ExitStack
) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """A connection that writes, and one that sees only what is durable."""
    if any(part.exists() for part in _parts(file)):
        _check(file, newest=len(migrations))
    else:
        _create(file)
    writer = _connect(file, opened)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA synchronous=FULL")
    writer.execute(f"PRAGMA journal_size_limit={_LOG_LIMIT}")
    writer.execute("PRAGMA foreign_keys=ON")
    _migrate(writer, migrations)
    reader = _connect(file, opened)
    reader.execute("PRAGMA query_only=ON")
    return writer, reader


def _connect(file: Path, opened: ExitStack) -> sqlite3.Connection:
    # The writer thread and the opening one use a connection in turn, never at once.
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    return opened.enter_context(closing(connection))


def _parts(file: Path) -> list[Path]:
    """The files in which SQLite keeps content: the database, its write-ahead log, its rollback journal."""
    return [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-journal")]


def _create(file: Path) -> None:
    """An empty journal that appears whole, so that an empty file is known as damaged."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute("VACUUM")  # writes the first page
        write_synced(file, connection.serialize())


def _check(file: Path, newest: int) -> None:
    """Refuse what must not be opened. Looks at a copy, because SQLite recovers what it opens."""
    with tempfile.TemporaryDirectory(prefix="journal-") as folder:
        for part in _parts(file):
            if part.exists():
                shutil.copyfile(part, Path(folder) / part.name)
        if not (Path(folder) / file.name).exists():
            raise _damaged(file, f"the file itself is missing beside {file.name}-wal")
        try:
            version = _version_of_whole(Path(folder) / file.name)
        except sqlite3.DatabaseError as error:
            if _disk_trouble(error):
                raise
            raise _damaged(file, str(error)) from error
    if version > newest:
        raise NewerJournalError(
            f"{file} has schema {version}; this release knows {newest}. Nothing was changed. "
            "Run the release that wrote it, or a newer one."
        )


def _version_of_whole(copy: Path) -> int:
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        ((problem,),) = connection.execute("PRAGMA integrity_check(1)")
        if problem != "ok":
            raise sqlite3.DatabaseError(problem.splitlines()[-1])
        ((size,),) = connection.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        )
        connection.execute("PRAGMA wal_checkpoint")
        if copy.stat().st_size < size:
            raise sqlite3.DatabaseError("its end is missing")
        ((application,),) = connection.execute("PRAGMA application_id")
        if application != _APPLICATION_ID:
            raise sqlite3.DatabaseError("it is empty or belongs to another program")
        ((version,),) = connection.execute("PRAGMA user_version")
        return int(version)


def _damaged(file: Path, cause: str) -> DamagedJournalError:
    return DamagedJournalError(
        f"{file} is damaged or no journal: {cause}. Nothing was changed. "
        f"Restore a backup, or move {file.name}* away to begin anew."
    )


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    ((version,),) = connection.execute("PRAGMA user_version")
    for number, migration in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{migration}\n;PRAGMA user_version={number};COMMIT;")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
