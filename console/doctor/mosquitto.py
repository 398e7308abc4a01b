"""Mosquitto's settings, held against what the programs expect of a broker."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from broker.embedded import MAX_INFLIGHT, MAX_KEEPALIVE, MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES
from broker.transport import MAX_PACKET
from console.doctor.examination import Examination
from console.doctor.findings import Finding, Findings, failure, ok, warning
from console.doctor.identity import DAY

AUTOSAVE = 60
"""Seconds of state that kill -9 may cost; the protocol repairs it, by sending again."""


@dataclass(slots=True)
class MosquittoSettings:
    """A settings file.

    Attributes:
        common: what stands for the whole broker.
        listeners: what stands for each listener, by its words ("8883").
        plugins: files that are loaded; they can stand for rules and for persistence.
    """

    common: dict[str, str] = field(default_factory=dict)
    listeners: dict[str, dict[str, str]] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    good: Callable[[str], bool]
    line: str
    why: str


def _is(value: str) -> Callable[[str], bool]:
    return lambda given: given == value


def _at_most(limit: int) -> Callable[[str], bool]:
    return lambda given: given.isdecimal() and 0 < int(given) <= limit


def _exactly(key: str, limit: int, why: str) -> _Wanted:
    return _Wanted(key, _is(str(limit)), f"{key} {limit}", why)


_COMMON = (
    _Wanted("persistence", _is("true"), "persistence true", "sessions and retained messages end with it"),
    _Wanted(
        "autosave_interval",
        _at_most(AUTOSAVE),
        "autosave_interval 5",
        "half an hour of sessions and retained messages is lost by kill -9",
    ),
    _Wanted("allow_anonymous", _is("false"), "allow_anonymous false", "strangers may connect"),
    _Wanted("acl_file", bool, "acl_file /etc/fedfleet/acl", "everybody may say and hear everything"),
    _exactly("max_packet_size", MAX_PACKET, "the programs send packets up to their own limit, and no larger"),
    _exactly("max_inflight_messages", MAX_INFLIGHT, "the programs take so many before they acknowledge"),
    _exactly("max_queued_messages", MAX_QUEUED_MESSAGES, "it bounds what one slow client costs"),
    _exactly("max_queued_bytes", MAX_QUEUED_BYTES, "it bounds what one slow client costs"),
    _Wanted(
        "max_keepalive",
        _at_most(MAX_KEEPALIVE),
        f"max_keepalive {MAX_KEEPALIVE}",
        "a vanished device may be noticed late",
    ),
    _Wanted("set_tcp_nodelay", _is("true"), "set_tcp_nodelay true", "each exchange takes 88 ms, not 1.3"),
)

_LISTENER = (
    _Wanted("tls_version", _is("tlsv1.3"), "tls_version tlsv1.3", "older TLS is accepted"),
    _Wanted("require_certificate", _is("true"), "require_certificate true", "nobody has to show who it is"),
    _Wanted(
        "use_identity_as_username",
        _is("true"),
        "use_identity_as_username true",
        "the rules do not go by the certificate's name",
    ),
    _Wanted(
        "use_username_as_clientid",
        _is("true"),
        "use_username_as_clientid true",
        "a device can push another one out",
    ),
    _Wanted("crlfile", bool, "crlfile /etc/fedfleet/revoked.crl", "who was revoked may connect"),
)

# Mosquitto 2.1 keeps state and rules by plugins, too.
_PLUGINS = {
    "persistence": "persist",
    "autosave_interval": "persist",
    "acl_file": "acl",
}


def read_mosquitto(text: str) -> MosquittoSettings:
    """Read a settings file; what Mosquitto would refuse in it is Mosquitto's to tell."""
    read = MosquittoSettings()
    section = read.common
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key in {"listener", "port"}:
            section = read.listeners.setdefault(value.strip(), {})
        elif key == "plugin":
            read.plugins.append(value.strip())
        elif key and not key.startswith("#"):
            place = section if key in _OF_LISTENERS else read.common
            place[key] = value.strip()
    return read


_OF_LISTENERS = frozenset({one.key for one in _LISTENER} | {"cafile", "certfile", "keyfile"})


def settings(examination: Examination) -> Findings:
    """The file itself."""
    file = examination.mosquitto_conf
    if file is None:
        return
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield failure(f"{file} cannot be read ({error})", "name a file that this user may read")
        return
    read = read_mosquitto(text)
    problems = [*_problems(read)]
    yield from problems
    if not read.listeners:
        yield failure("no listener", "add listener 8883 with what mosquitto.conf of fedfleet has for it")
    elif not problems:
        yield ok(f"{file}: identities, limits and persistence as the programs expect them")


def _problems(read: MosquittoSettings) -> Iterator[Finding]:
    for wanted in _COMMON:
        if not _good(wanted, read.common, read.plugins):
            yield _wrong(wanted, read.common, "")
    for name, given in read.listeners.items():
        for wanted in _LISTENER:
            if not _good(wanted, given, []):
                yield _wrong(wanted, given, f"listener {name}: ")


def _good(wanted: _Wanted, given: dict[str, str], plugins: list[str]) -> bool:
    plugin = _PLUGINS.get(wanted.key)
    if plugin and any(plugin in Path(one).name for one in plugins):
        return True
    return wanted.key in given and wanted.good(given[wanted.key])


def _wrong(wanted: _Wanted, given: dict[str, str], where: str) -> Finding:
    has = f"{wanted.key} is {given[wanted.key]}" if wanted.key in given else f"no {wanted.key}"
    return failure(f"{where}{has}: {wanted.why}", f"write {wanted.line}, and restart the broker")


def lists(examination: Examination) -> Findings:
    """The revocation lists that the broker's TLS goes by."""
    file = examination.mosquitto_conf
    if file is None:
        return
    try:
        read = read_mosquitto(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return  # told by the check of the file
    for place in sorted({one["crlfile"] for one in read.listeners.values() if "crlfile" in one}):
        yield from _lists_in(Path(place), examination.clock.unix())


def _lists_in(file: Path, now: float) -> Findings:
    fix = f"see that `fedfleet guard` runs and writes {file}"
    try:
        lists = [*_pem_lists(file.read_bytes())]
    except (OSError, ValueError) as error:
        yield failure(f"{file} holds no revocation lists ({error}): the broker refuses everybody", fix)
        return
    for one in lists:
        issuer, expires = one.issuer.rfc4514_string(), one.next_update_utc
        left = expires.timestamp() - now if expires else 0.0
        if left <= 0:
            yield failure(f"{file}: the list of {issuer} has expired: all it signed for are refused", fix)
        elif left < DAY:
            yield warning(f"{file}: the list of {issuer} expires in {left / 3600:.1f} h", fix)
        else:
            yield ok(f"{file}: the list of {issuer} is good for another {left / DAY:,.1f} days")
    if not lists:
        yield failure(f"{file} holds no revocation lists: the broker refuses everybody", fix)


_END = b"-----END X509 CRL-----"


def _pem_lists(data: bytes) -> Iterator[x509.CertificateRevocationList]:
    for part in data.split(_END)[:-1]:
        yield x509.load_pem_x509_crl(part + _END)
