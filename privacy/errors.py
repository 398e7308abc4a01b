"""What can go wrong in the arithmetic, drawn once.

PrivacyError
├── NotFiniteError       a NaN or an infinity: the device stops itself
├── QuantizationError    ring, bound and number of members do not fit together: the plan is wrong
├── NoiseError           sigma is out of the range in which noise is drawn exactly
├── MaskMismatchError    the sum still carries a mask, or a member left the protocol
├── NoWeightError        nobody in the sum has a weight: there is no mean
└── ImplausibleSumError  no honest members could have given this sum
"""


class PrivacyError(Exception):
    """An update could not be encoded or decoded."""


class NotFiniteError(PrivacyError):
    """The value is NaN or infinite and would spoil everybody's sum."""


class QuantizationError(PrivacyError):
    """The ring is too small for this many members."""


class NoiseError(PrivacyError):
    """Noise of this size cannot be drawn exactly."""


class MaskMismatchError(PrivacyError):
    """The masks did not cancel: a sentinel of the sum is not zero."""


class NoWeightError(PrivacyError):
    """The total weight is not positive, so there is no mean."""


class ImplausibleSumError(PrivacyError):
    """A figure of the sum is out of the range that honest members can reach: one of them cheated."""
