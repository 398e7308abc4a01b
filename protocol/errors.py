"""Whose fault it is, drawn once.

    FedfleetError
    ├── PeerError                the other side broke the protocol: count it, drop it, go on
    │   ├── FrameError               bytes that are not a valid signed frame
    │   ├── CertificateError         a certificate that this fleet does not vouch for
    │   ├── OrderError               a round that was, or that jumps
    │   ├── RequestError             a request for a certificate that a registrar must refuse
    │   └── ProtocolError            a valid frame whose content breaks a rule of the round
    │       ├── ManifestError            the manifest asks what this device does not allow
    │       ├── TranscriptError          the frame belongs to another round, cohort or set
    │       ├── SecondDecisionError      a different decision where one was already taken
    │       ├── CohortError              the cohort is not what it must be
    │       ├── SetError                 the share set or survivor set is not what it must be
    │       ├── ShareDeliveryError       a share that this device cannot or must not hold
    │       └── ConfirmationError        too few neighbours confirmed the survivor set
    └── MisuseError              we did: a bug of the caller

What belongs to one room is drawn there and hangs under FedfleetError, too: TransportError in
`broker.transport`, ModelError in `models.errors`, SettingsError and PlanError in `runtime`. The arithmetic
has trees of its own: `secagg.errors`, `privacy.errors`.

The docstring of each class is its message to the reader of a log.
"""

MAX_CAUSE = 200
"""Characters that an error quotes of a decoder's error, which may quote its input: hostile bytes must not
fill a log."""


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


class RequestError(PeerError):
    """The request for a certificate breaks a rule; the text is told to whoever asked."""


class ProtocolError(PeerError):
    """The frame is valid but breaks a rule of the round."""


class ManifestError(ProtocolError):
    """The manifest asks for something that this device does not allow."""


class TranscriptError(ProtocolError):
    """The frame belongs to another round, cohort, share set or survivor set."""


class SecondDecisionError(ProtocolError):
    """A different decision arrived where one was already taken; the first valid one stands."""


class CohortError(ProtocolError):
    """The cohort is too small, too large, or holds keys or names twice."""


class SetError(ProtocolError):
    """The share set or survivor set is not a subset, misses this device, or is too small."""


class ShareDeliveryError(ProtocolError):
    """A share is missing, does not open, or comes from a device that is no neighbour."""


class ConfirmationError(ProtocolError):
    """Fewer neighbours than the threshold confirmed this survivor set."""


class MisuseError(FedfleetError):
    """A function was called in a way its contract forbids."""
