"""`python -m console.baselines KIND PLAN DEVICES SEED RESULT`: one baseline in a process of its own.

KIND is "centralised" or "local-only"; the accuracy is written to the file RESULT as JSON.
"""

import json
import sys
from pathlib import Path

from coordinator.artifact import build_artifact
from models.baselines import centralised, local_only
from models.watch import load_watch
from runtime.plan_file import load_plan

KINDS = {"centralised": centralised, "local-only": local_only}


def measure(kind: str, plan_file: Path, devices: int, seed: int) -> float:
    """Accuracy in [0, 1] on everyone's test data, from the same first weights as the federated run."""
    plan = load_plan(plan_file)
    artifact = build_artifact(plan, plan_file.parent, seed)
    return KINDS[kind](artifact.bundle, artifact.weights, load_watch(devices), plan.training, seed=seed)


if __name__ == "__main__":
    Path(sys.argv[5]).write_text(
        json.dumps(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    )
