"""What a device has spent: written before it is spent, found when it is turned back."""

import errno
import json
import math
import os
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest

from device_agent.errors import DamagedStateError
from device_agent.ledger import EMPTY, FILE, Head, Ledger, Mode, open_ledger
from device_agent.memory import FILE as RECORD
from device_agent.memory import AgentMemory
from device_agent.settings import PrivacySettings
from privacy.accounting import compose
from protocol.errors import MisuseError
from protocol.ids import ORIGIN, Order
from runtime.files import append_synced

NOON = 1_800_000_000.0


def order(number: int) -> Order:
    return Order(1, 1, number)


def spend(memory: AgentMemory, number: int, rho: float = 0.25, mode: Mode = "distributed") -> None:
    memory.remember(order(number), 0.0)
    memory.charge(order(number), mode, rho, NOON + number)


def spent_in(folder: Path, *costs: float) -> AgentMemory:
    """An agent that has started and spent so much in rounds 1, 2, ..."""
    memory = AgentMemory(folder)
    memory.begin()
    for number, rho in enumerate(costs, start=1):
        spend(memory, number, rho)
    return memory


def refuse_record(folder: Path) -> None:
    """No new record has room."""
    (folder / f".{RECORD}.new").symlink_to("/dev/full")


def allow_record(folder: Path) -> None:
    (folder / f".{RECORD}.new").unlink()


# Charging.


def test_charges_add_up_over_restarts(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25, 0.5)
    memory = AgentMemory(tmp_path)
    memory.begin()
    spend(memory, 3, 0.125, "central")
    ledger = AgentMemory(tmp_path).ledger
    assert [one.order.round for one in ledger.charges] == [1, 2, 3]
    assert [one.sequence for one in ledger.charges] == [1, 2, 3]
    assert [one.rho for one in ledger.charges] == [0.25, 0.5, 0.125]
    assert ledger.spent == compose([0.25, 0.5, 0.125])
    assert ledger.last is not None
    assert (ledger.last.mode, ledger.last.unix) == ("central", NOON + 3)
    assert ledger == memory.ledger


def test_nothing_is_spent_before_the_first_charge(tmp_path: Path) -> None:
    memory = spent_in(tmp_path)
    assert (memory.ledger.spent, memory.ledger.last, memory.ledger.charges) == (0.0, None, ())
    assert not (tmp_path / FILE).exists()


def test_a_record_of_before_there_were_ledgers_is_an_empty_ledger(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"boot":3,"seen":[1,1,7]}')
    memory = AgentMemory(tmp_path)
    assert (memory.boot, memory.seen, memory.ledger.charges) == (3, order(7), ())
    spend(memory, 8)
    assert AgentMemory(tmp_path).ledger.spent == compose([0.25])


def test_a_person_can_read_the_file_and_follow_the_chain(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25, 0.1)
    first, second = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    assert json.loads(first) == {
        "sequence": 1,
        "order": [1, 1, 1],
        "mode": "distributed",
        "rho": 0.25,
        "unix": NOON + 1,
        "previous": sha256(b"").hexdigest(),
    }
    assert json.loads(second)["previous"] == sha256(first).hexdigest()
    known = json.loads((tmp_path / RECORD).read_bytes())["ledger"]
    assert known == {"charges": 2, "digest": sha256(second).hexdigest()}


def test_thousands_of_charges_sum_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    costs = [0.1 / number for number in range(1, 3001)]
    ledger = Ledger(tmp_path / FILE)
    for number, rho in enumerate(costs, start=1):
        ledger = ledger.append(order(number), "distributed", rho, NOON)
    exact = sum(map(Fraction, costs))
    assert exact <= Fraction(ledger.spent) <= exact * (1 + Fraction(1, 2**51))
    assert open_ledger(tmp_path / FILE, ledger.head) == ledger


def test_a_round_is_charged_once_and_in_order(tmp_path: Path) -> None:
    memory = spent_in(tmp_path, 0.25, 0.25)
    for number in (2, 1):
        with pytest.raises(MisuseError, match=r"is charged after round 1\.1\.2"):
            memory.charge(order(number), "distributed", 0.25, NOON)
    assert len(AgentMemory(tmp_path).ledger.charges) == 2


def test_a_round_that_was_not_entered_is_not_charged(tmp_path: Path) -> None:
    memory = spent_in(tmp_path)
    with pytest.raises(MisuseError, match="was not entered"):
        memory.charge(order(1), "distributed", 0.25, NOON)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.inf, math.nan])
