"""A SQLite query: it reads, whatever it says."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from models.datasets.dataset import Bound, Dataset
from models.datasets.load import load
from models.datasets.source import SqliteSource
from models.errors import DatasetError

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS a FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "readings 1?.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE readings (at REAL, volt REAL, note TEXT, state TEXT, raw BLOB)")
        rows = [(n, n / 2, "n", ("off", "on")[n % 2], b"\x00\xff") for n in range(10)]
        made.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", rows)
        made.execute("INSERT INTO readings VALUES (10, NULL, 'n', 'on', x'')")
        made.commit()
    return path


def ask(path: Path, query: str, **keys: Any) -> Dataset:
    return load(SqliteSource(path, query=query, **keys), Bound(1000))


def refused(path: Path, query: str, **keys: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        ask(path, query, **keys)
    return str(caught.value).removeprefix(f"{path}: ")


def test_an_answers_columns_are_mapped_as_those_of_a_file(path: Path) -> None:
    data = ask(
        path,
        "SELECT at, volt, state FROM readings ORDER BY at",
        time="at",
        label="state",
        classes=("off", "on"),
    )

    assert data.x[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert data.y.tolist() == [0, 1] * 4
    assert data.y_test.tolist() == [0, 1], "the row without a voltage is dropped"


def test_a_symbolic_link_is_followed(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)

    assert len(ask(link, "SELECT volt FROM readings").x) == 8


def test_a_database_is_read_while_its_writer_is_at_work(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO readings (volt) VALUES (99.0)")

        assert 99.0 not in ask(path, "SELECT volt FROM readings").x_test

        writer.execute("COMMIT")
        assert 99.0 in ask(path, "SELECT volt FROM readings").x_test


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM readings",
        "DROP TABLE readings",
        "INSERT INTO readings (volt) VALUES (1)",
        "CREATE TEMP TABLE t (a)",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('evil.so')",
        "SELECT volt FROM readings; DELETE FROM readings",
        "VACUUM",
    ],
)
def test_nothing_but_reading_is_possible(path: Path, query: str) -> None:
    before = path.read_bytes()

    told = refused(path, query)

    assert told.startswith("data.query: ")
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == [path]


def test_a_query_without_end_is_given_up(path: Path) -> None:
    told = refused(path, FOREVER, query_seconds=0.05)

    assert "interrupted; it took longer than data.query_seconds = 0.05: ask for less, or raise it" in told


@pytest.mark.parametrize(
    ("query", "keys", "told"),
    [
        ("SELECT volts FROM readings", {}, "data.query: no such column: volts; write one SELECT that works"),
        ("SELEC volt", {}, 'data.query: near "SELEC": syntax error'),
        ("SELECT", {}, "data.query: incomplete input"),
        ("SELECT note FROM readings", {}, "row 1, column 'note': 'n' is not a number"),
        ("SELECT raw FROM readings", {}, "row 1, column 'raw': b'\\x00\\xff' is not a number"),
        ("SELECT volt FROM readings", {"label": "state"}, 'data.label names the column "state"'),
        ("SELECT zeroblob(2000000) AS a", {}, "data.query: string or blob too big"),
        ("SELECT CAST(x'ff' AS TEXT) AS a", {}, "row 1, column 'a': '\ufffd' is not a number"),
        ("-- nothing", {}, "data.query answers nothing; write one SELECT"),
    ],
)
def test_a_wrong_query_is_named_with_the_fix(path: Path, query: str, keys: dict[str, Any], told: str) -> None:
    assert refused(path, query, **keys).startswith(told)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    assert "unable to open database file; set data.path" in refused(tmp_path / "none.db", "SELECT 1")
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at" * 50)
    assert "file is not a database" in refused(tmp_path / "text.db", "SELECT 1 AS a FROM b")
    assert not (tmp_path / "none.db").exists()
