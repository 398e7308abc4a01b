"""What a coordinator must not forget: the run, its privacy ledger, the open round, the models.

One journal, and two folders of blobs. Model, privacy charges, round end and result are one transaction, as is
an event of the open round with the decisions that came of it. Blobs are written before the row that names
them, and removed after the row that did.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from coordinator.ledger import Account, PrivacyLedger, Release
from coordinator.stopping import Outcome, without_last_aborts
from coordinator.stored import Model, NewestRound, Opening, Recorded, decode_stored
from protocol.chunks import Bytes
from protocol.errors import FedfleetError
from protocol.ids import DeviceId, Order, UnixTime
from protocol.status import RoundResult, encode_status
from runtime.blobs import BlobStore
from runtime.clock import Clock
from runtime.files import in_words
from runtime.journal import Journal, Statement

_A = TypeVar("_A")
_R = TypeVar("_R")

JOURNAL_FILE = "coordinator.db"

HOME_FILE = ".home"
"""Tells a state folder from its copies; never written."""

TRY_AGAIN = 1.0
"""Seconds between two tries when the disk refuses."""

KEPT_MODELS = 3
"""Weights of so many committed rounds stay on disk: enough to go back a step, and bounded."""


class StateRefusedError(FedfleetError):
    """The disk refuses the state folder."""


class OtherModelError(FedfleetError):
    """The state belongs to another model or loss than the plan's."""


def is_noiseless(result: RoundResult) -> bool:
    """Whether a round released a sum without noise."""
    return result.result == "committed" and result.privacy == "none"


