"""Writes the scikit-learn models of this folder; needs scikit-learn and skl2onnx."""

import warnings
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent


def main() -> None:
    """Fit each on a few made-up rows, and export it as its page tells."""
    warnings.simplefilter("ignore")
    random = np.random.default_rng(1)
    x = random.normal(size=(60, 4)).astype(np.float32)
    three, two, number = x[:, :3].argmax(1), (x[:, 0] > 0).astype(int), x @ random.normal(size=4)
    small = {"hidden_layer_sizes": (6,), "max_iter": 20, "random_state": 1}
    models = {
        "sklearn_logistic": (LogisticRegression(), three, {}),
        "sklearn_logistic_no_zipmap": (LogisticRegression(), three, {"zipmap": False}),
        "sklearn_logistic_two": (LogisticRegression(), two, {}),
        "sklearn_mlp": (MLPClassifier(**small), three, {}),
        "sklearn_mlp_two": (MLPClassifier(**small), two, {"zipmap": False}),
        "sklearn_mlp_regressor": (MLPRegressor(**small), number, {}),
        "sklearn_linear": (LinearRegression(), number, {}),
        "sklearn_scaled": (make_pipeline(StandardScaler(), MLPClassifier(**small)), three, {"zipmap": False}),
    }
    for name, (model, y, options) in models.items():
        model.fit(x, y)
        last = model[-1] if hasattr(model, "steps") else model
        made = to_onnx(model, x[:1], options={id(last): options} if options else None)
        (HERE / f"{name}.onnx").write_bytes(made.SerializeToString())


if __name__ == "__main__":
    main()
