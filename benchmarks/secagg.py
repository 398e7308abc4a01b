"""Masking on a device and unmasking on the coordinator, each beside the floor measured in the same run.

    python -m benchmarks.secagg [--quick] [--json]

The floor is what no pairwise protocol can avoid: one X25519 agreement for each neighbour, and AES-128-CTR
generated and added over the same bytes; key derivation is left out of it. Unmasking and its floor use the
same number of worker processes. Ours and the floor take turns and the best of each counts, so that the
machine's other work cancels.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocol.coordinator_work import ExpandMasks
from runtime.compute import Computer
from secagg import graph, shamir
from secagg.keys import RoundSecrets, Secret
from secagg.pairwise import (
    Expansion,
    PairGroup,
    SelfGroup,
    Work,
    apply,
    self_expansion,
    share_out,
)
from secagg.prg import keystream
from secagg.ring import RingLayout, RingVector

CORRUPT = 0.1
"""Members assumed corrupt when the degree of a sparse graph is chosen."""
TRANSCRIPT = sha256(b"benchmark").digest()
CHUNK = 256 * 1024
SLICE = 4096  # masks in one turn
WORKERS = os.cpu_count() or 1


@dataclass(frozen=True)
class Row:
    """One measurement; the keys of the JSON output."""

    name: str
    n: int
    d: int
    dropout: float
    seconds: float
    floor_seconds: float | None = None
    ratio_to_floor: float | None = None


@dataclass(frozen=True)
class Setting:
    """A cohort of n on a complete or k-regular graph, d parameters of 32 bits, the fraction that drops."""

    n: int
    complete: bool
    d: int
    dropout: float

    @property
    def degree(self) -> int:
        """Neighbours of each device: the sparse graph is the one that stands this dropout."""
        if self.complete:
            return self.n - 1
        return graph.harary_parameters(self.n, CORRUPT, max(self.dropout, 0.05)).degree

    @property
    def layout(self) -> RingLayout:
        """Vectors of the pairwise protocol's widest ring, with eight metrics."""
        return RingLayout(self.d, 32, 8)

    def row(self, what: str, times: "Times") -> Row:
        """Name the measurement after the graph."""
        shape = "complete" if self.complete else "regular"
        ratio = times.ours / times.floor
        return Row(
            f"{what} {shape} k={self.degree}", self.n, self.d, self.dropout, times.ours, times.floor, ratio
        )


@dataclass(frozen=True)
class Times:
    """Best seconds of ours and of the floor."""

    ours: float
    floor: float


class Cohort:
    """Round secrets and public keys of n devices, made once."""

    def __init__(self, n: int) -> None:
        self.names = [f"device-{index}" for index in range(n)]
        self.secrets = {
            name: RoundSecrets.from_master(Secret(sha256(name.encode()).digest())) for name in self.names
        }
        self.publics = {name: secrets.mask_public for name, secrets in self.secrets.items()}

    def pairs(self, name: str, peers: frozenset[str]) -> PairGroup:
        """Return one device's pair masks with some of the others."""
        publics = tuple((peer, self.publics[peer]) for peer in peers)
        return PairGroup(self.secrets[name].mask_private, name, publics, TRANSCRIPT)

    def recovery(self, setting: Setting) -> tuple[set[str], dict[str, frozenset[str]]]:
        """Return who survives, and each vanished device's surviving neighbours."""
        near = graph.neighbours(self.names, setting.degree, TRANSCRIPT)
        dropped = set(self.names[: round(setting.dropout * setting.n)])
        survivors = set(self.names) - dropped
        return survivors, {name: near[name] & survivors for name in dropped}


