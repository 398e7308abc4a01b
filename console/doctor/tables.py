"""Which checks there are, for each program, in the order of the report."""

from collections.abc import Mapping
from types import MappingProxyType

from console.doctor import (
    conditions,
    identity,
    issuing_keys,
    machine,
    mosquitto,
    network,
    policies,
    rules,
    session,
    standing,
    storage,
)
from console.doctor.findings import Check, Needs
from protocol.roles import Role

_EVERY_MACHINE = (
    Check("python", "Python", machine.python),
    Check("packages", "packages", machine.packages),
    Check("identity.files", "identity", identity.files),
    Check("identity.standing", "role and name", identity.standing),
    Check("identity.dates", "certificates", identity.dates),
    Check("clock", "clock", identity.clock),
    Check("clock.kept", "clock kept right", machine.synchronised, production=True),
    Check("state.folder", "state folder", storage.folder),
    Check("state.file-system", "its file system", storage.file_system),
    Check("rights", "user", machine.rights, production=True),
    Check("environment", "environment", machine.environment, production=True),
    Check("issuing-keys", "issuing keys", issuing_keys.issuing_keys, production=True),
    Check("mosquitto.settings", "mosquitto.conf", mosquitto.settings),
    Check("mosquitto.lists", "revocation lists of TLS", mosquitto.lists),
)

_NETWORK = (
    Check("broker.encryption", "encryption", network.encryption, Needs.BROKER),
    Check("broker.name", "host name", network.name, Needs.BROKER),
    Check("broker.port", "port", network.reach, Needs.BROKER),
    Check("broker.tls", "TLS", network.handshake, Needs.BROKER),
    Check("broker.older-tls", "TLS 1.2", network.older_tls, Needs.BROKER, production=True),
    Check("broker.strangers", "strangers", network.strangers, Needs.BROKER, production=True),
)

_CONNECTED = (
    Check("connection", "connection", session.connection, Needs.CONNECTION),
    Check("rules.permitted", "what is permitted", rules.permitted, Needs.CONNECTION),
    Check("rules.say", "what must not be said", rules.forbidden_to_say, Needs.CONNECTION),
    Check("rules.hear", "what must not be heard", rules.forbidden_to_hear, Needs.CONNECTION),
    Check("rules.name", "client id", session.own_name, Needs.CONNECTION),
    Check("session.kept", "session", session.sessions, Needs.CONNECTION),
    Check("session.retained", "retained messages", session.retained, Needs.CONNECTION),
    Check("session.large", "large messages", session.large, Needs.CONNECTION),
    Check("session.too-large", "too large messages", session.too_large, Needs.CONNECTION),
    Check("session.keepalive", "keepalive", session.keepalive, Needs.CONNECTION),
    Check("fleet.revocations", "revocation list", standing.revocations, Needs.CONNECTION),
)

CHECKS: Mapping[Role, tuple[Check, ...]] = MappingProxyType(
    {
        Role.DEVICE: (
            *_EVERY_MACHINE,
            Check("engine", "training engine", machine.engine),
            Check("data", "data", storage.data),
            Check("state.room", "room", storage.room_of_agent),
            Check("conditions", "conditions", conditions.conditions),
            Check("floors", "floors", policies.floors, production=True),
            *_NETWORK,
            *_CONNECTED,
            Check("fleet.coordinator", "coordinator", standing.coordinator, Needs.CONNECTION),
        ),
        Role.COORDINATOR: (
            *_EVERY_MACHINE,
            Check("engine", "engine", machine.engine),
            Check("plan", "plan", storage.plan),
            Check("plan.floors", "what the plan promises", policies.plan_floors, production=True),
            Check("data", "evaluation data", storage.evaluation),
            Check("state.room", "room", storage.room_of_coordinator),
            *_NETWORK,
            *_CONNECTED,
        ),
        Role.REGISTRAR: (
            *_EVERY_MACHINE,
            Check("state.room", "room", storage.room),
            *_NETWORK,
            *_CONNECTED,
            Check("fleet.guard", "guard of the broker", standing.guard, Needs.CONNECTION, production=True),
        ),
    }
)
