"""`python -m registrar`, and what `fedfleet registrar` does."""

import sys

from registrar.app import run
from registrar.settings import RegistrarSettings
from runtime import logs
from runtime.command_line import COMMON, Option, Program


async def serve(settings: RegistrarSettings) -> None:
    """The whole program; see `run`."""
    logs.configure(settings.log)
    await run(settings)


PROGRAM = Program(
    "Issues the certificates of a fleet's devices, and takes them back.",
    RegistrarSettings,
    (
        *COMMON,
        Option("--certificate-days", "certificate_days", "how long a device's certificate is good", "N", int),
        Option("--list-days", "list_days", "how long a revocation list is good", "N", int),
    ),
    serve,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:], "python -m registrar"))
