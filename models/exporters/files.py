"""Tensors that a model keeps beside itself, read into it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto, external_data_helper

from models.errors import ModelError


def read_tensors(model: Any, folder: Path | None) -> None:
    """Read what lies in other files of the model's folder.

    Raises:
        ModelError: it is not there, or the model came without a folder.
    """
    outside = [each for each in _tensors(model.graph) if each.data_location == TensorProto.EXTERNAL]
    for tensor in outside:
        file = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
        if folder is None:
            raise ModelError(
                f"tensor {tensor.name!r} lies in another file, {file!r}; save the model with all data "
                "inside (torch.onnx.export with external_data=False)"
            )
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # the helper raises several kinds, also for a path that leaves the folder
            raise ModelError(
                f"tensor {tensor.name!r} lies in another file, {file!r}, which cannot be read: {error}; copy "
                "it beside the model, or export with external_data=False"
            ) from error
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
