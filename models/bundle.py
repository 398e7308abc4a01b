"""The training bundle: all a device needs to train a model, apart from the weights.

One MessagePack blob, named by the SHA-256 of its bytes. This module needs no `onnx`: a device decodes
bundles, it never builds them.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from models.errors import BundleError
from models.layout import ParameterTable, Shape, TensorName
from protocol.plan import Loss, Optimizer

MAX_BUNDLE_BYTES = 16 * 2**20
"""Bundles hold graphs, not weights: the largest seen has 12 KiB. The rest is room for embedded constants."""

FORWARD_FILE = "forward.onnx"
"""The forward graph as a pure function: inputs are the model's input, then every parameter in table order."""

FileName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,40}(\.onnx)?$")]
"""Never a path: engines write these into a folder of their own."""

Word = Annotated[str, Meta(max_length=256)]


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


class BundleManifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a bundle.

    Attributes:
        format: version of this structure.
        model: name of the forward graph, for people.
        opset: of the default ONNX domain.
        ir: ONNX IR version of every graph.
        loss: the training graph's loss; the mean over a batch.
        optimizer: the local optimizer.
        input: what the model reads.
        label: what the loss compares with; shape () of int64 classes for cross-entropy, else like `output`.
        output: what the model computes; logits for cross-entropy and bce.
        parameters: layout of the flat weight vector.
        engines: for each engine that can train this bundle, its files.
        versions: of the packages that built the graphs.
    """

    format: Literal[1]
    model: Word
    opset: Annotated[int, Meta(ge=12, le=21)]
    ir: Annotated[int, Meta(ge=3, le=10)]
    loss: Loss
    optimizer: Optimizer
    input: Tensor
    label: Tensor
    output: Tensor
    parameters: ParameterTable
    engines: Annotated[dict[Word, tuple[FileName, ...]], Meta(max_length=16)]
    versions: Annotated[dict[Word, Word], Meta(max_length=16)]


class Bundle(Struct, frozen=True, forbid_unknown_fields=True):
    """A model, ready to train.

    Attributes:
        manifest: what the files are.
        files: contents by name.
    """

    manifest: BundleManifest
    files: Annotated[dict[FileName, bytes], Meta(max_length=32)]

    def encode(self) -> bytes:
        """The same bytes for the same content, always."""
        return _ENCODER.encode(self)

    @property
    def id(self) -> bytes:
        """SHA-256 of the encoded bytes, 32 bytes."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> "Bundle":
        """Read a bundle.

        Args:
            data: what `encode` wrote; whether these are the *right* bytes is for the hash to say.

        Raises:
            BundleError: too large, not MessagePack, of other types, or with files missing.
        """
        if len(data) > MAX_BUNDLE_BYTES:
            raise BundleError(f"a bundle of {len(data):,} bytes; at most {MAX_BUNDLE_BYTES:,} are allowed")
        try:
            bundle = _DECODER.decode(data)
        except (
            msgspec.MsgspecError,
            ValueError,
            RecursionError,
        ) as error:  # text that is no UTF-8, deep nesting
            raise BundleError(f"not a training bundle: {error}") from error
        needed = {FORWARD_FILE}.union(*bundle.manifest.engines.values())
        if not needed <= bundle.files.keys():
            raise BundleError(f"the bundle lacks its files {sorted(needed - bundle.files.keys())}")
        return bundle


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Bundle)
