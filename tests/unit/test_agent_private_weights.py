"""A model's private parameters stay on the device, and nobody fills its disk with them."""

import os
from pathlib import Path

import pytest

from device_agent import private_weights
from device_agent.private_weights import KEPT, PrivateWeights

MODELS = [bytes([number]) * 32 for number in range(KEPT + 1)]


def test_they_are_there_again_and_only_in_their_size(tmp_path: Path) -> None:
    kept = PrivateWeights(tmp_path / "private")
    assert kept.load(MODELS[0], 8) is None

    kept.keep(MODELS[0], b"12345678")

    assert PrivateWeights(tmp_path / "private").load(MODELS[0], 8) == b"12345678"
    assert kept.load(MODELS[0], 12) is None
    assert kept.load(MODELS[1], 8) is None


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    PrivateWeights(tmp_path).keep(MODELS[0], b"1234")

    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_forgotten_ones_begin_again(tmp_path: Path) -> None:
    kept = PrivateWeights(tmp_path)
    kept.keep(MODELS[0], b"1234")

    kept.forget(MODELS[0])
    kept.forget(MODELS[1])

    assert kept.load(MODELS[0], 4) is None


def test_of_many_models_those_used_last_are_kept(tmp_path: Path) -> None:
    kept = PrivateWeights(tmp_path)
    for age, model in enumerate(MODELS):
        kept.keep(model, b"1234")
        os.utime(tmp_path / model.hex(), (age, age))

    assert [model for model in MODELS if kept.load(model, 4)] == MODELS[1:]


def test_of_large_ones_fewer_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_weights, "KEPT_BYTES", 9)
    kept = PrivateWeights(tmp_path)
    for age, model in enumerate(MODELS[:3]):
        kept.keep(model, b"1234")
        os.utime(tmp_path / model.hex(), (age, age))

    assert [model for model in MODELS if kept.load(model, 4)] == MODELS[1:3]


def test_a_disk_that_refuses_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = PrivateWeights(tmp_path / "file")

    kept.keep(MODELS[0], b"1234")
    kept.forget(MODELS[0])

    assert kept.load(MODELS[0], 4) is None
