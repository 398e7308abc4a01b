"""Microseconds of a training step: our engines beside numpy and PyTorch."""
