"""Bundles: what is accepted, what is refused and why, and that bytes repeat."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.artifact import build_bundle, export_inference, initial_weights
from models.bounds import MAX_BUNDLE_BYTES
from models.bundle import Bundle
from models.catalog import build_model
from models.engines import load_engine
from models.errors import BundleError, ModelError
from models.forward import read_forward
from models.installed import ORT_GRAPH, available_engines
from protocol.plan import Loss, Optimizer, Training

SENSOR = {"channels": 3, "window": 32, "classes": 4}

Change = Callable[[Any], None]


def sensor(seed: int = 1) -> onnx.ModelProto:
    return build_model("cnn1d", SENSOR, seed)


def bundle_of(model: Any, loss: Loss = "cross_entropy", optimizer: Optimizer = "sgd") -> Bundle:
    return build_bundle(model, Training(loss=loss, optimizer=optimizer))


def graph(
    nodes: Sequence[Any], example: Sequence[int | str], output: Sequence[int | str], **extra: Any
) -> Any:
    """A model around these nodes, with the weight "w" unless told otherwise."""
    weights = extra.get("weights", {"w": np.ones((4, 2), dtype=np.float32)})
    body = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, example)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(
        body, opset_imports=[helper.make_opsetid("", extra.get("opset", 17))], ir_version=8
    )


def linear(**extra: Any) -> Any:
    return graph([helper.make_node("MatMul", ["x", "w"], ["out"])], ["batch", 4], ["batch", 2], **extra)


def test_the_bytes_depend_on_the_graph_and_not_on_the_weights_or_on_what_came_before() -> None:
    first = bundle_of(sensor(1)).encode()
    bundle_of(build_model("logistic", {"features": 3, "classes": 2}, 1))

    assert bundle_of(sensor(2)).encode() == first
    assert bundle_of(sensor(1).SerializeToString()).encode() == first
    assert bundle_of(sensor(1), optimizer="adamw").encode() != first


def test_the_bytes_are_the_same_in_another_process() -> None:
    program = (
        "from models.artifact import build_bundle; from models.catalog import build_model;"
        "from protocol.plan import Training;"
        f"model = build_model('cnn1d', {SENSOR}, 1);"
        "print(build_bundle(model, Training()).manifest.id.hex())"
    )

    answer = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == bundle_of(sensor()).manifest.id.hex()
    assert answer.stderr == "", "the generator's noise got out"


def test_a_bundle_survives_the_wire_and_carries_no_weights() -> None:
    bundle = bundle_of(sensor())

    assert Bundle.decode(bundle.encode()) == bundle
    assert len(bundle.only(ORT_GRAPH).encode()) < 16_384
    assert bundle.manifest.parameters.size == len(initial_weights(sensor()))


def test_the_flat_order_is_the_order_of_the_initializers() -> None:
    weights = initial_weights(sensor())
    tensors = bundle_of(sensor()).manifest.parameters.unflatten(weights)

    for initializer in sensor().graph.initializer:
        assert np.array_equal(tensors[initializer.name], numpy_helper.to_array(initializer))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"\x00" + data,
        lambda _: b"",
        lambda _: msgspec.msgpack.encode({"manifest": {}, "files": {}}),
        lambda data: data.replace(b"forward.onnx", b"Forward.onnx"),
        lambda data: data.replace(b"forward.onnx", b"forwerd.onnx"),
        lambda data: data.replace(b"forward.onnx", b"../ward.onnx"),
        lambda _: bytes(MAX_BUNDLE_BYTES + 1),
    ],
)
def test_bytes_that_are_no_bundle_are_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BundleError):
        Bundle.decode(damage(bundle_of(sensor()).encode()))


def test_an_exported_model_runs_in_plain_onnxruntime_and_agrees_with_the_engine() -> None:
    bundle = bundle_of(sensor())
    random = np.random.default_rng(1)
    x = random.normal(size=(300, 3, 32)).astype(np.float32)
    y = random.integers(0, 4, 300)
    weights = initial_weights(sensor()) + random.normal(0, 0.1, bundle.manifest.parameters.size).astype(
        np.float32
    )

    exported = export_inference(bundle, weights)

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["output"], {"input": x})
    log_sum = np.log(np.exp(logits).sum(axis=1))
    evaluation = load_engine(bundle).evaluate(weights, x, y)
    assert evaluation.examples == 300
    assert evaluation.correct == np.count_nonzero(logits.argmax(axis=1) == y)
    assert evaluation.loss_sum == pytest.approx(float((log_sum - logits[np.arange(300), y]).sum()), rel=1e-5)


def test_non_finite_weights_are_not_exported() -> None:
    bundle = bundle_of(sensor())

    with pytest.raises(ModelError, match="NaN"):
        export_inference(bundle, np.full(bundle.manifest.parameters.size, np.nan, dtype=np.float32))


def test_integer_and_scalar_initializers_stay_constants() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["out"]),
    ]
    constants = {"shape": np.array([-1, 4]), "half": np.array(0.5, dtype=np.float32)}
    weights = {"w": np.ones((4, 2), dtype=np.float32)}
    model = graph(nodes, ["batch", 2, 2], ["batch", 2], weights=constants | weights)

    bundle = bundle_of(model)

    assert [parameter.name for parameter in bundle.manifest.parameters.parameters] == ["w"]
    assert load_engine(bundle).evaluate(
        np.zeros(8, dtype=np.float32), np.ones((3, 2, 2), dtype=np.float32), np.zeros(3, dtype=np.int64)
    ).loss_sum == pytest.approx(3 * np.log(2), rel=1e-6)


def test_layer_normalisation_gets_the_outputs_its_gradient_needs() -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["normal"]),
        helper.make_node("MatMul", ["normal", "w"], ["out"]),
    ]
    weights = {
        "scale": np.ones(4, dtype=np.float32),
        "bias": np.zeros(4, dtype=np.float32),
        "w": np.ones((4, 2), dtype=np.float32),
    }
    model = graph(nodes, ["batch", 4], ["batch", 2], weights=weights)
    x = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)

    result = load_engine(bundle_of(model)).fit(
        initial_weights(model), x, np.array([0, 1, 0, 1]), Training(), seed=1
    )

    assert not np.array_equal(result.weights, initial_weights(model))


def external(model: Any) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def two_outputs(model: Any) -> None:
    model.graph.output.append(model.graph.output[0])


def static_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def dynamic_features(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"


def half_precision(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def not_a_number(model: Any) -> None:
    values = np.full((4, 2), np.nan, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))


def untrainable(model: Any) -> None:
    del model.graph.initializer[:]
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Relu", ["x"], ["out"]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def own_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (external, "another file"),
        (two_outputs, "2 outputs"),
        (static_batch, "dynamic_axes"),
        (dynamic_features, "only the batch may be dynamic"),
        (half_precision, "float32|not a valid"),
        (own_domain, "com.example"),
        (lambda model: setattr(model.opset_import[0], "version", 22), "opset 22"),
        (lambda model: setattr(model.graph.initializer[0], "data_type", TensorProto.INT32), "not a valid"),
        (not_a_number, "NaN"),
        (untrainable, "nothing to train"),
        (lambda model: model.graph.ClearField("initializer"), "not a valid|exactly one|no float32"),
    ],
)
def test_a_model_that_cannot_be_trained_says_why(change: Change, text: str) -> None:
    model = linear()
    change(model)

    with pytest.raises(ModelError, match=text):
        bundle_of(model)


def pooled(operator: str, **attributes: Any) -> Any:
    """Conv, then this operator, then the mean."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node(operator, ["conv"], ["pool"], name="the pool", **attributes),
        helper.make_node("GlobalAveragePool", ["pool"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["out"]),
    ]
    return graph(nodes, ["batch", 3, 8], ["batch", 2], weights={"w": np.ones((2, 3, 1), dtype=np.float32)})


