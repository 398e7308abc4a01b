"""What exporters write, made into a forward graph that can be trained; `models.forward` then checks it.

PyTorch (both exporters), Keras by tf2onnx, scikit-learn by skl2onnx: each writes the same model in its own
words. Whatever has one meaning is rewritten; everything else is an error with the node's name and the fix.
"""

from pathlib import Path
from typing import Any

import onnx
from onnx import inliner, version_converter

from models.errors import ModelError
from models.exporters.activations import Activation, cut_activation
from models.exporters.files import read_tensors
from models.exporters.outputs import choose_output, prune
from models.exporters.precision import make_float32
from models.exporters.shapes import name_batch, settle_shapes
from models.exporters.sklearn import rewrite_sklearn
from models.exporters.wires import drop_identities, label
from models.forward import OPSETS, parse_model
from protocol.plan import Loss

__all__ = ["Activation", "import_model"]

_CONVERTED_OPSET = 17


def import_model(
    source: onnx.ModelProto | bytes, loss: Loss, *, output: str | None = None, folder: Path | None = None
) -> tuple[bytes, Activation | None]:
    """Rewrite an exported model for training.

    Args:
        source: the model; not changed.
        loss: one that takes logits has the activation before it cut off.
        output: which one is trained; None takes the only one that holds float numbers.
        folder: where tensors lie that the model keeps in other files; None has none.

    Returns:
        The serialised model, and what is to be put behind it again when it is used.

    Raises:
        ModelError: it has no one meaning, or cannot be trained; says where and what to change.
    """
    model = parse_model(source)
    if model.functions:
        model = inliner.inline_local_functions(model)
    read_tensors(model, folder)
    _forget_notes(model)
    choose_output(model.graph, loss, output)
    prune(model.graph)
    _refuse_branches(model.graph)
    rewrite_sklearn(model)
    make_float32(model.graph)
    model = _in_known_opset(model)
    drop_identities(model)
    name_batch(model.graph)
    activation = cut_activation(model.graph, loss)
    prune(model.graph)
    return bytes(settle_shapes(model).SerializeToString()), activation


def _forget_notes(model: Any) -> None:
    """What exporters write beside the graph: where in the user's code a node came from."""
    graph = model.graph
    del (
        graph.value_info[:],
        graph.metadata_props[:],
        model.metadata_props[:],
        graph.quantization_annotation[:],
    )
    for thing in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        thing.ClearField("doc_string")
        del thing.metadata_props[:]


def _refuse_branches(graph: Any) -> None:
    for node in graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ModelError(
                f"{label(node)} holds a graph of its own, for which there is no gradient; export the model "
                "without branches and loops"
            )


def _in_known_opset(model: Any) -> Any:
    used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if used:
        node = next(node for node in model.graph.node if node.domain in used)
        raise ModelError(
            f"{label(node)} of the domain {node.domain}: only "
            "standard ONNX operators can be trained; export without it"
        )
    opset = next((int(each.version) for each in model.opset_import if each.domain in {"", "ai.onnx"}), 1)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    if opset in OPSETS:
        return model
    wanted = max(OPSETS) if opset > max(OPSETS) else _CONVERTED_OPSET
    try:
        return version_converter.convert_version(model, wanted)
    except Exception as error:  # the converter raises whatever its C++ part does
        raise ModelError(
            f"opset {opset} cannot be converted to {wanted}: {error}; export with opset_version=17"
        ) from error
