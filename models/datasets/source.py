"""Where a device's examples are: the table `[data]` of its settings, and what a training process is told.

One struct for each kind, told apart by the key `source`. Nothing of it ever leaves the device.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

Column = Annotated[str, Meta(min_length=1, max_length=256)]
"""Name of a column, as the file or the query has it."""

Columns = Annotated[tuple[Column, ...], Meta(max_length=65_536)]

Class = Annotated[str, Meta(max_length=256)]

Classes = Annotated[tuple[Class, ...], Meta(max_length=65_536)]

DEFAULT_HOLDOUT = 0.2


class _Source(Struct, frozen=True, forbid_unknown_fields=True, tag_field="source"):
    """What all kinds have.

    Attributes:
        path: of the file or folder.
        holdout: part of the examples, from the end, that is evaluated on and never trained on.
        max_examples: the most of them this device uses in a round, for training and for evaluation each; None
            leaves it to the plan, which this never raises.
    """

    path: Path
    holdout: Annotated[float, Meta(gt=0.0, lt=1.0)] = DEFAULT_HOLDOUT
    max_examples: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None


class _Rows(_Source, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows of numbers, each an example or one moment of a window.

    Attributes:
        features: columns of the input, in the model's order; empty takes all that mean nothing else.
        window: rows of an example; None makes each row one (in a folder: each file).
        stride: rows from the start of a window to that of the next; None is `window`: they do not overlap.
        axes: of a window, as the model's input has them.
        mean: subtracted from each feature; empty leaves them alone.
        deviation: what each feature is then divided by. Both are published once for the whole fleet: scaled
            by its own statistics, each device would train on another unit.
        missing: what a row with an empty or not finite cell means. "drop": it is left out, and no window
            spans it; "error": the data cannot be used.
    """

    features: Columns = ()
    window: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    stride: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    axes: Literal["features-first", "time-first"] = "features-first"
    mean: Annotated[tuple[float, ...], Meta(max_length=65_536)] = ()
    deviation: Annotated[tuple[Annotated[float, Meta(gt=0.0)], ...], Meta(max_length=65_536)] = ()
    missing: Literal["drop", "error"] = "drop"

    def __post_init__(self) -> None:
        if self.stride is not None and self.window is None:
            raise ValueError("stride is set without a window; write window too")
        if len(self.mean) != len(self.deviation):
            raise ValueError(
                f"mean has {len(self.mean)} numbers and deviation {len(self.deviation)}; both have one for "
                "each feature"
            )
        if self.features and self.mean and len(self.features) != len(self.mean):
            raise ValueError(
                f"mean has {len(self.mean)} numbers and features {len(self.features)} columns; write one "
                "for each"
            )


class _Table(_Rows, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows with named columns.

    Attributes:
        label: column with the class; None where there are targets, or where the input is its own target.
        classes: their names in the model's order, when the label is text; empty reads whole numbers from 0.
        targets: columns with numbers to predict, the last axis of the model's output.
        time: column that must never go back from row to row: numbers, or dates as ISO 8601 has them.
        group: columns whose values tell recordings apart (a session, a machine): no window holds rows of two,
            and of each the end is held out.
    """

    label: Column | None = None
    classes: Classes = ()
    targets: Columns = ()
    time: Column | None = None
    group: Columns = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label is not None and self.targets:
            raise ValueError("label and targets are both set; keep label for classes, targets for numbers")
        if self.classes and self.label is None:
            raise ValueError("classes is set without a label; write the label's column too")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes holds a name twice; write each once, in the model's order")
        told = {column for column in (self.label, *self.targets) if column is not None}
        if both := told & set(self.features):
            raise ValueError(
                f"features holds {', '.join(sorted(both))}, which is what the model predicts; remove it there"
            )


class NpzSource(_Source, frozen=True, forbid_unknown_fields=True, tag="npz"):
    """One `.npz` with the arrays x and y; see `models.datasets.npz`."""


class CsvSource(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="csv"):
    """One CSV file, read from its start to its end.

    Attributes:
        delimiter: between cells.
        columns: their names, where the file does not begin with a line that names them.
    """

    delimiter: Annotated[str, Meta(pattern=r"^[^\r\n\"\x00]$")] = ","
    columns: Columns = ()


class SqliteSource(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="sqlite"):
    """What one query of a SQLite file answers; nothing is ever written to it.

    Attributes:
        query: one SELECT; its ORDER BY says which rows come last.
        query_seconds: after so long a reading is given up.
    """

    query: Annotated[str, Meta(min_length=1, max_length=65_536)]
    query_seconds: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 60.0


class WindowsSource(_Rows, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="windows"):
    """A folder with one `.npy` or `.csv` file for each window or recording, rows by features.

    Attributes:
        classes: names of its sub-folders, in the model's order; empty reads files from the folder itself, and
            the input is its own target.
        delimiter: between the cells of its CSV files.
    """

    classes: Classes = ()
    delimiter: Annotated[str, Meta(pattern=r"^[^\r\n\"\x00]$")] = ","

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.classes:
            if name in {"", ".", ".."} or "/" in name or "\x00" in name:
                raise ValueError(f'classes holds "{name[:40]}"; write names of sub-folders')


class HookSource(_Source, frozen=True, forbid_unknown_fields=True, tag="hook"):
    """A Python file of the device's owner with `load()`; see `models.datasets.hook`."""


DataSource = NpzSource | CsvSource | SqliteSource | WindowsSource | HookSource
"""The first is meant where `source` is left out."""
