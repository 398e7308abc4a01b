"""What an agent acts with."""

from dataclasses import dataclass

from broker.transport import Transport
from device_agent.artifacts import ArtifactCache
from device_agent.conditions import ConditionReader
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.private_weights import PrivateWeights
from device_agent.settings import AgentSettings
from models.installed import available_engines
from models.training_process import TrainingWorker
from protocol.certificates import FleetTrust
from protocol.ids import DeviceId
from protocol.topics import Topics
from runtime.clock import Clock
from runtime.compute import Computer
from runtime.entropy import Entropy
from runtime.identity import Identity
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard


@dataclass(frozen=True)
class Equipment:
    """Everything an agent acts with; built once by `device_agent.app`."""

    settings: AgentSettings
    identity: Identity
    trust: FleetTrust
    revocations: RevocationKeeper
    topics: Topics
    transport: Transport
    board: StatusBoard
    memory: AgentMemory
    artifacts: ArtifactCache
    private: PrivateWeights
    worker: TrainingWorker
    computer: Computer
    clock: Clock
    entropy: Entropy
    conditions: ConditionReader
    pace: PaceKeeper

    @property
    def device(self) -> DeviceId:
        """This device."""
        return DeviceId(self.identity.name)

    @property
    def engines(self) -> tuple[str, ...]:
        """Training engines that it may use, the best first."""
        only = self.settings.training.engine
        return tuple(name for name in available_engines() if only in {None, name})
