"""Training engines, one module each, behind one interface."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.bundle import Bundle
from models.engines import ort_training
from models.engines.interface import Evaluation, FitResult, TrainingEngine
from models.engines.ort_training import OrtTrainingEngine
from models.errors import EngineUnavailableError

__all__ = ["Evaluation", "FitResult", "TrainingEngine", "available_engines", "load_engine"]

# In order of preference.
_ENGINES: Mapping[str, Callable[[Bundle], TrainingEngine]] = MappingProxyType(
    {
        OrtTrainingEngine.name: OrtTrainingEngine,
    }
)

_INSTALLED: Mapping[str, Callable[[], bool]] = MappingProxyType(
    {OrtTrainingEngine.name: ort_training.is_installed}
)


def available_engines() -> tuple[str, ...]:
    """Names of the engines this machine can run, in order of preference; found without importing them."""
    return tuple(name for name, is_installed in _INSTALLED.items() if is_installed())


def load_engine(bundle: Bundle) -> TrainingEngine:
    """The first engine that this bundle has files for and this machine can run.

    Raises:
        EngineUnavailableError: none; gives each engine's reason.
        BundleError: the files cannot be loaded.
    """
    reasons = []
    for name, engine in _ENGINES.items():
        if name not in bundle.manifest.engines:
            reasons.append(f"{name}: the bundle has no files for it")
            continue
        try:
            return engine(bundle)
        except EngineUnavailableError as error:
            reasons.append(f"{name}: {error}")
    raise EngineUnavailableError("; ".join(reasons))
