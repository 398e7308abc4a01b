"""Bugs planted into the real programs, to see that the simulator sees them.

Each is a patch that is in place while one simulation runs. `python -m planted` looks for the first seed whose
schedule shows each of them, and writes the table `tests/simulator/PLANTED.md`.
"""
