"""The answer of one SQLite query as rows. It reads, whatever the query says."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

from models.datasets.columns import ColumnMap
from models.datasets.rows import Row
from models.datasets.source import SqliteSource
from models.errors import DatasetError

_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
"""What a statement may do; not ATTACH, PRAGMA, or any change."""

_STEPS = 100_000
"""Instructions of SQLite's machine, a few milliseconds, between two looks at the clock."""

MAX_CELL = 2**20
"""Bytes of one cell."""


def sqlite_rows(source: SqliteSource) -> Iterator[Row]:
    """Ask from the start.

    Raises:
        DatasetError: names file, row, column and fix.
    """
    try:
        with closing(_connected(source)) as connection:
            yield from _rows(source, connection)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise DatasetError(f"{source.path}: data.query: {error}; {_fix(error, source)}") from error


def _connected(source: SqliteSource) -> sqlite3.Connection:
    uri = f"file:{quote(str(source.path.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.execute("PRAGMA trusted_schema = OFF")  # a file's own views may call harmless functions only
    connection.text_factory = _text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL)
    connection.set_authorizer(_authorize)
    ends = time.monotonic() + source.query_seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > ends), _STEPS)
    return connection


def _text(cell: bytes) -> str:
    """SQLite stores any bytes as text, and its own error would quote all of them."""
    return cell.decode("utf-8", "replace")


def _authorize(action: int, _first: object, second: object, *_: object) -> int:
    loads_code = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    return sqlite3.SQLITE_OK if action in _ALLOWED and not loads_code else sqlite3.SQLITE_DENY


def _rows(source: SqliteSource, connection: sqlite3.Connection) -> Iterator[Row]:
    cursor = connection.execute(source.query)
    if cursor.description is None:
        raise DatasetError(f"{source.path}: data.query answers nothing; write one SELECT")
    header = [column[0] for column in cursor.description]
    columns = ColumnMap(source, header, str(source.path), "row")
    for number, cells in enumerate(cursor, start=1):
        yield columns.row(cells, number)


def _fix(error: Exception, source: SqliteSource) -> str:
    text = str(error)
    if "interrupted" in text:
        return f"it took longer than data.query_seconds = {source.query_seconds:g}: ask for less, or raise it"
    if "unable to open" in text:
        return "set data.path to a database that the agent may read"
    if "disk" in text:
        return "an ORDER BY without an index sorts on disk, where little is allowed: CREATE INDEX for it"
    return "write one SELECT that works in `sqlite3 -readonly`"
