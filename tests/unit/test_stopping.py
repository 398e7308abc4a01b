"""When a run ends."""

import pytest

from coordinator.stopping import Outcome, reason_to_stop, without_last_aborts
from protocol.plan import Stopping


def accuracies(*values: float | None) -> list[Outcome]:
    return [Outcome(committed=True, accuracy=value) for value in values]


def losses(*values: float) -> list[Outcome]:
    return [Outcome(committed=True, loss=value) for value in values]


ABORTED = Outcome(committed=False)


def test_a_run_goes_on_until_something_says_stop() -> None:
    assert reason_to_stop(Stopping(rounds=3), [], 0.0) == ""
    assert reason_to_stop(Stopping(rounds=3), [*accuracies(0.1, 0.2), ABORTED], 9.0) == ""


def test_only_committed_rounds_count() -> None:
    history = [ABORTED, *accuracies(0.1), ABORTED, *accuracies(0.2)]
    assert reason_to_stop(Stopping(rounds=2), history, 0.0) == "2 rounds are committed"


def test_the_wall_clock_stops() -> None:
    rule = Stopping(wall_clock=60.0)
    assert reason_to_stop(rule, [], 59.9) == ""
    assert reason_to_stop(rule, [], 60.0) == "60 s have passed"


def test_aborted_rounds_in_a_row_stop_and_a_committed_one_starts_anew() -> None:
    rule = Stopping(aborted_in_a_row=2)
    assert reason_to_stop(rule, [ABORTED, *accuracies(0.1), ABORTED], 0.0) == ""
    assert reason_to_stop(rule, [*accuracies(0.1), ABORTED, ABORTED], 0.0) == "2 rounds in a row were aborted"


@pytest.mark.parametrize(
    ("rule", "history", "reason"),
    [
        (Stopping(target=0.9), accuracies(0.5, 0.89), ""),
        (Stopping(target=0.9), accuracies(0.5, 0.9), "accuracy 0.9000 has reached the target 0.9"),
        (Stopping(metric="loss", target=0.2), losses(0.5, 0.21), ""),
        (Stopping(metric="loss", target=0.2), losses(0.5, 0.2), "loss 0.2000 has reached the target 0.2"),
        (Stopping(target=0.9), accuracies(None), ""),
    ],
)
def test_a_target_is_reached_from_its_own_side(rule: Stopping, history: list[Outcome], reason: str) -> None:
    assert reason_to_stop(rule, history, 0.0) == reason


@pytest.mark.parametrize(
    ("metric", "history", "stops"),
    [
        ("accuracy", accuracies(0.1, 0.3, 0.2), False),
        ("accuracy", accuracies(0.1, 0.3, 0.2, 0.3), True),  # as good is no better
        ("accuracy", accuracies(0.1, 0.3, 0.2, 0.31), False),
        ("loss", losses(0.5, 0.4, 0.45, 0.41), True),
        ("loss", losses(0.5, 0.4, 0.45, 0.39), False),
    ],
)
def test_patience_ends_without_improvement(metric: str, history: list[Outcome], stops: bool) -> None:  # noqa: FBT001
    rule = Stopping(metric=metric, patience=2)  # type: ignore[arg-type]
    assert reason_to_stop(rule, history, 0.0) == (f"{metric} has not improved for 2 rounds" if stops else "")


def test_a_restarted_run_forgets_its_last_aborts() -> None:
    history = [ABORTED, *accuracies(0.5), ABORTED, ABORTED]
    assert without_last_aborts(history) == (ABORTED, *accuracies(0.5))
    assert without_last_aborts([ABORTED] * 10) == ()
