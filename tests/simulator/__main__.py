"""The command line of the simulator; `scripts/simulate` starts it."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from simulator.campaign import (
    PRIVATE_REFERENCE,
    REFERENCE,
    Failure,
    Job,
    Tally,
    crash_at_every_step,
    jobs,
    run_all,
    seeds,
    shrunk,
)
from simulator.operations import COORDINATOR, Schedule
from simulator.simulation import run_schedule


def main() -> int:
    """Run what the arguments say; 1 if an invariant was violated."""
    arguments = _arguments()
    if arguments.schedule is not None:
        return _replay(arguments.schedule, log=arguments.log)
    begun = time.monotonic()
    tally = Tally()
    for part in run_all(_work(arguments), workers=arguments.workers):
        tally.add(part)
        for failure in part.failures:
            _report(failure, arguments.save)
        if not arguments.json:
            _tell(json.dumps(tally.summary()))
    _tell(f"{time.monotonic() - begun:.0f} s")
    sys.stdout.write(f"{json.dumps(tally.summary())}\n")
    return 1 if tally.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=_range, help="A-B: the schedules of seeds A to B - 1")
    what.add_argument("--schedule", type=Path, help="a schedule as JSON: one simulation")
    what.add_argument(
        "--crash-every-step",
        choices=("coordinator", "device"),
        help="a reference round, killed before each step",
    )
    parser.add_argument("--private", action="store_true", help="the reference round is one with privacy")
    parser.add_argument("--every", type=int, default=1, help="take only every so many steps")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--real-crypto-every", type=int, default=10, help="seeds that verify every signature")
    parser.add_argument("--save", type=Path, help="folder for the shrunk schedules of failures")
    parser.add_argument("--log", action="store_true", help="print the event log of --schedule")
    parser.add_argument("--json", action="store_true", help="no progress")
    return parser.parse_args()


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or int(first) + 1))


def _work(arguments: argparse.Namespace) -> Iterator[Job]:
    if arguments.crash_every_step is None:
        return seeds(arguments.seeds, real_crypto_every=arguments.real_crypto_every)
    actor = COORDINATOR if arguments.crash_every_step == "coordinator" else "d2"
    reference = PRIVATE_REFERENCE if arguments.private else REFERENCE
    return jobs(crash_at_every_step(actor, reference, every=arguments.every))


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _report(failure: Failure, folder: Path | None) -> None:
    _tell(f"seed {failure.schedule.seed}: {failure.violation}")
    if folder is not None:
        file = folder / f"{failure.invariant.lower()}_{failure.schedule.seed}.json"
        file.write_bytes(shrunk(failure).to_json())
        _tell(f"  shrunk to {file}")


def _replay(file: Path, *, log: bool) -> int:
    outcome = run_schedule(Schedule.from_json(file.read_bytes()))
    for line in outcome.lines() if log else ():
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{outcome}\n")
    return 1 if outcome.violation is not None else 0


if __name__ == "__main__":
    sys.exit(main())
