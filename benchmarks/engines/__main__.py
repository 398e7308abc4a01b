"""Microseconds of a training step of every catalog model, one thread: our engines, numpy, PyTorch in one run.

    python -m benchmarks.engines [--stock PYTHON] [--torch PYTHON] [--turns 3] [--json] [--catalog]

PYTHON are interpreters with this project and plain onnxruntime, and with torch. Each measurement is a process
of its own; the turns go round, and the least of each counts: a shared machine only ever adds.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.engines.cases import CASES, Case
from models.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--stock", help="interpreter with plain onnxruntime")
    parser.add_argument("--torch", help="interpreter with torch")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--case", action="append", help="only these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--catalog", action="store_true", help="write models/catalog/README.md, too")
    chosen = parser.parse_args()
    rows = [
        _row(case, _columns(case, chosen.stock, chosen.torch), chosen.turns)
        for case in CASES
        if not chosen.case or case.name in chosen.case
    ]
    if chosen.catalog:
        (ROOT / "models" / "catalog" / "README.md").write_text(_catalog(rows), encoding="utf-8")
    print(json.dumps({"rows": [asdict(row) for row in rows]}) if chosen.json else _table(rows))


def _columns(case: Case, stock: str | None, torch: str | None) -> dict[str, list[str]]:
    ours = "benchmarks.engines.ours"
    columns = {
        "ort-graph": [sys.executable, "-m", ours, "ort-graph", case.name],
        "ort-training": [sys.executable, "-m", ours, "ort-training", case.name],
    }
    if stock:
        columns["ort-graph, stock"] = [stock, "-m", ours, "ort-graph", case.name]
    if case.dense:
        columns["numpy"] = [sys.executable, "-m", ours, "numpy", case.name]
    if torch:
        columns["torch"] = [torch, "-m", "benchmarks.engines.with_torch", case.name]
    return columns


_CATALOG_HEAD = """\
# The catalog

`model.catalog` of a plan, its sizes as `model.parameters`. Made by `python -m benchmarks.engines --catalog`:
microseconds of a step of so many examples, one thread of the machine that measured, and the most memory of a
process that trains and that has built the model, too. An engine that cannot train a model has no figure.

| model | what it is | sizes | parameters | batch | ort-graph | ort-training | MiB |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        model: of the catalog.
        parameters: numbers that train.
        batch: examples a step.
        us: microseconds of a step, by engine.
        mib: peak memory of the process, by engine.
        ratio: of ort-graph to the better of torch and ort-training.
    """

    model: str
    parameters: int
    batch: int
    us: dict[str, float]
    mib: dict[str, float]
    ratio: float | None


def _row(case: Case, columns: dict[str, list[str]], turns: int) -> Row:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in columns}
    for _ in range(turns):
        for name, command in columns.items():
            if result := _measured(command):
                found[name].append(result)
    best = {name: min(one["us"] for one in results) for name, results in found.items() if results}
    others = [best[name] for name in ("torch", "ort-training") if name in best]
    return Row(
        case.name,
        int(found["ort-graph"][0]["parameters"]),
        case.batch,
        best,
        {name: results[0]["mib"] for name, results in found.items() if results and "mib" in results[0]},
        best["ort-graph"] / min(others) if others else None,
    )


def _measured(command: list[str]) -> dict[str, float] | None:
    """None where this cannot be measured, as an engine that does not know the model."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | threads, check=False
    )
    if result.returncode:
        print(f"{' '.join(command[2:])}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return dict(json.loads(result.stdout.splitlines()[-1]))


def _table(rows: list[Row]) -> str:
    names = ["ort-graph", "ort-graph, stock", "ort-training", "torch", "numpy"]
    lines = [
        f"| model | parameters | batch | {' | '.join(names)} | ratio | MiB |",
        "|---" * (len(names) + 5) + "|",
    ]
    for row in rows:
        figures = " | ".join(f"{row.us[name]:.0f}" if name in row.us else "" for name in names)
        ratio = f"{row.ratio:.2f}" if row.ratio else ""
        memory = f"{row.mib['ort-graph']:.0f}"
        lines.append(f"| {row.model} | {row.parameters:,} | {row.batch} | {figures} | {ratio} | {memory} |")
    return "\n".join(lines)


def _catalog(rows: list[Row]) -> str:
    """What a data scientist chooses by."""
    lines = [_CATALOG_HEAD]
    for row, case in zip(rows, CASES, strict=False):
        sizes = ", ".join(f"{name} {size}" for name, size in case.sizes.items())
        us = [f"{row.us[name]:.0f}" if name in row.us else "" for name in ("ort-graph", "ort-training")]
        cells = [f"`{row.model}`", CATALOG[row.model].description, sizes, f"{row.parameters:,}"]
        cells += [str(row.batch), *us, f"{row.mib['ort-graph']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
