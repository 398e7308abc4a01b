"""Writes the Keras models of this folder; needs tensorflow and tf2onnx."""

from pathlib import Path

import keras
import tensorflow as tf
import tf2onnx
from keras import layers

HERE = Path(__file__).parent


def mlp() -> list[layers.Layer]:
    return [layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(3, "softmax")]


def yes_or_no() -> list[layers.Layer]:
    return [layers.Dense(8, "tanh"), layers.Dense(1, "sigmoid")]


def pictures() -> list[layers.Layer]:
    return [
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dense(3, "softmax"),
    ]


def windows() -> list[layers.Layer]:
    return [
        layers.Conv1D(4, 3, activation="relu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3, "softmax"),
    ]


def recurrent() -> list[layers.Layer]:
    return [layers.LSTM(4, unroll=False), layers.Dense(2)]


MODELS = {
    "keras_mlp": (mlp, (4,)),
    "keras_sigmoid": (yes_or_no, (4,)),
    "keras_conv2d": (pictures, (8, 8, 1)),
    "keras_conv1d": (windows, (16, 3)),
    "keras_lstm": (recurrent, (7, 3)),
}


def main() -> None:
    """Write them all."""
    for name, (make, shape) in MODELS.items():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input(shape), *make()])
        signature = [tf.TensorSpec((None, *shape), tf.float32, name="x")]
        inference = tf.function(lambda x, model=model: model(x, training=False), input_signature=signature)
        made, _ = tf2onnx.convert.from_function(inference, input_signature=signature, opset=17)
        (HERE / f"{name}.onnx").write_bytes(made.SerializeToString())


if __name__ == "__main__":
    main()
