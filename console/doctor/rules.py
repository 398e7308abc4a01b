"""Whether a broker's access rules are what `broker.access` says.

A broker may grant a subscription and deliver nothing, and acknowledge a publish and drop it. So each rule is
tried by a message that would come back to us if it were broken, on topics that no program listens to: those
of names that nobody can have, of a round and a shard that there are not. Nothing is retained.
"""

from dataclasses import dataclass

from broker.access import PROBE_SHARD
from broker.probe import DENIED, Probe, ProbeError, TakenOverError
from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, graver, ok
from protocol.ids import DeviceId, Order
from protocol.roles import Role
from protocol.topics import Topics

FIX = "write the broker's rules with `fedfleet access`, and have the broker read them"

# No device can have the name of a role, and rounds and epochs begin at 1.
_NO_DEVICE = DeviceId(Role.WATCH)
_NO_ORDER = Order(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where one client's rules can be tried without disturbing anybody.

    Attributes:
        hears: it may hear this, and must not say it.
        says: it may say this, and must not hear it.
        neither: it must not say these; nor hear them.
    """

    hears: str
    says: str
    neither: tuple[str, ...]


def ground(topics: Topics, role: Role, name: str) -> Ground:
    """The topics for a client."""
    neither = (topics.probe(_NO_DEVICE), topics.outbox(_NO_DEVICE))
    match role:
        case Role.COORDINATOR:
            return Ground(topics.upload(PROBE_SHARD, _NO_DEVICE), topics.inbox(_NO_DEVICE), neither)
        case Role.REGISTRAR:
            return Ground(topics.enrolment_request(_NO_DEVICE), topics.enrolment_answer(_NO_DEVICE), neither)
        case _:
            decision = topics.decision(_NO_ORDER, "probe")
            return Ground(decision, topics.upload(PROBE_SHARD, DeviceId(name)), neither)


def permitted(examination: Examination) -> Findings:
    """A client may talk to itself, and what it says comes back."""
    topic, token = examination.own_topic, examination.token()
    with examination.connect() as probe:
        probe.subscribe(topic)
        probe.publish(topic, token)
        heard = probe.hears(topic, token)
    if heard:
        yield ok(f"{topic} comes back")
    else:
        yield failure(f"{topic}, which is our own, does not come back", FIX)


def forbidden_to_say(examination: Examination) -> Findings:
    """What others rely on must not be said by everybody."""
    tried = _ground(examination)
    for topic in (tried.hears, *tried.neither):
        if _passes(examination, topic, topic):
            yield graver(
                examination, f"{topic} may be published to, and must not: clients can speak for others", FIX
            )
        else:
            yield ok(f"publishing to {topic} has no effect")


def forbidden_to_hear(examination: Examination) -> Findings:
    """What is for others must not be heard, whatever the broker says to the subscription."""
    topic = _ground(examination).says
    listening = topic.rpartition("/")[0] + "/#"
    if _comes_back(examination, topic, listening):
        yield graver(
            examination, f"{listening} may be listened to, and must not: clients hear what is for others", FIX
        )
    else:
        yield ok(f"nothing comes of subscribing to {listening}")


def _passes(examination: Examination, topic: str, listening: str) -> bool:
    """Whether a message was let through: it came back, or a broker that tells says so."""
    with examination.connect() as probe:
        code, heard = _try(examination, probe, topic, listening)
        return heard or (probe.greeting.modern and code < DENIED)


def _comes_back(examination: Examination, topic: str, listening: str) -> bool:
    with examination.connect() as probe:
        return _try(examination, probe, topic, listening)[1]


def _try(examination: Examination, probe: Probe, topic: str, listening: str) -> tuple[int, bool]:
    """Say something, then something that must come back: had the first been let through, it would be here."""
    own, token, after = examination.own_topic, examination.token(), examination.token()
    try:
        probe.subscribe(own)
        probe.subscribe(listening)
        code = probe.publish(topic, token)
        probe.publish(own, after)
        probe.hears(own, after)
    except TakenOverError:
        raise
    except ProbeError:  # some brokers hang up on who tries
        return DENIED, probe.has_heard(topic, token)
    return code, probe.has_heard(topic, token)


def _ground(examination: Examination) -> Ground:
    return ground(examination.topics, examination.role, examination.mqtt().client_id)
