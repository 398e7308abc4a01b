"""What an agent may take of a small device's memory, measured on real processes; the report is printed."""

from pathlib import Path

import pytest
from footprints import IDLE_LIMIT, TRAINING_LIMIT, USED_LIMIT, look, table

pytestmark = [pytest.mark.slow, pytest.mark.broker]


async def test_an_agent_fits_a_small_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, rounds, after, ended, anew = moments = await look(tmp_path)
    with capsys.disabled():
        print(f"\n\n{table(moments)}\n")  # noqa: T201 - the report
    assert before.worker is None
    assert before.agent.rss <= IDLE_LIMIT
    assert rounds.worker is not None
    assert rounds.together.rss <= TRAINING_LIMIT
    assert after.agent.rss <= USED_LIMIT
    assert ended.worker is None
    assert anew.agent.rss <= IDLE_LIMIT
