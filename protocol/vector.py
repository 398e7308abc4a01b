"""The vector that travels: which encoding and which blocks a manifest implies."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from privacy.blocks import Block, PlainBlock, RotatedBlock, kept_of, rotated_scale
from privacy.encoding import UpdateEncoding
from privacy.errors import QuantizationError
from privacy.noised_update import NoisedEncoding
from privacy.weighted_update import WeightedEncoding
from protocol.messages import Manifest, Noise, encode
from protocol.transcript import begin
from secagg import keys
from secagg.keys import Secret
from secagg.prg import keystream
from secagg.ring import RingLayout

_FLOAT = np.dtype("<f4")
_WIDEST = 32


def encoding_of(manifest: Manifest) -> UpdateEncoding:
    """The rule by which a manifest has vectors written and sums read.

    Raises:
        QuantizationError: bits, clip, scale and max_cohort do not fit one another.
    """
    noise, settings = manifest.noise, manifest.training
    if noise is None:
        block = _block_of(manifest)
        return WeightedEncoding(block, manifest.max_cohort, settings.max_examples, settings.loss_ceiling)
    return noised_encoding(manifest, noise)


def noised_encoding(manifest: Manifest, noise: Noise) -> NoisedEncoding:
    """The rule under differential privacy; raises as `encoding_of`."""
    return NoisedEncoding(
        block=_rotated(manifest, noise.scale),
        mode=noise.mode,
        sigma_parts=noise.sigma_parts,
        metrics_half=noise.metrics_half,
        metrics_sigma_parts=noise.metrics_sigma_parts,
        max_members=manifest.max_cohort,
        loss_ceiling=manifest.training.loss_ceiling,
    )


def layout_of(encoding: UpdateEncoding) -> RingLayout:
    """The masked vector's blocks."""
    return RingLayout(encoding.block_size, encoding.block.bits, encoding.metrics_size)


def update_size(manifest: Manifest) -> int:
    """Parameters of the model."""
    return manifest.weights.size // _FLOAT.itemsize


def _block_of(manifest: Manifest) -> Block:
    settings, size = manifest.secure_aggregation, update_size(manifest)
    bits = _bits_of(manifest)
    if bits < _WIDEST:
        return _rotated(manifest, rotated_scale(bits, settings.clip, manifest.max_cohort, size))
    limit = min(settings.coordinate_limit or settings.clip, settings.clip)
    return PlainBlock(size, bits, settings.clip, limit, manifest.max_cohort)


def _rotated(manifest: Manifest, scale: float) -> RotatedBlock:
    settings, size = manifest.secure_aggregation, update_size(manifest)
    if not size:
        raise QuantizationError("a model without parameters cannot be rotated")
    return RotatedBlock(
        size=size,
        kept=kept_of(size, settings.sketch),
        bits=_bits_of(manifest),
        clip=settings.clip,
        scale=scale,
        public_bytes=_RoundBytes(manifest),
    )


def _bits_of(manifest: Manifest) -> int:
    bits = manifest.secure_aggregation.bits
    if bits is None:
        raise QuantizationError("the manifest does not say how many bits a parameter has")
    return bits


@dataclass(frozen=True)
class _RoundBytes:
    """The round's public bytes: AES-256 in counter mode, its key a hash of the round's context T0."""

    manifest: Manifest

    def __call__(self, count: int) -> bytes:
        context = begin(encode(self.manifest))
        key = sha256(keys.encode(b"fedfleet/1/rotation", context)).digest()
        return keystream(Secret(key), count)
