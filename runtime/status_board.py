"""Shows status on retained topics without ever making its owner wait.

Only the newest status of a topic matters, so one that was not published yet is replaced.
"""

import asyncio
from types import TracebackType
from typing import Self

from broker.transport import Transport, TransportError
from protocol.status import Status, encode_status


class StatusBoard:
    """Publishes statuses. Use it as a context, inside that of the transport; leaving publishes the last ones.

    Args:
        transport: the bus.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._pending: dict[str, tuple[bytes, float | None]] = {}
        self._shown: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def show(self, topic: str, status: Status, *, expiry: float | None = None) -> None:
        """Publish soon.

        Args:
            topic: where.
            status: what; the same as last time is not published again.
            expiry: seconds after which a broker that can forgets it.
        """
        payload = encode_status(status)
        if self._shown.get(topic) == payload:
            return
        if expiry is None:
            self._shown[topic] = payload
        self._pending[topic] = (payload, expiry)
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._publish()

    async def _publish(self) -> None:
        while self._pending:
            topic = next(iter(self._pending))
            payload, expiry = self._pending.pop(topic)
            try:
                await self._transport.publish(topic, payload, retain=True, expiry=expiry)
            except TransportError:
                # The transport publishes remembered state again when it is connected.
                continue

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._transport.connected:
            await self._publish()
