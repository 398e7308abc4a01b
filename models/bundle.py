"""The training bundle: all a device needs to train a model, apart from the weights that travel every round.

A manifest in MessagePack, named by the SHA-256 of its bytes, and the files that it names by theirs. A device
fetches the manifest, and of the files only those of the engine that it trains with. This module needs no
`onnx`: a device reads bundles, it never builds them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct

from models.bounds import MAX_BUNDLE_BYTES, MAX_GRAPH_BYTES, MAX_MANIFEST_BYTES
from models.errors import BundleError
from models.layout import ParameterTable, Shape, TensorName, Vector
from protocol.chunks import BlobRef, check
from protocol.errors import ProtocolError
from protocol.plan import Loss, Optimizer, Training

FORWARD_FILE = "forward.onnx"
"""The forward graph as a pure function: inputs are the model's input, then all shared, private and frozen
parameters, in table order."""

FROZEN_FILE, PRIVATE_FILE = "frozen", "private"
"""Values of the frozen parameters, and the first ones of the private: raw little-endian float32."""

FileName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,40}(\.onnx)?\Z")]
"""Never a path: engines write these into a folder of their own."""

EngineFiles = Annotated[tuple[FileName, ...], Meta(max_length=8)]
"""As many graphs as `MAX_BUNDLE_BYTES` has room for; an engine of ours reads up to four."""

Word = Annotated[str, Meta(max_length=256)]
Files = dict[FileName, bytes]


class Tensor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An input or output.

    Attributes:
        name: in the graph.
        dtype: of the elements.
        shape: of one example; the batch axis in front is left out.
    """

    name: TensorName
    dtype: Literal["float32", "int64"]
    shape: Shape


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """What is built into the graph of a step; see `protocol.plan.Training`, whose keys these are."""

    optimizer: Optimizer
    momentum: float
    weight_decay: float
    gradient_clip: float | None
    proximal: float

    @classmethod
    def of(cls, training: Training) -> "Step":
        """The part of a plan's training that is built in."""
        return cls(
            training.optimizer,
            training.momentum,
            training.weight_decay,
            training.gradient_clip,
            training.proximal,
        )


class BundleManifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a bundle.

    Attributes:
        format: version of this structure.
        model: name of the forward graph, for people.
        opset: of the default ONNX domain in the forward graph.
        ir: ONNX IR version of every graph.
        loss: the training graph's loss; the mean over a batch.
        step: what else is built into its step.
        input: what the model reads.
        label: what the loss compares with; shape () of int64 classes for cross-entropy, else like `output`.
        output: what the model computes; logits for cross-entropy and bce.
        parameters: layout of the flat vector of shared weights: trained, and all that travels in a round.
        private: layout of the weights that each device trains for itself and keeps.
        frozen: layout of the weights that nobody trains.
        engines: for each engine that can train this bundle, its files.
        files: every file's reference.
        versions: of the packages that built the graphs.
    """

    format: Literal[2]
    model: Word
    opset: Annotated[int, Meta(ge=12, le=21)]
    ir: Annotated[int, Meta(ge=3, le=10)]
    loss: Loss
    step: Step
    input: Tensor
    label: Tensor
    output: Tensor
    parameters: ParameterTable
    private: ParameterTable | None
    frozen: ParameterTable | None
    engines: Annotated[dict[Word, EngineFiles], Meta(min_length=1, max_length=16)]
    files: Annotated[dict[FileName, BlobRef], Meta(max_length=32)]
    versions: Annotated[dict[Word, Word], Meta(max_length=16)]

    def encode(self) -> bytes:
        """The same bytes for the same content, always."""
        return _ENCODER.encode(self)

    @property
    def id(self) -> bytes:
        """SHA-256 of the encoded bytes, 32 bytes."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def model_id(self) -> bytes:
        """Names the model apart from how it is trained: to this belong weights. 32 bytes."""
        tables = self.parameters, self.private, self.frozen
        constants = [self.files[name].sha256 for name in self._constants()]
        what = (self.files[FORWARD_FILE].sha256, self.loss, tables, constants)
        return hashlib.sha256(b"fedfleet/1/model" + _ENCODER.encode(what)).digest()

    @classmethod
    def decode(cls, data: bytes) -> "BundleManifest":
        """Read a manifest.

        Args:
            data: what `encode` wrote; whether these are the *right* bytes is for the hash to say.

        Raises:
            BundleError: too large, not MessagePack, of other types, or it names files without references.
        """
        manifest = _decode(_MANIFESTS, data, MAX_MANIFEST_BYTES)
        _check_files(manifest)
        return manifest

    def needed(self, engine: str) -> tuple[str, ...]:
        """The files that an engine reads, in order.

        Raises:
            BundleError: the bundle has none for it.
        """
        if engine not in self.engines:
            raise BundleError(f"it has no files for the engine {engine}, but for {', '.join(self.engines)}")
        return (*self.engines[engine], *self._constants())

    def _constants(self) -> Iterable[str]:
        if self.frozen:
            yield FROZEN_FILE
        if self.private:
            yield PRIVATE_FILE


