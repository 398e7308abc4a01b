"""One schedule, run: the programs' few ties to the real machine cut, and everything cleaned up behind it."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from unittest import mock

import structlog

import broker.routing
import protocol.device_work
import protocol.frames
from simulator import disk, logs, vectors
from simulator.actors import SIGNED
from simulator.operations import Schedule
from simulator.world import Outcome, World

SUM_INTERVAL = 2
"""Updates after which the sum is stored: few enough that small cohorts come to it."""

_matches = lru_cache(20_000)(broker.routing.matches)


@contextlib.contextmanager
def _patched(folder: Path, *, real_crypto: bool) -> Iterator[None]:
    """Syncing is free and may fail; what was signed here is not verified again, unless all is."""
    verify = protocol.frames.verify_signature

    def remembered(public_key: bytes, sender: str, body: bytes, signature: bytes) -> None:
        signed = protocol.frames.signed_bytes(sender, body)
        if SIGNED.get((public_key, signed)) != signature:
            verify(public_key, sender, body, signature)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("os.fsync", disk.fsync))
        stack.enter_context(mock.patch("tempfile.tempdir", str(folder)))
        stack.enter_context(mock.patch("runtime.journal._commit", disk.commit))
        stack.enter_context(vectors.recorded())
        stack.enter_context(mock.patch("broker.routing.matches", _matches))
        stack.enter_context(mock.patch("protocol.coordinator_phases.collecting.SUM_INTERVAL", SUM_INTERVAL))
        stack.enter_context(mock.patch("coordinator.notices.version", return_value="0"))
        stack.enter_context(mock.patch("device_agent.conditions.version", return_value="0"))
        stack.enter_context(mock.patch("coordinator.run.export_inference", return_value=b"model"))
        if not real_crypto:
            stack.enter_context(mock.patch("protocol.frames.verify_signature", remembered))
            stack.enter_context(mock.patch("protocol.device_work.verify_signature", remembered))
        yield


def run_schedule(schedule: Schedule, *, real_crypto: bool = True) -> Outcome:
    """Run one simulation.

    Args:
        schedule: what happens.
        real_crypto: every signature is verified; else those made in this process are remembered.
    """
    structlog.configure(wrapper_class=logs.Silent)  # type: ignore[arg-type]
    folder = Path(tempfile.mkdtemp(prefix="fedfleet-", dir=disk.SHELF))
    try:
        with _patched(folder, real_crypto=real_crypto):
            return World(schedule, folder).run()
    finally:
        SIGNED.clear()
        logs.FAILED.clear()
        disk.FULL.clear()
        disk.SYNCED.clear()
        vectors.ENCODED.clear()
        shutil.rmtree(folder, ignore_errors=True)
