import asyncio

import pytest

from broker.memory import MemoryBroker
from broker.transport import Delivery, TransportError, Will
from protocol.errors import MisuseError


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_messages_arrive_in_order() -> None:
    broker, seen = MemoryBroker(), list[Delivery]()
    async with broker.connect("a") as a, broker.connect("b") as b:
        await b.subscribe("x/+", seen.append)
        for number in range(5):
            await a.publish(f"x/{number}", bytes([number]))
        assert not seen, "delivery is a later turn of the loop"
        await turns()
    assert [delivery.payload[0] for delivery in seen] == list(range(5))


async def test_a_handler_sees_a_message_once_for_each_filter() -> None:
    broker, exact, wild = MemoryBroker(), list[Delivery](), list[Delivery]()
    async with broker.connect("a") as a:
        await a.subscribe("x", exact.append)
        await a.publish("x", b"1")
        await turns()
        assert len(exact) == 1
        await a.subscribe("#", wild.append)
        await a.publish("x", b"2")
        await turns()
    # Overlapping filters of one client: the broker delivers twice, each delivery reaches both handlers.
    assert (len(exact), len(wild)) == (3, 2)


async def test_retained_state_waits_for_a_subscriber_and_can_be_cleared() -> None:
    broker, seen = MemoryBroker(), list[Delivery]()
    async with broker.connect("a") as a, broker.connect("b") as b:
        await a.publish("x", b"kept", retain=True)
        await b.subscribe("#", seen.append)
        await turns()
        assert seen == [Delivery("x", b"kept", retained=True)]
        await a.publish("x", b"", retain=True)
    assert not broker.retained


async def test_a_dropped_client_leaves_its_will_and_finds_what_it_missed() -> None:
    broker, seen, wills = MemoryBroker(), list[Delivery](), list[Delivery]()
    async with broker.connect("watcher") as watcher, broker.connect("a", Will("will/a", b"lost")) as a:
        await watcher.subscribe("will/+", wills.append)
        await a.subscribe("x", seen.append)
        broker.drop("a")
        assert not a.connected
        await watcher.publish("x", b"missed")
        await turns()
        assert wills == [Delivery("will/a", b"lost", retained=False)]
        assert not seen
        with pytest.raises(TransportError, match="no connection"):
            await a.publish("y", b"")
        broker.resume(a)
        await turns()
    assert [delivery.payload for delivery in seen] == [b"missed"]


async def test_a_clean_client_misses_what_came_while_it_was_away() -> None:
    broker, seen = MemoryBroker(), list[Delivery]()
    async with broker.connect("a", clean=True) as a, broker.connect("b") as b:
        await a.subscribe("x", seen.append)
        broker.drop("a")
        await b.publish("x", b"missed")
        broker.resume(a)
        await b.publish("x", b"seen")
        await turns()
    assert [delivery.payload for delivery in seen] == [b"seen"]


async def test_a_session_outlives_the_program_that_opened_it() -> None:
    broker, seen = MemoryBroker(), list[Delivery]()
    async with broker.connect("a") as first:
        await first.subscribe("x", seen.append)
    async with broker.connect("b") as b:
        await b.publish("x", b"while you were out")
    second = broker.connect("a")
    await second.subscribe("x", seen.append)
    async with second:
        await turns()
    assert [delivery.payload for delivery in seen] == [b"while you were out"]


async def test_after_a_restart_without_state_everything_is_said_again() -> None:
    broker, seen, connections = MemoryBroker(), list[Delivery](), list[bool]()
    async with broker.connect("a") as a, broker.connect("b") as b:
        a.on_connection(connections.append)
        await turns()
        await a.publish("state", b"1", retain=True)
        await a.publish("news", b"1", retain=True, expiry=60.0)
        await b.subscribe("state", seen.append)
        await turns()
        broker.restart(keep_state=False)
        assert not a.connected
        await turns()
        assert broker.retained == {"state": b"1"}
        await a.publish("state", b"2", retain=True)
        await turns()
    assert connections == [True, False, True, False]
    assert seen[0].payload == b"1"
    assert seen[-1].payload == b"2"


async def test_a_restart_with_state_keeps_what_waits() -> None:
    broker, seen = MemoryBroker(), list[Delivery]()
    async with broker.connect("a") as a, broker.connect("b") as b:
        await b.subscribe("x", seen.append)
        await a.publish("x", b"on its way")
        broker.restart(keep_state=True)
        await turns()
    assert [delivery.payload for delivery in seen] == [b"on its way"]


async def test_what_is_on_its_way_dies_with_a_restart_without_state() -> None:
    broker, seen = MemoryBroker(), list[Delivery]()
    async with broker.connect("a") as a, broker.connect("b") as b:
        await b.subscribe("x", seen.append)
        await a.publish("x", b"on its way")
        broker.restart(keep_state=False)
        await turns()
    assert not seen


async def test_a_cancelled_handler_hears_nothing_more() -> None:
    broker, kept, gone = MemoryBroker(), list[Delivery](), list[Delivery]()
    async with broker.connect("a") as a:
        await a.subscribe("x", kept.append)
        subscription = await a.subscribe("x", gone.append)
        await a.publish("x", b"1")
        await subscription.cancel()
        await subscription.cancel()
        await turns()
        await a.publish("x", b"2")
        await turns()
    assert ([d.payload for d in kept], gone) == ([b"1", b"2"], [])


async def test_a_namesake_pushes_the_first_client_out() -> None:
    broker = MemoryBroker()
    async with broker.connect("a") as first, broker.connect("a") as second:
        assert not first.connected
        assert second.connected
        assert list(broker.clients()) == ["a"]


async def test_limits_and_malformed_topics_are_our_bug() -> None:
    broker = MemoryBroker(max_payload=4)
    async with broker.connect("a") as a:
        with pytest.raises(MisuseError, match="limit"):
            await a.publish("x", b"12345")
        with pytest.raises(MisuseError, match="topic"):
            await a.publish("x/#", b"")
        with pytest.raises(MisuseError, match="not connected"):
            broker.drop("nobody")
