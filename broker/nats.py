"""The access rules as a NATS cluster wants them, and the nodes that go with them.

NATS knows no patterns: every client is named, by the subject of its certificate, so the file of users is made
again whenever a device is enrolled or revoked, and `nats-server --signal reload` has a node read it. A client
that is no longer named is disconnected at once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.access import SHARDS, access_of, role_called
from broker.embedded import ACK_WAIT, MAX_CONNECTIONS, MAX_INFLIGHT, MAX_QUEUED_BYTES
from broker.transport import MAX_PACKET
from protocol.roles import Role
from protocol.topics import Topics

USERS_FILE = "users.conf"


@dataclass(frozen=True, slots=True)
class NatsNode:
    """One node of a cluster.

    Attributes:
        name: unique in the cluster.
        listen: address and port for MQTT clients, "0.0.0.0:8883".
        routes_listen: address and port for the other nodes, on a network of their own: routes carry
            everything, and are not encrypted.
        routes: addresses of the other nodes, "host:port".
        password: by which nodes know each other, of letters and digits.
        replicas: nodes that keep each session and retained message; 3 survives the loss of one.
        state: folder for sessions and retained messages.
        files: folder with `fleet.crt`, `broker.crt`, `broker.key` and the file of users.
    """

    name: str
    listen: str
    routes_listen: str
    routes: tuple[str, ...]
    password: str = field(repr=False)
    replicas: int = 3
    state: Path = Path("/var/lib/fedfleet-nats")
    files: Path = Path("/etc/fedfleet")


def nats_users(
    topics: Topics, names: Sequence[str], *, generation: int = 0, shards: Sequence[str] = SHARDS
) -> str:
    """Who may say and hear what, the same on every node.

    Args:
        topics: of the fleet.
        names: of all clients, devices too.
        generation: of the coordinators' certificates, which is part of their subject.
        shards: as for `access_of`.
    """
    users = ",\n".join(_user(topics, name, generation, shards) for name in dict.fromkeys(names))
    return (
        f"# Users of fleet {topics.fleet}, written by `fedfleet access nats`. Who is not named is refused.\n"
        "system_account: SYS\n"
        "accounts {\n  SYS { users: [] }\n  FLEET {\n    jetstream: enabled\n    users: [\n"
        f"{users}\n    ]\n  }}\n}}\n"
    )


def nats_node(node: NatsNode) -> str:
    """The configuration of one node; it holds the password of the routes."""
    routes = ", ".join(f'"nats://routes:{node.password}@{route}"' for route in node.routes)
    return f"""\
# Node {node.name} of a fleet's broker, written by `fedfleet access nats`.
server_name: {json.dumps(node.name)}
# Clients of NATS itself: none. Every user is a certificate, which only the MQTT listener asks for.
listen: "127.0.0.1:-1"
include {json.dumps(USERS_FILE)}
max_payload: {MAX_PACKET}
max_pending: {MAX_QUEUED_BYTES}
max_connections: {MAX_CONNECTIONS}
# Clients whose queued bytes need longer are cut off; a slow link is not a broken one.
write_deadline: "120s"
jetstream {{ store_dir: {json.dumps(str(node.state))} }}
mqtt {{
  listen: {json.dumps(node.listen)}
  ack_wait: "{ACK_WAIT}"
  max_ack_pending: {MAX_INFLIGHT}
  stream_replicas: {node.replicas}
  tls {{
    ca_file: {json.dumps(str(node.files / "fleet.crt"))}
    cert_file: {json.dumps(str(node.files / "broker.crt"))}
    key_file: {json.dumps(str(node.files / "broker.key"))}
    verify_and_map: true
    min_version: "1.3"
  }}
}}
cluster {{
  name: "fedfleet"
  listen: {json.dumps(node.routes_listen)}
  authorization {{ user: "routes", password: {json.dumps(node.password)} }}
  routes: [{routes}]
}}
"""


def subject(topics: Topics, name: str, generation: int) -> str:
    """A certificate's subject as NATS writes it: RFC 4514, the last attribute first."""
    role = role_called(name)
    number = f"SERIALNUMBER={generation}," if role is Role.COORDINATOR else ""
    return f"{number}CN={name},OU={role},O={topics.fleet}"


def subjects(topic_filter: str) -> Iterator[str]:
    """A filter of MQTT in the words of NATS, where `#` does not match the level before it."""
    plain = topic_filter.replace("/", ".").replace("+", "*")
    if plain.endswith(".#"):
        yield plain[:-2]
    yield plain.replace("#", ">")


def _user(topics: Topics, name: str, generation: int, shards: Sequence[str]) -> str:
    access = access_of(topics, name, shards)
    says = [one for topic in access.publish for one in subjects(topic)]
    hears = [one for topic in access.subscribe for one in subjects(topic)]
    permissions = {"publish": _only(says), "subscribe": _only(hears)}
    user = json.dumps(subject(topics, name, generation))
    return f"      {{ user: {user}, permissions: {json.dumps(permissions)} }}"


def _only(granted: list[str]) -> dict[str, list[str]]:
    # An empty list of what is allowed would allow everything.
    return {"allow": granted} if granted else {"deny": [">"]}
