"""The long form: `scripts/fuzz --frames 5000000 [--seed S] [--workers N] [--json]`."""

import argparse
import json
import sys

from fuzz.campaign import Report, run


def main() -> int:
    """Attack, tell what was found; 1 if anything was."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Hostile frames against everything.")
    parser.add_argument("--frames", type=int, default=5_000_000, help="in all (5000000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same frames (1)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    arguments = parser.parse_args()
    report = run(arguments.frames, arguments.seed, arguments.workers)
    tell(report, as_json=arguments.json)
    return 1 if report.found else 0


def tell(report: Report, *, as_json: bool) -> None:
    """Findings first, then the numbers."""
    for finding in report.found:
        sys.stdout.write(
            f"{finding.target}: {finding.error} ({finding.where}, {finding.times} times)\n"
            f"  {finding.reproduction}\n"
        )
    frames = sum(report.frames.values())
    growth = round(report.growth / 2**20, 1)
    if as_json:
        line = {
            "frames": frames,
            "uncaught": report.uncaught,
            "rss_growth_mb": growth,
            "seconds": round(report.seconds, 1),
            "by_target": report.frames,
        }
        sys.stdout.write(json.dumps(line) + "\n")
    else:
        sys.stdout.write(
            f"{frames} hostile frames in {report.seconds:.1f} s: {report.uncaught} uncaught errors, "
            f"{growth} MB more memory\n"
        )


if __name__ == "__main__":
    sys.exit(main())
