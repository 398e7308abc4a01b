"""Blobs are there whole, under their hash, or not at all."""

import os
import random
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from runtime.blobs import BlobStore, DamagedBlobError, MissingBlobError


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "state" / "blobs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "blobs"


@pytest.mark.parametrize("data", [b"", b"update", bytearray(b"update"), memoryview(b"an update")[3:]])
def test_what_was_put_is_got_by_its_hash(store: BlobStore, data: bytes) -> None:
    digest = store.put(data)
    assert digest == sha256(data).digest()
    assert store.get(digest) == data


def test_the_name_is_the_hash_and_the_owner_alone_reads_it(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"update")
    (file,) = folder.iterdir()
    assert file.name == digest.hex()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_content_is_synced_before_it_has_its_name_and_its_name_after(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync content")
        sync(descriptor)

    def note_rename(old: Path, new: Path) -> Path:
        steps.append("rename")
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    store.put(b"update")
    assert steps == ["sync content", "rename", "sync folder"]
    steps.clear()
    store.put(b"update")  # whole, but who put it may have died before its name was durable
    assert steps == ["sync folder"]


def test_content_that_is_there_is_not_written_again(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"update")
    before = (folder / digest.hex()).stat()
    assert store.put(b"update") == digest
    after = (folder / digest.hex()).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("damage", [b"", b"upd", b"updatE", b"update and more"])
def test_a_damaged_blob_is_refused_and_replaced_by_the_next_put(
    store: BlobStore, folder: Path, damage: bytes
) -> None:
    digest = store.put(b"update")
    (folder / digest.hex()).write_bytes(damage)
    with pytest.raises(DamagedBlobError, match=rf"{digest.hex()} does not .* Restore"):
        store.get(digest)
    assert (folder / digest.hex()).read_bytes() == damage
    assert store.put(b"update") == digest
    assert store.get(digest) == b"update"


def test_a_missing_blob_is_named(store: BlobStore) -> None:
    with pytest.raises(MissingBlobError, match=rf"{'07' * 32} is missing\. Restore"):
        store.get(b"\7" * 32)


def test_delete_forgets_and_may_come_twice(store: BlobStore) -> None:
    digest = store.put(b"update")
    store.delete(digest)
    store.delete(digest)
    with pytest.raises(MissingBlobError):
        store.get(digest)


def test_the_sweep_leaves_what_is_named_and_files_of_others(store: BlobStore, folder: Path) -> None:
    kept, _dropped = store.put(b"kept"), store.put(b"dropped")
    (folder / ".new-abc123").write_bytes(b"cut off")
    (folder / "README").write_text("somebody's")
    store.keep_only({kept, b"\7" * 32})
    assert {file.name for file in folder.iterdir()} == {kept.hex(), "README"}


def test_blobs_survive_a_restart(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"update")
    assert BlobStore(folder).get(digest) == b"update"


def test_a_refusing_disk_leaves_nothing(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space"):
            store.put(b"update")
    assert list(folder.iterdir()) == []
    assert store.get(store.put(b"update")) == b"update"


def test_threads_may_put_the_same_content_at_once(store: BlobStore, folder: Path) -> None:
    contents = [random.Random(seed).randbytes(100_000) for seed in range(5)]
    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(store.put, contents * 20))
        assert list(threads.map(store.get, digests)) == contents * 20
    assert {file.name for file in folder.iterdir()} == {sha256(data).hexdigest() for data in contents}


PUT_FOR_EVER = """
import itertools, sys
from pathlib import Path
from runtime.blobs import BlobStore

store = BlobStore(Path(sys.argv[1]))
for number in itertools.count():
    print(store.put(number.to_bytes(8) * 50_000).hex(), flush=True)
"""


def test_a_kill_leaves_whole_blobs_and_what_the_sweep_removes(store: BlobStore, folder: Path) -> None:
    for lines in (1, 5, 23):
        with subprocess.Popen(
            [sys.executable, "-c", PUT_FOR_EVER, folder], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            put = [bytes.fromhex(child.stdout.readline()) for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
        named = [bytes.fromhex(file.name) for file in folder.iterdir() if not file.name.startswith(".")]
        assert set(put) <= set(named)
        for digest in named:
            store.get(digest)
        store.keep_only(put)
        assert {file.name for file in folder.iterdir()} == {digest.hex() for digest in put}
