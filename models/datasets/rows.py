"""Rows one after another: cut into what is trained on and what is held out, then into windows.

All of it reads the rows twice and never holds them: the first time to count, as what is held out is the end.
The cut comes before the windows, so no row is in a window of both parts:

    group of n rows:   0 … n - h - 1 trained on │ n - h … n - 1 held out,   h = round(holdout · n), 1 to n - 1
    windows of a part: rows s … s + window - 1,   s = 0, stride, 2 · stride, …

Each group is cut for itself, as recordings of one class often stand together, and the end of a file would be
one class alone.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from msgspec import Struct

from models.errors import DatasetError

MAX_GROUPS = 100_000
"""Counts that are kept at the same time; a column with more values than this is no recording's name."""


class Row(NamedTuple):
    """One row.

    Attributes:
        group: of rows that belong together.
        values: of the features; None for a row that was dropped.
        target: class, or numbers to predict; None where the input is its own target.
    """

    group: str
    values: Any
    target: Any


class Piece(NamedTuple):
    """One example.

    Attributes:
        held_out: whether it is for evaluation only.
        values: of its row, or a tuple of those of its rows.
        target: of its last row.
    """

    held_out: bool
    values: Any
    target: Any


class Survey(Struct, frozen=True):
    """What the first reading counted.

    Attributes:
        rows: of each group, without those dropped.
        dropped: rows left out.
    """

    rows: dict[str, int]
    dropped: int


def count(rows: Iterable[Row], where: str) -> Survey:
    """Read all rows once.

    Raises:
        DatasetError: too many groups.
    """
    counts: Counter[str] = Counter()
    dropped = 0
    for row in rows:
        if row.values is None:
            dropped += 1
            continue
        counts[row.group] += 1
        if len(counts) > MAX_GROUPS:
            raise DatasetError(
                f"{where}: more than {MAX_GROUPS:,} groups; set data.group to a column that names a recording"
            )
    return Survey(dict(counts), dropped)


def trained_rows(rows: int, holdout: float) -> int:
    """How many rows of a group, from its start, are trained on; the others are held out."""
    return max(1, rows - max(1, round(holdout * rows)))


def windows_in(rows: int, window: int | None, stride: int | None) -> int:
    """The most examples that so many rows make; dropped rows leave fewer."""
    if window is None:
        return rows
    return 0 if rows < window else (rows - window) // (stride or window) + 1


def pieces(
    rows: Iterable[Row], survey: Survey, *, holdout: float, window: int | None, stride: int | None
) -> Iterator[Piece]:
    """Read the rows again, as examples.

    Rows that were added since they were counted are left for the next time.

    Args:
        rows: the same as were counted.
        survey: the counts.
        holdout: part held out.
        window: rows of an example; None makes each row one.
        stride: rows from one window to the next; None is `window`.
    """
    cuts = {group: trained_rows(total, holdout) for group, total in survey.rows.items()}
    cutters: dict[str, _Cutter] = {}
    for row in rows:
        if row.group not in cuts:
            continue
        cutter = cutters.get(row.group)
        if cutter is None:
            cutter = _Cutter(cuts[row.group], survey.rows[row.group], window, stride or window or 1)
            cutters[row.group] = cutter
        piece = cutter.take(row)
        if piece is not None:
            yield piece


class _Cutter:
    """One group's rows into its windows."""

    def __init__(self, cut: int, total: int, window: int | None, stride: int) -> None:
        self._cut, self._total, self._window, self._stride = cut, total, window, stride
        self._seen = 0
        self._rows: deque[Any] = deque(maxlen=window or 1)

    def take(self, row: Row) -> Piece | None:
        """One more row; the example that ends with it, if one does."""
        number = self._seen
        if row.values is None or number >= self._total:
            self._rows.clear()  # no window spans what is missing
            return None
        self._seen = number + 1
        held_out = number >= self._cut
        if self._window is None:
            return Piece(held_out, row.values, row.target)
        position = number - self._cut if held_out else number
        if position == 0:
            self._rows.clear()
        self._rows.append(row.values)
        due = (position - self._window + 1) % self._stride == 0
        made = tuple(self._rows) if due and len(self._rows) == self._window else None
        if self._seen == self._total:
            self._rows.clear()
        return None if made is None else Piece(held_out, made, row.target)


Reading = Callable[[], Iterator[Row]]
"""Begins at the first row each time it is called."""
