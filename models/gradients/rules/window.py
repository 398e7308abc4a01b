"""The windows that convolutions and pooling slide over the axes behind batch and channel."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from models.gradients.graph import Node, StepGraph


class Window(NamedTuple):
    """Where a window stands; each field has one entry for each axis.

    Attributes:
        kernel: elements that a window reads.
        strides: from one window to the next.
        dilations: from one element of a window to the next.
        before: padding at the start of the axis.
        after: padding at its end.
        sizes: length of the axis that is read.
        counts: windows along it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, step: StepGraph, node: Node, kernel: Sequence[int]) -> "Window":
        """Read the attributes that Conv, MaxPool and AveragePool share.

        Raises:
            ModelError: a length is not fixed; or ONNX Runtime itself cannot do it.
        """
        if "SAME" in node.attributes.get("auto_pad", "") and set(node.attributes.get("dilations", [1])) != {
            1
        }:
            raise node.error("ONNX Runtime knows no auto_pad SAME with dilations; give pads")
        sizes, counts = step.sizes(node.inputs[0])[1:], step.sizes(node.outputs[0])[1:]
        ones = [1] * len(kernel)
        strides = tuple(node.attributes.get("strides", ones))
        dilations = tuple(node.attributes.get("dilations", ones))
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        needed = [
            max((count - 1) * stride + one - size, 0)
            for count, stride, one, size in zip(counts, strides, reach, sizes, strict=True)
        ]
        before, after = _pads(node, needed)
        return cls(tuple(kernel), strides, dilations, before, after, sizes, counts)

    def exchanged(self) -> "Window":
        """That of the operator which goes the other way."""
        return self._replace(sizes=self.counts, counts=self.sizes)

    def turned(self) -> list[int]:
        """The padding of the window that goes back over what this one gave, strides being 1."""
        reach = [(size - 1) * far for size, far in zip(self.kernel, self.dilations, strict=True)]
        return [far - pad for pad, far in zip(self.pads, reach * 2, strict=True)]

    @property
    def pads(self) -> list[int]:
        """As ONNX writes them: all starts, then all ends."""
        return [*self.before, *self.after]

    @property
    def rest(self) -> list[int]:
        """Padded elements at the end of each axis that no window reads."""
        return [
            before + size + after - (count - 1) * stride - (kernel - 1) * dilation - 1
            for kernel, stride, dilation, before, after, size, count in zip(*self, strict=True)
        ]

    def padded(self, step: StepGraph, value: str, first: int, behind: int = 0) -> str:
        """`value` with zeros around the axes from `first` on, but for the last `behind`."""
        if not any(self.pads):
            return value
        front, back = [0] * first, [0] * behind
        pads = *front, *self.before, *back, *front, *self.after, *back
        return step.node("Pad", value, step.integers(*pads))

    def taps(self, step: StepGraph, value: str, first: int) -> list[str]:
        """For each element of the window, last axis fastest: what all windows read there.

        Args:
            step: the graph.
            value: padded; any axes before and behind those that the window slides over.
            first: of those.
        """
        if not any([*self.rest, *(size - 1 for size in (*self.kernel, *self.strides))]):
            return [value]
        axes = step.integers(*range(first, first + len(self.kernel)))
        steps = step.integers(*self.strides)
        return [
            step.node("Slice", value, step.integers(*starts), step.integers(*self._ends(starts)), axes, steps)
            for starts in product(
                *(range(0, size * far, far) for size, far in zip(self.kernel, self.dilations, strict=True))
            )
        ]

    def _ends(self, starts: Sequence[int]) -> list[int]:
        return [
            start + (count - 1) * stride + 1
            for start, count, stride in zip(starts, self.counts, self.strides, strict=True)
        ]


def _pads(node: Node, needed: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """SAME_UPPER puts an odd element of the padding that is needed at the end, SAME_LOWER at the start."""
    kind, rank = node.attributes.get("auto_pad", "NOTSET"), len(needed)
    if kind in {"SAME_UPPER", "SAME_LOWER"}:
        less, more = tuple(size // 2 for size in needed), tuple(size - size // 2 for size in needed)
        return (less, more) if kind == "SAME_UPPER" else (more, less)
    pads = node.attributes.get("pads", [0] * 2 * rank) if kind == "NOTSET" else [0] * 2 * rank
    return tuple(pads[:rank]), tuple(pads[rank:])
