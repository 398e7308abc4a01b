"""The operator's commands: start what is below, and watch it."""
