"""What an agent must not forget: how often it started, the newest round and when it entered it, its costs.

The entered round is the tombstone of invariant I2: it is synced before the round's keys leave, so a restarted
agent never joins a round again whose masks it may have used. What its privacy has cost is in a ledger beside
it; where that one ends is kept here, and written after the ledger's line: the ledger may be one line ahead.
"""

from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from device_agent.errors import DamagedStateError
from device_agent.ledger import EMPTY, Head, Ledger, open_ledger
from device_agent.ledger import FILE as LEDGER_FILE
from privacy.mode import Mode
from protocol.errors import MisuseError
from protocol.ids import ORIGIN, Order
from runtime.files import write_synced

FILE = "agent.json"

_log = structlog.get_logger(__name__)


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    boot: int = 0
    seen: Order = ORIGIN
    ledger: Head = EMPTY
    entered: float | None = None


class AgentMemory:
    """The agent's durable state: a small file, and the ledger beside it.

    Making one only reads, so anybody may look while the agent runs. One call at a time.

    Args:
        folder: made when it is needed.

    Raises:
        DamagedStateError: a file cannot be read, or one of them was turned back; both are left untouched.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._record, self._ledger = self._open(folder / LEDGER_FILE)
        self._written: _Record | None = None  # what certainly is on the disk; reading does not prove a sync
        self._settled = False

    @property
    def boot(self) -> int:
        """How often the agent has started, from 1."""
        return self._record.boot

    @property
    def seen(self) -> Order:
        """The newest round it entered."""
        return self._record.seen

    @property
    def entered(self) -> float | None:
        """When it entered a round last, in seconds since 1970; None for never."""
        return self._record.entered

    @property
    def ledger(self) -> Ledger:
        """What rounds have cost."""
        return self._ledger

    def begin(self) -> None:
        """Count a start.

        A disk that refuses is no reason to stay away, unseen: the device declines rounds, and says why, until
        one can be remembered. The count is written with that round.
        """
        record = replace(self._record, boot=self._record.boot + 1)
        try:
            self._write(record)
        except OSError as error:
            _log.warning("start_not_counted", cause=str(error))
            self._record = record

    def remember(self, order: Order, unix: float) -> None:
        """Return once it is safe that this round was entered.

        Args:
            order: the round.
            unix: the time, in seconds since 1970.

        Raises:
            OSError: the disk refused; the round must not be entered.
        """
        self._write(replace(self._record, seen=max(order, self._record.seen), entered=unix))

    def charge(self, order: Order, mode: Mode, rho: float, unix: float) -> None:
        """Return once it is safe that this round is charged; only then may its masked update leave.

        Args:
            order: the round; entered, and newer than the last one charged.
            mode: who adds the noise.
            rho: what it costs at most, zCDP, above 0 and finite.
            unix: the time, in seconds since 1970.

        Raises:
            MisuseError: the round was not entered, or is charged already, or a value is out of its range.
            OSError: the disk refused; nothing may leave. The same charge may be tried again; if it is not, a
                restarted agent may count it.
        """
        if order > self.seen:
            raise MisuseError(f"round {order} is charged and was not entered")
        self._write(self._record)  # if it was refused before: the ledger gets one line ahead of it, never two
        longer = self._ledger.append(order, mode, rho, unix)
        self._write(replace(self._record, ledger=longer.head))
        self._ledger = longer

    def _open(self, ledger_file: Path) -> tuple[_Record, Ledger]:
        record = self._read()
        while True:
            try:
                return self._joined(record, open_ledger(ledger_file, record.ledger))
            except DamagedStateError:
                before, record = record, self._read()
                if record == before:
                    raise
                # A running agent has written both files between the two looks.

    def _joined(self, record: _Record, opened: Ledger) -> tuple[_Record, Ledger]:
        if opened.last is not None and opened.last.order > record.seen:
            raise DamagedStateError(
                f"{self._file} is an older one: round {opened.last.order} in {opened.file} was entered after "
                f"{record.seen}; restore the newest {self._file.name}"
            )
        return replace(record, ledger=opened.head), opened

    def _read(self) -> _Record:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Record)
        except FileNotFoundError:
            return _Record()
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise DamagedStateError(
                f"{self._file} is damaged ({error}); restore it from a backup, or remove it if this device "
                "took part in no round since"
            ) from error

    def _write(self, record: _Record) -> None:
        if record == self._written:
            return
        self._written = None
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._settled:  # the record must not name a line that could still be lost
            self._ledger.settle()
            self._settled = True
        write_synced(self._file, msgspec.json.encode(record))
        self._record = self._written = record
