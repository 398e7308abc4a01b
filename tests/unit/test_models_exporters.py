"""Models as PyTorch, Keras and scikit-learn export them, from tests/exported_models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from coordinator.artifact import build_artifact
from models.artifact import build_bundle, export_inference, initial_weights
from models.engines import load_engine
from models.errors import ModelError
from models.exporters import import_model
from models.forward import read_forward
from models.installed import ORT_GRAPH, ORT_TRAINING
from protocol.plan import Loss, Model, Plan, Training

FOLDER = Path(__file__).parent.parent / "exported_models"

CASES: Sequence[tuple[str, Loss, str | None, str | None]] = [
    ("keras_conv1d", "cross_entropy", None, "Softmax"),
    ("keras_conv2d", "cross_entropy", None, "Softmax"),
    ("keras_lstm", "mse", None, None),
    ("keras_mlp", "cross_entropy", None, "Softmax"),
    ("keras_sigmoid", "bce", None, "Sigmoid"),
    ("sklearn_linear", "mse", None, None),
    ("sklearn_logistic", "cross_entropy", None, "Softmax"),
    ("sklearn_logistic_no_zipmap", "cross_entropy", None, "Softmax"),
    ("sklearn_logistic_two", "cross_entropy", None, "Softmax"),
    ("sklearn_mlp", "cross_entropy", None, "Softmax"),
    ("sklearn_mlp_two", "cross_entropy", None, "Softmax"),
    ("sklearn_mlp_regressor", "l1", None, None),
    ("sklearn_scaled", "cross_entropy", None, "Softmax"),
    ("torch_conv", "cross_entropy", None, None),
    ("torch_conv_dynamo", "cross_entropy", None, None),
    ("torch_double", "cross_entropy", None, None),
    ("torch_double_dynamo", "mse", None, None),
    ("torch_gru", "cross_entropy", None, None),
    ("torch_gru_dynamo", "mse", None, None),
    ("torch_half", "cross_entropy", None, None),
    ("torch_half_dynamo", "huber", None, None),
    ("torch_mixed", "mse", None, None),
    ("torch_mixed_dynamo", "mse", None, None),
    ("torch_mlp_sigmoid", "bce", None, "Sigmoid"),
    ("torch_mlp_sigmoid_dynamo", "bce", None, "Sigmoid"),
    ("torch_mlp_softmax", "cross_entropy", None, "Softmax"),
    ("torch_mlp_softmax", "mse", None, None),
    ("torch_mlp_softmax_dynamo", "cross_entropy", None, "Softmax"),
    ("torch_norm", "cross_entropy", None, None),
    ("torch_norm_dynamo", "mse", None, None),
    ("torch_tied", "mse", None, None),
    ("torch_tied_dynamo", "mse", None, None),
    ("torch_two_outputs", "cross_entropy", "scores", None),
    ("torch_two_outputs_dynamo", "mse", "embedding", None),
]


def file_of(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


def answer_of(model: onnx.ModelProto, x: Any, output: str | None) -> Any:
    """What the exporter's own model says; probabilities of a ZipMap as an array."""
    values = [value for value in model.graph.output if output in {None, value.name}]
    kind = model.graph.input[0].type.tensor_type.elem_type
    given = {model.graph.input[0].name: x.astype(helper.tensor_dtype_to_np_dtype(kind))}
    names = [value.name for value in values]
    if any(node.op_type == "ZipMap" for node in model.graph.node):  # of which the reference has none
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.array([[*each.values()] for each in session.run(names, given)[-1]])
    answers = ReferenceEvaluator(model).run(names, given)
    return next(each for each in reversed(answers) if each.dtype.kind == "f")


@pytest.mark.parametrize(("name", "loss", "output", "activation"), CASES)
def test_it_is_trained_and_comes_back_as_the_model_that_it_was(
    name: str, loss: Loss, output: str | None, activation: str | None
) -> None:
    original = onnx.load(file_of(name))
    model, cut = import_model(original, loss, output=output)
    bundle = build_bundle(model, Training(loss=loss))
    weights = initial_weights(model)
    random = np.random.default_rng(1)
    x = random.normal(size=(20, *bundle.manifest.input.shape)).astype(np.float32)

    exported = onnx.load_model_from_string(export_inference(bundle, weights, cut))

    assert cut == activation
    expected = answer_of(original, x, output)
    tolerance = 3e-3 if "half" in name else 1e-4
    [said] = ReferenceEvaluator(exported).run(None, {exported.graph.input[0].name: x})
    assert said == pytest.approx(expected, abs=tolerance)

    engine = load_engine(bundle.only(ORT_GRAPH), ORT_GRAPH)
    classes = bundle.manifest.output.shape[-1]
    y = random.integers(0, classes, 20) if loss == "cross_entropy" else expected.astype(np.float32) * 0 + 0.5
    before = engine.evaluate(weights, x, y).loss_sum
    job = Training(loss=loss, learning_rate=0.02, local_epochs=5)
    after = engine.evaluate(engine.fit(weights, x, y, job, seed=1).weights, x, y).loss_sum
    assert after < before


