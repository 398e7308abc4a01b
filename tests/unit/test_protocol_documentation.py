"""PROTOCOL.md says what the code does: diagrams, messages, maps, topics and limits."""

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import Struct
from msgspec.structs import fields

from protocol.certificates import MAX_CERTIFICATE, MAX_CLOCK_SKEW
from protocol.chunks import MAX_BLOB_SIZE, MAX_CHUNK_SIZE, MAX_CHUNKS, MIN_CHUNK_SIZE
from protocol.ids import DeviceId, Order
from protocol.messages import (
    DECISION_TOPICS,
    MAX_FRAME,
    MAX_REASON,
    Cohort,
    FromCoordinator,
    FromDevice,
    Manifest,
    Message,
    Offer,
    RoundEnded,
    ToDevice,
)
from protocol.phases import COORDINATOR_MOVES, DEVICE_MOVES, Phase, Stage, mermaid
from protocol.plan import MAX_COHORT
from protocol.status import MAX_STATUS
from protocol.topics import Topics

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
KIB, MIB = 1024, 1024**2
MESSAGES: tuple[type[Message], ...] = (*get_args(FromDevice), *get_args(FromCoordinator))


def table(first_heading: str) -> dict[str, list[str]]:
    """A table of the page: its other cells by the first one, without backquotes."""
    lines = PAGE.split(f"\n| {first_heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


def names_in(cell: str) -> list[str]:
    """The first word of each item of a list, without what stands in brackets."""
    while re.search(r"[\[(]", cell):
        cell = re.sub(r"\[[^\[\]()]*\]|\([^\[\]()]*\)", "", cell)
    return [item.split()[0] for item in re.split("[,;]", cell)]


def bound(kind: type[Struct], name: str, limit: str) -> Any:
    """A limit in the annotation of a field."""
    return getattr(get_type_hints(kind, include_extras=True)[name].__metadata__[0], limit)


@pytest.mark.parametrize(
    ("marker", "moves", "start"),
    [("coordinator", COORDINATOR_MOVES, Phase.INVITING), ("device", DEVICE_MOVES, Stage.INVITED)],
)
def test_the_diagrams_are_drawn_from_the_tables(marker: str, moves: Any, start: Any) -> None:
    assert f"<!-- {marker} -->\n```mermaid\n{mermaid(moves, start)}\n```\n" in PAGE, "run scripts/diagrams"


def test_the_table_names_every_message_and_no_other() -> None:
    assert sorted(table("message")) == sorted(str(kind.__struct_config__.tag) for kind in MESSAGES)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_message_has_the_fields_of_its_row_in_their_order(kind: type[Message]) -> None:
    documented = names_in(table("message")[str(kind.__struct_config__.tag)][0])
    assert documented == [{"transcript": "T"}.get(field.name, field.name) for field in fields(kind)]


@pytest.mark.parametrize("name", list(table("map")))
def test_a_map_of_a_message_has_the_keys_of_its_row(name: str) -> None:
    (type_,) = (field.type for field in (*fields(Manifest), *fields(Offer)) if field.name == name)
    (declared,) = (kind for kind in (type_, *get_args(type_)) if hasattr(kind, "__struct_fields__"))
    keys = names_in(table("map")[name][0].removesuffix("; seconds"))
    assert keys == [field.name for field in fields(declared)]


def test_the_topics_are_those_that_the_code_makes() -> None:
    topics, order, device = Topics("<fleet>"), Order(1, 2, 3), DeviceId("<id>")
    made = {
        topics.coordinator_status,
        topics.round_status,
        topics.round_result(order).replace("/3", "/<n>"),
        topics.model_status,
        topics.broker_status,
        topics.device_status(device),
        topics.offer(device),
        topics.outbox(device),
        topics.wants(device),
        topics.inbox(device),
        topics.decision(order, "<decision>").replace("2-3", "<epoch>-<n>"),
        topics.high_water,
        topics.pace,
        topics.revocations,
        topics.enrolment_request("<name>"),
        topics.enrolment_answer("<name>"),
        topics.probe("<name>"),
        topics.upload("<shard>", device),
        topics.blob_chunk(bytes(32), 0).replace(f"{'00' * 32}/0", "<sha256>/<i>"),
    }
    assert set(table("topic")) == made


def test_the_decisions_and_the_inbox_list_what_they_carry() -> None:
    rows = table("topic")
    decisions = rows["flw/1/<fleet>/rounds/<epoch>-<n>/<decision>"][1]
    assert re.findall("`([a-z-]+)`", decisions) == list(DECISION_TOPICS.values())
    inbox = rows["flw/1/<fleet>/devices/<id>/inbox"][1]
    assert re.findall("`([A-Za-z]+)`", inbox) == [kind.__name__ for kind in get_args(ToDevice)]


def test_the_limits_are_the_constants() -> None:
    packet = re.search(r"^max_packet_size (\d+)$", (ROOT / "mosquitto.conf").read_text(), re.MULTILINE)
    assert packet is not None
    chunks = f"{MIN_CHUNK_SIZE // KIB} KiB to {MAX_CHUNK_SIZE // MIB} MiB"
    assert {limit: value for limit, (value,) in table("limit").items()} == {
        "frame": f"{MAX_FRAME // MIB} MiB",
        "MQTT packet": f"{int(packet[1]) // MIB} MiB (`mosquitto.conf`)",
        "cohort": f"{bound(Manifest, 'min_cohort', 'ge')} to {MAX_COHORT}",
        "frame of `round-keys` in a cohort": f"{entry_limit()} bytes",
        "certificate": f"{MAX_CERTIFICATE} bytes",
        "blob": f"{MAX_BLOB_SIZE // MIB} MiB, {MAX_CHUNKS} chunks of {chunks}",
        "reason": f"{MAX_REASON} characters",
        "retry_after": f"{bound(RoundEnded, 'retry_after', 'le'):,.0f} s",
        "status": f"{MAX_STATUS // KIB} KiB",
        "clock skew for certificates": f"{MAX_CLOCK_SKEW:.0f} s",
    }


def entry_limit() -> int:
    """Bytes of one member's frame."""
    members = get_type_hints(Cohort, include_extras=True)["members"].__origin__
    return int(get_args(members)[0].__metadata__[0].max_length)
