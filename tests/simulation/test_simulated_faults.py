"""A thousand schedules of faults, all that ever failed, and crashes at steps of reference rounds."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from simulator.campaign import (
    PRIVATE_REFERENCE,
    REFERENCE,
    crash_at_every_step,
    jobs,
    run_all,
    seeds,
    total,
)
from simulator.drawing import schedule_for
from simulator.operations import (
    COORDINATOR,
    Crash,
    Cut,
    DiskFull,
    Malice,
    Noise,
    Private,
    Replay,
    Schedule,
    Slow,
)
from simulator.shrinking import shrink
from simulator.simulation import run_schedule

from device_agent.memory import AgentMemory
from protocol.ids import Order

SEEDS = 1000
CHUNK = 200
WORKERS = 2

REPRODUCTIONS = sorted((Path(__file__).parent / "reproductions").glob("*.json"))

LOGS = """
import sys
from hashlib import sha256
from simulator.drawing import schedule_for
from simulator.simulation import run_schedule
for seed in map(int, sys.argv[1:]):
    print(sha256("\\n".join(run_schedule(schedule_for(seed)).lines()).encode()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_schedule_gives_a_wrong_sum_or_a_stuck_round(first: int) -> None:
    tally = total(run_all(seeds(range(first, first + CHUNK)), workers=WORKERS))
    assert tally.failures == []
    assert tally.committed >= CHUNK


@pytest.mark.parametrize("file", REPRODUCTIONS, ids=lambda file: file.stem)
def test_what_failed_once_fails_no_more(file: Path) -> None:
    assert run_schedule(Schedule.from_json(file.read_bytes())).violation is None


@pytest.mark.parametrize(
    ("actor", "reference", "every"),
    [
        (COORDINATOR, REFERENCE, 30),
        (COORDINATOR, PRIVATE_REFERENCE, 30),
        ("d2", REFERENCE, 12),
        ("d2", PRIVATE_REFERENCE, 6),
    ],
    ids=["coordinator", "coordinator-with-privacy", "device", "device-with-privacy"],
)
def test_a_crash_before_any_step_of_a_round_does_no_harm(actor: str, reference: Schedule, every: int) -> None:
    tally = total(run_all(jobs(crash_at_every_step(actor, reference, every=every))))
    assert tally.failures == []


def test_a_seed_gives_the_same_log_in_every_process() -> None:
    chosen = (3, 17, 20)
    here = [
        sha256("\n".join(run_schedule(schedule_for(seed)).lines()).encode()).hexdigest() for seed in chosen
    ]
    there = subprocess.run(
        [sys.executable, "-c", LOGS, *map(str, chosen)],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


def test_remembered_signatures_change_nothing() -> None:
    real, remembered = (run_schedule(schedule_for(20), real_crypto=real) for real in (True, False))
    assert list(real.lines()) == list(remembered.lines())


def test_a_quiet_round_commits_with_everybody() -> None:
    outcome = run_schedule(Schedule(seed=1, devices=7))
    assert outcome.violation is None
    assert (outcome.committed, outcome.aborted, outcome.faults) == (1, 0, 0)


@pytest.mark.parametrize("mode", ["distributed", "central", "none"])
def test_a_quiet_round_with_small_words_commits_with_everybody(mode: Any) -> None:
    outcome = run_schedule(Schedule(seed=1, devices=7, privacy=Private(mode=mode, sketch=0.75)))
    assert outcome.violation is None
    assert (outcome.committed, outcome.aborted) == (1, 0)


def test_an_update_that_is_not_a_number_counts_as_zeros_under_noise() -> None:
    malice = Malice(start=0.0, seconds=30.0, device="d2", kind="not_finite")
    outcome = run_schedule(Schedule(seed=1, training=4.0, privacy=Private(), operations=(malice,)))
    assert outcome.violation is None
    assert any("publishes d2" in line and "/uploads/" in line for line in outcome.lines())


def test_a_device_whose_disk_refuses_the_charge_uploads_nothing() -> None:
    full = DiskFull(start=7.0, seconds=8.0, actor="d2")  # it has remembered the round, and trains
    schedule = Schedule(seed=1, training=4.0, privacy=Private(), operations=(full,))
    refused: list[Order] = []
    charge = AgentMemory.charge

    def watched(memory: AgentMemory, order: Order, *cost: Any) -> None:
        try:
            charge(memory, order, *cost)
        except OSError:
            refused.append(order)
            raise

    with mock.patch.object(AgentMemory, "charge", watched):
        outcome = run_schedule(schedule)
    assert outcome.violation is None
    assert refused == [Order(1, 1, 1)]
    assert not any("publishes d2" in line and "/uploads/" in line for line in outcome.lines())


def test_a_run_ends_when_too_few_can_pay_for_a_round() -> None:
    late = Slow(start=200.0, device="d1", by=0.0)
    schedule = Schedule(seed=1, devices=4, privacy=Private(spacing=2, rounds=2), operations=(late,))
    outcome = run_schedule(schedule)
    assert outcome.violation is None
    assert outcome.committed == 1


def test_a_schedule_survives_its_file() -> None:
    schedule = schedule_for(17)
    assert Schedule.from_json(schedule.to_json()) == schedule


def test_a_device_that_forgets_the_round_it_entered_is_seen() -> None:
    crash = Crash(start=12.1, seconds=0.5, actor="d2")  # it has shown its keys; others still train
    again = Replay(start=16.0, client="d2", count=30)
    slow = Slow(start=0.0, seconds=20.0, device="d3", by=25.0)
    schedule = Schedule(seed=46, devices=7, latency=0.01, training=10.0, operations=(crash, again, slow))
    assert run_schedule(schedule).violation is None
    with mock.patch("device_agent.memory.AgentMemory.remember"):
        outcome = run_schedule(schedule)
    assert outcome.violation is not None
    assert outcome.violation.invariant == "I2"


def test_a_decision_that_leaves_before_it_is_durable_is_seen() -> None:
    async def forgets(_: object) -> None: ...

    with mock.patch("coordinator.round_journal.JournaledRound.flushed", forgets):
        outcome = run_schedule(Schedule(seed=1))
    assert outcome.violation is not None
    assert outcome.violation.invariant == "I3"


def test_what_does_not_matter_is_left_out_of_a_failure() -> None:
    noise = Noise(start=1.0, kind="drop")
    cut = Cut(start=2.0, client="d1")
    crash = Crash(start=3.0, actor="d2")
    schedule = Schedule(seed=0, operations=(noise, cut, noise, noise, crash, noise))
    shrunk = shrink(schedule, lambda some: cut in some.operations and crash in some.operations)
    assert shrunk.operations == (cut, crash)
