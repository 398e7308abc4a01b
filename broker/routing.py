"""Which filters match a topic (MQTT 3.1.1, section 4.7)."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from protocol.errors import MisuseError

T = TypeVar("T")


def check_topic(topic: str) -> None:
    """Refuses what cannot be published to.

    Raises:
        MisuseError: empty, or with a wildcard or NUL in it.
    """
    if not topic or any(character in topic for character in "+#\0"):
        raise MisuseError(f"{topic!r} is not a topic: wildcards belong in filters")


def check_filter(topic_filter: str) -> None:
    """Refuses what cannot be subscribed to.

    Raises:
        MisuseError: empty, or a wildcard that is not a whole level, or `#` before the end.
    """
    *before, last = topic_filter.split("/")
    proper = (last in {"#", "+"} or _plain(last)) and all(level == "+" or _plain(level) for level in before)
    if not topic_filter or not proper:
        raise MisuseError(f"{topic_filter!r} is not a topic filter")


def _plain(level: str) -> bool:
    return not any(character in level for character in "+#\0")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether `topic_filter` covers `topic`; `$`-topics are not covered by a leading wildcard."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        want in {"+", level} for want, level in zip(wanted, levels, strict=True)
    )


class Router(Generic[T]):
    """Routes under filters: exact ones are looked up, only those with wildcards are tried."""

    def __init__(self) -> None:
        self._exact: dict[str, list[T]] = {}
        self._wild: dict[str, list[T]] = {}

    def add(self, topic_filter: str, route: T) -> None:
        """Adds a route; the same one twice is two routes."""
        self._side(topic_filter).setdefault(topic_filter, []).append(route)

    def remove(self, topic_filter: str, route: T) -> bool:
        """Takes a route out again; True when it was the last under its filter."""
        side = self._side(topic_filter)
        side[topic_filter].remove(route)
        if side[topic_filter]:
            return False
        del side[topic_filter]
        return True

    def matching(self, topic: str) -> Iterator[T]:
        """Every route whose filter matches, once for each such filter, in the order they were added."""
        yield from tuple(self._exact.get(topic, ()))
        for topic_filter, routes in tuple(self._wild.items()):
            if matches(topic_filter, topic):
                yield from tuple(routes)

    def _side(self, topic_filter: str) -> dict[str, list[T]]:
        return self._wild if "+" in topic_filter or topic_filter.endswith("#") else self._exact
