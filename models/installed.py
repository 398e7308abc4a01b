"""Which training engines this machine has; found without importing one."""

from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

from models.errors import EngineUnavailableError

ORT_GRAPH, ORT_TRAINING = "ort-graph", "ort-training"
"""On any ONNX Runtime, and on ONNX Runtime Training."""


def available_engines() -> tuple[str, ...]:
    """Names of the engines this machine can run, in order of preference.

    By speed, and because the first leaves the interpreter's lock alone.
    """
    if find_spec("onnxruntime") is None:
        return ()
    return (ORT_GRAPH, ORT_TRAINING) if training_folder() else (ORT_GRAPH,)


def choose_engine(wanted: Collection[str], available: Sequence[str] | None = None) -> str:
    """The first engine that a bundle has files for and this machine can run.

    Args:
        wanted: the bundle's.
        available: engines to choose from, in order of preference; None is `available_engines()`.

    Raises:
        EngineUnavailableError: none; names both sides.
    """
    mine = available_engines() if available is None else available
    for name in mine:
        if name in wanted:
            return name
    raise EngineUnavailableError(
        f"the bundle is for {', '.join(wanted)}; this machine has {', '.join(mine) or 'no onnxruntime'}"
    )


def training_folder() -> Path | None:
    """Where ONNX Runtime is, if it is the training build."""
    spec = find_spec("onnxruntime")
    for place in (spec.submodule_search_locations if spec else None) or []:
        if (Path(place) / "training" / "api").is_dir():
            return Path(place)
    return None
