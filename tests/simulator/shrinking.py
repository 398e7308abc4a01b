"""From a schedule that fails to a short one that still does (Zeller and Hildebrandt 2002, ddmin)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from simulator.operations import Schedule

_T = TypeVar("_T")


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Drop operations for as long as it still fails.

    Args:
        schedule: one that fails.
        fails: whether another one fails in the same way.
    """
    kept = _minimal(schedule.operations, lambda some: fails(schedule.with_operations(some)))
    return schedule.with_operations(kept)


def _minimal(items: Sequence[_T], fails: Callable[[Sequence[_T]], bool]) -> Sequence[_T]:
    """A part that fails, of which no single item can be left out."""
    parts = 2
    while len(items) >= parts > 0:
        size = -(-len(items) // parts)
        starts = range(0, len(items), size)
        smaller = ([*items[:start], *items[start + size :]] for start in starts)
        found = next((some for some in smaller if fails(some)), None)
        if found is not None:
            items, parts = found, max(2, parts - 1) if len(found) > 1 else 1
        elif size == 1:
            return items
        else:
            parts = min(len(items), 2 * parts)
        if parts == 1:
            return items if not fails([]) else []
    return items
