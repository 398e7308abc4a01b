"""What can go wrong with a model, a bundle, a data set or an engine.

FedfleetError
├── ModelError               the data scientist's model cannot be used as it is
├── DatasetError             the device's data file cannot be used as it is
├── EngineUnavailableError   no training engine runs on this machine
├── TrainingFailedError      training did not finish: crash, deadline, divergence
└── PeerError
    └── BundleError          bytes that are not a training bundle
"""

from protocol.errors import FedfleetError, PeerError


class ModelError(FedfleetError):
    """The model cannot be trained as it is; the text says why and what to change."""


class DatasetError(FedfleetError):
    """The data file cannot be used; the text names file, array, shape and fix."""


class EngineUnavailableError(FedfleetError):
    """No training engine for this bundle runs on this machine."""


DIVERGED = "diverged"
"""The kind of failure in which the weights or the loss are not finite any more."""

OUT_OF_MEMORY = "out of memory"
"""The kind of failure in which training wanted more memory than its process may have."""

OUT_OF_TIME = "out of time"
"""The kind of failure in which training passed its deadline, or used up its processor time."""


class TrainingFailedError(FedfleetError):
    """Training or evaluation did not finish.

    Attributes:
        kind: a few fixed words for counters and for the coordinator: "crashed", "out of time", "diverged",
            "out of memory", "dataset", "bundle", "weights", "engine" or "failed".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class BundleError(PeerError):
    """The bytes are not a training bundle."""
