"""Bugs planted into the programs are seen, each in the schedule of the seed that the table names."""

import pytest
from planted.bugs import BUGS
from planted.hunt import MOST_SEEDS, TABLE, run_seed, run_with, seeds_in

FEWEST = 44
FOUND = dict(seeds_in(TABLE.read_text("utf-8")))


def test_the_table_names_every_bug_and_a_seed_for_it() -> None:
    assert list(FOUND) == list(BUGS)
    assert len(FOUND) >= FEWEST
    assert max(FOUND.values()) < MOST_SEEDS


@pytest.mark.parametrize(("bug", "seed"), FOUND.items())
def test_a_planted_bug_is_seen(bug: str, seed: int) -> None:
    assert run_with(bug, seed).violation is not None


@pytest.mark.parametrize("seed", sorted(set(FOUND.values())))
def test_without_a_bug_the_same_seed_is_clean(seed: int) -> None:
    assert run_seed(seed).violation is None
