"""The worker's own logic, without a process: bytes in, bytes out."""

import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np

from models.artifact import build_bundle, initial_weights
from models.catalog import build_model
from models.datasets.source import NpzSource
from models.installed import ORT_GRAPH
from models.training_calls import (
    ANSWERS,
    LENGTH,
    MAX_FRAME_BYTES,
    Answer,
    Evaluate,
    EvaluateResult,
    TrainResult,
    WorkerFailure,
    encode_frame,
)
from models.training_calls import Train as TrainCall
from models.training_worker import serve
from protocol.plan import Training

MODEL = build_model("logistic", {"features": 2, "classes": 2}, seed=1)
BUNDLE = build_bundle(MODEL, Training()).only(ORT_GRAPH).encode()


def call(folder: Path) -> Evaluate:
    path = folder / "data.npz"
    np.savez(path, x=np.eye(10, 2), y=np.arange(10) % 2)
    return Evaluate(
        bundle_id=hashlib.sha256(BUNDLE).digest(),
        bundle=BUNDLE,
        engine=ORT_GRAPH,
        private=None,
        weights=initial_weights(MODEL).tobytes(),
        source=NpzSource(path, holdout=0.5),
    )


def answers_to(*frames: bytes) -> list[Answer]:
    """What a worker writes for this input."""
    written = io.BytesIO()
    serve(io.BytesIO(b"".join(frames)), written, lambda: None)
    data, answers = written.getvalue(), []
    while data:
        length = int.from_bytes(data[:LENGTH], "big")
        answers.append(ANSWERS.decode(data[LENGTH : LENGTH + length]))
        data = data[LENGTH + length :]
    return answers


def test_a_bundle_is_sent_once(tmp_path: Path) -> None:
    first = call(tmp_path)
    again = msgspec.structs.replace(first, bundle=None)

    answers = answers_to(encode_frame(first), encode_frame(again))

    assert [type(answer) for answer in answers] == [EvaluateResult, EvaluateResult]


def test_a_bundle_that_is_loaded_is_not_taken_for_another_engines(tmp_path: Path) -> None:
    first = call(tmp_path)
    other = msgspec.structs.replace(first, engine="strange")

    answers = answers_to(encode_frame(first), encode_frame(other))

    assert isinstance(answers[0], EvaluateResult)
    assert isinstance(answers[1], WorkerFailure)
    assert answers[1].kind == "engine"


def test_training_answers_with_weights(tmp_path: Path) -> None:
    fields = msgspec.structs.asdict(call(tmp_path))
    del fields["whole"]

    (answer,) = answers_to(encode_frame(TrainCall(**fields, training=Training(), seed=1)))

    assert isinstance(answer, TrainResult)
    assert (len(answer.weights), answer.examples, answer.evaluated) == (4 * 6, 5, 5)


def test_a_bundle_that_was_not_sent_or_has_another_hash_is_a_failure(tmp_path: Path) -> None:
    unknown = msgspec.structs.replace(call(tmp_path), bundle=None)
    forged = msgspec.structs.replace(call(tmp_path), bundle=BUNDLE + b"\x00")

    answers = answers_to(encode_frame(unknown), encode_frame(forged))

    assert answers == [
        WorkerFailure("bundle", "this worker was not sent the bundle"),
        WorkerFailure("bundle", "the bundle's bytes do not have its hash"),
    ]


def test_what_is_no_call_is_answered_and_an_endless_frame_ends_the_worker(tmp_path: Path) -> None:
    junk = b"junk"
    endless = (MAX_FRAME_BYTES + 1).to_bytes(LENGTH, "big")

    answers = answers_to(len(junk).to_bytes(LENGTH, "big") + junk, endless, encode_frame(call(tmp_path)))

    assert len(answers) == 1
    assert isinstance(answers[0], WorkerFailure)
