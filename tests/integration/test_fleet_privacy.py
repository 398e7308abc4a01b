"""Runs with differential privacy, as processes on a real broker: what is said, kept, and what ends them."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from real_fleet import RealFleet
from real_puppets import Puppet
from tiny_plan import plan_text

from console.ledger import Statement
from coordinator.state import JOURNAL_FILE
from device_agent.ledger import FILE, Charge
from device_agent.memory import AgentMemory
from device_agent.settings import PrivacySettings
from privacy.accounting import epsilon, rho_for, rho_of
from privacy.adaptive_clipping import ClipRule
from protocol.ids import DeviceId, Order
from protocol.messages import FromDevice, Reveal, UploadOffer
from protocol.status import RoundStatus

pytestmark = pytest.mark.broker

NAMES = ("d1", "d2", "d3", "d4", "d5")
DELTA = 1e-6
WEAK = 0.05
"""A noise multiplier that promises nothing, and lets five devices learn."""


def private(mode: str = "distributed", *, multiplier: float = WEAK, clip: float = 2.0, more: str = "") -> str:
    """The tables of a plan with noise."""
    return f"""
[secure_aggregation]
clip = {clip}
[privacy]
mode = "{mode}"
noise_multiplier = {multiplier}
delta = {DELTA}
{more}
"""


@asynccontextmanager
async def puppets(fleet: RealFleet, count: int = 5, first: int = 1) -> AsyncIterator[list[Puppet]]:
    async with AsyncExitStack() as stack:
        made = [Puppet(fleet, f"p{number}", number) for number in range(first, first + count)]
        for puppet in made:
            await stack.enter_async_context(puppet)
        yield made


def charges(fleet: RealFleet, name: str) -> tuple[Charge, ...]:
    """What a device's disk holds, as a bystander may read it at any time."""
    return AgentMemory(fleet.folder / name / "state").ledger.charges


def accounts(fleet: RealFleet) -> dict[str, tuple[float, int]]:
    """The coordinator's: rho and rounds of each device."""
    file = f"file:{fleet.coordinator_state / JOURNAL_FILE}?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as journal:
        rows = journal.execute("SELECT device, rho, rounds FROM accounts").fetchall()
    return {device: (rho, rounds) for device, rho, rounds in rows}


async def ledger_command(fleet: RealFleet, name: str) -> Statement:
    """What `fedfleet agent ledger` says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "console", "agent", "ledger", "--json",
        "--state", str(fleet.folder / name / "state"),
        stdout=asyncio.subprocess.PIPE, cwd=fleet.folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("FEDFLEET_")},
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0
    return msgspec.json.decode(said, type=Statement)


# What is said and kept.


async def test_five_agents_learn_and_both_sides_keep_their_accounts(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=3, tables=private())) as fleet:
        await fleet.start_coordinator(start_when=5, EVALUATION__DATA=str(tmp_path / "judge.npz"))
        agents = await fleet.start_agents(*NAMES)
        await fleet.sees_coordinator("finished", why="3 rounds are committed")

        results = fleet.results()
        assert fleet.written_results() == results
        assert [(one.result, one.survivors, one.privacy) for one in results] == [
            ("committed", 5, "distributed")
        ] * 3
        assert {(one.delta, one.clip) for one in results} == {(DELTA, 2.0)}
        assert (results[-1].evaluated_accuracy or 0.0) > 0.9
        rounds = [status for _, status in fleet.watch.history if isinstance(status, RoundStatus)]
        assert {status.privacy for status in rounds} == {"distributed"}

        # By the devices' count three of five noises are certain; by the coordinator's there were four.
        kept = accounts(fleet)
        assert kept.keys() == set(NAMES)
        assert {count for _, count in kept.values()} == {3}
        for name in NAMES:
            paid = charges(fleet, name)
            assert [(one.order, one.mode) for one in paid] == [
                (Order(1, 1, number), "distributed") for number in (1, 2, 3)
            ]
            assert [one.rho for one in paid] == pytest.approx([rho_of(WEAK)] * 3, rel=1e-6)
            assert kept[name][0] == pytest.approx(sum(one.rho for one in paid) * 3 / 4, rel=1e-6)
        spent = max(rho for rho, _ in kept.values())
        assert [one.epsilon for one in results] == pytest.approx(
            [epsilon(spent * number / 3, DELTA) for number in (1, 2, 3)], rel=1e-9
        )

        told = await ledger_command(fleet, "d1")  # while the agent runs
        assert [(one.order, one.mode, one.rho) for one in told.entries] == [
            (one.order, one.mode, one.rho) for one in charges(fleet, "d1")
        ]
        assert told.epsilon > (results[-1].epsilon or 0.0)
        for agent in agents.values():
            assert await agent.terminate() == 0


async def test_an_agent_whose_ledger_was_turned_back_does_not_start_and_says_why(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=2, tables=private())) as fleet:
        ledger = tmp_path / "d1" / "state" / FILE
        coordinator = await fleet.start_coordinator(start_when=3)
        agents = await fleet.start_agents("d1")
        async with puppets(fleet, 2):
            await fleet.sees_coordinator("finished", why="2 rounds are committed")
            assert await coordinator.ended() == 0
            assert await agents["d1"].terminate() == 0
            first, _ = ledger.read_bytes().splitlines(keepends=True)
            ledger.write_bytes(first)
            again = await fleet.start_agents("d1")
            assert await again["d1"].ended() != 0
        why = again["d1"].log.read_text().splitlines()[-1]
        assert f"{ledger} is damaged: it holds 1 charges, and 2 charges are on record" in why
        assert ledger.read_bytes() == first


@pytest.mark.parametrize("mode", ["central", "distributed"])
async def test_who_adds_the_noise_is_said_and_the_mean_is_as_noisy_as_planned(
    tmp_path: Path, mode: str
) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1, tables=private(mode))) as fleet:
        await fleet.start_coordinator(start_when=3)
        async with puppets(fleet, 3) as devices:
            await fleet.sees_coordinator("finished", why="1 rounds are committed")
            (result,) = fleet.results()
            assert (result.result, result.privacy, result.clipped is None) == ("committed", mode, False)
            assert result.epsilon == pytest.approx(epsilon(rho_of(WEAK), DELTA), rel=1e-5)
            assert {one.mode for device in devices for one in charges(fleet, device.name)} == {mode}
            # All weigh the same; 15 coordinates with noise of 0.05 * 2 / 3 each, six deviations of it.
            moved = fleet.kept().vector - devices[0].worker.received[0]
            mean = np.mean([device.worker.delta() for device in devices], axis=0)
            assert 0 < np.abs(moved - mean).max() < 6 * WEAK * 2.0 / 3


# What ends a run, and who stays away.


async def test_the_run_ends_when_its_budget_is_spent(tmp_path: Path) -> None:
    spaced = f"""
