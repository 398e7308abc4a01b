"""The coordinator program: selects devices, runs rounds, keeps the model."""
