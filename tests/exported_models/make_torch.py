"""Writes the PyTorch models of this folder; needs torch, onnx and onnxscript.

`name.onnx` by the TorchScript exporter, `name_dynamo.onnx` by the newer one.
"""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

HERE = Path(__file__).parent


class View(nn.Module):
    """Flattens by what the batch is when it runs: Shape, Gather, Concat and Reshape in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), -1)


class Recurrent(nn.Module):
    """First states made for the batch at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0][:, -1])


class Tied(nn.Module):
    """Encoder and decoder share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.weight.T) @ self.weight


class Half(nn.Module):
    """A layer in another precision, converted there and back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5).double(), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x.double())).float())


class Two(nn.Module):
    """Scores and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head, self.side = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inner = torch.relu(self.trunk(x))
        return self.head(inner), self.side(inner)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.MaxPool1d(2),
        View(),
        nn.Dropout(0.1),
        nn.Linear(4 * 8, 3),
    )


MODELS = {
    "torch_mlp_softmax": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1)),
        (4,),
    ),
    "torch_mlp_sigmoid": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1), nn.Sigmoid()),
        (4,),
    ),
    "torch_conv": (convolutions, (3, 16)),
    "torch_gru": (Recurrent, (7, 3)),
    "torch_tied": (Tied, (6,)),
    "torch_double": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double(), (4,)),
    "torch_half": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).half(), (4,)),
    "torch_mixed": (Half, (4,)),
    "torch_two_outputs": (Two, (4,)),
    "torch_norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 3)), (4,)),
}


def main() -> None:
    """Write them all, and one whose batch was forgotten."""
    warnings.simplefilter("ignore")
    for name, (make, shape) in MODELS.items():
        torch.manual_seed(1)
        model = make()
        x = torch.randn(2, *shape, dtype=next(model.parameters()).dtype)
        outputs = ["scores", "embedding"] if name == "torch_two_outputs" else ["scores"]
        export(model.eval(), x, name, outputs)
    torch.manual_seed(1)
    torch.onnx.export(
        nn.Linear(4, 3),
        (torch.randn(1, 4),),
        HERE / "torch_fixed_batch.onnx",
        input_names=["x"],
        dynamo=False,
    )


def export(model: nn.Module, x: torch.Tensor, name: str, outputs: list[str]) -> None:
    """Both ways."""
    axes = {each: {0: "batch"} for each in ["x", *outputs]}
    common = {"input_names": ["x"], "output_names": outputs}
    torch.onnx.export(
        model, (x,), HERE / f"{name}.onnx", dynamic_axes=axes, opset_version=17, dynamo=False, **common
    )
    batch = torch.export.Dim("batch", min=1, max=65_536)
    torch.onnx.export(
        model,
        (x,),
        HERE / f"{name}_dynamo.onnx",
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
        **common,
    )
    forget_paths(HERE / f"{name}_dynamo.onnx")


def forget_paths(file: Path) -> None:
    """Each node says from which line on whose disk it came."""
    model = onnx.load(file)
    for node in model.graph.node:
        kept = [each for each in node.metadata_props if "stack_trace" not in each.key]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(model, file)


if __name__ == "__main__":
    main()
