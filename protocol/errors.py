"""Whose fault it is, drawn once.

    FedfleetError
    ├── PeerError            the other side broke the protocol: count it, drop it, go on
    │   ├── FrameError           bytes that are not a valid signed frame
    │   ├── CertificateError     a certificate that this fleet does not vouch for
    │   ├── OrderError           a round that was, or that jumps
    │   └── ProtocolError        a valid frame whose content breaks a rule of the round
    └── MisuseError          we did: a bug of the caller

The docstring of each class is its message to the reader of a log.
"""


class FedfleetError(Exception):
    """Something this project can name went wrong."""


class PeerError(FedfleetError):
    """The other side broke the protocol."""


class FrameError(PeerError):
    """The bytes are not a frame of this protocol."""


class CertificateError(PeerError):
    """The certificate does not prove what its holder claims."""


class OrderError(PeerError):
    """The round is not newer than the last one, or too far ahead of it."""


class ProtocolError(PeerError):
    """The frame is valid but breaks a rule of the round."""


class MisuseError(FedfleetError):
    """A function was called in a way its contract forbids."""
