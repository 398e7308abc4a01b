"""Writes accounting.json: epsilon by dp-accounting, an independent accountant, over noise, rounds and delta.

That package weighs 250 MB and holds other packages back, so its answers are kept here and not itself. In an
environment of its own:

    python -m venv oracle && oracle/bin/pip install dp-accounting==0.6.0
    oracle/bin/python tests/vectors/make_accounting.py > tests/vectors/accounting.json
"""

import itertools
import json
import sys
from importlib.metadata import version
from typing import Any

import mpmath  # type: ignore[import-not-found]
import numpy as np
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent  # type: ignore[import-not-found]
from dp_accounting.pld import PLDAccountant  # type: ignore[import-not-found]
from dp_accounting.rdp import RdpAccountant  # type: ignore[import-not-found]

MULTIPLIERS = (0.5, 0.7, 1.0, 2.0, 4.0, 8.0, 32.0, 100.0)
ROUNDS = (1, 3, 10, 100, 1000)
DELTAS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12)

# As dense as needed for the smallest epsilon over them to be within 1e-6 of the smallest over all orders.
ORDERS = 1 + np.geomspace(0.02, 1e5, 6_000)


def rows() -> list[dict[str, float]]:
    """One row for each point of the grid: Renyi accounting, and the exact Gaussian by its privacy loss."""
    return [
        row(multiplier, rounds, chance)
        for multiplier, rounds, chance in itertools.product(MULTIPLIERS, ROUNDS, DELTAS)
    ]


def row(multiplier: float, rounds: int, chance: float) -> dict[str, float]:
    event = SelfComposedDpEvent(GaussianDpEvent(multiplier), rounds)
    renyi = RdpAccountant(ORDERS).compose(event).get_epsilon(chance)
    # Its grid of losses rounds epsilon up by some steps.
    step = min(1e-3, 2e-5 * max(renyi, 1e-3))
    exact = PLDAccountant(value_discretization_interval=step).compose(event).get_epsilon(chance)
    return {
        "noise_multiplier": multiplier,
        "rounds": rounds,
        "delta": chance,
        "renyi_epsilon": float(renyi),
        "gaussian_epsilon": float(exact),
        "exact_gaussian_epsilon": float(sixty_digits(multiplier, rounds, chance)),
    }


def sixty_digits(multiplier: float, rounds: int, chance: float) -> Any:
    """Gaussian epsilon by its closed form: above 700, dp-accounting itself is up to 0.13 % too high."""
    mpmath.mp.dps = 60
    mu = mpmath.sqrt(rounds) / mpmath.mpf(multiplier)

    def above(value: Any) -> bool:
        near, far = mu / 2 - value / mu, -mu / 2 - value / mu
        return bool(mpmath.ncdf(near) - mpmath.exp(value) * mpmath.ncdf(far) > chance)

    low, high = mpmath.mpf(0), mu**2 + 100 * mu
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return low


def main() -> None:
    table: dict[str, Any] = {"made_by": f"dp-accounting {version('dp-accounting')}", "rows": rows()}
    lines = ",\n".join(json.dumps(one) for one in table["rows"])
    sys.stdout.write(f'{{"made_by": {json.dumps(table["made_by"])}, "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
