"""What privacy costs a device, step by step, its coordinator, and a whole round.

    python -m benchmarks.privacy [--quick] [--json]

The steps run in the order of the data's path, each on what the one before it gave, with entropy from the
keystream that a device uses. A round is the real halves of coordinator and devices with keys, shares, masks,
signatures and recovery, in one process and everybody's work together; training takes no time.

Times are of the CPU, user and system, as one core is all that any of it uses (OpenBLAS may use more, but the
rotation's products are too small for it to). The best of several turns counts; what is compared takes
turns, so that the machine's other work falls on all of it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from privacy.clipping import clip_l2
from privacy.encoding import LocalMetrics
from privacy.noise import MAX_SIGMA, SIGMA_PARTS, discrete_gaussian, sigma_in_parts
from privacy.parameters import MIN_SIGMA
from privacy.rotation import rotate, sign_bytes, unrotate
from privacy.rounding import round_within, squared_sensitivity
from protocol.device_work import EncodeUpdate
from protocol.messages import Manifest
from protocol.phases import Phase
from protocol.plan import Privacy
from protocol.vector import encoding_of, layout_of
from secagg.keys import RoundSecrets, Secret
from secagg.prg import Keystream
from tests.virtual_fleet import VirtualFleet, manifest_for

SIZES = (100_000, 1_000_000)
CLIP, CORRUPT = 1.0, 0.1
MEMBERS, FEWEST = 1000, 700
"""Of a cohort at most, and survivors at least: scale and noise of a device's steps follow from them."""
DEVICES, FEWEST_DEVICES, ROUND_SIZE = 20, 13, 100_000
"""The same of the round that is run, and its parameters."""
ENTROPY = RoundSecrets.from_master(Secret(b"benchmark".ljust(32))).encoding_key


@dataclass(frozen=True)
class Mode:
    """How a round is protected."""

    privacy: Privacy
    bits: int


PLAIN = "no privacy, 32 bits"
PRIVATE = Mode(Privacy(mode="distributed", noise_multiplier=1.0), 16)
MODES = {
    PLAIN: Mode(Privacy(), 32),
    "no privacy, 16 bits": Mode(Privacy(), 16),
    "central, 16 bits": Mode(Privacy(mode="central", noise_multiplier=1.0), 16),
    "distributed, 16 bits": PRIVATE,
}


@dataclass(frozen=True)
class Row:
    """One measurement; the keys of the JSON output.

    Attributes:
        name: of the step, or of the round's mode.
        d: parameters.
        milliseconds: best.
        ratio: over the same without privacy at 32 bits, where that exists.
        up_bytes: of one device's update, where one is made.
    """

    name: str
    d: int
    milliseconds: float
    ratio: float | None = None
    up_bytes: int | None = None


@dataclass
class Device:
    """An update of d parameters on its way into the ring, and the sum on its way back."""

    d: int
    entropy: Keystream = field(default_factory=lambda: Keystream(ENTROPY))

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.d)
        self.update: NDArray[np.float32] = generator.standard_normal(self.d, np.float32)
        self.clipped = clip_l2(self.update, CLIP)[0]
        self.wide = self.clipped.astype(np.float64)
        self.signs = self.entropy.read(sign_bytes(self.d))

    def steps(self) -> dict[str, Callable[[], object]]:
        """Return what is measured, by name."""
        noise = setting_of(PRIVATE, self.d).noise
        if noise is None:
            raise RuntimeError("the setting has no noise")
        sigmas = (MIN_SIGMA, noise.sigma_parts / SIGMA_PARTS, MAX_SIGMA)
        return {
            "device: clip": lambda: clip_l2(self.update, CLIP),
            "device: rotate": lambda: rotate(self.clipped, self.signs),
            "device: round, one draw": lambda: self._round(noise.scale),
            **{f"device: noise, sigma {sigma:.0f}": self._noise(sigma) for sigma in sigmas},
            "coordinator: unrotate": lambda: unrotate(self.wide, self.signs),
        }

    def encodings(self) -> dict[str, EncodeUpdate]:
        """Everything before the masks, in every mode."""
        zeros, counted = np.zeros(self.d, np.float32), LocalMetrics(10, 10, 5.0, 5)
        return {
            name: EncodeUpdate(zeros, self.update, counted, encoding_of(setting_of(mode, self.d)), ENTROPY)
            for name, mode in MODES.items()
        }

    def _round(self, scale: float) -> None:
        limit = squared_sensitivity(scale * CLIP, self.d)
        if not round_within(self.clipped, scale, limit, self.entropy.read).any():
            raise RuntimeError("the update was not rounded")

    def _noise(self, sigma: float) -> Callable[[], object]:
        parts = sigma_in_parts(sigma)
        return lambda: discrete_gaussian(self.d, parts, self.entropy.read)


