"""Who gets which examples in the learning benchmarks, and what their files may do."""

import io
import pickle
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import hapt
from benchmarks.learning.cases import watch_fleet
from benchmarks.learning.examples import Examples
from benchmarks.learning.fetching import read_all
from benchmarks.learning.mnist import Mnist, iid_fleet, shard_fleet


def digits(examples: int) -> Mnist:
    random = np.random.default_rng(3)
    labels = random.permutation(np.arange(examples) % 10)
    rows = Examples(np.arange(examples, dtype=np.float32)[:, None], labels)
    return Mnist(rows, rows)


def test_a_device_with_two_shards_holds_at_most_two_digits() -> None:
    fleet = shard_fleet(digits(2000), 100, seed=1)

    kinds = [len(set(client.y.tolist())) for client in fleet.clients]
    assert len(kinds) == 100
    assert set(kinds) == {1, 2}
    assert sum(kinds) > 150
    assert {len(client) for client in fleet.clients} == {20}


@pytest.mark.parametrize("split", [iid_fleet, shard_fleet])
def test_every_example_is_on_one_device(split: object) -> None:
    fleet = split(digits(2000), 100, 1)  # type: ignore[operator]

    held = np.sort(np.concatenate([client.x[:, 0] for client in fleet.clients]))
    assert held.tolist() == list(range(2000))


def test_an_iid_device_holds_most_digits() -> None:
    fleet = iid_fleet(digits(2000), 20, seed=1)

    assert all(len(set(client.y.tolist())) == 10 for client in fleet.clients)


def test_seeds_deal_other_shards() -> None:
    first, again, other = (shard_fleet(digits(2000), 100, seed=seed) for seed in (1, 1, 2))

    assert first.clients[0].x.tolist() == again.clients[0].x.tolist()
    assert first.clients[0].x.tolist() != other.clients[0].x.tolist()


def test_only_the_training_part_standardises() -> None:
    train = Examples(np.array([[0.0], [2.0]], np.float32), np.array([0, 1]))
    test = Examples(np.array([[10.0]], np.float32), np.array([0]))

    both = Mnist(train, test).standardised()

    assert both.train.x.tolist() == [[-1.0], [1.0]]
    assert both.test.x.tolist() == [[9.0]]


def test_nobody_who_learns_is_among_the_judges() -> None:
    people = {
        number: Examples(np.full((number, 6, 128), number, np.float32), np.full(number, number))
        for number in range(1, 31)
    }

    fleet = hapt.unseen_users(people)

    learners = [set(client.y.tolist()) for client in fleet.clients]
    assert len(learners) == 21
    assert all(len(who) == 1 for who in learners)
    assert set(fleet.test.y.tolist()) == hapt.UNSEEN
    assert set().union(*learners) == set(range(1, 31)) - hapt.UNSEEN


def test_the_watch_has_a_device_for_each_arm_or_person() -> None:
    arms, people = watch_fleet("subject-side"), watch_fleet("subject")

    assert (len(arms.clients), len(people.clients)) == (20, 10)
    assert sum(map(len, arms.clients)) == sum(map(len, people.clients)) == 2369
    assert len(arms.test) == len(people.test) == 466


def test_a_pickle_may_hold_numbers() -> None:
    numbers = read_pickled(np.arange(6.0).reshape(2, 3))

    assert numbers.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("callable_", [eval, Path, np.load, pickle.loads])
def test_a_pickle_that_names_anything_else_is_refused(callable_: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        hapt.read_pickle(pickle.dumps(callable_, protocol=2))


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(b"other")

    with pytest.raises(SystemExit, match="another SHA-256"):
        read_all(tmp_path, {"numbers": "00" * 32}, lambda _: None)


def test_what_is_missing_is_taken_from_an_archive_whatever_its_paths_say(tmp_path: Path) -> None:
    def download(folder: Path) -> None:
        with tarfile.open(folder / "data.tgz", "w:gz") as tar:
            for name in ("../../numbers", "package/other"):
                member = tarfile.TarInfo(name)
                member.size = 3
                tar.addfile(member, io.BytesIO(b"one"))

    data = tmp_path / "inner" / "data"

    assert read_all(data, {"numbers": sha256(b"one").hexdigest()}, download) == [b"one"]
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["numbers"]
    assert (data / "numbers").is_file()


def read_pickled(array: object) -> np.ndarray:
    """As the data set was written: protocol 2, and numpy before its second version."""
    written = pickle.dumps(array, protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.")
    numbers: np.ndarray = hapt.read_pickle(written)
    return numbers
