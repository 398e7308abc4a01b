"""Who the program would be: certificate, key, role and dates."""

import stat

from cryptography import x509

from console.doctor.examination import Examination
from console.doctor.findings import Finding, Findings, failure, ok, told, warning
from protocol.certificates import MAX_CLOCK_SKEW, Certificate, FleetTrust
from protocol.errors import CertificateError
from protocol.roles import Role, fits
from runtime.identity import Identity, IdentityError

LATE = 1 / 6
"""Part of a certificate's life that is left when somebody should have renewed it: devices do at a third."""

DAY = 86_400.0

_RENEW = {
    Role.DEVICE: "see that the registrar runs, or enrol the device again with `fedfleet agent join`",
}
_RENEW_BY_ROOT = "renew it with `fedfleet ca renew` where the fleet's root is kept"


def files(examination: Examination) -> Findings:
    """The folder, its files, and that key and certificate belong together."""
    folder = examination.settings.identity
    try:
        identity = examination.identity
        mode = stat.S_IMODE(folder.stat().st_mode)
    except (IdentityError, OSError) as error:
        yield told(error, f"check the rights of {folder}")
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield failure(f"others may write into {folder}", f"run chmod 700 {folder}")
    yield ok(f"{identity.name} in {folder}; the key is its owner's alone and belongs to the certificate")


def standing(examination: Examination) -> Findings:
    """Fleet, role and name."""
    identity = examination.try_identity()
    if identity is None:
        return
    settings, role = examination.settings, examination.role
    again = f"give the identity of a {role} of fleet {settings.fleet}"
    try:
        own = _read(identity)
    except CertificateError as error:
        yield failure(str(error), again)
        return
    if own.fleet != settings.fleet:
        yield failure(f"the certificate is of fleet {own.fleet}, the settings say {settings.fleet}", again)
    elif own.role is not role:
        yield failure(f"{own.subject} is a {own.role}, not a {role}", again)
    elif own.subject != identity.name or not fits(own.subject, role):
        yield failure(f"the certificate of {own.subject} is called {identity.name}", again)
    else:
        yield ok(f"{own.subject} is a {role} of fleet {own.fleet}")


def dates(examination: Examination) -> Findings:
    """Of the certificate and of those above it."""
    identity = examination.try_identity()
    if identity is None:
        return
    now = examination.clock.unix()
    fix = _RENEW.get(examination.role, _RENEW_BY_ROOT)
    yield within(f"{identity.name}'s certificate", identity.certificate, now, fix)
    if identity.registrar:
        yield within("the registrar's certificate", identity.registrar, now, _RENEW_BY_ROOT)
    yield within("the fleet's root", identity.root, now, "make a new fleet: a root cannot be renewed")


def clock(examination: Examination) -> Findings:
    """The wall clock, as far as what was signed before now tells."""
    identity = examination.try_identity()
    if identity is None:
        return
    ders = [identity.root, identity.certificate] + ([identity.registrar] if identity.registrar else [])
    latest = max(x509.load_der_x509_certificate(der).not_valid_before_utc.timestamp() for der in ders)
    behind = latest - examination.clock.unix()
    if behind > MAX_CLOCK_SKEW:
        yield failure(
            f"the clock is at least {behind:,.0f} s behind: a certificate is from later than now",
            "set the clock, and run an NTP client",
        )
    else:
        yield ok("not behind the newest certificate")


def within(what: str, der: bytes, now: float, fix: str) -> Finding:
    """Whether a certificate is in its dates, and will be for a while."""
    certificate = x509.load_der_x509_certificate(der)
    begins = certificate.not_valid_before_utc.timestamp()
    ends = certificate.not_valid_after_utc.timestamp()
    if now > ends:
        return failure(f"{what} expired {_days(now - ends)} ago", fix)
    if now < begins - MAX_CLOCK_SKEW:
        return failure(f"{what} is not valid for another {_days(begins - now)}", "check the clock")
    if ends - now < LATE * (ends - begins):
        return warning(f"{what} expires in {_days(ends - now)}", fix)
    return ok(f"{what} is good for another {_days(ends - now)}")


def _days(seconds: float) -> str:
    return f"{seconds / DAY:,.1f} days"


def _read(identity: Identity) -> Certificate:
    return FleetTrust(identity.root, identity.registrar).read(identity.certificate)