def setting_of(mode: Mode, d: int) -> Manifest:
    """A round of a thousand devices."""
    return manifest_for(
        d,
        members=MEMBERS,
        min_cohort=FEWEST,
        bits=mode.bits,
        clip=CLIP,
        corrupt_fraction=CORRUPT,
        privacy=mode.privacy,
    )


def fleet_of(mode: Mode) -> VirtualFleet:
    """The fleet of a round that is run."""
    return VirtualFleet(
        DEVICES,
        ROUND_SIZE,
        min_cohort=FEWEST_DEVICES,
        bits=mode.bits,
        clip=CLIP,
        corrupt_fraction=CORRUPT,
        privacy=mode.privacy,
    )


def run(fleet: VirtualFleet) -> None:
    """Run a round to its end."""
    if fleet.run() is not Phase.COMMITTED:
        raise RuntimeError(f"the round ended with {fleet.round.reason}")


def best_of(turns: int, cases: Mapping[str, Callable[[], Callable[[], object]]]) -> dict[str, float]:
    """The shortest milliseconds of each case, in turns; a case prepares, and returns what is timed."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(turns):
        for name, prepare in cases.items():
            timed = prepare()
            start = time.process_time()
            timed()
            best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def measure(turns: int, round_turns: int) -> Iterator[Row]:
    """Yield all rows."""
    for d in SIZES:
        yield from measure_steps(d, turns)
        yield from measure_encodings(d, turns)
    yield from measure_rounds(round_turns)


def measure_steps(d: int, turns: int) -> Iterator[Row]:
    """One step after another."""
    steps = Device(d).steps()
    best = best_of(turns, {name: partial(_ready, step) for name, step in steps.items()})
    yield from (Row(name, d, milliseconds) for name, milliseconds in best.items())


def measure_encodings(d: int, turns: int) -> Iterator[Row]:
    """All that a device does to its update before it is masked."""
    works = Device(d).encodings()
    best = best_of(turns, {name: partial(_ready, work.run) for name, work in works.items()})
    for name, milliseconds in best.items():
        sent = len(works[name].run().pack())
        yield Row(f"device: all before masking, {name}", d, milliseconds, milliseconds / best[PLAIN], sent)


def measure_rounds(turns: int) -> Iterator[Row]:
    """A round with privacy beside one without."""
    best = best_of(turns, {name: partial(_round, mode) for name, mode in MODES.items()})
    for name, milliseconds in best.items():
        fleet = fleet_of(MODES[name])
        sent = layout_of(encoding_of(fleet.manifest)).packed_size
        title = f"round of {DEVICES}, {name}"
        yield Row(title, ROUND_SIZE, milliseconds, milliseconds / best[PLAIN], sent)


def _ready(step: Callable[[], object]) -> Callable[[], object]:
    return step


def _round(mode: Mode) -> Callable[[], object]:
    return partial(run, fleet_of(mode))


def show(row: Row) -> str:
    """A row for people."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    sent = "" if row.up_bytes is None else f"{row.up_bytes:,} bytes up"
    return f"{row.name:<52}{row.d:>10}{row.milliseconds:>10.2f} ms {ratio:>6}  {sent}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    rows = []
    for row in measure(*((3, 2) if options.quick else (15, 7))):
        rows.append(row)
        if not options.json:
            print(show(row))
    if options.json:
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows]}) + "\n")


if __name__ == "__main__":
    main()