def floor_work(d: int, agreements: int, expansions: int) -> None:
    """Do a number of agreements and of expansions with additions, and nothing else."""
    private, peer = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    for _ in range(agreements):
        private.exchange(peer)
    total, zeros, buffer = np.zeros(d, "<u4"), bytes(CHUNK), bytearray(CHUNK + 16)
    view, words = memoryview(zeros), np.frombuffer(buffer, "<u4")
    for index in range(expansions):
        stream = Cipher(algorithms.AES(index.to_bytes(16, "big")), modes.CTR(bytes(16))).encryptor()
        for start in range(0, d, CHUNK // 4):
            part = total[start : start + CHUNK // 4]
            stream.update_into(view[: part.nbytes], buffer)
            np.add(part, words[: part.size], out=part)


def alternate(ours: Callable[[], object], floor: Callable[[], object], budget: float) -> Times:
    """Take turns twice, then up to 50 times while the budget of seconds lasts; keep the best of each."""
    best, began = Times(float("inf"), float("inf")), time.perf_counter()
    for turn in range(50):
        best = Times(min(best.ours, seconds(ours)), min(best.floor, seconds(floor)))
        if turn and time.perf_counter() - began > budget:
            break
    return best


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def best_seconds(function: Callable[[], object], calls: int = 1) -> float:
    """Time a call, averaged over some, five times; return the best."""
    return min(seconds(lambda: [function() for _ in range(calls)]) for _ in range(5)) / calls


def mask_row(setting: Setting, cohort: Cohort, budget: float) -> Row:
    """One device masks its update."""
    own = cohort.names[0]
    peers = graph.neighbours_of(own, cohort.names, setting.degree, TRANSCRIPT)
    vector = RingVector.zeros(setting.layout)

    def mask() -> None:
        seed = cohort.secrets[own].self_seed
        apply(vector, [self_expansion(seed, transcript=TRANSCRIPT, device=own)])
        apply(vector, cohort.pairs(own, peers))

    times = alternate(mask, lambda: floor_work(setting.d, len(peers), len(peers) + 1), budget)
    return setting.row("mask", times)


def recovery_work(cohort: Cohort, survivors: set[str], vanished: dict[str, frozenset[str]]) -> list[Work]:
    """Return what the survivors' sum lacks: their own masks inverted, the vanished ones' pair masks."""
    seeds = tuple((name, cohort.secrets[name].self_seed) for name in survivors)
    return [SelfGroup(seeds, TRANSCRIPT), *(cohort.pairs(name, near) for name, near in vanished.items())]


@dataclass(frozen=True)
class FloorWork:
    """A worker's share of what cannot be avoided."""

    d: int
    agreements: int
    expansions: int
    heavy: ClassVar[bool] = True

    def run(self) -> None:
        """Do it."""
        floor_work(self.d, self.agreements, self.expansions)


async def on_every_worker(computer: Computer, work: FloorWork) -> None:
    """Let each worker do this much."""
    await asyncio.gather(*(computer.run(work) for _ in range(WORKERS)))


async def unmask(computer: Computer, layout: RingLayout, work: list[Work]) -> RingVector:
    """Return the sum of all masks, as a coordinator's round does: one part for each worker."""
    total = RingVector.zeros(layout)
    _, masks = count(work)

    async def expand(part: list[Work]) -> None:
        mask = await computer.run(ExpandMasks(layout, tuple(part)))
        if not isinstance(mask, RingVector):
            raise TypeError("not a mask")
        total.add(mask)

    await asyncio.gather(*(expand(part) for part in share_out(work, -(-masks // WORKERS))))
    return total


@contextlib.contextmanager
def warm_computer() -> Iterator[Computer]:
    """The coordinator's own workers, started and at speed."""
    computer = Computer(WORKERS)
    asyncio.run(on_every_worker(computer, FloorWork(10**6, 1, 50)))
    try:
        yield computer
    finally:
        computer.close()


async def longest_stall(work: Awaitable[object]) -> float:
    """Return the longest time in seconds that the event loop kept a ready task waiting meanwhile."""
    longest, nap, done = 0.0, 0.001, asyncio.ensure_future(work)
    while not done.done():
        before = time.perf_counter()
        await asyncio.sleep(nap)
        longest = max(longest, time.perf_counter() - before - nap)
    await done
    return longest


def unmask_row(setting: Setting, cohort: Cohort, computer: Computer, budget: float) -> Row:
    """The coordinator removes all masks, from recovered secrets to the sum.

    Long work is cut in slices, so that ours and the floor take turns within seconds of each other.
    """
    survivors, vanished = cohort.recovery(setting)
    slices = list(share_out(recovery_work(cohort, survivors, vanished), SLICE))
    ours, floor = 0.0, 0.0
    for part in slices:
        agreements, masks = count(part)
        share = FloorWork(setting.d, -(-agreements // WORKERS), -(-masks // WORKERS))
        times = alternate(
            lambda part=part: asyncio.run(unmask(computer, setting.layout, part)),  # type: ignore[misc]
            lambda share=share: asyncio.run(on_every_worker(computer, share)),  # type: ignore[misc]
            budget / len(slices),
        )
        ours, floor = ours + times.ours, floor + times.floor
    return setting.row("unmask", Times(ours, floor))


def count(work: list[Work]) -> tuple[int, int]:
    """Return the agreements and the masks in some work."""
    agreements = sum(len(item) for item in work if isinstance(item, PairGroup))
    return agreements, sum(1 if isinstance(item, Expansion) else len(item) for item in work)


def stall_row(cohort: Cohort, computer: Computer) -> Row:
    """Unmask a million parameters while the event loop watches itself."""
    setting = Setting(len(cohort.names), complete=False, d=1_000_000, dropout=0.05)
    survivors, vanished = cohort.recovery(setting)

    async def watch() -> float:
        work = recovery_work(cohort, survivors, vanished)
        return await longest_stall(unmask(computer, setting.layout, work))

    return Row("longest event-loop stall", setting.n, setting.d, setting.dropout, asyncio.run(watch()))


def signature_rows() -> Iterator[Row]:
    """Ed25519, once for each frame sent and received."""
    key = Ed25519PrivateKey.generate()
    public, message = key.public_key(), bytes(100)
    signature = key.sign(message)
    yield Row("Ed25519 sign", 1, 0, 0.0, best_seconds(partial(key.sign, message), calls=200))
    verify = partial(public.verify, signature, message)
    yield Row("Ed25519 verify", 1, 0, 0.0, best_seconds(verify, calls=200))


def shamir_rows() -> Iterator[Row]:
    """Splitting on a device, and combining a thousand secrets from different subsets on the coordinator."""
    secret, stream_key = (Secret(sha256(name).digest()) for name in (b"secret", b"stream"))
    rng = np.random.default_rng(1)
    for degree, threshold in ((99, 67), (132, 97), (999, 667)):
        points = range(1, degree + 1)
        split = partial(shamir.split, secret, threshold=threshold, points=points, stream_key=stream_key)
        yield Row(f"Shamir split t={threshold}", degree, 0, 0.0, best_seconds(split))
        if degree > 200:
            continue
        shares = split()
        given = [
            {int(point): shares[int(point)] for point in rng.permutation(points)[:threshold]}
            for _ in range(1000)
        ]
        best = best_seconds(partial(shamir.combine_many, given, threshold))
        yield Row(f"Shamir combine 1000 secrets t={threshold}", degree, 0, 0.0, best)


def peak_growth(n: int, d: int) -> int:
    """Return by how many bytes this process's memory grows, at its peak, over a round with n uploads."""
    setting, cohort = Setting(n, complete=False, d=d, dropout=0.05), Cohort(n)
    survivors, vanished = cohort.recovery(setting)
    with warm_computer() as computer:
        before = memory_bytes("VmRSS")
        total = RingVector.zeros(setting.layout)
        for index, _ in enumerate(survivors):
            upload = keystream(Secret(index.to_bytes(16, "big")), setting.layout.packed_size)
            total.add(RingVector.unpack(setting.layout, upload))
        work = recovery_work(cohort, survivors, vanished)
        total.add(asyncio.run(unmask(computer, setting.layout, work)))
        return memory_bytes("VmHWM") - before


def memory_bytes(field: str) -> int:
    """Read a field of this process's memory from Linux; getrusage would count the parent's before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith(field)]
    return 1024 * int(line.split()[1])


def settings(*, quick: bool) -> Iterator[Setting]:
    """Yield the grid; the quick one leaves out what takes more than some seconds."""
    for n in (100, 1000):
        for complete in (True, False):
            for d in (100_000, 1_000_000):
                for dropout in (0.0, 0.05, 0.3):
                    large = n == 1000 and dropout > 0 and (complete or dropout > 0.05 or d > 100_000)
                    if not (quick and large):
                        yield Setting(n, complete, d, dropout)


def measure(*, quick: bool) -> Iterator[Row]:
    """Yield all rows as they are measured."""
    budget = 0.4 if quick else 4.0
    cohorts = {n: Cohort(n) for n in (100, 1000)}
    with warm_computer() as computer:
        for setting in settings(quick=quick):
            cohort = cohorts[setting.n]
            if setting.dropout == 0:
                yield mask_row(setting, cohort, budget)
            yield unmask_row(setting, cohort, computer, budget)
        yield stall_row(cohorts[1000], computer)
    yield from signature_rows()
    yield from shamir_rows()


def show(row: Row) -> str:
    """Return one line of the table."""
    text = f"{row.name:<34}{row.n:>6}{row.d:>9}{row.dropout:>6.0%}{1e3 * row.seconds:>12.3f} ms"
    if row.floor_seconds is None:
        return text
    return f"{text}{1e3 * row.floor_seconds:>12.3f} ms{row.ratio_to_floor:>7.2f}"


def show_memory() -> None:
    """Print how far the coordinator's peak memory grows, each in a process of its own."""
    for n in (100, 1000):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            growth = pool.submit(peak_growth, n, 1_000_000).result()
        print(f"coordinator's peak memory growth, n = {n}, d = 1000000: {growth / 2**20:.1f} MiB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secagg", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 40 s; without the largest settings")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    rows = []
    if not options.json:
        print(f"{WORKERS} workers; columns: n, d, dropout, ours, floor, ratio")
    for row in measure(quick=options.quick):
        rows.append(row)
        if not options.json:
            print(show(row), flush=True)
    if options.json:
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows]}) + "\n")
    else:
        show_memory()


if __name__ == "__main__":
    main()
