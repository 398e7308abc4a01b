"""What the doctor says of a machine: its versions, folders, data and policies."""

import os
from pathlib import Path

import numpy as np
import pytest
from examined import (
    MACHINE,
    VERSIONS,
    authority,
    changed,
    coordinator,
    device,
    installed,
    only,
    registrar,
    registrar_of,
    results,
    worst,
)

import models.installed
from console.demo_files import bundled_plan
from console.doctor import conditions, machine, policies, storage
from device_agent.sensors import Readings
from device_agent.settings import ConditionSettings, Floors, PrivacySettings
from models.datasets.source import NpzSource


def test_a_healthy_machine(tmp_path: Path) -> None:
    patient = device(tmp_path)
    for check in (
        machine.python,
        machine.packages,
        machine.synchronised,
        machine.rights,
        machine.environment,
    ):
        assert results(check(patient)) == ["ok"]


def test_an_old_python(tmp_path: Path) -> None:
    found = worst(machine.python(device(tmp_path, python=(3, 9))))
    assert (found.result, found.cause) == ("failure", "Python 3.9")
    assert "3.11" in found.fix


def test_packages_missing_too_new_and_too_old(tmp_path: Path) -> None:
    patient = device(tmp_path, version_of=installed({"numpy": "3.0.1"}))
    missing, new, versions = machine.packages(patient)
    assert (missing.result, missing.cause) == ("failure", "paho-mqtt is not installed")
    assert missing.fix == "install paho-mqtt<2.3,>=2.1 into this environment"
    assert (new.result, new.cause.split(" is ")[0]) == ("warning", "numpy 3.0.1")
    assert versions.cause == "numpy 3.0.1"
    old = changed(patient, version_of=installed(VERSIONS | {"numpy": "1.26.4"}))
    assert results(machine.packages(old)) == ["warning", "ok"]


def test_no_engine_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = device(tmp_path)
    assert only(machine.engine(patient)).cause in {"ort-graph", "ort-graph, ort-training"}
    monkeypatch.setattr(models.installed, "find_spec", lambda _name: None)
    found = worst(machine.engine(patient))
    assert found.result == "failure"
    assert "not installed" in found.cause
    assert "pip install" in found.fix


@pytest.mark.parametrize("known", [False, None])
def test_a_clock_that_nobody_keeps(tmp_path: Path, known: bool | None) -> None:  # noqa: FBT001 - a parameter
    found = worst(machine.synchronised(device(tmp_path, synchronised=known)))
    assert found.result == "warning"
    assert "NTP" in found.fix


def test_root_and_a_password_in_the_environment(tmp_path: Path) -> None:
    patient = device(tmp_path, root=True, environment={"FEDFLEET_BROKER__PASSWORD": "s3cret"})
    assert "user of its own" in worst(machine.rights(patient)).fix
    found = worst(machine.environment(patient))
    assert found.fix.endswith("FEDFLEET_BROKER__PASSWORD_FILE")
    assert "s3cret" not in str(found)


# State.


def test_a_state_folder_to_be_made_and_one_that_is_there(tmp_path: Path) -> None:
    patient = device(tmp_path)
    assert "made at the first start" in only(storage.folder(patient)).cause
    patient.settings.state.mkdir(parents=True)
    assert "synced" in only(storage.folder(patient)).cause
    assert [*patient.settings.state.iterdir()] == []


def test_a_state_folder_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = device(tmp_path, state=tmp_path / "data.npz" / "state")
    assert worst(storage.folder(changed(patient, state=tmp_path / "data.npz"))).result == "failure"
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = worst(storage.folder(changed(patient, state=tmp_path / "new")))
    assert "no right to write" in found.cause
    assert str(tmp_path / "new") in found.fix


@pytest.mark.parametrize(
    ("kind", "result"),
    [("ext4", "ok"), ("tmpfs", "failure"), ("overlay", "warning"), ("nfs4", "warning"), ("btrfs", "ok")],
)
def test_the_file_system_of_the_state(tmp_path: Path, kind: str, result: str) -> None:
    mounts = f"{MACHINE.mounts}x {tmp_path} {kind} rw 0 0\nx /nowhere tmpfs rw 0 0\n"
    assert only(storage.file_system(device(tmp_path, mounts=mounts))).result == result


