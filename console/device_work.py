"""What the commands of `fedfleet device` do, and `fedfleet ca sign`: all of it in the registrar's store."""

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from rich.table import Table

from device_agent.join import write_bundle
from protocol.enrolment import Enrolled, encode_token
from protocol.errors import FedfleetError
from protocol.messages import MAX_REASON
from registrar.office import Office
from registrar.root import fingerprint
from registrar.running import is_running
from registrar.store import STORE_FILE, DeviceRecord, RegistrarStore
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.files import write_synced
from runtime.identity import load_identity

_POLL = 0.02


class DeviceError(FedfleetError):
    """There is no such device, or no such file; the message says the fix."""


class DeviceRow(Struct, frozen=True):
    """One device, for people and `--json`. Moments are ISO 8601, UTC; empty for what has not been.

    Attributes:
        name: in the fleet.
        state: "standing", "expired" or "revoked".
        enrolled: when.
        not_after: until when its newest certificate is good.
        fingerprint: SHA-256 of that.
        revoked: when.
        reason: why, in the operator's words.
        listed: when the broker had the list that names it.
        guarded: when the broker went by that list.
        kicked: when its session at the broker was ended.
    """

    name: str
    state: str
    enrolled: str
    not_after: str
    fingerprint: str
    revoked: str
    reason: str
    listed: str
    guarded: str
    kicked: str


def give_tokens(
    identity: Path, state: Path, count: int, names: Sequence[str], lifetime: float
) -> Iterator[str]:
    """Tokens for these names, or as many without one.

    Raises:
        FedfleetError: identity or state are not usable, or a name is taken.
    """
    with contextlib.closing(RegistrarStore(state)) as store:
        office = Office(load_identity(identity), store, SystemEntropy().bytes)
        wanted: Sequence[str | None] = names or [None] * count
        for name in wanted:
            yield encode_token(office.give_claim(SystemClock().unix(), lifetime, name))


def sign_csr(csr: Path, identity: Path, state: Path, out: Path | None) -> list[str]:
    """`ca sign`: returns what to tell.

    Raises:
        FedfleetError: identity or state are not usable, or the request breaks a rule.
    """
    request = _read_csr(csr)
    now = SystemClock().unix()
    with contextlib.closing(RegistrarStore(state)) as store:
        office = Office(load_identity(identity), store, SystemEntropy().bytes)
        certificate = office.enrol_by_hand(request, now)
        if store.newest_list() is None:
            office.sign_list(now)
        answer = Enrolled(certificate, office.identity.certificate, office.current_list.message)
    bundle = write_bundle(office.identity.root, answer)
    name = office.trust.read(certificate).subject
    file = out or Path(f"{name}.enrolled")
    write_synced(file, bundle)
    return [
        f"{file}: bring it to {name}, and run there: fedfleet agent install {file.name}",
        f"Fingerprint of the fleet's root, to compare there: {fingerprint(office.identity.root)}",
    ]


def _read_csr(file: Path) -> bytes:
    try:
        return x509.load_pem_x509_csr(file.read_bytes()).public_bytes(Encoding.DER)
    except OSError as error:
        raise DeviceError(f"{file} cannot be read ({error.strerror}); give the file of the device") from error
    except ValueError as error:
        raise DeviceError(f"{file} is no signing request; make it with `fedfleet agent csr`") from error


def read_devices(state: Path) -> tuple[list[DeviceRow], int]:
    """All devices by name, and how many tokens could still be used.

    Raises:
        DeviceError: no registrar has used the folder.
    """
    with _opened(state) as store:
        now = SystemClock().unix()
        return [_row(device, now) for device in store.devices()], store.open_claims(now)


def find_devices(state: Path, name: str) -> list[DeviceRow]:
    """All devices that have had a name.

    Raises:
        DeviceError: none has.
    """
    rows, _ = read_devices(state)
    if found := [row for row in rows if row.name == name]:
        return found
    raise DeviceError(f"no device is called {name}; `fedfleet device ls` names them all")


def revoke_devices(
    state: Path, names: Sequence[str], reason: str, wait: float, tell: Callable[[str], None]
) -> bool:
    """Revoke, and wait until the running registrar has seen it through.

    Args:
        state: the registrar's.
        names: of the devices.
        reason: for the record.
        wait: at most so many seconds.
        tell: is given each line.

    Returns:
        Whether the devices are out: the new list published, and their sessions ended.

    Raises:
        DeviceError: a device is not there, or was revoked before.
    """
    with _opened(state) as store:
        devices = [_standing(store, name) for name in names]
        start = time.monotonic()
        for device in devices:
            store.revoke(device.id, SystemClock().unix(), reason[:MAX_REASON])
        if not is_running(state):
            tell(
                f"{', '.join(names)}: revoked in the store, but no registrar runs on it: nobody knows yet. "
                "Start `fedfleet registrar`."
            )
            return False
        # All are told of, also after one that was not seen through.
        seen = [_see(store, device, start, wait, tell) for device in devices]
        return all(seen)


def _standing(store: RegistrarStore, name: str) -> DeviceRecord:
    device = store.standing(name)
    if device is None:
        raise DeviceError(f"no device called {name} stands; `fedfleet device ls` names them all")
    return device


def _see(
    store: RegistrarStore, device: DeviceRecord, start: float, wait: float, tell: Callable[[str], None]
) -> bool:
    steps = {
        "listed": "the new revocation list is out",
        "guarded": "the broker goes by it",
        "kicked": "its session has ended",
    }
    while time.monotonic() < start + wait:
        now = store.device(device.id)
        for step in [step for step in steps if now and getattr(now, step) is not None]:
            tell(f"{device.name}: {steps.pop(step)} after {time.monotonic() - start:.2f} s")
        if "kicked" not in steps:
            if "guarded" in steps:
                tell(f"{device.name}: no guard spoke: see to it that the broker reads the new revoked.crl")
            return True
        time.sleep(_POLL)
    tell(f"{device.name}: not seen within {wait:.0f} s: {'; '.join(steps.values())}. See the registrar's log")
    return False


@contextlib.contextmanager
def _opened(state: Path) -> Iterator[RegistrarStore]:
    if not (state / STORE_FILE).exists():
        raise DeviceError(f"{state} is no registrar's state folder; give the one of `fedfleet registrar`")
    with contextlib.closing(RegistrarStore(state)) as store:
        yield store


def _row(device: DeviceRecord, now: float) -> DeviceRow:
    state = "revoked" if device.revoked is not None else "expired" if now > device.not_after else "standing"
    return DeviceRow(
        name=device.name,
        state=state,
        enrolled=_moment(device.enrolled),
        not_after=_moment(device.not_after),
        fingerprint=fingerprint(device.certificate),
        revoked=_moment(device.revoked),
        reason=device.reason,
        listed=_moment(device.listed),
        guarded=_moment(device.guarded),
        kicked=_moment(device.kicked),
    )


def _moment(unix: float | None) -> str:
    if unix is None:
        return ""
    return dt.datetime.fromtimestamp(unix, tz=dt.UTC).isoformat(timespec="milliseconds")


def table(rows: Sequence[DeviceRow]) -> Table:
    """For the terminal."""
    made = Table("device", "state", "enrolled", "until", "why")
    for row in rows:
        made.add_row(row.name, row.state, row.enrolled[:16], row.not_after[:16], row.reason)
    return made


def lines(row: DeviceRow) -> list[str]:
    """One device, a line for each thing that is known."""
    known = {name: getattr(row, name) for name in row.__struct_fields__}
    return [f"{name.replace('_', ' '):12} {value}" for name, value in known.items() if value]
