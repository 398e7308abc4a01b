"""A whole round of secure aggregation beside Flower's SecAgg+, in one process each: total CPU time.

    python -m benchmarks.flower --prepare          makes the environment that holds flwr, once
    python -m benchmarks.flower [--json] [--flower-python PATH]

Both sides quantise, make and agree keys, share and seal secrets, mask, sum, recover what vanished and
unmask, for 32 devices, 100,000 parameters, and 0 or 9 devices that drop after sharing. Flower signs
nothing, so our signatures are counted apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from privacy.quantization import dequantize, quantize, scale_for
from secagg import graph, shamir
from secagg.keys import RoundSecrets, Secret, derive, public_key, seed_commitment
from secagg.pairwise import PairGroup, SelfGroup, Work, apply, expand_into, self_expansion
from secagg.prg import Keystream
from secagg.ring import RingLayout, RingVector
from secagg.sealing import Channel, open_channel

FLOWER = "flwr==1.41.0"
ENVIRONMENT = Path(tempfile.gettempdir()) / "fedfleet-benchmark-flower"
DEVICES, SIZE, BITS, CLIP = 32, 100_000, 32, 8.0
REPEATS = 3
"""Turns: Flower once, at ten seconds, then ours."""
OUR_REPEATS = 5
"""Of ours in each turn: a sixth of a second each, so that some run undisturbed."""
CORRUPT = 1 / 3
FLOWER_THRESHOLD = 22
LAYOUT = RingLayout(SIZE, BITS, 8)
SCALE = scale_for(BITS, CLIP, DEVICES)
T1, T2 = sha256(b"T1").digest(), sha256(b"T2").digest()

Update = NDArray[np.float32]


@dataclass(frozen=True)
class PublicKeys:
    """What a device says of itself: 32 bytes each."""

    mask: bytes
    seal: bytes


@dataclass
class Device:
    """One device's part of the round."""

    name: str
    secrets: RoundSecrets
    channels: dict[str, Channel] = field(default_factory=dict)
    received: dict[str, bytes] = field(default_factory=dict)

    def public(self) -> PublicKeys:
        """Phase keying."""
        return PublicKeys(self.secrets.mask_public, self.secrets.seal_public)

    def share(self, cohort: Mapping[str, PublicKeys]) -> tuple[dict[str, bytes], bytes]:
        """Phase sharing: a sealed message for each neighbour, and the commitment to the seed."""
        rule = graph.parameters(len(cohort), CORRUPT, 0.0)
        near = sorted(graph.neighbours_of(self.name, list(cohort), rule.degree, T1))
        secrets = [
            (self.secrets.self_seed, self._stream_key(b"self-seed")),
            (self.secrets.mask_private, self._stream_key(b"mask-private")),
        ]
        shares = shamir.split_many(secrets, threshold=rule.threshold, points=points(near))
        for peer in near:
            self.channels[peer] = open_channel(
                self.secrets.seal_private, cohort[peer].seal, transcript=T1, own=self.name, peer=peer
            )
        sealed = {
            peer: self.channels[peer].seal(shares[point])
            for peer, point in zip(near, points(near), strict=True)
        }
        return sealed, seed_commitment(T1, self.name, self.secrets.self_seed)

    def _stream_key(self, use: bytes) -> Secret:
        return derive(self.secrets.share_key, salt=T1, label=b"benchmark/" + use)

    def open(self, sealed: Mapping[str, bytes]) -> None:
        """Keep the neighbours' shares."""
        self.received = {peer: self.channels[peer].open_sealed(message) for peer, message in sealed.items()}

    def upload(self, update: Update, cohort: Mapping[str, PublicKeys]) -> bytes:
        """Phase collecting: quantise, mask, pack."""
        rounding = derive(self.secrets.encoding_key, salt=T2, label=b"benchmark/rounding", length=16)
        rounded = quantize(np.clip(update, -CLIP, CLIP), SCALE, Keystream(rounding).read)
        vector = RingVector.from_signed(LAYOUT, np.zeros(LAYOUT.metrics_size, np.int64), rounded)
        peers = tuple((peer, cohort[peer].mask) for peer in self.received)
        own = self_expansion(self.secrets.self_seed, transcript=T2, device=self.name)
        apply(vector, (own, *PairGroup(self.secrets.mask_private, self.name, peers, T2)))
        return vector.pack()

    def reveal(self, survivors: set[str]) -> dict[str, bytes]:
        """Phase recovering: one share of each neighbour, of the seed or of the key."""
        half = shamir.SHARE_SIZE
        return {
            peer: shares[:half] if peer in survivors else shares[half:]
            for peer, shares in self.received.items()
        }


def points(near: list[str]) -> range:
    """Return where the polynomials are evaluated for neighbours in order of their names."""
    return range(1, len(near) + 1)


def run(updates: Mapping[str, Update], dropped: set[str]) -> NDArray[np.float64]:
    """Return the sum of the updates of those that did not drop."""
    devices = {
        name: Device(name, RoundSecrets.from_master(Secret(sha256(name.encode()).digest())))
        for name in updates
    }
    cohort = {name: device.public() for name, device in devices.items()}
    shared = {name: device.share(cohort) for name, device in devices.items()}
    for name, device in devices.items():
        device.open({peer: sealed[name] for peer, (sealed, _) in shared.items() if name in sealed})
    total, survivors = RingVector.zeros(LAYOUT), updates.keys() - dropped
    for name in survivors:
        total.add(RingVector.unpack(LAYOUT, devices[name].upload(updates[name], cohort)))
    secrets = recover({name: devices[name].reveal(survivors) for name in survivors}, list(updates))
    for name, secret in secrets.items():
        if name in survivors:
            check(seed_commitment(T1, name, secret) == shared[name][1])
        else:
            check(public_key(secret) == cohort[name].mask)
    expand_into(total, unmasking(secrets, survivors, cohort))
    return dequantize(total.signed_update(), SCALE)


