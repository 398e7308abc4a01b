"""`mosquitto.conf` as it stands at the top level."""

import re
from pathlib import Path

from broker import embedded
from broker.transport import MAX_PACKET

TEXT = (Path(__file__).parents[2] / "mosquitto.conf").read_text()
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]


def test_the_production_settings_have_the_limits_of_the_program() -> None:
    before, _, after = TEXT.partition("\nlistener 8884")
    text = before + after.partition("\n# ---")[2]
    settings = [line.split(maxsplit=1) for line in text.splitlines()]
    assert {line[0]: int(line[1]) for line in settings if line and line[0].startswith("max_")} == {
        "max_connections": embedded.MAX_CONNECTIONS,
        "max_keepalive": embedded.MAX_KEEPALIVE,
        "max_packet_size": MAX_PACKET,
        "max_inflight_messages": embedded.MAX_INFLIGHT,
        "max_queued_messages": embedded.MAX_QUEUED_MESSAGES,
        "max_queued_bytes": embedded.MAX_QUEUED_BYTES,
    }


def test_both_listeners_ask_for_the_same() -> None:
    found = re.findall(r"^listener (\d+)(.*?)^max_connections", TEXT, re.DOTALL | re.MULTILINE)
    network, monitoring = ({line for line in text.splitlines() if line in LINES} for _, text in found)
    assert [port for port, _ in found] == ["8883", "8884"]
    assert network == monitoring
    assert network >= {
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
    }


def test_debian_reads_it_beside_its_own_file() -> None:
    for line in LINES:
        assert line.split()[0] not in {"pid_file", "persistence_location", "log_dest", "include_dir"}
