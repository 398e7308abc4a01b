"""What a round must keep in memory is in no file that the agent or its training process writes."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Self

import pytest
from real_fleet import CLOCK, ENTROPY, RealFleet
from real_puppets import Gate, Puppet
from tiny_plan import plan_text

from device_agent.app import Agent, equip
from protocol.device_work import EncodeUpdate, Masked
from protocol.effects import Work
from protocol.messages import Confirmation, FromDevice, Reveal, RoundKeys, SealedShares, UploadOffer
from runtime.compute import Computer
from secagg.keys import SECRET_SIZE, RoundSecrets, Secret
from secagg.ring import RingVector

pytestmark = pytest.mark.broker

WINDOW = 24
"""Bytes of a vector that are searched for: enough never to be there by chance."""


@dataclass
class Confided:
    """Everything secret that came up in a round, by name; public things that must be found beside it."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    public: dict[str, bytes] = field(default_factory=dict)

    def bytes(self, n: int) -> bytes:
        """Entropy of the agent."""
        drawn = ENTROPY.bytes(n)
        if n == SECRET_SIZE:
            self.secrets["master"] = drawn
            derived = RoundSecrets.from_master(Secret(drawn))
            self.secrets |= {one.name: getattr(derived, one.name).reveal() for one in fields(derived)}
        return drawn

    def uniform(self) -> float:
        """Entropy of the agent."""
        return ENTROPY.uniform()

    def found_in(self, folder: Path) -> set[str]:
        """Which of them stand in a file, as they are or in hexadecimal."""
        files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        known = self.secrets | self.public
        return {
            name
            for name, value in known.items()
            if any(value in text or value.hex().encode() in text.lower() for text in files)
        }


class Overheard(Computer):
    """Computes, and notes what goes in and comes out."""

    def __init__(self, confided: Confided) -> None:
        super().__init__(workers=0)
        self._confided = confided

    async def run(self, work: Work) -> object:
        if isinstance(work, EncodeUpdate):
            self._note("trained", work.trained.tobytes())
            self._note("difference", (work.trained - work.initial).tobytes())
            self._confided.public["weights"] = middle(work.initial.tobytes())
        result = await super().run(work)
        if isinstance(result, RingVector):
            self._note("encoded", result.pack())
        if isinstance(result, Masked):
            self._note("masked", result.data)
            for peer, shares in result.held.items():
                self._confided.secrets |= {f"share {n} of {peer}": share for n, share in enumerate(shares)}
        return result

    def _note(self, name: str, vector: bytes) -> None:
        self._confided.secrets[name] = middle(vector)


def middle(vector: bytes) -> bytes:
    start = len(vector) // 2
    return vector[start : start + WINDOW]


class Confiding(Puppet):
    """A puppet that really trains, and whose secrets the test knows."""

    async def __aenter__(self) -> Self:
        self.confided = Confided()
        equipment = await self._stack.enter_async_context(equip(self._settings, CLOCK, self.confided))
        computer = await self._stack.enter_async_context(Overheard(self.confided))
        self.gate = Gate(equipment.transport)
        self.agent = Agent(replace(equipment, transport=self.gate, computer=computer))
        self._task = asyncio.create_task(self.agent.run(self._stop))
        return self


STAGES: list[type[FromDevice]] = [RoundKeys, SealedShares, UploadOffer, Confirmation, Reveal]
SECRETS = {
    *("master", "mask_private", "seal_private", "self_seed", "share_key", "encoding_key"),
    *("trained", "difference", "encoded", "masked"),
    *(f"share {number} of p{peer}" for number in (0, 1) for peer in (2, 3, 4)),
}


async def test_no_secret_of_a_round_is_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "p1"
    async with RealFleet(tmp_path, plan=plan_text(rounds=1, features=64)) as fleet, AsyncExitStack() as stack:
        fleet.enrol("p1", features=64)
        await fleet.start_coordinator(start_when=4)
        monkeypatch.setenv("TMPDIR", str(folder))  # of the training process
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        device = await stack.enter_async_context(Confiding(fleet, "p1", 1))
        for number in (2, 3, 4):
            await stack.enter_async_context(Puppet(fleet, f"p{number}", number))
        for stage in STAGES:
            device.gate.open()
            device.gate.hold(stage)
            await device.gate.knocked()
            assert device.confided.found_in(folder) == {"weights"}
        device.gate.open()
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert [one.survivors for one in fleet.results()] == [4]
    assert device.confided.secrets.keys() == SECRETS
    assert device.confided.found_in(folder) == {"weights"}
