"""`fedfleet health`: what a container engine asks every half minute, without the network and in no time."""

import os
import sys
from pathlib import Path

from runtime.clock import SystemClock
from runtime.watchdog import UnhealthyError, check_health, runtime_folder

EXIT_OK = 0
EXIT_UNHEALTHY = 1
"""Not 2, by which the command line names a mistake: container engines know 0 and 1 only."""


def health(folder: Path | None = None) -> int:
    """Look at the heartbeat of one program.

    Args:
        folder: its runtime folder; None is the one that the environment names.

    Returns:
        The exit code; standard output has a line about it.
    """
    try:
        check_health(folder or runtime_folder(os.environ), SystemClock())
    except UnhealthyError as error:
        sys.stdout.write(f"unhealthy: {error}\n")
        return EXIT_UNHEALTHY
    sys.stdout.write("healthy\n")
    return EXIT_OK
