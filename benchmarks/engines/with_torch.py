"""`python -m benchmarks.engines.with_torch CASE`: the same models in PyTorch, one thread. Needs torch alone.

Prints JSON: microseconds of a step.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.engines.cases import RATE, Case, case_of, microseconds


class Last(nn.Module):
    """A recurrent layer over (batch, channels, window): the last state."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        """(batch, hidden)."""
        return self.layer(x.transpose(1, 2))[0][:, -1]


def network(case: Case) -> Any:
    """What `models.catalog` builds, in PyTorch's words."""
    if case.dense:
        layers = [
            part
            for into, out, relu in case.dense
            for part in (nn.Linear(into, out), *([nn.ReLU()] if relu else []))
        ]
        return nn.Sequential(*layers)
    return nn.Sequential(*_LAYERS[case.model]())


def _conv1d(into: int, out: int, stride: int = 1, groups: int = 1) -> Any:
    return nn.Conv1d(into, out, 5, stride, 2, groups=groups)


def _cnn1d() -> list[Any]:
    first = [_conv1d(6, 16, 2), nn.ReLU(), _conv1d(16, 16, 2), nn.ReLU(), _conv1d(16, 16), nn.ReLU()]
    return [*first, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 7)]


def _dscnn1d() -> list[Any]:
    layers = [_conv1d(6, 32, 2), nn.ReLU()]
    for _ in range(3):
        layers += [_conv1d(32, 32, 1 if len(layers) > 2 else 2, groups=32), nn.Conv1d(32, 32, 1), nn.ReLU()]
    return [*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 7)]


def _cnn2d() -> list[Any]:
    first = [nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
    return [*first, *second, nn.Flatten(), nn.Linear(784, 10)]


_LAYERS: dict[str, Callable[[], list[Any]]] = {
    "cnn1d": _cnn1d,
    "cnn2d": _cnn2d,
    "dscnn1d": _dscnn1d,
    "gru": lambda: [Last(nn.GRU(6, 32, batch_first=True)), nn.Linear(32, 7)],
    "lstm": lambda: [Last(nn.LSTM(6, 32, batch_first=True)), nn.Linear(32, 7)],
}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = case_of(sys.argv[1])
    model, x = network(case), torch.randn(case.batch, *case.shape)
    y = x if case.loss == "mse" else torch.randint(0, case.outputs, (case.batch,))
    judge = nn.MSELoss() if case.loss == "mse" else nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            judge(model(x), y).backward()
            optimizer.step()

    print(json.dumps({"us": microseconds(run)}))


if __name__ == "__main__":
    main()
