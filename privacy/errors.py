"""What can go wrong in the arithmetic, drawn once.

PrivacyError
├── NotFiniteError          a NaN or an infinity: the device stops itself
├── QuantizationError       ring, bound and number of members do not fit together: the plan is wrong
├── NoiseError              sigma is out of the range in which noise is drawn exactly
├── ImpossiblePrivacyError  cohort, ring and noise do not fit together: the plan is wrong
├── MaskMismatchError       the sum still carries a mask, or a member left the protocol
├── NoWeightError           nobody in the sum has a weight: there is no mean
└── ImplausibleSumError     no honest members could have given this sum
"""


class PrivacyError(Exception):
    """An update could not be encoded or decoded."""


class NotFiniteError(PrivacyError):
    """The value is NaN or infinite and would spoil everybody's sum."""


class QuantizationError(PrivacyError):
    """The ring is too small for this many members."""


class NoiseError(PrivacyError):
    """Noise of this size cannot be drawn exactly."""


class ImpossiblePrivacyError(PrivacyError):
    """A round with these settings cannot be private and accurate; the message says what to change, to what.

    Attributes:
        reason: what does not fit.
        remedies: changes of which any one is enough, in the plan's words.
        noise_multiplier: another one with which it would fit, None when none nearby does.
    """

    def __init__(self, reason: str, remedies: tuple[str, ...], noise_multiplier: float | None) -> None:
        self.reason, self.remedies, self.noise_multiplier = reason, remedies, noise_multiplier
        noise = () if noise_multiplier is None else (f"a noise multiplier of {noise_multiplier:.3g}",)
        any_one = "; or ".join((*remedies, *noise)) or "use a smaller model, as nothing else is enough"
        super().__init__(f"{reason}; {any_one}")


class MaskMismatchError(PrivacyError):
    """The masks did not cancel: a sentinel of the sum is not zero."""


class NoWeightError(PrivacyError):
    """The total weight is not positive, so there is no mean."""


class ImplausibleSumError(PrivacyError):
    """A figure of the sum is out of the range that honest members can reach: one of them cheated."""
