"""The transcript T0 … T3: what every key, mask, seal and signature of a round is bound to.

    T0 = H(manifest)            the round context
    T1 = H(T0, cohort)          then the keys are known
    T2 = H(T1, share set)       then the masks are known
    T3 = H(T2, survivor set)    then the shares to reveal are known

Devices that were shown different manifests, cohorts or sets derive different masks, which do not cancel
(Pasquini et al. 2021, arXiv 2111.07380), and confirmations that do not verify.
"""

from hashlib import sha256

_FIRST = b"fedfleet/1/transcript/manifest"
_NEXT = b"fedfleet/1/transcript/decision"


def begin(manifest: bytes) -> bytes:
    """T0 of an encoded manifest: 32 bytes."""
    return sha256(_FIRST + sha256(manifest).digest()).digest()


def extend(transcript: bytes, decision: bytes) -> bytes:
    """The next link after an encoded decision: 32 bytes."""
    return sha256(_NEXT + transcript + sha256(decision).digest()).digest()
