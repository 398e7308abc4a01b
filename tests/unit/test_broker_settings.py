from pathlib import Path

from broker import embedded
from broker.transport import MAX_PACKET


def test_the_production_settings_have_the_limits_of_the_program() -> None:
    text = (Path(__file__).parents[2] / "mosquitto.conf").read_text()
    settings = dict(line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    assert {key: int(settings[key]) for key in settings if key.startswith("max_")} == {
        "max_connections": embedded.MAX_CONNECTIONS,
        "max_keepalive": embedded.MAX_KEEPALIVE,
        "max_packet_size": MAX_PACKET,
        "max_inflight_messages": embedded.MAX_INFLIGHT,
        "max_queued_messages": embedded.MAX_QUEUED_MESSAGES,
        "max_queued_bytes": embedded.MAX_QUEUED_BYTES,
    }
