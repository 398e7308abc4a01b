"""What a second device sends, written from "Ring and vector" and "What noise costs" in PROTOCOL.md alone.

Top-down: the vector, masks and wire, rotation, noise and its cost, primitives. Noise is drawn in plain
integers, a coordinate at a time: exact and slow.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Message = dict[str, Any]
Words = NDArray[np.unsignedinteger[Any]]
Integers: TypeAlias = NDArray[np.int64]
Reals: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """What training leaves: trained minus received weights, and what was counted on the way."""

    delta: NDArray[np.float32]
    examples: int
    evaluated: int
    loss_sum: float
    correct: int


# The vector.


def is_rotated(manifest: Message) -> bool:
    return bool(manifest["noise"] or manifest["secure_aggregation"]["bits"] < 32)


def parameters_of(manifest: Message) -> int:
    return int(manifest["weights"][1]) // 4


def width(manifest: Message) -> int:
    """u: coordinates of the update block."""
    size, secure = parameters_of(manifest), manifest["secure_aggregation"]
    return min(math.ceil(secure["sketch"] * size), size) if is_rotated(manifest) else size


def limit(secure: Message) -> float:
    return float(min(secure["coordinate_limit"] or secure["clip"], secure["clip"]))


def scale(manifest: Message) -> float:
    """s: levels per unit of the weights; 0 where the ring has no room."""
    secure, n = manifest["secure_aggregation"], manifest["max_cohort"]
    if manifest["noise"]:
        return float(manifest["noise"]["scale"])
    if not is_rotated(manifest):
        return float(((2 ** (secure["bits"] - 1) - 1) / n - 1) / limit(secure))
    room = (2 ** (secure["bits"] - 1) / 6) ** 2 - n / 4
    levels = math.sqrt(max(room, 0.0) * hadamard_size(parameters_of(manifest))) / n
    return float(min(levels, 2.0**30) / secure["clip"])


def fits(manifest: Message) -> bool:
    secure, n = manifest["secure_aggregation"], manifest["max_cohort"]
    levels = float(scale(manifest) * secure["clip"])
    if manifest["noise"]:
        return levels > 0 and longest(manifest) <= (2**31 - 4) ** 2
    if is_rotated(manifest):
        return levels >= max(1.0, math.sqrt(parameters_of(manifest) / (6 * n)))
    return scale(manifest) * limit(secure) >= 8


def encode(trained: Trained, manifest: Message, t0: bytes, encoding_key: bytes) -> tuple[Words, Words]:
    """Metrics words and update words, each block with its four zeros."""
    secure, noise, draws = manifest["secure_aggregation"], manifest["noise"], Stream(encoding_key)
    delta, cap = trained.delta.astype(np.float64), manifest["training"]["max_examples"]
    norm = float(np.linalg.norm(delta))
    if not noise and not math.isfinite(norm + trained.loss_sum):
        raise ValueError("an update or a loss that is not finite")
    if not math.isfinite(norm):
        delta, norm = np.zeros_like(delta), math.inf
    clipped, weight, cut = norm > secure["clip"], min(trained.examples, cap) / cap, 0.0
    delta *= secure["clip"] / norm if clipped else 1.0  # 0 of an infinite one
    if is_rotated(manifest):
        update = rotated_words(delta * (1.0 if noise else weight), manifest, t0, draws)
    else:
        bound = limit(secure)
        cut = float(np.mean(np.abs(delta) > bound))
        update = rounded(np.clip(delta, -bound, bound) * (weight * scale(manifest)), draws)
    metrics = metrics_words(trained, manifest, weight, float(clipped), cut)
    if noise and noise["mode"] == "distributed":
        update += discrete_gaussians(update.size, noise["sigma_parts"], draws)
        metrics += discrete_gaussians(metrics.size, noise["metrics_sigma_parts"], draws)
    word = "<u1" if secure["bits"] <= 8 else "<u2" if secure["bits"] <= 16 else "<u4"
    return with_zeros(metrics).astype("<u4"), with_zeros(update).astype(word)


def with_zeros(words: Integers) -> Integers:
    return np.append(words, np.zeros(4, np.int64))


def rounded(values: Reals, draws: "Stream") -> Integers:
    """Down, or up with the chance that makes it right on average."""
    uniform = np.frombuffer(draws.read(4 * values.size), "<u4") / 2.0**32
    return integers(np.floor(values + uniform))


def integers(values: Reals) -> Integers:
    return values.astype(np.int64)


def rotated_words(delta: Reals, manifest: Message, t0: bytes, draws: "Stream") -> Integers:
    """The window of the rotated update, rounded until it is no longer than N allows; zeros if it never is."""
    values = scale(manifest) * rotate(delta, rotation(t0, delta.size)[1])[window_of(manifest, t0)]
    for _ in range(65):
        words = rounded(values, draws)
        if sum(word**2 for word in words.tolist()) <= longest(manifest):
            return words
    return np.zeros(values.size, np.int64)


def window_of(manifest: Message, t0: bytes) -> Integers:
    """Which rotated coordinates travel; all of them in their order, where all do."""
    d, u = parameters_of(manifest), width(manifest)
    start = rotation(t0, d)[0] if u < d else 0
    return np.arange(start, start + u) % d


def longest(manifest: Message) -> int:
    """N: the most that the squares of one device's words may add up to."""
    c, u = scale(manifest) * float(manifest["secure_aggregation"]["clip"]), width(manifest)
    return math.floor(c * c + u / 4 + c + math.sqrt(u) / 2)


