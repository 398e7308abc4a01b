import pytest

from broker.routing import Router, check_filter, check_topic, matches
from protocol.errors import MisuseError


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b/c", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/b/#", "a", False),
        ("#", "a/b", True),
        ("+", "a", True),
        ("+", "a/b", False),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
    ],
)
def test_a_filter_covers_what_the_standard_says(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+/b", "a/b#", "#/a", "a\0"])
def test_a_malformed_filter_is_our_bug(topic_filter: str) -> None:
    with pytest.raises(MisuseError, match="filter"):
        check_filter(topic_filter)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0"])
def test_a_topic_has_no_wildcards(topic: str) -> None:
    with pytest.raises(MisuseError, match="topic"):
        check_topic(topic)


def test_the_router_finds_each_route_once_for_each_matching_filter() -> None:
    router: Router[str] = Router()
    for topic_filter, route in (("a/b", "exact"), ("a/+", "plus"), ("a/#", "hash"), ("a/#", "again")):
        router.add(topic_filter, route)

    assert sorted(router.matching("a/b")) == ["again", "exact", "hash", "plus"]
    assert not router.remove("a/#", "hash")
    assert router.remove("a/#", "again")
    assert sorted(router.matching("a/b")) == ["exact", "plus"]
