"""What a coordinator finds again: each transaction whole, and nothing that was not its own."""

import asyncio
import contextlib
import os
import shutil
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hand_clock import HandClock
from virtual_fleet import NOW, manifest_for

from coordinator.ledger import PrivacyLedger, Release
from coordinator.server_optimizer import ServerState
from coordinator.state import (
    HOME_FILE,
    JOURNAL_FILE,
    KEPT_MODELS,
    CoordinatorState,
    OtherModelError,
    StateRefusedError,
)
from coordinator.stopping import Outcome
from coordinator.stored import DamagedStateError, Model, Opening, Recorded, stored_message
from protocol.errors import FedfleetError
from protocol.frames import Frame
from protocol.ids import DeviceId, Order
from protocol.messages import Manifest, encode
from protocol.status import RoundResult, encode_status
from runtime.blobs import BlobStore, MissingBlobError
from runtime.journal import (
    DamagedJournalError,
    Journal,
    JournalClosedError,
    JournalInUseError,
    Statement,
)

BUNDLE = bytes(range(32))
COMMITTED = Outcome(committed=True, accuracy=0.5, loss=1.25)
ABORTED = Outcome(committed=False)
D1, D2, D3 = (DeviceId(name) for name in ("d1", "d2", "d3"))
RELEASE = Release((D1, D2), 0.25)


def model(number: float, size: int = 7) -> Model:
    vector = np.full(size, number, np.float32)
    return Model.of(vector, ServerState(vector + 1, vector + 2))


def opened(folder: Path, first: float = 0.0) -> CoordinatorState:
    return CoordinatorState(folder, BUNDLE, lambda: model(first), HandClock())


def opening(order: Order) -> Opening:
    return Opening(encode(manifest_for(7, members=5, order=order)), ("d1", "d2"), 2, 1, NOW)


async def open_round(state: CoordinatorState, number: int) -> Order:
    order = Order(1, state.epoch, number)
    await state.open_round(order, opening(order))
    return order


async def commit(
    state: CoordinatorState, number: int, release: Release | None = None, clip: float | None = None
) -> None:
    await open_round(state, number)
    result = RoundResult(number, "committed", seconds=1.5)
    await state.commit(model(number), COMMITTED, result, b"ended", release=release, clip=clip)


async def test_a_new_state_is_a_new_run(tmp_path: Path) -> None:
    state = opened(tmp_path / "deep" / "state")
    assert (state.epoch, state.round, state.restored, state.history) == (1, 0, False, ())
    assert state.newest_round() is None
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o077 == 0
    await state.begin()
    state.close()


async def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    await commit(state, 1)
    order = await open_round(state, 2)
    state.record(Recorded(0.0, NOW, b"begun"), [])
    state.record(Recorded(1.5, NOW, b"heard"), [b"cohort", b"share set"])
    await state.journal.flushed()
    state.close()
    again = opened(tmp_path, first=9.0)
    assert (again.epoch, again.round, again.restored) == (1, 2, False)
    assert (again.history, again.seconds) == ((COMMITTED,), 1.5)
    np.testing.assert_array_equal(again.model.vector, model(1).vector)
    np.testing.assert_array_equal(again.model.server_state.second, model(1).vector + 2)
    newest = again.newest_round()
    assert newest is not None
    assert (newest.order, newest.opening, newest.over) == (order, opening(order), False)
    assert newest.events == [Recorded(0.0, NOW, b"begun"), Recorded(1.5, NOW, b"heard")]
    assert newest.decisions == [b"cohort", b"share set"]
    again.close()


