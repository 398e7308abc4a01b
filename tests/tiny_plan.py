"""A plan and data so small that a round takes a fraction of a second."""

import numpy as np
from numpy.typing import NDArray


def plan_text(
    *,
    rounds: int = 2,
    features: int = 4,
    learning_rate: float = 0.1,
    min_cohort: int = 3,
    deadline: float = 60.0,
    aborted_in_a_row: int = 10,
    tables: str = "",
) -> str:
    """A plan for three classes that trains in milliseconds; every phase may last `deadline` seconds.

    `tables` is TOML that is written behind the rest.
    """
    names = ("inviting", "keying", "sharing", "collecting", "confirming", "recovering")
    phases = "\n".join(f"{name} = {deadline}" for name in names)
    return f"""
[model]
catalog = "logistic"
parameters = {{ features = {features}, classes = 3 }}
[training]
learning_rate = {learning_rate}
max_examples = 100
[selection]
fraction = 1.0
over_selection = 1.0
min_cohort = {min_cohort}
[deadlines]
{phases}
[stopping]
rounds = {rounds}
aborted_in_a_row = {aborted_in_a_row}
{tables}"""


def examples(seed: int, count: int, features: int = 4) -> dict[str, NDArray[np.generic]]:
    """Three well separated clouds: arrays for one `.npz` file, a fifth more of them to judge on."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count + max(1, count // 5))
    points = np.zeros((labels.size, features), np.float32)
    points[np.arange(labels.size), labels] = 2.0
    points += random.normal(0, 0.3, points.shape).astype(np.float32)
    return {"x": points[:count], "y": labels[:count], "x_test": points[count:], "y_test": labels[count:]}
