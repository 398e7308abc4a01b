"""What the privacy of this device's data has cost: a line for each noised round whose update may have left.

A line is on the disk before the first byte of the update leaves, and it is never taken back: a device cannot
verify that nothing was unmasked. The costs are zCDP and add up (`privacy.accounting.compose`).

Each line carries the SHA-256 of the line before it, newline included (`tail -n 1 ledger.jsonl | sha256sum`),
and the agent's record knows the newest line. So a ledger that was turned back, cut or edited on its own is
found. Nothing is found when the whole state folder is turned back, or when somebody writes a new chain and a
record to it: the hashes are no secret, and the device's owner is trusted.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from device_agent.errors import DamagedStateError
from privacy.accounting import compose
from privacy.mode import Mode
from protocol.errors import MAX_CAUSE, MisuseError
from protocol.ids import Order
from runtime.files import append_synced

FILE = "ledger.jsonl"

_Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A SHA-256 in hex."""


class Charge(Struct, frozen=True, forbid_unknown_fields=True):
    """What one round cost: a line of the file.

    Attributes:
        sequence: of the charge, from 1.
        order: the round.
        mode: who added the noise: "distributed", this device and the others; "central", the coordinator.
        rho: zCDP, above 0 and finite.
        unix: when, in seconds since 1970.
        previous: SHA-256 of the line before; of nothing for the first.
    """

    sequence: Annotated[int, Meta(ge=1)]
    order: Order
    mode: Mode
    rho: Annotated[float, Meta(gt=0.0)]
    unix: Annotated[float, Meta(ge=0.0)]
    previous: _Digest


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a ledger ends.

    Attributes:
        charges: how many there are.
        digest: SHA-256 of the newest line; of nothing before the first.
    """

    charges: Annotated[int, Meta(ge=0)] = 0
    digest: _Digest = sha256().hexdigest()


EMPTY = Head()
"""Where a ledger without charges ends."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger as it was at one moment.

    Attributes:
        file: where it is.
        charges: all, oldest first.
        head: where it ends.
        size: bytes of the charges' lines; what the file holds beyond them is of no charge.
    """

    file: Path
    charges: tuple[Charge, ...] = ()
    head: Head = EMPTY
    size: int = 0

    @property
    def spent(self) -> float:
        """The rho of all charges together."""
        return compose(charge.rho for charge in self.charges) if self.charges else 0.0

    @property
    def last(self) -> Charge | None:
        """The newest charge."""
        return self.charges[-1] if self.charges else None

    def append(self, order: Order, mode: Mode, rho: float, unix: float) -> "Ledger":
        """Write one more line; returns the longer ledger once it is durable.

        Raises:
            MisuseError: the round is not newer than the last one charged, or a value is out of its range.
            OSError: the disk refused. The line may be there or in part; appending to this same ledger again
                writes over it.
        """
        if self.last is not None and order <= self.last.order:
            raise MisuseError(f"round {order} is charged after round {self.last.order}")
        charge = Charge(self.head.charges + 1, order, mode, rho, unix, self.head.digest)
        line = msgspec.json.encode(charge) + b"\n"
        try:
            _linked(line, self.head)  # what could not be read again must not be written
        except ValueError as error:
            raise MisuseError(f"the charge of round {order} {error}") from error
        append_synced(self.file, self.size, line)
        return Ledger(self.file, (*self.charges, charge), _after(self.head, line), self.size + len(line))

    def settle(self) -> None:
        """Make durable what was read, and cut what a crash has left behind it.

        Raises:
            OSError: the disk refused.
        """
        if self.file.exists():
            append_synced(self.file, self.size, b"")


def open_ledger(file: Path, known: Head) -> Ledger:
    """Read and check a ledger; nothing is written.

    It may be one line longer than known: a crash came between the two files, and the charge counts. Whatever
    else is behind the known lines is what a crash has left of a line, and no charge: nothing of that round
    has left the device.

    Args:
        file: the ledger; it need not exist when no charge is known.
        known: where the agent's record says that it ends.

    Raises:
        DamagedStateError: it is not the known ledger, or it is longer than a crash can make it.
    """
    ledger, end = _follow(file)
    count = len(ledger.charges)
    if count < known.charges:
        raise _damaged(file, f"{end}, and {known.charges} charges are on record")
    newest = ledger.head.digest if count == known.charges else ledger.charges[known.charges].previous
    if newest != known.digest:
        raise _damaged(file, f"line {known.charges} is not the one that was written")
    if count > known.charges + 1:
        raise DamagedStateError(
            f"{file} holds {count} charges, and the agent's record beside it knows of {known.charges}: the "
            "record is an older one; restore the newest"
        )
    return ledger


def _follow(file: Path) -> tuple[Ledger, str]:
    """The chain as far as it goes, and in words why it ends there."""
    *lines, _torn = _content(file).split(b"\n")
    charges: list[Charge] = []
    head, size = EMPTY, 0
    for line in (text + b"\n" for text in lines):
        try:
            charges.append(_linked(line, head))
        except ValueError as error:
            end = f"line {len(charges) + 1} {str(error)[:MAX_CAUSE]}"
            break
        head, size = _after(head, line), size + len(line)
    else:
        end = f"it holds {len(charges)} charges"
    return Ledger(file, tuple(charges), head, size), end


def _linked(line: bytes, head: Head) -> Charge:
    """The charge in a line, if it is the one after `head`.

    Raises:
        ValueError: what is wrong with the line.
    """
    try:
        charge = msgspec.json.decode(line, type=Charge)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"is no charge ({error})") from error
    if (charge.sequence, charge.previous) != (head.charges + 1, head.digest):
        raise ValueError("does not follow from the line before it")
    return charge


def _after(head: Head, line: bytes) -> Head:
    return Head(head.charges + 1, sha256(line).hexdigest())


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _damaged(file, f"it cannot be read ({error.strerror})") from error


def _damaged(file: Path, cause: str) -> DamagedStateError:
    return DamagedStateError(
        f"{file} is damaged: {cause}; restore the newest one from a backup. Without it nobody knows what the "
        "privacy of this device's data has cost: start a new state folder with new data only"
    )
