"""What a run looks like: JSON lines, a plain log, and the screen."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from console.demo import table
from console.demo_files import DemoFiles
from console.demo_run import Summary
from console.fleet_view import FleetView, News
from console.outputs import JsonOutput, LiveOutput, PlainOutput, choose
from console.screen import draw
from console.text import UNKNOWN, decimal, duration, line, percent, size
from protocol.ids import DeviceId
from protocol.plan import Model, Plan
from protocol.status import CoordinatorStatus, DeviceStatus, RoundResult, RoundStatus

COMMITTED = RoundResult(
    3,
    "committed",
    survivors=9,
    dropouts=1,
    evaluated_loss=0.7437,
    evaluated_accuracy=0.6914,
    seconds=0.7,
    bytes_up=12868,
)
ABORTED = RoundResult(4, "aborted", seconds=0.2, reason="4 devices uploaded; 5 are needed")
COLLECTING = RoundStatus(5, "collecting", 10, 10, 9, 9, 4, 0, 0, 5, 21.4)
SUMMARY = Summary(20, 1, 1, 1, 0.897, 0.951, 0.608, 31.5, 257_360, "out/model.onnx", "out/accuracy.png")


def console(width: int = 110, height: int = 40) -> Console:
    return Console(file=io.StringIO(), width=width, height=height)


def written(by: Console) -> str:
    assert isinstance(by.file, io.StringIO)
    return by.file.getvalue()


def full_view() -> FleetView:
    return FleetView(
        coordinator=CoordinatorStatus("online", why="all is well"),
        round=COLLECTING,
        results={3: COMMITTED, 4: ABORTED},
        devices={DeviceId("d1"): DeviceStatus("uploading"), DeviceId("d2"): DeviceStatus("lost")},
    )


def rendered(view: FleetView, height: int = 40) -> str:
    screen = console(height=height)
    screen.print(draw(view, title="fleet plant", seconds=65, height=height, notes={3: "d2 killed"}))
    return written(screen)


def test_json_is_one_object_a_line() -> None:
    to = console()
    with JsonOutput(to) as output:
        output.news(News(COLLECTING))
        output.event("killed", "for people", {"device": "d2", "round": 3})
        output.refresh()
        output.note(3, "d2 killed")
    lines = [json.loads(text) for text in written(to).splitlines()]
    assert [one["event"] for one in lines] == ["phase", "killed"]
    assert lines[0]["uploaded"] == 4
    assert lines[1] == {"event": "killed", "device": "d2", "round": 3}


def test_the_last_line_of_a_demo_has_exactly_these_keys() -> None:
    assert list(Summary.__struct_fields__) == [
        "rounds_committed",
        "rounds_aborted",
        "devices_killed",
        "dropouts_recovered",
        "accuracy",
        "centralised_accuracy",
        "local_only_accuracy",
        "seconds",
        "bytes_up_per_device",
        "model",
        "plot",
    ]


def test_a_plain_log_says_what_matters_and_leaves_out_the_rest() -> None:
    to = console()
    with PlainOutput(to) as output:
        for status in (COLLECTING, COMMITTED, ABORTED, CoordinatorStatus("online", devices=9)):
            output.news(News(status))
        output.news(News(DeviceStatus("training"), DeviceId("d1")))
        output.news(News(DeviceStatus("lost"), DeviceId("d2")))
        output.event("killed", "d2 killed", {})
    said = [text[8:] for text in written(to).splitlines()]
    assert said == [
        "round 3 committed in 0.7 s: 9 in the sum, 1 recovered, loss 0.744, accuracy 69.1 %",
        "round 4 aborted after 0.2 s: 4 devices uploaded; 5 are needed",
        "coordinator online, 9 devices on offer",
        "device d2 lost",
        "d2 killed",
    ]


def test_the_screen_shows_phase_counts_devices_and_rounds() -> None:
    screen = rendered(full_view())
    for text in (
        "fleet plant",
        "coordinator online: all is well",
        "round 5   10 invited, 5 needed   21 s at most",
    ):
        assert text in screen
    assert "inviting  keying  sharing  collecting  confirming  recovering  committing" in screen
    assert "uploaded" in screen
    assert "4/10" in screen
    assert "1 lost   1 uploading" in screen
    assert "d2 killed" in screen
    assert "4 devices uploaded" in screen
    assert "01:05" in screen


def test_the_screen_of_an_unknown_fleet_says_so() -> None:
    screen = rendered(FleetView())
    assert "no coordinator has been heard of yet" in screen
    assert "no round yet" in screen


@pytest.mark.parametrize("height", [24, 40])
def test_the_screen_fits_the_terminal_and_keeps_the_newest_rounds(height: int) -> None:
    view = full_view()
    view.results |= {number: RoundResult(number, "committed") for number in range(5, 100)}
    lines = rendered(view, height).splitlines()
    assert len(lines) < height
    assert any(text.strip("│ ").startswith("99 ") for text in lines)


def test_results_are_in_the_order_of_rounds_whatever_arrived_first() -> None:
    view = FleetView(results={2: RoundResult(2, "committed"), 1: RoundResult(1, "committed")})
    screen = rendered(view)
    assert screen.index(" 1  committed") < screen.index(" 2  committed")


def test_live_where_there_is_a_terminal_json_where_it_is_asked_for() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    assert isinstance(choose(terminal, FleetView(), "t", json=False), LiveOutput)
    assert isinstance(choose(terminal, FleetView(), "t", json=True), JsonOutput)
    assert isinstance(choose(console(), FleetView(), "t", json=False), PlainOutput)


def test_the_live_screen_draws_what_it_was_told() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=110, height=40)
    view = full_view()
    with choose(terminal, view, "fleet plant", json=False) as output:
        output.note(3, "d2 killed")
        output.event("killed", "d2 killed while round 3 was collecting", {})
        output.refresh()
    assert "d2 killed while round 3 was collecting" in written(terminal)
    assert "collecting" in written(terminal)


def test_the_final_table_gives_figures_and_paths(tmp_path: Path) -> None:
    to = console(width=200)
    to.print(table(SUMMARY, DemoFiles(tmp_path, (), Plan(Model(catalog="mlp")))))
    for text in ("20 committed, 1 aborted", "89.7 %", "95.1 %", "60.8 %", "257.4 kB", "31.5 s", "model.onnx"):
        assert text in written(to)


def test_numbers_as_people_read_them() -> None:
    assert (percent(0.8974), percent(None)) == ("89.7 %", UNKNOWN)
    assert (decimal(0.12345), decimal(None)) == ("0.123", UNKNOWN)
    assert [size(count) for count in (0, 999, 12_868, 1_500_000, 2e9, 3e12)] == [
        "0 B",
        "999 B",
        "12.9 kB",
        "1.5 MB",
        "2.0 GB",
        "3000.0 GB",
    ]
    assert duration(65.9) == "01:05"
    assert line(News(COLLECTING)) is None


def test_the_screen_says_why_devices_sleep() -> None:
    view = full_view()
    for number in range(3):
        why = f"too hot ({80 + number} °C, needs at most 70 °C)"
        view.devices[DeviceId(f"hot{number}")] = DeviceStatus("sleeping", why)
    assert "3 sleeping" in rendered(view)
    assert "asleep: 3 too hot" in rendered(view)
