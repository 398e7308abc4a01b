"""The owner's own code: what it may return, and how its errors are told."""

from pathlib import Path

import pytest

from models.datasets.dataset import Bound, Dataset
from models.datasets.load import load
from models.datasets.source import HookSource
from models.errors import DatasetError

ARRAYS = """
import numpy as np
def load():
    return np.arange(10.0).reshape(5, 2), np.arange(5) % 2
"""

ALONE = """
import numpy as np
def load():
    return np.zeros((5, 2))
"""

EXAMPLES = """
import numpy as np
def load():
    for number in range(100):
        yield np.full((2, 3), number), number % 4
"""

TARGETS = """
def load():
    return [([1, 2], [0.5]), ([3, 4], [1.5]), ([5, 6], [2.5])]
"""


def hook(folder: Path, text: str) -> HookSource:
    path = folder / "hook.py"
    path.write_text(text)
    return HookSource(path)


def read(folder: Path, text: str, bound: Bound | None = None) -> Dataset:
    return load(hook(folder, text), bound or Bound(1000))


def refused(folder: Path, text: str) -> str:
    with pytest.raises(DatasetError) as caught:
        read(folder, text)
    return str(caught.value).removeprefix(str(folder / "hook.py"))


def test_arrays_are_cut_at_their_end(tmp_path: Path) -> None:
    data = read(tmp_path, ARRAYS)

    assert (data.x.tolist()[-1], data.y.tolist(), data.y_test.tolist()) == ([6, 7], [0, 1, 0, 1], [0])
    assert len(read(tmp_path, ARRAYS, Bound(2)).x) == 2
    assert read(tmp_path, ARRAYS, Bound(2, "newest")).y.tolist() == [0, 1]


def test_an_array_alone_is_its_own_target(tmp_path: Path) -> None:
    assert read(tmp_path, ALONE).y.shape == (4, 2)


def test_examples_one_by_one_are_sampled(tmp_path: Path) -> None:
    data = read(tmp_path, EXAMPLES, Bound(10))

    assert data.x.shape == (10, 2, 3)
    assert data.y.tolist() == [int(x[0, 0]) % 4 for x in data.x]
    assert data.x.max() < 80 <= data.x_test.min()


def test_a_list_of_examples_will_do(tmp_path: Path) -> None:
    assert read(tmp_path, TARGETS).y.tolist() == [[0.5], [1.5]]


def test_it_is_run_anew_each_time_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    source = hook(tmp_path, ARRAYS)
    load(source, Bound(10))
    hook(tmp_path, ARRAYS.replace("% 2", "% 3"))

    assert load(source, Bound(10)).y.tolist() == [0, 1, 2, 0]
    assert [one.name for one in tmp_path.iterdir()] == ["hook.py"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def load():\n    return secret_number_7", ", line 2: NameError; call load() by hand"),
        ("\n\nraise ValueError('patient 7')", ", line 3: ValueError;"),
        ("def load(:", ", line 1: SyntaxError;"),
        ("def load():\n    yield 1\n    raise KeyError('patient 7')", ", line 3: KeyError;"),
        ("import sys\nsys.exit(7)", ", line 2: SystemExit;"),
        ("import json\ndef load():\n    return json.loads('patient 7')", ", line 3: JSONDecodeError;"),
        ("def load():\n    return 7", ": TypeError;"),
        ("def read():\n    pass", ": no function load(); write one that returns x, y"),
        ("def load():\n    return 1, 2, 3", ": load() returned 3 things; return x, y"),
        ("def load():\n    return [[1, 2], [3]], [0, 1]", ": ValueError;"),
        ("def load():\n    yield 'a'\n    yield 'b'", ": an example holds <U1; it must be numbers"),
        ("def load():\n    yield [[1], [2, 3]]\n    yield 1", ": an example is not one array of numbers"),
        ("def load():\n    yield 1, 1\n    yield 2, 1.5\n    yield 2, 1", ": y of one example is float32"),
        ("def load():\n    yield 1, 2, 3", ": load() yielded 3 things at once; yield x, y"),
        ("def load():\n    return iter(())", ": 0 rows in 0 groups"),
    ],
)
def test_an_error_is_told_by_line_and_kind_but_never_quoted(tmp_path: Path, text: str, told: str) -> None:
    refusal = refused(tmp_path, text)

    assert refusal.startswith(told)
    assert "7" not in refusal.replace("float32", "")


def test_a_hook_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none.py: cannot be read \(No such file or directory\)"):
        load(HookSource(tmp_path / "none.py"), Bound(1))


def test_a_lack_of_memory_is_not_the_hooks_error(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        read(tmp_path, "def load():\n    raise MemoryError")