async def test_model_charges_result_and_end_of_the_round_are_there_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = opened(tmp_path)
    await state.begin()
    await open_round(state, 1)
    state.record(Recorded(0.0, NOW, b"begun"), [])
    await state.journal.flushed()
    result = RoundResult(1, "committed", seconds=1.5)
    queued, append = asyncio.Event(), state.journal.append

    def tell(*statements: Statement) -> None:
        append(*statements)
        queued.set()

    monkeypatch.setattr(state.journal, "append", tell)
    committing = asyncio.create_task(
        state.commit(model(1), COMMITTED, result, b"ended", release=RELEASE, clip=0.5)
    )
    await queued.wait()
    state.close()
    with contextlib.suppress(JournalClosedError):
        await committing
    again = opened(tmp_path)
    newest = again.newest_round()
    assert newest is not None
    whole = (
        newest.over,
        len(newest.events),
        len(again.results),
        len(newest.decisions),
        again.model.vector[0],
        len(again.ledger.accounts),
        again.clip,
    )
    assert whole in {(False, 1, 0, 0, 0.0, 0, None), (True, 0, 1, 1, 1.0, 2, 0.5)}
    again.close()


async def test_ledger_and_clip_come_back_as_they_were(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    await commit(state, 1, RELEASE, clip=0.75)
    await open_round(state, 2)
    await state.abort(ABORTED, RoundResult(2, "aborted"), release=Release((D2, D3), 0.125))
    state.close()
    again = opened(tmp_path)
    assert again.ledger == state.ledger
    assert {device: (account.rounds, account.last) for device, account in again.ledger.accounts.items()} == {
        D1: (1, 1),
        D2: (2, 2),
        D3: (1, 2),
    }
    assert again.ledger.worst == pytest.approx(0.375)
    assert again.clip == 0.75
    again.close()


async def test_a_round_in_which_nothing_was_unmasked_costs_nobody_anything(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    await commit(state, 1, RELEASE, clip=0.75)
    before = state.ledger
    await open_round(state, 2)
    await state.abort(ABORTED, RoundResult(2, "aborted"), release=None)
    assert (state.ledger, state.clip) == (before, 0.75)
    state.close()


async def test_what_is_in_memory_waits_for_the_disk(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    await open_round(state, 1)
    committing = asyncio.create_task(
        state.commit(model(1), COMMITTED, RoundResult(1, "committed"), b"ended", release=RELEASE, clip=0.5)
    )
    while not committing.done():
        durable = bool(state.journal.select("read_accounts"))
        before = (state.ledger, state.clip, state.history, state.model.vector[0])
        assert durable or before == (PrivacyLedger(), None, (), 0.0)
        await asyncio.sleep(0)
    assert (state.ledger.accounts[D1].rounds, state.clip, state.model.vector[0]) == (1, 0.5, 1.0)
    state.close()


async def test_a_state_from_before_privacy_has_charged_nobody(tmp_path: Path) -> None:
    await state_of_schema_1(tmp_path)
    state = opened(tmp_path, first=9.0)
    assert (state.round, state.history, state.model.vector[0]) == (1, (COMMITTED,), 4.0)
    assert (state.ledger, state.clip) == (PrivacyLedger(), None)
    await state.begin()
    await commit(state, 2, RELEASE, clip=0.5)
    state.close()
    again = opened(tmp_path)
    assert (again.round, again.clip, again.ledger.accounts[D1].last) == (2, 0.5, 2)
    again.close()


FIRST_RELEASE = """
-- name: run
INSERT INTO run VALUES (1, :bundle, 0, 1, 1, :model);
-- name: round
INSERT INTO rounds VALUES (1, 1, 1, NULL, 1, 0.5, 1.25, 1.5, :result);
"""


async def state_of_schema_1(folder: Path) -> None:
    schema = folder / "schema"
    schema.mkdir()
    (schema / "queries.sql").write_text(FIRST_RELEASE)
    migration = files("coordinator") / "sql" / "001_rounds.sql"
    (schema / "001_rounds.sql").write_text(migration.read_text("utf-8"))
    name = BlobStore(folder / "models").put(msgspec.msgpack.encode(model(4.0)))
    result = encode_status(RoundResult(1, "committed", seconds=1.5)).decode()
    with contextlib.closing(Journal(folder / JOURNAL_FILE, schema, HandClock())) as journal:
        journal.append(("run", {"bundle": BUNDLE, "model": name}), ("round", {"result": result}))
        await journal.flushed()


async def test_an_ended_round_keeps_what_was_announced_until_the_next_is_opened(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    await open_round(state, 1)
    state.record(Recorded(0.0, NOW, b"begun"), [b"ended"])
    await state.abort(ABORTED, RoundResult(1, "aborted", reason="too few"), release=None)
    newest = state.newest_round()
    assert newest is not None
    assert (newest.over, newest.events, newest.decisions) == (True, [], [b"ended"])
    await open_round(state, 2)
    newest = state.newest_round()
    assert newest is not None
    assert newest.decisions == []
    state.close()


async def test_aborts_at_the_end_do_not_count_against_a_new_start(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    for number in (1, 2):
        await open_round(state, number)
        await state.abort(ABORTED, RoundResult(number, "aborted"), release=None)
    assert state.history == (ABORTED, ABORTED)
    state.close()
    again = opened(tmp_path)
    assert again.history == ()
    assert len(again.results) == 2
    again.close()


async def test_only_the_newest_models_are_kept(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    for number in range(1, KEPT_MODELS + 4):
        await commit(state, number)
    state.close()
    assert len(list((tmp_path / "models").iterdir())) == KEPT_MODELS
    again = opened(tmp_path)
    assert again.model.vector[0] == KEPT_MODELS + 3
    again.close()


async def test_spooled_updates_go_with_their_round(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    await open_round(state, 1)
    state.spool.put(b"masked")
    await state.abort(ABORTED, RoundResult(1, "aborted"), release=None)
    await open_round(state, 2)
    assert list((tmp_path / "spool").iterdir()) == []
    state.close()


async def test_a_copy_of_the_folder_is_told_from_the_original(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    await state.begin()
    await commit(state, 1)
    state.close()
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    original = opened(tmp_path / "state")
    assert not original.restored
    original.close()
    copy = opened(tmp_path / "copy")
    assert copy.restored
    copy.epoch += 1
    await copy.begin()
    copy.close()
    settled = opened(tmp_path / "copy")
    assert (settled.restored, settled.epoch) == (False, 2)
    settled.close()


async def test_a_state_that_is_moved_is_the_same_state(tmp_path: Path) -> None:
    state = opened(tmp_path / "here")
    await state.begin()
    state.close()
    os.rename(tmp_path / "here", tmp_path / "there")  # noqa: PTH104 - what mv does
    moved = opened(tmp_path / "there")
    assert not moved.restored
    moved.close()


async def test_two_cannot_use_one_state(tmp_path: Path) -> None:
    state = opened(tmp_path)
    with pytest.raises(JournalInUseError, match="in use"):
        opened(tmp_path)
    state.close()
    opened(tmp_path).close()


async def test_another_model_is_refused_and_the_state_left_alone(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    state.close()
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    with pytest.raises(OtherModelError, match="choose another state folder"):
        CoordinatorState(tmp_path, bytes(32), lambda: model(0), HandClock())
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before
    opened(tmp_path).close()  # and it is not in use


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 1000])
async def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path, damage: bytes) -> None:
    opened(tmp_path).close()
    (tmp_path / JOURNAL_FILE).write_bytes(damage)
    with pytest.raises(DamagedJournalError):
        opened(tmp_path)
    assert (tmp_path / JOURNAL_FILE).read_bytes() == damage


async def test_a_missing_model_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    state = opened(tmp_path)
    await state.begin()
    state.close()
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(MissingBlobError, match="Restore it from a backup"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_made_is_told_as_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateRefusedError, match="choose another state folder"):
        opened(tmp_path / "file" / "state")


def test_the_errors_are_told_to_users_as_sentences() -> None:
    assert issubclass(OtherModelError, FedfleetError)
    assert HOME_FILE.startswith(".")


def test_a_stored_message_of_another_release_says_what_to_do() -> None:
    frame = msgspec.msgpack.encode(Frame("coordinator", b"", b"\x92\xa8manifest\x01", bytes(64)))

    with pytest.raises(DamagedStateError, match=r"a stored Manifest cannot be read .* another state folder"):
        stored_message(frame, Manifest)
