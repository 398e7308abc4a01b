"""I/O that both programs share: driver, transfers, identity, settings, logs."""
