"""The long form: `scripts/audit [--releases N] [--seed S] [--workers N] [--masked N] [--json]`."""

import argparse
import json
import math
import sys
from dataclasses import asdict

from audit.audit import CONFIDENCE, REPORTED, claim_of, expected, power, visible
from audit.campaign import Row, audit_all
from audit.game import Setting

HEAD = f"""\
epsilon: the label's, and its Gaussian estimate. proven: lower bounds at {REPORTED:.0%} from how often guesses
were right: for Gaussian noise, for any mechanism (zCDP), by the one-run theorem; in brackets what noise as
claimed is expected to prove. found: the probability that so many runs show the bug at {CONFIDENCE:.1%}, by
the first bound and by the second; for a right program, that they accuse it.
"""

COLUMNS = "{:<31}{:>14}{:>9}{:>9}  {:<21}{:<23}{:<15}{:<17}{:>7}"


def main() -> int:
    """Audit everything, tell; 1 if a verdict is not what it should be."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description="An empirical audit of privacy.")
    parser.add_argument("--releases", type=int, default=20_000, help="in each audit (20000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same audit (1)")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument("--masked", type=int, default=100, help="runs through the whole protocol (100)")
    parser.add_argument("--json", action="store_true", help="a line of JSON an audit")
    arguments = parser.parse_args()
    wrong = 0
    if not arguments.json:
        least = 1 / visible(claim_of(Setting()), arguments.releases)
        sys.stdout.write(
            f"{HEAD}\n{arguments.releases:,} releases of the first setting, in all but one of a "
        )
        sys.stdout.write(
            f"thousand audits, show noise below {least:.0%} of what it should be.\n\n{_columns()}\n"
        )
    for row in audit_all(arguments.releases, arguments.seed, arguments.masked, arguments.workers):
        sys.stdout.write((_json(row) if arguments.json else _line(row)) + "\n")
        sys.stdout.flush()
        wrong += row.audit.verdict is not row.job.right
    sys.stderr.write(f"{wrong} verdicts are not what they should be\n")
    return 1 if wrong else 0


def _columns() -> str:
    names = ("audited", "epsilon", "runs", "right", "proven", "(expected)", "found", "verdict", "s")
    return COLUMNS.format(*names)


def _line(row: Row) -> str:
    claim, tally = row.audit.claim, row.audit.tally
    found = power(claim, row.job.ratio * math.sqrt(2 * claim.rho), tally.runs)
    proven = tally.bounds(claim.delta, REPORTED)
    honest = expected(math.sqrt(2 * claim.rho), tally.runs, claim.delta, REPORTED)
    return COLUMNS.format(
        row.job.name,
        f"{claim.epsilon:.2f} {claim.gaussian_epsilon:.2f}",
        tally.runs,
        f"{tally.right / tally.runs:.4f}",
        f"{proven.gaussian:.2f} {proven.zcdp:.2f} {proven.one_run:.2f}",
        f"({honest.gaussian:.2f} {honest.zcdp:.2f} {honest.one_run:.2f})",
        f"{found[0]:.3f} {found[1]:.3f}",
        row.audit.verdict.value,
        f"{row.seconds:.0f}",
    )


def _json(row: Row) -> str:
    claim, tally, job = row.audit.claim, row.audit.tally, row.job
    mu = math.sqrt(2 * claim.rho)
    line = {
        "audited": job.name,
        "claim": asdict(claim),
        "tally": asdict(tally),
        "arrives": row.audit.arrives,
        "proven": asdict(tally.bounds(claim.delta, REPORTED)),
        "expected": asdict(expected(mu, tally.runs, claim.delta, REPORTED)),
        "found": power(claim, job.ratio * mu, tally.runs),
        "verdict": row.audit.verdict.value,
        "right": row.audit.verdict is job.right,
        "seconds": round(row.seconds, 1),
    }
    return json.dumps(line)


if __name__ == "__main__":
    sys.exit(main())
