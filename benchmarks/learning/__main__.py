"""What federated averaging reaches on real data, beside published numbers.

    python -m benchmarks.learning watch|hapt|mnist-iid|mnist-shards [--data FOLDER] [--seeds 3]

The first run fetches what is not bundled into FOLDER (default: FEDFLEET_BENCHMARK_DATA, else benchmark-data).
Model, engine, selection, clip, weights and server optimizer are the product's, the settings a plan's; the
sums are plain.
"""

import argparse
import json
from pathlib import Path

from benchmarks.learning.cases import CASES, TITLES, Case
from benchmarks.learning.fetching import default_folder
from benchmarks.learning.report import Outcome, draw, table
from benchmarks.learning.running import Run
from models.installed import available_engines


def main() -> None:
    """Learn, print the table, draw."""
    options = _options()
    options.plots.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    cases = CASES[options.what](options.data)
    if options.grid:
        cases = [case.at(rate) for case in cases for rate in case.grid]
    outcomes = [_outcome(case, options) for case in cases]
    print("\n".join(table(outcomes)))
    if not options.grid:
        file = options.plots / f"learning_{options.what.replace('-', '_')}.png"
        draw(file, f"{TITLES[options.what]}; {options.engine}", outcomes)
    if options.json:
        print(json.dumps({"rows": [_row(outcome) for outcome in outcomes]}))


def _options() -> argparse.Namespace:
    engines = available_engines()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=CASES)
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder that keeps data sets")
    parser.add_argument("--engine", choices=engines, default=engines[0] if engines else None)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each plan")
    parser.add_argument("--workers", type=int, default=2, help="processes that train a round's devices")
    parser.add_argument("--plots", type=Path, default=Path(), help="folder for the picture")
    parser.add_argument("--grid", action="store_true", help="try other learning rates, where some were tried")
    parser.add_argument("--json", action="store_true", help="print every accuracy in one last line")
    return parser.parse_args()


def _outcome(case: Case, options: argparse.Namespace) -> Outcome:
    seeds = range(1, options.seeds + 1)
    runs = [Run(case.plan, case.fleet(seed), seed) for seed in seeds]
    return case, [run.curve(case.label, options.engine, options.workers) for run in runs]


def _row(outcome: Outcome) -> dict[str, object]:
    case, curves = outcome
    accuracies = {curve.seed: curve.accuracies for curve in curves}
    return {"label": case.label, "learning_rate": case.plan.training.learning_rate, "seeds": accuracies}


if __name__ == "__main__":
    main()
