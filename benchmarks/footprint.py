"""Memory of a real agent and its training process, and what an agent's installation takes on the disk.

Real processes on a Mosquitto with the production settings; see `tests/footprints.py`. The installation is the
one of the documentation: `scripts/install agent`, into a folder that goes away again.

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


def installed() -> dict[str, float]:
    """Size of a fresh agent's installation by package, and in all, in units of 1,000,000 bytes."""
    with tempfile.TemporaryDirectory(prefix="fedfleet-install-") as folder:
        place = Path(folder) / "agent"
        script = [sys.executable, str(ROOT / "scripts" / "install"), "agent", str(place)]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
        (packages,) = place.glob("lib/python*/site-packages")
        sizes = {one.name: _size(one) for one in packages.iterdir()}
        return {"all": _size(place)} | dict(sorted(sizes.items(), key=lambda each: -each[1])[:12])


def _size(place: Path) -> float:
    told = subprocess.run(
        ["du", "--summarize", "--bytes", str(place)], check=True, capture_output=True, text=True
    )
    return round(int(told.stdout.split()[0]) / 1e6, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--no-install", action="store_true", help="memory alone; installing needs a package index"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        moments = asyncio.run(look(Path(folder)))
    sizes = {} if options.no_install else installed()
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows(moments)], "installed": sizes}))
        return
    print(table(moments))
    print(f"\nLimits: {IDLE_LIMIT} MiB of RSS for an idle agent, {TRAINING_LIMIT} for both while training.\n")
    for name, size in sizes.items():
        print(f"{size:8.1f} MB  {name}")


if __name__ == "__main__":
    main()
