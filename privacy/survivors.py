"""Whose noise is certain to be in a sum."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Cohort:
    """Who is certain to be in the sum.

    Attributes:
        fewest: survivors without whom nothing is unmasked, >= 1.
        largest: most members of a round, >= `fewest`.
        corrupt_fraction: gamma, the part of the members who may add no noise, in [0, 1).
    """

    fewest: int
    largest: int
    corrupt_fraction: float

    @property
    def honest(self) -> int:
        """Noises that devices count on: `(1 - gamma) * fewest`, rounded up."""
        return self.honest_of(self.fewest, self.fewest)

    def honest_of(self, survivors: int, members: int) -> int:
        """Honest survivors, when as many members are corrupt as may be and all of those stayed."""
        return survivors - math.floor(Fraction(repr(float(self.corrupt_fraction))) * members)

    def survivors_needed(self, members: int) -> int:
        """How many of a cohort's members must be in the sum for `honest` of them to be honest.

        More than `fewest` when the cohort is larger than that: a coordinator could otherwise lose honest
        members until the corrupt ones were more than gamma of the rest.
        """
        return max(self.fewest, self.honest + members - self.honest_of(members, members))

    def at_most(self, members: int) -> "Cohort":
        """The same rules for a smaller cohort."""
        return replace(self, largest=members, fewest=min(self.fewest, members))
