"""Which numbers the next round may have, where devices rest."""

import pytest

from coordinator.ledger import Account, PrivacyLedger
from coordinator.privacy_rules import limits_of, next_rounds
from protocol.ids import DeviceId
from protocol.plan import Model, Plan, Privacy

TAKEN_PART = PrivacyLedger(
    {
        DeviceId("d1"): Account(1.0, 3, last=7),
        DeviceId("d2"): Account(1.0, 2, last=9),
        DeviceId("d3"): Account(1.0, 1, last=9),
    }
)


@pytest.mark.parametrize(
    ("spacing", "numbers"),
    [(1, [10]), (2, [10, 11]), (3, [10, 12]), (50, [10, 57, 59]), (10_000, [10, 10_007, 10_009])],
)
def test_numbers_are_left_out_up_to_where_somebody_has_rested(spacing: int, numbers: list[int]) -> None:
    privacy = Privacy(mode="distributed", target_epsilon=4.0, spacing=spacing)
    limits = limits_of(Plan(model=Model(), privacy=privacy), TAKEN_PART, 10)

    assert next_rounds(limits) == numbers


def test_without_privacy_rounds_follow_one_another() -> None:
    assert next_rounds(limits_of(Plan(model=Model()), TAKEN_PART, 10)) == [10]