def test_a_mount_with_a_space_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    mounts = f"{MACHINE.mounts}x {tmp_path}/a\\040b tmpfs rw 0 0\n"
    assert worst(storage.file_system(device(tmp_path, mounts=mounts, state=folder / "s"))).result == "failure"


def test_room_on_the_disk(tmp_path: Path) -> None:
    patient = device(tmp_path)
    for free, result in ((10**9, "ok"), (10**8, "warning"), (10**6, "failure")):
        full = changed(patient, free=lambda _, free=free: free)
        assert only(storage.room_of_agent(full)).result == result
    _, identity = registrar_of(authority())
    assert only(storage.room(registrar(tmp_path, identity, free=lambda _: 10**6))).result == "failure"


def test_a_coordinators_room_follows_its_plan(tmp_path: Path) -> None:
    patient = coordinator(tmp_path, bundled_plan())
    assert only(storage.room_of_coordinator(patient)).result == "ok"
    tight = changed(patient, free=lambda _: storage.LITTLE + 1)
    assert "67.6 MB" in worst(storage.room_of_coordinator(tight)).fix


# Data and plan.


def test_a_devices_data(tmp_path: Path) -> None:
    patient = device(tmp_path)
    assert only(storage.data(patient)).cause == "8 examples of shape (3,), 2 held out"
    gone = changed(patient, data=NpzSource(tmp_path / "gone.npz"))
    assert "no such file" in worst(storage.data(gone)).cause
    np.savez(tmp_path / "data.npz", images=np.zeros((10, 3)))
    found = worst(storage.data(patient))
    assert "no array 'x'" in found.cause
    assert "numpy.savez" in found.fix


def test_a_coordinators_plan(tmp_path: Path) -> None:
    patient = coordinator(tmp_path, bundled_plan())
    assert only(storage.plan(patient)).cause == "3,207 parameters, cohorts of 5"
    assert only(storage.evaluation(patient)).cause == "none: the devices judge"
    wrong = coordinator(tmp_path, "rounds = 3")
    assert worst(storage.plan(wrong)).result == "failure"
    assert [*storage.room_of_coordinator(wrong)] == []
    assert [*policies.plan_floors(wrong)] == []


# Policies.


def test_a_device_that_insists_on_little(tmp_path: Path) -> None:
    lax = device(tmp_path, floors=Floors(min_cohort=3))
    assert results(policies.floors(lax)) == ["ok", "warning", "warning", "warning"]
    fixes = [one.fix.split()[1].strip(",") for one in policies.floors(lax) if one.fix]
    assert fixes == ["floors.min_cohort", "floors.min_enrolled_age", "privacy.weakest"]
    strict = changed(
        lax, floors=Floors(min_enrolled_age=86_400.0), privacy=PrivacySettings("distributed", epsilon=8.0)
    )
    assert results(policies.floors(strict)) == ["ok"]


def test_a_plan_that_promises_little(tmp_path: Path) -> None:
    found = [*policies.plan_floors(coordinator(tmp_path, bundled_plan()))]
    assert results(found) == ["ok", "warning"]
    assert "privacy.mode" in worst(found).fix


def test_whether_a_device_would_take_part_now(tmp_path: Path) -> None:
    patient = device(tmp_path)
    awake = only(conditions.conditions(patient))
    assert awake.cause == "it would take part now: mains power, 100 % charged, unmetered network, 40 °C"
    blind = only(conditions.conditions(changed(patient, readings=lambda _: Readings())))
    assert blind.cause == "it would take part now: power unknown, network unknown, temperature unknown"
    strict = changed(patient, conditions=ConditionSettings(max_temperature=30))
    asleep = worst(conditions.conditions(strict))
    assert asleep.result == "warning"
    assert asleep.cause == "this device would sleep now: too hot (40 °C, needs at most 30 °C)"