def test_what_is_no_cost_is_not_charged(tmp_path: Path, rho: float) -> None:
    memory = spent_in(tmp_path, 0.25)
    memory.remember(order(2), 0.0)
    with pytest.raises(MisuseError, match=r"round 1.1.2 is no charge .*rho"):
        memory.charge(order(2), "distributed", rho, NOON)
    assert len(AgentMemory(tmp_path).ledger.charges) == 1


def test_an_empty_ledger_ends_nowhere(tmp_path: Path) -> None:
    assert open_ledger(tmp_path / FILE, EMPTY) == Ledger(tmp_path / FILE)
    assert AgentMemory(tmp_path).seen == ORIGIN


# A crash, at any place.


def test_a_crash_between_ledger_and_record_leaves_the_charge(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25)
    AgentMemory(tmp_path).remember(order(2), 0.0)
    before = (tmp_path / RECORD).read_bytes()
    memory = AgentMemory(tmp_path)
    memory.charge(order(2), "distributed", 0.5, NOON)
    (tmp_path / RECORD).write_bytes(before)
    again = AgentMemory(tmp_path)
    assert again.ledger.charges == memory.ledger.charges
    again.begin()
    spend(again, 3)
    assert len(AgentMemory(tmp_path).ledger.charges) == 3


def test_a_line_torn_at_any_byte_is_no_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    memory = spent_in(tmp_path, 0.25)
    memory.remember(order(2), 0.0)
    before = (tmp_path / RECORD).read_bytes()
    memory.charge(order(2), "distributed", 0.5, NOON)
    whole, kept = (tmp_path / FILE).read_bytes(), 0
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        (tmp_path / FILE).write_bytes(whole[:size])
        (tmp_path / RECORD).write_bytes(before)
        again = AgentMemory(tmp_path)
        assert [one.rho for one in again.ledger.charges] == [0.25]
        again.begin()
        assert (tmp_path / FILE).read_bytes() == whole[:first]
        kept += 1
    assert kept > 100


def test_the_first_line_torn_is_an_empty_ledger(tmp_path: Path) -> None:
    memory = spent_in(tmp_path)
    (tmp_path / FILE).write_bytes(b'{"sequence":1,"ord')
    again = AgentMemory(tmp_path)
    assert again.ledger == memory.ledger
    again.begin()
    assert (tmp_path / FILE).read_bytes() == b""


@pytest.mark.parametrize("garbage", [bytes(300), b"\n", b"\n\n\xff\n{", b'{"sequence":2}\n'])
def test_garbage_behind_the_known_lines_is_no_charge(tmp_path: Path, garbage: bytes) -> None:
    spent_in(tmp_path, 0.25)
    with (tmp_path / FILE).open("ab") as file:
        file.write(garbage)
    memory = AgentMemory(tmp_path)
    assert len(memory.ledger.charges) == 1
    spend(memory, 2)
    assert AgentMemory(tmp_path).ledger == memory.ledger


def test_looking_writes_nothing(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"{")
    before = contents(tmp_path)
    assert AgentMemory(tmp_path).ledger.spent == compose([0.25])
    assert contents(tmp_path) == before


def test_a_look_while_the_agent_writes_sees_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = spent_in(tmp_path, 0.25)
    coming = [3, 2]

    def late(file: Path, known: Head) -> Ledger:
        """The agent charges two rounds between a look at the record and one at the ledger."""
        while coming:
            spend(memory, coming.pop())
        return open_ledger(file, known)

    monkeypatch.setattr("device_agent.memory.open_ledger", late)
    assert AgentMemory(tmp_path).ledger == memory.ledger


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Turned back, cut, edited.


def rolled_back(folder: Path, file: str, rounds: int) -> Path:
    """A folder of four rounds where one file is as it was after so many."""
    memory = spent_in(folder, *[0.25] * rounds)
    old = (folder / file).read_bytes()
    for number in range(rounds + 1, 5):
        spend(memory, number)
    (folder / file).write_bytes(old)
    return folder


def changed(old: bytes, new: bytes) -> Callable[[Path], object]:
    def change(file: Path) -> None:
        content = file.read_bytes()
        assert content.count(old) == 1
        file.write_bytes(content.replace(old, new))

    return change


