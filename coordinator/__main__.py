"""`python -m coordinator`, and what `fedfleet coordinator` does."""

import sys

from coordinator.app import run
from coordinator.settings import CoordinatorSettings
from runtime import logs
from runtime.command_line import COMMON, Option, Program


async def serve(settings: CoordinatorSettings) -> None:
    """The whole program; see `run`."""
    logs.configure(settings.log)
    await run(settings)


PROGRAM = Program(
    "Runs the rounds of a fleet, until the plan's stopping rule.",
    CoordinatorSettings,
    (
        *COMMON,
        Option("--plan", "plan", "what to train and how, a plan.toml", "FILE"),
        Option("--evaluation-data", "evaluation.data", "held-out examples (.npz) to judge models on", "FILE"),
        Option("--start-when", "start_when", "devices on offer before the first round", "N", int),
        Option("--workers", "workers", "processes that unmask; 0 is one per core", "N", int),
        Option("--seed", "seed", "of first weights and choices; chance when left out", "N", int),
    ),
    serve,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:], "python -m coordinator"))
