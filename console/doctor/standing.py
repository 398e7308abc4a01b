"""What the fleet's others have left at the broker: revocation list, guard, coordinator."""

from broker.probe import Probe
from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, ok, warning
from console.doctor.identity import DAY
from protocol.certificates import FleetTrust
from protocol.errors import CertificateError, FrameError
from protocol.status import BrokerStatus, CoordinatorStatus, decode_status

RETAINED_SECONDS = 0.5
"""How long a retained message may come after a message that was published later: brokers send it at once."""

_REGISTRAR = "see that `fedfleet registrar` runs and is connected"
_AGAIN = "enrol again under a new name, if it was not meant so"
_GUARD = "see that `fedfleet guard` runs beside the broker, and read its log"


def revocations(examination: Examination) -> Findings:
    """The registrar's list: it must be there, be good, and not name us."""
    identity, now = examination.identity, examination.clock.unix()
    message = _retained(examination, examination.topics.revocations)
    if message is None:
        if identity.registrar:
            yield failure("there is none, and so nobody trusts what a registrar has signed", _REGISTRAR)
        elif examination.production:
            yield warning("there is none: nobody can be thrown out", "enrol devices by `fedfleet registrar`")
        else:
            yield ok("none: a fleet without a registrar")
        return
    trust = FleetTrust(identity.root, identity.registrar)
    try:
        trust.heed(message)
        own = trust.read(identity.certificate)
        if trust.is_revoked(own):
            yield failure(f"list {trust.sequence} takes our certificate back", _AGAIN)
            return
        trust.check_list(now)
        trust.check_standing(own, now)
    except CertificateError as error:
        yield failure(str(error).partition("; ")[0], _REGISTRAR)
        return
    left = trust.revocations.expires - now if trust.revocations else 0.0
    if left < DAY:
        yield warning(f"list {trust.sequence} expires in {left / 3600:.1f} h", _REGISTRAR)
    else:
        yield ok(f"list {trust.sequence}, good for another {left / DAY:,.1f} days, does not name us")


def guard(examination: Examination) -> Findings:
    """Whether the broker goes by the newest list."""
    message = _retained(examination, examination.topics.broker_status)
    listed = _retained(examination, examination.topics.revocations)
    if message is None:
        yield failure("no guard has ever said anything: the broker lets in who was revoked", _GUARD)
        return
    try:
        status = decode_status(message, BrokerStatus)
    except FrameError as error:
        yield failure(f"the guard's status cannot be read: {error}", _GUARD)
        return
    newest = _number(examination, listed)
    if status.state != "online":
        yield failure(f"the guard is {status.state}", _GUARD)
    elif newest and status.revocations < newest:
        why = f": {status.why}" if status.why else ""
        yield failure(f"the broker goes by list {status.revocations}, the newest is {newest}{why}", _GUARD)
    else:
        yield ok(f"online, and the broker goes by list {status.revocations}")


def coordinator(examination: Examination) -> Findings:
    """Whether there is one to take part with."""
    start = "start `fedfleet coordinator`, if there is to be training now"
    message = _retained(examination, examination.topics.coordinator_status)
    if message is None:
        yield warning("none has ever said anything", start)
        return
    try:
        status = decode_status(message, CoordinatorStatus)
    except FrameError as error:
        yield warning(str(error), "give coordinator and agent the same version of fedfleet")
        return
    if status.state == "online":
        yield ok(f"online, with {status.devices} devices on offer")
    else:
        yield warning(f"it is {status.state}", start)


def _number(examination: Examination, message: bytes | None) -> int:
    if message is None:
        return 0
    trust = FleetTrust(examination.identity.root)
    try:
        trust.heed(message)
    except CertificateError:
        return 0  # told by the check of the list
    return trust.sequence


def _retained(examination: Examination, topic: str) -> bytes | None:
    own, token = examination.own_topic, examination.token()
    with examination.connect() as probe:
        probe.subscribe(own)
        probe.subscribe(topic)
        probe.publish(own, token)
        probe.hears(own, token)
        probe.waits_for(lambda: bool(_on(probe, topic)), patience=RETAINED_SECONDS)
        return next(iter(_on(probe, topic)), None)


def _on(probe: Probe, topic: str) -> list[bytes]:
    return [one.payload for one in probe.received if one.topic == topic]
