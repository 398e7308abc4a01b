"""Manifests of bundles that the agent itself must refuse: it reads them outside of the training process."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from hostile_artifacts.making import GOOD
from hostile_artifacts.steps import ROLED
from models.bounds import MAX_GRAPH_BYTES, MAX_MANIFEST_BYTES, MAX_PARAMETERS
from models.bundle import FORWARD_FILE, FROZEN_FILE, PRIVATE_FILE, BundleManifest
from models.bundle_scan import TRAIN_STEP_FILE
from models.installed import ORT_GRAPH
from models.layout import ParameterTable
from protocol.chunks import MAX_BLOB_SIZE, BlobRef

_NO_BUNDLE = "not a training bundle"
_ZERO = bytes(32)


@dataclass(frozen=True)
class HostileManifest:
    """One manifest.

    Attributes:
        name: what is wrong with it.
        data: its bytes.
        refusal: a pattern that the error matches.
    """

    name: str
    data: bytes
    refusal: str


def manifests() -> Iterator[HostileManifest]:
    """All of them."""
    for name, data in broken().items():
        yield HostileManifest(name, data, _NO_BUNDLE)
    too_long = bytes(MAX_MANIFEST_BYTES + 1)
    yield HostileManifest("a byte too long", too_long, f"at most {MAX_MANIFEST_BYTES:,}")
    for name, fields, refusal in odd_fields():
        yield HostileManifest(name, msgspec.msgpack.encode(_built(GOOD.manifest) | fields), refusal)
    for name, manifest, refusal in odd_tables():
        yield HostileManifest(name, manifest.encode(), refusal)
    yield from odd_layouts()


def broken() -> dict[str, bytes]:
    """Bytes that are none."""
    good = GOOD.manifest.encode()
    return {
        **{f"cut off at {part} %": good[: len(good) * part // 100] for part in (0, 3, 50, 99)},
        "something behind the end": good + b"\xc0",
        "a million empty maps": b"\xdd\x00\x10\x00\x00" + b"\x80" * 2**20,
        "8 MiB of lists in each other": b"\x91" * MAX_MANIFEST_BYTES,
        "8 MiB of maps in each other": b"\x81\xa0" * (MAX_MANIFEST_BYTES // 2),
        "a map of 4 billion entries": b"\xdf\xff\xff\xff\xff",
        "a text of 4 GiB": b"\x81\xdb\xff\xff\xff\xff",
        "a text that is no text": good.replace(b"forward.onnx", b"forward.on\xff\xfe"),
        "a number": b"\x01",
    }


def odd_fields() -> Iterator[tuple[str, dict[str, Any], str]]:
    """References, engines and numbers."""
    files = _built(GOOD.manifest)["files"]
    size, chunks = files[TRAIN_STEP_FILE][1], files[TRAIN_STEP_FILE][3]
    for name, ref, refusal in (
        ("of nothing", [_ZERO, 0, 4096, [_ZERO]], _NO_BUNDLE),
        ("of 2^40 bytes", [_ZERO, 2**40, 2**20, [_ZERO] * 4096], _NO_BUNDLE),
        ("of a byte more than a graph has", _vast(MAX_GRAPH_BYTES + 1), "at most 16,777,216"),
        ("with a chunk too few", [_ZERO, 2**20, 4096, [_ZERO]], "256 chunks"),
        ("with a chunk too many", [_ZERO, size, 2**18, [*chunks, _ZERO]], "1 chunks"),
        ("in chunks of a byte", [_ZERO, 4096, 1, [_ZERO] * 4096], _NO_BUNDLE),
        ("with a short hash", [_ZERO[1:], size, 2**18, chunks], _NO_BUNDLE),
    ):
        yield f"a file {name}", {"files": files | {TRAIN_STEP_FILE: ref}}, refusal
    vast = {f"f{index}": _vast(MAX_BLOB_SIZE) for index in range(32 - len(files))}
    yield "32 files of 256 MiB", {"files": files | vast}, "at most 16,777,216"
    yield "33 files", {"files": {f"f{index}": _vast(1) for index in range(33)}}, _NO_BUNDLE
    for name in ("../train_step.onnx", "/etc/passwd", "train_step.onnx\n", "nul\x00", "F.onnx", "", "x" * 99):
        yield f"a file called {name[:20]!r}", {"files": files | {name: _vast(1)}}, _NO_BUNDLE
    bare = {name: ref for name, ref in files.items() if name != FORWARD_FILE}
    yield "no forward graph", {"files": bare}, "no references of its files"
    for name, engines, refusal in (
        ("no engine", {}, _NO_BUNDLE),
        ("17 engines", {f"e{index}": [] for index in range(17)}, _NO_BUNDLE),
        ("an engine that reads a file again and again", {ORT_GRAPH: [TRAIN_STEP_FILE] * 9}, _NO_BUNDLE),
        ("an engine that reads what is not there", {ORT_GRAPH: ["elsewhere.onnx"]}, "no references"),
        ("an engine that reads a path", {ORT_GRAPH: ["/etc/passwd"]}, _NO_BUNDLE),
        ("an engine with a long name", {"x" * 257: [TRAIN_STEP_FILE]}, _NO_BUNDLE),
    ):
        yield name, {"engines": engines}, refusal
    for name, value in (
        ("format", 1),
        ("format", 3),
        ("opset", 99),
        ("ir", 2**63),
        ("loss", "mine"),
        ("more", 1),
    ):
        yield f"{name} {value}", {name: value}, _NO_BUNDLE


def odd_tables() -> Iterator[tuple[str, BundleManifest, str]]:
    """Parameters and their values."""
    manifest = ROLED.manifest
    twice = "in the manifest twice"
    yield "a parameter that is shared and private", replace(manifest, private=manifest.parameters), twice
    yield "a parameter that is shared and frozen", replace(manifest, frozen=manifest.parameters), twice
    for file, role in ((FROZEN_FILE, "frozen"), (PRIVATE_FILE, "private")):
        lost = {name: ref for name, ref in manifest.files.items() if name != file}
        yield f"no {role} values", replace(manifest, files=lost), "no references of its files"
        huge = manifest.files | {file: BlobRef(*_vast(MAX_BLOB_SIZE))}
        yield f"more {role} values than parameters", replace(manifest, files=huge), f"{file}: .* at most"


def odd_layouts() -> Iterator[HostileManifest]:
    """Tables that no table can be."""
    for name, rows in {
        "a gap": [["a", [2], 0], ["b", [2], 3]],
        "an overlap": [["a", [2], 0], ["b", [2], 1]],
        "2^208 numbers": [["a", [2**26] * 8, 0]],
        "more than allowed together": [["a", [2**26], 0], ["b", [1], 2**26]],
        "an axis of 0": [["a", [0], 0]],
        "an axis below 0": [["a", [-1], 0]],
        "9 axes": [["a", [1] * 9, 0]],
        "a name twice": [["a", [1], 0], ["a", [1], 1]],
        "no name": [["", [1], 0]],
        "nothing": [],
        "10,001 parameters": [[f"p{index}", [1], index] for index in range(10_001)],
    }.items():
        for table in ("parameters", "private", "frozen"):
            built = _built(ROLED.manifest) | {table: [rows]}
            yield HostileManifest(f"{table} of {name}", msgspec.msgpack.encode(built), _NO_BUNDLE)


def greedy() -> bytes:
    """A manifest that is right, and of more than a device of 384 MiB would fetch."""
    roles = {"frozen": ("table 1", FROZEN_FILE), "private": ("table 2", PRIVATE_FILE)}
    tables = {role: ParameterTable.of([(name, (MAX_PARAMETERS,))]) for role, (name, _) in roles.items()}
    files = {file: BlobRef(_ZERO, MAX_BLOB_SIZE, 2**18, (_ZERO,) * 2**10) for _, file in roles.values()}
    return replace(ROLED.manifest, files=ROLED.manifest.files | files, **tables).encode()


def _vast(size: int) -> list[Any]:
    chunks = -(-size // 2**18)
    return [_ZERO, size, 2**18, [_ZERO] * chunks]


def _built(manifest: BundleManifest) -> dict[str, Any]:
    return dict(msgspec.msgpack.decode(manifest.encode()))
