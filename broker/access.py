"""Who may say and hear what: the access rules of a fleet, once, and as brokers want them.

What is not granted is denied. A name tells a client's role (`protocol.roles.fits`), because a broker knows of
a client only what its certificate calls it. The rules keep strangers out and devices apart; nothing in the
protocol relies on them: what counts is signed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from broker.routing import matches
from protocol.ids import DeviceId
from protocol.roles import Role, fits
from protocol.topics import Topics

ALWAYS = (Role.COORDINATOR, Role.REGISTRAR, Role.WATCH, Role.GUARD, Role.CLAIM, Role.BROKER)
"""Roles whose word alone is a name with rules of its own, whoever else there is."""

SHARDS = ("main",)
"""Where uploads go unless a coordinator's settings say otherwise."""

PROBE_SHARD = "probe"
"""Where none go: `fedfleet doctor` tries a device's rules there."""

_ANY = DeviceId("+")


@dataclass(frozen=True, slots=True)
class Access:
    """What one client may do.

    Attributes:
        publish: filters of the topics it may publish to.
        subscribe: filters of the topics that it is sent messages of.
    """

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    def __or__(self, other: "Access") -> "Access":
        """Both together."""
        return Access(self.publish + other.publish, self.subscribe + other.subscribe)


def role_called(name: str) -> Role:
    """The role that a name stands for."""
    return next((role for role in Role if role is not Role.DEVICE and fits(name, role)), Role.DEVICE)


def access_of(topics: Topics, name: str, shards: Sequence[str] = SHARDS) -> Access:
    """The rules for one client.

    Args:
        topics: of its fleet.
        name: the common name of its certificate.
        shards: where devices may upload to, the coordinators' `shard` settings. Any at all would be a place
            for as many retained messages as somebody likes.
    """
    role = role_called(name)
    if role is Role.DEVICE:
        return own_access(topics, name, shards) | public_access(topics) | probe_access(topics, name)
    return _roles(topics)[role] | probe_access(topics, name)


def probe_access(topics: Topics, name: str) -> Access:
    """What everybody may do: talk to itself, which is how `fedfleet doctor` examines a broker."""
    return Access(publish=(topics.probe(name),), subscribe=(topics.probe(name),))


def own_access(topics: Topics, name: str, shards: Sequence[str] = SHARDS) -> Access:
    """What a device may do because it has this name."""
    device = DeviceId(name)
    return Access(
        publish=(
            topics.offer(device),
            topics.outbox(device),
            topics.wants(device),
            *(topics.upload(shard, device) for shard in (*shards, PROBE_SHARD)),
            topics.device_status(device),
            topics.enrolment_request(name),
        ),
        subscribe=(topics.inbox(device), topics.enrolment_answer(name)),
    )


def public_access(topics: Topics) -> Access:
    """What every device may do."""
    return Access(
        subscribe=(
            topics.every_decision,
            topics.every_blob_chunk,
            topics.revocations,
            topics.pace,
            topics.coordinator_status,
        )
    )


def _roles(topics: Topics) -> dict[Role, Access]:
    return {
        Role.COORDINATOR: Access(
            publish=(
                topics.inbox(_ANY),
                topics.every_decision,
                topics.every_blob_chunk,
                topics.high_water,
                topics.pace,
                topics.coordinator_status,
                topics.round_status,
                topics.every_round_result,
                topics.model_status,
            ),
            subscribe=(
                topics.every_offer,
                topics.every_outbox,
                topics.every_want,
                topics.every_upload("+"),
                topics.every_device_status,
                topics.high_water,
                topics.pace,
                topics.revocations,
            ),
        ),
        Role.REGISTRAR: Access(
            publish=(topics.revocations, topics.enrolment_answer("+")),
            subscribe=(topics.every_enrolment_request, topics.revocations, topics.broker_status),
        ),
        Role.CLAIM: Access(
            publish=(topics.every_enrolment_request,), subscribe=(topics.enrolment_answer("+"),)
        ),
        Role.GUARD: Access(publish=(topics.broker_status,), subscribe=(topics.revocations,)),
        Role.WATCH: Access(subscribe=(topics.everything_for_people,)),
        Role.BROKER: Access(),
    }


def mosquitto_rules(topics: Topics, names: tuple[str, ...] = (), shards: Sequence[str] = SHARDS) -> str:
    """An access file for Mosquitto.

    Devices come by pattern, so the file need not change when one is enrolled. A pattern is for everybody, so
    whoever is no device has what devices may do denied: Mosquitto looks at denials first.

    Args:
        topics: of the fleet.
        names: of those other than devices, besides `ALWAYS`: "watch-alice"; a device's name adds nothing.
        shards: as for `access_of`.
    """
    devices = own_access(topics, "%u", shards) | public_access(topics) | probe_access(topics, "%u")
    sections = [
        [
            f"# Access rules of fleet {topics.fleet}, written by `fedfleet access mosquitto`.",
            "# What is not granted is denied. SIGHUP has Mosquitto read them again.",
        ],
        [
            "# Every device: %u is its certificate's name. Mosquitto warns of patterns without it; let it.",
            *_lines("pattern", devices),
        ],
    ]
    sections += [
        [f"user {name}", *_denials(topics, name, shards), *_lines("topic", access_of(topics, name))]
        for name in dict.fromkeys([*ALWAYS, *names])
        if role_called(name) is not Role.DEVICE
    ]
    return "\n\n".join(map("\n".join, sections)) + "\n"


def _lines(kind: str, access: Access) -> Iterator[str]:
    for topic in dict.fromkeys(access.publish + access.subscribe):
        way = {(True, False): "write", (False, True): "read", (True, True): "readwrite"}
        yield f"{kind} {way[topic in access.publish, topic in access.subscribe]} {topic}"


def _denials(topics: Topics, name: str, shards: Sequence[str]) -> Iterator[str]:
    """A denial is of both ways: what a role may do in one it keeps, and may do in the other as devices do."""
    granted = access_of(topics, name)
    own, public = own_access(topics, name, shards), public_access(topics)
    for topic in own.publish + own.subscribe:
        yield f"topic deny {topic}"
    for topic in public.publish + public.subscribe:
        if not any(_covers(grant, topic) for grant in granted.publish + granted.subscribe):
            yield f"topic deny {topic}"


def _covers(grant: str, topic_filter: str) -> bool:
    return grant == topic_filter or matches(grant, topic_filter)
