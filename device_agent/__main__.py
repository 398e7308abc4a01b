"""`python -m device_agent`, and what `fedfleet agent` does."""

import sys

from device_agent.app import run
from device_agent.settings import AgentSettings
from runtime import logs
from runtime.command_line import COMMON, Option, Program


async def serve(settings: AgentSettings) -> None:
    """The whole program; see `run`."""
    logs.configure(settings.log)
    await run(settings)


PROGRAM = Program(
    "Trains on this device's data whenever the device is free and a round wants it.",
    AgentSettings,
    (
        *COMMON,
        Option(
            "--data",
            "data.path",
            "the examples, which never leave the device: an .npz, or as data.source says",
            "FILE",
        ),
        Option(
            "--privacy-weakest",
            "privacy.weakest",
            "the weakest promise with which it takes part: none, central or distributed",
            "MODE",
        ),
        Option(
            "--privacy-epsilon",
            "privacy.epsilon",
            "all that its data may cost in its whole life; needs --privacy-weakest, too",
            "EPSILON",
            float,
        ),
        Option(
            "--upload-bytes-per-second",
            "upload_bytes_per_second",
            "how fast updates may leave, for a link that others need too",
            "RATE",
            float,
        ),
    ),
    serve,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:], "python -m device_agent"))
