"""The agent program: offers a device, trains on it, sends masked updates."""
