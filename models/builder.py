"""A small graph class: forward models without PyTorch.

`onnx.helper` needs every tensor named twice; this keeps the names, the initializers and their seeded
initialisation in one place. Equal calls with an equal seed give equal bytes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 10
"""The newest IR that onnxruntime-training 1.19.2 reads."""


class GraphBuilder:
    """A forward graph under construction; every method that adds a node returns its output's name.

    Args:
        name: of the graph.
        example: shape of one input example; the batch axis is added in front.
        random: source of the initial weights.
    """

    def __init__(self, name: str, example: Sequence[int], random: np.random.Generator) -> None:
        self.name = name
        self.input = "input"
        self._example = tuple(example)
        self._random = random
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add one operator with one output."""
        output = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def dense(self, name: str, value: str, fan_in: int, fan_out: int, *, relu: bool) -> str:
        """`value @ weight + bias`, (batch, fan_in) to (batch, fan_out), with or without ReLU."""
        weight = self._weight(f"{name}.weight", (fan_in, fan_out), fan_in, fan_out, relu=relu)
        return self._activate(self.node("Gemm", value, weight, self._bias(name, fan_out)), relu=relu)

    def convolution(
        self,
        name: str,
        value: str,
        channels: tuple[int, int],
        kernel: Sequence[int],
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> str:
        """Convolution of any rank that keeps the length (divided by the stride), with or without ReLU.

        Each of the groups reads its own part of the channels and makes its own.
        """
        fan_in, fan_out = (count // groups * math.prod(kernel) for count in channels)
        shape = (channels[1], channels[0] // groups, *kernel)
        weight = self._weight(f"{name}.weight", shape, fan_in, fan_out, relu=relu)
        before, after = [(size - 1) // 2 for size in kernel], [size // 2 for size in kernel]
        convolved = self.node(
            "Conv",
            value,
            weight,
            self._bias(name, channels[1]),
            kernel_shape=list(kernel),
            pads=before + after,
            strides=[stride] * len(kernel),
            group=groups,
        )
        return self._activate(convolved, relu=relu)

    def recurrent(
        self,
        name: str,
        operator: str,
        value: str,
        inputs: int,
        hidden: int,
        *,
        biases: Sequence[float],
        **more: Any,
    ) -> str:
        """The last state of a GRU or LSTM over (batch, inputs, steps), begun at zero: (batch, hidden).

        Args:
            name: of the layer.
            operator: GRU or LSTM.
            value: what it runs over.
            inputs: channels.
            hidden: size of the state.
            biases: of each gate, at first; weights are uniform within 1/sqrt(hidden).
            more: attributes of the operator.
        """
        bound, rows = 1 / math.sqrt(hidden), len(biases) * hidden
        first = np.repeat(np.asarray(biases, dtype=np.float32), hidden)
        weights = [
            self._initializer(
                f"{name}.{kind}", self._random.uniform(-bound, bound, (1, rows, columns)).astype(np.float32)
            )
            for kind, columns in (("weight", inputs), ("recurrent", hidden))
        ]
        weights.append(self._initializer(f"{name}.bias", np.concatenate([first, np.zeros_like(first)])[None]))
        steps = self.node("Transpose", value, perm=[2, 0, 1])
        batch = self.node("Shape", value, start=0, end=1)
        one, width = (self._initializer(f"{name}.{size}", np.array([size])) for size in (1, hidden))
        # Left out, they would be zeros as well; but ONNX Runtime Training does not start without them.
        zeros = self.node("ConstantOfShape", self.node("Concat", one, batch, width, axis=0))
        states = [zeros, zeros] if operator == "LSTM" else [zeros]
        outputs = [f"{name}.states", f"{name}.last"]
        inputs_of = [steps, *weights, "", *states]
        self._nodes.append(
            helper.make_node(operator, inputs_of, outputs, name=name, hidden_size=hidden, **more)
        )
        return self.node("Squeeze", outputs[1], self._initializer(f"{name}.axis", np.array([0])))

    def build(self, output: str, example: Sequence[int]) -> onnx.ModelProto:
        """Finish: `output` becomes the model's output "output" of `example` shape, batch in front."""
        self._nodes.append(helper.make_node("Identity", [output], ["output"], name="output"))
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [_tensor(self.input, self._example)],
            [_tensor("output", example)],
            self._initializers,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="fedfleet"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _activate(self, value: str, *, relu: bool) -> str:
        return self.node("Relu", value) if relu else value

    def _bias(self, name: str, size: int) -> str:
        return self._initializer(f"{name}.bias", np.zeros(size, dtype=np.float32))

    def _weight(self, name: str, shape: Sequence[int], fan_in: int, fan_out: int, *, relu: bool) -> str:
        """Normal with variance 2/fan_in before ReLU (He 2015), else 2/(fan_in+fan_out) (Glorot 2010)."""
        deviation = math.sqrt(2 / fan_in if relu else 2 / (fan_in + fan_out))
        return self._initializer(name, self._random.normal(0.0, deviation, shape).astype(np.float32))

    def _initializer(self, name: str, values: NDArray[Any]) -> str:
        self._initializers.append(numpy_helper.from_array(values, name))
        return name


def _tensor(name: str, example: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *example])
