"""The part of ONNX's messages that training graphs need; everything else is refused.

Field numbers: https://github.com/onnx/onnx/blob/v1.16.1/onnx/onnx.proto (IR version 10).
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from models.protobuf_reader import Allowed, Refused, Schema, Wire

_SUBGRAPH = Refused("holds a graph of its own; no engine of ours needs control flow")
_EXTERNAL = Refused("has its data in another file")
_SPARSE = Refused("holds a sparse tensor, which no engine of ours needs")
_FUNCTION = Refused("belongs to a function; functions are not allowed")
_UNUSED = Refused("holds a field that no engine of ours needs")


def _bytes(name: str) -> Allowed:
    return Allowed(name, Wire.BYTES)


def _many(name: str) -> Allowed:
    return Allowed(name, Wire.BYTES, repeated=True)


def _number(name: str) -> Allowed:
    return Allowed(name, Wire.VARINT)


def _numbers(name: str) -> Allowed:
    return Allowed(name, Wire.VARINT, repeated=True)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _schema(fields: Mapping[int, Allowed | Refused]) -> Schema:
    return MappingProxyType(dict(fields))


MODEL = _schema(
    {
        1: _number("ir_version"),
        2: _bytes("producer_name"),
        3: _bytes("producer_version"),
        4: _bytes("domain"),
        5: _number("model_version"),
        6: _bytes("doc_string"),
        7: _bytes("graph"),
        8: _many("opset_import"),
        14: _many("metadata_props"),
        20: Refused("holds training_info, a second graph"),
        25: Refused("holds functions of its own"),
        26: _UNUSED,
    }
)
OPSET = _schema({1: _bytes("domain"), 2: _number("version")})
GRAPH = _schema(
    {
        1: _many("node"),
        2: _bytes("name"),
        5: _many("initializer"),
        10: _bytes("doc_string"),
        11: _many("input"),
        12: _many("output"),
        13: _many("value_info"),
        14: _UNUSED,
        15: _SPARSE,
        16: _many("metadata_props"),
    }
)
NODE = _schema(
    {
        1: _many("input"),
        2: _many("output"),
        3: _bytes("name"),
        4: _bytes("op_type"),
        5: _many("attribute"),
        6: _bytes("doc_string"),
        7: _bytes("domain"),
        8: _FUNCTION,
        9: _many("metadata_props"),
        10: _UNUSED,
    }
)
ATTRIBUTE = _schema(
    {
        1: _bytes("name"),
        2: Allowed("f", Wire.FIXED32),
        3: _number("i"),
        4: _bytes("s"),
        5: _bytes("t"),
        6: _SUBGRAPH,
        7: Allowed("floats", Wire.FIXED32, repeated=True),
        8: _numbers("ints"),
        9: _many("strings"),
        10: _UNUSED,
        11: _SUBGRAPH,
        13: _bytes("doc_string"),
        14: _UNUSED,
        15: _UNUSED,
        20: _number("type"),
        21: _FUNCTION,
        22: _SPARSE,
        23: _SPARSE,
    }
)
TENSOR = _schema(
    {
        1: _numbers("dims"),
        2: _number("data_type"),
        3: _UNUSED,
        4: Allowed("float_data", Wire.FIXED32, repeated=True),
        5: _numbers("int32_data"),
        6: _UNUSED,
        7: _numbers("int64_data"),
        8: _bytes("name"),
        9: _bytes("raw_data"),
        10: Allowed("double_data", Wire.FIXED64, repeated=True),
        11: _UNUSED,
        12: _bytes("doc_string"),
        13: _EXTERNAL,
        14: _number("data_location"),
        16: _many("metadata_props"),
    }
)
VALUE = _schema({1: _bytes("name"), 2: _bytes("type"), 3: _bytes("doc_string"), 4: _many("metadata_props")})
TYPE = _schema(
    {
        1: _bytes("tensor_type"),
        4: _bytes("sequence_type"),
        5: _UNUSED,
        6: _bytes("denotation"),
        8: _SPARSE,
        9: _UNUSED,
    }
)
TENSOR_TYPE = _schema({1: _number("elem_type"), 2: _bytes("shape")})
SEQUENCE_TYPE = _schema({1: _bytes("elem_type")})
SHAPE = _schema({1: _many("dim")})
DIMENSION = _schema({1: _number("dim_value"), 2: _bytes("dim_param"), 3: _bytes("denotation")})


class ElementType(IntEnum):
    """Elements of tensors that training graphs have; TensorProto.DataType."""

    FLOAT = 1
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11


ELEMENT_BYTES: Mapping[int, int] = MappingProxyType(
    {
        ElementType.FLOAT: 4,
        ElementType.INT32: 4,
        ElementType.INT64: 8,
        ElementType.BOOL: 1,
        ElementType.FLOAT16: 2,
        ElementType.DOUBLE: 8,
    }
)

STANDARD = ""
MICROSOFT = "com.microsoft"
DOMAINS = frozenset(
    {
        STANDARD,
        "ai.onnx",  # another name of the standard domain
        MICROSOFT,
        # ONNX Runtime declares these in every training graph that it writes; no node may use them.
        "ai.onnx.ml",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "org.pytorch.aten",
    }
)

# What models, losses and gradients are made of: standard operators, and those of ONNX Runtime Training. None
# runs a graph of its own, none reads a file.
_STANDARD_OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum Div Dropout Elu Equal Erf Exp Expand Flatten
    Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool MaxPoolGrad
    MaxUnpool Min Mod Mul Neg Not OneHot Or Pad Pow RNN Range Reciprocal ReduceL2
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Reshape Resize
    Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax
    SoftmaxCrossEntropyLoss Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Tile TopK
    Transpose Trilu Unsqueeze Where Xor
"""

_TRAINING_OPERATORS = """
    AdamWOptimizer BroadcastGradientArgs ConcatTraining ConvGrad DivGrad DropoutGrad FusedMatMul
    GRUGrad GRUTraining GatherElementsGrad GatherGrad GatherNDGrad GeluGrad InPlaceAccumulatorV2
    LSTMGrad LSTMTraining LayerNormalizationGrad LeakyReluGrad LogSoftmaxGrad LogSoftmaxGrad_13
    ReduceSumTraining ReluGrad SGDOptimizerV2 Scale SigmoidGrad SliceGrad
    SoftmaxCrossEntropyLossGrad SoftmaxGrad SoftmaxGrad_13 SplitTraining TanhGrad Trilu
"""

OPERATORS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        STANDARD: _names(_STANDARD_OPERATORS),
        MICROSOFT: _names(_TRAINING_OPERATORS),
    }
)
