"""What an agent keeps on disk, and what it knows of its device: memory, bundles, conditions."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from device_agent.artifacts import KEPT, ArtifactCache
from device_agent.conditions import Conditions, read_conditions
from device_agent.memory import FILE, AgentMemory, DamagedStateError
from device_agent.settings import ConditionSettings
from protocol.ids import ORIGIN, Order

# Memory.


def test_starts_are_counted_and_rounds_remembered_over_restarts(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path / "state")
    assert (memory.boot, memory.seen) == (0, ORIGIN)
    memory.begin()
    memory.remember(Order(1, 1, 7))
    again = AgentMemory(tmp_path / "state")
    again.begin()
    assert (again.boot, again.seen) == (2, Order(1, 1, 7))


def test_an_older_round_does_not_make_it_forget_the_newest(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path)
    memory.remember(Order(1, 2, 3))
    memory.remember(Order(1, 1, 9))
    assert AgentMemory(tmp_path).seen == Order(1, 2, 3)


@pytest.mark.parametrize("content", [b"", b"{", b'{"boot":-1,"seen":[1,1]}', b'{"boots":1}', b"\xff"])
def test_a_damaged_memory_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DamagedStateError, match=r"agent.json is damaged .*; restore it"):
        AgentMemory(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_round_that_cannot_be_remembered_is_not_entered(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path)
    (tmp_path / f".{FILE}.new").mkdir()  # where the new record would be written
    with pytest.raises(OSError, match="directory"):
        memory.remember(Order(1, 1, 1))
    assert memory.seen == ORIGIN


# Bundles.


def test_a_bundle_is_kept_by_its_hash(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "bundles")
    assert cache.get(sha256(b"bundle").digest()) is None
    cache.put(b"bundle")
    assert ArtifactCache(tmp_path / "bundles").get(sha256(b"bundle").digest()) == b"bundle"


def test_a_damaged_bundle_is_as_good_as_none(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    cache.put(b"bundle")
    (tmp_path / sha256(b"bundle").hexdigest()).write_bytes(b"bungle")
    assert cache.get(sha256(b"bundle").digest()) is None
    cache.put(b"bundle")
    assert cache.get(sha256(b"bundle").digest()) == b"bundle"


def test_the_oldest_bundles_go(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    contents = [bytes([number]) for number in range(KEPT + 2)]
    for age, content in enumerate(contents):
        cache.put(content)
        os.utime(tmp_path / sha256(content).hexdigest(), (age, age))
    cache.put(b"newest")
    kept = [content for content in contents if cache.get(sha256(content).digest())]
    assert kept == contents[-(KEPT - 1) :]
    assert cache.get(sha256(b"newest").digest()) == b"newest"


# Conditions.


def supplies(folder: Path, **kinds: dict[str, str]) -> Path:
    """A kernel's folder of power supplies."""
    for name, files in kinds.items():
        (folder / name).mkdir()
        for file, content in files.items():
            (folder / name / file).write_text(content + "\n")
    return folder


BATTERY = {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("kinds", "charging"),
    [
        ({}, True),  # a board on mains shows no supply at all
        ({"BAT0": BATTERY}, False),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Not charging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Unknown"}}, False),
        ({"BAT0": {"type": "Battery"}}, False),
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": BATTERY}, True),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": BATTERY}, False),
        ({"BAT0": {"type": "Battery", "status": "Full"}, "BAT1": BATTERY}, False),
    ],
)
def test_charging_is_what_the_power_supply_says(
    tmp_path: Path,
    kinds: dict[str, dict[str, str]],
    charging: bool,  # noqa: FBT001
) -> None:
    assert read_conditions(ConditionSettings(), supplies(tmp_path, **kinds)).charging is charging


def test_the_operators_word_outranks_the_power_supply(tmp_path: Path) -> None:
    folder = supplies(tmp_path, BAT0=BATTERY)
    assert read_conditions(ConditionSettings(charging=True), folder).charging
    assert not read_conditions(ConditionSettings(charging=False), tmp_path / "none").charging


def test_an_unknown_network_counts_as_metered(tmp_path: Path) -> None:
    assert not read_conditions(ConditionSettings(), tmp_path).unmetered
    assert not read_conditions(ConditionSettings(unmetered=False), tmp_path).unmetered
    assert read_conditions(ConditionSettings(unmetered=True), tmp_path).unmetered


def test_idle_is_a_load_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert read_conditions(ConditionSettings(), tmp_path).idle
    assert read_conditions(ConditionSettings(idle_load=0.8), tmp_path).idle
    assert not read_conditions(ConditionSettings(idle_load=0.75), tmp_path).idle


def test_what_is_missing_is_said_in_words() -> None:
    assert Conditions(idle=True, charging=True, unmetered=True).why == ""
    assert Conditions(idle=False, charging=False, unmetered=True).why == "busy, on battery"
    assert Conditions(idle=True, charging=True, unmetered=False).why == "network may be metered"
