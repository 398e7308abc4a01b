"""Ready forward graphs, one module each."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from msgspec import Struct

from models.bounds import MAX_PARAMETERS
from models.catalog import autoencoder, cnn1d, cnn2d, depthwise, gru, logistic, lstm, mlp
from models.errors import ModelError


class CatalogModel(Struct, frozen=True):
    """One kind of model.

    Attributes:
        description: one line for people.
        build: keyword sizes and `random` to a forward model; its signature says which sizes there are.
    """

    description: str
    build: Callable[..., onnx.ModelProto]

    @property
    def sizes(self) -> dict[str, int | None]:
        """Each size with its default; None where one must be given."""
        parameters = inspect.signature(self.build).parameters.values()
        return {
            each.name: None if each.default is each.empty else int(each.default)
            for each in parameters
            if each.name != "random"
        }


CATALOG: Mapping[str, CatalogModel] = MappingProxyType(
    {
        "logistic": CatalogModel("one dense layer over features", logistic.build),
        "mlp": CatalogModel("ReLU layers of equal width over features", mlp.build),
        "cnn1d": CatalogModel("1-D convolutions over a window of sensor channels", cnn1d.build),
        "dscnn1d": CatalogModel(
            "depthwise separable 1-D convolutions over a window of sensor channels", depthwise.build
        ),
        "cnn2d": CatalogModel("small 2-D convolutions over an image", cnn2d.build),
        "gru": CatalogModel("a GRU over a window of sensor channels", gru.build),
        "lstm": CatalogModel("an LSTM over a window of sensor channels", lstm.build),
        "autoencoder": CatalogModel(
            "compresses features and restores them; use the loss mse", autoencoder.build
        ),
    }
)


def build_model(name: str, parameters: Mapping[str, int], seed: int) -> onnx.ModelProto:
    """Build a catalog model with its initial weights.

    Args:
        name: a key of `CATALOG`.
        parameters: its sizes, each >= 1.
        seed: of the initial weights; equal arguments give equal bytes.

    Raises:
        ModelError: unknown name, unknown or missing size, or a size out of range; names what is allowed.
    """
    if name not in CATALOG:
        raise ModelError(f"there is no catalog model {name!r}; choose one of {', '.join(CATALOG)}")
    model = CATALOG[name]
    _check_sizes(name, model.sizes, parameters)
    try:
        return model.build(**parameters, random=np.random.default_rng(seed))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"model {name!r} cannot have the sizes {dict(parameters)}: {error}") from error


def _check_sizes(name: str, sizes: Mapping[str, int | None], given: Mapping[str, int]) -> None:
    allowed = ", ".join(
        size if default is None else f"{size} (default {default})" for size, default in sizes.items()
    )
    missing = {size for size, default in sizes.items() if default is None} - given.keys()
    if unknown := given.keys() - sizes.keys():
        raise ModelError(f"model {name!r} has no parameter {sorted(unknown)}; it takes {allowed}")
    if missing:
        raise ModelError(f"model {name!r} needs the parameter {sorted(missing)}; it takes {allowed}")
    for size, value in given.items():
        if not 1 <= value <= MAX_PARAMETERS:
            raise ModelError(f"model {name!r}: {size} = {value} must be between 1 and {MAX_PARAMETERS}")
