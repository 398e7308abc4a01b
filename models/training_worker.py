"""The child process that trains: `python -P -m models.training_worker PARENT MEMORY_LIMIT_MB CPU_SECONDS`.

A process of its own because the training API holds the interpreter's lock for a whole step, because a bad
graph can kill its process, and because only a process can be ended at a deadline. Reads calls on standard
input, answers on standard output, and ends at end of input or with its parent.
"""

import ctypes
import hashlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

import msgspec
import numpy as np

from models.bundle import Bundle
from models.datasets.dataset import Bound, Dataset
from models.datasets.describe import describe
from models.datasets.load import load
from models.datasets.npz import load_npz
from models.datasets.source import DataSource, NpzSource
from models.engines import TrainingEngine, load_engine
from models.errors import (
    OUT_OF_MEMORY,
    BundleError,
    DatasetError,
    EngineUnavailableError,
    ModelError,
    TrainingFailedError,
)
from models.layout import Vector
from models.training_calls import (
    CALLS,
    LENGTH,
    MAX_FRAME_BYTES,
    OUT_OF_MEMORY_EXIT,
    Answer,
    Call,
    Describe,
    DescribeResult,
    Evaluate,
    EvaluateResult,
    Job,
    Train,
    TrainResult,
    WorkerFailure,
    encode_frame,
)
from models.training_limits import allow_processor_time, limit_this_process
from protocol.plan import Training

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when its parent dies."""

_FLOAT_BYTES = 4

_KINDS = {
    DatasetError: "dataset",
    BundleError: "bundle",
    ModelError: "weights",
    EngineUnavailableError: "engine",
    MemoryError: OUT_OF_MEMORY,
}


def main() -> None:
    """Serve until the input ends."""
    parent, memory_limit_mb, cpu_seconds = (int(word) for word in sys.argv[1:4])
    _die_with(parent)
    limit_this_process(memory_limit_mb)
    # Native code prints to descriptor 1; the answers keep a descriptor of their own.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers, lambda: allow_processor_time(cpu_seconds))
    except MemoryError:
        os._exit(OUT_OF_MEMORY_EXIT)  # at once: an orderly end asks for memory, too


def serve(calls: BinaryIO, answers: BinaryIO, before_each: Callable[[], None]) -> None:
    """Answer every call, in turn, until `calls` ends.

    Args:
        calls: frames.
        answers: frames.
        before_each: is called when a call has come.

    Raises:
        MemoryError: there is none left to read a call or to write its answer.
    """
    worker = Worker()
    while frame := _read_frame(calls):
        before_each()
        answers.write(encode_frame(worker.answer(frame)))
        answers.flush()


class Worker:
    """Performs calls; keeps the last engine and the last `.npz` file, which the next round needs again.

    Other data are read anew for each call: a round has its own sample of them, and they may have grown.
    """

    def __init__(self) -> None:
        self._engine: tuple[tuple[bytes, str], Bundle, TrainingEngine] | None = None
        self._npz: tuple[tuple[DataSource, int, int, bool], Dataset] | None = None

    def answer(self, frame: bytes) -> Answer:
        """Perform one encoded call; failures are answers, too."""
        try:
            return self._perform(CALLS.decode(frame))
        except msgspec.MsgspecError as error:
            return WorkerFailure("failed", f"not a call: {error}")
        except TrainingFailedError as error:
            return WorkerFailure(error.kind, str(error).removeprefix(f"{error.kind}: "))
        except tuple(_KINDS) as error:
            kind = next(kind for cause, kind in _KINDS.items() if isinstance(error, cause))
            # A failed allocation of the interpreter's own says nothing.
            return WorkerFailure(kind, str(error) or kind)

    def _perform(self, call: Call) -> Answer:
        if isinstance(call, Describe):
            return DescribeResult(describe(call.source))
        began = time.monotonic()
        bundle, engine = self._load_engine(call)
        data = self._load_data(call)
        data.check(bundle.manifest, str(call.source.path))
        weights = _decode(call.weights)
        private = None if call.private is None else _decode(call.private)
        before = engine.evaluate(weights, data.x_test, data.y_test, private=private)
        match call:
            case Evaluate():
                return EvaluateResult(
                    evaluated=before.examples,
                    loss_sum=before.loss_sum,
                    correct=before.correct,
                    seconds=time.monotonic() - began,
                )
            case Train(training=training, seed=seed):
                fitting = time.monotonic()
                after = engine.fit(weights, data.x, data.y, training, seed=seed, private=private)
                return TrainResult(
                    weights=after.weights.astype("<f4", copy=False).tobytes(),
                    private=after.private.astype("<f4", copy=False).tobytes(),
                    examples=after.examples,
                    training_loss=after.loss,
                    evaluated=before.examples,
                    loss_sum=before.loss_sum,
                    correct=before.correct,
                    seconds=time.monotonic() - began,
                    steps=after.steps,
                    fit_seconds=time.monotonic() - fitting,
                    peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                )

    def _load_engine(self, job: Job) -> tuple[Bundle, TrainingEngine]:
        key = job.bundle_id, job.engine
        if self._engine is None or self._engine[0] != key:
            if job.bundle is None:
                raise BundleError("this worker was not sent the bundle")
            if hashlib.sha256(job.bundle).digest() != job.bundle_id:
                raise BundleError("the bundle's bytes do not have its hash")
            bundle = Bundle.decode(job.bundle)
            self._engine = (key, bundle, load_engine(bundle, job.engine))
        return self._engine[1:]

    def _load_data(self, call: Train | Evaluate) -> Dataset:
        source = call.source
        if isinstance(call, Evaluate) and call.whole:
            return self._load_npz(source, whole=True)
        settings = call.training if isinstance(call, Train) else Training()
        bound = Bound(settings.max_examples, settings.examples, call.seed if isinstance(call, Train) else 0)
        held = self._load_npz(source, whole=False) if isinstance(source, NpzSource) else None
        return load(source, bound, held)

    def _load_npz(self, source: DataSource, *, whole: bool) -> Dataset:
        path = source.path
        try:
            status = path.stat()
        except OSError as error:
            raise DatasetError(f"{path}: {error.strerror}") from error
        key = (source, status.st_mtime_ns, status.st_size, whole)
        if self._npz is None or self._npz[0] != key:
            self._npz = (key, load_npz(path, holdout=None if whole else source.holdout))
        return self._npz[1]


def _decode(weights: bytes) -> Vector:
    if len(weights) % _FLOAT_BYTES:
        raise ModelError(f"{len(weights):,} bytes of weights are not a whole number of float32")
    return np.frombuffer(weights, dtype="<f4").astype(np.float32, copy=False)


def _read_frame(stream: BinaryIO) -> bytes:
    """The next frame's content; empty at the end of the stream."""
    prefix = stream.read(LENGTH)
    length = int.from_bytes(prefix, "big")
    if len(prefix) < LENGTH or length > MAX_FRAME_BYTES:
        return b""
    return stream.read(length)


def _die_with(parent: int) -> None:
    """No orphan: end with the parent, even one that was killed, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl
        sys.exit(0)


if __name__ == "__main__":
    main()