def recover(revealed: Mapping[str, Mapping[str, bytes]], names: list[str]) -> dict[str, Secret]:
    """Combine the shares of each device's secret."""
    threshold = graph.parameters(len(names), CORRUPT, 0.0).threshold
    shares = []
    for owner in names:
        near = sorted(name for name in names if name != owner)
        held = zip(near, points(near), strict=True)
        shares.append({point: revealed[peer][owner] for peer, point in held if peer in revealed})
    secrets = shamir.combine_many(shares, threshold)
    return {name: secret for name, secret in zip(names, secrets, strict=True) if secret is not None}


def unmasking(
    secrets: Mapping[str, Secret], survivors: set[str], cohort: Mapping[str, PublicKeys]
) -> list[Work]:
    """Return what the survivors' sum lacks."""
    publics = tuple((name, cohort[name].mask) for name in survivors)
    seeds = tuple((name, secrets[name]) for name in survivors)
    vanished = secrets.keys() - survivors
    return [SelfGroup(seeds, T2), *(PairGroup(secrets[name], name, publics, T2) for name in vanished)]


def check(right: bool) -> None:  # noqa: FBT001 (it is the condition itself)
    """Stop the benchmark when a result is wrong."""
    if not right:
        raise SystemExit("the round went wrong: the times would mean nothing")


def signatures(survivors: int) -> None:
    """Sign and verify all that a round of the protocol signs.

    Each device signs its keys, shares, upload and confirmation; each checks the coordinator's manifest,
    cohort, share set and survivor set, the others' keys and their confirmations; the coordinator checks
    what devices sign.
    """
    key, message = Ed25519PrivateKey.generate(), bytes(100)
    public, signature = key.public_key(), key.sign(message)
    for _ in range(2 * DEVICES + 2 * survivors + 4):
        key.sign(message)
    by_devices = DEVICES * (DEVICES - 1 + 3) + survivors * survivors
    for _ in range(by_devices + 2 * DEVICES + 2 * survivors):
        public.verify(signature, message)


def cpu_seconds(dropped: int) -> tuple[float, float]:
    """Return our best CPU seconds without signatures, and those of the signatures."""
    rng = np.random.default_rng(1)
    updates = {f"device-{index:02}": rng.uniform(-1, 1, SIZE).astype(np.float32) for index in range(DEVICES)}
    lost = set(list(updates)[:dropped])
    expected = np.sum(
        [update for name, update in updates.items() if name not in lost], axis=0, dtype=np.float64
    )
    best = [float("inf"), float("inf")]
    for _ in range(OUR_REPEATS):
        start = time.process_time()
        found = run(updates, lost)
        middle = time.process_time()
        signatures(DEVICES - dropped)
        best = [min(best[0], middle - start), min(best[1], time.process_time() - middle)]
        check(float(np.abs(found - expected).max()) < DEVICES / SCALE)
    return best[0], best[1]


def flower_cpu_seconds(python: Path, dropped: int) -> float:
    """Return Flower's CPU seconds; its driver checks nothing, so the sum's error is checked here."""
    driver = Path(__file__).with_name("_flower_secaggplus.py")
    arguments = [str(number) for number in (DEVICES, SIZE, dropped, FLOWER_THRESHOLD)]
    done = subprocess.run([python, driver, *arguments], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    check(result["largest_error"] < 1e-3)
    return float(result["cpu_seconds"])


def prepare() -> None:
    """Make the environment."""
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", FLOWER], check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flower", description=__doc__.splitlines()[0])
    parser.add_argument("--prepare", action="store_true", help=f"install {FLOWER} in {ENVIRONMENT} and stop")
    parser.add_argument("--flower-python", type=Path, default=ENVIRONMENT / "bin" / "python")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    if options.prepare:
        prepare()
        return
    if not options.flower_python.exists():
        parser.error(f"{options.flower_python} does not exist: run with --prepare first")
    rows = [row(options.flower_python, dropped) for dropped in (0, 9)]
    if options.json:
        sys.stdout.write(json.dumps({"rows": rows}) + "\n")
        return
    print(f"{DEVICES} devices, {SIZE} parameters; total CPU seconds, all threads, user and system")
    for each in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in each.items()))


def row(python: Path, dropped: int) -> dict[str, float]:
    """Measure both sides in turns, so that both see the machine at its best; the best of each counts."""
    turns = [(flower_cpu_seconds(python, dropped), *cpu_seconds(dropped)) for _ in range(REPEATS)]
    theirs, ours, signing = map(min, zip(*turns, strict=True))
    return {
        "dropped": dropped,
        "flower_seconds": theirs,
        "seconds": ours,
        "signature_seconds": signing,
        "ratio": theirs / ours,
        "ratio_with_signatures": theirs / (ours + signing),
    }


if __name__ == "__main__":
    main()