def test_an_activation_of_another_loss_is_told_by_its_node() -> None:
    with pytest.raises(ModelError, match=r'operator Sigmoid \(/3/Sigmoid\) .* write loss = "bce"'):
        import_model(file_of("torch_mlp_sigmoid").read_bytes(), "cross_entropy")
    with pytest.raises(ModelError, match=r'operator Softmax .* write loss = "cross_entropy"'):
        import_model(file_of("keras_mlp").read_bytes(), "bce")


def test_of_several_outputs_the_plan_says_which() -> None:
    source = file_of("torch_two_outputs").read_bytes()
    with pytest.raises(
        ModelError, match=r"2 outputs, scores, embedding, and 2 of them could be trained; .* output ="
    ):
        import_model(source, "cross_entropy")
    with pytest.raises(
        ModelError, match=r"model.output is 'score'; the model's outputs are scores, embedding"
    ):
        import_model(source, "cross_entropy", output="score")

    model, _ = import_model(source, "cross_entropy", output="scores")

    assert [each.name for each in read_forward(model).parameters.parameters] == [
        "trunk.weight",
        "trunk.bias",
        "head.weight",
        "head.bias",
    ]


def test_a_plan_names_the_output_and_the_model_comes_with_what_was_cut_off() -> None:
    plan = Plan(Model(onnx="torch_two_outputs.onnx", output="embedding"), Training(loss="mse"))
    assert build_artifact(plan, FOLDER, seed=1).bundle.manifest.output.name == "embedding"
    softmax = Plan(Model(onnx="keras_mlp.onnx"))
    assert build_artifact(softmax, FOLDER, seed=1).activation == "Softmax"


def test_a_batch_that_was_forgotten_is_told_with_the_fix() -> None:
    model, _ = import_model(file_of("torch_fixed_batch").read_bytes(), "mse")
    with pytest.raises(
        ModelError, match=r'input \'x\': .* dynamic_axes=\{"x": \{0: "batch"\}\} .*dynamic_shapes'
    ):
        read_forward(model)


def test_a_batch_in_the_middle_of_the_graph_is_told_by_its_node() -> None:
    shape = numpy_helper.from_array(np.array([1, 4]), "shape")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"], name="view"), product("flat")]
    with pytest.raises(ModelError, match=r"operator Reshape \(view\) makes every batch one of 1; write -1"):
        import_model(handmade(nodes, [shape], example=("batch", 2, 2)), "mse")


def test_what_scikit_learn_cannot_have_trained_is_told_by_its_node() -> None:
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", name="trees")
    with pytest.raises(
        ModelError, match=r"operator TreeEnsembleRegressor \(trees\) of scikit-learn has no gradient"
    ):
        import_model(handmade([node], []), "mse")


def test_a_branch_is_told_by_its_node() -> None:
    inner = helper.make_graph([product("x", "z")], "inner", [], [helper.make_tensor_value_info("z", 1, None)])
    node = helper.make_node("If", ["when"], ["y"], name="choice", then_branch=inner, else_branch=inner)
    when = numpy_helper.from_array(np.bool_(1), "when")
    with pytest.raises(ModelError, match=r"operator If \(choice\) holds a graph of its own"):
        import_model(handmade([node], [when]), "mse")


def test_functions_of_a_model_are_written_out() -> None:
    source = handmade([helper.make_node("Twice", ["x", "w"], ["y"], domain="mine")], [])
    source.opset_import.append(helper.make_opsetid("mine", 1))
    body = [helper.make_node("MatMul", ["a", "b"], ["h"]), helper.make_node("Add", ["h", "h"], ["c"])]
    version = [helper.make_opsetid("", 17)]
    source.functions.append(helper.make_function("mine", "Twice", ["a", "b"], ["c"], body, version))

    model = onnx.load_model_from_string(import_model(source, "mse")[0])

    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add"]
    assert not model.functions


