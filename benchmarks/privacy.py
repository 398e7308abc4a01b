"""What privacy costs a device, step by step, and the coordinator's inverse rotation.

    python -m benchmarks.privacy [--quick] [--json]

The steps run in the order of the data's path, each on what the one before it gave, with entropy from the
keystream that a device uses. Each time is the best of several; steps take turns, so that the machine's other
work falls on all of them. OpenBLAS may use every core, but the rotation's products are too small for it to.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from privacy.clipping import clip_l2
from privacy.noise import discrete_gaussian, sigma_in_parts
from privacy.rotation import rotate, sign_bytes, unrotate
from privacy.rounding import round_within, squared_sensitivity
from secagg.keys import Secret
from secagg.prg import Keystream

CLIP = 1.0
LEVELS = 4_500.0
"""Clip bound in levels: 16 bits, a thousand members, noise multiplier 1, a tail of 4."""
SIGMAS = (3.24, 172.0, 2.0**20)
"""The least that is exact in sums, the noise of one of 667 honest survivors in that setting, the most."""


@dataclass(frozen=True)
class Row:
    """One measurement; the keys of the JSON output."""

    name: str
    d: int
    milliseconds: float


@dataclass
class Device:
    """An update of d parameters on its way into the ring, and the sum on its way back."""

    d: int
    entropy: Keystream = field(default_factory=lambda: Keystream(Secret(sha256(b"benchmark").digest()[:16])))

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.d)
        self.update: NDArray[np.float32] = generator.standard_normal(self.d, np.float32)
        self.clipped = clip_l2(self.update, CLIP)[0]
        self.wide = self.clipped.astype(np.float64)
        self.signs = self.entropy.read(sign_bytes(self.d))
        self.limit = squared_sensitivity(LEVELS, self.d)

    def steps(self) -> dict[str, Callable[[], object]]:
        """Return what is measured, by name."""
        noises = {f"device: noise, sigma {sigma:g}": self._noise(sigma) for sigma in SIGMAS}
        return {
            "device: clip": lambda: clip_l2(self.update, CLIP),
            "device: rotate float32": lambda: rotate(self.clipped, self.signs),
            "device: rotate float64": lambda: rotate(self.wide, self.signs),
            "device: round, one draw": self._round,
            **noises,
            "coordinator: unrotate float64": lambda: unrotate(self.wide, self.signs),
        }

    def _round(self) -> None:
        if not round_within(self.clipped, LEVELS / CLIP, self.limit, self.entropy.read).any():
            raise RuntimeError("the update was not rounded")

    def _noise(self, sigma: float) -> Callable[[], object]:
        parts = sigma_in_parts(sigma)
        return lambda: discrete_gaussian(self.d, parts, self.entropy.read)


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(*, quick: bool) -> Iterator[Row]:
    """Yield all rows, the steps of one size after another."""
    for d in (100_000, 1_000_000):
        steps = Device(d).steps()
        best = dict.fromkeys(steps, float("inf"))
        for _ in range(3 if quick else 15):
            for name, step in steps.items():
                best[name] = min(best[name], seconds(step))
        yield from (Row(name, d, 1e3 * time_taken) for name, time_taken in best.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    rows = []
    for row in measure(quick=options.quick):
        rows.append(row)
        if not options.json:
            print(f"{row.name:<32}{row.d:>10}{row.milliseconds:>10.2f} ms")
    if options.json:
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows]}) + "\n")


if __name__ == "__main__":
    main()
