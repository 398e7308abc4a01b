"""Writes noise.json: manifests with noise, what they cost, and the rotation that their rounds have in common.

A third implementation that shares no code with `privacy` and `protocol`: costs in decimals of 50 digits.

Run `python tests/vectors/make_noise.py > tests/vectors/noise.json` after a deliberate change of the protocol.
"""

import json
import math
import sys
from decimal import Decimal, localcontext
from typing import Any

import msgpack  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from make_transcript import blob, digest, manifest

PI = Decimal("3.14159265358979323846264338327950288419716939937510")
NOISE: dict[str, Any] = {
    "mode": "distributed", "scale": 40.0, "sigma_parts": 150 * 2**16, "metrics_half": 1000,
    "metrics_sigma_parts": 3000 * 2**16 + 1, "spacing": 1, "participations": 10, "epsilon": 1e300,
    "delta": 1e-6,
}  # fmt: skip
SMALL = {"fraction": 0.25, "fewest": 3, "most": 8, "honest": 3}
LARGE = {"fraction": 0.29, "fewest": 100, "most": 200, "honest": 71}
"""29 of 100 may be corrupt, though 0.29 * 100 is below 29 in float 64."""


def cases() -> dict[str, Any]:
    distributed = [
        case("every coordinate travels", 5, 1.0, SMALL),
        case("a window of 19 in 37", 37, 0.5, SMALL),
        case("as many coordinates as a power of two", 16, 1.0, SMALL),
        case("noise so small that its sum is far from one discrete Gaussian", 37, 0.5, SMALL, **coarse(0.5)),
        case("and where the other bound is the smaller", 37, 1.0, SMALL, **coarse(0.75), scale=0.01),
        case("a part whose decimals count", 37, 1.0, LARGE),
        case("many rounds, a tiny delta", 37, 1.0, SMALL, participations=10_000, delta=1e-100),
    ]
    central = case("added by the coordinator", 37, 1.0, SMALL, mode="central")
    label = float(Decimal(distributed[0]["epsilon"]))
    return {
        "costs": [*distributed, central],
        "accepted": [labelled("the very label", label)],
        "refused": [
            labelled("a label too low", label * (1 - 1e-4)),
            labelled("a label for fewer rounds", label, participations=11),
            labelled("integers beyond 32 bits", 1e300, scale=2.0**31),
        ],
    }


def coarse(sigma: float) -> dict[str, Any]:
    return {"sigma_parts": int(sigma * 2**16), "metrics_sigma_parts": int(sigma * 2**16), "metrics_half": 1}


def body_of(size: int, sketch: float, cohort: dict[str, Any], noise: dict[str, Any]) -> bytes:
    fields = manifest()
    fields[7], fields[11:14] = blob(bytes(4 * size)), [noise, cohort["fewest"], cohort["most"]]
    fields[10] = fields[10] | {"bits": 16, "sketch": sketch, "corrupt_fraction": cohort["fraction"]}
    packed: bytes = msgpack.packb(fields)
    return packed


def labelled(why: str, epsilon: float, **changes: Any) -> dict[str, str]:
    return {"why": why, "body": body_of(5, 1.0, SMALL, NOISE | {"epsilon": epsilon} | changes).hex()}


def case(why: str, size: int, sketch: float, cohort: dict[str, Any], **changes: Any) -> dict[str, Any]:
    noise = NOISE | changes
    body, width = body_of(size, sketch, cohort, noise), math.ceil(sketch * size)
    t0 = digest(b"fedfleet/1/transcript/manifest", digest(body))
    layer = math.ceil(size / 8)
    drawn = public_stream(t0, 8 + 4 * layer)
    bound = Decimal(noise["scale"]) * 10  # the clip
    longest = math.floor(bound**2 + Decimal(width) / 4 + bound + Decimal(width).sqrt() / 2)
    with localcontext(prec=50):
        honest = cohort["honest"] if noise["mode"] == "distributed" else 1
        rho = block(longest, noise["sigma_parts"], honest, width)
        rho += block(3 * noise["metrics_half"] ** 2, noise["metrics_sigma_parts"], honest, 3)
        epsilon = converted(rho * noise["participations"], Decimal(noise["delta"]))
    return {
        "why": why, "body": body.hex(), "transcript": t0.hex(), "width": width,
        "start": int.from_bytes(drawn[:8], "little") % size, "signs": drawn[8:].hex(),
        "longest": longest, "rho": f"{rho:.20e}", "epsilon": f"{epsilon:.20e}",
    }  # fmt: skip


def public_stream(t0: bytes, size: int) -> bytes:
    label = b"fedfleet/1/rotation"
    key = digest(len(label).to_bytes(4, "big"), label, len(t0).to_bytes(4, "big"), t0)
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def block(squared: int, sigma_parts: int, honest: int, width: int) -> Decimal:
    """Proposition 14 of Kairouz, Liu, Steinke 2021 (arXiv 2102.06387)."""
    honest = honest if sigma_parts >= 2**15 else 1  # where the proposition holds
    variance = (Decimal(sigma_parts) / 2**16) ** 2
    terms = ((-2 * PI**2 * variance * j / (j + 1)).exp() for j in range(1, honest))
    tau = 10 * sum(terms, Decimal(0))
    ratio = squared / (honest * variance)
    return min(ratio / 2 + tau * width, (ratio.sqrt() + tau * Decimal(width).sqrt()) ** 2 / 2)


def converted(rho: Decimal, delta: Decimal) -> Decimal:
    """Proposition 12 of Canonne, Kamath, Steinke 2020 (arXiv 2004.00010): by thirds, as it has one valley."""

    def cost(x: Decimal) -> Decimal:
        return rho * (1 + x) + (x / (1 + x)).ln() - (delta * (1 + x)).ln() / x

    low, high = Decimal("1e-30"), 1 / delta
    for _ in range(700):
        third, other = (low * low * high) ** (1 / Decimal(3)), (low * high * high) ** (1 / Decimal(3))
        low, high = (low, other) if cost(third) < cost(other) else (third, high)
    return max(cost(low), Decimal(0))


if __name__ == "__main__":
    json.dump(cases(), sys.stdout, indent=1)
    sys.stdout.write("\n")
