"""Child processes of the demo: they log, they are waited for, they end with us."""

import os
from pathlib import Path

import pytest

from console.children import Child, ChildFailedError, Children

ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_child_is_ready_when_it_says_so_and_ends_with_the_context(tmp_path: Path) -> None:
    async with Children(tmp_path, ENVIRONMENT) as children:
        child = await children.start("web", "http.server", "0", "--bind", "127.0.0.1")
        assert "port" in await child.says("Serving HTTP on ", 20)
        child.check()
        assert lives(child.process.pid)
    assert child.ended
    assert not lives(child.process.pid)


async def test_children_end_when_the_starter_fails(tmp_path: Path) -> None:
    started: list[Child] = []

    async def start_two_and_fail() -> None:
        async with Children(tmp_path, ENVIRONMENT) as children:
            started.extend([await children.start(f"web{n}", "http.server", "0") for n in range(2)])
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        await start_two_and_fail()
    assert [child.ended for child in started] == [True, True]


async def test_a_child_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    async with Children(tmp_path, ENVIRONMENT) as children:
        child = await children.start("reader", "json.tool", str(tmp_path / "nowhere.json"))
        await child.process.wait()
        with pytest.raises(ChildFailedError, match=r"(?s)reader ended with 2.*nowhere\.json"):
            child.check()


async def test_a_child_that_ends_before_it_is_ready_has_failed(tmp_path: Path) -> None:
    async with Children(tmp_path, ENVIRONMENT) as children:
        child = await children.start("reader", "json.tool", str(tmp_path / "nowhere.json"))
        with pytest.raises(ChildFailedError, match="reader ended"):
            await child.says("ready", 20)


async def test_a_child_that_never_gets_ready_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with Children(tmp_path, ENVIRONMENT) as children:
        child = await children.start("web", "http.server", "0")
        with pytest.raises(ChildFailedError, match="did not get ready"):
            await child.says("never said", 0.1)


async def test_stopping_twice_does_no_harm(tmp_path: Path) -> None:
    async with Children(tmp_path, ENVIRONMENT) as children:
        child = await children.start("web", "http.server", "0")
        await children.stop([child])
        await children.stop([child])
        assert child.ended
