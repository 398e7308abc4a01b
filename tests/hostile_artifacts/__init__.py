"""Training artifacts that somebody made to harm a device, each with what must become of it.

All are bundles with their right hash: a coordinator that signs them is what they stand for. `stopped()` are
found before ONNX Runtime sees them; `contained()` pass the scan, or may, and must end in an answer or in the
end of the child.
"""

from collections.abc import Iterator

from hostile_artifacts.bombs import bombs
from hostile_artifacts.broken import broken_bundles, broken_bytes
from hostile_artifacts.lies import lies
from hostile_artifacts.making import ENGINES, EXPORT, GOOD, WEIGHTS, Hostile, aim
from hostile_artifacts.manifests import HostileManifest, greedy, manifests
from hostile_artifacts.programs import other_files, programs
from hostile_artifacts.running_steps import running_steps
from hostile_artifacts.sizes import sizes
from hostile_artifacts.steps import steps

__all__ = [
    "ENGINES",
    "EXPORT",
    "GOOD",
    "WEIGHTS",
    "Hostile",
    "HostileManifest",
    "aim",
    "contained",
    "greedy",
    "manifests",
    "stopped",
]


def stopped() -> Iterator[Hostile]:
    """All that must be refused when they are decoded or scanned."""
    yield from other_files()
    yield from programs()
    yield from sizes()
    yield from steps()
    yield from lies()
    yield from broken_bytes()
    yield from broken_bundles()


def contained() -> Iterator[Hostile]:
    """All that no reading can find out."""
    yield from bombs()
    yield from running_steps()
