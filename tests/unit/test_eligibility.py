"""What a device lacks, in the words that the coordinator, the device and the status pages share."""

import pytest
from msgspec.structs import replace

from protocol.eligibility import NEVER, Facts, lacks, missing, while_training
from protocol.plan import Eligibility

GOOD = Facts(
    idle=True,
    charging=True,
    unmetered=True,
    battery=90,
    temperature=40,
    free_memory_mb=500,
    free_disk_mb=5000,
    rested=7200,
    tags=("gpu", "lab"),
    version="0.2.1",
)
STRICT = Eligibility(
    idle=True,
    charging=True,
    unmetered=True,
    min_battery=60,
    max_temperature=70,
    min_free_memory_mb=300,
    min_free_disk_mb=100,
    min_rest=3600,
    tags=("lab",),
    min_version="0.2",
)


def test_a_device_that_is_everything_lacks_nothing() -> None:
    assert missing(GOOD, STRICT) == ""


def test_without_rules_a_device_need_not_know_anything() -> None:
    assert missing(Facts(), Eligibility()) == ""


@pytest.mark.parametrize(
    ("facts", "rules", "reason"),
    [
        ({"idle": False}, {"idle": True}, "busy"),
        ({"idle": None}, {"idle": True}, "load unknown"),
        ({"charging": False}, {"charging": True}, "on battery (needs mains power)"),
        ({"charging": None}, {"charging": True}, "power unknown (needs mains power)"),
        ({"charging": False, "battery": 41}, {"min_battery": 60}, "on battery (41 %, needs 60 %)"),
        ({"charging": False, "battery": 60}, {"min_battery": 60}, ""),
        (
            {"charging": False, "battery": None},
            {"min_battery": 60},
            "on battery (charge unknown, needs 60 %)",
        ),
        ({"charging": None, "battery": 41}, {"min_battery": 60}, "power unknown (41 %, needs 60 %)"),
        ({"charging": True, "battery": 3}, {"min_battery": 60}, ""),
        ({"unmetered": False}, {"unmetered": True}, "network metered"),
        ({"unmetered": None}, {"unmetered": True}, "network may be metered"),
        ({"unmetered": None}, {"unmetered": True, "unknown_network": "unmetered"}, ""),
        ({"unmetered": False}, {"unmetered": True, "unknown_network": "unmetered"}, "network metered"),
        ({"temperature": 81}, {"max_temperature": 70}, "too hot (81 °C, needs at most 70 °C)"),
        ({"temperature": None}, {"max_temperature": 70}, "temperature unknown (needs at most 70 °C)"),
        ({"free_memory_mb": 120}, {"min_free_memory_mb": 300}, "too little memory (120 MB, needs 300 MB)"),
        ({"free_disk_mb": None}, {"min_free_disk_mb": 100}, "disk unknown (needs 100 MB)"),
        ({"rested": 120}, {"min_rest": 3600}, "took part lately (120 s, needs 3600 s)"),
        ({"rested": NEVER}, {"min_rest": NEVER}, ""),
        ({"tags": ("gpu",)}, {"tags": ("lab", "gpu", "roof")}, "without tag lab, without tag roof"),
        ({"version": "0.1.9"}, {"min_version": "0.2"}, "agent too old (0.1.9, needs 0.2)"),
        ({"version": ""}, {"min_version": "0.2"}, "agent's version unknown (needs 0.2)"),
        ({"version": "0.10.0"}, {"min_version": "0.9"}, ""),
        ({"version": "0.2"}, {"min_version": "0.2.0"}, ""),
        ({"version": "1.0.0rc1"}, {"min_version": "1"}, ""),
    ],
)
def test_each_condition_in_words(facts: dict[str, object], rules: dict[str, object], reason: str) -> None:
    assert missing(replace(GOOD, **facts), Eligibility(**rules)) == reason  # type: ignore[arg-type]


def test_what_is_counted_is_the_same_for_every_device() -> None:
    rules = Eligibility(min_battery=60)
    (one,), (other,) = (lacks(Facts(charging=False, battery=charge), rules) for charge in (7, 41))
    assert one.what == other.what == "on battery"


def test_everything_unknown_is_said_at_once() -> None:
    assert [lack.what for lack in lacks(Facts(), STRICT)] == [
        "load unknown",
        "power unknown",
        "network may be metered",
        "temperature unknown",
        "memory unknown",
        "disk unknown",
        "without tag lab",
        "agent's version unknown",
    ]


def test_while_training_only_what_training_does_not_take_counts() -> None:
    busy = replace(GOOD, idle=False, free_memory_mb=1, free_disk_mb=1, rested=0)
    assert missing(busy, while_training(STRICT)) == ""
    unplugged = replace(busy, charging=False, unmetered=False, temperature=90)
    assert [lack.what for lack in lacks(unplugged, while_training(STRICT))] == [
        "on battery",
        "network metered",
        "too hot",
    ]
