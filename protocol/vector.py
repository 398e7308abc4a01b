"""The vector that travels: which fixed point and which blocks a manifest implies."""

import numpy as np

from privacy.update import UpdateEncoding
from protocol.messages import Manifest
from secagg.ring import RingLayout

_FLOAT = np.dtype("<f4")


def encoding_of(manifest: Manifest) -> UpdateEncoding:
    """The fixed-point rule that a manifest implies.

    Raises:
        QuantizationError: bits, clip and max_cohort do not fit one another.
    """
    settings = manifest.secure_aggregation
    return UpdateEncoding(
        update_size=manifest.weights.size // _FLOAT.itemsize,
        bits=settings.bits,
        clip=settings.clip,
        coordinate_limit=min(settings.coordinate_limit or settings.clip, settings.clip),
        max_members=manifest.max_cohort,
        max_examples=manifest.training.max_examples,
        loss_ceiling=manifest.training.loss_ceiling,
    )


def layout_of(encoding: UpdateEncoding) -> RingLayout:
    """The masked vector's blocks."""
    return RingLayout(encoding.block_size, encoding.bits, encoding.METRICS_SIZE)
