"""The bundled data and what it is measured against."""

from importlib.resources import files

import numpy as np
import pytest

from models.artifact import build_bundle, initial_weights
from models.baselines import centralised, local_only
from models.catalog import build_model
from models.errors import DatasetError
from models.watch import CHANNELS, CLASSES, DEVIATION, MEAN, WINDOW, load_watch
from protocol.plan import Training


def test_ten_people_share_all_windows() -> None:
    devices = load_watch("subject")

    assert len(devices) == 10
    assert sum(len(device.x_train) for device in devices) == 2369
    assert sum(len(device.x_test) for device in devices) == 466
    for device in devices:
        assert device.x_train.shape[1:] == device.x_test.shape[1:] == (CHANNELS, WINDOW)
        assert (str(device.x_train.dtype), str(device.y_train.dtype)) == ("float32", "int64")
        assert set(device.y_train) == set(range(CLASSES))


@pytest.mark.parametrize("count", [1, 5, 15, 20, 40, 50])
def test_any_number_of_devices_shares_the_same_windows(count: int) -> None:
    devices = load_watch(count)

    assert len({device.name for device in devices}) == len(devices) == count
    assert sum(len(device.x_train) for device in devices) == 2369
    assert all(len(device.x_train) == len(device.y_train) > 0 for device in devices)
    assert all(len(device.x_test) == len(device.y_test) > 0 for device in devices)


def test_twenty_devices_are_a_person_and_arm_each() -> None:
    by_arm, by_person = load_watch("subject-side"), load_watch("subject")

    for index, person in enumerate(by_person):
        left, right = by_arm[2 * index : 2 * index + 2]
        assert np.array_equal(np.concatenate([left.x_train, right.x_train]), person.x_train)


def test_no_training_window_reaches_into_the_test_part() -> None:
    with (
        (files("models") / "data" / "watch25_int8.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        lengths = data["length"].astype(int)
    cuts = lengths - np.round(lengths * 0.25).astype(int)
    windows = ((cuts - WINDOW) // 32 + 1).sum()

    assert sum(len(device.x_train) for device in load_watch()) == windows


def test_the_published_constants_are_those_of_the_training_part() -> None:
    with (
        (files("models") / "data" / "watch25_int8.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        ends = np.cumsum(data["length"].astype(int))
        recordings = np.split(data["x"].astype(float), ends[:-1])
    training = np.concatenate([each[: len(each) - round(len(each) / 4)] for each in recordings])

    np.testing.assert_allclose(training.mean(axis=0), MEAN, atol=0.06)
    np.testing.assert_allclose(training.std(axis=0), DEVIATION, atol=0.06)


@pytest.mark.parametrize("count", [0, 51, "person"])
def test_an_impossible_split_is_refused(count: int) -> None:
    with pytest.raises(DatasetError, match="1 to 50"):
        load_watch(count)


def test_pooled_data_beats_a_device_on_its_own() -> None:
    model = build_model("cnn1d", {"channels": CHANNELS, "window": WINDOW, "classes": CLASSES}, seed=1)
    bundle = build_bundle(model, Training(loss="cross_entropy", optimizer="sgd"))
    devices = load_watch("subject")[:4]
    arguments = (bundle, initial_weights(model), devices, Training())

    together = centralised(*arguments, epochs=8, seed=1)
    alone = local_only(*arguments, epochs=8, seed=1)

    assert 1 / CLASSES < alone < together <= 1