def test_an_error_names_the_file(tmp_path: Path) -> None:
    plan = Plan(Model(onnx="torch_fixed_batch.onnx"), Training(loss="mse"))
    with pytest.raises(ModelError, match=r"torch_fixed_batch.onnx: input 'x': the first axis"):
        build_artifact(plan, FOLDER, seed=1)
    with pytest.raises(ModelError, match=r"torch_fixed_batch.onnx: cannot be read: No such file"):
        build_artifact(plan, tmp_path, seed=1)


def test_an_operator_of_another_domain_is_told_by_its_node() -> None:
    node = helper.make_node("FusedGemm", ["x", "w"], ["y"], domain="com.microsoft", name="fused")
    with pytest.raises(ModelError, match=r"operator FusedGemm \(fused\) of the domain com.microsoft"):
        import_model(handmade([node], []), "mse")


def test_an_operator_without_a_gradient_is_told_by_its_node() -> None:
    nodes = [product("x", "h"), helper.make_node("Hardmax", ["h"], ["y"], name="hardest")]
    model, _ = import_model(handmade(nodes, []), "mse")
    with pytest.raises(ModelError, match=r"operator Hardmax \(hardest\): it has no gradient here"):
        build_bundle(model, Training(loss="mse"))


def test_a_fused_operator_of_one_engine_leaves_the_other() -> None:
    for name, engines in (("torch_norm", {ORT_GRAPH}), ("keras_mlp", {ORT_GRAPH, ORT_TRAINING})):
        model, _ = import_model(file_of(name).read_bytes(), "mse")
        assert set(build_bundle(model, Training(loss="mse")).manifest.engines) <= engines


def test_identities_and_initializers_that_are_inputs_too_go_away() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["x1"]),
        helper.make_node("Identity", ["x1"], ["x2"]),
        product("x2", "h"),
        helper.make_node("Cast", ["h"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    source = handmade(nodes, [])
    source.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 2]))

    model = onnx.load_model_from_string(import_model(source, "mse")[0])

    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert [each.name for each in model.graph.input] == ["x"]
    assert model.graph.output[0].name == "y"


def test_a_weight_that_is_used_twice_is_one_parameter() -> None:
    nodes = [
        product("x", "h"),
        helper.make_node("Transpose", ["w"], ["back"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "back"], ["y"]),
    ]
    model, _ = import_model(handmade(nodes, []), "mse")
    bundle = build_bundle(model, Training(loss="mse"))
    assert bundle.manifest.parameters.size == 8
    assert bundle.manifest.output.shape == (4,)


@pytest.mark.parametrize(("opset", "becomes"), [(9, 17), (11, 17), (13, 13), (21, 21), (22, 21), (23, 21)])
def test_any_opset(opset: int, becomes: int) -> None:
    model = onnx.load_model_from_string(
        import_model(handmade([product("x", "y")], [], opset=opset), "mse")[0]
    )
    assert [(each.domain, each.version) for each in model.opset_import] == [("", becomes)]


def test_data_beside_the_model_is_read_and_missed_by_its_name(tmp_path: Path) -> None:
    source = handmade([product("x", "y")], [])
    external_data_helper.convert_model_to_external_data(source, location="model.data", size_threshold=0)
    onnx.save(source, tmp_path / "model.onnx")
    saved = (tmp_path / "model.onnx").read_bytes()

    model, _ = import_model(saved, "mse", folder=tmp_path)

    assert np.array_equal(initial_weights(model), np.arange(8, dtype=np.float32))
    with pytest.raises(
        ModelError, match=r"tensor 'w' lies in another file, 'model.data'; save the model with all"
    ):
        import_model(saved, "mse")
    (tmp_path / "model.data").unlink()
    with pytest.raises(ModelError, match=r"'model.data', which cannot be read: .* copy it beside the model"):
        import_model(saved, "mse", folder=tmp_path)


def test_the_test_data_are_small() -> None:
    assert max(file.stat().st_size for file in FOLDER.iterdir()) < 20_000


def product(given: str, made: str = "y") -> Any:
    return helper.make_node("MatMul", [given, "w"], [made])


def handmade(nodes: Sequence[Any], constants: Sequence[Any], **shape: Any) -> onnx.ModelProto:
    """A model around these nodes with the weight w, (4, 2)."""
    graph = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape.get("example", ("batch", 4)))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "w"), *constants],
    )
    domains = [helper.make_opsetid("", shape.get("opset", 17)), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)
