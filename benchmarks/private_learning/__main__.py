"""What private learning costs in accuracy.

    python -m benchmarks.private_learning mnist [--data FOLDER] [--quick] [--workers 2] …
    python -m benchmarks.private_learning bits [--data FOLDER] …
    python -m benchmarks.private_learning watch …
    python -m benchmarks.private_learning choose [--data FOLDER] --epsilon 8

MNIST is not part of this project: it is fetched when the folder does not hold it, and checked by hash. Every
update is really encoded, and the first, last and every 20th round really masked and unmasked; a sum that is
then not bit-equal ends the program. One thread is best where other work waits: OPENBLAS_NUM_THREADS=1.
"""

import argparse
from pathlib import Path

from benchmarks.learning import mnist
from benchmarks.learning.fetching import default_folder
from benchmarks.private_learning import choosing, digits, figures, tables, watch
from benchmarks.private_learning.cases import SEED
from benchmarks.private_learning.running import run


def main() -> None:
    """Measure, print tables, draw."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.private_learning", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("mnist", "bits", "watch", "choose"))
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder that keeps MNIST")
    parser.add_argument("--quick", action="store_true", help="a tenth of the devices and two rounds: a trial")
    parser.add_argument("--plots", type=Path, default=Path(), help="folder for the pictures")
    parser.add_argument("--json", type=Path, help="file that gets a line for each run as it ends")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    parser.add_argument("--epsilon", type=float, default=8.0, help="for `choose`")
    options = parser.parse_args()
    if options.what == "choose":
        for recipe, accuracy in choosing.choose(mnist.load(options.data), options.epsilon):
            print(f"{accuracy:.4f} {recipe}", flush=True)
        return
    options.plots.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    {"mnist": _mnist, "bits": _bits, "watch": _watch}[options.what](options)


def _mnist(options: argparse.Namespace) -> None:
    cases = [digits.shortened(case) if options.quick else case for case in digits.epsilon_cases()]
    devices = cases[0].rules.devices
    outcomes = run(digits.task(mnist.load(options.data), devices), cases, options.workers, options.json)
    print("\n".join(tables.by_epsilon(outcomes)))
    title = f"MNIST 2NN, {devices:,} devices, all in every round"
    figures.draw_epsilons(options.plots / "mnist_epsilon.png", outcomes, title, {})


def _bits(options: argparse.Namespace) -> None:
    cases = [digits.shortened(case) if options.quick else case for case in digits.bits_cases()]
    refused = {case: case.refused for case in cases if case.refused}
    devices = cases[0].rules.devices
    task = digits.task(mnist.load(options.data), devices)
    outcomes = run(task, [case for case in cases if case not in refused], options.workers, options.json)
    print("\n".join(tables.by_bytes(outcomes, refused)))
    title = f"MNIST 2NN, {devices:,} devices, all in every round"
    figures.draw_bytes(options.plots / "mnist_bytes.png", outcomes, title)


def _watch(options: argparse.Namespace) -> None:
    watches = watch.task()
    cases = list(watch.cases(watches))
    if options.quick:
        cases = [case for case in cases if case.seed == SEED]
    outcomes = run(watches, cases, options.workers, options.json)
    baselines = watches.baselines()
    print("\n".join(tables.by_epsilon(outcomes)))
    print("\n".join(f"{name}: {accuracy:.1%}" for name, accuracy in baselines.items()))
    title = f"Watch data, {len(watches.devices)} devices, all in every round"
    figures.draw_epsilons(options.plots / "watch_epsilon.png", outcomes, title, baselines)


if __name__ == "__main__":
    main()
