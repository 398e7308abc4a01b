"""What an agent must not forget: how often it started, and the newest round it entered.

The entered round is the tombstone of invariant I2: it is synced before the round's keys leave, so a restarted
agent never joins a round again whose masks it may have used.
"""

from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from protocol.errors import FedfleetError
from protocol.ids import ORIGIN, Order
from runtime.files import write_synced

FILE = "agent.json"

_log = structlog.get_logger(__name__)


class DamagedStateError(FedfleetError):
    """The agent's state cannot be read; going on without it could reuse masks."""


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    boot: int = 0
    seen: Order = ORIGIN


class AgentMemory:
    """The agent's durable state, in one small file.

    Args:
        folder: made when it is needed.

    Raises:
        DamagedStateError: the file is there but cannot be read; it is left untouched.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._record = self._read()

    @property
    def boot(self) -> int:
        """How often the agent has started, from 1."""
        return self._record.boot

    @property
    def seen(self) -> Order:
        """The newest round it entered."""
        return self._record.seen

    def begin(self) -> None:
        """Count a start.

        A disk that refuses is no reason to stay away, unseen: the device declines rounds, and says why, until
        one can be remembered. The count is written with that round.
        """
        record = _Record(self._record.boot + 1, self._record.seen)
        try:
            self._write(record)
        except OSError as error:
            _log.warning("start_not_counted", cause=str(error))
            self._record = record

    def remember(self, order: Order) -> None:
        """Return once it is safe that this round was entered.

        Raises:
            OSError: the disk refused; the round must not be entered.
        """
        self._write(_Record(self._record.boot, max(order, self._record.seen)))

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
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_synced(self._file, msgspec.json.encode(record))
        self._record = record
