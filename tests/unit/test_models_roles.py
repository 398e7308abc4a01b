"""Frozen and private parameters, adapters: who is trained, who travels, who stays."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from coordinator.artifact import Artifact, build_artifact
from models.artifact import build_bundle, export_inference
from models.bundle import Bundle
from models.engines import load_engine
from models.errors import BundleError, ModelError, TrainingFailedError
from models.forward import ALL_SHARED
from models.installed import ORT_GRAPH
from models.lora import add_adapters
from protocol.plan import Lora, Model, Plan, Training

SIZES = {"features": 6, "classes": 3, "hidden": 5}


def artifact(training: Training = Training(), **model: object) -> Artifact:  # noqa: B008 - frozen
    plan = Plan(Model(catalog="mlp", parameters=SIZES, **model), training)  # type: ignore[arg-type]
    return build_artifact(plan, Path(), seed=1)


def names(table: object) -> list[str]:
    return [parameter.name for parameter in table.parameters] if table else []  # type: ignore[attr-defined]


def data(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    x = random.normal(size=(count, 6)).astype(np.float32)
    return x, np.argmax(x[:, :3], axis=1)


def test_only_what_is_trained_and_shared_travels() -> None:
    made = artifact(frozen=("hidden1.*",), private=("out.*",))

    manifest = made.bundle.manifest
    assert names(manifest.parameters) == ["hidden2.weight", "hidden2.bias"]
    assert names(manifest.private) == ["out.weight", "out.bias"]
    assert names(manifest.frozen) == ["hidden1.weight", "hidden1.bias"]
    assert made.weights.shape == (30,)
    assert manifest.engines.keys() == {ORT_GRAPH}


def test_private_parameters_learn_on_the_device_and_frozen_ones_never() -> None:
    settings = Training(local_epochs=30, learning_rate=0.2)
    made = artifact(settings, frozen=("hidden1.*",), private=("out.*",))
    engine, (x, y) = load_engine(made.bundle.only(ORT_GRAPH)), data()

    first = engine.fit(made.weights, x, y, settings, seed=1)
    second = engine.fit(first.weights, x, y, settings, seed=2, private=first.private)

    losses = [
        engine.evaluate(weights, x, y, private=private).loss_sum
        for weights, private in (
            (made.weights, None),
            (first.weights, first.private),
            (second.weights, second.private),
        )
    ]
    assert losses[0] > losses[1] > losses[2]
    assert not np.array_equal(first.private, made.bundle.first_private())
    with pytest.raises(TrainingFailedError, match=r"float32 \(18,\)"):
        engine.fit(made.weights, x, y, settings, seed=1, private=first.private[1:])


def test_an_exported_model_has_the_shared_weights_and_everybodys_first_private_ones() -> None:
    made = artifact(frozen=("hidden1.*",), private=("out.*",))

    exported = onnx.load_model_from_string(export_inference(made.bundle, made.weights + 1))

    values = {each.name: onnx.numpy_helper.to_array(each) for each in exported.graph.initializer}
    tables = made.bundle.manifest
    assert np.array_equal(values["hidden2.bias"], np.ones(5, dtype=np.float32))
    assert np.array_equal(values["hidden1.weight"], made.bundle.frozen()["hidden1.weight"])
    assert tables.private is not None
    out = tables.private.unflatten(made.bundle.first_private())["out.weight"]
    assert np.array_equal(values["out.weight"], out)


def test_adapters_begin_as_the_model_was_and_are_all_that_travels() -> None:
    settings = Training(local_epochs=40, learning_rate=0.3)
    plain, made = (
        artifact(settings),
        artifact(settings, frozen=("*",), lora=Lora(rank=2, layers=("hidden*",))),
    )
    engine, (x, y) = load_engine(made.bundle, ORT_GRAPH), data()

    manifest = made.bundle.manifest
    assert names(manifest.parameters) == [
        *("hidden1.weight.lora_a", "hidden1.weight.lora_b"),
        *("hidden2.weight.lora_a", "hidden2.weight.lora_b"),
    ]
    assert made.weights.size == 2 * (6 + 5) + 2 * (5 + 5)
    before = engine.evaluate(made.weights, x, y).loss_sum
    assert before == pytest.approx(
        load_engine(plain.bundle, ORT_GRAPH).evaluate(plain.weights, x, y).loss_sum
    )
    trained = engine.fit(made.weights, x, y, settings, seed=1)
    assert engine.evaluate(trained.weights, x, y).loss_sum < 0.8 * before


def test_weights_that_two_layers_share_have_one_adapter() -> None:
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "w"], ["y"])],
        "tied",
        [onnx.helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("y", 1, ["batch", 4])],
        [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)

    adapted, roles = add_adapters(model, ALL_SHARED, Lora(rank=1), seed=1)

    bundle = build_bundle(adapted, Training(loss="mse"), roles=roles)
    assert names(bundle.manifest.parameters) == ["w.lora_a", "w.lora_b"]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"frozen": ("conv*",)}, "no parameter is called 'conv\\*'; the model has hidden1.weight"),
        ({"private": ("*",)}, "nothing is left to learn together"),
        (
            {"lora": Lora(rank=2, layers=("conv*",))},
            "match no weights of a dense layer.* hidden1.weight",
        ),
    ],
)
def test_patterns_that_match_nothing_are_named(model: dict[str, object], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        artifact(**model)


def test_a_part_of_a_bundle_is_as_good_as_the_whole_and_a_changed_file_is_found() -> None:
    made = artifact(frozen=("hidden1.*",))
    part = made.bundle.only(ORT_GRAPH)

    assert Bundle.decode(part.encode()) == part
    assert "forward.onnx" not in part.files
    changed = Bundle(part.manifest, {**part.files, "frozen": bytes(len(part.files["frozen"]))})
    with pytest.raises(BundleError, match="'frozen' is not the one"):
        Bundle.decode(changed.encode())


@pytest.mark.parametrize(
    "training",
    [
        Training(momentum=0.9, learning_rate=0.05),
        Training(weight_decay=0.01),
        Training(gradient_clip=0.5),
        Training(optimizer="adamw", learning_rate=0.01, weight_decay=0.01, proximal=0.1, gradient_clip=1.0),
    ],
)
def test_every_local_optimizer_learns(training: Training) -> None:
    made = artifact(training)
    engine, (x, y) = load_engine(made.bundle, ORT_GRAPH), data()
    weights = made.weights

    for seed in range(15):
        weights = engine.fit(weights, x, y, training, seed=seed).weights

    assert engine.evaluate(weights, x, y).loss_sum < 0.7 * engine.evaluate(made.weights, x, y).loss_sum