def metrics_words(trained: Trained, manifest: Message, weight: float, clipped: float, cut: float) -> Integers:
    """Three centred values under noise, else six of which each member's share of the ring is the unit."""
    if manifest["noise"]:
        values, unit = [*noised_values(trained, manifest), clipped], manifest["noise"]["metrics_half"]
        return integers(np.rint((2 * np.clip(values, 0.0, 1.0) - 1) * unit))
    count = max(trained.evaluated, manifest["training"]["max_examples"])
    loss = min(max(trained.loss_sum / manifest["training"]["loss_ceiling"], 0.0), trained.evaluated)
    values = [weight, trained.evaluated / count, loss / count, trained.correct / count, clipped, cut]
    return integers(np.rint(np.array(values) * ((2**31 - 1) // manifest["max_cohort"] - 1)))


def noised_values(trained: Trained, manifest: Message) -> tuple[float, float]:
    """Mean loss, as part of the ceiling, and accuracy."""
    if not trained.evaluated:
        return 0.5, 0.5
    loss = trained.loss_sum if math.isfinite(trained.loss_sum) else math.inf
    return loss / manifest["training"][
        "loss_ceiling"
    ] / trained.evaluated, trained.correct / trained.evaluated


def add_mask(vector: Sequence[Words], key: bytes, *, adding: bool) -> None:
    """Add or subtract a mask's stream, read as words of each block's width, in place."""
    metrics, update = vector
    mask = stream(key, metrics.nbytes + update.nbytes)
    for block, words in ((metrics, mask[: metrics.nbytes]), (update, mask[metrics.nbytes :])):
        (np.add if adding else np.subtract)(block, np.frombuffer(words, block.dtype), out=block)


def pack(metrics: Words, update: Words, bits: int) -> bytes:
    """The bytes on the wire: the least significant bit of the first word first."""
    planes = update.astype(np.uint32)[:, None] >> np.arange(bits, dtype=np.uint32) & 1
    return metrics.tobytes() + np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()


# Rotation.


def hadamard_size(d: int) -> int:
    return int(2 ** (d.bit_length() - 1))


def rotation(t0: bytes, d: int) -> tuple[int, Integers]:
    """Where the window starts, and for each of four layers ±1 for each coordinate."""
    public_stream, layer = Stream(H(E("fedfleet/1/rotation", t0))), -(-d // 8)
    start = int.from_bytes(public_stream.read(8), "little") % d
    drawn = np.frombuffer(public_stream.read(4 * layer), np.uint8).reshape(4, layer)
    bits = np.unpackbits(drawn, axis=1, count=d, bitorder="little")
    return start, 1 - 2 * bits.astype(np.int64)


def rotate(values: Reals, signs: Integers) -> Reals:
    """R: signs and a Hadamard matrix over the first coordinates, then over the last, and both again."""
    size = hadamard_size(values.size)
    for layer, layer_signs in enumerate(signs):
        values = values * layer_signs
        part = slice(size) if layer % 2 == 0 else slice(values.size - size, None)
        values[part] = hadamard(values[part])
    return values


def hadamard(values: Reals) -> Reals:
    """H_D by halves: [[H, H], [H, -H]] / sqrt 2."""
    if values.size == 1:
        return values
    low, high = hadamard(values[: values.size // 2]), hadamard(values[values.size // 2 :])
    return np.concatenate([low + high, low - high]) / math.sqrt(2)


# Noise and what it costs.


def discrete_gaussians(count: int, sigma_parts: int, draws: "Stream") -> Integers:
    return np.array([discrete_gaussian(sigma_parts, draws) for _ in range(count)], np.int64)


def discrete_gaussian(sigma_parts: int, draws: "Stream") -> int:
    """Exact, in integers alone (Canonne, Kamath, Steinke 2020, Algorithm 3); sigma is parts / 2^16."""
    variance, one = sigma_parts**2, 2**32  # of which the quotient is sigma^2
    t = math.isqrt(variance // one) + 1
    while True:
        proposed = discrete_laplace(t, draws)
        # exp of -(|y| - sigma^2 / t)^2 / (2 sigma^2), both sides of the fraction times (t one)^2 / one
        if happens_exp((abs(proposed) * t * one - variance) ** 2, 2 * variance * t * t * one, draws):
            return proposed


def discrete_laplace(t: int, draws: "Stream") -> int:
    """Probability proportional to exp(-|x|/t): a remainder, how often t, a sign (their Algorithm 2)."""
    while True:
        remainder = draws.below(t)
        if not happens_exp(remainder, t, draws):
            continue
        times = 0
        while happens_exp(1, 1, draws):
            times += 1
        size, negative = remainder + t * times, draws.below(2) == 1
        if size or not negative:  # or zero would come twice as often
            return -size if negative else size


def happens_exp(over: int, under: int, draws: "Stream") -> bool:
    """With probability exp(-over/under): its series, cut where it first fails (their Algorithm 1)."""
    whole, over = divmod(over, under)
    if any(not happens_exp_below_one(1, 1, draws) for _ in range(whole)):
        return False
    return happens_exp_below_one(over, under, draws)


def happens_exp_below_one(over: int, under: int, draws: "Stream") -> bool:
    terms = 1
    while draws.below(under * terms) < over:
        terms += 1
    return terms % 2 == 1


def corrupt_of(secure: Message, n: int) -> int:
    return math.floor(Fraction(repr(secure["corrupt_fraction"])) * n)


def certain(manifest: Message) -> int:
    """m: how many honest noises are sure to be in the sum."""
    if manifest["noise"]["mode"] == "central":
        return 1
    return int(manifest["min_cohort"]) - corrupt_of(manifest["secure_aggregation"], manifest["min_cohort"])


def enough_for_noise(manifest: Message, n: int) -> int:
    """Members of share set and survivor set that make those noises certain, in a cohort of n."""
    if not manifest["noise"] or manifest["noise"]["mode"] == "central":
        return 0
    return certain(manifest) + corrupt_of(manifest["secure_aggregation"], n)


def cost(manifest: Message) -> float:
    """In zCDP, of one round."""
    noise, m = manifest["noise"], certain(manifest)
    update = block_cost(longest(manifest), noise["sigma_parts"], m, width(manifest))
    return update + block_cost(3 * noise["metrics_half"] ** 2, noise["metrics_sigma_parts"], m, 3)


def block_cost(squared: int, sigma_parts: int, m: int, k: int) -> float:
    """In zCDP: k coordinates of a squared sensitivity, under the sum of m discrete Gaussians each."""
    variance = (sigma_parts / 2**16) ** 2
    m = m if sigma_parts >= 2**15 else 1
    tau = 10 * math.fsum(math.exp(-2 * math.pi**2 * variance * j / (j + 1)) for j in range(1, m))
    apart, together = squared / (2 * m * variance) + tau * k, math.sqrt(squared / m / variance)
    return min(apart, (together + tau * math.sqrt(k)) ** 2 / 2)


def epsilon(rho: float, delta: float) -> float:
    """By the best order a: bisection for the root of the derivative, rho + ln(delta a) / (a - 1)^2."""
    low, high = -100.0, -math.log(delta)  # of ln(a - 1)
    for _ in range(200):
        middle = (low + high) / 2
        rises = rho * math.exp(2 * middle) + math.log(delta) + math.log1p(math.exp(middle)) > 0
        low, high = (low, middle) if rises else (middle, high)
    x = math.exp(high)
    return rho * (1 + x) + high - math.log1p(x) - (math.log(delta) + math.log1p(x)) / x


# Primitives.


def H(data: bytes) -> bytes:  # noqa: N802 - the protocol's letters, as E below
    return hashlib.sha256(data).digest()


def E(*parts: bytes | str) -> bytes:  # noqa: N802
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in raw)


def stream(key: bytes, size: int) -> bytes:
    return Stream(key).read(size)


class Stream:
    """AES-CTR from a first block of zeros, read on and on."""

    def __init__(self, key: bytes) -> None:
        self.read_on = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update

    def read(self, size: int) -> bytes:
        return self.read_on(bytes(size))

    def below(self, n: int) -> int:
        """A uniform integer in [0, n)."""
        while True:
            drawn = int.from_bytes(self.read((n.bit_length() + 7) // 8), "big") >> -n.bit_length() % 8
            if drawn < n:
                return drawn
