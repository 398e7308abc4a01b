"""What reading a device's data for one round takes: processor time, and memory beside the size of the file.

Each row is a process of its own, so that its peak memory is its own. Floor: the standard library's readers
alone, over the same rows, as often as a round reads them: twice.
"""

import argparse
import csv
import json
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.datasets.dataset import Bound
from models.datasets.load import load
from models.datasets.source import CsvSource, DataSource, SqliteSource

T = TypeVar("T")

FEATURES = 6
LIMIT = 10_000
QUERY = "SELECT * FROM r"
NAMES = [*(f"c{number}" for number in range(FEATURES)), "label"]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: kind of data, and what is made of them.
        megabytes: of the file.
        seconds: of a processor, for one round's examples.
        floor_seconds: likewise, for two readings by the standard library.
        ratio: of both.
        peak_mb: by which the process grew at most.
        kept_mb: of that, the round's examples.
    """

    what: str
    megabytes: float
    seconds: float
    floor_seconds: float
    ratio: float
    peak_mb: float
    kept_mb: float


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the file")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), megabytes=10 if given.quick else 200)
    if given.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print("| | MB | s | floor s | ratio | peak MB | of that kept |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.what} | {row.megabytes:.0f} | {row.seconds:.1f} | {row.floor_seconds:.1f} "
            f"| {row.ratio:.2f} | {row.peak_mb:.1f} | {row.kept_mb:.1f} |"
        )


def measure(folder: Path, megabytes: int) -> list[Row]:
    """Every kind that is streamed."""
    table, database = folder / "d.csv", folder / "d.db"
    write(table, database, megabytes)
    cut = {"window": 128, "stride": 64}
    query = SqliteSource(database, query=QUERY, label="label")
    return [
        row("CSV, rows", CsvSource(table, label="label"), read_csv),
        row("CSV, the newest rows", CsvSource(table, label="label"), read_csv, newest=True),
        row("CSV, windows of 128", CsvSource(table, label="label", **cut), read_csv),  # type: ignore[arg-type]
        row("SQLite, rows", query, read_sqlite),
    ]


def write(table: Path, database: Path, megabytes: int) -> None:
    """The same numbers in both files."""
    random = np.random.default_rng(1)
    columns = ", ".join(f"{name} REAL" for name in NAMES)
    with table.open("w", encoding="utf-8") as file, closing(sqlite3.connect(database)) as made:
        made.execute(f"CREATE TABLE r ({columns})")
        file.write(",".join(NAMES) + "\n")
        while file.tell() < megabytes * 10**6:
            values = random.normal(size=(10_000, FEATURES)).round(6).tolist()
            rows = [(*value, number % 2) for number, value in enumerate(values)]
            file.writelines(",".join(map(str, each)) + "\n" for each in rows)
            made.executemany("INSERT INTO r VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        made.commit()


def row(what: str, source: DataSource, floor: Callable[[Path], None], *, newest: bool = False) -> Row:
    """Both in processes of their own."""
    bound = Bound(LIMIT, "newest" if newest else "random", seed=1)
    seconds, peak, kept = alone(read, source, bound)
    floor_seconds = alone(timed, floor, source.path)
    size = source.path.stat().st_size / 1e6
    return Row(what, size, seconds, floor_seconds, seconds / floor_seconds, peak, kept)


def alone(work: Callable[..., T], *arguments: object) -> T:
    """In a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def read(source: DataSource, bound: Bound) -> tuple[float, float, float]:
    """Seconds of a processor, growth of this process at its peak, and what is kept, in MB."""
    before, began = peak_mb(), time.process_time()
    made = load(source, bound)
    seconds = time.process_time() - began
    kept = sum(array.nbytes for array in (made.x, made.y, made.x_test, made.y_test)) / 1e6
    return seconds, peak_mb() - before, kept


def timed(floor: Callable[[Path], None], path: Path) -> float:
    """Seconds of a processor for two readings."""
    began = time.process_time()
    floor(path)
    floor(path)
    return time.process_time() - began


def read_csv(path: Path) -> None:
    """All cells, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        for _ in csv.reader(file):
            pass


def read_sqlite(path: Path) -> None:
    """All cells, as numbers."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as made:
        for _ in made.execute(QUERY):
            pass


def peak_mb() -> float:
    """Of this process, so far; what its parent once had does not count, as it does in getrusage(2)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
