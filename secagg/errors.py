"""What can be wrong with what a peer sent us.

SecAggError
├── LowOrderPointError   a public key that forces a known shared secret, or is no key at all
├── SealError            a sealed message that was changed, cut, moved, or made by another
├── ShareError           a share that is no share; too few of them; none that fit together
├── GraphError           no graph of neighbours meets the demands
└── RingError            bytes that are no vector of this layout; vectors of two layouts
"""


class SecAggError(Exception):
    """Something that came from outside does not fit the aggregation."""


class LowOrderPointError(SecAggError):
    """The public key is not 32 bytes, or has low order and makes the shared secret all zero."""


class SealError(SecAggError):
    """The sealed message was not made by this sender, for this receiver, in this transcript."""


class ShareError(SecAggError):
    """The shares are malformed, too few, or do not belong to one secret."""


class GraphError(SecAggError):
    """No graph of neighbours meets these demands."""


class RingError(SecAggError):
    """The bytes are not a vector of this layout, or two layouts differ."""
