"""What the inputs and outputs of a training step are called; see `models.gradients.train_step`."""

STEP_OPSET = 21
"""The newest that onnxruntime 1.19 knows; one version, so that no rule need know how it used to be."""

LOSS = "loss"

EXAMPLE_WEIGHTS = "example_weights"
"""Of the loss: 1/n each, 0 for one that fills a batch up; float32 (batch, 1 …), of the output's rank."""

GRADIENT_WEIGHTS = "gradient_weights"
"""Of the gradient: the same, or times minus the learning rate when a step is nothing but that."""

NOISE = "noise/"
"""Inputs whose names begin so want numbers uniform in [0, 1): float32 (batch, …), new for every step."""

RATE, CORRECTED_RATE = "learning_rate", "corrected_rate"
"""Scalars: the rate; for AdamW, of step t, rate sqrt(1 - b2^t) / (1 - b1^t)."""

ANCHOR = "anchor/"
"""Before a parameter's name: its value when the training began."""

MOMENTS = "momentum/", "moment1/", "moment2/"
"""Before a parameter's name: what the optimizer remembers of it; zeros at first."""

NEW = "new/"
"""Before an input's name: the output that is this input in the next step."""

BETAS = 0.9, 0.999
"""Decay of the two moments of AdamW (Kingma and Ba 2015, Algorithm 1)."""

EPSILON = 1e-6
"""Floor under AdamW's root, the "epsilon hat" of Kingma and Ba 2015, section 2; ONNX Runtime Training has the
same."""
