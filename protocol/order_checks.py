"""Which rounds a device lets a coordinator open, before anything else of them is looked at."""

from protocol.certificates import Certificate
from protocol.errors import ManifestError, OrderError
from protocol.ids import Order

MAX_JUMP = 2**20
"""Rounds a coordinator may skip: years of them, yet one forged high number cannot lock a device out."""


def check_order(order: Order, seen: Order) -> None:
    """A round must be newer than every round before it, but not by more than MAX_JUMP in its number.

    Raises:
        OrderError: it was, or it jumps.
    """
    if order <= seen:
        raise OrderError(f"round {order} is not newer than {seen}")
    if order.round > seen.round + MAX_JUMP or order.epoch > seen.epoch + MAX_JUMP:
        raise OrderError(f"round {order} jumps too far ahead of {seen}")


def check_generation(order: Order, signer: Certificate) -> None:
    """A coordinator opens rounds of its own generation, or an older one could go beyond every newer one.

    Raises:
        ManifestError: it names another.
    """
    if order.generation != signer.generation:
        raise ManifestError(f"a coordinator of generation {signer.generation} signed round {order}")
