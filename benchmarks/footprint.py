"""Memory of a real agent and its training process, and what an agent's installation takes on the disk.

Real processes on a Mosquitto with the production settings; see `tests/footprints.py`. The agents run from an
installation of their own, made as DEPLOYMENT.md says for a small device, in a folder that goes away again.

    PYTHONPATH=tests python -m benchmarks.footprint [--no-install] [--json]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from footprints import IDLE_LIMIT, TRAINING_LIMIT, look, rows, table

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 8
"""Packages that are listed."""


def main() -> None:
    """Install, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--no-install", action="store_true", help="memory alone, of agents of this environment"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedfleet-footprint-") as name:
        folder, python, sizes = Path(name), sys.executable, dict[str, float]()
        if not options.no_install:
            python, sizes = install(folder / "agent")
        (folder / "fleet").mkdir()
        moments = asyncio.run(look(folder / "fleet", python))
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows(moments)], "installed": sizes}))
        return
    print(table(moments))
    print(f"\nLimits: {IDLE_LIMIT} MiB of RSS for an idle agent, {TRAINING_LIMIT} for both while training.\n")
    for package, size in sizes.items():
        print(f"{size:8.1f} MB  {package}")


def install(place: Path) -> tuple[str, dict[str, float]]:
    """Install an agent and nothing else.

    Returns:
        its interpreter; the size of all, and of the largest packages, in units of 1,000,000 bytes.
    """
    script = [sys.executable, str(ROOT / "scripts" / "install"), "agent", str(place), "--bare"]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    (packages,) = place.glob("lib/python*/site-packages")
    sizes = {one.name: _size(one) for one in packages.iterdir()}
    largest = sorted(sizes.items(), key=lambda each: -each[1])[:LARGEST]
    return str(place / "bin" / "python"), {"all": _size(place), **dict(largest)}


def _size(place: Path) -> float:
    command = ["du", "--summarize", "--bytes", str(place)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    return round(int(told.stdout.split()[0]) / 1e6, 1)


if __name__ == "__main__":
    main()
