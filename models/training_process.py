"""The asyncio side of the training worker: start it when needed, one call at a time, end it late or idle."""

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import TYPE_CHECKING, NoReturn, TypeVar

import msgspec

from models.datasets.schema import DataSchema
from models.datasets.source import DataSource
from models.errors import OUT_OF_MEMORY, OUT_OF_TIME, TrainingFailedError
from models.installed import ORT_GRAPH
from models.training_calls import (
    ANSWERS,
    LENGTH,
    MAX_FRAME_BYTES,
    OUT_OF_MEMORY_EXIT,
    Answer,
    Call,
    Describe,
    DescribeResult,
    Evaluate,
    EvaluateResult,
    Train,
    TrainResult,
    WorkerFailure,
    encode_frame,
)
from models.training_limits import DEFAULT_LIMITS, TrainingLimits
from protocol.plan import Training

if TYPE_CHECKING:  # an agent starts without numpy
    from models.layout import Vector

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""numpy would otherwise keep a thread and its buffers for every core, for no work of ours."""

_ENVIRONMENT = ("HOME", "LANG", "PATH", "TMPDIR")
_ENVIRONMENT_PREFIXES = ("LC_", "LD_", "PYTHON")
"""What an interpreter may need. The rest is not for a process that runs graphs of others: settings may come
as variables, the broker's password among them."""

_LAST_BREATH = 5.0
"""Seconds from the end of a process's output to its own end; a core dump may take one."""

Result = TypeVar("Result", TrainResult, EvaluateResult, DescribeResult)


