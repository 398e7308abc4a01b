"""What a broker does for a client: sessions, retained messages, sizes."""

from dataclasses import replace

from broker.embedded import MAX_KEEPALIVE
from broker.probe import DENIED, Probe, ProbeError, TakenOverError
from broker.transport import MAX_PACKET
from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, graver, ok, warning
from protocol.chunks import MAX_CHUNK_SIZE

FRAME = 2_048
"""Bytes that a chunk's frame adds, its signature and certificate included, and more."""

PING_NEVER = 65_535
"""The longest keepalive there is, in seconds."""

_LIMITS = "take max_packet_size and the other limits from fedfleet's mosquitto.conf"


def connection(examination: Examination) -> Findings:
    """As the program connects."""
    with examination.connect() as probe:
        greeting = probe.greeting
    version = "MQTT 5" if greeting.modern else "MQTT 3.1.1, which tells no reasons and lets nothing expire"
    yield ok(f"as {examination.mqtt().client_id} by {version}")


def own_name(examination: Examination) -> Findings:
    """Whether a client id other than its own name helps a client to anything: it could push others out."""
    own = examination.mqtt()
    other = replace(own, client_id=f"{own.client_id}-{examination.entropy.bytes(8).hex()}")
    with examination.connect() as first:
        try:
            with examination.connect(other):
                tied = not _alive(examination, first)
        except ProbeError:
            yield ok("another client id than the name is refused")
            return
    if tied:
        yield ok("whatever client id it gives, a client is called as its certificate is")
        return
    with examination.connect(replace(other, clean=True)):
        pass  # leaves no session under a name that is not ours
    yield graver(
        examination,
        "client ids are free: any client can push any other one out",
        "write use_identity_as_username true and use_username_as_clientid true into mosquitto.conf; "
        "NATS has no such settings",
    )


def sessions(examination: Examination) -> Findings:
    """What was subscribed must outlive a connection."""
    with examination.connect():
        pass
    with examination.connect() as again:
        kept = again.greeting.session_present
    if kept:
        yield ok("kept over a new connection")
    else:
        yield failure(
            "the broker forgets what a client subscribed as soon as its connection ends",
            "have the broker keep sessions; Mosquitto does: persistent_client_expiration 7d",
        )


def retained(examination: Examination) -> Findings:
    """A retained message must be there for who comes later."""
    topic, token = examination.own_topic, examination.token()
    with examination.connect() as probe:
        probe.publish(topic, token, retain=True)
        try:
            probe.subscribe(topic)
            found = probe.hears(topic, token, retained=True)
        finally:
            probe.publish(topic, b"", retain=True)
    if found:
        yield ok("kept for who comes later")
    else:
        yield failure(
            "a retained message was not there for who subscribed after it",
            "have the broker retain messages: retain_available true in mosquitto.conf",
        )


def large(examination: Examination) -> Findings:
    """The largest chunk with its frame must pass."""
    payload = _filled(examination, MAX_CHUNK_SIZE + FRAME)
    try:
        passes = _comes_back(examination, payload)
    except TakenOverError:
        raise
    except ProbeError as error:
        yield failure(f"a message of {len(payload):,} bytes does not pass: {error}", _LIMITS)
        return
    if passes:
        yield ok(f"a message of {len(payload):,} bytes passes")
    else:
        yield failure(f"a message of {len(payload):,} bytes does not come back", _LIMITS)


def too_large(examination: Examination) -> Findings:
    """What is larger than the limit must be refused, and cost no more than its own connection."""
    payload = _filled(examination, MAX_PACKET)
    try:
        passes = _comes_back(examination, payload)
    except TakenOverError:
        raise
    except ProbeError:
        passes = False
    if passes:
        yield graver(
            examination,
            f"a message of {len(payload):,} bytes passes: one client can take much of the broker's memory",
            _LIMITS,
        )
        return
    with examination.connect():
        yield ok(f"a message of {len(payload):,} bytes is refused, and the next connection works")


def keepalive(examination: Examination) -> Findings:
    """A broker must not wait for a vanished client for hours because it asked so."""
    try:
        with examination.connect(replace(examination.mqtt(), keepalive=PING_NEVER)) as probe:
            given = probe.greeting.keepalive
    except ProbeError:
        yield ok(f"{PING_NEVER} s are refused")
        return
    if given is not None and given <= MAX_KEEPALIVE:
        yield ok(f"{given} s at most")
    else:
        yield warning(
            "the broker waits for a vanished client as long as that asked it to",
            f"write max_keepalive {MAX_KEEPALIVE} into mosquitto.conf",
        )


def _alive(examination: Examination, probe: Probe) -> bool:
    try:
        probe.publish(examination.own_topic, b"")
    except ProbeError:
        return False
    return True


def _comes_back(examination: Examination, payload: bytes) -> bool:
    topic = examination.own_topic
    with examination.connect() as probe:
        probe.subscribe(topic)
        if probe.publish(topic, payload) >= DENIED:
            return False
        return probe.hears(topic, payload)


def _filled(examination: Examination, size: int) -> bytes:
    return examination.token().ljust(size, b".")
