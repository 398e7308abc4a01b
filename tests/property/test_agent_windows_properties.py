"""Windows of hours, over all minutes of a day."""

from hypothesis import given
from hypothesis import strategies as st

from device_agent.conditions import within

DAY = range(24 * 60)
minutes = st.integers(0, DAY[-1])


def window(begin: int, end: int) -> str:
    return f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"


@given(minutes, minutes)
def test_a_window_is_as_long_as_from_its_begin_to_its_end_across_midnight_or_not(
    begin: int, end: int
) -> None:
    inside = sum(within(window(begin, end), minute) for minute in DAY)
    assert inside == ((end - begin) % len(DAY) or len(DAY))


@given(minutes, minutes)
def test_its_begin_is_inside_and_its_end_is_not(begin: int, end: int) -> None:
    assert within(window(begin, end), begin)
    assert within(window(begin, end), end) == (begin == end)


@given(minutes, minutes, minutes)
def test_a_window_and_the_one_from_its_end_to_its_begin_are_the_whole_day(
    begin: int, end: int, minute: int
) -> None:
    if begin != end:
        assert within(window(begin, end), minute) != within(window(end, begin), minute)


@given(minutes, st.integers(1, DAY[-1]), minutes)
def test_inside_is_what_is_reached_before_the_end(begin: int, length: int, minute: int) -> None:
    """Walking on from the begin, as a clock does."""
    end = (begin + length) % len(DAY)
    assert within(window(begin, end), minute) == ((minute - begin) % len(DAY) < length)
