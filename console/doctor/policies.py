"""What production should insist on."""

from typing import cast

from console.doctor.examination import Examination
from console.doctor.findings import Findings, ok, warning
from coordinator.settings import CoordinatorSettings
from device_agent.settings import AgentSettings
from protocol.errors import FedfleetError
from runtime.plan_file import load_plan

FEWEST = 5
"""Devices below which a sum says much of each."""


def floors(examination: Examination) -> Findings:
    """What the device insists on."""
    settings = cast("AgentSettings", examination.settings)
    yield ok(f"cohorts of {settings.floors.min_cohort} or more, noise: {settings.privacy.weakest}")
    if settings.floors.min_cohort < FEWEST:
        yield warning(
            f"the device takes part in cohorts of {settings.floors.min_cohort}",
            f"set floors.min_cohort to {FEWEST} or more",
        )
    if not settings.floors.min_enrolled_age:
        yield warning(
            "the device joins others that were enrolled a moment ago, which a registrar that works with the "
            "coordinator could invent",
            "set floors.min_enrolled_age, 86400 for a day, and selection.min_enrolled_age in the plan, too",
        )
    if settings.privacy.weakest == "none":
        yield warning(
            "the device takes part in rounds without noise",
            'set privacy.weakest to "distributed", and privacy.epsilon',
        )


def plan_floors(examination: Examination) -> Findings:
    """What the plan promises the devices."""
    try:
        plan = load_plan(cast("CoordinatorSettings", examination.settings).plan)
    except FedfleetError:
        return  # told by the check of the plan
    yield ok(f"cohorts of {plan.selection.min_cohort} or more, noise: {plan.privacy.mode}")
    if plan.selection.min_cohort < FEWEST:
        yield warning(
            f"the plan commits sums of {plan.selection.min_cohort}",
            f"set selection.min_cohort to {FEWEST} or more",
        )
    if plan.privacy.mode == "none":
        yield warning(
            "the plan adds no noise: who sees the models may learn of single devices",
            'set privacy.mode to "distributed", and privacy.target_epsilon',
        )
