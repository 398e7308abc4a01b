"""The command line of the planted bugs; `scripts/simulate --planted` starts it."""

import argparse
import sys
import time

from planted.hunt import MOST_SEEDS, TABLE, Catch, hunt_all, table_of


def main() -> int:
    """Write the table; 1 if a bug was not seen, and then nothing is written."""
    parser = argparse.ArgumentParser(prog="scripts/simulate --planted", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    begun = time.monotonic()
    catches = hunt_all(workers=parser.parse_args().workers, told=_tell)
    unseen = [catch.bug for catch in catches if catch.seed is None]
    sys.stdout.write(f"{len(catches)} bugs, {len(unseen)} not seen, {time.monotonic() - begun:.0f} s\n")
    if unseen:
        sys.stdout.write(f"not seen in {MOST_SEEDS} seeds: {', '.join(unseen)}\n")
        return 1
    TABLE.write_text(table_of(catches), "utf-8")
    return 0


def _tell(catch: Catch) -> None:
    sys.stderr.write(f"{catch.bug}: {catch.seed} {catch.said}\n")


if __name__ == "__main__":
    sys.exit(main())