class CoordinatorState:
    """The state of one run.

    Args:
        folder: made if it does not exist.
        bundle: id of the model that the plan builds.
        initial: makes the first model of a new run.
        clock: waits when the disk is full.

    Attributes:
        epoch: of the coordinator; raised when the state is known to be a copy.
        round: number of the newest round, 0 before the first.
        model: the newest.
        clip: of the next round, where it follows the updates.
        ledger: what released rounds have cost each device.
        noiseless: a sum was released without noise, whose cost no ledger knows.
        history: how every round ended.
        seconds: all rounds took.
        restored: the file is a copy, from a backup perhaps.
        spool: masked updates that are in no stored sum yet, and the newest sum.

    Raises:
        StateRefusedError: see there.
        JournalError: the file is in use, damaged or of a newer release; it is left untouched.
        OtherModelError: see there.
        BlobError: a model's file is missing or damaged.
        DamagedStateError: see there.
    """

    def __init__(self, folder: Path, bundle: bytes, initial: Callable[[], Model], clock: Clock) -> None:
        self._clock = clock
        self._file = folder / JOURNAL_FILE
        self._home_file = folder / HOME_FILE
        self.history: tuple[Outcome, ...] = ()
        self.results: list[str] = []
        self.seconds = 0.0
        self.clip: float | None = None
        self.ledger = PrivacyLedger()
        self.noiseless = False
        with contextlib.ExitStack() as opened:
            try:
                self._open(folder, opened)
                self._load(bundle, initial)
            except (OSError, sqlite3.Error) as error:
                raise StateRefusedError(
                    f"{folder} cannot be used ({error}); make room or rights for it, or choose another state "
                    "folder"
                ) from error
            opened.pop_all()

    def _open(self, folder: Path, opened: contextlib.ExitStack) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._home_file.exists():
            self._home_file.touch()
        self.journal = Journal(self._file, files("coordinator") / "sql", self._clock)
        opened.callback(self.close)
        self.spool = BlobStore(folder / "spool")
        self._models = BlobStore(folder / "models")

    def close(self) -> None:
        """Release the files; what was not flushed is forgotten."""
        self.journal.close()

    # Reading, at the start.

    def _load(self, bundle: bytes, initial: Callable[[], Model]) -> None:
        rows = self.journal.select("read_run")
        self._new = not rows
        if not rows:
            self.epoch, self.round, self.restored = 1, 0, False
            self.model, self._bundle = initial(), bundle
            return
        kept, home, epoch, number, model, self.clip = cast(
            "tuple[bytes, int, int, int, bytes, float | None]", rows[0]
        )
        if kept != bundle:
            raise OtherModelError(
                f"{self._file} belongs to another model or loss than the plan's; choose another state folder"
            )
        self.restored = home != self._home
        self.epoch, self.round = epoch, number
        self.model = decode_stored(self._models.get(model), Model)
        self._read_outcomes()
        self._read_accounts()

    def _read_outcomes(self) -> None:
        for row in self.journal.select("read_outcomes"):
            committed, accuracy, loss, seconds, result = cast("tuple[int, float, float, float, str]", row)
            self.history = (*self.history, Outcome(committed=bool(committed), accuracy=accuracy, loss=loss))
            self.seconds += seconds
            self.results.append(result)
            self.noiseless |= is_noiseless(msgspec.json.decode(result, type=RoundResult))
        # Whoever starts it again wants it to try again.
        self.history = without_last_aborts(self.history)

    def _read_accounts(self) -> None:
        rows = cast("list[tuple[DeviceId, float, int, int]]", self.journal.select("read_accounts"))
        self.ledger = PrivacyLedger(
            {device: Account(rho, rounds, last) for device, rho, rounds, last in rows}
        )

    @property
    def _home(self) -> int:
        """When the file that is never written was made: no tool can give a copy the same."""
        return self._home_file.stat().st_ctime_ns

    def newest_round(self) -> NewestRound | None:
        """The newest round, open or over; None before the first."""
        rows = self.journal.select("read_newest_round")
        if not rows:
            return None
        generation, epoch, number, opening, committed = cast(
            "tuple[int, int, int, bytes, int | None]", rows[0]
        )
        events = cast("list[tuple[float, float, bytes]]", self.journal.select("read_events"))
        decisions = cast("list[tuple[bytes]]", self.journal.select("read_decisions"))
        return NewestRound(
            Order(generation, epoch, number),
            decode_stored(opening, Opening),
            committed is not None,
            [Recorded(time, UnixTime(unix), entry) for time, unix, entry in events],
            [frame for (frame,) in decisions],
        )

    @property
    def last_result(self) -> RoundResult:
        """How the newest round that is over ended."""
        return msgspec.json.decode(self.results[-1], type=RoundResult)

    # Writing.

    async def begin(self) -> None:
        """Store a new run, or the present home of a copied one."""
        if self._new:
            name = await self._put(self.model)
            self.journal.append(
                (
                    "begin_run",
                    {"bundle": self._bundle, "home": self._home, "epoch": self.epoch, "model": name},
                )
            )
        else:
            self.journal.append(("set_epoch", {"epoch": self.epoch, "home": self._home}))
        await self.journal.flushed()

    async def open_round(self, order: Order, opening: Opening) -> None:
        """Begin a round: nothing of it may be said before this returns."""
        self.epoch, self.round = order.epoch, order.round
        place = {"number": order.round, "epoch": order.epoch, "generation": order.generation}
        self.journal.append(
            ("forget_events", {}),
            ("forget_decisions", {}),
            ("forget_openings", {"number": order.round - 1}),
            ("set_round", {"epoch": order.epoch, "round": order.round}),
            ("open_round", {**place, "opening": msgspec.msgpack.encode(opening)}),
        )
        await self.journal.flushed()
        await self._insist(self.spool.keep_only, ())

    def record(self, event: Recorded | None, decisions: Sequence[bytes]) -> None:
        """Queue an event of the open round and the decisions that came of it, as one unit."""
        rows: list[Statement] = [("add_decision", {"frame": frame}) for frame in decisions]
        if event is not None:
            rows.append(("add_event", {"time": event.time, "unix": event.unix, "entry": event.entry}))
        if rows:
            self.journal.append(*rows)

    async def spool_update(self, data: Bytes) -> bytes:
        """Keep a masked update, or a sum of them, until it is needed no more; its SHA-256."""
        return await self._insist(self.spool.put, data)

    async def commit(
        self,
        model: Model,
        outcome: Outcome,
        result: RoundResult,
        ended: bytes,
        *,
        release: Release | None,
        clip: float | None,
    ) -> None:
        """Store the new model, and the end of the open round with all that came of it.

        Args:
            model: the new one.
            outcome: for the stopping rule.
            result: for people.
            ended: the frame that will be announced.
            release: what the round cost; None without privacy.
            clip: of the next round, where it follows the updates.
        """
        name = await self._put(model)
        await self._close_round(
            outcome,
            result,
            release,
            ("set_model", {"model": name, "clip": clip}),
            ("add_model", {"round": self.round, "model": name}),
            ("forget_models", {"round": self.round - KEPT_MODELS}),
            ("add_decision", {"frame": ended}),
        )
        self.model, self.clip = model, clip
        kept = {cast("bytes", model) for (model,) in self.journal.select("read_models")}
        await self._insist(self._models.keep_only, kept | {name})

    async def abort(self, outcome: Outcome, result: RoundResult, *, release: Release | None) -> None:
        """Store the end of the open round, which came to nothing.

        Args:
            outcome: for the stopping rule.
            result: for people.
            release: what it cost all the same; None without privacy.
        """
        await self._close_round(outcome, result, release)

    async def _close_round(
        self, outcome: Outcome, result: RoundResult, release: Release | None, *first: Statement
    ) -> None:
        """One unit. What is in memory changes once it is durable."""
        line = encode_status(result).decode()
        ledger = self.ledger if release is None else self.ledger.charged(release, self.round)
        closed = {
            "number": self.round,
            "committed": outcome.committed,
            "accuracy": outcome.accuracy,
            "loss": outcome.loss,
            "seconds": result.seconds,
            "result": line,
        }
        charged = (*release.survivors, *release.others) if release else ()
        charges = [("charge", {"device": device, **asdict(ledger.accounts[device])}) for device in charged]
        self.journal.append(*first, *charges, ("forget_events", {}), ("close_round", closed))
        await self.journal.flushed()
        self.ledger = ledger
        self.history = (*self.history, outcome)
        self.results.append(line)
        self.noiseless |= is_noiseless(result)
        self.seconds += result.seconds

    async def _put(self, model: Model) -> bytes:
        return await self._insist(self._models.put, msgspec.msgpack.encode(model))

    async def _insist(self, act: Callable[[_A], _R], argument: _A) -> _R:
        """Act on the disk until it works; like the journal, everything waits for it."""
        trouble = ""
        while True:
            try:
                result = await asyncio.to_thread(act, argument)
            except OSError as error:
                if trouble != in_words(error):
                    trouble = in_words(error)
                    self.journal.on_trouble(trouble)
                await self._clock.sleep(TRY_AGAIN)
            else:
                if trouble:
                    self.journal.on_trouble("")
                return result
