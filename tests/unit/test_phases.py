"""The two tables of legal moves: every state is reached, every way ends, and the code takes no other."""

import ast
import inspect
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from protocol import coordinator_phases, coordinator_round, device_round
from protocol.coordinator_phases import LAST_AWAITED
from protocol.messages import FromDevice
from protocol.phases import COORDINATOR_MOVES, DEVICE_MOVES, Move, Phase, Stage, Step, mermaid
from protocol.plan import Deadlines

Moves = Mapping[Any, Any]
TABLE: Moves = COORDINATOR_MOVES
tables = pytest.mark.parametrize(
    ("moves", "states", "start", "ends"),
    [
        (COORDINATOR_MOVES, Phase, Phase.INVITING, {Phase.COMMITTED, Phase.ABORTED}),
        (DEVICE_MOVES, Stage, Stage.INVITED, {Stage.DONE, Stage.LEFT}),
    ],
    ids=["coordinator", "device"],
)


def reachable(moves: Moves, start: StrEnum) -> set[StrEnum]:
    found, fresh = {start}, {start}
    while fresh:
        fresh = {there for (here, _), there in moves.items() if here in fresh} - found
        found |= fresh
    return found


@tables
def test_every_state_is_reached_from_the_first(
    moves: Moves, states: type[StrEnum], start: StrEnum, ends: set[StrEnum]
) -> None:
    assert reachable(moves, start) == set(states)
    del ends


@tables
def test_ends_are_ends_and_every_other_state_leads_to_each(
    moves: Moves, states: type[StrEnum], start: StrEnum, ends: set[StrEnum]
) -> None:
    assert {state for state in states if state not in {here for here, _ in moves}} == ends
    for state in set(states) - ends - {start}:
        assert ends <= reachable(moves, state)


@tables
def test_nothing_goes_back(moves: Moves, states: type[StrEnum], start: StrEnum, ends: set[StrEnum]) -> None:
    order = list(states)
    assert all(order.index(there) > order.index(here) for (here, _), there in moves.items())
    del start, ends


def test_every_phase_has_a_class_and_every_awaited_phase_a_deadline() -> None:
    classes = [
        member
        for _, member in inspect.getmembers(coordinator_phases, inspect.isclass)
        if "phase" in vars(member)
    ]
    named = {vars(member)["phase"] for member in classes}
    assert named == set(Phase) - {Phase.COMMITTED, Phase.ABORTED}
    durations = set(Deadlines.__struct_fields__) - {"max_lifetime"}
    assert durations == {phase.value for phase in named - {Phase.COMMITTING}}


def test_every_message_of_a_round_is_awaited_in_some_phase() -> None:
    answers = {kind.__name__ for kind in FromDevice.__args__} - {"Offer", "Decline"}
    assert {kind.__name__ for kind in LAST_AWAITED} == answers


def attributes_of(name: str, module: object) -> set[str]:
    """Every `name.X` in a module's source."""
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text())
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == name}


def test_the_code_takes_every_kind_of_move_and_no_other() -> None:
    assert attributes_of("Move", coordinator_round) == {move.name for move in Move}
    assert attributes_of("Step", device_round) == {step.name for step in Step}


def test_the_diagram_has_every_move_once() -> None:
    lines = mermaid(TABLE, Phase.INVITING).splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> inviting"]
    assert "    recovering --> committing: quorum reached" in lines
    assert lines[-2:] == ["    aborted --> [*]", "    committed --> [*]"]
    assert len(lines) == 2 + len(COORDINATOR_MOVES) + 2 == len(set(lines))


@pytest.mark.parametrize(
    ("moves", "start"), [(COORDINATOR_MOVES, Phase.INVITING), (DEVICE_MOVES, Stage.INVITED)]
)
def test_the_documentation_shows_these_diagrams(moves: Moves, start: StrEnum) -> None:
    page = (Path(__file__).parents[2] / "PROTOCOL.md").read_text()
    assert mermaid(moves, start) in page
