"""How soon a connection that died in silence is noticed."""

from broker.mqtt_connection import ping_interval


def test_a_dead_connection_is_noticed_within_one_and_a_half_keepalives() -> None:
    for keepalive in (*range(3, 400), 65_535):
        interval = ping_interval(keepalive)
        asked = interval + 1  # seconds of silence, looked at once a second
        given_up = asked + interval + 1
        assert interval >= 1
        assert given_up <= 1.5 * keepalive


def test_the_shortest_interval_is_a_second() -> None:
    assert ping_interval(1) == ping_interval(2) == 1
