"""Data sets that are not part of this project, fetched when they are first wanted and known by their hash."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER_VARIABLE = "FEDFLEET_BENCHMARK_DATA"


def default_folder() -> Path:
    """Where data sets are kept unless the command line says otherwise."""
    return Path(os.environ.get(FOLDER_VARIABLE, "benchmark-data"))


def read_all(folder: Path, hashes: Mapping[str, str], download: Callable[[Path], None]) -> list[bytes]:
    """Contents of some files of a data set, in order; what is missing is fetched first.

    Args:
        folder: keeps them.
        hashes: SHA-256 by file name.
        download: puts one .tar.gz or .tgz, which holds all of them in some folder, into an empty folder.

    Raises:
        SystemExit: a file cannot be had, or is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).is_file() for name in hashes):
        with TemporaryDirectory(dir=folder) as scratch:
            download(Path(scratch))
            _take(next(Path(scratch).glob("*.t*gz")), folder, hashes)
    return [_checked(folder / name, digest) for name, digest in hashes.items()]


def npm_package(name: str) -> Callable[[Path], None]:
    """Download "name@version" with npm; nothing of it is run."""
    return lambda folder: _run(["npm", "pack", "--silent", name], folder)


def python_package(requirement: str, digest: str) -> Callable[[Path], None]:
    """Download the source package "name==version" with pip, which runs its setup.py: hence the hash."""

    def download(folder: Path) -> None:
        (folder / "wanted.txt").write_text(f"{requirement} --hash=sha256:{digest}\n", encoding="ascii")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        _run([*pip, "--requirement", "wanted.txt"], folder)

    return download


def _run(command: list[str], folder: Path) -> None:
    print(f"fetching: {' '.join(command)}", file=sys.stderr, flush=True)
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"the data set cannot be fetched: {error}") from error


def _take(archive: Path, folder: Path, hashes: Mapping[str, str]) -> None:
    """Write the wanted files, by their last name; an archive's own paths decide nothing."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name in hashes and (file := tar.extractfile(member)) is not None:
                (folder / name).write_bytes(file.read())


def _checked(file: Path, digest: str) -> bytes:
    if not file.is_file():
        raise SystemExit(f"the package held no {file.name}")
    data = file.read_bytes()
    if sha256(data).hexdigest() != digest:
        raise SystemExit(f"{file} has another SHA-256 than the published file; delete it and try again")
    return data
