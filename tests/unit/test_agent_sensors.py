"""What the agent reads of a machine, from trees of files as kernels have them, and worse ones."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from device_agent.sensors import Readings, read_files

BATTERY = {"type": "Battery", "status": "Discharging", "capacity": "41"}
MAINS = {"type": "Mains", "online": "1"}
PSI = "some avg10={:.2f} avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"
NONSENSE = ["", "\n", "x", "-", "1e999", "٣", "\x00\xff", "9" * 5000, "some avg10=", "MemAvailable: kB"]


class FakeMachine:
    """A tree of files that stands for a machine."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.proc, self.state = folder / "sys", folder / "proc", folder
        self.cores = 4

    def write(self, root: Path, **files: str) -> None:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, errors="surrogateescape")

    def supply(self, name: str, files: Mapping[str, str]) -> None:
        folder = self.sys / "class/power_supply" / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_text(content + "\n")

    def zone(self, number: int, milli: str) -> None:
        folder = self.sys / f"class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "temp").write_text(milli + "\n")

    def read(self) -> Readings:
        return read_files(self.sys, self.proc, self.state, self.cores)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


@pytest.mark.parametrize(
    ("supplies", "charging", "battery"),
    [
        ({}, True, None),  # a board on mains shows no supply at all
        ({"BAT0": BATTERY}, False, 41),
        ({"BAT0": BATTERY | {"status": "Charging"}}, True, 41),
        ({"BAT0": BATTERY | {"status": "Full"}}, True, 41),
        ({"BAT0": BATTERY | {"status": "Not charging"}}, True, 41),
        ({"BAT0": BATTERY | {"status": "Unknown"}}, None, 41),
        ({"BAT0": {"type": "Battery"}}, None, None),
        ({"AC": MAINS, "BAT0": BATTERY}, True, 41),
        ({"AC": MAINS | {"online": "0"}, "BAT0": BATTERY}, False, 41),
        ({"usb": {"type": "USB", "online": "2"}, "BAT0": BATTERY}, True, 41),
        ({"BAT0": BATTERY | {"status": "Full"}, "BAT1": BATTERY | {"capacity": "7"}}, False, 7),
        ({"BAT0": BATTERY | {"online": "1"}}, False, 41),  # a battery that is there, no mains
        ({"mouse": BATTERY | {"scope": "Device", "capacity": "3"}}, True, None),
        ({"BAT0": {"type": "Battery", "energy_now": "30", "energy_full": "40"}}, None, 75),
        ({"BAT0": {"type": "Battery", "charge_now": "1", "charge_full": "0"}}, None, None),
        ({"BAT0": BATTERY | {"capacity": "130"}}, False, None),
    ],
)
def test_power(
    machine: FakeMachine,
    supplies: dict[str, dict[str, str]],
    charging: bool | None,  # noqa: FBT001 - a parameter
    battery: int | None,
) -> None:
    for name, files in supplies.items():
        machine.supply(name, files)
    found = machine.read()
    assert (found.charging, found.battery) == (charging, battery)


def test_load_is_per_core(machine: FakeMachine) -> None:
    machine.write(machine.proc, loadavg="2.00 1.00 0.50 1/200 4242\n")
    assert machine.read().load == 0.5


def test_pressure_is_the_worse_of_processor_and_memory(machine: FakeMachine) -> None:
    machine.write(machine.proc, **{"pressure/cpu": PSI.format(12.5)})
    assert machine.read().pressure == 12.5
    machine.write(machine.proc, **{"pressure/memory": PSI.format(40.0)})
    assert machine.read().pressure == 40.0


def test_temperature_is_of_the_hottest_zone_that_can_be_true(machine: FakeMachine) -> None:
    for number, milli in enumerate(["45000", "61499", "-274000", "200000", "x"]):
        machine.zone(number, milli)
    assert machine.read().temperature == 61


def test_free_memory_and_disk(machine: FakeMachine) -> None:
    machine.write(machine.proc, meminfo="MemTotal:  1000000 kB\nMemAvailable:     512000 kB\n")
    assert machine.read().free_memory_mb == 500
    room = os.statvfs(machine.state)
    assert machine.read().free_disk_mb == pytest.approx(
        room.f_bavail * room.f_frsize / 2**20, rel=0.1, abs=64
    )


def test_a_machine_that_tells_nothing(machine: FakeMachine) -> None:
    machine.state = machine.state / "not there"
    assert machine.read() == Readings(charging=True)  # no battery is known


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_is_not_known_and_never_an_error(machine: FakeMachine, nonsense: str) -> None:
    machine.write(
        machine.proc,
        **dict.fromkeys(("loadavg", "meminfo", "pressure/cpu", "pressure/memory"), nonsense),
    )
    machine.write(
        machine.sys / "class/power_supply/BAT0",
        type="Battery",
        status=nonsense,
        capacity=nonsense,
        online=nonsense,
    )
    machine.write(machine.sys / "class/thermal/thermal_zone0", temp=nonsense)
    found = machine.read()
    assert (found.charging, found.battery, found.load, found.pressure) == (None, None, None, None)
    assert (found.temperature, found.free_memory_mb) == (None, None)


def test_files_that_are_folders_or_closed_are_not_known(machine: FakeMachine) -> None:
    (machine.proc / "loadavg").mkdir(parents=True)
    machine.zone(0, "40000")
    (machine.sys / "class/thermal/thermal_zone0/temp").unlink()
    (machine.sys / "class/thermal/thermal_zone0/temp").symlink_to("temp")
    (machine.sys / "class/power_supply").write_text("no folder")
    assert (machine.read().load, machine.read().temperature) == (None, None)


def test_this_machine_can_be_read() -> None:
    found = read_files(Path("/sys"), Path("/proc"), Path("/"), os.cpu_count() or 1)
    assert found.load is None or found.load >= 0
    assert found.battery is None or 0 <= found.battery <= 100
