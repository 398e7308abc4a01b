"""When a run ends: a pure function of the plan's rule and what has happened."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.plan import Stopping


@dataclass(frozen=True)
class Outcome:
    """How one round ended.

    Attributes:
        committed: or aborted.
        accuracy: of the new model where the coordinator evaluates, else of the one the devices received.
        loss: likewise.
    """

    committed: bool
    accuracy: float | None = None
    loss: float | None = None


def reason_to_stop(rule: Stopping, history: Sequence[Outcome], seconds: float) -> str:
    """Why the run ends now, in words; empty while it goes on.

    Args:
        rule: the plan's table.
        history: every round of the run, oldest first.
        seconds: since the run began.
    """
    committed = [outcome for outcome in history if outcome.committed]
    if len(committed) >= rule.rounds:
        return f"{rule.rounds} rounds are committed"
    if rule.wall_clock is not None and seconds >= rule.wall_clock:
        return f"{rule.wall_clock:g} s have passed"
    if _aborted_in_a_row(history) >= rule.aborted_in_a_row:
        return f"{rule.aborted_in_a_row} rounds in a row were aborted"
    return _metric_reason(rule, committed)


def without_last_aborts(history: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """A history as a restarted run takes it up: whoever starts it again wants it to try again."""
    return tuple(history[: len(history) - _aborted_in_a_row(history)])


def _aborted_in_a_row(history: Sequence[Outcome]) -> int:
    count = 0
    for outcome in reversed(history):
        if outcome.committed:
            break
        count += 1
    return count


def _metric_reason(rule: Stopping, committed: Sequence[Outcome]) -> str:
    """Accuracy grows, loss shrinks; both are looked at as something that should grow."""
    sign = 1.0 if rule.metric == "accuracy" else -1.0
    values = [getattr(outcome, rule.metric) for outcome in committed]
    scores = [sign * value for value in values if value is not None]
    if not scores:
        return ""
    if rule.target is not None and scores[-1] >= sign * rule.target:
        return f"{rule.metric} {values[-1]:.4f} has reached the target {rule.target:g}"
    best = max(range(len(scores)), key=scores.__getitem__)
    if rule.patience is not None and len(scores) - 1 - best >= rule.patience:
        return f"{rule.metric} has not improved for {rule.patience} rounds"
    return ""
