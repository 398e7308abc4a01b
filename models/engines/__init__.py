"""Training engines, one module each, behind one interface."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from models.bundle import Bundle, BundleManifest
from models.engines import ort_graph, ort_training
from models.engines.interface import Evaluation, FitResult, TrainingEngine
from models.engines.ort_graph import OrtGraphEngine
from models.engines.ort_training import OrtTrainingEngine
from models.errors import EngineUnavailableError

__all__ = ["Evaluation", "FitResult", "TrainingEngine", "available_engines", "choose_engine", "load_engine"]


class _Engine(NamedTuple):
    load: Callable[[Bundle], TrainingEngine]
    is_installed: Callable[[], bool]


# In order of preference: by speed, and because the first leaves the interpreter's lock alone.
_ENGINES: Mapping[str, _Engine] = MappingProxyType(
    {
        OrtGraphEngine.name: _Engine(OrtGraphEngine, ort_graph.is_installed),
        OrtTrainingEngine.name: _Engine(OrtTrainingEngine, ort_training.is_installed),
    }
)


def available_engines() -> tuple[str, ...]:
    """Names of the engines this machine can run, in order of preference; found without importing them."""
    return tuple(name for name, engine in _ENGINES.items() if engine.is_installed())


def choose_engine(manifest: BundleManifest, available: Sequence[str] | None = None) -> str:
    """The first engine that the bundle has files for and this machine can run.

    Args:
        manifest: of the bundle.
        available: engines to choose from, in order of preference; None is `available_engines()`.

    Raises:
        EngineUnavailableError: none; names both sides.
    """
    mine = available_engines() if available is None else available
    for name in mine:
        if name in manifest.engines:
            return name
    raise EngineUnavailableError(
        f"the bundle is for {', '.join(manifest.engines)}; this machine has {', '.join(mine) or 'no engine'}"
    )


def load_engine(bundle: Bundle, engine: str | None = None) -> TrainingEngine:
    """An engine with this bundle loaded.

    Args:
        bundle: with the engine's files.
        engine: which; None is `choose_engine`'s choice.

    Raises:
        EngineUnavailableError: this machine cannot run it.
        BundleError: the files cannot be loaded.
    """
    name = choose_engine(bundle.manifest) if engine is None else engine
    if name not in _ENGINES:
        raise EngineUnavailableError(f"there is no engine {name!r}; there are {', '.join(_ENGINES)}")
    return _ENGINES[name].load(bundle)