[privacy]
mode = "distributed"
target_epsilon = 8.0
delta = {DELTA}
spacing = 3
"""
    async with RealFleet(tmp_path, plan=plan_text(rounds=3, tables=spaced)) as fleet:
        coordinator = await fleet.start_coordinator(start_when=3)
        async with puppets(fleet, 3) as devices:
            # Each may take part once in three rounds, and that once costs all of it.
            ended = await fleet.sees_coordinator("finished")
            assert ended.why == (
                "the privacy budget is spent: 0 of 3 known devices have enough left for a round; "
                "the plan wants 3"
            )
            assert await coordinator.ended() == 0
            (result,) = fleet.results()
            assert result.result == "committed"
            assert result.epsilon is not None
            assert 7.99 < result.epsilon <= 8.0
            assert all(len(charges(fleet, device.name)) == 1 for device in devices)


async def test_who_has_too_few_examples_contributes_zeros_and_nobody_can_tell(tmp_path: Path) -> None:
    picky = private() + "[selection.eligibility]\nmin_examples = 1000\n"
    async with RealFleet(tmp_path, plan=plan_text(rounds=1, tables=picky)) as fleet:
        await fleet.start_coordinator(start_when=3)
        async with puppets(fleet, 3) as devices:
            await fleet.sees_coordinator("finished")
            (result,) = fleet.results()
            assert (result.result, result.survivors) == ("committed", 3)
            assert all(puppet.worker.examples < 1000 for puppet in devices)
            # A device that says nothing of itself tells the middle of every range.
            assert (result.accuracy or 0.0) == pytest.approx(0.5, abs=0.2)


async def test_a_plan_that_no_round_can_be_private_by_ends_the_run_and_says_what_to_change(
    tmp_path: Path,
) -> None:
    async with RealFleet(tmp_path, plan=plan_text(tables=private(multiplier=1e4))) as fleet:
        coordinator = await fleet.start_coordinator(start_when=3)
        async with puppets(fleet, 3):
            offline = await fleet.sees_coordinator("offline")
            assert offline.why.startswith("a round of 3 devices is not possible: 16 bits at 15 parameters")
            assert await coordinator.ended() == 2
            assert fleet.results() == []


async def test_a_device_that_has_spent_its_own_budget_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    poor = PrivacySettings("distributed", epsilon(1.5 * rho_of(WEAK), DELTA), DELTA)
    async with RealFleet(tmp_path, plan=plan_text(rounds=3, tables=private())) as fleet:
        await fleet.start_coordinator(start_when=4)
        async with puppets(fleet, 3) as devices, Puppet(fleet, "poor", 9, privacy=poor):
            await fleet.sees_coordinator("finished", why="3 rounds are committed")
            await fleet.sees_device(
                "poor", "idle", why="declined: the privacy budget of this device is spent"
            )
            assert [one.survivors for one in fleet.results()] == [4, 3, 3]
            assert len(charges(fleet, "poor")) == 1
            assert all(len(charges(fleet, device.name)) == 3 for device in devices)
            assert {name: count for name, (_, count) in accounts(fleet).items()} == {
                "p1": 3, "p2": 3, "p3": 3, "poor": 1,
            }  # fmt: skip


# Whoever is killed.


async def test_an_agent_killed_in_its_upload_has_paid_for_it(tmp_path: Path) -> None:
    # 100,000 parameters for each class are three chunks, of which the victim sends one every four seconds.
    plan = plan_text(rounds=1, features=100_000, tables=private(multiplier=1.0))
    async with RealFleet(tmp_path, plan=plan) as fleet:
        fleet.enrol("victim", features=100_000)
        await fleet.start_coordinator(start_when=5)
        victim = (await fleet.start_agents("victim", UPLOAD_BYTES_PER_SECOND="65536"))["victim"]
        await fleet.sees_coordinator("online", devices=1)
        async with puppets(fleet, 4):
            await fleet.hears(fleet.topics.upload("main", DeviceId("victim")))
            await victim.kill()
            await fleet.sees_coordinator("finished", why="1 rounds are committed")
        (result,) = fleet.results()
        assert (result.survivors, result.dropouts) == (4, 1)
        assert accounts(fleet).get("victim", (0.0, 0)) == (0.0, 0)
        paid = charges(fleet, "victim")
        assert [one.order for one in paid] == [Order(1, 1, 1)]
        again = await fleet.start_agents("victim")
        await fleet.sees_device("victim", "idle", boot=2)
        assert await again["victim"].terminate() == 0
        assert charges(fleet, "victim") == paid


@pytest.mark.parametrize("held", [UploadOffer, Reveal], ids=["collecting", "recovering"])
async def test_a_coordinator_killed_in_a_round_charges_it_once(
    tmp_path: Path, held: type[FromDevice]
) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1, tables=private())) as fleet:
        coordinator = await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            # Of two devices' reveals the others' secrets need at least one.
            slow = [device.gate for device in devices[:2]]
            for gate in slow:
                gate.hold(held)
            for gate in slow:
                await gate.knocked()
            await coordinator.kill()
            await fleet.sees_coordinator("lost")
            assert accounts(fleet) == {}
            again = await fleet.start_coordinator()
            await fleet.sees_coordinator("online")
            for gate in slow:
                gate.open()
            await fleet.sees_coordinator("finished", epoch=1, why="1 rounds are committed")
            assert await again.ended() == 0
            (result,) = fleet.written_results()
            assert (result.result, result.survivors) == ("committed", 5)
            paid = {device.name: charges(fleet, device.name) for device in devices}
            assert {name: [one.order for one in own] for name, own in paid.items()} == {
                device.name: [Order(1, 1, 1)] for device in devices
            }
            kept = accounts(fleet)
            assert {name: count for name, (_, count) in kept.items()} == dict.fromkeys(paid, 1)
            (rho,) = {rho for rho, _ in kept.values()}
            assert rho == pytest.approx(rho_of(WEAK) * 3 / 4, rel=1e-6)
            assert result.epsilon == epsilon(rho, DELTA)


# The clip and the words.


async def test_the_clip_follows_the_updates_also_over_a_restart(tmp_path: Path) -> None:
    adaptive = private(clip=4.0, more="[privacy.adaptive_clipping]\nquantile = 0.5\nlearning_rate = 0.5")
    rule = ClipRule(0.5, 0.5)
    async with RealFleet(tmp_path, plan=plan_text(rounds=2, tables=adaptive)) as fleet:
        coordinator = await fleet.start_coordinator(start_when=3)
        async with puppets(fleet, 3):
            await fleet.sees_coordinator("finished", why="2 rounds are committed")
            assert await coordinator.ended() == 0
            (tmp_path / "plan.toml").write_text(plan_text(rounds=3, tables=adaptive))
            await fleet.start_coordinator()
            await fleet.sees_coordinator("finished", why="3 rounds are committed")
    results = fleet.written_results()
    assert results[0].clip == 4.0
    for before, after in pairwise(results):
        # Updates have a length of 1, so that hardly anybody is clipped.
        assert before.clip is not None
        assert after.clip == rule.next_clip(before.clip, before.clipped or 0.0)
        assert after.clip < before.clip
    spent = [rho_for(one.epsilon or 0.0, DELTA) for one in results]
    assert spent == pytest.approx([spent[0], 2 * spent[0], 3 * spent[0]], rel=1e-6)


async def test_sixteen_bits_and_a_sketch_without_noise_learn(tmp_path: Path) -> None:
    narrow = "[secure_aggregation]\nbits = 16\nclip = 2.0\nsketch = 0.7"
    async with RealFleet(tmp_path, plan=plan_text(rounds=6, tables=narrow)) as fleet:
        await fleet.start_coordinator(start_when=3, EVALUATION__DATA=str(tmp_path / "judge.npz"))
        await fleet.start_agents("d1", "d2", "d3")
        await fleet.sees_coordinator("finished", why="6 rounds are committed")
        results = fleet.results()
        assert {(one.result, one.survivors, one.privacy, one.epsilon) for one in results} == {
            ("committed", 3, "none", None)
        }
        assert results[0].bytes_up < 15 * 2 + 2 * 40 + 10
        assert (results[-1].evaluated_accuracy or 0.0) > 0.9
        assert not (tmp_path / "d1" / "state" / FILE).exists()
