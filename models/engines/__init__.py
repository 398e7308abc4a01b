"""Training engines, one module each, behind one interface."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.bundle import Bundle
from models.engines.interface import Evaluation, FitResult, TrainingEngine
from models.engines.ort_graph import OrtGraphEngine
from models.engines.ort_training import OrtTrainingEngine
from models.errors import EngineUnavailableError
from models.installed import ORT_GRAPH, ORT_TRAINING, choose_engine

__all__ = ["Evaluation", "FitResult", "TrainingEngine", "load_engine"]


_ENGINES: Mapping[str, Callable[[Bundle], TrainingEngine]] = MappingProxyType(
    {ORT_GRAPH: OrtGraphEngine, ORT_TRAINING: OrtTrainingEngine}
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
    name = choose_engine(bundle.manifest.engines) if engine is None else engine
    if name not in _ENGINES:
        raise EngineUnavailableError(f"there is no engine {name!r}; there are {', '.join(_ENGINES)}")
    return _ENGINES[name](bundle)
