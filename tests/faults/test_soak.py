"""The short form of `scripts/soak`."""

import asyncio

import pytest
from faults.soak import soak

pytestmark = [pytest.mark.broker, pytest.mark.slow]


async def test_whatever_is_killed_no_sum_is_wrong_and_nothing_is_stuck() -> None:
    wrong = list[object]()

    def say(event: str, **more: object) -> None:
        if event == "wrong":
            wrong.append(more["what"])

    found = await soak(0.4, 6, 3, say, asyncio.Event())
    assert wrong == []
    assert found["stuck"] == 0
    assert found["committed"]
    assert found["checked"]
    assert found["kills"]