class Bundle(Struct, frozen=True, forbid_unknown_fields=True):
    """A model, ready to train.

    Attributes:
        manifest: what the files are.
        files: contents by name; all of them, or those of one engine.
    """

    manifest: BundleManifest
    files: Annotated[Files, Meta(max_length=32)]

    def encode(self) -> bytes:
        """Manifest and files in one, as a worker gets them."""
        return _ENCODER.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Bundle":
        """Read what `encode` wrote.

        Raises:
            BundleError: as for a manifest; or a file is not the one that the manifest names.
        """
        bundle = _decode(_BUNDLES, data, MAX_BUNDLE_BYTES)
        _check_files(bundle.manifest)
        for name, content in bundle.files.items():
            ref = bundle.manifest.files.get(name)
            if ref is None or hashlib.sha256(content).digest() != ref.sha256:
                raise BundleError(f"the file {name!r} is not the one that the manifest names")
        return bundle

    def only(self, engine: str) -> "Bundle":
        """The part that one engine reads.

        Raises:
            BundleError: there is none, or a file is missing.
        """
        self.require(self.manifest.needed(engine))
        return Bundle(self.manifest, {name: self.files[name] for name in self.manifest.needed(engine)})

    def require(self, names: Iterable[str]) -> None:
        """Refuse a bundle that lacks files.

        Raises:
            BundleError: names them.
        """
        if missing := set(names) - self.files.keys():
            raise BundleError(f"the bundle lacks its files {sorted(missing)}")

    def frozen(self) -> Mapping[str, Vector]:
        """Values of the frozen parameters by name; empty without.

        Raises:
            BundleError: there are not as many as the manifest says, or some are not finite.
        """
        return self._values(self.manifest.frozen, FROZEN_FILE)

    def first_private(self) -> Vector:
        """What a device's private parameters begin with, float32 (p,); empty without.

        Raises:
            BundleError: as for `frozen`.
        """
        table = self.manifest.private
        values = self._values(table, PRIVATE_FILE)
        return table.flatten(values) if table else np.empty(0, dtype=np.float32)

    def _values(self, table: ParameterTable | None, file: str) -> Mapping[str, Vector]:
        if table is None:
            return {}
        self.require([file])
        if len(self.files[file]) != _FLOAT_BYTES * table.size:
            raise BundleError(
                f"{file}: {len(self.files[file]):,} bytes, the manifest has {table.size:,} numbers"
            )
        values = np.frombuffer(self.files[file], dtype="<f4")
        if not np.isfinite(values).all():
            raise BundleError(f"{file}: holds NaN or infinity")
        return table.unflatten(values)


def _check_files(manifest: BundleManifest) -> None:
    for engine in manifest.engines:
        if lost := {FORWARD_FILE, *manifest.needed(engine)} - manifest.files.keys():
            raise BundleError(f"the manifest has no references of its files {sorted(lost)}")
    for name, ref in manifest.files.items():
        try:
            check(ref)
        except ProtocolError as error:
            raise BundleError(f"{name}: {error}") from error
        table = {FROZEN_FILE: manifest.frozen, PRIVATE_FILE: manifest.private}.get(name)
        limit = _FLOAT_BYTES * table.size if table else MAX_GRAPH_BYTES
        if ref.size > limit:
            raise BundleError(f"{name}: {ref.size:,} bytes; at most {limit:,} are allowed")
    names = [
        parameter.name
        for table in (manifest.parameters, manifest.private, manifest.frozen)
        for parameter in (table.parameters if table else ())
    ]
    if len(set(names)) != len(names):
        raise BundleError("a parameter is in the manifest twice")


_T = TypeVar("_T")


def _decode(decoder: "msgspec.msgpack.Decoder[_T]", data: bytes, limit: int) -> _T:
    if len(data) > limit:
        raise BundleError(f"a bundle of {len(data):,} bytes; at most {limit:,} are allowed")
    try:
        return decoder.decode(data)
    # Text that is no UTF-8, deep nesting.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"not a training bundle: {error}") from error


_FLOAT_BYTES = 4
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_MANIFESTS = msgspec.msgpack.Decoder(BundleManifest)
_BUNDLES = msgspec.msgpack.Decoder(Bundle)
