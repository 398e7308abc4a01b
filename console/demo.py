"""`fedfleet demo`: a whole fleet on this machine, from the same commands that a user would type."""

import asyncio
import shutil
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from console.demo_files import DemoFiles, make_files
from console.demo_run import Demo, DemoOptions, Summary
from console.fleet_view import FleetView
from console.local_run import EXIT_NOTHING, EXIT_OK, EXIT_TERMINATED, until_terminated
from console.outputs import choose
from console.text import percent, size

DEFAULT_FOLDER = Path("fedfleet-demo")


def run(options: DemoOptions, *, json: bool) -> int:
    """Run the demo.

    Returns:
        The exit code: 0, `EXIT_NOTHING`, or `EXIT_TERMINATED` after SIGTERM.

    Raises:
        FedfleetError: something did not start, or ended when it should not have; the logs are kept.
        KeyboardInterrupt: Ctrl-C; every process has ended.
    """
    began = time.monotonic()
    files = make_files(options.keep or DEFAULT_FOLDER, options.devices, options.rounds)
    try:
        summary = _show(options, files, began, json=json)
    except asyncio.CancelledError:
        _forget(options, files.folder)
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        _forget(options, files.folder)
        raise
    _forget(options, files.work)
    if not json:
        Console().print(table(summary, files), highlight=False)
    return EXIT_OK if summary.rounds_committed else EXIT_NOTHING


def _show(options: DemoOptions, files: DemoFiles, began: float, *, json: bool) -> Summary:
    view = FleetView()
    with choose(Console(), view, f"fedfleet demo, {options.devices} devices", json=json) as output:
        demo = Demo(options, files, view, output)
        asyncio.run(until_terminated(demo.run()))
        summary = demo.summary(time.monotonic() - began)
        results = {"summary": summary, "rounds": list(view.results.values())}
        files.results.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
        output.event("finished", "done", msgspec.to_builtins(summary))
    return summary


def _forget(options: DemoOptions, folder: Path) -> None:
    if options.keep is None:
        shutil.rmtree(folder)


def table(summary: Summary, files: DemoFiles) -> Table:
    """What came of it, for people."""
    one = summary
    rows = {
        "rounds": f"{one.rounds_committed} committed, {one.rounds_aborted} aborted",
        "accuracy": f"{percent(one.accuracy)} federated; nobody saw a single update",
        "all data in one place": percent(one.centralised_accuracy),
        "each device alone": percent(one.local_only_accuracy),
        "vanished": f"{one.devices_killed} killed in mid-round, masks of {one.dropouts_recovered} recovered",
        "sent by a device": f"{size(one.bytes_up_per_device)} of masked updates",
        "time": f"{one.seconds:.1f} s",
    }
    if one.rounds_committed:
        rows |= {"model": str(files.model), "plot": str(files.plot)}
    rows["results"] = str(files.results)
    made = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        made.add_row(f"[bold]{name}[/bold]", value)
    return made
