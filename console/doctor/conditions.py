"""Whether a device would take part now, by its owner's rules."""

from typing import cast

from console.doctor.examination import Examination
from console.doctor.findings import Findings, ok, warning
from device_agent.conditions import judged, minute_of_day
from device_agent.settings import AgentSettings
from protocol.eligibility import NEVER, Facts


def conditions(examination: Examination) -> Findings:
    """What the sensors say; how long the device has rested only its agent knows."""
    settings = cast("AgentSettings", examination.settings)
    found = judged(
        settings.conditions,
        examination.machine.readings(settings),
        rest=NEVER,
        minute=minute_of_day(examination.clock.unix()),
        agent="",
    )
    if found.asleep:
        yield warning(
            f"this device would sleep now: {found.asleep}",
            "wait for it, or change conditions in its settings",
        )
    else:
        yield ok(f"it would take part now: {_in_words(found.facts)}")


def _in_words(facts: Facts) -> str:
    power = {True: "mains power", False: "battery", None: "power unknown"}[facts.charging]
    network = {True: "unmetered network", False: "metered network", None: "network unknown"}[facts.unmetered]
    battery = "" if facts.battery is None else f", {facts.battery} % charged"
    heat = "temperature unknown" if facts.temperature is None else f"{facts.temperature} °C"
    return f"{power}{battery}, {network}, {heat}"
