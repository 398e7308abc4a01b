"""Training artifacts that somebody made to harm a device, each with what must become of it.

All are bundles with their right hash: a coordinator that signs them is what they stand for. `stopped()` are
found before ONNX Runtime sees them; `contained()` pass the scan, or may, and must end in an answer or in the
end of the child.
"""

from collections.abc import Iterator

from hostile_artifacts.bombs import contained
from hostile_artifacts.broken import broken_bundles, broken_bytes
from hostile_artifacts.lies import lies
from hostile_artifacts.making import GOOD, WEIGHTS, Hostile
from hostile_artifacts.programs import other_files, programs
from hostile_artifacts.sizes import sizes

__all__ = ["GOOD", "WEIGHTS", "Hostile", "contained", "stopped"]


def stopped() -> Iterator[Hostile]:
    """All that must be refused when they are decoded or scanned."""
    yield from other_files()
    yield from programs()
    yield from sizes()
    yield from lies()
    yield from broken_bytes()
    yield from broken_bundles()
