"""A model's private parameters: trained on this device, kept here, never sent.

One file for each model, raw little-endian float32. Who loses them begins again with those of the bundle.
"""

from pathlib import Path

import structlog

from runtime.files import keep_newest, write_private

KEPT = 8
"""Models whose private parameters are kept, by last use."""

KEPT_BYTES = 2**30
"""Of all of them together."""

_log = structlog.get_logger(__name__)


class PrivateWeights:
    """A folder of private parameters, by the id of the model that they belong to.

    Args:
        folder: made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, model: bytes, size: int) -> bytes | None:
        """What was kept last, blocking.

        Args:
            model: its id.
            size: bytes that there must be.

        Returns:
            None when there is nothing, or nothing of this size.
        """
        try:
            kept = (self._folder / model.hex()).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("private_weights_not_read", cause=str(error))
            return None
        return kept if len(kept) == size else None

    def keep(self, model: bytes, weights: bytes) -> None:
        """Keep them, blocking; those of the models used longest ago go. A disk that refuses is no failure."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._folder / model.hex(), weights)
            keep_newest(self._folder.iterdir(), KEPT, KEPT_BYTES)
        except OSError as error:
            _log.warning("private_weights_not_kept", cause=str(error))

    def forget(self, model: bytes) -> None:
        """Begin again with the bundle's, blocking: what has run away with these would do so for ever."""
        try:
            (self._folder / model.hex()).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("private_weights_not_forgotten", cause=str(error))