@pytest.mark.parametrize("operator", ["HardSigmoid", "Selu", "Tan"])
def test_an_operator_without_a_gradient_is_named_with_its_node(operator: str) -> None:
    with pytest.raises(ModelError, match=rf"operator {operator} \(the pool\): it has no gradient here"):
        bundle_of(pooled(operator))


def test_what_only_one_engine_knows_is_left_to_it() -> None:
    both, one = bundle_of(sensor()), bundle_of(pooled("AveragePool", kernel_shape=[2]))

    assert both.manifest.engines.keys() == set(available_engines())
    assert one.manifest.engines.keys() == {ORT_GRAPH}


def test_a_name_that_looks_like_a_reference_to_a_file_is_only_a_name() -> None:
    model = graph(
        [helper.make_node("MatMul", ["x", "location"], ["out"])],
        ["batch", 4],
        ["batch", 2],
        weights={"location": np.ones((4, 2), dtype=np.float32)},
    )

    assert bundle_of(model).manifest.parameters.parameters[0].name == "location"


def test_what_devices_would_refuse_is_said_when_the_bundle_is_made() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("IsNaN", ["product"], ["nan"]),
        helper.make_node("Where", ["nan", "zero", "product"], ["out"]),
    ]
    weights = {"w": np.ones((4, 2), dtype=np.float32), "zero": np.array(0.0, dtype=np.float32)}

    with pytest.raises(ModelError, match=r"devices would refuse this model: forward.onnx: node 1 .*'IsNaN'"):
        bundle_of(graph(nodes, ["batch", 4], ["batch", 2], weights=weights))


def test_a_tensor_named_like_the_labels_is_refused() -> None:
    model = graph([helper.make_node("MatMul", ["x", "labels"], ["out"])], ["n", 4], ["n", 2])

    with pytest.raises(ModelError, match="rename it"):
        bundle_of(model)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_forward(b"\xff" * 40)


def test_cross_entropy_needs_one_row_of_classes_an_example() -> None:
    model = graph([helper.make_node("MatMul", ["x", "w"], ["out"])], ["batch", 3, 4], ["batch", 3, 2])

    with pytest.raises(ModelError, match="add a Flatten"):
        bundle_of(model)


def test_dropout_trains() -> None:
    weights = {
        "w": np.ones((4, 8), dtype=np.float32),
        "v": np.ones((8, 2), dtype=np.float32),
        "rate": np.array(0.3, dtype=np.float32),
        "training": np.array([True]).reshape(()),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["hidden"]),
        helper.make_node("Dropout", ["hidden", "rate", "training"], ["dropped"]),
        helper.make_node("MatMul", ["dropped", "v"], ["out"]),
    ]
    bundle = bundle_of(graph(nodes, ["batch", 4], ["batch", 2], weights=weights))

    assert [parameter.name for parameter in bundle.manifest.parameters.parameters] == ["w", "v"]
