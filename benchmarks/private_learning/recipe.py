"""What is fixed before the first round: how a run learns, and how it is kept private."""

import math
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from privacy.parameters import RoundParameters, round_parameters
from privacy.survivors import Cohort
from protocol.chunks import describe
from protocol.ids import Order
from protocol.messages import Manifest
from protocol.noise import noise_of, ring_bits, setting_of
from protocol.plan import Deadlines, Eligibility, Privacy, SecureAggregation, Training

DELTA = 1e-5
"""Of a whole run; a hundredth of one over a thousand devices."""

CORRUPT = 0.1
"""Part of a large fleet's devices that may add no noise, and work with the coordinator."""

DROPOUT = 0.05
"""Part of the devices that vanish in each round, after masking."""


@dataclass(frozen=True)
class Recipe:
    """How a run learns.

    Attributes:
        rounds: in each of which every device takes part.
        steps: of gradient descent on a device in each round; of the watch data, passes over its examples.
        learning_rate: of these steps.
        clip: L2 bound of an update.
        server_rate: the mean update is multiplied by this.
    """

    rounds: int
    steps: int
    learning_rate: float
    clip: float
    server_rate: float


@dataclass(frozen=True)
class Rules:
    """How the vectors of a run are made; a manifest says it to devices.

    Attributes:
        devices: of every round.
        size: parameters of the model.
        rounds: of the run.
        privacy: of the plan.
        masking: of the plan.
    """

    devices: int
    size: int
    rounds: int
    privacy: Privacy
    masking: SecureAggregation

    @property
    def survivors(self) -> int:
        """How many are left in each round's sum; at least one always vanishes."""
        return self.devices - math.ceil(DROPOUT * self.devices)

    @property
    def fewest(self) -> int:
        """The largest `min_cohort` with which the survivors of a whole cohort are enough to be unmasked."""
        counts, gamma = range(self.survivors, 0, -1), self.masking.corrupt_fraction
        return next(
            count
            for count in counts
            if Cohort(count, self.devices, gamma).survivors_needed(self.devices) <= self.survivors
        )

    @property
    def parameters(self) -> RoundParameters:
        """What follows from the plan's privacy.

        Raises:
            ImpossiblePrivacyError: bits, devices and noise do not fit, or there is no privacy.
        """
        cohort = (self.fewest, self.devices)
        return round_parameters(setting_of(self.privacy, self.masking, self.size, cohort, self.rounds))

    def manifest(self, number: int) -> Manifest:
        """A round's; plan, artifact and weights are made up.

        Raises:
            ImpossiblePrivacyError: bits, devices and noise do not fit.
        """
        cohort = (self.fewest, self.devices)
        return Manifest(
            fleet="benchmark",
            order=Order(1, 1, number),
            protocol="pairwise",
            plan=bytes(32),
            revocations=0,
            bundle=describe(b"bundle"),
            weights=describe(bytes(4 * self.size)),
            training=Training(),
            eligibility=Eligibility(),
            secure_aggregation=self.masking,
            noise=noise_of(self.privacy, self.masking, self.size, cohort, self.rounds),
            min_cohort=self.fewest,
            max_cohort=self.devices,
            deadlines=Deadlines(),
            shard="main",
        )


def rules(
    recipe: Recipe,
    devices: int,
    size: int,
    *,
    epsilon: float = math.inf,
    bits: int | None = None,
    sketch: float = 1.0,
    central: bool = False,
    corrupt: float = CORRUPT,
) -> Rules:
    """The rules of a run that spends `epsilon`, infinity without noise; `bits` None is the default."""
    privacy = Privacy()
    if math.isfinite(epsilon):
        mode: Literal["central", "distributed"] = "central" if central else "distributed"
        privacy = Privacy(mode=mode, target_epsilon=epsilon, delta=DELTA)
    masking = SecureAggregation(
        clip=recipe.clip, sketch=sketch, corrupt_fraction=corrupt, dropout_fraction=DROPOUT
    )
    masking = replace(masking, bits=bits or ring_bits(privacy, masking))
    return Rules(devices, size, recipe.rounds, privacy, masking)
