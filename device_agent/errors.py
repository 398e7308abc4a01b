"""What can be wrong with an agent's own state."""

from protocol.errors import FedfleetError


class DamagedStateError(FedfleetError):
    """The agent's state cannot be trusted; going on could reuse masks or forget what was spent."""
