"""DEPLOYMENT.md shows every condition that an owner can set, with values that are valid."""

import re
import tomllib
from pathlib import Path

import msgspec

from device_agent.settings import ConditionSettings

PAGE = (Path(__file__).resolve().parents[2] / "DEPLOYMENT.md").read_text(encoding="utf-8")


def test_the_conditions_on_the_page_are_all_that_there_are() -> None:
    (block,) = re.findall(r"```toml\n(\[conditions\]\n.*?)```", PAGE, re.DOTALL)
    table = tomllib.loads(block)["conditions"]
    assert msgspec.convert(table, ConditionSettings).windows == ("22:00-06:00",)
    assert sorted(table) == sorted(ConditionSettings.__struct_fields__)