def without_line(number: int) -> Callable[[Path], object]:
    def cut(file: Path) -> None:
        lines = file.read_bytes().splitlines(keepends=True)
        del lines[number - 1]
        file.write_bytes(b"".join(lines))

    return cut


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (Path.unlink, "it holds 0 charges, and 3 charges are on record"),
        (lambda file: file.write_bytes(b""), "it holds 0 charges, and 3 charges are on record"),
        (without_line(3), "it holds 2 charges, and 3 charges are on record"),
        (without_line(2), "line 2 does not follow from the line before it, and 3 charges"),
        (without_line(1), "line 1 does not follow from the line before it, and 3 charges"),
        (
            lambda file: os.truncate(file, file.stat().st_size - 1),
            "it holds 2 charges, and 3 charges are on record",
        ),
        (changed(b'"rho":0.5,', b'"rho":0.1,'), "line 3 does not follow from the line before it"),
        (changed(b'"rho":0.125,', b'"rho":0.001,'), "line 3 is not the one that was written"),
        (changed(b'"sequence":2', b'"sequence":x'), "line 2 is no charge"),
        (changed(b'"rho":0.5,', b'"rho":-0.5,'), "line 2 is no charge"),
    ],
    ids=[
        "deleted",
        "emptied",
        "the last line cut",
        "a middle line cut",
        "the first line cut",
        "the last newline cut",
        "a number of a middle line",
        "a number of the last line",
        "no JSON",
        "a refund",
    ],
)
def test_a_harmed_ledger_is_refused_and_untouched(
    tmp_path: Path, harm: Callable[[Path], object], cause: str
) -> None:
    spent_in(tmp_path, 0.25, 0.5, 0.125)
    harm(tmp_path / FILE)
    before = contents(tmp_path)
    with pytest.raises(DamagedStateError) as refusal:
        AgentMemory(tmp_path)
    for text in (str(tmp_path / FILE), cause, "restore the newest one from a backup"):
        assert text in str(refusal.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_ledger_turned_back_alone_is_found(tmp_path: Path, rounds: int) -> None:
    rolled_back(tmp_path, FILE, rounds)
    with pytest.raises(DamagedStateError, match=f"it holds {rounds} charges, and 4 charges are on record"):
        AgentMemory(tmp_path)


def test_a_ledger_of_another_history_is_found(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25, 0.5)
    spent_in(tmp_path / "other", 0.25, 0.125)
    (tmp_path / FILE).write_bytes((tmp_path / "other" / FILE).read_bytes())
    with pytest.raises(DamagedStateError, match="line 2 is not the one that was written"):
        AgentMemory(tmp_path)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_record_turned_back_alone_is_found(tmp_path: Path, rounds: int) -> None:
    rolled_back(tmp_path, RECORD, rounds)
    with pytest.raises(DamagedStateError, match=rf"4 charges, .* knows of {rounds}: .*restore the newest"):
        AgentMemory(tmp_path)


def test_a_record_turned_back_by_one_round_is_found_by_the_round_it_forgot(tmp_path: Path) -> None:
    rolled_back(tmp_path, RECORD, 3)
    with pytest.raises(DamagedStateError, match=r"agent.json is an older one: round 1.1.4 in .*ledger.jsonl"):
        AgentMemory(tmp_path)


def test_a_deleted_record_is_found(tmp_path: Path) -> None:
    spent_in(tmp_path, 0.25)
    (tmp_path / RECORD).unlink()
    with pytest.raises(DamagedStateError, match=r"agent.json is an older one: round 1.1.1 .* after 0.0.0"):
        AgentMemory(tmp_path)


def test_a_ledger_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(DamagedStateError, match=r"ledger.jsonl is damaged: it cannot be read \(Is a dir"):
        AgentMemory(tmp_path)


# A disk that refuses.


class Disk:
    """Counts syncs and refuses chosen ones, after what was written has reached the file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = os.fsync
        self.calls = 0
        self.refused: set[int] = set()
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, file: int) -> None:
        self.calls += 1
        if self.calls in self.refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._real(file)

    def refuse(self, number: int) -> None:
        """Refuse the sync of this number from now, from 1."""
        self.refused.add(self.calls + number)


SYNCS = range(1, 5)
"""Of a charge: the ledger, its folder, the record, its folder."""


@pytest.mark.parametrize("number", SYNCS)
def test_a_refused_charge_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    disk, memory = Disk(monkeypatch), spent_in(tmp_path, 0.25)
    memory.remember(order(2), 0.0)
    disk.refuse(number)
    with pytest.raises(OSError, match="No space left"):
        memory.charge(order(2), "distributed", 0.5, NOON)
    assert memory.ledger.spent == compose([0.25])
    memory.charge(order(2), "distributed", 0.5, NOON)
    assert AgentMemory(tmp_path).ledger == memory.ledger
    assert memory.ledger.spent == compose([0.25, 0.5])


@pytest.mark.parametrize("number", SYNCS)
def test_after_a_refused_charge_a_later_round_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    disk, memory = Disk(monkeypatch), spent_in(tmp_path, 0.25)
    memory.remember(order(2), 0.0)
    disk.refuse(number)
    with pytest.raises(OSError, match="No space left"):
        memory.charge(order(2), "distributed", 0.5, NOON)
    spend(memory, 3, 0.125)
    again = AgentMemory(tmp_path).ledger
    assert [(one.order.round, one.rho) for one in again.charges] == [(1, 0.25), (3, 0.125)]
    assert again == memory.ledger


@pytest.mark.parametrize("number", SYNCS)
def test_after_a_refused_charge_a_restarted_agent_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It counts the round whose line it finds: too much is on the safe side."""
    disk, memory = Disk(monkeypatch), spent_in(tmp_path, 0.25)
    memory.remember(order(2), 0.0)
    disk.refuse(number)
    with pytest.raises(OSError, match="No space left"):
        memory.charge(order(2), "distributed", 0.5, NOON)
    again = AgentMemory(tmp_path)
    again.begin()
    spend(again, 3, 0.125)
    assert [one.order.round for one in AgentMemory(tmp_path).ledger.charges] == [1, 2, 3]


def test_a_line_that_did_not_fit_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = spent_in(tmp_path, 0.25)

    def torn(path: Path, size: int, data: bytes) -> None:
        append_synced(path, size, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    memory.remember(order(2), 0.0)
    with monkeypatch.context() as full:
        full.setattr("device_agent.ledger.append_synced", torn)
        with pytest.raises(OSError, match="No space left"):
            memory.charge(order(2), "distributed", 0.5, NOON)
    assert AgentMemory(tmp_path).ledger == memory.ledger
    spend(memory, 3)
    assert AgentMemory(tmp_path).ledger == memory.ledger
    assert [one.order.round for one in memory.ledger.charges] == [1, 3]


def test_a_record_that_is_refused_again_and_again_never_falls_two_lines_behind(tmp_path: Path) -> None:
    memory = spent_in(tmp_path, 0.25)
    memory.remember(order(5), 0.0)
    refuse_record(tmp_path)
    for number in (2, 3, 4):
        with pytest.raises(OSError, match="No space left"):
            memory.charge(order(number), "distributed", 0.5, NOON)
        assert len(AgentMemory(tmp_path).ledger.charges) == 2
    allow_record(tmp_path)
    memory.charge(order(5), "distributed", 0.5, NOON)
    assert [one.order.round for one in AgentMemory(tmp_path).ledger.charges] == [1, 5]


def test_a_charge_found_on_a_full_disk_counts_at_once(tmp_path: Path) -> None:
    memory = spent_in(tmp_path, 0.25)
    memory.remember(order(2), 0.0)
    refuse_record(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        memory.charge(order(2), "distributed", 0.5, NOON)
    again = AgentMemory(tmp_path)
    again.begin()
    assert again.ledger.spent == compose([0.25, 0.5])
    allow_record(tmp_path)
    spend(again, 3)
    assert len(AgentMemory(tmp_path).ledger.charges) == 3


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, 5)], ids=["deleted", "cut"])
def test_a_ledger_harmed_under_a_running_agent_takes_no_charge(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    memory = spent_in(tmp_path, 0.25)
    harm(tmp_path / FILE)
    memory.remember(order(2), 0.0)
    with pytest.raises(OSError, match=r"No such file|cut short"):
        memory.charge(order(2), "distributed", 0.5, NOON)
    with pytest.raises(DamagedStateError, match="0 charges, and 1 charges are"):
        AgentMemory(tmp_path)


# Settings.


def test_without_settings_every_plan_is_taken_and_nothing_limited() -> None:
    assert PrivacySettings() == PrivacySettings(weakest="none", epsilon=None, delta=1e-6)


def test_a_limit_without_a_promise_is_refused() -> None:
    with pytest.raises(ValueError, match='write weakest = "central" or "distributed"'):
        PrivacySettings(epsilon=4.0)
