"""ONNX models: building, layout, artifacts and the engines that train them."""
