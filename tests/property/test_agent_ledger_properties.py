"""Whatever is refused, and wherever the power fails: what may have left the device is charged."""

import errno
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.ledger import FILE
from device_agent.memory import FILE as RECORD
from device_agent.memory import AgentMemory
from protocol.ids import Order

ROUNDS = 8


class PowerCutError(Exception):
    """The machine stops here."""


@dataclass
class Disk:
    """An agent's folder on a disk of which only what was synced is certain.

    Attributes:
        folder: of the agent.
        chance: chooses what a power cut leaves.
        refused: numbers of syncs that fail, from 1.
        cut: numbers of syncs at which the power does.
        syncs: counted so far.
        records: the record's contents that may come back; a rename is certain once the folder is synced.
        ledgers: the ledger's contents that may come back.
    """

    folder: Path
    chance: random.Random
    refused: frozenset[int]
    cut: frozenset[int]
    syncs: int = 0
    records: list[bytes] = field(default_factory=lambda: [b""])
    ledgers: list[bytes] = field(default_factory=lambda: [b""])

    def fsync(self, descriptor: int) -> None:
        """Takes the place of `os.fsync`."""
        self.syncs += 1
        self.records.append(self._content(RECORD))
        self.ledgers.append(self._content(FILE))
        if self.syncs in self.cut:
            raise PowerCutError
        if self.syncs in self.refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        if target == self.folder:
            self.records = self.records[-1:]
            self.ledgers = [one for one in self.ledgers if one] or [b""]  # the file's name is certain now
        elif target.name == FILE:
            self.ledgers = [b"", *self.ledgers[-1:]] if b"" in self.ledgers else self.ledgers[-1:]

    def lose_power(self) -> None:
        """Come back with one of the possible records, and a possible ledger or a torn one."""
        self.records = [self.chance.choice(self.records)]
        ledger = self.chance.choice(self.ledgers)
        certain = min(map(len, self.ledgers))  # lines are only written behind what was synced
        torn = ledger[: self.chance.randint(certain, len(ledger))]
        garbage = self.chance.choice([b"", bytes(20), self.chance.randbytes(20), b"\n"])
        self.ledgers = [self.chance.choice([ledger, torn + garbage])]
        self._leave(RECORD, self.records[0])
        self._leave(FILE, self.ledgers[0])

    def _content(self, name: str) -> bytes:
        file = self.folder / name
        return file.read_bytes() if file.exists() else b""

    def _leave(self, name: str, content: bytes) -> None:
        (self.folder / name).unlink(missing_ok=True)
        if content:
            (self.folder / name).write_bytes(content)


def live(disk: Disk, costs: Sequence[float], killed: frozenset[int]) -> list[tuple[int, float]]:
    """An agent that enters and charges rounds, whatever happens; returns what it released.

    Args:
        disk: under it.
        costs: of rounds 1, 2, ...
        killed: rounds after which the process dies.
    """
    memory: AgentMemory | None = None
    released: list[tuple[int, float]] = []
    for number, rho in enumerate(costs, start=1):
        try:
            if memory is None:
                memory = AgentMemory(disk.folder)
                memory.begin()
            memory.remember(Order(1, 1, number), 0.0)
            if charged(memory, Order(1, 1, number), rho):
                released.append((number, rho))
        except PowerCutError:
            disk.lose_power()
            memory = None
        except OSError:  # not entered
            continue
        if number in killed:
            memory = None
        found = [(one.order.round, one.rho) for one in AgentMemory(disk.folder).ledger.charges]
        assert set(released) <= set(found) <= set(enumerate(costs, start=1))
    return released


def charged(memory: AgentMemory, order: Order, rho: float) -> bool:
    """Whether a round was charged, after three attempts at most."""
    for attempt in range(3):
        try:
            memory.charge(order, "distributed", rho, float(attempt))
        except OSError:
            continue
        return True
    return False


SYNCS = st.frozensets(st.integers(1, 5 * ROUNDS), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    costs=st.lists(st.floats(1e-9, 10.0), min_size=ROUNDS, max_size=ROUNDS),
    refused=SYNCS,
    cut=SYNCS,
    killed=st.frozensets(st.integers(1, ROUNDS)),
    seed=st.integers(0, 2**32),
)
def test_what_was_released_is_charged(
    costs: list[float], refused: frozenset[int], cut: frozenset[int], killed: frozenset[int], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        disk = Disk(Path(name).resolve(), random.Random(seed), refused, cut)
        with mock.patch("os.fsync", disk.fsync):
            released = live(disk, costs, killed)
        ledger = AgentMemory(disk.folder).ledger
        assert ledger.spent >= math.fsum(rho for _number, rho in released)
        assert ledger.charges == tuple(sorted(ledger.charges, key=lambda one: one.order))
