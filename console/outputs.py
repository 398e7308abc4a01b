"""Three ways to show a run: a live screen, a plain log without a terminal, JSON lines for programs."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live

from console.fleet_view import FleetView, News
from console.screen import draw
from console.text import line

REFRESH_SECONDS = 0.2
"""Between two drawings of the live screen."""


class Output(Protocol):
    """Where a run is shown. Use it as a context."""

    def news(self, news: News) -> None:
        """A status has arrived; the view has it already."""

    def event(self, name: str, text: str, fields: Mapping[str, object]) -> None:
        """Something that stands on no status topic: a line for people, fields for programs."""

    def note(self, number: int, text: str) -> None:
        """What happened in round `number`, to be shown beside it."""

    def refresh(self) -> None:
        """Draws again; call it every `REFRESH_SECONDS`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _Quiet:
    """An output that has nothing to draw, begin or end."""

    def note(self, number: int, text: str) -> None:
        """See `Output.note`."""

    def refresh(self) -> None:
        """See `Output.refresh`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class JsonOutput(_Quiet):
    """One JSON object a line, on standard output."""

    def __init__(self, console: Console) -> None:
        self._file = console.file

    def news(self, news: News) -> None:
        """See `Output.news`."""
        self._write(news.as_event())

    def event(self, name: str, text: str, fields: Mapping[str, object]) -> None:  # noqa: ARG002 (for people)
        """See `Output.event`."""
        self._write({"event": name, **fields})

    def _write(self, event: Mapping[str, object]) -> None:
        self._file.write(msgspec.json.encode(event).decode() + "\n")
        self._file.flush()


class PlainOutput(_Quiet):
    """One line for what matters."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def news(self, news: News) -> None:
        """See `Output.news`."""
        text = line(news)
        if text is not None:
            self._write(text)

    def event(self, name: str, text: str, fields: Mapping[str, object]) -> None:  # noqa: ARG002 (for programs)
        """See `Output.event`."""
        self._write(text)

    def _write(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:6.1f}  {text}", highlight=False, markup=False, soft_wrap=True)


class LiveOutput:
    """The screen of `console.screen`, drawn on the event loop: the view never changes under the pen."""

    def __init__(self, console: Console, view: FleetView, title: str) -> None:
        self._console = console
        self._view = view
        self._title = title
        self._began = time.monotonic()
        self._notes: dict[int, str] = {}
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._draw)

    def news(self, news: News) -> None:
        """See `Output.news`; the next refresh shows it."""

    def event(self, name: str, text: str, fields: Mapping[str, object]) -> None:  # noqa: ARG002 (for programs)
        """See `Output.event`; scrolls away above the screen."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def note(self, number: int, text: str) -> None:
        """See `Output.note`."""
        self._notes[number] = text

    def refresh(self) -> None:
        """See `Output.refresh`."""
        self._live.refresh()

    def _draw(self) -> RenderableType:
        return draw(
            self._view,
            title=self._title,
            seconds=time.monotonic() - self._began,
            height=self._console.height,
            notes=self._notes,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self._live.refresh()
        self._live.stop()


def choose(console: Console, view: FleetView, title: str, *, json: bool) -> Output:
    """The output that fits what standard output is."""
    if json:
        return JsonOutput(console)
    return LiveOutput(console, view, title) if console.is_terminal else PlainOutput(console)
