"""Whether a device takes part by its owner's rules, and what it says of itself."""

import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from hand_clock import HandClock
from known_conditions import WELL, Sensed, conditions

from device_agent.conditions import (
    ConditionReader,
    Conditions,
    Sensors,
    judged,
    minute_of_day,
    rested,
    within,
)
from device_agent.memory import AgentMemory
from device_agent.sensors import Readings
from device_agent.settings import ConditionSettings
from protocol.eligibility import NEVER, Facts
from protocol.ids import Order, UnixTime
from protocol.plan import Eligibility

NOON = 12 * 60


def now(settings: ConditionSettings, rest: int = NEVER, minute: int = NOON, **changes: object) -> Conditions:
    readings = replace(WELL, **changes)  # type: ignore[arg-type]
    return judged(settings, readings, rest=rest, minute=minute, agent="0.2.1")


def test_without_rules_nothing_keeps_a_device_awake_or_asleep() -> None:
    assert judged(ConditionSettings(), Readings(), rest=0, minute=NOON, agent="").asleep == ""
    assert now(ConditionSettings()).asleep == ""


def test_what_it_says_of_itself() -> None:
    assert now(ConditionSettings(tags=("lab",), idle_load=0.5), rest=60).facts == Facts(
        idle=True,
        charging=True,
        unmetered=True,
        battery=100,
        temperature=40,
        free_memory_mb=500,
        free_disk_mb=5000,
        rested=60,
        tags=("lab",),
        version="0.2.1",
    )


def test_the_owners_word_outranks_the_sensors() -> None:
    facts = now(ConditionSettings(charging=False, unmetered=False)).facts
    assert (facts.charging, facts.unmetered) == (False, False)
    facts = now(ConditionSettings(charging=True, unmetered=True), charging=False, unmetered=None).facts
    assert (facts.charging, facts.unmetered) == (True, True)


@pytest.mark.parametrize(
    ("settings", "changes", "why"),
    [
        ({"min_battery": 60}, {"charging": False, "battery": 41}, "on battery (41 %, needs 60 %)"),
        ({"requires": ("charging",)}, {"charging": False}, "on battery (needs mains power)"),
        ({"requires": ("unmetered",)}, {"unmetered": None}, "network may be metered"),
        ({"max_temperature": 70}, {"temperature": 81}, "too hot (81 °C, needs at most 70 °C)"),
        ({"min_free_memory_mb": 600}, {}, "too little memory (500 MB, needs 600 MB)"),
        ({"min_free_disk_mb": 6000}, {}, "too little disk (5000 MB, needs 6000 MB)"),
        ({"max_pressure": 10.0}, {"pressure": 42.5}, "under pressure (42 % of the time, needs at most 10 %)"),
        (
            {"max_pressure": 10.0},
            {"pressure": None},
            "under pressure (unknown of the time, needs at most 10 %)",
        ),
        (
            {"idle_load": 0.5, "requires": ("idle",)},
            {"load": 0.934},
            "busy (load per core 0.93, needs below 0.5)",
        ),
        (
            {"idle_load": 0.5, "requires": ("idle",)},
            {"load": None},
            "busy (load per core unknown, needs below 0.5)",
        ),
        ({"idle_load": 0.5}, {"load": 0.9}, ""),  # a plan may ask for idleness, its owner does not
        (
            {"windows": ("22:00-06:00", "11:00-12:00")},
            {},
            "outside its hours (12:00, takes part 22:00-06:00 and 11:00-12:00)",
        ),
        ({"windows": ("11:30-12:01",)}, {}, ""),
    ],
)
def test_why_a_device_sleeps(settings: dict[str, object], changes: dict[str, object], why: str) -> None:
    assert now(ConditionSettings(**settings), **changes).asleep == why  # type: ignore[arg-type]


def test_it_sleeps_until_it_has_rested() -> None:
    settings = ConditionSettings(min_rest=3600)
    assert now(settings, rest=120).asleep == "took part lately (120 s, needs 3600 s)"
    assert now(settings, rest=3600).asleep == ""


