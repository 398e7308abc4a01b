"""Runs to be made, and what came of them."""

import math
from dataclasses import asdict, dataclass

from benchmarks.private_learning.aggregation import Aggregation
from benchmarks.private_learning.recipe import Recipe, Rules
from benchmarks.private_learning.task import Round
from privacy.errors import ImpossiblePrivacyError, QuantizationError

SEED = 1


@dataclass(frozen=True)
class Case:
    """One run: what the table calls it, how it learns, how its vectors are made, and all that is random."""

    label: str
    recipe: Recipe
    rules: Rules
    seed: int = SEED

    @property
    def epsilon(self) -> float:
        """Of the whole run, infinity without noise."""
        return self.rules.privacy.target_epsilon or math.inf

    @property
    def mode(self) -> str:
        """Who adds the noise."""
        return self.rules.privacy.mode

    @property
    def aggregation(self) -> Aggregation:
        """Its sums."""
        return Aggregation(self.rules, self.seed)

    @property
    def refused(self) -> str:
        """Why the product refuses these rules; empty when it does not."""
        try:
            self.aggregation.encoding(1)
        except (ImpossiblePrivacyError, QuantizationError) as error:
            return str(error)
        return ""


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    rounds: tuple[Round, ...]

    @property
    def accuracy(self) -> float:
        """Of the last model: nothing is chosen by looking at the test examples."""
        return self.rounds[-1].accuracy

    def row(self) -> dict[str, object]:
        """Everything, for JSON."""
        case, noise = self.case, {}
        if math.isfinite(case.epsilon):
            made = case.rules.parameters
            expected = made.expected_noise(case.rules.survivors)
            noise = {
                "noise_multiplier": made.setting.noise_multiplier,
                "inflation": made.inflation,
                "sigma": made.update.sigma,
                "noise_of_clip": expected.of_clip,
                "honest": made.setting.noises,
            }
        return {
            "label": case.label,
            "seed": case.seed,
            "epsilon": case.epsilon if math.isfinite(case.epsilon) else None,
            "mode": case.mode,
            "recipe": asdict(case.recipe),
            "bytes_up": case.aggregation.bytes_up,
            "accuracy": self.accuracy,
            "rounds": [asdict(each) for each in self.rounds],
            **noise,
        }
