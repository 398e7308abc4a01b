"""What a source holds, and whether a model can read it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:  # an agent starts without numpy
    from models.bundle import BundleManifest, Tensor


FAR = 5.0


class ArraySchema(Struct, frozen=True, forbid_unknown_fields=True):
    """One example's array.

    Attributes:
        dtype: "float32" or "int64".
        shape: without the axis of examples.
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(['n', *map(str, self.shape)])})"


class DataSchema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device has; for its owner's eyes.

    Attributes:
        examples: to train on.
        held_out: to evaluate on.
        dropped: rows left out, as something was missing.
        x: the input.
        y: the label or target.
        labels: of each class, how many examples of both parts; empty where the target is no class.
        classes: names of the classes; empty where they are numbers.
        mean: of each feature, where settings could scale it and do not yet; else empty.
        deviation: likewise, 1 for a feature that never changes.
    """

    examples: int
    held_out: int
    dropped: int = 0
    x: ArraySchema
    y: ArraySchema
    labels: Mapping[int, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @property
    def unscaled(self) -> bool:
        """Whether a feature is so far from 0 and 1 that plain gradient steps learn little."""
        return any(
            abs(mean) > FAR or not 1 / FAR <= deviation <= FAR
            for mean, deviation in zip(self.mean, self.deviation, strict=True)
        )


def mismatches(schema: DataSchema, manifest: "BundleManifest") -> list[str]:
    """Why this model cannot train on this data, with a fix each; empty when it can."""
    found = [
        f"{name} is {array}; the model {manifest.model!r} with loss {manifest.loss} takes {_wanted(tensor)}"
        f"; {hint}"
        for name, array, tensor, hint in (
            ("x", schema.x, manifest.input, _input_hint(schema.x, manifest.input)),
            ("y", schema.y, manifest.label, _label_hint(schema.y, manifest.label)),
        )
        if (array.dtype, array.shape) != (tensor.dtype, tensor.shape)
    ]
    classes = manifest.output.shape[-1] if manifest.output.shape else 1
    if manifest.loss == "cross_entropy" and schema.labels:
        lowest, highest = min(schema.labels), max(schema.labels)
        if lowest < 0 or highest >= classes:
            found.append(
                f"labels run from {lowest} to {highest}; the model has {classes} classes, 0 to "
                f"{classes - 1}; change the plan's model, or the labels"
            )
        if schema.classes and len(schema.classes) != classes:
            found.append(
                f"data.classes has {len(schema.classes)} names, the model {classes} classes; write one "
                "for each"
            )
    return found


def _wanted(tensor: "Tensor") -> ArraySchema:
    return ArraySchema(tensor.dtype, tensor.shape)


def _input_hint(array: ArraySchema, tensor: "Tensor") -> str:
    if array.shape != tensor.shape and array.shape[::-1] == tensor.shape:
        return 'set data.axes to the other of "features-first" and "time-first"'
    if len(array.shape) > 1 and len(array.shape) == len(tensor.shape):
        return "set data.window and data.features, or the plan's model, so that they agree"
    if len(array.shape) < len(tensor.shape):
        return "set data.window, or change the plan's model"
    return "change data.features, or the plan's model"


def _label_hint(array: ArraySchema, tensor: "Tensor") -> str:
    if tensor.dtype == "int64":
        return "set data.label to the column with the class (in arrays: integers)"
    if array.dtype == "int64":
        return "set data.targets to the columns with the numbers (in arrays: floats)"
    return "set data.targets, or change the plan's model"
