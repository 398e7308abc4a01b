"""When an agent is killed: its shares are out, its update is not yet in."""

import pytest

from console.fleet_view import FleetView
from console.kill_policy import FIRST_ROUND, Kill, is_moment, schedule
from protocol.ids import DeviceId
from protocol.status import DeviceState, DeviceStatus, RoundStatus

DEVICES = [DeviceId(f"d{number}") for number in range(10)]
VICTIM = Kill(DeviceId("d1"), 3)


def seen(number: int, phase: str, state: DeviceState = "idle") -> FleetView:
    return FleetView(
        round=RoundStatus(number, phase, 10, 10, 10, 10, 0, 0, 0, 5, 30.0),
        devices={VICTIM.device: DeviceStatus(state, boot=1)},
    )


def test_it_is_killed_while_it_uploads_in_its_round() -> None:
    assert is_moment(VICTIM, seen(3, "collecting", "uploading"), 0)


@pytest.mark.parametrize(
    "view",
    [
        FleetView(),
        seen(2, "collecting", "uploading"),
        seen(3, "sharing", "uploading"),
        seen(3, "collecting", "training"),
        seen(3, "confirming", "uploading"),
    ],
    ids=["nothing heard", "too early a round", "shares not out", "not uploading", "upload done"],
)
def test_any_other_moment_in_its_round_is_wrong(view: FleetView) -> None:
    assert not is_moment(VICTIM, view, 0)


@pytest.mark.parametrize("phase", ["collecting", "confirming", "recovering"])
def test_a_missed_round_is_made_up_for_whatever_the_device_says(phase: str) -> None:
    assert is_moment(VICTIM, seen(4, phase), 0)


@pytest.mark.parametrize("phase", ["inviting", "keying", "sharing", "committing", "committed", "aborted"])
def test_even_then_not_where_no_recovery_would_follow(phase: str) -> None:
    assert not is_moment(VICTIM, seen(4, phase), 0)


def test_no_two_are_killed_in_one_round() -> None:
    assert not is_moment(VICTIM, seen(3, "collecting", "uploading"), 3)
    assert not is_moment(VICTIM, seen(4, "collecting", "uploading"), 4)
    assert is_moment(VICTIM, seen(5, "collecting", "uploading"), 4)


def test_each_victim_has_a_round_of_its_own() -> None:
    kills = schedule(DEVICES, 3, 20, seed=1)
    assert [kill.round for kill in kills] == [FIRST_ROUND, FIRST_ROUND + 1, FIRST_ROUND + 2]
    assert len({kill.device for kill in kills}) == 3


def test_the_same_seed_kills_the_same_devices() -> None:
    assert schedule(DEVICES, 3, 20, seed=5) == schedule(DEVICES, 3, 20, seed=5)
    assert schedule(DEVICES, 3, 20, seed=5) != schedule(DEVICES, 3, 20, seed=6)


@pytest.mark.parametrize(("drop", "rounds", "first"), [(1, 1, 1), (1, 2, 2), (2, 4, 3), (4, 5, 2), (9, 3, 1)])
def test_a_short_run_begins_to_kill_sooner(drop: int, rounds: int, first: int) -> None:
    assert schedule(DEVICES, drop, rounds, seed=1)[0].round == first


def test_no_more_than_all_are_killed() -> None:
    assert len(schedule(DEVICES, 99, 20, seed=1)) == len(DEVICES)
    assert schedule(DEVICES, 0, 20, seed=1) == []
