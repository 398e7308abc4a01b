"""Bytes that are no graph, no checkpoint or no bundle."""

from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec.structs import replace

from hostile_artifacts.making import (
    GOOD,
    Hostile,
    appended,
    varint,
    wire_field,
    with_file,
)
from models.bounds import MAX_BUNDLE_BYTES
from models.bundle import FORWARD_FILE
from models.bundle_scan import (
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    TRAINING_FILE,
)


def broken_bytes() -> Iterator[Hostile]:
    """Files that are no graphs, or not whole."""
    content = GOOD.files[TRAINING_FILE]
    for part in (0, 1, 10, 50, 90, 99):
        short = content[: len(content) * part // 100]
        yield Hostile(f"cut off at {part} %", with_file(TRAINING_FILE, short), "training_model.onnx: ")
    for name, extra, refusal in (
        ("one byte behind the end", b"\x00", "training_model.onnx: "),
        ("unknown field", wire_field(99, b"x"), "field 99"),
        ("group", b"\x0b\x0c", "wire type 3"),
        ("wire type 7", b"\x0f", "wire type 7"),
        ("field number 0", b"\x02\x00", "field 0"),
        ("number without an end", b"\x08" + b"\xff" * 20, "does not end"),
        ("number of 70 bits", b"\x28" + b"\xff" * 9 + b"\x7f", "too large"),
        ("length beyond the end", varint(14 << 3 | 2) + varint(2**40), "middle of a field"),
        ("length of 2^63", varint(14 << 3 | 2) + varint(2**63), "middle of a field"),
        ("second graph", wire_field(7, b""), "there twice"),
        ("second version", b"\x08\x0a", "there twice"),
        ("text where a number belongs", wire_field(1, b"x"), "there twice|wire type"),
        ("300,000 empty fields", wire_field(14, b"") * 300_000, "more than 150,000 fields"),
    ):
        yield Hostile(name, appended(TRAINING_FILE, extra), refusal)
    yield Hostile("a name that is no text", with_file(TRAINING_FILE, _bad_text(content)), "UTF-8")
    yield Hostile("zeros", with_file(EVALUATION_FILE, bytes(300)), "eval_model.onnx")
    yield Hostile(
        "a pickle", with_file(EVALUATION_FILE, b"\x80\x04cos\nsystem\n(S'id'\ntR."), "eval_model.onnx"
    )
    yield Hostile("an ELF program", with_file(FORWARD_FILE, b"\x7fELF" + bytes(60)), "forward.onnx")
    checkpoint = GOOD.files[CHECKPOINT_FILE]
    for name, bytes_, refusal in (
        ("empty checkpoint", b"", "is not a checkpoint"),
        ("checkpoint of noise", np.random.default_rng(1).bytes(400), "is not a checkpoint"),
        ("checkpoint of 1 MiB", checkpoint + bytes(2**20), "too many"),
        ("checkpoint of another model", checkpoint.replace(b"hidden1", b"hidden9"), "lacks the parameter"),
        ("half a checkpoint", checkpoint[:100], "lacks the parameter"),
    ):
        yield Hostile(name, with_file(CHECKPOINT_FILE, bytes_), refusal)


def _bad_text(content: bytes) -> bytes:
    return content.replace(b"input", b"\xff\xfe\xfd\xfc\xfb")


def broken_bundles() -> Iterator[Hostile]:
    """Bytes that are no bundle, or one with other files."""
    good = GOOD.encode()
    fields = msgspec.msgpack.decode(good)
    refusal = "not a training bundle"
    for part in (0, 3, 50, 99):
        yield Hostile(f"bundle cut off at {part} %", good[: len(good) * part // 100], refusal)
    yield Hostile("something behind the bundle", good + b"\xc0", refusal)
    yield Hostile("bundle of 16 MiB and a byte", bytes(MAX_BUNDLE_BYTES + 1), "at most 16,777,216")
    yield Hostile("a million empty maps", b"\xdd\x00\x10\x00\x00" + b"\x80" * 2**20, refusal)
    yield Hostile("100,000 lists in each other", b"\x91" * 100_000, refusal)
    yield Hostile("map of 4 billion entries", b"\xdf\xff\xff\xff\xff", refusal)
    yield Hostile("text of 4 GiB in five bytes", b"\x81\xdb\xff\xff\xff\xff", refusal)
    yield Hostile("file of 4 GiB in five bytes", _last_bytes_lie(good), refusal)
    yield Hostile("text that is no text", good.replace(b"forward.onnx", b"forward.on\xff\xfe"), refusal)
    for name in (
        "../forward.onnx",
        "/etc/passwd",
        "a/b.onnx",
        "con.onnx.",
        "nul\x00.onnx",
        "F.onnx",
        "x" * 300,
    ):
        files = fields["files"] | {name: b"x"}
        yield Hostile(f"file name {name[:20]!r}", msgspec.msgpack.encode(fields | {"files": files}), refusal)
    many = {f"f{index}": b"" for index in range(100)}
    yield Hostile("100 files", msgspec.msgpack.encode(fields | {"files": fields["files"] | many}), refusal)
    for file in GOOD.files:
        rest = {name: content for name, content in GOOD.files.items() if name != file}
        yield Hostile(f"without {file}", replace(GOOD, files=rest).encode(), "lacks its files")
    engines = {"ort-training": (FORWARD_FILE,)}
    fewer = replace(GOOD, manifest=replace(GOOD.manifest, engines=engines), files={FORWARD_FILE: b""})
    yield Hostile("engine that claims to need less", fewer.encode(), "lacks its files")
    gap = msgspec.to_builtins(GOOD.manifest)
    gap["parameters"][0][1][2] = 5
    yield Hostile("table with a gap", msgspec.msgpack.encode({"manifest": gap, "files": {}}), refusal)
    vast = msgspec.to_builtins(GOOD.manifest)
    vast["parameters"][0] = [["w", [2**26] * 8, 0]]
    yield Hostile("table of 2^208", msgspec.msgpack.encode({"manifest": vast, "files": {}}), refusal)


def _last_bytes_lie(good: bytes) -> bytes:
    at = good.index(GOOD.files[TRAINING_FILE])
    return good[: at - 3] + b"\xc6\xff\xff\xff\xff" + good[at:]
