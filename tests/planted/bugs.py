"""What a planted bug is, and the list of them all."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest import mock

Act = Callable[..., Any]
"""Takes the place of a function: is given the real one, then its arguments."""


class Plant:
    """Puts wrong code in the place of right code, until its stack unwinds.

    Args:
        stack: takes it out again.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def instead(self, owner: object, name: str, act: Act) -> None:
        """`act(real, *arguments)` takes the place of a function or method of a module or class."""
        real = getattr(owner, name)

        @wraps(real)
        def planted(*arguments: Any, **options: Any) -> Any:
            return act(real, *arguments, **options)

        self.value(owner, name, planted)

    def value(self, owner: object, name: str, value: object) -> None:
        """Another value takes the place of an attribute."""
        self._stack.enter_context(mock.patch.object(owner, name, value))


@dataclass(frozen=True)
class Bug:
    """A mistake that somebody could make.

    Attributes:
        name: in words.
        what: is wrong, as a sentence.
        breaks: the invariant of THREATS.md or of `simulator.books`, "sum" or "stuck".
        plant: makes the mistake.
    """

    name: str
    what: str
    breaks: str
    plant: Callable[[Plant], None]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """In this context the programs have the bug."""
        with ExitStack() as stack:
            self.plant(Plant(stack))
            yield


BUGS: dict[str, Bug] = {}
"""By name, in the order of the table."""


def bug(breaks: str, what: str) -> Callable[[Callable[[Plant], None]], Callable[[Plant], None]]:
    """Add a bug to the list; its name is that of the function that plants it.

    Args:
        breaks: see `Bug`.
        what: see `Bug`.
    """

    def add(plant: Callable[[Plant], None]) -> Callable[[Plant], None]:
        name = plant.__name__.replace("_", " ")
        BUGS[name] = Bug(name, what, breaks, plant)
        return plant

    return add


def nothing(_real: Act, *_: object, **__: object) -> None:
    """What was to be done is not done."""


def no_effects(_real: Act, *_: object, **__: object) -> list[object]:
    """A half is told something, and nothing follows."""
    return []


async def nothing_later(_real: Act, *_: object, **__: object) -> None:
    """As `nothing`, for a coroutine."""
