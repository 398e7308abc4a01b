"""`python -m faults.device_process`: the real agent program, but for what it trains; to be killed at will."""

import sys
from dataclasses import replace

from faults.known_training import KnownTraining

from device_agent.__main__ import PROGRAM
from device_agent.app import Agent, equip
from device_agent.settings import AgentSettings
from protocol.errors import MisuseError
from protocol.ids import Order
from runtime import logs
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.signals import run_until, stop_event


def order_of(agent: Agent) -> Order:
    """The round that an agent is in."""
    if agent._participation is None:
        raise MisuseError("the agent is in no round")
    return agent._participation.round.order


async def serve(settings: AgentSettings) -> None:
    """As the agent program, with known training."""
    logs.configure(settings.log)
    stop, clock = stop_event(), SystemClock()
    async with equip(settings, clock, SystemEntropy()) as equipment:
        worker = KnownTraining(equipment.identity.name, lambda: order_of(agent))
        agent = Agent(replace(equipment, worker=worker))
        await run_until(stop, agent.run(stop), clock)


if __name__ == "__main__":
    sys.exit(replace(PROGRAM, serve=serve).main(sys.argv[1:], "python -m faults.device_process"))
