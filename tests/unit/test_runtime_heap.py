"""Memory goes back to the system."""

from pathlib import Path

from runtime.heap import give_back

BLOCKS, SIZE = 4000, 16_000


def resident() -> int:
    """Pages of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


def test_what_lies_free_between_blocks_in_use_is_given_back() -> None:
    before = resident()
    blocks = [bytes(SIZE) + b"1" for _ in range(BLOCKS)]  # too small for mappings of their own
    held = blocks[::40]
    taken = resident() - before
    blocks.clear()
    give_back()
    assert len(held) == BLOCKS / 40
    assert resident() - before < taken / 2
