"""What federated training is measured against: all data in one place, and every device on its own.

Pure arithmetic on one core, seconds each; run them in processes of their own, beside a federated run.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from models.bundle import Bundle
from models.engines import load_engine
from models.layout import Vector
from models.watch import DeviceData
from protocol.plan import Training


def centralised(
    bundle: Bundle,
    weights: Vector,
    devices: Sequence[DeviceData],
    training: Training,
    *,
    epochs: int = 20,
    seed: int,
) -> float:
    """Accuracy on everyone's test data after training on everyone's training data.

    Args:
        bundle: of the model.
        weights: initial, float32 (d,).
        devices: whose data is pooled.
        training: batch size and learning rate; its epochs are replaced.
        epochs: passes over the pooled data.
        seed: of shuffling.

    Returns:
        In [0, 1].
    """
    x = np.concatenate([device.x_train for device in devices])
    y = np.concatenate([device.y_train for device in devices])
    engine = load_engine(bundle)
    settings = replace(training, local_epochs=epochs, max_examples=len(x), proximal=0.0)
    return _accuracy(bundle, engine.fit(weights, x, y, settings, seed=seed).weights, devices)


def local_only(
    bundle: Bundle,
    weights: Vector,
    devices: Sequence[DeviceData],
    training: Training,
    *,
    epochs: int = 20,
    seed: int,
) -> float:
    """Mean over devices of the accuracy on everyone's test data after training on the own data alone.

    Arguments and return value as for `centralised`. A model that never saw another person is judged on all
    of them, as the federated one is.
    """
    engine = load_engine(bundle)
    settings = replace(training, local_epochs=epochs, proximal=0.0)
    models = [
        engine.fit(weights, device.x_train, device.y_train, settings, seed=seed + index).weights
        for index, device in enumerate(devices)
    ]
    return float(np.mean([_accuracy(bundle, model, devices) for model in models]))


def _accuracy(bundle: Bundle, weights: Vector, devices: Sequence[DeviceData]) -> float:
    x = np.concatenate([device.x_test for device in devices])
    y = np.concatenate([device.y_test for device in devices])
    evaluation = load_engine(bundle).evaluate(weights, x, y)
    return evaluation.correct / evaluation.examples
