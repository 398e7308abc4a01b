"""`scripts/soak`: the long forms of the tests with faults in real processes."""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from faults import strace
from faults.soak import soak
from faults.sweep import IN_A_ROUND, Outcome, count_calls, full_points, kill_points, sweep

from broker.embedded import BrokerMissingError, EmbeddedBroker
from runtime import logs
from runtime.config import LogSettings
from runtime.signals import stop_event


class Teller:
    """Says what happens, a line each.

    Args:
        as_json: for programs; else for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()

    def __call__(self, event: str, **fields: object) -> None:
        """One event."""
        if self._as_json:
            line = json.dumps({"event": event, **fields})
        else:
            words = " ".join(f"{key}={value}" for key, value in fields.items() if value not in ("", None))
            line = f"{time.monotonic() - self._began:7.1f} s  {event:<9} {words}"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


async def long_soak(options: argparse.Namespace, tell: Teller) -> bool:
    """Whether all was right."""
    found = await soak(options.minutes, options.devices, options.seed, tell, stop_event())
    tell("finished", **found)
    return not found["wrong"] and not found["stuck"]


async def long_sweep(options: argparse.Namespace, tell: Teller) -> bool:
    """Whether all was right."""
    began = time.monotonic()
    fresh, resumed = await count_calls(), await count_calls(IN_A_ROUND)
    for run, counts in (("fresh", fresh), ("resumed", resumed)):
        tell("counted", run=run, **{str(target): count for target, count in counts.items()})
    points = [*kill_points(fresh), *kill_points(resumed, IN_A_ROUND), *full_points(fresh)]
    outcomes = await sweep(points, options.together, lambda outcome: _tell_of(outcome, tell))
    killed = [outcome for outcome in outcomes if outcome.faults[-1].kills and outcome.came_to_it]
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    tell(
        "finished",
        kill_points=len(killed),
        not_reached=sum(outcome.faults[-1].kills and not outcome.came_to_it for outcome in outcomes),
        full_disks=sum(not outcome.faults[-1].kills for outcome in outcomes),
        by_call=Counter(str(outcome.faults[-1].target) for outcome in killed),
        wrong=wrong,
        seconds=round(time.monotonic() - began, 1),
    )
    return not wrong


def _tell_of(outcome: Outcome, tell: Teller) -> None:
    tell(
        "wrong" if outcome.wrong else "survived",
        faults=", ".join(map(str, outcome.faults)),
        places=", ".join(outcome.places),
        paused=outcome.paused,
        what="; ".join(outcome.wrong),
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak (10)")
    parser.add_argument("--devices", type=int, default=8, help="agents of the soak (8)")
    parser.add_argument("--seed", type=int, default=1, help="of what the soak does when (1)")
    parser.add_argument("--sweep", action="store_true", help="instead, faults at every durable system call")
    parser.add_argument("--together", type=int, default=3, help="fleets of the sweep at the same time (3)")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """0 when everything was right, 1 when something was not, 2 when something is missing here."""
    options = _options(arguments)
    try:
        EmbeddedBroker.start("mosquitto")
    except BrokerMissingError as missing:
        sys.stderr.write(f"scripts/soak: {missing}\n")
        return 2
    if options.sweep and not strace.is_usable():
        sys.stderr.write("scripts/soak: strace is missing (Debian: apt install strace), or forbidden here\n")
        return 2
    logs.configure(LogSettings(level="error"))
    work = long_sweep if options.sweep else long_soak
    return 0 if asyncio.run(work(options, Teller(as_json=options.json))) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
