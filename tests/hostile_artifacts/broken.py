"""Bytes that are no graph, no checkpoint or no bundle."""

from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec.structs import replace

from hostile_artifacts.making import (
    ENGINES,
    GOOD,
    JUDGING,
    LEARNING,
    Aimed,
    Hostile,
    aim,
    appended,
    varint,
    wire_field,
    with_file,
)
from models.bundle import FORWARD_FILE, Bundle
from models.bundle_scan import CHECKPOINT_FILE, TRAIN_STEP_FILE
from models.installed import ORT_GRAPH


def broken_bytes() -> Iterator[Hostile]:
    """Files that are no graphs, or not whole."""
    for file in LEARNING:
        yield from broken_graphs(file)
    for file in JUDGING:
        yield Hostile(f"zeros as {file}", with_file(file, bytes(300)), file)
        pickle = b"\x80\x04cos\nsystem\n(S'id'\ntR."
        yield Hostile(f"a pickle as {file}", with_file(file, pickle), file)
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


def broken_graphs(file: str) -> Iterator[Hostile]:
    """One graph, cut or with something behind it."""
    content = GOOD.files[file]
    for part in (0, 1, 10, 50, 90, 99):
        short = content[: len(content) * part // 100]
        yield Hostile(f"{file} cut off at {part} %", with_file(file, short), f"{file}: ")
    for name, extra, refusal in (
        ("one byte", b"\x00", f"{file}: "),
        ("an unknown field", wire_field(99, b"x"), "field 99"),
        ("a group", b"\x0b\x0c", "wire type 3"),
        ("wire type 7", b"\x0f", "wire type 7"),
        ("field number 0", b"\x02\x00", "field 0"),
        ("a number without an end", b"\x08" + b"\xff" * 20, "does not end"),
        ("a number of 70 bits", b"\x28" + b"\xff" * 9 + b"\x7f", "too large"),
        ("a length beyond the end", varint(14 << 3 | 2) + varint(2**40), "middle of a field"),
        ("a length of 2^63", varint(14 << 3 | 2) + varint(2**63), "middle of a field"),
        ("a second graph", wire_field(7, b""), "there twice"),
        ("a second version", b"\x08\x0a", "there twice"),
        ("text where a number belongs", wire_field(1, b"x"), "there twice|wire type"),
        ("300,000 empty fields", wire_field(14, b"") * 300_000, "more than 150,000 fields"),
    ):
        yield Hostile(f"{name} behind {file}", appended(file, extra), refusal)
    odd = content.replace(b"input", b"\xff\xfe\xfd\xfc\xfb")
    yield Hostile(f"a name that is no text in {file}", with_file(file, odd), "UTF-8")


def broken_bundles() -> Iterator[Hostile]:
    """Bytes that are no bundle, or one with other files."""
    good = aim(GOOD, ORT_GRAPH).bundle
    refusal = "not a training bundle"
    for name, bundle in {
        **{f"bundle cut off at {part} %": good[: len(good) * part // 100] for part in (0, 3, 50, 99)},
        "something behind the bundle": good + b"\xc0",
        "a million empty maps": b"\xdd\x00\x10\x00\x00" + b"\x80" * 2**20,
        "100,000 lists in each other": b"\x91" * 100_000,
        "map of 4 billion entries": b"\xdf\xff\xff\xff\xff",
        "text of 4 GiB in five bytes": b"\x81\xdb\xff\xff\xff\xff",
        "file of 4 GiB in five bytes": _last_bytes_lie(good),
        "text that is no text": good.replace(b"forward.onnx", b"forward.on\xff\xfe"),
        "a manifest alone": GOOD.manifest.encode(),
    }.items():
        yield Hostile(name, Aimed(ORT_GRAPH, bundle), refusal)
    yield from other_files_than_named()


def other_files_than_named() -> Iterator[Hostile]:
    """Files and references that do not fit."""
    fields = msgspec.msgpack.decode(aim(GOOD, ORT_GRAPH).bundle)
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
        spoilt = msgspec.msgpack.encode(fields | {"files": files})
        yield Hostile(f"file name {name[:20]!r}", Aimed(ORT_GRAPH, spoilt), "not a training bundle")
    many = {f"f{index}": b"" for index in range(100)}
    spoilt = msgspec.msgpack.encode(fields | {"files": fields["files"] | many})
    yield Hostile("100 files", Aimed(ORT_GRAPH, spoilt), "not a training bundle")
    for engine in ENGINES:
        own = Bundle.decode(aim(GOOD, engine).bundle)
        for file in own.files:
            rest = {name: content for name, content in own.files.items() if name != file}
            lacking = Aimed(engine, replace(own, files=rest).encode())
            yield Hostile(f"without {file}", lacking, "lacks its files")
            other = Aimed(engine, replace(own, files=own.files | {file: own.files[file] + b"\x00"}).encode())
            yield Hostile(f"another {file} than named", other, "not the one that the manifest names")
        stray = Aimed(engine, replace(own, files=own.files | {"stray.onnx": b"x"}).encode())
        yield Hostile(f"a file that nobody named, for {engine}", stray, "not the one that the manifest names")
    crossed = own.files | {TRAIN_STEP_FILE: b""}
    yield Hostile("an empty file", Aimed(engine, replace(own, files=crossed).encode()), "not the one")


def _last_bytes_lie(good: bytes) -> bytes:
    at = good.index(GOOD.files[TRAIN_STEP_FILE])
    return good[: at - 3] + b"\xc6\xff\xff\xff\xff" + good[at:]
