"""What a run tells of its cost, who may go on, and which clip is next."""

from pathlib import Path

import numpy as np
import pytest
from hand_clock import HandClock

from coordinator.ledger import PrivacyLedger, Release
from coordinator.privacy_rules import clip_now, limits_of, next_clip, spent_after
from coordinator.server_optimizer import ServerState
from coordinator.state import CoordinatorState
from coordinator.stopping import Outcome
from coordinator.stored import Model, Opening
from privacy.accounting import epsilon
from protocol import plan as plans
from protocol.ids import DeviceId, Order
from protocol.status import RoundResult

NOTHING = np.zeros(0, np.float32)
D1, D2 = DeviceId("d1"), DeviceId("d2")


def plan_of(mode: plans.PrivacyMode = "distributed", **privacy: object) -> plans.Plan:
    noise = {} if mode == "none" else {"noise_multiplier": 2.0}
    table = plans.Privacy(mode, **(noise | privacy))  # type: ignore[arg-type]
    return plans.Plan(plans.Model("mlp"), privacy=table, stopping=plans.Stopping(rounds=4))


def new_state(folder: Path) -> CoordinatorState:
    empty = Model.of(NOTHING, ServerState(NOTHING, NOTHING))
    return CoordinatorState(folder, b"bundle", lambda: empty, HandClock())


async def committed(state: CoordinatorState, number: int, privacy: plans.PrivacyMode) -> None:
    await state.open_round(Order(1, 1, number), Opening(b"", (), 1, 1, 0.0))
    result = RoundResult(number, "committed", privacy=privacy)
    await state.commit(state.model, Outcome(committed=True), result, b"", release=None, clip=None)


async def test_a_run_costs_what_its_dearest_device_has_paid(tmp_path: Path) -> None:
    state = new_state(tmp_path)
    await state.begin()
    told = spent_after(plan_of(), state, Release((D1,), 0.25, (D2,)))
    assert told == {"privacy": "distributed", "epsilon": epsilon(0.25 * (1 + 2**-52), 1e-6), "delta": 1e-6}
    assert spent_after(plan_of("none"), state, None) == {}
    state.close()


async def test_a_sum_without_noise_leaves_no_epsilon_to_tell(tmp_path: Path) -> None:
    state = new_state(tmp_path)
    await state.begin()
    await committed(state, 1, "distributed")
    assert "epsilon" in spent_after(plan_of(), state, None)
    await committed(state, 2, "none")
    assert spent_after(plan_of(), state, None) == {"privacy": "distributed", "delta": 1e-6}
    state.close()

    again = new_state(tmp_path)
    assert "epsilon" not in spent_after(plan_of(), again, None)
    again.close()


def test_without_privacy_nobody_is_limited() -> None:
    assert limits_of(plan_of("none"), PrivacyLedger(), 1).affords(D1)
    ledger = PrivacyLedger().charged(Release((D1,), 100.0), 1)
    assert limits_of(plan_of("none"), ledger, 2).affords(D1)


def test_a_multiplier_pays_for_every_participation_and_no_more() -> None:
    plan, ledger = plan_of(spacing=2), PrivacyLedger()  # two of four rounds
    cost = limits_of(plan, ledger, 1).cost
    ledger = ledger.charged(Release((D1,), cost), 1)
    assert limits_of(plan, ledger, 2).rests(D1)
    assert not limits_of(plan, ledger, 3).rests(D1)
    assert limits_of(plan, ledger, 3).affords(D1)
    assert not limits_of(plan, ledger.charged(Release((D1,), cost), 3), 5).affords(D1)


@pytest.mark.parametrize(("clipped", "grows"), [(1.0, True), (0.0, False)])
def test_a_clip_follows_only_where_the_plan_says_so(*, clipped: float, grows: bool) -> None:
    follows = plan_of(adaptive_clipping=plans.AdaptiveClipping(quantile=0.5))
    later = next_clip(follows, 2.0, clipped)
    assert later is not None
    assert (later > 2.0) is grows
    assert clip_now(follows, later) == later
    assert next_clip(plan_of(), 2.0, clipped) is clip_now(plan_of(), 5.0) is None