class TrainingWorker:
    """A training process that starts on demand and starts anew after a crash, a deadline or a cancellation.

    Calls wait for each other. The event loop never waits for training. Between rounds that follow quickly the
    process stays, with its engine and data; when no call comes it is ended.

    Args:
        limits: what the process may take.
    """

    def __init__(self, limits: TrainingLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._sent: tuple[bytes, str] | None = None  # bundle and engine of the living process
        self._retiring: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the living process."""
        return self._process.pid if self._process else None

    async def train(
        self,
        bundle: bytes,
        weights: "Vector",
        training: Training,
        source: DataSource,
        *,
        seed: int,
        deadline: float,
        engine: str = ORT_GRAPH,
        private: bytes | None = None,
    ) -> TrainResult:
        """Evaluate the weights on the held-out data, then train them on the rest.

        Args:
            bundle: encoded, with the engine's files; the caller has checked it against a signed manifest.
            weights: the shared parameters, float32 (d,).
            training: settings of the local training.
            source: where the examples are.
            seed: of sampling and shuffling, >= 0.
            deadline: seconds from the call's turn until the process is killed.
            engine: which one loads the bundle.
            private: the device's own parameters, of an earlier result; None begins with the bundle's.

        Raises:
            TrainingFailedError: with the kind of failure; the next call works again.
        """
        call = Train(
            bundle_id=hashlib.sha256(bundle).digest(),
            bundle=bundle,
            engine=engine,
            weights=_encode(weights),
            private=private,
            source=source,
            training=training,
            seed=seed,
        )
        return await self._call(call, TrainResult, deadline)

    async def evaluate(
        self,
        bundle: bytes,
        weights: "Vector",
        source: DataSource,
        *,
        deadline: float,
        engine: str = ORT_GRAPH,
        whole: bool = False,
    ) -> EvaluateResult:
        """Evaluate the weights on the held-out data, or on the `whole` `.npz`; all else as for `train`."""
        call = Evaluate(
            bundle_id=hashlib.sha256(bundle).digest(),
            bundle=bundle,
            engine=engine,
            weights=_encode(weights),
            private=None,
            source=source,
            whole=whole,
        )
        return await self._call(call, EvaluateResult, deadline)

    async def describe(self, source: DataSource, *, deadline: float) -> DataSchema:
        """Say what a source holds, read as training reads it; errors as for `train`."""
        return (await self._call(Describe(source), DescribeResult, deadline)).schema

    async def close(self) -> None:
        """End the process, if there is one; a later call starts another."""
        async with self._turn:
            self._stay()
            await self._kill()

    async def _call(self, call: Call, expected: type[Result], deadline: float) -> Result:
        async with self._turn:
            self._stay()
            try:
                answer = await self._exchange(call, deadline)
            finally:
                if self._process is not None:
                    self._retiring = asyncio.create_task(self._retire())
        match answer:
            case WorkerFailure(kind, message) if kind == OUT_OF_MEMORY:
                limit = self._limits.memory_limit_mb
                raise TrainingFailedError(
                    kind, f"training.memory_limit_mb = {limit} is too little: {message}"
                )
            case WorkerFailure(kind, message):
                raise TrainingFailedError(kind, message)
            case _ if isinstance(answer, expected):
                return answer
            case _:
                raise TrainingFailedError("failed", f"the worker answered with {type(answer).__name__}")

    def _stay(self) -> None:
        """Whoever has the turn; so this never interrupts the retiring in its work."""
        if self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None

    async def _retire(self) -> None:
        await asyncio.sleep(self._limits.idle_seconds)
        async with self._turn:
            await self._kill()

    async def _exchange(self, call: Call, deadline: float) -> Answer:
        """Any way out but an answer leaves the process in the middle of a call, so it is killed."""
        try:
            async with asyncio.timeout(deadline):
                process = await self._start()
                answer = await _ask(process, self._without_known_bundle(call))
        except TimeoutError:
            await self._kill()
            raise TrainingFailedError(OUT_OF_TIME, f"no answer after {deadline:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._fail_as_crashed()
        except BaseException:
            await self._kill()
            raise
        if isinstance(answer, WorkerFailure) and answer.kind == OUT_OF_MEMORY:
            await self._kill()  # the next call shall not begin with what this one has left
        if not isinstance(call, Describe):
            # A failed call may have failed before it loaded the bundle.
            self._sent = None if isinstance(answer, WorkerFailure) else (call.bundle_id, call.engine)
        return answer

    def _without_known_bundle(self, call: Call) -> Call:
        if isinstance(call, Describe) or self._sent != (call.bundle_id, call.engine):
            return call
        return msgspec.structs.replace(call, bundle=None)

    async def _start(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._sent = None
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "models.training_worker",
                str(os.getpid()),
                str(self._limits.memory_limit_mb),
                str(self._limits.cpu_seconds),
                stdin=PIPE,
                stdout=PIPE,
                env=_environment(),
            )
        return self._process

    async def _fail_as_crashed(self) -> NoReturn:
        process = self._process
        if process:
            # Killing what has just ended would collect its exit code before asyncio can.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LAST_BREATH)
        await self._kill()
        match process.returncode if process else None:
            case code if code == OUT_OF_MEMORY_EXIT:
                limit = f"training.memory_limit_mb = {self._limits.memory_limit_mb}"
                raise TrainingFailedError(OUT_OF_MEMORY, f"{limit} was not enough to answer")
            case code if code == -signal.SIGXCPU:
                limit = f"training.cpu_seconds = {self._limits.cpu_seconds}"
                raise TrainingFailedError(OUT_OF_TIME, f"{limit} were used up")
            case code:
                raise TrainingFailedError(
                    "crashed",
                    f"the worker ended with {code} (negative: killed by that signal); its log says more",
                )

    async def _kill(self) -> None:
        process, self._process, self._sent = self._process, None, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                process.kill()
        # A killed process ends at once; reading what it left lets the transports close.
        await asyncio.shield(process.communicate())


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    return kept | _ONE_THREAD


async def _ask(process: Process, call: Call) -> Answer:
    writer, reader = process.stdin, process.stdout
    if writer is None or reader is None:
        raise TrainingFailedError("failed", "the worker has no pipes")
    writer.write(encode_frame(call))
    await writer.drain()
    length = int.from_bytes(await reader.readexactly(LENGTH), "big")
    if length > MAX_FRAME_BYTES:
        raise TrainingFailedError("failed", f"the worker announced an answer of {length:,} bytes")
    frame = await reader.readexactly(length)
    try:
        return ANSWERS.decode(frame)
    except msgspec.MsgspecError as error:
        raise TrainingFailedError("failed", f"the worker's answer is not one: {error}") from error


def _encode(weights: "Vector") -> bytes:
    return weights.astype("<f4", copy=False).tobytes()