def test_what_ends_a_training_is_not_what_training_takes() -> None:
    settings = ConditionSettings(
        idle_load=0.5, requires=("idle", "charging"), max_pressure=1.0, min_free_memory_mb=600, min_rest=9,
        max_temperature=70, windows=("11:00-13:00",),
    )  # fmt: skip
    plan = Eligibility(unmetered=True, idle=True, min_free_disk_mb=9999, max_temperature=60)
    working = now(settings, rest=0, load=2.0, pressure=80.0)
    assert working.asleep
    assert working.ends_training(plan) == ""
    hot = now(settings, rest=0, temperature=65)
    assert hot.ends_training(plan) == "too hot (65 °C, needs at most 60 °C)"
    worse = now(settings, rest=0, minute=13 * 60, charging=False, unmetered=False)
    assert worse.ends_training(plan) == (
        "outside its hours (13:00, takes part 11:00-13:00), on battery (needs mains power), network metered"
    )


def test_what_is_not_as_free_as_a_plan_may_ask_is_said_in_short() -> None:
    assert now(ConditionSettings()).remarks == ""
    told = now(ConditionSettings(idle_load=0.5), load=0.9, charging=False, unmetered=None)
    assert told.remarks == "busy, on battery, network may be metered"


# Time.


def test_rest_is_counted_from_the_last_round() -> None:
    assert rested(None, UnixTime(1e9)) == NEVER
    assert rested(1e9 - 90.7, UnixTime(1e9)) == 90
    assert rested(0.0, UnixTime(2e9)) == NEVER
    assert rested(2e9, UnixTime(1e9)) == NEVER  # a clock was turned back


async def test_rest_goes_on_between_two_looks(tmp_path: Path) -> None:
    memory, clock = AgentMemory(tmp_path), HandClock()
    reader = conditions(memory, clock, ConditionSettings(min_rest=100))
    assert (await reader.look()).asleep == ""
    memory.remember(Order(1, 1, 1), clock.unix())
    assert reader.newest.asleep == "took part lately (0 s, needs 100 s)"
    await clock.pass_time(100.0)
    assert reader.newest.asleep == ""


def test_before_the_first_look_nothing_is_known(tmp_path: Path) -> None:
    reader = conditions(AgentMemory(tmp_path), HandClock(), ConditionSettings(requires=("charging",)))
    assert reader.newest.facts == Facts(idle=True, version=version("fedfleet"))
    assert reader.newest.asleep == "power unknown (needs mains power)"


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("08:00-17:30", ["08:00", "12:00", "17:29"], ["07:59", "17:30", "00:00"]),
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "21:59", "12:00"]),
        ("00:00-00:00", ["00:00", "12:00", "23:59"], []),
    ],
)
def test_windows(window: str, inside: list[str], outside: list[str]) -> None:
    def minute(text: str) -> int:
        return 60 * int(text[:2]) + int(text[3:])

    assert all(within(window, minute(one)) for one in inside)
    assert not any(within(window, minute(one)) for one in outside)


@pytest.mark.parametrize(("zone", "minute"), [("UTC0", 90), ("EST5", 20 * 60 + 30), ("IST-5:30", 7 * 60)])
def test_hours_are_of_the_devices_local_time(zone: str, minute: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        found = minute_of_day(UnixTime(1_700_000_000 // 86_400 * 86_400 + 90 * 60))
    time.tzset()
    assert found == minute


@pytest.mark.parametrize("wrong", ["24:00-06:00", "6-7", "06:00", "06:00-07:00,", "22:00 - 06:00"])
def test_a_window_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"windows": [wrong]}, ConditionSettings)


def test_idleness_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="write idle_load"):
        ConditionSettings(requires=("idle",))


# Reading.


async def test_a_machine_is_read_without_its_network_where_the_owner_has_said_it(tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("1.00 0 0")
    sensors = Sensors(
        tmp_path, ask_network=False, sys=tmp_path, proc=tmp_path, bus=tmp_path / "none", cores=2
    )
    found = await sensors.read()
    assert (found.load, found.unmetered, found.free_disk_mb is None) == (0.5, None, False)


async def test_a_look_sees_what_has_changed(tmp_path: Path) -> None:
    sensed = Sensed()
    reader: ConditionReader = conditions(
        AgentMemory(tmp_path), HandClock(), ConditionSettings(max_temperature=70), sensed
    )
    assert (await reader.look()).asleep == ""
    sensed.readings = replace(WELL, temperature=71)
    assert reader.newest.asleep == ""
    assert (await reader.look()).asleep == "too hot (71 °C, needs at most 70 °C)"
