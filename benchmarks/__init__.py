"""Benchmarks: timing and memory, never assertions. Run each with `python -m benchmarks.NAME`."""
